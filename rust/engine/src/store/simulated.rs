//! A shared store for tests, and its server: a primary with a synchronous standby, in memory. It keeps the contract of
//! [`super::postgres`] with the same epochs and versions, and fails as told: requests are lost, commits have no answer,
//! the primary is replaced by its standby, engines are cut off from it or with it.
//!
//! ```text
//! acknowledged:      the primary has it, and so has the standby, with all that the primary had before
//! without an answer: neither has it, or the primary alone, or both; or it comes to the primary later
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use interlane_crash::Dice;

use super::postgres::shard_of;
use super::{Changes, FoundAt, FoundTag, Key, Kind, Loss, Shard, Store};
use crate::error::Error;
use crate::limits::SHARDS;

/// What goes wrong with a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The server never gets it.
    RequestLost,
    /// The engine is not told how it ended, nor when.
    AnswerLost,
}

/// A shard's row.
#[derive(Clone)]
struct Place {
    owner: String,
    holder: u64,
    wanted: Option<String>,
    epoch: u64,
    version: u64,
    lost_from: u64,
}

/// What a server has.
#[derive(Clone)]
struct Database {
    accounts: BTreeMap<u32, String>,
    last_account: u32,
    rows: BTreeMap<Key, Arc<[u8]>>,
    shards: Vec<Place>,
}

/// Where an engine's connections end.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Reach {
    #[default]
    Primary,
    /// At a primary that was replaced; it has no standby to wait for.
    Replaced,
    Nowhere,
}

#[derive(Default)]
struct Line {
    reach: Reach,
    plan: Option<(Trouble, u32)>,
}

/// A statement on its way.
type Late = Box<dyn FnOnce(&mut Database) + Send>;

struct State {
    primary: Database,
    /// The standby where it has less than the primary.
    standby: Option<Database>,
    replaced: Option<Database>,
    /// Connections of before are gone.
    connections: u64,
    engines: BTreeMap<String, Line>,
    late: Vec<Late>,
    dice: Dice,
    openings: u64,
    lost: u64,
    unknown: u64,
}

/// The server of an engine's store.
pub(crate) struct Server(Mutex<State>);

