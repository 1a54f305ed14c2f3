//! XEdDSA over Curve25519 (The XEdDSA and VXEdDSA Signature Schemes §2.4–2.5), as deployed: the sign of `A` is not forced
//! to zero but kept in the signature.
//!
//! With `B` the base point of order `L` of edwards25519, `k` the clamped private key, `Z` 64 random bytes and `H` SHA-512:
//!
//! ```text
//! a = k mod L     A = a B
//! r = H(FE ‖ FF^31 ‖ k ‖ M ‖ Z) mod L     R = r B
//! h = H(R ‖ A ‖ M) mod L     s = r + h a mod L
//! signature = R ‖ s, the sign bit of A in the top bit of its last byte
//! ```
//!
//! To verify, take `A` from the Montgomery `u` and that sign bit, clear the bit, refuse an `s` of 2^253 and more, and
//! accept if and only if the encoding of `s B − h A` is `R`, byte for byte: no cofactor, and `s + L` passes where it is below
//! 2^253.
//!
//! Encoding a point takes an inversion in the field, a tenth of the time of a product `k P`: a tile shares one. Who uses
//! a key again keeps what was made of it: a signer the encoding of `A` ([`EncodeOwn`]), which saves one of two products; a
//! verifier `A` itself ([`Expand`]), which saves the way there from `u`: an inversion and a square root.

mod lanes;

use super::sha512::{Parts, by_crate};
use super::{rows, wipe};
use crate::isa::{Isa, Kernel, Portable, Step, TILE};
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::clamp_integer;
use curve25519_dalek::{EdwardsPoint, MontgomeryPoint, Scalar};
use zeroize::Zeroizing;

/// What is kept of an X25519 public key: `y` of its `A`, and the even one of the two `x`, or [`UNKNOWN`].
pub type Expanded = [[u8; 32]; 2];

/// An `x` that was not made: curve25519-dalek neither tells coordinates nor takes them, so [`Kernel::by_row`] has no use for
/// it, and decompresses `A` each time.
pub const UNKNOWN: [u8; 32] = [0xff; 32];

/// `A` of each X25519 public key.
pub struct Expand<'a> {
    /// X25519 public keys.
    pub publics: &'a [[u8; 32]],
    /// What to keep; `None` if there is no such point, and so nothing verifies.
    pub out: &'a mut [Option<Expanded>],
}

/// The encoding of each `A`, its sign bit as it is, from X25519 private keys.
pub struct EncodeOwn<'a> {
    /// X25519 private keys, clamped here.
    pub privates: &'a [[u8; 32]],
    /// The encodings.
    pub out: &'a mut [[u8; 32]],
}

/// Signs each message.
pub struct Sign<'a> {
    /// X25519 private keys, clamped here.
    pub privates: &'a [[u8; 32]],
    /// What [`EncodeOwn`] makes of them, where it was kept; `None` to have it made.
    pub encodings: Option<&'a [[u8; 32]]>,
    /// What is signed.
    pub messages: &'a [&'a [u8]],
    /// Fresh random bytes for each row.
    pub randoms: &'a [[u8; 64]],
    /// The signatures.
    pub out: &'a mut [[u8; 64]],
}

/// Verifies each signature.
pub struct Verify<'a> {
    /// X25519 public keys.
    pub publics: &'a [[u8; 32]],
    /// What [`Expand`] makes of them, where it was kept; `None` to have it made.
    pub expanded: Option<&'a [Expanded]>,
    /// What was signed.
    pub messages: &'a [&'a [u8]],
    /// The signatures.
    pub signatures: &'a [[u8; 64]],
    /// Whether each is right.
    pub ok: &'a mut [bool],
}

