//! Chain keys (Double Ratchet §5.2): the key and the counter of the next message.

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// A symmetric ratchet, standing before message `index`.
#[derive(Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct ChainKey {
    pub(crate) key: Secret<32>,
    /// Wider than a counter on the wire: after the last counter a chain stands behind it.
    pub(crate) index: u64,
}

impl ChainKey {
    /// A chain at its first message.
    pub(crate) fn first(key: Secret<32>) -> Self {
        Self { key, index: 0 }
    }

    /// A second owner of the same chain: for a scratch copy.
    pub(crate) fn duplicate(&self) -> Self {
        Self { key: self.key.duplicate(), index: self.index }
    }
}