impl Server {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        let place = Place { owner: String::new(), holder: 0, wanted: None, epoch: 0, version: 0, lost_from: 0 };
        let primary = Database {
            accounts: BTreeMap::new(),
            last_account: 0,
            rows: BTreeMap::new(),
            shards: vec![place; SHARDS as usize],
        };
        Arc::new(Self(Mutex::new(State {
            primary,
            standby: None,
            replaced: None,
            connections: 0,
            engines: BTreeMap::new(),
            late: Vec::new(),
            dice: Dice(seed),
            openings: 0,
            lost: 0,
            unknown: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A statement of an engine is to end so, after some that go well.
    pub(crate) fn plan(&self, engine: &str, trouble: Trouble, after: u32) {
        self.state().engines.entry(engine.to_owned()).or_default().plan = Some((trouble, after));
    }

    /// The primary is gone; its standby takes over.
    pub(crate) fn promote(&self) {
        let mut state = self.state();
        if let Some(standby) = state.standby.take() {
            state.primary = standby;
        }
        state.replaced = None;
        // Nobody sends it again.
        state.late.clear();
        state.connections += 1;
        for line in state.engines.values_mut().filter(|line| line.reach == Reach::Replaced) {
            line.reach = Reach::Nowhere;
        }
    }

    /// The same, but one engine stays with the old primary, cut off from the rest.
    pub(crate) fn promote_but_for(&self, engine: &str) {
        let old = self.state().primary.clone();
        self.promote();
        let mut state = self.state();
        state.replaced = Some(old);
        state.engines.entry(engine.to_owned()).or_default().reach = Reach::Replaced;
    }

    /// An engine reaches no server.
    pub(crate) fn cut_off(&self, engine: &str) {
        self.state().engines.entry(engine.to_owned()).or_default().reach = Reach::Nowhere;
    }

    /// An engine reaches the primary again.
    pub(crate) fn reconnect(&self, engine: &str) {
        self.state().engines.entry(engine.to_owned()).or_default().reach = Reach::Primary;
    }

    /// Everything works from here on.
    pub(crate) fn heal(&self) {
        for line in self.state().engines.values_mut() {
            *line = Line::default();
        }
    }

    /// What there is, to be put back.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot(self.state().primary.clone())
    }

    /// A server takes over that lacks whatever was acknowledged since.
    pub(crate) fn go_back(&self, to: &Snapshot) {
        let mut state = self.state();
        state.primary = to.0.clone();
        state.standby = None;
        state.replaced = None;
        state.late.clear();
        state.connections += 1;
    }

    /// How many requests were lost and commits had no answer, since this was last asked.
    pub(crate) fn take_counts(&self) -> (u64, u64) {
        let mut state = self.state();
        (std::mem::take(&mut state.lost), std::mem::take(&mut state.unknown))
    }
}

/// What a server had at some time.
pub(crate) struct Snapshot(Database);

/// A shard that this engine holds.
#[derive(Clone, Copy)]
struct Hold {
    epoch: u64,
    version: u64,
    doubtful: bool,
    wanted: bool,
}

/// An engine's end of it.
pub(crate) struct SimulatedStore {
    server: Arc<Server>,
    engine: String,
    instance: u64,
    connection: Option<(Reach, u64)>,
    holds: Vec<Option<Hold>>,
    acknowledged: Vec<u64>,
    drained: Vec<bool>,
    accounts: BTreeMap<u32, u32>,
    lost: BTreeMap<u32, Loss>,
    closed: bool,
}

/// What a statement does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Reads,
    Writes,
    /// It writes where epochs and versions are as the engine knows them, however late it comes.
    Compares,
}

/// Whose shards are taken, beside this instance's and those that lie ready for it.
#[derive(Clone, Copy, Default)]
struct Whose {
    nobodys: bool,
    namesakes: bool,
}

/// For compare and set: shards, epochs and versions.
type Known = Vec<(u32, u64, u64)>;

impl Database {
    /// Counts a commit of the shards that are as an engine knows them; those, and whether another engine is to have
    /// them.
    fn hold(&mut self, known: &Known) -> BTreeMap<u32, bool> {
        let mut held = BTreeMap::new();
        for &(number, epoch, version) in known {
            let shard = &mut self.shards[number as usize];
            if (shard.epoch, shard.version) == (epoch, version) {
                shard.version += 1;
                held.insert(number, shard.wanted.is_some());
            }
        }
        held
    }
}

fn busy(text: &str) -> Error {
    Error::Busy(format!("the simulated server {text}: nothing has left; call again"))
}

impl SimulatedStore {
    pub(crate) fn open(server: &Arc<Server>, engine: &str) -> Result<Self, Error> {
        let instance = {
            let mut state = server.state();
            state.openings += 1;
            state.openings
        };
        let n = SHARDS as usize;
        let mut store = Self {
            server: Arc::clone(server),
            engine: engine.to_owned(),
            instance,
            connection: None,
            holds: vec![None; n],
            acknowledged: vec![0; n],
            drained: vec![false; n],
            accounts: BTreeMap::new(),
            lost: BTreeMap::new(),
            closed: false,
        };
        store.connect()?;
        store.take(&(0..SHARDS).collect::<Vec<_>>(), Whose { nobodys: true, namesakes: true })?;
        Ok(store)
    }

    fn connect(&mut self) -> Result<(), Error> {
        let state = self.server.state();
        let reach = state.engines.get(&self.engine).map_or(Reach::Primary, |line| line.reach);
        if reach == Reach::Nowhere {
            return Err(busy("cannot be reached"));
        }
        self.connection = Some((reach, state.connections));
        Ok(())
    }

    fn ask<T>(&mut self, sort: Sort, statement: impl FnOnce(&mut Database) -> T + Send + 'static) -> Result<T, Error> {
        let (server, writes) = (Arc::clone(&self.server), sort != Sort::Reads);
        let mut state = server.state();
        let state = &mut *state;
        let line = state.engines.entry(self.engine.clone()).or_default();
        if self.connection != Some((line.reach, state.connections)) || line.reach == Reach::Nowhere {
            self.connection = None;
            return Err(busy("closed the connection"));
        }
        let trouble = match &mut line.plan {
            Some((_, after)) if *after > 0 => {
                *after -= 1;
                None
            }
            plan => plan.take().map(|(trouble, _)| trouble),
        };
        // What is on its way comes when it likes.
        if !state.late.is_empty() && state.dice.one_in(2) {
            let late = state.late.remove(0);
            state.standby.get_or_insert_with(|| state.primary.clone());
            late(&mut state.primary);
        }
        if line.reach == Reach::Replaced {
            let database = state.replaced.as_mut().expect("somebody is cut off with it");
            let done = statement(database);
            if writes || trouble.is_some() {
                // It waits for a standby that is not there.
                self.connection = None;
                return Err(busy("gives no answer"));
            }
            return Ok(done);
        }
        match trouble {
            None if !writes => Ok(statement(&mut state.primary)),
            None => {
                let done = statement(&mut state.primary);
                state.standby = None;
                Ok(done)
            }
            Some(trouble) => {
                self.connection = None;
                if trouble == Trouble::RequestLost || !writes {
                    state.lost += 1;
                    return Err(busy("closed the connection"));
                }
                state.unknown += 1;
                match state.dice.below(4) {
                    // The standby has it too.
                    0 => {
                        statement(&mut state.primary);
                        state.standby = None;
                    }
                    1 if sort == Sort::Compares => state.late.push(Box::new(move |database| drop(statement(database)))),
                    2 => {
                        state.standby.get_or_insert_with(|| state.primary.clone());
                        statement(&mut state.primary);
                    }
                    _ => {}
                }
                Err(busy("gives no answer"))
            }
        }
    }

    /// Sees to a connection, and takes the shards that were held anew where it is a new one.
    fn ready(&mut self) -> Result<(), Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        if self.connection.is_some() {
            return Ok(());
        }
        self.connect()?;
        let held: Vec<u32> = self.held();
        let epochs: Vec<u64> = held.iter().filter_map(|&shard| Some(self.holds[shard as usize]?.epoch)).collect();
        if let Err(error) = self.take(&held, Whose::default()) {
            self.connection = None;
            return Err(error);
        }
        for (shard, epoch) in held.into_iter().zip(epochs) {
            if self.holds[shard as usize].is_some_and(|hold| hold.epoch == epoch) {
                self.lose(shard, Loss::Moved);
            }
        }
        Ok(())
    }

    fn held(&self) -> Vec<u32> {
        (0..SHARDS).filter(|&shard| self.holds[shard as usize].is_some()).collect()
    }

    fn known(&self, shards: &BTreeSet<u32>) -> Known {
        let of = |&shard: &u32| {
            let hold = self.holds[shard as usize];
            (shard, hold.map_or(u64::MAX, |hold| hold.epoch), hold.map_or(u64::MAX, |hold| hold.version))
        };
        shards.iter().map(of).collect()
    }

    fn take(&mut self, shards: &[u32], whose: Whose) -> Result<(), Error> {
        if shards.is_empty() {
            return Ok(());
        }
        let (engine, instance, shards) = (self.engine.clone(), self.instance, shards.to_vec());
        let taken = self.ask(Sort::Writes, move |database| {
            let mut taken = Vec::new();
            for number in shards {
                let shard = &mut database.shards[number as usize];
                let ours = shard.owner == engine && (whose.namesakes || shard.holder == 0 || shard.holder == instance);
                if shard.lost_from == 0 && (ours || (whose.nobodys && shard.owner.is_empty())) {
                    shard.epoch += 1;
                    shard.owner.clone_from(&engine);
                    shard.holder = instance;
                    if shard.wanted.as_ref() == Some(&engine) {
                        shard.wanted = None;
                    }
                    taken.push((number, shard.epoch, shard.version, shard.wanted.is_some()));
                }
            }
            taken
        })?;
        for (shard, epoch, version, wanted) in taken {
            let at = shard as usize;
            if version < self.acknowledged[at] {
                self.lose(shard, Loss::Moved);
                let acknowledged = self.acknowledged[at];
                // Where it could not be noted, it is found again when the shard is taken again.
                let _ = self.ask(Sort::Writes, move |database| {
                    let shard = &mut database.shards[at];
                    if shard.epoch == epoch {
                        (shard.epoch, shard.holder, shard.lost_from) = (epoch + 1, 0, acknowledged);
                    }
                });
                continue;
            }
            // Nobody else had it since, and the commits are those that this engine made.
            let as_known = self.holds[at].is_some_and(|hold| {
                epoch == hold.epoch + 1 && (hold.version..=hold.version + u64::from(hold.doubtful)).contains(&version)
            });
            if !as_known {
                self.drop_accounts(shard, Loss::Stale);
            }
            self.acknowledged[at] = version;
            self.drained[at] = false;
            self.holds[at] = Some(Hold { epoch, version, doubtful: false, wanted });
        }
        Ok(())
    }

    /// Gives up the shards that other engines are to have.
    fn hand_over(&mut self) -> Result<(), Error> {
        let wanted: BTreeSet<u32> = self
            .held()
            .into_iter()
            .filter(|&shard| self.holds[shard as usize].is_some_and(|hold| hold.wanted))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let known = self.known(&wanted);
        for shard in wanted {
            self.lose(shard, Loss::Moved);
            self.drained[shard as usize] = true;
        }
        self.ask(Sort::Writes, move |database| {
            for (number, epoch, _) in known {
                let shard = &mut database.shards[number as usize];
                if shard.epoch == epoch
                    && let Some(wanted) = shard.wanted.take()
                {
                    (shard.epoch, shard.owner, shard.holder) = (epoch + 1, wanted, 0);
                }
            }
        })
    }

    fn lose(&mut self, shard: u32, loss: Loss) {
        self.holds[shard as usize] = None;
        self.drop_accounts(shard, loss);
    }

    fn drop_accounts(&mut self, shard: u32, loss: Loss) {
        let lost = &mut self.lost;
        self.accounts.retain(|&id, of| {
            if *of == shard {
                lost.insert(id, loss);
            }
            *of != shard
        });
    }

    /// A commit may be done or not.
    fn doubt(&mut self, shards: &BTreeSet<u32>, accounts: BTreeSet<u32>) {
        for &shard in shards {
            if let Some(hold) = &mut self.holds[shard as usize] {
                hold.doubtful = true;
            }
        }
        for account in accounts {
            self.accounts.remove(&account);
            self.lost.insert(account, Loss::Stale);
        }
    }

    fn count_commit(&mut self, shard: u32, wanted: bool) {
        if let Some(hold) = &mut self.holds[shard as usize] {
            hold.version += 1;
            hold.wanted |= wanted;
            self.acknowledged[shard as usize] = hold.version;
        }
    }

    /// Shards that a commit found in other hands.
    fn find_out(&mut self, shards: &BTreeSet<u32>) {
        if shards.is_empty() {
            return;
        }
        let holders: Vec<u64> = self
            .ask(Sort::Reads, |database| database.shards.iter().map(|shard| shard.holder).collect())
            .unwrap_or_default();
        for &shard in shards {
            let moved = holders.get(shard as usize).is_some_and(|&holder| holder != self.instance);
            self.lose(shard, if moved { Loss::Moved } else { Loss::Stale });
        }
    }

    /// That these accounts can be read.
    fn check_here(&mut self, accounts: impl IntoIterator<Item = u32>) -> Result<(), Error> {
        let mut all = true;
        for account in accounts {
            if !self.accounts.contains_key(&account) {
                self.lost.entry(account).or_insert(Loss::Stale);
                all = false;
            }
        }
        if all { Ok(()) } else { Err(busy("has an account that is to be read again")) }
    }

    fn whose(&mut self, name: &str, number: u32) -> Result<String, Error> {
        let owner = self.ask(Sort::Reads, move |database| database.shards[number as usize].owner.clone())?;
        Ok(format!("account {name} is in shard {number}, which engine {owner:?} has: call there"))
    }
}

impl Store for SimulatedStore {
    fn durable(&self) -> bool {
        true
    }

