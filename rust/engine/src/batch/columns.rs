//! All sessions, in columns: one field of 256 sessions beside another, so that a batch touches what it needs and a
//! million idle sessions cost little. A page never moves: no copy of a key is left behind by a growing vector.

use std::mem::take;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use hashbrown::HashTable;

use super::lease::{Copied, Marks, Rest as CopiedRest};
use crate::ratchet::{Archive, ChainKey, KeyPair, Peer, Pending, ReceivingChain, Session, SkippedKeys};
use crate::secret::Secret;
use crate::store::{Key, Kind as RowKind};

/// Sessions of a page.
const PAGE: usize = 256;

/// Bytes of a block of names.
const NAME_BLOCK: usize = 1 << 16;

/// What is known of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Presence {
    /// Not looked up in the store yet.
    #[default]
    Unloaded,
    /// In memory, without a session.
    NoSession,
    /// In memory, with a current session.
    Session,
}

/// Where a peer's name lies.
#[derive(Clone, Copy, Default)]
struct Name {
    block: u32,
    start: u16,
    len: u16,
}

/// The parts of a session that a warm message does not touch.
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
    older: Vec<Box<ReceivingChain>>,
    skipped: SkippedKeys,
    archived: Archive,
}

/// 256 sessions.
pub(crate) struct Page {
    account: Box<[u32]>,
    tag: Box<[[u8; 16]]>,
    name: Box<[Name]>,
    presence: Box<[Presence]>,
    trusted: Box<[bool]>,
    identity: Box<[[u8; 32]]>,
    sending_key: Box<[Secret<32>]>,
    sending_index: Box<[u64]>,
    /// Where sends are leased: the counter of the chain in the store.
    leased: Box<[u64]>,
    marks: Box<[Marks]>,
    previous_counter: Box<[u32]>,
    ratchet_public: Box<[[u8; 32]]>,
    has_receiving: Box<[bool]>,
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
            account: column(),
            tag: column(),
            name: column(),
            presence: column(),
            trusted: column(),
            identity: column(),
            sending_key: column(),
            sending_index: column(),
            leased: column(),
            marks: column(),
            previous_counter: column(),
            ratchet_public: column(),
            has_receiving: column(),
            receiving_ratchet: column(),
            receiving_key: column(),
            receiving_index: column(),
            cold: column(),
        }
    }

    pub(crate) fn account(&self, i: usize) -> u32 {
        self.account[i]
    }

    pub(crate) fn tag(&self, i: usize) -> [u8; 16] {
        self.tag[i]
    }

    pub(crate) fn is_unloaded(&self, i: usize) -> bool {
        self.presence[i] == Presence::Unloaded
    }

    fn session_identity(&self, i: usize, cold: &Cold) -> [u8; 32] {
        cold.other_identity.as_deref().copied().unwrap_or(self.identity[i])
    }

    /// The sending side, if there is a session.
    pub(crate) fn sending(&self, i: usize) -> Option<SendingView> {
        let cold = self.cold[i].as_deref()?;
        Some(SendingView {
            chain: ChainKey { key: self.sending_key[i].duplicate(), index: self.sending_index[i] },
            leased: self.leased[i],
            previous_counter: self.previous_counter[i],
            ratchet_key: self.ratchet_public[i],
            their_identity: self.session_identity(i, cold),
            pending: cold.pending.map(|pending| (pending, cold.base_key)),
        })
    }

    /// The newest receiving chain, if the frame with this ratchet key and counter is the next one on it.
    pub(crate) fn receiving_next(&self, i: usize, ratchet_key: &[u8; 32], counter: u32) -> Option<ReceivingView> {
        let cold = self.cold[i].as_deref()?;
        let next = self.has_receiving[i]
            && self.receiving_index[i] == u64::from(counter)
            && self.receiving_ratchet[i] == *ratchet_key
            && cold.pending.is_none();
        next.then(|| ReceivingView {
            chain: ChainKey { key: self.receiving_key[i].duplicate(), index: u64::from(counter) },
            their_identity: self.session_identity(i, cold),
        })
    }

    /// Moves the sending chain on.
    pub(crate) fn set_sending(&mut self, i: usize, chain: ChainKey) {
        self.sending_index[i] = chain.index;
        self.sending_key[i] = chain.key;
    }

    /// The lease's end is in the store.
    pub(crate) fn set_leased(&mut self, i: usize, leased: u64) {
        self.leased[i] = leased;
        self.marks[i].end();
    }

    pub(crate) fn marks(&mut self, i: usize) -> &mut Marks {
        &mut self.marks[i]
    }

    /// What a lease is made of, unless a call is about to write it.
    pub(crate) fn copy_sending(&self, i: usize) -> Option<Copied> {
        if self.presence[i] != Presence::Session || !self.marks[i].is_quiet() {
            return None;
        }
        Some(Copied {
            key: Key { account: self.account[i], kind: RowKind::Sending, tag: self.tag[i] },
            marks: self.marks[i],
            leased: self.leased[i],
            chain: ChainKey { key: self.sending_key[i].duplicate(), index: self.sending_index[i] },
            rest: CopiedRest::Session(self.ratchet_public[i]),
        })
    }

    /// How far a session's sending chain is, and its lease, if that is ahead.
    pub(crate) fn is_leased_ahead(&self, i: usize) -> bool {
        self.presence[i] == Presence::Session && self.leased[i] > self.sending_index[i]
    }

    /// Moves the newest receiving chain on.
    pub(crate) fn set_receiving(&mut self, i: usize, chain: ChainKey) {
        self.receiving_index[i] = chain.index;
        self.receiving_key[i] = chain.key;
    }

    /// A copy of everything about the peer.
    pub(crate) fn peer(&self, i: usize) -> Peer {
        let identity = self.trusted[i].then_some(self.identity[i]);
        let Some(cold) = self.cold[i].as_deref() else {
            return Peer { identity, ..Peer::default() };
        };
        let mut receiving = Vec::new();
        if self.has_receiving[i] {
            receiving.push(Box::new(ReceivingChain {
                ratchet_key: self.receiving_ratchet[i],
                chain: ChainKey { key: self.receiving_key[i].duplicate(), index: self.receiving_index[i] },
                skipped: cold.rest.as_ref().map(|rest| rest.skipped.duplicate()).unwrap_or_default(),
            }));
        }
        let mut archived = Archive::new();
        if let Some(rest) = &cold.rest {
            receiving.extend(rest.older.iter().map(|chain| chain.duplicate()));
            archived.clone_from(&rest.archived);
        }
        let current = Box::new(Session {
            base_key: cold.base_key,
            their_identity: self.session_identity(i, cold),
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

    /// Puts everything about the peer in its columns; what was there before is zeroed.
    pub(crate) fn set_peer(&mut self, i: usize, peer: Peer) {
        self.trusted[i] = peer.identity.is_some();
        self.identity[i] = peer.identity.unwrap_or_default();
        self.presence[i] = Presence::NoSession;
        self.has_receiving[i] = false;
        self.sending_key[i] = Secret::default();
        self.receiving_key[i] = Secret::default();
        self.cold[i] = None;
        self.set_leased(i, 0);
        let Some(mut session) = peer.current else { return };
        self.presence[i] = Presence::Session;
        self.leased[i] = session.leased.max(session.sending.index);
        self.set_sending(i, take(&mut session.sending));
        self.previous_counter[i] = session.previous_counter;
        self.ratchet_public[i] = session.ratchet.public;
        let mut rest = Rest { archived: peer.archived, ..Rest::default() };
        let mut receiving = take(&mut session.receiving);
        if !receiving.is_empty() {
            let mut newest = receiving.remove(0);
            self.has_receiving[i] = true;
            self.receiving_ratchet[i] = newest.ratchet_key;
            self.set_receiving(i, take(&mut newest.chain));
            rest.skipped = take(&mut newest.skipped);
            receiving.shrink_to_fit();
            rest.older = receiving;
        }
        let plain = rest.older.is_empty() && rest.skipped.is_empty() && rest.archived.is_empty();
        let differs = Some(session.their_identity) != peer.identity;
        self.cold[i] = Some(Box::new(Cold {
            root: take(&mut session.root),
            ratchet_private: take(&mut session.ratchet.private),
            base_key: session.base_key,
            pending: session.pending,
            other_identity: differs.then(|| Box::new(session.their_identity)),
            rest: (!plain).then(|| Box::new(rest)),
        }));
    }

    /// Identity, whether there is a session, whether it is still unanswered, how many are archived.
    pub(crate) fn summary(&self, i: usize) -> (Option<[u8; 32]>, bool, bool, usize) {
        let cold = self.cold[i].as_deref();
        (
            self.trusted[i].then_some(self.identity[i]),
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

/// Every peer that the engine has met: pages of columns and the directory to them. A slot's number is its handle.
#[derive(Default)]
pub(crate) struct Columns {
    pages: RwLock<Vec<Mutex<Page>>>,
    directory: Mutex<Directory>,
    unloaded: AtomicUsize,
}

/// The pages, held still for as long as rows are gathered or scattered.
pub(crate) struct Pages<'a>(RwLockReadGuard<'a, Vec<Mutex<Page>>>);

impl Pages<'_> {
    /// The page of a slot, locked, and the slot's place in it.
    pub(crate) fn of(&self, slot: u32) -> (MutexGuard<'_, Page>, usize) {
        let slot = slot as usize;
        (self.0[slot / PAGE].lock().unwrap_or_else(PoisonError::into_inner), slot % PAGE)
    }
}

/// A tag is the output of a keyed hash: any part of it is a hash.
fn hash(tag: &[u8; 16]) -> u64 {
    u64::from_le_bytes(*tag.first_chunk().expect("8 of 16"))
}

impl Columns {
    /// Holds the pages for reading; rows are locked page by page.
    pub(crate) fn pages(&self) -> Pages<'_> {
        Pages(self.pages.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many slots there are.
    pub(crate) fn len(&self) -> usize {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner).len
    }

    /// Slots of peers, by account and tag; new ones are made. `durable`: their rows may be in the store.
    pub(crate) fn slots<'n>(
        &self,
        peers: impl Iterator<Item = (u32, [u8; 16], &'n str)>,
        durable: bool,
        slots: &mut Vec<u64>,
    ) {
        let mut directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        for (account, tag, name) in peers {
            slots.push(u64::from(self.slot(&mut directory, account, tag, name, durable)));
        }
    }

    fn slot(&self, directory: &mut Directory, account: u32, tag: [u8; 16], name: &str, durable: bool) -> u32 {
        let same = |&slot: &u32| {
            let pages = self.pages();
            let (page, i) = pages.of(slot);
            page.tag(i) == tag && page.account(i) == account
        };
        if let Some(&slot) = directory.slots.find(hash(&tag), same) {
            return slot;
        }
        let slot = u32::try_from(directory.len).expect("fewer than 2^32 peers fit any memory");
        if directory.len.is_multiple_of(PAGE) {
            self.pages.write().unwrap_or_else(PoisonError::into_inner).push(Mutex::new(Page::new()));
        }
        let name = directory.keep(name);
        {
            let pages = self.pages();
            let (mut page, i) = pages.of(slot);
            page.account[i] = account;
            page.tag[i] = tag;
            page.name[i] = name;
            page.presence[i] = if durable { Presence::Unloaded } else { Presence::NoSession };
        }
        if durable {
            self.unloaded.fetch_add(1, Ordering::Relaxed);
        }
        directory.len += 1;
        let pages = self.pages();
        directory.slots.insert_unique(hash(&tag), slot, |&slot| {
            let (page, i) = pages.of(slot);
            hash(&page.tag[i])
        });
        slot
    }

    /// Whether any slot still waits for the store.
    pub(crate) fn any_unloaded(&self) -> bool {
        self.unloaded.load(Ordering::Relaxed) != 0
    }

    /// Fills a slot with what the store has of it.
    pub(crate) fn fill(&self, slot: u32, peer: Peer) {
        let pages = self.pages();
        let (mut page, i) = pages.of(slot);
        if page.is_unloaded(i) {
            self.unloaded.fetch_sub(1, Ordering::Relaxed);
        }
        page.set_peer(i, peer);
    }

    /// Forgets what is known of a slot: the store is to be asked again.
    pub(crate) fn unload(&self, slot: u32) {
        let pages = self.pages();
        let (mut page, i) = pages.of(slot);
        if !page.is_unloaded(i) {
            self.unloaded.fetch_add(1, Ordering::Relaxed);
            page.set_peer(i, Peer::default());
            page.presence[i] = Presence::Unloaded;
        }
    }

    /// The name of a slot.
    pub(crate) fn name(&self, slot: u32) -> String {
        let name = {
            let pages = self.pages();
            let (page, i) = pages.of(slot);
            page.name[i]
        };
        let directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::from(name.start);
        let bytes = &directory.names[name.block as usize][start..start + usize::from(name.len)];
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Every slot of some accounts.
    pub(crate) fn slots_of(&self, accounts: impl Fn(u32) -> bool) -> Vec<u32> {
        let len = self.len() as u32;
        let pages = self.pages();
        (0..len)
            .filter(|&slot| {
                let (page, i) = pages.of(slot);
                accounts(page.account(i))
            })
            .collect()
    }

    /// How many sessions are in memory.
    pub(crate) fn sessions(&self) -> u64 {
        let pages = self.pages();
        let count = |page: &Mutex<Page>| {
            let page = page.lock().unwrap_or_else(PoisonError::into_inner);
            page.presence.iter().filter(|&&presence| presence == Presence::Session).count() as u64
        };
        pages.0.iter().map(count).sum()
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
mod tests {
    use super::*;

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
