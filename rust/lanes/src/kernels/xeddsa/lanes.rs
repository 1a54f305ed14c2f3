//! XEdDSA (The XEdDSA and VXEdDSA Signature Schemes §2.4–2.5) in lanes: hashes, numbers mod `L`, points.
//!
//! A group of vectors takes each step together, so that its encodings share an inversion:
//!
//! ```text
//! sign     A = a B     R = r B                     verify     y = (u − 1)/(u + 1)     A = (x, y)     s B + h (−A)
//! ```

use super::{EncodeOwn, Expand, Expanded, NONCE_PREFIX, SIGN_BIT, Sign, UNKNOWN, Verify, s_of, signed};
use crate::isa::limbs::{load_limbs, store_limbs};
use crate::isa::{Field, Isa, Limb};
use crate::kernels::edwards25519::{
    Encoded, EvenX, GROUP, GROUP_ROWS, Inverses, Multiple, PlusBase, ProductPlus, Reduced, base_digits, digits,
    neutral, table,
};
use crate::kernels::sha512::{self, Hashed, NOTHING, Parts};
use crate::kernels::wipe;
use curve25519_dalek::scalar::clamp_integer;
use zeroize::Zeroizing;

impl EncodeOwn<'_> {
    #[inline(always)]
    pub(super) fn run_in_lanes<I: Isa>(self, isa: I) {
        let mut privates = Zeroizing::new([[0; 32]; GROUP_ROWS]);
        for (keys, out) in self.privates.chunks(GROUP * I::ROWS).zip(self.out.chunks_mut(GROUP * I::ROWS)) {
            for (private, key) in privates.iter_mut().zip(keys) {
                *private = clamp_integer(*key);
            }
            encode_base(isa, &privates[..keys.len()], out);
        }
    }
}

/// The encoding of `s B` for each `s` of a group.
#[inline(always)]
fn encode_base<I: Isa>(isa: I, scalars: &[[u8; 32]], out: &mut [[u8; 32]]) {
    let zero = I::Field::fill(isa.splat_limb(0), 0);
    let mut points = [[zero; 3]; GROUP];
    let mut rows = [[0; 32]; 8];
    for (point, scalars) in points.iter_mut().zip(scalars.chunks(I::ROWS)) {
        for (row, scalar) in rows.iter_mut().zip(scalars) {
            *row = base_digits(scalar);
        }
        let digits = load_limbs(isa, &rows[..scalars.len()]);
        *point = isa.call(PlusBase::<I> { point: neutral::<I::Field>(digits[0]), digits, table: table(isa) });
    }
    isa.call(Encoded { points: &points[..scalars.len().div_ceil(I::ROWS)], out });
    wipe(&mut rows, [0; 32]);
    // The points are what the encodings say, but in coordinates that tell about the scalar.
    wipe(&mut points, [zero; 3]);
}

/// SHA-512 mod `L` of up to `I::ROWS` messages, as little-endian words.
#[inline(always)]
fn hash<I: Isa>(isa: I, messages: &[Parts<'_>]) -> [I::U64; 4] {
    let mut digests = isa.call(Hashed(messages));
    let numbers = isa.call(Reduced(digests));
    wipe(&mut digests, isa.splat_limb(0));
    numbers
}

impl Sign<'_> {
    #[inline(always)]
    pub(super) fn run_in_lanes<I: Isa>(self, isa: I) {
        let n = self.out.len();
        let zero = isa.splat_limb(0);
        let mut privates = Zeroizing::new([[0; 32]; GROUP_ROWS]);
        let mut nonces = Zeroizing::new([[0; 32]; GROUP_ROWS]);
        let mut publics = [[0; 32]; GROUP_ROWS];
        let mut encoded = [[0; 32]; GROUP_ROWS];
        let mut numbers = [[[zero; 4]; 2]; GROUP];
        for first in (0..n).step_by(GROUP * I::ROWS) {
            let rows = first..n.min(first + GROUP * I::ROWS);
            let count = rows.len();
            let (messages, randoms) = (&self.messages[rows.clone()], &self.randoms[rows.clone()]);
            for (private, key) in privates.iter_mut().zip(&self.privates[rows.clone()]) {
                *private = clamp_integer(*key);
            }
            for (i, [a, r]) in numbers[..count.div_ceil(I::ROWS)].iter_mut().enumerate() {
                let lanes = i * I::ROWS..count.min((i + 1) * I::ROWS);
                let mut parts = [NOTHING; sha512::ROWS];
                for (parts, lane) in parts.iter_mut().zip(lanes.clone()) {
                    *parts = [&NONCE_PREFIX, &privates[lane], messages[lane], &randoms[lane]];
                }
                *a = load_limbs(isa, &privates[lanes.clone()]);
                *r = hash(isa, &parts[..lanes.len()]);
                store_limbs(isa, *r, &mut nonces[lanes]);
            }
            match self.encodings {
                Some(encodings) => publics[..count].copy_from_slice(&encodings[rows.clone()]),
                None => encode_base(isa, &privates[..count], &mut publics[..count]),
            }
            encode_base(isa, &nonces[..count], &mut encoded[..count]);
            for (i, &[a, r]) in numbers[..count.div_ceil(I::ROWS)].iter().enumerate() {
                let lanes = i * I::ROWS..count.min((i + 1) * I::ROWS);
                let mut parts = [NOTHING; sha512::ROWS];
                for (parts, lane) in parts.iter_mut().zip(lanes.clone()) {
                    *parts = [&encoded[lane], &publics[lane], messages[lane], &[]];
                }
                let h = hash(isa, &parts[..lanes.len()]);
                // What is signed with is public from here on.
                store_limbs(isa, isa.call(ProductPlus { a: h, b: a, c: r }), &mut nonces[lanes]);
            }
            for (((out, nonce), s), public) in self.out[rows].iter_mut().zip(&encoded).zip(&*nonces).zip(&publics) {
                out[..32].copy_from_slice(nonce);
                out[32..].copy_from_slice(s);
                out[63] |= public[31] & SIGN_BIT;
            }
        }
        wipe(&mut numbers, [[zero; 4]; 2]);
    }
}

