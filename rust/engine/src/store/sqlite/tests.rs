//! Tests of the SQLite store: crashes, second owners, damage, deletion, limits.

use std::collections::BTreeMap;
use std::process::Command;

use interlane_crash::{Call, Dice, Disk, Failure, Fault, Thoroughness};
use tempfile::TempDir;

use super::super::backup;
use super::super::contract::{self, Rows, account, key, load, puts, refused, scan};
use super::*;

/// Accounts, and all of their rows.
type Held = (Vec<(u32, String)>, Rows);

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("gateway.db")
    }

    fn open(&self) -> SqliteStore {
        open(&self.path()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap()).collect();
        names.sort_by_key(fs::DirEntry::file_name);
        names.into_iter().map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    /// The file of the journal's first part.
    fn journal(&self) -> PathBuf {
        journal::paths(&self.path())[0].clone()
    }

    /// The database and its logs, as a crash now would leave them.
    fn crashed(&self) -> Self {
        let copy = Self::new();
        for name in self.names() {
            fs::copy(self.0.path().join(&name), copy.0.path().join(&name)).unwrap();
        }
        copy
    }

    /// The file without the checks of a store, which must be closed.
    fn raw(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for name in self.names() {
            bytes.extend(fs::read(self.0.path().join(name)).unwrap());
        }
        bytes
    }
}

impl contract::Place for Folder {
    fn open(&self) -> Box<dyn Store> {
        let mut store = Self::open(self);
        // Small, so that histories fold.
        store.journal_limit = 24_000;
        Box::new(store)
    }

    fn open_after_crash(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        *self = self.crashed();
        drop(store);
        contract::Place::open(self)
    }
}

fn operator_key() -> Secret<32> {
    Secret::copy_of(&[42; 32])
}

