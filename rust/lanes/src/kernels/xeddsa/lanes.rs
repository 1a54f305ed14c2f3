//! XEdDSA (The XEdDSA and VXEdDSA Signature Schemes §2.4–2.5) with the points in lanes; hashes and numbers mod `L` take a
//! tenth of the time and stay a row at a time.
//!
//! A group of vectors takes each step together, so that its encodings share an inversion:
//!
//! ```text
//! sign     A = a B     R = r B                     verify     y = (u − 1)/(u + 1)     A = (x, y)     s B + h (−A)
//! ```

use super::{Encode, EncodeOwn, SIGN_BIT, Sign, Verify, hash, nonce, s_of, signed};
use crate::isa::limbs::{load_limbs, store_limbs};
use crate::isa::{Field, Isa, Limb};
use crate::kernels::edwards25519::{
    Decompress, Encoded, GROUP, GROUP_ROWS, Inverses, Multiple, PlusBase, base_digits, digits, neutral, table,
};
use crate::kernels::wipe;
use curve25519_dalek::Scalar;
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

impl Sign<'_> {
    #[inline(always)]
    pub(super) fn run_in_lanes<I: Isa>(self, isa: I) {
        let n = self.out.len();
        let mut privates = Zeroizing::new([[0; 32]; GROUP_ROWS]);
        let mut nonces = Zeroizing::new([[0; 32]; GROUP_ROWS]);
        let mut publics = [[0; 32]; GROUP_ROWS];
        let mut encoded = [[0; 32]; GROUP_ROWS];
        for first in (0..n).step_by(GROUP * I::ROWS) {
            let rows = first..n.min(first + GROUP * I::ROWS);
            let count = rows.len();
            for (lane, row) in rows.clone().enumerate() {
                privates[lane] = clamp_integer(self.privates[row]);
                let r = Zeroizing::new(nonce(&privates[lane], self.messages[row], &self.randoms[row]));
                nonces[lane] = *r.as_bytes();
            }
            match self.encodings {
                Some(encodings) => publics[..count].copy_from_slice(&encodings[rows.clone()]),
                None => encode_base(isa, &privates[..count], &mut publics[..count]),
            }
            encode_base(isa, &nonces[..count], &mut encoded[..count]);
            for (lane, row) in rows.enumerate() {
                let (nonce, public) = (&encoded[lane], &publics[lane]);
                let a = Zeroizing::new(Scalar::from_bytes_mod_order(privates[lane]));
                let r = Zeroizing::new(Scalar::from_bytes_mod_order(nonces[lane]));
                let s = *r + hash([nonce, public, self.messages[row], &[]]) * *a;
                let out = &mut self.out[row];
                out[..32].copy_from_slice(nonce);
                out[32..].copy_from_slice(s.as_bytes());
                out[63] |= public[31] & SIGN_BIT;
            }
        }
    }
}

/// The encoding of each `A`, its sign bit clear, and whether `u` is none of a point on the curve or its twist: it is then −1.
/// Whether it is one on the curve is for [`Decompress`] to say.
#[inline(always)]
fn encode_public<I: Isa>(isa: I, publics: &[[u8; 32]], out: &mut [[u8; 32]], none: &mut [bool]) {
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

/// `A` of each encoding of a vector, its true sign, and whether there is one.
#[inline(always)]
fn decompress<I: Isa>(isa: I, encodings: &[[u8; 32]], signs: &mut [bool], ok: &mut [bool]) -> [I::Field; 2] {
    let words = load_limbs(isa, encodings);
    let y = I::Field::unpack(words);
    let (x, sign, exists) = isa.call(Decompress::<I> { y, sign: words[3].shr(63) });
    flags(isa, sign, signs);
    flags(isa, exists, ok);
    [x, y]
}

impl Encode<'_> {
    #[inline(always)]
    pub(super) fn run_in_lanes<I: Isa>(self, isa: I) {
        let n = self.ok.len();
        for first in (0..n).step_by(GROUP * I::ROWS) {
            let rows = first..n.min(first + GROUP * I::ROWS);
            let (publics, out, ok) = (&self.publics[rows.clone()], &mut self.out[rows.clone()], &mut self.ok[rows]);
            let mut none = [false; GROUP_ROWS];
            let mut signs = [false; GROUP_ROWS];
            encode_public(isa, publics, out, &mut none);
            for (encodings, ok) in out.chunks(I::ROWS).zip(ok.chunks_mut(I::ROWS)) {
                decompress(isa, encodings, &mut signs, ok);
            }
            for ((out, ok), none) in out.iter_mut().zip(ok).zip(none) {
                *ok &= !none;
                if !*ok {
                    *out = [0; 32];
                }
            }
        }
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
            let signatures = &self.signatures[rows.clone()];
            let (mut none, mut signs, mut exists) = ([false; GROUP_ROWS], [false; GROUP_ROWS], [false; GROUP_ROWS]);

            let mut encoded = [[0; 32]; GROUP_ROWS];
            match self.encodings {
                Some(kept) => encoded[..count].copy_from_slice(&kept[rows.clone()]),
                None => encode_public(isa, &self.publics[rows.clone()], &mut encoded[..count], &mut none),
            }
            for (encoded, signature) in encoded.iter_mut().zip(signatures) {
                *encoded = signed(encoded, signature);
            }
            let mut points = [[zero; 3]; GROUP];
            let lanes = signs.chunks_mut(I::ROWS).zip(exists.chunks_mut(I::ROWS));
            for ((point, encoded), (signs, exists)) in
                points.iter_mut().zip(encoded[..count].chunks(I::ROWS)).zip(lanes)
            {
                let [x, y] = decompress(isa, encoded, signs, exists);
                *point = [x.negated(), y, zero];
            }

            let mut h = [[0; 32]; GROUP_ROWS];
            let mut s = [[0; 32]; GROUP_ROWS];
            for (lane, row) in rows.clone().enumerate() {
                let signature = &self.signatures[row];
                let Some(number) = s_of(signature) else {
                    exists[lane] = false;
                    continue;
                };
                exists[lane] &= !none[lane];
                if self.encodings.is_none() {
                    // Where x is zero, its sign is not the signature's.
                    encoded[lane][31] = encoded[lane][31] & !SIGN_BIT | u8::from(signs[lane]) << 7;
                }
                s[lane] = base_digits(&number);
                h[lane] = digits(hash([&signature[..32], &encoded[lane], self.messages[row], &[]]).as_bytes());
            }

            let vectors = count.div_ceil(I::ROWS);
            for (i, point) in points[..vectors].iter_mut().enumerate() {
                let lanes = i * I::ROWS..count.min((i + 1) * I::ROWS);
                let [x, y, _] = *point;
                let multiple = Multiple::<I> { point: [x, y], digits: load_limbs(isa, &h[lanes.clone()]) };
                let digits = load_limbs(isa, &s[lanes]);
                *point = isa.call(PlusBase::<I> { point: isa.call(multiple), digits, table: table(isa) });
            }
            let mut nonces = [[0; 32]; GROUP_ROWS];
            isa.call(Encoded { points: &points[..vectors], out: &mut nonces[..count] });
            for (lane, row) in rows.enumerate() {
                self.ok[row] = exists[lane] && nonces[lane] == self.signatures[row][..32];
            }
        }
    }
}
