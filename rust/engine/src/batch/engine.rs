//! The engine: what a gateway opens. Each call plans its rows, loads what is missing, computes in runs over the
//! cores, makes the new state durable, and only then puts it in the columns and gives the frames out.

use std::collections::BTreeSet;
use std::mem::{replace, take};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use interlane_lanes::{Backend, public};

use super::accounts::{Account, AccountId, AccountInfo, Import, RunAccounts, Upload, prekey_tag};
use super::buffer::{Acknowledged, BufferLimits};
use super::columns::Columns;
use super::decrypt::{self, Incoming, Opened, Stock};
use super::encrypt::{self, Sealed};
use super::group::Groups;
use super::lease::{ChainAt, Durability, Leases};
use super::plan::{Claims, Plan, rows_in};
use super::randomness::{Randomness, Source};
use super::records::{self, Dirty, PEER_KINDS, PeerRows};
use super::residents::Residents;
use super::rows::{Kind, Outcome, Packed, Piece, Rows};
use super::standing::{Roll, Standings};
use super::start::{self, Started};
use crate::bytes::Bytes;
use crate::error::{Error, Events, Status};
use crate::limits::{LOW_STOCK, MAX_NAME, MAX_ROWS};
use crate::ratchet::{Bundle, Peer};
use crate::secret::Secret;
use crate::store::memory::MemoryStore;
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{Changes, Key, Kind as RowKind, Shard, Store};
use crate::wire::{MessagePadding, PrekeyMessage, parse_public_key, public_key, strip_message_padding};

/// Rows below which a second core does not help a symmetric call.
const LEAST_SYMMETRIC_ROWS: usize = 128;

/// Rows below which a second core does not help a call with agreements or signatures.
const LEAST_AGREEING_ROWS: usize = 4;

/// Sessions that are loaded together where nobody waits for them: a call that is about one of them waits for all, some 10 ms.
const WARMED_AT_ONCE: usize = 8_192;

/// Sessions that are looked up in one query, where there are more: as many as are opened by one core while another one
/// reads.
const LOADED_AT_ONCE: usize = 1_024;

/// Where state is kept.
pub enum Location {
    /// Nowhere beyond the process: for tests.
    Memory,
    /// An SQLite file; the key wraps the accounts' data keys.
    Sqlite {
        /// The database.
        path: PathBuf,
        /// The operator's key.
        key: Secret<32>,
        /// A second place for the store's generation: an old copy of the first one is refused.
        generation: Option<PathBuf>,
    },
    /// A PostgreSQL database, which engines share.
    Postgres {
        /// `postgresql://USER@HOST:PORT,HOST2/DATABASE?engine=NAME`.
        url: String,
        /// The operator's key.
        key: Secret<32>,
    },
}

/// How an engine is opened.
pub struct Options {
    /// Where state is kept.
    pub location: Location,
    /// Workers of one call, the caller's thread included.
    pub threads: usize,
    /// What runs the crypto.
    pub backend: Backend,
    /// Answer UNTRUSTED_IDENTITY where a peer's identity changed, instead of an event.
    pub refuse_identity_changes: bool,
    /// Add and remove WhatsApp's message padding.
    pub padding: bool,
    /// When what is sent becomes durable.
    pub durability: Durability,
    /// Keep received plaintexts until they are acknowledged.
    pub receive_buffer: Option<BufferLimits>,
    /// Sessions in memory, at most, but for those that calls under way are about; `None`: all that were used.
    pub resident_sessions: Option<usize>,
    /// Tests: fixed randomness.
    pub seed: Option<[u8; 32]>,
}

impl Options {
    /// One thread; strict, without a receive buffer, padding or a limit; a peer may change its identity.
    pub fn new(location: Location, backend: Backend) -> Self {
        Self {
            location,
            threads: 1,
            backend,
            refuse_identity_changes: false,
            padding: false,
            durability: Durability::Strict,
            receive_buffer: None,
            resident_sessions: None,
            seed: None,
        }
    }
}

/// What is known of a peer.
#[derive(Debug)]
pub struct PeerInfo {
    /// The peer's address.
    pub address: String,
    /// The trusted identity key, 33 bytes.
    pub identity: Option<[u8; 33]>,
    /// Whether there is a session.
    pub session: bool,
    /// Whether the session we started is unanswered.
    pub pending: bool,
    /// How many older sessions are kept.
    pub archived: u32,
}

/// Numbers for operators.
#[derive(Debug)]
pub struct Stats {
    /// Accounts in the store.
    pub accounts: u64,
    /// Sessions in memory.
    pub sessions: u64,
    /// Sessions that were looked up in the store; what was evicted is looked up again.
    pub sessions_loaded: u64,
    /// Sessions that were evicted from memory.
    pub sessions_evicted: u64,
    /// Rows encrypted since the engine was opened.
    pub rows_encrypted: u64,
    /// Rows decrypted.
    pub rows_decrypted: u64,
    /// Rows that failed.
    pub rows_failed: u64,
    /// Rows in the receive buffers.
    pub rows_buffered: u64,
    /// What they are counted with.
    pub buffered_bytes: u64,
    /// Calls of sends that waited for the disk, where sends are leased.
    pub calls_waited: u64,
    /// Leases that were written ahead of need.
    pub leases_written: u64,
    /// Bytes of the store.
    pub store_bytes: u64,
    /// Workers of a call.
    pub threads: u64,
    /// What runs the crypto.
    pub backend: &'static str,
}

