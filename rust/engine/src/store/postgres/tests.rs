//! Tests of the PostgreSQL store, on servers of their own: ownership, unknown outcomes, lost connections, damage.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::super::contract::{self, account, key, load, puts, refused, scan};
use super::*;

pub(crate) mod server;

use server::Server;

/// The server that tests share, each with a database of its own. It goes when they have ended.
static SERVER: LazyLock<Option<Server>> = LazyLock::new(|| server::available().map(|bin| Server::start(&bin)));

fn operator_key() -> Secret<32> {
    Secret::copy_of(&[42; 32])
}

fn open(url: &str, options: &str) -> Result<PostgresStore, Error> {
    PostgresStore::open(&format!("{url}?{options}"), operator_key())
}

/// A database.
struct Database<'a> {
    server: &'a Server,
    url: String,
}

impl Database<'static> {
    /// None where there is no PostgreSQL.
    fn new() -> Option<Self> {
        SERVER.as_ref().map(Self::on)
    }
}

impl<'a> Database<'a> {
    fn on(server: &'a Server) -> Self {
        Self { server, url: server.database() }
    }

    fn engine(&self, options: &str) -> PostgresStore {
        let mut store = open(&self.url, options).unwrap();
        store.accounts().unwrap();
        store
    }

    #[track_caller]
    fn sql(&self, sql: &str) -> Vec<String> {
        let (_, name) = self.url.rsplit_once('/').unwrap();
        self.server.sql(name, sql)
    }

    /// Ends this database's sessions.
    fn end_sessions(&self) {
        let (_, name) = self.url.rsplit_once('/').unwrap();
        let of = format!("FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()");
        self.server.sql("postgres", &format!("SELECT pg_terminate_backend(pid) {of}"));
        self.server.wait_for(&format!("SELECT count(*) {of}"), "0");
    }
}

impl contract::Place for Database<'_> {
    fn open(&self) -> Box<dyn Store> {
        Box::new(open(&self.url, "engine=one").unwrap())
    }

    fn open_after_crash(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        drop(store);
        self.open()
    }
}

/// Leaves a test out where there is no PostgreSQL.
macro_rules! database {
    () => {
        match Database::new() {
            Some(database) => database,
            None => return,
        }
    };
}

fn body(store: &mut PostgresStore, key: Key) -> Option<Vec<u8>> {
    load(store, &[key]).unwrap().remove(0)
}

#[test]
fn what_is_closed_opens_again() {
    contract::what_is_closed_opens_again(&database!());
}

#[test]
fn a_crash_loses_nothing_that_was_committed() {
    contract::a_crash_loses_nothing_that_was_committed(&mut database!());
}

#[test]
fn fifty_thousand_rows_come_back() {
    contract::fifty_thousand_rows_come_back(&database!());
}

#[test]
fn it_is_the_memory_store_that_outlives_crashes() {
    database!();
    contract::it_is_the_memory_store_that_outlives_crashes(4, || Database::new().expect("there was one before"));
}

#[test]
fn an_engine_that_was_replaced_writes_nothing() {
    let database = database!();
    let mut old = database.engine("engine=one");
    let desk = account(&mut old, "desk");
    old.commit(puts([(key(desk, 1), &b"old"[..])])).unwrap();
    // Of the same name, as a new process of the same gateway is.
    let mut new = database.engine("engine=one");
    assert_eq!(body(&mut new, key(desk, 1)), Some(b"old".to_vec()));
    old.commit(puts([(key(desk, 1), &b"late"[..]), (key(desk, 2), b"late")])).unwrap();
    assert_eq!(old.lost(), [(desk, Loss::Moved)]);
    assert_eq!(scan(&mut new, desk, Kind::Session).unwrap().len(), 2);
    assert_eq!(body(&mut new, key(desk, 1)), Some(b"old".to_vec()));
    new.commit(puts([(key(desk, 1), &b"new"[..])])).unwrap();
    assert_eq!(new.lost(), []);
    // It is told so again, and does not take the shard back by itself.
    assert_eq!(old.accounts().unwrap(), []);
    old.commit(puts([(key(desk, 1), &b"later"[..])])).unwrap();
    assert_eq!(old.lost(), [(desk, Loss::Stale)]);
    assert!(matches!(load(&mut old, &[key(desk, 1)]), Err(Error::Busy(_))));
    assert!(matches!(scan(&mut old, desk, Kind::Session), Err(Error::Busy(_))));
    assert_eq!(body(&mut new, key(desk, 1)), Some(b"new".to_vec()));
}

