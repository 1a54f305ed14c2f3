//! The store in PostgreSQL, for gateways that outgrow one machine.
//!
//! Accounts are hashed to shards by their names. An engine *holds* shards, each under an *epoch* that grows whenever the
//! shard changes hands, and counts its commits in a *version*:
//!
//! ```text
//! commit:  version ← version + 1   where shard, epoch, version are as this engine knows them
//!          rows    ← the batch's rows of those shards
//! ```
//!
//! in one statement, so that an engine which was replaced, or of which an older commit is still under way, writes
//! nothing. What the server did not acknowledge may be there or not: the accounts of that batch are *stale*, no frame of
//! it leaves, and what is stored is read before they go on. A new connection takes its shards anew, which waits for
//! whatever an old one left under way, and compares versions: a server that has fewer commits than it acknowledged is
//! not served.

mod address;
mod batch;
mod link;
mod shards;
mod statements;

use std::collections::BTreeMap;

use interlane_lanes::Backend;
use tokio_postgres::Row;
use tokio_postgres::types::FromSqlOwned;
use zeroize::Zeroizing;

use self::address::{Address, Taking};
use self::batch::Batch;
use self::link::{Link, Trouble};
pub(super) use self::shards::shard_of;
use self::shards::{Hold, Whose};
use super::sealed::{self, Place, StoreId};
use super::{Changes, FoundAt, FoundKey, FoundTag, Key, Kind, Loss, Shard, StartAnew, Store};
use crate::error::Error;
use crate::limits::{SHARDS, STATEMENT_ROWS, STORE_LONG_PATIENCE, STORE_PATIENCE};
use crate::secret::Secret;

/// Rows in a database that engines share.
pub(crate) struct PostgresStore {
    link: Link,
    /// What seals rows.
    backend: Backend,
    operator_key: Secret<32>,
    /// None before the first connection.
    store_id: Option<StoreId>,
    /// This opening of the store, among all that there were under this engine's name.
    instance: i64,
    /// What is held, by shard.
    holds: Vec<Option<Hold>>,
    /// The most commits that a server acknowledged, by shard, held or not.
    acknowledged: Vec<i64>,
    /// Shards that this instance had and was to give to others.
    drained: Vec<bool>,
    /// The accounts of the shards that are held, but for those that are to be read again.
    accounts: BTreeMap<u32, Account>,
    /// What [`Store::lost`] has to tell.
    lost: BTreeMap<u32, Loss>,
    closed: bool,
}

struct Account {
    shard: u32,
    data_key: Secret<32>,
}

impl PostgresStore {
    /// Connects, makes the tables where there are none, and takes shards as the address says.
    pub(crate) fn open(url: &str, operator_key: Secret<32>) -> Result<Self, Error> {
        let address = Address::parse(url)?;
        let mut random = [0; 8];
        sealed::random(&mut random)?;
        let mut store = Self {
            link: Link::new(address)?,
            backend: Backend::portable(),
            operator_key,
            store_id: None,
            // Zero stands for nobody.
            instance: (i64::from_le_bytes(random) & i64::MAX).max(1),
            holds: vec![None; SHARDS as usize],
            acknowledged: vec![0; SHARDS as usize],
            drained: vec![false; SHARDS as usize],
            accounts: BTreeMap::new(),
            lost: BTreeMap::new(),
            closed: false,
        };
        store.connect()?;
        match store.link.address.taking.clone() {
            Taking::Nothing => {}
            Taking::Free => {
                let whose = Whose { nobodys: true, namesakes: true, ..Whose::default() };
                store.take(&(0..SHARDS).collect::<Vec<_>>(), whose)?;
            }
            Taking::These(shards) => store.take(&shards, Whose { anyones: true, ..Whose::default() })?,
        }
        Ok(store)
    }

    /// The error of a statement that was not done, or is not known to be.
    fn explain(&self, trouble: Trouble) -> Error {
        let shown = &self.link.address.shown;
        match trouble {
            Trouble::Broken(why) => Error::Busy(format!("{shown}: {why}: nothing has left; call again")),
            Trouble::Refused(code, text) => {
                let passing = ["25", "40", "55", "57", "58"].iter().any(|class| code.code().starts_with(class));
                let text = format!("{shown} refused it ({text}): nothing was written");
                if passing { Error::Busy(format!("{text}; call again")) } else { Error::Store(text) }
            }
        }
    }