/// Sessions of many accounts, advanced by the batch. Methods take `&self`: calls from several threads run side by
/// side unless they touch the same session.
pub struct Engine {
    pub(super) backend: Backend,
    pub(super) columns: Arc<Columns>,
    pub(super) groups: Arc<Groups>,
    pub(super) store: Arc<Mutex<Box<dyn Store>>>,
    pub(super) leases: Leases,
    pub(super) residents: Residents,
    pub(super) source: Source,
    pub(super) claims: Claims,
    /// Whose the accounts are.
    pub(super) roll: Arc<Roll>,
    /// Held while an account is made, deleted or called back.
    pub(super) founding: Mutex<()>,
    /// The store may have other owners.
    pub(super) shared: bool,
    /// When the store was last asked for accounts of other owners.
    pub(super) looked: Mutex<Option<Instant>>,
    pool: Option<rayon::ThreadPool>,
    threads: usize,
    durable: bool,
    refuse_identity_changes: bool,
    padding: MessagePadding,
    buffer_limits: Option<BufferLimits>,
    /// How many rows the receive buffers have, all together.
    buffered: AtomicU64,
    /// Rows of receive buffers that change with the next commit.
    acknowledged: Mutex<Acknowledged>,
    closed: AtomicBool,
    process: AtomicU32,
    encrypted: AtomicU64,
    decrypted: AtomicU64,
    failed: AtomicU64,
}

impl Engine {
    /// Opens a store and the accounts in it.
    ///
    /// # Errors
    /// [`Error::Store`]: the store is locked, damaged, newer than this version, or the key is not its key.
    pub fn open(options: Options) -> Result<Self, Error> {
        Self::open_as(options, SqliteStore::open)
    }

    /// Opens the store as `open` does.
    pub(crate) fn open_as(
        mut options: Options,
        open: impl FnOnce(&Path, Secret<32>, Option<&Path>) -> Result<SqliteStore, Error>,
    ) -> Result<Self, Error> {
        // Before shards are taken.
        options.durability.check()?;
        Residents::check(options.resident_sessions, !matches!(options.location, Location::Memory))?;
        let store: Box<dyn Store> = match replace(&mut options.location, Location::Memory) {
            Location::Memory => Box::new(MemoryStore::default()),
            Location::Sqlite { path, key, generation } => Box::new(open(&path, key, generation.as_deref())?),
            Location::Postgres { url, key } => Box::new(PostgresStore::open(&url, key)?),
        };
        Self::over(store, options)
    }

