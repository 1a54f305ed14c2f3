//! The tier with the instructions for AES, PMULL and SHA-2.

use super::words::transpose;
use super::{Neon, Tier, U32x4};
use crate::isa::words::ROUND_CONSTANTS;
use crate::isa::{Kernel, Part};
use core::arch::aarch64::*;

/// Proof that they are present.
#[derive(Clone, Copy, Debug)]
pub struct Crypto(());

impl Tier for Crypto {
    const COMPRESSES: bool = true;

    fn detect() -> Option<Self> {
        (std::arch::is_aarch64_feature_detected!("aes")
            && std::arch::is_aarch64_feature_detected!("pmull")
            && std::arch::is_aarch64_feature_detected!("sha2"))
        .then_some(Self(()))
    }

    fn run<K: Kernel>(isa: Neon<Self>, kernel: K) -> K::Out {
        #[target_feature(enable = "neon,aes,sha2")]
        fn run<K: Kernel>(isa: Neon<Crypto>, kernel: K) -> K::Out {
            kernel.in_lanes(isa)
        }
        // SAFETY: `isa` proves that the features are present.
        unsafe { run(isa, kernel) }
    }

    #[inline(always)]
    fn call<P: Part<Neon<Self>>>(isa: Neon<Self>, part: P) -> P::Out {
        #[target_feature(enable = "neon,aes,sha2")]
        #[inline(never)]
        fn call<P: Part<Neon<Crypto>>>(isa: Neon<Crypto>, part: P) -> P::Out {
            part.run(isa)
        }
        // SAFETY: `isa` proves that the features are present.
        unsafe { call(isa, part) }
    }

    #[inline(always)]
    unsafe fn compress(state: &mut [U32x4<Self>; 8], block: &[U32x4<Self>; 16]) {
        // SAFETY: the caller's.
        unsafe { compress(state, block) }
    }

    #[inline(always)]
    unsafe fn compress_known(state: &mut [U32x4<Self>; 8], rounds: &[u32; 64]) {
        // SAFETY: the caller's.
        unsafe { compress_known(state, rounds) }
    }

    #[inline(always)]
    unsafe fn aes<const LAST: bool>(block: uint8x16_t) -> uint8x16_t {
        // SAFETY: the caller's.
        unsafe { aes::<LAST>(block) }
    }

    #[inline(always)]
    unsafe fn aes_inverse<const LAST: bool>(block: uint8x16_t) -> uint8x16_t {
        // SAFETY: the caller's.
        unsafe { aes_inverse::<LAST>(block) }
    }

    #[inline(always)]
    unsafe fn clmul<const UPPER_A: bool, const UPPER_B: bool>(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        // SAFETY: the caller's.
        unsafe { clmul::<UPPER_A, UPPER_B>(a, b) }
    }
}

/// The instruction adds its key first, where x86 adds it last: here it adds nothing, and the compiler moves the key that
/// the round before added into it.
#[target_feature(enable = "neon,aes")]
#[inline]
fn aes<const LAST: bool>(block: uint8x16_t) -> uint8x16_t {
    let block = vaeseq_u8(block, vdupq_n_u8(0));
    if LAST { block } else { vaesmcq_u8(block) }
}

#[target_feature(enable = "neon,aes")]
#[inline]
fn aes_inverse<const LAST: bool>(block: uint8x16_t) -> uint8x16_t {
    let block = vaesdq_u8(block, vdupq_n_u8(0));
    if LAST { block } else { vaesimcq_u8(block) }
}

#[target_feature(enable = "neon,aes")]
#[inline]
fn clmul<const UPPER_A: bool, const UPPER_B: bool>(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
    let (a, b) = (vreinterpretq_u64_u8(a), vreinterpretq_u64_u8(b));
    let a = if UPPER_A { vgetq_lane_u64::<1>(a) } else { vgetq_lane_u64::<0>(a) };
    let b = if UPPER_B { vgetq_lane_u64::<1>(b) } else { vgetq_lane_u64::<0>(b) };
    vreinterpretq_u8_p128(vmull_p64(a, b))
}