#[test]
fn two_engines_that_fight_for_a_shard_count_every_number_once() {
    let database = database!();
    let desk = account(&mut database.engine("engine=one"), "desk");
    // Each counts on from what is stored, takes the shard when it lost it, and notes what was acknowledged:
    // until both had to take it more than once, however long a turn the machine gives one of them.
    let fights = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let met = || fights.iter().all(|fights| fights.load(Ordering::Relaxed) > 1);
    let fight = |own: usize| {
        let mut store = database.engine(&format!("engine={own}&shards=all"));
        let mut released = Vec::new();
        while released.len() < 100 || !met() {
            assert!(released.len() < 100_000, "the other never took the shard");
            let next = match load(&mut store, &[key(desk, 1)]) {
                Ok(found) => 1 + found[0].as_ref().map_or(0, |body| u32::from_le_bytes(body[..].try_into().unwrap())),
                Err(Error::Busy(_)) => 0,
                Err(error) => panic!("{error}"),
            };
            let committed =
                if next == 0 { Ok(()) } else { store.commit(puts([(key(desk, 1), &next.to_le_bytes()[..])])) };
            match (committed, store.lost().is_empty()) {
                (Ok(()), true) if next != 0 => released.push(next),
                (Ok(()) | Err(Error::Busy(_)), _) => {
                    fights[own].fetch_add(1, Ordering::Relaxed);
                    store.take(&[shard_of("desk")], Whose { anyones: true, ..Whose::default() }).unwrap();
                    assert_eq!(store.accounts().unwrap().len(), 1);
                    store.lost();
                }
                (Err(error), _) => panic!("{error}"),
            }
        }
        released
    };
    let mut all = std::thread::scope(|scope| {
        let fight = &fight;
        [0, 1].map(|own| scope.spawn(move || fight(own))).map(|engine| engine.join().unwrap()).concat()
    });
    all.sort_unstable();
    assert_eq!(all, (1..=u32::try_from(all.len()).unwrap()).collect::<Vec<_>>());
}

#[test]
fn a_shard_is_handed_over_between_two_commits() {
    let database = database!();
    let mut one = database.engine("engine=one");
    let [desk, bell] = ["desk", "bell"].map(|name| account(&mut one, name));
    let mut two = database.engine("engine=two");
    assert_eq!(two.accounts().unwrap(), []);
    refused(two.create_account("other", &mut |_| Changes::default()), "which engine one has: call there");
    assert_eq!(two.elsewhere("nobody").unwrap(), None);
    let told = two.elsewhere("desk").unwrap().unwrap();
    assert_eq!(told, format!("account desk is in shard {}, which engine one has: call there", shard_of("desk")));

    two.move_shards(&[shard_of("desk")], "two", false).unwrap();
    assert_eq!(two.accounts().unwrap(), [], "it was asked for, not taken");
    // The commit that finds out is still whole.
    let both = |body: &'static [u8]| puts([desk, bell].map(|account| (key(account, 1), body)));
    one.commit(both(b"1")).unwrap();
    assert_eq!(one.lost(), []);
    one.commit(both(b"2")).unwrap();
    assert_eq!(one.lost(), [(desk, Loss::Moved)]);
    assert_eq!(body(&mut one, key(bell, 1)), Some(b"2".to_vec()));
    assert_eq!(two.accounts().unwrap(), [(desk, "desk".to_owned())]);
    assert_eq!(body(&mut two, key(desk, 1)), Some(b"1".to_vec()));
    assert_eq!(one.elsewhere("bell").unwrap(), None);
    assert!(one.elsewhere("desk").unwrap().is_some());

    // Whoever comes may have it, but not the one that had it.
    one.move_shards(&[shard_of("bell")], "", false).unwrap();
    one.commit(puts([(key(bell, 1), &b"2"[..])])).unwrap();
    one.commit(puts([(key(bell, 1), &b"3"[..])])).unwrap();
    assert_eq!(one.lost(), [(bell, Loss::Moved)]);
    assert_eq!(one.accounts().unwrap(), []);
    assert!(one.elsewhere("bell").unwrap().unwrap().contains("which no engine has: interlane shards take"));
    assert_eq!(two.accounts().unwrap().len(), 2);
    one.move_shards(&[shard_of("bell")], "one", true).unwrap();
    assert_eq!(one.accounts().unwrap(), [(bell, "bell".to_owned())]);
    two.commit(puts([(key(bell, 1), &b"4"[..])])).unwrap();
    assert_eq!(two.lost(), [(bell, Loss::Moved)]);
    assert_eq!(body(&mut one, key(bell, 1)), Some(b"2".to_vec()));

    // At once, where nobody is asked.
    one.move_shards(&[shard_of("desk")], "one", true).unwrap();
    two.commit(puts([(key(desk, 1), &b"3"[..])])).unwrap();
    assert_eq!(two.lost(), [(desk, Loss::Moved)]);
    assert_eq!(one.accounts().unwrap().len(), 2);
    assert_eq!(body(&mut one, key(desk, 1)), Some(b"1".to_vec()));

    // An engine that ends leaves what it has to whoever comes.
    one.close().unwrap();
    let shards = two.shards().unwrap();
    assert!(shards.iter().all(|shard| shard.engine.is_empty() && !shard.serving));
    assert_eq!(shards.iter().map(|shard| shard.accounts).sum::<u64>(), 2);
    assert_eq!(two.accounts().unwrap().len(), 2);
    assert!(two.shards().unwrap().iter().all(|shard| shard.engine == "two" && shard.serving));
}

