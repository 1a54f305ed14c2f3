//! A store that ends with the process: for tests, and for gateways that keep their state elsewhere.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::{Changes, FoundAt, FoundTag, Key, Kind, Store};
use crate::error::Error;

/// Rows in memory, zeroed when they go.
#[derive(Default)]
pub(crate) struct MemoryStore {
    accounts: BTreeMap<u32, String>,
    /// Numbers are never given twice, as on disk.
    last_account: u32,
    rows: BTreeMap<Key, Zeroizing<Box<[u8]>>>,
    closed: bool,
}

impl MemoryStore {
    fn check_open(&self) -> Result<(), Error> {
        if self.closed { Err(Error::Closed) } else { Ok(()) }
    }

    fn apply(&mut self, changes: &Changes) {
        for (key, body) in changes.iter() {
            match body {
                Some(body) => self.rows.insert(key, Zeroizing::new(body.into())),
                None => self.rows.remove(&key),
            };
        }
    }
}

impl Store for MemoryStore {
    fn durable(&self) -> bool {
        false
    }

    fn accounts(&mut self) -> Result<Vec<(u32, String)>, Error> {
        self.check_open()?;
        Ok(self.accounts.iter().map(|(&account, name)| (account, name.clone())).collect())
    }

    fn create_account(&mut self, name: &str, changes: &mut dyn FnMut(u32) -> Changes) -> Result<u32, Error> {
        self.check_open()?;
        if self.accounts.values().any(|taken| taken == name) {
            return Err(super::account_exists(name));
        }
        let account = self.last_account.checked_add(1).ok_or_else(super::no_account_numbers)?;
        let changes = changes(account);
        super::check_accounts(changes.accounts(), |found| found == account)?;
        self.last_account = account;
        self.accounts.insert(account, name.to_owned());
        self.apply(&changes);
        Ok(account)
    }

    fn delete_account(&mut self, account: u32) -> Result<(), Error> {
        self.check_open()?;
        self.accounts.remove(&account).ok_or_else(|| super::no_account(account))?;
        self.rows.retain(|key, _| key.account != account);
        Ok(())
    }

    fn load(&mut self, keys: &[Key], found: FoundAt<'_>) -> Result<(), Error> {
        self.check_open()?;
        for (i, key) in keys.iter().enumerate() {
            if let Some(body) = self.rows.get(key) {
                found(i, body)?;
            }
        }
        Ok(())
    }

    fn scan(&mut self, account: u32, kind: Kind, found: FoundTag<'_>) -> Result<(), Error> {
        self.check_open()?;
        let [first, last] = [[0; 16], [255; 16]].map(|tag| Key { account, kind, tag });
        for (key, body) in self.rows.range(first..=last) {
            found(key.tag, body)?;
        }
        Ok(())
    }

    fn commit(&mut self, changes: Changes) -> Result<(), Error> {
        self.check_open()?;
        super::check_accounts(changes.accounts(), |account| self.accounts.contains_key(&account))?;
        self.apply(&changes);
        Ok(())
    }

    fn size_bytes(&mut self) -> Result<u64, Error> {
        self.check_open()?;
        Ok(0)
    }

    fn close(&mut self) -> Result<(), Error> {
        self.check_open()?;
        self.closed = true;
        self.rows.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(account: u32, first: u8) -> Key {
        Key { account, kind: Kind::Session, tag: [first; 16] }
    }

    #[test]
    fn it_keeps_what_is_put_until_it_is_closed() {
        let mut store = MemoryStore::default();
        assert!(!store.durable());
        let account = store
            .create_account("desk", &mut |account| {
                let mut changes = Changes::default();
                changes.put(key(account, 1), |bytes| bytes.push(1));
                changes
            })
            .unwrap();
        assert!(store.create_account("desk", &mut |_| Changes::default()).is_err());
        let mut changes = Changes::default();
        changes.put(key(account, 2), |bytes| bytes.push(2));
        changes.put(key(account, 3), |bytes| bytes.push(3));
        changes.delete(key(account, 2));
        store.commit(changes).unwrap();
        let mut seen = Vec::new();
        store
            .scan(account, Kind::Session, &mut |tag, body| {
                seen.push((tag[0], body.to_vec()));
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, [(1, vec![1]), (3, vec![3])]);
        seen.clear();
        let keys = [key(account, 3), key(account, 2), key(account, 3)];
        store
            .load(&keys, &mut |i, body| {
                seen.push((i as u8, body.to_vec()));
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, [(0, vec![3]), (2, vec![3])]);

        let mut elsewhere = Changes::default();
        elsewhere.put(key(account + 1, 1), |bytes| bytes.push(1));
        assert!(store.commit(elsewhere).is_err());
        store.delete_account(account).unwrap();
        assert!(store.delete_account(account).is_err());
        store.scan(account, Kind::Session, &mut |_, _| panic!("the account is gone")).unwrap();
        assert_eq!(store.create_account("desk", &mut |_| Changes::default()).unwrap(), account + 1);
        assert_eq!(store.accounts().unwrap(), [(account + 1, "desk".to_owned())]);
        store.close().unwrap();
        assert!(matches!(store.accounts(), Err(Error::Closed)));
        assert!(matches!(store.close(), Err(Error::Closed)));
    }
}