    fn shared(&self) -> bool {
        true
    }

    fn accounts(&mut self) -> Result<Vec<(u32, String)>, Error> {
        self.ready()?;
        let others = (0..SHARDS).filter(|&shard| self.holds[shard as usize].is_none());
        let (again, anew): (Vec<u32>, Vec<u32>) = others.partition(|&shard| self.drained[shard as usize]);
        self.take(&anew, Whose { nobodys: true, ..Whose::default() })?;
        self.take(&again, Whose::default())?;
        self.hand_over()?;
        let all = self.ask(Sort::Reads, |database| database.accounts.clone())?;
        let held: BTreeSet<u32> = self.held().into_iter().collect();
        let here: Vec<(u32, String)> = all.into_iter().filter(|(_, name)| held.contains(&shard_of(name))).collect();
        self.accounts = here.iter().map(|(id, name)| (*id, shard_of(name))).collect();
        Ok(here)
    }

    fn lost(&mut self) -> Vec<(u32, Loss)> {
        std::mem::take(&mut self.lost).into_iter().collect()
    }

    fn confirm(&mut self) -> Result<(), Error> {
        self.ready()?;
        let stored: Vec<(u64, u64, bool)> = self.ask(Sort::Writes, |database| {
            database.shards.iter().map(|shard| (shard.epoch, shard.holder, shard.wanted.is_some())).collect()
        })?;
        for (shard, (epoch, holder, wanted)) in (0..).zip(stored) {
            match &mut self.holds[shard as usize] {
                None => {}
                Some(hold) if hold.epoch == epoch => hold.wanted |= wanted,
                Some(_) => self.lose(shard, if holder == self.instance { Loss::Stale } else { Loss::Moved }),
            }
        }
        self.hand_over()
    }

