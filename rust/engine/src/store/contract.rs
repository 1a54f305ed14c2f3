//! What every store on disk promises, whichever it is.

use std::collections::BTreeMap;

use interlane_lanes::Backend;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::memory::MemoryStore;
use super::{Changes, Key, Kind, Store};
use crate::error::Error;

pub(super) type Rows = BTreeMap<Key, Vec<u8>>;

/// Where stores of one sort are made.
pub(super) trait Place {
    /// Opens the store of this place, or makes it.
    fn open(&self) -> Box<dyn Store>;

    /// The same store after its owner was killed.
    fn open_after_crash(&mut self, store: Box<dyn Store>) -> Box<dyn Store>;
}

pub(super) fn key(account: u32, i: u32) -> Key {
    let mut tag = [0; 16];
    tag[..4].copy_from_slice(&i.wrapping_mul(0x9e37_79b9).to_le_bytes());
    tag[4..8].copy_from_slice(&i.to_le_bytes());
    Key { account, kind: Kind::Session, tag }
}

pub(super) fn puts<'a>(rows: impl IntoIterator<Item = (Key, &'a [u8])>) -> Changes {
    let mut changes = Changes::default();
    for (key, body) in rows {
        changes.put(key, |bytes| bytes.extend_from_slice(body));
    }
    changes
}

pub(super) fn account(store: &mut dyn Store, name: &str) -> u32 {
    store.create_account(name, &mut |account| puts([(key(account, u32::MAX), name.as_bytes())])).unwrap()
}

pub(super) fn load(store: &mut dyn Store, keys: &[Key]) -> Result<Vec<Option<Vec<u8>>>, Error> {
    let mut bodies = vec![None; keys.len()];
    let mut found = |i: usize, body: &[u8]| {
        assert!(bodies[i].replace(body.to_vec()).is_none(), "found twice");
        Ok(())
    };
    store.fetch(keys, &mut found)?.open(Backend::detect().unwrap(), &mut found)?;
    Ok(bodies)
}

pub(super) fn scan(store: &mut dyn Store, account: u32, kind: Kind) -> Result<Rows, Error> {
    let mut rows = Rows::new();
    store.scan(account, kind, &mut |tag, body| {
        assert!(rows.insert(Key { account, kind, tag }, body.to_vec()).is_none(), "found twice");
        Ok(())
    })?;
    Ok(rows)
}

#[track_caller]
pub(super) fn refused<T>(result: Result<T, Error>, says: &str) {
    match result.map(drop) {
        Err(Error::Store(text)) => {
            assert!(text.contains(says), "{text:?} does not say {says:?}");
            assert!(!text.contains('\n'), "{text:?} is not one line");
        }
        other => panic!("{other:?} where the store was to say {says:?}"),
    }
}