    fn said(&self, text: &str) -> Error {
        Error::Store(format!("{} {text}", self.link.address.shown))
    }

    fn damaged(&self) -> Error {
        self.said("has a row that was damaged or moved: restore it from a backup")
    }

    fn field<T: FromSqlOwned>(&self, row: &Row, at: usize) -> Result<T, Error> {
        row.try_get(at).map_err(|_| self.said("has tables of another shape than ours: restore it from a backup"))
    }

    fn store_id(&self) -> Result<StoreId, Error> {
        self.store_id.ok_or(Error::Closed)
    }

    /// The data keys that a batch is sealed with.
    fn sealed(&self, changes: &Changes) -> Result<Batch, Error> {
        let id = self.store_id()?;
        Batch::seal(self.backend, changes, &id, |account| {
            self.accounts.get(&account).map(|found| (found.shard, &found.data_key))
        })
    }

    /// Opens a row into `plain`; `None` where its account is not here (any more).
    fn opened(&self, row: &Row, plain: &mut Zeroizing<Vec<u8>>) -> Result<Option<Key>, Error> {
        let (Ok(key), Ok(body)) = (row.try_get::<_, &[u8]>(0), row.try_get::<_, &[u8]>(1)) else {
            return Err(self.damaged());
        };
        let key = Key::of_bytes(key).ok_or_else(|| self.damaged())?;
        let Some(account) = self.accounts.get(&key.account) else { return Ok(None) };
        sealed::open(&account.data_key, &self.store_id()?, Place::Row(key), body, plain).map_err(|_| self.damaged())?;
        Ok(Some(key))
    }

    /// The accounts of shards that are held, which can be read from here on.
    fn list(&mut self, shards: &[i32]) -> Result<Vec<(u32, String)>, Error> {
        let rows = self
            .link
            .ask(STORE_LONG_PATIENCE, async |up| up.client.query(&up.statements.accounts, &[&shards]).await)
            .map_err(|trouble| self.explain(trouble))?;
        let store_id = self.store_id()?;
        // Those of these shards that are not listed any more were deleted.
        let (mut known, others): (BTreeMap<u32, Account>, _) = std::mem::take(&mut self.accounts)
            .into_iter()
            .partition(|(_, account)| shards.contains(&(account.shard as i32)));
        self.accounts = others;
        let mut listed = Vec::with_capacity(rows.len());
        for row in rows {
            let (id, name, shard, wrapped) = (
                self.field::<i64>(&row, 0)?,
                self.field::<String>(&row, 1)?,
                self.field::<i32>(&row, 2)?,
                self.field::<Vec<u8>>(&row, 3)?,
            );
            let id = u32::try_from(id).map_err(|_| self.damaged())?;
            let account = match known.remove(&id) {
                Some(account) => account,
                None => {
                    let data_key =
                        sealed::unwrap(&self.operator_key, &store_id, id, &name, &wrapped).map_err(|_| {
                            Error::Store(format!(
                                "the data key of account {name} was damaged or moved: restore the store from a backup"
                            ))
                        })?;
                    Account { shard: shard as u32, data_key }
                }
            };
            self.accounts.insert(id, account);
            listed.push((id, name));
        }
        Ok(listed)
    }

    /// That these accounts can be read: rows of one that was lost would look as if they did not exist.
    fn check_here(&mut self, accounts: impl IntoIterator<Item = u32>) -> Result<(), Error> {
        let Self { accounts: here, lost, .. } = self;
        let mut all = true;
        for account in accounts {
            if !here.contains_key(&account) {
                lost.entry(account).or_insert(Loss::Stale);
                all = false;
            }
        }
        if all { Ok(()) } else { Err(Error::Busy("an account has to be read again: call again".into())) }
    }

