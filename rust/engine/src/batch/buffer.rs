//! The receive buffer: plaintexts that were given out and not yet acknowledged.
//!
//! A frame's key is spent in the transaction that takes its plaintext in. Whoever dies between that and handling the
//! plaintext gets it again when the frame is delivered again: a frame is known by
//!
//! ```text
//! tag = HMAC-SHA256(account's tag key, row kind ‖ frame kind ‖ tag of its sender ‖ frame), 16 bytes
//! ```
//!
//! so that the store tells nobody which frames came, and one sender's frame is not another's.
//!
//! Of the usual frame, the next one on its chain, not the plaintext is kept but the key and IV that open it, where these
//! are shorter: a frame that is delivered again brings its ciphertext along, and the tag says that it is the same one. So a
//! row takes some 80 bytes of the journal, however long the message is.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, MutexGuard, PoisonError};

use hashbrown::HashMap;
use interlane_lanes::TILE;
use interlane_lanes::kernels::hmac::Hmac;

use super::accounts::{Account, AccountId, RunAccounts};
use super::engine::Engine;
use super::plan::Plan;
use super::records::{self, Kept, KeptText};
use super::rows::{Buffered, Kind, Outcome, Packed, Rows};
use super::tile;
use crate::bytes::Bytes;
use crate::error::{Error, Events, Status};
use crate::limits::{BUFFERED_ROW_BYTES, MAX_PENDING_ACKS};
use crate::machine::now;
use crate::secret::SecretColumn;
use crate::store::{Changes, Key, Kind as RowKind};
use crate::wire::SignalMessage;

/// Rows whose tags one core makes at a time.
const RUN: usize = 1_024;

/// What a receive buffer may hold.
#[derive(Clone, Copy, Debug)]
pub struct BufferLimits {
    /// Bytes of an account's rows, each counted with [`BUFFERED_ROW_BYTES`] beside its plaintext.
    pub bytes: u64,
    /// Seconds that a row is kept for.
    pub seconds: u64,
}

/// What is known of an account's buffered rows; their plaintexts are in the store.
#[derive(Default)]
pub(crate) struct Buffer {
    /// When a row was kept, and its bytes.
    rows: HashMap<[u8; 16], (u64, u64)>,
    /// The oldest first. What was acknowledged stays here until its turn.
    by_age: VecDeque<(u64, [u8; 16])>,
    bytes: u64,
    /// Bytes that calls under way may yet need.
    reserved: u64,
}

impl Buffer {
    /// The rows that a store has, in any order.
    pub(crate) fn load(mut found: Vec<(u64, [u8; 16], usize)>) -> Self {
        found.sort_unstable();
        let mut buffer = Self::default();
        for (kept_at, tag, len) in found {
            buffer.insert(tag, kept_at, len);
        }
        buffer
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn insert(&mut self, tag: [u8; 16], kept_at: u64, len: usize) {
        let bytes = row_bytes(len);
        if self.rows.insert(tag, (kept_at, bytes)).is_none() {
            self.bytes += bytes;
            self.by_age.push_back((kept_at, tag));
        }
    }

    fn remove(&mut self, tag: &[u8; 16]) -> bool {
        let Some((_, bytes)) = self.rows.remove(tag) else { return false };
        self.bytes -= bytes;
        // Few rows live long: what is left of the others must not pile up behind one that does.
        if self.by_age.len() > 2 * self.rows.len() + RUN {
            let rows = &self.rows;
            self.by_age.retain(|(kept_at, tag)| rows.get(tag).is_some_and(|(at, _)| at == kept_at));
        }
        true
    }

    /// Takes out what was kept before `before`.
    fn expire(&mut self, before: u64, mut gone: impl FnMut([u8; 16])) {
        while let Some(&(kept_at, tag)) = self.by_age.front()
            && kept_at < before
        {
            self.by_age.pop_front();
            if self.rows.get(&tag).is_some_and(|(at, _)| *at == kept_at) {
                self.remove(&tag);
                gone(tag);
            }
        }
    }
}

fn row_bytes(len: usize) -> u64 {
    len as u64 + BUFFERED_ROW_BYTES
}

/// A row that ends before it is tried.
enum Settled {
    /// Its plaintext is so many of [`Arrivals::texts`], from there on.
    Redelivered {
        kind: Kind,
        events: Events,
        start: usize,
        len: usize,
    },
    Full,
}

/// What opens the frame of a usual row: the AES key, and the IV.
pub(super) type Opens<'a> = (&'a [u8; 32], &'a [u8; 16]);

/// The rows of a call that receives: which frames they are, and which of them were received before.
pub(crate) struct Arrivals<'e> {
    accounts: RunAccounts<'e>,
    /// For each row, its account's place. Empty where nothing is buffered: then no row is looked at.
    owners: Vec<Option<usize>>,
    /// The rows of each account, one account after the other: so that each buffer is locked once.
    by_owner: Vec<u32>,
    tags: Vec<[u8; 16]>,
    settled: HashMap<u32, Settled>,
    /// The plaintexts of rows that are given out again.
    texts: Bytes,
    /// Whether what is opened is kept.
    keeps: bool,
    now: u64,
    /// Of accounts by their places.
    reserved: Vec<(usize, u64)>,
}

