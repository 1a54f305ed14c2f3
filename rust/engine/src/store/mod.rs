//! Where state outlives the process. A store keeps sealed rows under keys and commits batches of changes; what is in
//! a row is the engine's affair.

use std::collections::BTreeSet;

use interlane_lanes::Backend;

pub(crate) use self::sqlite::Unopened;
use crate::bytes::Bytes;
use crate::error::Error;

pub(crate) mod backup;
#[cfg(test)]
mod contract;
mod generation;
pub(crate) mod memory;
#[cfg(test)]
pub(crate) mod passing;
pub(crate) mod postgres;
pub(crate) mod sealed;
#[cfg(test)]
pub(crate) mod simulated;
pub(crate) mod sqlite;
mod unfolded;

/// Room that [`Changes::put`] gives a row before it is written: more than all but the rarest rows take.
const ROOM_FOR_A_ROW: usize = 4_096;

/// What a row holds; its number is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The account's identity and counters; its tag is zero.
    Account = 1,
    /// A signed prekey; its tag begins with the id.
    SignedPrekey = 2,
    /// A one-time prekey; its tag begins with the id.
    OneTimePrekey = 3,
    /// A peer: address and trusted identity.
    Peer = 4,
    /// A peer's current session, but for the keys of the two below.
    Session = 5,
    /// A peer's archived sessions.
    Archive = 6,
    /// The sending chain's newest key.
    Sending = 7,
    /// The newest receiving chain's newest key.
    Receiving = 8,
    /// A sender key, ours or a peer's.
    SenderKey = 9,
    /// Who has our sender key.
    Holders = 10,
    /// A plaintext that was given out and not acknowledged, or what opens its frame.
    Buffered = 11,
}

impl Kind {
    /// All of them, in the order of their numbers, which begin at 1.
    pub(crate) const ALL: [Self; 11] = [
        Self::Account,
        Self::SignedPrekey,
        Self::OneTimePrekey,
        Self::Peer,
        Self::Session,
        Self::Archive,
        Self::Sending,
        Self::Receiving,
        Self::SenderKey,
        Self::Holders,
        Self::Buffered,
    ];

    /// Those that a peer is made of. They have one tag, and are wanted together.
    pub(crate) const OF_A_PEER: [Self; 5] = [Self::Peer, Self::Session, Self::Archive, Self::Sending, Self::Receiving];

    /// The kind of this number.
    fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// The place of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) account: u32,
    pub(crate) kind: Kind,
    pub(crate) tag: [u8; 16],
}

impl Key {
    /// The key on disk: account (big-endian) ‖ kind ‖ tag, so that bytes sort as keys do.
    fn to_bytes(self) -> [u8; 21] {
        let mut bytes = [0; 21];
        bytes[..4].copy_from_slice(&self.account.to_be_bytes());
        bytes[4] = self.kind as u8;
        bytes[5..].copy_from_slice(&self.tag);
        bytes
    }

    /// The first and the last key of those whose bytes begin so.
    fn bounds(prefix: &[u8]) -> [[u8; 21]; 2] {
        [0, 255].map(|filling| {
            let mut key = [filling; 21];
            key[..prefix.len()].copy_from_slice(prefix);
            key
        })
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (account, rest) = bytes.split_first_chunk()?;
        let (&kind, tag) = rest.split_first()?;
        Some(Self { account: u32::from_be_bytes(*account), kind: Kind::of_number(kind)?, tag: tag.try_into().ok()? })
    }
}

/// What one batch writes: rows to put and to delete, their bytes in one buffer that is zeroed when dropped.
#[derive(Default)]
pub(crate) struct Changes {
    rows: Vec<(Key, Change)>,
    bytes: Bytes,
}

/// One row's change: where its new body lies in the bytes, or that it goes.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// `new`: as [`Body::New`].
    Put {
        start: usize,
        end: usize,
        new: bool,
    },
    Delete,
}

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    /// It has this body.
    Is(&'a [u8]),
    /// The same, and the store has no row of this key.
    New(&'a [u8]),
    /// It goes.
    Gone,
}

impl<'a> Body<'a> {
    /// The body, if there is one.
    fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Is(body) | Self::New(body) => Some(body),
            Self::Gone => None,
        }
    }
}

