//! Multiples of the base point `B` of edwards25519 (RFC 8032 §5.1) in lanes, in constant time.
//!
//! A multiple is taken in signed odd digits. With `m = (s − 1)/2 + 2^255` for an odd `s`,
//!
//! ```text
//! s = Σ (2 m_j − 1) 2^j,  j < 256
//! ```
//!
//! so that four bits `w` of `m` are the digit `2 w − 15`, odd and never zero: one of eight points and a sign. A table holds
//! the eight for each of the 64 places, so there is nothing to double.

use super::powers::Inverses;
use super::{D2, DIGITS, GROUP, L, Multiple, Point, X, Y, added, constant, digits, sixteenfold};
use crate::isa::field25519::LIMBS;
use crate::isa::limbs::{load_limbs, store_limbs};
use crate::isa::{Eight, Field, Isa, Limb, Part};

/// `P + s B` as `X, Y, Z`.
pub(in crate::kernels) struct PlusBase<I: Isa> {
    /// `P`.
    pub(in crate::kernels) point: Point<I::Field>,
    /// What [`base_digits`] makes of `s`.
    pub(in crate::kernels) digits: [I::U64; 4],
    /// That of [`table`].
    pub(in crate::kernels) table: &'static [Eight],
}

/// `m` of an odd number that is `scalar` mod `L`, for a scalar below `2^255`: as good for multiples of the base point, whose
/// order is `L`, and for no other point.
#[inline]
pub(in crate::kernels) fn base_digits(scalar: &[u8; 32]) -> [u8; 32] {
    let mut s = [0; 4];
    for (word, bytes) in s.iter_mut().zip(scalar.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let even = (s[0] & 1).wrapping_sub(1);
    // What is behind the barrier cannot become a branch.
    zeroize::optimization_barrier(&even);
    let mut carry = false;
    for i in 0..4 {
        let (sum, over) = s[i].overflowing_add(L[i] & even);
        let (sum, again) = sum.overflowing_add(carry.into());
        (s[i], carry) = (sum, over | again);
    }
    let [a, b, c, d] = s;
    let m = [a >> 1 | b << 63, b >> 1 | c << 63, c >> 1 | d << 63, d >> 1 | 1 << 63];
    let mut digits = [0; 32];
    for (bytes, word) in digits.as_chunks_mut().0.iter_mut().zip(m) {
        *bytes = word.to_le_bytes();
    }
    digits
}

impl<I: Isa> Part<I> for PlusBase<I> {
    type Out = [I::Field; 3];

    #[inline(always)]
    fn run(self, _: I) -> [I::Field; 3] {
        let mut point = self.point;
        for i in 0..DIGITS {
            let digit = self.digits[i / 16].shr(i as u32 % 16 * 4).low(4);
            point = add_base::<I::Field>(point, digit, &self.table[i * 3 * LIMBS..]);
        }
        let [x, y, z, _] = point;
        [I::Field::carry(x), I::Field::carry(y), I::Field::carry(z)]
    }
}

/// Mixed addition. A secret digit looks up the whole of its place in the table.
#[inline(always)]
fn add_base<F: Field>([x, y, z, t]: Point<F>, digit: F::Limb, table: &[Eight]) -> Point<F> {
    let positive = digit.shr(3);
    let index = digit.low(3) ^ positive.choose(digit.fill(0), digit.fill(7));
    let sum = F::lookup(index, table);
    let difference = F::lookup(index, &table[LIMBS..]);
    let product = F::lookup(index, &table[2 * LIMBS..]);
    let a = F::carry(y - x).mul(F::choose(positive, difference, sum));
    let b = F::carry(y + x).mul(F::choose(positive, sum, difference));
    let c = F::carry(t).mul(product);
    added::<F>(a, b, c, z + z, positive)
}

/// For each digit's place `i` and odd `j` below 16 the point `16^i j B` as `y + x`, `y − x`, `2 d x y`, limb by limb, the
/// eight `j` in a row. Made at the first asking, in the limbs of the instruction set's field.
#[inline(always)]
pub(in crate::kernels) fn table<I: Isa>(isa: I) -> &'static [Eight] {
    I::Field::base_table().get_or_init(|| isa.call(Table))
}

/// The table, made.
struct Table;

impl<I: Isa> Part<I> for Table {
    type Out = Vec<Eight>;

    #[inline(always)]
    fn run(self, isa: I) -> Vec<Eight> {
        let like = isa.splat_limb(0);
        let (zero, d2) = (I::Field::fill(like, 0), constant::<I::Field>(like, &D2));
        let mut table = vec![Eight([0; 8]); DIGITS * 3 * LIMBS];
        let mut rows = [[0; 32]; 8];
        // A row is an odd j.
        for first in (0..8).step_by(I::ROWS) {
            for (lane, row) in rows[..I::ROWS].iter_mut().enumerate() {
                let mut odd = [0; 32];
                odd[0] = 2 * (first + lane) as u8 + 1;
                *row = digits(&odd);
            }
            let base = [constant(like, &X), constant(like, &Y)];
            let digits = load_limbs(isa, &rows[..I::ROWS]);
            let mut power = isa.call(Multiple::<I> { point: base, digits });
            for places in (0..DIGITS).step_by(GROUP) {
                let mut points = [[zero; 3]; GROUP];
                let mut inverses = [zero; GROUP];
                for (point, inverse) in points.iter_mut().zip(&mut inverses) {
                    *point = [I::Field::carry(power[0]), I::Field::carry(power[1]), I::Field::carry(power[2])];
                    *inverse = point[2];
                    power = isa.call(Sixteenfold(power));
                }
                isa.call(Inverses(&mut inverses));
                for (k, ([x, y, _], inverse)) in points.into_iter().zip(inverses).enumerate() {
                    let (x, y) = (x.times(inverse), y.times(inverse));
                    let sum = I::Field::carry(y.loose() + x.loose());
                    let difference = I::Field::carry(y.loose() - x.loose());
                    for (i, element) in [sum, difference, x.times(y).times(d2)].into_iter().enumerate() {
                        for limb in 0..LIMBS {
                            store_limbs(isa, [element.limb(limb); 4], &mut rows[..I::ROWS]);
                            let at = ((places + k) * 3 + i) * LIMBS + limb;
                            for (lane, row) in rows[..I::ROWS].iter().enumerate() {
                                table[at].0[first + lane] = u64::from_le_bytes(*row.first_chunk().expect("8 bytes"));
                            }
                        }
                    }
                }
            }
        }
        table
    }
}

/// `16 P`.
struct Sixteenfold<L>([L; 4]);

impl<I: Isa> Part<I> for Sixteenfold<<I::Field as Field>::Loose> {
    type Out = Point<I::Field>;

    #[inline(always)]
    fn run(self, _: I) -> Point<I::Field> {
        sixteenfold::<I::Field>(self.0)
    }
}
