//! All sessions, in columns: one field of 256 sessions beside another, so that a batch touches what it needs and a
//! million idle sessions cost little. A page never moves: no copy of a key is left behind by a growing vector.
//!
//! ```text
//! handle = slot → what is kept for ever: account, tag, name, place       36 bytes
//!                 place → a resident: keys, counters, the rest           some 400 bytes, until it is evicted
//! ```
//!
//! A peer of whom nothing is known has a slot and no place. The lowest free place is taken first, and a page without
//! residents gives its columns back, so that pages are about as many as the residents fill.

use std::collections::BTreeSet;
use std::mem::take;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use hashbrown::HashTable;

use super::lease::{Copied, Marks, Rest as CopiedRest};
use crate::error::Error;
use crate::limits::MAX_RECEIVING_CHAINS;
use crate::ratchet::{Archive, ChainKey, KeyPair, Peer, Pending, ReceivingChain, Session, SkippedKeys};
use crate::secret::Secret;
use crate::store::{Key, Kind as RowKind};

/// Sessions of a page.
const PAGE: usize = 256;

/// Slots that lie together.
const SLOTS: usize = 4_096;

/// Bytes of a block of names.
const NAME_BLOCK: usize = 1 << 16;

/// In the place's stead: the store is to be asked.
const UNLOADED: u32 = u32::MAX;

/// In the place's stead: it was looked up, or there is no store, and nothing is known of the peer.
const NOTHING: u32 = UNLOADED - 1;

/// The owner of a free place.
const NOBODY: u32 = u32::MAX;

/// Where a peer's name lies.
#[derive(Clone, Copy, Default)]
struct Name {
    block: u32,
    start: u16,
    len: u16,
}

/// The parts of a session that a warm message does not touch.
#[derive(Default)]
struct Cold {
    root: Secret<32>,
    ratchet_private: Secret<32>,
    base_key: [u8; 32],
    pending: Option<Pending>,
    /// The identity that the session was agreed with, where it is not the trusted one.
    other_identity: Option<Box<[u8; 32]>>,
    rest: Option<Box<Rest>>,
}

/// What most sessions do not have.
#[derive(Default)]
struct Rest {
    older: Vec<Arc<ReceivingChain>>,
    skipped: SkippedKeys,
    archived: Archive,
}

/// What is kept of a peer for as long as its handle is good: for ever.
struct Slot {
    account: u32,
    tag: [u8; 16],
    name: Name,
    /// Where its resident is, or [`UNLOADED`] or [`NOTHING`]. Changed only by who has claimed the slot.
    place: AtomicU32,
}

/// What there is of a resident: a warm message need not look for it where it is cold.
#[derive(Clone, Copy, Default)]
struct Form(u8);

impl Form {
    /// An identity is trusted.
    const TRUSTED: Self = Self(1);
    /// There is a session.
    const SESSION: Self = Self(1 << 1);
    /// It is unanswered, or was agreed with another identity than the trusted one: a part of what is cold is needed.
    const NEEDS_COLD: Self = Self(1 << 2);
    /// It has a receiving chain.
    const RECEIVING: Self = Self(1 << 3);

    fn has(self, what: Self) -> bool {
        self.0 & what.0 != 0
    }

    fn set(&mut self, what: Self, is: bool) {
        self.0 |= if is { what.0 } else { 0 };
    }
}

/// Places of 256 residents. Of one without residents there are no columns.
#[derive(Default)]
struct Page {
    /// How many places are taken.
    taken: usize,
    /// Each place's slot, or [`NOBODY`].
    owner: Box<[u32]>,
    /// The call that was the last to look at it.
    used: Box<[u32]>,
    forms: Box<[Form]>,
    identity: Box<[[u8; 32]]>,
    sending_key: Box<[Secret<32>]>,
    sending_index: Box<[u64]>,
    /// Where sends are leased: the counter of the chain in the store.
    leased: Box<[u64]>,
    marks: Box<[Marks]>,
    previous_counter: Box<[u32]>,
    ratchet_public: Box<[[u8; 32]]>,
    receiving_ratchet: Box<[[u8; 32]]>,
    receiving_key: Box<[Secret<32>]>,
    receiving_index: Box<[u64]>,
    cold: Box<[Option<Box<Cold>>]>,
}

fn column<T: Default>() -> Box<[T]> {
    (0..PAGE).map(|_| T::default()).collect()
}

/// What an encrypt needs of a session: copies, the key included.
pub(crate) struct SendingView {
    pub(crate) chain: ChainKey,
    pub(crate) leased: u64,
    pub(crate) previous_counter: u32,
    pub(crate) ratchet_key: [u8; 32],
    pub(crate) their_identity: [u8; 32],
    /// The base key is needed with it.
    pub(crate) pending: Option<(Pending, [u8; 32])>,
}

/// What a decrypt in order needs of a session: copies, the key included.
pub(crate) struct ReceivingView {
    pub(crate) chain: ChainKey,
    pub(crate) their_identity: [u8; 32],
}

