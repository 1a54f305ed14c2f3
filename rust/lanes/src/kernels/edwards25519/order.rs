//! Numbers mod `L`, the order of the base point of edwards25519 (RFC 8032 §5.1), in lanes, in constant time.
//!
//! A number is digits of 26 bits, whatever multiplies: that is little work next to any point. With `c = L − 2^252`, which has
//! 125 bits, and digits `x_i`,
//!
//! ```text
//! x = Σ x_i 2^(26 i) = Σ x_i (2^(26 i) mod L)  for i ≥ 10     y + 2^252 z = y − c z
//! ```
//!
//! Every digit stays at or above zero: to take one number from another, a multiple of `L` is added whose digits are large.

use super::L;
use crate::isa::{Isa, Limb, Part};
use crate::kernels::unrolled;

/// The number of 512 bits mod `L`; both as little-endian words.
pub(in crate::kernels) struct Reduced<V>(pub(in crate::kernels) [V; 8]);

impl<I: Isa> Part<I> for Reduced<I::U64> {
    type Out = [I::U64; 4];

    #[inline(always)]
    fn run(self, _: I) -> [I::U64; 4] {
        let mut x = [self.0[0]; 20];
        split(&self.0, &mut x);
        reduced(x)
    }
}

/// `a b + c mod L`, for numbers below 2^256.
pub(in crate::kernels) struct ProductPlus<V> {
    pub(in crate::kernels) a: [V; 4],
    pub(in crate::kernels) b: [V; 4],
    pub(in crate::kernels) c: [V; 4],
}

impl<I: Isa> Part<I> for ProductPlus<I::U64> {
    type Out = [I::U64; 4];

    #[inline(always)]
    fn run(self, isa: I) -> [I::U64; 4] {
        let zero = isa.splat_limb(0);
        let (mut a, mut b, mut x) = ([zero; 10], [zero; 10], [zero; 20]);
        split(&self.a, &mut a);
        split(&self.b, &mut b);
        split(&self.c, &mut x[..10]);
        unrolled!(FROM in [0 1 2 3 4 5 6 7 8 9] {
            for j in 0..10 {
                x[FROM + j] = x[FROM + j] + a[FROM].mul32(b[j]);
            }
        });
        for i in 0..19 {
            x[i + 1] = x[i + 1] + x[i].shr(BITS);
            x[i] = x[i].low(BITS);
        }
        reduced(x)
    }
}

/// Bits of a digit.
const BITS: u32 = 26;
/// Bits of the tenth digit below 2^252.
const LAST: u32 = 252 - 9 * BITS;

/// The digits of little-endian words.
#[inline(always)]
fn split<V: Limb>(words: &[V], x: &mut [V]) {
    for i in 0..x.len() {
        let (word, bit) = (BITS as usize * i / 64, BITS * i as u32 % 64);
        x[i] = words[word].shr(bit).low(BITS);
        if bit + BITS > 64 && word + 1 < words.len() {
            x[i] = x[i] + words[word + 1].low(bit + BITS - 64).shl(64 - bit);
        }
    }
}

/// The number mod `L`, as little-endian words.
#[inline(always)]
fn reduced<V: Limb>(x: [V; 20]) -> [V; 4] {
    let mut z = [x[0]; 10];
    z.copy_from_slice(&x[..10]);
    unrolled!(FROM in [0 1 2 3 4 5 6 7 8 9] {
        for j in 0..10 {
            z[j] = z[j] + x[10 + FROM].mul32(z[j].fill(POWERS[FROM][j]));
        }
    });
    carry(&mut z);
    // Below 2^32, as the last digits of the powers are at most 2^18.
    let high = z[9].shr(LAST);
    z[9] = z[9].low(LAST);
    // Below 2^157, and so below L: what is taken from z + L leaves it above zero, and below 2 L.
    let mut product = [high; 7];
    for j in 0..7 {
        product[j] = high.mul32(high.fill(C[j]));
    }
    for j in 0..6 {
        product[j + 1] = product[j + 1] + product[j].shr(BITS);
        product[j] = product[j].low(BITS);
    }
    for j in 0..10 {
        z[j] = z[j] + z[j].fill(LARGE[j]);
        if j < 7 {
            z[j] = z[j] - product[j];
        }
    }
    carry(&mut z);
    // 2^260 − L more pass 2^260 just if z is L or more.
    let mut less = z;
    for j in 0..10 {
        less[j] = less[j] + less[j].fill(BELOW[j]);
    }
    carry(&mut less);
    let over = less[9].shr(BITS);
    less[9] = less[9].low(LAST + 1);
    let mut words = [over.fill(0); 4];
    for i in 0..10 {
        let digit = over.choose(less[i], z[i]);
        let (word, bit) = (BITS as usize * i / 64, BITS * i as u32 % 64);
        if bit + BITS > 64 && word < 3 {
            words[word] = words[word] + digit.low(64 - bit).shl(bit);
            words[word + 1] = digit.shr(64 - bit);
        } else {
            words[word] = words[word] + digit.shl(bit);
        }
    }
    words
}

/// All digits but the last below 2^26.
#[inline(always)]
fn carry<V: Limb>(x: &mut [V; 10]) {
    for i in 0..9 {
        x[i + 1] = x[i + 1] + x[i].shr(BITS);
        x[i] = x[i].low(BITS);
    }
}

/// Ten digits of little-endian words.
const fn digits_of(words: [u64; 4]) -> [u64; 10] {
    let mut digits = [0; 10];
    let mut i = 0;
    while i < 260 {
        if i < 256 && words[i / 64] >> (i % 64) & 1 == 1 {
            digits[i / 26] |= 1 << (i % 26);
        }
        i += 1;
    }
    digits
}