fn open(path: &Path) -> Result<SqliteStore, Error> {
    SqliteStore::open(path, operator_key(), None)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn it_keeps_the_contract() {
    contract::what_is_closed_opens_again(&Folder::new());
    contract::a_crash_loses_nothing_that_was_committed(&mut Folder::new());
    contract::fifty_thousand_rows_come_back(&Folder::new());
}

#[test]
fn what_is_closed_is_one_file() {
    let folder = Folder::new();
    let mut store = folder.open();
    assert_eq!(folder.names(), ["gateway.db", "gateway.db-wal", "gateway.db.generation"]);
    let desk = account(&mut store, "desk");
    let open = ["gateway.db", "gateway.db-wal", "gateway.db.generation", "gateway.db.journal-0"];
    assert_eq!(folder.names(), open);
    store.journal_limit = 4_096;
    store.commit(puts([(key(desk, 1), &b"x"[..])])).unwrap();
    assert_eq!(folder.names(), [&open[..], &["gateway.db.journal-1"]].concat());
    store.close().unwrap();
    assert_eq!(folder.names(), ["gateway.db", "gateway.db.generation"]);
}

#[test]
fn a_crash_loses_nothing_that_was_committed() {
    let folder = Folder::new();
    let mut store = folder.open();
    let desk = account(&mut store, "desk");
    for i in 0..20 {
        store.commit(puts([(key(desk, i), &[i as u8; 50][..]), (key(desk, 100), &[i as u8; 9])])).unwrap();
        let mut after = folder.crashed().open();
        let keys = [key(desk, i), key(desk, 100), key(desk, i + 1)];
        let expected = [Some(vec![i as u8; 50]), Some(vec![i as u8; 9]), None];
        assert_eq!(load(&mut after, &keys).unwrap(), expected);
        // What was replayed can be written over, and outlives a second crash.
        after.commit(puts([(key(desk, i), &b"again"[..])])).unwrap();
        drop(after);
    }
    let all = scan(&mut store, desk, Kind::Session).unwrap();
    assert_eq!(all.len(), 22);
    drop(store);
    let mut store = folder.open();
    assert_eq!(scan(&mut store, desk, Kind::Session).unwrap(), all);
    store.commit(puts([(key(desk, 3), &b"new"[..])])).unwrap();
    drop(store);
    assert_eq!(load(&mut folder.open(), &[key(desk, 3)]).unwrap(), [Some(b"new".to_vec())]);
}

/// To start it again; under an emulator, whose words `tests/tiers` gives.
fn this_program() -> Command {
    let program = std::env::current_exe().unwrap();
    let runner = std::env::var("INTERLANE_TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    let Some(first) = words.next() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(words).arg(program);
    command
}

#[test]
fn a_store_has_one_owner() {
    const CHILD: &str = "INTERLANE_TEST_SECOND_OPENER";
    if let Some(path) = std::env::var_os(CHILD) {
        return refused(open(Path::new(&path)), "open in another process");
    }
    let folder = Folder::new();
    let mut store = folder.open();
    account(&mut store, "desk");
    refused(open(&folder.path()), "open in another process");
    let name = std::thread::current().name().expect("tests run in threads of their names").to_owned();
    let child = this_program().args([&name, "--exact"]).env(CHILD, folder.path()).output().unwrap();
    let shown = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && shown.contains("1 passed"), "{shown}");
    account(&mut store, "bell");
    drop(store);
    assert_eq!(folder.open().accounts().unwrap().len(), 2);
}

fn open_unlocked(folder: &Folder) -> Result<SqliteStore, Error> {
    SqliteStore::open_unlocked(&folder.path(), operator_key())
}

const OPENED_TOO: &str = "another process has opened the store too";

#[test]
fn where_nothing_is_locked_the_last_who_opened_is_the_owner() {
    let folder = Folder::new();
    folder.open().close().unwrap();
    let mut one = open_unlocked(&folder).unwrap();
    let desk = account(&mut one, "desk");
    one.commit(puts([(key(desk, 1), &b"one"[..])])).unwrap();
    let mut two = open_unlocked(&folder).unwrap();
    // What left is in what the other one read.
    assert_eq!(load(&mut two, &[key(desk, 1)]).unwrap(), [Some(b"one".to_vec())]);
    for _ in 0..2 {
        refused(one.commit(puts([(key(desk, 1), &b"late"[..])])), OPENED_TOO);
        refused(one.accounts(), OPENED_TOO);
        refused(load(&mut one, &[key(desk, 1)]), OPENED_TOO);
        refused(one.delete_account(desk), OPENED_TOO);
    }
    two.commit(puts([(key(desk, 2), &b"two"[..])])).unwrap();
    // Whoever ends leaves the other one's files as they are, also if nobody has closed it.
    let dropped = open_unlocked(&folder).unwrap();
    let mut two = {
        refused(two.commit(puts([(key(desk, 2), &b"late"[..])])), OPENED_TOO);
        let next = open_unlocked(&folder).unwrap();
        drop((two, dropped));
        next
    };
    refused(one.close(), OPENED_TOO);
    assert!(matches!(one.close(), Err(Error::Closed)));
    two.commit(puts([(key(desk, 3), &b"three"[..])])).unwrap();
    drop(one);
    assert!(folder.names().contains(&"gateway.db-wal".to_owned()));
    two.commit(puts([(key(desk, 4), &b"four"[..])])).unwrap();
    drop(two);
    let mut last = folder.open();
    let bodies = load(&mut last, &[1, 2, 3, 4].map(|i| key(desk, i))).unwrap();
    assert_eq!(bodies, [&b"one"[..], b"two", b"three", b"four"].map(|body| Some(body.to_vec())));
    last.close().unwrap();
}

/// Both may have written to the files at once, so nobody goes on with them.
#[test]
fn what_was_being_committed_when_another_opened_leaves_the_store_in_doubt() {
    let folder = Folder::new();
    let mut store = folder.open();
    account(&mut store, "desk");
    store.close().unwrap();
    let mut one = open_unlocked(&folder).unwrap();
    let mut two = None;
    let made = one.create_account("bell", &mut |account| {
        two = Some(open_unlocked(&folder).unwrap());
        puts([(key(account, 1), &b"bell"[..])])
    });
    refused(made, OPENED_TOO);
    refused(one.commit(Changes::default()), OPENED_TOO);
    let mut two = two.unwrap();
    refused(two.commit(puts([(key(1, 1), &b"late"[..])])), OPENED_TOO);
    refused(two.close(), OPENED_TOO);
    drop((one, two));
    for _ in 0..2 {
        refused(open(&folder.path()), "two processes had it open at once");
        refused(open_unlocked(&folder), "interlane restore --store");
    }
    let mut declared = SqliteStore::open_copy(&folder.path(), operator_key(), None).unwrap();
    declared.declare().unwrap();
    declared.close().unwrap();
    account(&mut folder.open(), "ring");
}

/// Engines that count in one store, which each of them opens when it likes.
#[test]
fn where_nothing_is_locked_no_number_is_counted_twice() {
    let mut dice = Dice(11);
    let [mut counted, mut refusals, mut ended_in_doubt] = [0; 3];
    for history in 0..60 * chaos() {
        let folder = Folder::new();
        let mut store = folder.open();
        account(&mut store, "desk");
        store.close().unwrap();
        let mut engines: [Option<(SqliteStore, u32)>; 3] = [None, None, None];
        let (mut owner, mut newest, mut in_doubt) = (None, 0, false);
        for step in 0..60 {
            let what = || format!("history {history}, step {step}");
            let slot = dice.below(engines.len());
            let Some((mut store, number)) = engines[slot].take() else {
                // While nobody is in the middle of anything, only a store in doubt is refused.
                match open_unlocked(&folder) {
                    Ok(mut store) => {
                        assert!(!in_doubt, "{}", what());
                        store.journal_limit = 1_000;
                        let found = load(&mut store, &[key(1, 1)]).unwrap().remove(0);
                        let found = found.map_or(0, |body| u32::from_le_bytes(body.try_into().unwrap()));
                        assert!(found >= newest, "{}: {found} of {newest}", what());
                        owner = Some(slot);
                        engines[slot] = Some((store, found));
                    }
                    refusal => {
                        assert!(in_doubt, "{}", what());
                        refused(refusal, "two processes had it open at once");
                    }
                }
                continue;
            };
            match dice.below(12) {
                // It is opened by another one in the middle of a commit.
                0 => {
                    let other = (slot + 1 + dice.below(2)) % 3;
                    let mut opened = None;
                    let made = store.create_account(&format!("bell {step}"), &mut |account| {
                        opened = open_unlocked(&folder).ok();
                        puts([(key(account, 1), &b"bell"[..])])
                    });
                    assert!(made.is_err() || (owner == Some(slot) && opened.is_none()), "{}", what());
                    if let Some(opened) = opened {
                        // It takes the place of whatever was there, which dies.
                        let dead = engines[other].replace((opened, number));
                        drop(dead);
                        (owner, in_doubt) = (None, true);
                    }
                    engines[slot] = Some((store, number));
                }
                1 => drop(store.close()),
                2 => drop(store),
                // It dies, and leaves the files as they are.
                3 => {
                    assert!(leave_the_files(store.connection.as_ref().unwrap(), true).is_ok());
                    drop(store);
                }
                _ => {
                    let next = number + 1;
                    let done = store.commit(puts([(key(1, 1), &next.to_le_bytes()[..])]));
                    // The last who opened it, and nobody else.
                    assert_eq!(done.is_ok(), owner == Some(slot), "{}: {done:?}", what());
                    if done.is_err() {
                        refused(done, OPENED_TOO);
                        refusals += 1;
                        engines[slot] = Some((store, number));
                        continue;
                    }
                    assert!(next > newest, "{}: {next} was counted before", what());
                    newest = next;
                    counted += 1;
                    engines[slot] = Some((store, next));
                }
            }
        }
        ended_in_doubt += usize::from(in_doubt);
    }
    println!("{counted} numbers counted, each once; {refusals} refused; {ended_in_doubt} histories ended in doubt");
    assert!(counted > 300 && refusals > 300 && ended_in_doubt > 10, "{counted} {refusals} {ended_in_doubt}");
}

#[test]
fn another_key_opens_nothing() {
    let folder = Folder::new();
    drop(folder.open());
    refused(SqliteStore::open(&folder.path(), Secret::copy_of(&[43; 32]), None), "another operator key");
    folder.open();
}

#[test]
fn a_newer_schema_and_other_files_are_refused_and_left_alone() {
    let folder = Folder::new();
    folder.open().close().unwrap();
    folder.raw().pragma_update(None, "user_version", SCHEMA + 1).unwrap();
    let newer = format!("has schema {}, this interlane knows {SCHEMA}: update interlane", SCHEMA + 1);
    refused(open(&folder.path()), &newer);
    folder.raw().pragma_update(None, "user_version", 1).unwrap();
    refused(
        open(&folder.path()),
        "has schema 1, this interlane takes over 2 and newer: open it with an older one first",
    );
    folder.raw().pragma_update(None, "user_version", 0).unwrap();
    refused(open(&folder.path()), "damaged");

    let folder = Folder::new();
    folder.raw().execute_batch("CREATE TABLE t (x)").unwrap();
    let before = folder.bytes();
    refused(open(&folder.path()), "another program's");
    assert_eq!(folder.bytes(), before);

    let folder = Folder::new();
    fs::write(folder.path(), "Dear diary, today I was opened as a database. ".repeat(100)).unwrap();
    let before = folder.bytes();
    refused(open(&folder.path()), "not an interlane store");
    assert_eq!(folder.bytes(), before);
}

#[test]
fn a_path_that_cannot_be_a_store_is_refused_and_nothing_is_left() {
    let folder = Folder::new();
    refused(open(&folder.0.path().join("missing/gateway.db")), "make the folder first");
    refused(open(folder.0.path()), "is a folder");
    refused(open(Path::new("/")), "is a folder");
    fs::write(folder.path(), "").unwrap();
    refused(open(&folder.path()), "is empty");
    fs::remove_file(folder.path()).unwrap();
    fs::write(folder.0.path().join("gateway.db-wal"), "of a lost database").unwrap();
    refused(open(&folder.path()), "gateway.db-wal is there");
    refused(open(&folder.path().join("x")), "folder does not exist");
    assert_eq!(folder.names(), ["gateway.db-wal"]);
    refused(open(&folder.0.path().join("a\nb/c")), "a b/c");
}

#[test]
fn a_store_that_is_cut_short_is_refused() {
    let folder = Folder::new();
    let mut store = folder.open();
    let desk = account(&mut store, "desk");
    store.commit(puts((0..500).map(|i| (key(desk, i), &[7; 300][..])))).unwrap();
    store.close().unwrap();
    // Behind the end of a file SQLite reads zeros, so that what is cut must be something else: of what is sealed, one byte
    // in 256 is zero.
    let whole = 1 + fs::read(folder.path()).unwrap().iter().rposition(|&byte| byte != 0).unwrap() as u64;
    for length in [1, 50, 99, 100, 4_000, u64::from(PAGE_BYTES), 3 * u64::from(PAGE_BYTES), whole / 2, whole - 1] {
        let copy = folder.crashed();
        fs::File::options().write(true).open(copy.path()).unwrap().set_len(length).unwrap();
        let result = open(&copy.path()).and_then(|mut store| scan(&mut store, desk, Kind::Session));
        refused(result, "restore it from a backup");
    }
}

#[test]
fn a_log_that_was_cut_or_is_gone_is_missed() {
    let folder = Folder::new();
    let mut store = folder.open();
    let desk = account(&mut store, "desk");
    for i in 0..5 {
        store.commit(puts([(key(desk, i), &[7; 300][..])])).unwrap();
    }
    let crashed = folder.crashed();
    let whole = fs::metadata(crashed.journal()).unwrap().len();
    for length in [whole - 1, whole / 2, 32, 1, 0] {
        let copy = crashed.crashed();
        fs::File::options().write(true).open(copy.journal()).unwrap().set_len(length).unwrap();
        // Twice: the first opening must not make it look newer.
        refused(open(&copy.path()), "is older than it was");
        refused(open(&copy.path()), "is older than it was");
    }
    let copy = crashed.crashed();
    fs::remove_file(copy.journal()).unwrap();
    refused(open(&copy.path()), "is older than it was");
    assert_eq!(scan(&mut crashed.open(), desk, Kind::Session).unwrap().len(), 6);

    // SQLite's own log has what is folded, and that it is.
    store.journal_limit = 4_096;
    for i in 0..20 {
        store.commit(puts([(key(desk, i), &[8; 300][..])])).unwrap();
    }
    assert!(store.folded > 10);
    let crashed = folder.crashed();
    for gone in [false, true] {
        let (copy, log) = (crashed.crashed(), "gateway.db-wal");
        let log = copy.0.path().join(log);
        if gone {
            fs::remove_file(log).unwrap();
        } else {
            fs::File::options().write(true).open(log).unwrap().set_len(32).unwrap();
        }
        refused(open(&copy.path()), "ends before its journal begins");
        refused(open(&copy.path()), "declare it: interlane restore --store");
        let declared = SqliteStore::open_copy(&copy.path(), operator_key(), None);
        declared.unwrap().declare().unwrap();
        assert!(scan(&mut copy.open(), desk, Kind::Session).unwrap().len() < 20);
    }
    assert_eq!(scan(&mut crashed.open(), desk, Kind::Session).unwrap().len(), 21);
}

#[test]
fn blocks_that_are_gone_or_moved_are_missed() {
    let folder = Folder::new();
    let mut store = folder.open();
    let desk = account(&mut store, "desk");
    for i in 0..6 {
        store.commit(puts([(key(desk, 1), &[i; 30][..])])).unwrap();
    }
    // Not closed, which would fold them.
    let crashed = folder.crashed();
    let whole = fs::read(crashed.journal()).unwrap();
    let page = whole.len() / 7;
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let (copy, mut blocks) = (crashed.crashed(), whole.clone());
        change(&mut blocks);
        fs::write(copy.journal(), blocks).unwrap();
        copy
    };
    let of = |number: usize| (number - 1) * page..number * page;
    let (_, found) = Journal::read(&folder.path(), store.store_id, 0).unwrap();
    let mut third = Vec::new();
    store.journal.sections(&found[2], &mut third).unwrap();
    let forged = |number: u64, sections: &[u8]| {
        let mut block = Bytes::zeroes(HEAD);
        block.reserve(journal::bytes_for(sections.len()));
        block.extend_from_slice(sections);
        journal::finish(&store.store_id, number, &mut block);
        block.to_vec()
    };
    // The newest state is missed by the note, what is under it by the numbers, and a block opens at its own alone.
    refused(open(&with(&|blocks| blocks.truncate(6 * page)).path()), "is older than it was");
    refused(open(&with(&|blocks| blocks[of(7)].fill(0)).path()), "is older than it was");
    refused(open(&with(&|blocks| blocks[of(4)].fill(0)).path()), "damaged block 5");
    refused(open(&with(&|blocks| blocks[of(1)].fill(0)).path()), "block 1 is damaged");
    refused(open(&with(&|blocks| blocks[of(7)].copy_from_slice(&forged(7, &third))).path()), "damaged block 7");
    refused(open(&with(&|blocks| blocks.extend(forged(8, &third))).path()), "damaged block 8");
    // Blocks may change places: they are known by their numbers.
    let moved = with(&|blocks| *blocks = blocks.chunks(page).rev().flatten().copied().collect());
    assert_eq!(load(&mut moved.open(), &[key(desk, 1)]).unwrap(), [Some(vec![5; 30])]);
    // A block has one section at least, each as long as it says.
    refused(open(&with(&|blocks| blocks[of(7)].copy_from_slice(&forged(7, &[]))).path()), "damaged block 7");
    for length in [1, 7, 8, third.len() - 1] {
        let cut = with(&|blocks| blocks[of(7)].copy_from_slice(&forged(7, &third[..length])));
        refused(open(&cut.path()), "damaged block 7");
    }
    // One that was folded comes too late under its own number.
    let mut closed = crashed.open();
    closed.close().unwrap();
    fs::write(crashed.journal(), forged(3, &third)).unwrap();
    assert_eq!(load(&mut crashed.open(), &[key(desk, 1)]).unwrap(), [Some(vec![5; 30])]);
}

