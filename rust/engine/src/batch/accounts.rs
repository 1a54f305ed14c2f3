//! Accounts: an identity with its prekeys.

use std::collections::HashMap;
use std::mem::take;
use std::slice::{from_mut, from_ref};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use interlane_lanes::kernels::hmac::Hmac;
use interlane_lanes::kernels::x25519::PublicKey;
use interlane_lanes::kernels::xeddsa::{Sign, Verify};
use interlane_lanes::{Backend, public};
use serde::{Deserialize, Serialize};

use super::buffer::{Buffer, LoadedLot};
use super::randomness::{Purpose, Randomness, system};
use super::records;
use super::standing::Roll;
use crate::error::{Error, Status};
use crate::limits::{KEEP_SIGNED_PREKEYS_SECONDS, MAX_KEY_ID, MAX_PREKEYS_A_CALL, MAX_SIGNED_PREKEYS};
use crate::machine::now;
use crate::ratchet::{Bundle, KeyPair, SignedPrekey};
use crate::secret::{Secret, SecretColumn};
use crate::store::{Changes, Key, Kind, Store};
use crate::wire::public_key;

/// An account of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountId(pub u32);

/// What is public of an account.
#[derive(Debug)]
pub struct AccountInfo {
    /// Its name.
    pub name: String,
    /// Its identity key, 33 bytes.
    pub identity: [u8; 33],
    /// Its registration id.
    pub registration_id: u32,
    /// One-time prekeys that were made and not yet used.
    pub stock: u32,
}

/// An existing identity that moves in, as raw private keys.
pub struct Import {
    /// The identity's private key.
    pub identity_private: Secret<32>,
    /// The registration id that the server knows.
    pub registration_id: u32,
    /// Signed prekeys: id, private key, and the published signature (made anew where there is none). The last is
    /// the current one.
    pub signed_prekeys: Vec<(u32, Secret<32>, Option<[u8; 64]>)>,
    /// One-time prekeys: id and private key.
    pub one_time_prekeys: Vec<(u32, Secret<32>)>,
}

/// What a chat server is to be given: public keys of 33 bytes.
#[derive(Debug)]
pub struct Upload {
    /// The account's registration id.
    pub registration_id: u32,
    /// Its identity key.
    pub identity: [u8; 33],
    /// The current signed prekey: id, key, signature.
    pub signed_prekey: (u32, [u8; 33], [u8; 64]),
    /// The one-time prekeys that were just made.
    pub one_time: Vec<(u32, [u8; 33])>,
}

impl Upload {
    /// What a chat server would hand out of it; `one_time`: with which of its one-time prekeys.
    pub fn bundle(&self, one_time: Option<usize>) -> Bundle {
        let (signed_prekey_id, signed_prekey, signature) = self.signed_prekey;
        Bundle {
            registration_id: self.registration_id,
            identity: self.identity.to_vec(),
            signed_prekey_id,
            signed_prekey: signed_prekey.to_vec(),
            signature: signature.to_vec(),
            one_time: one_time.map(|at| (self.one_time[at].0, self.one_time[at].1.to_vec())),
        }
    }
}

/// The account's own row in the store.
#[derive(Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) identity: KeyPair,
    pub(crate) registration_id: u32,
    /// Makes the tags, under which the store knows peers and groups.
    pub(crate) tag_key: Secret<32>,
    pub(crate) ids: NextIds,
}

/// The next free ids: they only grow, and no id is ever looked for.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct NextIds {
    pub(crate) signed: u32,
    pub(crate) one_time: u32,
}

/// An account in memory.
pub(crate) struct Account {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) identity: KeyPair,
    pub(crate) registration_id: u32,
    tag_key: Secret<32>,
    /// Makes the tags of frames.
    frame_key: Secret<32>,
    ids: Mutex<NextIds>,
    signed: RwLock<Vec<Arc<SignedPrekey>>>,
    pub(crate) stock: AtomicU32,
    pub(super) buffer: Mutex<Buffer>,
}

