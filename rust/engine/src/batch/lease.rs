//! Leases: sends that write nothing.
//!
//! The store holds a sending chain's key as it is at the *end* of its lease, memory the chain as it is. Frames below the
//! end may leave without a write; after a crash the chain goes on at the end, so no counter comes twice and at most a
//! lease of them is skipped.
//!
//! ```text
//! span(n)       = 2 n, at least 8 and at most the lease: a chain that hardly sends is stepped ahead but little
//! end of lease <= n + span(n), where n is the next counter before the call that is under way
//! ```
//!
//! Once a call leaves a chain with less than half its span, a thread writes the next lease, so that a gateway that
//! keeps sending waits for no disk. That thread claims no sessions. It takes copies of chains, steps them, and in the
//! store's turn writes those that no call has written, or is about to write, since they were copied: see [`Marks`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use interlane_lanes::{Backend, TILE};

use super::columns::Columns;
use super::engine::Engine;
use super::group::Groups;
use super::plan::Plan;
use super::records::{self, Dirty};
use super::standing::Roll;
use super::tile;
use crate::error::Error;
use crate::limits::{LEAST_SPAN, MAX_SENDER_SKIP};
use crate::ratchet::{ChainKey, OwnSenderKey, Peer};
use crate::store::{Changes, Key, Store};

/// When what is sent becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Every call commits its chains before its frames leave.
    Strict,
    /// The store is ahead of every sending chain by up to this many counters; calls within write nothing.
    Leased(u32),
}

impl Durability {
    /// That a lease is one.
    pub(super) fn check(self) -> Result<(), Error> {
        match self {
            Self::Leased(lease) if !(1..=MAX_SENDER_SKIP).contains(&lease) => Err(Error::Malformed(format!(
                "a lease of {lease}: give 1 to {MAX_SENDER_SKIP}, for receivers allow a gap of 1,999 and no more"
            ))),
            _ => Ok(()),
        }
    }
}

/// A sending chain: its slot among sessions or among sender keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ChainAt {
    Session(u32),
    SenderKey(u32),
}

/// Counts the writes of a chain's row: odd while a call is about to write it.
///
/// A call makes it odd in the store's turn, before its commit, and even when memory has what was committed (or the
/// commit failed). Who copied a chain at an even count, and in the store's turn finds the same count, knows that its
/// copy is of the chain that is stored. A session that was evicted and loaded again is in another life, in which it
/// counts anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    life: u32,
    writes: u32,
}

impl Marks {
    pub(crate) fn of_life(life: u32) -> Self {
        Self { life, writes: 0 }
    }

    pub(crate) fn begin(&mut self) {
        self.writes |= 1;
    }

    pub(crate) fn end(&mut self) {
        self.writes = (self.writes | 1).wrapping_add(1);
    }

    pub(crate) fn is_quiet(self) -> bool {
        self.writes & 1 == 0
    }
}

/// What is sent by a chain, copied at a quiet moment.
pub(crate) struct Copied {
    pub(crate) key: Key,
    pub(crate) marks: Marks,
    pub(crate) leased: u64,
    pub(crate) chain: ChainKey,
    pub(crate) rest: Rest,
}

/// What else is in the chain's row.
pub(crate) enum Rest {
    /// The ratchet key.
    Session([u8; 32]),
    SenderKey(Box<OwnSenderKey>),
}

impl Engine {
    /// Puts the rows of changed peers: slot, place, what has changed, and the peer. New sending chains get leases.
    pub(super) fn put_peers<'p>(
        &self,
        changes: &mut Changes,
        peers: impl Iterator<Item = (u32, Key, Dirty, &'p mut Peer)>,
    ) {
        if !self.durable() {
            return;
        }
        let mut peers: Vec<_> = peers.collect();
        let mut ends = Vec::with_capacity(peers.len());
        if let Some(span) = self.leases.span() {
            for (_, _, dirty, peer) in &mut peers {
                if let (true, Some(session)) = (dirty.current, &mut peer.current) {
                    // A chain that did not turn keeps its lease: who receives, crashes and does not send is to skip no more.
                    let kept = session.leased.max(session.sending.index);
                    session.leased = if kept == 0 { span.end(0) } else { kept };
                    ends.push(Ahead { chain: session.sending.duplicate(), until: session.leased });
                }
            }
            step_ahead(self.backend, &mut ends);
        }
        let mut ends = ends.iter().map(|end| &end.chain);
        for (slot, key, dirty, peer) in peers {
            let sends = dirty.current && peer.current.is_some();
            let leased = if sends { ends.next() } else { None };
            records::put_peer(changes, key, dirty, &self.columns.name(slot), peer, leased);
        }
    }