#[test]
fn damage_is_noticed() {
    let folder = Folder::new();
    let mut store = folder.open();
    let desk = account(&mut store, "desk");
    store.commit(puts((0..100).map(|i| (key(desk, i), &[7; 300][..])))).unwrap();
    let crashed = folder.crashed();
    store.close().unwrap();

    folder
        .raw()
        .execute(
            "UPDATE rows SET body = zeroblob(length(body)) WHERE key = ?1",
            [&table::place(key(desk, 5)).to_bytes()[..]],
        )
        .unwrap();
    let mut store = folder.open();
    refused(scan(&mut store, desk, Kind::Session), "damaged or moved");
    refused(load(&mut store, &[key(desk, 5)]), "damaged or moved");
    assert_eq!(load(&mut store, &[key(desk, 6)]).unwrap(), [Some(vec![7; 300])]);
    // Among many that are opened together.
    let all = |but: u32| (0..100).filter(|&i| i != but).map(|i| key(desk, i)).collect::<Vec<Key>>();
    refused(load(&mut store, &all(6)), "damaged or moved");
    assert_eq!(load(&mut store, &all(5)).unwrap(), vec![Some(vec![7; 300]); 99]);

    // A block of the journal that a copy brought along: under the number of another, and one that is missing.
    let copy = crashed.0.path().join("copy.db");
    backup::backup(&crashed.path(), &copy).unwrap();
    let open_after = |sql: &str| {
        Connection::open(&copy).unwrap().execute_batch(sql).unwrap();
        SqliteStore::open_copy(&copy, operator_key(), None)
    };
    drop(open_after("").unwrap());
    refused(open_after("DELETE FROM journal WHERE seq = 1"), "damaged block 2");
    refused(open_after("UPDATE journal SET seq = 1"), "damaged block 1");
}

#[test]
fn a_row_opens_at_its_own_key_alone() {
    let folder = Folder::new();
    let mut store = folder.open();
    let [desk, bell] = ["desk", "bell"].map(|name| account(&mut store, name));
    store.commit(puts([(key(desk, 1), &b"a"[..]), (key(desk, 2), b"b"), (key(bell, 1), b"c")])).unwrap();
    store.close().unwrap();
    let copy = |from: Key, to: Key| {
        let sql = "UPDATE rows SET body = (SELECT body FROM rows WHERE key = ?1) WHERE key = ?2";
        let [from, to] = [from, to].map(|key| table::place(key).to_bytes());
        assert_eq!(folder.raw().execute(sql, [&from[..], &to[..]]).unwrap(), 1);
    };
    copy(key(desk, 1), key(desk, 2));
    copy(key(desk, 1), key(bell, 1));
    let mut store = folder.open();
    assert_eq!(load(&mut store, &[key(desk, 1)]).unwrap(), [Some(b"a".to_vec())]);
    refused(load(&mut store, &[key(desk, 2)]), "damaged or moved");
    refused(load(&mut store, &[key(bell, 1)]), "damaged or moved");
    store.close().unwrap();
    // An account's data key under another's name.
    folder
        .raw()
        .execute("UPDATE data_keys SET wrapped = (SELECT wrapped FROM data_keys WHERE account = 1)", [])
        .unwrap();
    let mut store = folder.open();
    assert_eq!(load(&mut store, &[key(desk, 1)]).unwrap(), [Some(b"a".to_vec())]);
    refused(load(&mut store, &[key(bell, 1)]), "data key of account bell");
}

#[test]
fn a_read_only_file_and_a_folder_without_room_for_the_log_are_refused() {
    let folder = Folder::new();
    folder.open().close().unwrap();
    // Tests may run as root, whom rights do not stop.
    refused(
        SqliteStore::open_with(&folder.path(), operator_key(), None, false, OpenFlags::SQLITE_OPEN_READ_ONLY),
        "read-only",
    );
    fs::create_dir(folder.0.path().join("gateway.db-wal")).unwrap();
    refused(open(&folder.path()), "make files beside it");
    fs::remove_dir(folder.0.path().join("gateway.db-wal")).unwrap();
    folder.open();
}

#[test]
fn a_full_disk_changes_nothing() {
    let folder = Folder::new();
    let mut store = folder.open();
    let desk = account(&mut store, "desk");
    store.commit(puts([(key(desk, 1), &b"old"[..])])).unwrap();
    drop(store);
    let disk = Disk::watch(folder.0.path());
    let mut store = folder.open();
    let full = Fault { call: Call::Write, after: 0, failure: Failure::Full, lasting: true };
    disk.fail(Some(full));
    let large = || puts([(key(desk, 1), &b"new"[..]), (key(desk, 2), &vec![1; 1_000_000])]);
    refused(store.commit(large()), "no room on its disk");
    let create = |store: &mut SqliteStore| {
        store.create_account("bell", &mut |account| puts([(key(account, 1), &vec![1; 1_000_000][..])]))
    };
    refused(create(&mut store), "no room");
    assert_eq!(store.accounts().unwrap(), [(desk, "desk".to_owned())]);
    refused(store.commit(puts([(key(desk + 1, 1), &b"x"[..])])), "no account of number 2");
    let keys = [key(desk, 1), key(desk, 2)];
    assert_eq!(load(&mut store, &keys).unwrap(), [Some(b"old".to_vec()), None]);
    assert_eq!(load(&mut folder.crashed().open(), &keys).unwrap(), [Some(b"old".to_vec()), None]);
    disk.fail(None);
    store.commit(large()).unwrap();
    // There was room for the account, but not for its rows.
    let after = (0..).find(|&after| {
        disk.fail(Some(Fault { call: Call::Write, after, failure: Failure::Full, lasting: false }));
        let failed = disk.failed();
        let created = create(&mut store);
        let none_failed = disk.failed() == failed;
        disk.fail(None);
        let bell = store.accounts().unwrap().into_iter().find(|(_, name)| name == "bell");
        assert_eq!(created.is_ok(), bell.is_some());
        if let Some((bell, _)) = bell {
            store.delete_account(bell).unwrap();
        }
        none_failed
    });
    assert!(after > Some(3), "{after:?}");
    disk.fail(None);
    assert!(account(&mut store, "bell") > desk);
    let expected = [Some(b"new".to_vec()), Some(vec![1; 1_000_000])];
    assert_eq!(load(&mut store, &keys).unwrap(), expected);
    drop(store);
    assert_eq!(load(&mut folder.open(), &keys).unwrap(), expected);
}

