//! Whose an account is. A store on one machine has one owner, and all of its accounts are here. A shared store deals
//! them out by shards: an account can go to another engine between two rows, and come back with another state.
//!
//! An account that went *away* keeps its handles, whose rows end with a status. It is *called back* when a call asks
//! for it and the store says that it is here again: all of its sessions are claimed, so that no call that began before
//! is left, and forgotten, so that the next one reads them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem::take;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use super::accounts::{Account, AccountId};
use super::engine::Engine;
use super::lease::ChainAt;
use super::plan::Plan;
use super::rows::{Outcome, Rows};
use crate::bytes::Bytes;
use crate::error::{Error, Status};
use crate::limits::{HOLD_CONFIRMED, LOOK_AGAIN};
use crate::machine;
use crate::store::{Changes, FoundAt, Key, Loss, Store};

/// Whether an account is this engine's.
#[derive(Default)]
enum Standing {
    /// There is none of this number, or it was deleted.
    #[default]
    Gone,
    Here(Arc<Account>),
    /// It was here; its rows end with this status.
    Away(Arc<Account>, Status),
}

/// Every account that the engine has met, by its number.
#[derive(Default)]
pub(crate) struct Standings {
    all: Vec<Standing>,
    /// How many are away.
    away: usize,
}

impl Standings {
    fn of(&self, id: u32) -> &Standing {
        self.all.get(id as usize).unwrap_or(&Standing::Gone)
    }

    fn set(&mut self, id: u32, standing: Standing) {
        let at = id as usize;
        if self.all.len() <= at {
            self.all.resize_with(at + 1, Standing::default);
        }
        self.away -= usize::from(matches!(self.all[at], Standing::Away(..)));
        self.away += usize::from(matches!(standing, Standing::Away(..)));
        self.all[at] = standing;
    }

    /// The account, or how its rows end.
    pub(crate) fn here(&self, id: u32) -> Result<&Arc<Account>, Status> {
        match self.of(id) {
            Standing::Gone => Err(Status::UnknownHandle),
            Standing::Here(account) => Ok(account),
            Standing::Away(_, status) => Err(*status),
        }
    }

    /// The account, here or away.
    pub(crate) fn known(&self, id: u32) -> Option<&Arc<Account>> {
        match self.of(id) {
            Standing::Gone => None,
            Standing::Here(account) | Standing::Away(account, _) => Some(account),
        }
    }

    /// All accounts, here or away, in the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        (0..self.all.len() as u32).filter_map(|id| self.known(id))
    }

    pub(crate) fn put(&mut self, account: Arc<Account>) {
        self.set(account.id, Standing::Here(account));
    }

    pub(crate) fn remove(&mut self, id: u32) {
        self.set(id, Standing::Gone);
    }

    fn send_away(&mut self, id: u32, loss: Loss) {
        let status = match loss {
            Loss::Moved => Status::Conflict,
            Loss::Stale => Status::Busy,
        };
        if let Some(account) = self.known(id).cloned() {
            self.set(id, Standing::Away(account, status));
        }
    }
}

/// Whose the accounts are, as calls know it, and the thread that writes leases.
pub(super) struct Roll {
    standings: RwLock<Standings>,
    /// How many are away.
    away: AtomicUsize,
    /// The store may have other owners.
    shared: bool,
    /// When the store was asked last whether what is held is still held, and said yes.
    confirmed: Mutex<Instant>,
}

impl Roll {
    /// Of accounts that were read just now.
    pub(super) fn new(standings: Standings, shared: bool) -> Self {
        let confirmed = Mutex::new(machine::moment());
        Self { standings: RwLock::new(standings), away: AtomicUsize::new(0), shared, confirmed }
    }

    pub(super) fn standings(&self) -> RwLockReadGuard<'_, Standings> {
        self.standings.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn standings_mut(&self) -> RwLockWriteGuard<'_, Standings> {
        self.standings.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends accounts away that the store lost. To be called before the store is unlocked.
    pub(super) fn note_lost(&self, store: &mut dyn Store) {
        let lost = store.lost();
        if !lost.is_empty() {
            let mut standings = self.standings_mut();
            for (id, loss) in lost {
                standings.send_away(id, loss);
            }
            self.away.store(standings.away, Ordering::SeqCst);
        }
    }

    /// Whether a store that has other owners was last asked so long ago.
    pub(super) fn is_unconfirmed_for(&self, long: Duration) -> bool {
        let confirmed = *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared && machine::moment().duration_since(confirmed) >= long
    }

    /// Asks the store whether what is held is still held.
    ///
    /// # Errors
    /// [`Error::Busy`] if it cannot be asked.
    pub(super) fn confirm(&self, store: &mut dyn Store) -> Result<(), Error> {
        let asked = machine::moment();
        let confirmed = store.confirm();
        self.note_lost(store);
        confirmed?;
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        Ok(())
    }
}

