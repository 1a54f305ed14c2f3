//! Curve25519 key pairs, and the identities that a MAC covers.

use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use crate::wire::public_key;

/// A private key with its public one (the u-coordinate, without the type byte).
#[derive(Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct KeyPair {
    pub(crate) private: Secret<32>,
    pub(crate) public: [u8; 32],
}

impl KeyPair {
    /// A second owner of the same pair.
    pub(crate) fn duplicate(&self) -> Self {
        Self { private: self.private.duplicate(), public: self.public }
    }
}

/// Sender's and receiver's identity keys, as every MAC begins: 33 bytes each.
pub(crate) fn identities(sender: &[u8; 32], receiver: &[u8; 32]) -> [u8; 66] {
    let mut both = [0; 66];
    both[..33].copy_from_slice(&public_key(sender));
    both[33..].copy_from_slice(&public_key(receiver));
    both
}