#[test]
fn after_a_disk_failure_the_store_is_to_be_opened_again() {
    let folder = Folder::new();
    let mut store = folder.open();
    let desk = account(&mut store, "desk");
    let failure = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC), None);
    refused(store.transact::<()>(|_, _| Err(failure.into())), "a disk that fails");
    refused(store.commit(puts([(key(desk, 1), &b"x"[..])])), "open it again");
    store.close().unwrap();
    assert_eq!(scan(&mut folder.open(), desk, Kind::Session).unwrap().len(), 1);
}

/// Of SQLite's log a part is in the system's memory alone once a sync of it has failed: a power cut takes that away, also when
/// the store is being opened again.
#[test]
fn a_log_that_could_not_be_synced_is_written_again() {
    // Straight into the table, so that the log alone has it.
    let put = |store: &mut SqliteStore, key: Key, body: &[u8]| {
        store.newest.set(key, Body::Is(body));
        store.transact(|store, connection| store.fold_all(connection, None)).map(|()| store.forget_journal())
    };
    let mut images = 0;
    for after in 0..4 {
        let folder = Folder::new();
        let mut store = folder.open();
        let desk = account(&mut store, "desk");
        store.close().unwrap();
        let disk = Disk::watch(folder.0.path());
        let mut store = folder.open();
        store.log_limit = 1 << 20;
        let mut rows = everything(&mut store).unwrap().1;
        disk.fail(Some(Fault { call: Call::Sync, after, failure: Failure::Io, lasting: false }));
        let one_less = loop {
            let before = rows.clone();
            let row = (key(desk, rows.len() as u32), vec![rows.len() as u8; 3_000]);
            let written = put(&mut store, row.0, &row.1);
            rows.insert(row.0, row.1);
            if written.is_err() {
                break before;
            }
        };
        drop(store);
        let after_cut = |dice: &mut Dice| {
            let image = disk.cut(dice);
            let folder = Folder::new();
            image.write(folder.0.path());
            let found = everything(&mut folder.open()).unwrap().1;
            (found, image.what)
        };
        let mut dice = Dice(after);
        let mut lost = 0;
        for _ in 0..20 {
            let (found, what) = after_cut(&mut dice);
            assert!(found == rows || found == one_less, "{after}: {what}");
            lost += usize::from(found == one_less);
        }
        assert!(lost > 0, "{after}");
        // Once it is opened nothing of what is there goes any more, whatever is written to the log and copied back out of it.
        let mut store = folder.open();
        let found = everything(&mut store).unwrap().1;
        assert!(
            found == rows || (found == one_less && after == 0),
            "{after}: only the log's head is synced before it is whole"
        );
        rows = found;
        for step in 0..4 {
            store.log_limit = if step % 2 == 0 { 0 } else { 1 << 20 };
            for _ in 0..10 {
                let (found, what) = after_cut(&mut dice);
                assert_eq!(found, rows, "{after} {step}: {what}");
                images += 1;
            }
            put(&mut store, key(desk, 100 + step), b"more").unwrap();
            rows.insert(key(desk, 100 + step), b"more".to_vec());
        }
    }
    println!("{images} images of power cuts");
}

#[test]
fn nothing_is_on_disk_in_the_clear() {
    let folder = Folder::new();
    let mut store = folder.open();
    let desk = account(&mut store, "desk");
    let body: Vec<u8> = (0..64).map(|i| i * 3 + 1).collect();
    store.commit(puts((0..50).map(|i| (key(desk, i), &body[..])))).unwrap();
    let data_key = *store.data_keys.of(desk).unwrap().expose();
    for closed in [false, true] {
        if closed {
            store.close().unwrap();
        }
        let bytes = folder.bytes();
        assert!(contains(&bytes, b"desk"), "names are not secret");
        for secret in [&body[..16], &data_key[..16], &operator_key().expose()[..16]] {
            assert!(!contains(&bytes, secret));
        }
    }
}

#[test]
fn a_deleted_account_leaves_nothing() {
    let folder = Folder::new();
    let mut store = folder.open();
    let [desk, bell] = ["desk", "bell"].map(|name| account(&mut store, name));
    let both = |first: u32| {
        puts((first..first + 300).flat_map(|i| [desk, bell].map(|account| (key(account, i), &[9; 200][..]))))
    };
    store.commit(both(0)).unwrap();
    store.close().unwrap();
    let mut folded = Vec::new();
    let raw = folder.raw();
    let mut statement = raw.prepare("SELECT key, body FROM rows").unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        folded.push((Key::of_bytes(&row.get::<_, Vec<u8>>(0).unwrap()).unwrap(), row.get::<_, Vec<u8>>(1).unwrap()));
    }
    assert_eq!(folded.len(), 602);
    drop(rows);
    drop(statement);
    let wrapped: Vec<Vec<u8>> = [desk, bell]
        .map(|id| raw.query_row("SELECT wrapped FROM data_keys WHERE account = ?1", [id], |row| row.get(0)).unwrap())
        .into();
    drop(raw);

    let mut store = folder.open();
    store.commit(both(300)).unwrap();
    let block = fs::read(folder.journal()).unwrap();
    store.delete_account(bell).unwrap();
    for _ in 0..2 {
        let bytes = folder.bytes();
        for (key, body) in &folded {
            assert_eq!(contains(&bytes, &body[..24]), key.account == desk);
            assert!(key.account == desk || !contains(&bytes, &key.to_bytes()));
        }
        assert!(contains(&bytes, &wrapped[0][..24]) && !contains(&bytes, &wrapped[1][..24]));
        let sealed = block[HEAD..].chunks_exact(64).filter(|part| part[..] != [0; 64]);
        assert!(sealed.map(|part| assert!(!contains(&bytes, part))).count() > 1_000);
        drop(store);
        store = folder.open();
    }
    assert_eq!(scan(&mut store, bell, Kind::Session).unwrap(), Rows::new());
    assert_eq!(scan(&mut store, desk, Kind::Session).unwrap().len(), 601);
    refused(store.delete_account(bell), "no account of number 2");
    refused(store.commit(both(0)), "no account of number 2");
    // A number is not given twice, also where the last account went.
    assert_eq!(account(&mut store, "bell"), 3);
}

#[test]
fn no_data_key_outlives_its_account() {
    let folder = Folder::new();
    let mut store = folder.open();
    let accounts: Vec<u32> = (0..400).map(|i| account(&mut store, &format!("{i}@acme.example"))).collect();
    let wrapped: BTreeMap<u32, Vec<u8>> = accounts
        .iter()
        .map(|&id| {
            let sql = "SELECT wrapped FROM data_keys WHERE account = ?1";
            (id, store.connection.as_ref().unwrap().query_row(sql, [id], |row| row.get(0)).unwrap())
        })
        .collect();
    // Enough to join and split the table's pages, in no order.
    let gone: Vec<u32> = accounts.iter().copied().filter(|id| (id * 7_919) % 401 < 300).collect();
    for &id in &gone {
        store.delete_account(id).unwrap();
    }
    let bytes = folder.bytes();
    for (id, wrapped) in wrapped {
        assert_eq!(contains(&bytes, &wrapped[..24]), !gone.contains(&id), "{id}");
    }
}

#[test]
fn ten_thousand_rows_come_back() {
    let folder = Folder::new();
    let mut store = folder.open();
    let [desk, bell] = ["desk", "bell"].map(|name| account(&mut store, name));
    let body = |i: u32| i.to_le_bytes().repeat(1 + i as usize % 90);
    let rows: Rows = (0..10_000).map(|i| (key([desk, bell][i as usize % 2], i), body(i))).collect();
    let mut changes = Changes::default();
    for i in 0..10_000 {
        changes.put(key([desk, bell][i as usize % 2], i), |bytes| bytes.extend(body(i)));
    }
    store.commit(changes).unwrap();
    let keys: Vec<Key> = (0..10_000).map(|i| key([desk, bell][i as usize % 2], i)).collect();
    let expected: Vec<_> = keys.iter().map(|key| rows.get(key).cloned()).collect();
    assert_eq!(load(&mut store, &keys).unwrap(), expected);
    store.close().unwrap();
    let mut store = folder.open();
    assert!(store.newest.is_empty());
    assert_eq!(load(&mut store, &keys).unwrap(), expected);
    // Some in memory, some not.
    store.commit(puts((0..100).map(|i| (keys[i * 97], &b"x"[..])))).unwrap();
    let mixed = load(&mut store, &keys).unwrap();
    for (i, body) in mixed.into_iter().enumerate() {
        assert_eq!(body, if i % 97 == 0 && i / 97 < 100 { Some(b"x".to_vec()) } else { expected[i].clone() });
    }
}

