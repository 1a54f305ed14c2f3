//! ChaCha20-Poly1305 (RFC 8439 §2.8), nonces of 12 bytes, tags of 16.
//!
//! ```text
//! r ‖ s = the first 32 bytes of ChaCha20(K, counter 0, nonce)     C = P ⊕ ChaCha20(K, counter 1 on, nonce)
//! tag = Poly1305(r, s, associated ‖ zeros ‖ C ‖ zeros ‖ bytes of associated ‖ bytes of C)
//! ```

use super::{aead_open, aead_seal};
use crate::isa::{Aead, Isa, Kernel};

/// Encrypts each row and appends its tag.
pub struct Seal<'a, 'r> {
    /// The keys.
    pub keys: &'a [[u8; 32]],
    /// The nonces; the same one twice under a key breaks both messages.
    pub nonces: &'a [[u8; 12]],
    /// What the tag covers besides the row.
    pub associated: &'a [&'a [u8]],
    /// Plaintext and 16 bytes of room; then ciphertext and tag.
    pub rows: &'a mut [&'r mut [u8]],
}

/// Checks each row's tag and decrypts it.
pub struct Open<'a, 'r> {
    /// The keys.
    pub keys: &'a [[u8; 32]],
    /// The nonces.
    pub nonces: &'a [[u8; 12]],
    /// What the tag covers besides the row.
    pub associated: &'a [&'a [u8]],
    /// Ciphertext and tag; then plaintext, the tag left behind it. A row that fails is all zero.
    pub rows: &'a mut [&'r mut [u8]],
    /// Whether the tag was right.
    pub ok: &'a mut [bool],
}

impl Kernel for Seal<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        aead_seal(isa, Aead::ChaCha20Poly1305, self.keys, self.nonces, self.associated, self.rows);
    }
}

impl Kernel for Open<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        aead_open(isa, Aead::ChaCha20Poly1305, self.keys, self.nonces, self.associated, self.rows, self.ok);
    }
}
