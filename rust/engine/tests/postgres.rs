//! Gateways on PostgreSQL with a live peer at the other end: whatever happens to servers and engines, every frame that
//! left opens there, once. A frame whose key was used before would be DUPLICATE.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use interlane::limits::HOLD_CONFIRMED;
use interlane::{
    AccountId, BufferLimits, Bundle, Durability, Engine, Error, Location, Options, Packed, Rows, Secret, Status,
};
use interlane_crash::Dice;
use interlane_lanes::Backend;

// The server of the store's own tests.
#[path = "../src/store/postgres/tests/server.rs"]
mod server;

use server::Server;

/// What is waited for, at most; where a CPU is emulated, which may multiply in software, more.
fn longest() -> Duration {
    Duration::from_secs(if std::env::var_os("INTERLANE_TEST_RUNNER").is_some() { 600 } else { 90 })
}
const PEERS: usize = 40;

/// Counters of a lease.
const LEASE: u32 = 64;

const MODES: [Durability; 2] = [Durability::Strict, Durability::Leased(LEASE)];

fn options(location: Location) -> Options {
    let receive_buffer = Some(BufferLimits { bytes: 64 << 20, seconds: 3_600 });
    Options { threads: 2, receive_buffer, ..Options::new(location, Backend::detect().unwrap()) }
}

fn engine(location: Location) -> Engine {
    Engine::open(options(location)).unwrap()
}

fn gateway(url: &str, options: &str) -> Engine {
    gateway_as(url, options, Durability::Strict)
}

fn gateway_as(url: &str, options: &str, durability: Durability) -> Engine {
    Engine::open(Options { durability, ..self::options(shared(url, options)) }).unwrap()
}

fn leased(url: &str, options: &str) -> Engine {
    gateway_as(url, options, Durability::Leased(LEASE))
}

fn shared(url: &str, options: &str) -> Location {
    Location::Postgres { url: format!("{url}?{options}"), key: Secret::copy_of(&[7; 32]) }
}

fn packed<T: AsRef<[u8]>>(rows: &[T]) -> (Vec<u8>, Vec<i64>) {
    let mut offsets = vec![0];
    let mut data = Vec::new();
    for row in rows {
        data.extend_from_slice(row.as_ref());
        offsets.push(data.len() as i64);
    }
    (data, offsets)
}

fn row(rows: &Rows, i: usize) -> &[u8] {
    &rows.data[rows.offsets[i] as usize..rows.offsets[i + 1] as usize]
}

fn encrypt(engine: &Engine, handles: &[u64], text: &str) -> Rows {
    let (data, offsets) = packed(&vec![text; handles.len()]);
    engine.encrypt(handles, Packed::new(&data, &offsets).unwrap()).unwrap()
}

/// The number that protobuf writes at the front.
fn number(bytes: &mut &[u8]) -> u64 {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let (digits, rest) = bytes.split_at(end);
    *bytes = rest;
    digits.iter().rev().fold(0, |number, digit| number << 7 | u64::from(digit & 0x7f))
}

/// A frame's ratchet key and counter.
fn place(kind: u8, frame: &[u8]) -> (Vec<u8>, u64) {
    let first = kind == interlane::Kind::PrekeyMessage as u8;
    // Behind the version; in front of the MAC.
    let mut rest = if first { &frame[1..] } else { &frame[1..frame.len() - 8] };
    let (mut key, mut counter) = (Vec::new(), 0);
    while !rest.is_empty() {
        let tag = number(&mut rest);
        let value = number(&mut rest);
        if tag & 7 == 0 {
            counter = if tag == 0x10 { value } else { counter };
            continue;
        }
        let (bytes, behind) = rest.split_at(value as usize);
        rest = behind;
        match (first, tag) {
            (true, 0x22) => return place(interlane::Kind::Message as u8, bytes),
            (false, 0x0a) => key = bytes.to_vec(),
            _ => {}
        }
    }
    (key, counter)
}

/// Peers that wrote to the gateway's account and got answers, each with a session; in memory, so that they forget
/// nothing.
struct Far {
    engine: Engine,
    /// Of each peer, to the gateway's account.
    handles: Vec<u64>,
    /// Frames to the gateway that were not taken yet, and whether they were given to it without a clear answer.
    waiting: Vec<Option<(u8, Vec<u8>, bool)>>,
    /// By ratchet key: the counter behind the newest frame.
    next: HashMap<Vec<u8>, u64>,
    /// The most counters of a chain that were skipped at once.
    gap: u64,
    /// How many were, and by how many chains.
    skipped: u64,
    gaps: usize,
    sent: usize,
    taken: usize,
    /// How many plaintexts were given out when their frames were delivered again.
    again: usize,
}

