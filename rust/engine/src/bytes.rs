//! The large memory of calls, kept from one call to the next.
//!
//! An allocator gives a call's megabytes back to the system when the call is over, and they come back a page fault at a
//! time: a third of what a warm message costs.

use std::collections::{TryReserveError, VecDeque};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use zeroize::optimization_barrier;

use crate::limits::{MAX_KEPT_MEMORY, MIN_KEPT_MEMORY};

/// Bytes of a call, zeroed when dropped unless they are [`Bytes::shared`]. Their memory serves a later call.
#[derive(Default)]
pub struct Bytes {
    bytes: Vec<u8>,
    shared: bool,
}

impl Bytes {
    /// None yet, with memory for `capacity`.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: take(capacity).unwrap_or_else(|| Vec::with_capacity(rounded(capacity))), shared: false }
    }

    /// As [`Bytes::with_capacity`], for sizes that come from outside.
    ///
    /// # Errors
    /// There is not that much memory.
    pub fn try_with_capacity(capacity: usize) -> Result<Self, TryReserveError> {
        let mut bytes = take(capacity).unwrap_or_default();
        bytes.try_reserve_exact(if bytes.capacity() < capacity { rounded(capacity) } else { 0 })?;
        Ok(Self { bytes, shared: false })
    }

    /// `length` bytes of whatever calls before left there: for who writes all of them.
    pub fn to_be_written(length: usize) -> Self {
        let mut bytes = lent(length).unwrap_or_else(|| Vec::with_capacity(rounded(length)));
        bytes.resize(length, 0);
        Self { bytes, shared: false }
    }

    /// Ends after `length` bytes; what was behind them is zeroed where it is nobody else's.
    pub(crate) fn end_at(&mut self, length: usize) {
        if !self.shared {
            self.bytes[length..].fill(0);
            optimization_barrier(&self.bytes[..]);
        }
        self.bytes.truncate(length);
    }

    /// `length` zeroes.
    pub fn zeroes(length: usize) -> Self {
        let mut bytes = Self::with_capacity(length);
        bytes.bytes.resize(length, 0);
        bytes
    }

    /// Memory for `more` bytes. A `Vec` that grows by itself leaves what it held in freed memory; here the old memory is
    /// zeroed.
    pub fn reserve(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            let mut roomier = Self::with_capacity(needed.max(2 * self.bytes.capacity()));
            roomier.bytes.extend_from_slice(&self.bytes);
            roomier.shared = self.shared;
            *self = roomier;
        }
    }

    /// The caller has these bytes too: zeroing ours would hide nothing.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }
}

impl Deref for Bytes {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

/// [`Bytes::to_be_written`] whose length is not known from the start: they are written from the front on.
#[derive(Default)]
pub(crate) struct Growing {
    bytes: Bytes,
    written: usize,
}

impl Growing {
    /// None yet, with room for `bytes`.
    pub(crate) fn with_room(bytes: usize) -> Self {
        Self { bytes: Bytes::to_be_written(bytes), written: 0 }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.written
    }

    /// The next `length` bytes, for who writes all of them.
    pub(crate) fn next(&mut self, length: usize) -> &mut [u8] {
        let begin = self.written;
        self.written += length;
        if self.written > self.bytes.len() {
            let mut roomier = Bytes::to_be_written(self.written.max(2 * begin));
            roomier[..begin].copy_from_slice(&self.bytes[..begin]);
            self.bytes = roomier;
        }
        &mut self.bytes[begin..self.written]
    }

    /// All of them.
    pub(crate) fn written(mut self) -> Bytes {
        self.bytes.truncate(self.written);
        self.bytes
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        if !self.shared {
            self.bytes.fill(0);
            optimization_barrier(&self.bytes[..]);
        }
        keep(std::mem::take(&mut self.bytes));
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Bytes {}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.bytes.len())
    }
}

/// Memory that no call has now, the oldest first.
#[derive(Default)]
struct Kept {
    memory: VecDeque<Vec<u8>>,
    bytes: usize,
}

// Never waited for: who finds it taken asks the allocator. So a child forked while it was taken does not hang.
static KEPT: Mutex<Kept> = Mutex::new(Kept { memory: VecDeque::new(), bytes: 0 });

/// Kept memory for `capacity` bytes, empty.
fn take(capacity: usize) -> Option<Vec<u8>> {
    let mut memory = lent(capacity)?;
    memory.clear();
    Some(memory)
}

/// The same as it was left.
fn lent(capacity: usize) -> Option<Vec<u8>> {
    if capacity < MIN_KEPT_MEMORY {
        return None;
    }
    KEPT.try_lock().ok()?.take(capacity)
}

/// Large sizes in steps, so that calls of about one size find each other's memory.
fn rounded(capacity: usize) -> usize {
    match capacity {
        0..MIN_KEPT_MEMORY => capacity,
        _ => capacity.checked_next_multiple_of(MIN_KEPT_MEMORY).unwrap_or(capacity),
    }
}

fn keep(memory: Vec<u8>) {
    if (MIN_KEPT_MEMORY..=MAX_KEPT_MEMORY).contains(&memory.capacity())
        && let Ok(mut kept) = KEPT.try_lock()
    {
        kept.keep(memory);
    }
}

impl Kept {
    /// The smallest that is large enough, unless more than half of it would lie idle.
    fn take(&mut self, capacity: usize) -> Option<Vec<u8>> {
        let large_enough = self.memory.iter().enumerate().filter(|(_, memory)| memory.capacity() >= capacity);
        let (at, _) = large_enough
            .min_by_key(|(_, memory)| memory.capacity())
            .filter(|(_, memory)| memory.capacity() / 2 <= capacity)?;
        let memory = self.memory.remove(at)?;
        self.bytes -= memory.capacity();
        Some(memory)
    }

    fn keep(&mut self, memory: Vec<u8>) {
        self.bytes += memory.capacity();
        self.memory.push_back(memory);
        while self.bytes > MAX_KEPT_MEMORY {
            self.bytes -= self.memory.pop_front().map_or(self.bytes, |oldest| oldest.capacity());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back() {
        let mut kept = Kept::default();
        for capacity in [1 << 20, 1 << 17, 1 << 18] {
            kept.keep(Vec::with_capacity(capacity));
        }
        assert_eq!(kept.take(100_000).map(|memory| memory.capacity()), Some(1 << 17));
        assert_eq!(kept.take(100_000).map(|memory| memory.capacity()), None, "a quarter of a megabyte is too much");
        assert_eq!(kept.take(1 << 20).map(|memory| memory.capacity()), Some(1 << 20));
        assert_eq!(kept.bytes, 1 << 18);
    }

    #[test]
    fn the_oldest_is_given_up() {
        let mut kept = Kept::default();
        for _ in 0..3 {
            kept.keep(Vec::with_capacity(MAX_KEPT_MEMORY / 2));
        }
        assert_eq!((kept.memory.len(), kept.bytes), (2, MAX_KEPT_MEMORY));
    }

    #[test]
    fn secrets_do_not_come_back() {
        let mut secret = Bytes::zeroes(MIN_KEPT_MEMORY);
        secret.fill(7);
        let memory = secret.as_ptr();
        drop(secret);
        // Another test may have taken it meanwhile.
        let mut again = Bytes::with_capacity(MIN_KEPT_MEMORY);
        if again.as_ptr() == memory {
            assert!(again.is_empty());
            again.resize(MIN_KEPT_MEMORY, 0);
        }
        assert!(again.iter().all(|&byte| byte == 0));
    }
}
