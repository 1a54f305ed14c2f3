//! Tests: a store that passes everything on, but for what is done with a commit.

use interlane_lanes::Backend;

use super::{Changes, FoundAt, FoundKey, FoundTag, Key, Kind, Loss, Shard, StartAnew, Store, Unopened};
use crate::error::Error;

/// What becomes of a commit.
type Commit = Box<dyn FnMut(&mut dyn Store, Changes) -> Result<(), Error> + Send>;

/// A store over another.
pub(crate) struct Passing {
    store: Box<dyn Store>,
    commit: Commit,
}

impl Passing {
    pub(crate) fn over(
        store: Box<dyn Store>,
        commit: impl FnMut(&mut dyn Store, Changes) -> Result<(), Error> + Send + 'static,
    ) -> Box<dyn Store> {
        Box::new(Self { store, commit: Box::new(commit) })
    }
}

impl Store for Passing {
    fn durable(&self) -> bool {
        self.store.durable()
    }

    fn runs_on(&mut self, backend: Backend) {
        self.store.runs_on(backend);
    }

    fn accounts(&mut self) -> Result<Vec<(u32, String)>, Error> {
        self.store.accounts()
    }

    fn shared(&self) -> bool {
        self.store.shared()
    }

    fn lost(&mut self) -> Vec<(u32, Loss)> {
        self.store.lost()
    }

    fn confirm(&mut self) -> Result<(), Error> {
        self.store.confirm()
    }

    fn elsewhere(&mut self, name: &str) -> Result<Option<String>, Error> {
        self.store.elsewhere(name)
    }

    fn shards(&mut self) -> Result<Vec<Shard>, Error> {
        self.store.shards()
    }

    fn move_shards(&mut self, shards: &[u32], to: &str, force: bool) -> Result<(), Error> {
        self.store.move_shards(shards, to, force)
    }

    fn create_account(&mut self, name: &str, changes: &mut dyn FnMut(u32) -> Changes) -> Result<u32, Error> {
        self.store.create_account(name, changes)
    }

    fn delete_account(&mut self, account: u32) -> Result<(), Error> {
        self.store.delete_account(account)
    }

    fn load(&mut self, keys: &[Key], found: FoundAt<'_>) -> Result<(), Error> {
        self.store.load(keys, found)
    }

    fn fetch(&mut self, keys: &[Key], found: FoundAt<'_>) -> Result<Unopened, Error> {
        self.store.fetch(keys, found)
    }

    fn scan(&mut self, account: u32, kind: Kind, found: FoundTag<'_>) -> Result<(), Error> {
        self.store.scan(account, kind, found)
    }

    fn scan_all(&mut self, accounts: &[u32], kind: Kind, found: FoundKey<'_>) -> Result<(), Error> {
        self.store.scan_all(accounts, kind, found)
    }

    fn count(&mut self, accounts: &[u32], kind: Kind) -> Result<Vec<(u32, u32)>, Error> {
        self.store.count(accounts, kind)
    }

    fn commit(&mut self, changes: Changes) -> Result<(), Error> {
        (self.commit)(self.store.as_mut(), changes)
    }

    fn declare_shards(&mut self, shards: &[u32], force: bool, anew: StartAnew<'_>) -> Result<(), Error> {
        self.store.declare_shards(shards, force, anew)
    }

    fn declare(&mut self) -> Result<(), Error> {
        self.store.declare()
    }

    fn size_bytes(&mut self) -> Result<u64, Error> {
        self.store.size_bytes()
    }

    fn close(&mut self) -> Result<(), Error> {
        self.store.close()
    }
}