/// The key of frames' tags: one key for two functions would need an argument why it may be. What a name is tagged by begins
/// with the number of a row's kind ([`Account::tags`]), and no kind has that of this text's first letter.
fn frame_key(backend: Backend, tag_key: &Secret<32>) -> Secret<32> {
    let mut key = Secret::default();
    backend.run(Hmac {
        keys: from_ref(tag_key.expose()),
        heads: &[b"interlane frame tags"],
        tails: &[&[]],
        out: from_mut(key.expose_mut()),
    });
    key
}

/// Public keys of private ones.
pub(crate) fn pairs(backend: Backend, mut privates: SecretColumn<32>) -> Vec<KeyPair> {
    let mut publics = vec![[0; 32]; privates.len()];
    backend.run(PublicKey { scalars: &privates, out: &mut publics });
    let privates = privates.iter_mut().map(Secret::take);
    privates.zip(publics).map(|(private, key)| KeyPair { private, public: public(key) }).collect()
}

/// The pair of one private key.
pub(crate) fn pair(backend: Backend, private: Secret<32>) -> KeyPair {
    take(&mut pairs(backend, SecretColumn::copy_of([&private].into_iter()))[0])
}

/// Signs a prekey with the identity key (XEdDSA over its 33 bytes).
fn sign(backend: Backend, identity: &KeyPair, prekey: &[u8; 32], random: &Secret<64>) -> [u8; 64] {
    let mut out = [[0; 64]];
    backend.run(Sign {
        privates: &[*identity.private.expose()],
        encodings: None,
        messages: &[&public_key(prekey)],
        randoms: &[*random.expose()],
        out: &mut out,
    });
    public(out[0])
}

/// The tag of a prekey's row: its id, so that ids are unique by construction.
pub(crate) fn prekey_tag(id: u32) -> [u8; 16] {
    let mut tag = [0; 16];
    tag[..4].copy_from_slice(&id.to_be_bytes());
    tag
}

impl Account {
    /// Writes a new account's rows.
    pub(crate) fn create(
        store: &mut dyn Store,
        backend: Backend,
        name: &str,
        randomness: &Randomness,
    ) -> Result<Self, Error> {
        let identity = pair(backend, randomness.draw(0, Purpose::PrivateKey));
        let mut profile = Box::new(Profile {
            identity,
            registration_id: 1 + randomness.number(0) % 16_380,
            tag_key: system()?,
            ids: NextIds { signed: 1, one_time: 1 },
        });
        let id = store.create_account(name, &mut |account| {
            let mut changes = Changes::default();
            records::put(&mut changes, Key { account, kind: Kind::Account, tag: [0; 16] }, &*profile);
            changes
        })?;
        Ok(Self::new(backend, id, name, &mut profile, Vec::new(), 0))
    }

