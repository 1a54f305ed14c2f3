//! Gateways, the people on them, their disks and servers, clock, network and crashes: a history of them in one thread,
//! which follows from one number (its seed) and nothing else.
//!
//! What is simulated is everything around the engine; the engine is the one that ships. Its time and randomness come
//! from [`crate::machine`], its SQLite store lies on a disk that fails as told (`tests/crash`), its shared store is
//! [`crate::store::simulated`], and the thread that writes leases is a turn of the history. The oracle knows the key and
//! IV of every frame that left, by a tap at the place where texts are encrypted, and every plaintext that was sent.

mod desk;
mod oracle;
mod planted;
mod story;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use self::desk::{Desk, Kept, Manner};
use self::planted::Planted;
use self::story::{Faults, grouped};
use self::world::World;
use crate::limits::SHARDS;
use crate::store::Store;
use crate::store::simulated::{Server, SimulatedStore, Trouble};
use crate::{Durability, Status};

/// Lives through the history of a seed; its hash, and the faults in it.
fn history(seed: u64, planted: Option<Planted>, aloud: bool) -> (u64, Faults) {
    let mut world = World::new(seed, planted, aloud);
    world.live();
    (world.story.hash(), world.story.faults.clone())
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.replace(['_', ','], "").parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// Histories until there were so many faults (`INTERLANE_FAULTS`), from a seed on (`INTERLANE_SEED`), on every core.
#[test]
fn histories() {
    let wanted = number("INTERLANE_FAULTS").unwrap_or(5_000);
    let first = number("INTERLANE_SEED").unwrap_or(1);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, failed) = (AtomicU64::new(first), AtomicBool::new(false));
    let total = Mutex::new((Faults::default(), 0_u64));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let Ok((_, faults)) = catch_unwind(|| history(seed, None, false)) else {
                        return failed.store(true, Ordering::Relaxed);
                    };
                    let mut total = total.lock().unwrap();
                    let before = total.0.all();
                    total.0.add(&faults);
                    total.1 += 1;
                    let (all, histories) = (total.0.all(), total.1);
                    if all / 50_000 > before / 50_000 {
                        let (all, histories) = (grouped(all), grouped(histories));
                        println!("  {all:>9} faults in {histories} histories, {} s", began.elapsed().as_secs());
                    }
                    if all >= wanted {
                        return;
                    }
                }
            });
        }
    });
    let (faults, histories) = total.into_inner().unwrap();
    assert!(!failed.load(Ordering::Relaxed), "a history fails: see above");
    println!("\nsimulation: {} histories from seed {first}, all of them well\n{faults}", grouped(histories));
    println!("  INTERLANE_SEED={first} INTERLANE_FAULTS={wanted} make simulation\n");
    assert!(wanted < 100_000 || faults.missing().is_empty(), "no {:?}", faults.missing());
}

/// One history, told step by step: `INTERLANE_HISTORY`.
#[test]
fn one_history() {
    let (seed, aloud) = number("INTERLANE_HISTORY").map_or((3, false), |seed| (seed, true));
    let (hash, faults) = history(seed, None, aloud);
    println!("the history of seed {seed} is {hash:016x}\n{faults}");
}

#[test]
fn a_seed_gives_the_same_history_again() {
    for seed in [1, 2, 3, 4, 5, 6] {
        let hashes = [(); 2].map(|()| std::thread::spawn(move || history(seed, None, false).0).join().unwrap());
        assert_eq!(hashes[0], hashes[1], "seed {seed}");
    }
    assert_ne!(history(7, None, false).0, history(8, None, false).0);
}

/// What is planted has to be found, and soon.
#[test]
fn planted_faults_are_found() {
    let cases = [
        (Planted::UnwrittenLeases, "A KEY AND IV TWICE"),
        (Planted::LostCommits(9), ""),
        (Planted::UnkeptPlaintexts, "A PLAINTEXT IS LOST"),
    ];
    for (planted, says) in cases {
        let found = (1..30).find_map(|seed| {
            let failed = catch_unwind(AssertUnwindSafe(|| history(seed, Some(planted), false))).err()?;
            let text = failed.downcast_ref::<String>().cloned();
            Some((
                seed,
                text.or_else(|| failed.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default(),
            ))
        });
        let Some((seed, text)) = found else { panic!("{planted:?} is not found") };
        println!("{planted:?} is found with seed {seed}: {text}");
        assert!(text.contains(says), "{planted:?} is found for another reason: {text}");
    }
}

/// Nobody could say where the account went when it went: its rows are BUSY, but not for ever.
#[test]
fn an_account_that_another_engine_has_is_a_conflict_in_the_end() {
    let server = Server::new(3);
    let manner = Manner {
        durability: Durability::Strict,
        buffer: None,
        padding: false,
        residents: None,
        fold_at: 0,
        planted: None,
    };
    let mut desk = Desk::new(manner, Kept::Shared { server: Arc::clone(&server), name: "one".into() });
    desk.open().unwrap();
    let engine = desk.engine.as_ref().unwrap();
    let account = engine.create_account("desk").unwrap();
    let handles = engine.groups(&[account], &["group"], &[None]).unwrap();
    let mut other = SimulatedStore::open(&server, "two").unwrap();
    other.move_shards(&(0..SHARDS).collect::<Vec<_>>(), "two", true).unwrap();
    other.accounts().unwrap();
    // Reading the sender key and the commit go well; asking who has the shard does not.
    server.plan("one", Trouble::RequestLost, 2);
    let statuses: Vec<u8> = (0..4).map(|_| engine.group_distribute(&handles).unwrap().status[0]).collect();
    assert_eq!(statuses[0], Status::Busy as u8);
    assert_eq!(statuses[3], Status::Conflict as u8, "{statuses:?}");
}