impl Drop for Arrivals<'_> {
    fn drop(&mut self) {
        for &(place, bytes) in &self.reserved {
            self.accounts[place].buffer().reserved -= bytes;
        }
    }
}

impl Account {
    pub(super) fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Looks the frames of a planned call up. `owner` gives a slot's account and tag, `kind` a row's kind of frame.
    pub(super) fn arrivals<'a>(
        &'a self,
        plan: &'a Plan<'_>,
        frames: Packed<'_>,
        owner: impl Fn(u32) -> (u32, [u8; 16]),
        kind: impl Fn(usize) -> u8 + Sync,
    ) -> Result<Arrivals<'a>, Error> {
        let mut arrivals = Arrivals {
            accounts: self.accounts_of_run(plan),
            owners: Vec::new(),
            by_owner: Vec::new(),
            tags: Vec::new(),
            settled: HashMap::new(),
            texts: Bytes::default(),
            keeps: self.buffer_limits().is_some(),
            now: now(),
            reserved: Vec::new(),
        };
        if !arrivals.keeps && !self.buffers_anything() {
            return Ok(arrivals);
        }
        let n = frames.len();
        arrivals.owners.resize(n, None);
        let mut senders = vec![[0; 16]; n];
        for entry in &plan.entries {
            let (account, tag) = owner(entry.slot);
            let place = arrivals.accounts.find(account).ok();
            for row in plan.rows_of(entry) {
                (arrivals.owners[row as usize], senders[row as usize]) = (place, tag);
            }
        }
        arrivals.by_owner = by_owner(&arrivals.owners);
        let parts: Vec<Range<usize>> = (0..n).step_by(RUN).map(|start| start..(start + RUN).min(n)).collect();
        let made = self.over_the_cores(&parts, |part| {
            let rows: Vec<usize> = part.filter(|&row| arrivals.owners[row].is_some()).collect();
            let account = |&row: &usize| &arrivals.accounts[arrivals.owners[row].expect("the others were left out")];
            let heads: Vec<[u8; 18]> = rows
                .iter()
                .map(|&row| {
                    let mut head = [0; 18];
                    (head[0], head[1]) = (RowKind::Buffered as u8, kind(row));
                    head[2..].copy_from_slice(&senders[row]);
                    head
                })
                .collect();
            let mut hashes = vec![[0; 32]; rows.len()];
            self.backend.run(Hmac {
                keys: &SecretColumn::copy_of(rows.iter().map(|row| account(row).tag_key())),
                heads: &heads.iter().map(|head| &head[..]).collect::<Vec<_>>(),
                tails: &rows.iter().map(|&row| frames.row(row)).collect::<Vec<_>>(),
                out: &mut hashes,
            });
            (rows, hashes)
        });
        arrivals.tags.resize(n, [0; 16]);
        for (row, hash) in made.iter().flat_map(|(rows, hashes)| rows.iter().zip(hashes)) {
            arrivals.tags[*row] = *hash.first_chunk().expect("16 of 32");
        }
        self.settle_known(&mut arrivals, frames)?;
        Ok(arrivals)
    }

    /// Finds the rows that are in the buffer, and those for which it has no room.
    fn settle_known(&self, arrivals: &mut Arrivals<'_>, frames: Packed<'_>) -> Result<(), Error> {
        let (mut known, mut keys, mut expired) = (Vec::new(), Vec::new(), Vec::new());
        for (place, rows) in of_each(&arrivals.by_owner, &arrivals.owners) {
            let account = &arrivals.accounts[place];
            let mut buffer = account.buffer();
            if let Some(limits) = self.buffer_limits() {
                buffer.expire(arrivals.now.saturating_sub(limits.seconds), |tag| {
                    expired.push(account.key(RowKind::Buffered, tag));
                });
            }
            let mut reserved = 0;
            for &row in rows {
                let tag = arrivals.tags[row as usize];
                if buffer.rows.contains_key(&tag) {
                    known.push(row);
                    keys.push(account.key(RowKind::Buffered, tag));
                } else if let Some(limits) = self.buffer_limits() {
                    let bytes = row_bytes(frames.row(row as usize).len());
                    if buffer.bytes + buffer.reserved + reserved + bytes > limits.bytes {
                        arrivals.settled.insert(row, Settled::Full);
                    } else {
                        reserved += bytes;
                    }
                }
            }
            buffer.reserved += reserved;
            arrivals.reserved.push((place, reserved));
        }
        self.forget_buffered(expired)?;
        if keys.is_empty() {
            return Ok(());
        }
        let (mut sealed, mut sealed_by) = (Vec::with_capacity(keys.len()), SecretColumn::<48>::zeroes(keys.len()));
        self.load(&keys, &mut |at, body| {
            let Kept { kind, events, text, .. } = records::get_buffered(body)?;
            match text {
                KeptText::Plain(text) => {
                    let (start, len) = (arrivals.texts.len(), text.len());
                    arrivals.texts.reserve(len);
                    arrivals.texts.extend_from_slice(text);
                    arrivals.settled.insert(known[at], Settled::Redelivered { kind, events, start, len });
                }
                KeptText::Sealed { len, key, iv } => {
                    let by = &mut sealed_by[sealed.len()];
                    by[..32].copy_from_slice(key);
                    by[32..].copy_from_slice(iv);
                    sealed.push((known[at], events, len));
                }
            }
            Ok(())
        })?;
        self.open_again(arrivals, frames, &sealed, &sealed_by)
    }

    /// Opens frames of which the key was kept: row, events and the plaintext's length.
    fn open_again(
        &self,
        arrivals: &mut Arrivals<'_>,
        frames: Packed<'_>,
        sealed: &[(u32, Events, usize)],
        sealed_by: &[[u8; 48]],
    ) -> Result<(), Error> {
        let (mut keys, mut ivs) = (tile::column::<32>(), tile::column::<16>());
        for (rows, by) in sealed.chunks(TILE).zip(sealed_by.chunks(TILE)) {
            let mut ciphertexts = [None; TILE];
            for (lane, (&(row, ..), by)) in rows.iter().zip(by).enumerate() {
                keys[lane].copy_from_slice(&by[..32]);
                ivs[lane].copy_from_slice(&by[32..]);
                // Parsed as it was when it came first, for it is the same frame.
                ciphertexts[lane] = SignalMessage::parse(frames.row(row as usize)).map(|message| message.ciphertext);
            }
            let opened =
                tile::open(self.backend, &keys, &ivs, &ciphertexts, &mut arrivals.texts, |text| Some(text.len()));
            for (&(row, events, len), opened) in rows.iter().zip(opened) {
                // Behind the plaintext there may be message padding.
                let (start, _) = opened.filter(|&(_, padded)| len <= padded).ok_or_else(records::damaged)?;
                arrivals.settled.insert(row, Settled::Redelivered { kind: Kind::Message, events, start, len });
            }
        }
        Ok(())
    }

    /// After the commit: notes what was kept, and gives the rows what they are acknowledged by.
    pub(super) fn note_arrivals(&self, arrivals: &Arrivals<'_>, rows: &mut Rows) {
        let is_kept = |rows: &Rows, row: usize| rows.status[row] == Status::Ok as u8 && arrivals.keeps;
        let mut kept = 0;
        rows.buffered.reserve(arrivals.by_owner.len());
        for (row, (&tag, &owner)) in arrivals.tags.iter().zip(&arrivals.owners).enumerate() {
            let Some(place) = owner else { continue };
            let new = is_kept(rows, row);
            if new || rows.status[row] == Status::Redelivered as u8 {
                kept += u64::from(new);
                rows.buffered.push(Buffered { row: row as u32, account: arrivals.accounts[place].id, tag });
            }
        }
        if kept == 0 {
            return;
        }
        self.note_buffered(kept);
        for (place, of_account) in of_each(&arrivals.by_owner, &arrivals.owners) {
            let mut buffer = arrivals.accounts[place].buffer();
            for row in of_account.iter().map(|&row| row as usize).filter(|&row| is_kept(rows, row)) {
                let len = rows.offsets[row + 1] - rows.offsets[row];
                buffer.insert(arrivals.tags[row], arrivals.now, len as usize);
            }
        }
    }

    /// The caller has handled these rows of a result (all of them, where `which` is not given): their plaintexts
    /// are freed, and a frame that comes again is a DUPLICATE. Rows that are not buffered are passed over. Gives how
    /// many there were. It is written with the next commit: nothing is lost if that does not come about, for the
    /// rows are then given once more.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a row that the result does not have; [`Error::Store`].
    pub fn acknowledge(&self, rows: &Rows, which: Option<&[u64]>) -> Result<usize, Error> {
        self.may_be_called()?;
        let mut freed = Vec::with_capacity(which.map_or(rows.buffered.len(), <[u64]>::len));
        let mut accounts: HashMap<u32, Option<Arc<Account>>> = HashMap::new();
        let mut free = |buffered: &Buffered| {
            let id = buffered.account;
            let Some(account) = accounts.entry(id).or_insert_with(|| self.find(AccountId(id)).ok()) else { return };
            if account.buffer().remove(&buffered.tag) {
                freed.push(account.key(RowKind::Buffered, buffered.tag));
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
        let count = freed.len();
        self.forget_buffered(freed)?;
        Ok(count)
    }

    /// Rows that are to go from the store, with the next commit.
    fn forget_buffered(&self, gone: Vec<Key>) -> Result<(), Error> {
        if gone.is_empty() {
            return Ok(());
        }
        self.unnote_buffered(gone.len() as u64);
        let pending = {
            let mut pending = self.acknowledged();
            pending.extend(gone);
            pending.len()
        };
        if pending >= MAX_PENDING_ACKS { self.commit_acknowledged() } else { Ok(()) }
    }
}

impl Arrivals<'_> {
    /// Ends a row that was received before, or for which there is no room; whether it did.
    pub(super) fn settle(&self, row: u32, outcomes: &mut Vec<Outcome>, bytes: &mut Bytes) -> bool {
        match self.settled.get(&row) {
            None => return false,
            Some(Settled::Full) => outcomes.push(Outcome::failed(row, Status::BufferFull)),
            Some(&Settled::Redelivered { kind, events, start: from, len }) => {
                let (start, status) = (bytes.len(), Status::Redelivered);
                bytes.reserve(len);
                bytes.extend_from_slice(&self.texts[from..from + len]);
                outcomes.push(Outcome { row, status, kind, events, start, len });
            }
        }
        true
    }

    /// Keeps what a row gave, in the transaction that makes it so. Of the next frame of a chain `opens` is known; it was
    /// never here before.
    pub(super) fn keep(&self, outcome: &Outcome, bytes: &[u8], opens: Option<Opens<'_>>, changes: &mut Changes) {
        let (true, Some(place)) = (self.keeps, self.owner(outcome.row)) else { return };
        let key = self.accounts[place].key(RowKind::Buffered, self.tags[outcome.row as usize]);
        let plain = &bytes[outcome.start..outcome.start + outcome.len];
        let kept = |text| Kept { at: self.now, kind: outcome.kind, events: outcome.events, text };
        match opens {
            Some((by, iv)) => records::put_new_buffered(changes, key, &kept(KeptText::shorter(plain, by, iv))),
            None => records::put_buffered(changes, key, &kept(KeptText::Plain(plain))),
        }
    }

    /// Whether what is opened is kept.
    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    fn owner(&self, row: u32) -> Option<usize> {
        self.owners.get(row as usize).copied().flatten()
    }
}

