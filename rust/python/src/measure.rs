//! How long kernels take on this machine, for `interlane backends --measure` and for the benches.
//!
//! A *work* is a kernel, or two that follow one another, on [`ROWS`] rows such as the engine has them. It runs as
//! [`Backend::run`] runs it: by row where the table says so. What it gives is compared with portable's before the clock
//! starts.
//!
//! It is here and not with the kernels because every kernel is compiled once more for it.

use crate::errors;
use core::hint::black_box;
use interlane_lanes::Backend;
use interlane_lanes::kernels::{cbc, chacha20poly1305, chain, cmac, gcm, hkdf, hmac, sha256, x25519, xeddsa};
use pyo3::prelude::*;
use std::time::{Duration, Instant};

/// The works that `measure` knows.
const WORKS: [&str; 14] = [
    "sha256/compression",
    "hmac",
    "hkdf",
    "chain",
    "cbc/encrypt",
    "cbc/decrypt",
    "cbc_hmac",
    "cmac",
    "gcm",
    "chacha20poly1305",
    "x25519",
    "x25519/public",
    "xeddsa/sign",
    "xeddsa/verify",
];

/// Rows of a call: whole tiles, as many as share an inversion, and not so many that a slow kernel's call outlasts the
/// turns that other programs let it have.
const ROWS: usize = 64;

/// The names of what `measure` knows.
#[pyfunction]
pub(crate) fn works() -> Vec<&'static str> {
    WORKS.to_vec()
}

/// Nanoseconds a row (of `sha256/compression`: a block) of a work on this machine, on a backend or the one in use.
///
/// It is one sample of some milliseconds: who compares takes several in turn. It panics where the backend gives another
/// result than portable: what is wrong is not timed.
#[pyfunction]
#[pyo3(signature = (work, backend=None))]
pub(crate) fn measure(py: Python<'_>, work: &str, backend: Option<&str>) -> PyResult<f64> {
    let backend = errors::backend(backend)?;
    let time = match work {
        "sha256/compression" => compression,
        "hmac" => hmac,
        "hkdf" => hkdf,
        "chain" => chain,
        "cbc/encrypt" => cbc_encrypt,
        "cbc/decrypt" => cbc_decrypt,
        "cbc_hmac" => cbc_hmac,
        "cmac" => cmac,
        "gcm" => gcm,
        "chacha20poly1305" => chacha20poly1305,
        "x25519" => agree,
        "x25519/public" => public_key,
        "xeddsa/sign" => sign,
        "xeddsa/verify" => verify,
        _ => return Err(errors::malformed("work", format!("{work:?}; there are {}", WORKS.join(", ")))),
    };
    Ok(py.detach(|| time(backend)))
}

/// Long enough for the clock, short enough that who alternates sees both sides under the same conditions.
const SAMPLE: Duration = Duration::from_millis(2);
/// A message of 256 bytes, as it lies in a frame: in CBC it is padded by a block.
const TEXT: usize = 256;
const PADDED: usize = TEXT + 16;
/// A frame with such a message, but for its code; and the identities that the code covers, too.
const FRAME: usize = 330;
const IDENTITIES: usize = 66;
/// What a group's frame with such a message has signed.
const SIGNED: usize = 300;
const NONE: [&[u8]; ROWS] = [&[]; ROWS];

/// A block of a message that is 16 of them with its padding.
fn compression(backend: Backend) -> f64 {
    const BLOCKS: usize = 16;
    let bytes = text(BLOCKS * 64 - 9);
    let messages = windows(&bytes, BLOCKS * 64 - 9);
    let a_row =
        timed(backend, filled::<32>(0), |backend, out| backend.run(sha256::Digest { messages: &messages, out }));
    a_row / BLOCKS as f64
}

/// The code of a frame.
fn hmac(backend: Backend) -> f64 {
    let (keys, bytes) = (filled(1), text(FRAME));
    let (heads, tails) = (windows(&bytes, IDENTITIES), windows(&bytes, FRAME));
    timed(backend, filled::<32>(0), |backend, out| {
        backend.run(hmac::Hmac { keys: &keys, heads: &heads, tails: &tails, out });
    })
}

/// The root step: two keys from a root key and an agreement.
fn hkdf(backend: Backend) -> f64 {
    let (roots, bytes) = (filled(1), text(32));
    let inputs = windows(&bytes, 32);
    timed(backend, filled::<64>(0), |backend, out| {
        backend.run(hkdf::Hkdf { salts: Some(&roots), inputs: &inputs, info: b"WhisperRatchet", out });
    })
}

/// A step of the sending or receiving chain, and the message keys of that step.
fn chain(backend: Backend) -> f64 {
    const INFO: &hkdf::Info = &hkdf::Info::new(b"WhisperMessageKeys");
    timed(backend, (filled::<32>(1), filled::<80>(0)), |backend, (chains, out)| {
        backend.run(chain::StepToKeys { chains, seeds: &mut [], info: INFO, out });
    })
}

fn cbc_encrypt(backend: Backend) -> f64 {
    let (keys, ivs) = (filled(1), filled(2));
    timed(backend, filled::<PADDED>(3), |backend, texts| {
        backend.run(cbc::Encrypt { keys: &keys, ivs: &ivs, rows: &mut slices(texts) });
    })
}

fn cbc_decrypt(backend: Backend) -> f64 {
    let (keys, ivs) = (filled(1), filled(2));
    timed(backend, filled::<PADDED>(3), |backend, texts| {
        backend.run(cbc::Decrypt { keys: &keys, ivs: &ivs, rows: &mut slices(texts) });
    })
}

