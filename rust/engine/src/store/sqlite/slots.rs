//! Where the journal's blocks lie. A block that is folded leaves its *slot*, a row of the journal's table, to one of about
//! its size that comes later: that one is written over it, which SQLite does in place where both are as long. So a commit
//! writes the pages of its block and no others: deleting and inserting a row touches ten more, of free lists, of maps and of
//! neighbours, and wipes pages that are not needed again at once.
//!
//! Blocks are therefore filled up with zeros to a few lengths: powers of two below a page, then whole pages, and above
//! eight of these about eight to a doubling.
//!
//! What is chosen in a transaction is the block's when that has succeeded ([`Slots::settle`]), and free again where it has
//! not ([`Slots::undo`]).

use std::collections::{BTreeMap, VecDeque};
use std::mem::take;

/// Bytes of a page that a long value fills.
const OF_A_PAGE: usize = super::PAGE_BYTES as usize - 4;

/// Bytes of the first page that are not the block's: of the page, of the row, of the block's number.
const OTHERS: usize = 64;

/// Bytes of the smallest slot.
const LEAST: usize = 256;

/// A row of the journal's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Its key. 0: it is yet to be made.
    pub(super) number: i64,
    pub(super) bytes: usize,
    /// The number of the block that is in it, or was.
    pub(super) sequence: u64,
}

/// All slots.
#[derive(Default)]
pub(super) struct Slots {
    /// Those with blocks that are not folded, by their numbers.
    used: VecDeque<Slot>,
    /// The others, by their bytes.
    free: BTreeMap<usize, Vec<Slot>>,
    /// Chosen by a transaction that has not ended: what they were, and what they will be.
    chosen: Vec<(Slot, Slot)>,
    /// The last block that was folded when the journal was last frozen: slots that are free for so long are not needed.
    outdated: u64,
}

/// Bytes of the slot for a block of so many.
pub(super) fn bytes_for(block: usize) -> usize {
    let pages = (block + OTHERS).div_ceil(OF_A_PAGE);
    let step = (pages.next_power_of_two() / 8).max(1);
    let whole = pages.next_multiple_of(step) * OF_A_PAGE - OTHERS;
    if pages > 1 { whole } else { block.next_power_of_two().clamp(LEAST, whole) }
}

impl Slots {
    /// Those that a store has; of its blocks, those up to `folded` are.
    pub(super) fn of(mut found: Vec<Slot>, folded: u64) -> Self {
        found.sort_unstable_by_key(|slot| slot.sequence);
        let mut slots = Self { used: found.into(), outdated: folded, ..Self::default() };
        slots.free_up_to(folded);
        slots
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used.is_empty() && self.free.is_empty()
    }

    /// Those with blocks that are not folded, in the blocks' order.
    pub(super) fn used(&self) -> impl Iterator<Item = Slot> {
        self.used.iter().copied()
    }

    /// Chooses the slot for a block: a free one that is no more than an eighth too long, or one that is yet to be made.
    pub(super) fn choose(&mut self, sequence: u64, block: usize) -> Slot {
        let bytes = bytes_for(block);
        let mut fitting = self.free.range_mut(bytes..=bytes + bytes / 8);
        let before = fitting.find_map(|(_, slots)| slots.pop());
        let before = before.unwrap_or(Slot { number: 0, bytes, sequence: 0 });
        let slot = Slot { sequence, ..before };
        self.chosen.push((before, slot));
        slot
    }

    /// The slot that was chosen last was made.
    pub(super) fn made(&mut self, number: i64) {
        self.chosen.last_mut().expect("one was chosen").1.number = number;
    }

    /// The transaction has succeeded.
    pub(super) fn settle(&mut self) {
        self.used.extend(self.chosen.drain(..).map(|(_, slot)| slot));
    }

    /// It has not.
    pub(super) fn undo(&mut self) {
        for (before, _) in take(&mut self.chosen) {
            if before.number != 0 {
                self.free.entry(before.bytes).or_default().push(before);
            }
        }
    }