    fn elsewhere(&mut self, name: &str) -> Result<Option<String>, Error> {
        self.ready()?;
        let (number, wanted) = (shard_of(name), name.to_owned());
        if self.holds[number as usize].is_some() {
            return Ok(None);
        }
        let found = self.ask(Sort::Reads, move |database| {
            let there = database.accounts.values().any(|name| *name == wanted);
            there.then(|| database.shards[number as usize].clone())
        })?;
        let Some(shard) = found else { return Ok(None) };
        // Also what it has without knowing: its taking had no answer.
        let ours = shard.owner == self.engine && (shard.holder == 0 || shard.holder == self.instance);
        let free = shard.owner.is_empty() && !self.drained[number as usize];
        if (ours || free) && shard.lost_from == 0 {
            return Ok(None);
        }
        self.whose(name, number).map(Some)
    }

    fn shards(&mut self) -> Result<Vec<Shard>, Error> {
        self.ready()?;
        self.ask(Sort::Reads, |database| {
            (0..)
                .zip(&database.shards)
                .map(|(number, shard)| Shard {
                    number,
                    engine: shard.owner.clone(),
                    serving: shard.holder != 0,
                    wanted: shard.wanted.clone(),
                    epoch: shard.epoch,
                    version: shard.version,
                    lost_from: shard.lost_from,
                    accounts: database.accounts.values().filter(|name| shard_of(name) == number).count() as u64,
                })
                .collect()
        })
    }

