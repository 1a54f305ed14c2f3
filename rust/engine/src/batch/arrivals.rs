//! The rows of a call that receives, where there is a receive buffer: which frames they are, which of them came before,
//! and what is kept of those that are opened.
//!
//! A frame is known by its tag,
//!
//! ```text
//! AES-256-CMAC(account's frame key, row kind ‖ frame kind ‖ 14 zeros ‖ tag of its sender, 16 bytes ‖ frame)
//! ```
//!
//! so that one sender's frame is not another's. CMAC is a pseudorandom function: a tag that came to be known, by whatever
//! leak, does not help to make frames of one tag, as it would with Poly1305. What is before the frame is two blocks, so that
//! the frame's blocks are taken from where they lie.
//!
//! Earlier interlanes knew a frame by another tag,
//!
//! ```text
//! HMAC-SHA256(account's tag key, row kind ‖ frame kind ‖ tag of its sender ‖ frame), 16 bytes
//! ```
//!
//! An account that has frames of theirs gets both tags made for each row, until the last of them is acknowledged or too old.
//!
//! Of the usual frame, the next one on its chain, not the plaintext is kept but the seed of the key that opens it, where that
//! is shorter: a frame that is delivered again brings its ciphertext along, and the tag says that it is the same one. So a row
//! takes some 50 bytes of the journal, however long the message is.

use std::ops::Range;

use hashbrown::HashMap;
use interlane_lanes::TILE;
use interlane_lanes::kernels::cmac::Cmac;
use interlane_lanes::kernels::hmac::Hmac;

use super::accounts::{Account, RunAccounts};
use super::buffer::{Expired, row_bytes};
use super::engine::Engine;
use super::lot_record::{self, Kept, KeptText, LOT_HEAD, Lot, TAG, TaggedBy};
use super::plan::Plan;
use super::records::damaged;
use super::rows::{Buffered, Kind, Outcome, Packed, Rows};
use super::tile;
use crate::bytes::Bytes;
use crate::error::{Error, Events, Status};
use crate::limits::{LOT_BYTES, LOT_FRAMES};
use crate::machine::{now, random};
use crate::secret::SecretColumn;
use crate::store::{Changes, Key, Kind as RowKind};
use crate::wire::SignalMessage;

/// Rows whose tags one core makes at a time.
const RUN: usize = 1_024;

/// Bytes that are tagged before a frame.
const TAG_HEAD: usize = 16 + TAG;

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

/// A row of which the frame is to be opened again, with the length of its plaintext.
struct Again {
    row: u32,
    events: Events,
    len: usize,
    /// Its seed was kept; else its key and IV.
    by_seed: bool,
}

/// The rows of a call that receives: which frames they are, and which of them were received before.
pub(crate) struct Arrivals<'e> {
    accounts: RunAccounts<'e>,
    /// For each row, its account's place. Empty where nothing is buffered: then no row is looked at.
    owners: Vec<Option<usize>>,
    /// The rows of each account, one account after the other: so that each buffer is locked once.
    by_owner: Vec<u32>,
    /// By what each row's frame is known, or will be.
    tags: Vec<[u8; TAG]>,
    settled: HashMap<u32, Settled>,
    /// The plaintexts of rows that are given out again.
    texts: Bytes,
    /// Whether what is opened is kept.
    keeps: bool,
    /// What the tags of the call's lots begin with; a row of theirs follows.
    lots_begin: [u8; TAG - 4],
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

