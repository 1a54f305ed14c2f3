//! A 64-bit limb of each row: numbers of more than one word, for curves and Poly1305; and the words of SHA-512.

use super::field25519::Field;
use super::pieces::Pieces;
use super::words::Words;
use core::ops::{Add, BitAnd, BitXor, Sub};

/// What an instruction set offers for numbers of more than one word.
pub trait Limbs: Words {
    /// Whether it multiplies 52 bits by 52 ([`Limb::madd52_low`]); else doubles ([`Limb::madd51_low`]), and 32 bits by 32
    /// ([`Limb::mul32`]).
    const MADD52: bool;
    /// Rows of half a group, which a vector has a limb of each of.
    const ROWS: usize = Self::WIDTH / 2;
    /// A limb of each of `ROWS` rows.
    type U64: Limb;
    /// An element of GF(2^255 − 19) of each, in limbs of as many bits as its multiplier suits.
    type Field: Field<Limb = Self::U64>;

    /// The same limb in every lane.
    fn splat_limb(self, limb: u64) -> Self::U64;
    /// The lower and the upper 8 bytes of each piece of two vectors, as little-endian numbers. Which lane has which piece
    /// is for the instruction set to choose, and always the same.
    fn limbs(self, pieces: [Self::U32; 2]) -> [Self::U64; 2];
    /// The other way.
    fn pieces(self, limbs: [Self::U64; 2]) -> [Self::U32; 2];
}

/// A limb of each row of half a group.
///
/// `+`, `-` and `shl` must lose nothing, and a multiplication must be given no more bits than it reads: vectors do not look,
/// intervals in a test do.
pub trait Limb: Copy + Add<Output = Self> + Sub<Output = Self> + BitAnd<Output = Self> + BitXor<Output = Self> {
    /// `limb` in every lane; `self` only proves the instruction set.
    #[must_use]
    fn fill(self, limb: u64) -> Self;
    /// Times a power of 2.
    #[must_use]
    fn shl(self, bits: u32) -> Self;
    /// Shifted right, zeros coming in.
    #[must_use]
    fn shr(self, bits: u32) -> Self;
    /// `yes` in the lanes where `self` is 1, `no` where it is 0.
    #[must_use]
    fn choose(self, yes: Self, no: Self) -> Self;
    /// The product of 32 bits by 32.
    #[must_use]
    fn mul32(self, other: Self) -> Self;
    /// `self` plus the low 52 bits of the product of 52 bits by 52.
    #[must_use]
    fn madd52_low(self, a: Self, b: Self) -> Self;
    /// `self` plus the bits of the product above those.
    #[must_use]
    fn madd52_high(self, a: Self, b: Self) -> Self;

    /// `self` plus the product of a number of at most 52 bits with a factor, which has no more bits than that either.
    #[inline(always)]
    #[must_use]
    fn plus52(self, number: Self, factor: u64) -> Self {
        self.madd52_low(number, self.fill(factor))
    }
    /// The low 52 bits, to be multiplied 52 bits by 52 or chosen between, and nothing else: an instruction set that reads no
    /// more leaves the others where they are.
    #[inline(always)]
    #[must_use]
    fn factor52(self) -> Self {
        self.low(52)
    }

    /// What [`Limb::madd51_low`] and [`Limb::madd51_high`] add besides, modulo 2^64: a sum begins below zero by as much.
    const ABOVE51: [u64; 2];
    /// `self` plus what the product of two numbers, below 2^51.4 each, is more than the multiple of 2^51 nearest to it: from
    /// −2^50 to 2^50.
    #[must_use]
    fn madd51_low(self, a: Self, b: Self) -> Self;
    /// `self` plus that multiple, over 2^51.
    #[must_use]
    fn madd51_high(self, a: Self, b: Self) -> Self;

    /// Twice as much, modulo 2^64: of such a sum that is still below zero.
    #[inline(always)]
    #[must_use]
    fn twice(self) -> Self {
        self + self
    }

    /// The low bits.
    #[inline(always)]
    #[must_use]
    fn low(self, bits: u32) -> Self {
        self & self.fill((1 << bits) - 1)
    }

    // What SHA-512 computes with: words, whose operations may lose bits. Said here by such as lose none, for whoever looks;
    // an instruction set has its own.

