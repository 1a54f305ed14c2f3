//! The receive buffer: plaintexts that were given out and not yet acknowledged.
//!
//! A frame's key is spent in the transaction that takes its plaintext in. Whoever dies between that and handling the
//! plaintext gets it again when the frame is delivered again; see `arrivals`. What opens it is in the store, in lots
//! (`lot_record`); memory knows which frames there are.
//!
//! When all of a lot is acknowledged its row goes. When some of it is, the lot is *torn*: the next commit writes it anew
//! with what is left, so that what was acknowledged is on no disk.

use std::collections::{HashSet, VecDeque};
use std::mem::replace;
use std::sync::{Arc, MutexGuard, PoisonError};

use hashbrown::hash_table::Entry;
use hashbrown::{HashMap, HashTable};
use slab::Slab;

use super::accounts::{Account, AccountId};
use super::engine::Engine;
use super::lot_record::{self, Lot, TAG, TaggedBy};
use super::rows::{Buffered, Rows};
use crate::error::Error;
use crate::limits::{BUFFERED_ROW_BYTES, MAX_PENDING_ACKS};
use crate::store::{Changes, Key, Kind as RowKind, Store};

/// Lots that may have gone and wait for their turn to be old, beside as many as there are.
const GONE: usize = 1_024;

/// What a receive buffer may hold.
#[derive(Clone, Copy, Debug)]
pub struct BufferLimits {
    /// Bytes of an account's rows, each counted with [`BUFFERED_ROW_BYTES`] beside its plaintext.
    pub bytes: u64,
    /// Seconds that a row is kept for.
    pub seconds: u64,
}

/// What is known of an account's buffered frames; their plaintexts are in the store.
///
/// Frames that come together lie together, and their table has their places alone: what a call touches is in few lines of
/// memory, which are most of what a frame costs here.
#[derive(Default)]
pub(crate) struct Buffer {
    frames: Slab<Frame>,
    /// Places in `frames`, by tag.
    frame_of: HashTable<u32>,
    lots: Slab<KnownLot>,
    /// Places in `lots`, by the tags of their rows.
    lot_of: HashMap<[u8; TAG], u32>,
    /// The oldest first. What has gone stays here until its turn.
    by_age: VecDeque<(u64, [u8; TAG])>,
    /// Lots whose frames have tags as earlier interlanes made them.
    older: usize,
    bytes: u64,
    /// Bytes that calls under way may yet need.
    pub(super) reserved: u64,
}

/// A frame that is kept.
struct Frame {
    tag: [u8; TAG],
    /// Its place in `lots`.
    lot: u32,
    bytes: u64,
}

/// A row of the store.
struct KnownLot {
    tag: [u8; TAG],
    /// Frames in it that are not acknowledged.
    left: u32,
    /// It is to be written anew.
    torn: bool,
    tagged_by: TaggedBy,
}

/// What an acknowledgement does to a lot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing new: it is torn as it was.
    Torn,
    /// The lot of this tag is torn now.
    Tears([u8; TAG]),
    /// Nothing is left of the lot of this tag.
    Nothing([u8; TAG]),
}

impl Buffer {
    /// The lots that a store has, by the tags of their rows.
    pub(crate) fn load(mut found: Vec<LoadedLot>) -> Self {
        found.sort_unstable_by_key(|lot| (lot.kept_at, lot.tag));
        let mut buffer = Self::default();
        for LoadedLot { tag, kept_at, tagged_by, frames } in found {
            buffer.insert(tag, kept_at, tagged_by, frames.into_iter());
        }
        buffer
    }

    /// How many frames there are.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether some frames have tags as earlier interlanes made them.
    pub(super) fn has_older(&self) -> bool {
        self.older > 0
    }

    /// The tag of the row that a frame is kept in.
    pub(super) fn lot_of(&self, tag: &[u8; TAG]) -> Option<[u8; TAG]> {
        let &place = self.frame_of.find(hash(tag), |&place| self.frame(place).tag == *tag)?;
        Some(self.lots[self.frame(place).lot as usize].tag)
    }

