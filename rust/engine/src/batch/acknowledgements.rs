//! What is acknowledged is gone and nothing else is, whoever acknowledges what in which order: from several threads, over
//! commits that fail, crashes, and accounts that are read again; also of what earlier interlanes kept.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use interlane_crash::Dice;
use interlane_lanes::Backend;
use interlane_lanes::kernels::hmac::Hmac;

use super::lot_record::{self, Kept, KeptText, Lot, TAG, TaggedBy};
use super::rows::Kind;
use crate::batch::BufferLimits;
use crate::error::{Error, Events, Status};
use crate::store::passing::Passing;
use crate::store::simulated::{Server, SimulatedStore, Trouble};
use crate::store::sqlite::SqliteStore;
use crate::store::{Changes, Key, Kind as RowKind};
use crate::{AccountId, Bundle, Engine, Location, Options, Packed, Rows, Secret};

const OK: u8 = Status::Ok as u8;
const DUPLICATE: u8 = Status::Duplicate as u8;
const REDELIVERED: u8 = Status::Redelivered as u8;

fn options(seconds: u64) -> Options {
    let options = Options::new(Location::Memory, Backend::detect().unwrap());
    Options { receive_buffer: Some(BufferLimits { bytes: 64 << 20, seconds }), ..options }
}

fn pack(rows: &[Vec<u8>]) -> (Vec<u8>, Vec<i64>) {
    let mut offsets = vec![0];
    for row in rows {
        offsets.push(offsets.last().unwrap() + row.len() as i64);
    }
    (rows.concat(), offsets)
}

fn row(rows: &Rows, i: usize) -> &[u8] {
    &rows.data[rows.offsets[i] as usize..rows.offsets[i + 1] as usize]
}

/// Peers of an engine's account, each with a session; their next frames are usual ones.
struct Peers {
    engine: Engine,
    to_desk: Vec<u64>,
    from_them: Vec<u64>,
}

impl Peers {
    fn of(engine: &Engine, desk: AccountId, n: usize) -> Self {
        let far = Engine::open(Options { receive_buffer: None, ..options(0) }).unwrap();
        let upload = engine.prekeys(desk, 0, false).unwrap();
        let names: Vec<String> = (0..n).map(|i| format!("peer {i}")).collect();
        let accounts: Vec<AccountId> = names.iter().map(|name| far.create_account(name).unwrap()).collect();
        let to_desk: Vec<u64> =
            accounts.iter().map(|account| far.sessions(&[*account], &["desk"]).unwrap()[0]).collect();
        let bundles: Vec<Bundle> = (0..n).map(|_| upload.bundle(None)).collect();
        assert_eq!(far.start_sessions(&to_desk, &bundles).unwrap().status, vec![OK; n]);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let peers = Self { engine: far, to_desk, from_them: engine.sessions(&[desk], &names).unwrap() };
        peers.received(engine);
        let (data, offsets) = pack(&vec![b"answer".to_vec(); n]);
        let sent = engine.encrypt(&peers.from_them, Packed::new(&data, &offsets).unwrap()).unwrap();
        let frames = Packed::new(&sent.data, &sent.offsets).unwrap();
        assert_eq!(peers.engine.decrypt(&peers.to_desk, &sent.kinds, frames).unwrap().status, vec![OK; n]);
        peers.received(engine);
        peers
    }

    fn send(&self, texts: &[Vec<u8>]) -> Rows {
        let (data, offsets) = pack(texts);
        self.engine.encrypt(&self.to_desk, Packed::new(&data, &offsets).unwrap()).unwrap()
    }

    fn frames(&self) -> Rows {
        self.send(&vec![vec![7; 100]; self.to_desk.len()])
    }

    /// A frame of each, whose texts are of unequal lengths.
    fn sent(&self, round: u8) -> Vec<Sent> {
        let n = self.to_desk.len();
        let texts: Vec<Vec<u8>> = (0..n).map(|i| vec![round; 10 + 40 * i]).collect();
        let sent = self.send(&texts);
        let of = |(i, text)| Sent {
            text,
            kind: sent.kinds[i],
            frame: row(&sent, i).to_vec(),
            from: self.from_them[i],
            now: OK,
        };
        texts.into_iter().enumerate().map(of).collect()
    }

    fn take(&self, engine: &Engine, frames: &Rows) -> Rows {
        engine.decrypt(&self.from_them, &frames.kinds, Packed::new(&frames.data, &frames.offsets).unwrap()).unwrap()
    }

    /// One frame of each, received and acknowledged.
    fn received(&self, engine: &Engine) {
        let got = self.take(engine, &self.frames());
        assert_eq!(got.status, vec![OK; self.to_desk.len()]);
        engine.acknowledge(&got, None).unwrap();
    }
}