/// What came of a call's commit.
#[derive(Default)]
pub(super) struct Committed {
    /// The accounts whose rows were among the changes: where it is not known any more that one is here, this has told.
    accounts: BTreeSet<u32>,
    pub(super) refused: Refused,
}

/// Accounts whose part of a batch was not written, and how their rows end.
#[derive(Default)]
pub(super) struct Refused(Vec<(u32, Status)>);

impl Refused {
    /// Ends the rows of these accounts.
    fn strike(&self, plan: &Plan<'_>, account_of: impl Fn(u32) -> u32, results: &mut [(Vec<Outcome>, Bytes)]) {
        if self.0.is_empty() {
            return;
        }
        let refused: HashMap<u32, Status> = self.0.iter().copied().collect();
        let mut struck = HashMap::new();
        for entry in &plan.entries {
            if let Some(&status) = refused.get(&account_of(entry.slot)) {
                struck.extend(plan.rows_of(entry).map(|row| (row, status)));
            }
        }
        for outcome in results.iter_mut().flat_map(|(outcomes, _)| outcomes) {
            if let Some(&status) = struck.get(&outcome.row) {
                *outcome = Outcome::failed(outcome.row, status);
            }
        }
    }

    /// For calls without rows.
    pub(super) fn raise(&self) -> Result<(), Error> {
        match self.0.first() {
            None => Ok(()),
            Some((_, status)) => Err(not_here(*status)),
        }
    }
}

/// The rows, with their accounts, that failed by what is known of sessions, of accounts that a commit did not touch.
fn failed_beside(
    committed: &BTreeSet<u32>,
    plan: &Plan<'_>,
    account_of: impl Fn(u32) -> u32,
    results: &[(Vec<Outcome>, Bytes)],
) -> HashMap<u32, u32> {
    let outcomes = results.iter().flat_map(|(outcomes, _)| outcomes);
    let failed: HashSet<u32> =
        outcomes.filter(|outcome| outcome.status.tells_of_state()).map(|outcome| outcome.row).collect();
    let mut beside = HashMap::new();
    for entry in plan.entries.iter().filter(|_| !failed.is_empty()) {
        let account = account_of(entry.slot);
        if !committed.contains(&account) {
            beside.extend(plan.rows_of(entry).filter(|row| failed.contains(row)).map(|row| (row, account)));
        }
    }
    beside
}

fn not_here(status: Status) -> Error {
    Error::Busy(match status {
        Status::Conflict => {
            "the account's shard has gone to another engine: call there (`interlane shards show` says which)".into()
        }
        _ => "the account is being read again, for it is not known what the store took: call again".into(),
    })
}

impl Engine {
    /// A call's rows: all BUSY where the store is not to be had. To be called when the call has let go of its claims.
    pub(super) fn or_busy(&self, rows: usize, ended: Result<Rows, Error>) -> Result<Rows, Error> {
        match ended {
            Ok(rows) => {
                self.shrink();
                Ok(rows)
            }
            Err(Error::Busy(_)) => {
                let rows = Rows::failed(rows, Status::Busy);
                self.count(&rows, None);
                Ok(rows)
            }
            Err(error) => Err(error),
        }
    }

    /// Commits, unless the engine was closed meanwhile. What was acknowledged goes with it. Accounts that turn out to be
    /// away are left out and given back. `chains` are those whose rows are among the changes; if this succeeds, the
    /// caller ends their marks when it puts them back.
    ///
    /// Nobody who calls this may hold pages or slots: they are looked at in the store's turn.
    ///
    /// # Errors
    /// [`Error::Busy`]: it is not known to be written, and the accounts are away where memory may differ from the
    /// store. [`Error::Store`], [`Error::Closed`]: nothing was written.
    pub(super) fn commit(&self, changes: Changes, chains: &[ChainAt]) -> Result<Committed, Error> {
        // Also a call that writes nothing: what it has computed may have been given back.
        if self.closed() {
            return Err(Error::Closed);
        }
        if changes.is_empty() { Ok(Committed::default()) } else { self.commit_with_acknowledged(changes, chains) }
    }

    /// Commits what was acknowledged.
    pub(super) fn commit_acknowledged(&self) -> Result<(), Error> {
        if self.acknowledged().is_empty() {
            return Ok(());
        }
        self.commit_with_acknowledged(Changes::default(), &[]).map(drop)
    }