    fn frame(&self, place: u32) -> &Frame {
        &self.frames[place as usize]
    }

    /// Takes a lot in: its frames' tags, and the lengths of their plaintexts. Gives how many there are.
    pub(super) fn insert(
        &mut self,
        lot: [u8; TAG],
        kept_at: u64,
        tagged_by: TaggedBy,
        frames: impl Iterator<Item = ([u8; TAG], usize)>,
    ) -> u64 {
        let Self { frames: all, frame_of, lots, .. } = self;
        let (at, mut left) = (place(lots.vacant_key()), 0);
        for (tag, len) in frames {
            let bytes = row_bytes(len);
            let known = frame_of.entry(
                hash(&tag),
                |&place| all[place as usize].tag == tag,
                |&place| hash(&all[place as usize].tag),
            );
            if let Entry::Vacant(vacant) = known {
                vacant.insert(place(all.insert(Frame { tag, lot: at, bytes })));
                self.bytes += bytes;
                left += 1;
            }
        }
        if left > 0 {
            lots.insert(KnownLot { tag: lot, left, torn: false, tagged_by });
            self.lot_of.insert(lot, at);
            self.older += usize::from(tagged_by == TaggedBy::Hmac);
            self.by_age.push_back((kept_at, lot));
        }
        u64::from(left)
    }

    pub(super) fn remove(&mut self, tag: &[u8; TAG]) -> Option<Left> {
        let Self { frames, frame_of, lots, .. } = self;
        let found = frame_of.find_entry(hash(tag), |&place| frames[place as usize].tag == *tag).ok()?;
        let Frame { lot, bytes, .. } = frames.remove(found.remove().0 as usize);
        self.bytes -= bytes;
        let lot = &mut lots[lot as usize];
        lot.left -= 1;
        let tag = lot.tag;
        if lot.left > 0 {
            return Some(if replace(&mut lot.torn, true) { Left::Torn } else { Left::Tears(tag) });
        }
        self.forget(&tag);
        // Few lots live long: what is left of the others must not pile up behind one that does.
        if self.by_age.len() > 2 * self.lots.len() + GONE {
            let known = &self.lot_of;
            self.by_age.retain(|(_, lot)| known.contains_key(lot));
        }
        Some(Left::Nothing(tag))
    }

    /// Nothing is left of a lot; where it was, if it was there.
    fn forget(&mut self, lot: &[u8; TAG]) -> Option<u32> {
        let at = self.lot_of.remove(lot)?;
        self.older -= usize::from(self.lots.remove(at as usize).tagged_by == TaggedBy::Hmac);
        Some(at)
    }

    /// Whether there is something left of a lot; it is written anew now.
    fn mend(&mut self, lot: &[u8; TAG]) -> bool {
        self.lot_of.get(lot).map(|&at| self.lots[at as usize].torn = false).is_some()
    }

    /// Takes out of a buffer that was read from the store what was acknowledged of the one before and is not written yet.
    pub(super) fn take_over(&mut self, before: &Self, account: u32, acknowledged: &mut Acknowledged) {
        let pending: HashSet<[u8; TAG]> = acknowledged.of(account).collect();
        let gone: Vec<[u8; TAG]> = self
            .frames
            .iter()
            .map(|(_, frame)| frame)
            .filter(|frame| pending.contains(&self.lots[frame.lot as usize].tag) && before.lot_of(&frame.tag).is_none())
            .map(|frame| frame.tag)
            .collect();
        for tag in gone {
            // Torn ones are among those that are to be written anew.
            if let Some(Left::Nothing(lot)) = self.remove(&tag) {
                acknowledged.empty.push(Key { account, kind: RowKind::Buffered, tag: lot });
            }
        }
    }

