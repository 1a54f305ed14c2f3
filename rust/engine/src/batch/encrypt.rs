//! Encrypting: chain steps in waves, then message keys, CBC and MAC for rows in tiles, sorted by length. Frames are written
//! in the order of their sessions, where one thread does all: in a call of one row a session they lie as the caller gets them.

use interlane_lanes::TILE;

use super::accounts::{Account, RunAccounts};
use super::columns::SendingView;
use super::engine::Engine;
use super::lease::{self, Ahead};
use super::plan::{Entry, Plan, rows_in};
use super::randomness::{Purpose, Randomness};
use super::records;
use super::rows::{Kind, Outcome, Packed};
use super::tile;
use crate::bytes::Growing;
use crate::error::{Events, Status};
use crate::limits::MAX_PLAINTEXT;
use crate::ratchet::{ChainKey, Pending, identities};
use crate::store::{Changes, Key, Kind as RowKind};
use crate::wire::{MAC_BYTES, PrekeyHeader, SignalHeader, block_padding};

/// What a frame has beside its plaintext where no prekey is named: version, ratchet key, counters, paddings, code.
const USUAL_OVERHEAD: usize = 80;

/// What runs of an encrypt call give: those that one thread does add to one.
#[derive(Default)]
pub(super) struct Sealed {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) frames: Growing,
    /// Slots whose sending chains have moved.
    pub(super) advanced: Vec<(u32, ChainKey)>,
    /// Slots whose chains are written, and up to where.
    pub(super) written: Vec<(u32, u64)>,
    /// Slots that need another lease soon, and up to where.
    pub(super) low: Vec<(u32, u64)>,
    pub(super) changes: Changes,
}

impl Sealed {
    /// Nothing yet, with room for `rows` rows whose plaintexts have so many bytes in all.
    pub(super) fn with_room(rows: usize, plaintext: usize) -> Self {
        Self {
            outcomes: Vec::with_capacity(rows),
            frames: Growing::with_room(plaintext + rows * USUAL_OVERHEAD),
            // A vector that grows leaves chain keys behind.
            advanced: Vec::with_capacity(rows),
            ..Self::default()
        }
    }
}

/// A session of the run.
struct Sender {
    slot: u32,
    key: Key,
    /// Its place among the run's accounts.
    account: usize,
    /// The chain's next counter before this call.
    next: u64,
    view: SendingView,
}

/// A row that will be a frame.
struct Outgoing {
    row: u32,
    /// Its place among the run's senders.
    sender: u32,
    /// How many rows of its session come before it.
    wave: u32,
    counter: u32,
    message_padding: usize,
    ciphertext_len: usize,
    /// The SignalMessage, with its MAC.
    message_len: usize,
    frame_len: usize,
}

/// Encrypts the rows of some entries and adds what that gives. `randomness` is there where messages are padded.
pub(super) fn seal(
    engine: &Engine,
    plan: &Plan<'_>,
    entries: &[Entry],
    plaintexts: Packed<'_>,
    randomness: Option<&Randomness>,
    sealed: &mut Sealed,
) {
    let mut accounts = engine.accounts_of_run(plan);
    let (mut senders, rows) =
        gather(engine, plan, entries, plaintexts, randomness, &mut accounts, &mut sealed.outcomes);
    let place = |row: &Outgoing| (row.sender as usize, row.wave);
    // Where every session has one row, its chain moves when its row's tile does.
    let waves = rows.len() > senders.len();
    let seeds = waves
        .then(|| tile::step_waves(engine.backend, &rows, place, &mut senders, |sender| Some(&mut sender.view.chain)));
    let run = Run { engine, accounts: &accounts, rows: &rows, seeds: seeds.as_deref(), plaintexts };
    run.write_frames(&mut senders, sealed);
    if engine.durable() {
        write_chains(engine, &senders, sealed);
    }
    sealed.advanced.extend(senders.iter_mut().map(|sender| (sender.slot, std::mem::take(&mut sender.view.chain))));
}