    /// The sum modulo 2^64.
    #[inline(always)]
    #[must_use]
    fn wrapping_add(self, other: Self) -> Self {
        (self.low(63) + other.low(63)) ^ ((self ^ other) & self.fill(1 << 63))
    }
    /// Turned right.
    #[inline(always)]
    #[must_use]
    fn rotr<const BITS: i32>(self) -> Self {
        self.shr(BITS.cast_unsigned()) ^ self.low(BITS.cast_unsigned()).shl(64 - BITS.cast_unsigned())
    }
    /// `self ^ b ^ c`.
    #[inline(always)]
    #[must_use]
    fn xor3(self, b: Self, c: Self) -> Self {
        self ^ b ^ c
    }
    /// Bit by bit: `yes` where `self` is set, else `no`.
    #[inline(always)]
    #[must_use]
    fn select(self, yes: Self, no: Self) -> Self {
        (self & (yes ^ no)) ^ no
    }
    /// Bit by bit: what two of the three say.
    #[inline(always)]
    #[must_use]
    fn majority(self, b: Self, c: Self) -> Self {
        (self & b) ^ (c & (self ^ b))
    }
    /// Between a big-endian number and the limb of its bytes, as `u64::swap_bytes` does.
    #[inline(always)]
    #[must_use]
    fn swap_bytes(self) -> Self {
        let words = self.shr(32) ^ self.low(32).shl(32);
        let (halves, bytes) = (self.fill(0x0000_ffff_0000_ffff), self.fill(0x00ff_00ff_00ff_00ff));
        let words = (words.shr(16) & halves) ^ (words & halves).shl(16);
        (words.shr(8) & bytes) ^ (words & bytes).shl(8)
    }
    /// `table[self]` in each lane, `self < 8`; no address depends on `self`.
    #[inline(always)]
    #[must_use]
    fn lookup(self, table: &Eight) -> Self {
        let mut level = [self; 8];
        for i in 0..8 {
            level[i] = self.fill(table.0[i]);
        }
        for depth in 0..3 {
            let bit = self.shr(depth).low(1);
            for pair in 0..4 >> depth {
                level[pair] = bit.choose(level[2 * pair + 1], level[2 * pair]);
            }
        }
        level[0]
    }
}

/// Eight limbs to look up from, placed so that a vector loads them at once.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Eight(pub [u64; 8]);

/// The first bytes of up to half a group of rows, as little-endian limbs; lanes without a row are zero.
#[inline(always)]
pub(crate) fn load_limbs<I, R, const LIMBS: usize>(isa: I, rows: &[R]) -> [I::U64; LIMBS]
where
    I: Limbs<U32: Pieces<I>>,
    R: AsRef<[u8]>,
{
    const { assert!(LIMBS.is_multiple_of(2)) };
    assert!(rows.len() <= I::ROWS, "half a group");
    let quarter = I::WIDTH / 4;
    let mut limbs = [isa.splat_limb(0); LIMBS];
    for half in 0..LIMBS / 2 {
        let mut pieces = [[&[0; 16]; 4]; 2];
        for lane in 0..I::ROWS {
            if let Some(row) = rows.get(lane) {
                pieces[lane / quarter][lane % quarter] = row.as_ref()[16 * half..].first_chunk().expect("16 bytes");
            }
        }
        let [low, high] = isa.limbs([I::U32::from_pieces(isa, pieces[0]), I::U32::from_pieces(isa, pieces[1])]);
        (limbs[2 * half], limbs[2 * half + 1]) = (low, high);
    }
    limbs
}

/// The other way; lanes without a row are lost.
#[inline(always)]
pub(crate) fn store_limbs<I, R, const LIMBS: usize>(isa: I, limbs: [I::U64; LIMBS], rows: &mut [R])
where
    I: Limbs<U32: Pieces<I>>,
    R: AsMut<[u8]>,
{
    const { assert!(LIMBS.is_multiple_of(2)) };
    assert!(rows.len() <= I::ROWS, "half a group");
    for half in 0..LIMBS / 2 {
        let pieces = isa.pieces([limbs[2 * half], limbs[2 * half + 1]]);
        for (pieces, rows) in pieces.into_iter().zip(rows.chunks_mut(I::WIDTH / 4)) {
            let mut to = [const { None }; 4];
            for (to, row) in to.iter_mut().zip(rows) {
                *to = Some(row.as_mut()[16 * half..].first_chunk_mut().expect("16 bytes"));
            }
            pieces.to_pieces(to);
        }
    }
}
