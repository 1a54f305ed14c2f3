//! Groups by sender keys: distribute, accept, encrypt, decrypt, rotate. A handle is one sender's keys in one group.

use std::collections::{BTreeSet, HashMap};
use std::mem::take;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use interlane_lanes::kernels::chain::MessageKeys;
use interlane_lanes::kernels::xeddsa::{EncodeOwn, Expand, Sign, Verify};
use interlane_lanes::{TILE, public};

use super::accounts::{AccountId, pairs};
use super::arrivals::{Arrivals, Keeping, PutLot, Repeats};
use super::engine::{Engine, check_lengths, check_name, unknown};
use super::lease::{self, Ahead, ChainAt, Copied, Marks, Rest};
use super::plan::{Claims, Entry, Plan, rows_in};
use super::randomness::{Purpose, Randomness, number};
use super::records::{self, SenderKeyRecord};
use super::rows::{Kind, Outcome, Packed, Rows};
use super::tile;
use crate::bytes::Bytes;
use crate::error::{Error, Events, Status};
use crate::limits::{MAX_PLAINTEXT, MAX_ROWS};
use crate::ratchet::{ChainKey, GROUP_KEY_BYTES, GROUP_KEY_INFO, GroupKeys, OwnSenderKey, SenderKeyStates};
use crate::secret::{Secret, SecretColumn};
use crate::store::{Changes, Key, Kind as RowKind};
use crate::wire::{DistributionMessage, SIGNATURE_BYTES, SenderKeyHeader, SenderKeyMessage, block_padding};

/// Rows below which a second core does not help: each has a signature.
const LEAST_ROWS: usize = 4;

/// A sender's keys in a group.
pub(super) struct Slot {
    account: u32,
    tag: [u8; 16],
    ours: bool,
    unloaded: bool,
    /// In a box, like every key that moves: what is moved is a pointer.
    record: Box<SenderKeyRecord>,
    /// Tags of the peers that were sent our key, and have been since it was made.
    holders: Vec<[u8; 16]>,
    /// Where sends are leased: the counter of our chain in the store.
    pub(super) leased: u64,
    pub(super) marks: Marks,
}

impl Slot {
    fn key(&self) -> Key {
        Key { account: self.account, kind: RowKind::SenderKey, tag: self.tag }
    }

    /// What a lease is made of, unless a call is about to write it.
    pub(super) fn copy_own(&self) -> Option<Copied> {
        let SenderKeyRecord::Own(Some(own)) = &*self.record else { return None };
        self.marks.is_quiet().then(|| Copied {
            key: self.key(),
            marks: self.marks,
            leased: self.leased,
            chain: own.chain.duplicate(),
            rest: Rest::SenderKey(Box::new(own.duplicate())),
        })
    }

    /// Whether the store is ahead of our chain.
    pub(super) fn is_leased_ahead(&self) -> bool {
        matches!(&*self.record, SenderKeyRecord::Own(Some(own)) if self.leased > own.chain.index)
    }

    fn empty(ours: bool) -> Box<SenderKeyRecord> {
        Box::new(if ours { SenderKeyRecord::Own(None) } else { SenderKeyRecord::Theirs(SenderKeyStates::default()) })
    }
}

/// Every sender key that the engine has met. A slot's number is its handle.
#[derive(Default)]
pub(crate) struct Groups {
    claims: Claims,
    slots: RwLock<Vec<Mutex<Slot>>>,
    directory: Mutex<HashMap<(u32, [u8; 16]), u32>>,
}

/// The slots, held still while rows are gathered or scattered.
pub(super) struct Slots<'a>(RwLockReadGuard<'a, Vec<Mutex<Slot>>>);

impl Slots<'_> {
    pub(super) fn of(&self, slot: u32) -> MutexGuard<'_, Slot> {
        self.0[slot as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Groups {
    pub(super) fn slots(&self) -> Slots<'_> {
        Slots(self.slots.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn len(&self) -> usize {
        self.slots().0.len()
    }

    /// Claims sender keys.
    pub(super) fn claim(&self, handles: &[u64]) -> Plan<'_> {
        self.claims.claim(handles, self.len(), Vec::new())
    }

    /// Claims everything of accounts that are about to be deleted or read again.
    pub(crate) fn claim_accounts(&self, accounts: impl Fn(u32) -> bool) -> Plan<'_> {
        let slots = self.slots();
        let len = slots.0.len();
        let handles: Vec<u64> =
            (0..len as u32).filter(|&slot| accounts(slots.of(slot).account)).map(u64::from).collect();
        drop(slots);
        self.claims.claim(&handles, len, Vec::new())
    }

    /// Drops what claimed sender keys had; `unload`: the store is to be asked for them again.
    pub(crate) fn clear(&self, plan: &Plan<'_>, unload: bool) {
        let slots = self.slots();
        for entry in &plan.entries {
            let mut slot = slots.of(entry.slot);
            slot.record = Slot::empty(slot.ours);
            slot.holders.clear();
            slot.marks.end();
            slot.unloaded = unload;
        }
    }

    /// The accounts of sender keys.
    pub(crate) fn accounts_of(&self, handles: &[u64]) -> BTreeSet<u32> {
        let slots = self.slots();
        let known = handles.iter().filter(|&&handle| handle < slots.0.len() as u64);
        known.map(|&handle| slots.of(handle as u32).account).collect()
    }
}

