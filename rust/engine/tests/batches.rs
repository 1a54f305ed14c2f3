//! A batch equals its rows one at a time, in order: for any split, any thread count, any mixture of accounts.

use interlane::{
    AccountId, BufferLimits, Bundle, Durability, Engine, Error, Kind, Location, Options, Packed, Rows, Secret, Status,
    Upload,
};
use interlane_lanes::Backend;

/// Where a history's state is kept.
enum Place {
    Memory,
    /// Nowhere, and received plaintexts are kept.
    Buffered,
    /// An SQLite store, closed and opened again before every round.
    Reopened(tempfile::TempDir),
    /// An SQLite store, of whose sessions so many are in memory at a time.
    Limited {
        folder: tempfile::TempDir,
        most: usize,
        durability: Durability,
        buffered: bool,
    },
}

impl Place {
    fn engine(&self, threads: usize, opened: u8) -> Engine {
        let options = options(threads);
        let receive_buffer = Some(BufferLimits { bytes: 1 << 30, seconds: 3_600 });
        let options = match self {
            Self::Memory => options,
            Self::Buffered => Options { receive_buffer, ..options },
            Self::Reopened(folder) => Options { location: file(folder), seed: Some([opened; 32]), ..options },
            Self::Limited { folder, most, durability, buffered } => Options {
                location: file(folder),
                durability: *durability,
                receive_buffer: receive_buffer.filter(|_| *buffered),
                resident_sessions: Some(*most),
                ..options
            },
        };
        Engine::open(options).unwrap()
    }
}

fn file(folder: &tempfile::TempDir) -> Location {
    Location::Sqlite { path: folder.path().join("store.db"), key: Secret::copy_of(&[3; 32]), generation: None }
}

/// An engine in memory whose randomness is fixed; where a store is opened again, it is another one each time.
fn options(threads: usize) -> Options {
    let options = Options::new(Location::Memory, Backend::detect().unwrap());
    Options { threads, seed: Some([0; 32]), ..options }
}

/// Numbers that look random (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

fn pack(rows: &[Vec<u8>]) -> (Vec<u8>, Vec<i64>) {
    let mut offsets = vec![0];
    let mut data = Vec::new();
    for row in rows {
        data.extend_from_slice(row);
        offsets.push(data.len() as i64);
    }
    (data, offsets)
}

fn row(rows: &Rows, i: usize) -> &[u8] {
    &rows.data[rows.offsets[i] as usize..rows.offsets[i + 1] as usize]
}

/// One row of a call, and what came of it.
type Done = (u8, u8, u8, Vec<u8>);

/// A call of many rows, made in pieces of `split` rows.
fn in_pieces(n: usize, split: usize, mut call: impl FnMut(std::ops::Range<usize>) -> Rows) -> Vec<Done> {
    let mut done = Vec::new();
    let mut start = 0;
    while start < n {
        let end = (start + split).min(n);
        let rows = call(start..end);
        for i in 0..end - start {
            done.push((rows.status[i], rows.kinds[i], rows.events[i], row(&rows, i).to_vec()));
        }
        start = end;
    }
    done
}