    /// Writes what it can of a batch, and leaves the rest in `changes`: nothing in the end.
    fn write(&mut self, changes: &mut Changes) -> Result<(), Error> {
        let strangers = changes.accounts().into_iter().filter(|account| !self.accounts.contains_key(account)).collect();
        changes.leave_out(&strangers);
        for account in strangers {
            // Whoever asks is told in any case: a row that was left out must not pass for one that was written.
            self.lost.entry(account).or_insert(Loss::Stale);
        }
        if changes.is_empty() {
            return Ok(());
        }
        let batch = self.sealed(changes)?;
        let (shards, epochs, versions) = self.known(batch.shards());
        let parts = batch.parts();
        let patience = STORE_PATIENCE * u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let whole = parts.len() == 1;
        let done = self.link.ask(patience, async |up| {
            let Some((first, rest)) = parts.split_first() else { return Ok(Vec::new()) };
            if !whole {
                up.client.batch_execute("BEGIN").await?;
            }
            let statement = &up.statements.commit;
            let rows = up
                .client
                .query(
                    statement,
                    &[
                        &shards,
                        &epochs,
                        &versions,
                        &first.put_shards,
                        &first.put_keys,
                        &first.bodies,
                        &first.gone_shards,
                        &first.gone_keys,
                    ],
                )
                .await?;
            if whole {
                return Ok(rows);
            }
            if rows.len() < shards.len() {
                up.client.batch_execute("ROLLBACK").await?;
                return Ok(rows);
            }
            for part in rest {
                if !part.put_keys.is_empty() {
                    up.client.execute(&up.statements.put, &[&part.put_keys, &part.bodies]).await?;
                }
                if !part.gone_keys.is_empty() {
                    up.client.execute(&up.statements.delete, &[&part.gone_keys]).await?;
                }
            }
            up.client.batch_execute("COMMIT").await?;
            Ok(rows)
        });
        let rows = match done {
            Ok(rows) => rows,
            Err(trouble) => {
                match trouble {
                    Trouble::Broken(_) => self.doubt(batch.shards(), changes.accounts()),
                    Trouble::Refused(..) if !whole => self.link.give_up("a transaction failed"),
                    Trouble::Refused(..) => {}
                }
                return Err(self.explain(trouble));
            }
        };
        let kept = rows
            .iter()
            .map(|row| Ok((self.field::<i32>(row, 0)?, self.field::<Option<String>>(row, 1)?)))
            .collect::<Result<BTreeMap<_, _>, Error>>()?;
        let lost: Vec<u32> = batch.shards().filter(|&shard| !kept.contains_key(&(shard as i32))).collect();
        let rolled_back = !whole && !lost.is_empty();
        if !rolled_back {
            for (shard, wanted) in &kept {
                self.count_commit(*shard as u32, wanted.as_deref());
            }
        }
        self.find_out(&lost);
        if rolled_back {
            return Ok(());
        }
        *changes = Changes::default();
        Ok(())
    }
}

impl Store for PostgresStore {
    fn durable(&self) -> bool {
        true
    }

    fn runs_on(&mut self, backend: Backend) {
        self.backend = backend;
    }

    fn shared(&self) -> bool {
        true
    }

    fn accounts(&mut self) -> Result<Vec<(u32, String)>, Error> {
        self.ready()?;
        if self.link.address.taking == Taking::Nothing {
            return Ok(Vec::new());
        }
        // What was taken away from this engine is not for it to take back, unless it is assigned to it.
        let free = self.link.address.taking == Taking::Free;
        let others = (0..SHARDS).filter(|&shard| self.holds[shard as usize].is_none());
        let (anew, again): (Vec<u32>, Vec<u32>) = others.partition(|&shard| free && !self.drained[shard as usize]);
        self.take(&anew, Whose { nobodys: true, ..Whose::default() })?;
        self.take(&again, Whose::default())?;
        self.hand_over()?;
        let held: Vec<i32> = self.held().map(|shard| shard as i32).collect();
        self.list(&held)
    }

    fn lost(&mut self) -> Vec<(u32, Loss)> {
        std::mem::take(&mut self.lost).into_iter().collect()
    }

    fn confirm(&mut self) -> Result<(), Error> {
        self.ready()?;
        self.confirm_held()
    }

