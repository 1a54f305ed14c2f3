//! The records of a peer's current session. One has what changes when the ratchet turns; the newest keys of its two
//! chains, which move on with each message, have records of their own, and no key of what was sent or received stays
//! here while they do.
//!
//! ```text
//! session = base key ‖ root key ‖ form ‖ ratchet private key ‖ ratchet public key [‖ their identity]
//!           ‖ sending counter ‖ counters of the chain before [‖ signed prekey id [‖ one-time prekey id]]
//!           (‖ ratchet key [‖ chain key] ‖ counter ‖ skipped keys (‖ their counter ‖ seed)*)*
//! form    = receiving chains (3 bits) ‖ has their identity ‖ is pending ‖ 0 ‖ names a one-time prekey ‖ 0
//! chain   = chain key ‖ the first 2 bytes of its ratchet key ‖ counter
//! ```
//!
//! Keys have 32 bytes, numbers 7 bits a byte. The newest receiving chain is the first one and has no key here. Their
//! identity is left out where it is the trusted one, which is in the peer's record: whatever changes that writes this too.
//!
//! Stores of schema 2, and databases of PostgreSQL, may have records of an older form, serde's of [`Session`] and of
//! [`OlderChain`]. Those have the length of a root key, 0x20, where `form` is, which never is that; and a chain of that
//! form is longer than any of these.

use std::sync::Arc;

use serde::Deserialize;

use crate::limits::{MAX_RECEIVING_CHAINS, MAX_SKIPPED_KEYS};
use crate::ratchet::{ChainKey, KeyPair, Pending, ReceivingChain, Session, SkippedKeys};
use crate::secret::Secret;

/// Bytes of a key.
const KEY: usize = 32;

/// Where the form is.
const FORM_AT: usize = 2 * KEY;

/// What is there in records of the older form.
const OLDER_FORM: u8 = 0x20;

// Bits of the form, above the number of receiving chains.
const CHAINS: u8 = 0b111;
const HAS_IDENTITY: u8 = 1 << 3;
const PENDING: u8 = 1 << 4;
const ONE_TIME: u8 = 1 << 6;

/// Bytes of a chain's ratchet key that tell it from other chains: a record that was left behind by another chain is
/// noticed. Every one of them is taken twice by a million sessions.
const TOLD_BY: usize = 2;

/// Bytes of a chain's record at most: counters end below 2^34.
pub(super) const LONGEST_CHAIN: usize = KEY + TOLD_BY + 5;

/// Bytes of a number at most.
const NUMBER: usize = 10;

/// A session as it is read: without the newest keys of its chains, and maybe without an identity.
pub(super) struct Read {
    pub(super) session: Box<Session>,
    /// Their identity is the trusted one.
    pub(super) trusts: bool,
}

/// Bytes that the record of a session takes at most.
pub(super) fn most(session: &Session) -> usize {
    let chains = session.receiving.iter().map(|chain| 2 * KEY + 2 * NUMBER + chain.skipped.len() * (KEY + NUMBER));
    5 * KEY + 1 + 4 * NUMBER + chains.sum::<usize>()
}

/// Appends a session's record. `trusted` is the identity in the peer's.
pub(super) fn write(session: &Session, trusted: Option<[u8; KEY]>, record: &mut Vec<u8>) {
    let has_identity = trusted != Some(session.their_identity);
    let one_time = session.pending.and_then(|pending| pending.one_time_id);
    let mut form = session.receiving.len() as u8;
    assert!(form <= CHAINS, "a session has at most {MAX_RECEIVING_CHAINS} receiving chains");
    for (bit, set) in
        [(HAS_IDENTITY, has_identity), (PENDING, session.pending.is_some()), (ONE_TIME, one_time.is_some())]
    {
        form |= if set { bit } else { 0 };
    }
    record.extend_from_slice(&session.base_key);
    record.extend_from_slice(session.root.expose());
    record.push(form);
    record.extend_from_slice(session.ratchet.private.expose());
    record.extend_from_slice(&session.ratchet.public);
    if has_identity {
        record.extend_from_slice(&session.their_identity);
    }
    put_number(record, session.sending.index);
    put_number(record, session.previous_counter.into());
    if let Some(pending) = session.pending {
        put_number(record, pending.signed_id.into());
        one_time.into_iter().for_each(|id| put_number(record, id.into()));
    }
    for (i, chain) in session.receiving.iter().enumerate() {
        record.extend_from_slice(&chain.ratchet_key);
        if i > 0 {
            record.extend_from_slice(chain.chain.key.expose());
        }
        put_number(record, chain.chain.index);
        put_number(record, chain.skipped.len() as u64);
        for (counter, seed) in chain.skipped.iter() {
            put_number(record, counter.into());
            record.extend_from_slice(seed.expose());
        }
    }
}

