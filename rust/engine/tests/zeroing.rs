//! Freed memory holds no key: an allocator looks through every block that is given back, for the keys that a fixed seed
//! makes known beforehand: private ones, and what is agreed with them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use interlane::{
    BufferLimits, Bundle, Durability, Engine, Import, Location, Options, Packed, Rows, Secret, Status, Upload,
};
use interlane_lanes::Backend;
use interlane_lanes::kernels::hkdf::Hkdf;
use interlane_lanes::kernels::hmac::Hmac;
use interlane_lanes::kernels::x25519::{Agree, PublicKey};

/// Keys that must not be found.
static KEYS: OnceLock<Vec<[u8; 32]>> = OnceLock::new();
static WATCHING: AtomicBool = AtomicBool::new(false);
static FREED: AtomicUsize = AtomicUsize::new(0);
static FOUND: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

struct Watcher;

// SAFETY: every call goes to the system's allocator unchanged; blocks are read before they are freed.
unsafe impl GlobalAlloc for Watcher {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's own promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if WATCHING.load(Ordering::Relaxed) && layout.size() >= 32 {
            // SAFETY: the block is `layout.size()` bytes, initialised by `alloc_zeroed`, and still the caller's.
            look_through(unsafe { std::slice::from_raw_parts(block, layout.size()) });
        }
        // SAFETY: the caller's own promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watcher = Watcher;

fn look_through(block: &[u8]) {
    FREED.fetch_add(1, Ordering::Relaxed);
    let Some(keys) = KEYS.get() else { return };
    for (at, window) in block.windows(32).enumerate() {
        // The first bytes decide nearly always; the list is sorted.
        if let Ok(key) = keys.binary_search_by(|key| key.as_slice().cmp(window))
            && let Ok(mut found) = FOUND.try_lock()
            && found.len() < found.capacity()
        {
            found.push((key, block.len() * 1_000_000 + at));
        }
    }
}

const SEED: [u8; 32] = [9; 32];

/// What the engine draws for a row and a purpose (`batch/randomness.rs`).
fn drawn(row: u64, purpose: u8) -> [u8; 32] {
    let mut message = row.to_le_bytes().to_vec();
    message.push(purpose);
    let mut out = [[0; 32]];
    Backend::detect().unwrap().run(Hmac { keys: &[SEED], heads: &[&[]], tails: &[&message], out: &mut out });
    out[0]
}

/// Peers of each of the two accounts, and groups.
const PEERS: usize = 40;

/// Rows from here on are drawn by nobody but the test: keys that are imported.
const IMPORTED: u64 = 1_900;

fn hmac(key: [u8; 32], message: u8) -> [u8; 32] {
    let mut out = [[0; 32]];
    Backend::detect().unwrap().run(Hmac { keys: &[key], heads: &[&[]], tails: &[&[message]], out: &mut out });
    out[0]
}

fn agree(private: [u8; 32], with: [u8; 32]) -> [u8; 32] {
    let (mut public, mut out, mut ok) = ([[0; 32]], [[0; 32]], [false]);
    let backend = Backend::detect().unwrap();
    backend.run(PublicKey { scalars: &[with], out: &mut public });
    backend.run(Agree { scalars: &[private], points: &public, out: &mut out, ok: &mut ok });
    out[0]
}

fn hkdf(salt: Option<[u8; 32]>, input: &[u8], info: &[u8]) -> [[u8; 32]; 2] {
    let (mut out, salt) = ([[0; 64]], salt.map(|salt| [salt]));
    let salts = salt.as_ref().map(|salt| &salt[..]);
    Backend::detect().unwrap().run(Hkdf { salts, inputs: &[input], info, out: &mut out });
    let (halves, _) = out[0].as_chunks();
    [halves[0], halves[1]]
}

/// What the first two turns of every session agree on, and the first keys of its chains.
fn agreed() -> Vec<[u8; 32]> {
    let (a, b, signed) = (drawn(0, 2), drawn(1, 2), drawn(2, 2));
    let mut keys = Vec::new();
    for i in 0..PEERS as u64 {
        // Made as prekeys, when the sessions are started, and when the first frames are opened.
        let (one_time, base, ratchet) = (drawn(3 + i, 2), drawn(43 + i, 1), drawn(43 + i, 0));
        let theirs = drawn(83 + i, 0);
        let shared = [agree(a, signed), agree(base, b), agree(base, signed), agree(base, one_time)];
        let turns = [agree(ratchet, signed), agree(theirs, ratchet)];
        let first =
            hkdf(None, &[[0xff; 32]].iter().chain(&shared).copied().collect::<Vec<_>>().concat(), b"WhisperText");
        let there = hkdf(Some(first[0]), &turns[0], b"WhisperRatchet");
        let back = hkdf(Some(there[0]), &turns[1], b"WhisperRatchet");
        keys.extend(shared.into_iter().chain(turns).chain([first[0], there[0], back[0]]));
        for mut chain in [there[1], back[1]] {
            for _ in 0..4 {
                let seed = hmac(chain, 1);
                // The message key that ends up in a receive buffer.
                keys.extend([chain, seed, hkdf(None, &seed, b"WhisperMessageKeys")[0]]);
                chain = hmac(chain, 2);
            }
        }
    }
    keys
}