impl Engine {
    /// Looks the frames of a planned call up. `owner` gives a slot's account and tag, `kind` a row's kind of frame.
    pub(super) fn arrivals<'a>(
        &'a self,
        plan: &'a Plan<'_>,
        frames: Packed<'_>,
        owner: impl Fn(u32) -> (u32, [u8; TAG]),
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
            lots_begin: Default::default(),
            now: now(),
            reserved: Vec::new(),
        };
        if !arrivals.keeps && !self.buffers_anything() {
            return Ok(arrivals);
        }
        let n = frames.len();
        arrivals.owners.resize(n, None);
        let mut senders = vec![[0; TAG]; n];
        for entry in &plan.entries {
            let (account, sender) = owner(entry.slot);
            let place = arrivals.accounts.find(account).ok();
            for row in plan.rows_of(entry) {
                (arrivals.owners[row as usize], senders[row as usize]) = (place, sender);
            }
        }
        arrivals.by_owner = by_owner(&arrivals.owners);
        let head = |row: usize| {
            let mut head = [0; TAG_HEAD];
            (head[0], head[1]) = (RowKind::Buffered as u8, kind(row));
            head[16..].copy_from_slice(&senders[row]);
            head
        };
        let made = self.over_the_cores(&parts(n), |part| {
            let rows: Vec<usize> = part.filter(|&row| arrivals.owners[row].is_some()).collect();
            let mut tags = vec![[0; TAG]; rows.len()];
            self.backend.run(Cmac {
                keys: &SecretColumn::copy_of(rows.iter().map(|&row| arrivals.account_of(row).frame_key())),
                heads: &rows.iter().map(|&row| head(row)).collect::<Vec<_>>(),
                tails: &rows.iter().map(|&row| frames.row(row)).collect::<Vec<_>>(),
                out: &mut tags,
            });
            (rows, tags)
        });
        arrivals.tags.resize(n, [0; TAG]);
        for (&row, &tag) in made.iter().flat_map(|(rows, tags)| rows.iter().zip(tags)) {
            arrivals.tags[row] = tag;
        }
        let older = self.older_tags(&arrivals, frames, head);
        self.settle_known(&mut arrivals, frames, &older)?;
        // The others may be opened, and kept.
        if arrivals.keeps && arrivals.settled.len() < arrivals.by_owner.len() {
            random(&mut arrivals.lots_begin)?;
        }
        Ok(arrivals)
    }

    /// The rows of accounts that have frames of earlier interlanes, with the tags that those knew them by.
    fn older_tags(
        &self,
        arrivals: &Arrivals<'_>,
        frames: Packed<'_>,
        head: impl Fn(usize) -> [u8; TAG_HEAD] + Sync,
    ) -> HashMap<u32, [u8; TAG]> {
        let mut rows = Vec::new();
        for (place, of_account) in of_each(&arrivals.by_owner, &arrivals.owners) {
            if arrivals.accounts[place].buffer().has_older() {
                rows.extend_from_slice(of_account);
            }
        }
        let made = self.over_the_cores(&parts(rows.len()), |part| {
            let each = || rows[part.clone()].iter().map(|&row| row as usize);
            let heads: Vec<[u8; 2 + TAG]> = each()
                .map(|row| {
                    let (head, mut shorter) = (head(row), [0; 2 + TAG]);
                    shorter[..2].copy_from_slice(&head[..2]);
                    shorter[2..].copy_from_slice(&head[16..]);
                    shorter
                })
                .collect();
            let mut hashes = vec![[0; 32]; part.len()];
            self.backend.run(Hmac {
                keys: &SecretColumn::copy_of(each().map(|row| arrivals.account_of(row).tag_key())),
                heads: &heads.iter().map(|head| &head[..]).collect::<Vec<_>>(),
                tails: &each().map(|row| frames.row(row)).collect::<Vec<_>>(),
                out: &mut hashes,
            });
            hashes
        });
        let hashes = made.iter().flatten().map(|hash| *hash.first_chunk().expect("16 of 32"));
        rows.iter().copied().zip(hashes).collect()
    }

    /// Finds the rows that are in the buffer, and those for which it has no room.
    fn settle_known(
        &self,
        arrivals: &mut Arrivals<'_>,
        frames: Packed<'_>,
        older: &HashMap<u32, [u8; TAG]>,
    ) -> Result<(), Error> {
        // The rows of the store that have them, with the rows of the call.
        let mut known: Vec<(Key, u32)> = Vec::new();
        let mut expired = Expired::default();
        for (place, rows) in of_each(&arrivals.by_owner, &arrivals.owners) {
            let account = &arrivals.accounts[place];
            let mut buffer = account.buffer();
            self.expire_buffered(account, &mut buffer, arrivals.now, &mut expired);
            let mut reserved = 0;
            for &row in rows {
                let tag = &mut arrivals.tags[row as usize];
                let mut lot = buffer.lot_of(tag);
                if lot.is_none()
                    && let Some(older) = older.get(&row)
                {
                    lot = buffer.lot_of(older);
                    // What it is acknowledged by, then.
                    *tag = if lot.is_some() { *older } else { *tag };
                }
                if let Some(lot) = lot {
                    known.push((account.key(RowKind::Buffered, lot), row));
                } else if let Some(limits) = self.buffer_limits() {
                    let bytes = row_bytes(frames.row(row as usize).len());
                    if buffer.bytes() + buffer.reserved + reserved + bytes > limits.bytes {
                        arrivals.settled.insert(row, Settled::Full);
                    } else {
                        reserved += bytes;
                    }
                }
            }
            buffer.reserved += reserved;
            arrivals.reserved.push((place, reserved));
        }
        self.free_buffered(expired.rows, expired.frames)?;
        if known.is_empty() {
            return Ok(());
        }
        known.sort_unstable();
        let of_lots: Vec<&[(Key, u32)]> = known.chunk_by(|(one, _), (next, _)| one == next).collect();
        let keys: Vec<Key> = of_lots.iter().map(|rows| rows[0].0).collect();
        let (mut sealed, mut opened_by) = (Vec::with_capacity(known.len()), SecretColumn::<48>::zeroes(known.len()));
        self.load(&keys, &mut |at, body| {
            let Lot { frames: kept, .. } = Lot::read(keys[at].tag, body)?;
            for &(_, row) in of_lots[at] {
                let tag = &arrivals.tags[row as usize];
                let Some(Kept { kind, events, text, .. }) = kept.iter().find(|kept| kept.tag == *tag) else { continue };
                let (kind, events) = (*kind, *events);
                match *text {
                    KeptText::Plain(text) => {
                        let (start, len) = (arrivals.texts.len(), text.len());
                        arrivals.texts.reserve(len);
                        arrivals.texts.extend_from_slice(text);
                        arrivals.settled.insert(row, Settled::Redelivered { kind, events, start, len });
                    }
                    KeptText::Sealed { len, seed } => {
                        opened_by[sealed.len()][..32].copy_from_slice(seed);
                        sealed.push(Again { row, events, len, by_seed: true });
                    }
                    KeptText::Keyed { len, key, iv } => {
                        let by = &mut opened_by[sealed.len()];
                        by[..32].copy_from_slice(key);
                        by[32..].copy_from_slice(iv);
                        sealed.push(Again { row, events, len, by_seed: false });
                    }
                }
            }
            Ok(())
        })?;
        self.open_again(arrivals, frames, &sealed, &opened_by)
    }

    /// Opens frames of which the seed was kept, or the key.
    fn open_again(
        &self,
        arrivals: &mut Arrivals<'_>,
        frames: Packed<'_>,
        sealed: &[Again],
        opened_by: &[[u8; 48]],
    ) -> Result<(), Error> {
        for (rows, opened_by) in sealed.chunks(TILE).zip(opened_by.chunks(TILE)) {
            let mut seeds = tile::column::<32>();
            for (seed, by) in seeds.iter_mut().zip(opened_by) {
                seed.copy_from_slice(&by[..32]);
            }
            let mut keys = tile::message_keys(self.backend, &seeds[..rows.len()]);
            for (lane, (again, by)) in rows.iter().zip(opened_by).enumerate() {
                if !again.by_seed {
                    keys.cipher[lane] = seeds[lane];
                    keys.iv[lane].copy_from_slice(&by[32..]);
                }
            }
            let mut ciphertexts = [None; TILE];
            for (ciphertext, again) in ciphertexts.iter_mut().zip(rows) {
                // Parsed as it was when it came first, for it is the same frame.
                *ciphertext = SignalMessage::parse(frames.row(again.row as usize)).map(|message| message.ciphertext);
            }
            let texts = &mut arrivals.texts;
            let opened = tile::open(self.backend, &keys.cipher, &keys.iv, &ciphertexts, texts, |text| Some(text.len()));
            for (&Again { row, events, len, .. }, opened) in rows.iter().zip(opened) {
                // Behind the plaintext there may be message padding.
                let (start, _) = opened.filter(|&(_, padded)| len <= padded).ok_or_else(damaged)?;
                arrivals.settled.insert(row, Settled::Redelivered { kind: Kind::Message, events, start, len });
            }
        }
        Ok(())
    }

    /// After the commit: notes what was kept, and gives the rows what they are acknowledged by.
    pub(super) fn note_arrivals(&self, arrivals: &Arrivals<'_>, lots: &[PutLot], rows: &mut Rows) {
        let is = |rows: &Rows, row: usize, status: Status| rows.status[row] == status as u8;
        rows.buffered.reserve(arrivals.by_owner.len());
        for (row, (&tag, &owner)) in arrivals.tags.iter().zip(&arrivals.owners).enumerate() {
            let Some(place) = owner else { continue };
            if is(rows, row, Status::Redelivered) || (arrivals.keeps && is(rows, row, Status::Ok)) {
                rows.buffered.push(Buffered { row: row as u32, account: arrivals.accounts[place].id, tag });
            }
        }
        let mut kept = 0;
        for lot in lots {
            // An account that is refused is so in whole.
            let put = lot.rows.iter().map(|&row| row as usize).filter(|&row| is(rows, row, Status::Ok));
            let frames = put.map(|row| (arrivals.tags[row], (rows.offsets[row + 1] - rows.offsets[row]) as usize));
            kept += arrivals.accounts[lot.owner].buffer().insert(lot.tag, arrivals.now, TaggedBy::Cmac, frames);
        }
        self.note_buffered(kept);
    }
}