/// Reads a session's record, of either form.
pub(super) fn read(record: &[u8]) -> Option<Read> {
    if record.get(FORM_AT) == Some(&OLDER_FORM) {
        return Some(Read { session: postcard::from_bytes(record).ok()?, trusts: false });
    }
    let mut rest = Rest(record);
    // What is secret is copied to where it stays.
    let mut session = Box::new(Session {
        base_key: *rest.key()?,
        their_identity: [0; KEY],
        root: Secret::default(),
        ratchet: KeyPair::default(),
        sending: ChainKey::default(),
        previous_counter: 0,
        receiving: Vec::new(),
        pending: None,
        leased: 0,
    });
    *session.root.expose_mut() = *rest.key()?;
    let form = rest.byte()?;
    let chains = usize::from(form & CHAINS);
    if form & !(CHAINS | HAS_IDENTITY | PENDING | ONE_TIME) != 0 || chains > MAX_RECEIVING_CHAINS {
        return None;
    }
    *session.ratchet.private.expose_mut() = *rest.key()?;
    session.ratchet.public = *rest.key()?;
    let trusts = form & HAS_IDENTITY == 0;
    if !trusts {
        session.their_identity = *rest.key()?;
    }
    session.sending.index = rest.number()?;
    session.previous_counter = rest.small()?;
    if form & PENDING != 0 {
        let signed_id = rest.small()?;
        let one_time_id = if form & ONE_TIME == 0 { None } else { Some(rest.small()?) };
        session.pending = Some(Pending { one_time_id, signed_id });
    }
    session.receiving.reserve_exact(chains);
    for i in 0..chains {
        let mut chain =
            ReceivingChain { ratchet_key: *rest.key()?, chain: ChainKey::default(), skipped: SkippedKeys::default() };
        if i > 0 {
            *chain.chain.key.expose_mut() = *rest.key()?;
        }
        chain.chain.index = rest.number()?;
        let skipped = rest.small()? as usize;
        if skipped > MAX_SKIPPED_KEYS {
            return None;
        }
        chain.skipped.reserve(skipped);
        for _ in 0..skipped {
            let counter = rest.small()?;
            chain.skipped.push(counter, Secret::copy_of(rest.key()?));
        }
        session.receiving.push(Arc::new(chain));
    }
    rest.is_empty().then_some(Read { session, trusts })
}

/// The newest key of a chain, and what tells it from other chains.
pub(super) struct Chain {
    pub(super) key: ChainKey,
    told_by: [u8; TOLD_BY],
}

/// As it was written before.
#[derive(Deserialize)]
struct OlderChain {
    ratchet: [u8; 8],
    chain: ChainKey,
}

impl Chain {
    /// Whether it is of the chain with this ratchet key.
    pub(super) fn is_of(&self, ratchet_key: &[u8; KEY]) -> bool {
        ratchet_key.first_chunk() == Some(&self.told_by)
    }

    /// Reads a chain's record, of either form.
    pub(super) fn read(record: &[u8]) -> Option<Self> {
        if record.len() > LONGEST_CHAIN {
            let OlderChain { ratchet, chain } = postcard::from_bytes(record).ok()?;
            return Some(Self { key: chain, told_by: *ratchet.first_chunk()? });
        }
        let mut rest = Rest(record);
        let mut chain = Self { key: ChainKey::default(), told_by: [0; TOLD_BY] };
        *chain.key.key.expose_mut() = *rest.key()?;
        chain.told_by = *rest.take()?;
        chain.key.index = rest.number()?;
        rest.is_empty().then_some(chain)
    }
}

/// Appends a chain's record.
pub(super) fn write_chain(ratchet_key: &[u8; KEY], chain: &ChainKey, record: &mut Vec<u8>) {
    assert!(chain.index < 1 << 34, "counters have 32 bits, of burnt chains 33");
    record.extend_from_slice(chain.key.expose());
    record.extend_from_slice(&ratchet_key[..TOLD_BY]);
    put_number(record, chain.index);
}

/// Appends a number, 7 bits a byte.
pub(super) fn put_number(record: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        record.push(number as u8 | 0x80);
        number >>= 7;
    }
    record.push(number as u8);
}

/// What is still to be read of a record.
pub(super) struct Rest<'a>(pub(super) &'a [u8]);

