//! The classes `Account` and `Group`: an engine's handles, known by the peers' names.

use std::sync::{Mutex, PoisonError};

use hashbrown::HashMap;
use interlane::{AccountId, Bundle};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::sync::MutexExt;
use pyo3::types::{PyBytes, PyString};

use crate::engine::Engine;
use crate::errors::{class_of, malformed, unknown_account};
use crate::input::{self, call};
use crate::rows::{self, Rows};

/// Names that an account or group remembers. Past it they are forgotten and asked for again: about 100 MB, and room for
/// the peers of the largest batches.
const MAX_KNOWN: usize = 1 << 20;

/// Handles by name, so that a name that was used before costs no engine call.
#[derive(Default)]
struct Known(Mutex<HashMap<String, u64>>);

impl Known {
    /// The handles of these names; those not known yet are asked for in one call.
    fn resolve(
        &self,
        argument: &str,
        names: &Bound<'_, PyAny>,
        ask: impl FnOnce(&[&str]) -> Result<Vec<u64>, interlane::Error> + Send,
    ) -> PyResult<Vec<u64>> {
        let py = names.py();
        let names = input::objects(argument, names, "a list of str")?;
        let mut handles = Vec::with_capacity(names.len());
        let mut missing: Vec<(usize, PyBackedStr)> = Vec::new();
        {
            let known = self.0.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
            for (i, item) in names.iter().enumerate() {
                let name = item.cast::<PyString>().ok().and_then(|name| name.to_str().ok()).ok_or_else(|| {
                    malformed(&format!("{argument}[{i}]"), format!("{} is no name; give a str", class_of(item)))
                })?;
                match known.get(name) {
                    Some(&handle) => handles.push(handle),
                    None => {
                        missing.push((i, item.extract()?));
                        handles.push(0);
                    }
                }
            }
        }
        if missing.is_empty() {
            return Ok(handles);
        }
        let found = call(py, || {
            let names: Vec<&str> = missing.iter().map(|(_, name)| &**name).collect();
            ask(&names)
        })?;
        let mut known = self.0.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        if known.len() + found.len() > MAX_KNOWN {
            known.clear();
        }
        for ((i, name), handle) in missing.into_iter().zip(found) {
            handles[i] = handle;
            known.insert(name.to_string(), handle);
        }
        Ok(handles)
    }
}

/// An account of an engine: its own keys, and its peers by their names.
#[pyclass(frozen, subclass, module = "interlane._native")]
pub(crate) struct Account {
    engine: Py<Engine>,
    id: AccountId,
    info: interlane::AccountInfo,
    peers: Known,
}

impl Account {
    pub(crate) fn id(&self) -> AccountId {
        self.id
    }

    fn handles(&self, peers: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
        let engine = &self.engine.get().inner;
        self.peers.resolve("peers", peers, |names| engine.sessions(&[self.id], names))
    }
}

#[pymethods]
impl Account {
    #[new]
    fn new(py: Python<'_>, engine: Py<Engine>, name: &str, create: bool) -> PyResult<Self> {
        let inner = &engine.get().inner;
        let id = match call(py, || inner.account(name))? {
            Some(id) => id,
            // Another thread may make it first; then it is there all the same.
            None if create => call(py, || match inner.create_account(name) {
                Err(error) => inner.account(name)?.ok_or(error),
                made => made,
            })?,
            None => return Err(unknown_account(name)),
        };
        let info = call(py, || inner.account_info(id))?;
        Ok(Self { engine, id, info, peers: Known::default() })
    }

    /// The engine that this is an account of.
    #[getter]
    fn engine(&self, py: Python<'_>) -> Py<Engine> {
        self.engine.clone_ref(py)
    }

    /// The account's name.
    #[getter]
    fn name(&self) -> &str {
        &self.info.name
    }