impl Page {
    fn new() -> Self {
        Self {
            taken: 0,
            owner: vec![NOBODY; PAGE].into(),
            used: column(),
            forms: column(),
            identity: column(),
            sending_key: column(),
            sending_index: column(),
            leased: column(),
            marks: column(),
            previous_counter: column(),
            ratchet_public: column(),
            receiving_ratchet: column(),
            receiving_key: column(),
            receiving_index: column(),
            cold: column(),
        }
    }

    /// Gives a slot the lowest free place from one on below which none is.
    fn settle(&mut self, from: usize, slot: u32, life: u32) -> usize {
        if self.taken == 0 {
            *self = Self::new();
        }
        let free = self.owner[from..].iter().position(|&owner| owner == NOBODY);
        let i = from + free.expect("the page has room");
        self.owner[i] = slot;
        self.marks[i] = Marks::of_life(life);
        self.taken += 1;
        i
    }

    /// Frees a place; its keys are zeroed.
    fn clear(&mut self, i: usize) {
        self.set_peer(i, Peer::default());
        self.owner[i] = NOBODY;
        self.taken -= 1;
        if self.taken == 0 {
            *self = Self::default();
        }
    }

    /// The parts of a session that a warm message of its form needs and that are cold.
    fn needed_cold(&self, i: usize) -> Option<&Cold> {
        if self.forms[i].has(Form::NEEDS_COLD) { self.cold[i].as_deref() } else { None }
    }

    fn session_identity(&self, i: usize) -> [u8; 32] {
        let other = self.needed_cold(i).and_then(|cold| cold.other_identity.as_deref());
        other.copied().unwrap_or(self.identity[i])
    }

    /// The sending side, if there is a session.
    #[inline(always)]
    fn sending(&self, i: usize) -> Option<SendingView> {
        self.forms[i].has(Form::SESSION).then(|| SendingView {
            chain: ChainKey { key: self.sending_key[i].duplicate(), index: self.sending_index[i] },
            leased: self.leased[i],
            previous_counter: self.previous_counter[i],
            ratchet_key: self.ratchet_public[i],
            their_identity: self.session_identity(i),
            pending: self.needed_cold(i).and_then(|cold| Some((cold.pending?, cold.base_key))),
        })
    }

    /// The newest receiving chain, if the frame with this ratchet key and counter is the next one on it.
    fn receiving_next(&self, i: usize, ratchet_key: &[u8; 32], counter: u32) -> Option<ReceivingView> {
        let next = self.forms[i].has(Form::RECEIVING)
            && self.receiving_index[i] == u64::from(counter)
            && self.receiving_ratchet[i] == *ratchet_key
            && self.needed_cold(i).is_none_or(|cold| cold.pending.is_none());
        next.then(|| ReceivingView {
            chain: ChainKey { key: self.receiving_key[i].duplicate(), index: u64::from(counter) },
            their_identity: self.session_identity(i),
        })
    }

    /// Moves the sending chain on.
    fn set_sending(&mut self, i: usize, chain: ChainKey) {
        self.sending_index[i] = chain.index;
        self.sending_key[i] = chain.key;
    }

    /// The lease's end is in the store.
    fn set_leased(&mut self, i: usize, leased: u64) {
        self.leased[i] = leased;
        self.marks[i].end();
    }

    /// What a lease is made of, unless a call is about to write it.
    fn copy_sending(&self, i: usize, key: Key) -> Option<Copied> {
        if !self.forms[i].has(Form::SESSION) || !self.marks[i].is_quiet() {
            return None;
        }
        Some(Copied {
            key: Key { kind: RowKind::Sending, ..key },
            marks: self.marks[i],
            leased: self.leased[i],
            chain: ChainKey { key: self.sending_key[i].duplicate(), index: self.sending_index[i] },
            rest: CopiedRest::Session(self.ratchet_public[i]),
        })
    }

    /// How far a session's sending chain is, and its lease, if that is ahead.
    fn is_leased_ahead(&self, i: usize) -> bool {
        self.forms[i].has(Form::SESSION) && self.leased[i] > self.sending_index[i]
    }

    /// Moves the newest receiving chain on.
    fn set_receiving(&mut self, i: usize, chain: ChainKey) {
        self.receiving_index[i] = chain.index;
        self.receiving_key[i] = chain.key;
    }

    /// A copy of everything about the peer.
    fn peer(&self, i: usize) -> Peer {
        let identity = self.forms[i].has(Form::TRUSTED).then_some(self.identity[i]);
        let Some(cold) = self.cold[i].as_deref() else {
            return Peer { identity, ..Peer::default() };
        };
        let mut receiving = Vec::with_capacity(MAX_RECEIVING_CHAINS);
        if self.forms[i].has(Form::RECEIVING) {
            receiving.push(Arc::new(ReceivingChain {
                ratchet_key: self.receiving_ratchet[i],
                chain: ChainKey { key: self.receiving_key[i].duplicate(), index: self.receiving_index[i] },
                skipped: cold.rest.as_ref().map(|rest| rest.skipped.duplicate()).unwrap_or_default(),
            }));
        }
        let mut archived = Archive::new();
        if let Some(rest) = &cold.rest {
            receiving.extend_from_slice(&rest.older);
            archived.clone_from(&rest.archived);
        }
        let current = Box::new(Session {
            base_key: cold.base_key,
            their_identity: self.session_identity(i),
            root: cold.root.duplicate(),
            ratchet: KeyPair { private: cold.ratchet_private.duplicate(), public: self.ratchet_public[i] },
            sending: ChainKey { key: self.sending_key[i].duplicate(), index: self.sending_index[i] },
            previous_counter: self.previous_counter[i],
            receiving,
            pending: cold.pending,
            leased: self.leased[i],
        });
        Peer { identity, current: Some(current), archived }
    }