impl Slots<'_> {
    pub(super) fn len(&self) -> u32 {
        self.0.len() as u32
    }
}

/// A sender key of a run: the copy that is advanced.
struct Scratch {
    slot: u32,
    key: Key,
    record: Box<SenderKeyRecord>,
    dirty: bool,
    /// Of our chain: its next counter before this call, and its lease.
    next: u64,
    leased: u64,
}

/// What a run of a group call gives.
#[derive(Default)]
struct Ended {
    outcomes: Vec<Outcome>,
    bytes: Bytes,
    scratches: Vec<Scratch>,
    repeats: Repeats,
    keeping: Keeping,
    /// What goes to the receive buffers.
    kept: Changes,
    lots: Vec<PutLot>,
}

/// What a group call puts in the store.
#[derive(Default)]
struct Put {
    /// The sender keys whose rows are written.
    chains: Vec<ChainAt>,
    /// Our chains that need another lease soon, and up to where.
    low: Vec<(ChainAt, u64)>,
    /// Whether a send has to wait for this.
    waited: bool,
}

/// A frame of ours in the making.
struct Outgoing {
    row: u32,
    scratch: usize,
    wave: u32,
    header: SenderKeyHeader,
    message_padding: usize,
}

/// A sender's frame.
struct Incoming<'a> {
    row: u32,
    scratch: usize,
    wave: u32,
    message: SenderKeyMessage<'a>,
}

/// A frame whose signature is right, with a copy of its chain.
struct Attempt<'a> {
    incoming: Incoming<'a>,
    chain: ChainKey,
    /// How many messages are jumped over; `None` for one that was.
    steps: Option<u32>,
    passed: Vec<Secret<32>>,
    seed: Secret<32>,
}

impl Engine {
    /// Handles of sender keys, made where they are new: of a sender's in a group, or (`None`) of the account's own.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the lengths differ, an account is gone or a name is empty or too long.
    pub fn groups(&self, accounts: &[AccountId], groups: &[&str], senders: &[Option<&str>]) -> Result<Vec<u64>, Error> {
        self.may_be_called()?;
        check_lengths("senders", groups.len(), senders.len())?;
        let mut names = Vec::with_capacity(groups.len());
        for (group, sender) in groups.iter().zip(senders) {
            check_name(group, "group")?;
            let mut name = (group.len() as u32).to_be_bytes().to_vec();
            name.extend(group.as_bytes());
            if let Some(sender) = sender {
                check_name(sender, "sender")?;
                name.extend(sender.as_bytes());
            }
            names.push(name);
        }
        let borrowed: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let tagged = self.tags(accounts, RowKind::SenderKey, &borrowed)?;
        let mut directory = self.groups.directory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slots = self.groups.slots.write().unwrap_or_else(PoisonError::into_inner);
        let handles = tagged.into_iter().zip(senders).map(|((account, tag), sender)| {
            let slot = directory.entry((account, tag)).or_insert_with(|| {
                let ours = sender.is_none();
                let record = Slot::empty(ours);
                let unloaded = self.durable();
                let (holders, leased, marks) = (Vec::new(), 0, Marks::default());
                slots.push(Mutex::new(Slot { account, tag, ours, unloaded, record, holders, leased, marks }));
                (slots.len() - 1) as u32
            });
            u64::from(*slot)
        });
        Ok(handles.collect())
    }

