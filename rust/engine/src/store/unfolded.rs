//! The newest bodies of the rows that the journal holds and the table of rows does not yet.

use std::hash::BuildHasher;
use std::hint::black_box;
use std::mem::replace;

use hashbrown::hash_table::Entry as Place;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use zeroize::{Zeroizing, optimization_barrier};

use super::{Body, Changes, Key, Kind};

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
///
/// A row that was new and is gone leaves nothing to fold, so it leaves nothing here: its entry and the room of its body
/// are the next new row's. So the receive buffer takes as much memory as it has rows that wait, not as many as came.
#[derive(Default)]
pub(super) struct Unfolded {
    entries: Vec<Entry>,
    /// Places in `entries`, by key.
    places: HashTable<u32>,
    lists: Vec<List>,
    /// Places in `lists`.
    list_of: HashMap<(u32, Kind), u32>,
    bodies: Bodies,
    hashing: DefaultHashBuilder,
}

/// The entries of an account and kind.
struct List {
    /// The newest: from there all of them.
    head: u32,
    /// Those that are unused.
    unused: Vec<u32>,
}

struct Entry {
    key: Key,
    /// The list of its account and kind, and the next entry there.
    list: u32,
    next: u32,
    state: State,
    slot: Slot,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It has a body; the table may have an older one.
    Put,
    /// It has a body, and the table has none.
    New,
    /// It is to go from the table.
    Deleted,
    /// It is nobody's.
    Unused,
}

impl Unfolded {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Takes a batch in.
    pub(super) fn apply(&mut self, changes: &Changes) {
        self.look_ahead(changes);
        for (key, body) in changes.bodies() {
            self.set(key, body);
        }
    }

    /// Has the memory that a batch is about come side by side, places first and then entries: row after row would wait for
    /// its own, which is half of what it takes.
    fn look_ahead(&self, changes: &Changes) {
        let mut seen = 0;
        for (key, _) in changes.bodies() {
            self.places.find(hash(&self.hashing, &key), |&place| {
                seen ^= place;
                false
            });
        }
        for (key, _) in changes.bodies() {
            seen ^= self.place(&key).unwrap_or(NONE);
        }
        black_box(seen);
    }

    /// Puts or deletes a row.
    pub(super) fn set(&mut self, key: Key, body: Body<'_>) {
        let Self { entries, places, lists, list_of, bodies, hashing } = self;
        let known = places.entry(
            hash(hashing, &key),
            |&place| entries[place as usize].key == key,
            |&place| hash(hashing, &entries[place as usize].key),
        );
        match known {
            Place::Occupied(at) => {
                let place = *at.get();
                let entry = &mut entries[place as usize];
                entry.slot = bodies.replace(entry.slot, body.bytes().unwrap_or_default());
                entry.state = match (entry.state, body) {
                    (State::New, Body::Gone) => {
                        at.remove();
                        lists[entry.list as usize].unused.push(place);
                        State::Unused
                    }
                    (State::New, _) => State::New,
                    (_, Body::Gone) => State::Deleted,
                    (_, _) => State::Put,
                };
            }
            Place::Vacant(vacant) => {
                let state = match body {
                    Body::Is(_) => State::Put,
                    Body::New(_) => State::New,
                    Body::Gone => State::Deleted,
                };
                let body = body.bytes().unwrap_or_default();
                let at = *list_of.entry((key.account, key.kind)).or_insert_with(|| {
                    lists.push(List { head: NONE, unused: Vec::new() });
                    // An entry follows, and there are fewer than 2^32 of these.
                    lists.len() as u32 - 1
                });
                let list = &mut lists[at as usize];
                if let Some(place) = list.unused.pop() {
                    vacant.insert(place);
                    let entry = &mut entries[place as usize];
                    (entry.key, entry.state, entry.slot) = (key, state, bodies.replace(entry.slot, body));
                    return;
                }
                let place = u32::try_from(entries.len()).ok().filter(|&place| place != NONE);
                let place = place.expect("the journal's limit allows fewer than 2^32 rows");
                vacant.insert(place);
                let next = replace(&mut list.head, place);
                entries.push(Entry { key, list: at, next, state, slot: bodies.replace(Slot::default(), body) });
            }
        }
    }

    pub(super) fn get(&self, key: &Key) -> Newest<'_> {
        self.place(key).map_or(Newest::Unknown, |place| self.entry(place).1)
    }

    fn place(&self, key: &Key) -> Option<u32> {
        let found = self.places.find(hash(&self.hashing, key), |&place| self.entries[place as usize].key == *key);
        found.copied()
    }

    /// The row at a place of [`Self::in_order_of`]'s.
    pub(super) fn entry(&self, place: u32) -> (Key, Newest<'_>) {
        let entry = &self.entries[place as usize];
        let newest = match entry.state {
            State::Put | State::New => Newest::Body(self.bodies.get(entry.slot)),
            State::Deleted => Newest::Deleted,
            State::Unused => Newest::Unknown,
        };
        (entry.key, newest)
    }

    /// Every row of one account and kind.
    pub(super) fn of(&self, account: u32, kind: Kind) -> impl Iterator<Item = (Key, Newest<'_>)> {
        let head = self.list_of.get(&(account, kind)).map(|&at| self.lists[at as usize].head);
        let places =
            std::iter::successors(head, |&place| Some(self.entries[place as usize].next).filter(|&next| next != NONE));
        places.filter(|&place| self.is_used(place)).map(|place| self.entry(place))
    }

    fn is_used(&self, place: u32) -> bool {
        self.entries[place as usize].state != State::Unused
    }

    /// The places of all rows, sorted.
    pub(super) fn in_order_of<T: Ord>(&self, order: impl Fn(Key) -> T) -> Vec<u32> {
        let mut places: Vec<u32> = (0..self.entries.len() as u32).filter(|&place| self.is_used(place)).collect();
        // Keys in one piece: fetching them from the entries at each comparison takes several times as long.
        places.sort_by_cached_key(|&place| order(self.entries[place as usize].key));
        places
    }
}