#[test]
fn what_is_held_is_confirmed_by_a_commit() {
    let Some(bin) = server::available() else { return };
    // Its settings are changed: not the server that tests share.
    let mut server = Server::start(&bin);
    let database = Database::on(&server);
    let mut one = database.engine("engine=one");
    let [desk, bell] = ["desk", "bell"].map(|name| account(&mut one, name));
    let before = one.shards().unwrap();
    one.confirm().unwrap();
    assert_eq!(one.lost(), []);
    assert_eq!(one.shards().unwrap(), before, "nothing is counted");

    // What is to be given up goes at once, without a commit.
    let mut two = database.engine("engine=two");
    two.move_shards(&[shard_of("desk")], "two", false).unwrap();
    one.confirm().unwrap();
    assert_eq!(one.lost(), [(desk, Loss::Moved)]);
    assert_eq!(two.accounts().unwrap(), [(desk, "desk".to_owned())]);
    // What was taken away is found out.
    two.move_shards(&[shard_of("bell")], "two", true).unwrap();
    one.confirm().unwrap();
    assert_eq!(one.lost(), [(bell, Loss::Moved)]);
    one.confirm().unwrap();
    assert_eq!(one.lost(), []);
    assert_eq!(two.accounts().unwrap().len(), 2);

    // A server that waits for a standby which is gone confirms nothing, and nothing is void for that.
    server.set("synchronous_standby_names = 'nobody'");
    server.wait_for("SHOW synchronous_standby_names", "nobody");
    let waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'interlane two'";
    // It waits from when its checkpointer has heard of the setting, which nothing shows.
    let confirmed = loop {
        let done = std::thread::scope(|scope| {
            let confirmed = scope.spawn(|| two.confirm());
            while !confirmed.is_finished() {
                let cancel = format!("SET synchronous_commit = local; SELECT pg_cancel_backend(pid) {waiting}");
                server.sql("postgres", &cancel);
                std::thread::sleep(Duration::from_millis(20));
            }
            confirmed.join().unwrap()
        });
        if done.is_err() {
            break done;
        }
    };
    assert!(matches!(confirmed, Err(Error::Busy(_))), "{confirmed:?}");
    assert_eq!(two.lost(), []);
    server.set("synchronous_standby_names = ''");
    server.wait_for("SHOW synchronous_standby_names", "");
    two.confirm().unwrap();
    assert_eq!(two.lost(), []);
    drop(one);
    server.kill();
    let begin = Instant::now();
    while two.confirm().is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(60));
    }
    assert!(matches!(two.confirm(), Err(Error::Busy(_))));
    server.start_again();
    drop(two);
}

#[test]
fn engines_that_name_their_shards_keep_to_them() {
    let database = database!();
    let low = database.engine("engine=low&shards=0-31");
    let mut high = database.engine("engine=high&shards=32-63");
    // Not of this half.
    assert!(shard_of("desk@acme.example") < 32);
    refused(high.create_account("desk@acme.example", &mut |_| Changes::default()), "which engine low has");
    drop(low);
    assert_eq!(high.shards().unwrap().iter().filter(|shard| shard.engine == "high").count(), 32);
    high.close().unwrap();
    let mut observer = database.engine("shards=none");
    assert_eq!(observer.shards().unwrap().iter().filter(|shard| shard.engine == "high" && !shard.serving).count(), 32);
    assert_eq!(observer.accounts().unwrap(), []);
    refused(observer.create_account("desk", &mut |_| Changes::default()), "which engine high has");
    for (shards, to) in [(&[64][..], "x"), (&[1], "a\nb"), (&[1], &"x".repeat(200))] {
        assert!(matches!(observer.move_shards(shards, to, true), Err(Error::Malformed(_))));
    }
}

