//! Decrypting. The usual frame is the next one on the newest receiving chain: it is opened in tiles, straight from
//! the columns. Everything else (new ratchet keys, gaps, late frames, older sessions, first frames) is opened on
//! copies of sessions, wave by wave, its agreements and hashes pooled over all rows of the wave.
//!
//! Nothing is advanced in place: a frame that does not verify has touched only copies.

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::mem::take;

use interlane_lanes::TILE;
use interlane_lanes::kernels::x25519::Canonical;
use zeroize::Zeroize;

use super::accounts::{RunAccounts, pairs, prekey_tag};
use super::agreement::{Agreements, Material, first_roots, root_steps};
use super::arrivals::{Arrivals, Keeping, PutLot, Repeats};
use super::engine::Engine;
use super::plan::{Entry, Plan};
use super::randomness::{Purpose, Randomness};
use super::records::{self, Dirty};
use super::rows::{Kind, Outcome, Packed};
use super::session_record::LONGEST_CHAIN;
use super::tile::{self, TileKeys};
use crate::bytes::{Bytes, Growing};
use crate::error::{Events, Status};
use crate::limits::MAX_ARCHIVED_STEPS;
use crate::ratchet::{ChainKey, KeyPair, Peer, Place, Session, identities};
use crate::secret::Secret;
use crate::store::{Changes, Key, Kind as RowKind};
use crate::wire::{MAC_BYTES, PrekeyMessage, SignalMessage};

/// Peers whose frames are opened together where they need more than the columns: all lanes are full, and what is touched of
/// them time and again stays in the cache.
const PEERS_AT_A_TIME: usize = 256;

/// One-time prekeys that the call's frames name, as the store has them: (account, id).
pub(super) type Stock = HashMap<(u32, u32), Box<KeyPair>>;

/// A call's frames, and what they need.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub(super) kinds: &'a [u8],
    pub(super) frames: Packed<'a>,
    pub(super) stock: &'a Stock,
    /// Two peers' frames name one prekey: they must meet in one run, in order.
    pub(super) disputed: bool,
    pub(super) randomness: &'a Randomness,
    pub(super) arrivals: &'a Arrivals<'a>,
}

/// The least that a frame has beside its plaintext: version, ratchet key, counter, length, padding, code.
const LEAST_OVERHEAD: usize = 1 + 35 + 2 + 2 + 1 + MAC_BYTES;

/// What runs of a decrypt call give: those that one thread does add to one.
#[derive(Default)]
pub(super) struct Opened {
    pub(super) outcomes: Vec<Outcome>,
    /// The plaintexts, those of each run in the rows' order: in a call of one row a session they lie as the caller gets them.
    pub(super) plaintexts: Growing,
    /// Slots whose newest receiving chain has moved.
    pub(super) advanced: Vec<(u32, ChainKey)>,
    /// Slots where more has changed.
    pub(super) changed: Vec<(u32, Peer)>,
    /// One-time prekeys used up: account, id and by which row.
    pub(super) consumed: Vec<(u32, u32, u32)>,
    pub(super) changes: Changes,
    /// What goes to the receive buffers.
    pub(super) lots: Vec<PutLot>,
}

impl Opened {
    /// Nothing yet, with room for `rows` rows whose frames have so many bytes in all.
    pub(super) fn with_room(rows: usize, frames: usize) -> Self {
        Self {
            outcomes: Vec::with_capacity(rows),
            plaintexts: Growing::with_room(frames.saturating_sub(rows * LEAST_OVERHEAD)),
            // A vector that grows leaves chain keys behind.
            advanced: Vec::with_capacity(rows),
            ..Self::default()
        }
    }

    /// Takes over the plaintexts of the outcomes from `first` on, in the rows' order.
    fn take_plaintexts(&mut self, first: usize, texts: &[u8]) {
        let Self { outcomes, plaintexts, .. } = self;
        let outcomes = &mut outcomes[first..];
        outcomes.sort_unstable_by_key(|outcome| outcome.row);
        let mut start = plaintexts.len();
        let mut rest = plaintexts.next(outcomes.iter().map(|outcome| outcome.len).sum());
        for outcome in outcomes {
            let (plaintext, behind) = rest.split_at_mut(outcome.len);
            plaintext.copy_from_slice(&texts[outcome.start..outcome.start + outcome.len]);
            outcome.start = start;
            start += outcome.len;
            rest = behind;
        }
    }
}

