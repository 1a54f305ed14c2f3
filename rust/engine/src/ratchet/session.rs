//! A session (Double Ratchet), and a peer with its current and archived ones (Sesame).

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ChainKey, KeyPair, SkippedKeys};
use crate::error::Status;
use crate::limits::{MAX_ARCHIVED_SESSIONS, MAX_FORWARD_JUMP, MAX_RECEIVING_CHAINS};
use crate::secret::Secret;
use crate::wire::SignalMessage;

/// One double ratchet with one device. Kept in a box, and its chains too: what is moved is a pointer, and no copy of
/// a key is left where it was. Chains are shared with the copies of a session until one of them changes, for hardly
/// anything ever touches any but the newest.
#[derive(Serialize, Deserialize)]
pub(crate) struct Session {
    /// The initiator's ephemeral key: tells sessions apart.
    pub(crate) base_key: [u8; 32],
    /// The identity that this session was agreed with; MACs cover it.
    pub(crate) their_identity: [u8; 32],
    pub(crate) root: Secret<32>,
    /// Our sending ratchet key.
    pub(crate) ratchet: KeyPair,
    pub(crate) sending: ChainKey,
    /// Last index of the sending chain before; 0 where there was none.
    pub(crate) previous_counter: u32,
    /// Newest first.
    #[serde(with = "shared_chains")]
    pub(crate) receiving: Vec<Arc<ReceivingChain>>,
    pub(crate) pending: Option<Pending>,
    /// Where sends are leased: the sending chain's counter in the store.
    #[serde(skip)]
    pub(crate) leased: u64,
}

/// A receiving chain with what was jumped over on it.
#[derive(Serialize, Deserialize)]
pub(crate) struct ReceivingChain {
    pub(crate) ratchet_key: [u8; 32],
    pub(crate) chain: ChainKey,
    pub(crate) skipped: SkippedKeys,
}

/// Shared chains as they are recorded, one after the other. Serde itself would read each into a box and free that with the
/// key in it.
mod shared_chains {
    use std::fmt;
    use std::sync::Arc;

    use serde::de::{Deserializer, SeqAccess, Visitor};
    use serde::ser::Serializer;

    use super::ReceivingChain;

    struct Chains;

    impl<'de> Visitor<'de> for Chains {
        type Value = Vec<Arc<ReceivingChain>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("receiving chains")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut recorded: A) -> Result<Self::Value, A::Error> {
            let mut chains = Vec::new();
            while let Some(chain) = recorded.next_element()? {
                chains.push(Arc::new(chain));
            }
            Ok(chains)
        }
    }

    pub(super) fn serialize<S: Serializer>(chains: &[Arc<ReceivingChain>], into: S) -> Result<S::Ok, S::Error> {
        into.collect_seq(chains.iter().map(AsRef::as_ref))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Arc<ReceivingChain>>, D::Error> {
        from.deserialize_seq(Chains)
    }
}

/// What an initiator repeats in every frame until the first answer was opened.
#[derive(Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) one_time_id: Option<u32>,
    pub(crate) signed_id: u32,
}

/// Where a frame's message key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A chain that is known, `steps` ahead of where it stands.
    Ahead { chain: usize, steps: u32 },
    /// A key that was kept when it was jumped over.
    Skipped { chain: usize },
    /// A ratchet key never seen: a new chain, `steps` into it.
    NewChain { steps: u32 },
}

impl Place {
    /// Chain steps before the frame's own.
    pub(crate) fn steps(self) -> u32 {
        match self {
            Self::Ahead { steps, .. } | Self::NewChain { steps } => steps,
            Self::Skipped { .. } => 0,
        }
    }
}

