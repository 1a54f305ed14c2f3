//! Prekeys (X3DH §2.1): ours, and a peer's bundle of them.

use serde::{Deserialize, Serialize};

use super::KeyPair;
use crate::limits::MAX_KEY_ID;
use crate::wire::parse_public_key;

/// One of our signed prekeys. Its private half stays after it was replaced: frames to it can arrive for 30 days.
#[derive(Serialize, Deserialize)]
pub(crate) struct SignedPrekey {
    pub(crate) id: u32,
    pub(crate) pair: KeyPair,
    #[serde(with = "signature")]
    pub(crate) signature: [u8; 64],
    /// When it was made, in seconds since 1970.
    pub(crate) made_at: u64,
}

/// A peer's prekeys as a server hands them out, nothing of it checked. Public keys are 33 bytes.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The peer's registration id; kept for the caller's sake, not used.
    pub registration_id: u32,
    /// The peer's identity key.
    pub identity: Vec<u8>,
    /// Id of the signed prekey, below 2^24.
    pub signed_prekey_id: u32,
    /// The signed prekey.
    pub signed_prekey: Vec<u8>,
    /// The identity key's XEdDSA signature over the 33 bytes of the signed prekey.
    pub signature: Vec<u8>,
    /// A one-time prekey with its id; id 0 is ignored.
    pub one_time: Option<(u32, Vec<u8>)>,
}

/// A bundle whose parts have the right shape; its signature is still to be verified.
pub(crate) struct CheckedBundle {
    pub(crate) identity: [u8; 32],
    pub(crate) signed_id: u32,
    pub(crate) signed_prekey: [u8; 32],
    pub(crate) signature: [u8; 64],
    pub(crate) one_time: Option<(u32, [u8; 32])>,
}

impl Bundle {
    /// Checks lengths, type bytes and ids.
    pub(crate) fn check_shape(&self) -> Option<CheckedBundle> {
        let one_time = match &self.one_time {
            None | Some((0, _)) => None,
            Some((id, _)) if *id > MAX_KEY_ID => return None,
            Some((id, key)) => Some((*id, parse_public_key(key)?)),
        };
        Some(CheckedBundle {
            identity: parse_public_key(&self.identity)?,
            signed_id: Some(self.signed_prekey_id).filter(|id| (1..=MAX_KEY_ID).contains(id))?,
            signed_prekey: parse_public_key(&self.signed_prekey)?,
            signature: self.signature.as_slice().try_into().ok()?,
            one_time,
        })
    }
}

/// 64 bytes for serde, which knows arrays up to 32.
mod signature {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 64], D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        bytes.try_into().map_err(|_| de::Error::invalid_length(bytes.len(), &"64 bytes"))
    }
}