    fn commit_with_acknowledged(&self, mut changes: Changes, chains: &[ChainAt]) -> Result<Committed, Error> {
        let mut store = self.open_store()?;
        let accounts = if self.shared { changes.accounts() } else { BTreeSet::new() };
        let mut acknowledged = take(&mut *self.acknowledged());
        {
            // Of an account that was deleted meanwhile, nothing is left that could go; one that is away has its buffer
            // read again.
            let standings = self.standings();
            acknowledged.retain(|account| standings.here(account).is_ok());
        }
        // An account that went away while this call computed may be the store's again by now, with another state: what
        // counts is whether the engine has it, for it is not called back before this call has ended.
        changes.leave_out(&self.refused(&accounts).0.into_iter().map(|(id, _)| id).collect());
        self.leases.begin(chains);
        self.put_acknowledged(store.as_mut(), &acknowledged, &mut changes);
        let done = if changes.is_empty() { Ok(()) } else { store.commit(changes) };
        if done.is_err() {
            self.leases.undo(chains);
            self.acknowledged().extend(acknowledged);
        }
        self.note_lost(store.as_mut());
        done.map(|()| Committed { refused: self.refused(&accounts), accounts })
    }

    /// Ends the rows of accounts that a call's commit has refused.
    ///
    /// A row that failed (there is no session, the key is used) writes nothing, so that no commit has told whether its
    /// account is still here: another engine may have it, with the session that is missing here. On a shared store that
    /// is asked for such rows, in one statement a call; where it cannot be asked, they are BUSY. Nobody who calls this
    /// may hold pages or slots.
    pub(super) fn vouch(
        &self,
        committed: Committed,
        plan: &Plan<'_>,
        account_of: impl Fn(u32) -> u32,
        results: &mut [(Vec<Outcome>, Bytes)],
    ) {
        let Committed { accounts, mut refused } = committed;
        let unasked = if self.shared { failed_beside(&accounts, plan, &account_of, results) } else { HashMap::new() };
        if !unasked.is_empty() {
            if self.ask_whether_held().is_ok() {
                refused.0.extend(self.refused(&unasked.into_values().collect()).0);
            } else {
                let outcomes = results.iter_mut().flat_map(|(outcomes, _)| outcomes);
                for outcome in outcomes.filter(|outcome| unasked.contains_key(&outcome.row)) {
                    *outcome = Outcome::failed(outcome.row, Status::Busy);
                }
            }
        }
        refused.strike(plan, account_of, results);
    }

    fn ask_whether_held(&self) -> Result<(), Error> {
        let mut store = self.open_store()?;
        self.roll.confirm(store.as_mut())
    }

    /// Commits rows of one account, as a call without a claim on its sessions made them.
    pub(super) fn commit_account(&self, account: &Arc<Account>, changes: Changes) -> Result<(), Error> {
        let mut store = self.open_store()?;
        let check = || match self.standings().here(account.id) {
            Ok(here) if Arc::ptr_eq(here, account) => Ok(()),
            // Another one was read since: ids of this one may be given out already.
            Ok(_) => Err(not_here(Status::Busy)),
            Err(status) => Err(not_here(status)),
        };
        if self.shared {
            check()?;
        }
        let committed = store.commit(changes);
        self.note_lost(store.as_mut());
        committed?;
        if self.shared { check() } else { Ok(()) }
    }

    /// Reads rows of accounts that are here. Where one turns out not to be, it is sent away.
    ///
    /// # Errors
    /// [`Error::Busy`] for that, or if the store cannot be asked.
    pub(super) fn load(&self, keys: &[Key], found: FoundAt<'_>) -> Result<(), Error> {
        let fetched = {
            let mut store = self.open_store()?;
            let fetched = store.fetch(keys, found);
            self.note_lost(store.as_mut());
            fetched
        };
        fetched?.open(self.backend, found)
    }

