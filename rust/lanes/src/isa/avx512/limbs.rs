//! 8 limbs a vector, multiplied by IFMA.

use super::Avx512;
use super::words::U32x16;
use crate::isa::field25519::radix52::Fe52;
use crate::isa::{Eight, Limb, Limbs, Pieces};
use core::arch::x86_64::*;
use core::ops::{Add, BitAnd, BitXor, Sub};

/// A 64-bit limb of each of 8 rows.
#[derive(Clone, Copy, Debug)]
pub struct U64x8(__m512i);

impl Limbs for Avx512 {
    const MADD52: bool = true;
    type U64 = U64x8;
    type Field = Fe52<U64x8>;

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

macro_rules! ternary {
    ($name:ident, $table:literal) => {
        #[inline(always)]
        #[cfg(not(interlane_msan))]
        fn $name(self, b: Self, c: Self) -> Self {
            // SAFETY: a value of this type exists only where the features do.
            Self(unsafe { _mm512_ternarylogic_epi64::<$table>(self.0, b.0, c.0) })
        }
    };
}

impl Add for U64x8 {
    type Output = Self;
    op!(add(other) = _mm512_add_epi64);
}

impl Sub for U64x8 {
    type Output = Self;
    op!(sub(other) = _mm512_sub_epi64);
}

impl BitAnd for U64x8 {
    type Output = Self;
    op!(bitand(other) = _mm512_and_si512);
}

impl BitXor for U64x8 {
    type Output = Self;
    op!(bitxor(other) = _mm512_xor_si512);
}

impl Limb for U64x8 {
    #[inline(always)]
    fn fill(self, limb: u64) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe { _mm512_set1_epi64(limb.cast_signed()) })
    }
    #[inline(always)]
    fn shl(self, bits: u32) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe { _mm512_sll_epi64(self.0, _mm_cvtsi32_si128(bits.cast_signed())) })
    }
    #[inline(always)]
    fn shr(self, bits: u32) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe { _mm512_srl_epi64(self.0, _mm_cvtsi32_si128(bits.cast_signed())) })
    }
    #[inline(always)]
    fn choose(self, yes: Self, no: Self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe { _mm512_mask_blend_epi64(_mm512_test_epi64_mask(self.0, self.0), no.0, yes.0) })
    }
    op!(mul32(other) = _mm512_mul_epu32);
    op!(madd52_low(a, b) = _mm512_madd52lo_epu64);
    op!(madd52_high(a, b) = _mm512_madd52hi_epu64);
    #[inline(always)]
    fn factor52(self) -> Self {
        self
    }
    const ABOVE51: [u64; 2] = [0; 2];
    #[inline(always)]
    fn madd51_low(self, _: Self, _: Self) -> Self {
        unreachable!("limbs are multiplied 52 bits by 52 here");
    }
    #[inline(always)]
    fn madd51_high(self, _: Self, _: Self) -> Self {
        unreachable!("limbs are multiplied 52 bits by 52 here");
    }
    op!(wrapping_add(other) = _mm512_add_epi64);
    #[inline(always)]
    fn rotr<const BITS: i32>(self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe { _mm512_ror_epi64::<BITS>(self.0) })
    }
    // MSan cannot follow this instruction; under it, these are what the trait makes of several.
    ternary!(xor3, 0x96);
    ternary!(select, 0xCA);
    ternary!(majority, 0xE8);
    #[inline(always)]
    fn swap_bytes(self) -> Self {
        Self(U32x16(self.0).shuffle([7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8]).0)
    }
    #[inline(always)]
    fn lookup(self, table: &Eight) -> Self {
        // SAFETY: a value of this type exists only where the features do; `table` is one whole readable vector.
        Self(unsafe { _mm512_permutexvar_epi64(self.0, _mm512_loadu_si512(table.0.as_ptr().cast())) })
    }
}
