//! What the store's rows hold, and how a peer is put together from its rows.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::session_record::{self, Chain, Read};
use crate::error::Error;
use crate::ratchet::{ChainKey, OwnSenderKey, Peer, SenderKeyStates, Session};
use crate::store::{Changes, Key, Kind};

/// A peer's own row.
#[derive(Serialize, Deserialize)]
struct PeerRecord<'a> {
    address: &'a str,
    identity: Option<[u8; 32]>,
    /// Whether there is a session's row.
    session: bool,
}

/// The row of a sender key.
#[derive(Serialize, Deserialize)]
pub(crate) enum SenderKeyRecord {
    /// Ours, if it was made and not dropped.
    Own(Option<OwnSenderKey>),
    /// A sender's.
    Theirs(SenderKeyStates),
}

/// Puts a row.
pub(crate) fn put<T: Serialize>(changes: &mut Changes, key: Key, record: &T) {
    let sized = postcard::experimental::serialized_size(record).expect("what is written can be measured");
    write(changes, key, sized, record);
}

fn write<T: Serialize>(changes: &mut Changes, key: Key, most: usize, record: &T) {
    changes.reserve(most);
    changes.put(key, |bytes| {
        let taken = std::mem::take(bytes);
        *bytes = postcard::to_extend(record, taken).expect("records have no maps and no floats: nothing can fail");
    });
}

/// Reads a row.
pub(crate) fn get<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Error> {
    postcard::from_bytes(body).map_err(|_| damaged())
}

/// Puts our sender key.
pub(crate) fn put_own_sender_key(changes: &mut Changes, key: Key, own: &OwnSenderKey) {
    /// As [`SenderKeyRecord`] is written.
    #[derive(Serialize)]
    enum Borrowed<'a> {
        Own(Option<&'a OwnSenderKey>),
    }
    put(changes, key, &Borrowed::Own(Some(own)));
}

/// Puts the sending chain's newest key.
pub(crate) fn put_sending(changes: &mut Changes, key: Key, ratchet_key: &[u8; 32], chain: &ChainKey) {
    put_chain(changes, Key { kind: Kind::Sending, ..key }, ratchet_key, chain);
}

/// Puts the newest receiving chain's newest key.
pub(crate) fn put_receiving(changes: &mut Changes, key: Key, ratchet_key: &[u8; 32], chain: &ChainKey) {
    put_chain(changes, Key { kind: Kind::Receiving, ..key }, ratchet_key, chain);
}

fn put_chain(changes: &mut Changes, key: Key, ratchet_key: &[u8; 32], chain: &ChainKey) {
    changes.reserve(session_record::LONGEST_CHAIN);
    changes.put(key, |bytes| session_record::write_chain(ratchet_key, chain, bytes));
}

/// Which of a peer's rows are to be written.
#[derive(Clone, Copy, Default)]
pub(crate) struct Dirty {
    pub(crate) identity: bool,
    pub(crate) current: bool,
    pub(crate) archived: bool,
}

/// Puts those of a peer's rows that changed; the sending chain as `leased` has it, where that is given.
pub(crate) fn put_peer(
    changes: &mut Changes,
    key: Key,
    dirty: Dirty,
    address: &str,
    peer: &mut Peer,
    leased: Option<&ChainKey>,
) {
    if dirty.identity {
        put(
            changes,
            Key { kind: Kind::Peer, ..key },
            &PeerRecord { address, identity: peer.identity, session: peer.current.is_some() },
        );
    }
    match &peer.current {
        Some(session) => {
            // The session's record says whether it was agreed with the trusted identity.
            if dirty.current || dirty.identity {
                changes.reserve(session_record::most(session));
                changes.put(Key { kind: Kind::Session, ..key }, |bytes| {
                    session_record::write(session, peer.identity, bytes);
                });
            }
            if dirty.current {
                put_sending(changes, key, &session.ratchet.public, leased.unwrap_or(&session.sending));
                match session.receiving.first() {
                    Some(newest) => put_receiving(changes, key, &newest.ratchet_key, &newest.chain),
                    None => changes.delete(Key { kind: Kind::Receiving, ..key }),
                }
            }
        }
        None if dirty.current => {
            for kind in [Kind::Session, Kind::Sending, Kind::Receiving] {
                changes.delete(Key { kind, ..key });
            }
        }
        None => {}
    }
    if dirty.archived {
        if peer.archived.is_empty() {
            changes.delete(Key { kind: Kind::Archive, ..key });
        } else {
            let sessions: Vec<&Session> = peer.archived.iter().map(AsRef::as_ref).collect();
            put(changes, Key { kind: Kind::Archive, ..key }, &sessions);
        }
    }
}