#[test]
fn a_large_batch_is_one_block() {
    let folder = Folder::new();
    let mut store = folder.open();
    let [desk, bell] = ["desk", "bell"].map(|name| account(&mut store, name));
    let before = store.sequence;
    store.journal_limit = 1 << 20;
    let body = vec![8; 2 << 20];
    store.commit(puts((0..14).map(|i| (key([bell, desk][i as usize % 2], i), &body[..])))).unwrap();
    assert_eq!(store.sequence - before, 1);
    drop(store);
    let mut store = folder.open();
    let keys: Vec<Key> = (0..14).map(|i| key([bell, desk][i as usize % 2], i)).collect();
    assert!(load(&mut store, &keys).unwrap().iter().all(|found| found.as_ref() == Some(&body)));
    // What it took of the journal is given back.
    store.journal_limit = 1 << 20;
    for i in 0..400 {
        store.commit(puts([(key(desk, 100 + i), &[1; 10_000][..])])).unwrap();
    }
    assert!(store.journal.size().unwrap() < 6 << 20, "{:?}", store.journal.size());
    assert!(load(&mut store, &keys).unwrap().iter().all(|found| found.as_ref() == Some(&body)));
}

#[test]
fn the_journal_is_folded_at_its_limit_bit_by_bit() {
    let folder = Folder::new();
    let mut store = folder.open();
    store.journal_limit = 400_000;
    let desk = account(&mut store, "desk");
    let (mut folds, mut frozen_for, mut most) = (0, 0, 0);
    for i in 0..400 {
        let rows: Vec<_> = (0..20).map(|j| (key(desk, (i * 20 + j) % 3_000), vec![(i % 251) as u8; 30])).collect();
        let before = (store.folded, store.frozen.as_ref().map_or(0, |frozen| frozen.done));
        store.commit(puts(rows.iter().map(|(key, body)| (*key, &body[..])))).unwrap();
        let after = (store.folded, store.frozen.as_ref().map_or(0, |frozen| frozen.done));
        folds += usize::from(after.0 > before.0);
        if let Some(frozen) = &store.frozen {
            frozen_for += 1;
            most = most.max(after.1.saturating_sub(before.1));
            assert!(frozen.order.len() > 1_000);
        }
        assert!(store.journal.active_bytes() < 402_000 + 4_096);
    }
    assert!(folds >= 3 && frozen_for > 20 * folds && most < 100, "{folds} {frozen_for} {most}");
    let bytes = store.journal.size().unwrap();
    assert!(bytes < 3 * store.journal_limit, "{bytes}");
    let shown = scan(&mut store, desk, Kind::Session).unwrap();
    for i in 0..3_000_u32 {
        let last = if i < 2_000 { (6_000 + i) / 20 } else { (3_000 + i) / 20 };
        assert_eq!(shown[&key(desk, i)], [(last % 251) as u8; 30], "{i}");
    }
    assert_eq!(scan(&mut folder.crashed().open(), desk, Kind::Session).unwrap(), shown);
    // A batch that leaves the frozen part no time.
    store.commit(puts([(key(desk, 1), &vec![1; 500_000][..])])).unwrap();
    store.commit(puts([(key(desk, 2), &vec![2; 500_000][..])])).unwrap();
    store.commit(puts([(key(desk, 3), &b"3"[..])])).unwrap();
    assert_eq!(load(&mut store, &[key(desk, 1)]).unwrap(), [Some(vec![1; 500_000])]);
    store.close().unwrap();
    let mut store = folder.open();
    assert_eq!(scan(&mut store, desk, Kind::Session).unwrap().len(), 3_001);
    // The next block's number is a new one: the old block of that number would not open.
    assert!(store.sequence > 400);
}

/// The journal's files are written over once they are folded, whatever the sizes of blocks, and a crash anywhere leaves what
/// was committed.
#[test]
fn blocks_are_written_over_those_that_are_folded() {
    let mut folder = Folder::new();
    let mut store = folder.open();
    let desk = account(&mut store, "desk");
    let mut dice = Dice(3);
    let mut expected = scan(&mut store, desk, Kind::Session).unwrap();
    let mut reopened_in_two_parts = 0;
    for (most, commits) in [(60, 600), (2, 1_000), (900, 60), (60, 600)] {
        for _ in 0..commits {
            store.journal_limit = 100_000;
            let rows: Vec<(Key, Vec<u8>)> = (0..1 + dice.below(most))
                .map(|_| (key(desk, dice.below(2_000) as u32), vec![dice.below(256) as u8; 40]))
                .collect();
            store.commit(puts(rows.iter().map(|(key, body)| (*key, &body[..])))).unwrap();
            expected.extend(rows);
            assert!(store.journal.size().unwrap() < 400_000, "{:?}", store.journal.size());
            if dice.one_in(50) {
                folder = folder.crashed();
                drop(store);
                store = folder.open();
                reopened_in_two_parts += usize::from(store.frozen.is_some() && !store.newest.is_empty());
                assert!(scan(&mut store, desk, Kind::Session).unwrap() == expected);
            }
        }
    }
    assert!(reopened_in_two_parts > 5, "{reopened_in_two_parts}");
    store.close().unwrap();
    assert!(scan(&mut folder.open(), desk, Kind::Session).unwrap() == expected);
}

/// While somebody copies the store, its journal grows and is not written over; the copy has it in a table.
#[test]
fn a_store_that_is_copied_keeps_its_journal() {
    let folder = Folder::new();
    let mut store = folder.open();
    store.journal_limit = 20_000;
    let desk = account(&mut store, "desk");
    let commit = |store: &mut SqliteStore, i: u32| store.commit(puts([(key(desk, i), &[i as u8; 300][..])])).unwrap();
    (0..30).for_each(|i| commit(&mut store, i));
    let copier = fs::File::open(folder.0.path().join("gateway.db.generation")).unwrap();
    copier.lock().unwrap();
    let before = folder.crashed();
    (30..90).for_each(|i| commit(&mut store, i));
    assert!(store.journal.active_bytes() > 60 * 4_096);
    // As a copier may find it: the journal of then, SQLite's files of later, when rows were folded and an account was made.
    account(&mut store, "bell");
    let later = folder.crashed();
    for (i, path) in journal::paths(&later.path()).into_iter().enumerate() {
        let _ = fs::remove_file(&path);
        let _ = fs::copy(&journal::paths(&before.path())[i], path);
    }
    let mut copy = SqliteStore::open_copy(&later.path(), operator_key(), None).unwrap();
    assert_eq!(copy.accounts().unwrap(), [(desk, "desk".to_owned())]);
    assert_eq!(scan(&mut copy, desk, Kind::Session).unwrap().len(), 31);
    drop(copier);
    (90..120).for_each(|i| commit(&mut store, i));
    assert!(store.journal.active_bytes() < 20_000 + 4_096);
    // A backup is one file, of a store that is open and of one that is not.
    for (i, closed) in [(0, false), (1, true)] {
        if closed {
            store.close().unwrap();
        }
        let path = folder.0.path().join(format!("copy-{i}.db"));
        backup::backup(&folder.path(), &path).unwrap();
        let mut copy = SqliteStore::open_copy(&path, operator_key(), None).unwrap();
        assert_eq!(scan(&mut copy, desk, Kind::Session).unwrap().len(), 121);
        copy.declare().unwrap();
        copy.commit(puts([(key(desk, 200), &b"on"[..])])).unwrap();
        drop(copy);
        let mut copy = open(&path).unwrap();
        assert_eq!(scan(&mut copy, desk, Kind::Session).unwrap().len(), 122);
        let raw = copy.connection.as_ref().unwrap();
        assert_eq!(raw.query_row("SELECT count(*) FROM journal", [], |row| row.get::<_, i64>(0)), Ok(0));
    }
}

/// Rows that were new and went before the journal was folded never come to the table; those that were folded, or were
/// replayed after a crash, go from it.
#[test]
fn rows_that_come_and_go_are_in_no_table() {
    let mut folder = Folder::new();
    let mut store = folder.open();
    let desk = account(&mut store, "desk");
    let kept = |i: u32| Key { kind: Kind::Buffered, ..key(desk, i) };
    let stored = |store: &SqliteStore| {
        let sql = "SELECT count(*) FROM rows WHERE substr(key, 5, 1) = ?1";
        let raw = store.connection.as_ref().unwrap();
        raw.query_row(sql, [&[Kind::Buffered as u8][..]], |row| row.get::<_, i64>(0)).unwrap()
    };
    let rows = |store: &mut SqliteStore| scan(store, desk, Kind::Buffered).unwrap().len();
    store.journal_limit = 30_000;
    for i in 0..2_000_u32 {
        let mut changes = Changes::default();
        if let Some(before) = i.checked_sub(2) {
            changes.delete(kept(before));
        }
        changes.put_new(kept(i), |bytes| bytes.resize(bytes.len() + 60, i as u8));
        // One of a hundred stays, so that it is folded.
        if i % 100 == 0 {
            changes.put_new(kept(10_000 + i), |bytes| bytes.push(i as u8));
        }
        store.commit(changes).unwrap();
        let stay = 1 + i as usize / 100;
        assert_eq!(rows(&mut store), stay + 1 + usize::from(i > 0));
        // What is being folded may have the few that were there when it was frozen, and what is to go of those before.
        assert!(stored(&store) as usize <= stay + 4, "{}", stored(&store));
    }
    assert!(store.folded > 500 && stored(&store) > 10, "{} {}", store.folded, stored(&store));
    // A crash: what comes from the blocks may be in the table.
    folder = folder.crashed();
    drop(store);
    let mut store = folder.open();
    assert_eq!(rows(&mut store), 22);
    let gone = (0..20).map(|i| kept(10_000 + 100 * i)).chain([kept(1_998), kept(1_999)]);
    let mut changes = Changes::default();
    gone.for_each(|key| changes.delete(key));
    store.commit(changes).unwrap();
    assert_eq!(rows(&mut store), 0);
    // Gone and put anew at once: it is in the table, and goes from there.
    let mut changes = Changes::default();
    changes.put_new(kept(7), |bytes| bytes.push(1));
    store.commit(changes).unwrap();
    store.close().unwrap();
    let mut store = folder.open();
    assert_eq!((rows(&mut store), stored(&store)), (1, 1));
    for last in [false, true] {
        let mut changes = Changes::default();
        changes.delete(kept(7));
        if !last {
            changes.put_new(kept(7), |bytes| bytes.push(2));
        }
        store.commit(changes).unwrap();
    }
    assert_eq!(rows(&mut store), 0);
    store.close().unwrap();
    let mut store = folder.open();
    assert_eq!((rows(&mut store), stored(&store)), (0, 0));
}