impl<'a> Rest<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn key(&mut self) -> Option<&'a [u8; KEY]> {
        self.take()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take().map(|&[byte]| byte)
    }

    /// A number below 2^63.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(first: u8) -> Secret<32> {
        Secret::copy_of(&std::array::from_fn(|i| first ^ (i * i) as u8))
    }

    fn chain(first: u8, index: u64) -> ChainKey {
        ChainKey { key: secret(first), index }
    }

    fn session(chains: &[usize], pending: Option<Option<u32>>, index: u64, first: u8) -> Session {
        let receiving = chains.iter().enumerate().map(|(i, &skipped)| {
            let mut keys = SkippedKeys::default();
            (0..skipped).for_each(|at| keys.push(200 * at as u32, Secret::copy_of(&[at as u8; 32])));
            let first = first.wrapping_add(i as u8);
            Arc::new(ReceivingChain { ratchet_key: [first; 32], chain: chain(first, index), skipped: keys })
        });
        Session {
            base_key: [first; 32],
            their_identity: [0x20; 32],
            root: secret(first.wrapping_add(1)),
            ratchet: KeyPair { private: secret(first.wrapping_add(2)), public: [7; 32] },
            sending: chain(first.wrapping_add(100), index),
            previous_counter: index as u32,
            receiving: receiving.collect(),
            pending: pending.map(|one_time_id| Pending { one_time_id, signed_id: 16_777_215 }),
            leased: 0,
        }
    }

    /// What a session is read back as: the newest keys are not with it.
    fn without_newest(mut session: Session) -> Vec<u8> {
        session.sending.key = Secret::default();
        if let Some(newest) = session.newest_mut() {
            newest.chain.key = Secret::default();
        }
        postcard::to_stdvec(&session).unwrap()
    }

    proptest! {
        #[test]
        fn a_session_survives_its_record(
            chains in prop::collection::vec(0..4_usize, 0..=MAX_RECEIVING_CHAINS),
            pending in prop::option::of(prop::option::of(0..1_u32 << 24)),
            index in prop_oneof![0..300_u64, (1_u64 << 32)..(1 << 33)],
            first in any::<u8>(),
            trusts in any::<bool>(),
        ) {
            let session = session(&chains, pending, index, first);
            let mut record = Vec::new();
            write(&session, trusts.then_some(session.their_identity), &mut record);
            prop_assert!(record.len() <= most(&session));
            prop_assert_ne!(record[FORM_AT], OLDER_FORM);
            let newest = session.receiving.first().map(|newest| &newest.chain);
            for key in std::iter::once(&session.sending).chain(newest) {
                prop_assert!(!record.windows(32).any(|bytes| bytes == key.key.expose()));
            }
            let mut found = read(&record).unwrap();
            prop_assert_eq!(found.trusts, trusts);
            if trusts {
                prop_assert_eq!(found.session.their_identity, [0; 32]);
                found.session.their_identity = session.their_identity;
            }
            prop_assert_eq!(postcard::to_stdvec(&found.session).unwrap(), without_newest(session));
            for cut in 0..record.len() {
                prop_assert!(read(&record[..cut]).is_none());
            }
            record.push(0);
            prop_assert!(read(&record).is_none());
        }

        #[test]
        fn what_is_no_record_is_none(mut record in prop::collection::vec(any::<u8>(), 0..400), form in any::<u8>()) {
            if let Some(at) = record.get_mut(FORM_AT) {
                *at = form;
            }
            // It may be one by chance; reading it must end.
            let _ = (read(&record), Chain::read(&record));
        }
    }

    #[test]
    fn records_of_the_older_form_are_read() {
        for chains in [&[][..], &[0], &[3, 0, 1]] {
            let session = session(chains, Some(Some(5)), 77, 9);
            let found = read(&postcard::to_stdvec(&session).unwrap()).unwrap();
            assert!(!found.trusts);
            assert_eq!(postcard::to_stdvec(&found.session).unwrap(), postcard::to_stdvec(&session).unwrap());
        }
        for index in [0, 200, u64::from(u32::MAX), 1 << 33] {
            let older = postcard::to_stdvec(&([6_u8; 8], chain(3, index))).unwrap();
            let found = Chain::read(&older).unwrap();
            assert!(found.is_of(&[6; 32]) && !found.is_of(&[7; 32]) && found.key == chain(3, index));
        }
    }

    #[test]
    fn a_chain_survives_its_record() {
        for index in [0, 127, 128, u64::from(u32::MAX), (1 << 34) - 1] {
            let mut record = Vec::new();
            write_chain(&[6; 32], &chain(3, index), &mut record);
            assert!(record.len() <= LONGEST_CHAIN);
            let found = Chain::read(&record).unwrap();
            assert!(found.is_of(&[6; 32]) && !found.is_of(&[7; 32]) && found.key == chain(3, index));
            assert!((0..record.len()).all(|cut| Chain::read(&record[..cut]).is_none()));
        }
    }

    /// What docs/durability.md says of an idle session's row.
    #[test]
    fn a_session_takes_few_bytes() {
        let session = session(&[0], None, 2, 9);
        let mut record = Vec::new();
        write(&session, Some(session.their_identity), &mut record);
        assert_eq!(record.len(), 5 * KEY + 5);
    }
}