    fn move_shards(&mut self, shards: &[u32], to: &str, force: bool) -> Result<(), Error> {
        self.ready()?;
        let (shards, to) = (shards.to_vec(), to.to_owned());
        self.ask(Sort::Writes, move |database| {
            for number in shards {
                let shard = &mut database.shards[number as usize];
                if shard.holder != 0 && !force {
                    shard.wanted = (shard.owner != to).then(|| to.clone());
                } else {
                    shard.epoch += 1;
                    shard.owner.clone_from(&to);
                    (shard.holder, shard.wanted) = (0, None);
                }
            }
        })
    }

    fn create_account(&mut self, name: &str, changes: &mut dyn FnMut(u32) -> Changes) -> Result<u32, Error> {
        self.ready()?;
        let shard = shard_of(name);
        if self.holds[shard as usize].is_none() {
            return Err(Error::Store(self.whose(name, shard)?));
        }
        let account = self.ask(Sort::Writes, |database| {
            database.last_account += 1;
            database.last_account
        })?;
        let changes = changes(account);
        super::check_accounts(changes.accounts(), |found| found == account)?;
        let shards = BTreeSet::from([shard]);
        let (known, name_there) = (self.known(&shards), name.to_owned());
        let rows = copied(&changes);
        let made = self.ask(Sort::Compares, move |database| {
            let held = !database.hold(&known).is_empty();
            let taken = database.accounts.values().any(|name| *name == name_there);
            if held && !taken {
                database.accounts.insert(account, name_there);
                put(database, rows);
            }
            (held, taken)
        });
        let (held, taken) = match made {
            Ok(made) => made,
            Err(error) => {
                self.doubt(&shards, BTreeSet::new());
                return Err(error);
            }
        };
        if !held {
            self.find_out(&shards);
            return Err(busy("has just given the shard to another"));
        }
        self.count_commit(shard, false);
        if taken {
            return Err(super::account_exists(name));
        }
        self.accounts.insert(account, shard);
        Ok(account)
    }