fn opened(location: Location, durability: Durability, resident_sessions: Option<usize>) -> Engine {
    let options = Options::new(location, Backend::detect().unwrap());
    Engine::open(Options { threads: 2, durability, resident_sessions, seed: Some(SEED), ..options }).unwrap()
}

/// One that keeps what it receives.
fn keeping(location: Location) -> Engine {
    let options = Options::new(location, Backend::detect().unwrap());
    let receive_buffer = Some(BufferLimits { bytes: 64 << 20, seconds: 3_600 });
    Engine::open(Options { threads: 2, receive_buffer, seed: Some(SEED), ..options }).unwrap()
}

/// Gives out again, and frees, what an engine keeps.
fn redeliver(engine: &Engine, handles: &[u64], sent: &Rows) {
    let frames = Packed::new(&sent.data, &sent.offsets).unwrap();
    let again = engine.decrypt(handles, &sent.kinds, frames).unwrap();
    let status = if again.is_buffered() { Status::Redelivered } else { Status::Duplicate };
    assert!(again.status.iter().all(|&found| found == status as u8));
    let kept = if again.is_buffered() { again.status.len() } else { 0 };
    assert_eq!(engine.acknowledge(&again, None).unwrap(), kept);
}

fn talk(engine: &Engine) {
    let [a, b] = ["a", "b"].map(|name| engine.create_account(name).unwrap());
    let upload: Upload = engine.prekeys(b, 40, true).unwrap();
    let names: Vec<String> = (0..40).map(|i| format!("peer {i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (to, from) = (engine.sessions(&[a], &names).unwrap(), engine.sessions(&[b], &names).unwrap());
    let bundles: Vec<Bundle> = (0..upload.one_time.len()).map(|at| upload.bundle(Some(at))).collect();
    let well = |rows: Rows| {
        assert!(rows.status.iter().all(|&status| status == 0));
        rows
    };
    well(engine.start_sessions(&to, &bundles).unwrap());
    // Of different lengths, so that rows are sorted.
    let offsets: Vec<i64> = (0..=40).scan(0, |end, i| std::mem::replace(end, *end + i * 37 % 150).into()).collect();
    let texts = [b'x'; 6_000];
    let packed = || Packed::new(&texts, &offsets).unwrap();
    for round in 0..8 {
        let (here, there) = if round % 2 == 0 { (&to, &from) } else { (&from, &to) };
        // The first of two is lost: a gap, keys kept.
        well(engine.encrypt(here, packed()).unwrap());
        let sent = well(engine.encrypt(here, packed()).unwrap());
        well(engine.decrypt(there, &sent.kinds, Packed::new(&sent.data, &sent.offsets).unwrap()).unwrap());
        let sent = well(engine.encrypt(here, packed()).unwrap());
        well(engine.decrypt(there, &sent.kinds, Packed::new(&sent.data, &sent.offsets).unwrap()).unwrap());
        redeliver(engine, there, &sent);
    }
    // Again, so that sessions are archived.
    let again: Vec<Bundle> = bundles.into_iter().map(|bundle| Bundle { one_time: None, ..bundle }).collect();
    well(engine.start_sessions(&to, &again).unwrap());
    let sent = well(engine.encrypt(&to, packed()).unwrap());
    well(engine.decrypt(&from, &sent.kinds, Packed::new(&sent.data, &sent.offsets).unwrap()).unwrap());
    let senders: Vec<Option<&str>> = vec![Some("a"); PEERS];
    let ours = engine.groups(&[a], &names, &vec![None; PEERS]).unwrap();
    let theirs = engine.groups(&[b], &names, &senders).unwrap();
    // What the caller is given is his to zero.
    let keys = std::mem::ManuallyDrop::new(well(engine.group_distribute(&ours).unwrap()));
    well(engine.group_accept(&theirs, Packed::new(&keys.data, &keys.offsets).unwrap()).unwrap());
    let sent = well(engine.group_encrypt(&ours, packed()).unwrap());
    well(engine.group_decrypt(&theirs, Packed::new(&sent.data, &sent.offsets).unwrap()).unwrap());
    well(engine.group_rotate(&ours[..1]).unwrap());
    let secret = |i| Secret::copy_of(&drawn(IMPORTED + i, 2));
    let import = Import {
        identity_private: secret(0),
        registration_id: 7,
        signed_prekeys: (1..5).map(|i| (i as u32, secret(i), None)).collect(),
        one_time_prekeys: (5..40).map(|i| (i as u32, secret(i))).collect(),
    };
    engine.import_account("c", import).unwrap();
    engine.close().unwrap();
}

/// Reads everything back, and sends once more: what is folded then is put together with what is in the table.
fn read(engine: &Engine) {
    for name in ["a", "b", "c"] {
        let account = engine.account(name).unwrap().unwrap();
        let archived: u32 = engine.peers(account).unwrap().iter().map(|peer| peer.archived).sum();
        assert_eq!(archived, if name == "c" { 0 } else { PEERS as u32 });
    }
    let a = engine.account("a").unwrap().unwrap();
    let names: Vec<String> = (0..PEERS).map(|i| format!("peer {i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let offsets: Vec<i64> = (0..=PEERS as i64).collect();
    let to = engine.sessions(&[a], &names).unwrap();
    let sent = engine.encrypt(&to, Packed::new(&[b'x'; PEERS], &offsets).unwrap()).unwrap();
    assert!(sent.status.iter().all(|&status| status == Status::Ok as u8));
    engine.close().unwrap();
}

#[test]
fn no_freed_block_holds_a_key() {
    let mut keys: Vec<[u8; 32]> =
        (0..2_000).flat_map(|row| [0, 1, 2, 5, 6].map(|purpose| drawn(row, purpose))).chain(agreed()).collect();
    keys.sort_unstable();
    KEYS.set(keys).unwrap();
    FOUND.lock().unwrap().reserve_exact(1_000);

    // The watcher sees what it must. The key is one that the engine never draws: this leaves it on the stack, from where
    // the padding of any value that is moved to the heap may bring it.
    let probe = drawn(1_999, 6);
    WATCHING.store(true, Ordering::SeqCst);
    drop(Box::new(probe));
    drop(Box::new(Secret::<32>::copy_of(&probe)));
    WATCHING.store(false, Ordering::SeqCst);
    assert_eq!(std::mem::take(&mut *FOUND.lock().unwrap()).len(), 1, "a leaky box, and one that is not");
    FOUND.lock().unwrap().reserve_exact(1_000);

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| Location::Sqlite {
        path: folder.path().join(name),
        key: Secret::copy_of(&[1; 32]),
        generation: None,
    };
    let strict = |location, resident_sessions| opened(location, Durability::Strict, resident_sessions);
    let works: [&dyn Fn(); 6] = [
        &|| talk(&strict(Location::Memory, None)),
        &|| talk(&strict(file("strict.db"), None)),
        &|| read(&strict(file("strict.db"), None)),
        &|| talk(&keeping(file("kept.db"))),
        // Of 80 sessions; the pages of the others are given back.
        &|| talk(&strict(file("few.db"), Some(3))),
        &|| talk(&opened(file("leased.db"), Durability::Leased(8), Some(30))),
    ];
    for work in works {
        let before = FREED.load(Ordering::SeqCst);
        WATCHING.store(true, Ordering::SeqCst);
        work();
        WATCHING.store(false, Ordering::SeqCst);
        let freed = FREED.load(Ordering::SeqCst) - before;
        assert!(freed > 1_000, "blocks were looked through: {freed}");
        let mut found = std::mem::take(&mut *FOUND.lock().unwrap());
        found.retain(|(key, _)| KEYS.get().unwrap()[*key] != probe);
        FOUND.lock().unwrap().reserve_exact(1_000);
        let mut sizes: BTreeMap<usize, BTreeSet<[u8; 32]>> = BTreeMap::new();
        for (key, at) in &found {
            sizes.entry(at / 1_000_000).or_default().insert(KEYS.get().unwrap()[*key]);
        }
        let keys: BTreeSet<[u8; 32]> = sizes.values().flatten().copied().collect();
        let sizes: BTreeMap<usize, usize> = sizes.into_iter().map(|(size, keys)| (size, keys.len())).collect();
        // Calls make keys by the dozen: what leaves them in memory leaves more than the one or two that the stack still
        // has of the last rows. Of an account there is one.
        assert!(keys.len() < 3, "keys in freed blocks, by the blocks' size: {sizes:?}");
        let accounts = [0, 1, 2, IMPORTED].map(|row| drawn(row, 2));
        assert!(!accounts.iter().any(|key| keys.contains(key)), "an account's key in a freed block: {sizes:?}");
    }
}