    /// The public identity key, 33 bytes.
    #[getter]
    fn identity<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.info.identity)
    }

    /// The registration id.
    #[getter]
    fn registration_id(&self) -> u32 {
        self.info.registration_id
    }

    /// One-time prekeys that were made and not used yet.
    #[getter]
    fn stock(&self, py: Python<'_>) -> PyResult<u32> {
        let engine = &self.engine.get().inner;
        Ok(call(py, || engine.account_info(self.id))?.stock)
    }

    /// Handles of these peers' sessions, for the engine's methods: uint64.
    fn sessions<'py>(&self, py: Python<'py>, peers: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        rows::handles(py, &self.handles(peers)?)
    }

    /// `Account.prekeys` as plain tuples: registration id, identity, (id, key, signature), [(id, key), …].
    #[allow(clippy::type_complexity, reason = "the Python side gives these names")]
    fn _prekeys<'py>(
        &self,
        py: Python<'py>,
        one_time: u32,
        rotate: bool,
    ) -> PyResult<(
        u32,
        Bound<'py, PyBytes>,
        (u32, Bound<'py, PyBytes>, Bound<'py, PyBytes>),
        Vec<(u32, Bound<'py, PyBytes>)>,
    )> {
        let engine = &self.engine.get().inner;
        let upload = call(py, || engine.prekeys(self.id, one_time, rotate))?;
        let (id, public, signature) = upload.signed_prekey;
        Ok((
            upload.registration_id,
            PyBytes::new(py, &upload.identity),
            (id, PyBytes::new(py, &public), PyBytes::new(py, &signature)),
            upload.one_time.iter().map(|(id, public)| (*id, PyBytes::new(py, public))).collect(),
        ))
    }

    /// `Account.peers` as plain tuples: address, identity or None, session, pending, archived.
    #[allow(clippy::type_complexity, reason = "the Python side gives these names")]
    fn _peers<'py>(&self, py: Python<'py>) -> PyResult<Vec<(String, Option<Bound<'py, PyBytes>>, bool, bool, u32)>> {
        let engine = &self.engine.get().inner;
        let peers = call(py, || engine.peers(self.id))?;
        let tuples = peers.into_iter().map(|peer| {
            let identity = peer.identity.map(|identity| PyBytes::new(py, &identity));
            (peer.address, identity, peer.session, peer.pending, peer.archived)
        });
        Ok(tuples.collect())
    }

    /// Starts a session with each peer from its `Bundle`. Rows: INVALID_BUNDLE, UNTRUSTED_IDENTITY.
    fn start_sessions(&self, py: Python<'_>, peers: &Bound<'_, PyAny>, bundles: &Bound<'_, PyAny>) -> PyResult<Rows> {
        let handles = self.handles(peers)?;
        let bundles = self::bundles(bundles)?;
        let engine = &self.engine.get().inner;
        call(py, || engine.start_sessions(&handles, &bundles)).map(Rows::new)
    }

    /// Encrypts row `i` for `peers[i]`. Rows: NO_SESSION, TOO_LONG, EXHAUSTED.
    #[pyo3(signature = (peers, data, offsets=None))]
    fn encrypt(
        &self,
        py: Python<'_>,
        peers: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        offsets: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Rows> {
        let handles = self.handles(peers)?;
        let rows = input::read_rows("data", data, offsets)?;
        let engine = &self.engine.get().inner;
        call(py, || engine.encrypt(&handles, rows.packed()?)).map(Rows::new)
    }

    /// Decrypts row `i`, a frame of `kinds[i]` ("msg" or "pkmsg") from `peers[i]`. Rows: NO_SESSION, DUPLICATE,
    /// TOO_FAR_AHEAD, INVALID, UNTRUSTED_IDENTITY, NO_PREKEY; with a receive buffer also REDELIVERED and BUFFER_FULL.
    #[pyo3(signature = (peers, kinds, data, offsets=None))]
    fn decrypt(
        &self,
        py: Python<'_>,
        peers: &Bound<'_, PyAny>,
        kinds: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        offsets: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Rows> {
        let handles = self.handles(peers)?;
        let kinds = input::kinds(kinds, handles.len())?;
        let rows = input::read_rows("data", data, offsets)?;
        let engine = &self.engine.get().inner;
        Ok(Rows::received(&self.engine, py, call(py, || engine.decrypt(&handles, &kinds, rows.packed()?))?))
    }

    /// Trusts these identities (33 bytes, one a peer) from now on: the operator's decision on a changed identity.
    fn trust(&self, py: Python<'_>, peers: &Bound<'_, PyAny>, identities: &Bound<'_, PyAny>) -> PyResult<Rows> {
        let handles = self.handles(peers)?;
        let identities = input::objects("identities", identities, "a list of bytes")?
            .iter()
            .enumerate()
            .map(|(i, identity)| input::bytes(&format!("identities[{i}]"), identity))
            .collect::<PyResult<Vec<_>>>()?;
        let engine = &self.engine.get().inner;
        call(py, || engine.trust(&handles, &identities)).map(Rows::new)
    }

    /// Drops the sessions with these peers, current and archived, but not their trusted identities. Nothing remembers
    /// their frames then: a first one that named no one-time prekey opens again if it is delivered again.
    fn forget(&self, py: Python<'_>, peers: &Bound<'_, PyAny>) -> PyResult<Rows> {
        let handles = self.handles(peers)?;
        let engine = &self.engine.get().inner;
        call(py, || engine.forget(&handles)).map(Rows::new)
    }

    fn __repr__(&self) -> String {
        format!("<Account {:?}>", self.info.name)
    }
}

/// A group as one account sees it: its own sender key, and those of the other members.
#[pyclass(frozen, subclass, module = "interlane._native")]
pub(crate) struct Group {
    account: Py<Account>,
    id: String,
    handle: u64,
    senders: Known,
}

impl Group {
    fn engine(&self) -> (&interlane::Engine, AccountId) {
        let account = self.account.get();
        (&account.engine.get().inner, account.id)
    }

    fn handles(&self, senders: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
        let (engine, account) = self.engine();
        self.senders.resolve("senders", senders, |names| {
            let senders: Vec<Option<&str>> = names.iter().copied().map(Some).collect();
            engine.groups(&[account], &vec![self.id.as_str(); names.len()], &senders)
        })
    }
}

#[pymethods]
impl Group {
    #[new]
    fn new(py: Python<'_>, account: Py<Account>, group_id: String) -> PyResult<Self> {
        let mut group = Self { account, id: group_id, handle: 0, senders: Known::default() };
        let (engine, account) = group.engine();
        let handles = call(py, || engine.groups(&[account], &[&group.id], &[None]))?;
        group.handle = handles[0];
        Ok(group)
    }

    /// The account whose view this is.
    #[getter]
    fn account(&self, py: Python<'_>) -> Py<Account> {
        self.account.clone_ref(py)
    }

    /// The group's id.
    #[getter]
    fn id(&self) -> &str {
        &self.id
    }

    /// The handle of our own sender key, for the engine's methods.
    #[getter]
    fn handle(&self) -> u64 {
        self.handle
    }

    /// Takes senders' distribution messages in. Rows: INVALID.
    #[pyo3(signature = (senders, frames, offsets=None))]
    fn accept(
        &self,
        py: Python<'_>,
        senders: &Bound<'_, PyAny>,
        frames: &Bound<'_, PyAny>,
        offsets: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Rows> {
        let handles = self.handles(senders)?;
        let rows = input::read_rows("frames", frames, offsets)?;
        let (engine, _) = self.engine();
        call(py, || engine.group_accept(&handles, rows.packed()?)).map(Rows::new)
    }

    /// Decrypts row `i`, a frame of `senders[i]`. Rows: NO_SENDER_KEY, DUPLICATE, TOO_FAR_AHEAD, INVALID; with a receive
    /// buffer also REDELIVERED and BUFFER_FULL.
    #[pyo3(signature = (senders, frames, offsets=None))]
    fn decrypt(
        &self,
        py: Python<'_>,
        senders: &Bound<'_, PyAny>,
        frames: &Bound<'_, PyAny>,
        offsets: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Rows> {
        let handles = self.handles(senders)?;
        let rows = input::read_rows("frames", frames, offsets)?;
        let (engine, _) = self.engine();
        let columns = call(py, || engine.group_decrypt(&handles, rows.packed()?))?;
        Ok(Rows::received(&self.account.get().engine, py, columns))
    }

    /// Encrypts each plaintext with our own sender key. Rows: NO_SENDER_KEY, TOO_LONG, EXHAUSTED.
    #[pyo3(signature = (plaintexts, offsets=None))]
    fn _encrypt(
        &self,
        py: Python<'_>,
        plaintexts: &Bound<'_, PyAny>,
        offsets: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Rows> {
        let rows = input::read_rows("plaintexts", plaintexts, offsets)?;
        let handles = vec![self.handle; rows.len()];
        let (engine, _) = self.engine();
        call(py, || engine.group_encrypt(&handles, rows.packed()?)).map(Rows::new)
    }

    fn __repr__(&self) -> String {
        format!("<Group {:?} of {:?}>", self.id, self.account.get().info.name)
    }
}

/// A sequence of objects with the attributes of `interlane.Bundle`. Lengths are the engine's to check: a peer's bundle
/// that is wrong fails its row.
pub(crate) fn bundles(object: &Bound<'_, PyAny>) -> PyResult<Vec<Bundle>> {
    input::objects("bundles", object, "a list of Bundle")?
        .iter()
        .enumerate()
        .map(|(i, bundle)| bundle_of(bundle).map_err(|wrong| wrong.raised(i)))
        .collect()
}

/// Which attribute of a bundle is wrong, and how.
struct WrongAttribute(&'static str, String);

impl WrongAttribute {
    fn raised(self, i: usize) -> PyErr {
        malformed(&format!("bundles[{i}].{}", self.0), self.1)
    }
}

fn bundle_of(bundle: &Bound<'_, PyAny>) -> Result<Bundle, WrongAttribute> {
    let py = bundle.py();
    let signed = attribute(bundle, "signed_prekey", intern!(py, "signed_prekey"))?;
    let one_time = attribute(bundle, "one_time_prekey", intern!(py, "one_time_prekey"))?;
    Ok(Bundle {
        registration_id: number(bundle, "registration_id", intern!(py, "registration_id"))?,
        identity: bytes(bundle, "identity", intern!(py, "identity"))?,
        signed_prekey_id: number(&signed, "signed_prekey.id", intern!(py, "id"))?,
        signed_prekey: bytes(&signed, "signed_prekey.public", intern!(py, "public"))?,
        signature: bytes(&signed, "signed_prekey.signature", intern!(py, "signature"))?,
        one_time: if one_time.is_none() {
            None
        } else {
            let id = number(&one_time, "one_time_prekey.id", intern!(py, "id"))?;
            Some((id, bytes(&one_time, "one_time_prekey.public", intern!(py, "public"))?))
        },
    })
}

fn attribute<'py>(
    from: &Bound<'py, PyAny>,
    path: &'static str,
    name: &Bound<'py, PyString>,
) -> Result<Bound<'py, PyAny>, WrongAttribute> {
    from.getattr(name)
        .map_err(|_| WrongAttribute(path, format!("{} has none; give an interlane.Bundle", class_of(from))))
}

fn number(from: &Bound<'_, PyAny>, path: &'static str, name: &Bound<'_, PyString>) -> Result<u32, WrongAttribute> {
    let value = attribute(from, path, name)?;
    value.extract().map_err(|_| WrongAttribute(path, format!("{}; give an int below 2^32", class_of(&value))))
}

fn bytes(from: &Bound<'_, PyAny>, path: &'static str, name: &Bound<'_, PyString>) -> Result<Vec<u8>, WrongAttribute> {
    let value = attribute(from, path, name)?;
    input::bytes(path, &value).map_err(|_| WrongAttribute(path, format!("{}; give bytes", class_of(&value))))
}
