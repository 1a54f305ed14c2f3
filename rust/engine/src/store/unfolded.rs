//! The newest bodies of the rows that the journal holds and the table of rows does not yet.

use std::hash::BuildHasher;

use hashbrown::hash_table::Entry as Place;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use zeroize::{Zeroize, Zeroizing};

use super::{Changes, Key, Kind};

/// Chunks of bodies: the first is small, for stores that are; the largest is zeroed in some 20 µs.
const FIRST_CHUNK: usize = 4 << 10;
const LARGEST_CHUNK: usize = 1 << 20;

/// Ends a list.
const NONE: u32 = u32::MAX;

/// What is known of a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Newest<'a> {
    /// Its body.
    Body(&'a [u8]),
    /// It is gone.
    Deleted,
    /// The table has to be asked.
    Unknown,
}

impl<'a> Newest<'a> {
    /// Its body, if there is one.
    pub(super) fn body(self) -> Option<&'a [u8]> {
        match self {
            Self::Body(body) => Some(body),
            Self::Deleted | Self::Unknown => None,
        }
    }
}

/// Changes, each row's newest, without an allocation for each.
#[derive(Default)]
pub(super) struct Unfolded {
    entries: Vec<Entry>,
    /// Places in `entries`, by key.
    places: HashTable<u32>,
    /// The newest entry of an account and kind: from there a list of all of them.
    heads: HashMap<(u32, Kind), u32>,
    bodies: Bodies,
    hashing: DefaultHashBuilder,
}

struct Entry {
    key: Key,
    /// The next entry of this account and kind.
    next: u32,
    deleted: bool,
    slot: Slot,
}

impl Unfolded {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes a batch in.
    pub(super) fn apply(&mut self, changes: &Changes) {
        for (key, body) in changes.iter() {
            self.set(key, body);
        }
    }

    /// Puts or deletes a row.
    pub(super) fn set(&mut self, key: Key, body: Option<&[u8]>) {
        let Self { entries, places, heads, bodies, hashing } = self;
        let hash = hashing.hash_one(key);
        let known = places.entry(
            hash,
            |&place| entries[place as usize].key == key,
            |&place| hashing.hash_one(entries[place as usize].key),
        );
        match known {
            Place::Occupied(place) => {
                let entry = &mut entries[*place.get() as usize];
                entry.deleted = body.is_none();
                entry.slot = bodies.replace(entry.slot, body.unwrap_or_default());
            }
            Place::Vacant(vacant) => {
                let place = u32::try_from(entries.len()).ok().filter(|&place| place != NONE);
                let place = place.expect("the journal's limit allows fewer than 2^32 rows");
                vacant.insert(place);
                let next = heads.insert((key.account, key.kind), place).unwrap_or(NONE);
                let slot = bodies.replace(Slot::default(), body.unwrap_or_default());
                entries.push(Entry { key, next, deleted: body.is_none(), slot });
            }
        }
    }

    pub(super) fn get(&self, key: &Key) -> Newest<'_> {
        let found = self.places.find(self.hashing.hash_one(key), |&place| self.entries[place as usize].key == *key);
        found.map_or(Newest::Unknown, |&place| self.entry(place).1)
    }

    /// The row at a place of [`Self::in_order_of`]'s.
    pub(super) fn entry(&self, place: u32) -> (Key, Newest<'_>) {
        let entry = &self.entries[place as usize];
        let newest = if entry.deleted { Newest::Deleted } else { Newest::Body(self.bodies.get(entry.slot)) };
        (entry.key, newest)
    }

    /// Every row of one account and kind.
    pub(super) fn of(&self, account: u32, kind: Kind) -> impl Iterator<Item = (Key, Newest<'_>)> {
        let head = self.heads.get(&(account, kind)).copied();
        let places =
            std::iter::successors(head, |&place| Some(self.entries[place as usize].next).filter(|&next| next != NONE));
        places.map(|place| self.entry(place))
    }

    /// The places of all rows, sorted.
    pub(super) fn in_order_of<T: Ord>(&self, order: impl Fn(Key) -> T) -> Vec<u32> {
        let mut places: Vec<u32> = (0..self.entries.len() as u32).collect();
        // Keys in one piece: fetching them from the entries at each comparison takes several times as long.
        places.sort_by_cached_key(|&place| order(self.entries[place as usize].key));
        places
    }
}

/// Bodies, one after another in chunks that never move: a buffer that grew would leave keys in freed memory.
#[derive(Default)]
struct Bodies {
    chunks: Vec<Zeroizing<Vec<u8>>>,
}

/// Where a body lies, and the room it has there.
#[derive(Clone, Copy, Default)]
struct Slot {
    chunk: u32,
    start: u32,
    length: u32,
    room: u32,
}