impl Changes {
    /// Makes room for a body.
    pub(crate) fn reserve(&mut self, body: usize) {
        self.bytes.reserve(body);
    }

    /// Makes room for so many rows more and their bodies.
    pub(crate) fn reserve_rows(&mut self, rows: usize, bodies: usize) {
        self.rows.reserve(rows);
        self.bytes.reserve(bodies + ROOM_FOR_A_ROW);
    }

    /// Puts a row whose body `write` appends to the buffer; [`Self::reserve`] first.
    pub(crate) fn put(&mut self, key: Key, write: impl FnOnce(&mut Vec<u8>)) {
        self.put_as(key, false, write);
    }

    /// Puts a row of which the store has none: where it goes again soon, it need not have been in the table at all.
    pub(crate) fn put_new(&mut self, key: Key, write: impl FnOnce(&mut Vec<u8>)) {
        self.put_as(key, true, write);
    }

    fn put_as(&mut self, key: Key, new: bool, write: impl FnOnce(&mut Vec<u8>)) {
        self.reserve(ROOM_FOR_A_ROW);
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.rows.push((key, Change::Put { start, end: self.bytes.len(), new }));
    }

    /// Deletes a row; it need not exist.
    pub(crate) fn delete(&mut self, key: Key) {
        self.rows.push((key, Change::Delete));
    }

    /// Deletes rows before all that is here.
    pub(crate) fn delete_before(&mut self, keys: &[Key]) {
        self.rows.splice(0..0, keys.iter().map(|&key| (key, Change::Delete)));
    }

    /// Adds another part's changes behind these.
    pub(crate) fn append(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        let base = self.bytes.len();
        self.reserve(other.bytes.len());
        self.bytes.extend_from_slice(&other.bytes);
        self.rows.extend(other.rows.into_iter().map(|(key, change)| match change {
            Change::Put { start, end, new } => (key, Change::Put { start: base + start, end: base + end, new }),
            Change::Delete => (key, Change::Delete),
        }));
    }

    /// The changes in order; of two for one key the later one holds.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, Option<&[u8]>)> {
        self.bodies().map(|(key, body)| (key, body.bytes()))
    }

    /// The same, and which of the rows are new.
    fn bodies(&self) -> impl Iterator<Item = (Key, Body<'_>)> {
        self.rows.iter().map(|&(key, change)| match change {
            Change::Put { start, end, new: false } => (key, Body::Is(&self.bytes[start..end])),
            Change::Put { start, end, new: true } => (key, Body::New(&self.bytes[start..end])),
            Change::Delete => (key, Body::Gone),
        })
    }

    /// The accounts whose rows are changed, each once.
    pub(crate) fn accounts(&self) -> BTreeSet<u32> {
        let mut accounts = BTreeSet::new();
        let mut last = None;
        for (key, _) in &self.rows {
            if last.replace(key.account) != Some(key.account) {
                accounts.insert(key.account);
            }
        }
        accounts
    }

    /// Leaves out the changes to rows of some accounts.
    pub(crate) fn leave_out(&mut self, accounts: &BTreeSet<u32>) {
        self.rows.retain(|(key, _)| !accounts.contains(&key.account));
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// Takes a row that was looked up: the place of its key among those asked for, and its body.
pub(crate) type FoundAt<'a> = &'a mut dyn FnMut(usize, &[u8]) -> Result<(), Error>;

/// Takes a row of a scan: its tag and its body.
pub(crate) type FoundTag<'a> = &'a mut dyn FnMut([u8; 16], &[u8]) -> Result<(), Error>;

/// Takes a row of a scan over several accounts: its key and its body.
pub(crate) type FoundKey<'a> = &'a mut dyn FnMut(Key, &[u8]) -> Result<(), Error>;

/// Leaves nothing to accounts that may have been used since their rows were written.
pub(crate) type StartAnew<'a> = &'a mut dyn FnMut(&mut dyn Store, &[(u32, String)]) -> Result<(), Error>;

/// Why an account cannot be written to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Another owner has its shard.
    Moved,
    /// What memory holds of it may not be what is stored: it is to be read again.
    Stale,
}