    /// Writes the rows of an account that comes from elsewhere.
    pub(crate) fn import(
        store: &mut dyn Store,
        backend: Backend,
        name: &str,
        mut import: Import,
    ) -> Result<Self, Error> {
        let malformed = |text: &str| Err(Error::Malformed(text.into()));
        let ids = import.signed_prekeys.iter().map(|(id, ..)| *id);
        let one_time_ids = import.one_time_prekeys.iter().map(|(id, _)| *id);
        let valid = |mut ids: Vec<u32>| {
            ids.sort_unstable();
            ids.windows(2).all(|pair| pair[0] != pair[1]) && ids.iter().all(|id| (1..=MAX_KEY_ID).contains(id))
        };
        if !valid(ids.clone().collect()) || !valid(one_time_ids.clone().collect()) {
            return malformed("prekey ids are 1..16777215, each once; give the ids under which they were published");
        }
        if import.signed_prekeys.len() > MAX_SIGNED_PREKEYS {
            return malformed("too many signed prekeys; give those of the last 30 days");
        }
        let next = |ids: &mut dyn Iterator<Item = u32>| ids.max().map_or(1, |id| id + 1);
        let next_ids = NextIds { signed: next(&mut ids.clone()), one_time: next(&mut one_time_ids.clone()) };
        // Keys are taken out one by one: where they were, zeroes stay.
        let identity = pair(backend, take(&mut import.identity_private));
        let made_at = now();
        let mut signed = Vec::with_capacity(import.signed_prekeys.len());
        for (id, private, signature) in &mut import.signed_prekeys {
            let pair = pair(backend, take(private));
            let signature = match signature {
                Some(signature) => *signature,
                None => {
                    let mut random = Secret::default();
                    random.expose_mut()[..32].copy_from_slice(system()?.expose());
                    random.expose_mut()[32..].copy_from_slice(system()?.expose());
                    sign(backend, &identity, &pair.public, &random)
                }
            };
            let mut ok = [false];
            backend.run(Verify {
                publics: &[identity.public],
                expanded: None,
                messages: &[&public_key(&pair.public)],
                signatures: &[signature],
                ok: &mut ok,
            });
            if !ok[0] {
                return malformed("a signed prekey's signature is not this identity's; leave it out to have it made");
            }
            signed.push(Arc::new(SignedPrekey { id: *id, pair, signature, made_at }));
        }
        let one_time_ids: Vec<u32> = import.one_time_prekeys.iter().map(|(id, _)| *id).collect();
        let one_time =
            pairs(backend, SecretColumn::copy_of(import.one_time_prekeys.iter().map(|(_, private)| private)));
        let mut profile =
            Box::new(Profile { identity, registration_id: import.registration_id, tag_key: system()?, ids: next_ids });
        let id = store.create_account(name, &mut |account| {
            let mut changes = Changes::default();
            records::put(&mut changes, Key { account, kind: Kind::Account, tag: [0; 16] }, &*profile);
            for prekey in &signed {
                let key = Key { account, kind: Kind::SignedPrekey, tag: prekey_tag(prekey.id) };
                records::put(&mut changes, key, &**prekey);
            }
            for (id, pair) in one_time_ids.iter().zip(&one_time) {
                records::put(&mut changes, Key { account, kind: Kind::OneTimePrekey, tag: prekey_tag(*id) }, pair);
            }
            changes
        })?;
        let stock = one_time.len() as u32;
        Ok(Self::new(backend, id, name, &mut profile, signed, stock))
    }

    /// Reads accounts back, given by their numbers and names.
    pub(crate) fn load(
        store: &mut dyn Store,
        backend: Backend,
        accounts: &[(u32, String)],
    ) -> Result<Vec<Arc<Self>>, Error> {
        let ids: Vec<u32> = accounts.iter().map(|&(id, _)| id).collect();
        let mut profiles = HashMap::new();
        store.scan_all(&ids, Kind::Account, &mut |key, body| {
            profiles.insert(key.account, Box::new(records::get::<Profile>(body)?));
            Ok(())
        })?;
        let mut signed: HashMap<u32, Vec<Arc<SignedPrekey>>> = HashMap::new();
        store.scan_all(&ids, Kind::SignedPrekey, &mut |key, body| {
            signed.entry(key.account).or_default().push(Arc::new(records::get(body)?));
            Ok(())
        })?;
        let stock: HashMap<u32, u32> = store.count(&ids, Kind::OneTimePrekey)?.into_iter().collect();
        let mut buffered: HashMap<u32, Vec<_>> = HashMap::new();
        store.scan_all(&ids, Kind::Buffered, &mut |key, body| {
            buffered.entry(key.account).or_default().push(LoadedLot::read(key.tag, body)?);
            Ok(())
        })?;
        accounts
            .iter()
            .map(|(id, name)| {
                let mut profile = profiles
                    .remove(id)
                    .ok_or_else(|| Error::Store(format!("account {name} has no identity: restore the store")))?;
                let mut signed = signed.remove(id).unwrap_or_default();
                signed.sort_by_key(|prekey| prekey.id);
                let account = Self::new(backend, *id, name, &mut profile, signed, stock.get(id).copied().unwrap_or(0));
                *account.buffer() = Buffer::load(buffered.remove(id).unwrap_or_default());
                Ok(Arc::new(account))
            })
            .collect()
    }

    /// The profile is taken from its box part by part: where it was, zeroes stay.
    fn new(
        backend: Backend,
        id: u32,
        name: &str,
        profile: &mut Profile,
        signed: Vec<Arc<SignedPrekey>>,
        stock: u32,
    ) -> Self {
        let tag_key = take(&mut profile.tag_key);
        Self {
            id,
            name: name.into(),
            identity: take(&mut profile.identity),
            registration_id: profile.registration_id,
            frame_key: frame_key(backend, &tag_key),
            tag_key,
            ids: Mutex::new(profile.ids),
            signed: RwLock::new(signed),
            stock: AtomicU32::new(stock),
            buffer: Mutex::default(),
        }
    }

