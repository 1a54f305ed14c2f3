//! Backups, and what becomes of one that is put in a store's place.
//!
//! Nobody knows what a store sent after it was copied. So nothing that the copy could send with is used again: sending
//! chains are burnt, which an answer's turn of the ratchet or a new session replaces, our sender keys are dropped, and
//! prekey ids are left out. What was received after the copy may be received again.

use std::path::Path;
use std::sync::Arc;

use interlane_lanes::Backend;

use super::accounts::Account;
use super::engine::{Engine, Options};
use super::records::{self, Dirty, PEER_KINDS, PeerRows, SenderKeyRecord};
use crate::error::Error;
use crate::ratchet::Peer;
use crate::store::sqlite::SqliteStore;
use crate::store::{self, Changes, Key, Kind as RowKind, Store};

/// Peers whose rows are read and written together.
const AT_ONCE: usize = 1_000;

/// What a restored store had to give up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Accounts in it.
    pub accounts: u64,
    /// Peers to whom nothing is sent before they answer, or a new session is started.
    pub peers: u64,
    /// Our sender keys that were dropped.
    pub sender_keys: u64,
}

impl Restored {
    fn add(&mut self, part: Self) {
        self.accounts += part.accounts;
        self.peers += part.peers;
        self.sender_keys += part.sender_keys;
    }
}

/// Copies the store at `from`, also while an engine has it open, to the file `to`.
///
/// # Errors
/// [`Error::Store`]: there is no store at `from`, or something at `to`.
pub fn backup(from: &Path, to: &Path) -> Result<(), Error> {
    store::backup::backup(from, to)
}

impl Engine {
    /// Declares that the copy which was put in a store's place is the store from here on. `newest`: nothing was sent
    /// since it was copied, so that it goes on where it is; else it starts new chains.
    ///
    /// # Errors
    /// [`Error::Store`] as [`Engine::open`]. Until this has succeeded the store is refused.
    pub fn restore(options: Options, newest: bool) -> Result<Restored, Error> {
        let engine = Self::open_as(options, SqliteStore::open_copy)?;
        let mut restored = Restored { accounts: engine.accounts()?.len() as u64, ..Restored::default() };
        if !newest {
            for account in engine.all_accounts() {
                restored.add(start_anew(engine.store().as_mut(), engine.backend(), &account)?);
            }
        }
        engine.store().declare()?;
        engine.close()?;
        Ok(restored)
    }

    /// Declares that what the server of a shared store has of these shards is the newest state there is: commits that it
    /// had acknowledged are gone. No chain that was stored is used again, as after [`Self::restore`]. Then the shards wait
    /// for the engines that they are assigned to. `force`: also shards that engines serve and nothing is known to be
    /// missing of, as a copy shows that was put in the server's place.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a store with one owner, a shard that is none, or one that an engine serves;
    /// [`Error::Busy`], [`Error::Store`]: until this has succeeded, the shards are refused.
    pub fn declare_shards(&self, shards: &[u32], force: bool) -> Result<Restored, Error> {
        self.may_be_called()?;
        let mut restored = Restored::default();
        let mut store = self.store();
        let declared = store.declare_shards(shards, force, &mut |store, listed| {
            restored.accounts = listed.len() as u64;
            for account in Account::load(store, self.backend, listed)? {
                restored.add(start_anew(store, self.backend, &account)?);
            }
            Ok(())
        });
        self.note_lost(store.as_mut());
        declared.map(|()| restored)
    }
}

/// Leaves nothing to an account that may have been used since its rows were written.
fn start_anew(store: &mut dyn Store, backend: Backend, account: &Account) -> Result<Restored, Error> {
    let mut changes = Changes::default();
    account.skip_ids(&mut changes);
    let sender_keys = drop_sender_keys(store, account.id, &mut changes)?;
    store.commit(changes)?;
    Ok(Restored { accounts: 0, peers: burn_chains(store, backend, account.id)?, sender_keys })
}

fn drop_sender_keys(store: &mut dyn Store, account: u32, changes: &mut Changes) -> Result<u64, Error> {
    let mut ours = Vec::new();
    store.scan(account, RowKind::SenderKey, &mut |tag, body| {
        if let SenderKeyRecord::Own(Some(_)) = records::get(body)? {
            ours.push(tag);
        }
        Ok(())
    })?;
    for &tag in &ours {
        records::put(changes, Key { account, kind: RowKind::SenderKey, tag }, &SenderKeyRecord::Own(None));
        changes.delete(Key { account, kind: RowKind::Holders, tag });
    }
    Ok(ours.len() as u64)
}

fn burn_chains(store: &mut dyn Store, backend: Backend, account: u32) -> Result<u64, Error> {
    let mut tags = Vec::new();
    store.scan(account, RowKind::Peer, &mut |tag, _| {
        tags.push(tag);
        Ok(())
    })?;
    let mut burnt = 0;
    for tags in tags.chunks(AT_ONCE) {
        let places: Vec<Key> = tags.iter().flat_map(|&tag| PEER_KINDS.map(|kind| Key { account, kind, tag })).collect();
        let mut rows: Vec<PeerRows> = tags.iter().map(|_| PeerRows::default()).collect();
        let mut found =
            |at: usize, body: &[u8]| rows[at / PEER_KINDS.len()].add(PEER_KINDS[at % PEER_KINDS.len()], body);
        store.fetch(&places, &mut found)?.open(backend, &mut found)?;
        let mut changes = Changes::default();
        for (&tag, rows) in tags.iter().zip(&mut rows) {
            let mut peer = rows.finish()?;
            let dirty = Dirty { identity: false, current: peer.current.is_some(), archived: !peer.archived.is_empty() };
            burn(&mut peer);
            burnt += u64::from(dirty.current || dirty.archived);
            records::put_peer(&mut changes, Key { account, kind: RowKind::Peer, tag }, dirty, "", &mut peer, None);
        }
        store.commit(changes)?;
    }
    Ok(burnt)
}

fn burn(peer: &mut Peer) {
    if let Some(session) = &mut peer.current {
        session.sending = session.sending.burnt();
    }
    for session in &mut peer.archived {
        *session = Arc::new(session.burnt());
    }
}