/// Encryption, and the code of what it gives, under keys of each row's own; without padding, as the multi-buffer library
/// that it is compared with.
fn cbc_hmac(backend: Backend) -> f64 {
    let (keys, mac_keys, ivs) = (filled(1), filled(4), filled(2));
    timed(backend, (filled::<TEXT>(3), filled::<32>(0)), |backend, (texts, out)| {
        backend.run(cbc::Encrypt { keys: &keys, ivs: &ivs, rows: &mut slices(texts) });
        let tails: Vec<&[u8]> = texts.iter().map(|text| &text[..]).collect();
        backend.run(hmac::Hmac { keys: &mac_keys, heads: &NONE, tails: &tails, out });
    })
}

/// What a frame is known by, and who sent it, before the frame.
fn cmac(backend: Backend) -> f64 {
    let (keys, heads, bytes) = (filled(1), filled::<32>(2), text(FRAME));
    let tails = windows(&bytes, FRAME);
    timed(backend, filled::<16>(0), |backend, out| {
        backend.run(cmac::Cmac { keys: &keys, heads: &heads, tails: &tails, out });
    })
}

fn gcm(backend: Backend) -> f64 {
    let (keys, nonces) = (filled(1), filled(2));
    timed(backend, filled::<{ TEXT + 16 }>(3), |backend, texts| {
        let rows = &mut slices(texts);
        backend.run(gcm::Seal { keys: &keys, nonces: &nonces, associated: &NONE, rows });
    })
}

fn chacha20poly1305(backend: Backend) -> f64 {
    let (keys, nonces) = (filled(1), filled(2));
    timed(backend, filled::<{ TEXT + 16 }>(3), |backend, texts| {
        let rows = &mut slices(texts);
        backend.run(chacha20poly1305::Seal { keys: &keys, nonces: &nonces, associated: &NONE, rows });
    })
}

fn agree(backend: Backend) -> f64 {
    let (scalars, mut points) = (filled(1), filled(0));
    backend.run(x25519::PublicKey { scalars: &filled(5), out: &mut points });
    timed(backend, (filled::<32>(0), vec![false; ROWS]), |backend, (out, ok)| {
        backend.run(x25519::Agree { scalars: &scalars, points: &points, out, ok });
    })
}

fn public_key(backend: Backend) -> f64 {
    let scalars = filled(1);
    timed(backend, filled::<32>(0), |backend, out| backend.run(x25519::PublicKey { scalars: &scalars, out }))
}

/// As a sender does who keeps the encoding of its key.
fn sign(backend: Backend) -> f64 {
    let (privates, randoms, bytes) = (filled(1), filled(2), text(SIGNED));
    let messages = windows(&bytes, SIGNED);
    let mut encodings = filled(0);
    backend.run(xeddsa::EncodeOwn { privates: &privates, out: &mut encodings });
    timed(backend, filled::<64>(0), |backend, out| {
        let encodings = Some(&encodings[..]);
        backend.run(xeddsa::Sign { privates: &privates, encodings, messages: &messages, randoms: &randoms, out });
    })
}

/// As a member does who keeps the senders' keys expanded.
fn verify(backend: Backend) -> f64 {
    let (privates, randoms, bytes) = (filled(1), filled(2), text(SIGNED));
    let messages = windows(&bytes, SIGNED);
    let (mut publics, mut signatures) = (filled(0), filled(0));
    let mut expanded = vec![None; ROWS];
    backend.run(x25519::PublicKey { scalars: &privates, out: &mut publics });
    backend.run(xeddsa::Expand { publics: &publics, out: &mut expanded });
    let expanded: Vec<_> = expanded.into_iter().map(|expanded| expanded.expect("a public key is a point")).collect();
    backend.run(xeddsa::Sign {
        privates: &privates,
        encodings: None,
        messages: &messages,
        randoms: &randoms,
        out: &mut signatures,
    });
    timed(backend, vec![false; ROWS], |backend, ok| {
        let expanded = Some(&expanded[..]);
        backend.run(xeddsa::Verify { publics: &publics, expanded, messages: &messages, signatures: &signatures, ok });
        assert!(ok.iter().all(|&ok| ok), "every signature is right");
    })
}

/// Nanoseconds a row of `step`, which works off [`ROWS`] rows into `out`.
fn timed<Out: Clone + PartialEq>(backend: Backend, mut out: Out, step: impl Fn(Backend, &mut Out)) -> f64 {
    let mut expected = out.clone();
    step(Backend::portable(), &mut expected);
    step(backend, &mut out);
    assert!(out == expected, "backend {} gives another result than portable", backend.name());
    let (begin, mut calls) = (Instant::now(), 0);
    loop {
        step(backend, black_box(&mut out));
        calls += 1;
        let taken = begin.elapsed();
        if taken >= SAMPLE {
            return taken.as_nanos() as f64 / f64::from(calls) / ROWS as f64;
        }
    }
}

/// `N` bytes a row; no two rows of it are the same, nor are rows of different seeds.
fn filled<const N: usize>(seed: usize) -> Vec<[u8; N]> {
    (0..ROWS).map(|row| core::array::from_fn(|byte| ((row + 1) * (byte + 3) + 41 * seed) as u8)).collect()
}

/// Bytes that have a window of `length` for each row.
fn text(length: usize) -> Vec<u8> {
    (0..length + ROWS).map(|byte| (byte * byte / 7) as u8).collect()
}

fn windows(bytes: &[u8], length: usize) -> Vec<&[u8]> {
    bytes.windows(length).take(ROWS).collect()
}

fn slices<const N: usize>(rows: &mut [[u8; N]]) -> Vec<&mut [u8]> {
    rows.iter_mut().map(|row| &mut row[..]).collect()
}