/// What a run has opened and is to be kept.
#[derive(Default)]
pub(super) struct Keeping {
    rows: Vec<ToKeep>,
    seeds: SecretColumn<32>,
    seeds_used: usize,
}

struct ToKeep {
    owner: usize,
    outcome: Outcome,
    /// Which of the seeds opens it.
    seed: Option<usize>,
}

/// A lot that a call puts in the store: its account's place, its row's tag, and the call's rows that are in it.
pub(super) struct PutLot {
    owner: usize,
    tag: [u8; TAG],
    rows: Vec<u32>,
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

    /// Whether what is opened is kept.
    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    /// Room for `usual` rows that are kept by their seeds.
    pub(super) fn keeping(&self, usual: usize) -> Keeping {
        let usual = if self.keeps { usual } else { 0 };
        Keeping { rows: Vec::with_capacity(usual), seeds: SecretColumn::zeroes(usual), seeds_used: 0 }
    }

    /// Notes a row that is to be kept. Of the next frame of a chain the seed is known, for which there is room.
    pub(super) fn keep(&self, outcome: Outcome, seed: Option<&[u8; 32]>, keeping: &mut Keeping) {
        let (true, Some(owner)) = (self.keeps, self.owner(outcome.row)) else { return };
        let seed = seed.map(|seed| {
            let at = keeping.seeds_used;
            keeping.seeds[at] = *seed;
            keeping.seeds_used += 1;
            at
        });
        keeping.rows.push(ToKeep { owner, outcome, seed });
    }

