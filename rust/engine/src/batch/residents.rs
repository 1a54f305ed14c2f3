//! Which sessions are in memory, where their number is limited: those that were used last.
//!
//! What is evicted is in the store, and its handle stays good: the next call that names it loads it again. A session
//! that a call has claimed stays. Where sends are leased, the store is ahead of memory, so a chain is written as it is
//! before it goes, as when the engine is closed, and no counter is skipped.
//!
//! ```text
//! residents <= N, or as many as the calls under way have claimed
//! evicted at once: N / 8 and what is needed, so that a loaded session costs some 8 looks at others
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::engine::Engine;
use super::lease::ChainAt;
use crate::error::Error;

/// The part of the residents that is evicted at once, where there are too many.
const SHARE: usize = 8;

/// How many sessions may be in memory, and what came and went.
pub(super) struct Residents {
    most: Option<usize>,
    /// Held while some are evicted: who also finds too many waits for that.
    evicting: Mutex<()>,
    loaded: AtomicU64,
    evicted: AtomicU64,
}

impl Residents {
    pub(super) fn new(most: Option<usize>) -> Self {
        Self { most, evicting: Mutex::default(), loaded: AtomicU64::new(0), evicted: AtomicU64::new(0) }
    }

    /// Refuses a limit of nothing, and one where there is no store to load sessions from (`durable`).
    pub(super) fn check(most: Option<usize>, durable: bool) -> Result<(), Error> {
        match most {
            Some(0) => {
                let text = "resident_sessions: 0; give at least 1, or leave it away to keep every session in memory";
                Err(Error::Malformed(text.into()))
            }
            Some(_) if !durable => {
                let text = "resident_sessions: a store in memory has nothing to load sessions from: leave it away, or \
                            open a store that outlives the process";
                Err(Error::Malformed(text.into()))
            }
            _ => Ok(()),
        }
    }

    /// How many are listed together where all are, so that a list does not fill the memory.
    pub(super) fn at_once(&self) -> usize {
        const LEAST: usize = 1_024;
        self.most.map_or(usize::MAX, |most| most.max(LEAST))
    }

    /// How many sessions were loaded, and how many evicted, since the engine was opened.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.loaded.load(Ordering::Relaxed), self.evicted.load(Ordering::Relaxed))
    }
}

impl Engine {
    /// Makes room for `coming` sessions, which a call is about to load; what it has claimed stays.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Closed`]: chains that the store is ahead of could not be written.
    pub(super) fn make_room(&self, coming: usize) -> Result<(), Error> {
        self.residents.loaded.fetch_add(coming as u64, Ordering::Relaxed);
        let Some(most) = self.residents.most else { return Ok(()) };
        if self.columns.residents() + coming <= most {
            return Ok(());
        }
        self.evict(most, coming)
    }

    /// Evicts what a call had in memory beyond the limit. To be called without a claim. Where it does not succeed, the
    /// next call that needs room says why.
    pub(super) fn shrink(&self) {
        if let Some(most) = self.residents.most
            && self.columns.residents() > most
        {
            let _ = self.evict(most, 0);
        }
    }

