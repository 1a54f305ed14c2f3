//! The steps, one file for each standard.
//!
//! A kernel's fields are slices with one entry a row, all of the same length `n`, which may be 0; it panics if they are
//! not. Rows are worked on by the tile: all rows of a tile take a step before any takes the next, so that a vector has its
//! lanes full and a CPU that computes row by row always has an independent row to go on with.

pub mod cbc;
pub mod chacha20poly1305;
pub mod chain;
pub mod gcm;
pub mod hkdf;
pub mod hmac;
pub mod sha256;
pub mod x25519;
pub mod xeddsa;

use crate::isa::{Aead, Isa};

/// The number of rows, from the lengths of all arguments of a kernel.
#[inline(always)]
fn rows<const N: usize>(lengths: [usize; N]) -> usize {
    for length in lengths {
        assert_eq!(length, lengths[0], "every argument of a kernel has one entry a row");
    }
    lengths[0]
}

/// Overwrites what must not stay in memory.
#[inline(always)]
fn wipe<T: Copy>(items: &mut [T], zero: T) {
    items.fill(zero);
    ::zeroize::optimization_barrier(items);
}

/// Encrypts each row but its last 16 bytes, which become the tag.
#[inline(always)]
fn aead_seal<I: Isa>(
    isa: I,
    cipher: Aead,
    keys: &[[u8; 32]],
    nonces: &[[u8; 12]],
    associated: &[&[u8]],
    sealed: &mut [&mut [u8]],
) {
    rows([keys.len(), nonces.len(), associated.len(), sealed.len()]);
    for (((key, nonce), associated), row) in keys.iter().zip(nonces).zip(associated).zip(sealed) {
        let (text, tag) = row.split_last_chunk_mut().expect("a row has room for its tag");
        *tag = isa.seal(cipher, key, nonce, associated, text);
    }
}

/// Decrypts each row but its last 16 bytes, which are the tag. A row that fails is zeroed.
#[inline(always)]
fn aead_open<I: Isa>(
    isa: I,
    cipher: Aead,
    keys: &[[u8; 32]],
    nonces: &[[u8; 12]],
    associated: &[&[u8]],
    sealed: &mut [&mut [u8]],
    ok: &mut [bool],
) {
    rows([keys.len(), nonces.len(), associated.len(), sealed.len(), ok.len()]);
    for ((((key, nonce), associated), row), ok) in keys.iter().zip(nonces).zip(associated).zip(sealed).zip(ok) {
        *ok = match row.split_last_chunk_mut() {
            Some((text, tag)) => isa.open(cipher, key, nonce, associated, text, tag),
            None => false,
        };
        if !*ok {
            row.fill(0);
        }
    }
}
