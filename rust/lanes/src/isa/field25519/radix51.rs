//! Five limbs in radix 2^51, for instruction sets that multiply doubles, of 53 bits, and add with one rounding.
//!
//! A product of limbs is split at the nearest multiple of 2^51, so that the low part may be negative: sums begin at a
//! multiple of `p` that leaves them above zero.
//!
//! Limbs of `Fe51` are below `TIGHT`, of a product below `PRODUCT`, of what is carried below 5 * `PRODUCT`.

use super::{Field, LIMBS};
use crate::isa::{Eight, Limb};
use core::ops::{Add, Sub};
use std::sync::OnceLock;

/// What limbs of an element are below.
pub const TIGHT: [u64; 5] = [(1 << 51) + (19 << 12); 5];
/// What limbs of a product are below.
pub const PRODUCT: [u64; 5] = [((1 << 51) - 19) << 9; 5];
const MASK: u64 = (1 << 51) - 1;
/// What the sums of a product by doubles are above zero by, each.
const START: u64 = 1 << 53;

/// A limb of `p`.
const fn p(i: usize) -> u64 {
    MASK - if i == 0 { 18 } else { 0 }
}

/// An element in each lane.
#[derive(Clone, Copy, Debug)]
pub struct Fe51<V>([V; 5]);
sums!(Loose51, Above51);

impl<V: Limb> Field for Fe51<V> {
    elements!(Loose51, Above51);
    #[inline(always)]
    fn unpack([a, b, c, d]: [V; 4]) -> Self {
        Self([
            a.low(51),
            a.shr(51) + b.low(38).shl(13),
            b.shr(38) + c.low(25).shl(26),
            c.shr(25) + d.low(12).shl(39),
            d.shr(12).low(51),
        ])
    }
    #[inline(always)]
    fn pack(self) -> [V; 4] {
        let mut x = Self::carry(self.loose()).0;
        // The value is below 2p: it is at least p just if adding 19 carries out of bit 255.
        let mut carry = x[0].fill(19);
        for limb in x {
            carry = (limb + carry).shr(51);
        }
        carry = times19(carry);
        for limb in &mut x {
            let sum = *limb + carry;
            *limb = sum.low(51);
            carry = sum.shr(51);
        }
        [
            x[0] + x[1].low(13).shl(51),
            x[1].shr(13) + x[2].low(26).shl(38),
            x[2].shr(26) + x[3].low(39).shl(25),
            x[3].shr(39) + x[4].shl(12),
        ]
    }
    #[inline(always)]
    fn scaled(self, constant: u64, plus: Loose51<V>) -> Loose51<V> {
        let (a, factor) = (self.0, self.0[0].fill(constant));
        let mut z = a;
        for i in 0..5 {
            let high = factor.fill(below(V::ABOVE51, 0, 0, 1)).madd51_high(a[(i + 4) % 5], factor);
            let high = if i == 0 { times19(high) } else { high };
            z[i] = (high + factor.fill(below(V::ABOVE51, p(i), 1, 0))).madd51_low(a[i], factor);
        }
        Loose51(z) + plus
    }
    #[inline(always)]
    fn loose(self) -> Loose51<V> {
        Loose51(self.0)
    }
    /// All five carries at once: each limb keeps 51 bits and takes a few from its neighbour.
    #[inline(always)]
    fn carry(Loose51(z): Loose51<V>) -> Self {
        let mut x = z;
        for i in 0..5 {
            let carry = z[(i + 4) % 5].shr(51);
            x[i] = z[i].low(51) + if i == 0 { times19(carry) } else { carry };
        }
        Self(x)
    }
    #[inline(always)]
    fn limb(self, i: usize) -> V {
        self.0[i]
    }
}

/// Where a sum begins that is to be `start` more than `low` lower and `high` upper parts.
const fn below(above: [u64; 2], start: u64, low: u64, high: u64) -> u64 {
    start.wrapping_sub(above[0].wrapping_mul(low)).wrapping_sub(above[1].wrapping_mul(high))
}

/// Where column k of a product begins. What the columns end above zero by is 256 p, or 768 p, when 2^255 = 19 has been put
/// in.
const fn column<const ABOVE: bool>(above: [u64; 2], k: usize) -> u64 {
    let multiple = if ABOVE { 768 } else { 256 };
    let start = if k < 5 { p(k) * multiple - 19 * START } else { START };
    below(above, start, products(k), if k == 0 { 0 } else { products(k - 1) })
}

/// Products of column k.
const fn products(k: usize) -> u64 {
    [1, 2, 3, 4, 5, 4, 3, 2, 1, 0][k]
}

/// Column by column: two sums at a time leave registers for the limbs where there are only sixteen.
#[inline(always)]
fn product<V: Limb, const ABOVE: bool>(a: [V; 5], b: [V; 5]) -> Loose51<V> {
    let mut z = [a[0]; 10];
    for k in 0..10 {
        z[k] = a[0].fill(column::<ABOVE>(V::ABOVE51, k));
    }
    for k in 0..9 {
        for i in 0..5 {
            if i <= k && k - i < 5 {
                z[k] = z[k].madd51_low(a[i], b[k - i]);
                z[k + 1] = z[k + 1].madd51_high(a[i], b[k - i]);
            }
        }
    }
    fold(z)
}

/// Half a column begins at half of where the whole one does: an even number.
#[inline(always)]
fn square<V: Limb, const ABOVE: bool>(a: [V; 5]) -> Loose51<V> {
    let mut z = [a[0]; 10];
    for k in 0..10 {
        z[k] = a[0].fill(column::<ABOVE>(V::ABOVE51, k) / 2);
    }
    for k in 0..9 {
        for i in 0..5 {
            if 2 * i < k && k - i < 5 {
                z[k] = z[k].madd51_low(a[i], a[k - i]);
                z[k + 1] = z[k + 1].madd51_high(a[i], a[k - i]);
            }
        }
    }
    for i in 0..5 {
        z[2 * i] = z[2 * i].twice().madd51_low(a[i], a[i]);
        z[2 * i + 1] = z[2 * i + 1].twice().madd51_high(a[i], a[i]);
    }
    fold(z)
}

/// 2^255 = 19.
#[inline(always)]
fn fold<V: Limb>(z: [V; 10]) -> Loose51<V> {
    let mut x = [z[0]; 5];
    for i in 0..5 {
        x[i] = z[i] + times19(z[i + 5]);
    }
    Loose51(x)
}

/// Times 19.
#[inline(always)]
fn times19<V: Limb>(limb: V) -> V {
    limb + limb.shl(1) + limb.shl(4)
}
