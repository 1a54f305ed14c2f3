//! 4 words a vector, which are a piece.

use super::{Neon, Tier};
use crate::isa::pieces::{choose_words, load_words, store_words};
use crate::isa::{Lanes, Part, Pieces, Words};
use core::arch::aarch64::*;
use core::marker::PhantomData;
use core::ops::{BitAnd, BitXor};

/// A 32-bit word of each of 4 rows.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct U32x4<T>(pub(super) uint32x4_t, PhantomData<T>);

impl<T> U32x4<T> {
    /// Only from another vector or a token: so a vector is proof of the tier, too.
    #[inline(always)]
    pub(super) fn new(words: uint32x4_t) -> Self {
        Self(words, PhantomData)
    }
    #[inline(always)]
    fn bytes(self) -> uint8x16_t {
        // SAFETY: a value of this type exists only where the features do.
        unsafe { vreinterpretq_u8_u32(self.0) }
    }
    #[inline(always)]
    fn of_bytes(bytes: uint8x16_t) -> Self {
        // SAFETY: bytes in a register come from a value of this type or a token.
        Self::new(unsafe { vreinterpretq_u32_u8(bytes) })
    }
}

impl<T: Tier> Words for Neon<T> {
    const WIDTH: usize = 4;
    type U32 = U32x4<T>;
    const GROUPS: usize = 4;
    type Groups<G: Copy> = [G; 4];