#[test]
fn each_one_counts() {
    let engine = Engine::open(options(3_600)).unwrap();
    let desk = engine.create_account("desk").unwrap();
    let peers = Peers::of(&engine, desk, 4);
    let got = peers.take(&engine, &peers.frames());
    for left in (0..4).rev() {
        assert_eq!(engine.acknowledge(&got, Some(&[left])).unwrap(), 1);
        assert_eq!(engine.stats().unwrap().rows_buffered, left);
    }
    assert_eq!(engine.stats().unwrap().buffered_bytes, 0);
}

/// The commit that takes an acknowledgement along fails or has no answer, and the account is read again from the store.
#[test]
fn they_outlive_an_account_that_is_read_again() {
    for trouble in [Trouble::RequestLost, Trouble::AnswerLost] {
        for (acknowledged, after) in [(1, 0), (1, 1), (3, 0), (4, 0), (4, 1)] {
            let server = Server::new(1);
            let store = Box::new(SimulatedStore::open(&server, "a").unwrap());
            let engine = Engine::over(store, options(3_600)).unwrap();
            let desk = engine.create_account("desk").unwrap();
            let peers = Peers::of(&engine, desk, 4);
            let first = peers.frames();
            let got = peers.take(&engine, &first);
            let which: Vec<u64> = (0..acknowledged).collect();
            engine.acknowledge(&got, Some(&which)).unwrap();
            server.plan("a", trouble, after);
            let frames = peers.frames();
            let calls = (0..5).map(|_| peers.take(&engine, &frames));
            // As long as the trouble does, and once more.
            let got = calls.skip(1).find(|got| got.status != [Status::Busy as u8; 4]).unwrap();
            assert!(got.status.iter().all(|&status| status == OK || status == REDELIVERED), "{:?}", got.status);
            engine.acknowledge(&got, None).unwrap();
            peers.received(&engine);
            let again = peers.take(&engine, &first);
            let expected = (0..4).map(|i| if i < acknowledged { DUPLICATE } else { REDELIVERED });
            assert_eq!(again.status, expected.collect::<Vec<u8>>(), "{acknowledged} {after}");
            engine.acknowledge(&again, None).unwrap();
            let stats = engine.stats().unwrap();
            assert_eq!((stats.rows_buffered, stats.buffered_bytes), (0, 0), "{acknowledged} {after}");
        }
    }
}

/// A frame on its way to the desk.
struct Sent {
    text: Vec<u8>,
    kind: u8,
    frame: Vec<u8>,
    from: u64,
    /// What it is when it comes: OK, REDELIVERED, DUPLICATE.
    now: u8,
}

fn give(engine: &Engine, frames: &[&Sent]) -> Result<Rows, Error> {
    let from: Vec<u64> = frames.iter().map(|sent| sent.from).collect();
    let kinds: Vec<u8> = frames.iter().map(|sent| sent.kind).collect();
    let (data, offsets) = pack(&frames.iter().map(|sent| sent.frame.clone()).collect::<Vec<_>>());
    engine.decrypt(&from, &kinds, Packed::new(&data, &offsets).unwrap())
}

/// A gateway's thread: receives what is new, what came before, and some twice in a call; acknowledges rows of any result.
fn handle(engine: &Engine, peers: &Peers, mine: std::ops::Range<usize>, mut dice: Dice) -> Vec<Sent> {
    let mut frames: Vec<Sent> = Vec::new();
    let mut results: Vec<(Rows, Vec<usize>)> = Vec::new();
    for round in 0..80 {
        let texts: Vec<Vec<u8>> =
            mine.clone().map(|i| vec![(i + round) as u8; 1 + (i * 7 + round * 13) % 300]).collect();
        let (data, offsets) = pack(&texts);
        let to = &peers.to_desk[mine.clone()];
        let sent = peers.engine.encrypt(to, Packed::new(&data, &offsets).unwrap()).unwrap();
        for (i, text) in texts.into_iter().enumerate().filter(|_| dice.one_in(2)) {
            let from = peers.from_them[mine.start + i];
            frames.push(Sent { text, kind: sent.kinds[i], frame: row(&sent, i).to_vec(), from, now: OK });
        }
        let mut come: Vec<usize> = (0..frames.len()).filter(|&at| frames[at].now == OK).collect();
        come.extend((0..40).map(|_| dice.below(frames.len())));
        // Where the commit failed they come again.
        if let Ok(got) = give(engine, &come.iter().map(|&at| &frames[at]).collect::<Vec<_>>()) {
            for (i, &at) in come.iter().enumerate() {
                let sent = &mut frames[at];
                assert_eq!(got.status[i], sent.now);
                if sent.now != DUPLICATE {
                    assert!(row(&got, i) == sent.text);
                    sent.now = REDELIVERED;
                }
            }
            results.push((got, come));
        }
        for _ in 0..dice.below(4).min(results.len()) {
            let (got, come) = &results[dice.below(results.len())];
            let which: Vec<u64> = if dice.one_in(3) {
                (0..come.len() as u64).collect()
            } else {
                (0..come.len() as u64).filter(|_| dice.one_in(5)).collect()
            };
            engine.acknowledge(got, Some(&which)).unwrap();
            for i in which.into_iter().filter(|&i| got.status[i as usize] != DUPLICATE) {
                frames[come[i as usize]].now = DUPLICATE;
            }
        }
    }
    frames
}