/// A history of three accounts that write to each other over a bad network; everything that came out of it.
fn history(seed: u64, threads: usize, split: usize, place: &Place) -> Vec<Done> {
    let mut engine = place.engine(threads, 0);
    let mut dice = Dice(seed);
    let names = ["a", "b", "c"];
    let mut accounts: Vec<AccountId> = names.iter().map(|name| engine.create_account(name).unwrap()).collect();
    let uploads: Vec<Upload> = accounts.iter().map(|&id| engine.prekeys(id, 8, false).unwrap()).collect();
    let pairs = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];
    let find = |engine: &Engine, accounts: &[AccountId]| -> Vec<u64> {
        pairs.iter().map(|&(from, to)| engine.sessions(&[accounts[from]], &[names[to]]).unwrap()[0]).collect()
    };
    let mut handles = find(&engine, &accounts);
    let mut log = Vec::new();
    let mut in_flight: Vec<(usize, u8, Vec<u8>)> = Vec::new();
    for round in 0..12 {
        if let Place::Reopened(_) = place {
            engine.close().unwrap();
            drop(engine);
            engine = place.engine(threads, round + 1);
            accounts = names.iter().map(|name| engine.account(name).unwrap().unwrap()).collect();
            handles = find(&engine, &accounts);
        }
        // Some start sessions, at times both ends at once, at times with one prekey for two.
        let starting: Vec<usize> = (0..dice.below(4)).map(|_| dice.below(pairs.len())).collect();
        let bundles: Vec<Bundle> = starting
            .iter()
            .map(|&pair| {
                let one_time = (dice.below(3) > 0).then(|| dice.below(8));
                uploads[pairs[pair].1].bundle(one_time)
            })
            .collect();
        let started: Vec<u64> = starting.iter().map(|&pair| handles[pair]).collect();
        log.extend(in_pieces(starting.len(), split, |part| {
            engine.start_sessions(&started[part.clone()], &bundles[part]).unwrap()
        }));
        // Many rows, several for one session.
        let sending: Vec<usize> = (0..dice.below(90)).map(|_| dice.below(pairs.len())).collect();
        let texts: Vec<Vec<u8>> = sending.iter().map(|_| vec![round; dice.below(100)]).collect();
        let senders: Vec<u64> = sending.iter().map(|&pair| handles[pair]).collect();
        let sent = in_pieces(sending.len(), split, |part| {
            let (data, offsets) = pack(&texts[part.clone()]);
            engine.encrypt(&senders[part], Packed::new(&data, &offsets).unwrap()).unwrap()
        });
        for (&pair, (status, kind, _, frame)) in sending.iter().zip(&sent) {
            if *status == Status::Ok as u8 {
                // Loss, duplicates, damage.
                match dice.below(10) {
                    0 => {}
                    1 => in_flight.extend([(pair, *kind, frame.clone()), (pair, *kind, frame.clone())]),
                    2 => {
                        let mut damaged = frame.clone();
                        let at = dice.below(damaged.len());
                        damaged[at] ^= 1 << dice.below(8);
                        in_flight.extend([(pair, *kind, damaged), (pair, *kind, frame.clone())]);
                    }
                    _ => in_flight.push((pair, *kind, frame.clone())),
                }
            }
        }
        log.extend(sent);
        for i in (1..in_flight.len()).rev() {
            if dice.below(3) == 0 {
                in_flight.swap(i, dice.below(i));
            }
        }
        let arriving: Vec<_> = in_flight.drain(..dice.below(in_flight.len() + 1)).collect();
        let receivers: Vec<u64> = arriving.iter().map(|&(pair, ..)| handles[pair ^ 1]).collect();
        let kinds: Vec<u8> = arriving.iter().map(|&(_, kind, _)| kind).collect();
        let frames: Vec<Vec<u8>> = arriving.into_iter().map(|(.., frame)| frame).collect();
        log.extend(in_pieces(frames.len(), split, |part| {
            let (data, offsets) = pack(&frames[part.clone()]);
            let packed = Packed::new(&data, &offsets).unwrap();
            engine.decrypt(&receivers[part.clone()], &kinds[part], packed).unwrap()
        }));
    }
    for id in accounts {
        let info = engine.account_info(id).unwrap();
        let mut peers: Vec<String> = engine.peers(id).unwrap().iter().map(|peer| format!("{peer:?}")).collect();
        peers.sort();
        log.push((0, 0, 0, format!("{} {peers:?}", info.stock).into_bytes()));
    }
    log
}

#[test]
fn any_split_and_any_thread_count_give_the_same() {
    for seed in 0..12 {
        let alone = history(seed, 1, 1, &Place::Memory);
        let opened = alone.iter().filter(|(status, ..)| *status == Status::Ok as u8).count();
        assert!(opened > 100, "a history in which something happens: {opened}");
        for (threads, split) in [(1, 1000), (3, 1000), (2, 7), (1, 16)] {
            let together = history(seed, threads, split, &Place::Memory);
            for (i, (a, b)) in alone.iter().zip(&together).enumerate() {
                assert_eq!(a, b, "seed {seed}, {threads} threads, split {split}, event {i}");
            }
            assert_eq!(alone.len(), together.len());
        }
    }
}