impl Kernel for Expand<'_> {
    type Out = ();
    const STEP: Step = Step::Verify;

    #[inline(always)]
    fn rows(&self) -> usize {
        self.out.len()
    }

    fn by_row(self, _: Portable) {
        rows([self.publics.len(), self.out.len()]);
        for (public, out) in self.publics.iter().zip(self.out) {
            *out = MontgomeryPoint(*public).to_edwards(0).map(|point| {
                let mut y = point.compress().0;
                y[31] &= !SIGN_BIT;
                [y, UNKNOWN]
            });
        }
    }

    #[inline(always)]
    fn in_lanes<I: Isa>(self, isa: I) {
        rows([self.publics.len(), self.out.len()]);
        self.run_in_lanes(isa);
    }
}

impl Kernel for EncodeOwn<'_> {
    type Out = ();
    const STEP: Step = Step::Sign;

    #[inline(always)]
    fn rows(&self) -> usize {
        self.out.len()
    }

    fn by_row(self, _: Portable) {
        rows([self.privates.len(), self.out.len()]);
        for (private, out) in self.privates.iter().zip(self.out) {
            let private = Zeroizing::new(clamp_integer(*private));
            let a = Zeroizing::new(Scalar::from_bytes_mod_order(*private));
            *out = EdwardsPoint::mul_base(&a).compress().0;
        }
    }

    #[inline(always)]
    fn in_lanes<I: Isa>(self, isa: I) {
        rows([self.privates.len(), self.out.len()]);
        self.run_in_lanes(isa);
    }
}

impl Kernel for Sign<'_> {
    type Out = ();
    const STEP: Step = Step::Sign;

    #[inline(always)]
    fn rows(&self) -> usize {
        self.out.len()
    }

    fn by_row(self, _: Portable) {
        let n = rows([self.privates.len(), self.messages.len(), self.randoms.len(), self.out.len()]);
        rows([n, self.encodings.map_or(n, <[_]>::len)]);
        let mut scalars = Zeroizing::new([[Scalar::ZERO; 2]; TILE]);
        for at in (0..n).step_by(TILE) {
            let tile = at..n.min(at + TILE);
            let mut publics = [EdwardsPoint::default(); TILE];
            let mut nonces = [EdwardsPoint::default(); TILE];
            for (lane, row) in tile.clone().enumerate() {
                let [a, r] = &mut scalars[lane];
                let private = Zeroizing::new(clamp_integer(self.privates[row]));
                *a = Scalar::from_bytes_mod_order(*private);
                *r = nonce(&private, self.messages[row], &self.randoms[row]);
                if self.encodings.is_none() {
                    publics[lane] = EdwardsPoint::mul_base(a);
                }
                nonces[lane] = EdwardsPoint::mul_base(r);
            }
            let made = self.encodings.is_none().then(|| EdwardsPoint::compress_batch(&publics));
            let encoded = EdwardsPoint::compress_batch(&nonces);
            // The points are what the encodings say, but in coordinates that tell about the scalar.
            wipe(&mut nonces, EdwardsPoint::default());
            for (lane, row) in tile.enumerate() {
                let kept = self.encodings.map(|encodings| &encodings[row]);
                let public = kept.or(made.as_ref().map(|made| &made[lane].0)).expect("kept or made");
                let ([a, r], nonce) = (&scalars[lane], &encoded[lane].0);
                let s = r + hash(&[nonce, public, self.messages[row], &[]]) * a;
                let out = &mut self.out[row];
                out[..32].copy_from_slice(nonce);
                out[32..].copy_from_slice(s.as_bytes());
                out[63] |= public[31] & SIGN_BIT;
            }
        }
    }

    #[inline(always)]
    fn in_lanes<I: Isa>(self, isa: I) {
        let n = rows([self.privates.len(), self.messages.len(), self.randoms.len(), self.out.len()]);
        rows([n, self.encodings.map_or(n, <[_]>::len)]);
        self.run_in_lanes(isa);
    }
}

