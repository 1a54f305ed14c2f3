//! The frames: encode and parse, no state. Emitted byte-exact (fields in order, counters present, minimal varints);
//! accepted leniently: unknown fields are skipped, and authentication is over the bytes received, never a re-encoding.

mod distribution_message;
mod padding;
mod prekey_message;
mod protobuf;
mod sender_key_message;
mod signal_message;

pub(crate) use distribution_message::DistributionMessage;
pub(crate) use padding::{MessagePadding, block_padding, strip_block_padding, strip_message_padding};
pub(crate) use prekey_message::{PrekeyHeader, PrekeyMessage};
pub(crate) use sender_key_message::{SIGNATURE_BYTES, SenderKeyHeader, SenderKeyMessage};
pub(crate) use signal_message::{MAC_BYTES, SignalHeader, SignalMessage};

/// Message version 3, from a sender whose newest version is 3: what we emit.
pub(crate) const VERSION: u8 = 0x33;

/// The type byte in front of a Curve25519 public key.
pub(crate) const KEY_TYPE: u8 = 0x05;

/// Version 3 under any newest version that knows it.
fn version_is_known(byte: u8) -> bool {
    byte >> 4 == 3 && byte & 0x0f >= 3
}

/// The u-coordinate of a 33-byte public key.
pub(crate) fn parse_public_key(wire: &[u8]) -> Option<[u8; 32]> {
    match wire {
        [KEY_TYPE, key @ ..] => key.try_into().ok(),
        _ => None,
    }
}

/// The 33 bytes of a public key.
pub(crate) fn public_key(key: &[u8; 32]) -> [u8; 33] {
    let mut wire = [KEY_TYPE; 33];
    wire[1..].copy_from_slice(key);
    wire
}