    /// Notes whether a call of sends had to write, and asks for the next leases of chains.
    pub(super) fn note_leases(&self, waited: bool, low: impl IntoIterator<Item = (ChainAt, u64)>) {
        if self.leases.span.is_some() {
            self.leases.waited.fetch_add(u64::from(waited), Ordering::Relaxed);
            self.leases.want(low);
        }
    }
}

impl Plan<'_> {
    /// What is claimed, where it is sessions.
    pub(super) fn sessions(&self) -> impl Iterator<Item = ChainAt> {
        self.entries.iter().map(|entry| ChainAt::Session(entry.slot))
    }

    /// What is claimed, where it is sender keys.
    pub(super) fn sender_keys(&self) -> impl Iterator<Item = ChainAt> {
        self.entries.iter().map(|entry| ChainAt::SenderKey(entry.slot))
    }
}

/// A chain, and the counter that it is to be stepped to.
pub(super) struct Ahead {
    pub(super) chain: ChainKey,
    pub(super) until: u64,
}

/// Steps chains ahead.
pub(super) fn step_ahead(backend: Backend, chains: &mut [Ahead]) {
    for chains in chains.chunks_mut(TILE) {
        let mut seeds = tile::column::<32>();
        let most = chains.iter().map(|ahead| ahead.until.saturating_sub(ahead.chain.index)).max();
        for _ in 0..most.unwrap_or(0) {
            let moving = chains.iter_mut().zip(seeds.iter_mut()).filter(|(ahead, _)| ahead.chain.index < ahead.until);
            tile::step(backend, moving.map(|(ahead, seed)| (&mut ahead.chain, seed)));
        }
    }
}

/// How far the lease of a chain may reach.
#[derive(Clone, Copy)]
pub(super) struct Span(u64);

impl Span {
    /// The end of the lease of a chain that stood at `next` when the call began.
    pub(super) fn end(self, next: u64) -> u64 {
        // Behind the last counter a chain is exhausted.
        (next + self.of(next)).min(u64::from(u32::MAX))
    }

    /// Where a call that moved a chain from `next` to `after` has to put the lease's end, if it has to.
    pub(super) fn due(self, next: u64, after: u64, leased: u64) -> Option<u64> {
        (after > leased).then(|| after.max(self.end(next)))
    }

    /// Whether the next lease should be on its way.
    pub(super) fn is_low(self, next: u64, after: u64, leased: u64) -> bool {
        leased.saturating_sub(after) <= self.of(next) / 2 && leased < self.end(next)
    }

    fn of(self, next: u64) -> u64 {
        (2 * next).clamp(u64::from(LEAST_SPAN).min(self.0), self.0)
    }
}

/// The leases of an engine.
pub(super) struct Leases {
    span: Option<Span>,
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    process: u32,
    waited: AtomicU64,
}

struct Shared {
    backend: Backend,
    columns: Arc<Columns>,
    groups: Arc<Groups>,
    store: Arc<Mutex<Box<dyn Store>>>,
    roll: Arc<Roll>,
    wanted: Mutex<Wanted>,
    changed: Condvar,
    written: AtomicU64,
}

/// Copies of chains, and what they are at the ends of their next leases.
struct LookedAhead {
    copies: Vec<(ChainAt, Key, Marks, Rest)>,
    chains: Vec<Ahead>,
}

#[derive(Default)]
struct Wanted {
    /// Chains whose lease runs out, and where the next may end.
    chains: HashMap<ChainAt, u64>,
    /// Whether the store is to be asked for what is held.
    confirmation: bool,
    stop: bool,
}