    /// Takes out what was kept before `before`: `gone` is given the tags of the rows. Gives how many frames these had.
    pub(super) fn expire(&mut self, before: u64, mut gone: impl FnMut([u8; TAG])) -> u64 {
        let mut old = HashSet::new();
        while let Some(&(kept_at, lot)) = self.by_age.front()
            && kept_at < before
        {
            self.by_age.pop_front();
            if let Some(at) = self.forget(&lot) {
                old.insert(at);
                gone(lot);
            }
        }
        if old.is_empty() {
            return 0;
        }
        let Self { frames, frame_of, bytes, .. } = self;
        let had = frames.len();
        frame_of.retain(|&mut place| !old.contains(&frames[place as usize].lot));
        frames.retain(|_, frame| {
            let stays = !old.contains(&frame.lot);
            *bytes -= if stays { 0 } else { frame.bytes };
            stays
        });
        (had - frames.len()) as u64
    }
}

/// A place in a slab, of which none has so many.
fn place(key: usize) -> u32 {
    u32::try_from(key).expect("a buffer has fewer than 2^32 frames")
}

/// A tag is a keyed hash: any part of it is a hash.
fn hash(tag: &[u8; TAG]) -> u64 {
    u64::from_le_bytes(*tag.first_chunk().expect("8 of 16"))
}

/// What a frame with a plaintext of this length counts.
pub(super) fn row_bytes(len: usize) -> u64 {
    len as u64 + BUFFERED_ROW_BYTES
}

/// A lot as a store has it: what memory is to know of it.
pub(crate) struct LoadedLot {
    tag: [u8; TAG],
    kept_at: u64,
    tagged_by: TaggedBy,
    frames: Vec<([u8; TAG], usize)>,
}

impl LoadedLot {
    /// Reads the row of a tag.
    pub(crate) fn read(tag: [u8; TAG], row: &[u8]) -> Result<Self, Error> {
        let Lot { kept_at, tagged_by, frames } = Lot::read(tag, row)?;
        let frames = frames.iter().map(|frame| (frame.tag, frame.text.len())).collect();
        Ok(Self { tag, kept_at, tagged_by, frames })
    }
}

/// Rows of receive buffers that change with the next commit, for something in them was acknowledged.
#[derive(Default)]
pub(super) struct Acknowledged {
    /// Nothing is left of these.
    empty: Vec<Key>,
    /// Something may be left of these.
    torn: Vec<Key>,
}

impl Acknowledged {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.empty.len() + self.torn.len()
    }

    fn add(&mut self, account: &Account, left: &Left) {
        match *left {
            Left::Nothing(tag) => self.empty.push(account.key(RowKind::Buffered, tag)),
            Left::Tears(tag) => self.torn.push(account.key(RowKind::Buffered, tag)),
            Left::Torn => {}
        }
    }

    /// The lots of an account.
    fn of(&self, account: u32) -> impl Iterator<Item = [u8; TAG]> {
        self.empty.iter().chain(&self.torn).filter(move |key| key.account == account).map(|key| key.tag)
    }

    /// Takes others in.
    pub(super) fn extend(&mut self, others: Self) {
        self.empty.extend(others.empty);
        self.torn.extend(others.torn);
    }

    /// Gives up the rows of an account.
    pub(super) fn take_of(&mut self, account: u32) -> Self {
        let of = |keys: &mut Vec<Key>| keys.extract_if(.., |key| key.account == account).collect();
        Self { empty: of(&mut self.empty), torn: of(&mut self.torn) }
    }

    /// Leaves the rows of some accounts alone.
    pub(super) fn retain(&mut self, is_here: impl Fn(u32) -> bool) {
        self.empty.retain(|key| is_here(key.account));
        self.torn.retain(|key| is_here(key.account));
    }
}

