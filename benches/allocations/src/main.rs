//! Heap allocations of a row on the hot path, as one JSON object a line: warm calls of 1,000 and of 10,000 rows are
//! counted, and the difference is divided by the 9,000 rows between them.
//!
//! One thread, memory store, 256 B; what is allocated once a call cancels out, what grows with the rows shows.

#![forbid(unsafe_code)]

use allocation_counter::measure;
use interlane::{AccountId, Bundle, Engine, Location, Options, Packed, Rows};
use interlane_lanes::Backend;

const FEW: usize = 1_000;
const MANY: usize = 10_000;
const PLAINTEXT: [u8; 256] = [0x5a; 256];

fn main() {
    let (near, from) = party();
    let (far, to) = party();
    let names: Vec<String> = (0..MANY).map(|n| format!("4915{n:09}@s.whatsapp.net")).collect();
    let peers: Vec<&str> = names.iter().map(String::as_str).collect();
    let sending = near.sessions(&[from], &peers).unwrap();
    let opening = far.sessions(&[to], &peers).unwrap();

    let upload = far.prekeys(to, MANY as u32, false).unwrap();
    let bundles: Vec<Bundle> = (0..upload.one_time.len()).map(|at| upload.bundle(Some(at))).collect();
    check(&near.start_sessions(&sending, &bundles).unwrap(), MANY);
    // Acknowledged, and on a chain that the other side follows.
    exchange(&near, &sending, &far, &opening);
    exchange(&far, &opening, &near, &sending);
    exchange(&near, &sending, &far, &opening);

    let (encrypt_few, decrypt_few) = count(&near, &sending[..FEW], &far, &opening[..FEW]);
    let (encrypt_many, decrypt_many) = count(&near, &sending, &far, &opening);
    for (work, few, many) in [("encrypt", encrypt_few, encrypt_many), ("decrypt", decrypt_few, decrypt_many)] {
        let per_row = (many as f64 - few as f64) / (MANY - FEW) as f64;
        println!(
            r#"{{"work": "{work}", "rows": {MANY}, "allocations_per_row": {per_row:.5}, "of_{FEW}": {few}, "of_{MANY}": {many}}}"#
        );
    }
}

fn party() -> (Engine, AccountId) {
    let engine = Engine::open(Options::new(Location::Memory, Backend::detect().unwrap())).unwrap();
    let account = engine.create_account("desk").unwrap();
    (engine, account)
}

fn exchange(from: &Engine, sending: &[u64], to: &Engine, opening: &[u64]) {
    count(from, sending, to, opening);
}

/// Allocations of an encrypt call and of the decrypt call of its frames; both are checked.
fn count(from: &Engine, sending: &[u64], to: &Engine, opening: &[u64]) -> (u64, u64) {
    let rows = sending.len();
    let plaintexts = PLAINTEXT.repeat(rows);
    let offsets: Vec<i64> = (0..=rows).map(|row| (row * PLAINTEXT.len()) as i64).collect();
    let mut sent = None;
    let encrypting =
        measure(|| sent = Some(from.encrypt(sending, Packed::new(&plaintexts, &offsets).unwrap()).unwrap()));
    let sent = sent.unwrap();
    check(&sent, rows);
    let mut opened = None;
    let decrypting = measure(|| {
        opened = Some(to.decrypt(opening, &sent.kinds, Packed::new(&sent.data, &sent.offsets).unwrap()).unwrap());
    });
    let opened = opened.unwrap();
    check(&opened, rows);
    assert_eq!(*opened.data, plaintexts);
    (encrypting.count_total, decrypting.count_total)
}

fn check(rows: &Rows, count: usize) {
    assert_eq!(rows.status, vec![0; count]);
}
