//! 16 words a vector, which are 4 pieces.

use super::Avx512;
use crate::isa::pieces::{choose_words, load_words, store_words};
use crate::isa::{Lanes, Part, Pieces, Words};
use core::arch::x86_64::*;
use core::ops::{BitAnd, BitXor};

/// A 32-bit word of each of 16 rows.
#[derive(Clone, Copy, Debug)]
pub struct U32x16(pub(super) __m512i);

impl Words for Avx512 {
    const WIDTH: usize = 16;
    type U32 = U32x16;
    const GROUPS: usize = 2;
    const PAIRS: bool = true;
    type Groups<T: Copy> = [T; 2];

    #[inline(always)]
    fn groups<T: Copy>(self, item: T) -> [T; 2] {
        [item; 2]
    }
    #[inline(always)]
    fn call<P: Part<Self>>(self, part: P) -> P::Out {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq")]
        #[inline(never)]
        fn call<P: Part<Avx512>>(isa: Avx512, part: P) -> P::Out {
            part.run(isa)
        }
        // SAFETY: `self` proves that the features are present.
        unsafe { call(self, part) }
    }
    #[inline(always)]
    fn splat(self, word: u32) -> U32x16 {
        // SAFETY: `self` proves that the features are present.
        U32x16(unsafe { _mm512_set1_epi32(word.cast_signed()) })
    }
    #[inline(always)]
    fn load(self, rows: &[[u8; 32]]) -> [U32x16; 8] {
        load_words(self, rows, 0)
    }
    #[inline(always)]
    fn load_blocks(self, rows: &[&[u8; 64]]) -> [U32x16; 16] {
        load_words(self, rows, 0)
    }
    #[inline(always)]
    fn store<const N: usize>(self, words: &[U32x16; 8], rows: &mut [[u8; N]], at: usize) {
        store_words(self, words, rows, at);
    }
    #[inline(always)]
    fn choose(self, alive: &[bool], new: &[U32x16; 8], old: &[U32x16; 8]) -> [U32x16; 8] {
        choose_words(self, alive, new, old)
    }
    #[inline(always)]
    fn compresses(self) -> bool {
        false
    }
    #[inline(always)]
    fn compress(self, _: &mut [U32x16; 8], _: &[U32x16; 16]) {
        unreachable!("SHA-256 is computed from words here");
    }
    #[inline(always)]
    fn compress_known(self, _: &mut [U32x16; 8], _: &[u8; 64], _: &[u32; 64]) {
        unreachable!("SHA-256 is computed from words here");
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
            Self(unsafe { _mm512_ternarylogic_epi32::<$table>(self.0, b.0, c.0) })
        }
    };
}

impl BitXor for U32x16 {
    type Output = Self;
    op!(bitxor(other) = _mm512_xor_si512);
}

impl BitAnd for U32x16 {
    type Output = Self;
    op!(bitand(other) = _mm512_and_si512);
}

impl Lanes for U32x16 {
    #[inline(always)]
    fn to_be(self) -> Self {
        self.shuffle([3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12])
    }
    op!(wrapping_add(other) = _mm512_add_epi32);
    #[inline(always)]
    fn shr<const BITS: i32>(self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe { _mm512_srl_epi32(self.0, _mm_cvtsi32_si128(BITS)) })
    }
    #[inline(always)]
    fn rotr<const BITS: i32>(self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe { _mm512_ror_epi32::<BITS>(self.0) })
    }
    ternary!(xor3, 0x96);
    ternary!(choose, 0xCA);
    ternary!(majority, 0xE8);

    // MSan cannot follow this one instruction, and takes it for a branch: under it, these say the same in several.
    #[inline(always)]
    #[cfg(interlane_msan)]
    fn xor3(self, b: Self, c: Self) -> Self {
        self ^ b ^ c
    }
    #[inline(always)]
    #[cfg(interlane_msan)]
    fn choose(self, yes: Self, no: Self) -> Self {
        no ^ (self & (yes ^ no))
    }
    #[inline(always)]
    #[cfg(interlane_msan)]
    fn majority(self, b: Self, c: Self) -> Self {
        b ^ ((self ^ b) & (c ^ b))
    }
}