/// Puts the chains in the store: as they are, or, of those whose lease is used up, the end of the next.
fn write_chains(engine: &Engine, senders: &[Sender], sealed: &mut Sealed) {
    let Some(span) = engine.leases.span() else {
        for Sender { key, view, .. } in senders {
            records::put_sending(&mut sealed.changes, *key, &view.ratchet_key, &view.chain);
        }
        return;
    };
    let (mut due, mut ends) = (Vec::with_capacity(senders.len()), Vec::with_capacity(senders.len()));
    for sender in senders {
        let Sender { slot, next, view: SendingView { chain, leased, .. }, .. } = sender;
        if let Some(until) = span.due(*next, chain.index, *leased) {
            ends.push(Ahead { chain: chain.duplicate(), until });
            due.push(sender);
            sealed.written.push((*slot, until));
        } else if span.is_low(*next, chain.index, *leased) {
            sealed.low.push((*slot, span.end(*next)));
        }
    }
    lease::step_ahead(engine.backend, &mut ends);
    for (Sender { key, view, .. }, end) in due.into_iter().zip(&ends) {
        records::put_sending(&mut sealed.changes, *key, &view.ratchet_key, &end.chain);
    }
}

/// Copies out of the columns what the rows need, and settles every length.
fn gather(
    engine: &Engine,
    plan: &Plan<'_>,
    entries: &[Entry],
    plaintexts: Packed<'_>,
    randomness: Option<&Randomness>,
    accounts: &mut RunAccounts<'_>,
    outcomes: &mut Vec<Outcome>,
) -> (Vec<Sender>, Vec<Outgoing>) {
    let (mut senders, mut rows) = (Vec::with_capacity(entries.len()), Vec::with_capacity(rows_in(entries)));
    let pages = engine.columns.pages();
    let mut walk = pages.walk();
    for entry in entries {
        let at = walk.to(entry.slot);
        let key = at.key(RowKind::Sending);
        let account = match accounts.find(key.account) {
            Ok(account) => account,
            Err(status) => {
                outcomes.extend(plan.rows_of(entry).map(|row| Outcome::failed(row, status)));
                continue;
            }
        };
        let Some(view) = at.sending() else {
            outcomes.extend(plan.rows_of(entry).map(|row| Outcome::failed(row, Status::NoSession)));
            continue;
        };
        let (next, previous_counter, pending) =
            (view.chain.index, view.previous_counter, view.pending.map(|(pending, _)| pending));
        let sender = senders.len();
        // Moved once, before its rows are looked at: it is a quarter of a kilobyte.
        senders.push(Sender { slot: entry.slot, key, account, next, view });
        let mut wave = 0;
        for row in plan.rows_of(entry) {
            let plaintext = plaintexts.row(row as usize);
            if plaintext.len() > MAX_PLAINTEXT {
                outcomes.push(Outcome::failed(row, Status::TooLong));
                continue;
            }
            let counter = u32::try_from(next + u64::from(wave)).ok().filter(|&counter| counter != u32::MAX);
            let Some(counter) = counter else {
                outcomes.push(Outcome::failed(row, Status::Exhausted));
                continue;
            };
            let message_padding = engine.message_padding(
                randomness.map(|randomness| randomness.draw(row as usize, Purpose::Padding).expose()[0]),
            );
            let padded_len = plaintext.len() + message_padding;
            let ciphertext_len = padded_len + block_padding(padded_len);
            let message_len = SignalHeader::len(counter, previous_counter, ciphertext_len) + ciphertext_len + MAC_BYTES;
            let around = pending.map_or(0, |pending| {
                PrekeyHeader::front_len(pending.one_time_id, message_len)
                    + PrekeyHeader::back_len(accounts[account].registration_id, pending.signed_id)
            });
            rows.push(Outgoing {
                row,
                sender: sender as u32,
                wave,
                counter,
                message_padding,
                ciphertext_len,
                message_len,
                frame_len: message_len + around,
            });
            wave += 1;
        }
        if wave == 0 {
            senders.truncate(sender);
        }
    }
    (senders, rows)
}

/// A run whose lengths are known.
#[derive(Clone, Copy)]
struct Run<'a> {
    engine: &'a Engine,
    accounts: &'a RunAccounts<'a>,
    rows: &'a [Outgoing],
    /// Of the rows, if the chains have moved already.
    seeds: Option<&'a [[u8; 32]]>,
    plaintexts: Packed<'a>,
}

