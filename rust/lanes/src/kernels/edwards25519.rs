//! Points of edwards25519 (RFC 8032 §5.1) in lanes.
//!
//! ```text
//! −x² + y² = 1 + d x² y²     d = −121665/121666     B = (x, 4/5), x even
//! ```
//!
//! In extended coordinates `x = X/Z`, `y = Y/Z`, `x y = T/Z` one formula adds any two points (Hisil, Wong, Carter, Dawson
//! 2008, §3.1): it has no case that hostile points could pick. Parts that are only public, and so may be of any point, are
//! here; multiples of the base point, which are mostly secret, are in `base`; what takes an inverse or a root is in `powers`;
//! numbers mod the order of the base point are in `order`.

mod base;
mod order;
mod powers;

pub(super) use base::{PlusBase, base_digits, table};
pub(super) use order::{ProductPlus, Reduced};
pub(super) use powers::{Encoded, EvenX, Inverses};

use crate::isa::{Field, Isa, Limb, Part};

/// Vectors that share one inversion.
pub(super) const GROUP: usize = 8;
/// Rows of them, at the most.
pub(super) const GROUP_ROWS: usize = 8 * GROUP;

/// Digits of four bits in a number.
const DIGITS: usize = 64;

/// Extended coordinates `X, Y, Z, T`.
pub(super) type Point<F> = [<F as Field>::Loose; 4];

/// The order of the base point (RFC 8032 §5.1), little-endian words.
pub(super) const L: [u64; 4] = [0x5812_631a_5cf5_d3ed, 0x14de_f9de_a2f7_9cd6, 0, 0x1000_0000_0000_0000];

/// `d`, `2 d`, a root of −1, and the base point, little-endian words.
const D: [u64; 4] = [0x75eb_4dca_1359_78a3, 0x0070_0a4d_4141_d8ab, 0x8cc7_4079_7779_e898, 0x5203_6cee_2b6f_fe73];
const D2: [u64; 4] = [0xebd6_9b94_26b2_f159, 0x00e0_149a_8283_b156, 0x198e_80f2_eef3_d130, 0x2406_d9dc_56df_fce7];
const ROOT: [u64; 4] = [0xc4ee_1b27_4a0e_a0b0, 0x2f43_1806_ad2f_e478, 0x2b4d_0099_3dfb_d7a7, 0x2b83_2480_4fc1_df0b];
const X: [u64; 4] = [0xc956_2d60_8f25_d51a, 0x692c_c760_9525_a7b2, 0xc0a4_e231_fdd6_dc5c, 0x2169_36d3_cd6e_53fe];
const Y: [u64; 4] = [0x6666_6666_6666_6658, 0x6666_6666_6666_6666, 0x6666_6666_6666_6666, 0x6666_6666_6666_6666];

/// The words in every lane, as an element.
#[inline(always)]
fn constant<F: Field>(like: F::Limb, words: &[u64; 4]) -> F {
    F::unpack([like.fill(words[0]), like.fill(words[1]), like.fill(words[2]), like.fill(words[3])])
}

/// `0`.
#[inline(always)]
pub(super) fn neutral<F: Field>(like: F::Limb) -> Point<F> {
    let (zero, one) = (F::fill(like, 0).loose(), F::fill(like, 1).loose());
    [zero, one, one, zero]
}

/// The end of every addition: from `A` and `B`, a `C` that is yet to be negated where not `positive`, and `D`.
#[inline(always)]
fn added<F: Field>(a: F::Loose, b: F::Loose, c: F::Loose, d: F::Loose, positive: F::Limb) -> Point<F> {
    let (e, h) = (F::carry(b - a), F::carry(b + a));
    let (less, more) = (F::carry(d - c), F::carry(d + c));
    let (f, g) = (F::choose(positive, less, more), F::choose(positive, more, less));
    [e.mul(f), g.mul(h), f.mul(g), e.mul(h)]
}

/// A point ready to be added: `Y − X, Y + X, 2 d T, 2 Z`.
type Ready<F> = [F; 4];

#[inline(always)]
fn ready<F: Field>([x, y, z, t]: Point<F>, d2: F) -> Ready<F> {
    [F::carry(y - x), F::carry(y + x), F::carry(t).times(d2), F::carry(z + z)]
}