impl Account {
    pub(super) fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// The caller has handled these rows of a result (all of them, where `which` is not given): their plaintexts
    /// are freed, and a frame that comes again is a DUPLICATE. Rows that are not buffered are passed over. Gives how
    /// many there were. It is written with the next commit: nothing is lost if that does not come about, for the
    /// rows are then given once more.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a row that the result does not have; [`Error::Store`].
    pub fn acknowledge(&self, rows: &Rows, which: Option<&[u64]>) -> Result<usize, Error> {
        self.may_be_called()?;
        let mut acknowledged = Acknowledged::default();
        let mut accounts: HashMap<u32, Option<Arc<Account>>> = HashMap::new();
        let mut count = 0;
        let mut free = |buffered: &Buffered| {
            let id = buffered.account;
            let account = accounts.entry(id).or_insert_with(|| self.find(AccountId(id)).ok());
            let Some(account) = account else { return };
            if let Some(left) = account.buffer().remove(&buffered.tag) {
                count += 1;
                acknowledged.add(account, &left);
            }
        };
        match which {
            None => rows.buffered.iter().for_each(free),
            Some(which) => {
                let n = rows.status.len() as u64;
                if let Some(row) = which.iter().find(|&&row| row >= n) {
                    return Err(Error::Malformed(format!("rows: {row} is not one; the result has {n}")));
                }
                for &row in which {
                    if let Ok(at) = rows.buffered.binary_search_by_key(&(row as u32), |buffered| buffered.row) {
                        free(&rows.buffered[at]);
                    }
                }
            }
        }
        self.free_buffered(acknowledged, count)?;
        Ok(count as usize)
    }

    /// Takes out of the buffers what is older than they keep. To be called before a call looks frames up.
    pub(super) fn expire_buffered(&self, account: &Account, buffer: &mut Buffer, now: u64, expired: &mut Expired) {
        let Some(limits) = self.buffer_limits() else { return };
        let rows = &mut expired.rows.empty;
        expired.frames += buffer.expire(now.saturating_sub(limits.seconds), |tag| {
            rows.push(account.key(RowKind::Buffered, tag));
        });
    }

    /// Notes rows that change with the next commit, after `frames` frames in them were freed.
    pub(super) fn free_buffered(&self, freed: Acknowledged, frames: u64) -> Result<(), Error> {
        self.unnote_buffered(frames);
        if freed.is_empty() {
            return Ok(());
        }
        let pending = {
            let mut pending = self.acknowledged();
            pending.extend(freed);
            pending.len()
        };
        if pending >= MAX_PENDING_ACKS { self.commit_acknowledged() } else { Ok(()) }
    }

    /// Adds to a commit what was acknowledged: rows that go, and torn ones, written anew with what is left in them. Where
    /// these cannot be read they wait for the next commit: this one need not fail for it.
    pub(super) fn put_acknowledged(&self, store: &mut dyn Store, acknowledged: &Acknowledged, changes: &mut Changes) {
        changes.delete_before(&acknowledged.empty);
        let mut torn: Vec<(Key, Arc<Account>)> = Vec::new();
        for &key in &acknowledged.torn {
            let account = self.standings().here(key.account).ok().cloned();
            // What is torn from here on is for the next commit.
            torn.extend(account.filter(|account| account.buffer().mend(&key.tag)).map(|account| (key, account)));
        }
        if torn.is_empty() {
            return;
        }
        torn.sort_unstable_by_key(|&(key, _)| key);
        torn.dedup_by_key(|&mut (key, _)| key);
        let keys: Vec<Key> = torn.iter().map(|&(key, _)| key).collect();
        let written = store.load(&keys, &mut |at, row| {
            let (key, account) = &torn[at];
            let Lot { kept_at, tagged_by, mut frames } = Lot::read(key.tag, row)?;
            let buffer = account.buffer();
            frames.retain(|frame| buffer.lot_of(&frame.tag) == Some(key.tag));
            if !frames.is_empty() {
                lot_record::put(changes, *key, false, kept_at, tagged_by, &frames);
            }
            Ok(())
        });
        if written.is_err() {
            self.acknowledged().torn.extend(keys);
        }
    }
}