    /// Blocks up to this one are folded.
    pub(super) fn free_up_to(&mut self, folded: u64) {
        let folded = self.used.partition_point(|slot| slot.sequence <= folded);
        for slot in self.used.drain(..folded) {
            self.free.entry(slot.bytes).or_default().push(slot);
        }
    }

    /// The slots that were free already when this was last asked, and still are; then they are nobody's. `folded`: the last
    /// block that is folded now.
    pub(super) fn outdated(&mut self, folded: u64) -> Vec<Slot> {
        let (outdated, mut gone) = (self.outdated, Vec::new());
        for slots in self.free.values_mut() {
            gone.extend(slots.extract_if(.., |slot| slot.sequence <= outdated));
        }
        self.free.retain(|_, slots| !slots.is_empty());
        self.outdated = folded;
        gone
    }

    /// They are still there.
    pub(super) fn keep(&mut self, slots: Vec<Slot>) {
        for slot in slots {
            self.free.entry(slot.bytes).or_default().push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_few_and_not_much_longer_than_the_blocks() {
        let mut lengths = std::collections::BTreeSet::new();
        for block in (1..300_000).chain((300_000..9_000_000).step_by(997)) {
            let bytes = bytes_for(block);
            lengths.insert(bytes);
            let page = if block > 8_192 { OF_A_PAGE } else { 0 };
            assert!(
                bytes >= block && bytes <= LEAST.max(2 * block).max(block + block / 8 + 2 * page),
                "{block} {bytes}"
            );
            assert_eq!(bytes_for(bytes), bytes);
        }
        assert!(lengths.len() < 70, "{}", lengths.len());
        // The row of a page's block and what belongs to it fit the page.
        assert_eq!(bytes_for(9_000), OF_A_PAGE - OTHERS);
    }

    #[test]
    fn a_slot_is_chosen_for_one_block_at_a_time() {
        let slot = |number, sequence| Slot { number, bytes: 256, sequence };
        let mut slots = Slots::of(vec![slot(2, 6), slot(1, 5), slot(3, 7)], 6);
        assert_eq!(slots.used().collect::<Vec<_>>(), [slot(3, 7)]);
        let chosen = [slots.choose(8, 100), slots.choose(9, 256), slots.choose(10, 20)];
        let numbers = chosen.map(|slot| slot.number);
        assert!(numbers == [1, 2, 0] || numbers == [2, 1, 0], "{numbers:?}");
        slots.undo();
        assert_eq!(slots.choose(8, 257), Slot { number: 0, bytes: 512, sequence: 8 });
        slots.made(4);
        assert_ne!(slots.choose(9, 250).number, 0);
        slots.settle();
        assert_eq!(slots.used().map(|slot| slot.sequence).collect::<Vec<_>>(), [7, 8, 9]);
        slots.free_up_to(8);
        assert_eq!(slots.used().map(|slot| slot.sequence).collect::<Vec<_>>(), [9]);
    }

    #[test]
    fn slots_that_are_not_used_again_go() {
        let mut slots = Slots::default();
        for sequence in 1..=4 {
            assert_eq!(slots.choose(sequence, 100).number, 0);
            slots.made(sequence as i64);
        }
        slots.settle();
        slots.free_up_to(2);
        assert_eq!(slots.outdated(2), []);
        assert!(slots.choose(5, 100).sequence == 5);
        slots.settle();
        slots.free_up_to(4);
        let gone = slots.outdated(4);
        assert_eq!(gone.len(), 1);
        slots.keep(gone);
        assert_eq!(slots.outdated(4).len(), 3);
        assert!(!slots.is_empty());
        slots.free_up_to(5);
        assert_eq!(slots.outdated(5), []);
        assert_eq!(slots.outdated(5).len(), 1);
        assert!(slots.is_empty());
    }
}
