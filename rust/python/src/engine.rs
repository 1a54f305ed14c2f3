//! The class `Engine`: handles and rows in, rows out, each method one engine call.

use std::path::PathBuf;

use hashbrown::HashMap;
use interlane::{AccountId, BufferLimits, Durability, Location, Options, Secret};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::account::Account;
use crate::errors::{self, class_of, malformed, unknown_account};
use crate::input::{self, call};
use crate::rows::{self, Rows};

/// Most workers of a call: far above the cores of any machine, and a slip of the keyboard below what exhausts one.
const MAX_THREADS: usize = 1_024;

fn file(path: PathBuf, key: &Bound<'_, PyAny>, generation: Option<PathBuf>) -> PyResult<Location> {
    Ok(Location::Sqlite { path, key: Secret::copy_of(&*input::exactly("key", key)?), generation })
}

/// Copies a store to a file, also while an engine has it open.
#[pyfunction]
pub(crate) fn backup(py: Python<'_>, path: PathBuf, destination: PathBuf) -> PyResult<()> {
    call(py, || interlane::backup(&path, &destination))
}

/// Declares a copy that was put in a store's place. Gives its accounts, the peers whose chains it gave up, and the sender
/// keys that it dropped.
#[pyfunction]
pub(crate) fn restore(
    py: Python<'_>,
    path: PathBuf,
    key: &Bound<'_, PyAny>,
    generation: Option<PathBuf>,
    newest: bool,
) -> PyResult<(u64, u64, u64)> {
    let options = Options::new(file(path, key, generation)?, errors::backend(None)?);
    let restored = call(py, || interlane::Engine::restore(options, newest))?;
    Ok((restored.accounts, restored.peers, restored.sender_keys))
}