/// `y` of each `A` of a group, from `u`, and whether `u` is −1: that has none. Whether `y` is one on the curve is for
/// [`EvenX`] to say.
#[inline(always)]
fn to_edwards<I: Isa>(isa: I, publics: &[[u8; 32]], out: &mut [[u8; 32]], none: &mut [bool]) {
    let one = I::Field::fill(isa.splat_limb(0), 1);
    let mut numerators = [one; GROUP];
    let mut denominators = [one; GROUP];
    let vectors = publics.len().div_ceil(I::ROWS);
    for (i, (publics, none)) in publics.chunks(I::ROWS).zip(none.chunks_mut(I::ROWS)).enumerate() {
        let u = I::Field::unpack(load_limbs(isa, publics));
        numerators[i] = I::Field::carry(u.loose() - one.loose());
        denominators[i] = I::Field::carry(u.loose() + one.loose());
        flags(isa, denominators[i].is_zero(), none);
    }
    isa.call(Inverses(&mut denominators[..vectors]));
    for ((rows, numerator), inverse) in out.chunks_mut(I::ROWS).zip(&numerators).zip(&denominators) {
        store_limbs(isa, numerator.times(*inverse).pack(), rows);
    }
}

#[inline(always)]
fn flags<I: Isa>(isa: I, bits: I::U64, flags: &mut [bool]) {
    let mut rows = [[0; 32]; 8];
    store_limbs(isa, [bits; 4], &mut rows[..I::ROWS]);
    for (flag, row) in flags.iter_mut().zip(rows) {
        *flag = row[0] == 1;
    }
}

/// The even `x` of each `y` of a vector, and whether there is one.
#[inline(always)]
fn even_x<I: Isa>(isa: I, y: I::Field, exist: &mut [bool]) -> I::Field {
    let (x, exists) = isa.call(EvenX(y));
    flags(isa, exists, exist);
    x
}

impl Expand<'_> {
    #[inline(always)]
    pub(super) fn run_in_lanes<I: Isa>(self, isa: I) {
        for (publics, out) in self.publics.chunks(GROUP * I::ROWS).zip(self.out.chunks_mut(GROUP * I::ROWS)) {
            let mut ys = [[0; 32]; GROUP_ROWS];
            let mut none = [false; GROUP_ROWS];
            to_edwards(isa, publics, &mut ys[..publics.len()], &mut none);
            let rows = ys[..publics.len()].chunks(I::ROWS).zip(none.chunks(I::ROWS)).zip(out.chunks_mut(I::ROWS));
            for ((ys, none), out) in rows {
                let mut xs = [[0; 32]; 8];
                let mut exist = [false; 8];
                let x = even_x(isa, I::Field::unpack(load_limbs(isa, ys)), &mut exist);
                store_limbs(isa, x.pack(), &mut xs[..ys.len()]);
                for (lane, out) in out.iter_mut().enumerate() {
                    *out = (exist[lane] && !none[lane]).then_some([ys[lane], xs[lane]]);
                }
            }
        }
    }
}