fn peers() -> Vec<String> {
    (0..PEERS).map(|i| format!("peer {i}")).collect()
}

/// The account's sessions on a gateway.
fn near_handles(gateway: &Engine) -> Option<Vec<u64>> {
    let desk = gateway.account("desk").ok()??;
    let names = peers();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Some(gateway.sessions(&[desk], &names).unwrap())
}

impl Far {
    fn link(gateway: &Engine) -> Self {
        // Without a receive buffer: it would give a frame that comes twice out once more.
        let far = Engine::open(Options { receive_buffer: None, ..options(Location::Memory) }).unwrap();
        gateway.create_account("desk").unwrap();
        let accounts: Vec<AccountId> = peers().iter().map(|name| far.create_account(name).unwrap()).collect();
        let bundles: Vec<Bundle> =
            accounts.iter().map(|&id| far.prekeys(id, 1, false).unwrap().bundle(Some(0))).collect();
        let near = near_handles(gateway).unwrap();
        let started = gateway.start_sessions(&near, &bundles).unwrap();
        assert_eq!(started.status, [Status::Ok as u8; PEERS]);
        let handles = far.sessions(&accounts, &["desk"; PEERS]).unwrap();
        let mut linked = Self::of(far, handles);
        assert_eq!(linked.open(&encrypt(gateway, &near, "hello"), "hello"), PEERS);
        assert_eq!(linked.answer(gateway, &near), PEERS);
        linked
    }

    fn of(engine: Engine, handles: Vec<u64>) -> Self {
        let (waiting, next) = (vec![None; PEERS], HashMap::new());
        Self { engine, handles, waiting, next, gap: 0, skipped: 0, gaps: 0, sent: 0, taken: 0, again: 0 }
    }

    /// Opens what left; the other rows say why they did not.
    fn open(&mut self, sent: &Rows, text: &str) -> usize {
        let left: Vec<usize> = (0..PEERS).filter(|&i| sent.status[i] == Status::Ok as u8).collect();
        let others = [Status::Busy as u8, Status::Conflict as u8];
        for i in (0..PEERS).filter(|i| !left.contains(i)) {
            assert!(others.contains(&sent.status[i]) && row(sent, i).is_empty(), "{i} {:?}", sent.status);
        }
        let handles: Vec<u64> = left.iter().map(|&i| self.handles[i]).collect();
        let kinds: Vec<u8> = left.iter().map(|&i| sent.kinds[i]).collect();
        let (data, offsets) = packed(&left.iter().map(|&i| row(sent, i)).collect::<Vec<_>>());
        let opened = self.engine.decrypt(&handles, &kinds, Packed::new(&data, &offsets).unwrap()).unwrap();
        assert!(opened.status.iter().all(|&status| status == Status::Ok as u8), "{:?}", opened.status);
        assert!((0..left.len()).all(|i| row(&opened, i) == text.as_bytes()));
        left.iter().for_each(|&i| self.note(sent.kinds[i], row(sent, i)));
        self.sent += left.len();
        left.len()
    }

    /// Notes how many counters were skipped before a frame: the newest of its chain.
    fn note(&mut self, kind: u8, frame: &[u8]) {
        let (key, counter) = place(kind, frame);
        let next = self.next.entry(key).or_default();
        assert!(counter >= *next, "{counter} came behind {next}");
        let gap = counter - *next;
        (self.gap, self.skipped, self.gaps) = (self.gap.max(gap), self.skipped + gap, self.gaps + usize::from(gap > 0));
        *next = counter + 1;
    }

