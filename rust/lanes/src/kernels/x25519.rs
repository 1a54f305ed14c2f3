//! X25519 (RFC 7748 §5, §6.1).
//!
//! A public key is the coordinate `u` of a point of `v² = u³ + 486662 u² + u` over the integers mod `p = 2^255 − 19`. With
//! `k` a scalar of 32 bytes whose bits 0, 1, 2 and 255 are cleared and whose bit 254 is set,
//!
//! ```text
//! shared = u(k · P)     public = u(k · B)     u(B) = 9
//! ```
//!
//! The group has order `8 L` with `L` a prime near `2^252`: eight points, whose order divides 8, give an all-zero secret.

use super::edwards25519::{GROUP, Inverses, L, PlusBase, base_digits, neutral, table};
use super::{rows, wipe};
use crate::isa::limbs::{load_limbs, store_limbs};
use crate::isa::{Field, Isa, Kernel, Limb, Part, Portable, Step};
use crate::public;
use curve25519_dalek::MontgomeryPoint;
use curve25519_dalek::scalar::clamp_integer;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use graviola::key_agreement::x25519::{self as graviola_x25519, StaticPrivateKey};

/// The shared secret of each scalar and point.
pub struct Agree<'a> {
    /// Private keys, clamped here.
    pub scalars: &'a [[u8; 32]],
    /// Public keys; the top bit is ignored.
    pub points: &'a [[u8; 32]],
    /// Shared secrets; zero where not `ok`.
    pub out: &'a mut [[u8; 32]],
    /// Whether the secret is one: false where it is all zero, which the point alone decides.
    pub ok: &'a mut [bool],
}

/// The public key of each scalar.
pub struct PublicKey<'a> {
    /// Private keys, clamped here.
    pub scalars: &'a [[u8; 32]],
    /// Public keys.
    pub out: &'a mut [[u8; 32]],
}

/// Whether each point is one that an honest peer can have made: canonical (below `p`, top bit clear), not zero, on the
/// curve and not on its twist, and without a part of small order.
pub struct Canonical<'a> {
    /// Public keys.
    pub points: &'a [[u8; 32]],
    /// Whether each is such a point.
    pub ok: &'a mut [bool],
}

impl Kernel for Agree<'_> {
    type Out = ();
    const STEP: Step = Step::X25519;

    #[inline(always)]
    fn rows(&self) -> usize {
        self.out.len()
    }

    fn by_row(self, crates: Portable) {
        rows([self.scalars.len(), self.points.len(), self.out.len(), self.ok.len()]);
        for (((scalar, point), out), ok) in self.scalars.iter().zip(self.points).zip(self.out).zip(self.ok) {
            *out = agree(crates, scalar, point);
            *ok = any(out);
        }
    }

    #[inline(always)]
    fn in_lanes<I: Isa>(self, isa: I) {
        rows([self.scalars.len(), self.points.len(), self.out.len(), self.ok.len()]);
        quotients(isa, &Shared { scalars: self.scalars, points: self.points }, self.out);
        for (out, ok) in self.out.iter().zip(self.ok) {
            *ok = any(out);
        }
    }
}

impl Kernel for PublicKey<'_> {
    type Out = ();
    const STEP: Step = Step::X25519Base;

    #[inline(always)]
    fn rows(&self) -> usize {
        self.out.len()
    }

    fn by_row(self, crates: Portable) {
        rows([self.scalars.len(), self.out.len()]);
        for (scalar, out) in self.scalars.iter().zip(self.out) {
            *out = public_key(crates, scalar);
        }
    }

    #[inline(always)]
    fn in_lanes<I: Isa>(self, isa: I) {
        rows([self.scalars.len(), self.out.len()]);
        quotients(isa, &Public { scalars: self.scalars }, self.out);
    }
}