/// The state of a row: A to D and E to H.
type Row = [uint32x4_t; 2];

/// Four rows side by side: an instruction takes four rounds of one row and has a latency of four or more, which the other
/// rows fill. A row is its own two vectors of state here, so words are transposed on the way in and out.
#[target_feature(enable = "neon,sha2")]
#[inline(never)]
fn compress(state: &mut [U32x4<Crypto>; 8], block: &[U32x4<Crypto>; 16]) {
    let mut rows = to_rows(state);
    let mut words = [[rows[0][0]; 4]; 4];
    for quad in 0..4 {
        let [a, b, c, d] = [block[4 * quad], block[4 * quad + 1], block[4 * quad + 2], block[4 * quad + 3]];
        words[quad] = transpose([a.0, b.0, c.0, d.0]);
        for row in 0..4 {
            words[quad][row] = vreinterpretq_u32_u8(vrev32q_u8(vreinterpretq_u8_u32(words[quad][row])));
        }
    }
    let constants = ROUND_CONSTANTS.as_chunks().0;
    macro_rules! four {
        ($($quad:literal)*) => { $({
            let constants = load(&constants[$quad]);
            for row in 0..4 {
                let sum = vaddq_u32(words[$quad % 4][row], constants);
                if $quad < 12 {
                    let [next, third, last] = [($quad + 1) % 4, ($quad + 2) % 4, ($quad + 3) % 4];
                    let half = vsha256su0q_u32(words[$quad % 4][row], words[next][row]);
                    words[$quad % 4][row] = vsha256su1q_u32(half, words[third][row], words[last][row]);
                }
                four_rounds(&mut rows[row], sum);
            }
        })* };
    }
    four!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    add_rows(state, &rows);
}

#[target_feature(enable = "neon,sha2")]
#[inline(never)]
fn compress_known(state: &mut [U32x4<Crypto>; 8], rounds: &[u32; 64]) {
    let mut rows = to_rows(state);
    for words in rounds.as_chunks().0 {
        let words = load(words);
        for row in 0..4 {
            four_rounds(&mut rows[row], words);
        }
    }
    add_rows(state, &rows);
}

#[target_feature(enable = "neon,sha2")]
#[inline]
fn four_rounds([abcd, efgh]: &mut Row, words: uint32x4_t) {
    let before = *abcd;
    *abcd = vsha256hq_u32(before, *efgh, words);
    *efgh = vsha256h2q_u32(*efgh, before, words);
}

#[target_feature(enable = "neon")]
#[inline]
fn load(words: &[u32; 4]) -> uint32x4_t {
    // SAFETY: `words` has 16 readable bytes.
    unsafe { vld1q_u32(words.as_ptr()) }
}

#[target_feature(enable = "neon")]
#[inline]
fn to_rows(state: &[U32x4<Crypto>; 8]) -> [Row; 4] {
    let [a, b, c, d, e, f, g, h] = state;
    let (abcd, efgh) = (transpose([a.0, b.0, c.0, d.0]), transpose([e.0, f.0, g.0, h.0]));
    let mut rows = [[abcd[0]; 2]; 4];
    for row in 0..4 {
        rows[row] = [abcd[row], efgh[row]];
    }
    rows
}

/// Back, and added to the state as it was before the rounds.
#[target_feature(enable = "neon")]
#[inline]
fn add_rows(state: &mut [U32x4<Crypto>; 8], rows: &[Row; 4]) {
    for half in 0..2 {
        let after = transpose([rows[0][half], rows[1][half], rows[2][half], rows[3][half]]);
        for i in 0..4 {
            state[4 * half + i].0 = vaddq_u32(state[4 * half + i].0, after[i]);
        }
    }
}
