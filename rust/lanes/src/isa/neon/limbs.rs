//! 2 limbs a vector, multiplied 32 bits by 32.

use super::words::U32x4;
use super::{Neon, Tier};
use crate::isa::field25519::radix25::Fe25;
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
    type Field = Fe25<U64x2<T>>;

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
}
