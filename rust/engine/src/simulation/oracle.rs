//! What must be true of everything that left an engine, and of everything that was given out by one.
//!
//! ```text
//! (key, IV)   of a frame that left: never those of another one
//! counter     of a frame on its chain: after the last one that left, and behind it by no more than a crash may skip
//! plaintext   what was sent, given out once, and with a receive buffer again until it is acknowledged
//! frame       neither damaged nor old: opens, unless its receiver lost what it had by a restoration, or forgot it
//! ```

use std::collections::{BTreeMap, BTreeSet};

use interlane_crash::Dice;

use crate::batch::tap::Sealed;
use crate::limits::{MAX_FORWARD_JUMP, MAX_SKIPPED_KEYS};
use crate::wire::{DistributionMessage, PrekeyMessage, SenderKeyMessage, SignalMessage};
use crate::{BufferLimits, Kind, Status};

/// Chains of a peer that may be newer than one whose frames are to open: a receiver keeps five.
const NEWER_CHAINS: u64 = 3;

/// Sessions that two peers may have started since a frame was sent: a receiver keeps 40.
const NEWER_SESSIONS: u32 = 25;

/// Counters that a frame may be ahead: on an archived session a receiver looks no further, in every case.
const AHEAD: u32 = 200;

/// How long a first frame waits, with the clock set back and forth: signed prekeys are kept for 30 days.
const FIRST_FRAME_SECONDS: u64 = 20 * 86_400;

/// What is sent along: pairwise frames of one to another, or frames of one to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Line {
    Pair(usize, usize),
    Group(usize, usize),
}

impl Line {
    fn from(self) -> usize {
        match self {
            Self::Pair(from, _) | Self::Group(from, _) => from,
        }
    }
}

/// What a plaintext is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Text,
    /// The sender key of a group.
    Distribution(usize),
}

/// A sending chain: a ratchet key, or a sender key by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ChainId {
    Ratchet(usize, [u8; 32]),
    SenderKey(usize, usize, u32),
}

/// What is known of a chain by the frames that left.
struct Chain {
    /// How many chains this line had before.
    number: u64,
    last: Option<u32>,
    /// What the line might have skipped in all when the last frame left.
    skipped: u64,
}

/// What is known of a line.
#[derive(Default)]
struct Way {
    chains: u64,
    frames: usize,
    /// Counters that it may have skipped in all.
    skipped: u64,
    /// Whether anything was sent or received with it in this life of its engine, and the most rows of a call that failed.
    touched: bool,
    attempted: u64,
    /// Rows of the call that is under way.
    under_way: u64,
}

/// What is known of two peers, from one's side.
#[derive(Default)]
struct Peers {
    established: bool,
    disturbed: bool,
    starts: u32,
    started_at: u64,
}

/// What a receiver has of a chain.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// Of a sender key: where it was taken in, how many were taken in before, and whether it is known that it was.
    first: u32,
    order: u64,
    sure: bool,
    expected: u32,
    opened: u32,
}

/// What became of a frame at a receiver.
#[derive(Clone, Copy, Default)]
struct Delivery {
    opened: bool,
    /// It may have been opened by a call that did not say so, in this life of the desk.
    maybe: Option<u64>,
    kept_at: Option<u64>,
    handled: bool,
    /// By which life of which desk.
    acknowledged: Option<(usize, u64)>,
    /// Nothing is left that knows it: see [`Oracle::forgets_sessions`].
    unknown_again: bool,
}

struct Frame {
    line: Line,
    kind: u8,
    bytes: Vec<u8>,
    plain: Vec<u8>,
    content: Content,
    chain: ChainId,
    counter: u32,
    /// Sessions that both had started when it was sent.
    starts: u32,
    deliveries: BTreeMap<usize, Delivery>,
}