    fn evict(&self, most: usize, coming: usize) -> Result<(), Error> {
        let _evicting = self.residents.evicting.lock().unwrap_or_else(PoisonError::into_inner);
        let residents = self.columns.residents();
        if residents + coming <= most {
            return Ok(());
        }
        let keep = (most - most / SHARE).saturating_sub(coming);
        let excess = residents.saturating_sub(keep);
        // Nobody is waited for here: what is claimed stays, the caller's own sessions too, and others go instead.
        let plan = self.claims.claim_free(&self.columns.idle(excess + self.claims.count()), excess);
        let evict = || {
            plan.entries.iter().for_each(|entry| self.columns.unload(entry.slot));
            self.residents.evicted.fetch_add(plan.entries.len() as u64, Ordering::Relaxed);
        };
        if self.leases.span().is_none() {
            // The store has every chain as it is.
            evict();
            return Ok(());
        }
        // In the store's turn, to the end: the thread that leases ahead of need finds marks that are odd, then another
        // life, and what it wrote before is known here.
        let mut store = self.open_store()?;
        let chains: Vec<ChainAt> = plan.sessions().collect();
        let changes = self.leases.give_back(chains.iter().copied());
        // First, for a commit that fails may be on the disk all the same: whatever comes of it, no chain goes on in a
        // lease that the store may not have any more.
        self.leases.give_up(plan.entries.iter().map(|entry| entry.slot));
        self.leases.begin(&chains);
        let written = if changes.is_empty() { Ok(()) } else { store.commit(changes) };
        self.roll.note_lost(store.as_mut());
        match written {
            Ok(()) => evict(),
            Err(_) => self.leases.undo(&chains),
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use interlane_lanes::Backend;

    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::passing::Passing;
    use crate::store::{Changes, Store};
    use crate::{Bundle, Durability, Location, Options, Packed, Rows, Secret};

    fn options(folder: &tempfile::TempDir, most: usize, durability: Durability) -> Options {
        let path = folder.path().join("store.db");
        let location = Location::Sqlite { path, key: Secret::copy_of(&[1; 32]), generation: None };
        let options = Options::new(location, Backend::detect().unwrap());
        Options { durability, resident_sessions: Some(most), ..options }
    }

    /// An engine with a session to each of some peers.
    fn engine(folder: &tempfile::TempDir, most: usize, durability: Durability, peers: usize) -> (Engine, Vec<u64>) {
        let engine = Engine::open(options(folder, most, durability)).unwrap();
        let [desk, bell] = ["desk", "bell"].map(|name| engine.create_account(name).unwrap());
        let upload = engine.prekeys(bell, 0, false).unwrap();
        let names: Vec<String> = (0..peers).map(|i| format!("peer {i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let handles = engine.sessions(&[desk], &names).unwrap();
        let bundles: Vec<Bundle> = (0..peers).map(|_| upload.bundle(None)).collect();
        assert_eq!(engine.start_sessions(&handles, &bundles).unwrap().status, vec![0; peers]);
        (engine, handles)
    }

    fn send(engine: &Engine, handles: &[u64]) -> Result<Rows, Error> {
        let offsets: Vec<i64> = (0..=handles.len() as i64).collect();
        engine.encrypt(handles, Packed::new(&vec![b'x'; handles.len()], &offsets).unwrap())
    }

    fn sends(engine: &Engine, handles: &[u64]) -> Rows {
        let rows = send(engine, handles).unwrap();
        assert_eq!(rows.status, vec![0; handles.len()]);
        rows
    }

    #[test]
    fn a_limit_of_nothing_or_without_a_store_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let opened = Engine::open(options(&folder, 0, Durability::Strict));
        assert!(matches!(opened, Err(Error::Malformed(text)) if text.starts_with("resident_sessions: 0;")));
        assert!(!folder.path().join("store.db").exists());
        let opened = Engine::open(Options { location: Location::Memory, ..options(&folder, 1, Durability::Strict) });
        assert!(matches!(opened, Err(Error::Malformed(text)) if text.contains("nothing to load")));
    }

    /// Whatever calls come, memory is bounded, by the sizes of what is kept there.
    #[test]
    fn memory_is_bounded() {
        const PEERS: usize = 4_000;
        const MOST: usize = 512;
        let folder = tempfile::tempdir().unwrap();
        let (engine, handles) = engine(&folder, MOST, Durability::Strict, PEERS);
        // A page is begun, and one more left over by what was evicted from others.
        let pages = MOST.div_ceil(256) + 2;
        let check = || {
            assert!(engine.columns.residents() <= MOST);
            assert!(engine.columns.furnished() <= pages, "{}", engine.columns.furnished());
            // A slot, its place in the directory and a name; 256 of 400 bytes a page.
            let bytes = PEERS * (36 + 10 + 9) + (4_096 * 36) + (1 << 16) + 32 * 1_024 + pages * 256 * 400;
            assert!(engine.columns.bytes() <= bytes, "{} of {bytes}", engine.columns.bytes());
        };
        check();
        let mut at = 0;
        for call in 0..200 {
            let rows = 1 + (call * 37) % 300;
            let part: Vec<u64> = (0..rows).map(|i| handles[(at + i * 7) % PEERS]).collect();
            at += rows * 5;
            sends(&engine, &part);
            check();
        }
        // One on all of them has them all.
        sends(&engine, &handles);
        check();
        let stats = engine.stats().unwrap();
        assert!(stats.sessions <= MOST as u64 && stats.sessions >= (MOST - MOST / SHARE) as u64);
        assert!(stats.sessions_evicted > 10_000 && stats.sessions_loaded > stats.sessions_evicted - PEERS as u64);
        // Also a list of them.
        assert_eq!(engine.peers(engine.account("desk").unwrap().unwrap()).unwrap().len(), PEERS);
        check();
        engine.close().unwrap();
    }

    #[test]
    fn what_is_used_stays_and_is_not_loaded_again() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, handles) = engine(&folder, 100, Durability::Strict, 1_000);
        sends(&engine, &handles[..50]);
        for others in handles[50..].chunks(25) {
            sends(&engine, others);
            let before = engine.stats().unwrap().sessions_loaded;
            sends(&engine, &handles[..50]);
            assert_eq!(engine.stats().unwrap().sessions_loaded, before);
        }
        engine.close().unwrap();
    }

    #[test]
    fn what_a_call_has_claimed_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, handles) = engine(&folder, 10, Durability::Leased(64), 200);
        sends(&engine, &handles[..8]);
        let claimed = engine.claims.claim(&handles[..8], engine.columns.len(), Vec::new());
        for others in handles[8..].chunks(16) {
            sends(&engine, others);
            assert!(handles[..8].iter().all(|&handle| engine.columns.is_resident(handle as u32)));
            assert!(engine.columns.residents() <= 10);
        }
        drop(claimed);
        sends(&engine, &handles[100..110]);
        assert!(!handles[..8].iter().any(|&handle| engine.columns.is_resident(handle as u32)));
        engine.close().unwrap();
    }

    /// The thread that leases ahead of need copied a chain; the copy is of no use once the session was evicted.
    #[test]
    fn an_evicted_chain_is_not_leased_from_an_old_copy() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, handles) = engine(&folder, 1, Durability::Leased(64), 2);
        sends(&engine, &handles[..1]);
        let marks = |engine: &Engine| {
            let pages = engine.columns.pages();
            pages.walk().unclaimed(handles[0] as u32).marks().copied()
        };
        let before = marks(&engine).unwrap();
        assert!(before.is_quiet());
        sends(&engine, &handles[1..]);
        assert_eq!(marks(&engine), None);
        sends(&engine, &handles[..1]);
        assert!(marks(&engine).is_some_and(|marks| marks != before));
        engine.close().unwrap();
    }

    /// From here on commits end as told.
    fn over(engine: &Engine, commit: impl FnMut(&mut dyn Store, Changes) -> Result<(), Error> + Send + 'static) {
        let mut store = engine.store();
        let nothing: Box<dyn Store> = Box::new(MemoryStore::default());
        let inner = std::mem::replace(&mut *store, nothing);
        *store = Passing::over(inner, commit);
    }

    /// A commit that failed may be on the disk all the same.
    #[test]
    fn a_chain_that_was_perhaps_written_back_does_not_go_on_in_its_lease() {
        let folder = tempfile::tempdir().unwrap();
        let mut frames = HashSet::new();
        let failing = Arc::new(AtomicBool::new(false));
        {
            let (engine, handles) = engine(&folder, 4, Durability::Leased(64), 8);
            for _ in 0..20 {
                frames.extend([sends(&engine, &handles[..4]).data.to_vec()]);
            }
            let (told, mut failed) = (Arc::clone(&failing), false);
            // As SqliteStore: what failed once may be done, and what comes after is refused.
            over(&engine, move |store, changes| {
                if failed {
                    return Err(Error::Store("could not be written to before".into()));
                }
                failed = told.load(Ordering::SeqCst);
                let done = store.commit(changes);
                if failed { Err(Error::Store("a disk that fails".into())) } else { done }
            });
            failing.store(true, Ordering::SeqCst);
            assert!(send(&engine, &handles[4..]).is_err());
            for _ in 0..4 {
                if let Ok(rows) = send(&engine, &handles[..4]) {
                    assert!(frames.insert(rows.data.to_vec()));
                }
            }
        }
        let engine = Engine::open(options(&folder, 4, Durability::Leased(64))).unwrap();
        let desk = engine.account("desk").unwrap().unwrap();
        let names: Vec<String> = (0..4).map(|i| format!("peer {i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let handles = engine.sessions(&[desk], &names).unwrap();
        // One key, one IV, one text: one frame.
        assert!(frames.insert(sends(&engine, &handles).data.to_vec()), "a counter came twice");
    }

    /// A chain that cannot be written back is not evicted: the call that needs its room raises, and nothing is skipped.
    #[test]
    fn what_cannot_be_written_back_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, handles) = engine(&folder, 4, Durability::Leased(64), 8);
        // Until they are old enough for a lease that is not used up.
        for _ in 0..20 {
            sends(&engine, &handles[..4]);
        }
        let full = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&full);
        over(&engine, move |store, changes| {
            if told.load(Ordering::SeqCst) {
                Err(Error::Store("the disk is full".into()))
            } else {
                store.commit(changes)
            }
        });
        full.store(true, Ordering::SeqCst);
        let evicted = engine.stats().unwrap().sessions_evicted;
        assert!(matches!(send(&engine, &handles[4..]), Err(Error::Store(_))));
        assert_eq!(engine.stats().unwrap().sessions_evicted, evicted);
        assert!(handles[..4].iter().all(|&handle| engine.columns.is_resident(handle as u32)));
        full.store(false, Ordering::SeqCst);
        sends(&engine, &handles[4..]);
        let index = |slot: u64| {
            let pages = engine.columns.pages();
            pages.walk().to(slot as u32).sending().unwrap().chain.index
        };
        sends(&engine, &handles[..4]);
        assert!(handles[..4].iter().all(|&slot| index(slot) == 21));
        engine.close().unwrap();
    }
}