#[test]
fn a_connection_that_went_away_between_calls_is_made_again() {
    let database = database!();
    let mut store = database.engine("engine=one");
    let desk = account(&mut store, "desk");
    for i in 0..5_u8 {
        let epoch = store.holds[0].unwrap().epoch();
        database.end_sessions();
        store.commit(puts([(key(desk, 1), &[i][..])])).unwrap();
        // Nothing was under way, so memory is what is stored.
        assert_eq!(store.lost(), []);
        assert_eq!(store.holds[0].unwrap().epoch(), epoch + 1);
        assert_eq!(body(&mut store, key(desk, 1)), Some(vec![i]));
    }
}

#[test]
fn a_commit_without_an_answer_is_stale_whether_it_was_done_or_not() {
    let Some(bin) = server::available() else { return };
    // Its settings are changed: not the server that tests share.
    let server = Server::start(&bin);
    let database = Database::on(&server);
    let mut store = database.engine("engine=one");
    let [desk, bell] = ["desk", "bell"].map(|name| account(&mut store, name));
    store.commit(puts([(key(desk, 1), &b"old"[..]), (key(bell, 1), b"old")])).unwrap();

    // Done on this server, and its standby never heard of it: cancelled, it says so by a warning alone.
    server.set("synchronous_standby_names = 'nobody'");
    server.wait_for("SHOW synchronous_standby_names", "nobody");
    let waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'interlane one'";
    for (name, end) in [(&b"cancelled"[..], "pg_cancel_backend"), (b"terminated", "pg_terminate_backend")] {
        // Who commits waits from when the checkpointer has heard of the setting, which nothing shows: until then a commit
        // is simply done, and made again.
        let committed = loop {
            let done = std::thread::scope(|scope| {
                let committed = scope.spawn(|| store.commit(puts([(key(desk, 1), name)])));
                while !committed.is_finished() {
                    server.sql("postgres", &format!("SET synchronous_commit = local; SELECT {end}(pid) {waiting}"));
                    std::thread::sleep(Duration::from_millis(20));
                }
                committed.join().unwrap()
            });
            if done.is_err() {
                break done;
            }
        };
        assert!(matches!(committed, Err(Error::Busy(_))), "{committed:?}");
        assert_eq!(store.lost(), [(desk, Loss::Stale)]);
        server.set("synchronous_standby_names = ''");
        server.wait_for("SHOW synchronous_standby_names", "");
        assert!(matches!(load(&mut store, &[key(desk, 1)]), Err(Error::Busy(_))), "it is to be listed first");
        store.lost();
        assert_eq!(store.accounts().unwrap().len(), 2);
        assert_eq!(body(&mut store, key(desk, 1)), Some(name.to_vec()));
        // The other account of its own was not touched.
        assert_eq!(store.lost(), []);
        store.commit(puts([(key(desk, 1), &b"on"[..]), (key(bell, 1), b"on")])).unwrap();
        assert_eq!(store.lost(), []);
        server.set("synchronous_standby_names = 'nobody'");
        server.wait_for("SHOW synchronous_standby_names", "nobody");
    }
    server.set("synchronous_standby_names = ''");
    server.wait_for("SHOW synchronous_standby_names", "");

    // Not done: it waited for a lock when its connection went.
    let shard = shard_of("desk");
    let (_, name) = database.url.rsplit_once('/').unwrap();
    let lock = format!(
        "SET application_name = 'lock'; BEGIN; UPDATE interlane.shards SET owner = owner WHERE shard = {shard};
         SELECT pg_sleep(1); ROLLBACK"
    );
    let committed = std::thread::scope(|scope| {
        scope.spawn(|| server.sql(name, &lock));
        server.wait_for("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lock'", "1");
        std::thread::sleep(Duration::from_millis(200));
        let committed = scope.spawn(|| store.commit(puts([(key(desk, 1), &b"never"[..])])));
        let waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'interlane one'";
        server.wait_for(&format!("SELECT count(*) {waiting}"), "1");
        server.sql("postgres", &format!("SELECT pg_terminate_backend(pid) {waiting}"));
        committed.join().unwrap()
    });
    assert!(matches!(committed, Err(Error::Busy(_))), "{committed:?}");
    assert_eq!(store.lost(), [(desk, Loss::Stale)]);
    assert_eq!(store.accounts().unwrap().len(), 2);
    assert_eq!(body(&mut store, key(desk, 1)), Some(b"on".to_vec()));
}