/// The tag that earlier interlanes knew a frame by.
fn older_tag(engine: &Engine, desk: AccountId, sent: &Sent) -> [u8; TAG] {
    let sender = engine.columns.pages().tag(sent.from as u32);
    let head = [&[RowKind::Buffered as u8, sent.kind][..], &sender].concat();
    let mut hash = [[0; 32]];
    let account = engine.find(desk).unwrap();
    let keys = &[*account.tag_key().expose()];
    Backend::portable().run(Hmac { keys, heads: &[&head], tails: &[&sent.frame], out: &mut hash });
    *hash[0].first_chunk().unwrap()
}

/// Puts in the place of what an account has kept what earlier interlanes would have: the first `n` frames in a lot of form 1,
/// the others in rows of form 0.
fn keep_as_before(engine: &Engine, desk: AccountId, frames: &[Sent], n: usize) {
    let tags: Vec<[u8; TAG]> = frames.iter().map(|sent| older_tag(engine, desk, sent)).collect();
    let key = |tag| Key { account: desk.0, kind: RowKind::Buffered, tag };
    let kept = |i: usize| Kept {
        tag: tags[i],
        kind: Kind::Message,
        events: Events::default(),
        text: KeptText::Plain(&frames[i].text),
    };
    let (mut changes, mut kept_at) = (Changes::default(), 0);
    engine
        .store()
        .scan(desk.0, RowKind::Buffered, &mut |tag, row| {
            kept_at = Lot::read(tag, row)?.kept_at;
            changes.delete(key(tag));
            Ok(())
        })
        .unwrap();
    let lot: Vec<Kept<'_>> = (0..n).map(kept).collect();
    lot_record::put(&mut changes, key([9; TAG]), true, kept_at, TaggedBy::Hmac, &lot);
    for (sent, tag) in frames.iter().zip(&tags).skip(n) {
        let row = [&kept_at.to_le_bytes()[..7], &[0, Kind::Message as u8, 0], &sent.text].concat();
        changes.reserve(row.len());
        changes.put_new(key(*tag), |body| body.extend_from_slice(&row));
    }
    engine.store().commit(changes).unwrap();
}

/// The lots that are stored: how their frames are tagged, and how many these are.
fn lots(engine: &Engine, desk: AccountId) -> Vec<(u8, usize)> {
    let mut lots = Vec::new();
    engine
        .store()
        .scan(desk.0, RowKind::Buffered, &mut |tag, row| {
            let lot = Lot::read(tag, row)?;
            lots.push((lot.tagged_by as u8, lot.frames.len()));
            Ok(())
        })
        .unwrap();
    lots.sort_unstable();
    lots
}

