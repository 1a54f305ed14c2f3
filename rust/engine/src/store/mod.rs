//! Where state outlives the process. A store keeps sealed rows under keys and commits batches of changes; what is in
//! a row is the engine's affair.

use zeroize::Zeroizing;

use crate::error::Error;

pub(crate) mod backup;
mod generation;
pub(crate) mod memory;
pub(crate) mod sealed;
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
    /// A peer's current session, whole.
    Session = 5,
    /// A peer's archived sessions.
    Archive = 6,
    /// The sending chain's newest key: overrides the one in the session's row.
    Sending = 7,
    /// The newest receiving chain's newest key: overrides the one in the session's row.
    Receiving = 8,
    /// A sender key, ours or a peer's.
    SenderKey = 9,
    /// Who has our sender key.
    Holders = 10,
    /// A plaintext that was given out and not acknowledged.
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
    bytes: Zeroizing<Vec<u8>>,
}

/// One row's change: where its new body lies in the bytes, or that it goes.
#[derive(Clone, Copy, Debug)]
enum Change {
    Put { start: usize, end: usize },
    Delete,
}

impl Changes {
    /// Makes room for a body. A `Vec` that grows by itself leaves what it held in freed memory; here the old buffer is
    /// zeroed.
    pub(crate) fn reserve(&mut self, body: usize) {
        let needed = self.bytes.len() + body;
        if needed > self.bytes.capacity() {
            let mut roomier = Zeroizing::new(Vec::with_capacity(needed.max(2 * self.bytes.capacity())));
            roomier.extend_from_slice(&self.bytes);
            self.bytes = roomier;
        }
    }

    /// Puts a row whose body `write` appends to the buffer; [`Self::reserve`] first.
    pub(crate) fn put(&mut self, key: Key, write: impl FnOnce(&mut Vec<u8>)) {
        self.reserve(ROOM_FOR_A_ROW);
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.rows.push((key, Change::Put { start, end: self.bytes.len() }));
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
        let base = self.bytes.len();
        self.reserve(other.bytes.len());
        self.bytes.extend_from_slice(&other.bytes);
        self.rows.extend(other.rows.into_iter().map(|(key, change)| match change {
            Change::Put { start, end } => (key, Change::Put { start: base + start, end: base + end }),
            Change::Delete => (key, Change::Delete),
        }));
    }

    /// The changes in order; of two for one key the later one holds.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, Option<&[u8]>)> {
        self.rows.iter().map(|&(key, change)| match change {
            Change::Put { start, end } => (key, Some(&self.bytes[start..end])),
            Change::Delete => (key, None),
        })
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

/// A store has one owner. Its methods are called one at a time.
pub(crate) trait Store: Send {
    /// Whether what is committed outlives the process. Where not, the engine keeps sessions in memory alone.
    fn durable(&self) -> bool;

    /// Every account, by its number.
    fn accounts(&mut self) -> Result<Vec<(u32, String)>, Error>;

    /// Makes an account with a data key of its own and, in the same transaction, writes its first rows. `changes`
    /// is given the new number.
    fn create_account(&mut self, name: &str, changes: &mut dyn FnMut(u32) -> Changes) -> Result<u32, Error>;

    /// Deletes an account: its data key, and every row of it.
    fn delete_account(&mut self, account: u32) -> Result<(), Error>;

    /// Looks up many rows in one query: `found(i, body)` for each of `keys` that exists, in any order.
    fn load(&mut self, keys: &[Key], found: FoundAt<'_>) -> Result<(), Error>;

    /// Every row of one kind.
    fn scan(&mut self, account: u32, kind: Kind, found: FoundTag<'_>) -> Result<(), Error>;

    /// Writes a batch, whole or not at all; durable when it returns.
    fn commit(&mut self, changes: Changes) -> Result<(), Error>;

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

/// Refuses changes to rows of accounts that do not exist.
fn check_accounts(changes: &Changes, exists: impl Fn(u32) -> bool) -> Result<(), Error> {
    let mut last = None;
    for &(Key { account, .. }, _) in &changes.rows {
        if last != Some(account) && !exists(account) {
            return Err(no_account(account));
        }
        last = Some(account);
    }
    Ok(())
}

fn no_account(account: u32) -> Error {
    Error::Store(format!("the store has no account of number {account} (any more): nothing was written"))
}

fn account_exists(name: &str) -> Error {
    Error::Store(format!("there is an account {name} already: open it, or take another name"))
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