    /// Puts everything about the peer in its columns; what was there before is zeroed. The memory of what is cold stays where
    /// it is: a turn would free it and ask for as much again.
    fn set_peer(&mut self, i: usize, peer: Peer) {
        self.forms[i] = Form::default();
        self.forms[i].set(Form::TRUSTED, peer.identity.is_some());
        self.identity[i] = peer.identity.unwrap_or_default();
        self.sending_key[i] = Secret::default();
        self.receiving_key[i] = Secret::default();
        self.set_leased(i, 0);
        let Some(mut session) = peer.current else {
            self.cold[i] = None;
            return;
        };
        self.leased[i] = session.leased.max(session.sending.index);
        self.set_sending(i, take(&mut session.sending));
        self.previous_counter[i] = session.previous_counter;
        self.ratchet_public[i] = session.ratchet.public;
        let mut skipped = SkippedKeys::default();
        if let Some(newest) = session.newest_mut() {
            self.forms[i].set(Form::RECEIVING, true);
            self.receiving_ratchet[i] = newest.ratchet_key;
            skipped = take(&mut newest.skipped);
            let chain = take(&mut newest.chain);
            self.set_receiving(i, chain);
            session.receiving.remove(0);
        }
        let older = take(&mut session.receiving);
        let plain = older.is_empty() && skipped.is_empty() && peer.archived.is_empty();
        let differs = Some(session.their_identity) != peer.identity;
        self.forms[i].set(Form::SESSION, true);
        self.forms[i].set(Form::NEEDS_COLD, differs || session.pending.is_some());
        let cold = self.cold[i].get_or_insert_default();
        cold.root = take(&mut session.root);
        cold.ratchet_private = take(&mut session.ratchet.private);
        cold.base_key = session.base_key;
        cold.pending = session.pending;
        cold.other_identity = differs.then(|| Box::new(session.their_identity));
        if plain {
            cold.rest = None;
        } else {
            **cold.rest.get_or_insert_default() = Rest { older, skipped, archived: peer.archived };
        }
    }

    /// Identity, whether there is a session, whether it is still unanswered, how many are archived.
    fn summary(&self, i: usize) -> (Option<[u8; 32]>, bool, bool, usize) {
        let cold = self.cold[i].as_deref();
        (
            self.forms[i].has(Form::TRUSTED).then_some(self.identity[i]),
            cold.is_some(),
            cold.is_some_and(|cold| cold.pending.is_some()),
            cold.and_then(|cold| cold.rest.as_ref()).map_or(0, |rest| rest.archived.len()),
        )
    }
}

/// Slots by tag, and the blocks of names.
#[derive(Default)]
struct Directory {
    slots: HashTable<u32>,
    names: Vec<Vec<u8>>,
    len: usize,
}

/// All slots, and the pages of residents.
#[derive(Default)]
struct Table {
    slots: Vec<Vec<Slot>>,
    pages: Vec<Mutex<Page>>,
}

/// Every peer that the engine has met: the directory to them, their slots, and those of them that are in memory. A
/// slot's number is its handle.
///
/// Locks are taken in the order in which they stand here; pages one at a time.
#[derive(Default)]
pub(crate) struct Columns {
    directory: Mutex<Directory>,
    /// Pages that have free places.
    roomy: Mutex<BTreeSet<u32>>,
    table: RwLock<Table>,
    unloaded: AtomicUsize,
    residents: AtomicUsize,
    /// Numbers the times that a place was taken.
    lives: AtomicU32,
    /// Numbers the calls.
    calls: AtomicU32,
}

/// The table, held still for as long as rows are gathered or scattered.
pub(crate) struct Pages<'a> {
    table: RwLockReadGuard<'a, Table>,
    call: u32,
}

/// Goes from slot to slot. It keeps the last one's page locked: the rows of a call mostly follow each other, and a lock
/// costs as much as all that is read of a row. To be let go of before anybody else's rows are waited for.
pub(crate) struct Walk<'p> {
    pages: &'p Pages<'p>,
    held: Option<(usize, MutexGuard<'p, Page>)>,
}

/// A slot and, where there is one, its resident.
pub(crate) struct At<'w> {
    slot: &'w Slot,
    page: Option<&'w mut Page>,
    i: usize,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    fn place(&self) -> Option<(usize, usize)> {
        let place = self.place.load(Ordering::Acquire);
        (place < NOTHING).then_some((place as usize / PAGE, place as usize % PAGE))
    }
}

impl Pages<'_> {
    fn slot(&self, slot: u32) -> &Slot {
        let slot = slot as usize;
        &self.table.slots[slot / SLOTS][slot % SLOTS]
    }

    /// To go over slots.
    pub(crate) fn walk(&self) -> Walk<'_> {
        Walk { pages: self, held: None }
    }

    /// The account of a slot.
    pub(crate) fn account(&self, slot: u32) -> u32 {
        self.slot(slot).account
    }

    /// The tag of a slot.
    pub(crate) fn tag(&self, slot: u32) -> [u8; 16] {
        self.slot(slot).tag
    }

    /// Whether the store is to be asked for a slot.
    pub(crate) fn is_unloaded(&self, slot: u32) -> bool {
        self.slot(slot).place.load(Ordering::Acquire) == UNLOADED
    }
}