impl Pieces<Avx512> for U32x16 {
    #[inline(always)]
    fn from_words(_: Avx512, words: &[u32; 16]) -> Self {
        // SAFETY: the token proves the features; `words` is one whole readable vector.
        Self(unsafe { _mm512_loadu_si512(words.as_ptr().cast()) })
    }
    #[inline(always)]
    fn from_pieces(_: Avx512, [a, b, c, d]: [&[u8; 16]; 4]) -> Self {
        // SAFETY: the token proves the features; each piece has 16 readable bytes.
        unsafe {
            let low = _mm256_inserti128_si256::<1>(
                _mm256_castsi128_si256(_mm_loadu_si128(a.as_ptr().cast())),
                _mm_loadu_si128(b.as_ptr().cast()),
            );
            let high = _mm256_inserti128_si256::<1>(
                _mm256_castsi128_si256(_mm_loadu_si128(c.as_ptr().cast())),
                _mm_loadu_si128(d.as_ptr().cast()),
            );
            Self(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high))
        }
    }
    #[inline(always)]
    fn to_pieces(self, to: [Option<&mut [u8; 16]>; 4]) {
        // SAFETY: a value of this type exists only where the features do.
        let pieces = unsafe {
            [
                _mm512_castsi512_si128(self.0),
                _mm512_extracti32x4_epi32::<1>(self.0),
                _mm512_extracti32x4_epi32::<2>(self.0),
                _mm512_extracti32x4_epi32::<3>(self.0),
            ]
        };
        for (to, piece) in to.into_iter().zip(pieces) {
            if let Some(to) = to {
                // SAFETY: a value of this type exists only where the features do; `to` has 16 writable bytes.
                unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), piece) };
            }
        }
    }
    #[inline(always)]
    fn splat_piece(_: Avx512, piece: &[u8; 16]) -> Self {
        // SAFETY: the token proves the features; `piece` has 16 readable bytes.
        Self(unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(piece.as_ptr().cast())) })
    }
    #[inline(always)]
    fn from_bytes(_: Avx512, bytes: &[u8]) -> Self {
        let bytes: &[u8; 64] = bytes.first_chunk().expect("a vector of bytes");
        // SAFETY: the token proves the features; `bytes` is one whole readable vector.
        Self(unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) })
    }
    #[inline(always)]
    fn to_bytes(self, bytes: &mut [u8]) {
        let bytes: &mut [u8; 64] = bytes.first_chunk_mut().expect("a vector of bytes");
        // SAFETY: a value of this type exists only where the features do; `bytes` is one whole writable vector.
        unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), self.0) };
    }
    #[inline(always)]
    fn everywhere(self, piece: usize) -> Self {
        let low = 2 * piece as i64;
        // SAFETY: a value of this type exists only where the features do.
        unsafe {
            let order = _mm512_broadcast_i32x4(_mm_set_epi64x(low + 1, low));
            Self(_mm512_permutexvar_epi64(order, self.0))
        }
    }
    #[inline(always)]
    fn join([a, b, c, d]: [Self; 4]) -> [Self; 4] {
        // SAFETY: a value of this type exists only where the features do.
        unsafe {
            let ab = _mm512_shuffle_i32x4::<0b10_00_10_00>(a.0, b.0);
            let cd = _mm512_shuffle_i32x4::<0b10_00_10_00>(c.0, d.0);
            let ab_odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(a.0, b.0);
            let cd_odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(c.0, d.0);
            [
                Self(_mm512_shuffle_i32x4::<0b10_00_10_00>(ab, cd)),
                Self(_mm512_shuffle_i32x4::<0b10_00_10_00>(ab_odd, cd_odd)),
                Self(_mm512_shuffle_i32x4::<0b11_01_11_01>(ab, cd)),
                Self(_mm512_shuffle_i32x4::<0b11_01_11_01>(ab_odd, cd_odd)),
            ]
        }
    }
    #[inline(always)]
    fn transpose([a, b, c, d]: [Self; 4]) -> [Self; 4] {
        // SAFETY: a value of this type exists only where the features do.
        unsafe {
            let ab = _mm512_unpacklo_epi32(a.0, b.0);
            let cd = _mm512_unpacklo_epi32(c.0, d.0);
            let ab_high = _mm512_unpackhi_epi32(a.0, b.0);
            let cd_high = _mm512_unpackhi_epi32(c.0, d.0);
            [
                Self(_mm512_unpacklo_epi64(ab, cd)),
                Self(_mm512_unpackhi_epi64(ab, cd)),
                Self(_mm512_unpacklo_epi64(ab_high, cd_high)),
                Self(_mm512_unpackhi_epi64(ab_high, cd_high)),
            ]
        }
    }
    #[inline(always)]
    fn shuffle(self, order: [u8; 16]) -> Self {
        // SAFETY: a value of this type exists only where the features do; `order` has 16 readable bytes.
        unsafe {
            let order = _mm512_broadcast_i32x4(_mm_loadu_si128(order.as_ptr().cast()));
            Self(_mm512_shuffle_epi8(self.0, order))
        }
    }
    op!(aes_round(key) = _mm512_aesenc_epi128);
    op!(aes_last(key) = _mm512_aesenclast_epi128);
    op!(aes_inverse_round(key) = _mm512_aesdec_epi128);
    op!(aes_inverse_last(key) = _mm512_aesdeclast_epi128);
    op!(clmul_low(other) = _mm512_clmulepi64_epi128::<0x00>);
    op!(clmul_high(other) = _mm512_clmulepi64_epi128::<0x11>);
    op!(clmul_low_high(other) = _mm512_clmulepi64_epi128::<0x10>);
}
