//! NEON: 4 words, 1 piece, 2 limbs; with the instructions for AES, PMULL and SHA-2 or without them.
//!
//! Nearly every CPU has those instructions; some small boards do not. [`Tier`] is the difference: what the instructions do
//! where they are, and what does the same where they are not. All else is written once.
#![allow(unsafe_code, reason = "intrinsics, behind a token that proves that they are here")]

mod crypto;
mod limbs;
mod plain;
mod words;

use super::{Kernel, Part};
use core::arch::aarch64::uint8x16_t;

pub use crypto::Crypto;
pub use plain::Plain;
use words::U32x4;

/// Proof that NEON is present, with what the tier adds.
#[derive(Clone, Copy, Debug)]
pub struct Neon<T>(T);

impl<T: Tier> Neon<T> {
    /// The token, on a CPU that has all of it.
    #[must_use]
    pub fn detect() -> Option<Self> {
        if !std::arch::is_aarch64_feature_detected!("neon") {
            return None;
        }
        T::detect().map(Self)
    }

    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Out {
        T::run(self, kernel)
    }
}

/// Whether the instructions for AES, PMULL and SHA-2 are there. A value of this type is proof of what it says.
pub trait Tier: Copy {
    /// Whether [`Tier::compress`] is there.
    const COMPRESSES: bool;

    /// The proof, on a CPU that has what it says.
    fn detect() -> Option<Self>;
    /// A kernel, compiled for the tier.
    fn run<K: Kernel>(isa: Neon<Self>, kernel: K) -> K::Out;
    /// A part of a kernel, compiled for the tier and never inlined.
    fn call<P: Part<Neon<Self>>>(isa: Neon<Self>, part: P) -> P::Out;

    /// [`super::Words::compress`].
    ///
    /// # Safety
    ///
    /// The tier's instructions are present.
    unsafe fn compress(state: &mut [U32x4<Self>; 8], block: &[U32x4<Self>; 16]);
    /// [`super::Words::compress_known`].
    ///
    /// # Safety
    ///
    /// The tier's instructions are present.
    unsafe fn compress_known(state: &mut [U32x4<Self>; 8], rounds: &[u32; 64]);
    /// ShiftRows and SubBytes, and MixColumns where it is no last round (FIPS 197 §5.1).
    ///
    /// # Safety
    ///
    /// The tier's instructions are present.
    unsafe fn aes<const LAST: bool>(block: uint8x16_t) -> uint8x16_t;
    /// InvShiftRows and InvSubBytes, and InvMixColumns where it is no last round (FIPS 197 §5.3.5).
    ///
    /// # Safety
    ///
    /// The tier's instructions are present.
    unsafe fn aes_inverse<const LAST: bool>(block: uint8x16_t) -> uint8x16_t;
    /// The product without carries of a half of `a` and a half of `b`, 8 bytes each: of the upper ones, where so said.
    ///
    /// # Safety
    ///
    /// The tier's instructions are present.
    unsafe fn clmul<const UPPER_A: bool, const UPPER_B: bool>(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
}