    #[inline(always)]
    fn groups<G: Copy>(self, item: G) -> [G; 4] {
        [item; 4]
    }
    #[inline(always)]
    fn call<P: Part<Self>>(self, part: P) -> P::Out {
        T::call(self, part)
    }
    #[inline(always)]
    fn splat(self, word: u32) -> U32x4<T> {
        // SAFETY: `self` proves that the features are present.
        U32x4::new(unsafe { vdupq_n_u32(word) })
    }
    #[inline(always)]
    fn load(self, rows: &[[u8; 32]]) -> [U32x4<T>; 8] {
        load_words(self, rows, 0)
    }
    #[inline(always)]
    fn load_blocks(self, rows: &[&[u8; 64]]) -> [U32x4<T>; 16] {
        load_words(self, rows, 0)
    }
    #[inline(always)]
    fn store<const N: usize>(self, words: &[U32x4<T>; 8], rows: &mut [[u8; N]], at: usize) {
        store_words(self, words, rows, at);
    }
    #[inline(always)]
    fn choose(self, alive: &[bool], new: &[U32x4<T>; 8], old: &[U32x4<T>; 8]) -> [U32x4<T>; 8] {
        choose_words(self, alive, new, old)
    }
    #[inline(always)]
    fn compresses(self) -> bool {
        T::COMPRESSES
    }
    #[inline(always)]
    fn compress(self, state: &mut [U32x4<T>; 8], block: &[U32x4<T>; 16]) {
        // SAFETY: `self` proves that the features are present.
        unsafe { T::compress(state, block) };
    }
    #[inline(always)]
    fn compress_known(self, state: &mut [U32x4<T>; 8], _: &[u8; 64], rounds: &[u32; 64]) {
        // SAFETY: `self` proves that the features are present.
        unsafe { T::compress_known(state, rounds) };
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

impl<T: Tier> BitXor for U32x4<T> {
    type Output = Self;
    op!(bitxor(other) = veorq_u32);
}

impl<T: Tier> BitAnd for U32x4<T> {
    type Output = Self;
    op!(bitand(other) = vandq_u32);
}

impl<T: Tier> Lanes for U32x4<T> {
    #[inline(always)]
    fn to_be(self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self::of_bytes(unsafe { vrev32q_u8(self.bytes()) })
    }
    op!(wrapping_add(other) = vaddq_u32);
    #[inline(always)]
    fn shr<const BITS: i32>(self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        Self::new(unsafe { vshrq_n_u32::<BITS>(self.0) })
    }
    #[inline(always)]
    fn rotr<const BITS: i32>(self) -> Self {
        // SAFETY: a value of this type exists only where the features do.
        unsafe {
            if BITS == 16 {
                return Self::new(vreinterpretq_u32_u16(vrev32q_u16(vreinterpretq_u16_u32(self.0))));
            }
            // The shift to the left is by a register in name only: its count is known, and becomes an immediate.
            Self::new(vsriq_n_u32::<BITS>(vshlq_u32(self.0, vdupq_n_s32(32 - BITS)), self.0))
        }
    }
    #[inline(always)]
    fn xor3(self, b: Self, c: Self) -> Self {
        self ^ b ^ c
    }
    op!(choose(yes, no) = vbslq_u32);
    #[inline(always)]
    fn majority(self, b: Self, c: Self) -> Self {
        // Where the first two differ, the third decides.
        (self ^ b).choose(c, b)
    }
}

impl<T: Tier> Pieces<Neon<T>> for U32x4<T> {
    #[inline(always)]
    fn from_words(_: Neon<T>, words: &[u32; 16]) -> Self {
        // SAFETY: the token proves the features; `words` has more than one whole readable vector.
        Self::new(unsafe { vld1q_u32(words.as_ptr()) })
    }
    #[inline(always)]
    fn from_pieces(_: Neon<T>, [piece, ..]: [&[u8; 16]; 4]) -> Self {
        // SAFETY: the token proves the features; a piece has 16 readable bytes.
        Self::of_bytes(unsafe { vld1q_u8(piece.as_ptr()) })
    }
    #[inline(always)]
    fn to_pieces(self, [piece, ..]: [Option<&mut [u8; 16]>; 4]) {
        if let Some(piece) = piece {
            // SAFETY: a value of this type exists only where the features do; `piece` has 16 writable bytes.
            unsafe { vst1q_u8(piece.as_mut_ptr(), self.bytes()) };
        }
    }
    #[inline(always)]
    fn splat_piece(_: Neon<T>, piece: &[u8; 16]) -> Self {
        // SAFETY: the token proves the features; `piece` has 16 readable bytes.
        Self::of_bytes(unsafe { vld1q_u8(piece.as_ptr()) })
    }
    #[inline(always)]
    fn from_bytes(isa: Neon<T>, bytes: &[u8]) -> Self {
        Self::splat_piece(isa, bytes.first_chunk().expect("a vector of bytes"))
    }
    #[inline(always)]
    fn to_bytes(self, bytes: &mut [u8]) {
        let bytes: &mut [u8; 16] = bytes.first_chunk_mut().expect("a vector of bytes");
        // SAFETY: a value of this type exists only where the features do; `bytes` is one whole writable vector.
        unsafe { vst1q_u8(bytes.as_mut_ptr(), self.bytes()) };
    }
    #[inline(always)]
    fn everywhere(self, piece: usize) -> Self {
        debug_assert_eq!(piece, 0, "a vector is one piece");
        self
    }
    #[inline(always)]
    fn join(places: [Self; 4]) -> [Self; 4] {
        places
    }
    #[inline(always)]
    fn transpose([a, b, c, d]: [Self; 4]) -> [Self; 4] {
        // SAFETY: a value of this type exists only where the features do.
        let [a, b, c, d] = unsafe { transpose([a.0, b.0, c.0, d.0]) };
        [Self::new(a), Self::new(b), Self::new(c), Self::new(d)]
    }
    #[inline(always)]
    fn shuffle(self, order: [u8; 16]) -> Self {
        // SAFETY: a value of this type exists only where the features do; `order` has 16 readable bytes.
        Self::of_bytes(unsafe { vqtbl1q_u8(self.bytes(), vld1q_u8(order.as_ptr())) })
    }
    #[inline(always)]
    fn aes_round(self, key: Self) -> Self {
        // SAFETY: a value of this type exists only where the tier's features do.
        Self::of_bytes(unsafe { T::aes::<false>(self.bytes()) }) ^ key
    }
    #[inline(always)]
    fn aes_last(self, key: Self) -> Self {
        // SAFETY: a value of this type exists only where the tier's features do.
        Self::of_bytes(unsafe { T::aes::<true>(self.bytes()) }) ^ key
    }
    #[inline(always)]
    fn aes_inverse_round(self, key: Self) -> Self {
        // SAFETY: a value of this type exists only where the tier's features do.
        Self::of_bytes(unsafe { T::aes_inverse::<false>(self.bytes()) }) ^ key
    }
    #[inline(always)]
    fn aes_inverse_last(self, key: Self) -> Self {
        // SAFETY: a value of this type exists only where the tier's features do.
        Self::of_bytes(unsafe { T::aes_inverse::<true>(self.bytes()) }) ^ key
    }
    #[inline(always)]
    fn clmul_low(self, other: Self) -> Self {
        // SAFETY: a value of this type exists only where the tier's features do.
        Self::of_bytes(unsafe { T::clmul::<false, false>(self.bytes(), other.bytes()) })
    }
    #[inline(always)]
    fn clmul_high(self, other: Self) -> Self {
        // SAFETY: a value of this type exists only where the tier's features do.
        Self::of_bytes(unsafe { T::clmul::<true, true>(self.bytes(), other.bytes()) })
    }
    #[inline(always)]
    fn clmul_low_high(self, other: Self) -> Self {
        // SAFETY: a value of this type exists only where the tier's features do.
        Self::of_bytes(unsafe { T::clmul::<false, true>(self.bytes(), other.bytes()) })
    }
}

/// The 4 × 4 words of a quad, transposed.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn transpose([a, b, c, d]: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
    let ab = vreinterpretq_u64_u32(vtrn1q_u32(a, b));
    let cd = vreinterpretq_u64_u32(vtrn1q_u32(c, d));
    let ab_odd = vreinterpretq_u64_u32(vtrn2q_u32(a, b));
    let cd_odd = vreinterpretq_u64_u32(vtrn2q_u32(c, d));
    [
        vreinterpretq_u32_u64(vtrn1q_u64(ab, cd)),
        vreinterpretq_u32_u64(vtrn1q_u64(ab_odd, cd_odd)),
        vreinterpretq_u32_u64(vtrn2q_u64(ab, cd)),
        vreinterpretq_u32_u64(vtrn2q_u64(ab_odd, cd_odd)),
    ]
}