impl Kernel for Canonical<'_> {
    type Out = ();
    const STEP: Step = Step::Verify;

    #[inline(always)]
    fn rows(&self) -> usize {
        self.ok.len()
    }

    fn by_row(self, _: Portable) {
        rows([self.points.len(), self.ok.len()]);
        for (point, ok) in self.points.iter().zip(self.ok) {
            // Public keys are public: the checks may stop early.
            *ok = is_below_p(point)
                && *point != [0; 32]
                && MontgomeryPoint(*point).to_edwards(0).is_some_and(|point| point.is_torsion_free());
        }
    }

    /// `L P` by the ladder. On the curve it is zero just where `P` has no part of small order; on the twist, whose prime
    /// factor is another, nowhere.
    #[inline(always)]
    fn in_lanes<I: Isa>(self, isa: I) {
        rows([self.points.len(), self.ok.len()]);
        let order = [isa.splat_limb(L[0]), isa.splat_limb(L[1]), isa.splat_limb(L[2]), isa.splat_limb(L[3])];
        for (points, ok) in self.points.chunks(I::ROWS).zip(self.ok.chunks_mut(I::ROWS)) {
            let u = I::Field::unpack(load_limbs(isa, points));
            let (_, z) = isa.call(Ladder::<I> { scalar: order, highest: 252, lowest: 0, u });
            let mut none = [[0; 32]; 8];
            store_limbs(isa, [z.is_zero(); 4], &mut none[..I::ROWS]);
            for ((point, ok), none) in points.iter().zip(ok).zip(none) {
                *ok = none[0] == 1 && is_below_p(point) && *point != [0; 32];
            }
        }
    }
}

/// `p` is `7f ff … ff ed` from its most significant byte.
fn is_below_p(u: &[u8; 32]) -> bool {
    u[31] < 0x7f || u[31] == 0x7f && (u[1..31] != [0xff; 30] || u[0] < 0xed)
}

/// All zero for a point of small order.
#[inline]
fn agree(crates: Portable, scalar: &[u8; 32], point: &[u8; 32]) -> [u8; 32] {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if crates.graviola() {
        // The only error there is: the result is all zero.
        return match StaticPrivateKey::from_array(scalar).diffie_hellman(&graviola_x25519::PublicKey::from_array(point))
        {
            Ok(shared) => shared.0,
            Err(_) => [0; 32],
        };
    }
    MontgomeryPoint(*point).mul_clamped(*scalar).0
}

#[inline]
fn public_key(crates: Portable, scalar: &[u8; 32]) -> [u8; 32] {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if crates.graviola() {
        return StaticPrivateKey::from_array(scalar).public_key().as_bytes();
    }
    MontgomeryPoint::mul_base_clamped(*scalar).0
}

/// Whether a secret is not all zero. Every byte is looked at, so that time says no more about it than that.
#[inline(always)]
fn any(secret: &[u8; 32]) -> bool {
    let mut any = 0;
    for byte in secret {
        any |= byte;
    }
    public(any != 0)
}

// In lanes.

/// What a vector of rows comes to, as numerator and denominator. (A trait, not a closure: a closure is not compiled for
/// its caller's instruction set.)
trait Quotient {
    fn of<I: Isa>(&self, isa: I, first: usize, count: usize) -> (I::Field, I::Field);
}

struct Shared<'a> {
    scalars: &'a [[u8; 32]],
    points: &'a [[u8; 32]],
}

struct Public<'a> {
    scalars: &'a [[u8; 32]],
}

impl Quotient for Shared<'_> {
    #[inline(always)]
    fn of<I: Isa>(&self, isa: I, first: usize, count: usize) -> (I::Field, I::Field) {
        let rows = first..first + count;
        let scalar = clamp(load_limbs(isa, &self.scalars[rows.clone()]));
        let u = I::Field::unpack(load_limbs(isa, &self.points[rows]));
        isa.call(Ladder::<I> { scalar, highest: 254, lowest: 3, u })
    }
}

impl Quotient for Public<'_> {
    /// `u = (1 + y)/(1 − y)` of the point of edwards25519 (RFC 7748 §4.1).
    #[inline(always)]
    fn of<I: Isa>(&self, isa: I, first: usize, count: usize) -> (I::Field, I::Field) {
        let mut rows = [[0; 32]; 8];
        for (row, scalar) in rows.iter_mut().zip(&self.scalars[first..first + count]) {
            let mut scalar = clamp_integer(*scalar);
            *row = base_digits(&scalar);
            wipe(&mut scalar, 0);
        }
        let digits = load_limbs(isa, &rows[..count]);
        wipe(&mut rows, [0; 32]);
        let point = neutral::<I::Field>(digits[0]);
        let [_, y, z] = isa.call(PlusBase::<I> { point, digits, table: table(isa) });
        (I::Field::carry(z.loose() + y.loose()), I::Field::carry(z.loose() - y.loose()))
    }
}