#[test]
fn a_store_that_is_reopened_all_the_time_gives_the_same() {
    for seed in 0..6 {
        let kept = history(seed, 2, 1000, &Place::Memory);
        let reopened = history(seed, 2, 1000, &Place::Reopened(tempfile::tempdir().unwrap()));
        assert_eq!(kept.len(), reopened.len());
        for (i, (a, b)) in kept.iter().zip(&reopened).enumerate() {
            // Fresh keys differ, so frames do; how every row ends, and how long it is, must not. (Whether a damaged
            // base key is a point at all depends on the key: INVALID before NO_PREKEY.)
            let how = |row: &Done| {
                let damaged = [Status::Invalid as u8, Status::NoPrekey as u8].contains(&row.0);
                (if damaged { Status::Invalid as u8 } else { row.0 }, row.1, row.2, row.3.len())
            };
            assert_eq!(how(a), how(b), "seed {seed}, event {i}");
        }
    }
}

#[test]
fn a_limit_of_sessions_in_memory_changes_nothing() {
    let mut seed = 0;
    for durability in [Durability::Strict, Durability::Leased(3), Durability::Leased(64)] {
        // Of six; 4 are evicted one by one, and 1 is too few for most calls.
        for (most, threads, split) in [(1, 2, 1000), (2, 1, 16), (4, 2, 7)] {
            seed += 1;
            let buffered = seed % 2 == 0;
            let kept = if buffered { Place::Buffered } else { Place::Memory };
            let folder = tempfile::tempdir().unwrap();
            let limited = history(seed, threads, split, &Place::Limited { folder, most, durability, buffered });
            let all = history(seed, threads, split, &kept);
            assert_eq!(all.len(), limited.len());
            for (i, (a, b)) in all.iter().zip(&limited).enumerate() {
                // The same frames: no counter twice, and none left out.
                assert_eq!(a, b, "seed {seed}, {most} of six, {durability:?}, split {split}, event {i}");
            }
        }
    }
}

#[test]
fn every_status_occurs_in_the_histories() {
    let mut seen = [0; Status::ALL.len()];
    for seed in 0..12 {
        for (status, ..) in history(seed, 2, 1000, &Place::Memory) {
            seen[status as usize] += 1;
        }
    }
    for status in [Status::Ok, Status::NoSession, Status::Duplicate, Status::Invalid, Status::NoPrekey] {
        assert!(seen[status as usize] > 0, "{status:?} never occurred: {seen:?}");
    }
}

#[test]
fn threads_share_a_session_without_losing_a_message() {
    let engine = Engine::open(options(2)).unwrap();
    let [a, b] = ["a", "b"].map(|name| engine.create_account(name).unwrap());
    let upload = engine.prekeys(b, 1, false).unwrap();
    let to = engine.sessions(&[a], &["b"]).unwrap()[0];
    let from = engine.sessions(&[b], &["a"]).unwrap()[0];
    assert_eq!(engine.start_sessions(&[to], &[upload.bundle(Some(0))]).unwrap().status, [0]);
    let frames = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let sent = engine.encrypt(&[to; 3], Packed::new(b"xyz", &[0, 1, 2, 3]).unwrap()).unwrap();
                    let mut frames = frames.lock().unwrap();
                    frames.extend((0..3).map(|i| row(&sent, i).to_vec()));
                }
            });
        }
    });
    let (data, offsets) = pack(&frames.into_inner().unwrap());
    let kinds = [Kind::PrekeyMessage as u8; 600];
    let got = engine.decrypt(&[from; 600], &kinds, Packed::new(&data, &offsets).unwrap()).unwrap();
    assert!(got.status.iter().all(|&status| status == 0), "{:?}", got.status);
    assert_eq!(got.data.len(), 600);
}

