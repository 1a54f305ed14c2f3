//! Freed memory holds no key: an allocator looks through every block that is given back, for the private keys that a
//! fixed seed makes known beforehand.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use interlane::{Bundle, Durability, Engine, Location, Options, Packed, Rows, Secret, Upload};
use interlane_lanes::Backend;
use interlane_lanes::kernels::hmac::Hmac;

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

fn talk(location: Location) {
    let engine = Engine::open(Options {
        location,
        threads: 2,
        backend: Backend::detect().unwrap(),
        refuse_identity_changes: false,
        padding: false,
        durability: Durability::Strict,
        receive_buffer: None,
        seed: Some(SEED),
    })
    .unwrap();
    let [a, b] = ["a", "b"].map(|name| engine.create_account(name).unwrap());
    let upload: Upload = engine.prekeys(b, 40, true).unwrap();
    let names: Vec<String> = (0..40).map(|i| format!("peer {i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (to, from) = (engine.sessions(&[a], &names).unwrap(), engine.sessions(&[b], &names).unwrap());
    let (id, key, signature) = upload.signed_prekey;
    let bundles: Vec<Bundle> = upload
        .one_time
        .iter()
        .map(|(one_time, public)| Bundle {
            registration_id: upload.registration_id,
            identity: upload.identity.to_vec(),
            signed_prekey_id: id,
            signed_prekey: key.to_vec(),
            signature: signature.to_vec(),
            one_time: Some((*one_time, public.to_vec())),
        })
        .collect();
    let well = |rows: Rows| {
        assert!(rows.status.iter().all(|&status| status == 0));
        rows
    };
    well(engine.start_sessions(&to, &bundles).unwrap());
    let offsets: Vec<i64> = (0..=40).map(|i| i * 3).collect();
    let texts = [b'x'; 120];
    let packed = || Packed::new(&texts, &offsets).unwrap();
    for round in 0..8 {
        let (here, there) = if round % 2 == 0 { (&to, &from) } else { (&from, &to) };
        // The first of two is lost: a gap, keys kept.
        well(engine.encrypt(here, packed()).unwrap());
        let sent = well(engine.encrypt(here, packed()).unwrap());
        well(engine.decrypt(there, &sent.kinds, Packed::new(&sent.data, &sent.offsets).unwrap()).unwrap());
    }
    // Again, so that sessions are archived.
    let again: Vec<Bundle> = bundles.into_iter().map(|bundle| Bundle { one_time: None, ..bundle }).collect();
    well(engine.start_sessions(&to, &again).unwrap());
    let sent = well(engine.encrypt(&to, packed()).unwrap());
    well(engine.decrypt(&from, &sent.kinds, Packed::new(&sent.data, &sent.offsets).unwrap()).unwrap());
    let group = engine.groups(&[a], &["g"], &[None]).unwrap();
    well(engine.group_distribute(&group).unwrap());
    well(engine.group_encrypt(&group, Packed::new(b"hello", &[0, 5]).unwrap()).unwrap());
    well(engine.group_rotate(&group).unwrap());
    engine.close().unwrap();
}

#[test]
fn no_freed_block_holds_a_private_key() {
    let mut keys: Vec<[u8; 32]> = (0..2_000).flat_map(|row| [0, 1, 2, 6].map(|purpose| drawn(row, purpose))).collect();
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
    for location in [
        Location::Memory,
        Location::Sqlite { path: folder.path().join("store.db"), key: Secret::copy_of(&[1; 32]), generation: None },
    ] {
        let before = FREED.load(Ordering::SeqCst);
        WATCHING.store(true, Ordering::SeqCst);
        talk(location);
        WATCHING.store(false, Ordering::SeqCst);
        let freed = FREED.load(Ordering::SeqCst) - before;
        assert!(freed > 1_000, "blocks were looked through: {freed}");
        let mut found = std::mem::take(&mut *FOUND.lock().unwrap());
        found.retain(|(key, _)| KEYS.get().unwrap()[*key] != probe);
        FOUND.lock().unwrap().reserve_exact(1_000);
        let sizes: std::collections::BTreeMap<usize, usize> =
            found.iter().fold(Default::default(), |mut sizes, (_, at)| {
                *sizes.entry(*at / 1_000_000).or_default() += 1;
                sizes
            });
        assert!(found.is_empty(), "keys in freed blocks, by the blocks' size: {sizes:?}");
    }
}
