//! GF(2^255 − 19) of each row: what curves need of a representation.
//!
//! Two provide it: [`radix52`] for instruction sets that multiply 52 bits by 52, [`radix51`] for those that multiply doubles.
//! An instruction set names the one that suits its multiplier.

use super::limbs::{Eight, Limb};
use core::ops::{Add, Sub};
use std::sync::OnceLock;

/// Products, whose limbs are added and taken away one by one, for a radix whose limbs of `p` are `p(i)`.
macro_rules! sums {
    ($loose:ident, $above:ident) => {
        /// A product, or the sum or difference of two, in each lane.
        #[derive(Clone, Copy, Debug)]
        pub struct $loose<V>(pub [V; LIMBS]);
        /// A product that began 512 p higher, in each lane.
        #[derive(Clone, Copy, Debug)]
        pub struct $above<V>($loose<V>);

        impl<V: Limb> Add for $loose<V> {
            type Output = Self;
            #[inline(always)]
            fn add(mut self, other: Self) -> Self {
                for i in 0..LIMBS {
                    self.0[i] = self.0[i] + other.0[i];
                }
                self
            }
        }

        impl<V: Limb> Sub for $loose<V> {
            type Output = Self;
            /// Adds 512 p first, so that no limb goes below zero.
            #[inline(always)]
            fn sub(mut self, other: Self) -> Self {
                for i in 0..LIMBS {
                    self.0[i] = self.0[i] + (self.0[i].fill(p(i) << 9) - other.0[i]);
                }
                self
            }
        }

        impl<V: Limb> Sub<$loose<V>> for $above<V> {
            type Output = $loose<V>;
            #[inline(always)]
            fn sub(mut self, other: $loose<V>) -> $loose<V> {
                for i in 0..LIMBS {
                    self.0.0[i] = self.0.0[i] - other.0[i];
                }
                self.0
            }
        }

        impl<V> From<$above<V>> for $loose<V> {
            #[inline(always)]
            fn from(above: $above<V>) -> Self {
                above.0
            }
        }
    };
}

/// What elements of limbs do alike: inside of `impl Field`, where `product` and `square` are of limbs of that radix.
macro_rules! elements {
    ($loose:ident, $above:ident) => {
        type Limb = V;
        type Loose = $loose<V>;
        type Above = $above<V>;
        #[inline(always)]
        fn of(limbs: [V; LIMBS]) -> Self {
            Self(limbs)
        }
        #[inline(always)]
        fn limbs(self) -> [V; LIMBS] {
            self.0
        }
        #[inline(always)]
        fn mul(self, other: Self) -> $loose<V> {
            product::<V, false>(self.0, other.0)
        }
        #[inline(always)]
        fn square(self) -> $loose<V> {
            square::<V, false>(self.0)
        }
        #[inline(always)]
        fn mul_above(self, other: Self) -> $above<V> {
            $above(product::<V, true>(self.0, other.0))
        }
        #[inline(always)]
        fn square_above(self) -> $above<V> {
            $above(square::<V, true>(self.0))
        }
        fn base_table() -> &'static OnceLock<Vec<Eight>> {
            static TABLE: OnceLock<Vec<Eight>> = OnceLock::new();
            &TABLE
        }
    };
}

pub mod radix51;
pub mod radix52;

/// Limbs of an element, in either radix.
pub const LIMBS: usize = 5;

/// An element in each lane, reduced enough to be multiplied. Products and their sums are `Loose` until carried.
pub trait Field: Copy {
    /// A limb of each row.
    type Limb: Limb;
    /// A product, the sum of two, or the difference of two (the one taken away being a product, not a sum).
    type Loose: Copy + Add<Output = Self::Loose> + Sub<Output = Self::Loose>;
    /// A product that begins so far above zero that another product can be taken from it as it is, which saves an addition a
    /// limb. It cannot be taken away itself.
    type Above: Copy + Into<Self::Loose> + Sub<Self::Loose, Output = Self::Loose>;

    /// Of its limbs.
    fn of(limbs: [Self::Limb; LIMBS]) -> Self;
    /// Its limbs, to choose between and put together again.
    fn limbs(self) -> [Self::Limb; LIMBS];
    /// From little-endian words of 64 bits; bit 255 is ignored (RFC 7748 §5).
    fn unpack(words: [Self::Limb; 4]) -> Self;
    /// The least representative, as little-endian words.
    fn pack(self) -> [Self::Limb; 4];
    /// The product.
    fn mul(self, other: Self) -> Self::Loose;
    /// The square.
    fn square(self) -> Self::Loose;
    /// The product, to take another from.
    fn mul_above(self, other: Self) -> Self::Above;
    /// The square, to take a product from.
    fn square_above(self) -> Self::Above;
    /// The product with a constant below 2^17, and a sum of two products at the most.
    fn scaled(self, constant: u64, plus: Self::Loose) -> Self::Loose;
    /// The same element.
    fn loose(self) -> Self::Loose;
    /// Reduced enough to be multiplied.
    fn carry(loose: Self::Loose) -> Self;
    /// One of its limbs, as a number.
    fn limb(self, i: usize) -> Self::Limb;
    /// Where the table of the base point is kept in limbs of this radix.
    fn base_table() -> &'static OnceLock<Vec<Eight>>;

    /// The same number below 2^51 in every lane.
    #[inline(always)]
    #[must_use]
    fn fill(like: Self::Limb, number: u64) -> Self {
        let zero = like.fill(0);
        Self::of([like.fill(number), zero, zero, zero, zero])
    }
    /// `yes` in the lanes where `bit` is 1, `no` where it is 0.
    #[inline(always)]
    #[must_use]
    fn choose(bit: Self::Limb, yes: Self, no: Self) -> Self {
        let (yes, mut limbs) = (yes.limbs(), no.limbs());
        for i in 0..LIMBS {
            limbs[i] = bit.choose(yes[i], limbs[i]);
        }
        Self::of(limbs)
    }
    /// `table[index]`, limb by limb.
    #[inline(always)]
    #[must_use]
    fn lookup(index: Self::Limb, table: &[Eight]) -> Self {
        let mut limbs = [index; LIMBS];
        for i in 0..LIMBS {
            limbs[i] = index.lookup(&table[i]);
        }
        Self::of(limbs)
    }
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