impl Run<'_> {
    /// Message keys, CBC and MAC, a tile at a time.
    fn write_frames(&self, senders: &mut [Sender], sealed: &mut Sealed) {
        let (rows, mut start) = (self.rows, sealed.frames.len());
        // Headers, texts and codes are all there is in a frame: every byte is written.
        let mut rest = sealed.frames.next(rows.iter().map(|row| row.frame_len).sum());
        let mut frames: Vec<&mut [u8]> = Vec::with_capacity(rows.len());
        for row in rows {
            let (frame, behind) = rest.split_at_mut(row.frame_len);
            frames.push(frame);
            rest = behind;
            let pending = senders[row.sender as usize].view.pending.is_some();
            sealed.outcomes.push(Outcome {
                row: row.row,
                status: Status::Ok,
                kind: if pending { Kind::PrekeyMessage } else { Kind::Message },
                events: Events::default(),
                start,
                len: row.frame_len,
            });
            start += row.frame_len;
        }
        // Rows of one tile share their number of MAC blocks as far as may be: no lane waits for another.
        let mut order: Vec<u32> = (0..rows.len() as u32).collect();
        order.sort_by_key(|&at| rows[at as usize].message_len.div_ceil(64));
        for at in order.chunks(TILE) {
            self.write_tile(at, senders, &mut frames);
        }
    }

    /// The message keys of a tile.
    fn keys(&self, at: &[u32], senders: &mut [Sender]) -> tile::TileKeys {
        let (backend, n) = (self.engine.backend, at.len());
        let mut column = tile::column::<32>();
        if let Some(seeds) = self.seeds {
            for (seed, &at) in column.iter_mut().zip(at) {
                *seed = seeds[at as usize];
            }
            return tile::message_keys(backend, &column[..n]);
        }
        for (chain, &at) in column.iter_mut().zip(at) {
            *chain = *senders[self.rows[at as usize].sender as usize].view.chain.key.expose();
        }
        let keys = tile::step_to_keys(backend, &mut column[..n], &mut []);
        for (next, &at) in column.iter().zip(at) {
            let chain = &mut senders[self.rows[at as usize].sender as usize].view.chain;
            *chain.key.expose_mut() = *next;
            chain.index += 1;
        }
        keys
    }

    fn write_tile(&self, at: &[u32], senders: &mut [Sender], frames: &mut [&mut [u8]]) {
        let Self { engine, accounts, rows, plaintexts, .. } = *self;
        let n = at.len();
        let keys = self.keys(at, senders);
        let mut heads = [[0; 66]; TILE];
        let mut messages: [&mut [u8]; TILE] = std::array::from_fn(|_| &mut [][..]);
        for (lane, &at) in at.iter().enumerate() {
            let row = &rows[at as usize];
            let Sender { account, view, .. } = &senders[row.sender as usize];
            let account = &accounts[*account];
            heads[lane] = identities(&account.identity.public, &view.their_identity);
            let frame = std::mem::take(&mut frames[at as usize]);
            let front =
                view.pending.map_or(0, |(pending, base_key)| write_around(account, pending, &base_key, frame, row));
            let message = &mut frame[front..front + row.message_len];
            let header = SignalHeader {
                ratchet_key: &view.ratchet_key,
                counter: row.counter,
                previous_counter: view.previous_counter,
                ciphertext_len: row.ciphertext_len,
            };
            let text = header.write(message);
            let plaintext = plaintexts.row(row.row as usize);
            tile::write_padded(&mut message[text..text + row.ciphertext_len], plaintext, row.message_padding);
            messages[lane] = message;
        }
        let mut texts: [&mut [u8]; TILE] = std::array::from_fn(|_| &mut [][..]);
        for ((text, message), &at) in texts.iter_mut().zip(&mut messages).zip(at) {
            let end = message.len() - MAC_BYTES;
            *text = &mut message[end - rows[at as usize].ciphertext_len..end];
        }
        tile::seal(engine.backend, &keys.cipher[..n], &keys.iv[..n], &mut texts[..n]);
        let mut authenticated: [&[u8]; TILE] = [&[]; TILE];
        for (frame, message) in authenticated.iter_mut().zip(&messages[..n]) {
            *frame = &message[..message.len() - MAC_BYTES];
        }
        let macs = tile::macs(engine.backend, &keys.mac[..n], &heads[..n], &authenticated[..n]);
        for (message, mac) in messages[..n].iter_mut().zip(macs.iter()) {
            let end = message.len() - MAC_BYTES;
            message[end..].copy_from_slice(&mac[..MAC_BYTES]);
        }
    }
}

/// Writes a PreKeySignalMessage's fields around the place of its inner message; where that begins.
fn write_around(account: &Account, pending: Pending, base_key: &[u8; 32], frame: &mut [u8], row: &Outgoing) -> usize {
    let header = PrekeyHeader {
        one_time_id: pending.one_time_id,
        signed_id: pending.signed_id,
        base_key,
        identity: &account.identity.public,
        registration_id: account.registration_id,
    };
    header.write(frame, row.message_len)
}