/// `A` of a vector of rows, `x` even, and whether there is one.
#[inline(always)]
fn kept<I: Isa>(isa: I, expanded: &[Expanded], exist: &mut [bool]) -> [I::Field; 2] {
    let (mut xs, mut ys) = ([[0; 32]; 8], [[0; 32]; 8]);
    let mut known = true;
    for (lane, [y, x]) in expanded.iter().enumerate() {
        (xs[lane], ys[lane]) = (*x, *y);
        known &= *x != UNKNOWN;
    }
    let y = I::Field::unpack(load_limbs(isa, &ys[..expanded.len()]));
    if known {
        exist.fill(true);
        [I::Field::unpack(load_limbs(isa, &xs[..expanded.len()])), y]
    } else {
        [even_x(isa, y, exist), y]
    }
}

impl Verify<'_> {
    /// Everything here is public.
    #[inline(always)]
    pub(super) fn run_in_lanes<I: Isa>(self, isa: I) {
        let n = self.ok.len();
        let zero = I::Field::fill(isa.splat_limb(0), 0);
        for first in (0..n).step_by(GROUP * I::ROWS) {
            let rows = first..n.min(first + GROUP * I::ROWS);
            let count = rows.len();
            let vectors = count.div_ceil(I::ROWS);
            let signatures = &self.signatures[rows.clone()];

            let mut points = [[zero; 3]; GROUP];
            let (mut ys, mut exist) = ([[0; 32]; GROUP_ROWS], [false; GROUP_ROWS]);
            if let Some(expanded) = self.expanded {
                let expanded = &expanded[rows.clone()];
                for (y, expanded) in ys.iter_mut().zip(expanded) {
                    *y = expanded[0];
                }
                let vectors = expanded.chunks(I::ROWS).zip(exist.chunks_mut(I::ROWS));
                for (point, (expanded, exist)) in points.iter_mut().zip(vectors) {
                    let [x, y] = kept(isa, expanded, exist);
                    *point = [x, y, zero];
                }
            } else {
                let mut none = [false; GROUP_ROWS];
                to_edwards(isa, &self.publics[rows.clone()], &mut ys[..count], &mut none);
                let vectors = ys[..count].chunks(I::ROWS).zip(exist.chunks_mut(I::ROWS));
                for (point, (ys, exist)) in points.iter_mut().zip(vectors) {
                    let y = I::Field::unpack(load_limbs(isa, ys));
                    *point = [even_x(isa, y, exist), y, zero];
                }
                for (exists, none) in exist.iter_mut().zip(none) {
                    *exists &= !none;
                }
            }

            let (mut encoded, mut s) = ([[0; 32]; GROUP_ROWS], [[0; 32]; GROUP_ROWS]);
            let mut signs = [[0; 16]; GROUP_ROWS];
            for (lane, signature) in signatures.iter().enumerate() {
                let Some(number) = s_of(signature) else {
                    exist[lane] = false;
                    continue;
                };
                encoded[lane] = signed(&ys[lane], signature);
                signs[lane][0] = signature[63] >> 7;
                s[lane] = base_digits(&number);
            }
            for (i, point) in points[..vectors].iter_mut().enumerate() {
                let lanes = i * I::ROWS..count.min((i + 1) * I::ROWS);
                let mut parts = [NOTHING; sha512::ROWS];
                for (parts, lane) in parts.iter_mut().zip(lanes.clone()) {
                    *parts = [&signatures[lane][..32], &encoded[lane], self.messages[first + lane], &[]];
                }
                let mut h = [[0; 32]; sha512::ROWS];
                store_limbs(isa, hash(isa, &parts[..lanes.len()]), &mut h[..lanes.len()]);
                for h in &mut h {
                    *h = digits(h);
                }
                let [x, y, _] = *point;
                // −A: its x is odd where that of A is to be even.
                let [sign, _] = load_limbs(isa, &signs[lanes.clone()]);
                let x = I::Field::choose(sign.low(1), x, x.negated());
                let multiple = Multiple::<I> { point: [x, y], digits: load_limbs(isa, &h[..lanes.len()]) };
                let digits = load_limbs(isa, &s[lanes]);
                *point = isa.call(PlusBase::<I> { point: isa.call(multiple), digits, table: table(isa) });
            }
            let mut nonces = [[0; 32]; GROUP_ROWS];
            isa.call(Encoded { points: &points[..vectors], out: &mut nonces[..count] });
            for (lane, signature) in signatures.iter().enumerate() {
                self.ok[first + lane] = exist[lane] && nonces[lane] == signature[..32];
            }
        }
    }
}