    /// Opens frames of several senders, which come in no order.
    fn open_all(&mut self, mut frames: Vec<(usize, u8, Vec<u8>)>) {
        // The peer keeps no more than 2,000 keys of messages that it has not seen.
        frames.sort_by_cached_key(|(peer, kind, frame)| (*peer, place(*kind, frame).1));
        let handles: Vec<u64> = frames.iter().map(|&(peer, ..)| self.handles[peer]).collect();
        let kinds: Vec<u8> = frames.iter().map(|&(_, kind, _)| kind).collect();
        let (data, offsets) = packed(&frames.iter().map(|(_, _, frame)| frame).collect::<Vec<_>>());
        let opened = self.engine.decrypt(&handles, &kinds, Packed::new(&data, &offsets).unwrap()).unwrap();
        let failed: Vec<u8> = opened.status.iter().copied().filter(|&status| status != Status::Ok as u8).collect();
        assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), frames.len());
        frames.iter().for_each(|(_, kind, frame)| self.note(*kind, frame));
        self.sent += frames.len();
    }

    /// Answers, and delivers again what was not taken; gives how many were.
    fn answer(&mut self, gateway: &Engine, near: &[u64]) -> usize {
        let fresh: Vec<usize> = (0..PEERS).filter(|&i| self.waiting[i].is_none()).collect();
        let handles: Vec<u64> = fresh.iter().map(|&i| self.handles[i]).collect();
        let made = encrypt(&self.engine, &handles, "answer");
        for (at, &i) in fresh.iter().enumerate() {
            assert_eq!(made.status[at], Status::Ok as u8);
            self.waiting[i] = Some((made.kinds[at], row(&made, at).to_vec(), false));
        }
        let frames: Vec<&(u8, Vec<u8>, bool)> = self.waiting.iter().flatten().collect();
        let kinds: Vec<u8> = frames.iter().map(|frame| frame.0).collect();
        let (data, offsets) = packed(&frames.iter().map(|frame| &frame.1).collect::<Vec<_>>());
        let got = gateway.decrypt(near, &kinds, Packed::new(&data, &offsets).unwrap()).unwrap();
        let mut taken = 0;
        for i in 0..PEERS {
            let in_doubt = self.waiting[i].as_ref().is_some_and(|frame| frame.2);
            match got.status[i] {
                status if status == Status::Ok as u8 => {
                    assert_eq!(row(&got, i), b"answer");
                    self.waiting[i] = None;
                    taken += 1;
                }
                // The commit that had no answer was done: the plaintext is still there.
                status if status == Status::Redelivered as u8 && in_doubt => {
                    assert_eq!(row(&got, i), b"answer");
                    self.waiting[i] = None;
                    taken += 1;
                    self.again += 1;
                }
                status => {
                    assert!([Status::Busy as u8, Status::Conflict as u8].contains(&status), "{i} {status}");
                    assert!(row(&got, i).is_empty());
                    self.waiting[i].as_mut().expect("it was sent").2 = status == Status::Busy as u8;
                }
            }
        }
        assert_eq!(gateway.acknowledge(&got, None).unwrap(), taken);
        self.taken += taken;
        taken
    }
}

/// The name of a database, which the servers of a pair have both.
fn name(url: &str) -> &str {
    url.rsplit_once('/').unwrap().1
}

/// What a variable of the environment is set to, or `default`.
fn set_to(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().map_or(default, |number| number.parse().expect("it is a number"))
}

#[test]
fn a_gateway_goes_on_when_its_primary_dies() {
    let Some(bin) = server::available() else { return };
    let (failovers, seed) = (set_to("INTERLANE_FAILOVERS", 1), set_to("INTERLANE_SEED", 1));
    let mut dice = Dice(seed);
    for durability in MODES {
        let [mut sent, mut taken, mut again, mut gaps] = [0; 4];
        let mut gap = 0;
        for number in 1..=failovers {
            let begin = Instant::now();
            let moment = Duration::from_micros(dice.below(1_500_000) as u64);
            let crash = dice.one_in(2);
            let far = goes_on_when_its_primary_dies(&bin, durability, moment, crash, &mut dice);
            (sent, taken, again) = (sent + far.sent, taken + far.taken, again + far.again);
            (gap, gaps) = (far.gap.max(gap), gaps + far.gaps);
            println!("{durability:?} {number}: {moment:.1?} after calls began, {:.1?} in all", begin.elapsed());
        }
        println!(
            "{durability:?}, seed {seed}: {failovers} primaries killed; {sent} frames left, and opened once each; {gap} \
             counters skipped at once at most, {gaps} times; {taken} plaintexts, of them {again} delivered again"
        );
    }
}