    /// An engine over a store that is open, wherever the options say that it is.
    pub(crate) fn over(mut store: Box<dyn Store>, options: Options) -> Result<Self, Error> {
        store.runs_on(options.backend);
        let listed = store.accounts()?;
        let mut accounts = Standings::default();
        for account in Account::load(store.as_mut(), options.backend, &listed)? {
            accounts.put(account);
        }
        let buffered = accounts.iter().map(|account| account.buffer().len() as u64).sum();
        let threads = options.threads.max(1);
        // The caller is one of the workers.
        let pool = (threads > 1)
            .then(|| rayon::ThreadPoolBuilder::new().num_threads(threads - 1).build())
            .transpose()
            .map_err(|error| Error::Store(format!("no threads to be had: {error}; give fewer threads")))?;
        let source = match options.seed {
            None => Source::System,
            Some(mut seed) => Source::Fixed { seed: Secret::take(&mut seed), rows: AtomicU64::new(0) },
        };
        let (durable, shared) = (store.durable(), store.shared());
        let (columns, groups, store) = (Arc::default(), Arc::default(), Arc::new(Mutex::new(store)));
        let roll = Arc::new(Roll::new(accounts, shared));
        let leases = Leases::new(options.durability, durable, options.backend, &columns, &groups, &store, &roll)?;
        Ok(Self {
            backend: options.backend,
            columns,
            groups,
            durable,
            shared,
            roll,
            looked: Mutex::new(None),
            store,
            leases,
            residents: Residents::new(options.resident_sessions),
            source,
            claims: Claims::default(),
            founding: Mutex::new(()),
            pool,
            threads,
            refuse_identity_changes: options.refuse_identity_changes,
            padding: if options.padding { MessagePadding::On } else { MessagePadding::Off },
            buffer_limits: options.receive_buffer,
            buffered: AtomicU64::new(buffered),
            acknowledged: Mutex::default(),
            closed: AtomicBool::new(false),
            process: AtomicU32::new(std::process::id()),
            encrypted: AtomicU64::new(0),
            decrypted: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    /// Closes the store, after the calls that are under way. Every later call fails. Leases are given back: chains go
    /// on where they are.
    ///
    /// # Errors
    /// [`Error::Store`] if the store could not be left clean; what was committed stays.
    pub fn close(&self) -> Result<(), Error> {
        self.may_be_called()?;
        match self.commit_acknowledged() {
            // They are given once more; the engine is closed all the same.
            Ok(()) | Err(Error::Busy(_)) => {}
            Err(error) => return Err(error),
        }
        self.leases.stop();
        let (sessions, sender_keys) = self.leases.ahead();
        // Until the end: calls that wait for these find the engine closed.
        let sessions = self.claims.claim(&sessions, self.columns.len(), Vec::new());
        let sender_keys = self.groups.claim(&sender_keys);
        let mut store = self.store();
        self.closed.store(true, Ordering::SeqCst);
        let given_back = self.leases.give_back(sessions.sessions().chain(sender_keys.sender_keys()));
        if !given_back.is_empty() {
            // Where this fails, chains go on at the ends of their leases.
            let _ = store.commit(given_back);
        }
        store.close()
    }

    pub(super) fn may_be_called(&self) -> Result<(), Error> {
        if self.process.load(Ordering::Relaxed) != std::process::id() {
            return Err(Error::Forked);
        }
        if self.closed.load(Ordering::SeqCst) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Makes the engine that of a parent whose fork this is, or takes that back.
    #[cfg(test)]
    pub(crate) fn pretend_fork(&self, forked: bool) {
        self.process.store(std::process::id() ^ u32::from(forked), Ordering::Relaxed);
    }

    /// The store, for as long as one transaction takes.
    pub(super) fn store(&self) -> MutexGuard<'_, Box<dyn Store>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Whose the accounts are.
    pub(super) fn standings(&self) -> RwLockReadGuard<'_, Standings> {
        self.roll.standings()
    }

    pub(super) fn standings_mut(&self) -> RwLockWriteGuard<'_, Standings> {
        self.roll.standings_mut()
    }

    /// Rows of receive buffers that change with the next commit.
    pub(super) fn acknowledged(&self) -> MutexGuard<'_, Acknowledged> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn buffer_limits(&self) -> Option<BufferLimits> {
        self.buffer_limits
    }

    /// Whether any receive buffer has a row.
    pub(super) fn buffers_anything(&self) -> bool {
        self.buffered.load(Ordering::Relaxed) != 0
    }

    pub(super) fn note_buffered(&self, rows: u64) {
        self.buffered.fetch_add(rows, Ordering::Relaxed);
    }

    pub(super) fn unnote_buffered(&self, rows: u64) {
        self.buffered.fetch_sub(rows, Ordering::Relaxed);
    }

    /// Whether sessions are written to the store.
    pub(super) fn durable(&self) -> bool {
        self.durable
    }

    pub(super) fn refuses_identity_changes(&self) -> bool {
        self.refuse_identity_changes
    }

    /// Bytes of message padding; `spread` decides how many where messages are padded.
    pub(super) fn message_padding(&self, spread: Option<u8>) -> usize {
        // The frame is as long as it says.
        self.padding.count(public(spread.unwrap_or(0) & 0x0f))
    }

    /// The length of a plaintext without its message padding; `None` where the padding is none.
    pub(super) fn strip_message_padding(&self, plaintext: &[u8]) -> Option<usize> {
        match self.padding {
            MessagePadding::Off => Some(plaintext.len()),
            MessagePadding::On => strip_message_padding(plaintext),
        }
    }

    /// Whether messages are padded.
    pub(super) fn pads_messages(&self) -> bool {
        self.padding == MessagePadding::On
    }

    /// Randomness for the padding of `rows` rows, where messages are padded.
    pub(super) fn padding_randomness(&self, rows: usize) -> Result<Option<Randomness>, Error> {
        self.pads_messages().then(|| self.source.call(self.backend, rows)).transpose()
    }

    pub(super) fn accounts_of_run<'a>(&'a self, plan: &'a Plan<'_>) -> RunAccounts<'a> {
        RunAccounts::new(&self.roll, &plan.away)
    }

    /// What runs the crypto.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    // Accounts.

    /// Makes an account with a fresh identity.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the name is taken, empty or too long; [`Error::Store`].
    pub fn create_account(&self, name: &str) -> Result<AccountId, Error> {
        self.found(name, |store| Account::create(store, self.backend, name, &self.source.call(self.backend, 1)?))
    }

    /// Makes an account of an identity that exists elsewhere.
    ///
    /// # Errors
    /// As [`Self::create_account`]; also if a prekey id or signature is wrong.
    pub fn import_account(&self, name: &str, import: Import) -> Result<AccountId, Error> {
        self.found(name, |store| Account::import(store, self.backend, name, import))
    }

    fn found(
        &self,
        name: &str,
        make: impl FnOnce(&mut dyn Store) -> Result<Account, Error>,
    ) -> Result<AccountId, Error> {
        self.may_be_called()?;
        check_name(name, "account")?;
        // Where it may be in the store and not in memory, looking for it takes accounts in.
        let known = self.account(name)?.is_some();
        let _founding = self.founding.lock().unwrap_or_else(PoisonError::into_inner);
        if known || self.standings().iter().any(|account| account.name == name) {
            return Err(Error::Malformed(format!("there is an account {name} already; open it without create")));
        }
        let mut store = self.store();
        let account = make(store.as_mut()).map(Arc::new);
        if let Ok(account) = &account {
            self.standings_mut().put(Arc::clone(account));
        }
        self.note_lost(store.as_mut());
        account.map(|account| AccountId(account.id))
    }

    /// The account of this name.
    ///
    /// # Errors
    /// [`Error::Store`] if another engine has it; [`Error::Busy`]; [`Error::Closed`], [`Error::Forked`].
    pub fn account(&self, name: &str) -> Result<Option<AccountId>, Error> {
        self.may_be_called()?;
        let found = self.standings().iter().find(|account| account.name == name).map(|account| AccountId(account.id));
        match found {
            None if self.shared => self.look_for(name),
            found => Ok(found),
        }
    }

    /// The names of all accounts, in the order in which they were made.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    pub fn accounts(&self) -> Result<Vec<String>, Error> {
        self.may_be_called()?;
        Ok(self.standings().iter().map(|account| account.name.clone()).collect())
    }

    /// Deletes an account: its keys, sessions and sender keys. Its handles become unknown.
    ///
    /// # Errors
    /// [`Error::Malformed`] if there is none; [`Error::Store`].
    pub fn delete_account(&self, id: AccountId) -> Result<(), Error> {
        self.may_be_called()?;
        let _founding = self.founding.lock().unwrap_or_else(PoisonError::into_inner);
        let account = self.here_held(id)?;
        // Commits give up what is acknowledged of an account that they do not find.
        let acknowledged = self.acknowledged().take_of(id.0);
        // From here on no call finds it; those that have are waited for.
        self.standings_mut().remove(id.0);
        let slots = self.columns.slots_of(|account| account == id.0);
        let handles: Vec<u64> = slots.iter().map(|&slot| u64::from(slot)).collect();
        let claimed = self.claims.claim(&handles, self.columns.len(), Vec::new());
        let groups = self.groups.claim_accounts(|account| account == id.0);
        let chains: Vec<ChainAt> =
            slots.iter().map(|&slot| ChainAt::Session(slot)).chain(groups.sender_keys()).collect();
        let deleted = {
            let mut store = self.store();
            self.leases.begin(&chains);
            let deleted = store.delete_account(id.0);
            // It can be gone and yet something be wrong, such as traces that could not be wiped.
            if deleted.is_err() && store.accounts().is_ok_and(|left| left.iter().any(|(left, _)| *left == id.0)) {
                self.standings_mut().put(account);
                self.acknowledged().extend(acknowledged);
                self.leases.undo(&chains);
                self.note_lost(store.as_mut());
                return deleted;
            }
            self.note_lost(store.as_mut());
            deleted
        };
        for slot in slots {
            self.columns.put(slot, Peer::default());
        }
        self.groups.clear(&groups, false);
        self.unnote_buffered(account.buffer().len() as u64);
        drop(claimed);
        deleted
    }

    /// What is public of an account.
    ///
    /// # Errors
    /// [`Error::Malformed`] if there is none.
    pub fn account_info(&self, id: AccountId) -> Result<AccountInfo, Error> {
        self.may_be_called()?;
        Ok(self.find(id)?.info())
    }

    pub(super) fn all_accounts(&self) -> Vec<Arc<Account>> {
        self.standings().iter().cloned().collect()
    }

    pub(super) fn find(&self, id: AccountId) -> Result<Arc<Account>, Error> {
        self.standings()
            .known(id.0)
            .cloned()
            .ok_or_else(|| Error::Malformed("this account was deleted; open or make another".into()))
    }

    /// Makes `one_time` one-time prekeys, and a signed prekey where there is none yet or `rotate` says so. They are
    /// durable when this returns.
    ///
    /// # Errors
    /// [`Error::Malformed`] for too many; [`Error::Store`].
    pub fn prekeys(&self, id: AccountId, one_time: u32, rotate: bool) -> Result<Upload, Error> {
        self.may_be_called()?;
        let account = self.here(id)?;
        let commit = |changes| self.commit_account(&account, changes);
        account.prekeys(commit, self.backend, one_time, rotate, |rows| self.source.call(self.backend, rows))
    }

    // Peers.

    /// Handles of peers, made where they are new. `accounts` has one account for all, or one for each peer.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the lengths differ, an account is gone or a name is empty or too long.
    pub fn sessions(&self, accounts: &[AccountId], peers: &[&str]) -> Result<Vec<u64>, Error> {
        self.may_be_called()?;
        for peer in peers {
            check_name(peer, "peer")?;
        }
        let names: Vec<&[u8]> = peers.iter().map(|peer| peer.as_bytes()).collect();
        let tagged = self.tags(accounts, RowKind::Peer, &names)?;
        let mut slots = Vec::with_capacity(peers.len());
        let peers = tagged.into_iter().zip(peers).map(|((account, tag), peer)| (account, tag, *peer));
        self.columns.slots(peers, self.durable, &mut slots);
        Ok(slots)
    }

    /// Accounts and tags of names; runs of one account are hashed together.
    pub(super) fn tags(
        &self,
        accounts: &[AccountId],
        kind: RowKind,
        names: &[&[u8]],
    ) -> Result<Vec<(u32, [u8; 16])>, Error> {
        if accounts.len() != 1 && accounts.len() != names.len() {
            return Err(Error::Malformed(format!(
                "{} accounts for {} names; give one account, or one for each name",
                accounts.len(),
                names.len()
            )));
        }
        let mut tagged = Vec::with_capacity(names.len());
        let mut start = 0;
        while start < names.len() {
            let id = accounts[if accounts.len() == 1 { 0 } else { start }];
            let same = |at: &usize| accounts.len() == 1 || accounts[*at] == id;
            let end = (start..names.len()).take_while(same).last().map_or(start, |last| last + 1);
            let tags = self.find(id)?.tags(self.backend, kind, &names[start..end]);
            tagged.extend(tags.into_iter().map(|tag| (id.0, tag)));
            start = end;
        }
        Ok(tagged)
    }

    /// Every peer of an account.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the account is gone; [`Error::Store`].
    pub fn peers(&self, id: AccountId) -> Result<Vec<PeerInfo>, Error> {
        self.may_be_called()?;
        self.here(id)?;
        let mut addresses = Vec::new();
        {
            let mut store = self.store();
            let scanned = store.scan(id.0, RowKind::Peer, &mut |_, body| {
                addresses.push(records::address(body)?);
                Ok(())
            });
            self.note_lost(store.as_mut());
            scanned?;
        }
        let names: Vec<&str> = addresses.iter().map(String::as_str).collect();
        self.sessions(&[id], &names)?;
        let slots = self.columns.slots_of(|account| account == id.0);
        let mut infos = Vec::with_capacity(slots.len());
        for slots in slots.chunks(self.residents.at_once()) {
            infos.extend(self.infos(slots)?);
            self.shrink();
        }
        Ok(infos)
    }

    /// What is known of those of some peers whose identity is.
    fn infos(&self, slots: &[u32]) -> Result<Vec<PeerInfo>, Error> {
        let handles: Vec<u64> = slots.iter().map(|&slot| u64::from(slot)).collect();
        let plan = self.plan(&handles, Vec::new())?;
        let infos = plan.entries.iter().map(|entry| {
            let (identity, session, pending, archived) = {
                let pages = self.columns.pages();
                pages.walk().to(entry.slot).summary()
            };
            PeerInfo {
                address: self.columns.name(entry.slot),
                identity: identity.map(|key| public_key(&key)),
                session,
                pending,
                archived: archived as u32,
            }
        });
        Ok(infos.filter(|info| info.identity.is_some()).collect())
    }

    /// Trusts these identities (33 bytes) from now on: the operator's decision. Sessions stay as they are.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the lengths differ or an identity is not a key; [`Error::Store`].
    pub fn trust(&self, handles: &[u64], identities: &[Vec<u8>]) -> Result<Rows, Error> {
        check_lengths("identities", handles.len(), identities.len())?;
        let keys: Option<Vec<[u8; 32]>> = identities.iter().map(|identity| parse_public_key(identity)).collect();
        let keys = keys.ok_or_else(|| Error::Malformed("identities are 33 bytes that begin with 5".into()))?;
        let ended = self.change(handles, |row, peer| {
            peer.identity = Some(keys[row]);
            Dirty { identity: true, ..Dirty::default() }
        });
        self.or_busy(handles.len(), ended)
    }

    /// Drops the sessions with these peers, current and archived; their trusted identities stay. Nothing remembers their
    /// frames then: a first one that named no one-time prekey opens again if it is delivered again.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn forget(&self, handles: &[u64]) -> Result<Rows, Error> {
        let ended = self.change(handles, |_, peer| {
            peer.current = None;
            peer.archived.clear();
            Dirty { identity: true, current: true, archived: true }
        });
        self.or_busy(handles.len(), ended)
    }

    /// Changes peers without cryptography.
    fn change(&self, handles: &[u64], change: impl Fn(usize, &mut Peer) -> Dirty) -> Result<Rows, Error> {
        let plan = self.plan(handles, Vec::new())?;
        let mut outcomes = unknown(&plan);
        let mut accounts = self.accounts_of_run(&plan);
        let (mut changed, mut changes) = (Vec::with_capacity(plan.entries.len()), Changes::default());
        for entry in &plan.entries {
            let (key, mut peer) = {
                let pages = self.columns.pages();
                let mut walk = pages.walk();
                let at = walk.to(entry.slot);
                (at.key(RowKind::Peer), at.peer())
            };
            if let Err(status) = accounts.find(key.account) {
                outcomes.extend(plan.rows_of(entry).map(|row| Outcome::failed(row, status)));
                continue;
            }
            for row in plan.rows_of(entry) {
                let dirty = change(row as usize, &mut peer);
                self.put_peers(&mut changes, [(entry.slot, key, dirty, &mut peer)].into_iter());
                outcomes.push(Outcome::done(row, Events::default()));
            }
            changed.push((entry.slot, peer));
        }
        let committed = self.commit(changes, &sessions(&changed))?;
        self.put_back(changed);
        let mut results = [(outcomes, Bytes::default())];
        self.vouch(committed, &plan, |slot| self.account_of(slot), &mut results);
        Ok(Rows::assemble(handles.len(), &mut results))
    }

    // Calls.

    /// Loads what is not in memory of these sessions, in the order of the store, so that the first call that needs them
    /// need not: some thousand at a time, other calls in between.
    ///
    /// # Errors
    /// [`Error::Malformed`] for too many; [`Error::Store`]; [`Error::Busy`]. What was loaded before that stays.
    pub fn warm(&self, handles: &[u64]) -> Result<(), Error> {
        self.may_be_called()?;
        check_rows(handles.len())?;
        let len = self.columns.len() as u64;
        let mut unloaded = Vec::new();
        if self.columns.any_unloaded() {
            let pages = self.columns.pages();
            for &handle in handles.iter().filter(|&&handle| handle < len) {
                let slot = handle as u32;
                if pages.is_unloaded(slot) {
                    unloaded.push((pages.account(slot), pages.tag(slot), handle));
                }
            }
        }
        unloaded.sort_unstable();
        for some in unloaded.chunks(WARMED_AT_ONCE) {
            let handles: Vec<u64> = some.iter().map(|&(_, _, handle)| handle).collect();
            self.plan(&handles, Vec::new())?;
        }
        Ok(())
    }

    /// Plans a call and loads, in one query, what is not in memory.
    fn plan(&self, handles: &[u64], prekeys: Vec<(u32, u32)>) -> Result<Plan<'_>, Error> {
        Ok(self.plan_with_stock(handles, prekeys)?.0)
    }

    fn plan_with_stock(&self, handles: &[u64], prekeys: Vec<(u32, u32)>) -> Result<(Plan<'_>, Stock), Error> {
        self.may_be_called()?;
        check_rows(handles.len())?;
        self.confirm_holds()?;
        if self.any_away() {
            self.call_back(&self.accounts_of(handles))?;
        }
        let mut plan = self.claims.claim(handles, self.columns.len(), prekeys.clone());
        self.columns.begin_call();
        let (mut named, mut unloaded, mut away) = (Vec::new(), Vec::new(), Vec::new());
        if self.columns.any_unloaded() || !prekeys.is_empty() {
            let mut accounts = self.accounts_of_run(&plan);
            for (account, id) in prekeys {
                match accounts.find(account) {
                    Err(status) => away.push((account, status)),
                    Ok(_) => named.push((account, id)),
                }
            }
            let pages = self.columns.pages();
            for entry in plan.entries.iter().filter(|entry| pages.is_unloaded(entry.slot)) {
                let account = pages.account(entry.slot);
                match accounts.find(account) {
                    Err(status) => away.push((account, status)),
                    Ok(_) => unloaded.push((account, pages.tag(entry.slot), entry.slot)),
                }
            }
        }
        plan.note_away(away);
        if !unloaded.is_empty() {
            self.make_room(unloaded.len())?;
        }
        Ok((plan, self.load_peers(unloaded, &named)?))
    }

    /// Loads claimed sessions (account, tag, slot), and one-time prekeys (account, id): in one query, or, where there are
    /// many sessions, in parts over the cores, of which one reads while others open what they have read.
    fn load_peers(&self, mut unloaded: Vec<(u32, [u8; 16], u32)>, prekeys: &[(u32, u32)]) -> Result<Stock, Error> {
        // Asking a server takes longer than a part.
        let most = if self.shared { usize::MAX } else { LOADED_AT_ONCE };
        if unloaded.len() > most {
            // Each part from its own stretch of the store.
            unloaded.sort_unstable();
        }
        let mut parts: Vec<(&[_], &[_])> = unloaded.chunks(most).map(|some| (some, &[][..])).collect();
        match parts.first_mut() {
            Some((_, with_first)) => *with_first = prekeys,
            None if !prekeys.is_empty() => parts.push((&[], prekeys)),
            None => {}
        }
        let each: Vec<Range<usize>> = (0..parts.len()).map(|part| part..part + 1).collect();
        let loaded = self.over_the_cores(&each, |part| {
            let (peers, prekeys) = parts[part.start];
            self.load_part(peers, prekeys)
        });
        let mut stock = Stock::new();
        for part in loaded {
            stock.extend(part?);
        }
        Ok(stock)
    }

    fn load_part(&self, unloaded: &[(u32, [u8; 16], u32)], prekeys: &[(u32, u32)]) -> Result<Stock, Error> {
        let mut keys = Vec::with_capacity(prekeys.len() + unloaded.len() * PEER_KINDS.len());
        keys.extend(prekeys.iter().map(|&(account, id)| {
            let tag = prekey_tag(id);
            Key { account, kind: RowKind::OneTimePrekey, tag }
        }));
        for &(account, tag, _) in unloaded {
            keys.extend(PEER_KINDS.map(|kind| Key { account, kind, tag }));
        }
        let mut stock = Stock::new();
        let mut peers: Vec<PeerRows> = unloaded.iter().map(|_| PeerRows::default()).collect();
        self.load(&keys, &mut |at, body| {
            match at.checked_sub(prekeys.len()) {
                None => {
                    stock.insert(prekeys[at], Box::new(records::get(body)?));
                }
                Some(at) => peers[at / PEER_KINDS.len()].add(PEER_KINDS[at % PEER_KINDS.len()], body)?,
            }
            Ok(())
        })?;
        let found = unloaded.iter().zip(&mut peers);
        self.columns.put_loaded(found.map(|(&(_, _, slot), rows)| Ok((slot, rows.finish()?))))?;
        Ok(stock)
    }

    fn account_of(&self, slot: u32) -> u32 {
        self.columns.pages().account(slot)
    }

    /// The accounts of sessions.
    fn accounts_of(&self, handles: &[u64]) -> BTreeSet<u32> {
        let len = self.columns.len() as u64;
        handles.iter().filter(|&&handle| handle < len).map(|&handle| self.account_of(handle as u32)).collect()
    }

    /// Runs parts of a call over the cores, the caller's among them; a call of one part stays there.
    pub(super) fn over_the_cores<T: Send>(
        &self,
        parts: &[Range<usize>],
        run: impl Fn(Range<usize>) -> T + Sync,
    ) -> Vec<T> {
        let Some(pool) = self.pool.as_ref().filter(|_| parts.len() > 1) else {
            return parts.iter().map(|part| run(part.clone())).collect();
        };
        let next = AtomicUsize::new(0);
        // Whoever is free takes the next part, so that one that began late does fewer.
        let work = || {
            let mut done = Vec::with_capacity(parts.len());
            while let Some((at, part)) = parts.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed)) {
                done.push((at, run(part.clone())));
            }
            done
        };
        let mut others: Vec<Vec<(usize, T)>> = Vec::new();
        others.resize_with(pool.current_num_threads().min(parts.len() - 1), Vec::new);
        let mut done = pool.in_place_scope(|scope| {
            let work = &work;
            for other in &mut others {
                scope.spawn(move |_| *other = work());
            }
            work()
        });
        done.extend(others.into_iter().flatten());
        done.sort_unstable_by_key(|&(at, _)| at);
        done.into_iter().map(|(_, result)| result).collect()
    }

    /// The same for parts that add to something: where one thread does all of them, to the same. `begin` gives what parts that
    /// make up this range are added to.
    fn added_over_the_cores<T: Send>(
        &self,
        parts: &[Range<usize>],
        begin: impl Fn(Range<usize>) -> T + Sync,
        add: impl Fn(Range<usize>, &mut T) + Sync,
    ) -> Vec<T> {
        let whole = |parts: &[Range<usize>]| {
            let all = parts[0].start..parts[parts.len() - 1].end;
            let mut to = begin(all);
            parts.iter().for_each(|part| add(part.clone(), &mut to));
            to
        };
        match &self.pool {
            Some(_) => self.over_the_cores(parts, |part| whole(std::slice::from_ref(&part))),
            None if parts.is_empty() => Vec::new(),
            None => vec![whole(parts)],
        }
    }

    /// Puts a call's rows in order, and its state back; over the cores where there are many rows. They have just done the call's
    /// runs: state is put back while rows are laid out, for a core that has nothing to do falls asleep, and waking takes longer.
    fn assemble(&self, n: usize, results: &mut [(Vec<Outcome>, Bytes)], put_back: impl FnOnce() + Send) -> Rows {
        let Some(pool) = self.pool.as_ref().filter(|_| n >= LEAST_SYMMETRIC_ROWS) else {
            put_back();
            return Rows::assemble(n, results);
        };
        let mut rows = Rows::default();
        let left = Mutex::new(Vec::new());
        let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let fill = || std::iter::from_fn(next).for_each(Piece::fill);
        pool.in_place_scope(|scope| {
            let fill = &fill;
            scope.spawn(move |_| {
                put_back();
                fill();
            });
            rows = Rows::laid_out(n, results);
            *left.lock().unwrap_or_else(PoisonError::into_inner) = rows.pieces(results);
            for _ in 1..pool.current_num_threads() {
                scope.spawn(move |_| fill());
            }
            fill();
        });
        drop(left);
        rows
    }

    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// Starts a session with each peer from its bundle. The first messages can be encrypted when this returns.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the lengths differ; [`Error::Store`]. Rows: INVALID_BUNDLE, UNTRUSTED_IDENTITY.
    pub fn start_sessions(&self, handles: &[u64], bundles: &[Bundle]) -> Result<Rows, Error> {
        self.or_busy(handles.len(), self.start_sessions_rows(handles, bundles))
    }

    fn start_sessions_rows(&self, handles: &[u64], bundles: &[Bundle]) -> Result<Rows, Error> {
        check_lengths("bundles", handles.len(), bundles.len())?;
        let plan = self.plan(handles, Vec::new())?;
        let randomness = self.source.call(self.backend, handles.len())?;
        let runs = self.over_the_cores(&plan.runs(self.threads, LEAST_AGREEING_ROWS), |part| {
            start::start(self, &plan, &plan.entries[part], bundles, &randomness)
        });
        let (mut outcomes, mut changes, mut changed) =
            (vec![(unknown(&plan), Bytes::default())], Changes::default(), Vec::new());
        for run in runs {
            let Started { outcomes: ended, changed: peers, changes: rows } = run;
            outcomes.push((ended, Bytes::default()));
            changes.append(rows);
            changed.extend(peers);
        }
        let committed = self.commit(changes, &sessions(&changed))?;
        self.put_back(changed);
        self.vouch(committed, &plan, |slot| self.account_of(slot), &mut outcomes);
        let rows = Rows::assemble(handles.len(), &mut outcomes);
        self.count(&rows, None);
        Ok(rows)
    }

    /// Encrypts row `i` for `handles[i]`. Several rows for one session are taken in order.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the lengths differ; [`Error::Store`]: then nothing has left. Rows: NO_SESSION,
    /// TOO_LONG, UNKNOWN_HANDLE, EXHAUSTED.
    pub fn encrypt(&self, handles: &[u64], plaintexts: Packed<'_>) -> Result<Rows, Error> {
        self.or_busy(handles.len(), self.encrypt_rows(handles, plaintexts))
    }

    fn encrypt_rows(&self, handles: &[u64], plaintexts: Packed<'_>) -> Result<Rows, Error> {
        check_lengths("data", handles.len(), plaintexts.len())?;
        let plan = self.plan(handles, Vec::new())?;
        let randomness = self.padding_randomness(handles.len())?;
        let begin = |part: Range<usize>| {
            let rows = rows_in(&plan.entries[part]);
            Sealed::with_room(rows, plaintexts.bytes() * rows / handles.len())
        };
        let runs = self.added_over_the_cores(&plan.runs(self.threads, LEAST_SYMMETRIC_ROWS), begin, |part, sealed| {
            encrypt::seal(self, &plan, &plan.entries[part], plaintexts, randomness.as_ref(), sealed);
        });
        let (mut results, mut changes, mut advanced) = (Vec::with_capacity(runs.len()), Changes::default(), Vec::new());
        let (mut written, mut low) = (Vec::new(), Vec::new());
        for run in runs {
            results.push((run.outcomes, run.frames.written().shared()));
            changes.append(run.changes);
            advanced.push(run.advanced);
            written.extend(run.written);
            low.extend(run.low);
        }
        let chains: Vec<ChainAt> = written.iter().map(|&(slot, _)| ChainAt::Session(slot)).collect();
        let committed = self.commit(changes, &chains)?;
        self.vouch(committed, &plan, |slot| self.account_of(slot), &mut results);
        results.push((unknown(&plan), Bytes::default()));
        let leases_written = !written.is_empty();
        let put_back = move || {
            let pages = self.columns.pages();
            let mut walk = pages.walk();
            for (slot, chain) in advanced.iter_mut().flatten() {
                walk.to(*slot).set_sending(take(chain));
            }
            for (slot, leased) in written {
                walk.to(slot).set_leased(leased);
            }
        };
        let rows = self.assemble(handles.len(), &mut results, put_back);
        self.note_leases(leases_written, low.into_iter().map(|(slot, until)| (ChainAt::Session(slot), until)));
        self.count(&rows, Some(&self.encrypted));
        Ok(rows)
    }

    /// Decrypts row `i`, a frame of `kinds[i]` ([`Kind::Message`] or [`Kind::PrekeyMessage`]) from `handles[i]`.
    /// Several rows of one session are taken in order. A row that does not verify changes nothing.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the lengths differ or a kind is another one; [`Error::Store`]: then nothing has
    /// changed. Rows: NO_SESSION, DUPLICATE, TOO_FAR_AHEAD, INVALID, UNTRUSTED_IDENTITY, NO_PREKEY, UNKNOWN_HANDLE,
    /// REDELIVERED, BUFFER_FULL.
    pub fn decrypt(&self, handles: &[u64], kinds: &[u8], frames: Packed<'_>) -> Result<Rows, Error> {
        self.or_busy(handles.len(), self.decrypt_rows(handles, kinds, frames))
    }

    fn decrypt_rows(&self, handles: &[u64], kinds: &[u8], frames: Packed<'_>) -> Result<Rows, Error> {
        self.may_be_called()?;
        check_lengths("data", handles.len(), frames.len())?;
        check_lengths("kinds", handles.len(), kinds.len())?;
        let pairwise = |kind: u8| kind == Kind::Message as u8 || kind == Kind::PrekeyMessage as u8;
        if let Some(row) = kinds.iter().position(|&kind| !pairwise(kind)) {
            return Err(Error::Malformed(format!("kinds[{row}] is {}; pairwise frames are msg or pkmsg", kinds[row])));
        }
        let named = self.prekeys_named(handles, kinds, frames);
        let disputed = named.windows(2).any(|pair| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1);
        let mut prekeys: Vec<(u32, u32)> = named.into_iter().map(|(prekey, _)| prekey).collect();
        prekeys.dedup();
        let (plan, stock) = self.plan_with_stock(handles, prekeys)?;
        let owner = |slot| {
            let pages = self.columns.pages();
            (pages.account(slot), pages.tag(slot))
        };
        let arrivals = self.arrivals(&plan, frames, owner, |row| kinds[row])?;
        let randomness = self.source.call(self.backend, handles.len())?;
        let incoming =
            Incoming { kinds, frames, stock: &stock, disputed, randomness: &randomness, arrivals: &arrivals };
        let least = if disputed { usize::MAX } else { LEAST_SYMMETRIC_ROWS };
        let begin = |part: Range<usize>| {
            let rows = rows_in(&plan.entries[part]);
            Opened::with_room(rows, frames.bytes() * rows / handles.len())
        };
        let runs = self.added_over_the_cores(&plan.runs(self.threads, least), begin, |part, opened| {
            decrypt::open(self, &plan, &plan.entries[part], incoming, opened);
        });
        let (mut results, mut changes) = (Vec::with_capacity(runs.len()), Changes::default());
        let (mut advanced, mut changed, mut consumed) = (Vec::new(), Vec::new(), Vec::new());
        let mut lots = Vec::new();
        for run in runs {
            results.push((run.outcomes, run.plaintexts.written()));
            changes.append(run.changes);
            advanced.push(run.advanced);
            changed.extend(run.changed);
            consumed.extend(run.consumed);
            lots.extend(run.lots);
        }
        let committed = self.commit(changes, &sessions(&changed))?;
        self.vouch(committed, &plan, |slot| self.account_of(slot), &mut results);
        results.push((unknown(&plan), Bytes::default()));
        let put_back = move || {
            let pages = self.columns.pages();
            let mut walk = pages.walk();
            for (slot, chain) in advanced.iter_mut().flatten() {
                walk.to(*slot).set_receiving(take(chain));
            }
            drop(walk);
            drop(pages);
            self.put_back(changed);
        };
        let mut rows = self.assemble(handles.len(), &mut results, put_back);
        consumed.sort_unstable_by_key(|&(_, _, row)| row);
        for (account, _, row) in consumed {
            let Ok(account) = self.find(AccountId(account)) else { continue };
            if account.stock.fetch_sub(1, Ordering::Relaxed) <= LOW_STOCK {
                rows.events[row as usize] |= Events::STOCK_LOW.0;
            }
        }
        self.note_arrivals(&arrivals, &lots, &mut rows);
        self.count(&rows, Some(&self.decrypted));
        Ok(rows)
    }

    /// The one-time prekeys (account, id) that first frames name, sorted, with the frames' handles.
    fn prekeys_named(&self, handles: &[u64], kinds: &[u8], frames: Packed<'_>) -> Vec<((u32, u32), u64)> {
        let mut named = Vec::new();
        let len = self.columns.len() as u64;
        let pages = self.columns.pages();
        for (row, (&handle, &kind)) in handles.iter().zip(kinds).enumerate() {
            if kind == Kind::PrekeyMessage as u8
                && handle < len
                && let Some(id) = PrekeyMessage::parse(frames.row(row)).and_then(|first| first.one_time_id)
            {
                named.push(((pages.account(handle as u32), id), handle));
            }
        }
        named.sort_unstable();
        named
    }

    fn put_back(&self, changed: Vec<(u32, Peer)>) {
        for (slot, peer) in changed {
            self.columns.put(slot, peer);
        }
    }

    /// Counts a call's rows.
    pub(super) fn count(&self, rows: &Rows, well: Option<&AtomicU64>) {
        let count = |wanted: Status| rows.status.iter().filter(|&&status| status == wanted as u8).count() as u64;
        let (ok, redelivered) = (count(Status::Ok), count(Status::Redelivered));
        if let Some(well) = well {
            well.fetch_add(ok, Ordering::Relaxed);
        }
        self.failed.fetch_add(rows.status.len() as u64 - ok - redelivered, Ordering::Relaxed);
    }

    pub(super) fn encrypted(&self) -> &AtomicU64 {
        &self.encrypted
    }

    pub(super) fn decrypted(&self) -> &AtomicU64 {
        &self.decrypted
    }

    /// The shards of a shared store, and who has them.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a store with one owner; [`Error::Busy`], [`Error::Store`].
    pub fn shards(&self) -> Result<Vec<Shard>, Error> {
        self.may_be_called()?;
        let mut store = self.store();
        let shards = store.shards();
        self.note_lost(store.as_mut());
        shards
    }

    /// Assigns shards of a shared store to the engine of a name, or to whichever engine comes (`""`). The engine that
    /// serves one is asked for it, and gives it up at its next call; `force` takes it away at once, and what that engine
    /// is about to commit is refused.
    ///
    /// # Errors
    /// As [`Self::shards`]; [`Error::Malformed`] for a shard or a name that is none.
    pub fn move_shards(&self, shards: &[u32], to: &str, force: bool) -> Result<(), Error> {
        self.may_be_called()?;
        let mut store = self.store();
        let moved = store.move_shards(shards, to, force);
        self.note_lost(store.as_mut());
        moved
    }

    /// Numbers for operators.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Store`].
    pub fn stats(&self) -> Result<Stats, Error> {
        self.may_be_called()?;
        let buffered_bytes = {
            let accounts = self.standings();
            accounts.iter().map(|account| account.buffer().bytes()).sum()
        };
        let (calls_waited, leases_written) = self.leases.counts();
        let (sessions_loaded, sessions_evicted) = self.residents.counts();
        Ok(Stats {
            accounts: self.accounts()?.len() as u64,
            sessions: self.columns.sessions(),
            sessions_loaded,
            sessions_evicted,
            rows_encrypted: self.encrypted.load(Ordering::Relaxed),
            rows_decrypted: self.decrypted.load(Ordering::Relaxed),
            rows_failed: self.failed.load(Ordering::Relaxed),
            rows_buffered: self.buffered.load(Ordering::Relaxed),
            buffered_bytes,
            calls_waited,
            leases_written,
            store_bytes: self.store().size_bytes()?,
            threads: self.threads as u64,
            backend: self.backend.name(),
        })
    }
}