    pub(super) fn open_store(&self) -> Result<MutexGuard<'_, Box<dyn Store>>, Error> {
        let store = self.store();
        if self.closed() { Err(Error::Closed) } else { Ok(store) }
    }

    /// Those of some accounts that are not here.
    fn refused(&self, accounts: &BTreeSet<u32>) -> Refused {
        let standings = self.standings();
        Refused(accounts.iter().filter_map(|&id| Some((id, standings.here(id).err()?))).collect())
    }

    /// Sends accounts away that the store lost. To be called before the store is unlocked.
    pub(super) fn note_lost(&self, store: &mut dyn Store) {
        self.roll.note_lost(store);
    }

    /// Before a call that may send within leases on a shared store, which asks nobody: makes sure that it is not long ago
    /// that somebody was asked. To be called without a claim.
    ///
    /// # Errors
    /// [`Error::Busy`] if the store cannot be asked.
    pub(super) fn confirm_holds(&self) -> Result<(), Error> {
        if self.leases.span().is_none() || !self.roll.is_unconfirmed_for(HOLD_CONFIRMED / 2) {
            return Ok(());
        }
        if !self.roll.is_unconfirmed_for(HOLD_CONFIRMED) {
            // A gateway that keeps sending does not wait for this.
            self.leases.want_confirmation();
            return Ok(());
        }
        let mut store = self.open_store()?;
        // Another call may have asked while this one waited.
        if self.roll.is_unconfirmed_for(HOLD_CONFIRMED) { self.roll.confirm(store.as_mut()) } else { Ok(()) }
    }

    /// Whether a call has to ask for accounts that are away.
    pub(super) fn any_away(&self) -> bool {
        self.roll.away.load(Ordering::SeqCst) != 0
    }

    /// Asks the store for those of these accounts that are away. To be called without a claim.
    ///
    /// # Errors
    /// [`Error::Busy`] if the store cannot be asked.
    pub(super) fn call_back(&self, accounts: &BTreeSet<u32>) -> Result<(), Error> {
        let refused = self.refused(accounts).0;
        let stale = refused.iter().any(|&(_, status)| status == Status::Busy);
        let moved = refused.iter().any(|&(_, status)| status == Status::Conflict);
        if stale || (moved && self.may_look()) { self.look() } else { Ok(()) }
    }

    /// Whether it is long enough since the store was last asked for accounts of others.
    fn may_look(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = machine::moment();
        let may = looked.is_none_or(|last| now.duration_since(last) >= LOOK_AGAIN);
        if may {
            *looked = Some(now);
        }
        may
    }

    /// Takes in every account that is this engine's by now.
    fn look(&self) -> Result<(), Error> {
        let _founding = self.founding.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = {
            let mut store = self.open_store()?;
            let listed = store.accounts();
            self.note_lost(store.as_mut());
            listed?
        };
        self.note_others(&listed);
        let back: Vec<(u32, String)> = {
            let standings = self.standings();
            listed.into_iter().filter(|&(id, _)| standings.here(id).is_err()).collect()
        };
        if back.is_empty() {
            return Ok(());
        }
        let ids: HashSet<u32> = back.iter().map(|&(id, _)| id).collect();
        let slots = self.columns.slots_of(|account| ids.contains(&account));
        let handles: Vec<u64> = slots.iter().map(|&slot| u64::from(slot)).collect();
        let claimed = self.claims.claim(&handles, self.columns.len(), Vec::new());
        let groups = self.groups.claim_accounts(|account| ids.contains(&account));
        for slot in slots {
            self.columns.unload(slot);
        }
        self.groups.clear(&groups, true);
        let mut store = self.open_store()?;
        let loaded = Account::load(store.as_mut(), self.backend, &back).map(|loaded| {
            let mut standings = self.standings_mut();
            for account in loaded {
                let before = standings.known(account.id).map_or(0, |before| {
                    let before = before.buffer();
                    account.buffer().take_over(&before, account.id, &mut self.acknowledged());
                    before.len()
                });
                self.note_buffered(account.buffer().len() as u64);
                self.unnote_buffered(before as u64);
                standings.put(account);
            }
            self.roll.away.store(standings.away, Ordering::SeqCst);
        });
        // Some may have gone again while they were read.
        self.note_lost(store.as_mut());
        drop(store);
        drop((groups, claimed));
        loaded
    }

    /// What was to be read again and is not among the accounts that this engine has (`listed`) is another's by now.
    fn note_others(&self, listed: &[(u32, String)]) {
        let here: HashSet<u32> = listed.iter().map(|&(id, _)| id).collect();
        let mut standings = self.standings_mut();
        let stale = |id: &u32| matches!(standings.here(*id), Err(Status::Busy)) && !here.contains(id);
        let gone: Vec<u32> = standings.iter().map(|account| account.id).filter(stale).collect();
        for id in gone {
            standings.send_away(id, Loss::Moved);
        }
    }

    /// The account of this name where it is not in memory: it may have come to this engine meanwhile, or be another's.
    ///
    /// # Errors
    /// [`Error::Store`] if it is another engine's, with whose.
    pub(super) fn look_for(&self, name: &str) -> Result<Option<AccountId>, Error> {
        if let Some(whose) = self.open_store()?.elsewhere(name)? {
            return Err(Error::Store(whose));
        }
        self.look()?;
        Ok(self.standings().iter().find(|account| account.name == name).map(|account| AccountId(account.id)))
    }

    /// An account that a call without rows is about.
    pub(super) fn here(&self, id: AccountId) -> Result<Arc<Account>, Error> {
        if self.any_away() {
            self.call_back(&BTreeSet::from([id.0]))?;
        }
        self.here_held(id)
    }

    /// The same without asking the store for it: `founding` may be held.
    pub(super) fn here_held(&self, id: AccountId) -> Result<Arc<Account>, Error> {
        let account = self.find(id)?;
        let standing = self.standings().here(id.0).map(Arc::clone);
        standing.map_err(|status| {
            let whose = self.store().elsewhere(&account.name);
            whose.ok().flatten().map_or_else(|| not_here(status), Error::Store)
        })
    }
}