#[test]
fn what_another_engine_wrote_is_not_taken_for_ones_own_commit() {
    let database = database!();
    let mut one = database.engine("engine=one");
    let shard = shard_of("desk");
    let mate = (0..).map(|i| format!("{i}")).find(|name| shard_of(name) == shard).unwrap();
    let [desk, bell] = ["desk", &mate].map(|name| account(&mut one, name));
    one.commit(puts([(key(desk, 1), &b"1"[..]), (key(bell, 1), b"1")])).unwrap();
    // A commit without an answer, which was not done.
    one.doubt([shard].into_iter(), [desk]);
    one.link.give_up("the network was cut in a commit");
    assert_eq!(one.lost(), [(desk, Loss::Stale)]);
    // While it is away its shard is another engine's, which commits once. So the number of commits is as expected.
    let mut two = database.engine(&format!("engine=two&shards={shard}"));
    two.commit(puts([(key(bell, 1), &b"2"[..])])).unwrap();
    two.move_shards(&[shard], "one", true).unwrap();
    one.commit(puts([(key(bell, 1), &b"2, again"[..])])).unwrap();
    assert_eq!(one.lost(), [(bell, Loss::Stale)]);
    assert_eq!(one.accounts().unwrap().len(), 2);
    assert_eq!(body(&mut one, key(bell, 1)), Some(b"2".to_vec()));
}

#[test]
fn a_server_that_went_back_is_not_served() {
    let database = database!();
    let mut store = database.engine("engine=one");
    let [desk, bell] = ["desk", "bell"].map(|name| account(&mut store, name));
    store.commit(puts([(key(desk, 1), &b"1"[..])])).unwrap();
    let shard = shard_of("desk");
    let version = store.shards().unwrap()[shard as usize].version;
    database.end_sessions();
    // As a standby is that the last commit did not reach.
    database.sql(&format!("UPDATE interlane.shards SET version = version - 1 WHERE shard = {shard}"));
    store.commit(puts([(key(desk, 1), &b"2"[..]), (key(bell, 1), b"2")])).unwrap();
    assert!(store.lost().contains(&(desk, Loss::Moved)));
    assert_eq!(body(&mut store, key(bell, 1)), Some(b"2".to_vec()));
    let told = store.elsewhere("desk").unwrap().unwrap();
    assert!(told.contains(&format!("has {} commits and had acknowledged {version}", version - 1)), "{told}");
    assert_eq!(store.accounts().unwrap().len(), 1);
    // Nor by another engine, until that is declared.
    store.close().unwrap();
    assert_eq!(database.engine("engine=two&shards=all").accounts().unwrap().len(), 1);
    assert_eq!(
        database.sql(&format!("SELECT lost_from FROM interlane.shards WHERE shard = {shard}")),
        [version.to_string()]
    );
}