    fn delete_account(&mut self, account: u32) -> Result<(), Error> {
        self.ready()?;
        let shard = *self.accounts.get(&account).ok_or_else(|| super::no_account(account))?;
        let shards = BTreeSet::from([shard]);
        let known = self.known(&shards);
        let deleted = self.ask(Sort::Compares, move |database| {
            let held = !database.hold(&known).is_empty();
            let there = held && database.accounts.remove(&account).is_some();
            if there {
                database.rows.retain(|key, _| key.account != account);
            }
            (held, there)
        });
        let (held, there) = match deleted {
            Ok(deleted) => deleted,
            Err(error) => {
                self.doubt(&shards, BTreeSet::from([account]));
                return Err(error);
            }
        };
        if !held {
            self.find_out(&shards);
            return Err(busy("has just given the shard to another"));
        }
        self.count_commit(shard, false);
        self.accounts.remove(&account);
        if there { Ok(()) } else { Err(super::no_account(account)) }
    }

    fn load(&mut self, keys: &[Key], found: FoundAt<'_>) -> Result<(), Error> {
        self.ready()?;
        self.check_here(keys.iter().map(|key| key.account))?;
        let wanted = keys.to_vec();
        let rows = self.ask(Sort::Reads, move |database| {
            wanted.iter().map(|key| database.rows.get(key).cloned()).collect::<Vec<_>>()
        })?;
        for (i, row) in rows.iter().enumerate() {
            if let Some(body) = row {
                found(i, body)?;
            }
        }
        Ok(())
    }

    fn scan(&mut self, account: u32, kind: Kind, found: FoundTag<'_>) -> Result<(), Error> {
        self.ready()?;
        self.check_here([account])?;
        let rows = self.ask(Sort::Reads, move |database| {
            let [first, last] = [[0; 16], [255; 16]].map(|tag| Key { account, kind, tag });
            database.rows.range(first..=last).map(|(key, body)| (key.tag, body.clone())).collect::<Vec<_>>()
        })?;
        rows.into_iter().try_for_each(|(tag, body)| found(tag, &body))
    }

    fn commit(&mut self, mut changes: Changes) -> Result<(), Error> {
        self.ready()?;
        self.hand_over()?;
        let strangers: BTreeSet<u32> =
            changes.accounts().into_iter().filter(|account| !self.accounts.contains_key(account)).collect();
        changes.leave_out(&strangers);
        for account in strangers {
            self.lost.entry(account).or_insert(Loss::Stale);
        }
        if changes.is_empty() {
            return Ok(());
        }
        let accounts = changes.accounts();
        let of: BTreeMap<u32, u32> = accounts.iter().map(|&account| (account, self.accounts[&account])).collect();
        let shards: BTreeSet<u32> = of.values().copied().collect();
        let (known, rows) = (self.known(&shards), copied(&changes));
        let held = self.ask(Sort::Compares, move |database| {
            let held = database.hold(&known);
            put(database, rows.into_iter().filter(|(key, _)| held.contains_key(&of[&key.account])).collect());
            held
        });
        match held {
            Ok(held) => {
                for (&shard, &wanted) in &held {
                    self.count_commit(shard, wanted);
                }
                self.find_out(&shards.iter().copied().filter(|shard| !held.contains_key(shard)).collect());
                Ok(())
            }
            Err(error) => {
                self.doubt(&shards, accounts);
                Err(error)
            }
        }
    }

    fn size_bytes(&mut self) -> Result<u64, Error> {
        self.ready()?;
        self.ask(Sort::Reads, |database| database.rows.values().map(|body| body.len() as u64).sum())
    }