/// A frame that may be the next on its session's newest chain.
struct Next<'a> {
    entry: usize,
    row: u32,
    slot: u32,
    key: Key,
    account: usize,
    their_identity: [u8; 32],
    message: SignalMessage<'a>,
    chain: ChainKey,
}

/// A peer whose frames need more than the columns: a copy of it, which replaces it when the call is committed.
struct Receiver {
    slot: u32,
    key: Key,
    account: usize,
    peer: Peer,
    dirty: Dirty,
    next_wave: u32,
    /// It has several frames in this call.
    several: bool,
}

/// A frame to be tried on one session after the other.
struct Trial<'a> {
    row: u32,
    receiver: usize,
    wave: u32,
    message: SignalMessage<'a>,
    first: Option<PrekeyMessage<'a>>,
    /// The next session to be tried.
    candidate: Candidate,
    /// The first status that was not INVALID.
    verdict: Option<Status>,
    /// Chain steps that it may still cost on archived sessions.
    steps_left: u32,
}

/// Which of a peer's sessions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Candidate {
    Current,
    Archived(usize),
    New,
    None,
}

/// A frame with a copy of the session it is tried on.
struct Attempt<'a> {
    trial: Trial<'a>,
    on: Candidate,
    session: Box<Session>,
    place: Place,
    /// The frame brought a new ratchet key.
    turned: bool,
    seed: Secret<32>,
    failed: bool,
}

impl<'a> Attempt<'a> {
    fn new(trial: Trial<'a>, on: Candidate, session: Box<Session>, place: Place) -> Self {
        let turned = matches!(place, Place::NewChain { .. });
        Self { trial, on, session, place, turned, seed: Secret::default(), failed: false }
    }
}

/// A run as it goes on.
struct Run<'a> {
    engine: &'a Engine,
    incoming: Incoming<'a>,
    accounts: RunAccounts<'a>,
    receivers: Vec<Receiver>,
    used: HashSet<(u32, u32)>,
    repeats: Repeats,
    keeping: Keeping,
    /// The plaintexts as they are opened: tiles of one length together, and with holes where padding was.
    texts: Bytes,
    opened: &'a mut Opened,
}

/// Decrypts the rows of some entries and adds what that gives.
pub(super) fn open<'a>(
    engine: &'a Engine,
    plan: &Plan<'_>,
    entries: &[Entry],
    incoming: Incoming<'a>,
    opened: &'a mut Opened,
) {
    let first = opened.outcomes.len();
    let mut run = Run {
        engine,
        incoming,
        accounts: engine.accounts_of_run(plan),
        receivers: Vec::new(),
        used: HashSet::new(),
        repeats: Repeats::default(),
        keeping: Keeping::default(),
        texts: Bytes::default(),
        opened,
    };
    let (mut next, mut rest) = run.gather(plan, entries);
    run.open_next(&mut next, &mut rest);
    drop(next);
    run.open_rest(plan, entries, &rest);
    run.finish(first);
}

impl<'a> Run<'a> {
    fn fail(&mut self, row: u32, status: Status) {
        self.opened.outcomes.push(Outcome::failed(row, status));
    }

    /// Ends a row whose frame is in the receive buffer, or has no room there.
    fn settle(&mut self, row: u32) -> bool {
        self.incoming.arrivals.settle(row, &mut self.opened.outcomes, &mut self.texts)
    }

    /// The outcome of a row that was opened; its plaintext goes to the receive buffer, or the seed of what opens it.
    fn done(&mut self, outcome: Outcome, seed: Option<&[u8; 32]>) {
        self.incoming.arrivals.keep(outcome, seed, &mut self.keeping);
        self.opened.outcomes.push(outcome);
    }

