//! PreKeySignalMessage: `0x33 ‖ pb{1 pre_key_id?, 2 base_key, 3 identity_key, 4 message, 5 registration_id,
//! 6 signed_pre_key_id}`, no MAC of its own.

use super::protobuf::{Field, Fields, Writer, narrow, varint_len};
use super::{VERSION, parse_public_key, version_is_known};
use crate::limits::MAX_FRAME;

/// A parsed frame, borrowing its bytes.
#[derive(Clone, Copy)]
pub(crate) struct PrekeyMessage<'a> {
    /// `None` too for id 0, which means different things to different peers.
    pub(crate) one_time_id: Option<u32>,
    pub(crate) signed_id: u32,
    pub(crate) base_key: [u8; 32],
    pub(crate) identity: [u8; 32],
    /// A whole SignalMessage.
    pub(crate) message: &'a [u8],
}

impl<'a> PrekeyMessage<'a> {
    pub(crate) fn parse(frame: &'a [u8]) -> Option<Self> {
        if frame.len() > MAX_FRAME {
            return None;
        }
        let (&version, fields) = frame.split_first()?;
        if !version_is_known(version) {
            return None;
        }
        let (mut one_time_id, mut signed_id, mut base_key, mut identity, mut message) = (None, None, None, None, None);
        let mut fields = Fields::new(fields);
        while let Some(field) = fields.next().ok()? {
            match field {
                Field::Varint(1, value) => one_time_id = Some(narrow(value)).filter(|&id| id != 0),
                Field::Bytes(2, key) => base_key = Some(parse_public_key(key)?),
                Field::Bytes(3, key) => identity = Some(parse_public_key(key)?),
                Field::Bytes(4, bytes) => message = Some(bytes),
                Field::Varint(6, value) => signed_id = Some(narrow(value)),
                _ => {}
            }
        }
        Some(Self { one_time_id, signed_id: signed_id?, base_key: base_key?, identity: identity?, message: message? })
    }
}

/// What is around the inner message.
pub(crate) struct PrekeyHeader<'a> {
    pub(crate) one_time_id: Option<u32>,
    pub(crate) signed_id: u32,
    pub(crate) base_key: &'a [u8; 32],
    pub(crate) identity: &'a [u8; 32],
    pub(crate) registration_id: u32,
}

impl PrekeyHeader<'_> {
    /// Bytes before the inner message.
    pub(crate) fn front_len(one_time_id: Option<u32>, message_len: usize) -> usize {
        1 + one_time_id.map_or(0, |id| 1 + varint_len(id)) + 2 * 35 + 1 + varint_len(message_len as u32)
    }

    /// Bytes behind it.
    pub(crate) fn back_len(registration_id: u32, signed_id: u32) -> usize {
        2 + varint_len(registration_id) + varint_len(signed_id)
    }

    /// Writes both around `out[front .. front + message_len]`; gives `front`.
    pub(crate) fn write(&self, out: &mut [u8], message_len: usize) -> usize {
        let mut front = Writer::new(out);
        front.byte(VERSION);
        if let Some(id) = self.one_time_id {
            front.number(1, id);
        }
        front.key(2, self.base_key);
        front.key(3, self.identity);
        front.length(4, message_len);
        let start = front.written();
        let mut back = Writer::new(&mut out[start + message_len..]);
        back.number(5, self.registration_id);
        back.number(6, self.signed_id);
        start
    }
}