    fn elsewhere(&mut self, name: &str) -> Result<Option<String>, Error> {
        check_text(name)?;
        self.ready()?;
        let instance = self.instance;
        let found = self
            .link
            .ask(STORE_PATIENCE, async |up| up.client.query_opt(&up.statements.whose, &[&name, &instance]).await)
            .map_err(|trouble| self.explain(trouble))?;
        let Some(row) = found else { return Ok(None) };
        let (shard, taken) = (self.field::<i32>(&row, 0)? as u32, self.field::<bool>(&row, 1)?);
        if self.holds.get(shard as usize).is_some_and(Option::is_some) {
            return Ok(None);
        }
        let listed = self.shards()?;
        let Some(shard) = listed.into_iter().find(|found| found.number == shard && shard < SHARDS) else {
            return Err(self.damaged());
        };
        // What nobody has, or is this engine's to take, comes with the next look.
        let ours = shard.engine == self.link.address.engine && (taken || !shard.serving);
        let drained = self.drained[shard.number as usize];
        let free = shard.engine.is_empty() && self.link.address.taking == Taking::Free && !drained;
        let whole = shard.lost_from == 0;
        Ok((!(ours || free) || !whole).then(|| shards::whose(name, &shard)))
    }

    fn shards(&mut self) -> Result<Vec<Shard>, Error> {
        self.ready()?;
        let rows = self
            .link
            .ask(STORE_PATIENCE, async |up| up.client.query(&up.statements.shards, &[]).await)
            .map_err(|trouble| self.explain(trouble))?;
        rows.iter()
            .map(|row| {
                Ok(Shard {
                    number: self.field::<i32>(row, 0)? as u32,
                    epoch: self.field::<i64>(row, 1)? as u64,
                    version: self.field::<i64>(row, 2)? as u64,
                    engine: self.field(row, 3)?,
                    serving: self.field::<i64>(row, 4)? != 0,
                    wanted: self.field(row, 5)?,
                    lost_from: self.field::<i64>(row, 6)? as u64,
                    accounts: self.field::<i64>(row, 7)? as u64,
                })
            })
            .collect()
    }

    fn move_shards(&mut self, shards: &[u32], to: &str, force: bool) -> Result<(), Error> {
        check_shards(shards)?;
        if !to.is_empty() {
            address::check_engine(to)?;
        }
        self.ready()?;
        let shards: Vec<i32> = shards.iter().map(|&shard| shard as i32).collect();
        self.link
            .ask(STORE_PATIENCE, async |up| up.client.execute(&up.statements.moving, &[&shards, &to, &force]).await)
            .map(drop)
            .map_err(|trouble| self.explain(trouble))
    }

    fn create_account(&mut self, name: &str, changes: &mut dyn FnMut(u32) -> Changes) -> Result<u32, Error> {
        check_text(name)?;
        self.ready()?;
        let shard = shard_of(name);
        if self.holds[shard as usize].is_none() {
            let listed = self.shards()?;
            let Some(shard) = listed.into_iter().find(|found| found.number == shard) else {
                return Err(self.damaged());
            };
            return Err(Error::Store(shards::whose(name, &shard)));
        }
        let number = self
            .link
            .ask(STORE_PATIENCE, async |up| up.client.query_opt(&up.statements.number, &[]).await)
            .map_err(|trouble| self.explain(trouble))?
            .ok_or_else(super::no_account_numbers)?;
        let account = u32::try_from(self.field::<i64>(&number, 0)?).map_err(|_| super::no_account_numbers())?;
        let store_id = self.store_id()?;
        let mut data_key = Secret::default();
        sealed::random(data_key.expose_mut())?;
        let wrapped = sealed::wrap(&self.operator_key, &store_id, account, name, &data_key)?;
        let changes = changes(account);
        super::check_accounts(changes.accounts(), |found| found == account)?;
        let batch = Batch::seal(self.backend, &changes, &store_id, |_| Some((shard, &data_key)))?;
        let (shards, epochs, versions) = self.known([shard].into_iter());
        let rows = batch.all();
        let (id, patience) = (i64::from(account), STORE_PATIENCE * u32::try_from(batch.parts().len()).unwrap_or(1));
        let made = self.link.ask(patience, async |up| {
            let statement = &up.statements.create;
            let all = (&shards, &epochs, &versions, &id, &name, &wrapped, &rows.put_keys, &rows.bodies);
            up.client.query_one(statement, &[all.0, all.1, all.2, all.3, all.4, all.5, all.6, all.7]).await
        });
        let made = match made {
            Ok(row) => (self.field::<i64>(&row, 0)?, self.field::<i64>(&row, 1)?),
            Err(trouble) => {
                if matches!(trouble, Trouble::Broken(_)) {
                    self.doubt([shard].into_iter(), []);
                }
                return Err(self.explain(trouble));
            }
        };
        if made.0 == 0 {
            self.find_out(&[shard]);
            return Err(Error::Busy(format!("shard {shard} has just changed hands: call again")));
        }
        self.count_commit(shard, None);
        if made.1 == 0 {
            return Err(super::account_exists(name));
        }
        self.accounts.insert(account, Account { shard, data_key });
        Ok(account)
    }