impl<'p> Walk<'p> {
    fn page(&mut self, number: usize) -> &mut Page {
        if self.held.as_ref().is_none_or(|(held, _)| *held != number) {
            // Never two at a time: others may go the other way.
            self.held = None;
        }
        let (_, page) = self.held.get_or_insert_with(|| (number, locked(&self.pages.table.pages[number])));
        page
    }

    /// A slot that the caller has claimed, which counts as a use of it.
    pub(crate) fn to(&mut self, slot: u32) -> At<'_> {
        let pages: &'p Pages<'p> = self.pages;
        let slot = pages.slot(slot);
        let Some((number, i)) = slot.place() else { return At { slot, page: None, i: 0 } };
        let page = self.page(number);
        page.used[i] = pages.call;
        At { slot, page: Some(page), i }
    }

    /// A slot that others may evict meanwhile.
    pub(crate) fn unclaimed(&mut self, slot: u32) -> At<'_> {
        let pages: &'p Pages<'p> = self.pages;
        let (known, number) = (pages.slot(slot), slot);
        let Some((page, i)) = known.place() else { return At { slot: known, page: None, i: 0 } };
        let page = self.page(page);
        let still = page.owner.get(i) == Some(&number);
        At { slot: known, page: still.then_some(page), i }
    }
}

impl At<'_> {
    /// The key of one of the peer's rows.
    pub(crate) fn key(&self, kind: RowKind) -> Key {
        Key { account: self.slot.account, kind, tag: self.slot.tag }
    }

    fn resident(&self) -> Option<&Page> {
        self.page.as_deref()
    }

    /// What calls that advance a session ask for: they have claimed it, and seen that it is there.
    fn page(&mut self) -> &mut Page {
        self.page.as_deref_mut().expect("a claimed session stays in memory")
    }

    /// The sending side, if there is a session.
    #[inline(always)]
    pub(crate) fn sending(&self) -> Option<SendingView> {
        self.resident()?.sending(self.i)
    }

    /// The newest receiving chain, if the frame with this ratchet key and counter is the next one on it.
    pub(crate) fn receiving_next(&self, ratchet_key: &[u8; 32], counter: u32) -> Option<ReceivingView> {
        self.resident()?.receiving_next(self.i, ratchet_key, counter)
    }

    /// Moves the sending chain on.
    pub(crate) fn set_sending(&mut self, chain: ChainKey) {
        let i = self.i;
        self.page().set_sending(i, chain);
    }

    /// Moves the newest receiving chain on.
    pub(crate) fn set_receiving(&mut self, chain: ChainKey) {
        let i = self.i;
        self.page().set_receiving(i, chain);
    }

    /// The lease's end is in the store.
    pub(crate) fn set_leased(&mut self, leased: u64) {
        let i = self.i;
        self.page().set_leased(i, leased);
    }

    /// Of a resident: it can send when a lease is written anew.
    pub(crate) fn give_up_lease(&mut self) {
        let i = self.i;
        if let Some(page) = self.page.as_deref_mut() {
            page.set_leased(i, page.sending_index[i]);
        }
    }

    /// The marks of a resident.
    pub(crate) fn marks(&mut self) -> Option<&mut Marks> {
        let i = self.i;
        self.page.as_deref_mut().map(|page| &mut page.marks[i])
    }

    /// What a lease is made of, unless a call is about to write it.
    pub(crate) fn copy_sending(&self) -> Option<Copied> {
        self.resident()?.copy_sending(self.i, self.key(RowKind::Sending))
    }

    /// A copy of everything about the peer.
    pub(crate) fn peer(&self) -> Peer {
        self.resident().map(|page| page.peer(self.i)).unwrap_or_default()
    }

    /// Identity, whether there is a session, whether it is still unanswered, how many are archived.
    pub(crate) fn summary(&self) -> (Option<[u8; 32]>, bool, bool, usize) {
        self.resident().map(|page| page.summary(self.i)).unwrap_or_default()
    }
}

/// A tag is the output of a keyed hash: any part of it is a hash.
fn hash(tag: &[u8; 16]) -> u64 {
    u64::from_le_bytes(*tag.first_chunk().expect("8 of 16"))
}

