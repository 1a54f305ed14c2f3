//! The tier of NEON alone. SHA-256 is computed from words; AES by table instructions.
//!
//! Those instructions (TBL, TBX) take the table in registers and their time does not depend on the index; the S-box is
//! four of them. Kernels of AES are left to the crates here (`backend.rs`), which take many blocks of one key at a time;
//! what is here makes them right on every tier.

use super::{Neon, Tier, U32x4};
use crate::isa::{Kernel, Part};
use core::arch::aarch64::*;

/// Nothing but NEON: it is always there.
#[derive(Clone, Copy, Debug)]
pub struct Plain(());

impl Tier for Plain {
    const COMPRESSES: bool = false;

    fn detect() -> Option<Self> {
        Some(Self(()))
    }

    fn run<K: Kernel>(isa: Neon<Self>, kernel: K) -> K::Out {
        #[target_feature(enable = "neon")]
        fn run<K: Kernel>(isa: Neon<Plain>, kernel: K) -> K::Out {
            kernel.in_lanes(isa)
        }
        // SAFETY: `isa` proves that the features are present.
        unsafe { run(isa, kernel) }
    }

    #[inline(always)]
    fn call<P: Part<Neon<Self>>>(isa: Neon<Self>, part: P) -> P::Out {
        #[target_feature(enable = "neon")]
        #[inline(never)]
        fn call<P: Part<Neon<Plain>>>(isa: Neon<Plain>, part: P) -> P::Out {
            part.run(isa)
        }
        // SAFETY: `isa` proves that the features are present.
        unsafe { call(isa, part) }
    }

    #[inline(always)]
    unsafe fn compress(_: &mut [U32x4<Self>; 8], _: &[U32x4<Self>; 16]) {
        unreachable!("SHA-256 is computed from words here");
    }

    #[inline(always)]
    unsafe fn compress_known(_: &mut [U32x4<Self>; 8], _: &[u32; 64]) {
        unreachable!("SHA-256 is computed from words here");
    }

    #[inline(always)]
    unsafe fn aes<const LAST: bool>(block: uint8x16_t) -> uint8x16_t {
        // SAFETY: the caller's.
        unsafe {
            let block = substitute(permute(block, &SHIFT_ROWS), &BOXES[0]);
            if LAST { block } else { mix_columns(block) }
        }
    }

    #[inline(always)]
    unsafe fn aes_inverse<const LAST: bool>(block: uint8x16_t) -> uint8x16_t {
        // SAFETY: the caller's.
        unsafe {
            let block = substitute(permute(block, &INVERSE_SHIFT_ROWS), &BOXES[1]);
            if LAST {
                return block;
            }
            // InvMixColumns is MixColumns after x + 4 (x + x turned by two): (0e 0b 0d 09) = (02 03 01 01) (05 00 04 00).
            let twice = double(double(veorq_u8(block, permute(block, &TURN[1]))));
            mix_columns(veorq_u8(block, twice))
        }
    }

    #[inline(always)]
    unsafe fn clmul<const UPPER_A: bool, const UPPER_B: bool>(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        // SAFETY: the caller's.
        unsafe {
            let a = if UPPER_A { vget_high_u8(a) } else { vget_low_u8(a) };
            clmul(a, if UPPER_B { vget_high_u8(b) } else { vget_low_u8(b) })
        }
    }
}

/// By the product of bytes, which every NEON has: with `b_i` the bytes of `b`,
///
/// ```text
/// a · b = a · b_0 + a · b_1 · x^8 + … + a · b_7 · x^56
/// ```
///
/// (Horner's scheme, from the last byte.) `a · b_i` is eight products of 16 bits, whose low bytes lie side by side, and
/// whose high bytes lie side by side one byte further up.
#[target_feature(enable = "neon")]
#[inline]
fn clmul(a: uint8x8_t, b: uint8x8_t) -> uint8x16_t {
    let none = vdup_n_u8(0);
    let mut sum = vdupq_n_u8(0);
    let mut bytes = b;
    for _ in 0..8 {
        // One byte up; then the last byte of `b` that was not taken yet.
        sum = vextq_u8::<15>(vdupq_n_u8(0), sum);
        let byte = vdup_lane_u8::<7>(bytes);
        bytes = vext_u8::<7>(bytes, bytes);
        let products = vreinterpretq_u16_p16(vmull_p8(vreinterpret_p8_u8(a), vreinterpret_p8_u8(byte)));
        let low = vcombine_u8(vmovn_u16(products), none);
        let high = vcombine_u8(vshrn_n_u16::<8>(products), none);
        sum = veorq_u8(sum, veorq_u8(low, vextq_u8::<15>(vdupq_n_u8(0), high)));
    }
    sum
}