/// Tags are of a keyed hash or numbers of ours: nobody else chooses them.
fn hash(hashing: &DefaultHashBuilder, key: &Key) -> u64 {
    let place = u128::from(key.account) << 8 | u128::from(key.kind as u8);
    hashing.hash_one(u128::from_le_bytes(key.tag) ^ (place << 64))
}

/// Zeroes by a whole store and a barrier, where `zeroize` goes byte by byte.
fn wipe(room: &mut [u8]) {
    room.fill(0);
    optimization_barrier(&room[..]);
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
                wipe(&mut room[body.len()..]);
                return Slot { length, ..old };
            }
            wipe(room);
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
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn key(account: u32, kind: usize, first: u8) -> Key {
        Key { account, kind: Kind::ALL[kind], tag: [first; 16] }
    }

    proptest! {
        #[test]
        fn it_is_a_map(
            changes in prop::collection::vec((0..3_u32, 0..3_usize, 0..20_u8, prop::option::of(0..2_000_usize)), 0..300),
            there in 0..20_u8,
        ) {
            let mut map = BTreeMap::new();
            let mut unfolded = Unfolded::default();
            // Rows that the table has not, and this neither.
            let mut nowhere: BTreeSet<Key> = (0..9)
                .flat_map(|i| (there..20).map(move |first| key(i / 3, i as usize % 3, first)))
                .collect();
            for (i, (account, kind, first, length)) in changes.into_iter().enumerate() {
                let (key, body) = (key(account, kind, first), length.map(|length| vec![i as u8; length]));
                let new = nowhere.contains(&key);
                match &body {
                    Some(body) if new => unfolded.set(key, Body::New(body)),
                    Some(body) => unfolded.set(key, Body::Is(body)),
                    None => unfolded.set(key, Body::Gone),
                }
                // What was new and is gone is not known any more. Deleting what is nowhere is a change like any other.
                let was_new = map.get(&key).is_some_and(|(_, new)| *new);
                if was_new && body.is_none() {
                    map.remove(&key);
                    nowhere.insert(key);
                } else {
                    map.insert(key, (body, if map.contains_key(&key) { was_new } else { new && length.is_some() }));
                    nowhere.remove(&key);
                }
            }
            let map: BTreeMap<_, _> = map.into_iter().map(|(key, (body, _))| (key, body)).collect();
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
        unfolded.set(key(1, 0, 0), Body::Is(&[1; 100]));
        for length in [100, 40, 100] {
            unfolded.set(key(1, 0, 0), Body::Is(&vec![2; length]));
        }
        assert_eq!(unfolded.bodies.chunks[0].len(), 100);
        unfolded.set(key(1, 0, 0), Body::Is(&[3; 40]));
        assert_eq!(unfolded.bodies.chunks[0][40..], [0; 60]);
        unfolded.set(key(1, 0, 0), Body::Gone);
        assert_eq!(unfolded.bodies.chunks[0][..], [0; 100]);
        unfolded.set(key(1, 0, 0), Body::Is(&[4; 101]));
        assert_eq!(unfolded.bodies.chunks[0][..100], [0; 100]);
        assert_eq!(unfolded.get(&key(1, 0, 0)), Newest::Body(&[4; 101]));
    }

    #[test]
    fn rows_that_were_new_and_went_take_no_room() {
        let mut unfolded = Unfolded::default();
        for round in 0..100 {
            for first in 0..10 {
                unfolded.set(key(1, 0, first), Body::New(&[7; 60]));
            }
            // Also where it is put anew meanwhile.
            unfolded.set(key(1, 0, 0), Body::Is(&[8; 60]));
            assert_eq!(unfolded.len(), 10, "{round}");
            for first in 0..10 {
                unfolded.set(key(1, 0, first), Body::Gone);
            }
            assert!(unfolded.is_empty() && unfolded.in_order_of(|key| key).is_empty());
            assert_eq!(unfolded.get(&key(1, 0, 0)), Newest::Unknown);
            assert_eq!(unfolded.of(1, key(1, 0, 0).kind).count(), 0);
        }
        assert_eq!((unfolded.entries.len(), unfolded.bodies.chunks.len()), (10, 1));
        assert_eq!(unfolded.bodies.chunks[0][..], [0; 600]);
        // One that the table may have is still to go from there.
        unfolded.set(key(1, 0, 1), Body::Gone);
        unfolded.set(key(1, 0, 1), Body::New(&[7; 60]));
        unfolded.set(key(1, 0, 1), Body::Gone);
        assert_eq!(unfolded.get(&key(1, 0, 1)), Newest::Deleted);
        assert_eq!(unfolded.entries.len(), 10);
    }
}
