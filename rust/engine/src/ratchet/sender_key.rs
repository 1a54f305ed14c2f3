//! Sender keys (WhatsApp's groups): our own, and the newest few of each sender.

use std::mem::take;

use interlane_lanes::kernels::xeddsa::Expanded;
use serde::{Deserialize, Serialize};

use super::{ChainKey, KeyPair, SkippedKeys};
use crate::error::Status;
use crate::limits::{MAX_FORWARD_JUMP, MAX_SENDER_KEY_STATES};
use crate::wire::{DistributionMessage, SenderKeyMessage};

/// Our sender key in a group: makes frames and distribution messages.
#[derive(Serialize, Deserialize)]
pub(crate) struct OwnSenderKey {
    pub(crate) id: u32,
    pub(crate) chain: ChainKey,
    pub(crate) signing: KeyPair,
    /// The signing key as signatures have it: kept, because making it is half of signing.
    pub(crate) encoding: [u8; 32],
}

impl OwnSenderKey {
    /// A copy to advance and to drop if the batch is not committed.
    pub(crate) fn duplicate(&self) -> Self {
        Self { id: self.id, chain: self.chain.duplicate(), signing: self.signing.duplicate(), encoding: self.encoding }
    }
}

/// One of a sender's keys.
#[derive(Serialize, Deserialize)]
pub(crate) struct SenderKeyState {
    pub(crate) id: u32,
    pub(crate) signing_key: [u8; 32],
    /// What is kept of the signing key to verify sooner; `None` if it is no point, under which nothing verifies.
    pub(crate) expanded: Option<Expanded>,
    pub(crate) chain: ChainKey,
    pub(crate) skipped: SkippedKeys,
}

impl SenderKeyState {
    /// How many steps ahead the frame is; `None` for a key that was kept.
    ///
    /// # Errors
    /// DUPLICATE and TOO_FAR_AHEAD. Ask only after the signature was verified.
    pub(crate) fn place(&self, message: &SenderKeyMessage<'_>) -> Result<Option<u32>, Status> {
        match u64::from(message.iteration).checked_sub(self.chain.index) {
            Some(steps) if steps > u64::from(MAX_FORWARD_JUMP) => Err(Status::TooFarAhead),
            Some(steps) => Ok(Some(steps as u32)),
            None if self.skipped.contains(message.iteration) => Ok(None),
            None => Err(Status::Duplicate),
        }
    }

    fn duplicate(&self) -> Self {
        Self {
            id: self.id,
            signing_key: self.signing_key,
            expanded: self.expanded,
            chain: self.chain.duplicate(),
            skipped: self.skipped.duplicate(),
        }
    }
}

/// A sender's keys in a group, newest first.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct SenderKeyStates(Vec<Box<SenderKeyState>>);

impl SenderKeyStates {
    /// The state that a frame names.
    pub(crate) fn find(&self, id: u32) -> Option<&SenderKeyState> {
        self.0.iter().find(|state| state.id == id).map(AsRef::as_ref)
    }

    /// The state that an authentic frame is about to move.
    pub(crate) fn find_mut(&mut self, id: u32) -> Option<&mut SenderKeyState> {
        self.0.iter_mut().find(|state| state.id == id).map(AsMut::as_mut)
    }

    /// Takes a distribution message in. The same key again keeps the state (a reset would lose late frames); the
    /// same id with another key replaces it. `expanded` is what is kept of the signing key. Says whether anything changed;
    /// the message's key is taken then.
    pub(crate) fn accept(&mut self, message: &mut DistributionMessage, expanded: Option<Expanded>) -> bool {
        if let Some(at) = self.0.iter().position(|state| state.id == message.id) {
            if self.0[at].signing_key == message.signing_key {
                return false;
            }
            self.0.remove(at);
        }
        self.0.truncate(MAX_SENDER_KEY_STATES - 1);
        let state = SenderKeyState {
            id: message.id,
            signing_key: message.signing_key,
            expanded,
            chain: ChainKey { key: take(&mut message.chain_key), index: u64::from(message.iteration) },
            skipped: SkippedKeys::default(),
        };
        self.0.insert(0, Box::new(state));
        true
    }

    /// A copy to change and to drop if the batch is not committed.
    pub(crate) fn duplicate(&self) -> Self {
        Self(self.0.iter().map(|state| Box::new(state.duplicate())).collect())
    }
}
