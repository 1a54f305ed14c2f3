//! Nanoseconds a row of every kernel, for a tile of 16 rows again and again: `cargo run --release --example time`.
//!
//! A first argument names the backend; a second is a part of the names to run.

use interlane_lanes::isa::Backend;
use interlane_lanes::kernels::{cbc, chacha20poly1305, chain, gcm, hkdf, hmac, sha256, x25519, xeddsa};
use std::hint::black_box;
use std::time::Instant;

const ROWS: usize = 16;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let backend = match arguments.next() {
        Some(name) => Backend::by_name(&name),
        None => Backend::detect(),
    }
    .expect("a backend of this machine");
    let only = arguments.next().unwrap_or_default();
    println!("backend {}, {ROWS} rows a call, ns a row (best of 30)", backend.name());
    for (kernel, runner) in backend.kernels() {
        println!("  {kernel:<18} {runner}");
    }

    let keys: [[u8; 32]; ROWS] = std::array::from_fn(|row| [row as u8 + 1; 32]);
    let mut points = [[0; 32]; ROWS];
    backend.run(x25519::PublicKey { scalars: &keys, out: &mut points });
    let ivs = [[7; 16]; ROWS];
    let nonces = [[9; 12]; ROWS];
    let bytes = [5; 330];
    let heads = [&bytes[..66]; ROWS];
    let tails = [&bytes[..]; ROWS];
    let inputs = [&bytes[..96]; ROWS];
    let short = [&bytes[..64]; ROWS];
    let none: [&[u8]; ROWS] = [&[]; ROWS];
    let mut ok = [false; ROWS];
    let mut out = [[0; 32]; ROWS];
    let mut chains = keys;
    let mut seeds = keys;
    let mut message_keys = [[0; 80]; ROWS];
    let mut root = [[0; 64]; ROWS];
    let mut signatures = [[0; 64]; ROWS];
    let mut texts = [[3; 272]; ROWS];

    let time = |name: &str, calls: u32, step: &mut dyn FnMut()| {
        if !name.contains(&only) {
            return 0.0;
        }
        let mut best = f64::MAX;
        for _ in 0..30 {
            let start = Instant::now();
            for _ in 0..calls {
                step();
            }
            best = best.min(start.elapsed().as_nanos() as f64 / f64::from(calls) / ROWS as f64);
        }
        println!("{name:<44} {best:>10.1}");
        best
    };

    let mut warm = 0.0;
    warm += time("warm: chain::Step", 2000, &mut || {
        backend.run(chain::Step { chains: black_box(&mut chains), seeds: &mut seeds });
    });
    warm += time("warm: chain::MessageKeys<80>", 2000, &mut || {
        backend.run(chain::MessageKeys {
            seeds: black_box(&seeds),
            info: b"WhisperMessageKeys",
            out: &mut message_keys,
        });
    });
    warm += time("warm: cbc::Encrypt, 272 bytes", 2000, &mut || {
        let mut rows = texts.each_mut().map(|row| &mut row[..]);
        backend.run(cbc::Encrypt { keys: black_box(&keys), ivs: &ivs, rows: &mut rows });
    });
    warm += time("warm: hmac::Hmac, 66 + 330 bytes", 2000, &mut || {
        backend.run(hmac::Hmac { keys: black_box(&keys), heads: &heads, tails: &tails, out: &mut out });
    });
    println!("{:<44} {warm:>10.1}", "warm: the sum");

    time("chain::MessageKeys<48>", 2000, &mut || {
        let out: &mut [[u8; 48]; ROWS] = &mut [[0; 48]; ROWS];
        backend.run(chain::MessageKeys { seeds: black_box(&seeds), info: b"WhisperGroup", out });
        black_box(out);
    });
    time("cbc::Decrypt, 272 bytes", 2000, &mut || {
        let mut rows = texts.each_mut().map(|row| &mut row[..]);
        backend.run(cbc::Decrypt { keys: black_box(&keys), ivs: &ivs, rows: &mut rows });
    });
    time("sha256::Digest, 330 bytes", 2000, &mut || {
        backend.run(sha256::Digest { messages: black_box(&tails), out: &mut out });
    });
    time("hkdf::Hkdf<64>, salt, 96 bytes", 2000, &mut || {
        backend.run(hkdf::Hkdf {
            salts: Some(black_box(&keys)),
            inputs: &inputs,
            info: b"WhisperRatchet",
            out: &mut root,
        });
    });
    time("gcm::Seal, 256 bytes", 2000, &mut || {
        let mut rows = texts.each_mut().map(|row| &mut row[..]);
        backend.run(gcm::Seal { keys: black_box(&keys), nonces: &nonces, associated: &none, rows: &mut rows });
    });
    time("gcm::Open, 256 bytes (after a copy)", 2000, &mut || {
        let mut texts = texts;
        let mut rows = texts.each_mut().map(|row| &mut row[..]);
        backend.run(gcm::Open {
            keys: black_box(&keys),
            nonces: &nonces,
            associated: &none,
            rows: &mut rows,
            ok: &mut ok,
        });
        black_box(texts);
    });
    time("chacha20poly1305::Seal, 256 bytes", 2000, &mut || {
        let mut rows = texts.each_mut().map(|row| &mut row[..]);
        backend.run(chacha20poly1305::Seal {
            keys: black_box(&keys),
            nonces: &nonces,
            associated: &none,
            rows: &mut rows,
        });
    });
    time("chacha20poly1305::Open, 256 bytes (and copy)", 2000, &mut || {
        let mut texts = texts;
        let mut rows = texts.each_mut().map(|row| &mut row[..]);
        backend.run(chacha20poly1305::Open {
            keys: black_box(&keys),
            nonces: &nonces,
            associated: &none,
            rows: &mut rows,
            ok: &mut ok,
        });
        black_box(texts);
    });
    time("x25519::Agree", 10, &mut || {
        backend.run(x25519::Agree { scalars: black_box(&keys), points: &points, out: &mut out, ok: &mut ok });
    });
    time("x25519::PublicKey", 20, &mut || {
        backend.run(x25519::PublicKey { scalars: black_box(&keys), out: &mut out });
    });
    time("x25519::Canonical", 10, &mut || {
        backend.run(x25519::Canonical { points: black_box(&points), ok: &mut ok });
    });
    backend.run(xeddsa::Sign {
        privates: &keys,
        encodings: None,
        messages: &short,
        randoms: &[[1; 64]; ROWS],
        out: &mut signatures,
    });
    time("xeddsa::Verify, 64 bytes", 10, &mut || {
        backend.run(xeddsa::Verify {
            publics: black_box(&points),
            encodings: None,
            messages: &short,
            signatures: &signatures,
            ok: &mut ok,
        });
        assert_eq!(ok, [true; ROWS], "what is timed is right");
    });
    time("xeddsa::Sign, 64 bytes", 10, &mut || {
        backend.run(xeddsa::Sign {
            privates: black_box(&keys),
            encodings: None,
            messages: &short,
            randoms: &[[1; 64]; ROWS],
            out: &mut signatures,
        });
    });
}
