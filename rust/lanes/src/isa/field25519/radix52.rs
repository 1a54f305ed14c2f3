//! Five limbs in radix 2^52, for instruction sets that multiply and add 52 bits (IFMA).
//!
//! The low half of a product of limbs and the rest are limbs of two neighbouring columns as they are: neither is shifted. Of
//! 260 bits five are more than an element has; 2^260 = 608, and what is above 2^255 comes back 19 times when an
//! element is carried. A carry goes through all limbs, the highest first.
//!
//! Lower limbs of `Fe52` are below 2^52 for a multiplication, which reads no more, and are to be masked for anything else.

use super::{Field, LIMBS};
use crate::isa::{Eight, Limb};
use core::ops::{Add, Sub};
use std::sync::OnceLock;

/// What limbs of an element are below, once masked.
pub const TIGHT: [u64; 5] = [1 << 52, 1 << 52, 1 << 52, 1 << 52, (1 << 47) + (1 << 12)];
/// What limbs of a product are below.
pub const PRODUCT: [u64; 5] = [p(0) << 9, p(1) << 9, p(2) << 9, p(3) << 9, p(4) << 9];

/// A limb of `p`.
const fn p(i: usize) -> u64 {
    [(1 << 52) - 19, (1 << 52) - 1, (1 << 52) - 1, (1 << 52) - 1, (1 << 47) - 1][i]
}

/// An element in each lane.
#[derive(Clone, Copy, Debug)]
pub struct Fe52<V>([V; 5]);
sums!(Loose52, Above52);

impl<V: Limb> Field for Fe52<V> {
    elements!(Loose52, Above52);
    #[inline(always)]
    fn unpack([a, b, c, d]: [V; 4]) -> Self {
        Self([
            a.factor52(),
            a.shr(52) + b.low(40).shl(12),
            b.shr(40) + c.low(28).shl(24),
            c.shr(28) + d.low(16).shl(36),
            d.shr(16).low(47),
        ])
    }
    #[inline(always)]
    fn pack(self) -> [V; 4] {
        let Loose52(mut x) = Self::carry(self.loose()).loose();
        // The value is below 2p: it is at least p just if adding 19 carries out of bit 255.
        let mut carry = x[0].fill(19);
        for i in 0..5 {
            carry = (x[i] + carry).shr(bits(i));
        }
        carry = carry.fill(0).plus52(carry, 19);
        for i in 0..5 {
            let sum = x[i] + carry;
            x[i] = sum.low(bits(i));
            carry = sum.shr(bits(i));
        }
        [
            x[0] + x[1].low(12).shl(52),
            x[1].shr(12) + x[2].low(24).shl(40),
            x[2].shr(24) + x[3].low(36).shl(28),
            x[3].shr(36) + x[4].shl(16),
        ]
    }
    #[inline(always)]
    fn scaled(self, constant: u64, Loose52(mut z): Loose52<V>) -> Loose52<V> {
        let factor = z[0].fill(constant);
        for i in 0..4 {
            z[i + 1] = z[i + 1].madd52_high(self.0[i], factor);
        }
        z[0] = z[0].plus52(z[0].fill(0).madd52_high(self.0[4], factor), 608);
        for i in 0..5 {
            z[i] = z[i].madd52_low(self.0[i], factor);
        }
        Loose52(z)
    }
    #[inline(always)]
    fn loose(self) -> Loose52<V> {
        let [a, b, c, d, e] = self.0;
        Loose52([a.low(52), b.low(52), c.low(52), d.low(52), e])
    }
    #[inline(always)]
    fn carry(Loose52(z): Loose52<V>) -> Self {
        let a = z[0].plus52(z[4].shr(47), 19);
        let b = z[1] + a.shr(52);
        let c = z[2] + b.shr(52);
        let d = z[3] + c.shr(52);
        let e = z[4].low(47) + d.shr(52);
        Self([a.factor52(), b.factor52(), c.factor52(), d.factor52(), e])
    }
    #[inline(always)]
    fn limb(self, i: usize) -> V {
        self.loose().0[i]
    }
}

/// Of limb i in its least representative.
const fn bits(i: usize) -> u32 {
    if i == 4 { 47 } else { 52 }
}

/// Where column k begins: at zero, or at 512 p.
const fn start<const ABOVE: bool>(k: usize) -> u64 {
    if ABOVE { p(k) << 9 } else { 0 }
}

/// Column k of the product is the low halves with i + j = k and the high halves with i + j = k − 1. Those above 2^260 come
/// first: they are carried while the others are summed.
#[inline(always)]
fn product<V: Limb, const ABOVE: bool>(a: [V; 5], b: [V; 5]) -> Loose52<V> {
    let (mut z, mut upper) = ([a[0]; 5], [a[0].fill(0); 5]);
    for k in 0..5 {
        z[k] = a[0].fill(start::<ABOVE>(k));
    }
    for i in 0..5 {
        for j in 4 - i..5 {
            upper[i + j - 4] = upper[i + j - 4].madd52_high(a[i], b[j]);
            if i + j > 4 {
                upper[i + j - 5] = upper[i + j - 5].madd52_low(a[i], b[j]);
            }
        }
    }
    for i in 0..5 {
        for j in 0..5 - i {
            z[i + j] = z[i + j].madd52_low(a[i], b[j]);
            if i + j < 4 {
                z[i + j + 1] = z[i + j + 1].madd52_high(a[i], b[j]);
            }
        }
    }
    fold(z, upper)
}

/// What two limbs have together counts twice.
#[inline(always)]
fn square<V: Limb, const ABOVE: bool>(a: [V; 5]) -> Loose52<V> {
    let (mut z, mut upper) = ([a[0]; 5], [a[0].fill(0); 5]);
    z[0] = a[0].fill(start::<ABOVE>(0));
    for k in 1..5 {
        z[k] = a[0].fill(start::<ABOVE>(k) / 2);
    }
    for i in 1..5 {
        for j in 0..i {
            if i + j >= 4 {
                upper[i + j - 4] = upper[i + j - 4].madd52_high(a[i], a[j]);
            } else {
                z[i + j + 1] = z[i + j + 1].madd52_high(a[i], a[j]);
            }
            if i + j >= 5 {
                upper[i + j - 5] = upper[i + j - 5].madd52_low(a[i], a[j]);
            } else {
                z[i + j] = z[i + j].madd52_low(a[i], a[j]);
            }
        }
    }
    for k in 0..4 {
        upper[k] = upper[k] + upper[k];
        z[k + 1] = z[k + 1] + z[k + 1];
    }
    for i in 2..5 {
        upper[2 * i - 4] = upper[2 * i - 4].madd52_high(a[i], a[i]);
        z[2 * i - 4] = z[2 * i - 4].madd52_low(a[i - 2], a[i - 2]);
    }
    for i in 3..5 {
        upper[2 * i - 5] = upper[2 * i - 5].madd52_low(a[i], a[i]);
        z[2 * i - 5] = z[2 * i - 5].madd52_high(a[i - 3], a[i - 3]);
    }
    fold(z, upper)
}

/// 2^260 = 608.
#[inline(always)]
fn fold<V: Limb>(mut z: [V; 5], mut upper: [V; 5]) -> Loose52<V> {
    for k in 0..4 {
        upper[k + 1] = upper[k + 1] + upper[k].shr(52);
        let (limb, factor) = (upper[k].factor52(), z[k].fill(608));
        z[k] = z[k].madd52_low(limb, factor);
        z[k + 1] = z[k + 1].madd52_high(limb, factor);
    }
    z[4] = z[4].plus52(upper[4], 608);
    Loose52(z)
}