/// Names, numbers, rows and errors, from one opening to the next.
pub(super) fn what_is_closed_opens_again(place: &impl Place) {
    let mut store = place.open();
    assert!(store.durable());
    let [desk, bell] = ["desk", "bell"].map(|name| account(store.as_mut(), name));
    assert!(bell > desk);
    refused(
        store.create_account("desk", &mut |account| puts([(key(account, 1), &b"x"[..])])),
        "an account desk already",
    );
    let mut changes = puts([(key(desk, 1), &b"one"[..]), (key(bell, 1), b"uno"), (key(desk, 1), b"two")]);
    changes.delete(key(desk, u32::MAX));
    changes.delete(key(bell, 77));
    store.commit(changes).unwrap();
    store.commit(Changes::default()).unwrap();
    let keys = [key(bell, 1), key(desk, u32::MAX), key(desk, 1), key(desk, 2), key(bell, 1)];
    let expected = [Some(&b"uno"[..]), None, Some(b"two"), None, Some(b"uno")].map(|body| body.map(<[u8]>::to_vec));
    assert_eq!(load(store.as_mut(), &keys).unwrap(), expected);
    assert_eq!(load(store.as_mut(), &[]).unwrap(), []);
    store.close().unwrap();
    assert!(matches!(store.commit(puts([(key(desk, 1), &b"x"[..])])), Err(Error::Closed)));
    assert!(matches!(load(store.as_mut(), &keys), Err(Error::Closed)));
    assert!(matches!(store.close(), Err(Error::Closed)));
    drop(store);

    let mut store = place.open();
    assert_eq!(store.accounts().unwrap(), [(desk, "desk".to_owned()), (bell, "bell".to_owned())]);
    assert_eq!(load(store.as_mut(), &keys).unwrap(), expected);
    assert_eq!(scan(store.as_mut(), desk, Kind::Session).unwrap(), Rows::from([(key(desk, 1), b"two".to_vec())]));
    assert_eq!(scan(store.as_mut(), desk, Kind::Archive).unwrap(), Rows::new());
    let mut all = Rows::new();
    store
        .scan_all(&[bell, desk], Kind::Session, &mut |key, body| {
            assert!(all.insert(key, body.to_vec()).is_none(), "found twice");
            Ok(())
        })
        .unwrap();
    let bells = [(key(bell, 1), b"uno".to_vec()), (key(bell, u32::MAX), b"bell".to_vec())];
    assert_eq!(all, bells.into_iter().chain([(key(desk, 1), b"two".to_vec())]).collect());
    let counts: BTreeMap<u32, u32> = store.count(&[desk, bell], Kind::Session).unwrap().into_iter().collect();
    assert_eq!(counts, BTreeMap::from([(desk, 1), (bell, 2)]));
    let none = store.count(&[desk, bell], Kind::Archive).unwrap();
    assert!(none.iter().all(|&(_, count)| count == 0), "{none:?}");
    assert!(store.size_bytes().unwrap() > 0);
    store.commit(puts([(key(desk, 1), &b"three"[..])])).unwrap();
    assert_eq!(load(store.as_mut(), &keys[2..3]).unwrap(), [Some(b"three".to_vec())]);
    store.delete_account(desk).unwrap();
    refused(store.delete_account(desk), "no account of number");
    assert_eq!(store.accounts().unwrap(), [(bell, "bell".to_owned())]);
    // A number is not given twice, and nothing of the old account is there.
    let again = account(store.as_mut(), "desk");
    assert!(again > bell);
    assert_eq!(scan(store.as_mut(), again, Kind::Session).unwrap().len(), 1);
    store.close().unwrap();
}

/// Commits that were acknowledged are there, whatever becomes of their owner.
pub(super) fn a_crash_loses_nothing_that_was_committed(place: &mut impl Place) {
    let mut store = place.open();
    let desk = account(store.as_mut(), "desk");
    for i in 0..20 {
        store.commit(puts([(key(desk, i), &[i as u8; 50][..]), (key(desk, 100), &[i as u8; 9])])).unwrap();
        store = place.open_after_crash(store);
        assert_eq!(store.accounts().unwrap().len(), 1);
        let keys = [key(desk, i), key(desk, 100), key(desk, i + 1)];
        let expected = [Some(vec![i as u8; 50]), Some(vec![i as u8; 9]), None];
        assert_eq!(load(store.as_mut(), &keys).unwrap(), expected);
    }
    assert_eq!(scan(store.as_mut(), desk, Kind::Session).unwrap().len(), 22);
}

