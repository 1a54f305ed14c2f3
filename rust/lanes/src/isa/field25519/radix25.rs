//! Ten limbs of 26 and 25 bits in turn (radix 2^25.5), for instruction sets with a 32-bit widening multiply.
//! Limbs of `Fe25` are below `TIGHT`, of a product below `PRODUCT`.

use super::{Field, times19};
use crate::isa::{Eight, Limb};
use core::ops::{Add, Sub};

/// What limbs of an element are below.
pub const TIGHT: [u64; 2] = [1 << 26, (1 << 25) + (1 << 16)];
/// What limbs of a product are below.
pub const PRODUCT: [u64; 2] = [((1 << 26) - 19) << 34, ((1 << 25) - 1) << 34];
/// Bits of limb i, and below it.
const fn bits(i: usize) -> u32 {
    26 - i as u32 % 2
}

const fn weight(i: usize) -> u32 {
    (51 * i as u32).div_ceil(2)
}

/// The body once for each number, in the source: LLVM gives up unrolling at a few hundred instructions, and a loop left
/// rolled keeps its limbs in memory, tenfold slower.
macro_rules! unroll {
    ($i:ident in [$($n:literal)*] $body:block) => { $({ let $i: usize = $n; $body })* };
}

/// An element in each lane.
#[derive(Clone, Copy, Debug)]
pub struct Fe25<V>([V; 10]);
/// A product, or the sum or difference of two, in each lane.
#[derive(Clone, Copy, Debug)]
pub struct Loose25<V>([V; 10]);

impl<V: Limb> Add for Loose25<V> {
    type Output = Self;
    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        for i in 0..10 {
            self.0[i] = self.0[i] + other.0[i];
        }
        self
    }
}

impl<V: Limb> Sub for Loose25<V> {
    type Output = Self;
    /// Adds 2^34 p first, so that no limb goes below zero.
    #[inline(always)]
    fn sub(mut self, other: Self) -> Self {
        for i in 0..10 {
            let p = (1 << bits(i)) - if i == 0 { 19 } else { 1 };
            self.0[i] = self.0[i] + (self.0[i].fill(p << 34) - other.0[i]);
        }
        self
    }
}

impl<V: Limb> Field for Fe25<V> {
    type Limb = V;
    type Loose = Loose25<V>;
    const LIMBS: usize = 10;
    #[inline(always)]
    fn unpack(words: [V; 4]) -> Self {
        let mut x = [words[0]; 10];
        for i in 0..10 {
            let (word, bit) = (weight(i) as usize / 64, weight(i) % 64);
            x[i] = words[word].shr(bit).low(bits(i));
            if bit + bits(i) > 64 {
                x[i] = x[i] + words[word + 1].low(bit + bits(i) - 64).shl(64 - bit);
            }
        }
        Self(x)
    }
    #[inline(always)]
    fn pack(self) -> [V; 4] {
        let mut x = Self::carry(self.loose()).0;
        // The value is below 2p: it is at least p just if adding 19 carries out of bit 255.
        let mut carry = x[0].fill(19);
        for i in 0..10 {
            carry = (x[i] + carry).shr(bits(i));
        }
        carry = times19(carry);
        for i in 0..10 {
            let sum = x[i] + carry;
            x[i] = sum.low(bits(i));
            carry = sum.shr(bits(i));
        }
        let mut words = [x[0].fill(0); 4];
        for i in 0..10 {
            let (word, bit) = (weight(i) as usize / 64, weight(i) % 64);
            if bit + bits(i) > 64 {
                words[word] = words[word] + x[i].low(64 - bit).shl(bit);
                words[word + 1] = x[i].shr(64 - bit);
            } else {
                words[word] = words[word] + x[i].shl(bit);
            }
        }
        words
    }
    #[inline(always)]
    fn fill(like: V, number: u64) -> Self {
        let mut x = [like.fill(0); 10];
        x[0] = like.fill(number & ((1 << 26) - 1));
        x[1] = like.fill(number >> 26);
        Self(x)
    }
    /// Column by column: one accumulator at a time leaves registers for the limbs where there are only sixteen.
    /// Limbs i and j meet in column i + j, twice where both are odd (each weighs half a bit more than 25.5 i), and 19
    /// times ten columns lower where i + j passes 10.
    #[inline(always)]
    fn mul(self, other: Self) -> Loose25<V> {
        let (a, b) = (self.0, other.0);
        let (mut a2, mut b19, mut z) = (a, b, [a[0].fill(0); 10]);
        for i in 0..10 {
            a2[i] = a[i] + a[i];
            b19[i] = b[i].mul32(b[i].fill(19));
        }
        unroll!(k in [0 1 2 3 4 5 6 7 8 9] {
            for i in 0..10 {
                let j = (k + 10 - i) % 10;
                let left = if i % 2 + j % 2 == 2 { a2[i] } else { a[i] };
                let right = if i + j < 10 { b[j] } else { b19[j] };
                z[k] = z[k] + left.mul32(right);
            }
        });
        Loose25(z)
    }
    #[inline(always)]
    fn square(self) -> Loose25<V> {
        let a = self.0;
        let (mut a2, mut a4, mut a19, mut z) = (a, a, a, [a[0].fill(0); 10]);
        for i in 0..10 {
            a2[i] = a[i] + a[i];
            a4[i] = a2[i] + a2[i];
            a19[i] = a[i].mul32(a[i].fill(19));
        }
        unroll!(k in [0 1 2 3 4 5 6 7 8 9] {
            for i in 0..10 {
                let j = (k + 10 - i) % 10;
                if i <= j {
                    let left = match (i == j, i % 2 + j % 2 == 2) {
                        (true, false) => a[i],
                        (false, true) => a4[i],
                        _ => a2[i],
                    };
                    let right = if i + j < 10 { a[j] } else { a19[j] };
                    z[k] = z[k] + left.mul32(right);
                }
            }
        });
        Loose25(z)
    }
    #[inline(always)]
    fn scale(self, constant: u64) -> Loose25<V> {
        let mut z = self.0;
        for i in 0..10 {
            z[i] = z[i].mul32(z[i].fill(constant));
        }
        Loose25(z)
    }
    #[inline(always)]
    fn loose(self) -> Loose25<V> {
        Loose25(self.0)
    }
    /// Two chains of carries side by side, then the wrap.
    #[inline(always)]
    fn carry(Loose25(mut x): Loose25<V>) -> Self {
        unroll!(i in [0 4 1 5 2 6 3 7 4 8 9 0] {
            let carry = x[i].shr(bits(i));
            x[i] = x[i].low(bits(i));
            x[(i + 1) % 10] = x[(i + 1) % 10] + if i == 9 { times19(carry) } else { carry };
        });
        Self(x)
    }
    #[inline(always)]
    fn choose(bit: V, yes: Self, no: Self) -> Self {
        let mut x = no;
        for i in 0..10 {
            x.0[i] = bit.choose(yes.0[i], no.0[i]);
        }
        x
    }
    #[inline(always)]
    fn lookup(index: V, table: &[Eight]) -> Self {
        let mut x = Self([index; 10]);
        for i in 0..10 {
            x.0[i] = index.lookup(&table[i]);
        }
        x
    }
    #[inline(always)]
    fn limb(self, i: usize) -> V {
        self.0[i]
    }
}