/// The kinds of rows that a peer is made of.
pub(crate) const PEER_KINDS: [Kind; 5] = Kind::OF_A_PEER;

/// A peer's rows as they come from the store, in any order.
#[derive(Default)]
pub(crate) struct PeerRows {
    peer: Peer,
    has_session: bool,
    /// The session was agreed with the trusted identity.
    trusts: bool,
    sending: Option<Chain>,
    receiving: Option<Chain>,
}

impl PeerRows {
    /// Takes one row in.
    pub(crate) fn add(&mut self, kind: Kind, body: &[u8]) -> Result<(), Error> {
        match kind {
            Kind::Peer => {
                let record = get::<PeerRecord<'_>>(body)?;
                (self.peer.identity, self.has_session) = (record.identity, record.session);
            }
            Kind::Session => {
                let Read { session, trusts } = session_record::read(body).ok_or_else(damaged)?;
                (self.peer.current, self.trusts) = (Some(session), trusts);
            }
            Kind::Archive => {
                // Copied and not moved out: what a moved session leaves in its vector's memory nobody zeroes.
                self.peer.archived = get_owned::<Vec<Session>>(body)?.iter().map(Session::archived).collect();
            }
            Kind::Sending => self.sending = Some(Chain::read(body).ok_or_else(damaged)?),
            Kind::Receiving => self.receiving = Some(Chain::read(body).ok_or_else(damaged)?),
            _ => {}
        }
        Ok(())
    }

    /// The peer, its chains as their own rows have them. Their keys are copied and not moved out: what is dropped where it
    /// lies is zeroed there.
    ///
    /// # Errors
    /// [`Error::Store`] if a row is missing that must be there: to go on without it would use keys twice.
    pub(crate) fn finish(&mut self) -> Result<Peer, Error> {
        let mut peer = std::mem::take(&mut self.peer);
        if self.has_session != peer.current.is_some() {
            return Err(damaged());
        }
        if let Some(session) = &mut peer.current {
            if self.trusts {
                session.their_identity = peer.identity.ok_or_else(damaged)?;
            }
            newest(self.sending.as_ref(), &session.ratchet.public, &mut session.sending)?;
            match session.newest_mut() {
                Some(chain) => newest(self.receiving.as_ref(), &chain.ratchet_key, &mut chain.chain)?,
                None if self.receiving.is_some() => return Err(damaged()),
                None => {}
            }
        }
        Ok(peer)
    }
}

fn newest(record: Option<&Chain>, ratchet_key: &[u8; 32], chain: &mut ChainKey) -> Result<(), Error> {
    match record {
        Some(record) if record.is_of(ratchet_key) && record.key.index >= chain.index => {
            *chain = record.key.duplicate();
            Ok(())
        }
        _ => Err(damaged()),
    }
}

pub(crate) fn damaged() -> Error {
    Error::Store("a row of the store is missing or cannot be read: restore the store from a backup".into())
}

fn get_owned<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    get(body)
}

/// The address in a peer's row.
pub(crate) fn address(body: &[u8]) -> Result<String, Error> {
    Ok(get::<PeerRecord<'_>>(body)?.address.to_owned())
}