impl Leases {
    /// `durable`: whether there is a store that outlives the process. The durability was checked.
    pub(super) fn new(
        durability: Durability,
        durable: bool,
        backend: Backend,
        columns: &Arc<Columns>,
        groups: &Arc<Groups>,
        store: &Arc<Mutex<Box<dyn Store>>>,
        roll: &Arc<Roll>,
    ) -> Result<Self, Error> {
        let span = match durability {
            Durability::Leased(lease) if durable => Some(Span(u64::from(lease))),
            _ => None,
        };
        let shared = Arc::new(Shared {
            backend,
            columns: Arc::clone(columns),
            groups: Arc::clone(groups),
            store: Arc::clone(store),
            roll: Arc::clone(roll),
            wanted: Mutex::default(),
            changed: Condvar::new(),
            written: AtomicU64::new(0),
        });
        // A simulation writes leases itself, when it likes: see `Turn`.
        #[cfg(test)]
        let threaded = span.filter(|_| !crate::machine::simulated::is_on());
        #[cfg(not(test))]
        let threaded = span;
        let writer = threaded.map(|span| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("interlane leases".into()).spawn(move || shared.write_when_wanted(span))
        });
        let writer = writer
            .transpose()
            .map_err(|error| Error::Store(format!("no thread to be had: {error}; free some, or open it strict")))?;
        let (writer, process) = (Mutex::new(writer), std::process::id());
        Ok(Self { span, shared, writer, process, waited: AtomicU64::new(0) })
    }

    /// How far leases reach; `None`: the store has every chain as it is.
    pub(super) fn span(&self) -> Option<Span> {
        self.span
    }

    fn want(&self, chains: impl IntoIterator<Item = (ChainAt, u64)>) {
        let mut chains = chains.into_iter().peekable();
        if chains.peek().is_some() {
            self.shared.wanted().chains.extend(chains);
            self.shared.changed.notify_one();
        }
    }

    /// Has the store asked, beside the calls, whether what is held is still held.
    pub(super) fn want_confirmation(&self) {
        let mut wanted = self.shared.wanted();
        if !wanted.confirmation {
            wanted.confirmation = true;
            self.shared.changed.notify_one();
        }
    }

    /// Calls of sends that had to write for themselves, and leases that were written ahead of need.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.waited.load(Ordering::Relaxed), self.shared.written.load(Ordering::Relaxed))
    }

    /// Marks chains whose rows the caller is about to commit. To be called in the store's turn.
    pub(super) fn begin(&self, chains: &[ChainAt]) {
        if self.span.is_some() {
            self.shared.mark(chains, Marks::begin);
        }
    }

    /// Takes the marks back: the commit failed.
    pub(super) fn undo(&self, chains: &[ChainAt]) {
        if self.span.is_some() {
            self.shared.mark(chains, Marks::end);
        }
    }

    /// The sessions and the sender keys of which the store is ahead.
    pub(super) fn ahead(&self) -> (Vec<u64>, Vec<u64>) {
        if self.span.is_none() {
            return Default::default();
        }
        let sessions = self.shared.columns.leased_ahead().into_iter().map(u64::from).collect();
        let slots = self.shared.groups.slots();
        let sender_keys = (0..slots.len()).filter(|&slot| slots.of(slot).is_leased_ahead()).map(u64::from).collect();
        (sessions, sender_keys)
    }

    /// Chains that are claimed, as they are: to be committed when nothing can be sent by them before they are read again.
    /// To be called in the store's turn: of accounts that are away the store may have another state by now, which must
    /// stay.
    pub(super) fn give_back(&self, chains: impl Iterator<Item = ChainAt>) -> Changes {
        let here = |key: &Key| self.shared.roll.standings().here(key.account).is_ok();
        let mut changes = Changes::default();
        for at in chains {
            match self.shared.copy(at) {
                Some(Copied { key, chain, rest: Rest::Session(ratchet_key), .. }) if here(&key) => {
                    records::put_sending(&mut changes, key, &ratchet_key, &chain);
                }
                Some(Copied { key, rest: Rest::SenderKey(own), .. }) if here(&key) => {
                    records::put_own_sender_key(&mut changes, key, &own);
                }
                _ => {}
            }
        }
        changes
    }

    /// Takes claimed sessions their leases: what the store has may be about to go below them.
    pub(super) fn give_up(&self, sessions: impl Iterator<Item = u32>) {
        let pages = self.shared.columns.pages();
        let mut walk = pages.walk();
        sessions.for_each(|slot| walk.unclaimed(slot).give_up_lease());
    }

    /// Ends the thread; leases are then written by the calls that need them.
    pub(super) fn stop(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(writer) = writer else { return };
        if self.process != std::process::id() {
            // A fork has no such thread.
            return std::mem::forget(writer);
        }
        self.shared.wanted().stop = true;
        self.shared.changed.notify_one();
        // A panic there has been told by then; it has cost leases ahead of need, nothing else.
        let _ = writer.join();
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, chains: &[ChainAt], mark: fn(&mut Marks)) {
        let (pages, slots) = (self.columns.pages(), self.groups.slots());
        let mut walk = pages.walk();
        for &chain in chains {
            match chain {
                // One that is not in memory yet has nothing that could be copied.
                ChainAt::Session(slot) => {
                    if let Some(marks) = walk.unclaimed(slot).marks() {
                        mark(marks);
                    }
                }
                ChainAt::SenderKey(slot) => mark(&mut slots.of(slot).marks),
            }
        }
    }

    fn write_when_wanted(&self, span: Span) {
        loop {
            let mut wanted = self.wanted();
            while wanted.chains.is_empty() && !wanted.confirmation && !wanted.stop {
                wanted = self.changed.wait(wanted).unwrap_or_else(PoisonError::into_inner);
            }
            if wanted.stop {
                return;
            }
            let (chains, confirmation) = (std::mem::take(&mut wanted.chains), wanted.confirmation);
            drop(wanted);
            if !chains.is_empty() {
                self.write(span, chains);
            }
            if confirmation {
                // Where the store cannot be asked, the calls that find it unconfirmed will say why.
                let _ = self.roll.confirm(self.store.lock().unwrap_or_else(PoisonError::into_inner).as_mut());
                self.wanted().confirmation = false;
            }
        }
    }

    /// Writes the next leases of chains, as many as still want one.
    fn write(&self, span: Span, wanted: HashMap<ChainAt, u64>) {
        self.put(self.look_ahead(span, wanted));
    }

    /// Copies chains and steps the copies to the ends of their next leases.
    fn look_ahead(&self, span: Span, wanted: HashMap<ChainAt, u64>) -> LookedAhead {
        let mut wanted: Vec<(ChainAt, u64)> = wanted.into_iter().collect();
        wanted.sort_unstable();
        let mut copies = Vec::with_capacity(wanted.len());
        let mut chains = Vec::with_capacity(wanted.len());
        for (at, until) in wanted {
            // It may have been asked for again while the last one was on its way to the disk.
            if let Some(Copied { key, marks, leased, chain, rest }) = self.copy(at)
                && leased < until
                && span.is_low(chain.index, chain.index, leased)
            {
                // It may also have been asked for an older chain, which had come further.
                let until = until.min(span.end(chain.index));
                copies.push((at, key, marks, rest));
                chains.push(Ahead { chain, until });
            }
        }
        step_ahead(self.backend, &mut chains);
        LookedAhead { copies, chains }
    }

    /// Writes those that nobody has written since, and lets them use their leases.
    fn put(&self, LookedAhead { mut copies, mut chains }: LookedAhead) {
        let mut changes = Changes::default();
        let mut written = Vec::with_capacity(copies.len());
        {
            let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
            // An account that went away may be the store's again by now, with another state that this must not replace: what
            // counts is whether the engine has it, which reads it anew, and marks its chains, before it says so.
            let here = |account: u32| self.roll.standings().here(account).is_ok();
            for ((at, key, marks, rest), Ahead { chain, until }) in copies.iter_mut().zip(&mut chains) {
                if self.marks(*at) != Some(*marks) || !here(key.account) {
                    continue;
                }
                match rest {
                    Rest::Session(ratchet_key) => records::put_sending(&mut changes, *key, ratchet_key, chain),
                    Rest::SenderKey(own) => {
                        std::mem::swap(&mut own.chain, chain);
                        records::put_own_sender_key(&mut changes, *key, own);
                    }
                }
                written.push((*at, *marks, *until, key.account));
            }
            if written.is_empty() {
                return;
            }
            let committed = store.commit(changes);
            self.roll.note_lost(store.as_mut());
            // Where it cannot be written, the calls that need it will say why.
            if committed.is_err() {
                return;
            }
            // What was left out is in no store.
            written.retain(|&(.., account)| here(account));
            // Before anybody else has a turn: whoever finds a chain as far as its lease may take it that the store is.
            for (at, marks, until, _) in &written {
                self.extend(*at, *marks, *until);
            }
        }
        self.written.fetch_add(written.len() as u64, Ordering::Relaxed);
    }

    fn copy(&self, at: ChainAt) -> Option<Copied> {
        match at {
            ChainAt::Session(slot) => self.columns.pages().walk().unclaimed(slot).copy_sending(),
            ChainAt::SenderKey(slot) => self.groups.slots().of(slot).copy_own(),
        }
    }

    fn marks(&self, at: ChainAt) -> Option<Marks> {
        match at {
            ChainAt::Session(slot) => self.columns.pages().walk().unclaimed(slot).marks().copied(),
            ChainAt::SenderKey(slot) => Some(self.groups.slots().of(slot).marks),
        }
    }

    /// Lets a chain use its new lease, unless a call has written it since.
    fn extend(&self, at: ChainAt, marks: Marks, until: u64) {
        match at {
            ChainAt::Session(slot) => {
                let pages = self.columns.pages();
                let mut walk = pages.walk();
                let mut at = walk.unclaimed(slot);
                if at.marks().copied() == Some(marks) {
                    at.set_leased(until);
                }
            }
            ChainAt::SenderKey(slot) => {
                let slots = self.groups.slots();
                let mut slot = slots.of(slot);
                if slot.marks == marks {
                    slot.leased = until;
                    slot.marks.end();
                }
            }
        }
    }
}