/// What became too old, of several buffers.
#[derive(Default)]
pub(super) struct Expired {
    pub(super) rows: Acknowledged,
    pub(super) frames: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(i: u8) -> [u8; TAG] {
        [i; TAG]
    }

    fn loaded(lot: u8, kept_at: u64, frames: &[(u8, usize)]) -> LoadedLot {
        let frames = frames.iter().map(|&(frame, len)| (tag(frame), len)).collect();
        LoadedLot { tag: tag(lot), kept_at, tagged_by: TaggedBy::Cmac, frames }
    }

    #[test]
    fn lots_go_with_their_last_frame() {
        let mut buffer = Buffer::load(vec![loaded(1, 10, &[(1, 5), (2, 6), (3, 7)]), loaded(9, 10, &[(4, 5)])]);
        assert_eq!((buffer.len(), buffer.bytes()), (4, row_bytes(5) * 2 + row_bytes(6) + row_bytes(7)));
        assert_eq!(buffer.remove(&tag(2)), Some(Left::Tears(tag(1))));
        assert_eq!(buffer.remove(&tag(2)), None);
        assert_eq!((buffer.lot_of(&tag(1)), buffer.lot_of(&tag(2))), (Some(tag(1)), None));
        assert_eq!(buffer.remove(&tag(4)), Some(Left::Nothing(tag(9))));
        assert_eq!((buffer.mend(&tag(9)), buffer.mend(&tag(1))), (false, true));
        assert_eq!(buffer.remove(&tag(1)), Some(Left::Tears(tag(1))));
        assert_eq!(buffer.lot_of(&tag(3)), Some(tag(1)));
        assert_eq!(buffer.remove(&tag(3)), Some(Left::Nothing(tag(1))));
        assert!(!buffer.mend(&tag(1)));
        assert_eq!((buffer.len(), buffer.bytes()), (0, 0));
    }

    #[test]
    fn lots_leave_in_the_order_of_their_age() {
        let mut buffer = Buffer::load(vec![
            loaded(3, 30, &[(30, 5)]),
            loaded(1, 10, &[(10, 5)]),
            loaded(2, 20, &[(20, 5), (21, 6)]),
        ]);
        assert!(buffer.remove(&tag(10)).is_some());
        let mut gone = Vec::new();
        assert_eq!(buffer.expire(30, |lot| gone.push(lot)), 2);
        assert_eq!(gone, [tag(2)]);
        assert_eq!((buffer.len(), buffer.bytes()), (1, row_bytes(5)));
        assert_eq!(buffer.expire(30, |_| unreachable!("it went before")), 0);
    }

    #[test]
    fn older_lots_are_known_until_they_go() {
        let older = |lot| LoadedLot { tagged_by: TaggedBy::Hmac, ..lot };
        let mut buffer = Buffer::load(vec![
            loaded(1, 10, &[(1, 5)]),
            older(loaded(2, 20, &[(2, 5), (3, 5)])),
            older(loaded(4, 30, &[(4, 5)])),
        ]);
        assert!(buffer.has_older());
        assert_eq!(buffer.expire(30, |_| ()), 3);
        assert!(buffer.has_older());
        assert_eq!(buffer.remove(&tag(4)), Some(Left::Nothing(tag(4))));
        assert!(!buffer.has_older());
    }

    #[test]
    fn acknowledged_lots_do_not_pile_up_behind_an_old_one() {
        let mut buffer = Buffer::load(vec![loaded(0, 1, &[(0, 0)])]);
        for i in 0..100_000_u128 {
            let tag = (i + 1).to_le_bytes();
            assert_eq!(buffer.insert(tag, 2, TaggedBy::Cmac, [(tag, 100)].into_iter()), 1);
            assert!(buffer.remove(&tag).is_some());
        }
        assert!(buffer.by_age.len() <= 2 + GONE);
        assert_eq!((buffer.len(), buffer.bytes()), (1, row_bytes(0)));
    }
}
