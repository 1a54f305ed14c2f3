//! 8 words a vector, which are 2 pieces.

use super::{Avx2, align_stack, sha};
use crate::isa::pieces::{choose_words, load_words, store_words};
use crate::isa::{Lanes, Part, Pieces, Words};
use core::arch::x86_64::*;
use core::ops::{BitAnd, BitXor};

/// A 32-bit word of each of 8 rows.
#[derive(Clone, Copy, Debug)]
pub struct U32x8(pub(super) __m256i);

impl Words for Avx2 {
    const WIDTH: usize = 8;
    type U32 = U32x8;
    const GROUPS: usize = 2;
    type Groups<T: Copy> = [T; 2];

    #[inline(always)]
    fn groups<T: Copy>(self, item: T) -> [T; 2] {
        [item; 2]
    }
    #[inline(always)]
    fn call<P: Part<Self>>(self, part: P) -> P::Out {
        #[target_feature(enable = "avx2,fma,aes,pclmulqdq")]
        #[inline(never)]
        fn call<P: Part<Avx2>>(isa: Avx2, part: P) -> P::Out {
            align_stack();
            part.run(isa)
        }
        // SAFETY: `self` proves that the features are present.
        unsafe { call(self, part) }
    }
    #[inline(always)]
    fn splat(self, word: u32) -> U32x8 {
        // SAFETY: `self` proves that the features are present.
        U32x8(unsafe { _mm256_set1_epi32(word.cast_signed()) })
    }
    #[inline(always)]
    fn load(self, rows: &[[u8; 32]]) -> [U32x8; 8] {
        load_words(self, rows, 0)
    }
    #[inline(always)]
    fn load_blocks(self, rows: &[&[u8; 64]]) -> [U32x8; 16] {
        load_words(self, rows, 0)
    }
    #[inline(always)]
    fn store<const N: usize>(self, words: &[U32x8; 8], rows: &mut [[u8; N]], at: usize) {
        store_words(self, words, rows, at);
    }
    #[inline(always)]
    fn choose(self, alive: &[bool], new: &[U32x8; 8], old: &[U32x8; 8]) -> [U32x8; 8] {
        choose_words(self, alive, new, old)
    }
    #[inline(always)]
    fn compresses(self) -> bool {
        self.has_sha()
    }
    #[inline(always)]
    fn compress(self, state: &mut [U32x8; 8], block: &[U32x8; 16]) {
        assert!(self.has_sha(), "else SHA-256 is computed from words");
        // SAFETY: `self` proves that the features are present, and says that those of SHA are.
        unsafe { sha::compress(state, block) }
    }
    #[inline(always)]
    fn compress_known(self, state: &mut [U32x8; 8], _: &[u8; 64], rounds: &[u32; 64]) {
        assert!(self.has_sha(), "else SHA-256 is computed from words");
        // SAFETY: `self` proves that the features are present, and says that those of SHA are.
        unsafe { sha::compress_known(state, rounds) }
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
/// An AES instruction on both halves.
macro_rules! aes {
    ($name:ident, $round:ident) => {
        #[inline(always)]
        fn $name(self, key: Self) -> Self {
            // SAFETY: a value of this type exists only where the features do.
            unsafe {
                let low = $round(_mm256_castsi256_si128(self.0), _mm256_castsi256_si128(key.0));
                let high = $round(_mm256_extracti128_si256::<1>(self.0), _mm256_extracti128_si256::<1>(key.0));
                Self(_mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high))
            }
        }
    };
}

/// A product without carries on both halves.
macro_rules! clmul {
    ($name:ident, $halves:literal) => {
        #[inline(always)]
        fn $name(self, other: Self) -> Self {
            // SAFETY: a value of this type exists only where the features do.
            unsafe {
                let low =
                    _mm_clmulepi64_si128::<$halves>(_mm256_castsi256_si128(self.0), _mm256_castsi256_si128(other.0));
                let high = _mm_clmulepi64_si128::<$halves>(
                    _mm256_extracti128_si256::<1>(self.0),
                    _mm256_extracti128_si256::<1>(other.0),
                );
                Self(_mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high))
            }
        }
    };
}

impl BitXor for U32x8 {
    type Output = Self;
    op!(bitxor(other) = _mm256_xor_si256);
}

impl BitAnd for U32x8 {
    type Output = Self;
    op!(bitand(other) = _mm256_and_si256);
}

impl Lanes for U32x8 {
    #[inline(always)]
    fn to_be(self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe { shuffle(self.0, &[3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12]) })
    }
    op!(wrapping_add(other) = _mm256_add_epi32);
    #[inline(always)]
    fn shr<const BITS: i32>(self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe { _mm256_srl_epi32(self.0, _mm_cvtsi32_si128(BITS)) })
    }
    #[inline(always)]
    fn rotr<const BITS: i32>(self) -> Self {
        if BITS == 16 {
            return self.shuffle([2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13]);
        }
        if BITS == 24 {
            return self.shuffle([3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14]);
        }
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe {
            _mm256_or_si256(
                _mm256_srl_epi32(self.0, _mm_cvtsi32_si128(BITS)),
                _mm256_sll_epi32(self.0, _mm_cvtsi32_si128(32 - BITS)),
            )
        })
    }
    #[inline(always)]
    fn xor3(self, b: Self, c: Self) -> Self {
        self ^ b ^ c
    }
    #[inline(always)]
    fn choose(self, yes: Self, no: Self) -> Self {
        (self & (yes ^ no)) ^ no
    }
    #[inline(always)]
    fn majority(self, b: Self, c: Self) -> Self {
        (self & b) ^ (c & (self ^ b))
    }
}