/// The rows that have an owner, those of each one after the other and in order.
fn by_owner(owners: &[Option<usize>]) -> Vec<u32> {
    let mut begins = vec![0; owners.iter().flatten().max().map_or(0, |&last| last + 2)];
    for &owner in owners.iter().flatten() {
        begins[owner + 1] += 1;
    }
    for owner in 1..begins.len() {
        begins[owner] += begins[owner - 1];
    }
    let mut sorted = vec![0; begins.last().copied().unwrap_or(0)];
    for (row, owner) in owners.iter().enumerate() {
        if let &Some(owner) = owner {
            sorted[begins[owner]] = row as u32;
            begins[owner] += 1;
        }
    }
    sorted
}

/// Each owner that [`by_owner`] found, and its rows.
fn of_each<'a>(sorted: &'a [u32], owners: &'a [Option<usize>]) -> impl Iterator<Item = (usize, &'a [u32])> {
    let owner = |row: u32| owners[row as usize];
    let groups = sorted.chunk_by(move |&one, &next| owner(one) == owner(next));
    groups.filter_map(move |rows| Some((owner(rows[0])?, rows)))
}

/// The frames that a run has opened on sessions with several rows: a frame may come twice in one call.
#[derive(Default)]
pub(super) struct Repeats(HashMap<[u8; 16], Outcome>);

