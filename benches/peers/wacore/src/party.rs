//! One account with its stores in memory.
//!
//! The stores are as quick as the interface lets them be: a record is moved out of its map when it is loaded and back when
//! it is stored, so that nothing is copied and nothing encoded.

use crate::Result;
use async_trait::async_trait;
use rand::Rng;
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use wacore_libsignal::protocol::error::Result as Answer;
use wacore_libsignal::protocol::{
    Direction, GenericSignedPreKey, IdentityChange, IdentityKey, IdentityKeyPair, IdentityKeyStore, KeyPair,
    PreKeyBundle, PreKeyId, PreKeyRecord, PreKeyStore, ProtocolAddress, SenderKeyName, SenderKeyRecord, SenderKeyStore,
    SessionRecord, SessionStore, SignalProtocolError, SignedPreKeyId, SignedPreKeyRecord, SignedPreKeyStore, Timestamp,
};

/// Whom a session is with.
pub fn address(n: usize) -> ProtocolAddress {
    ProtocolAddress::new(&format!("4915{n:09}"), DEVICE.into())
}

/// The result of a future that never waits: every store is memory.
pub fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("a store in memory does not wait"),
    }
}

const DEVICE: u32 = 1;
const SIGNED_PREKEY: u32 = 1;

pub struct Party {
    pub sessions: Sessions,
    pub identities: Identities,
    pub prekeys: Prekeys,
    pub signed_prekeys: SignedPrekeys,
    pub sender_keys: SenderKeys,
    signed_prekey: KeyPair,
    signature: [u8; 64],
}

impl Party {
    pub fn new() -> Result<Self> {
        let rng = &mut rand::rng();
        let own = IdentityKeyPair::generate(rng);
        let signed_prekey = KeyPair::generate(rng);
        let signature = own.private_key().calculate_signature(&signed_prekey.public_key.serialize(), rng)?;
        let at = Timestamp::from_epoch_millis(0);
        let kept = SignedPreKeyRecord::new(SIGNED_PREKEY.into(), at, &signed_prekey, &signature);
        Ok(Self {
            sessions: Sessions::default(),
            identities: Identities { own, registration_id: rng.next_u32() % 0x3fff + 1, known: HashMap::new() },
            prekeys: Prekeys::default(),
            signed_prekeys: SignedPrekeys(HashMap::from([(SIGNED_PREKEY, kept)])),
            sender_keys: SenderKeys::default(),
            signed_prekey,
            signature,
        })
    }

    /// A bundle with a one-time prekey of its own.
    pub fn bundle(&mut self) -> Result<PreKeyBundle> {
        let id = self.prekeys.0.len() as u32 + 1;
        let one_time = KeyPair::generate(&mut rand::rng());
        self.prekeys.0.insert(id, PreKeyRecord::new(id.into(), &one_time));
        Ok(PreKeyBundle::new(
            self.identities.registration_id,
            DEVICE.into(),
            Some((id.into(), one_time.public_key)),
            SIGNED_PREKEY.into(),
            self.signed_prekey.public_key,
            self.signature.to_vec(),
            *self.identities.own.identity_key(),
        )?)
    }
}

#[derive(Default)]
pub struct Sessions(Mutex<HashMap<ProtocolAddress, SessionRecord>>);

#[async_trait]
impl SessionStore for Sessions {
    async fn load_session(&self, address: &ProtocolAddress) -> Answer<Option<SessionRecord>> {
        Ok(self.0.lock().expect("one thread").remove(address))
    }

    async fn has_session(&self, address: &ProtocolAddress) -> Answer<bool> {
        Ok(self.0.lock().expect("one thread").contains_key(address))
    }

    async fn store_session(&mut self, address: &ProtocolAddress, record: SessionRecord) -> Answer<()> {
        self.0.get_mut().expect("one thread").insert(address.clone(), record);
        Ok(())
    }
}

pub struct Identities {
    own: IdentityKeyPair,
    registration_id: u32,
    known: HashMap<ProtocolAddress, IdentityKey>,
}

#[async_trait]
impl IdentityKeyStore for Identities {
    async fn get_identity_key_pair(&self) -> Answer<IdentityKeyPair> {
        Ok(self.own.clone())
    }

    async fn get_local_registration_id(&self) -> Answer<u32> {
        Ok(self.registration_id)
    }

    async fn save_identity(&mut self, address: &ProtocolAddress, identity: &IdentityKey) -> Answer<IdentityChange> {
        let before = self.known.insert(address.clone(), *identity);
        Ok(IdentityChange::from_changed(before.is_some_and(|before| before != *identity)))
    }

    /// Trust on first use.
    async fn is_trusted_identity(
        &self,
        address: &ProtocolAddress,
        identity: &IdentityKey,
        _: Direction,
    ) -> Answer<bool> {
        Ok(self.known.get(address).is_none_or(|known| known == identity))
    }

    async fn get_identity(&self, address: &ProtocolAddress) -> Answer<Option<IdentityKey>> {
        Ok(self.known.get(address).copied())
    }
}

#[derive(Default)]
pub struct Prekeys(HashMap<u32, PreKeyRecord>);

#[async_trait]
impl PreKeyStore for Prekeys {
    async fn get_pre_key(&self, id: PreKeyId) -> Answer<PreKeyRecord> {
        self.0.get(&id.into()).cloned().ok_or(SignalProtocolError::InvalidPreKeyId)
    }

    async fn save_pre_key(&mut self, id: PreKeyId, record: &PreKeyRecord) -> Answer<()> {
        self.0.insert(id.into(), record.clone());
        Ok(())
    }

    async fn remove_pre_key(&mut self, id: PreKeyId) -> Answer<()> {
        self.0.remove(&id.into());
        Ok(())
    }
}

pub struct SignedPrekeys(HashMap<u32, SignedPreKeyRecord>);

#[async_trait]
impl SignedPreKeyStore for SignedPrekeys {
    async fn get_signed_pre_key(&self, id: SignedPreKeyId) -> Answer<SignedPreKeyRecord> {
        self.0.get(&id.into()).cloned().ok_or(SignalProtocolError::InvalidSignedPreKeyId)
    }

    async fn save_signed_pre_key(&mut self, id: SignedPreKeyId, record: &SignedPreKeyRecord) -> Answer<()> {
        self.0.insert(id.into(), record.clone());
        Ok(())
    }
}

#[derive(Default)]
pub struct SenderKeys(Mutex<HashMap<SenderKeyName, SenderKeyRecord>>);

#[async_trait]
impl SenderKeyStore for SenderKeys {
    async fn store_sender_key(&mut self, name: &SenderKeyName, record: SenderKeyRecord) -> Answer<()> {
        self.0.get_mut().expect("one thread").insert(name.clone(), record);
        Ok(())
    }

    async fn load_sender_key(&self, name: &SenderKeyName) -> Answer<Option<SenderKeyRecord>> {
        Ok(self.0.lock().expect("one thread").remove(name))
    }
}