/// More sessions than one query looks up, and their prekeys: the same for any thread count, in whatever order they are
/// asked for. One row that is damaged is the error of the calls that need it.
#[test]
fn many_sessions_are_loaded_in_parts() {
    const PEERS: usize = 2_600;
    let names: Vec<String> = (0..PEERS).map(|i| format!("peer {i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut order: Vec<usize> = (0..PEERS).collect();
    let mut dice = Dice(7);
    (1..PEERS).for_each(|i| order.swap(i, dice.below(i + 1)));
    let well = |rows: Rows| {
        assert!(rows.status.iter().all(|&status| status == Status::Ok as u8));
        rows
    };
    let text = vec![b'x'; PEERS];
    let offsets: Vec<i64> = (0..=PEERS as i64).collect();
    let texts = || Packed::new(&text, &offsets).unwrap();
    let told = [1, 2, 3].map(|threads| {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Reopened(folder);
        let found = |opened| {
            let near = place.engine(threads, opened);
            let desk = near.account("desk").unwrap().unwrap_or_else(|| near.create_account("desk").unwrap());
            let handles = near.sessions(&[desk], &names).unwrap();
            let handles: Vec<u64> = order.iter().map(|&i| handles[i]).collect();
            (near, desk, handles)
        };
        let far = Engine::open(options(2)).unwrap();
        let customer = far.create_account("customer").unwrap();
        let theirs = far.sessions(&[customer], &names).unwrap();
        let (near, desk, _) = found(0);
        let upload = near.prekeys(desk, PEERS as u32, false).unwrap();
        near.close().unwrap();
        let bundles: Vec<Bundle> = (0..PEERS).map(|at| upload.bundle(Some(at))).collect();
        well(far.start_sessions(&theirs, &bundles).unwrap());
        let mut told = Vec::new();
        let mut take = |rows: Rows| told.push((rows.data.to_vec(), rows.events.clone()));
        // Of nobody is anything stored but of the prekeys, then of all.
        for opened in 1..3 {
            let sent = well(far.encrypt(&theirs, texts()).unwrap());
            let (near, _, handles) = found(opened);
            let frames: Vec<Vec<u8>> = order.iter().map(|&i| row(&sent, i).to_vec()).collect();
            let (data, offsets) = pack(&frames);
            assert_eq!(near.stats().unwrap().sessions, 0);
            let got = near.decrypt(&handles, &sent.kinds, Packed::new(&data, &offsets).unwrap()).unwrap();
            take(well(got));
            take(well(near.encrypt(&handles, texts()).unwrap()));
            near.close().unwrap();
        }
        let (near, _, handles) = found(3);
        near.warm(&handles).unwrap();
        assert_eq!(near.stats().unwrap().sessions, PEERS as u64);
        let sent = well(near.encrypt(&handles, texts()).unwrap());
        let data = Packed::new(&sent.data, &sent.offsets).unwrap();
        let theirs: Vec<u64> = order.iter().map(|&i| theirs[i]).collect();
        well(far.decrypt(&theirs, &sent.kinds, data).unwrap());
        take(sent);
        near.close().unwrap();

        let Place::Reopened(folder) = &place else { unreachable!() };
        let raw = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
        let damage = "UPDATE rows SET body = zeroblob(length(body)) WHERE key =
            (SELECT key FROM rows WHERE hex(substr(key, 5, 1)) = '04' ORDER BY key LIMIT 1 OFFSET 1400)";
        assert_eq!(raw.execute(damage, []).unwrap(), 1);
        drop(raw);
        let (near, _, handles) = found(4);
        let refused = |result: Result<(), Error>| match result {
            Err(Error::Store(text)) => assert!(text.contains("damaged or moved"), "{text}"),
            other => panic!("{other:?} where a row is damaged"),
        };
        refused(near.warm(&handles));
        refused(near.encrypt(&handles, texts()).map(drop));
        let kept: Vec<u64> = handles.iter().copied().filter(|&handle| near.warm(&[handle]).is_ok()).collect();
        assert_eq!((kept.len(), near.stats().unwrap().sessions), (PEERS - 1, PEERS as u64 - 1));
        near.warm(&kept).unwrap();
        near.close().unwrap();
        told
    });
    assert!(told[0] == told[1] && told[0] == told[2], "frames and texts of one, two and three threads");
}
