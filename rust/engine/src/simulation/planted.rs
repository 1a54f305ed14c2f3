//! Faults that the simulation has to find: stores that do not keep their word.

use crate::error::Error;
use crate::store::{Changes, FoundAt, FoundTag, Key, Kind, Loss, Shard, Store};

/// How a store breaks its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    /// Chains' leases are not written, though it says so.
    UnwrittenLeases,
    /// Every so many commits one is forgotten, though it says that it is durable.
    LostCommits(u32),
    /// Plaintexts of the receive buffer are not kept.
    UnkeptPlaintexts,
}

/// A store that passes everything on, but for what is planted.
pub(super) struct Untrue {
    store: Box<dyn Store>,
    planted: Planted,
    commits: u32,
}

impl Untrue {
    pub(super) fn new(store: Box<dyn Store>, planted: Planted) -> Self {
        Self { store, planted, commits: 0 }
    }
}

impl Store for Untrue {
    fn durable(&self) -> bool {
        self.store.durable()
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

    fn scan(&mut self, account: u32, kind: Kind, found: FoundTag<'_>) -> Result<(), Error> {
        self.store.scan(account, kind, found)
    }

    fn commit(&mut self, changes: Changes) -> Result<(), Error> {
        self.commits += 1;
        let mut kept = Changes::default();
        let mut every = changes.iter().peekable();
        let lost = match self.planted {
            Planted::UnwrittenLeases => changes.iter().all(|(key, _)| key.kind == Kind::Sending),
            Planted::LostCommits(each) => self.commits.is_multiple_of(each),
            Planted::UnkeptPlaintexts => false,
        };
        if lost && every.peek().is_some() {
            return Ok(());
        }
        for (key, body) in every {
            match body {
                Some(_) if self.planted == Planted::UnkeptPlaintexts && key.kind == Kind::Buffered => {}
                Some(body) => {
                    kept.reserve(body.len());
                    kept.put(key, |bytes| bytes.extend_from_slice(body));
                }
                None => kept.delete(key),
            }
        }
        self.store.commit(kept)
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