#[test]
fn a_peer_is_one_row_of_the_table() {
    let folder = Folder::new();
    let mut store = folder.open();
    let desk = account(&mut store, "desk");
    let of_peer = |i: u32| Kind::OF_A_PEER.map(|kind| Key { kind, ..key(desk, i) });
    let fold = |store: &mut SqliteStore| {
        store.close().unwrap();
        *store = folder.open();
        assert!(store.newest.is_empty());
        let raw = store.connection.as_ref().unwrap();
        raw.query_row("SELECT count(*) FROM rows", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    let held = |store: &mut SqliteStore, i: u32| load(store, &of_peer(i)).unwrap();
    store.commit(puts((0..3).flat_map(of_peer).map(|key| (key, &b"first"[..])))).unwrap();
    let mut parts = vec![Some(b"first".to_vec()); 5];
    assert_eq!(fold(&mut store), 4);
    assert_eq!(held(&mut store, 1), parts);
    // One part, two in different commits, one that is put and goes again: the rest stays.
    store.commit(puts([(of_peer(1)[3], &b"second"[..])])).unwrap();
    store.commit(puts([(of_peer(1)[0], &b""[..]), (of_peer(1)[4], &b"x"[..])])).unwrap();
    let mut changes = Changes::default();
    changes.delete(of_peer(1)[4]);
    changes.delete(of_peer(1)[2]);
    changes.delete(of_peer(7)[2]);
    store.commit(changes).unwrap();
    parts = vec![Some(Vec::new()), Some(b"first".to_vec()), None, Some(b"second".to_vec()), None];
    for _ in 0..2 {
        assert_eq!(held(&mut store, 1), parts);
        assert_eq!(held(&mut store, 0), vec![Some(b"first".to_vec()); 5]);
        assert_eq!(scan(&mut store, desk, Kind::Archive).unwrap().len(), 2);
        assert_eq!(scan(&mut store, desk, Kind::Peer).unwrap().len(), 3);
        assert_eq!(fold(&mut store), 4);
    }
    // A row without parts is none.
    let mut changes = Changes::default();
    of_peer(1).into_iter().chain(of_peer(8)).for_each(|key| changes.delete(key));
    store.commit(changes).unwrap();
    assert_eq!(held(&mut store, 1), vec![None; 5]);
    assert_eq!(fold(&mut store), 3);
    assert_eq!(held(&mut store, 1), vec![None; 5]);
    // In any order, and twice.
    let asked = [of_peer(2)[1], of_peer(1)[0], of_peer(0)[4], of_peer(2)[0], of_peer(2)[1], key(desk, u32::MAX)];
    let there = load(&mut store, &asked).unwrap().into_iter().map(|body| body.is_some());
    assert_eq!(there.collect::<Vec<_>>(), [true, false, true, true, true, true]);
}

/// What the table gets to hold, however many rows are folded together, on every backend: peers of whom some parts were
/// there and some come, go or stay, rows in whole, and those that go; of an account that is deleted nothing.
#[test]
fn what_is_folded_is_what_was_committed() {
    for backend in Backend::available() {
        let folder = Folder::new();
        let reopened = || {
            let mut store = folder.open();
            store.runs_on(backend);
            store
        };
        let mut store = reopened();
        let accounts = ["desk", "bell", "ring"].map(|name| account(&mut store, name));
        let mut model = everything(&mut store).unwrap().1;
        let mut dice = Dice(7);
        for round in 0..4_u8 {
            let mut changes = Changes::default();
            for _ in 0..2_000 {
                let at = Key { kind: Kind::ALL[dice.below(11)], ..key(accounts[dice.below(3)], dice.below(90) as u32) };
                if dice.one_in(3) {
                    changes.delete(at);
                    model.remove(&at);
                } else {
                    let body = vec![round + dice.below(250) as u8; dice.below(300)];
                    changes.put(at, |bytes| bytes.extend_from_slice(&body));
                    model.insert(at, body);
                }
            }
            // Peers who go in whole, from among those that stay.
            for at in (0..90).step_by(7).map(|i| key(accounts[0], i)) {
                for kind in Kind::OF_A_PEER {
                    changes.delete(Key { kind, ..at });
                    model.remove(&Key { kind, ..at });
                }
            }
            store.commit(changes).unwrap();
            if round == 3 {
                store.delete_account(accounts[1]).unwrap();
                model.retain(|key, _| key.account != accounts[1]);
            }
            store.close().unwrap();
            let raw = folder.raw();
            let in_table = raw.query_row("SELECT count(*) FROM rows", [], |row| row.get::<_, i64>(0)).unwrap();
            let places: std::collections::BTreeSet<Key> = model.keys().map(|&key| table::place(key)).collect();
            assert_eq!(in_table, places.len() as i64);
            drop(raw);
            store = reopened();
            assert!(store.newest.is_empty());
            assert!(everything(&mut store).unwrap().1 == model, "round {round}, {}", backend.name());
        }
    }
}

/// A row that cannot be opened is refused when it is folded, wherever it is among others, and nothing is folded then.
#[test]
fn what_is_folded_onto_a_damaged_row_is_refused_and_not_lost() {
    let folder = Folder::new();
    let mut store = folder.open();
    let desk = account(&mut store, "desk");
    let mut peers: Vec<Key> = (0..200).map(|i| key(desk, i)).collect();
    peers.sort_unstable();
    let sending = |at: &Key| Key { kind: Kind::Sending, ..*at };
    store.commit(puts(peers.iter().map(|at| (*at, &[1; 100][..])))).unwrap();
    store.close().unwrap();
    let rows = |raw: &Connection| -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = raw.prepare("SELECT key, body FROM rows").unwrap();
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    let whole = rows(&folder.raw());
    let row = |at: usize| table::place(peers[at]).to_bytes().to_vec();
    let body = |at: usize| whole.iter().find(|(key, _)| *key == row(at)).unwrap().1.clone();
    let changed = |at: usize| {
        let mut body = body(at);
        body[30] ^= 1;
        body
    };
    let set = |at: usize, body: &[u8]| {
        let sql = "UPDATE rows SET body = ?2 WHERE key = ?1";
        assert_eq!(folder.raw().execute(sql, params![row(at), body]).unwrap(), 1);
    };
    for (round, (at, damage)) in
        [(0, changed(0)), (96, changed(96)), (97, Vec::new()), (199, body(7))].into_iter().enumerate()
    {
        set(at, &damage);
        let before = rows(&folder.raw());
        let mut store = folder.open();
        store.runs_on(Backend::detect().unwrap());
        let newest = [round as u8; 40];
        store.commit(puts(peers.iter().map(|at| (sending(at), &newest[..])))).unwrap();
        refused(store.close(), "damaged or moved");
        drop(store);
        assert!(rows(&folder.raw()) == before, "some rows were folded, and others not");
        set(at, &body(at));
    }
    let mut store = folder.open();
    store.close().unwrap();
    let mut store = folder.open();
    assert_eq!(scan(&mut store, desk, Kind::Session).unwrap().len(), 201);
    let newest = load(&mut store, &peers.iter().map(sending).collect::<Vec<_>>()).unwrap();
    assert!(newest.iter().all(|body| body.as_deref() == Some(&[3; 40])));
}

#[test]
fn what_is_asked_for_is_found_however_far_apart_it_is() {
    let folder = Folder::new();
    let mut store = folder.open();
    let [desk, bell] = ["desk", "bell"].map(|name| account(&mut store, name));
    // Every kind has neighbours, and keys that are not there lie between them.
    let kinds = [Kind::OneTimePrekey, Kind::Receiving, Kind::Holders];
    let at = |i: u32| Key { kind: kinds[i as usize % 3], ..key([desk, bell][i as usize / 3 % 2], i) };
    let body = |i: u32| i.to_le_bytes();
    let mut changes = Changes::default();
    for i in (0..6_000).filter(|i| i % 5 != 0) {
        changes.put(at(i), |bytes| bytes.extend(body(i)));
    }
    store.commit(changes).unwrap();
    store.close().unwrap();
    let mut store = folder.open();
    for step in [1, 2, 3, 4, 5, 7, 40, 1_999] {
        let asked: Vec<u32> = (0..6_000).step_by(step).collect();
        let keys: Vec<Key> = asked.iter().map(|&i| at(i)).collect();
        let expected: Vec<_> = asked.iter().map(|&i| (i % 5 != 0).then(|| body(i).to_vec())).collect();
        assert_eq!(load(&mut store, &keys).unwrap(), expected, "{step}");
        // Opened at once, too.
        let mut at_once = vec![None; keys.len()];
        let mut found = |i: usize, body: &[u8]| {
            assert!(at_once[i].replace(body.to_vec()).is_none(), "found twice");
            Ok(())
        };
        store.load(&keys, &mut found).unwrap();
        assert_eq!(at_once, expected, "{step}");
    }
}

#[test]
fn a_closed_store_has_given_back_what_its_journal_took() {
    let folder = Folder::new();
    let mut store = folder.open();
    let desk = account(&mut store, "desk");
    for round in 0..20 {
        let body = [round; 1_000];
        store.commit(puts((0..100).map(|i| (key(desk, i), &body[..])))).unwrap();
    }
    let open = store.size_bytes().unwrap();
    store.close().unwrap();
    let closed = fs::metadata(folder.path()).unwrap().len();
    assert!(open > 2_000_000 && closed < 25 * u64::from(PAGE_BYTES), "{open} {closed}");
    let held = scan(&mut folder.open(), desk, Kind::Session).unwrap();
    assert_eq!(held.values().filter(|body| body[..] == [19; 1_000]).count(), 100);
}

#[test]
fn it_is_the_memory_store_that_outlives_crashes() {
    contract::it_is_the_memory_store_that_outlives_crashes(12, Folder::new);
}

/// How much of what could be looked at is: `make chaos` asks for more.
fn chaos() -> usize {
    std::env::var("INTERLANE_CHAOS").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

fn thoroughness() -> Thoroughness {
    let chaos = chaos();
    Thoroughness { pieces_whole: if chaos > 1 { 9 } else { 4 }, ordered: 5 * chaos, random: 4 * chaos }
}

/// All that a store has.
fn everything(store: &mut SqliteStore) -> Result<Held, Error> {
    let accounts = store.accounts()?;
    let mut rows = Rows::new();
    for &(account, _) in &accounts {
        for kind in Kind::ALL {
            rows.extend(scan(store, account, kind)?);
        }
    }
    Ok((accounts, rows))
}

/// Does a few dozen things to a store whose journal is folded all the time; what it held after each, and how far the
/// disk was then.
fn history(disk: &Disk, folder: &Folder, dice: &mut Dice) -> Vec<(usize, Held)> {
    let mut store = folder.open();
    let mut held = vec![(disk.now(), everything(&mut store).unwrap())];
    for step in 0..40_u8 {
        store.fold_at(30_000);
        let accounts = store.accounts().unwrap();
        match dice.below(12) {
            0 => drop(account(&mut store, &step.to_string())),
            1 if accounts.len() > 1 => store.delete_account(accounts[dice.below(accounts.len())].0).unwrap(),
            2 => {
                store.close().unwrap();
                store = folder.open();
            }
            3 => {
                drop(store);
                store = folder.open();
            }
            _ if accounts.is_empty() => drop(account(&mut store, &step.to_string())),
            _ => {
                let mut changes = Changes::default();
                for _ in 0..1 + dice.below(12) {
                    let at = accounts[dice.below(accounts.len())].0;
                    let key = Key { kind: Kind::ALL[dice.below(9)], ..key(at, dice.below(20) as u32) };
                    let length = dice.below(600);
                    if dice.one_in(5) {
                        changes.delete(key);
                    } else {
                        changes.put(key, |bytes| bytes.resize(bytes.len() + length, step));
                    }
                }
                store.commit(changes).unwrap();
            }
        }
        held.push((disk.now(), everything(&mut store).unwrap()));
    }
    store.close().unwrap();
    held.push((disk.now(), held.last().unwrap().1.clone()));
    held
}

#[test]
fn every_image_of_a_power_cut_is_of_one_commit_and_of_none_before_the_last() {
    let (mut images, mut between) = (0, 0);
    for seed in 0..(2 * chaos() as u64) {
        let (folder, mut dice) = (Folder::new(), Dice(seed));
        let disk = Disk::watch(folder.0.path());
        let held = history(&disk, &folder, &mut dice);
        images += disk.images(0, thoroughness(), &mut dice, |image| {
            let after = Folder::new();
            image.write(after.0.path());
            let what = || format!("seed {seed}, after {} of {}, {}", image.at, held.last().unwrap().0, image.what);
            let mut store = open(&after.path()).unwrap_or_else(|error| panic!("{}: {error}", what()));
            let found = everything(&mut store).unwrap_or_else(|error| panic!("{}: {error}", what()));
            // The last thing that had returned, or the one that was under way.
            let last = held.partition_point(|(at, _)| *at <= image.at);
            let expected = [last.checked_sub(1), Some(last)].into_iter().flatten().filter_map(|i| held.get(i));
            let empty = (Vec::new(), Rows::new());
            let whole = expected.map(|(_, rows)| rows).chain((last == 0).then_some(&empty)).any(|rows| *rows == found);
            assert!(whole, "{}: a state that never was, or one that is past", what());
            between += usize::from(held.get(last).is_some_and(|(_, rows)| *rows == found));
            // It goes on from there, over another crash.
            let desk = account(&mut store, "after the cut");
            drop(store);
            assert_eq!(open(&after.path()).unwrap().accounts().unwrap().last().unwrap().0, desk);
        });
    }
    println!("{images} images of power cuts");
    assert!(images > 300 && between > 30, "{images} {between}");
}

/// Every call of a sort is made to fail, one after another: the store says so, and once it is opened again it has what
/// was committed; the batch that failed is there in whole or not at all. Then the power is cut.
#[test]
fn every_call_to_the_disk_can_fail() {
    let cases = [
        (Call::Write, Failure::Io, &["a disk that fails"][..]),
        (Call::Write, Failure::Full, &["no room on its disk"][..]),
        (Call::Write, Failure::ReadOnly, &["is read-only"][..]),
        (Call::Sync, Failure::Io, &["a disk that fails"][..]),
        // The journal's disk has no room, and SQLite's fails.
        (Call::Sync, Failure::Full, &["no room on its disk", "a disk that fails"]),
        (Call::Truncate, Failure::Io, &["a disk that fails"][..]),
    ];
    let (mut failures, mut images) = (0, 0);
    for (call, failure, says) in cases {
        let refused = |error: Error| {
            let said = says.iter().find(|says| error.to_string().contains(**says));
            refused::<()>(Err(error), said.unwrap_or(&says[0]));
        };
        for (lasting, cut_while_opening) in [(false, false), (false, true), (true, false), (true, true)] {
            for after in 0.. {
                let folder = Folder::new();
                let mut store = folder.open();
                store.fold_at(24_000);
                let desk = account(&mut store, "desk");
                store.commit(puts((0..40).map(|i| (key(desk, i), &[1; 100][..])))).unwrap();
                drop(store);
                let disk = Disk::watch(folder.0.path());
                let mut store = folder.open();
                store.fold_at(24_000);
                let mut rows = everything(&mut store).unwrap().1;
                disk.fail(Some(Fault { call, after, failure, lasting }));
                let mut tried = None;
                for step in 2..14_u8 {
                    let next: Vec<_> = (0..30).map(|i| (key(desk, i * u32::from(step)), vec![step; 150])).collect();
                    match store.commit(puts(next.iter().map(|(key, body)| (*key, &body[..])))) {
                        Ok(()) => rows.extend(next),
                        Err(error) => {
                            refused(error);
                            tried = Some(next);
                            break;
                        }
                    }
                }
                if tried.is_none()
                    && let Err(error) = store.close()
                {
                    refused(error);
                }
                // A disk that goes on failing keeps the store from copying its log back when it is dropped.
                if !lasting {
                    disk.fail(None);
                }
                drop(store);
                disk.fail(None);
                if disk.failed() == 0 {
                    assert!(after > 0, "{call:?} is never made");
                    break;
                }
                failures += 1;
                let mut with = rows.clone();
                with.extend(tried.into_iter().flatten());
                let mut dice = Dice(after);
                let what = format!("{call:?} {failure:?} {lasting} {after}");
                let mut more = None;
                if cut_while_opening {
                    let (call, after) = (Call::Change, dice.below(8) as u64);
                    disk.fail(Some(Fault { call, after, failure: Failure::PowerCut, lasting: true }));
                    drop(open(&folder.path()));
                } else {
                    // The machine goes on.
                    let mut store = folder.open();
                    let mut found = everything(&mut store).unwrap().1;
                    assert!(found == rows || found == with, "{what}: half a batch");
                    found.insert(key(desk, 7_777), b"more".to_vec());
                    store.commit(puts([(key(desk, 7_777), &b"more"[..])])).unwrap();
                    more = Some(found);
                }
                for _ in 0..4 {
                    let image = disk.cut(&mut dice);
                    let after_cut = Folder::new();
                    image.write(after_cut.0.path());
                    let what = format!("{what}: cut, {}", image.what);
                    let mut store = open(&after_cut.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
                    let found = everything(&mut store).unwrap().1;
                    assert!(more.as_ref().map_or(found == rows || found == with, |more| found == *more), "{what}");
                    images += 1;
                }
            }
        }
    }
    println!("{failures} failures of a disk, {images} images of power cuts after them");
    assert!(failures > 100, "{failures}");
}

/// A store of schema 2, with rows in its table and in its journal.
fn of_schema_2() -> Folder {
    let folder = Folder::new();
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/schemas/2");
    for (from, to) in [("near.db", "gateway.db"), ("near.db.generation", "gateway.db.generation")] {
        fs::copy(made.join(from), folder.0.path().join(to)).unwrap();
    }
    folder
}

/// The key that `tests/schemas/make.py` gives.
fn open_made(path: &Path) -> Result<SqliteStore, Error> {
    SqliteStore::open(path, Secret::copy_of(&std::array::from_fn(|i| i as u8)), None)
}

/// What is in a store of schema 2, read without what migrates it.
fn held_in_schema_2(folder: &Folder) -> Rows {
    let copy = folder.crashed();
    let mut migrated = open_made(&copy.path()).unwrap();
    let raw = folder.raw();
    let mut statement = raw.prepare("SELECT key, body FROM rows").unwrap();
    let mut found = statement.query([]).unwrap();
    let mut rows = Rows::new();
    while let Some(row) = found.next().unwrap() {
        let key = Key::of_bytes(&row.get::<_, Vec<u8>>(0).unwrap()).unwrap();
        let (body, mut plain): (Vec<u8>, _) = (row.get(1).unwrap(), Zeroizing::default());
        let data_key = migrated.data_keys.of(key.account).unwrap();
        sealed::open(data_key, &migrated.store_id, Place::Row(key), &body, &mut plain).unwrap();
        rows.insert(key, plain.to_vec());
    }
    assert!(rows.len() > 40);
    // What the migration found in its table.
    let journalled = &migrated.frozen.as_ref().unwrap().rows;
    for place in journalled.in_order_of(|key| key) {
        match journalled.entry(place) {
            (key, Newest::Body(body)) => drop(rows.insert(key, body.to_vec())),
            (key, _) => drop(rows.remove(&key)),
        }
    }
    migrated.close().unwrap();
    rows
}

#[test]
fn a_store_of_schema_2_becomes_one_of_this() {
    let folder = of_schema_2();
    let expected = held_in_schema_2(&folder);
    // Whoever has no key migrates nothing, and neither does who has an old copy.
    let before = folder.bytes();
    refused(open(&folder.path()), "another operator key");
    assert_eq!(folder.bytes(), before);
    let note = folder.0.path().join("gateway.db.generation");
    let (told, later) = (fs::read(&note).unwrap(), 99_u64.to_le_bytes());
    fs::write(&note, [&told[..16], &later].concat()).unwrap();
    refused(open_made(&folder.path()), "is older than it was");
    fs::write(&note, told).unwrap();
    assert_eq!(folder.raw().pragma_query_value(None, "user_version", |row| row.get(0)), Ok(2));

    for _ in 0..2 {
        let mut store = open_made(&folder.path()).unwrap();
        let (accounts, rows) = everything(&mut store).unwrap();
        assert_eq!(accounts, [(1, "desk".to_owned())]);
        assert_eq!(rows, expected);
        let number = |name: &str| {
            store.connection.as_ref().unwrap().pragma_query_value(None, name, |row| row.get::<_, u32>(0)).unwrap()
        };
        assert_eq!(
            (number("user_version"), number("page_size"), number("auto_vacuum")),
            (SCHEMA as u32, PAGE_BYTES, 2)
        );
        drop(store);
    }
    let mut store = open_made(&folder.path()).unwrap();
    store.close().unwrap();
    let peers = expected.keys().filter(|key| key.kind == Kind::Peer).count();
    let alone = expected.keys().filter(|key| table::place(**key) == **key && key.kind != Kind::Peer).count();
    let count = folder.raw().query_row("SELECT count(*) FROM rows", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count as usize, peers + alone);
}

#[test]
fn a_migration_is_done_in_whole_or_not_at_all() {
    let folder = of_schema_2();
    let expected = held_in_schema_2(&folder);
    let disk = Disk::watch(folder.0.path());
    drop(open_made(&folder.path()).unwrap());
    let mut dice = Dice(7);
    let (mut older, mut newer) = (0, 0);
    // Most of what a migration does comes after the old tables are gone: more of each moment.
    let usual = thoroughness();
    let how = Thoroughness { ordered: 2 * usual.ordered, random: 2 * usual.random, ..usual };
    let images = disk.images(0, how, &mut dice, |image| {
        let after = Folder::new();
        image.write(after.0.path());
        if !after.path().exists() {
            // The disk learns of a file when it is first opened.
            return;
        }
        let what = || format!("after {}, {}", image.at, image.what);
        let schema: Result<i32, _> = after.raw().pragma_query_value(None, "user_version", |row| row.get(0));
        match schema.unwrap_or_else(|error| panic!("{}: {error}", what())) {
            2 => older += 1,
            SCHEMA => newer += 1,
            other => panic!("{}: schema {other}", what()),
        }
        let mut store = open_made(&after.path()).unwrap_or_else(|error| panic!("{}: {error}", what()));
        assert_eq!(everything(&mut store).unwrap().1, expected, "{}", what());
        store.close().unwrap();
    });
    println!("{images} images of a migration, {older} before and {newer} after");
    assert!(older > 10 && newer > 10, "{older} {newer}");
}

#[test]
fn a_migration_can_fail_at_every_call_to_the_disk() {
    let expected = held_in_schema_2(&of_schema_2());
    let mut failures = 0;
    for (call, failure) in [
        (Call::Write, Failure::Io),
        (Call::Write, Failure::Full),
        (Call::Sync, Failure::Io),
        (Call::Truncate, Failure::Io),
    ] {
        for after in 0.. {
            let folder = of_schema_2();
            let disk = Disk::watch(folder.0.path());
            disk.fail(Some(Fault { call, after, failure, lasting: true }));
            let opened = open_made(&folder.path());
            if let Err(error) = opened.map(drop) {
                let says = if failure == Failure::Full { "no room on its disk" } else { "a disk that fails" };
                refused::<()>(Err(error), says);
            }
            disk.fail(None);
            if disk.failed() == 0 {
                assert!(after > 0, "{call:?} is never made");
                break;
            }
            failures += 1;
            let mut store = open_made(&folder.path()).unwrap_or_else(|error| panic!("{call:?} {after}: {error}"));
            assert_eq!(everything(&mut store).unwrap().1, expected, "{call:?} {failure:?} {after}");
        }
    }
    println!("{failures} failures of a migration");
    assert!(failures > 50, "{failures}");
}

#[test]
fn changes_survive_their_encoding() {
    let mut changes = Changes::default();
    let lengths = [0, 1, 127, 128, 16_383, 16_384, 3_000_000];
    for length in lengths {
        changes.put(key(7, length), |bytes| bytes.resize(bytes.len() + length as usize, 6));
        changes.delete(key(7, length + 1));
    }
    let mut block = Vec::new();
    for &(key, change) in &changes.rows {
        put_change(&mut block, key, change, &changes.bytes);
    }
    let mut rest = block.as_slice();
    for (key, body) in changes.iter() {
        assert_eq!(take_change(7, &mut rest), Some((key, body)));
    }
    assert!(rest.is_empty());
    for cut in [1, 10, 17, 18, 20, 40] {
        let mut rest = &block[..cut];
        while !rest.is_empty() {
            if take_change(7, &mut rest).is_none() {
                break;
            }
        }
    }
    assert_eq!(take_change(7, &mut &block[..16]), None);
    assert_eq!(take_change(7, &mut &[&[5][..], &[0; 16], &[0xff; 9]].concat()[..]), None);
}

#[test]
fn an_old_sqlite_is_refused() {
    check_version(rusqlite::version_number(), rusqlite::version()).unwrap();
    refused(check_version(3_051_002, "3.51.2"), "SQLite 3.51.2 can lose commits");
}