    fn plan_groups(&self, handles: &[u64]) -> Result<Plan<'_>, Error> {
        self.may_be_called()?;
        if handles.len() > MAX_ROWS {
            return Err(Error::Malformed(format!("{} rows; split the call, {MAX_ROWS} is the most", handles.len())));
        }
        self.confirm_holds()?;
        if self.any_away() {
            self.call_back(&self.groups.accounts_of(handles))?;
        }
        let mut plan = self.groups.claims.claim(handles, self.groups.len(), Vec::new());
        let (mut keys, mut unloaded, mut away) = (Vec::new(), Vec::new(), Vec::new());
        {
            let mut accounts = self.accounts_of_run(&plan);
            let slots = self.groups.slots();
            for entry in &plan.entries {
                let slot = slots.of(entry.slot);
                if !slot.unloaded {
                    continue;
                }
                match accounts.find(slot.account) {
                    Err(status) => away.push((slot.account, status)),
                    Ok(_) => {
                        unloaded.push(entry.slot);
                        keys.extend([slot.key(), Key { kind: RowKind::Holders, ..slot.key() }]);
                    }
                }
            }
        }
        plan.note_away(away);
        if !keys.is_empty() {
            self.load(&keys, &mut |at, body| {
                let slots = self.groups.slots();
                let mut slot = slots.of(unloaded[at / 2]);
                if at.is_multiple_of(2) {
                    *slot.record = records::get(body)?;
                    if let SenderKeyRecord::Own(Some(own)) = &*slot.record {
                        slot.leased = own.chain.index;
                    }
                } else {
                    slot.holders = records::get(body)?;
                }
                Ok(())
            })?;
            let slots = self.groups.slots();
            for slot in unloaded {
                slots.of(slot).unloaded = false;
            }
        }
        Ok(plan)
    }

    /// Copies the sender keys of some entries; rows that have none of the wanted sort end here.
    fn scratches(&self, plan: &Plan<'_>, entries: &[Entry], ours: bool, ended: &mut Ended) -> Vec<(usize, Entry)> {
        let mut accounts = self.accounts_of_run(plan);
        let slots = self.groups.slots();
        let mut kept = Vec::with_capacity(entries.len());
        for entry in entries {
            let slot = slots.of(entry.slot);
            let found = if slot.ours == ours { accounts.find(slot.account) } else { Err(Status::UnknownHandle) };
            if let Err(status) = found {
                ended.outcomes.extend(plan.rows_of(entry).map(|row| Outcome::failed(row, status)));
                continue;
            }
            let record = Box::new(match &*slot.record {
                SenderKeyRecord::Own(own) => SenderKeyRecord::Own(own.as_ref().map(OwnSenderKey::duplicate)),
                SenderKeyRecord::Theirs(states) => SenderKeyRecord::Theirs(states.duplicate()),
            });
            kept.push((ended.scratches.len(), *entry));
            let next = if let SenderKeyRecord::Own(Some(own)) = &*record { own.chain.index } else { 0 };
            let (key, leased) = (slot.key(), slot.leased);
            ended.scratches.push(Scratch { slot: entry.slot, key, record, dirty: false, next, leased });
        }
        kept
    }

    /// Commits the runs of a group call and gives its rows.
    fn end(&self, n: usize, plan: &Plan<'_>, mut runs: Vec<Ended>, rekeyed: bool) -> Result<Rows, Error> {
        let mut changes = Changes::default();
        for run in &mut runs {
            changes.append(take(&mut run.kept));
        }
        let mut scratches: Vec<&mut Scratch> =
            runs.iter_mut().flat_map(|run| &mut run.scratches).filter(|scratch| scratch.dirty).collect();
        let put = self.put_scratches(&mut changes, &mut scratches, rekeyed);
        let committed = self.commit(changes, &put.chains)?;
        let mut results = vec![(unknown(plan), Bytes::default())];
        let slots = self.groups.slots();
        for run in runs {
            for scratch in run.scratches.into_iter().filter(|scratch| scratch.dirty) {
                let mut slot = slots.of(scratch.slot);
                slot.record = scratch.record;
                slot.leased = scratch.leased;
                slot.marks.end();
                if rekeyed {
                    slot.holders.clear();
                }
            }
            results.push((run.outcomes, run.bytes));
        }
        drop(slots);
        self.vouch(committed, plan, |slot| self.groups.slots().of(slot).account, &mut results);
        self.note_leases(put.waited, put.low);
        Ok(Rows::assemble(n, &mut results))
    }

    /// Puts the sender keys that a call has changed: our chains as they are or, where sends are leased, as they are at
    /// the end of their next lease, if the last one is used up.
    fn put_scratches(&self, changes: &mut Changes, scratches: &mut [&mut Scratch], rekeyed: bool) -> Put {
        let mut put = Put::default();
        if !self.durable() {
            return put;
        }
        let (mut leased, mut ends) = (Vec::new(), Vec::with_capacity(scratches.len()));
        for scratch in scratches {
            let Scratch { slot, key, record, next, leased: end, .. } = &mut **scratch;
            let chain = ChainAt::SenderKey(*slot);
            if rekeyed {
                changes.delete(Key { kind: RowKind::Holders, ..*key });
            }
            let (Some(span), SenderKeyRecord::Own(Some(own))) = (self.leases.span(), &**record) else {
                records::put(changes, *key, &**record);
                put.chains.push(chain);
                continue;
            };
            let index = own.chain.index;
            let due = if rekeyed { Some(span.end(index)) } else { span.due(*next, index, *end) };
            if let Some(until) = due {
                *end = until;
                ends.push(Ahead { chain: own.chain.duplicate(), until });
                leased.push((*key, Box::new(own.duplicate())));
                put.chains.push(chain);
                put.waited |= !rekeyed;
            } else if span.is_low(*next, index, *end) {
                put.low.push((chain, span.end(*next)));
            }
        }
        lease::step_ahead(self.backend, &mut ends);
        for ((key, own), Ahead { chain, .. }) in leased.iter_mut().zip(&mut ends) {
            std::mem::swap(&mut own.chain, chain);
            records::put_own_sender_key(changes, *key, own);
        }
        put
    }

    /// The distribution message of one's own sender key, which is made where there is none.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn group_distribute(&self, handles: &[u64]) -> Result<Rows, Error> {
        self.or_busy(handles.len(), self.group_distribute_rows(handles))
    }

    fn group_distribute_rows(&self, handles: &[u64]) -> Result<Rows, Error> {
        let plan = self.plan_groups(handles)?;
        let randomness = self.source.call(self.backend, handles.len())?;
        let runs = self.over_the_cores(&plan.runs(self.threads(), LEAST_ROWS), |part| {
            self.distribute_group(&plan, &plan.entries[part], &randomness)
        });
        let rows = self.end(handles.len(), &plan, runs, true)?;
        self.count(&rows, None);
        Ok(rows)
    }

    fn distribute_group(&self, plan: &Plan<'_>, entries: &[Entry], randomness: &Randomness) -> Ended {
        let mut ended = Ended::default();
        let kept = self.scratches(plan, entries, true, &mut ended);
        let lacks = |at: usize| matches!(&*ended.scratches[at].record, SenderKeyRecord::Own(None));
        let lacking: Vec<(usize, u32)> = kept
            .iter()
            .filter(|(at, _)| lacks(*at))
            .filter_map(|(at, entry)| Some((*at, plan.rows_of(entry).next()?)))
            .collect();
        // Copied and not moved out: what a moved value leaves in its vector's memory nobody zeroes.
        for ((at, _), own) in lacking.iter().zip(&self.new_sender_keys(&lacking, randomness)) {
            let scratch = &mut ended.scratches[*at];
            *scratch.record = SenderKeyRecord::Own(Some(own.duplicate()));
            scratch.dirty = true;
        }
        for (at, entry) in kept {
            for row in plan.rows_of(&entry) {
                let SenderKeyRecord::Own(Some(own)) = &*ended.scratches[at].record else { continue };
                let message = DistributionMessage {
                    id: own.id,
                    iteration: u32::try_from(own.chain.index).unwrap_or(u32::MAX),
                    chain_key: own.chain.key.duplicate(),
                    signing_key: own.signing.public,
                };
                let start = ended.bytes.len();
                ended.bytes.reserve(DistributionMessage::MAX_LEN);
                message.write(&mut ended.bytes);
                let len = ended.bytes.len() - start;
                let (status, kind, events) = (Status::Ok, Kind::Distribution, Events::default());
                ended.outcomes.push(Outcome { row, status, kind, events, start, len });
            }
        }
        ended
    }

    /// Fresh sender keys, each drawn for the row that first distributes it.
    fn new_sender_keys(&self, rows: &[(usize, u32)], randomness: &Randomness) -> Vec<OwnSenderKey> {
        let rows = || rows.iter().map(|(_, row)| *row);
        let privates = randomness.draws(rows(), [Purpose::SenderSigning]);
        let mut encodings = vec![[0; 32]; privates.len()];
        self.backend.run(EncodeOwn { privates: &privates, out: &mut encodings });
        let mut others = randomness.draws(rows(), [Purpose::SenderChain, Purpose::Number]);
        let pairs = pairs(self.backend, privates);
        pairs
            .iter()
            .zip(encodings)
            .zip(others.chunks_exact_mut(2))
            .map(|((signing, encoding), others)| OwnSenderKey {
                id: number(&others[1]) & 0x7fff_ffff,
                chain: ChainKey::first(Secret::take(&mut others[0])),
                signing: signing.duplicate(),
                encoding: public(encoding),
            })
            .collect()
    }

    /// Takes distribution messages of senders in. A message that repeats a known key changes nothing and is OK.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the lengths differ; [`Error::Store`]. Rows: INVALID, UNKNOWN_HANDLE.
    pub fn group_accept(&self, handles: &[u64], messages: Packed<'_>) -> Result<Rows, Error> {
        self.or_busy(handles.len(), self.group_accept_rows(handles, messages))
    }

    fn group_accept_rows(&self, handles: &[u64], messages: Packed<'_>) -> Result<Rows, Error> {
        check_lengths("data", handles.len(), messages.len())?;
        let plan = self.plan_groups(handles)?;
        let runs = self.over_the_cores(&plan.runs(self.threads(), LEAST_ROWS), |part| {
            self.accept_group(&plan, &plan.entries[part], messages)
        });
        let rows = self.end(handles.len(), &plan, runs, false)?;
        self.count(&rows, None);
        Ok(rows)
    }

    fn accept_group(&self, plan: &Plan<'_>, entries: &[Entry], messages: Packed<'_>) -> Ended {
        let mut ended = Ended::default();
        // They have keys, and stay where they are.
        let mut accepted = Vec::with_capacity(rows_in(entries));
        for (at, entry) in self.scratches(plan, entries, false, &mut ended) {
            for row in plan.rows_of(&entry) {
                match DistributionMessage::parse(messages.row(row as usize)) {
                    Some(message) => accepted.push((at, row, message)),
                    None => ended.outcomes.push(Outcome::failed(row, Status::Invalid)),
                }
            }
        }
        // What is kept of each signing key; of one that is known already, too: those are few.
        let keys: Vec<[u8; 32]> = accepted.iter().map(|(_, _, message)| message.signing_key).collect();
        let mut expanded = vec![None; keys.len()];
        self.backend.run(Expand { publics: &keys, out: &mut expanded });
        for ((at, row, message), expanded) in accepted.iter_mut().zip(expanded) {
            let Scratch { record, dirty, .. } = &mut ended.scratches[*at];
            let SenderKeyRecord::Theirs(states) = &mut **record else { continue };
            *dirty |= states.accept(message, expanded);
            ended.outcomes.push(Outcome::done(*row, Events::default()));
        }
        ended
    }

    /// Drops one's own sender keys; the next distribution makes others.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn group_rotate(&self, handles: &[u64]) -> Result<Rows, Error> {
        self.or_busy(handles.len(), self.group_rotate_rows(handles))
    }

    fn group_rotate_rows(&self, handles: &[u64]) -> Result<Rows, Error> {
        let plan = self.plan_groups(handles)?;
        let mut ended = Ended::default();
        for (at, entry) in self.scratches(&plan, &plan.entries, true, &mut ended) {
            let scratch = &mut ended.scratches[at];
            scratch.record = Slot::empty(true);
            scratch.dirty = true;
            ended.outcomes.extend(plan.rows_of(&entry).map(|row| Outcome::done(row, Events::default())));
        }
        let rows = self.end(handles.len(), &plan, vec![ended], true)?;
        self.count(&rows, None);
        Ok(rows)
    }

    /// Encrypts row `i` with the sender key of `handles[i]`, one's own: one frame for the whole group.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the lengths differ; [`Error::Store`]: then nothing has left. Rows: NO_SENDER_KEY
    /// (distribute first), TOO_LONG, EXHAUSTED, UNKNOWN_HANDLE.
    pub fn group_encrypt(&self, handles: &[u64], plaintexts: Packed<'_>) -> Result<Rows, Error> {
        self.or_busy(handles.len(), self.group_encrypt_rows(handles, plaintexts))
    }

    fn group_encrypt_rows(&self, handles: &[u64], plaintexts: Packed<'_>) -> Result<Rows, Error> {
        check_lengths("data", handles.len(), plaintexts.len())?;
        let plan = self.plan_groups(handles)?;
        let randomness = self.source.call(self.backend, handles.len())?;
        let runs = self.over_the_cores(&plan.runs(self.threads(), LEAST_ROWS), |part| {
            self.seal_group(&plan, &plan.entries[part], plaintexts, &randomness)
        });
        let rows = self.end(handles.len(), &plan, runs, false)?;
        self.count(&rows, Some(self.encrypted()));
        Ok(rows)
    }

    fn seal_group(&self, plan: &Plan<'_>, entries: &[Entry], plaintexts: Packed<'_>, randomness: &Randomness) -> Ended {
        let mut ended = Ended::default();
        let mut rows = Vec::with_capacity(rows_in(entries));
        for (at, entry) in self.scratches(plan, entries, true, &mut ended) {
            let SenderKeyRecord::Own(Some(own)) = &*ended.scratches[at].record else {
                ended.outcomes.extend(plan.rows_of(&entry).map(|row| Outcome::failed(row, Status::NoSenderKey)));
                continue;
            };
            let mut wave = 0;
            for row in plan.rows_of(&entry) {
                let len = plaintexts.row(row as usize).len();
                if len > MAX_PLAINTEXT {
                    ended.outcomes.push(Outcome::failed(row, Status::TooLong));
                    continue;
                }
                let iteration = u32::try_from(own.chain.index + u64::from(wave)).ok().filter(|&at| at != u32::MAX);
                let Some(iteration) = iteration else {
                    ended.outcomes.push(Outcome::failed(row, Status::Exhausted));
                    continue;
                };
                let header = SenderKeyHeader { id: own.id, iteration, ciphertext_len: len };
                rows.push(Outgoing { row, scratch: at, wave, header, message_padding: 0 });
                wave += 1;
            }
            ended.scratches[at].dirty = wave > 0;
        }
        if self.pads_messages() {
            let spreads = randomness.draws(rows.iter().map(|row| row.row), [Purpose::Padding]);
            for (row, spread) in rows.iter_mut().zip(spreads.iter()) {
                row.message_padding = self.message_padding(Some(spread[0]));
            }
        }
        for Outgoing { header, message_padding, .. } in &mut rows {
            header.ciphertext_len += *message_padding;
            header.ciphertext_len += block_padding(header.ciphertext_len);
        }
        let place = |row: &Outgoing| (row.scratch, row.wave);
        let seeds =
            tile::step_waves(self.backend, &rows, place, &mut ended.scratches, |scratch| match &mut *scratch.record {
                SenderKeyRecord::Own(Some(own)) => Some(&mut own.chain),
                _ => None,
            });
        let first = ended.outcomes.len();
        for (rows, seeds) in rows.chunks(TILE).zip(seeds.chunks(TILE)) {
            self.seal_group_tile(rows, seeds, plaintexts, &mut ended);
        }
        self.sign_group(&rows, first, randomness, &mut ended);
        ended
    }

    fn seal_group_tile(&self, rows: &[Outgoing], seeds: &[[u8; 32]], plaintexts: Packed<'_>, ended: &mut Ended) {
        let n = rows.len();
        let keys = group_keys(self, seeds);
        let begin = ended.bytes.len();
        let len = |row: &Outgoing| row.header.len() + row.header.ciphertext_len + SIGNATURE_BYTES;
        ended.bytes.reserve(rows.iter().map(len).sum());
        let mut lens = [0; TILE];
        for (row_len, row) in lens.iter_mut().zip(rows) {
            *row_len = len(row);
            let start = ended.bytes.len();
            ended.bytes.resize(start + *row_len, 0);
            let frame = &mut ended.bytes[start..];
            let text = row.header.write(frame);
            let plaintext = plaintexts.row(row.row as usize);
            tile::write_padded(&mut frame[text..text + row.header.ciphertext_len], plaintext, row.message_padding);
            let (status, kind, events) = (Status::Ok, Kind::SenderKeyMessage, Events::default());
            ended.outcomes.push(Outcome { row: row.row, status, kind, events, start, len: *row_len });
        }
        let mut frames: [&mut [u8]; TILE] = std::array::from_fn(|_| &mut [][..]);
        let mut behind = &mut ended.bytes[begin..];
        for (frame, &len) in frames.iter_mut().zip(&lens[..n]) {
            (*frame, behind) = behind.split_at_mut(len);
        }
        let mut texts: [&mut [u8]; TILE] = std::array::from_fn(|_| &mut [][..]);
        for ((text, frame), row) in texts.iter_mut().zip(&mut frames).zip(rows) {
            let end = frame.len() - SIGNATURE_BYTES;
            *text = &mut frame[end - row.header.ciphertext_len..end];
        }
        tile::seal(self.backend, &keys.0[..n], &keys.1[..n], &mut texts[..n]);
    }

    /// Signs the frames that the outcomes from `first` on name: more rows than a tile has share an inversion.
    fn sign_group(&self, rows: &[Outgoing], first: usize, randomness: &Randomness, ended: &mut Ended) {
        let randoms = randomness.signatures(rows.iter().map(|row| row.row));
        let mut privates = SecretColumn::<32>::zeroes(rows.len());
        let (mut encodings, mut signatures) = (vec![[0; 32]; rows.len()], vec![[0; SIGNATURE_BYTES]; rows.len()]);
        for ((row, private), encoding) in rows.iter().zip(privates.iter_mut()).zip(&mut encodings) {
            if let SenderKeyRecord::Own(Some(own)) = &*ended.scratches[row.scratch].record {
                *private = *own.signing.private.expose();
                *encoding = own.encoding;
            }
        }
        let frames = &ended.outcomes[first..];
        let messages: Vec<&[u8]> =
            frames.iter().map(|frame| &ended.bytes[frame.start..frame.start + frame.len - SIGNATURE_BYTES]).collect();
        self.backend.run(Sign {
            privates: &privates,
            encodings: Some(&encodings),
            messages: &messages,
            randoms: &randoms,
            out: &mut signatures,
        });
        for (frame, signature) in frames.iter().zip(&signatures) {
            let end = frame.start + frame.len;
            ended.bytes[end - SIGNATURE_BYTES..end].copy_from_slice(signature);
        }
    }

    /// Decrypts row `i`, a SenderKeyMessage of the sender `handles[i]`. A row that does not verify changes nothing.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the lengths differ; [`Error::Store`]: then nothing has changed. Rows: NO_SENDER_KEY,
    /// INVALID, DUPLICATE, TOO_FAR_AHEAD, UNKNOWN_HANDLE, REDELIVERED, BUFFER_FULL.
    pub fn group_decrypt(&self, handles: &[u64], frames: Packed<'_>) -> Result<Rows, Error> {
        self.or_busy(handles.len(), self.group_decrypt_rows(handles, frames))
    }

    fn group_decrypt_rows(&self, handles: &[u64], frames: Packed<'_>) -> Result<Rows, Error> {
        check_lengths("data", handles.len(), frames.len())?;
        let plan = self.plan_groups(handles)?;
        let owner = |slot| {
            let key = self.groups.slots().of(slot).key();
            (key.account, key.tag)
        };
        let arrivals = self.arrivals(&plan, frames, owner, |_| Kind::SenderKeyMessage as u8)?;
        let mut runs = self.over_the_cores(&plan.runs(self.threads(), LEAST_ROWS), |part| {
            self.open_group(&plan, &plan.entries[part], frames, &arrivals)
        });
        let lots: Vec<PutLot> = runs.iter_mut().flat_map(|run| take(&mut run.lots)).collect();
        let mut rows = self.end(handles.len(), &plan, runs, false)?;
        self.note_arrivals(&arrivals, &lots, &mut rows);
        self.count(&rows, Some(self.decrypted()));
        Ok(rows)
    }

    fn open_group(&self, plan: &Plan<'_>, entries: &[Entry], frames: Packed<'_>, arrivals: &Arrivals<'_>) -> Ended {
        let mut ended = Ended::default();
        let mut rows = Vec::new();
        for (at, entry) in self.scratches(plan, entries, false, &mut ended) {
            for (wave, row) in plan.rows_of(&entry).enumerate() {
                if arrivals.settle(row, &mut ended.outcomes, &mut ended.bytes) {
                    continue;
                }
                match SenderKeyMessage::parse(frames.row(row as usize)) {
                    Some(message) => rows.push(Incoming { row, scratch: at, wave: wave as u32, message }),
                    None => ended.outcomes.push(Outcome::failed(row, Status::Invalid)),
                }
            }
        }
        rows.sort_by_key(|row| row.wave);
        ended.bytes.reserve(rows.iter().map(|row| row.message.ciphertext.len()).sum());
        let mut rows = rows.into_iter().peekable();
        while let Some(first) = rows.next() {
            let number = first.wave;
            let mut wave = vec![first];
            while let Some(row) = rows.next_if(|row| row.wave == number) {
                wave.push(row);
            }
            wave.retain(|incoming| match ended.repeats.of(arrivals, incoming.row) {
                Some(outcome) => {
                    ended.outcomes.push(outcome);
                    false
                }
                None => true,
            });
            let mut attempts = self.verify_group(wave, &mut ended);
            self.advance_group(&mut attempts);
            for tile in attempts.chunks_mut(TILE) {
                self.open_group_tile(tile, arrivals, &mut ended);
            }
        }
        let Ended { keeping, bytes, kept, lots, .. } = &mut ended;
        *lots = arrivals.put(take(keeping), bytes, kept);
        ended
    }

    /// Signatures first: the chain is not touched for a frame that is not the sender's.
    fn verify_group<'a>(&self, wave: Vec<Incoming<'a>>, ended: &mut Ended) -> Vec<Attempt<'a>> {
        let (mut publics, mut expanded) = (Vec::with_capacity(wave.len()), Vec::with_capacity(wave.len()));
        let mut known = Vec::with_capacity(wave.len());
        for incoming in wave {
            match state(ended, incoming.scratch, incoming.message.id) {
                Some(state) => match state.expanded {
                    Some(kept) => {
                        publics.push(state.signing_key);
                        expanded.push(kept);
                        known.push(incoming);
                    }
                    None => ended.outcomes.push(Outcome::failed(incoming.row, Status::Invalid)),
                },
                None => ended.outcomes.push(Outcome::failed(incoming.row, Status::NoSenderKey)),
            }
        }
        let messages: Vec<&[u8]> = known.iter().map(|incoming| incoming.message.signed).collect();
        let signatures: Vec<[u8; SIGNATURE_BYTES]> = known.iter().map(|incoming| *incoming.message.signature).collect();
        let mut ok = vec![false; known.len()];
        self.backend.run(Verify {
            publics: &publics,
            expanded: Some(&expanded),
            messages: &messages,
            signatures: &signatures,
            ok: &mut ok,
        });
        let mut attempts = Vec::with_capacity(known.len());
        for (incoming, ok) in known.into_iter().zip(ok) {
            let state = state(ended, incoming.scratch, incoming.message.id).filter(|_| ok);
            let placed = state.ok_or(Status::Invalid).and_then(|state| Ok((state, state.place(&incoming.message)?)));
            match placed {
                Ok((state, steps)) => {
                    let kept = state.skipped.peek(incoming.message.iteration);
                    attempts.push(Attempt {
                        chain: state.chain.duplicate(),
                        steps,
                        passed: Vec::with_capacity(steps.unwrap_or(0) as usize),
                        seed: kept.unwrap_or_default(),
                        incoming,
                    });
                }
                Err(status) => ended.outcomes.push(Outcome::failed(incoming.row, status)),
            }
        }
        attempts
    }

    fn advance_group(&self, attempts: &mut [Attempt<'_>]) {
        let Some(most) = attempts.iter().filter_map(|attempt| attempt.steps).max() else { return };
        for done in 0..=most {
            let moving = attempts.iter_mut().filter(|attempt| attempt.steps.is_some_and(|steps| steps >= done));
            tile::step(self.backend, moving.map(|attempt| (&mut attempt.chain, attempt.seed.expose_mut())));
            for attempt in attempts.iter_mut().filter(|attempt| attempt.steps.is_some_and(|steps| steps > done)) {
                attempt.passed.push(attempt.seed.duplicate());
            }
        }
    }

    fn open_group_tile(&self, attempts: &mut [Attempt<'_>], arrivals: &Arrivals<'_>, ended: &mut Ended) {
        let n = attempts.len();
        let mut seeds = tile::column::<32>();
        for (seed, attempt) in seeds.iter_mut().zip(attempts.iter()) {
            *seed = *attempt.seed.expose();
        }
        let keys = group_keys(self, &seeds[..n]);
        let mut texts: [Option<&[u8]>; TILE] = [None; TILE];
        for (text, attempt) in texts.iter_mut().zip(attempts.iter()) {
            *text = Some(attempt.incoming.message.ciphertext);
        }
        let unpad = |text: &[u8]| self.strip_message_padding(text);
        let opened = tile::open(self.backend, &keys.0, &keys.1, &texts, &mut ended.bytes, unpad);
        for (attempt, at) in attempts.iter_mut().zip(opened) {
            let row = attempt.incoming.row;
            let Some((start, len)) = at else {
                ended.outcomes.push(Outcome::failed(row, Status::Invalid));
                continue;
            };
            commit_attempt(attempt, &mut ended.scratches[attempt.incoming.scratch]);
            let (status, kind, events) = (Status::Ok, Kind::SenderKeyMessage, Events::default());
            let outcome = Outcome { row, status, kind, events, start, len };
            arrivals.keep(outcome, None, &mut ended.keeping);
            ended.repeats.note(arrivals, outcome);
            ended.outcomes.push(outcome);
        }
    }

    /// Which of these peers (handles of sessions) lack our sender key.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a handle that is not one; [`Error::Store`].
    pub fn group_lacking(&self, handle: u64, devices: &[u64]) -> Result<Vec<bool>, Error> {
        let plan = self.plan_groups(&[handle])?;
        let tags = self.device_tags(&plan, devices)?;
        let slots = self.groups.slots();
        let slot = slots.of(plan.entries[0].slot);
        let holders: std::collections::HashSet<&[u8; 16]> = slot.holders.iter().collect();
        Ok(tags.iter().map(|tag| !holders.contains(tag)).collect())
    }

    /// Notes that these peers were sent our sender key by this distribution message; of a key that was rotated away
    /// meanwhile nothing is noted.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a handle that is not one; [`Error::Store`].
    pub fn group_holders(&self, handle: u64, distribution: &[u8], devices: &[u64]) -> Result<(), Error> {
        let plan = self.plan_groups(&[handle])?;
        let tags = self.device_tags(&plan, devices)?;
        let (key, mut holders) = {
            let slots = self.groups.slots();
            let slot = slots.of(plan.entries[0].slot);
            let sent = DistributionMessage::parse(distribution);
            match (&*slot.record, sent) {
                (SenderKeyRecord::Own(Some(own)), Some(sent)) if own.signing.public == sent.signing_key => {}
                _ => return Ok(()),
            }
            (slot.key(), slot.holders.clone())
        };
        holders.extend(tags);
        holders.sort_unstable();
        holders.dedup();
        if self.durable() {
            let mut changes = Changes::default();
            records::put(&mut changes, Key { kind: RowKind::Holders, ..key }, &holders);
            self.commit(changes, &[])?.refused.raise()?;
        }
        self.groups.slots().of(plan.entries[0].slot).holders = holders;
        Ok(())
    }

    fn device_tags(&self, plan: &Plan<'_>, devices: &[u64]) -> Result<Vec<[u8; 16]>, Error> {
        let unknown = || Error::Malformed("this handle is not one; ask groups() and sessions() for handles".into());
        let entry = plan.entries.first().ok_or_else(unknown)?;
        if !self.groups.slots().of(entry.slot).ours {
            return Err(Error::Malformed("only one's own sender key is distributed; give sender None".into()));
        }
        let len = self.columns.len() as u64;
        let pages = self.columns.pages();
        devices
            .iter()
            .map(|&device| {
                if device >= len {
                    return Err(unknown());
                }
                Ok(pages.tag(device as u32))
            })
            .collect()
    }
}

/// Cipher keys and IVs of a tile of seeds.
fn group_keys(engine: &Engine, seeds: &[[u8; 32]]) -> (tile::Column<32>, tile::Column<16>) {
    let mut bytes = tile::column::<GROUP_KEY_BYTES>();
    engine.backend.run(MessageKeys { seeds, info: GROUP_KEY_INFO, out: &mut bytes[..seeds.len()] });
    let (mut cipher, mut ivs) = (tile::column(), tile::column());
    for lane in 0..seeds.len() {
        let keys = GroupKeys::from(&bytes[lane]);
        (cipher[lane], ivs[lane]) = (*keys.cipher, *keys.iv);
    }
    (cipher, ivs)
}

/// The state of a scratch record that a frame names.
fn state(ended: &Ended, scratch: usize, id: u32) -> Option<&crate::ratchet::SenderKeyState> {
    match &*ended.scratches[scratch].record {
        SenderKeyRecord::Theirs(states) => states.find(id),
        SenderKeyRecord::Own(_) => None,
    }
}

/// Takes over what an authentic frame has changed.
fn commit_attempt(attempt: &mut Attempt<'_>, scratch: &mut Scratch) {
    let SenderKeyRecord::Theirs(states) = &mut *scratch.record else { return };
    let Some(state) = states.find_mut(attempt.incoming.message.id) else { return };
    scratch.dirty = true;
    if attempt.steps.is_none() {
        state.skipped.take(attempt.incoming.message.iteration);
        return;
    }
    state.skipped.reserve(attempt.passed.len());
    for (index, seed) in (state.chain.index..).zip(attempt.passed.iter_mut()) {
        state.skipped.push(u32::try_from(index).expect("below the frame's iteration"), std::mem::take(seed));
    }
    state.chain = attempt.chain.duplicate();
}