    fn close(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.closed, true) {
            return Err(Error::Closed);
        }
        self.accounts.clear();
        if self.connection.is_some() {
            let known = self.known(&self.held().into_iter().collect());
            // Where it could not be done, the shards stay with this engine's name.
            let _ = self.ask(Sort::Writes, move |database| {
                for (number, epoch, _) in known {
                    let shard = &mut database.shards[number as usize];
                    if shard.epoch == epoch {
                        let owner = shard.wanted.take().unwrap_or_default();
                        (shard.epoch, shard.holder, shard.owner) = (epoch + 1, 0, owner);
                    }
                }
            });
        }
        Ok(())
    }
}

/// A batch's rows, as they go on their way.
type Sent = Vec<(Key, Option<Arc<[u8]>>)>;

fn copied(changes: &Changes) -> Sent {
    changes.iter().map(|(key, body)| (key, body.map(Arc::from))).collect()
}

fn put(database: &mut Database, rows: Sent) {
    for (key, body) in rows {
        match body {
            Some(body) => database.rows.insert(key, body),
            None => database.rows.remove(&key),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{self, account, key, load, puts};
    use super::*;

    struct Shared(Arc<Server>);

    impl Shared {
        fn new() -> Self {
            Self(Server::new(7))
        }
    }

    impl contract::Place for Shared {
        fn open(&self) -> Box<dyn Store> {
            let mut store = SimulatedStore::open(&self.0, "one").unwrap();
            store.accounts().unwrap();
            Box::new(store)
        }

        fn open_after_crash(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
            drop(store);
            self.open()
        }
    }

    #[test]
    fn it_keeps_the_contract() {
        contract::what_is_closed_opens_again(&Shared::new());
        contract::a_crash_loses_nothing_that_was_committed(&mut Shared::new());
        contract::fifty_thousand_rows_come_back(&Shared::new());
        contract::it_is_the_memory_store_that_outlives_crashes(12, Shared::new);
    }

    #[test]
    fn an_engine_that_was_replaced_writes_nothing() {
        let server = Server::new(1);
        let mut old = SimulatedStore::open(&server, "one").unwrap();
        let desk = account(&mut old, "desk");
        old.commit(puts([(key(desk, 1), &b"old"[..])])).unwrap();
        let mut new = SimulatedStore::open(&server, "one").unwrap();
        new.accounts().unwrap();
        old.commit(puts([(key(desk, 1), &b"late"[..]), (key(desk, 2), b"late")])).unwrap();
        assert_eq!(old.lost(), [(desk, Loss::Moved)]);
        let keys = [key(desk, 1), key(desk, 2)];
        assert_eq!(load(&mut new, &keys).unwrap(), [Some(b"old".to_vec()), None]);
    }

    #[test]
    fn what_was_acknowledged_outlives_the_primary_and_nothing_else_has_to() {
        let (mut kept, mut gone) = (0, 0);
        for seed in 0..40 {
            let server = Server::new(seed);
            let mut store = SimulatedStore::open(&server, "one").unwrap();
            let desk = account(&mut store, "desk");
            store.commit(puts([(key(desk, 1), &b"acknowledged"[..])])).unwrap();
            server.plan("one", Trouble::AnswerLost, 0);
            let unknown = store.commit(puts([(key(desk, 1), &b"unknown"[..])]));
            assert!(matches!(unknown, Err(Error::Busy(_))));
            assert_eq!(store.lost(), [(desk, Loss::Stale)]);
            server.promote();
            store.accounts().unwrap();
            match load(&mut store, &[key(desk, 1)]).unwrap()[0].as_deref() {
                Some(b"acknowledged") => gone += 1,
                Some(b"unknown") => kept += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(kept > 0 && gone > 0, "{kept} {gone}");
    }

    #[test]
    fn a_server_that_lacks_commits_is_not_served() {
        let server = Server::new(1);
        let mut store = SimulatedStore::open(&server, "one").unwrap();
        let desk = account(&mut store, "desk");
        let before = server.snapshot();
        store.commit(puts([(key(desk, 1), &b"x"[..])])).unwrap();
        server.go_back(&before);
        assert!(matches!(store.commit(puts([(key(desk, 1), &b"y"[..])])), Err(Error::Busy(_)) | Ok(())));
        assert!(store.accounts().unwrap().is_empty());
        assert_eq!(store.shards().unwrap()[shard_of("desk") as usize].lost_from, 2);
    }
}
