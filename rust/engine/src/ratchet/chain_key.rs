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

    /// What is left of a chain that may have gone on elsewhere: it can never send again.
    pub(crate) fn burnt(&self) -> Self {
        let behind = 1 << 32;
        // The number stays in the lower half, where the next turn finds it.
        let index = if self.index < behind { behind + self.index.max(1) } else { self.index };
        Self { key: Secret::default(), index }
    }

    /// A second owner of the same chain: for a scratch copy.
    pub(crate) fn duplicate(&self) -> Self {
        Self { key: self.key.duplicate(), index: self.index }
    }
}
