//! Nanoseconds a row of every kernel on every backend of this CPU, all in lanes, and how many times portable's speed that
//! is: `cargo run --release --example time`. A tile again and again; the backends take turns, and the best of all turns
//! counts, so the columns compare even on a busy machine.
//!
//! A first argument is a part of the names to run, a second the number of rows (1 to 32): what the table of what runs where
//! is made from.

use interlane_lanes::isa::{Backend, TILE};
use interlane_lanes::kernels::hkdf::Info;
use interlane_lanes::kernels::{cbc, chacha20poly1305, chain, cmac, gcm, hkdf, hmac, sha256, sha512, x25519, xeddsa};
use std::hint::black_box;
use std::time::Instant;

const ROWS: usize = TILE;
const TURNS: usize = 300;

/// A column of the table.
struct Column {
    name: &'static str,
    backend: Backend,
    /// The sum of the kernels of a warm message.
    warm: f64,
}

fn columns() -> Vec<Column> {
    let available = Backend::available().into_iter().rev().map(|backend| (backend.name(), backend));
    // What CPUs with AVX2 but without the SHA instructions run.
    #[cfg(target_arch = "x86_64")]
    let available = available
        .chain(interlane_lanes::isa::Avx2::detect().map(|isa| ("avx2 alone", Backend::Avx2(isa.without_sha()))));
    available.map(|(name, backend)| Column { name, backend, warm: 0.0 }).collect()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let only = arguments.next().unwrap_or_default();
    let n = arguments.next().map_or(ROWS, |rows| rows.parse().expect("a number of rows"));
    assert!((1..=ROWS).contains(&n), "1 to {ROWS} rows");
    let mut columns = columns();
    for Column { name, backend, .. } in &columns {
        println!("{name}:");
        for runner in backend.kernels() {
            println!("  {:<20} {runner}", runner.kernel);
        }
    }
    print!("\n{:<38}", format!("{n} rows a call, ns a row"));
    for column in &columns {
        print!(" {:>10}        ", column.name);
    }
    println!();

    let all_keys: [[u8; 32]; ROWS] = std::array::from_fn(|row| [row as u8 + 1; 32]);
    let (portable, best) = (columns[0].backend, Backend::available()[0]);
    let mut all_points = [[0; 32]; ROWS];
    portable.run(x25519::PublicKey { scalars: &all_keys, out: &mut all_points });
    let (keys, points) = (&all_keys[..n], &all_points[..n]);
    let (ivs, nonces) = (&[[7; 16]; ROWS][..n], &[[9; 12]; ROWS][..n]);
    let bytes = [5; 330];
    let (heads, tails) = (&[&bytes[..66]; ROWS][..n], &[&bytes[..]; ROWS][..n]);
    let (inputs, short) = (&[&bytes[..96]; ROWS][..n], &[&bytes[..64]; ROWS][..n]);
    let none: &[&[u8]] = &[&[][..]; ROWS][..n];
    let randoms = &[[1; 64]; ROWS][..n];
    let (mut all_ok, mut all_out) = ([false; ROWS], [[0; 32]; ROWS]);
    let (ok, out) = (&mut all_ok[..n], &mut all_out[..n]);
    let (mut all_chains, mut all_seeds) = (all_keys, all_keys);
    let (chains, seeds) = (&mut all_chains[..n], &mut all_seeds[..n]);
    let (mut all_message_keys, mut all_group_keys) = ([[0; 80]; ROWS], [[0; 48]; ROWS]);
    let (message_keys, group_keys) = (&mut all_message_keys[..n], &mut all_group_keys[..n]);
    let (mut all_root, mut all_signatures) = ([[0; 64]; ROWS], [[0; 64]; ROWS]);
    let (root, signatures) = (&mut all_root[..n], &mut all_signatures[..n]);
    let mut texts = [[3; 272]; ROWS];
    let (info, group) = (&Info::new(b"WhisperMessageKeys"), &Info::new(b"WhisperGroup"));

    let mut time = |name: &str, calls: u32, step: &mut dyn FnMut(Backend)| {
        if name.is_empty() {
            print!("{:<38}", "warm: the sum");
            for column in &columns {
                print!(" {:>10.1} {:>5.2} x", column.warm, columns[0].warm / column.warm);
            }
            return println!();
        }
        if !name.contains(&only) {
            return;
        }
        let mut best = vec![f64::MAX; columns.len()];
        for _ in 0..TURNS {
            for (best, column) in best.iter_mut().zip(&columns) {
                let start = Instant::now();
                for _ in 0..calls {
                    step(column.backend);
                }
                *best = best.min(start.elapsed().as_nanos() as f64 / f64::from(calls) / n as f64);
            }
        }
        print!("{name:<38}");
        for (column, ns) in columns.iter_mut().zip(&best) {
            print!(" {ns:>10.1} {:>5.2} x", best[0] / ns);
            column.warm += if name.starts_with("warm") { *ns } else { 0.0 };
        }
        println!();
    };

    time("warm: chain::StepToKeys<80>", 20, &mut |backend| {
        backend.run_in_lanes(chain::StepToKeys {
            chains: black_box(&mut *chains),
            seeds: &mut [],
            info,
            out: message_keys,
        });
    });
    time("warm: cbc::Encrypt, 272 bytes", 20, &mut |backend| {
        let mut rows = texts.each_mut().map(|row| &mut row[..]);
        backend.run_in_lanes(cbc::Encrypt { keys: black_box(keys), ivs, rows: &mut rows[..n] });
    });
    time("warm: hmac::Hmac, 66 + 330 bytes", 20, &mut |backend| {
        backend.run_in_lanes(hmac::Hmac { keys: black_box(keys), heads, tails, out });
    });
    time("", 0, &mut |_| ());
    time("chain::Step", 20, &mut |backend| {
        backend.run_in_lanes(chain::Step { chains: black_box(&mut *chains), seeds });
    });
    time("chain::MessageKeys<80>", 20, &mut |backend| {
        backend.run_in_lanes(chain::MessageKeys { seeds: black_box(&*seeds), info, out: message_keys });
    });
    time("chain::MessageKeys<48>", 20, &mut |backend| {
        backend.run_in_lanes(chain::MessageKeys { seeds: black_box(&*seeds), info: group, out: group_keys });
    });
    time("cbc::Decrypt, 272 bytes", 20, &mut |backend| {
        let mut rows = texts.each_mut().map(|row| &mut row[..]);
        backend.run_in_lanes(cbc::Decrypt { keys: black_box(keys), ivs, rows: &mut rows[..n] });
    });
    let (block_heads, mut all_codes) = (&[[6; 32]; ROWS][..n], [[0; 16]; ROWS]);
    time("cmac::Cmac, 32 + 330 bytes", 20, &mut |backend| {
        let out = &mut all_codes[..n];
        backend.run_in_lanes(cmac::Cmac { keys: black_box(keys), heads: block_heads, tails, out });
    });
    time("sha256::Digest, 330 bytes", 20, &mut |backend| {
        backend.run_in_lanes(sha256::Digest { messages: black_box(tails), out });
    });
    let mut all_digests = [[0; 64]; ROWS];
    time("sha512::Digest, 330 bytes", 20, &mut |backend| {
        backend.run_in_lanes(sha512::Digest { messages: black_box(tails), out: &mut all_digests[..n] });
    });
    time("hkdf::Hkdf<64>, salt, 96 bytes", 20, &mut |backend| {
        backend.run_in_lanes(hkdf::Hkdf { salts: Some(black_box(keys)), inputs, info: b"WhisperRatchet", out: root });
    });
    time("gcm::Seal, 256 bytes", 20, &mut |backend| {
        let mut rows = texts.each_mut().map(|row| &mut row[..]);
        backend.run_in_lanes(gcm::Seal { keys: black_box(keys), nonces, associated: none, rows: &mut rows[..n] });
    });
    let mut sealed = texts;
    portable.run(gcm::Seal {
        keys,
        nonces,
        associated: none,
        rows: &mut sealed.each_mut().map(|row| &mut row[..])[..n],
    });
    time("gcm::Open, 256 bytes (after a copy)", 20, &mut |backend| {
        let mut texts = sealed;
        let mut rows = texts.each_mut().map(|row| &mut row[..]);
        backend.run_in_lanes(gcm::Open { keys: black_box(keys), nonces, associated: none, rows: &mut rows[..n], ok });
        assert!(ok.iter().all(|ok| *ok), "what is timed is right");
    });
    time("chacha20poly1305::Seal, 256 bytes", 20, &mut |backend| {
        let mut rows = texts.each_mut().map(|row| &mut row[..]);
        backend.run_in_lanes(chacha20poly1305::Seal {
            keys: black_box(keys),
            nonces,
            associated: none,
            rows: &mut rows[..n],
        });
    });
    let mut sealed = texts;
    portable.run(chacha20poly1305::Seal {
        keys,
        nonces,
        associated: none,
        rows: &mut sealed.each_mut().map(|row| &mut row[..])[..n],
    });
    time("chacha20poly1305::Open, 256 bytes (and copy)", 20, &mut |backend| {
        let mut texts = sealed;
        let mut rows = texts.each_mut().map(|row| &mut row[..]);
        backend.run_in_lanes(chacha20poly1305::Open {
            keys: black_box(keys),
            nonces,
            associated: none,
            rows: &mut rows[..n],
            ok,
        });
        assert!(ok.iter().all(|ok| *ok), "what is timed is right");
    });
    time("x25519::Agree", 1, &mut |backend| {
        backend.run_in_lanes(x25519::Agree { scalars: black_box(keys), points, out, ok });
    });
    time("x25519::PublicKey", 1, &mut |backend| {
        backend.run_in_lanes(x25519::PublicKey { scalars: black_box(keys), out });
    });
    time("x25519::Canonical", 1, &mut |backend| {
        backend.run_in_lanes(x25519::Canonical { points: black_box(points), ok });
    });
    portable.run(xeddsa::Sign { privates: keys, encodings: None, messages: short, randoms, out: signatures });
    let (mut encodings, mut expanded) = ([[0; 32]; ROWS], [None; ROWS]);
    portable.run(xeddsa::EncodeOwn { privates: &all_keys, out: &mut encodings });
    // Only lanes make all of what is kept.
    best.run_in_lanes(xeddsa::Expand { publics: &all_points, out: &mut expanded });
    let expanded = expanded.map(|expanded| expanded.expect("a point"));
    for (kept, encodings, expanded) in [("", None, None), (", key kept", Some(&encodings[..n]), Some(&expanded[..n]))] {
        time(&format!("xeddsa::Verify, 64 bytes{kept}"), 1, &mut |backend| {
            let publics = black_box(points);
            backend.run_in_lanes(xeddsa::Verify { publics, expanded, messages: short, signatures, ok });
            assert!(ok.iter().all(|ok| *ok), "what is timed is right");
        });
        time(&format!("xeddsa::Sign, 64 bytes{kept}"), 1, &mut |backend| {
            let privates = black_box(keys);
            backend.run_in_lanes(xeddsa::Sign { privates, encodings, messages: short, randoms, out: &mut *signatures });
        });
    }
}
