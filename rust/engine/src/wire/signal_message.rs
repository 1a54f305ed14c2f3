//! SignalMessage: `0x33 ‖ pb{1 ratchet_key, 2 counter, 3 previous_counter, 4 ciphertext} ‖ MAC(8)`.

use super::protobuf::{Field, Fields, Writer, narrow, varint_len};
use super::{VERSION, parse_public_key, version_is_known};
use crate::limits::MAX_FRAME;

/// Bytes of the truncated MAC at a frame's end.
pub(crate) const MAC_BYTES: usize = 8;

/// A parsed frame, borrowing its bytes.
#[derive(Clone, Copy)]
pub(crate) struct SignalMessage<'a> {
    pub(crate) ratchet_key: [u8; 32],
    pub(crate) counter: u32,
    pub(crate) ciphertext: &'a [u8],
    /// What the MAC is over: the frame as received, without the MAC.
    pub(crate) authenticated: &'a [u8],
    pub(crate) mac: &'a [u8; MAC_BYTES],
}

impl<'a> SignalMessage<'a> {
    /// `previous_counter` is not looked at: older chains are kept instead.
    pub(crate) fn parse(frame: &'a [u8]) -> Option<Self> {
        if frame.len() > MAX_FRAME {
            return None;
        }
        let (authenticated, mac) = frame.split_last_chunk()?;
        let (&version, message) = authenticated.split_first()?;
        if !version_is_known(version) {
            return None;
        }
        let (mut ratchet_key, mut counter, mut ciphertext) = (None, None, None);
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next().ok()? {
            match field {
                Field::Bytes(1, key) => ratchet_key = Some(parse_public_key(key)?),
                Field::Varint(2, value) => counter = Some(narrow(value)),
                Field::Bytes(4, bytes) => ciphertext = Some(bytes),
                _ => {}
            }
        }
        Some(Self { ratchet_key: ratchet_key?, counter: counter?, ciphertext: ciphertext?, authenticated, mac })
    }
}

/// What stands before the ciphertext.
pub(crate) struct SignalHeader<'a> {
    pub(crate) ratchet_key: &'a [u8; 32],
    pub(crate) counter: u32,
    pub(crate) previous_counter: u32,
    pub(crate) ciphertext_len: usize,
}

impl SignalHeader<'_> {
    /// Bytes of the header.
    pub(crate) fn len(counter: u32, previous_counter: u32, ciphertext_len: usize) -> usize {
        1 + 2 + 33 + 3 + varint_len(counter) + varint_len(previous_counter) + varint_len(ciphertext_len as u32)
    }

    /// Writes the header to the start of `out`; its length.
    pub(crate) fn write(&self, out: &mut [u8]) -> usize {
        let mut out = Writer::new(out);
        out.byte(VERSION);
        out.key(1, self.ratchet_key);
        out.number(2, self.counter);
        out.number(3, self.previous_counter);
        out.length(4, self.ciphertext_len);
        out.written()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_what_the_specification_says() {
        let mut out = [0; 64];
        let header = SignalHeader { ratchet_key: &[9; 32], counter: 0, previous_counter: 300, ciphertext_len: 16 };
        let written = header.write(&mut out);
        assert_eq!(written, SignalHeader::len(0, 300, 16));
        let mut expected = vec![0x33, 0x0a, 33, 5];
        expected.extend([9; 32]);
        expected.extend([0x10, 0, 0x18, 0xac, 2, 0x22, 16]);
        assert_eq!(out[..written], expected);
    }

    #[test]
    fn unknown_fields_and_other_orders_parse() {
        let mut frame = vec![0x34, 0x22, 1, 7, 0x7a, 2, 1, 2, 0x10, 0x85, 0x00, 0x0a, 33, 5];
        frame.extend([9; 32]);
        frame.extend([1; 8]);
        let parsed = SignalMessage::parse(&frame).expect("a lenient parse");
        assert_eq!((parsed.counter, parsed.ciphertext, parsed.ratchet_key), (5, &[7][..], [9; 32]));
        for cut in 0..frame.len() {
            let _ = SignalMessage::parse(&frame[..cut]);
        }
        frame[0] = 0x32;
        assert!(SignalMessage::parse(&frame).is_none());
    }
}