pub(super) struct Oracle {
    frames: Vec<Frame>,
    keys: BTreeSet<[u8; 48]>,
    chains: BTreeMap<ChainId, Chain>,
    ways: BTreeMap<Line, Way>,
    peers: BTreeMap<(usize, usize), Peers>,
    seen: BTreeMap<(ChainId, usize), Seen>,
    /// The newest chain that a receiver has opened, of those of a line.
    newest: BTreeMap<(Line, usize), u64>,
    /// Those whose state went back or was made anew.
    forgot: Vec<bool>,
    /// Those who move between engines that send within leases.
    moving: BTreeSet<usize>,
    cleanly: BTreeSet<(usize, u64)>,
    texts: u64,
    latest: u64,
}

impl Oracle {
    pub(super) fn new(people: usize) -> Self {
        Self {
            frames: Vec::new(),
            keys: BTreeSet::new(),
            chains: BTreeMap::new(),
            ways: BTreeMap::new(),
            peers: BTreeMap::new(),
            seen: BTreeMap::new(),
            newest: BTreeMap::new(),
            forgot: vec![false; people],
            moving: BTreeSet::new(),
            cleanly: BTreeSet::new(),
            texts: 0,
            latest: 0,
        }
    }

    /// A text that nobody wrote before.
    pub(super) fn text(&mut self, dice: &mut Dice) -> (Vec<u8>, Content) {
        self.texts += 1;
        let mut plain = vec![b't'];
        plain.extend(self.texts.to_le_bytes());
        let more = if dice.one_in(8) { dice.below(300) } else { dice.below(40) };
        plain.extend((0..more).map(|i| i as u8));
        (plain, Content::Text)
    }

    // What engines do.

    /// An engine is about to be asked for something that concerns these lines.
    pub(super) fn touch(&mut self, lines: &[Line]) {
        for &line in lines {
            self.ways.entry(line).or_default().touched = true;
        }
    }

    /// Somebody's account goes from one engine to another while the former one sends on within its leases, for as long as
    /// it need not ask: keys are each engine's own, and counters do not ascend. How many are skipped is not judged: each
    /// call without an answer and each way to another engine may cost a lease.
    pub(super) fn moves_within_leases(&mut self, person: usize) {
        self.moving.insert(person);
    }

    /// An engine is about to be given rows of these lines: if it dies, their counters may be skipped.
    pub(super) fn attempts(&mut self, lines: &[Line]) {
        self.touch(lines);
        for (line, rows) in counted(lines) {
            self.ways.entry(line).or_default().under_way = rows;
        }
    }

    /// The call has ended; `well`: nothing is left of it.
    pub(super) fn attempted(&mut self, lines: &[Line], well: bool) {
        for (line, _) in counted(lines) {
            let way = self.ways.entry(line).or_default();
            let rows = std::mem::take(&mut way.under_way);
            way.attempted = way.attempted.max(if well { 0 } else { rows });
        }
    }

    /// Counters of these lines may be skipped from here on.
    pub(super) fn may_skip(&mut self, lines: &[Line], at_least: u64) {
        for (line, rows) in counted(lines) {
            self.ways.entry(line).or_default().skipped += rows.max(at_least);
        }
    }

    pub(super) fn closed_cleanly(&mut self, desk: usize, life: u64) {
        self.cleanly.insert((desk, life));
    }

    /// The engine that served these people is gone; `lease`: what each chain may have skipped, if it was not closed.
    pub(super) fn end_life(&mut self, people: &[usize], lease: Option<u64>) {
        for (_, way) in self.ways.iter_mut().filter(|(line, _)| people.contains(&line.from())) {
            if let (true, Some(lease)) = (way.touched, lease) {
                way.skipped += lease.max(way.attempted).max(way.under_way);
            }
            (way.touched, way.attempted, way.under_way) = (false, 0, 0);
        }
    }

    pub(super) fn starts(&mut self, from: usize, to: usize, now: u64) {
        self.touch(&[Line::Pair(from, to)]);
        let peers = self.peers.entry((from, to)).or_default();
        peers.starts += 1;
        peers.started_at = now;
    }

    pub(super) fn established(&mut self, from: usize, to: usize) {
        self.peers.entry((from, to)).or_default().established = true;
    }