    /// Puts what is to be kept in lots, in the transaction that makes it so; `bytes` are the run's.
    pub(super) fn put(&self, mut keeping: Keeping, bytes: &[u8], changes: &mut Changes) -> Vec<PutLot> {
        keeping.rows.sort_by_key(|row| row.owner);
        let Keeping { rows, seeds, .. } = &keeping;
        let frames: Vec<Kept<'_>> = rows.iter().map(|row| self.kept(row, seeds, bytes)).collect();
        let mut lots = Vec::with_capacity(rows.len().div_ceil(LOT_FRAMES));
        let (mut rows, mut frames) = (&rows[..], &frames[..]);
        while let Some(&ToKeep { owner, outcome: Outcome { row, .. }, .. }) = rows.first() {
            let (mut n, mut size) = (0, LOT_HEAD);
            for (row, frame) in rows.iter().zip(frames).take(LOT_FRAMES) {
                size += frame.most();
                if row.owner != owner || (n > 0 && size > LOT_BYTES) {
                    break;
                }
                n += 1;
            }
            let (of_lot, of_others) = rows.split_at(n);
            let (kept, kept_of_others) = frames.split_at(n);
            let tag = self.lot_tag(row);
            let key = self.accounts[owner].key(RowKind::Buffered, tag);
            lot_record::put(changes, key, true, self.now, TaggedBy::Cmac, kept);
            lots.push(PutLot { owner, tag, rows: of_lot.iter().map(|row| row.outcome.row).collect() });
            (rows, frames) = (of_others, kept_of_others);
        }
        lots
    }

    fn kept<'a>(&self, row: &ToKeep, seeds: &'a [[u8; 32]], bytes: &'a [u8]) -> Kept<'a> {
        let Outcome { row: number, kind, events, start, len, .. } = row.outcome;
        let plain = &bytes[start..start + len];
        let text = match row.seed {
            Some(at) => KeptText::shorter(plain, &seeds[at]),
            None => KeptText::Plain(plain),
        };
        Kept { tag: self.tags[number as usize], kind, events, text }
    }

    /// The tag of the row of the lot that begins with a row of the call: no other lot has it.
    fn lot_tag(&self, row: u32) -> [u8; TAG] {
        let mut tag = [0; TAG];
        tag[..TAG - 4].copy_from_slice(&self.lots_begin);
        tag[TAG - 4..].copy_from_slice(&row.to_be_bytes());
        tag
    }

    /// The account of a row that has one.
    fn account_of(&self, row: usize) -> &Account {
        &self.accounts[self.owners[row].expect("the others are left out")]
    }

    fn owner(&self, row: u32) -> Option<usize> {
        self.owners.get(row as usize).copied().flatten()
    }
}

/// What is done on one core at a time, of so many.
fn parts(n: usize) -> Vec<Range<usize>> {
    (0..n).step_by(RUN).map(|start| start..(start + RUN).min(n)).collect()
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
pub(super) struct Repeats(HashMap<[u8; TAG], Outcome>);

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
}
