//! 2 limbs a vector, multiplied 32 bits by 32, or as doubles: with two multiplications that round once, one product gives
//! its nearest multiple of 2^51 and the exact rest.

use super::words::U32x4;
use super::{Neon, Tier};
use crate::isa::field25519::radix51::Fe51;
use crate::isa::{Limb, Limbs};
use core::arch::aarch64::*;
use core::marker::PhantomData;
use core::ops::{Add, BitAnd, BitXor, Sub};

/// A 64-bit limb of each of 2 rows.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct U64x2<T>(uint64x2_t, PhantomData<T>);

impl<T> U64x2<T> {
    /// Only from another vector or a token.
    #[inline(always)]
    fn new(limbs: uint64x2_t) -> Self {
        Self(limbs, PhantomData)
    }
}

impl<T: Tier> Limbs for Neon<T> {
    const MADD52: bool = false;
    type U64 = U64x2<T>;
    type Field = Fe51<U64x2<T>>;

    #[inline(always)]
    fn splat_limb(self, limb: u64) -> U64x2<T> {
        // SAFETY: `self` proves that the features are present.
        U64x2::new(unsafe { vdupq_n_u64(limb) })
    }
    #[inline(always)]
    fn limbs(self, [a, b]: [U32x4<T>; 2]) -> [U64x2<T>; 2] {
        // SAFETY: `self` proves that the features are present.
        unsafe {
            let (a, b) = (vreinterpretq_u64_u32(a.0), vreinterpretq_u64_u32(b.0));
            [U64x2::new(vtrn1q_u64(a, b)), U64x2::new(vtrn2q_u64(a, b))]
        }
    }
    #[inline(always)]
    fn pieces(self, [low, high]: [U64x2<T>; 2]) -> [U32x4<T>; 2] {
        // SAFETY: `self` proves that the features are present.
        unsafe {
            let (a, b) = (vtrn1q_u64(low.0, high.0), vtrn2q_u64(low.0, high.0));
            [U32x4::new(vreinterpretq_u32_u64(a)), U32x4::new(vreinterpretq_u32_u64(b))]
        }
    }
}

macro_rules! op {
    ($name:ident($($arg:ident),*) = $e:expr) => {
        #[inline(always)]
        fn $name(self, $($arg: Self),*) -> Self {
            // SAFETY: a value of this type exists only where the features do.
            Self::new(unsafe { $e(self.0, $($arg.0),*) })
        }
    };
}

impl<T: Tier> Add for U64x2<T> {
    type Output = Self;
    op!(add(other) = vaddq_u64);
}

impl<T: Tier> Sub for U64x2<T> {
    type Output = Self;
    op!(sub(other) = vsubq_u64);
}

impl<T: Tier> BitAnd for U64x2<T> {
    type Output = Self;
    op!(bitand(other) = vandq_u64);
}

impl<T: Tier> BitXor for U64x2<T> {
    type Output = Self;
    op!(bitxor(other) = veorq_u64);
}

impl<T: Tier> Limb for U64x2<T> {
    #[inline(always)]
    fn fill(self, limb: u64) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self::new(unsafe { vdupq_n_u64(limb) })
    }
    #[inline(always)]
    fn shl(self, bits: u32) -> Self {
        // By a register in name only: the count is known, and becomes an immediate.
        // SAFETY: a value of this type exists only where the features do.
        Self::new(unsafe { vshlq_u64(self.0, vdupq_n_s64(i64::from(bits))) })
    }
    #[inline(always)]
    fn shr(self, bits: u32) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self::new(unsafe { vshlq_u64(self.0, vdupq_n_s64(-i64::from(bits))) })
    }
    #[inline(always)]
    fn choose(self, yes: Self, no: Self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self::new(unsafe { vbslq_u64(vsubq_u64(vdupq_n_u64(0), self.0), yes.0, no.0) })
    }
    #[inline(always)]
    fn mul32(self, other: Self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self::new(unsafe { vmull_u32(vmovn_u64(self.0), vmovn_u64(other.0)) })
    }
    #[inline(always)]
    fn madd52_low(self, _: Self, _: Self) -> Self {
        unreachable!("limbs are multiplied 32 bits by 32 here");
    }
    #[inline(always)]
    fn madd52_high(self, _: Self, _: Self) -> Self {
        unreachable!("limbs are multiplied 32 bits by 32 here");
    }
    op!(wrapping_add(other) = vaddq_u64);
    #[inline(always)]
    fn rotr<const BITS: i32>(self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self::new(unsafe {
            let high = vshlq_u64(self.0, vdupq_n_s64(i64::from(64 - BITS)));
            vorrq_u64(vshlq_u64(self.0, vdupq_n_s64(-i64::from(BITS))), high)
        })
    }
    op!(select(yes, no) = vbslq_u64);
    #[inline(always)]
    fn swap_bytes(self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self::new(unsafe { vreinterpretq_u64_u8(vrev64q_u8(vreinterpretq_u8_u64(self.0))) })
    }
    const ABOVE51: [u64; 2] = [ROUND.to_bits(), SPLIT.to_bits()];
    #[inline(always)]
    fn madd51_low(self, a: Self, b: Self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self::new(unsafe {
            let rest = vsubq_f64(vdupq_n_f64(SPLIT + ROUND), split(a.0, b.0));
            vaddq_u64(self.0, vreinterpretq_u64_f64(vfmaq_f64(rest, vcvtq_f64_u64(a.0), vcvtq_f64_u64(b.0))))
        })
    }
    #[inline(always)]
    fn madd51_high(self, a: Self, b: Self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self::new(unsafe { vaddq_u64(self.0, vreinterpretq_u64_f64(split(a.0, b.0))) })
    }
}

/// 2^52: a double from here on to 2^53 is a whole number, and its bits count them.
const WHOLE: f64 = (1_u64 << 52) as f64;
/// 2^103: a double from here on to 2^104 is a multiple of 2^51, and its bits count them.
const SPLIT: f64 = WHOLE * (1_u64 << 51) as f64;
/// 3 · 2^51: added to a number within ±2^50, it gives one whose bits count ones.
const ROUND: f64 = WHOLE * 1.5;

/// [`SPLIT`] plus the multiple of 2^51 nearest to the product.
#[target_feature(enable = "neon")]
#[inline]
fn split(a: uint64x2_t, b: uint64x2_t) -> float64x2_t {
    vfmaq_f64(vdupq_n_f64(SPLIT), vcvtq_f64_u64(a), vcvtq_f64_u64(b))
}
