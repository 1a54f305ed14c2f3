//! Root keys (Double Ratchet §5.2) and the agreement they start from (X3DH §2.2).

use zeroize::Zeroize;

use super::ChainKey;
use crate::secret::Secret;

/// HKDF info of a root step, whose salt is the root key.
pub(crate) const ROOT_INFO: &[u8] = b"WhisperRatchet";

/// HKDF info of the first root key, from X3DH.
pub(crate) const AGREEMENT_INFO: &[u8] = b"WhisperText";

/// What X3DH puts before the shared secrets, so that no input is also a curve point's encoding.
pub(crate) const DISCONTINUITY: [u8; 32] = [0xff; 32];

/// Root key 32 ‖ chain key 32; the bytes are zeroed.
pub(crate) fn split_root(bytes: &mut [u8; 64]) -> (Secret<32>, ChainKey) {
    let (root, chain) = bytes.split_first_chunk::<32>().expect("32 of 64");
    let pair = (Secret::copy_of(root), ChainKey::first(Secret::copy_of(chain.try_into().expect("32 of 32"))));
    bytes.zeroize();
    pair
}