    /// Makes prekeys and makes them durable before they are given out.
    pub(crate) fn prekeys(
        &self,
        commit: impl FnOnce(Changes) -> Result<(), Error>,
        backend: Backend,
        one_time: u32,
        rotate: bool,
        randomness: impl FnOnce(usize) -> Result<Randomness, Error>,
    ) -> Result<Upload, Error> {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let signing = rotate || self.signed.read().unwrap_or_else(PoisonError::into_inner).is_empty();
        let mut next = *ids;
        if one_time > MAX_PREKEYS_A_CALL {
            return Err(Error::Malformed(format!("one_time is {one_time}; {MAX_PREKEYS_A_CALL} a call is the most")));
        }
        let exhausted = |text| Error::Malformed(format!("{text}: all 2^24 ids are used; make a new account"));
        if next.one_time + one_time > MAX_KEY_ID + 1 {
            return Err(exhausted("one-time prekeys"));
        }
        if signing && next.signed > MAX_KEY_ID {
            return Err(exhausted("signed prekeys"));
        }
        let made_at = now();
        let mut kept: Vec<Arc<SignedPrekey>> = self.signed.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut gone = Vec::new();
        if signing {
            // One goes when its successor is older than the time that frames for it can wait.
            while kept.len() > 1 && kept[1].made_at + KEEP_SIGNED_PREKEYS_SECONDS < made_at {
                gone.push(kept.remove(0).id);
            }
            if kept.len() >= MAX_SIGNED_PREKEYS {
                return Err(Error::Malformed(format!(
                    "{MAX_SIGNED_PREKEYS} signed prekeys were made in 30 days; rotate once a week"
                )));
            }
        }
        let first_one_time = usize::from(signing);
        let randomness = randomness(first_one_time + one_time as usize)?;
        let privates = randomness.draws(0..u32::from(signing) + one_time, [Purpose::PrivateKey]);
        let made = pairs(backend, privates);
        let (made, one_time_pairs) = made.split_at(first_one_time);
        let mut changes = Changes::default();
        if let Some(pair) = made.first().map(KeyPair::duplicate) {
            let signature = sign(backend, &self.identity, &pair.public, &randomness.signature(0));
            let prekey = SignedPrekey { id: next.signed, pair, signature, made_at };
            next.signed += 1;
            records::put(&mut changes, self.key(Kind::SignedPrekey, prekey_tag(prekey.id)), &prekey);
            kept.push(Arc::new(prekey));
        }
        for id in gone {
            changes.delete(self.key(Kind::SignedPrekey, prekey_tag(id)));
        }
        let mut upload = Vec::with_capacity(one_time_pairs.len());
        for pair in one_time_pairs {
            records::put(&mut changes, self.key(Kind::OneTimePrekey, prekey_tag(next.one_time)), pair);
            upload.push((next.one_time, public_key(&pair.public)));
            next.one_time += 1;
        }
        if signing || one_time > 0 {
            records::put(&mut changes, self.key(Kind::Account, [0; 16]), &self.profile(next));
            commit(changes)?;
            *ids = next;
            self.stock.fetch_add(one_time, Ordering::Relaxed);
        }
        let current = kept.last().expect("one was made where there was none").clone();
        *self.signed.write().unwrap_or_else(PoisonError::into_inner) = kept;
        Ok(Upload {
            registration_id: self.registration_id,
            identity: public_key(&self.identity.public),
            signed_prekey: (current.id, public_key(&current.pair.public), current.signature),
            one_time: upload,
        })
    }