/// The sum where `positive`, else the difference.
#[inline(always)]
fn add<F: Field>([x, y, z, t]: Point<F>, [difference, sum, product, double]: Ready<F>, positive: F::Limb) -> Point<F> {
    let a = F::carry(y - x).mul(F::choose(positive, difference, sum));
    let b = F::carry(y + x).mul(F::choose(positive, sum, difference));
    let c = F::carry(t).mul(product);
    added::<F>(a, b, c, F::carry(z).mul(double), positive)
}

/// `16 P`; only the last doubling needs its `T`.
#[inline(always)]
fn sixteenfold<F: Field>([x, y, z, _]: Point<F>) -> Point<F> {
    let (mut x, mut y, mut z) = (F::carry(x), F::carry(y), F::carry(z));
    for _ in 0..3 {
        let [e, f, g, h] = doubled(x, y, z);
        (x, y, z) = (e.times(f), g.times(h), f.times(g));
    }
    let [e, f, g, h] = doubled(x, y, z);
    [e.mul(f), g.mul(h), f.mul(g), e.mul(h)]
}

/// `2 P` but for the last products: `E, F, G, H` of RFC 8032 §5.1.4, all four negated, which the products do not show.
#[inline(always)]
fn doubled<F: Field>(x: F, y: F, z: F) -> [F; 4] {
    let (a, b, zz) = (x.square(), y.square(), z.square());
    let sum = F::carry(x.loose() + y.loose()).square();
    [F::carry(a + b - sum), F::carry(a - b + (zz + zz)), F::carry(a - b), F::carry(a + b)]
}

/// `n P` for a point and a number `n` of each row's own; both are public.
pub(super) struct Multiple<I: Isa> {
    /// `P`, in affine coordinates.
    pub(super) point: [I::Field; 2],
    /// What [`digits`] makes of `n`.
    pub(super) digits: [I::U64; 4],
}

/// Sixteenths and eights: four bits `w` of `n + 88…8` are the digit `w − 8` of `n`. `n` is below 2^254: no carry is left.
#[inline]
pub(super) fn digits(n: &[u8; 32]) -> [u8; 32] {
    let mut digits = [0; 32];
    let mut carry = 0;
    for (digits, byte) in digits.iter_mut().zip(n) {
        let sum = u16::from(*byte) + 0x88 + carry;
        (*digits, carry) = (sum as u8, sum >> 8);
    }
    digits
}

impl<I: Isa> Part<I> for Multiple<I> {
    type Out = Point<I::Field>;

    #[inline(always)]
    fn run(self, _: I) -> Point<I::Field> {
        let [x, y] = self.point;
        let like = self.digits[0];
        let (yes, d2) = (like.fill(1), constant(like, &D2));
        let one: I::Field = I::Field::fill(like, 1);

        // 0, P, 2 P … 8 P.
        let mut multiple: Point<I::Field> = [x.loose(), y.loose(), one.loose(), x.mul(y)];
        let first = ready::<I::Field>(multiple, d2);
        let mut table =
            [ready::<I::Field>(neutral::<I::Field>(like), d2), first, first, first, first, first, first, first, first];
        for j in 2..9 {
            multiple = add::<I::Field>(multiple, first, yes);
            table[j] = ready::<I::Field>(multiple, d2);
        }

        let mut sum = neutral::<I::Field>(like);
        for i in (0..DIGITS).rev() {
            let digit = self.digits[i / 16].shr(i as u32 % 16 * 4).low(4);
            let positive = digit.shr(3);
            let index = positive.choose(digit.low(3), like.fill(8) - digit.low(3));
            sum = add::<I::Field>(sum, entry(index, &table), positive);
            if i > 0 {
                sum = sixteenfold::<I::Field>(sum);
            }
        }
        sum
    }
}

/// `table[index]`.
#[inline(always)]
fn entry<F: Field>(index: F::Limb, table: &[Ready<F>; 9]) -> Ready<F> {
    let (low, middle, high, last) = (index.low(1), index.shr(1).low(1), index.shr(2).low(1), index.shr(3));
    let mut out = table[8];
    for i in 0..4 {
        let a = F::choose(low, table[1][i], table[0][i]);
        let b = F::choose(low, table[3][i], table[2][i]);
        let c = F::choose(low, table[5][i], table[4][i]);
        let d = F::choose(low, table[7][i], table[6][i]);
        let below = F::choose(high, F::choose(middle, d, c), F::choose(middle, b, a));
        out[i] = F::choose(last, table[8][i], below);
    }
    out
}
