//! The state, one file for each noun of the specifications (X3DH, Double Ratchet, Sesame, sender keys). What can be
//! decided without cryptography is decided here; the cryptography itself runs for many rows at once, in `batch`.

mod chain_key;
mod identity;
mod message_key;
mod prekey;
mod root_key;
mod sender_key;
mod session;
mod skipped_keys;

pub(crate) use chain_key::ChainKey;
pub(crate) use identity::{KeyPair, identities};
pub(crate) use message_key::{
    GROUP_KEY_BYTES, GROUP_KEY_INFO, GroupKeys, MESSAGE_KEY_BYTES, MESSAGE_KEY_INFO, MessageKeys,
};
pub use prekey::Bundle;
pub(crate) use prekey::{CheckedBundle, SignedPrekey};
pub(crate) use root_key::{AGREEMENT_INFO, DISCONTINUITY, ROOT_INFO, split_root};
pub(crate) use sender_key::{OwnSenderKey, SenderKeyState, SenderKeyStates};
pub(crate) use session::{Archive, Peer, Pending, Place, ReceivingChain, Session};
pub(crate) use skipped_keys::SkippedKeys;
