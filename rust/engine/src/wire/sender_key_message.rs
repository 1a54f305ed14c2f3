//! SenderKeyMessage (WhatsApp): `0x33 ‖ pb{1 id, 2 iteration, 3 ciphertext} ‖ signature(64)`.

use super::protobuf::{Field, Fields, Writer, narrow, varint_len};
use super::{VERSION, version_is_known};
use crate::limits::MAX_FRAME;

/// Bytes of the XEdDSA signature at a frame's end.
pub(crate) const SIGNATURE_BYTES: usize = 64;

/// A parsed frame, borrowing its bytes.
#[derive(Clone, Copy)]
pub(crate) struct SenderKeyMessage<'a> {
    pub(crate) id: u32,
    pub(crate) iteration: u32,
    pub(crate) ciphertext: &'a [u8],
    /// What the signature is over: the frame as received, without the signature.
    pub(crate) signed: &'a [u8],
    pub(crate) signature: &'a [u8; SIGNATURE_BYTES],
}

impl<'a> SenderKeyMessage<'a> {
    pub(crate) fn parse(frame: &'a [u8]) -> Option<Self> {
        if frame.len() > MAX_FRAME {
            return None;
        }
        let (signed, signature) = frame.split_last_chunk()?;
        let (&version, fields) = signed.split_first()?;
        if !version_is_known(version) {
            return None;
        }
        let (mut id, mut iteration, mut ciphertext) = (None, None, None);
        let mut fields = Fields::new(fields);
        while let Some(field) = fields.next().ok()? {
            match field {
                Field::Varint(1, value) => id = Some(narrow(value)),
                Field::Varint(2, value) => iteration = Some(narrow(value)),
                Field::Bytes(3, bytes) => ciphertext = Some(bytes),
                _ => {}
            }
        }
        Some(Self { id: id?, iteration: iteration?, ciphertext: ciphertext?, signed, signature })
    }
}

/// What stands before the ciphertext.
pub(crate) struct SenderKeyHeader {
    pub(crate) id: u32,
    pub(crate) iteration: u32,
    pub(crate) ciphertext_len: usize,
}

impl SenderKeyHeader {
    pub(crate) fn len(&self) -> usize {
        4 + varint_len(self.id) + varint_len(self.iteration) + varint_len(self.ciphertext_len as u32)
    }

    /// Writes the header to the start of `out`; its length.
    pub(crate) fn write(&self, out: &mut [u8]) -> usize {
        let mut out = Writer::new(out);
        out.byte(VERSION);
        out.number(1, self.id);
        out.number(2, self.iteration);
        out.length(3, self.ciphertext_len);
        out.written()
    }
}