impl Bodies {
    fn get(&self, slot: Slot) -> &[u8] {
        match self.chunks.get(slot.chunk as usize) {
            Some(chunk) => &chunk[slot.start as usize..][..slot.length as usize],
            None => &[],
        }
    }

    /// Zeroes the old body and writes the new one in its place where it fits, so that a row that changes often takes
    /// no more room than one that does not, and its old keys are gone at once.
    fn replace(&mut self, old: Slot, body: &[u8]) -> Slot {
        let length = u32::try_from(body.len()).expect("the journal took it, so it is shorter than 10^9 bytes");
        if let Some(chunk) = self.chunks.get_mut(old.chunk as usize) {
            let room = &mut chunk[old.start as usize..][..old.room as usize];
            if length <= old.room {
                room[..body.len()].copy_from_slice(body);
                room[body.len()..].zeroize();
                return Slot { length, ..old };
            }
            room.zeroize();
        }
        let last = self.chunks.last().filter(|chunk| chunk.capacity() - chunk.len() >= body.len());
        if last.is_none() {
            let size = (FIRST_CHUNK << self.chunks.len().min(16)).min(LARGEST_CHUNK).max(body.len());
            self.chunks.push(Zeroizing::new(Vec::with_capacity(size)));
        }
        let chunk = self.chunks.last_mut().expect("one was pushed where none had room");
        let start = u32::try_from(chunk.len()).expect("a chunk is as long as a body at most");
        chunk.extend_from_slice(body);
        Slot { chunk: self.chunks.len() as u32 - 1, start, length, room: length }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(account: u32, kind: usize, first: u8) -> Key {
        Key { account, kind: Kind::ALL[kind], tag: [first; 16] }
    }

    proptest! {
        #[test]
        fn it_is_a_map(
            changes in prop::collection::vec((0..3_u32, 0..3_usize, 0..20_u8, prop::option::of(0..2_000_usize)), 0..300),
        ) {
            let mut map = BTreeMap::new();
            let mut unfolded = Unfolded::default();
            for (i, (account, kind, first, length)) in changes.into_iter().enumerate() {
                let body = length.map(|length| vec![i as u8; length]);
                unfolded.set(key(account, kind, first), body.as_deref());
                map.insert(key(account, kind, first), body);
            }
            let newest = |body: &Option<Vec<u8>>| body.clone().map_or_else(|| "gone".into(), |body| format!("{body:?}"));
            let shown = |newest: Newest<'_>| match newest {
                Newest::Body(body) => format!("{body:?}"),
                Newest::Deleted => "gone".into(),
                Newest::Unknown => "unknown".into(),
            };
            prop_assert_eq!(unfolded.len(), map.len());
            let sorted: Vec<_> = unfolded
                .in_order_of(|key| key)
                .into_iter()
                .map(|place| unfolded.entry(place))
                .map(|(key, newest)| (key, shown(newest)))
                .collect();
            prop_assert_eq!(sorted, map.iter().map(|(&key, body)| (key, newest(body))).collect::<Vec<_>>());
            for account in 0..3 {
                for kind in 0..3 {
                    for first in 0..21 {
                        let at = key(account, kind, first);
                        prop_assert_eq!(shown(unfolded.get(&at)), map.get(&at).map_or("unknown".into(), newest));
                    }
                    let mut listed: Vec<_> =
                        unfolded.of(account, Kind::ALL[kind]).map(|(key, newest)| (key, shown(newest))).collect();
                    listed.sort();
                    let range = key(account, kind, 0)..=key(account, kind, 255);
                    let expected: Vec<_> = map.range(range).map(|(&key, body)| (key, newest(body))).collect();
                    prop_assert_eq!(listed, expected);
                }
            }
        }
    }

    #[test]
    fn a_row_that_changes_often_keeps_its_place_and_its_old_body_is_zeroed() {
        let mut unfolded = Unfolded::default();
        unfolded.set(key(1, 0, 0), Some(&[1; 100]));
        for length in [100, 40, 100] {
            unfolded.set(key(1, 0, 0), Some(&vec![2; length]));
        }
        assert_eq!(unfolded.bodies.chunks[0].len(), 100);
        unfolded.set(key(1, 0, 0), Some(&[3; 40]));
        assert_eq!(unfolded.bodies.chunks[0][40..], [0; 60]);
        unfolded.set(key(1, 0, 0), None);
        assert_eq!(unfolded.bodies.chunks[0][..], [0; 100]);
        unfolded.set(key(1, 0, 0), Some(&[4; 101]));
        assert_eq!(unfolded.bodies.chunks[0][..100], [0; 100]);
        assert_eq!(unfolded.get(&key(1, 0, 0)), Newest::Body(&[4; 101]));
    }
}