/// A store has one owner, or several that share its accounts out among them by shards. Its methods are called one at
/// a time.
pub(crate) trait Store: Send {
    /// Whether what is committed outlives the process. Where not, the engine keeps sessions in memory alone.
    fn durable(&self) -> bool;

    /// What is to run the store's own crypto, from here on.
    fn runs_on(&mut self, _backend: Backend) {}

    /// Every account that is this owner's, by its number. Where a store is shared, this takes what came free or was
    /// handed over meanwhile.
    fn accounts(&mut self) -> Result<Vec<(u32, String)>, Error>;

    /// Whether the store may have other owners. What follows here matters only then.
    fn shared(&self) -> bool {
        false
    }

    /// Accounts that ceased to be this owner's, or whose memory is void, since this was last asked. A commit writes
    /// nothing of them.
    fn lost(&mut self) -> Vec<(u32, Loss)> {
        Vec::new()
    }

    /// Asks whether what is held is still held, by a commit of its own that is durable when this returns: a server that
    /// was replaced does not answer for the one in its place. What is not held any more, or is to be given up,
    /// [`Self::lost`] names.
    fn confirm(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Whose the account of this name is, if there is one and another owner has it: told in words.
    fn elsewhere(&mut self, _name: &str) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// Every shard, and who has it.
    fn shards(&mut self) -> Result<Vec<Shard>, Error> {
        Err(one_owner())
    }

    /// Gives shards to an owner: at once (`force`), or by asking those that have them.
    fn move_shards(&mut self, _shards: &[u32], _to: &str, _force: bool) -> Result<(), Error> {
        Err(one_owner())
    }

    /// Makes an account with a data key of its own and, in the same transaction, writes its first rows. `changes`
    /// is given the new number.
    fn create_account(&mut self, name: &str, changes: &mut dyn FnMut(u32) -> Changes) -> Result<u32, Error>;

    /// Deletes an account: its data key, and every row of it.
    fn delete_account(&mut self, account: u32) -> Result<(), Error>;

    /// Looks up many rows in one query: `found(i, body)` for each of `keys` that exists, in any order.
    fn load(&mut self, keys: &[Key], found: FoundAt<'_>) -> Result<(), Error>;

    /// Looks up many rows as [`Self::load`] does, but leaves those that are sealed for the caller to open, when the store's
    /// turn has ended: `found` is given the others.
    fn fetch(&mut self, keys: &[Key], found: FoundAt<'_>) -> Result<Unopened, Error> {
        self.load(keys, found)?;
        Ok(Unopened::default())
    }

    /// Every row of one kind. Of an account that is not this owner's there is nothing to be had; a shared store answers
    /// [`Error::Busy`] then, here and wherever it reads, and [`Self::lost`] names the account.
    fn scan(&mut self, account: u32, kind: Kind, found: FoundTag<'_>) -> Result<(), Error>;

    /// Every row of one kind of several accounts.
    fn scan_all(&mut self, accounts: &[u32], kind: Kind, found: FoundKey<'_>) -> Result<(), Error> {
        for &account in accounts {
            self.scan(account, kind, &mut |tag, body| found(Key { account, kind, tag }, body))?;
        }
        Ok(())
    }

    /// How many rows of one kind each of several accounts has; those that have none may be left out.
    fn count(&mut self, accounts: &[u32], kind: Kind) -> Result<Vec<(u32, u32)>, Error> {
        let mut counts = Vec::with_capacity(accounts.len());
        for &account in accounts {
            let mut count = 0;
            self.scan(account, kind, &mut |_, _| {
                count += 1;
                Ok(())
            })?;
            counts.push((account, count));
        }
        Ok(counts)
    }

    /// Writes a batch, whole or not at all; durable when it returns. Where a store is shared, what belongs to accounts
    /// that turn out not to be this owner's is left out, and [`Self::lost`] names them. [`Error::Busy`]: it is not
    /// known to be written; where it may be, [`Self::lost`] names all of its accounts.
    fn commit(&mut self, changes: Changes) -> Result<(), Error>;

    /// Declares what the server has of some shards to be the newest state there is, though it had acknowledged more: of
    /// shards that are known to have gone back, of others where no engine serves them, or (`force`) of any. `anew` sees to
    /// their accounts first. Until this has succeeded they are refused to engines; then they wait for those that they
    /// are assigned to.
    fn declare_shards(&mut self, _shards: &[u32], _force: bool, _anew: StartAnew<'_>) -> Result<(), Error> {
        Err(one_owner())
    }

    /// Declares the store to be the newest state there is, though it is a copy that was put in its place. To be called
    /// on a store that was opened for that.
    fn declare(&mut self) -> Result<(), Error> {
        Err(Error::Malformed("a store in memory is never restored: name a file".into()))
    }

    /// Bytes on disk.
    fn size_bytes(&mut self) -> Result<u64, Error>;

    /// Leaves the store clean; nothing else may be called after.
    fn close(&mut self) -> Result<(), Error>;
}

/// A part of a shared store's accounts, which one engine owns at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its number.
    pub number: u32,
    /// The engine that it is assigned to; empty: none.
    pub engine: String,
    /// Whether that engine has taken it and serves it.
    pub serving: bool,
    /// The engine that it is to be handed to, empty where any may have it; None where it stays.
    pub wanted: Option<String>,
    /// How often it changed hands. An engine that knows an older epoch can write nothing.
    pub epoch: u64,
    /// How many commits it had.
    pub version: u64,
    /// Of a shard that went back to an older state, and is refused until that is declared: the commits it had been known
    /// to have; else 0.
    pub lost_from: u64,
    /// How many accounts are in it.
    pub accounts: u64,
}

/// Refuses changes to rows of accounts that do not exist.
fn check_accounts(accounts: impl IntoIterator<Item = u32>, exists: impl Fn(u32) -> bool) -> Result<(), Error> {
    let missing = accounts.into_iter().find(|&account| !exists(account));
    missing.map_or(Ok(()), |account| Err(no_account(account)))
}

fn no_account(account: u32) -> Error {
    Error::Store(format!("the store has no account of number {account} (any more): nothing was written"))
}

fn account_exists(name: &str) -> Error {
    Error::Store(format!("there is an account {name} already: open it, or take another name"))
}

fn one_owner() -> Error {
    Error::Malformed("this store has one owner and no shards: those are PostgreSQL's".into())
}

fn no_account_numbers() -> Error {
    Error::Store("the store has given out all of its account numbers: make a new store".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_their_numbers() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_number(kind as u8), Some(kind));
        }
        assert_eq!(Kind::of_number(0), None);
        assert_eq!(Kind::of_number(Kind::ALL.len() as u8 + 1), None);
    }