impl Session {
    /// Where the frame belongs, without any cryptography.
    ///
    /// # Errors
    /// DUPLICATE and TOO_FAR_AHEAD.
    pub(crate) fn place(&self, message: &SignalMessage<'_>) -> Result<Place, Status> {
        let within = |steps: u64| match u32::try_from(steps) {
            Ok(steps) if steps <= MAX_FORWARD_JUMP => Ok(steps),
            _ => Err(Status::TooFarAhead),
        };
        let known = self.receiving.iter().position(|chain| chain.ratchet_key == message.ratchet_key);
        let Some(chain) = known else {
            return Ok(Place::NewChain { steps: within(u64::from(message.counter))? });
        };
        match u64::from(message.counter).checked_sub(self.receiving[chain].chain.index) {
            Some(steps) => Ok(Place::Ahead { chain, steps: within(steps)? }),
            None if self.receiving[chain].skipped.contains(message.counter) => Ok(Place::Skipped { chain }),
            None => Err(Status::Duplicate),
        }
    }

    /// Puts a new receiving chain in front; the oldest goes when there are too many.
    pub(crate) fn begin_receiving(&mut self, ratchet_key: [u8; 32], chain: ChainKey) {
        self.receiving.truncate(MAX_RECEIVING_CHAINS - 1);
        self.receiving.insert(0, Arc::new(ReceivingChain { ratchet_key, chain, skipped: SkippedKeys::default() }));
    }

    /// A receiving chain to be changed: copies of the session that share it keep it as it is.
    pub(crate) fn chain_mut(&mut self, at: usize) -> &mut ReceivingChain {
        let chain = &mut self.receiving[at];
        if Arc::get_mut(chain).is_none() {
            *chain = Arc::new(chain.copy());
        }
        Arc::get_mut(chain).expect("it has one owner")
    }

    /// The newest receiving chain, to be changed.
    pub(crate) fn newest_mut(&mut self) -> Option<&mut ReceivingChain> {
        (!self.receiving.is_empty()).then(|| self.chain_mut(0))
    }

    /// Replaces the sending chain after a turn.
    pub(crate) fn begin_sending(&mut self, ratchet: KeyPair, chain: ChainKey) {
        self.previous_counter = self.sending.index.saturating_sub(1) as u32;
        self.ratchet = ratchet;
        self.sending = chain;
        self.leased = 0;
    }

    /// A copy to advance and to drop if the frame is not authentic.
    pub(crate) fn duplicate(&self) -> Box<Self> {
        Box::new(self.copy())
    }

    /// A copy to keep beside the current session.
    pub(crate) fn archived(&self) -> Arc<Self> {
        Arc::new(self.copy())
    }

    /// A copy that cannot send before a turn.
    pub(crate) fn burnt(&self) -> Self {
        Self { sending: self.sending.burnt(), ..self.copy() }
    }

    /// A copy to be moved to where it stays.
    pub(crate) fn copy(&self) -> Self {
        Self {
            base_key: self.base_key,
            their_identity: self.their_identity,
            root: self.root.duplicate(),
            ratchet: self.ratchet.duplicate(),
            sending: self.sending.duplicate(),
            previous_counter: self.previous_counter,
            receiving: self.receiving.clone(),
            pending: self.pending,
            leased: self.leased,
        }
    }
}

impl ReceivingChain {
    /// A copy to be moved to where it stays.
    fn copy(&self) -> Self {
        Self { ratchet_key: self.ratchet_key, chain: self.chain.duplicate(), skipped: self.skipped.duplicate() }
    }
}

/// Sessions beside the current one, newest first. Shared, because hardly anything ever touches them.
pub(crate) type Archive = VecDeque<Arc<Session>>;

/// All that is known of a peer device.
#[derive(Default)]
pub(crate) struct Peer {
    /// The identity key that we trust (on first use, or by the caller's word).
    pub(crate) identity: Option<[u8; 32]>,
    pub(crate) current: Option<Box<Session>>,
    pub(crate) archived: Archive,
}

impl Peer {
    /// Makes a new session the current one.
    pub(crate) fn begin(&mut self, session: Box<Session>) {
        if let Some(former) = self.current.replace(session) {
            self.archived.push_front(former.archived());
            self.archived.truncate(MAX_ARCHIVED_SESSIONS);
        }
    }

    /// Puts `session`, an advanced copy of the archived one `at`, in the current one's place.
    pub(crate) fn promote(&mut self, at: usize, session: Box<Session>) {
        self.archived.remove(at);
        self.begin(session);
    }
}
