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

use super::rows;
use crate::isa::{Isa, Kernel, Portable, Step};
use curve25519_dalek::MontgomeryPoint;

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
            // Every byte is looked at, so that time says no more about a secret than whether it is zero.
            let mut any = 0;
            for byte in &*out {
                any |= byte;
            }
            *ok = any != 0;
        }
    }

    #[inline(always)]
    fn in_lanes<I: Isa>(self, _: I) {
        self.by_row(Portable::detect());
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
    fn in_lanes<I: Isa>(self, _: I) {
        self.by_row(Portable::detect());
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

    #[inline(always)]
    fn in_lanes<I: Isa>(self, _: I) {
        self.by_row(Portable::detect());
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
