//! SenderKeyDistributionMessage (WhatsApp): `0x33 ‖ pb{1 id, 2 iteration, 3 chain_key(32), 4 signing_key(33)}`.

use super::protobuf::{Field, Fields, Writer, narrow};
use super::{VERSION, parse_public_key, version_is_known};
use crate::limits::MAX_FRAME;
use crate::secret::Secret;

/// The sender key from some iteration on.
pub(crate) struct DistributionMessage {
    pub(crate) id: u32,
    pub(crate) iteration: u32,
    pub(crate) chain_key: Secret<32>,
    pub(crate) signing_key: [u8; 32],
}

impl DistributionMessage {
    /// The longest one that we write: every number in five bytes.
    pub(crate) const MAX_LEN: usize = 1 + 6 + 6 + 34 + 35;

    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        if frame.len() > MAX_FRAME {
            return None;
        }
        let (&version, fields) = frame.split_first()?;
        if !version_is_known(version) {
            return None;
        }
        let (mut id, mut iteration, mut chain_key, mut signing_key) = (None, None, None, None);
        let mut fields = Fields::new(fields);
        while let Some(field) = fields.next().ok()? {
            match field {
                Field::Varint(1, value) => id = Some(narrow(value)),
                Field::Varint(2, value) => iteration = Some(narrow(value)),
                Field::Bytes(3, key) => chain_key = Some(Secret::copy_of(key.try_into().ok()?)),
                Field::Bytes(4, key) => signing_key = Some(parse_public_key(key)?),
                _ => {}
            }
        }
        Some(Self { id: id?, iteration: iteration?, chain_key: chain_key?, signing_key: signing_key? })
    }

    /// Appends the frame, for which there is to be room: a vector that grew would leave keys behind.
    pub(crate) fn write(&self, frames: &mut Vec<u8>) {
        let mut buffer = [0; Self::MAX_LEN];
        let mut out = Writer::new(&mut buffer);
        out.byte(VERSION);
        out.number(1, self.id);
        out.number(2, self.iteration);
        out.length(3, 32);
        out.raw(self.chain_key.expose());
        out.key(4, &self.signing_key);
        let written = out.written();
        frames.extend_from_slice(&buffer[..written]);
        zeroize::Zeroize::zeroize(&mut buffer);
    }
}