impl Columns {
    /// Holds the table for reading; rows are locked page by page. To be let go of before anything here is changed.
    pub(crate) fn pages(&self) -> Pages<'_> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        Pages { table, call: self.calls.load(Ordering::Relaxed) }
    }

    /// How many slots there are.
    pub(crate) fn len(&self) -> usize {
        locked(&self.directory).len
    }

    /// How many residents there are.
    pub(crate) fn residents(&self) -> usize {
        self.residents.load(Ordering::SeqCst)
    }

    /// A call begins: what it looks at is used later than what was looked at before.
    pub(crate) fn begin_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Slots of peers, by account and tag; new ones are made. `durable`: their rows may be in the store.
    pub(crate) fn slots<'n>(
        &self,
        peers: impl Iterator<Item = (u32, [u8; 16], &'n str)>,
        durable: bool,
        slots: &mut Vec<u64>,
    ) {
        let mut directory = locked(&self.directory);
        for (account, tag, name) in peers {
            slots.push(u64::from(self.slot(&mut directory, account, tag, name, durable)));
        }
    }

    fn slot(&self, directory: &mut Directory, account: u32, tag: [u8; 16], name: &str, durable: bool) -> u32 {
        let pages = self.pages();
        let same = |&slot: &u32| pages.tag(slot) == tag && pages.account(slot) == account;
        if let Some(&slot) = directory.slots.find(hash(&tag), same) {
            return slot;
        }
        drop(pages);
        let slot = u32::try_from(directory.len).expect("fewer than 2^32 peers fit any memory");
        let name = directory.keep(name);
        let place = AtomicU32::new(if durable { UNLOADED } else { NOTHING });
        {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            if directory.len.is_multiple_of(SLOTS) {
                table.slots.push(Vec::with_capacity(SLOTS));
            }
            table.slots[directory.len / SLOTS].push(Slot { account, tag, name, place });
        }
        if durable {
            self.unloaded.fetch_add(1, Ordering::Relaxed);
        }
        directory.len += 1;
        let pages = self.pages();
        directory.slots.insert_unique(hash(&tag), slot, |&slot| hash(&pages.tag(slot)));
        slot
    }

    /// Whether any slot waits for the store.
    pub(crate) fn any_unloaded(&self) -> bool {
        self.unloaded.load(Ordering::Relaxed) != 0
    }

    /// Puts everything about the peer of a claimed slot in memory; what was there before is zeroed.
    pub(crate) fn put(&self, slot: u32, peer: Peer) {
        if peer.identity.is_none() && peer.current.is_none() {
            return self.leave(slot, NOTHING);
        }
        let settled = self.pages().slot(slot).place();
        let (page, i) = settled.unwrap_or_else(|| self.settle(slot));
        let pages = self.pages();
        {
            let mut page = locked(&pages.table.pages[page]);
            page.set_peer(i, peer);
            page.used[i] = pages.call;
        }
        let place = u32::try_from(page * PAGE + i).expect("there are no more residents than slots");
        let before = pages.slot(slot).place.swap(place, Ordering::Release);
        self.unloaded.fetch_sub(usize::from(before == UNLOADED), Ordering::Relaxed);
    }

    /// Forgets what is known of a claimed slot, whose keys are zeroed: the store is to be asked again.
    pub(crate) fn unload(&self, slot: u32) {
        self.leave(slot, UNLOADED);
    }

    /// Gives a slot the lowest free place there is.
    fn settle(&self, slot: u32) -> (usize, usize) {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let mut roomy = locked(&self.roomy);
        let number = roomy.first().copied().unwrap_or_else(|| {
            let number = self.add_page();
            roomy.insert(number);
            number
        });
        let pages = self.pages();
        let mut page = locked(&pages.table.pages[number as usize]);
        let i = page.settle(0, slot, life);
        if page.taken == PAGE {
            roomy.remove(&number);
        }
        self.residents.fetch_add(1, Ordering::SeqCst);
        (number as usize, i)
    }

    /// Adds a page without residents.
    fn add_page(&self) -> u32 {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let number = u32::try_from(table.pages.len()).expect("fewer than the slots");
        table.pages.push(Mutex::default());
        number
    }

    /// Puts what was looked up of claimed slots, which wait for the store, in memory: [`Self::put`] for many. A page is
    /// locked once for all that it takes, and others that look for free places meanwhile find those of another one.
    pub(crate) fn put_loaded(&self, peers: impl Iterator<Item = Result<(u32, Peer), Error>>) -> Result<(), Error> {
        let mut peers = peers.peekable();
        while peers.peek().is_some() {
            let roomy = locked(&self.roomy).pop_first();
            let number = roomy.unwrap_or_else(|| self.add_page());
            let filled = self.fill(number, &mut peers);
            let mut roomy = locked(&self.roomy);
            if locked(&self.pages().table.pages[number as usize]).taken < PAGE {
                roomy.insert(number);
            }
            filled?;
        }
        Ok(())
    }

    /// Puts peers in the free places of a page, until there is none. The page stays locked: `peers` must not look at others.
    fn fill(&self, number: u32, peers: &mut impl Iterator<Item = Result<(u32, Peer), Error>>) -> Result<(), Error> {
        let first_life = self.lives.fetch_add(PAGE as u32, Ordering::Relaxed);
        let pages = self.pages();
        let mut page = locked(&pages.table.pages[number as usize]);
        let (mut from, mut settled, mut left, mut ended) = (0, 0, 0, Ok(()));
        while page.taken < PAGE {
            let (slot, peer) = match peers.next() {
                Some(Ok(next)) => next,
                Some(Err(error)) => {
                    ended = Err(error);
                    break;
                }
                None => break,
            };
            let mut place = NOTHING;
            if peer.identity.is_some() || peer.current.is_some() {
                let i = page.settle(from, slot, first_life.wrapping_add(settled as u32));
                page.set_peer(i, peer);
                page.used[i] = pages.call;
                from = i + 1;
                settled += 1;
                place = number * PAGE as u32 + i as u32;
            }
            left += 1;
            let before = pages.slot(slot).place.swap(place, Ordering::Release);
            debug_assert_eq!(before, UNLOADED, "a slot that waits for the store");
        }
        // Before the caller lets go of the slots: nobody leaves one that is not counted.
        self.residents.fetch_add(settled, Ordering::SeqCst);
        self.unloaded.fetch_sub(left, Ordering::Relaxed);
        ended
    }

    /// Frees the place of a slot, where it has one. `instead`: [`UNLOADED`] or [`NOTHING`].
    fn leave(&self, slot: u32, instead: u32) {
        let mut roomy = locked(&self.roomy);
        let pages = self.pages();
        let settled = pages.slot(slot).place();
        let before = pages.slot(slot).place.swap(instead, Ordering::Release);
        self.unloaded.fetch_add(usize::from(instead == UNLOADED), Ordering::Relaxed);
        self.unloaded.fetch_sub(usize::from(before == UNLOADED), Ordering::Relaxed);
        if let Some((page, i)) = settled {
            locked(&pages.table.pages[page]).clear(i);
            roomy.insert(u32::try_from(page).expect("fewer than the slots"));
            self.residents.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// The slots of the `count` residents that have not been used for longest, these first; of those that one call used,
    /// the ones in the highest places, so that whole pages become free.
    pub(crate) fn idle(&self, count: usize) -> Vec<u32> {
        let pages = self.pages();
        // How many calls ago, and where: the later place is the more idle one.
        let mut residents: Vec<(i32, u32)> = Vec::with_capacity(self.residents());
        for (number, page) in (0..).zip(&pages.table.pages) {
            let page = locked(page);
            for (i, (&owner, &used)) in (0..).zip(page.owner.iter().zip(&page.used)) {
                if owner != NOBODY {
                    residents.push((pages.call.wrapping_sub(used).cast_signed(), number * PAGE as u32 + i));
                }
            }
        }
        let count = count.min(residents.len());
        if count < residents.len() {
            residents.select_nth_unstable_by(count, |a, b| b.cmp(a));
        }
        residents.truncate(count);
        residents.sort_unstable_by(|a, b| b.cmp(a));
        let owner = |(_, place): (i32, u32)| {
            let page = locked(&pages.table.pages[place as usize / PAGE]);
            page.owner.get(place as usize % PAGE).copied()
        };
        // Meanwhile a place may have been left.
        residents.into_iter().filter_map(owner).filter(|&slot| slot != NOBODY).collect()
    }

    /// Every session of whose sending chain the store is ahead.
    pub(crate) fn leased_ahead(&self) -> Vec<u32> {
        let pages = self.pages();
        let mut ahead = Vec::new();
        for page in &pages.table.pages {
            let page = locked(page);
            let sessions =
                page.owner.iter().enumerate().filter(|&(i, &owner)| owner != NOBODY && page.is_leased_ahead(i));
            ahead.extend(sessions.map(|(_, &owner)| owner));
        }
        ahead
    }

    /// The name of a slot.
    pub(crate) fn name(&self, slot: u32) -> String {
        let directory = locked(&self.directory);
        let name = self.pages().slot(slot).name;
        let start = usize::from(name.start);
        let bytes = &directory.names[name.block as usize][start..start + usize::from(name.len)];
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Every slot of some accounts.
    pub(crate) fn slots_of(&self, accounts: impl Fn(u32) -> bool) -> Vec<u32> {
        let len = self.len() as u32;
        let pages = self.pages();
        (0..len).filter(|&slot| accounts(pages.account(slot))).collect()
    }

    /// How many sessions are in memory.
    pub(crate) fn sessions(&self) -> u64 {
        let pages = self.pages();
        pages.table.pages.iter().map(|page| locked(page).cold.iter().flatten().count() as u64).sum()
    }
}

impl Directory {
    /// Keeps a name; blocks never move.
    fn keep(&mut self, name: &str) -> Name {
        let full = self.names.last().is_none_or(|block| block.len() + name.len() > NAME_BLOCK);
        if full {
            self.names.push(Vec::with_capacity(NAME_BLOCK));
        }
        let block = self.names.len() - 1;
        let bytes = &mut self.names[block];
        let start = bytes.len();
        bytes.extend_from_slice(name.as_bytes());
        Name { block: block as u32, start: start as u16, len: name.len() as u16 }
    }
}

#[cfg(test)]
impl Columns {
    /// Bytes of all that is kept of peers: slots, directory and names, pages, and what hangs on them.
    pub(crate) fn bytes(&self) -> usize {
        const COLUMNS: usize = size_of::<u32>() // owner
            + size_of::<u32>() // used
            + 1 // forms
            + 3 * 32 // identity, ratchet_public, receiving_ratchet
            + 2 * size_of::<Secret<32>>() // sending_key, receiving_key
            + 3 * size_of::<u64>() // sending_index, receiving_index, leased
            + size_of::<Marks>()
            + size_of::<u32>() // previous_counter
            + size_of::<usize>(); // cold
        let directory = locked(&self.directory);
        let known = directory.slots.allocation_size() + directory.names.len() * (NAME_BLOCK + size_of::<Vec<u8>>());
        let pages = self.pages();
        let slots = pages.table.slots.iter().map(|slots| slots.capacity() * size_of::<Slot>()).sum::<usize>();
        let residents = pages.table.pages.iter().map(|page| {
            let page = locked(page);
            let cold = page.cold.iter().flatten().map(|cold| {
                assert!(cold.rest.is_none(), "these tests make plain sessions");
                size_of::<Cold>()
            });
            size_of::<Mutex<Page>>() + page.owner.len() * COLUMNS + cold.sum::<usize>()
        });
        known + slots + residents.sum::<usize>()
    }

    /// How many pages have columns.
    pub(crate) fn furnished(&self) -> usize {
        self.pages().table.pages.iter().filter(|page| !locked(page).owner.is_empty()).count()
    }

    /// Whether a slot has a place.
    pub(crate) fn is_resident(&self, slot: u32) -> bool {
        self.pages().slot(slot).place().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(slots: u32) -> Columns {
        let columns = Columns::default();
        let tags = (0..slots).map(|n| (1, u128::from(n).to_le_bytes(), "peer"));
        columns.slots(tags, true, &mut Vec::new());
        columns
    }

    fn peer(counter: u64) -> Peer {
        let chain = |index| ChainKey { key: Secret::copy_of(&[7; 32]), index };
        let mut session = Session {
            base_key: [1; 32],
            their_identity: [2; 32],
            root: Secret::copy_of(&[3; 32]),
            ratchet: KeyPair { private: Secret::copy_of(&[4; 32]), public: [5; 32] },
            sending: chain(counter),
            previous_counter: 6,
            receiving: Vec::new(),
            pending: None,
            leased: counter + 9,
        };
        session.begin_receiving([8; 32], chain(2 * counter));
        Peer { identity: Some([2; 32]), current: Some(Box::new(session)), ..Peer::default() }
    }

    fn counter(columns: &Columns, slot: u32) -> Option<u64> {
        columns.pages().walk().to(slot).sending().map(|view| view.chain.index)
    }

    #[test]
    fn places_are_given_again_the_lowest_first() {
        let columns = columns(2_000);
        for slot in 0..1_000 {
            columns.put(slot, peer(u64::from(slot)));
        }
        assert_eq!((columns.residents(), columns.furnished(), columns.sessions()), (1_000, 4, 1_000));
        for slot in (0..1_000).filter(|slot| slot % 10 != 3) {
            columns.unload(slot);
        }
        assert_eq!((columns.residents(), columns.furnished()), (100, 4));
        for slot in 1_000..1_400 {
            assert!(columns.pages().is_unloaded(slot));
            columns.put(slot, peer(u64::from(slot)));
        }
        assert!(columns.any_unloaded());
        let all = |slots: &mut dyn Iterator<Item = u32>| {
            slots.for_each(|slot| assert_eq!(counter(&columns, slot), Some(u64::from(slot))));
        };
        all(&mut (0..1_000).filter(|slot| slot % 10 == 3).chain(1_000..1_400));
        assert_eq!(counter(&columns, 0), None);
        // The third and fourth page have a few of the first sessions only.
        for slot in (512..1_000).filter(|slot| slot % 10 == 3) {
            columns.unload(slot);
        }
        assert_eq!(columns.furnished(), 2);
        all(&mut (0..500).filter(|slot| slot % 10 == 3));
    }

    /// Free places first, then new pages; what cannot be read ends it.
    #[test]
    fn what_was_loaded_is_put_in_free_places() {
        let columns = columns(3_000);
        (0..700).for_each(|slot| columns.put(slot, peer(u64::from(slot))));
        (0..700).filter(|slot| slot % 7 == 0).for_each(|slot| columns.unload(slot));
        let unknown = |slot: u32| slot % 10 == 9;
        let loaded = |slot: u32| Ok((slot, if unknown(slot) { Peer::default() } else { peer(u64::from(slot)) }));
        columns.put_loaded((1_000..1_500).map(loaded)).unwrap();
        assert_eq!((columns.residents(), columns.furnished()), (600 + 450, 5));
        let damaged = || Error::Store("damaged".into());
        let until = (2_000..2_500).map(|slot| if slot == 2_400 { Err(damaged()) } else { loaded(slot) });
        assert_eq!(columns.put_loaded(until).map_err(|error| error.to_string()), Err(damaged().to_string()));
        assert_eq!((columns.residents(), columns.furnished()), (600 + 450 + 360, 6));
        columns.put(2_500, peer(2_500));
        for slot in 0..3_000 {
            let there = match slot {
                0..700 => slot % 7 != 0,
                1_000..1_500 | 2_000..2_400 => !unknown(slot),
                _ => slot == 2_500,
            };
            assert_eq!(counter(&columns, slot), there.then_some(u64::from(slot)), "{slot}");
            let looked_up = matches!(slot, 1_000..1_500 | 2_000..2_400);
            assert_eq!(columns.pages().is_unloaded(slot), !there && !looked_up, "{slot}");
        }
        assert_eq!(columns.unloaded.load(Ordering::Relaxed), 100 + 300 + 500 + 599);
    }

    /// Several load while another one evicts: no place is given twice, and the books are right at the end.
    #[test]
    fn many_load_and_leave_at_once() {
        const EACH: u32 = 2_000;
        let columns = columns(4 * EACH);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let columns = &columns;
                scope.spawn(move || {
                    let mine = || thread * EACH..(thread + 1) * EACH;
                    for round in 0..20 {
                        let waiting: Vec<u32> = mine().filter(|&slot| columns.pages().is_unloaded(slot)).collect();
                        let loaded = waiting.into_iter().map(|slot| Ok((slot, peer(u64::from(slot)))));
                        columns.put_loaded(loaded).unwrap();
                        mine().for_each(|slot| assert_eq!(counter(columns, slot), Some(u64::from(slot))));
                        mine().filter(|slot| (slot + round) % 3 == 0).for_each(|slot| columns.unload(slot));
                    }
                });
            }
        });
        let there = (0..4 * EACH).filter(|&slot| counter(&columns, slot) == Some(u64::from(slot))).count();
        assert_eq!((columns.residents(), columns.unloaded.load(Ordering::SeqCst)), (there, 4 * EACH as usize - there));
        // Every place that is free is known to be.
        let missing: Vec<u32> = (0..4 * EACH).filter(|&slot| columns.pages().is_unloaded(slot)).collect();
        let pages = columns.pages().table.pages.len().max((4 * EACH as usize).div_ceil(PAGE));
        missing.into_iter().for_each(|slot| columns.put(slot, peer(u64::from(slot))));
        assert_eq!((columns.residents(), columns.pages().table.pages.len()), (4 * EACH as usize, pages));
    }

    #[test]
    fn of_a_peer_without_a_session_and_an_identity_nothing_is_kept() {
        let columns = columns(3);
        columns.put(0, Peer::default());
        columns.put(1, Peer { identity: Some([1; 32]), ..Peer::default() });
        columns.put(2, peer(1));
        assert_eq!((columns.residents(), columns.sessions()), (2, 1));
        assert!(!columns.any_unloaded());
        columns.put(2, Peer::default());
        assert_eq!((columns.residents(), columns.sessions()), (1, 0));
        assert!(!columns.any_unloaded());
        columns.unload(0);
        assert!(columns.any_unloaded() && columns.pages().is_unloaded(0));
    }

    #[test]
    fn what_was_used_longest_ago_is_idle_and_of_one_call_the_highest_places() {
        let columns = columns(1_000);
        for slot in 0..1_000 {
            columns.put(slot, peer(1));
        }
        let use_of = |slots: std::ops::Range<u32>| {
            columns.begin_call();
            let pages = columns.pages();
            let mut walk = pages.walk();
            slots.for_each(|slot| drop(walk.to(slot).sending()));
        };
        use_of(0..900);
        use_of(100..500);
        let idle = |count| {
            let mut idle = columns.idle(count);
            idle.sort_unstable();
            idle
        };
        assert_eq!(idle(100), (900..1_000).collect::<Vec<u32>>());
        assert_eq!(idle(300), (700..1_000).collect::<Vec<u32>>());
        assert_eq!(idle(600), (0..100).chain(500..1_000).collect::<Vec<u32>>());
        assert_eq!(idle(601), (0..100).chain(499..1_000).collect::<Vec<u32>>());
        assert_eq!(idle(5_000).len(), 1_000);
        // Their numbers begin again some day.
        columns.calls.store(u32::MAX - 1, Ordering::Relaxed);
        use_of(0..1_000);
        use_of(0..1);
        assert!(!idle(999).contains(&0));
        // A call that began after another one looked is not taken for the oldest.
        columns.calls.store(u32::MAX, Ordering::Relaxed);
        assert!(!idle(999).contains(&0));
        // The most idle ones come first.
        assert_eq!(columns.idle(3), [999, 998, 997]);
    }

    #[test]
    fn a_resident_that_comes_back_has_another_life() {
        let columns = columns(2);
        let marks = |slot| columns.pages().walk().unclaimed(slot).marks().copied();
        columns.put(0, peer(1));
        let before = marks(0);
        assert!(before.is_some_and(Marks::is_quiet));
        columns.unload(0);
        assert_eq!(marks(0), None);
        columns.put(1, peer(1));
        columns.put(0, peer(1));
        assert!(marks(0).is_some() && marks(0) != before && marks(1) != before);
    }

    #[test]
    fn a_peer_has_one_slot_and_keeps_its_name() {
        let columns = Columns::default();
        let mut slots = Vec::new();
        let peers: Vec<([u8; 16], String)> = (0u32..1000)
            .map(|n| {
                let mut tag = [0; 16];
                tag[..4].copy_from_slice(&(n % 500).to_le_bytes());
                (tag, format!("peer {}", n % 500))
            })
            .collect();
        columns.slots(peers.iter().map(|(tag, name)| (1, *tag, name.as_str())), true, &mut slots);
        assert_eq!(columns.len(), 500);
        assert_eq!(slots[..500], slots[500..]);
        assert_eq!(columns.name(slots[733] as u32), "peer 233");
        assert_eq!(columns.slots_of(|account| account == 1).len(), 500);
        assert!(columns.any_unloaded());
    }
}
