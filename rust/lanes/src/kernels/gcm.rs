//! AES-256-GCM (NIST SP 800-38D §7), nonces of 12 bytes, tags of 16.
//!
//! ```text
//! H = E(K, 0)     J = nonce ‖ 00000001     C = P ⊕ E(K, J + 1) ‖ E(K, J + 2) ‖ …
//! tag = E(K, J) ⊕ GHASH(H, associated ‖ zeros ‖ C ‖ zeros ‖ bits of associated ‖ bits of C)
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
        aead_seal(isa, Aead::Aes256Gcm, self.keys, self.nonces, self.associated, self.rows);
    }
}

impl Kernel for Open<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        aead_open(isa, Aead::Aes256Gcm, self.keys, self.nonces, self.associated, self.rows, self.ok);
    }
}