/// The chains of changed peers.
fn sessions(changed: &[(u32, Peer)]) -> Vec<ChainAt> {
    changed.iter().map(|&(slot, _)| ChainAt::Session(slot)).collect()
}

/// Rows whose handle is not one.
pub(super) fn unknown(plan: &Plan<'_>) -> Vec<Outcome> {
    plan.unknown.iter().map(|&row| Outcome::failed(row, Status::UnknownHandle)).collect()
}

/// That an argument has as many rows as there are handles.
pub(super) fn check_lengths(name: &str, handles: usize, other: usize) -> Result<(), Error> {
    if handles == other {
        return Ok(());
    }
    Err(Error::Malformed(format!("{handles} handles, but {name} has {other} rows; give one for each handle")))
}

/// That a call is not too large.
fn check_rows(rows: usize) -> Result<(), Error> {
    if rows <= MAX_ROWS {
        return Ok(());
    }
    Err(Error::Malformed(format!("{rows} rows; split the call, {MAX_ROWS} is the most")))
}

/// That a name is one.
pub(super) fn check_name(name: &str, what: &str) -> Result<(), Error> {
    match name.len() {
        0 => Err(Error::Malformed(format!("a {what} name is empty"))),
        len if len > MAX_NAME => {
            Err(Error::Malformed(format!("a {what} name has {len} bytes; {MAX_NAME} is the most")))
        }
        _ => Ok(()),
    }
}
