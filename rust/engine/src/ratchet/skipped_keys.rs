//! Skipped message keys (Double Ratchet §3.5), kept as seeds: the message keys are made when they are needed.

use serde::{Deserialize, Serialize};

use crate::limits::MAX_SKIPPED_KEYS;
use crate::secret::Secret;

/// Seeds of messages that were jumped over, oldest first; the oldest goes when there are too many.
///
/// A vector that grows or shifts leaves copies behind. Here seeds are copied to a larger one, the old ones zeroed, and
/// what goes is rotated to the end and taken out by zeroing it.
#[derive(Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct SkippedKeys(Vec<(u32, Secret<32>)>);

impl SkippedKeys {
    /// Keeps the seed of message `index`, which is later than every one before.
    pub(crate) fn push(&mut self, index: u32, seed: Secret<32>) {
        if self.0.len() == MAX_SKIPPED_KEYS {
            self.0.rotate_left(1);
            self.0[MAX_SKIPPED_KEYS - 1] = (index, seed);
            return;
        }
        if self.0.len() == self.0.capacity() {
            self.reserve(1);
        }
        self.0.push((index, seed));
    }

    /// Makes room for `more` in one go, the oldest leaving, so that a long jump moves the rest once.
    pub(crate) fn reserve(&mut self, more: usize) {
        let excess = (self.0.len() + more).saturating_sub(MAX_SKIPPED_KEYS).min(self.0.len());
        let needed = self.0.len() - excess + more.min(MAX_SKIPPED_KEYS);
        if needed <= self.0.capacity() && excess == 0 {
            return;
        }
        let mut roomier = Vec::with_capacity(needed.max(2 * (self.0.len() - excess)).min(MAX_SKIPPED_KEYS));
        roomier.extend(self.0[excess..].iter().map(|(index, seed)| (*index, seed.duplicate())));
        self.0 = roomier;
    }

    /// Whether message `index` was jumped over and not yet opened.
    pub(crate) fn contains(&self, index: u32) -> bool {
        self.find(index).is_some()
    }

    /// A copy of the seed of message `index`, which stays.
    pub(crate) fn peek(&self, index: u32) -> Option<Secret<32>> {
        Some(self.0[self.find(index)?].1.duplicate())
    }

    /// Takes the seed of message `index` out.
    pub(crate) fn take(&mut self, index: u32) -> Option<Secret<32>> {
        let at = self.find(index)?;
        self.0[at..].rotate_left(1);
        let seed = self.0.last_mut().map(|(_, seed)| std::mem::take(seed));
        self.0.pop();
        seed
    }

    fn find(&self, index: u32) -> Option<usize> {
        self.0.binary_search_by_key(&index, |(i, _)| *i).ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Counters and seeds, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Secret<32>)> {
        self.0.iter().map(|(counter, seed)| (*counter, seed))
    }

    /// A second owner of the same seeds: for a scratch copy.
    pub(crate) fn duplicate(&self) -> Self {
        Self(self.0.iter().map(|(index, seed)| (*index, seed.duplicate())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_evicted() {
        let mut keys = SkippedKeys::default();
        for index in 0..MAX_SKIPPED_KEYS as u32 + 3 {
            keys.push(index, Secret::copy_of(&[index as u8; 32]));
        }
        assert!(!keys.contains(2) && keys.contains(3));
        keys.reserve(2);
        assert!(!keys.contains(4) && keys.contains(5));
        assert_eq!(keys.peek(200).unwrap().expose(), &[200; 32]);
        assert_eq!(keys.take(200).unwrap().expose(), &[200; 32]);
        assert!(keys.take(200).is_none() && keys.contains(199) && keys.contains(201));
    }

    #[test]
    fn a_jump_of_the_whole_room_evicts_everything() {
        let mut keys = SkippedKeys::default();
        keys.push(1, Secret::default());
        keys.reserve(MAX_SKIPPED_KEYS);
        assert!(keys.is_empty());
    }
}