    pub(super) fn is_established(&self, from: usize, to: usize) -> bool {
        self.peers.get(&(from, to)).is_some_and(|peers| peers.established)
    }

    /// Their sessions may not fit each other any more.
    pub(super) fn disturb(&mut self, from: usize, to: usize) {
        for pair in [(from, to), (to, from)] {
            self.peers.entry(pair).or_default().disturbed = true;
        }
    }

    pub(super) fn is_disturbed(&self, from: usize, to: usize) -> bool {
        self.forgot[from] || self.forgot[to] || self.peers.get(&(from, to)).is_some_and(|peers| peers.disturbed)
    }

    /// Somebody's state went back, or is another's.
    pub(super) fn forgets(&mut self, person: usize) {
        self.forgot[person] = true;
        for frame in &mut self.frames {
            frame.deliveries.remove(&person);
        }
        self.seen.retain(|(_, receiver), _| *receiver != person);
        self.newest.retain(|(_, receiver), _| *receiver != person);
        for ((from, _), peers) in &mut self.peers {
            peers.established &= *from != person;
        }
    }

    /// Somebody drops the sessions with a peer. A first frame of that peer which named no one-time prekey is new again:
    /// nothing else remembers it.
    pub(super) fn forgets_sessions(&mut self, from: usize, peer: usize) {
        self.disturb(from, peer);
        for frame in self.frames.iter_mut().filter(|frame| frame.line == Line::Pair(peer, from)) {
            let first = (frame.kind == Kind::PrekeyMessage as u8).then(|| PrekeyMessage::parse(&frame.bytes)).flatten();
            if first.is_some_and(|first| first.one_time_id.is_none())
                && let Some(delivery) = frame.deliveries.get_mut(&from)
            {
                delivery.unknown_again = true;
            }
        }
    }

    pub(super) fn has_no_session(&mut self, from: usize, to: usize, status: Status) {
        let lost = self.is_established(from, to) && !self.is_disturbed(from, to);
        assert!(!lost, "{from} has a session with {to}, and {}", status.name());
        self.peers.entry((from, to)).or_default().established = false;
    }

    // Frames.

    /// A frame has left an engine.
    #[expect(clippy::too_many_arguments, reason = "all that is known of a frame")]
    pub(super) fn release(
        &mut self,
        line: Line,
        kind: u8,
        bytes: &[u8],
        sealed: &[Sealed],
        plain: Vec<u8>,
        content: Content,
        now: u64,
    ) -> usize {
        self.latest = self.latest.max(now);
        let (chain, counter, ciphertext) = taken_apart(line, kind, bytes);
        let found = sealed.iter().find(|sealed| sealed.ciphertext == ciphertext);
        let found = found.unwrap_or_else(|| panic!("{line:?}: a frame that nothing was encrypted for"));
        let mut pair = [0; 48];
        pair[..32].copy_from_slice(&found.key);
        pair[32..].copy_from_slice(&found.iv);
        assert!(self.keys.insert(pair), "A KEY AND IV TWICE: {line:?}, counter {counter}");

        let way = self.ways.entry(line).or_default();
        way.frames += 1;
        let chain_of = self.chains.entry(chain).or_insert_with(|| {
            way.chains += 1;
            Chain { number: way.chains, last: None, skipped: 0 }
        });
        let next = chain_of.last.map_or(0, |last| u64::from(last) + 1);
        let furthest = next + (way.skipped - chain_of.skipped);
        let within = self.moving.contains(&line.from()) || (next..=furthest).contains(&u64::from(counter));
        // Where a sender key begins for its receivers, nothing was sent before.
        assert!(within, "{line:?}: counter {counter} where {next} to {furthest} was to come");
        (chain_of.last, chain_of.skipped) = (chain_of.last.max(Some(counter)), way.skipped);

        let starts = self.started(line);
        let bytes = bytes.to_vec();
        let deliveries = BTreeMap::new();
        self.frames.push(Frame { line, kind, bytes, plain, content, chain, counter, starts, deliveries });
        self.frames.len() - 1
    }