#[test]
fn frames_that_earlier_interlanes_kept_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.db");
    let reopen = |frames: &mut [Sent]| {
        let engine = open(&path, 1, &Arc::default());
        let desk = engine.account("desk").unwrap().unwrap();
        let names: Vec<String> = (0..6).map(|i| format!("peer {i}")).collect();
        let handles = engine.sessions(&[desk], &names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        frames.iter_mut().zip(handles.iter().cycle()).for_each(|(sent, handle)| sent.from = *handle);
        (engine, desk)
    };
    let comes = |engine: &Engine, frames: &[Sent]| {
        let got = give(engine, &frames.iter().collect::<Vec<_>>()).unwrap();
        for (i, sent) in frames.iter().enumerate() {
            assert_eq!(got.status[i], sent.now, "frame {i}");
            assert!(sent.now == DUPLICATE || row(&got, i) == sent.text, "frame {i}");
        }
        got
    };
    let engine = open(&path, 1, &Arc::default());
    let desk = engine.create_account("desk").unwrap();
    let peers = Peers::of(&engine, desk, 6);
    let mut frames = peers.sent(1);
    comes(&engine, &frames);
    assert!(!engine.find(desk).unwrap().buffer().has_older());
    engine.commit_acknowledged().unwrap();
    keep_as_before(&engine, desk, &frames, 4);
    drop(engine);

    frames.extend(peers.sent(2));
    let (engine, desk) = reopen(&mut frames);
    assert!(engine.find(desk).unwrap().buffer().has_older());
    // Together with new ones, which become a lot of today.
    frames[..6].iter_mut().for_each(|sent| sent.now = REDELIVERED);
    comes(&engine, &frames);
    frames.iter_mut().for_each(|sent| sent.now = REDELIVERED);
    let got = comes(&engine, &frames);
    assert_eq!(engine.acknowledge(&got, Some(&[0, 4, 6])).unwrap(), 3);
    engine.commit_acknowledged().unwrap();
    // A lot that was torn has the tags that it had.
    assert_eq!(lots(&engine, desk), [(1, 1), (1, 3), (2, 5)]);
    drop(engine);

    let (engine, desk) = reopen(&mut frames);
    [0, 4, 6].iter().for_each(|&i: &usize| frames[i].now = DUPLICATE);
    let got = comes(&engine, &frames);
    assert_eq!(engine.acknowledge(&got, None).unwrap(), 9);
    let stats = engine.stats().unwrap();
    assert_eq!((stats.rows_buffered, stats.buffered_bytes), (0, 0));
    assert!(!engine.find(desk).unwrap().buffer().has_older());
    engine.commit_acknowledged().unwrap();
    assert_eq!(lots(&engine, desk), []);
    frames.iter_mut().for_each(|sent| sent.now = DUPLICATE);
    comes(&engine, &frames);
}

fn open(path: &Path, threads: usize, fails: &Arc<AtomicBool>) -> Engine {
    let mut store = SqliteStore::open(path, Secret::copy_of(&[1; 32]), None).unwrap();
    store.fold_at(60_000);
    let (mut dice, fails) = (Dice(5), Arc::clone(fails));
    let store = Passing::over(Box::new(store), move |store, changes| {
        if fails.load(Ordering::SeqCst) && dice.one_in(4) {
            return Err(Error::Store("planned".into()));
        }
        store.commit(changes)
    });
    Engine::over(store, Options { threads, ..options(3_600) }).unwrap()
}

#[test]
fn in_any_order_from_several_threads_over_failures_and_a_crash() {
    const EACH: usize = 70;
    for seed in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.db");
        let fails = Arc::new(AtomicBool::new(false));
        let engine = open(&path, 1 + seed % 2 * 2, &fails);
        let desk = engine.create_account("desk").unwrap();
        let peers = Peers::of(&engine, desk, 4 * EACH);
        fails.store(true, Ordering::SeqCst);
        let mut frames: Vec<Sent> = std::thread::scope(|scope| {
            let handled = [0, 1, 2, 3].map(|t| {
                let (engine, peers, dice) = (&engine, &peers, Dice((seed * 4 + t) as u64));
                scope.spawn(move || handle(engine, peers, t * EACH..(t + 1) * EACH, dice))
            });
            handled.into_iter().flat_map(|handled| handled.join().unwrap()).collect()
        });
        fails.store(false, Ordering::SeqCst);
        engine.commit_acknowledged().unwrap();
        // The store has what memory knows: each frame that is not acknowledged, once.
        let waiting = frames.iter().filter(|sent| sent.now == REDELIVERED).count();
        assert_eq!(engine.stats().unwrap().rows_buffered, waiting as u64);
        let mut stored: HashMap<[u8; 16], usize> = HashMap::new();
        let mut count = |tag, row: &[u8]| {
            Lot::read(tag, row)?.frames.iter().for_each(|frame| *stored.entry(frame.tag).or_default() += 1);
            Ok(())
        };
        engine.store().scan(desk.0, RowKind::Buffered, &mut count).unwrap();
        assert!(stored.len() == waiting && stored.values().all(|&times| times == 1));
        drop(engine);
        let engine = open(&path, 1, &fails);
        let desk = engine.account("desk").unwrap().unwrap();
        let names: Vec<String> = (0..4 * EACH).map(|i| format!("peer {i}")).collect();
        let handles = engine.sessions(&[desk], &names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        for sent in &mut frames {
            sent.from = handles[peers.from_them.iter().position(|&from| from == sent.from).unwrap()];
        }
        let got = give(&engine, &frames.iter().collect::<Vec<_>>()).unwrap();
        for (i, sent) in frames.iter().enumerate() {
            assert_eq!(got.status[i], sent.now, "after a crash");
            assert!(sent.now == DUPLICATE || row(&got, i) == sent.text);
        }
        engine.acknowledge(&got, None).unwrap();
        let stats = engine.stats().unwrap();
        assert_eq!((stats.rows_buffered, stats.buffered_bytes), (0, 0));
    }
}