impl Kernel for Verify<'_> {
    type Out = ();
    const STEP: Step = Step::Verify;

    #[inline(always)]
    fn rows(&self) -> usize {
        self.ok.len()
    }

    /// Everything here is public.
    fn by_row(self, _: Portable) {
        let n = rows([self.publics.len(), self.messages.len(), self.signatures.len(), self.ok.len()]);
        rows([n, self.expanded.map_or(n, <[_]>::len)]);
        for at in (0..n).step_by(TILE) {
            let tile = at..n.min(at + TILE);
            let mut publics = [EdwardsPoint::default(); TILE];
            let mut encoded = [[0; 32]; TILE];
            let mut scalars = [None; TILE];
            for (lane, row) in tile.clone().enumerate() {
                let signature = &self.signatures[row];
                let Some(s) = s_of(signature) else { continue };
                let point = match self.expanded {
                    Some(expanded) => {
                        encoded[lane] = signed(&expanded[row][0], signature);
                        CompressedEdwardsY(encoded[lane]).decompress()
                    }
                    None => MontgomeryPoint(self.publics[row]).to_edwards(signature[63] >> 7),
                };
                if let Some(point) = point {
                    (publics[lane], scalars[lane]) = (point, Some(Scalar::from_bytes_mod_order(s)));
                }
            }
            if self.expanded.is_none() {
                encoded = EdwardsPoint::compress_batch(&publics).map(|encoding| encoding.0);
            }
            let mut nonces = [EdwardsPoint::default(); TILE];
            for (lane, row) in tile.clone().enumerate() {
                if let Some(s) = scalars[lane] {
                    let h = hash(&[&self.signatures[row][..32], &encoded[lane], self.messages[row], &[]]);
                    nonces[lane] = EdwardsPoint::vartime_double_scalar_mul_basepoint(&h, &-publics[lane], &s);
                }
            }
            let nonces = EdwardsPoint::compress_batch(&nonces);
            for (lane, row) in tile.enumerate() {
                self.ok[row] = scalars[lane].is_some() && nonces[lane].0 == self.signatures[row][..32];
            }
        }
    }

    #[inline(always)]
    fn in_lanes<I: Isa>(self, isa: I) {
        let n = rows([self.publics.len(), self.messages.len(), self.signatures.len(), self.ok.len()]);
        rows([n, self.expanded.map_or(n, <[_]>::len)]);
        self.run_in_lanes(isa);
    }
}

/// What stands before the nonce's input: no encoding of a point, so that the two hashes never take the same input.
const NONCE_PREFIX: [u8; 32] = {
    let mut prefix = [0xff; 32];
    prefix[0] = 0xfe;
    prefix
};

const SIGN_BIT: u8 = 0x80;

/// `r`, for a clamped private key.
fn nonce(private: &[u8; 32], message: &[u8], random: &[u8; 64]) -> Scalar {
    hash(&[&NONCE_PREFIX, private, message, random])
}

/// `s`, if it is below 2^253.
fn s_of(signature: &[u8; 64]) -> Option<[u8; 32]> {
    let mut s = *signature.last_chunk::<32>().expect("32 of 64");
    s[31] &= !SIGN_BIT;
    (s[31] & 0xe0 == 0).then_some(s)
}

/// The encoding of `A` with the sign that the signature carries; an `x` of zero has none.
fn signed(y: &[u8; 32], signature: &[u8; 64]) -> [u8; 32] {
    let mut encoding = *y;
    if *y != MINUS_ONE {
        encoding[31] |= signature[63] & SIGN_BIT;
    }
    encoding
}

/// `y` of the point whose `u` and `x` are 0. (The other one with such an `x`, zero, has no `u`.)
const MINUS_ONE: [u8; 32] = {
    let mut y = [0xff; 32];
    (y[0], y[31]) = (0xec, 0x7f);
    y
};

/// SHA-512 (FIPS 180-4 §6.4) mod `L`.
fn hash(parts: &Parts<'_>) -> Scalar {
    Scalar::from_bytes_mod_order_wide(&by_crate(parts))
}
