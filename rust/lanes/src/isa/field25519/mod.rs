//! GF(2^255 − 19) of each row: what curves need of a representation.
//!
//! Two provide it: [`radix51`] for instruction sets that multiply 52 bits by 52, [`radix25`] for those that multiply 32 by
//! 32. An instruction set names the one that suits its multiplier.

use super::limbs::{Eight, Limb};
use core::ops::{Add, Sub};

pub mod radix25;
pub mod radix51;

/// An element in each lane, reduced enough to be multiplied. Products and their sums are `Loose` until carried.
pub trait Field: Copy {
    /// A limb of each row.
    type Limb: Limb;
    /// A product, the sum of two, or the difference of two (the one taken away being a product, not a sum).
    type Loose: Copy + Add<Output = Self::Loose> + Sub<Output = Self::Loose>;
    /// Limbs of an element.
    const LIMBS: usize;

    /// From little-endian words of 64 bits; bit 255 is ignored (RFC 7748 §5).
    fn unpack(words: [Self::Limb; 4]) -> Self;
    /// The least representative, as little-endian words.
    fn pack(self) -> [Self::Limb; 4];
    /// The same number below 2^51 in every lane.
    fn fill(like: Self::Limb, number: u64) -> Self;
    /// The product.
    fn mul(self, other: Self) -> Self::Loose;
    /// The square.
    fn square(self) -> Self::Loose;
    /// Product with a constant below 2^17.
    fn scale(self, constant: u64) -> Self::Loose;
    /// The same element.
    fn loose(self) -> Self::Loose;
    /// Reduced enough to be multiplied.
    fn carry(loose: Self::Loose) -> Self;
    /// `yes` in the lanes where `bit` is 1, `no` where it is 0.
    fn choose(bit: Self::Limb, yes: Self, no: Self) -> Self;
    /// `table[index]`, limb by limb.
    fn lookup(index: Self::Limb, table: &[Eight]) -> Self;
    /// One of its limbs.
    fn limb(self, i: usize) -> Self::Limb;

    /// The product, reduced.
    #[inline(always)]
    #[must_use]
    fn times(self, other: Self) -> Self {
        Self::carry(self.mul(other))
    }
    /// The square, reduced.
    #[inline(always)]
    #[must_use]
    fn squared(self) -> Self {
        Self::carry(self.square())
    }
    /// The element that is zero when added to it.
    #[inline(always)]
    #[must_use]
    fn negated(self) -> Self {
        Self::carry(Self::fill(self.limb(0), 0).loose() - self.loose())
    }
    /// 1 in the lanes where the element is zero.
    #[inline(always)]
    #[must_use]
    fn is_zero(self) -> Self::Limb {
        let mut halves = self.limb(0).fill(0);
        for word in self.pack() {
            halves = halves + word.low(32) + word.shr(32);
        }
        // Below 2^35.
        (halves + halves.fill((1 << 35) - 1)).shr(35) ^ halves.fill(1)
    }
}

/// Times 19, to fold what is above 2^255.
#[inline(always)]
fn times19<V: Limb>(limb: V) -> V {
    limb + limb.shl(1) + limb.shl(4)
}