#[test]
fn a_server_that_went_back_is_served_again_when_that_is_declared() {
    let database = database!();
    let mut store = database.engine("engine=one");
    let [desk, bell] = ["desk", "bell"].map(|name| account(&mut store, name));
    for body in [b"1", b"2", b"3"] {
        store.commit(puts([(key(desk, 1), &body[..]), (key(bell, 1), body)])).unwrap();
    }
    let shard = shard_of("desk");
    let lost_from = store.shards().unwrap()[shard as usize].version;
    database.end_sessions();
    database.sql(&format!("UPDATE interlane.shards SET version = version - 1 WHERE shard = {shard}"));
    store.commit(puts([(key(desk, 1), &b"4"[..])])).unwrap();
    assert!(store.lost().contains(&(desk, Loss::Moved)));
    assert!(store.elsewhere("desk").unwrap().unwrap().contains(&format!("interlane shards declare {shard}")));

    let mut observer = database.engine("shards=none");
    let seen = RefCell::new(Vec::new());
    let mut list = |_: &mut dyn Store, accounts: &[(u32, String)]| {
        seen.borrow_mut().extend_from_slice(accounts);
        Ok(())
    };
    // A shard that is served has lost nothing that is known of.
    let served = observer.declare_shards(&[shard, shard_of("bell")], false, &mut list);
    assert!(matches!(served, Err(Error::Malformed(text)) if text.contains("engine one serves it")));
    assert!(matches!(observer.declare_shards(&[SHARDS], true, &mut list), Err(Error::Malformed(_))));
    assert_eq!(store.accounts().unwrap(), [(bell, "bell".to_owned())]);
    // What was begun and not ended is refused as before.
    let begun = observer.declare_shards(&[shard], false, &mut |store, _| {
        store.commit(puts([(key(desk, 2), &b"half"[..])]))?;
        Err(Error::Busy("the connection was lost".into()))
    });
    assert!(matches!(begun, Err(Error::Busy(_))));
    assert_eq!(store.accounts().unwrap(), [(bell, "bell".to_owned())]);
    assert_eq!(observer.shards().unwrap()[shard as usize].lost_from, lost_from);
    assert!(matches!(load(&mut observer, &[key(desk, 1)]), Err(Error::Busy(_))));

    observer.declare_shards(&[shard], false, &mut list).unwrap();
    assert_eq!(*seen.borrow(), [(desk, "desk".to_owned())]);
    let declared = observer.shards().unwrap().swap_remove(shard as usize);
    assert_eq!((declared.engine.as_str(), declared.serving, declared.lost_from), ("one", false, 0));
    // Further than anybody remembers: the engine that knows of more commits serves it again, as it is now.
    assert!(declared.version > lost_from + (1 << 31));
    assert_eq!(store.accounts().unwrap().len(), 2);
    assert_eq!(body(&mut store, key(desk, 1)), Some(b"3".to_vec()));
    assert_eq!(body(&mut store, key(desk, 2)), Some(b"half".to_vec()));
    store.commit(puts([(key(desk, 1), &b"5"[..]), (key(bell, 1), b"5")])).unwrap();
    assert!(!store.lost().iter().any(|&(account, _)| account == bell));
    assert_eq!(body(&mut store, key(desk, 1)), Some(b"5".to_vec()));

    // By force also what is served; the engine writes nothing that was under way.
    observer.declare_shards(&[shard_of("bell")], true, &mut list).unwrap();
    store.commit(puts([(key(bell, 1), &b"late"[..]), (key(desk, 1), b"6")])).unwrap();
    assert_eq!(store.lost(), [(bell, Loss::Moved)]);
    assert_eq!(store.accounts().unwrap().len(), 2);
    assert_eq!(body(&mut store, key(bell, 1)), Some(b"5".to_vec()));
    assert_eq!(body(&mut store, key(desk, 1)), Some(b"6".to_vec()));
}

#[test]
fn a_long_batch_is_whole_or_not_there() {
    let database = database!();
    let mut old = database.engine("engine=one");
    let [desk, bell] = ["desk", "bell"].map(|name| account(&mut old, name));
    let rows = STATEMENT_ROWS as u32;
    let batch = |body: &'static [u8]| puts((0..rows + 10).flat_map(|i| [desk, bell].map(|of| (key(of, i), body))));
    old.commit(batch(b"old")).unwrap();
    let mut new = database.engine(&format!("engine=two&shards={}", shard_of("desk")));
    old.commit(batch(b"late")).unwrap();
    assert_eq!(old.lost(), [(desk, Loss::Moved)]);
    let all = |store: &mut PostgresStore, of: u32| -> BTreeSet<Vec<u8>> {
        let mut rows = scan(store, of, Kind::Session).unwrap();
        rows.remove(&key(of, u32::MAX));
        assert_eq!(rows.len(), STATEMENT_ROWS + 10);
        rows.into_values().collect()
    };
    assert_eq!(all(&mut new, desk), BTreeSet::from([b"old".to_vec()]));
    assert_eq!(all(&mut old, bell), BTreeSet::from([b"late".to_vec()]));
}