    fn delete_account(&mut self, account: u32) -> Result<(), Error> {
        self.ready()?;
        let shard = self.accounts.get(&account).ok_or_else(|| super::no_account(account))?.shard;
        let (shards, epochs, versions) = self.known([shard].into_iter());
        let [first, last] = Key::bounds(&account.to_be_bytes());
        let (id, first, last) = (i64::from(account), &first[..], &last[..]);
        let deleted = self.link.ask(STORE_LONG_PATIENCE, async |up| {
            let statement = &up.statements.delete_account;
            up.client.query_one(statement, &[&shards, &epochs, &versions, &id, &first, &last]).await
        });
        let deleted = match deleted {
            Ok(row) => (self.field::<i64>(&row, 0)?, self.field::<i64>(&row, 1)?),
            Err(trouble) => {
                if matches!(trouble, Trouble::Broken(_)) {
                    self.doubt([shard].into_iter(), [account]);
                }
                return Err(self.explain(trouble));
            }
        };
        if deleted.0 == 0 {
            self.find_out(&[shard]);
            return Err(Error::Busy(format!("shard {shard} has just changed hands: call again")));
        }
        self.count_commit(shard, None);
        self.accounts.remove(&account);
        if deleted.1 == 0 { Err(super::no_account(account)) } else { Ok(()) }
    }

    fn load(&mut self, keys: &[Key], found: FoundAt<'_>) -> Result<(), Error> {
        self.ready()?;
        self.check_here(keys.iter().map(|key| key.account))?;
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_unstable_by_key(|&at| keys[at]);
        let mut plain = Zeroizing::default();
        for part in order.chunks(STATEMENT_ROWS) {
            let bytes: Vec<[u8; 21]> = part.iter().map(|&at| keys[at].to_bytes()).collect();
            let wanted: Vec<&[u8]> = bytes.iter().map(|key| &key[..]).collect();
            let rows = self
                .link
                .ask(STORE_PATIENCE, async |up| up.client.query(&up.statements.load, &[&wanted]).await)
                .map_err(|trouble| self.explain(trouble))?;
            for row in rows {
                let Some(key) = self.opened(&row, &mut plain)? else { continue };
                let begin = part.partition_point(|&at| keys[at] < key);
                for &at in part[begin..].iter().take_while(|&&at| keys[at] == key) {
                    found(at, &plain)?;
                }
            }
        }
        Ok(())
    }

    fn scan(&mut self, account: u32, kind: Kind, found: FoundTag<'_>) -> Result<(), Error> {
        self.ready()?;
        self.check_here([account])?;
        let [first, last] = Key::bounds(&[&account.to_be_bytes()[..], &[kind as u8]].concat());
        let mut last_seen = first.to_vec();
        // The first key is excluded where pages follow one another, and the key of all zeros is one of ours.
        let mut begin = true;
        let mut plain = Zeroizing::default();
        loop {
            let (after, until, limit) = (&last_seen[..], &last[..], STATEMENT_ROWS as i64);
            let rows = self
                .link
                .ask(STORE_PATIENCE, async |up| {
                    up.client.query(&up.statements.scan, &[&after, &begin, &until, &limit]).await
                })
                .map_err(|trouble| self.explain(trouble))?;
            begin = false;
            for row in &rows {
                if let Some(key) = self.opened(row, &mut plain)? {
                    found(key.tag, &plain)?;
                }
            }
            match rows.last() {
                Some(row) if rows.len() == STATEMENT_ROWS => last_seen = self.field(row, 0)?,
                _ => return Ok(()),
            }
        }
    }

