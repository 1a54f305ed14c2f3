//! 8 limbs a vector, multiplied by IFMA.

use super::Avx512;
use super::words::U32x16;
use crate::isa::{Limb, Limbs};
use core::arch::x86_64::*;
use core::ops::{Add, BitAnd};

/// A 64-bit limb of each of 8 rows.
#[derive(Clone, Copy, Debug)]
pub struct U64x8(__m512i);

impl Limbs for Avx512 {
    const MADD52: bool = true;
    type U64 = U64x8;

    #[inline(always)]
    fn splat_limb(self, limb: u64) -> U64x8 {
        // SAFETY: `self` proves that the features are present.
        U64x8(unsafe { _mm512_set1_epi64(limb.cast_signed()) })
    }
    #[inline(always)]
    fn limbs(self, [a, b]: [U32x16; 2]) -> [U64x8; 2] {
        // SAFETY: `self` proves that the features are present.
        unsafe { [U64x8(_mm512_unpacklo_epi64(a.0, b.0)), U64x8(_mm512_unpackhi_epi64(a.0, b.0))] }
    }
    #[inline(always)]
    fn pieces(self, [low, high]: [U64x8; 2]) -> [U32x16; 2] {
        // SAFETY: `self` proves that the features are present.
        unsafe { [U32x16(_mm512_unpacklo_epi64(low.0, high.0)), U32x16(_mm512_unpackhi_epi64(low.0, high.0))] }
    }
}

macro_rules! op {
    ($name:ident($($arg:ident),*) = $e:expr) => {
        #[inline(always)]
        fn $name(self, $($arg: Self),*) -> Self {
            // SAFETY: a value of this type exists only where the features do.
            Self(unsafe { $e(self.0, $($arg.0),*) })
        }
    };
}

impl Add for U64x8 {
    type Output = Self;
    op!(add(other) = _mm512_add_epi64);
}

impl BitAnd for U64x8 {
    type Output = Self;
    op!(bitand(other) = _mm512_and_si512);
}

impl Limb for U64x8 {
    #[inline(always)]
    fn fill(self, limb: u64) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe { _mm512_set1_epi64(limb.cast_signed()) })
    }
    #[inline(always)]
    fn shl<const BITS: u32>(self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe { _mm512_slli_epi64::<BITS>(self.0) })
    }
    #[inline(always)]
    fn shr<const BITS: u32>(self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe { _mm512_srli_epi64::<BITS>(self.0) })
    }
    op!(choose(yes, no) = _mm512_ternarylogic_epi64::<0xCA>);
    op!(mul32(other) = _mm512_mul_epu32);
    op!(madd52_low(a, b) = _mm512_madd52lo_epu64);
    op!(madd52_high(a, b) = _mm512_madd52hi_epu64);
}