#[test]
fn what_is_not_there_is_busy_and_comes_back() {
    let Some(bin) = server::available() else { return };
    let mut server = Server::start(&bin);
    let url = server.database();
    let mut store = open(&url, "engine=one").unwrap();
    let desk = account(&mut store, "desk");
    store.commit(puts([(key(desk, 1), &b"before"[..])])).unwrap();
    server.kill();
    // Its end is noticed before the next statement, where it has come by then.
    std::thread::sleep(Duration::from_millis(500));
    let begin = Instant::now();
    for _ in 0..20 {
        assert!(matches!(store.commit(puts([(key(desk, 1), &b"x"[..])])), Err(Error::Busy(_))));
        assert!(matches!(store.accounts(), Err(Error::Busy(_))));
    }
    // Nobody waits for a server that refuses.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(matches!(open(&url, "engine=two"), Err(Error::Busy(_))));
    server.start_again();
    let again = Instant::now();
    while let Err(error) = store.commit(puts([(key(desk, 1), &b"after"[..])])) {
        assert!(matches!(error, Error::Busy(_)) && again.elapsed() < Duration::from_secs(20), "{error}");
        std::thread::sleep(Duration::from_millis(10));
    }
    // No commit was under way when it went, so nothing was to be read again.
    assert_eq!(store.lost(), []);
    assert_eq!(body(&mut store, key(desk, 1)), Some(b"after".to_vec()));
    server.kill();
    store.close().unwrap();
}