/// RFC 7748 §5, decodeScalar25519.
#[inline(always)]
fn clamp<V: Limb>([a, b, c, d]: [V; 4]) -> [V; 4] {
    [a & a.fill(!7), b, c, (d & d.fill((1 << 62) - 1)) + d.fill(1 << 62)]
}

/// Numerator/denominator of each row, zero where the denominator is zero.
#[inline(always)]
fn quotients<I: Isa>(isa: I, of: &impl Quotient, out: &mut [[u8; 32]]) {
    let one = I::Field::fill(isa.splat_limb(0), 1);
    let mut numerators = [one; GROUP];
    let mut denominators = [one; GROUP];
    for (n, out) in out.chunks_mut(GROUP * I::ROWS).enumerate() {
        let first = n * GROUP * I::ROWS;
        let vectors = out.len().div_ceil(I::ROWS);
        for (i, rows) in out.chunks(I::ROWS).enumerate() {
            (numerators[i], denominators[i]) = of.of(isa, first + i * I::ROWS, rows.len());
        }
        isa.call(Inverses(&mut denominators[..vectors]));
        for ((rows, numerator), inverse) in out.chunks_mut(I::ROWS).zip(&numerators).zip(&denominators) {
            store_limbs(isa, numerator.times(*inverse).pack(), rows);
        }
    }
    wipe(&mut numerators, one);
    wipe(&mut denominators, one);
}

/// The Montgomery ladder (RFC 7748 §5), as `X, Z`.
struct Ladder<I: Isa> {
    /// Its bit `highest` is the highest that is 1; those below `lowest` are 0.
    scalar: [I::U64; 4],
    highest: usize,
    lowest: usize,
    /// The point.
    u: I::Field,
}

impl<I: Isa> Part<I> for Ladder<I> {
    type Out = (I::Field, I::Field);

    #[inline(always)]
    fn run(self, _: I) -> (I::Field, I::Field) {
        let Self { scalar, highest, lowest, u } = self;
        let unit = I::Field::fill(scalar[0], 1);
        let one = unit.loose();
        // P and Q differ by the point; the one that holds the next bit's side is doubled.
        let mut p = double(I::Field::carry(u.loose() + one), I::Field::carry(u.loose() - one));
        let mut q = (u.mul_above(unit), one);
        let mut previous = scalar[0].fill(1);
        for t in (lowest..highest).rev() {
            let bit = scalar[t / 64].shr(t as u32 % 64) & scalar[0].fill(1);
            (p, q) = step(bit ^ previous, p, q, u);
            previous = bit;
        }
        // The side of the lowest bit was doubled last: it is P where that bit is 0.
        let mut x = I::Field::choose(previous, I::Field::carry(q.0.into()), I::Field::carry(p.0.into()));
        let mut z = I::Field::choose(previous, I::Field::carry(q.1), I::Field::carry(p.1));
        for _ in 0..lowest {
            let doubled = double(I::Field::carry(x.loose() + z.loose()), I::Field::carry(x.loose() - z.loose()));
            (x, z) = (I::Field::carry(doubled.0.into()), I::Field::carry(doubled.1));
        }
        (x, z)
    }
}

/// X and Z.
type Ratio<F> = (<F as Field>::Above, <F as Field>::Loose);

/// `(2P, P + Q)`, or `(2Q, P + Q)` where `swap` is 1. The sum is the same either way, so only the doubling is picked.
#[inline(always)]
fn step<F: Field>(swap: F::Limb, p: Ratio<F>, q: Ratio<F>, u: F) -> (Ratio<F>, Ratio<F>) {
    let (a, b) = (F::carry(p.0.into() + p.1), F::carry(p.0 - p.1));
    let (c, d) = (F::carry(q.0.into() + q.1), F::carry(q.0 - q.1));
    let (da, cb) = (d.mul_above(a), c.mul(b));
    let x = F::carry(da.into() + cb).square_above();
    let z = u.mul(F::carry(F::carry(da - cb).square()));
    (double(F::choose(swap, c, a), F::choose(swap, d, b)), (x, z))
}

/// 2P from X + Z and X − Z.
#[inline(always)]
fn double<F: Field>(sum: F, difference: F) -> Ratio<F> {
    let (aa, bb) = (sum.square_above(), difference.square());
    let e = F::carry(aa - bb);
    (F::carry(aa.into()).mul_above(F::carry(bb)), e.mul(F::carry(e.scaled(121_665, aa.into()))))
}
