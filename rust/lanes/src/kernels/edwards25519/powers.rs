//! Inverses and roots in GF(2^255 − 19) (RFC 8032 §5.1.1), and what takes one: encoding and decoding points (§5.1.2, §5.1.3).
//!
//! With `p = 2^255 − 19` and `x² = u / v`:
//!
//! ```text
//! 1/z = z^(p − 2)     x = u v^3 (u v^7)^((p − 5) / 8)     v x² = u, or −u: then x takes a root of −1
//! ```
//!
//! Each square and product is called out of line: what takes 250 of them gains nothing from having them in the code.

use super::{D, GROUP, ROOT, constant};
use crate::isa::limbs::store_limbs;
use crate::isa::{Field, Isa, Limb, Part};
use crate::kernels::wipe;

/// The square of the square …
struct Squared<F>(F, u32);

impl<I: Isa> Part<I> for Squared<I::Field> {
    type Out = I::Field;

    #[inline(always)]
    fn run(self, _: I) -> I::Field {
        let Self(mut x, count) = self;
        for _ in 0..count {
            x = x.squared();
        }
        x
    }
}

struct Product<F>(F, F);

impl<I: Isa> Part<I> for Product<I::Field> {
    type Out = I::Field;

    #[inline(always)]
    fn run(self, _: I) -> I::Field {
        self.0.times(self.1)
    }
}

/// `x^11` and `x^(2^250 − 1)`: 249 squares, 10 products.
#[inline(always)]
fn powers<I: Isa>(isa: I, x: I::Field) -> [I::Field; 2] {
    let x2 = isa.call(Squared(x, 1));
    let x8 = isa.call(Squared(x2, 2));
    let x9 = isa.call(Product(x8, x));
    let x11 = isa.call(Product(x9, x2));
    let x22 = isa.call(Squared(x11, 1));
    // Of a number n of ones: from n ones to twice as many, and so on.
    let ones5 = isa.call(Product(x22, x9));
    let ones10 = longer(isa, ones5, 5, ones5);
    let ones20 = longer(isa, ones10, 10, ones10);
    let ones40 = longer(isa, ones20, 20, ones20);
    let ones50 = longer(isa, ones40, 10, ones10);
    let ones100 = longer(isa, ones50, 50, ones50);
    let ones200 = longer(isa, ones100, 100, ones100);
    [x11, longer(isa, ones200, 50, ones50)]
}

/// `x^(2^by) y`.
#[inline(always)]
fn longer<I: Isa>(isa: I, x: I::Field, by: u32, y: I::Field) -> I::Field {
    let x = isa.call(Squared(x, by));
    isa.call(Product(x, y))
}

/// The inverse of each, and zero of zero, by one inversion (Montgomery's trick). A zero is replaced by one first: else one
/// hostile row would spoil the rows that share its lane.
pub(in crate::kernels) struct Inverses<'a, F>(pub(in crate::kernels) &'a mut [F]);

impl<I: Isa> Part<I> for Inverses<'_, I::Field> {
    type Out = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let like = isa.splat_limb(0);
        let (zero, one) = (I::Field::fill(like, 0), I::Field::fill(like, 1));
        let mut none = [like; GROUP];
        let mut before = [one; GROUP];
        let mut product = one;
        for ((element, none), before) in self.0.iter_mut().zip(&mut none).zip(&mut before) {
            *none = element.is_zero();
            *element = I::Field::choose(*none, one, *element);
            *before = product;
            product = isa.call(Product(product, *element));
        }
        // p − 2 is 2^255 − 21.
        let [x11, ones250] = powers(isa, product);
        let mut inverse = longer(isa, ones250, 5, x11);
        for ((element, none), before) in self.0.iter_mut().zip(&none).zip(&before).rev() {
            let this = isa.call(Product(*before, inverse));
            inverse = isa.call(Product(inverse, *element));
            *element = I::Field::choose(*none, zero, this);
        }
        wipe(&mut before, one);
    }
}

/// The encoding (RFC 8032 §5.1.2) of each `X, Y, Z`, a row each.
pub(in crate::kernels) struct Encoded<'a, F> {
    /// At most a group of vectors.
    pub(in crate::kernels) points: &'a [[F; 3]],
    pub(in crate::kernels) out: &'a mut [[u8; 32]],
}

impl<I: Isa> Part<I> for Encoded<'_, I::Field> {
    type Out = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let one = I::Field::fill(isa.splat_limb(0), 1);
        let mut inverses = [one; GROUP];
        for (inverse, [_, _, z]) in inverses.iter_mut().zip(self.points) {
            *inverse = *z;
        }
        isa.call(Inverses(&mut inverses[..self.points.len()]));
        for ((rows, [x, y, _]), inverse) in self.out.chunks_mut(I::ROWS).zip(self.points).zip(&inverses) {
            let [x, ..] = isa.call(Product(*x, *inverse)).pack();
            let [a, b, c, d] = isa.call(Product(*y, *inverse)).pack();
            store_limbs(isa, [a, b, c, d + x.low(1).shl(63)], rows);
        }
        // An inverse with the coordinates, which tell about the scalar.
        wipe(&mut inverses, one);
    }
}

/// The even `x` of a point, from `y`, and 1 where there is such a point. Where there is none `x` is anything.
pub(in crate::kernels) struct EvenX<F>(pub(in crate::kernels) F);

impl<I: Isa> Part<I> for EvenX<I::Field> {
    type Out = (I::Field, I::U64);

    #[inline(always)]
    fn run(self, isa: I) -> Self::Out {
        let one = isa.splat_limb(1);
        let unit: I::Field = I::Field::fill(one, 1);
        let yy = isa.call(Squared(self.0, 1));
        let u = I::Field::carry(yy.loose() - unit.loose());
        let dyy = isa.call(Product(yy, constant(one, &D)));
        let v = I::Field::carry(dyy.loose() + unit.loose());
        let v3 = longer(isa, v, 1, v);
        let v7 = longer(isa, v3, 1, v);
        let uv3 = isa.call(Product(u, v3));
        let uv7 = isa.call(Product(u, v7));
        // (p − 5) / 8 is 2^252 − 3.
        let [_, ones250] = powers(isa, uv7);
        let power = longer(isa, ones250, 2, uv7);
        let x = isa.call(Product(uv3, power));
        let vxx = longer(isa, x, 1, v);
        let right = I::Field::carry(vxx.loose() - u.loose()).is_zero();
        let turned = I::Field::carry(vxx.loose() + u.loose()).is_zero();
        let x = I::Field::choose(right, x, isa.call(Product(x, constant(one, &ROOT))));
        let [low, ..] = x.pack();
        let x = I::Field::choose(low.low(1), x.negated(), x);
        (x, one ^ ((one ^ right) & (one ^ turned)))
    }
}