/// The 4 × 4 words in each half, transposed.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn transpose([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let ab = _mm256_unpacklo_epi32(a, b);
    let cd = _mm256_unpacklo_epi32(c, d);
    let ab_high = _mm256_unpackhi_epi32(a, b);
    let cd_high = _mm256_unpackhi_epi32(c, d);
    [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// In each half: byte `i` becomes byte `order[i]`.
#[target_feature(enable = "avx2")]
#[inline]
fn shuffle(bytes: __m256i, order: &[u8; 16]) -> __m256i {
    // SAFETY: `order` has 16 readable bytes.
    let order = unsafe { _mm_loadu_si128(order.as_ptr().cast()) };
    _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(order))
}

impl Pieces<Avx2> for U32x8 {
    #[inline(always)]
    fn from_words(_: Avx2, words: &[u32; 16]) -> Self {
        // SAFETY: the token proves the features; `words` has more than one whole readable vector.
        Self(unsafe { _mm256_loadu_si256(words.as_ptr().cast()) })
    }
    #[inline(always)]
    fn from_pieces(_: Avx2, [low, high, ..]: [&[u8; 16]; 4]) -> Self {
        // SAFETY: the token proves the features; each piece has 16 readable bytes.
        Self(unsafe {
            _mm256_inserti128_si256::<1>(
                _mm256_castsi128_si256(_mm_loadu_si128(low.as_ptr().cast())),
                _mm_loadu_si128(high.as_ptr().cast()),
            )
        })
    }
    #[inline(always)]
    fn to_pieces(self, [low, high, ..]: [Option<&mut [u8; 16]>; 4]) {
        if let Some(low) = low {
            // SAFETY: a value of this type exists only where the features do; `low` has 16 writable bytes.
            unsafe { _mm_storeu_si128(low.as_mut_ptr().cast(), _mm256_castsi256_si128(self.0)) };
        }
        if let Some(high) = high {
            // SAFETY: as above.
            unsafe { _mm_storeu_si128(high.as_mut_ptr().cast(), _mm256_extracti128_si256::<1>(self.0)) };
        }
    }
    #[inline(always)]
    fn splat_piece(_: Avx2, piece: &[u8; 16]) -> Self {
        // SAFETY: the token proves the features; `piece` has 16 readable bytes.
        Self(unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(piece.as_ptr().cast())) })
    }
    #[inline(always)]
    fn from_bytes(_: Avx2, bytes: &[u8]) -> Self {
        let bytes: &[u8; 32] = bytes.first_chunk().expect("a vector of bytes");
        // SAFETY: the token proves the features; `bytes` is one whole readable vector.
        Self(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) })
    }
    #[inline(always)]
    fn to_bytes(self, bytes: &mut [u8]) {
        let bytes: &mut [u8; 32] = bytes.first_chunk_mut().expect("a vector of bytes");
        // SAFETY: a value of this type exists only where the features do; `bytes` is one whole writable vector.
        unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), self.0) };
    }
    #[inline(always)]
    fn everywhere(self, piece: usize) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe {
            if piece == 0 {
                _mm256_permute2x128_si256::<0x00>(self.0, self.0)
            } else {
                _mm256_permute2x128_si256::<0x11>(self.0, self.0)
            }
        })
    }
    #[inline(always)]
    fn join([a, b, c, d]: [Self; 4]) -> [Self; 4] {
        // SAFETY: a value of this type exists only where the features do.
        unsafe {
            [
                Self(_mm256_permute2x128_si256::<0x20>(a.0, b.0)),
                Self(_mm256_permute2x128_si256::<0x20>(c.0, d.0)),
                Self(_mm256_permute2x128_si256::<0x31>(a.0, b.0)),
                Self(_mm256_permute2x128_si256::<0x31>(c.0, d.0)),
            ]
        }
    }
    #[inline(always)]
    fn transpose([a, b, c, d]: [Self; 4]) -> [Self; 4] {
        // SAFETY: a value of this type exists only where the features do.
        let [a, b, c, d] = unsafe { transpose([a.0, b.0, c.0, d.0]) };
        [Self(a), Self(b), Self(c), Self(d)]
    }
    #[inline(always)]
    fn shuffle(self, order: [u8; 16]) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self(unsafe { shuffle(self.0, &order) })
    }
    aes!(aes_round, _mm_aesenc_si128);
    aes!(aes_last, _mm_aesenclast_si128);
    aes!(aes_inverse_round, _mm_aesdec_si128);
    aes!(aes_inverse_last, _mm_aesdeclast_si128);
    clmul!(clmul_low, 0x00);
    clmul!(clmul_high, 0x11);
    clmul!(clmul_low_high, 0x10);
}