    /// Splits the entries: those with one frame, which is the next on its chain, and the rest.
    fn gather(&mut self, plan: &Plan<'_>, entries: &[Entry]) -> (Vec<Next<'a>>, Vec<usize>) {
        let Incoming { kinds, frames, .. } = self.incoming;
        let (mut next, mut rest) = (Vec::with_capacity(entries.len()), Vec::new());
        let pages = self.engine.columns.pages();
        let mut walk = pages.walk();
        for (at, entry) in entries.iter().enumerate() {
            let row = plan.rows_of(entry).next().expect("an entry has a row");
            if entry.rows == 1 && self.settle(row) {
                continue;
            }
            let single = entry.rows == 1 && kinds[row as usize] == Kind::Message as u8;
            let Some(message) = single.then(|| SignalMessage::parse(frames.row(row as usize))).flatten() else {
                rest.push(at);
                continue;
            };
            fetch(message.authenticated);
            let place = walk.to(entry.slot);
            let view = place.receiving_next(&message.ratchet_key, message.counter);
            let key = place.key(RowKind::Receiving);
            match (view, self.accounts.find(key.account)) {
                (Some(view), Ok(account)) => next.push(Next {
                    entry: at,
                    row,
                    slot: entry.slot,
                    key,
                    account,
                    their_identity: view.their_identity,
                    message,
                    chain: view.chain,
                }),
                _ => rest.push(at),
            }
        }
        (next, rest)
    }