    #[test]
    fn a_key_survives_its_bytes_and_sorts_as_they_do() {
        let key = |account, kind, first| Key { account, kind, tag: [first; 16] };
        let keys = [
            key(1, Kind::Account, 9),
            key(1, Kind::Session, 0),
            key(1, Kind::Session, 255),
            key(256, Kind::Account, 0),
            key(u32::MAX, Kind::Holders, 255),
        ];
        assert!(keys.is_sorted());
        assert!(keys.map(Key::to_bytes).is_sorted());
        for key in keys {
            assert_eq!(Key::of_bytes(&key.to_bytes()), Some(key));
        }
        assert_eq!(Key::of_bytes(&keys[0].to_bytes()[..20]), None);
        assert_eq!(Key::of_bytes(&[0; 22]), None);
    }

    #[test]
    fn changes_keep_their_order_and_bytes_while_the_buffer_grows() {
        let key = |i: u32| Key { account: 1, kind: Kind::Session, tag: u128::from(i).to_le_bytes() };
        let mut changes = Changes::default();
        assert!(changes.is_empty());
        for i in 0..1_000_u32 {
            changes.put(key(i), |bytes| bytes.resize(bytes.len() + i as usize, i as u8));
        }
        changes.delete(key(7));
        assert_eq!(changes.len(), 1_001);
        for (i, (at, body)) in (0..1_000_u32).zip(changes.iter()) {
            assert_eq!((at, body), (key(i), Some(&vec![i as u8; i as usize][..])));
        }
        assert_eq!(changes.iter().last(), Some((key(7), None)));
    }
}