#[target_feature(enable = "neon")]
#[inline]
fn permute(block: uint8x16_t, order: &[u8; 16]) -> uint8x16_t {
    // SAFETY: 16 readable bytes.
    vqtbl1q_u8(block, unsafe { vld1q_u8(order.as_ptr()) })
}

/// `table[byte]` for each byte: an index beyond the 64 entries that an instruction looks at leaves what was there.
#[target_feature(enable = "neon")]
#[inline]
fn substitute(block: uint8x16_t, table: &[u8; 256]) -> uint8x16_t {
    let mut found = vdupq_n_u8(0);
    for quarter in 0..4 {
        let index = vsubq_u8(block, vdupq_n_u8(64 * quarter as u8));
        // SAFETY: 64 readable bytes, at most at 192 of 256.
        let entries = unsafe { vld1q_u8_x4(table[64 * quarter..][..64].as_ptr()) };
        found = vqtbx4q_u8(found, entries, index);
    }
    found
}

/// Each column (FIPS 197 §5.1.3): `2 (a + b) + b + c + d`, with `b`, `c`, `d` the bytes below `a`.
#[target_feature(enable = "neon")]
#[inline]
fn mix_columns(a: uint8x16_t) -> uint8x16_t {
    let b = permute(a, &TURN[0]);
    let cd = veorq_u8(permute(a, &TURN[1]), permute(a, &TURN[2]));
    veorq_u8(double(veorq_u8(a, b)), veorq_u8(b, cd))
}

/// Times x in GF(2^8) (FIPS 197 §4.2.1).
#[target_feature(enable = "neon")]
#[inline]
fn double(bytes: uint8x16_t) -> uint8x16_t {
    let carried = vreinterpretq_u8_s8(vshrq_n_s8::<7>(vreinterpretq_s8_u8(bytes)));
    veorq_u8(vaddq_u8(bytes, bytes), vandq_u8(carried, vdupq_n_u8(0x1b)))
}

/// Where each byte comes from: row `r` of column `c` is byte `4 c + r`.
const fn order(columns_by_row: bool, turn: usize) -> [u8; 16] {
    let mut order = [0; 16];
    let mut byte = 0;
    while byte < 16 {
        let (column, row) = (byte / 4, byte % 4);
        order[byte] =
            if columns_by_row { 4 * ((column + turn * row) % 4) + row } else { 4 * column + (row + turn) % 4 } as u8;
        byte += 1;
    }
    order
}

const SHIFT_ROWS: [u8; 16] = order(true, 1);
const INVERSE_SHIFT_ROWS: [u8; 16] = order(true, 3);
const TURN: [[u8; 16]; 3] = [order(false, 1), order(false, 2), order(false, 3)];

/// The S-box (FIPS 197 §5.1.1): the inverse in GF(2^8), then an affine map; and its inverse. Walked by powers of the
/// generator 3 and of its inverse, f6.
static BOXES: [[u8; 256]; 2] = {
    let mut boxes = [[0; 256]; 2];
    let (mut power, mut inverse) = (1_u8, 1_u8);
    let mut count = 0;
    while count < 255 {
        let image = inverse
            ^ inverse.rotate_left(1)
            ^ inverse.rotate_left(2)
            ^ inverse.rotate_left(3)
            ^ inverse.rotate_left(4)
            ^ 0x63;
        boxes[0][power as usize] = image;
        boxes[1][image as usize] = power;
        power = product(power, 3);
        inverse = product(inverse, 0xf6);
        count += 1;
    }
    boxes[0][0] = 0x63;
    boxes[1][0x63] = 0;
    boxes
};

/// In GF(2^8), of constants.
const fn product(mut a: u8, mut b: u8) -> u8 {
    let mut sum = 0;
    while b != 0 {
        if b & 1 == 1 {
            sum ^= a;
        }
        a = (a << 1) ^ ((a >> 7) * 0x1b);
        b >>= 1;
    }
    sum
}