/// Sessions of many accounts. `interlane.open` makes one.
#[pyclass(frozen, subclass, module = "interlane._native")]
pub(crate) struct Engine {
    pub(crate) inner: interlane::Engine,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (
        path, url, key, generation, threads, refuse_identity_changes, padding, lease, receive_buffer,
        resident_sessions, backend, seed
    ))]
    #[allow(clippy::too_many_arguments, reason = "`interlane.open` is the face, where each has its name")]
    fn new(
        py: Python<'_>,
        path: Option<PathBuf>,
        url: Option<String>,
        key: Option<Bound<'_, PyAny>>,
        generation: Option<PathBuf>,
        threads: Option<usize>,
        refuse_identity_changes: bool,
        padding: bool,
        lease: Option<u32>,
        receive_buffer: Option<(u64, u64)>,
        resident_sessions: Option<usize>,
        backend: Option<&str>,
        seed: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let location = match (path, url, key) {
            (None, None, _) => Location::Memory,
            (Some(path), None, Some(key)) => file(path, &key, generation)?,
            (None, Some(url), Some(key)) => {
                Location::Postgres { url, key: Secret::copy_of(&*input::exactly("key", &key)?) }
            }
            (Some(_), Some(_), _) => return Err(malformed("path", "a file and a URL; give one of them")),
            (_, _, None) => return Err(malformed("key", "None; a store that outlives the process needs one")),
        };
        let threads = match threads {
            None => std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS),
            Some(threads @ 1..=MAX_THREADS) => threads,
            Some(threads) => return Err(malformed("threads", format!("{threads}; give 1 to {MAX_THREADS}"))),
        };
        let seed = seed.map(|seed| input::exactly("_seed", &seed)).transpose()?.map(|seed| *seed);
        let backend = errors::backend(backend)?;
        let receive_buffer = receive_buffer.map(|(bytes, seconds)| BufferLimits { bytes, seconds });
        let durability = lease.map_or(Durability::Strict, Durability::Leased);
        let options = Options {
            location,
            threads,
            backend,
            refuse_identity_changes,
            padding,
            durability,
            receive_buffer,
            resident_sessions,
            seed,
        };
        Ok(Self { inner: call(py, || interlane::Engine::open(options))? })
    }

    /// Closes the store, after the calls that are under way. Closing again does nothing; every other call raises
    /// `ClosedError` from now on.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match py.detach(|| self.inner.close()) {
            Ok(()) | Err(interlane::Error::Closed) => Ok(()),
            Err(error) => Err(errors::raised(error)),
        }
    }

    /// The names of all accounts, in the order in which they were made.
    fn accounts(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        call(py, || self.inner.accounts())
    }

    /// The shards of a shared store as tuples: number, engine, serving, wanted, epoch, version, lost_from, accounts.
    #[allow(clippy::type_complexity, reason = "Python makes a class of it")]
    fn _shards(&self, py: Python<'_>) -> PyResult<Vec<(u32, String, bool, Option<String>, u64, u64, u64, u64)>> {
        let shards = call(py, || self.inner.shards())?.into_iter().map(|shard| {
            let interlane::Shard { number, engine, serving, wanted, epoch, version, lost_from, accounts } = shard;
            (number, engine, serving, wanted, epoch, version, lost_from, accounts)
        });
        Ok(shards.collect())
    }

    /// `Engine.move_shards`.
    fn _move_shards(&self, py: Python<'_>, shards: Vec<u32>, to: &str, force: bool) -> PyResult<()> {
        call(py, || self.inner.move_shards(&shards, to, force))
    }

    /// `Engine.declare_shards`: accounts, peers, sender keys.
    fn _declare_shards(&self, py: Python<'_>, shards: Vec<u32>, force: bool) -> PyResult<(u64, u64, u64)> {
        let restored = call(py, || self.inner.declare_shards(&shards, force))?;
        Ok((restored.accounts, restored.peers, restored.sender_keys))
    }

    /// Deletes an account: its keys, sessions and sender keys.
    fn delete_account(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let id = self.account_id(py, name)?;
        call(py, || self.inner.delete_account(id))
    }

    /// `Engine.import_account` with checked arguments: prekeys as tuples of id, private key (and signature or None).
    fn _import(
        &self,
        py: Python<'_>,
        name: &str,
        identity_private: &Bound<'_, PyAny>,
        registration_id: u32,
        signed_prekeys: Vec<(u32, Bound<'_, PyAny>, Option<Bound<'_, PyAny>>)>,
        one_time_prekeys: Vec<(u32, Bound<'_, PyAny>)>,
    ) -> PyResult<()> {
        let private = |argument: &str, key: &Bound<'_, PyAny>| -> PyResult<Secret<32>> {
            Ok(Secret::copy_of(&*input::exactly(argument, key)?))
        };
        let import = interlane::Import {
            identity_private: private("identity_private", identity_private)?,
            registration_id,
            signed_prekeys: signed_prekeys
                .into_iter()
                .map(|(id, key, signature)| {
                    let signature = signature.map(|signature| input::exactly("signature", &signature)).transpose()?;
                    Ok((id, private("private", &key)?, signature.map(|signature| *signature)))
                })
                .collect::<PyResult<_>>()?,
            one_time_prekeys: one_time_prekeys
                .into_iter()
                .map(|(id, key)| Ok((id, private("private", &key)?)))
                .collect::<PyResult<_>>()?,
        };
        call(py, || self.inner.import_account(name, import)).map(drop)
    }

    /// Handles of sessions: uint64, one for each peer. `accounts` is one account or name for all peers, or a sequence
    /// with one for each. A peer need not have a session yet.
    fn sessions<'py>(
        &self,
        py: Python<'py>,
        accounts: &Bound<'py, PyAny>,
        peers: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let accounts = self.account_ids(accounts)?;
        let peers = input::names("peers", peers)?;
        let handles = call(py, || {
            let peers: Vec<&str> = peers.iter().map(|peer| &**peer).collect();
            self.inner.sessions(&accounts, &peers)
        })?;
        rows::handles(py, &handles)
    }

    /// Loads what is not in memory of these sessions, so that the first call that needs them need not: after opening a
    /// store, the sessions of customers who are about to write. Other calls may be made meanwhile.
    fn warm(&self, py: Python<'_>, handles: &Bound<'_, PyAny>) -> PyResult<()> {
        let handles = input::handles(handles)?;
        call(py, || self.inner.warm(&handles))
    }

    /// Handles of sender keys: uint64, one for each group. `senders` has each group's sender, or None for the account's
    /// own key; left away, all are its own.
    #[pyo3(signature = (accounts, groups, senders=None))]
    fn groups<'py>(
        &self,
        py: Python<'py>,
        accounts: &Bound<'py, PyAny>,
        groups: &Bound<'py, PyAny>,
        senders: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let accounts = self.account_ids(accounts)?;
        let groups = input::names("groups", groups)?;
        let senders = senders.map(|senders| input::names_or_none("senders", senders)).transpose()?;
        let handles = call(py, || {
            let groups: Vec<&str> = groups.iter().map(|group| &**group).collect();
            let senders: Vec<Option<&str>> = match &senders {
                None => vec![None; groups.len()],
                Some(senders) => senders.iter().map(Option::as_deref).collect(),
            };
            self.inner.groups(&accounts, &groups, &senders)
        })?;
        rows::handles(py, &handles)
    }

    /// Starts a session with each handle's peer from its `Bundle`. Rows: INVALID_BUNDLE, UNTRUSTED_IDENTITY.
    fn start_sessions(&self, py: Python<'_>, handles: &Bound<'_, PyAny>, bundles: &Bound<'_, PyAny>) -> PyResult<Rows> {
        let handles = input::handles(handles)?;
        let bundles = crate::account::bundles(bundles)?;
        call(py, || self.inner.start_sessions(&handles, &bundles)).map(Rows::new)
    }

    /// Encrypts row `i` for session `handles[i]`; several rows of one session are taken in order. Rows: NO_SESSION,
    /// TOO_LONG, EXHAUSTED, UNKNOWN_HANDLE.
    #[pyo3(signature = (handles, data, offsets=None))]
    fn encrypt(
        &self,
        py: Python<'_>,
        handles: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        offsets: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Rows> {
        let handles = input::handles(handles)?;
        let rows = input::read_rows("data", data, offsets)?;
        call(py, || self.inner.encrypt(&handles, rows.packed()?)).map(Rows::new)
    }

    /// Decrypts row `i`, a frame of `kinds[i]` ("msg" or "pkmsg") of session `handles[i]`. A row that does not verify
    /// changes nothing. Rows: NO_SESSION, DUPLICATE, TOO_FAR_AHEAD, INVALID, UNTRUSTED_IDENTITY, NO_PREKEY,
    /// UNKNOWN_HANDLE; with a receive buffer also REDELIVERED and BUFFER_FULL.
    #[pyo3(signature = (handles, kinds, data, offsets=None))]
    fn decrypt(
        slf: &Bound<'_, Self>,
        py: Python<'_>,
        handles: &Bound<'_, PyAny>,
        kinds: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        offsets: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Rows> {
        let handles = input::handles(handles)?;
        let kinds = input::kinds(kinds, handles.len())?;
        let rows = input::read_rows("data", data, offsets)?;
        let inner = &slf.get().inner;
        Ok(Rows::received(slf.as_unbound(), py, call(py, || inner.decrypt(&handles, &kinds, rows.packed()?))?))
    }

    /// The distribution message of each of our own sender keys, which is made on first use.
    fn group_distribute(&self, py: Python<'_>, handles: &Bound<'_, PyAny>) -> PyResult<Rows> {
        let handles = input::handles(handles)?;
        call(py, || self.inner.group_distribute(&handles)).map(Rows::new)
    }

    /// Takes senders' distribution messages in. Rows: INVALID, UNKNOWN_HANDLE.
    #[pyo3(signature = (handles, data, offsets=None))]
    fn group_accept(
        &self,
        py: Python<'_>,
        handles: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        offsets: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Rows> {
        let handles = input::handles(handles)?;
        let rows = input::read_rows("data", data, offsets)?;
        call(py, || self.inner.group_accept(&handles, rows.packed()?)).map(Rows::new)
    }

    /// Encrypts row `i` with our own sender key `handles[i]`: one frame for the whole group. Rows: NO_SENDER_KEY,
    /// TOO_LONG, EXHAUSTED, UNKNOWN_HANDLE.
    #[pyo3(signature = (handles, data, offsets=None))]
    fn group_encrypt(
        &self,
        py: Python<'_>,
        handles: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        offsets: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Rows> {
        let handles = input::handles(handles)?;
        let rows = input::read_rows("data", data, offsets)?;
        call(py, || self.inner.group_encrypt(&handles, rows.packed()?)).map(Rows::new)
    }

    /// Decrypts row `i` with the sender's key `handles[i]`. Rows: NO_SENDER_KEY, DUPLICATE, TOO_FAR_AHEAD, INVALID,
    /// UNKNOWN_HANDLE; with a receive buffer also REDELIVERED and BUFFER_FULL.
    #[pyo3(signature = (handles, data, offsets=None))]
    fn group_decrypt(
        slf: &Bound<'_, Self>,
        py: Python<'_>,
        handles: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
        offsets: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Rows> {
        let handles = input::handles(handles)?;
        let rows = input::read_rows("data", data, offsets)?;
        let inner = &slf.get().inner;
        Ok(Rows::received(slf.as_unbound(), py, call(py, || inner.group_decrypt(&handles, rows.packed()?))?))
    }

    /// Drops our own sender keys; the next distribution makes others.
    fn group_rotate(&self, py: Python<'_>, handles: &Bound<'_, PyAny>) -> PyResult<Rows> {
        let handles = input::handles(handles)?;
        call(py, || self.inner.group_rotate(&handles)).map(Rows::new)
    }

    /// Whether each of these sessions' peers lacks our sender key `handle`.
    fn _group_lacking(&self, py: Python<'_>, handle: u64, devices: &Bound<'_, PyAny>) -> PyResult<Vec<bool>> {
        let devices = input::handles(devices)?;
        call(py, || self.inner.group_lacking(handle, &devices))
    }

    /// Notes that these sessions' peers were sent our sender key `handle` by this distribution message.
    fn _group_holders(
        &self,
        py: Python<'_>,
        handle: u64,
        distribution: &[u8],
        devices: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let devices = input::handles(devices)?;
        call(py, || self.inner.group_holders(handle, distribution, &devices))
    }

    /// Numbers for operators: accounts, sessions (in memory), sessions_loaded, sessions_evicted, rows_encrypted, rows_decrypted, rows_failed, rows_buffered,
    /// buffered_bytes, calls_waited, leases_written, store_bytes, threads; and the backend's name.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = call(py, || self.inner.stats())?;
        let named = PyDict::new(py);
        named.set_item("accounts", stats.accounts)?;
        named.set_item("sessions", stats.sessions)?;
        named.set_item("sessions_loaded", stats.sessions_loaded)?;
        named.set_item("sessions_evicted", stats.sessions_evicted)?;
        named.set_item("rows_encrypted", stats.rows_encrypted)?;
        named.set_item("rows_decrypted", stats.rows_decrypted)?;
        named.set_item("rows_failed", stats.rows_failed)?;
        named.set_item("rows_buffered", stats.rows_buffered)?;
        named.set_item("buffered_bytes", stats.buffered_bytes)?;
        named.set_item("calls_waited", stats.calls_waited)?;
        named.set_item("leases_written", stats.leases_written)?;
        named.set_item("store_bytes", stats.store_bytes)?;
        named.set_item("threads", stats.threads)?;
        named.set_item("backend", stats.backend)?;
        Ok(named)
    }
}

impl Engine {
    /// The account of this name, or `UnknownAccount`.
    pub(crate) fn account_id(&self, py: Python<'_>, name: &str) -> PyResult<AccountId> {
        call(py, || self.inner.account(name))?.ok_or_else(|| unknown_account(name))
    }

    /// Accounts, given as objects or names: one for all rows, or a sequence.
    fn account_ids(&self, accounts: &Bound<'_, PyAny>) -> PyResult<Vec<AccountId>> {
        const WANTED: &str = "an account, its name, or a list of these";
        let py = accounts.py();
        // The rows of a call name few accounts, each many times.
        let mut known: HashMap<String, AccountId> = HashMap::new();
        let mut id_of = |argument: &str, item: &Bound<'_, PyAny>| -> PyResult<AccountId> {
            if let Ok(account) = item.cast::<Account>() {
                return Ok(account.get().id());
            }
            let name = item
                .cast::<PyString>()
                .map_err(|_| malformed(argument, format!("{}; give {WANTED}", class_of(item))))?
                .to_str()?;
            if let Some(&id) = known.get(name) {
                return Ok(id);
            }
            let id = self.account_id(py, name)?;
            known.insert(name.to_owned(), id);
            Ok(id)
        };
        if accounts.is_instance_of::<PyString>() || accounts.is_instance_of::<Account>() {
            return Ok(vec![id_of("accounts", accounts)?]);
        }
        input::objects("accounts", accounts, WANTED)?.iter().map(|item| id_of("accounts", item)).collect()
    }
}