/// `moment`: of calls before the primary dies. `crash`: the gateway dies with it, so that what it knew and the servers do
/// not is gone.
fn goes_on_when_its_primary_dies(
    bin: &Path,
    durability: Durability,
    moment: Duration,
    crash: bool,
    dice: &mut Dice,
) -> Far {
    let (primary, standby) = Server::start_pair(bin);
    let database = primary.database();
    let url =
        format!("postgresql://postgres@127.0.0.1:{},127.0.0.1:{}/{}", primary.port, standby.port, name(&database));
    let mut near = gateway_as(&url, "engine=one", durability);
    let mut far = Far::link(&near);
    let mut handles = near_handles(&near).unwrap();
    let (mut rounds, refused, mut crash) = (0, AtomicUsize::new(0), crash);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let failover = scope.spawn(|| {
            std::thread::sleep(moment);
            primary.kill();
            // However long a call takes here, some meet the gap.
            while refused.load(Ordering::Relaxed) < PEERS && begin.elapsed() < longest() {
                std::thread::sleep(Duration::from_millis(10));
            }
            standby.promote();
        });
        while rounds < 40 {
            assert!(begin.elapsed() < longest(), "{rounds} {refused:?}");
            let text = format!("round {rounds}");
            // At times chains are long, which an answer ends.
            let calls = if dice.one_in(4) { 1 + dice.below(100) } else { 1 };
            let mut left = PEERS;
            for _ in 0..calls {
                left = far.open(&encrypt(&near, &handles, &text), &text);
                if left < PEERS {
                    break;
                }
            }
            let taken = far.answer(&near, &handles);
            refused.fetch_add(2 * PEERS - left - taken, Ordering::Relaxed);
            rounds += usize::from(failover.is_finished() && left == PEERS && taken == PEERS);
            if crash && refused.load(Ordering::Relaxed) >= PEERS {
                drop(std::mem::replace(&mut near, engine(Location::Memory)));
                while !failover.is_finished() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                near = gateway_as(&url, "engine=one", durability);
                handles = near_handles(&near).unwrap();
                crash = false;
            }
        }
        failover.join().unwrap();
    });
    assert!(refused.into_inner() >= PEERS, "the failover was not noticed");
    assert!(far.sent > 40 * PEERS && far.taken > 40 * PEERS, "{} {}", far.sent, far.taken);
    // What another gateway finds is what this one knew.
    near.close().unwrap();
    let next = gateway_as(&url, "engine=two", durability);
    let handles = near_handles(&next).unwrap();
    assert_eq!(far.open(&encrypt(&next, &handles, "on"), "on"), PEERS);
    assert_eq!(far.answer(&next, &handles), PEERS);
    // A commit whose outcome nobody knew is of one row of each chain, or of its lease.
    let most = if durability == Durability::Strict { 1 } else { u64::from(LEASE) };
    assert!(far.gap <= most, "{} counters were skipped", far.gap);
    far
}

/// What judges the tests here finds what it is to find.
#[test]
#[should_panic(expected = "came behind")]
fn a_counter_that_comes_twice_is_found() {
    let near = engine(Location::Memory);
    let mut far = Far::link(&near);
    let handles = near_handles(&near).unwrap();
    let sent = encrypt(&near, &handles, "once");
    far.open(&sent, "once");
    far.note(sent.kinds[7], row(&sent, 7));
}

#[test]
#[should_panic(expected = "[2, 2, 2")]
fn a_frame_that_leaves_twice_is_found() {
    let near = engine(Location::Memory);
    let mut far = Far::link(&near);
    let handles = near_handles(&near).unwrap();
    let sent = encrypt(&near, &handles, "once");
    far.open(&sent, "once");
    far.open(&sent, "once");
}

/// The gateway has taken an answer, and its plaintext reached nobody.
#[test]
#[should_panic(expected = "0 2")]
fn a_plaintext_that_is_lost_is_found() {
    let near = engine(Location::Memory);
    let mut far = Far::link(&near);
    let handles = near_handles(&near).unwrap();
    let lost = encrypt(&far.engine, &far.handles, "answer");
    let taken = near.decrypt(&handles, &lost.kinds, Packed::new(&lost.data, &lost.offsets).unwrap()).unwrap();
    assert_eq!(near.acknowledge(&taken, None).unwrap(), PEERS);
    for (i, waiting) in far.waiting.iter_mut().enumerate() {
        *waiting = Some((lost.kinds[i], row(&lost, i).to_vec(), true));
    }
    far.answer(&near, &handles);
}

#[test]
fn a_partitioned_old_owner_releases_nothing() {
    let Some(bin) = server::available() else { return };
    let (primary, standby) = Server::start_pair(&bin);
    let database = primary.database();
    let old = gateway(&database, "engine=old");
    let mut far = Far::link(&old);
    let handles = near_handles(&old).unwrap();
    // The old primary lives, and the old gateway reaches no other server; the standby went over to the other side.
    standby.promote();
    let cut_off = std::thread::spawn(move || {
        let begin = Instant::now();
        let mut rows = Vec::new();
        while begin.elapsed() < Duration::from_secs(15) {
            rows.push(encrypt(&old, &handles, "late"));
        }
        rows
    });
    let new = gateway(
        &format!("postgresql://postgres@127.0.0.1:{}/{}", standby.port, name(&database)),
        "engine=new&shards=all",
    );
    let handles = near_handles(&new).unwrap();
    for _ in 0..10 {
        assert_eq!(far.open(&encrypt(&new, &handles, "new"), "new"), PEERS);
        assert_eq!(far.answer(&new, &handles), PEERS);
    }
    let late = cut_off.join().unwrap();
    assert!(!late.is_empty());
    for rows in late {
        assert_eq!(rows.status, [Status::Busy as u8; PEERS]);
        assert!(rows.data.is_empty());
    }
    assert_eq!(far.open(&encrypt(&new, &handles, "on"), "on"), PEERS);
}

