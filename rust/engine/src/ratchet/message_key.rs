//! Message keys: what HKDF makes of a message seed.

use interlane_lanes::kernels::hkdf::Info;

/// HKDF info of pairwise message keys.
pub(crate) const MESSAGE_KEY_INFO: &Info = &Info::new(b"WhisperMessageKeys");

/// Bytes of pairwise message keys.
pub(crate) const MESSAGE_KEY_BYTES: usize = 80;

/// Cipher key 32 ‖ MAC key 32 ‖ IV 16, borrowed from HKDF's output.
pub(crate) struct MessageKeys<'a> {
    pub(crate) cipher: &'a [u8; 32],
    pub(crate) mac: &'a [u8; 32],
    pub(crate) iv: &'a [u8; 16],
}

impl<'a> From<&'a [u8; MESSAGE_KEY_BYTES]> for MessageKeys<'a> {
    fn from(bytes: &'a [u8; MESSAGE_KEY_BYTES]) -> Self {
        let (cipher, rest) = bytes.split_first_chunk().expect("32 of 80");
        let (mac, iv) = rest.split_first_chunk().expect("32 of 48");
        Self { cipher, mac, iv: iv.try_into().expect("16 of 16") }
    }
}

/// HKDF info of sender-key message keys.
pub(crate) const GROUP_KEY_INFO: &Info = &Info::new(b"WhisperGroup");

/// Bytes of sender-key message keys.
pub(crate) const GROUP_KEY_BYTES: usize = 48;

/// IV 16 ‖ cipher key 32 (the IV is first here), borrowed from HKDF's output.
pub(crate) struct GroupKeys<'a> {
    pub(crate) iv: &'a [u8; 16],
    pub(crate) cipher: &'a [u8; 32],
}

impl<'a> From<&'a [u8; GROUP_KEY_BYTES]> for GroupKeys<'a> {
    fn from(bytes: &'a [u8; GROUP_KEY_BYTES]) -> Self {
        let (iv, cipher) = bytes.split_first_chunk().expect("16 of 48");
        Self { iv, cipher: cipher.try_into().expect("32 of 32") }
    }
}