/// Many rows, of several accounts, in one call each.
pub(super) fn fifty_thousand_rows_come_back(place: &impl Place) {
    let mut store = place.open();
    let [desk, bell] = ["desk", "bell"].map(|name| account(store.as_mut(), name));
    let body = |i: u32| i.to_le_bytes().repeat(1 + i as usize % 90);
    let keys: Vec<Key> = (0..50_000).map(|i| key([desk, bell][i as usize % 2], i)).collect();
    let mut changes = Changes::default();
    for (i, &key) in (0..).zip(&keys) {
        changes.put(key, |bytes| bytes.extend(body(i)));
    }
    store.commit(changes).unwrap();
    let found = load(store.as_mut(), &keys).unwrap();
    assert!((0..).zip(found).all(|(i, found)| found == Some(body(i))));
    assert_eq!(scan(store.as_mut(), bell, Kind::Session).unwrap().len(), 25_001);
    let mut changes = Changes::default();
    keys.iter().step_by(2).for_each(|&key| changes.delete(key));
    store.commit(changes).unwrap();
    let found = load(store.as_mut(), &keys).unwrap();
    assert!((0..).zip(found).all(|(i, found)| found == (i % 2 == 1).then(|| body(i))));
    store.close().unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(usize, usize, u32, Option<usize>)>),
    Create,
    Delete(usize),
    Crash,
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = (0..4_usize, 0..9_usize, 0..20_u32, prop::option::weighted(0.8, 0..200_usize));
    let step = prop_oneof![
        12 => prop::collection::vec(change, 0..40).prop_map(Step::Commit),
        2 => Just(Step::Create),
        1 => (0..4_usize).prop_map(Step::Delete),
        1 => Just(Step::Crash),
        1 => Just(Step::Close),
    ];
    prop::collection::vec(step, 1..60)
}

/// Random histories give what the memory store gives. Accounts' numbers may differ.
pub(super) fn it_is_the_memory_store_that_outlives_crashes<P: Place>(cases: u32, place: impl Fn() -> P) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let played = TestRunner::new(config).run(&steps(), |steps| {
        let mut place = place();
        let mut store = place.open();
        let mut model = MemoryStore::default();
        let mut accounts: Vec<(u32, u32)> = Vec::new();
        for (i, step) in steps.into_iter().enumerate() {
            match step {
                Step::Create => {
                    let name = i.to_string();
                    accounts.push((account(store.as_mut(), &name), account(&mut model, &name)));
                }
                Step::Delete(at) if at < accounts.len() => {
                    let (ours, models) = accounts.swap_remove(at);
                    store.delete_account(ours).unwrap();
                    model.delete_account(models).unwrap();
                }
                Step::Delete(_) => {}
                Step::Commit(rows) => {
                    let changes = |of: fn(&(u32, u32)) -> u32| {
                        let mut changes = Changes::default();
                        for (n, &(account, kind, tag, length)) in rows.iter().enumerate() {
                            let Some(account) = accounts.get(account).map(of) else { continue };
                            let key = Key { kind: Kind::ALL[kind], ..key(account, tag) };
                            match length {
                                Some(length) => {
                                    changes.put(key, |bytes| bytes.resize(bytes.len() + length, (i + n) as u8))
                                }
                                None => changes.delete(key),
                            }
                        }
                        changes
                    };
                    store.commit(changes(|ids| ids.0)).unwrap();
                    model.commit(changes(|ids| ids.1)).unwrap();
                }
                Step::Crash => {
                    store = place.open_after_crash(store);
                    store.accounts().unwrap();
                }
                Step::Close => {
                    store.close().unwrap();
                    drop(store);
                    store = place.open();
                    store.accounts().unwrap();
                }
            }
            let names = |store: &mut dyn Store| -> Vec<String> {
                store.accounts().unwrap().into_iter().map(|(_, name)| name).collect()
            };
            prop_assert_eq!(names(store.as_mut()), names(&mut model));
            for &(ours, models) in &accounts {
                let keys = |account| -> Vec<Key> {
                    let of = |kind| (0..20).map(move |tag| Key { kind, ..key(account, tag) });
                    Kind::ALL.into_iter().flat_map(of).collect()
                };
                prop_assert_eq!(load(store.as_mut(), &keys(ours)).unwrap(), load(&mut model, &keys(models)).unwrap());
                for kind in Kind::ALL {
                    let found: Vec<_> = scan(store.as_mut(), ours, kind).unwrap().into_values().collect();
                    let expected: Vec<_> = scan(&mut model, models, kind).unwrap().into_values().collect();
                    prop_assert_eq!(found, expected);
                }
            }
        }
        Ok(())
    });
    played.unwrap();
}
