//! 4 limbs a vector, multiplied 32 bits by 32, or as doubles: with two multiplications that round once, one product gives
//! its nearest multiple of 2^51 and the exact rest.

use super::Avx2;
use super::words::U32x8;
use crate::isa::field25519::radix51::Fe51;
use crate::isa::{Limb, Limbs, Pieces};
use core::arch::x86_64::*;
use core::ops::{Add, BitAnd, BitXor, Sub};

/// A 64-bit limb of each of 4 rows.
#[derive(Clone, Copy, Debug)]
pub struct U64x4(__m256i);

impl Limbs for Avx2 {
    const MADD52: bool = false;
    type U64 = U64x4;
    type Field = Fe51<U64x4>;

    #[inline(always)]
    fn splat_limb(self, limb: u64) -> U64x4 {
        // SAFETY: `self` proves that the features are present.
        U64x4(unsafe { _mm256_set1_epi64x(limb.cast_signed()) })
    }
    #[inline(always)]
    fn limbs(self, [a, b]: [U32x8; 2]) -> [U64x4; 2] {
        // SAFETY: `self` proves that the features are present.
        unsafe { [U64x4(_mm256_unpacklo_epi64(a.0, b.0)), U64x4(_mm256_unpackhi_epi64(a.0, b.0))] }
    }
    #[inline(always)]
    fn pieces(self, [low, high]: [U64x4; 2]) -> [U32x8; 2] {
        // SAFETY: `self` proves that the features are present.
        unsafe { [U32x8(_mm256_unpacklo_epi64(low.0, high.0)), U32x8(_mm256_unpackhi_epi64(low.0, high.0))] }
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

impl Add for U64x4 {
    type Output = Self;
    op!(add(other) = _mm256_add_epi64);
}

impl Sub for U64x4 {
    type Output = Self;
    op!(sub(other) = _mm256_sub_epi64);
}

impl BitAnd for U64x4 {
    type Output = Self;
    op!(bitand(other) = _mm256_and_si256);
}

impl BitXor for U64x4 {
    type Output = Self;
    op!(bitxor(other) = _mm256_xor_si256);
}

impl Limb for U64x4 {
    #[inline(always)]
    fn fill(self, limb: u64) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe { _mm256_set1_epi64x(limb.cast_signed()) })
    }
    #[inline(always)]
    fn shl(self, bits: u32) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe { _mm256_sll_epi64(self.0, _mm_cvtsi32_si128(bits.cast_signed())) })
    }
    #[inline(always)]
    fn shr(self, bits: u32) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe { _mm256_srl_epi64(self.0, _mm_cvtsi32_si128(bits.cast_signed())) })
    }
    #[inline(always)]
    fn choose(self, yes: Self, no: Self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe { _mm256_blendv_epi8(no.0, yes.0, _mm256_sub_epi64(_mm256_setzero_si256(), self.0)) })
    }
    op!(mul32(other) = _mm256_mul_epu32);
    #[inline(always)]
    fn madd52_low(self, _: Self, _: Self) -> Self {
        unreachable!("limbs are multiplied 32 bits by 32 here");
    }
    #[inline(always)]
    fn madd52_high(self, _: Self, _: Self) -> Self {
        unreachable!("limbs are multiplied 32 bits by 32 here");
    }
    const ABOVE51: [u64; 2] = [ROUND.to_bits(), SPLIT.to_bits()];
    #[inline(always)]
    fn madd51_low(self, a: Self, b: Self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        unsafe {
            let rest = _mm256_sub_pd(_mm256_set1_pd(SPLIT + ROUND), split(a, b));
            let low = _mm256_fmadd_pd(double(a), double(b), rest);
            Self(_mm256_add_epi64(self.0, _mm256_castpd_si256(low)))
        }
    }
    #[inline(always)]
    fn madd51_high(self, a: Self, b: Self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        unsafe { Self(_mm256_add_epi64(self.0, _mm256_castpd_si256(split(a, b)))) }
    }
    op!(wrapping_add(other) = _mm256_add_epi64);
    #[inline(always)]
    fn rotr<const BITS: i32>(self) -> Self {
        if BITS == 8 {
            return Self(U32x8(self.0).shuffle([1, 2, 3, 4, 5, 6, 7, 0, 9, 10, 11, 12, 13, 14, 15, 8]).0);
        }
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe {
            _mm256_or_si256(
                _mm256_srl_epi64(self.0, _mm_cvtsi32_si128(BITS)),
                _mm256_sll_epi64(self.0, _mm_cvtsi32_si128(64 - BITS)),
            )
        })
    }
    #[inline(always)]
    fn swap_bytes(self) -> Self {
        Self(U32x8(self.0).shuffle([7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8]).0)
    }
}

/// 2^52: the bits of a double from here on to 2^53 are its own and a number below 2^52.
const WHOLE: f64 = (1_u64 << 52) as f64;
/// 2^103: a double from here on to 2^104 is a multiple of 2^51, and its bits count them.
const SPLIT: f64 = WHOLE * (1_u64 << 51) as f64;
/// 3 · 2^51: added to a number within ±2^50, it gives one whose bits count ones.
const ROUND: f64 = WHOLE * 1.5;

/// A number below 2^52 as a double.
#[inline(always)]
fn double(limb: U64x4) -> __m256d {
    // SAFETY: a value of this type exists only where the features do.
    unsafe {
        let bits = _mm256_or_si256(limb.0, _mm256_castpd_si256(_mm256_set1_pd(WHOLE)));
        _mm256_sub_pd(_mm256_castsi256_pd(bits), _mm256_set1_pd(WHOLE))
    }
}

/// [`SPLIT`] plus the multiple of 2^51 nearest to the product.
#[inline(always)]
fn split(a: U64x4, b: U64x4) -> __m256d {
    // SAFETY: a value of this type exists only where the features do.
    unsafe { _mm256_fmadd_pd(double(a), double(b), _mm256_set1_pd(SPLIT)) }
}