/// How far the leases' thread has come, where a simulation is in its place: calls can come between any two turns.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Turn(Phase);

#[cfg(test)]
#[derive(Default)]
enum Phase {
    #[default]
    Waiting,
    Stepped(LookedAhead),
}

#[cfg(test)]
impl Turn {
    /// Whether leases are being written.
    pub(crate) fn is_under_way(&self) -> bool {
        !matches!(self.0, Phase::Waiting)
    }
}

#[cfg(test)]
impl Engine {
    /// Does the next half of what the leases' thread would do; whether there was anything to do.
    pub(crate) fn turn_leases(&self, turn: &mut Turn) -> bool {
        let (Some(span), shared) = (self.leases.span, &self.leases.shared) else { return false };
        turn.0 = match std::mem::take(&mut turn.0) {
            Phase::Waiting => {
                let (wanted, confirmation) = {
                    let mut wanted = shared.wanted();
                    (std::mem::take(&mut wanted.chains), std::mem::take(&mut wanted.confirmation))
                };
                if confirmation {
                    let _ = shared.roll.confirm(shared.store.lock().unwrap_or_else(PoisonError::into_inner).as_mut());
                }
                if wanted.is_empty() {
                    return false;
                }
                Phase::Stepped(shared.look_ahead(span, wanted))
            }
            Phase::Stepped(ahead) => {
                shared.put(ahead);
                Phase::Waiting
            }
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::{PEER_KINDS, PeerRows, SenderKeyRecord};
    use super::super::session_record;
    use super::*;
    use crate::secret::Secret;
    use crate::store::Kind as RowKind;
    use crate::{Location, Options, Packed};

    #[test]
    fn chains_are_stepped_as_far_as_they_are_to_be() {
        let backend = Backend::detect().unwrap();
        let first = |i: u8| ChainKey::first(Secret::copy_of(&[i; 32]));
        let untils = [0, 1, 64, 7, 1_900, 3, 0, 65, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17];
        let mut chains: Vec<Ahead> =
            untils.iter().zip(0..).map(|(&until, i)| Ahead { chain: first(i), until }).collect();
        step_ahead(backend, &mut chains);
        for (i, (ahead, &until)) in (0..).zip(chains.iter().zip(&untils)) {
            let mut one = first(i);
            let mut seed = [0; 32];
            for _ in 0..until {
                tile::step(backend, [(&mut one, &mut seed)].into_iter());
            }
            assert!(ahead.chain == one && one.index == until);
        }
    }

    #[test]
    fn a_lease_never_ends_further_on_than_it_may() {
        for lease in [1, 2, 7, 8, 9, 64, 1_900] {
            let span = Span(lease);
            let (mut next, mut leased, mut waits) = (0, span.end(0), 0);
            while next < 20_000 {
                let after = next + 1 + next % 3;
                if let Some(until) = span.due(next, after, leased) {
                    leased = until;
                    waits += 1;
                }
                assert!(after <= leased && leased <= next + lease.max(after - next));
                // The thread is as quick as can be.
                if span.is_low(next, after, leased) {
                    leased = span.end(next);
                }
                assert!(leased <= next + lease.max(after - next));
                next = after;
            }
            // Calls of three rows find a lease of six and more.
            assert!(lease < 6 || waits == 0, "{lease}: {waits}");
        }
    }

    #[test]
    fn the_last_counters_can_be_leased() {
        let span = Span(64);
        let last = u64::from(u32::MAX);
        assert_eq!((span.end(last - 70), span.end(last - 10), span.end(last)), (last - 6, last, last));
        assert_eq!(span.due(last - 1, last, last), None);
        assert!(!span.is_low(last - 1, last, last));
    }

    #[test]
    fn marks_tell_of_every_write() {
        let mut marks = Marks::default();
        let before = marks;
        assert!(marks.is_quiet());
        marks.begin();
        assert!(!marks.is_quiet() && marks != before);
        marks.end();
        assert!(marks.is_quiet() && marks != before);
        // Also of one that was not announced.
        let before = marks;
        marks.end();
        assert!(marks.is_quiet() && marks != before);
        marks = Marks { life: 3, writes: u32::MAX };
        marks.end();
        assert_eq!(marks, Marks::of_life(3));
        // As many writes in another life are others.
        assert_ne!(marks, Marks::of_life(4));
    }

    /// The rows of one kind that account 1 has.
    fn stored(engine: &Engine, kind: RowKind) -> Vec<Vec<u8>> {
        let mut bodies = Vec::new();
        engine
            .store()
            .scan(1, kind, &mut |_, body| {
                bodies.push(body.to_vec());
                Ok(())
            })
            .unwrap();
        bodies
    }

    /// The counters that the store has for account 1's session and sender key.
    fn counters(engine: &Engine) -> (u64, u64) {
        let mut rows = PeerRows::default();
        for kind in PEER_KINDS {
            stored(engine, kind).iter().for_each(|body| rows.add(kind, body).unwrap());
        }
        let session = rows.finish().unwrap().current.unwrap();
        let SenderKeyRecord::Own(Some(own)) = records::get(&stored(engine, RowKind::SenderKey)[0]).unwrap() else {
            panic!("it is our own");
        };
        (session.sending.index, own.chain.index)
    }

    /// No row holds a key that opens what was sent, in either mode.
    #[test]
    fn the_store_is_never_behind_what_was_sent() {
        for durability in [Durability::Strict, Durability::Leased(64)] {
            let folder = tempfile::tempdir().unwrap();
            let engine = opened(&folder.path().join("store.db"), durability);
            let [desk, bell] = ["desk", "bell"].map(|name| engine.create_account(name).unwrap());
            let bundle = engine.prekeys(bell, 0, false).unwrap().bundle(None);
            let session = engine.sessions(&[desk], &["bell"]).unwrap();
            let group = engine.groups(&[desk], &["group"], &[None]).unwrap();
            engine.start_sessions(&session, &[bundle]).unwrap();
            engine.group_distribute(&group).unwrap();
            for sent in 0..200 {
                let leased = if durability == Durability::Strict { sent..=sent } else { sent..=sent + 64 };
                let stored = counters(&engine);
                assert!(leased.contains(&stored.0) && leased.contains(&stored.1), "{sent}: {stored:?}");
                engine.encrypt(&session, Packed::new(b"text", &[0, 4]).unwrap()).unwrap();
                engine.group_encrypt(&group, Packed::new(b"text", &[0, 4]).unwrap()).unwrap();
            }
            // The session's own row, which was written once, has neither chain's key.
            let row = session_record::read(&stored(&engine, RowKind::Session)[0]).unwrap().session;
            assert!(row.sending.key == Secret::default() && row.receiving[0].chain.key == Secret::default());
            engine.close().unwrap();
        }
    }

    fn opened(path: &std::path::Path, durability: Durability) -> Engine {
        let location = Location::Sqlite { path: path.into(), key: Secret::copy_of(&[1; 32]), generation: None };
        let options = Options::new(location, Backend::detect().unwrap());
        Engine::open(Options { durability, ..options }).unwrap()
    }

    /// What is wanted for a chain may reach the thread when another chain is in its place.
    #[test]
    fn a_young_chain_does_not_get_the_lease_of_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let engine = opened(&folder.path().join("store.db"), Durability::Leased(64));
        let [desk, bell] = ["desk", "bell"].map(|name| engine.create_account(name).unwrap());
        let bundle = engine.prekeys(bell, 0, false).unwrap().bundle(None);
        let session = engine.sessions(&[desk], &["bell"]).unwrap();
        let group = engine.groups(&[desk], &["group"], &[None]).unwrap();
        engine.start_sessions(&session, &[bundle]).unwrap();
        engine.group_distribute(&group).unwrap();
        // Of a chain that has sent 5,000 messages; the next one has sent five.
        let wanted = [ChainAt::Session(session[0] as u32), ChainAt::SenderKey(group[0] as u32)].map(|at| (at, 5_064));
        for sent in 0..5 {
            assert!(counters(&engine).0 <= sent + 64 && counters(&engine).1 <= sent + 64);
            engine.encrypt(&session, Packed::new(b"text", &[0, 4]).unwrap()).unwrap();
            engine.group_encrypt(&group, Packed::new(b"text", &[0, 4]).unwrap()).unwrap();
        }
        engine.leases.shared.write(engine.leases.span().unwrap(), HashMap::from(wanted));
        let stored = counters(&engine);
        assert!(stored.0 <= 5 + 64 && stored.1 <= 5 + 64, "{stored:?}");
        engine.close().unwrap();
    }

    /// Whoever receives, dies and begins again, and never sends, must not run away from what he sent.
    #[test]
    fn receiving_moves_no_lease_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let handles = |engine: &Engine| {
            let [desk, bell] = ["desk", "bell"].map(|name| engine.account(name).unwrap().unwrap());
            (engine.sessions(&[desk], &["bell"]).unwrap(), engine.sessions(&[bell], &["desk"]).unwrap())
        };
        let send = |engine: &Engine, from: &[u64], n: usize| {
            let offsets: Vec<i64> = (0..=n as i64).collect();
            engine.encrypt(&vec![from[0]; n], Packed::new(&vec![b'x'; n], &offsets).unwrap()).unwrap()
        };
        let receive = |engine: &Engine, to: &[u64], sent: crate::Rows| {
            let packed = Packed::new(&sent.data, &sent.offsets).unwrap();
            let got = engine.decrypt(&vec![to[0]; sent.kinds.len()], &sent.kinds, packed).unwrap();
            assert!(got.status.iter().all(|&status| status == 0), "{:?}", got.status);
        };
        let under_way = {
            let engine = opened(&path, Durability::Leased(1_900));
            let [desk, bell] = ["desk", "bell"].map(|name| engine.create_account(name).unwrap());
            let bundle = engine.prekeys(bell, 0, false).unwrap().bundle(None);
            engine.start_sessions(&engine.sessions(&[desk], &["bell"]).unwrap(), &[bundle]).unwrap();
            let (desk, bell) = handles(&engine);
            receive(&engine, &bell, send(&engine, &desk, 1));
            receive(&engine, &desk, send(&engine, &bell, 1));
            send(&engine, &desk, 1_000)
        };
        for _ in 0..3 {
            let engine = opened(&path, Durability::Leased(1_900));
            let (desk, bell) = handles(&engine);
            // Several frames of a session, so that it is written whole. Dropped and not closed: as a crash is.
            receive(&engine, &desk, send(&engine, &bell, 2));
        }
        let engine = opened(&path, Durability::Leased(1_900));
        let (desk, bell) = handles(&engine);
        let next = send(&engine, &desk, 1);
        receive(&engine, &bell, under_way);
        receive(&engine, &bell, next);
        engine.close().unwrap();
    }
}
