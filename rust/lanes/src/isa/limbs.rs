//! A 64-bit limb of each row: multiplications.

use super::words::Words;
use core::ops::{Add, BitAnd};

/// What an instruction set offers for numbers of more than one word.
pub trait Limbs: Words {
    /// Whether it multiplies 52 bits by 52 ([`Limb::madd52_low`]); else 32 by 32 ([`Limb::mul32`]).
    const MADD52: bool;
    /// A limb of each of `WIDTH / 2` rows.
    type U64: Limb;

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
/// `+` and `shl` must lose nothing, and a multiplication must be given no more bits than it reads: vectors do not look,
/// intervals in a test do.
pub trait Limb: Copy + Add<Output = Self> + BitAnd<Output = Self> {
    /// `limb` in every lane; `self` only proves the instruction set.
    #[must_use]
    fn fill(self, limb: u64) -> Self;
    /// Times a power of 2.
    #[must_use]
    fn shl<const BITS: u32>(self) -> Self;
    /// Shifted right, zeros coming in.
    #[must_use]
    fn shr<const BITS: u32>(self) -> Self;
    /// `yes` in the lanes whose bits are all set, `no` in those where none is.
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

    /// The low bits.
    #[inline(always)]
    #[must_use]
    fn low<const BITS: u32>(self) -> Self {
        self & self.fill((1 << BITS) - 1)
    }
}