    fn started(&self, line: Line) -> u32 {
        let Line::Pair(from, to) = line else { return 0 };
        [(from, to), (to, from)].iter().filter_map(|pair| Some(self.peers.get(pair)?.starts)).sum()
    }

    pub(super) fn frames(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn sent(&self, from: usize, to: usize) -> usize {
        self.ways.get(&Line::Pair(from, to)).map_or(0, |way| way.frames)
    }

    pub(super) fn sender(&self, frame: usize) -> usize {
        self.frames[frame].line.from()
    }

    pub(super) fn kind(&self, frame: usize) -> u8 {
        self.frames[frame].kind
    }

    pub(super) fn bytes(&self, frame: usize) -> &[u8] {
        &self.frames[frame].bytes
    }

    pub(super) fn is_of_a_group(&self, frame: usize) -> bool {
        matches!(self.frames[frame].line, Line::Group(..))
    }

    pub(super) fn group_name(&self, frame: usize) -> String {
        match self.frames[frame].line {
            Line::Group(_, group) => format!("group{group}"),
            Line::Pair(..) => String::new(),
        }
    }

    pub(super) fn show(&self, frame: usize) -> String {
        let Frame { line, kind, counter, chain, .. } = &self.frames[frame];
        let number = self.chains.get(chain).map_or(0, |chain| chain.number);
        format!("frame {frame} ({line:?}, kind {kind}, chain {number}, counter {counter})")
    }

    /// A frame with a bit changed, where it is authenticated.
    pub(super) fn damage(&self, frame: usize, dice: &mut Dice) -> Vec<u8> {
        let Frame { kind, bytes, .. } = &self.frames[frame];
        let mut damaged = bytes.clone();
        let range = match PrekeyMessage::parse(bytes) {
            Some(first) if *kind == Kind::PrekeyMessage as u8 => {
                let part = match dice.below(4) {
                    0 => &first.base_key[..],
                    1 => &first.identity[..],
                    _ => first.message,
                };
                let at = bytes.windows(part.len()).position(|window| window == part).expect("it was parsed of it");
                at..at + part.len()
            }
            _ => 0..bytes.len(),
        };
        damaged[range.start + dice.below(range.len())] ^= 1 << dice.below(8);
        damaged
    }

    /// A frame of before, and one who may have it.
    pub(super) fn any_old(&self, dice: &mut Dice) -> Option<(usize, usize)> {
        let recent = self.frames.len().min(300);
        let at = self.frames.len() - 1 - dice.below(recent.max(1)).min(self.frames.len().checked_sub(1)?);
        match self.frames[at].line {
            Line::Pair(_, to) => Some((at, to)),
            Line::Group(..) => {
                let receivers: Vec<usize> = self.frames[at].deliveries.keys().copied().collect();
                (!receivers.is_empty()).then(|| (at, receivers[dice.below(receivers.len())]))
            }
        }
    }

    // What receivers are given.

    /// Whether a frame has to open, if it was not opened before.
    fn has_to_open(&self, frame: usize, to: usize) -> bool {
        let Frame { line, kind, chain, counter, starts, .. } = &self.frames[frame];
        let seen = self.seen.get(&(*chain, to)).copied();
        let newest = self.newest.get(&(*line, to)).copied().unwrap_or(0);
        match line {
            Line::Pair(from, _) => {
                let first = *kind == Kind::PrekeyMessage as u8;
                let started_at = self.peers.get(&(*from, to)).map_or(0, |peers| peers.started_at);
                !self.is_disturbed(*from, to)
                    && self.started(*line) - starts <= NEWER_SESSIONS
                    && newest.saturating_sub(self.chains[chain].number) <= NEWER_CHAINS
                    && counter.saturating_sub(seen.map_or(0, |seen| seen.expected)) <= AHEAD
                    && !(first && self.latest.saturating_sub(started_at) > FIRST_FRAME_SECONDS)
            }
            Line::Group(from, _) => {
                let Some(seen) = seen.filter(|seen| seen.sure) else { return false };
                !self.forgot[*from]
                    && !self.forgot[to]
                    && *counter >= seen.first
                    && newest.saturating_sub(seen.order) <= NEWER_CHAINS
                    && counter.saturating_sub(seen.expected) <= MAX_FORWARD_JUMP
            }
        }
    }

    /// A call that had this frame did not say how it ended.
    pub(super) fn maybe_opened(&mut self, frame: usize, to: usize, life: u64, now: u64) {
        let delivery = self.frames[frame].deliveries.entry(to).or_default();
        delivery.maybe.get_or_insert(life);
        delivery.kept_at = Some(delivery.kept_at.map_or(now, |kept_at| kept_at.min(now)));
    }

    /// Judges how a frame that came undamaged ended at a receiver; gives whether its plaintext was given out.
    pub(super) fn judge(&mut self, came: Came<'_>, status: Status, given: &[u8]) -> bool {
        let Came { frame, to, desk, life, buffer, shared, now } = came;
        self.latest = self.latest.max(now);
        let shown = || format!("{} at {to}, desk {desk}", self.show(frame));
        let fresh = self.has_to_open(frame, to);
        let found = &self.frames[frame];
        let before = found.deliveries.get(&to).copied().unwrap_or_default();
        // Of a call that failed, nothing is done before the store is opened again.
        let spent = before.opened || before.maybe.is_some_and(|maybe| shared || maybe != life);
        let kept = buffer.is_some_and(|limits| {
            let expired = before.kept_at.is_some_and(|at| self.latest.saturating_sub(at) > limits.seconds);
            before.opened && before.acknowledged.is_none() && !expired
        });
        let seen = self.seen.get(&(found.chain, to)).copied().unwrap_or_default();
        let evicted = (seen.expected - seen.first).saturating_sub(seen.opened) as usize > MAX_SKIPPED_KEYS;
        match status {
            Status::Ok => assert!(!before.opened || before.unknown_again, "opened twice: {}", shown()),
            Status::Redelivered => {
                assert!(spent || self.forgot[to], "delivered again before it was opened: {}", shown());
                assert!(buffer.is_some(), "nothing is buffered, and delivered again: {}", shown());
                if let Some((by, in_life)) = before.acknowledged {
                    let gone = !shared && ((by, in_life) == (desk, life) || self.cleanly.contains(&(by, in_life)));
                    assert!(!gone, "acknowledged, and delivered again: {}", shown());
                }
            }
            Status::Duplicate => {
                assert!(!kept, "A PLAINTEXT IS LOST: {}", shown());
                assert!(spent || evicted || !fresh, "a duplicate of what was never opened: {}", shown());
                let unread = buffer.is_some() && before.acknowledged.is_none() && !before.opened;
                let expired = before
                    .kept_at
                    .is_some_and(|at| buffer.is_some_and(|limits| self.latest.saturating_sub(at) > limits.seconds));
                assert!(
                    !unread || evicted || expired || !fresh,
                    "A PLAINTEXT IS LOST in a call that failed: {}",
                    shown()
                );
                return false;
            }
            status => {
                assert!(!kept, "A PLAINTEXT IS LOST ({}): {}", status.name(), shown());
                assert!(spent || !fresh, "{} for a frame that has to open: {}", status.name(), shown());
                return false;
            }
        }
        assert!(given == found.plain, "another plaintext than was sent: {}", shown());
        let (line, chain, counter) = (found.line, found.chain, found.counter);
        let delivery = self.frames[frame].deliveries.entry(to).or_default();
        delivery.kept_at = Some(delivery.kept_at.map_or(now, |kept_at| kept_at.min(now)));
        delivery.unknown_again &= status != Status::Ok;
        if !delivery.opened {
            delivery.opened = true;
            // A sender key of which nothing is known any more, for its owner's store is an old one, has this frame at least.
            let first = if let Line::Group(..) = line { counter } else { 0 };
            let seen = self.seen.entry((chain, to)).or_insert(Seen { first, expected: first, ..Seen::default() });
            seen.sure = true;
            seen.expected = seen.expected.max(counter + 1);
            seen.opened += 1;
            if let Line::Pair(from, _) = line {
                let number = self.chains[&chain].number;
                let newest = self.newest.entry((line, to)).or_default();
                *newest = number.max(*newest);
                self.established(to, from);
            }
        }
        true
    }

    pub(super) fn handled(&mut self, frame: usize, to: usize) {
        self.frames[frame].deliveries.entry(to).or_default().handled = true;
    }

    pub(super) fn acknowledged(&mut self, frame: usize, to: usize, desk: usize, life: u64) {
        self.frames[frame].deliveries.entry(to).or_default().acknowledged = Some((desk, life));
    }

    /// The group and the sender key that a frame brings.
    pub(super) fn distribution(&self, frame: usize) -> Option<(usize, Vec<u8>)> {
        let Frame { content: Content::Distribution(group), plain, .. } = &self.frames[frame] else { return None };
        Some((*group, plain[1..].to_vec()))
    }

    /// A receiver has taken a sender key in.
    pub(super) fn accepted(&mut self, frame: usize, to: usize, sure: bool) {
        let Some((group, distribution)) = self.distribution(frame) else { return };
        let message = DistributionMessage::parse(&distribution).expect("an engine wrote it");
        let from = self.sender(frame);
        let chain = ChainId::SenderKey(from, group, message.id);
        let newest = self.newest.entry((Line::Group(from, group), to)).or_default();
        let seen = self.seen.entry((chain, to)).or_insert_with(|| {
            *newest += 1;
            Seen { order: *newest, ..Seen::default() }
        });
        if !seen.sure {
            // The first one counts. Where the answer to that did not come, it may be either.
            seen.first = seen.first.max(message.iteration);
            seen.expected = seen.expected.max(message.iteration);
            seen.sure = sure;
        }
    }

    /// Whether everything that was sent since came to those whom it was for.
    pub(super) fn all_heard(&self, since: usize, members: &[usize]) -> bool {
        self.frames[since..].iter().all(|frame| {
            let heard = |to: &usize| frame.deliveries.get(to).is_some_and(|delivery| delivery.handled);
            match frame.line {
                Line::Pair(_, to) => heard(&to),
                Line::Group(from, _) => members.iter().filter(|&&to| to != from).all(heard),
            }
        })
    }
}

/// A frame that came to a receiver.
#[derive(Clone, Copy)]
pub(super) struct Came<'a> {
    pub(super) frame: usize,
    pub(super) to: usize,
    pub(super) desk: usize,
    pub(super) life: u64,
    pub(super) buffer: Option<&'a BufferLimits>,
    pub(super) shared: bool,
    pub(super) now: u64,
}

/// How many rows each line has.
fn counted(lines: &[Line]) -> BTreeMap<Line, u64> {
    let mut rows = BTreeMap::new();
    for &line in lines {
        *rows.entry(line).or_default() += 1;
    }
    rows
}

/// The chain, counter and ciphertext of a frame.
fn taken_apart(line: Line, kind: u8, bytes: &[u8]) -> (ChainId, u32, &[u8]) {
    let (Line::Pair(from, _) | Line::Group(from, _)) = line;
    if let Line::Group(_, group) = line {
        assert_eq!(kind, Kind::SenderKeyMessage as u8);
        let message = SenderKeyMessage::parse(bytes).expect("an engine wrote it");
        return (ChainId::SenderKey(from, group, message.id), message.iteration, message.ciphertext);
    }
    let first = kind == Kind::PrekeyMessage as u8;
    let inner = if first { PrekeyMessage::parse(bytes).expect("an engine wrote it").message } else { bytes };
    let message = SignalMessage::parse(inner).expect("an engine wrote it");
    (ChainId::Ratchet(from, message.ratchet_key), message.counter, message.ciphertext)
}