    /// Leaves out ids that may have been given elsewhere.
    pub(super) fn skip_ids(&self, changes: &mut Changes) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.signed = (ids.signed + MAX_SIGNED_PREKEYS as u32).min(MAX_KEY_ID + 1);
        ids.one_time = (ids.one_time + MAX_PREKEYS_A_CALL).min(MAX_KEY_ID + 1);
        records::put(changes, self.key(Kind::Account, [0; 16]), &self.profile(*ids));
    }

    fn profile(&self, ids: NextIds) -> Profile {
        Profile {
            identity: self.identity.duplicate(),
            registration_id: self.registration_id,
            tag_key: self.tag_key.duplicate(),
            ids,
        }
    }

    /// The place of one of this account's rows.
    pub(crate) fn key(&self, kind: Kind, tag: [u8; 16]) -> Key {
        Key { account: self.id, kind, tag }
    }

    /// The signed prekey with this id, current or kept.
    pub(crate) fn signed_prekey(&self, id: u32) -> Option<Arc<SignedPrekey>> {
        self.signed.read().unwrap_or_else(PoisonError::into_inner).iter().find(|prekey| prekey.id == id).cloned()
    }

    /// Makes the tags of names, and made those of frames in earlier interlanes.
    pub(super) fn tag_key(&self) -> &Secret<32> {
        &self.tag_key
    }

    /// Makes the tags of frames.
    pub(super) fn frame_key(&self) -> &Secret<32> {
        &self.frame_key
    }

    /// Names' tags, under which memory and store know them: a keyed hash, so that the store tells nobody who talks
    /// to whom.
    pub(crate) fn tags(&self, backend: Backend, kind: Kind, names: &[&[u8]]) -> Vec<[u8; 16]> {
        let keys = SecretColumn::copy_of(names.iter().map(|_| &self.tag_key));
        let head: &[u8] = &[kind as u8];
        let mut hashes = vec![[0; 32]; names.len()];
        backend.run(Hmac { keys: &keys, heads: &vec![head; names.len()], tails: names, out: &mut hashes });
        hashes.iter().map(|hash| *hash.first_chunk().expect("16 of 32")).collect()
    }

    /// What is public.
    pub(crate) fn info(&self) -> AccountInfo {
        AccountInfo {
            name: self.name.clone(),
            identity: public_key(&self.identity.public),
            registration_id: self.registration_id,
            stock: self.stock.load(Ordering::Relaxed),
        }
    }
}

/// What there is of an account: its place among those that a run has met, or how its rows end.
type Found = Result<usize, Status>;

/// Accounts that are found again without a look into a map, where they are no more than these.
const RECENT: usize = 16;

/// The accounts that a run meets, each looked up once: rows refer to them by their place here.
pub(crate) struct RunAccounts<'e> {
    all: &'e Roll,
    away: &'e [(u32, Status)],
    met: Vec<Arc<Account>>,
    /// Those that made room for others among the recent ones.
    found: hashbrown::HashMap<u32, Found>,
    /// Each of these at its number's remainder.
    recent: [Option<(u32, Found)>; RECENT],
}

impl<'e> RunAccounts<'e> {
    /// `away`: [`Plan::away`](super::plan::Plan::away).
    pub(crate) fn new(all: &'e Roll, away: &'e [(u32, Status)]) -> Self {
        Self { all, away, met: Vec::new(), found: hashbrown::HashMap::new(), recent: [None; RECENT] }
    }

    /// The place of an account, or how its rows end: it was deleted, or is not this engine's.
    #[inline(always)]
    pub(crate) fn find(&mut self, id: u32) -> Found {
        match self.recent[id as usize % RECENT] {
            Some((recent, found)) if recent == id => found,
            _ => self.look_up(id),
        }
    }

    fn look_up(&mut self, id: u32) -> Found {
        let recent = &mut self.recent[id as usize % RECENT];
        // A call of one account needs no map.
        if let Some((other, found)) = *recent {
            self.found.insert(other, found);
        }
        let known = self.found.get(&id).copied();
        let found = known.unwrap_or_else(|| Self::meet(self.all, self.away, &mut self.met, id));
        *recent = Some((id, found));
        found
    }

    fn meet(all: &Roll, away: &[(u32, Status)], met: &mut Vec<Arc<Account>>, id: u32) -> Found {
        if let Ok(at) = away.binary_search_by_key(&id, |&(account, _)| account) {
            return Err(away[at].1);
        }
        met.push(Arc::clone(all.standings().here(id)?));
        Ok(met.len() - 1)
    }
}

impl std::ops::Index<usize> for RunAccounts<'_> {
    type Output = Account;
    fn index(&self, place: usize) -> &Account {
        &self.met[place]
    }
}