    /// Opens the usual frames; entries whose frame is not authentic here are left to be tried on other sessions.
    fn open_next(&mut self, next: &mut [Next<'a>], rest: &mut Vec<usize>) {
        let backend = self.engine.backend;
        let total = next.iter().map(|next| next.message.ciphertext.len()).sum();
        self.texts.reserve(total);
        if self.engine.durable() {
            self.opened.changes.reserve_rows(next.len(), next.len() * LONGEST_CHAIN);
        }
        let keeps = self.incoming.arrivals.keeps();
        self.keeping = self.incoming.arrivals.keeping(next.len());
        // A sort that needs room of its own leaves chain keys behind.
        next.sort_unstable_by_key(|next| (next.message.authenticated.len().div_ceil(64), next.row));
        let (mut chains, mut seeds) = (tile::column::<32>(), tile::column::<32>());
        for tile in next.chunks_mut(TILE) {
            for (chain, next) in chains.iter_mut().zip(tile.iter()) {
                *chain = *next.chain.key.expose();
            }
            let n = tile.len();
            let (chains, kept) = (&mut chains[..n], if keeps { n } else { 0 });
            let keys = tile::step_to_keys(backend, chains, &mut seeds[..kept]);
            for (chain, next) in chains.iter().zip(tile.iter_mut()) {
                *next.chain.key.expose_mut() = *chain;
                next.chain.index += 1;
            }
            let rows = tile.iter().map(|next| (next.account, &next.their_identity, &next.message));
            let opened = open_tile(self.engine, &self.accounts, &keys, rows, &mut self.texts);
            for (lane, (next, at)) in tile.iter_mut().zip(opened).enumerate() {
                let Some((start, len)) = at else {
                    rest.push(next.entry);
                    continue;
                };
                let chain = next.chain.duplicate();
                if self.engine.durable() {
                    records::put_receiving(&mut self.opened.changes, next.key, &next.message.ratchet_key, &chain);
                }
                self.opened.advanced.push((next.slot, chain));
                let (status, kind, events) = (Status::Ok, Kind::Message, Events::default());
                let outcome = Outcome { row: next.row, status, kind, events, start, len };
                self.done(outcome, keeps.then_some(&seeds[lane]));
            }
        }
        rest.sort_unstable();
    }

    /// Opens everything else, some peers at a time.
    fn open_rest(&mut self, plan: &Plan<'_>, entries: &[Entry], rest: &[usize]) {
        let at_a_time = if self.incoming.disputed { usize::MAX } else { PEERS_AT_A_TIME };
        for some in rest.chunks(at_a_time) {
            self.open_in_waves(plan, entries, some);
        }
    }

    /// Opens frames in waves: the k-th frame of every session, and the k-th use of every one-time prekey.
    fn open_in_waves(&mut self, plan: &Plan<'_>, entries: &[Entry], some: &[usize]) {
        let mut trials = self.trials(plan, entries, some);
        trials.sort_by_key(|trial| trial.row);
        let mut prekey_waves: HashMap<(u32, u32), u32> = HashMap::new();
        for trial in &mut trials {
            let receiver = &mut self.receivers[trial.receiver];
            let prekey = trial.first.and_then(|first| first.one_time_id).map(|id| (receiver.key.account, id));
            let after = prekey.and_then(|prekey| prekey_waves.get(&prekey).copied()).unwrap_or(0);
            trial.wave = receiver.next_wave.max(after);
            receiver.next_wave = trial.wave + 1;
            if let Some(prekey) = prekey {
                prekey_waves.insert(prekey, trial.wave + 1);
            }
        }
        trials.sort_by_key(|trial| trial.wave);
        let mut trials = trials.into_iter().peekable();
        while let Some(first) = trials.next() {
            let number = first.wave;
            let mut wave = vec![first];
            while let Some(trial) = trials.next_if(|trial| trial.wave == number) {
                wave.push(trial);
            }
            self.open_wave(wave);
        }
    }

    /// Parses the frames and copies their peers.
    fn trials(&mut self, plan: &Plan<'_>, entries: &[Entry], rest: &[usize]) -> Vec<Trial<'a>> {
        let Incoming { kinds, frames, .. } = self.incoming;
        let mut trials = Vec::with_capacity(rest.len());
        let pages = self.engine.columns.pages();
        let mut walk = pages.walk();
        for &at in rest {
            let entry = &entries[at];
            let place = walk.to(entry.slot);
            let (key, peer) = (place.key(RowKind::Peer), place.peer());
            let account = match self.accounts.find(key.account) {
                Ok(account) => account,
                Err(status) => {
                    for row in plan.rows_of(entry) {
                        self.fail(row, status);
                    }
                    continue;
                }
            };
            let receiver = self.receivers.len();
            self.receivers.push(Receiver {
                slot: entry.slot,
                key,
                account,
                peer,
                dirty: Dirty::default(),
                next_wave: 0,
                several: entry.rows > 1,
            });
            for row in plan.rows_of(entry) {
                if self.settle(row) {
                    continue;
                }
                let frame = frames.row(row as usize);
                let parsed = if kinds[row as usize] == Kind::PrekeyMessage as u8 {
                    PrekeyMessage::parse(frame)
                        .and_then(|first| Some((SignalMessage::parse(first.message)?, Some(first))))
                } else {
                    SignalMessage::parse(frame).map(|message| (message, None))
                };
                match parsed {
                    Some((message, first)) => trials.push(Trial {
                        row,
                        receiver,
                        wave: 0,
                        message,
                        first,
                        candidate: Candidate::None,
                        verdict: None,
                        steps_left: MAX_ARCHIVED_STEPS,
                    }),
                    None => self.fail(row, Status::Invalid),
                }
            }
        }
        trials
    }

    /// Tries every frame of a wave on its first session, those that fail on their next one, and so on: 41 rounds at
    /// most.
    fn open_wave(&mut self, wave: Vec<Trial<'a>>) {
        let (mut attempts, mut strangers) = (Vec::new(), Vec::new());
        for mut trial in wave {
            if let Some(outcome) = self.repeats.of(self.incoming.arrivals, trial.row) {
                self.opened.outcomes.push(outcome);
                continue;
            }
            let peer = &self.receivers[trial.receiver].peer;
            match trial.first {
                None if peer.current.is_none() => self.fail(trial.row, Status::NoSession),
                None => {
                    trial.candidate = Candidate::Current;
                    self.attempt(trial, &mut attempts);
                }
                Some(first) => match known(peer, &first) {
                    Some((on, true)) => {
                        trial.candidate = on;
                        self.attempt(trial, &mut attempts);
                    }
                    Some((_, false)) => self.fail(trial.row, Status::Invalid),
                    None => strangers.push(trial),
                },
            }
        }
        self.respond(strangers, &mut attempts);
        while !attempts.is_empty() {
            let opened = self.open_attempts(&mut attempts);
            let mut again = Vec::new();
            for (attempt, at) in attempts.into_iter().zip(opened) {
                match at {
                    Some((start, len)) => self.accept(attempt, start, len),
                    None => self.attempt_again(attempt, &mut again),
                }
            }
            attempts = again;
        }
    }

    /// The next session on which the frame has a place; the row is settled where there is none.
    fn attempt(&mut self, mut trial: Trial<'a>, attempts: &mut Vec<Attempt<'a>>) {
        loop {
            let on = trial.candidate;
            let receiver = &self.receivers[trial.receiver];
            let session = match on {
                Candidate::Current => receiver.peer.current.as_deref(),
                Candidate::Archived(at) => receiver.peer.archived.get(at).map(AsRef::as_ref),
                Candidate::New | Candidate::None => None,
            };
            let Some(session) = session else {
                let status = trial.verdict.unwrap_or(Status::Invalid);
                return self.fail(trial.row, status);
            };
            trial.candidate = match on {
                _ if trial.first.is_some() => Candidate::None,
                Candidate::Archived(at) => Candidate::Archived(at + 1),
                _ => Candidate::Archived(0),
            };
            let place = session.place(&trial.message).and_then(|place| match on {
                Candidate::Archived(_) => {
                    trial.steps_left = trial.steps_left.checked_sub(place.steps()).ok_or(Status::TooFarAhead)?;
                    Ok(place)
                }
                _ => Ok(place),
            });
            match place {
                Ok(place) => {
                    let session = self.advancing(trial.receiver, on);
                    attempts.extend(session.map(|session| Attempt::new(trial, on, session, place)));
                    return;
                }
                Err(Status::Duplicate) => return self.fail(trial.row, Status::Duplicate),
                Err(status) => trial.verdict = trial.verdict.or(Some(status)),
            }
        }
    }

    /// A copy of a session, to be advanced. Of the current one of a peer that has no other frames in this call, the copy
    /// that there is will do.
    fn advancing(&mut self, receiver: usize, on: Candidate) -> Option<Box<Session>> {
        let Receiver { peer, several, .. } = &mut self.receivers[receiver];
        match on {
            Candidate::Current if !*several => peer.current.take(),
            Candidate::Current => peer.current.as_deref().map(Session::duplicate),
            Candidate::Archived(at) => peer.archived.get(at).map(|session| session.duplicate()),
            Candidate::New | Candidate::None => None,
        }
    }

    /// Tries a frame that is not authentic on one session on the next one.
    fn attempt_again(&mut self, failed: Attempt<'a>, attempts: &mut Vec<Attempt<'a>>) {
        let receiver = &mut self.receivers[failed.trial.receiver];
        if receiver.peer.current.is_none() {
            // It was taken, and is advanced now.
            receiver.peer = self.engine.columns.pages().walk().to(receiver.slot).peer();
        }
        self.attempt(failed.trial, attempts);
    }

    /// X3DH as responder (§2.4 there) for first frames of unknown base keys.
    fn respond(&mut self, strangers: Vec<Trial<'a>>, attempts: &mut Vec<Attempt<'a>>) {
        if strangers.is_empty() {
            return;
        }
        let backend = self.engine.backend;
        let firsts: Vec<PrekeyMessage<'a>> = strangers.iter().filter_map(|trial| trial.first).collect();
        let base_keys: Vec<[u8; 32]> = firsts.iter().map(|first| first.base_key).collect();
        let mut sound = vec![false; base_keys.len()];
        backend.run(Canonical { points: &base_keys, ok: &mut sound });
        let mut agreements = Agreements::with_capacity(4 * firsts.len());
        let mut waiting = Vec::with_capacity(firsts.len());
        for ((trial, first), sound) in strangers.into_iter().zip(firsts).zip(sound) {
            let receiver = &self.receivers[trial.receiver];
            let account = &self.accounts[receiver.account];
            let prekey = (account.id, first.one_time_id.unwrap_or(0));
            let one_time = self.incoming.stock.get(&prekey).filter(|_| !self.used.contains(&prekey));
            let signed = account.signed_prekey(first.signed_id);
            let (Some(signed), true) = (signed, sound) else {
                self.fail(trial.row, if sound { Status::NoPrekey } else { Status::Invalid });
                continue;
            };
            if first.one_time_id.is_some() && one_time.is_none() {
                self.fail(trial.row, Status::NoPrekey);
                continue;
            }
            agreements.add(&signed.pair.private, &first.identity);
            agreements.add(&account.identity.private, &first.base_key);
            agreements.add(&signed.pair.private, &first.base_key);
            if let Some(pair) = one_time {
                agreements.add(&pair.private, &first.base_key);
            }
            waiting.push((trial, first, signed));
        }
        let shared = agreements.run(backend);
        let mut shared = shared.iter();
        let (mut materials, mut agreed) = (Vec::with_capacity(waiting.len()), Vec::with_capacity(waiting.len()));
        for (trial, first, signed) in waiting {
            match Material::collect(&mut shared, first.one_time_id.is_some()) {
                Some(material) => {
                    materials.push(material);
                    agreed.push((trial, first, signed));
                }
                None => self.fail(trial.row, Status::Invalid),
            }
        }
        let mut roots = first_roots(backend, &materials);
        for ((mut trial, first, signed), (root, sending)) in agreed.into_iter().zip(&mut roots) {
            let session = Box::new(Session {
                base_key: first.base_key,
                their_identity: first.identity,
                root: take(root),
                ratchet: signed.pair.duplicate(),
                sending: take(sending),
                previous_counter: 0,
                receiving: Vec::new(),
                pending: None,
                leased: 0,
            });
            trial.candidate = Candidate::None;
            match session.place(&trial.message) {
                Ok(place) => attempts.push(Attempt::new(trial, Candidate::New, session, place)),
                Err(status) => self.fail(trial.row, status),
            }
        }
    }

    /// Opens frames on their copies of sessions. Gives where each plaintext is; `None` for a frame that is not
    /// authentic there.
    fn open_attempts(&mut self, attempts: &mut [Attempt<'a>]) -> Vec<Option<(usize, usize)>> {
        self.receive_ratchets(attempts);
        self.advance(attempts);
        let mut at: Vec<Option<(usize, usize)>> = Vec::with_capacity(attempts.len());
        let mut seeds = tile::column::<32>();
        for tile in attempts.chunks(TILE) {
            for (seed, attempt) in seeds.iter_mut().zip(tile) {
                *seed = *attempt.seed.expose();
            }
            let keys = tile::message_keys(self.engine.backend, &seeds[..tile.len()]);
            let rows = tile.iter().map(|Attempt { trial, session, .. }| {
                (self.receivers[trial.receiver].account, &session.their_identity, &trial.message)
            });
            let opened = open_tile(self.engine, &self.accounts, &keys, rows, &mut self.texts);
            at.extend_from_slice(&opened[..tile.len()]);
        }
        for (attempt, at) in attempts.iter_mut().zip(&mut at) {
            if attempt.failed {
                *at = None;
            }
            attempt.failed = at.is_none();
            // Attempts are moved on from here: what stays where they were is to be no key.
            attempt.seed = Secret::default();
        }
        self.send_ratchets(attempts);
        at
    }

    /// New ratchet keys: the first half of a turn, which gives the receiving chain.
    fn receive_ratchets(&mut self, attempts: &mut [Attempt<'a>]) {
        let backend = self.engine.backend;
        let turning = |attempt: &&mut Attempt<'a>| attempt.turned;
        let mut agreements = Agreements::with_capacity(attempts.len());
        for attempt in attempts.iter_mut().filter(turning) {
            agreements.add(&attempt.session.ratchet.private, &attempt.trial.message.ratchet_key);
        }
        let shared = agreements.run(backend);
        let mut steps = Vec::with_capacity(attempts.len());
        for (attempt, shared) in attempts.iter_mut().filter(turning).zip(shared.iter()) {
            // An all-zero secret is refused: the row goes on with a secret that opens nothing, and is marked.
            attempt.failed = shared.is_none();
            steps.push((attempt.session.root.duplicate(), shared.unwrap_or(&[0; 32])));
        }
        let steps: Vec<_> = steps.iter().map(|(root, shared)| (root, *shared)).collect();
        let mut results = root_steps(backend, &steps);
        for (attempt, (root, chain)) in attempts.iter_mut().filter(turning).zip(&mut results) {
            attempt.session.root = take(root);
            attempt.session.begin_receiving(attempt.trial.message.ratchet_key, take(chain));
        }
    }

    /// Moves receiving chains up to their frames, keeping the keys that are jumped over; takes kept keys out.
    fn advance(&mut self, attempts: &mut [Attempt<'a>]) {
        let mut most = None;
        for attempt in attempts.iter_mut() {
            let (chain, steps) = match attempt.place {
                Place::Skipped { chain } => {
                    let kept = attempt.session.chain_mut(chain).skipped.take(attempt.trial.message.counter);
                    attempt.seed = kept.expect("its place says that it was kept");
                    continue;
                }
                Place::Ahead { chain, steps } => (chain, steps),
                Place::NewChain { steps } => (0, steps),
            };
            attempt.place = Place::Ahead { chain, steps };
            attempt.session.chain_mut(chain).skipped.reserve(steps as usize);
            most = most.max(Some(steps));
        }
        let Some(most) = most else { return };
        for done in 0..=most {
            let moving = attempts.iter_mut().filter_map(|attempt| match attempt.place {
                Place::Ahead { chain, steps } if steps >= done => {
                    let Attempt { session, seed, .. } = attempt;
                    Some((&mut session.chain_mut(chain).chain, seed.expose_mut()))
                }
                _ => None,
            });
            tile::step(self.engine.backend, moving);
            for attempt in attempts.iter_mut() {
                if let Place::Ahead { chain, steps } = attempt.place
                    && steps > done
                {
                    let receiving = attempt.session.chain_mut(chain);
                    let passed = u32::try_from(receiving.chain.index - 1).expect("below the frame's counter");
                    receiving.skipped.push(passed, attempt.seed.duplicate());
                }
            }
        }
    }

    /// The second half of a turn, after the frame verified: a fresh ratchet key and its sending chain.
    fn send_ratchets(&mut self, attempts: &mut [Attempt<'a>]) {
        let backend = self.engine.backend;
        let mut turning: Vec<&mut Attempt<'a>> =
            attempts.iter_mut().filter(|attempt| attempt.turned && !attempt.failed).collect();
        let rows = turning.iter().map(|attempt| attempt.trial.row);
        let privates = self.incoming.randomness.draws(rows, [Purpose::RatchetKey]);
        let mut fresh = pairs(backend, privates);
        let mut agreements = Agreements::with_capacity(turning.len());
        for (attempt, pair) in turning.iter().zip(&fresh) {
            agreements.add(&pair.private, &attempt.trial.message.ratchet_key);
        }
        let shared = agreements.run(backend);
        let steps: Vec<_> = turning
            .iter()
            .zip(shared.iter())
            .map(|(attempt, shared)| (&attempt.session.root, shared.expect("a point of low order was refused before")))
            .collect();
        let mut results = root_steps(backend, &steps);
        for ((attempt, pair), (root, chain)) in turning.iter_mut().zip(&mut fresh).zip(&mut results) {
            attempt.session.root = take(root);
            attempt.session.begin_sending(take(pair), take(chain));
        }
    }

    /// Takes over what an authentic frame has changed.
    fn accept(&mut self, attempt: Attempt<'a>, start: usize, len: usize) {
        let Attempt { trial, on, mut session, .. } = attempt;
        let receiver = &mut self.receivers[trial.receiver];
        let mut events = Events::default();
        session.pending = None;
        match on {
            Candidate::Current => receiver.peer.current = Some(session),
            Candidate::Archived(at) => {
                receiver.peer.promote(at, session);
                receiver.dirty.archived = true;
            }
            Candidate::New | Candidate::None => {
                let changed = receiver.peer.identity.is_some_and(|trusted| trusted != session.their_identity);
                if changed && self.engine.refuses_identity_changes() {
                    self.texts[start..start + len].zeroize();
                    return self.fail(trial.row, Status::UntrustedIdentity);
                }
                if changed {
                    events |= Events::IDENTITY_CHANGED;
                }
                events |= Events::NEW_SESSION;
                receiver.dirty.identity |= receiver.peer.identity != Some(session.their_identity);
                receiver.dirty.identity |= receiver.peer.current.is_none();
                receiver.dirty.archived |= receiver.peer.current.is_some();
                receiver.peer.identity = Some(session.their_identity);
                receiver.peer.begin(session);
                if let Some(id) = trial.first.and_then(|first| first.one_time_id) {
                    events |= Events::PREKEY_CONSUMED;
                    self.used.insert((receiver.key.account, id));
                    self.opened.consumed.push((receiver.key.account, id, trial.row));
                    let key = Key { kind: RowKind::OneTimePrekey, tag: prekey_tag(id), ..receiver.key };
                    self.opened.changes.delete(key);
                }
            }
        }
        receiver.dirty.current = true;
        let kind = if trial.first.is_some() { Kind::PrekeyMessage } else { Kind::Message };
        let outcome = Outcome { row: trial.row, status: Status::Ok, kind, events, start, len };
        if receiver.several {
            self.repeats.note(self.incoming.arrivals, outcome);
        }
        self.done(outcome, None);
    }

    fn finish(mut self, first: usize) {
        self.receivers.retain(|receiver| receiver.dirty.current);
        let changed =
            self.receivers.iter_mut().map(|Receiver { slot, key, dirty, peer, .. }| (*slot, *key, *dirty, peer));
        self.engine.put_peers(&mut self.opened.changes, changed);
        let Opened { changes, lots, .. } = &mut *self.opened;
        lots.extend(self.incoming.arrivals.put(self.keeping, &self.texts, changes));
        self.opened.changed.extend(self.receivers.into_iter().map(|receiver| (receiver.slot, receiver.peer)));
        self.opened.take_plaintexts(first, &self.texts);
    }
}

/// MAC, CBC and padding of a tile of rows: of each its account's place, the peer's identity and the message. Gives where each
/// plaintext is in `texts`; `None` for a frame that is not authentic, of which nothing stays.
fn open_tile<'m, 'f: 'm>(
    engine: &Engine,
    accounts: &RunAccounts<'_>,
    keys: &TileKeys,
    rows: impl Iterator<Item = (usize, &'m [u8; 32], &'m SignalMessage<'f>)>,
    texts: &mut Bytes,
) -> [Option<(usize, usize)>; TILE] {
    let (mut n, mut heads, mut frames) = (0, [[0; 66]; TILE], [&[][..]; TILE]);
    let mut carried = [(&[0; MAC_BYTES], &[][..]); TILE];
    for (account, their_identity, message) in rows {
        heads[n] = identities(their_identity, &accounts[account].identity.public);
        frames[n] = message.authenticated;
        carried[n] = (message.mac, message.ciphertext);
        n += 1;
    }
    let macs = tile::macs(engine.backend, &keys.mac[..n], &heads[..n], &frames[..n]);
    let mut authentic = [None; TILE];
    for ((text, (mac, ciphertext)), computed) in authentic.iter_mut().zip(&carried[..n]).zip(macs.iter()) {
        *text = tile::mac_is(mac, computed).then_some(*ciphertext);
    }
    let unpad = |text: &[u8]| engine.strip_message_padding(text);
    tile::open(engine.backend, &keys.cipher, &keys.iv, &authentic, texts, unpad)
}

/// Brings a frame into the cache while others are gathered: a tile reads the frames of all its lanes side by side, which no CPU
/// foresees.
fn fetch(frame: &[u8]) {
    for line in frame.chunks(64) {
        black_box(line[0]);
    }
}

/// The session that a first frame belongs to, and whether it has that session's identity.
fn known(peer: &Peer, first: &PrekeyMessage<'_>) -> Option<(Candidate, bool)> {
    let same = |session: &Session| session.base_key == first.base_key;
    if let Some(session) = peer.current.as_deref().filter(|session| same(session)) {
        return Some((Candidate::Current, session.their_identity == first.identity));
    }
    let at = peer.archived.iter().position(|session| same(session))?;
    Some((Candidate::Archived(at), peer.archived[at].their_identity == first.identity))
}