#[test]
fn another_key_a_newer_schema_and_other_tables_are_refused() {
    let database = database!();
    refused(open(&database.url, "shards=none"), "has no store of interlane's");
    let mut store = database.engine("engine=one");
    let desk = account(&mut store, "desk");
    refused(
        PostgresStore::open(&format!("{}?engine=two", database.url), Secret::copy_of(&[43; 32])),
        "another operator key",
    );
    let schema = |set: i32| drop(database.sql(&format!("UPDATE interlane.store SET schema_version = {set}")));
    schema(4);
    refused(open(&database.url, "engine=two"), "has schema 4, this interlane knows 3: update interlane");
    schema(0);
    refused(open(&database.url, "engine=two"), "damaged");
    // An older one is taken over by who may write, and then is ours.
    for older in [1, 2] {
        schema(older);
        open(&database.url, "shards=none").unwrap().close().unwrap();
        assert_eq!(database.sql("SELECT schema_version FROM interlane.store"), [older.to_string()]);
        open(&database.url, "engine=two").unwrap().close().unwrap();
        assert_eq!(database.sql("SELECT schema_version FROM interlane.store"), ["3"]);
    }
    database.sql("UPDATE interlane.store SET store_id = '\\x01'");
    refused(open(&database.url, "engine=two"), "damaged");
    // The address leads elsewhere after a while.
    database.sql("UPDATE interlane.store SET store_id = '\\x00112233445566778899aabbccddeeff'");
    database.end_sessions();
    refused(store.commit(puts([(key(desk, 1), &b"x"[..])])), "has another store than before");
    database.sql("DROP SCHEMA interlane CASCADE");
    std::thread::sleep(crate::limits::STORE_RETRY);
    refused(store.commit(puts([(key(desk, 1), &b"x"[..])])), "has lost our tables");

    let other = database!();
    other.sql("CREATE SCHEMA interlane; CREATE TABLE interlane.rows (a int)");
    refused(open(&other.url, "engine=one"), "takes no tables of ours");
    assert_eq!(other.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'interlane'"), ["1"]);
}

#[test]
fn damage_and_moved_rows_are_noticed_and_nothing_is_in_the_clear() {
    let database = database!();
    let mut store = database.engine("engine=one");
    let [desk, bell] = ["desk", "bell"].map(|name| account(&mut store, name));
    let secret = b"a chain key that nobody is to see";
    store
        .commit(puts([(key(desk, 1), &secret[..]), (key(desk, 2), b"b"), (key(bell, 1), b"c"), (key(bell, 2), b"d")]))
        .unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let dump = database.sql("SELECT encode(body, 'hex') FROM interlane.rows").concat();
    assert!(!dump.contains(&hex(&secret[..8])));
    let named = |key: Key| format!("'\\x{}'", hex(&key.to_bytes()));
    let copy = |from: Key, to: Key| {
        let body = format!("SELECT body FROM interlane.rows WHERE key = {}", named(from));
        database.sql(&format!("UPDATE interlane.rows SET body = ({body}) WHERE key = {}", named(to)));
    };
    copy(key(desk, 1), key(desk, 2));
    copy(key(desk, 1), key(bell, 1));
    assert_eq!(body(&mut store, key(desk, 1)), Some(secret.to_vec()));
    refused(load(&mut store, &[key(desk, 2)]), "damaged or moved");
    refused(scan(&mut store, bell, Kind::Session), "damaged or moved");
    database.sql("UPDATE interlane.rows SET body = substr(body, 1, 10)");
    refused(load(&mut store, &[key(desk, 1)]), "damaged or moved");
    // One account's data key under another's name.
    database
        .sql("UPDATE interlane.accounts SET wrapped = (SELECT wrapped FROM interlane.accounts WHERE name = 'desk')");
    drop(store);
    let mut store = open(&database.url, "engine=one").unwrap();
    refused(store.accounts(), "data key of account bell");
}

#[test]
fn a_refusal_is_told_and_changes_nothing() {
    let database = database!();
    let mut store = database.engine("engine=one");
    let desk = account(&mut store, "desk");
    store.commit(puts([(key(desk, 1), &b"old"[..])])).unwrap();
    database.sql("ALTER TABLE interlane.rows ADD CHECK (octet_length(body) < 100)");
    refused(store.commit(puts([(key(desk, 1), &[1; 100][..]), (key(desk, 2), b"x")])), "nothing was written");
    assert_eq!(store.lost(), []);
    assert_eq!(scan(&mut store, desk, Kind::Session).unwrap()[&key(desk, 1)], b"old");
    store.commit(puts([(key(desk, 1), &b"new"[..])])).unwrap();
    assert_eq!(body(&mut store, key(desk, 1)), Some(b"new".to_vec()));
    assert_eq!(scan(&mut store, desk, Kind::Session).unwrap().len(), 2);
    assert!(matches!(store.create_account("a\0b", &mut |_| Changes::default()), Err(Error::Malformed(_))));
    assert!(matches!(store.elsewhere("a\0b"), Err(Error::Malformed(_))));
}

#[test]
fn a_primary_that_dies_takes_nothing_acknowledged_with_it() {
    let Some(bin) = server::available() else { return };
    let (primary, standby) = Server::start_pair(&bin);
    let (address, name) = {
        let url = primary.database();
        let name = url.rsplit_once('/').unwrap().1.to_owned();
        (format!("postgresql://postgres@127.0.0.1:{},127.0.0.1:{}/{name}", primary.port, standby.port), name)
    };
    let mut store = open(&address, "engine=one").unwrap();
    let desk = account(&mut store, "desk");
    let batch = |n: u32| {
        let mut changes = Changes::default();
        (0..200).for_each(|i| changes.put(key(desk, i), |bytes| bytes.extend(n.to_le_bytes())));
        changes
    };
    let read = |store: &mut PostgresStore| -> Option<u32> {
        let keys: Vec<Key> = (0..200).map(|i| key(desk, i)).collect();
        let found = load(store, &keys).ok()?;
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "half a batch");
        Some(found[0].as_ref().map_or(0, |body| u32::from_le_bytes(body[..].try_into().unwrap())))
    };
    let (mut acknowledged, mut busy, mut after) = (0, 0, 0);
    let (begin, before) = (Instant::now(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let failover = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(700));
            // However long commits take here.
            while before.load(Ordering::Relaxed) < 12 && begin.elapsed() < Duration::from_secs(60) {
                std::thread::sleep(Duration::from_millis(5));
            }
            primary.kill();
            standby.promote();
        });
        while after < 50 {
            assert!(begin.elapsed() < Duration::from_secs(60), "{acknowledged} {busy} {after}");
            let Some(stored) = read(&mut store) else {
                busy += 1;
                std::thread::sleep(Duration::from_millis(5));
                // Accounts that were lost are back when they are listed.
                if store.accounts().is_ok() {
                    store.lost();
                }
                continue;
            };
            // What was not acknowledged may be there.
            assert!((acknowledged..=acknowledged + 1).contains(&stored), "{stored} after {acknowledged}");
            acknowledged = stored;
            match store.commit(batch(stored + 1)) {
                Ok(()) if store.lost().is_empty() => {
                    acknowledged = stored + 1;
                    before.fetch_add(1, Ordering::Relaxed);
                    after += u32::from(failover.is_finished());
                }
                Ok(()) | Err(Error::Busy(_)) => busy += 1,
                Err(error) => panic!("{error}"),
            }
        }
        failover.join().unwrap();
    });
    assert!(busy > 0 && acknowledged > 60, "{acknowledged} {busy}");
    assert_eq!(standby.sql(&name, "SELECT count(*) FROM interlane.rows"), ["201"]);
    store.close().unwrap();
}