#[test]
fn a_standby_that_lacks_commits_is_served_when_its_loss_is_declared() {
    let Some(bin) = server::available() else { return };
    let (primary, mut standby) = Server::start_pair(&bin);
    let database = primary.database();
    let url =
        format!("postgresql://postgres@127.0.0.1:{},127.0.0.1:{}/{}", primary.port, standby.port, name(&database));
    let near = gateway(&url, "engine=one");
    let mut far = Far::link(&near);
    let handles = near_handles(&near).unwrap();
    let desk = near.account("desk").unwrap().unwrap();
    let group = near.groups(&[desk], &["group"], &[None]).unwrap();
    assert_eq!(near.group_distribute(&group).unwrap().status, [Status::Ok as u8]);
    let before = near.prekeys(desk, 1, false).unwrap().one_time[0].0;

    // The operator no longer waits for the standby, which is not there.
    primary.set("synchronous_standby_names = ''");
    primary.wait_for("SHOW synchronous_standby_names", "");
    standby.kill();
    assert_eq!(far.open(&encrypt(&near, &handles, "lost"), "lost"), PEERS);
    let lost = near.prekeys(desk, 3, false).unwrap().one_time[2].0;
    assert!(lost > before);
    primary.kill();
    standby.start_again();
    standby.promote();

    let begin = Instant::now();
    let conflict = [Status::Conflict as u8; PEERS];
    loop {
        let sent = encrypt(&near, &handles, "twice");
        assert!(sent.data.is_empty(), "{:?}", sent.status);
        if sent.status == conflict {
            break;
        }
        assert!(sent.status == [Status::Busy as u8; PEERS] && begin.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    let went_back: Vec<u32> =
        near.shards().unwrap().iter().filter(|shard| shard.lost_from > 0).map(|shard| shard.number).collect();
    assert_eq!(went_back, [shard(&near)]);
    let command = format!("interlane shards declare {}", went_back[0]);
    assert!(matches!(near.prekeys(desk, 1, false), Err(Error::Store(text)) if text.contains(&command)));
    let other = gateway(&url, "engine=two&shards=all");
    assert!(near_handles(&other).is_none(), "it is nobody's");
    other.close().unwrap();

    let observer = gateway(&url, "shards=none");
    let declared = observer.declare_shards(&went_back, false).unwrap();
    assert_eq!((declared.accounts, declared.peers, declared.sender_keys), (1, PEERS as u64, 1));
    // The engine that it is assigned to has it again.
    let begin = Instant::now();
    loop {
        let sent = encrypt(&near, &handles, "twice");
        assert!(sent.data.is_empty(), "{:?}", sent.status);
        if sent.status == [Status::Exhausted as u8; PEERS] {
            break;
        }
        assert!(sent.status == conflict && begin.elapsed() < Duration::from_secs(60), "{:?}", sent.status);
        std::thread::sleep(Duration::from_millis(10));
    }
    let text = Packed::new(b"text", &[0, 4]).unwrap();
    assert_eq!(near.group_encrypt(&group, text).unwrap().status, [Status::NoSenderKey as u8]);
    assert!(near.prekeys(desk, 1, true).unwrap().one_time[0].0 > lost);
    // An answer turns the ratchet, and what is sent then opens: no key of it was used before.
    assert_eq!(far.answer(&near, &handles), PEERS);
    for _ in 0..3 {
        assert_eq!(far.open(&encrypt(&near, &handles, "on"), "on"), PEERS);
        assert_eq!(far.answer(&near, &handles), PEERS);
    }
}

#[test]
fn of_two_engines_that_fight_for_a_shard_one_releases() {
    let Some(bin) = server::available() else { return };
    let server = Server::start(&bin);
    let url = server.database();
    let one = gateway(&url, "engine=one");
    let mut far = Far::link(&one);
    let two = gateway(&url, "engine=two");
    assert!(near_handles(&two).is_none(), "it is with the other");
    let all: Vec<u32> = (0..64).collect();
    let conflict = [Status::Conflict as u8; PEERS];
    let mut handles = [near_handles(&one), None];
    for round in 0..8 {
        let (winner, loser) = if round % 2 == 0 { (1, 0) } else { (0, 1) };
        let engines = [&one, &two];
        engines[winner].move_shards(&all, ["one", "two"][winner], true).unwrap();
        // The loser computes before it is told, or not.
        let lost = encrypt(engines[loser], handles[loser].as_ref().unwrap(), "lost");
        assert!(lost.status == conflict && lost.data.is_empty(), "{:?}", lost.status);
        // Whoever knows the sessions already has them back by itself, after the pause between two looks.
        std::thread::sleep(Duration::from_millis(150));
        let winners = handles[winner].get_or_insert_with(|| near_handles(engines[winner]).unwrap()).clone();
        let text = format!("round {round}");
        assert_eq!(far.open(&encrypt(engines[winner], &winners, &text), &text), PEERS);
        assert_eq!(far.answer(engines[winner], &winners), PEERS);
        match engines[loser].account("desk") {
            Ok(Some(desk)) => assert!(engines[loser].prekeys(desk, 1, false).is_err()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn calls_from_many_threads_while_shards_move() {
    let Some(bin) = server::available() else { return };
    let server = Server::start(&bin);
    for durability in [Durability::Strict, Durability::Leased(16)] {
        calls_while_shards_move(&server.database(), durability);
    }
}

fn calls_while_shards_move(url: &str, durability: Durability) {
    // One has room for the sessions of one of its threads, and a few.
    let few = Options { durability, resident_sessions: Some(25), ..options(shared(url, "engine=two")) };
    let engines = [gateway_as(url, "engine=one", durability), Engine::open(few).unwrap()];
    let mut far = Far::link(&engines[0]);
    engines[0].move_shards(&[shard(&engines[0])], "two", true).unwrap();
    let handles: Vec<Vec<u64>> = engines.iter().rev().map(|engine| near_handles(engine).unwrap()).rev().collect();
    let begin = Instant::now();
    let (moved, left) = (AtomicBool::new(false), AtomicUsize::new(0));
    let released = std::thread::scope(|scope| {
        scope.spawn(|| {
            // However long a call takes here.
            let enough = |round| round >= 30 && left.load(Ordering::Relaxed) > 50 * PEERS;
            for round in (0..).take_while(|&round| !enough(round) && begin.elapsed() < longest()) {
                // At times asked for, at times taken.
                engines[0].move_shards(&[shard(&engines[0])], ["one", "two"][round % 2], round % 3 == 0).unwrap();
                std::thread::sleep(Duration::from_millis(60));
            }
            moved.store(true, Ordering::SeqCst);
        });
        let sends: Vec<_> = engines
            .iter()
            .zip(&handles)
            .flat_map(|(engine, handles)| {
                let (moved, left) = (&moved, &left);
                // Two threads on different halves of one engine's sessions.
                [0, PEERS / 2].map(|first| {
                    scope.spawn(move || {
                        let mut frames = Vec::new();
                        while !moved.load(Ordering::SeqCst) {
                            // The peer looks at them all together, and keeps no more than 2,000 keys.
                            std::thread::sleep(Duration::from_millis(3));
                            let sent = encrypt(engine, &handles[first..first + PEERS / 2], "traffic");
                            let before = frames.len();
                            for i in 0..PEERS / 2 {
                                if sent.status[i] == Status::Ok as u8 {
                                    frames.push((first + i, sent.kinds[i], row(&sent, i).to_vec()));
                                }
                            }
                            left.fetch_add(frames.len() - before, Ordering::Relaxed);
                        }
                        frames
                    })
                })
            })
            .collect();
        sends.into_iter().flat_map(|sends| sends.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(begin.elapsed() < longest());
    assert!(released.len() > 50 * PEERS, "{}", released.len());
    assert!(engines[1].stats().unwrap().sessions_evicted > 0);
    // Each opens, and none twice.
    far.open_all(released);
}

#[test]
fn a_shard_that_moves_within_leases_goes_on_at_their_ends() {
    let Some(bin) = server::available() else { return };
    let server = Server::start(&bin);
    let url = server.database();
    let one = leased(&url, "engine=one");
    let mut far = Far::link(&one);
    let near = near_handles(&one).unwrap();
    let commits = |engine: &Engine| engine.shards().unwrap().iter().map(|shard| shard.version).sum::<u64>();
    // Far within its lease a chain writes nothing.
    let mut quiet = 0;
    for i in 0..100 {
        let before = commits(&one);
        let text = format!("text {i}");
        assert_eq!(far.open(&encrypt(&one, &near, &text), &text), PEERS);
        quiet += usize::from(commits(&one) == before);
    }
    assert!(quiet > 50, "{quiet}");
    assert_eq!(far.gap, 0);

    // Asked for: whoever sends in leases alone hears of it too, though no call of it writes.
    let two = leased(&url, "engine=two");
    two.move_shards(&[shard(&one)], "two", false).unwrap();
    let begin = Instant::now();
    loop {
        let sent = encrypt(&one, &near, "meanwhile");
        if sent.status == [Status::Conflict as u8; PEERS] {
            assert!(sent.data.is_empty());
            break;
        }
        assert_eq!(far.open(&sent, "meanwhile"), PEERS);
        assert!(begin.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut handles = [near, near_handles(&two).unwrap()];
    assert_eq!(far.open(&encrypt(&two, &handles[1], "two"), "two"), PEERS);
    assert!(far.gap > 0, "the rest of the lease is skipped");

    // Taken away at any moment. What the old owner still sends within its leases is its own alone.
    let engines = [&one, &two];
    for round in 0..6 {
        let (winner, loser) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
        let late: Vec<Rows> = {
            engines[winner].move_shards(&[shard(&one)], ["one", "two"][winner], true).unwrap();
            (0..3).map(|_| encrypt(engines[loser], &handles[loser], "late")).collect()
        };
        for rows in &late {
            far.open(rows, "late");
        }
        // Longer than an engine believes what it was told last, and than the pause between two looks.
        std::thread::sleep(HOLD_CONFIRMED + Duration::from_millis(50));
        handles[winner] = near_handles(engines[winner]).unwrap();
        let text = format!("round {round}");
        assert_eq!(far.open(&encrypt(engines[winner], &handles[winner], &text), &text), PEERS);
        let refused = encrypt(engines[loser], &handles[loser], "much later");
        assert!(refused.status == [Status::Conflict as u8; PEERS] && refused.data.is_empty(), "{:?}", refused.status);
        if round == 3 {
            assert_eq!(far.answer(engines[winner], &handles[winner]), PEERS);
        }
    }
    assert!(far.gap <= u64::from(LEASE), "{}", far.gap);

    // What is closed gives its leases back.
    far.gap = 0;
    assert_eq!(far.open(&encrypt(&two, &handles[1], "last"), "last"), PEERS);
    one.close().unwrap();
    two.close().unwrap();
    let three = leased(&url, "engine=three&shards=all");
    let near = near_handles(&three).unwrap();
    assert_eq!(far.open(&encrypt(&three, &near, "first"), "first"), PEERS);
    assert_eq!(far.gap, 0);
}

#[test]
fn sender_keys_and_crashed_engines_go_on_at_the_ends_of_leases() {
    let Some(bin) = server::available() else { return };
    let server = Server::start(&bin);
    let url = server.database();
    let text = || Packed::new(b"text", &[0, 4]).unwrap();
    let far = engine(Location::Memory);
    let bell = far.create_account("bell").unwrap();
    let theirs = far.groups(&[bell], &["group"], &[Some("desk")]).unwrap();
    let mut old = leased(&url, "engine=one");
    old.create_account("desk").unwrap();
    for life in 0..4 {
        let desk = old.account("desk").unwrap().unwrap();
        let ours = old.groups(&[desk], &["group"], &[None]).unwrap();
        if life == 0 {
            let sent = old.group_distribute(&ours).unwrap();
            let (data, offsets) = packed(&[row(&sent, 0)]);
            let accepted = far.group_accept(&theirs, Packed::new(&data, &offsets).unwrap()).unwrap();
            assert_eq!(accepted.status, [Status::Ok as u8]);
        }
        // Some twice the lease, so that calls and the thread both write some.
        for _ in 0..130 {
            let sent = old.group_encrypt(&ours, text()).unwrap();
            let (data, offsets) = packed(&[row(&sent, 0)]);
            let opened = far.group_decrypt(&theirs, Packed::new(&data, &offsets).unwrap()).unwrap();
            assert_eq!((sent.status, opened.status), (vec![Status::Ok as u8], vec![Status::Ok as u8]));
        }
        // A process of the same name takes its place, as after a crash; the older one may still send within its lease.
        let new = leased(&url, "engine=one");
        let late = old.group_encrypt(&ours, text()).unwrap();
        if late.status == [Status::Ok as u8] {
            let (data, offsets) = packed(&[row(&late, 0)]);
            let opened = far.group_decrypt(&theirs, Packed::new(&data, &offsets).unwrap()).unwrap();
            assert_eq!(opened.status, [Status::Ok as u8]);
        }
        old = new;
    }
}

#[test]
fn a_partitioned_old_owner_sends_its_leases_at_most() {
    let Some(bin) = server::available() else { return };
    let (primary, standby) = Server::start_pair(&bin);
    let database = primary.database();
    let old = leased(&database, "engine=old");
    let mut far = Far::link(&old);
    let handles = near_handles(&old).unwrap();
    for _ in 0..20 {
        assert_eq!(far.open(&encrypt(&old, &handles, "before"), "before"), PEERS);
    }
    // The old primary lives, and the old gateway reaches no other server: it is told that it holds its shards, by a server
    // whose standby has gone over to the other side.
    standby.promote();
    let cut_off = std::thread::spawn(move || {
        let (mut frames, mut calls) = (Vec::new(), 0);
        let begin = Instant::now();
        // Until nothing leaves any more, and beyond.
        while begin.elapsed() < Duration::from_secs(15) {
            let sent = encrypt(&old, &handles, "late");
            for i in 0..PEERS {
                match sent.status[i] {
                    status if status == Status::Ok as u8 => frames.push((i, sent.kinds[i], row(&sent, i).to_vec())),
                    status => assert_eq!(status, Status::Busy as u8),
                }
            }
            calls += 1;
            std::thread::sleep(Duration::from_millis(100));
        }
        let last = encrypt(&old, &handles, "late");
        assert!(last.status == [Status::Busy as u8; PEERS] && last.data.is_empty());
        (frames, calls)
    });
    let new = leased(
        &format!("postgresql://postgres@127.0.0.1:{}/{}", standby.port, name(&database)),
        "engine=new&shards=all",
    );
    let handles = near_handles(&new).unwrap();
    let mut sent = Vec::new();
    for _ in 0..50 {
        let rows = encrypt(&new, &handles, "new");
        assert_eq!(rows.status, [Status::Ok as u8; PEERS]);
        sent.extend((0..PEERS).map(|i| (i, rows.kinds[i], row(&rows, i).to_vec())));
    }
    let (late, calls) = cut_off.join().unwrap();
    assert!(calls > 1);
    for peer in 0..PEERS {
        assert!(late.iter().filter(|frame| frame.0 == peer).count() <= LEASE as usize);
    }
    // Both sides' frames open, each once.
    far.open_all([late, sent].concat());
    assert!(far.gap <= u64::from(LEASE), "{}", far.gap);
    assert_eq!(far.answer(&new, &handles), PEERS);
    assert_eq!(far.open(&encrypt(&new, &handles, "on"), "on"), PEERS);
}

/// A row that fails writes nothing that could be refused: the store is asked, for the session may be at the new owner.
#[test]
fn an_engine_that_was_replaced_does_not_say_from_memory_that_there_is_no_session() {
    let Some(bin) = server::available() else { return };
    let server = Server::start(&bin);
    for durability in MODES {
        let url = server.database();
        let one = gateway_as(&url, "engine=one", durability);
        let desk = one.create_account("desk").unwrap();
        let far = engine(Location::Memory);
        let peer = far.create_account("peer").unwrap();
        let to_desk = far.sessions(&[peer], &["desk"]).unwrap();
        let group = far.groups(&[peer], &["group"], &[None]).unwrap();
        let at_one = one.sessions(&[desk], &["peer"]).unwrap();
        let senders_at_one = one.groups(&[desk], &["group"], &[Some("peer")]).unwrap();
        assert_eq!(encrypt(&one, &at_one, "none yet").status, [Status::NoSession as u8]);

        let two = gateway_as(&url, "engine=two", durability);
        two.move_shards(&[shard(&one)], "two", true).unwrap();
        let at_two = two.sessions(&[two.account("desk").unwrap().unwrap()], &["peer"]).unwrap();
        let bundle = far.prekeys(peer, 1, false).unwrap().bundle(Some(0));
        assert_eq!(two.start_sessions(&at_two, &[bundle]).unwrap().status, [0]);
        let first = encrypt(&two, &at_two, "from two");
        let opened = far.decrypt(&to_desk, &first.kinds, Packed::new(&first.data, &first.offsets).unwrap()).unwrap();
        assert_eq!(opened.status, [0]);

        let conflict = [Status::Conflict as u8];
        let answer = encrypt(&far, &to_desk, "to desk");
        let frames = Packed::new(&answer.data, &answer.offsets).unwrap();
        far.group_distribute(&group).unwrap();
        let (data, offsets) = packed(&["to all"]);
        let to_all = far.group_encrypt(&group, Packed::new(&data, &offsets).unwrap()).unwrap();
        let group_frames = Packed::new(&to_all.data, &to_all.offsets).unwrap();
        assert_eq!(one.group_decrypt(&senders_at_one, group_frames).unwrap().status, conflict);
        assert_eq!(encrypt(&one, &at_one, "still none").status, conflict);
        assert_eq!(one.decrypt(&at_one, &answer.kinds, frames).unwrap().status, conflict);
        assert_eq!(two.decrypt(&at_two, &answer.kinds, frames).unwrap().status, [0]);
        // Its owner is believed.
        assert_eq!(two.decrypt(&at_two, &answer.kinds, frames).unwrap().status, [Status::Redelivered as u8]);
    }
}

/// The account's shard.
fn shard(engine: &Engine) -> u32 {
    engine.shards().unwrap().into_iter().find(|shard| shard.accounts == 1).unwrap().number
}