/// The digits of 2^(260 + 26 i) mod `L`.
const POWERS: [[u64; 10]; 10] = {
    let mut powers = [[0; 10]; 10];
    let mut power = [1, 0, 0, 0];
    let mut bits = 0;
    while bits < 260 + 26 * 10 {
        if bits >= 260 && bits % 26 == 0 {
            powers[(bits - 260) / 26] = digits_of(power);
        }
        power = twice(power);
        bits += 1;
    }
    powers
};

/// `2 x mod L`, for an `x` below `L`.
const fn twice(x: [u64; 4]) -> [u64; 4] {
    let double = [x[0] << 1, x[1] << 1 | x[0] >> 63, x[2] << 1 | x[1] >> 63, x[3] << 1 | x[2] >> 63];
    let mut less = [0; 4];
    let mut borrow = false;
    let mut i = 0;
    while i < 4 {
        let (difference, under) = double[i].overflowing_sub(L[i]);
        let (difference, again) = difference.overflowing_sub(borrow as u64);
        (less[i], borrow) = (difference, under | again);
        i += 1;
    }
    if borrow { double } else { less }
}

/// The digits of `c`, and two for what a product carries.
const C: [u64; 7] = {
    let digits = digits_of([L[0], L[1], 0, 0]);
    [digits[0], digits[1], digits[2], digits[3], digits[4], 0, 0]
};

/// `L` in digits of 2^26 − 1 and more but for the last.
const LARGE: [u64; 10] = {
    let mut digits = digits_of(L);
    let mut i = 0;
    while i < 9 {
        // Lent by the next digit.
        digits[i] += (1 << 26) - if i == 0 { 0 } else { 1 };
        i += 1;
    }
    digits[9] -= 1;
    digits
};

/// 2^260 − L.
const BELOW: [u64; 10] = {
    let mut digits = digits_of(L);
    let mut i = 0;
    while i < 10 {
        digits[i] = (1 << 26) - 1 - digits[i];
        i += 1;
    }
    digits[0] += 1;
    digits
};

#[cfg(test)]
mod tests {
    use super::{L, ProductPlus, Reduced};
    use crate::isa::limbs::{load_limbs, store_limbs};
    use crate::isa::{Backend, Isa, Kernel, Portable, Step};
    use curve25519_dalek::Scalar;

    /// A number of 512 bits mod `L`, and `a b + c`, a row each.
    struct Numbers<'a> {
        wide: &'a [[u8; 64]],
        abc: [&'a [[u8; 32]]; 3],
        out: [&'a mut [[u8; 32]]; 2],
    }

    impl Kernel for Numbers<'_> {
        type Out = ();
        const STEP: Step = Step::Sign;

        fn rows(&self) -> usize {
            self.wide.len()
        }

        fn by_row(self, _: Portable) {
            let [reduced, sums] = self.out;
            for row in 0..self.wide.len() {
                let [a, b, c] = self.abc.map(|rows| Scalar::from_bytes_mod_order(rows[row]));
                reduced[row] = Scalar::from_bytes_mod_order_wide(&self.wide[row]).to_bytes();
                sums[row] = (a * b + c).to_bytes();
            }
        }

        #[inline(always)]
        fn in_lanes<I: Isa>(self, isa: I) {
            let [reduced, sums] = self.out;
            for first in (0..self.wide.len()).step_by(I::ROWS) {
                let rows = first..self.wide.len().min(first + I::ROWS);
                let [a, b, c] = self.abc.map(|all| load_limbs(isa, &all[rows.clone()]));
                let wide = isa.call(Reduced(load_limbs(isa, &self.wide[rows.clone()])));
                store_limbs(isa, wide, &mut reduced[rows.clone()]);
                store_limbs(isa, isa.call(ProductPlus { a, b, c }), &mut sums[rows]);
            }
        }
    }

    fn bytes(words: [u64; 4]) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        bytes
    }

    #[test]
    fn around_multiples_of_the_order() {
        let mut halves = vec![[0; 32], [0xff; 32], bytes([1, 0, 0, 0]), bytes([0, 0, 0, 1 << 63])];
        // L and its multiples up to 15, one less, one more; 2^252.
        let mut multiple = [0; 4];
        for _ in 0..15 {
            let mut carry = 0;
            for i in 0..4 {
                let sum = u128::from(multiple[i]) + u128::from(L[i]) + carry;
                (multiple[i], carry) = (sum as u64, sum >> 64);
            }
            let [low, rest @ ..] = multiple;
            for low in [low - 1, low, low + 1] {
                halves.push(bytes([low, rest[0], rest[1], rest[2]]));
            }
        }
        halves.push(bytes([0, 0, 0, 1 << 60]));
        // Every half with every half, and with a third.
        let n = halves.len() * halves.len();
        let (mut wide, mut abc) = (vec![[0; 64]; n], [const { Vec::new() }; 3]);
        for (row, wide) in wide.iter_mut().enumerate() {
            let (a, b) = (halves[row % halves.len()], halves[row / halves.len()]);
            wide[..32].copy_from_slice(&a);
            wide[32..].copy_from_slice(&b);
            for (all, number) in abc.iter_mut().zip([a, b, halves[(row * 7 + 3) % halves.len()]]) {
                all.push(number);
            }
        }
        let abc = abc.each_ref().map(Vec::as_slice);
        let run = |backend: Backend| {
            let (mut reduced, mut sums) = (vec![[0; 32]; n], vec![[0; 32]; n]);
            backend.run_in_lanes(Numbers { wide: &wide, abc, out: [&mut reduced, &mut sums] });
            (reduced, sums)
        };
        let right = run(Backend::portable());
        for backend in Backend::available() {
            assert!(run(backend) == right, "{}", backend.name());
        }
    }
}