    fn scan_all(&mut self, accounts: &[u32], kind: Kind, found: FoundKey<'_>) -> Result<(), Error> {
        self.ready()?;
        self.check_here(accounts.iter().copied())?;
        let mut plain = Zeroizing::default();
        for part in accounts.chunks(STATEMENT_ROWS) {
            let (first, last) = ranges(part, kind);
            let (first, last): (Vec<&[u8]>, Vec<&[u8]>) =
                (first.iter().map(|key| &key[..]).collect(), last.iter().map(|key| &key[..]).collect());
            let rows = self
                .link
                .ask(STORE_LONG_PATIENCE, async |up| up.client.query(&up.statements.scan_all, &[&first, &last]).await)
                .map_err(|trouble| self.explain(trouble))?;
            for row in rows {
                if let Some(key) = self.opened(&row, &mut plain)? {
                    found(key, &plain)?;
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, accounts: &[u32], kind: Kind) -> Result<Vec<(u32, u32)>, Error> {
        self.ready()?;
        self.check_here(accounts.iter().copied())?;
        let mut counts = Vec::with_capacity(accounts.len());
        for part in accounts.chunks(STATEMENT_ROWS) {
            let ids: Vec<i64> = part.iter().map(|&account| i64::from(account)).collect();
            let (first, last) = ranges(part, kind);
            let (first, last): (Vec<&[u8]>, Vec<&[u8]>) =
                (first.iter().map(|key| &key[..]).collect(), last.iter().map(|key| &key[..]).collect());
            let rows = self
                .link
                .ask(STORE_LONG_PATIENCE, async |up| {
                    up.client.query(&up.statements.count, &[&ids, &first, &last]).await
                })
                .map_err(|trouble| self.explain(trouble))?;
            for row in rows {
                let (account, count) = (self.field::<i64>(&row, 0)?, self.field::<i64>(&row, 1)?);
                counts.push((account as u32, u32::try_from(count).unwrap_or(u32::MAX)));
            }
        }
        Ok(counts)
    }

    fn commit(&mut self, mut changes: Changes) -> Result<(), Error> {
        self.ready()?;
        self.hand_over()?;
        while !changes.is_empty() {
            self.write(&mut changes)?;
        }
        Ok(())
    }

    fn declare_shards(&mut self, shards: &[u32], force: bool, anew: StartAnew<'_>) -> Result<(), Error> {
        check_shards(shards)?;
        self.ready()?;
        let served = |shard: &Shard| shard.serving && shard.lost_from == 0 && shards.contains(&shard.number);
        if !force && let Some(Shard { number, engine, .. }) = self.shards()?.into_iter().find(served) {
            return Err(Error::Malformed(format!(
                "shard {number} has lost nothing that is known of, and engine {engine} serves it: stop that engine \
                 before another state of its store is declared"
            )));
        }
        let declared = self
            .take_lost(shards, force)
            .and_then(|accounts| anew(self, &accounts))
            .and_then(|()| self.declare_taken(shards));
        // Also where it failed: they are refused then, as before.
        for &shard in shards {
            self.lose(shard, Loss::Stale);
        }
        declared
    }

    fn size_bytes(&mut self) -> Result<u64, Error> {
        self.ready()?;
        let size = self.link.ask(STORE_PATIENCE, async |up| up.client.query_one(statements::SIZE, &[]).await);
        match size {
            Ok(row) => Ok(self.field::<i64>(&row, 0)?.unsigned_abs()),
            Err(Trouble::Refused(..)) => Ok(0),
            Err(trouble) => Err(self.explain(trouble)),
        }
    }

    fn close(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.closed, true) {
            return Err(Error::Closed);
        }
        self.accounts.clear();
        // Where there is no connection, the shards stay with this engine's name: it has them again when it comes back.
        if self.link.is_up() {
            self.release();
        }
        self.link.give_up("the store is closed");
        Ok(())
    }
}

/// The first and the last key of one kind, for each account.
fn ranges(accounts: &[u32], kind: Kind) -> (Vec<[u8; 21]>, Vec<[u8; 21]>) {
    accounts
        .iter()
        .map(|account| {
            let [first, last] = Key::bounds(&[&account.to_be_bytes()[..], &[kind as u8]].concat());
            (first, last)
        })
        .unzip()
}

fn check_shards(shards: &[u32]) -> Result<(), Error> {
    match shards.iter().find(|&&shard| shard >= SHARDS) {
        Some(shard) => Err(Error::Malformed(format!("shards: {shard}; the last one is {}", SHARDS - 1))),
        None => Ok(()),
    }
}

/// PostgreSQL's text has no zero byte.
fn check_text(name: &str) -> Result<(), Error> {
    if name.contains('\0') {
        return Err(Error::Malformed("an account name has a zero byte: this store takes none".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