impl Repeats {
    /// Notes a row that was opened.
    pub(super) fn note(&mut self, arrivals: &Arrivals<'_>, outcome: Outcome) {
        if arrivals.keeps && arrivals.owner(outcome.row).is_some() {
            self.0.insert(arrivals.tags[outcome.row as usize], outcome);
        }
    }

    /// How a row ends whose frame was opened before in this call.
    pub(super) fn of(&self, arrivals: &Arrivals<'_>, row: u32) -> Option<Outcome> {
        let first = self.0.get(arrivals.tags.get(row as usize)?)?;
        Some(Outcome { row, status: Status::Redelivered, ..*first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_put_together_by_their_owners() {
        for (owners, expected) in [
            (&[][..], &[][..]),
            (&[None, None], &[]),
            (&[Some(2), None, Some(0), Some(2), Some(0)], &[(0, &[2, 4][..]), (2, &[0, 3])]),
            (&[Some(0), Some(0), None], &[(0, &[0, 1])]),
        ] {
            let sorted = by_owner(owners);
            assert_eq!(of_each(&sorted, owners).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn rows_leave_in_the_order_of_their_age() {
        let tag = |i: u8| [i; 16];
        let mut buffer = Buffer::load(vec![(30, tag(3), 5), (10, tag(1), 5), (20, tag(2), 5)]);
        assert_eq!((buffer.len(), buffer.bytes()), (3, 3 * row_bytes(5)));
        assert!(buffer.remove(&tag(1)) && !buffer.remove(&tag(1)));
        let mut gone = Vec::new();
        buffer.expire(30, |tag| gone.push(tag));
        assert_eq!(gone, [tag(2)]);
        assert_eq!((buffer.len(), buffer.bytes()), (1, row_bytes(5)));
    }

    #[test]
    fn acknowledged_rows_do_not_pile_up_behind_an_old_one() {
        let mut buffer = Buffer::load(vec![(1, [0; 16], 0)]);
        for i in 0..100_000_u128 {
            let tag = (i + 1).to_le_bytes();
            buffer.insert(tag, 2, 100);
            assert!(buffer.remove(&tag));
        }
        assert!(buffer.by_age.len() <= 2 + RUN);
        assert_eq!((buffer.len(), buffer.bytes()), (1, row_bytes(0)));
    }
}
