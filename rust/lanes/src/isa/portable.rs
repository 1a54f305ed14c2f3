//! Any CPU: one row at a time, by crates. Also the oracle of every vector backend.

use super::words::Part;
use super::{Lanes, Step, Words};
use sha2::block_api::compress256;

/// The backend without vectors.
///
/// Graviola, where it runs, takes half the time of curve25519-dalek for X25519 (24 µs against 53) and is faster
/// than the crate chacha20poly1305 for long rows; for AES-256-GCM under a new key each it gains
/// nothing.
#[derive(Clone, Copy, Debug)]
pub struct Portable {
    graviola: bool,
}

impl Portable {
    /// Always there. Graviola asserts CPU features that are looked for here.
    #[must_use]
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        let graviola = is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("adx")
            && is_x86_feature_detected!("avx2");
        #[cfg(target_arch = "aarch64")]
        let graviola = std::arch::is_aarch64_feature_detected!("neon")
            && std::arch::is_aarch64_feature_detected!("aes")
            && std::arch::is_aarch64_feature_detected!("pmull")
            && std::arch::is_aarch64_feature_detected!("sha2");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let graviola = false;
        Self { graviola }
    }

    /// As [`Portable::detect`] gives it on a CPU that graviola does not support.
    #[must_use]
    pub fn without_graviola() -> Self {
        Self { graviola: false }
    }

    /// Whether graviola runs here.
    pub(crate) fn graviola(self) -> bool {
        self.graviola
    }

    /// Each kernel, its place in the table of what runs where, and the crate that runs it.
    pub(super) fn kernels(self) -> [(&'static str, Step, &'static str); 14] {
        let (chacha20poly1305, x25519) =
            if self.graviola { ("graviola", "graviola") } else { ("chacha20poly1305", "curve25519-dalek") };
        [
            ("sha256", Step::Hash, "sha2"),
            ("hmac", Step::Hash, "sha2"),
            ("hkdf", Step::Hash, "sha2"),
            ("chain", Step::Hash, "sha2"),
            ("sha512", Step::Sha512, "sha2"),
            ("cbc/encrypt", Step::CbcEncrypt, "aes"),
            ("cbc/decrypt", Step::CbcDecrypt, "aes"),
            ("cmac", Step::Cmac, "cmac"),
            ("gcm", Step::Gcm, "aes-gcm"),
            ("chacha20poly1305", Step::ChaCha20Poly1305, chacha20poly1305),
            ("x25519", Step::X25519, x25519),
            ("x25519/public", Step::X25519Base, x25519),
            ("xeddsa/sign", Step::Sign, "curve25519-dalek"),
            ("xeddsa/verify", Step::Verify, "curve25519-dalek"),
        ]
    }
}

impl Lanes for u32 {
    #[inline(always)]
    fn to_be(self) -> Self {
        u32::to_be(self)
    }
    #[inline(always)]
    fn wrapping_add(self, other: Self) -> Self {
        u32::wrapping_add(self, other)
    }
    #[inline(always)]
    fn shr<const BITS: i32>(self) -> Self {
        self >> BITS
    }
    #[inline(always)]
    fn rotr<const BITS: i32>(self) -> Self {
        self.rotate_right(BITS.cast_unsigned())
    }
    #[inline(always)]
    fn xor3(self, b: Self, c: Self) -> Self {
        self ^ b ^ c
    }
    #[inline(always)]
    fn choose(self, yes: Self, no: Self) -> Self {
        (self & yes) | (!self & no)
    }
    #[inline(always)]
    fn majority(self, b: Self, c: Self) -> Self {
        (self & b) | (c & (self | b))
    }
}

impl Words for Portable {
    const WIDTH: usize = 1;
    type U32 = u32;
    const GROUPS: usize = 8;
    type Groups<T: Copy> = [T; 8];

    #[inline(always)]
    fn groups<T: Copy>(self, item: T) -> [T; 8] {
        [item; 8]
    }

    #[inline(always)]
    fn call<P: Part<Self>>(self, part: P) -> P::Out {
        part.run(self)
    }

    #[inline(always)]
    fn splat(self, word: u32) -> u32 {
        word
    }

    #[inline(always)]
    fn load(self, rows: &[[u8; 32]]) -> [u32; 8] {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(rows[0].as_chunks().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        words
    }

    #[inline(always)]
    fn load_blocks(self, rows: &[&[u8; 64]]) -> [u32; 16] {
        let mut words = [0; 16];
        for (word, bytes) in words.iter_mut().zip(rows[0].as_chunks().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        words
    }

    #[inline(always)]
    fn store<const N: usize>(self, words: &[u32; 8], rows: &mut [[u8; N]], at: usize) {
        let mut bytes = [0; 32];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_ne_bytes();
        }
        let row = &mut rows[0][at..];
        if let Some(row) = row.first_chunk_mut::<32>() {
            *row = bytes;
        } else {
            row.copy_from_slice(&bytes[..row.len()]);
        }
    }

    #[inline(always)]
    fn choose(self, alive: &[bool], new: &[u32; 8], old: &[u32; 8]) -> [u32; 8] {
        if alive[0] { *new } else { *old }
    }

    #[inline(always)]
    fn compresses(self) -> bool {
        true
    }

    #[inline(always)]
    fn compress(self, state: &mut [u32; 8], block: &[u32; 16]) {
        let mut blocks = [[0; 64]];
        for (bytes, word) in blocks[0].as_chunks_mut().0.iter_mut().zip(block) {
            *bytes = word.to_ne_bytes();
        }
        compress256(state, &blocks);
        // The block may have been a key: four stores, too few to measure.
        blocks[0] = [0; 64];
        zeroize::optimization_barrier(&blocks);
    }

    #[inline(always)]
    fn compress_known(self, state: &mut [u32; 8], block: &[u8; 64], _: &[u32; 64]) {
        compress256(state, core::slice::from_ref(block));
    }
}
