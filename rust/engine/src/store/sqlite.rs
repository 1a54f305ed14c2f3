//! The store in a SQLite file and, while it is open, two files of batches beside it: a journal ([`journal`]), a table of rows
//! ([`table`]), and the few tables around them ([`schema`]).
//!
//! Writing rows in place costs 4 µs each where keys come in order and 14 µs where they do not; appending them to one
//! value costs under 1 µs. So a batch is appended, sealed, as one block of the *journal*, and that is its commit. The
//! newest body of every row that the journal has and the table of rows has not is also in memory ([`Unfolded`]), where
//! look-ups find it first. When the journal has grown to its limit it is *frozen*, and while the next one grows, each
//! commit *folds* some frozen rows into the table, in key order and in a transaction of its own, so that no commit waits
//! for all of them. Those transactions are not synced but the last one, which says that all are folded: then the frozen blocks
//! are forgotten, and the next ones written over them. A commit does so, and takes its own rows into memory, while its block is
//! being synced: neither is of any consequence where that fails, for then the store is to be opened again.
//!
//! After a crash, the blocks that are not folded are replayed into memory. A row in the table may then be newer than
//! the first blocks that have it, never newer than the last.
//!
//! An account is made in a transaction that tells the number of the block with its first rows, and is there once that block
//! is.

use std::fs;
use std::io;
use std::mem::take;
use std::path::{self, Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;
use interlane_lanes::Backend;
use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use zeroize::Zeroizing;

use self::journal::{Block, HEAD, Journal};
use self::schema::{SCHEMA, TABLES};
use self::table::Table;
pub(crate) use self::unopened::Unopened;
use super::generation::Generation;
use super::sealed::{self, Nonces, Place, StoreId};
use super::unfolded::{Newest, Unfolded};
use super::{Body, Change, Changes, FoundAt, FoundTag, Key, Kind, Store};
use crate::bytes::Bytes;
use crate::error::Error;
use crate::limits::{COPIED_LOG_BYTES, JOURNAL_BYTES, WAL_BYTES};
use crate::secret::Secret;

#[cfg_attr(test, expect(dead_code, reason = "tests of the store have a disk of their own"))]
mod disk;
pub(super) mod journal;
pub(super) mod schema;
mod space;
mod table;
mod unopened;

/// Older versions can lose a commit when they reset the write-ahead log.
const OLDEST_SQLITE: i32 = 3_051_003;

/// "ilan": tells our files from other programs'.
pub(super) const APPLICATION_ID: i32 = 0x696c_616e;

/// Bytes of a page. The larger they are, the less of them rows of some 400 bytes leave empty: a table of these takes 2.5 %
/// more than they do when it was written in order, with 4 KiB 10 %.
const PAGE_BYTES: u32 = 16_384;

/// Bytes of the smallest page that SQLite knows: no database is smaller.
const SMALLEST_PAGE: u64 = 512;

/// KiB of pages kept in memory.
const CACHE_KIB: i64 = 32 << 10;

/// Rows of a batch from which on a thread of its own syncs it: with fewer there is too little to be done meanwhile.
const SYNCED_ASIDE: usize = 128;

/// What a second opener is told.
const OPEN_ELSEWHERE: &str =
    "is open in another process (or twice in this one): a store has one owner, so close it there first";

const NO_ROOM: &str = "has no room on its disk: free some and call again; nothing was written";

const READ_ONLY: &str = "is read-only: make it and its folder writable for this user";

/// A section of a block begins with its account and length.
const SECTION_HEAD: usize = 4 + 4;

/// Set in a change's kind where the row goes.
const DELETED: u8 = 0x80;

/// Bytes of a change beside its body: kind, tag, the body's length (7 bits a byte).
const CHANGE_HEAD: usize = 1 + 16 + 5;

/// Rows in a SQLite file that this process alone has open.
pub(crate) struct SqliteStore {
    path: PathBuf,
    /// None once closed.
    connection: Option<Connection>,
    /// Locked for as long as the store is open. SQLite's own lock goes when this process closes the file for whatever
    /// reason (POSIX has it so); this one does not.
    owner: Option<fs::File>,
    /// How far the store has come, outside of its file.
    generation: Generation,
    /// The block number to go on from, should this copy be declared.
    resume_at: u64,
    /// SQLite's log is copied back when it has grown to so many bytes.
    log_limit: u64,
    /// Whether transactions are synced when they are committed.
    syncs: bool,
    /// The process that opened the store: a fork of it must not touch the files, not even to close them.
    process: u32,
    store_id: StoreId,
    data_keys: DataKeys,
    /// The last block appended. Numbers are never given twice.
    sequence: u64,
    /// The last block that is in the table of rows in whole.
    folded: u64,
    /// The same when the store was opened.
    found_folded: u64,
    /// An account was deleted: pages may still have, beside their rows, what they had of it.
    emptied: bool,
    journal: Journal,
    /// What blocks since the last freeze hold.
    newest: Unfolded,
    frozen: Option<Frozen>,
    journal_limit: u64,
    /// What seals the journal, and seals and opens the rows that are folded.
    backend: Backend,
    /// Why what is on the disk is not known before the store is opened again.
    failed: Option<String>,
}

/// A part of the journal that is being folded.
struct Frozen {
    rows: Unfolded,
    /// Its places in the table's order, and how many of them are in the table of rows.
    order: Vec<u32>,
    done: usize,
    /// Its last block.
    sequence: u64,
}

impl Frozen {
    fn of(rows: Unfolded, sequence: u64) -> Self {
        Self { order: rows.in_order_of(table::order), rows, done: 0, sequence }
    }
}

impl SqliteStore {
    /// Opens the store at `path`, or makes it where there is none. `second` is a second place for its generation.
    pub(crate) fn open(path: &Path, operator_key: Secret<32>, second: Option<&Path>) -> Result<Self, Error> {
        Self::open_with(path, operator_key, second, false, OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    /// Opens a copy that was put in a store's place: [`Store::declare`] is to follow.
    pub(crate) fn open_copy(path: &Path, operator_key: Secret<32>, second: Option<&Path>) -> Result<Self, Error> {
        if !path.exists() {
            return Err(said(path, "is not there: put the copy in its place"));
        }
        Self::open_with(path, operator_key, second, true, OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    /// Folds the journal when it has grown to so many bytes, and copies SQLite's log back as often.
    #[cfg(test)]
    pub(crate) fn fold_at(&mut self, bytes: u64) {
        (self.journal_limit, self.log_limit) = (bytes, bytes);
    }

    /// Opens a store as where a file system grants every lock to everybody.
    #[cfg(test)]
    pub(crate) fn open_unlocked(path: &Path, operator_key: Secret<32>) -> Result<Self, Error> {
        let owner = fs::File::open(path).map_err(|error| file_error(path, &error))?;
        let access = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags_and_vfs(path, access, c"unix-none")
            .map_err(Fault::from)
            .and_then(|connection| prepare(&connection).map(|()| connection))
            .and_then(|connection| Self::read(path, owner, connection, operator_key, None, false))
            .map_err(|fault| fault.explain(path))
    }

    fn open_with(
        path: &Path,
        operator_key: Secret<32>,
        second: Option<&Path>,
        declaring: bool,
        access: OpenFlags,
    ) -> Result<Self, Error> {
        check_version(rusqlite::version_number(), rusqlite::version())?;
        // SQLite takes some relative names for something else than a file.
        let path = path::absolute(path).map_err(|error| file_error(path, &error))?;
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => return Err(said(&path, "is a folder: name a file in it")),
            Ok(found) if found.len() == 0 => {
                return Err(said(&path, "is empty: restore it from a backup, or remove it to begin with a new store"));
            }
            // SQLite would take it for an empty database.
            Ok(found) if found.len() < SMALLEST_PAGE => return Err(damaged(&path)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(&path, &operator_key)?,
            Err(error) => return Err(file_error(&path, &error)),
        }
        let owner = own(&path)?;
        connect(&path, access)
            .and_then(|connection| Self::read(&path, owner, connection, operator_key, second, declaring))
            .map_err(|fault| fault.explain(&path))
    }

    /// Checks what the file is and reads what has to be in memory.
    fn read(
        path: &Path,
        owner: fs::File,
        connection: Connection,
        operator_key: Secret<32>,
        second: Option<&Path>,
        declaring: bool,
    ) -> Result<Self, Fault> {
        // Whatever is refused is left as it is.
        leave_the_files(&connection, true)?;
        if connection.is_readonly(rusqlite::MAIN_DB)? {
            return Err(said(path, READ_ONLY).into());
        }
        let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        if number("application_id")? != APPLICATION_ID {
            return Err(said(path, "is another program's SQLite database: name another file").into());
        }
        let found = number("user_version")?;
        schema::check(path, found)?;
        configure(&connection)?;
        let (store_id, proof, folded) = connection
            .query_row("SELECT store_id, proof, folded FROM store WHERE id = 1", [], |row| {
                Ok((row.get::<_, StoreId>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, i64>(2)?))
            })
            .optional()?
            .ok_or_else(|| damaged(path))?;
        sealed::open(&operator_key, &store_id, Place::Proof, &proof, &mut Zeroizing::default()).map_err(|_| {
            said(path, "was made with another operator key: give that one (nothing can be read without it)")
        })?;
        let folded = u64::try_from(folded).map_err(|_| damaged(path))?;
        let copied = schema::last_block(&connection, path, found)?;
        let (journal, blocks) =
            Journal::read(path, store_id, folded.max(copied)).map_err(|error| file_error(path, &error))?;
        let number = blocks.last().map_or(0, |block| block.number).max(folded).max(copied);
        let (generation, resume_at) = Generation::open(path, second, store_id, number, declaring)?;
        generation.check_owner()?;
        journal::write_again(&beside(path, "-wal")).map_err(|error| Fault::of_disk(error, true))?;
        let mut data_keys = DataKeys { operator_key, store_id, known: HashMap::new() };
        if found < SCHEMA {
            // Nobody copies what is between two schemas.
            generation.hold()?;
            let migrated = schema::migrate(&connection, &mut data_keys, path, found);
            generation.release();
            migrated?;
        }
        let mut store = Self {
            path: path.to_owned(),
            connection: None,
            owner: Some(owner),
            generation,
            resume_at,
            log_limit: WAL_BYTES.into(),
            syncs: true,
            process: std::process::id(),
            store_id,
            data_keys,
            sequence: folded,
            folded,
            found_folded: folded,
            emptied: false,
            journal,
            newest: Unfolded::default(),
            frozen: None,
            journal_limit: JOURNAL_BYTES,
            backend: Backend::portable(),
            failed: None,
        };
        store.replay(&connection, &blocks, declaring)?;
        store.generation.catch_up(store.sequence)?;
        store.forget_half_made(&connection)?;
        store.generation.confirm_owner()?;
        leave_the_files(&connection, false)?;
        store.connection = Some(connection);
        Ok(store)
    }

    /// Takes the blocks that are not folded into memory: those that a copy has in its table, and those of the journal's part
    /// that does not grow, as what is being folded. Of a copy that is declared, the journal may be another's, and goes on
    /// elsewhere than it ends.
    fn replay(&mut self, connection: &Connection, blocks: &[Block], declaring: bool) -> Result<(), Fault> {
        let (mut older, mut newest, mut plain) = (Unfolded::default(), Unfolded::default(), Zeroizing::default());
        let mut copied = connection.prepare("SELECT seq, block FROM journal WHERE seq > ?1 ORDER BY seq")?;
        let mut copied = copied.query([self.folded as i64])?;
        while let Some(row) = copied.next()? {
            let number = row.get::<_, i64>(0)? as u64;
            let sections = row.get_ref(1)?.as_blob().map_err(|_| damaged(&self.path))?;
            self.replay_block(connection, number, sections, &mut plain, &mut older)?;
        }
        let mut last_older = self.sequence;
        let mut sections = Vec::new();
        let mut replayed = 0;
        for block in blocks {
            if block.number != self.sequence + 1 && declaring {
                break;
            }
            if block.number != self.sequence + 1 && replayed == 0 {
                let text = format!(
                    "ends before its journal begins: a copy was put in its place, or block {} is damaged; restore it from a \
                     backup, or declare it: interlane restore --store {}",
                    self.sequence + 1,
                    self.path.display()
                );
                return Err(said(&self.path, &text).into());
            }
            self.journal.sections(block, &mut sections).map_err(|error| Fault::of_disk(error, true))?;
            let rows = if self.journal.is_active(block) {
                &mut newest
            } else {
                last_older = block.number;
                &mut older
            };
            self.replay_block(connection, block.number, &sections, &mut plain, rows)?;
            replayed += 1;
        }
        self.journal.secure(&blocks[..replayed]).map_err(|error| Fault::of_disk(error, true))?;
        if !older.is_empty() {
            self.frozen = Some(Frozen::of(older, last_older));
        }
        self.newest = newest;
        Ok(())
    }

    fn replay_block(
        &mut self,
        connection: &Connection,
        number: u64,
        mut rest: &[u8],
        plain: &mut Zeroizing<Vec<u8>>,
        rows: &mut Unfolded,
    ) -> Result<(), Fault> {
        let unreadable =
            || said(&self.path, &format!("has a damaged block {number} in its journal: restore it from a backup"));
        // It has one section at least.
        if number != self.sequence + 1 || rest.is_empty() {
            return Err(unreadable().into());
        }
        while !rest.is_empty() {
            let (account, length, section) = section(rest).ok_or_else(unreadable)?;
            rest = &rest[SECTION_HEAD + length..];
            self.data_keys.fetch(connection, [account])?;
            let key = self.data_keys.of(account).ok_or_else(unreadable)?;
            let place = Place::Section { sequence: number, account };
            sealed::open(key, &self.store_id, place, section, plain).map_err(|_| unreadable())?;
            let mut changes = plain.as_slice();
            while !changes.is_empty() {
                let (key, body) = take_change(account, &mut changes).ok_or_else(unreadable)?;
                rows.set(key, body.map_or(Body::Gone, Body::Is));
            }
        }
        self.sequence = number;
        Ok(())
    }

    /// Forgets accounts whose first rows did not come to be in the journal.
    fn forget_half_made(&mut self, connection: &Connection) -> Result<(), Fault> {
        let half_made: Vec<u32> = connection
            .prepare("SELECT id FROM accounts WHERE made_by > ?1")?
            .query_map([self.sequence as i64], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        if half_made.is_empty() {
            return Ok(());
        }
        let transaction = connection.unchecked_transaction()?;
        half_made.iter().try_for_each(|&account| forget_account(&transaction, account).map(drop))?;
        Ok(transaction.commit()?)
    }

    /// Does `work` in a transaction, whole or not at all; it outlives a power cut.
    fn transact<T>(&mut self, work: impl FnOnce(&mut Self, &Connection) -> Result<T, Fault>) -> Result<T, Error> {
        self.generation.check_owner()?;
        let done = self.transact_as(true, work);
        self.confirm_owner()?;
        done
    }

    /// The same, where `synced`. Else a power cut may take it and those after it back, until one that is synced. The caller
    /// sees to it that the store is ours.
    fn transact_as<T>(
        &mut self,
        synced: bool,
        work: impl FnOnce(&mut Self, &Connection) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        let held = self.generation.try_hold()?;
        let done = self.with_files(|store, connection| {
            if synced != store.syncs {
                connection.pragma_update(None, "synchronous", if synced { "FULL" } else { "NORMAL" })?;
                store.syncs = synced;
            }
            let transaction = connection.unchecked_transaction()?;
            let done = work(store, &transaction)?;
            transaction.commit()?;
            // Not while somebody copies the store: see `backup`.
            let limit = if held { store.log_limit } else { COPIED_LOG_BYTES };
            match copy_back_from(connection, limit) {
                // It is committed all the same, and the log is whole.
                Err(fault) if !fault.leaves_the_disk_unknown() => {}
                copied => copied?,
            }
            Ok(done)
        });
        if held {
            self.generation.release();
        }
        done
    }

    /// That the store was ours throughout what was done just now.
    fn confirm_owner(&mut self) -> Result<(), Error> {
        self.generation.confirm_owner().map_err(|error| self.fail(error))
    }

    fn log_bytes(&self) -> u64 {
        fs::metadata(beside(&self.path, "-wal")).map_or(0, |found| found.len())
    }

    /// Notes that the store has come so far.
    fn note_generation(&mut self) -> Result<(), Error> {
        let noted = self.generation.set(self.sequence);
        // The store is ahead of its note, but memory must not go on as if nothing had been written.
        noted.map_err(|error| self.fail(error))
    }

    /// It is not known any more what is on the disk.
    fn fail(&mut self, why: Error) -> Error {
        self.failed.get_or_insert_with(|| why.to_string());
        why
    }

    fn with_connection<T>(
        &mut self,
        work: impl FnOnce(&mut Self, &Connection) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        self.generation.check_owner()?;
        self.with_files(work)
    }

    fn with_files<T>(&mut self, work: impl FnOnce(&mut Self, &Connection) -> Result<T, Fault>) -> Result<T, Error> {
        if let Some(why) = &self.failed {
            self.generation.check_owner()?;
            return Err(said(
                &self.path,
                &format!("could not be written to before: open it again; then it said: {why}"),
            ));
        }
        let connection = self.connection.take().ok_or(Error::Closed)?;
        let done = work(self, &connection);
        self.connection = Some(connection);
        done.map_err(|fault| self.explained(fault))
    }

    /// What a caller is told of a fault.
    fn explained(&mut self, fault: Fault) -> Error {
        // What another owner does to the files looks like damage.
        if let Err(another) = self.generation.check_owner() {
            return another;
        }
        let unknown = fault.leaves_the_disk_unknown();
        let error = fault.explain(&self.path);
        if unknown { self.fail(error) } else { error }
    }

    /// Appends a batch to the journal, and folds what is due of the frozen rows.
    fn write(&mut self, changes: &Changes) -> Result<(), Error> {
        self.generation.check_owner()?;
        if self.journal.active_bytes() >= self.journal_limit {
            self.freeze()?;
        }
        if let Some(block) = self.with_files(|store, connection| store.seal(connection, changes))? {
            self.append(block, changes).or_else(|error| self.confirm_owner().and(Err(error)))?;
        }
        self.note_generation()
    }

    /// Seals a batch as the next block, with room for its head; nothing where nothing changes.
    fn seal(&mut self, connection: &Connection, changes: &Changes) -> Result<Option<Bytes>, Fault> {
        let rows = &changes.rows;
        if rows.is_empty() {
            return Ok(None);
        }
        // One section for each account, its rows in their order.
        let account_of = |at: usize| rows[at].0.account;
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&at| account_of(at));
        let of_accounts: Vec<&[usize]> = order.chunk_by(|&one, &next| account_of(one) == account_of(next)).collect();
        let accounts = of_accounts.iter().map(|of_account| account_of(of_account[0]));
        self.data_keys.fetch(connection, accounts.clone())?;
        super::check_accounts(accounts.clone(), |account| self.data_keys.of(account).is_some())?;
        let sections = of_accounts.len();
        let mut nonces = Nonces::draw(sections)?;

        // The plaintext is sealed where it lies, so the block must not grow.
        let heads = rows.len() * CHANGE_HEAD + sections * (SECTION_HEAD + sealed::NONCE + sealed::TAG);
        let mut block = Bytes::with_capacity(journal::bytes_for(changes.bytes.len() + heads));
        let lies_at = block.as_ptr();
        // Of each section: its account, nonce, and where its body ends.
        let mut laid_out: Vec<(u32, [u8; sealed::NONCE], usize)> = Vec::with_capacity(sections);
        block.extend_from_slice(&[0; HEAD]);
        for (of_account, account) in of_accounts.iter().zip(accounts) {
            let head = block.len();
            let nonce = nonces.next()?;
            block.extend_from_slice(&account.to_be_bytes());
            block.extend_from_slice(&[0; 4]);
            block.extend_from_slice(&nonce);
            for &at in *of_account {
                let (key, change) = rows[at];
                put_change(&mut block, key, change, &changes.bytes);
            }
            block.extend_from_slice(&[0; sealed::TAG]);
            let length = u32::try_from(block.len() - head - SECTION_HEAD).map_err(|_| {
                Error::Store(
                    "a batch of over 4 GiB cannot be stored: give fewer rows a call; nothing was written".into(),
                )
            })?;
            block[head + 4..][..4].copy_from_slice(&length.to_be_bytes());
            laid_out.push((account, nonce, block.len()));
        }
        assert_eq!(block.as_ptr(), lies_at, "a block grew: plaintext was left in freed memory");
        let ends = laid_out.iter().map(|&(.., end)| end - HEAD);
        let sections = sealed::cut(&mut block[HEAD..], ends);
        let sequence = self.sequence + 1;
        let unsealed = laid_out.iter().zip(sections).map(|(&(account, nonce, _), section)| sealed::Unsealed {
            key: self.data_keys.of(account).expect("all were fetched and checked"),
            nonce,
            place: Place::Section { sequence, account },
            body: &mut section[SECTION_HEAD + sealed::NONCE..],
        });
        sealed::seal_many(self.backend, &self.store_id, unsealed);
        Ok(Some(block))
    }

    /// Folds as many frozen rows as are due when the journal has grown to `bytes`.
    fn fold_due(&mut self, bytes: u64) -> Result<(), Error> {
        let Some(frozen) = &self.frozen else { return Ok(()) };
        let done = self.due(frozen, bytes);
        if done == frozen.done && done < frozen.order.len() {
            return Ok(());
        }
        self.fold_frozen(done)
    }

    /// Folds frozen rows until `done` of them are.
    fn fold_frozen(&mut self, done: usize) -> Result<(), Error> {
        let Some(mut frozen) = self.frozen.take() else { return Ok(()) };
        let all = done == frozen.order.len();
        let folded = self.transact_as(all, |store, connection| {
            store.table(connection).fold(&frozen.rows, &frozen.order[frozen.done..done], None)?;
            if all { set_folded(connection, frozen.sequence) } else { Ok(()) }
        });
        if folded.is_ok() && all {
            self.folded = frozen.sequence;
        } else {
            frozen.done = if folded.is_ok() { done } else { frozen.done };
            self.frozen = Some(frozen);
        }
        folded
    }

    /// Writes the next block, and syncs it; while the disk does, the batch is taken into memory, and what is due is folded:
    /// that is work in which no block has a part that is not synced. What could not be folded waits for the next batch. Where
    /// the journal has grown to its limit, that one is refused for it, before anything of it is written.
    fn append(&mut self, mut block: Bytes, changes: &Changes) -> Result<(), Error> {
        let sequence = self.sequence + 1;
        self.with_files(|store, _| {
            store.journal.write(sequence, &mut block).map_err(|error| Fault::of_disk(error, false))?;
            if changes.rows.len() >= SYNCED_ASIDE {
                store.journal.begin_sync();
            }
            store.newest.apply(changes);
            Ok(())
        })?;
        let _ = self.fold_due(self.journal.active_bytes() + block.len() as u64);
        let synced = self.journal.sync(block.len()).map_err(|error| Fault::of_disk(error, true));
        synced.map_err(|fault| self.explained(fault))?;
        self.sequence = sequence;
        Ok(())
    }

    fn table<'a>(&'a self, connection: &'a Connection) -> Table<'a> {
        Table { connection, data_keys: &self.data_keys, path: &self.path, backend: self.backend }
    }

    /// Folds the journal in whole, but for the rows of one account, which go. To be called in a transaction;
    /// [`Self::forget_journal`] after it.
    fn fold_all(&self, connection: &Connection, but: Option<u32>) -> Result<(), Fault> {
        if let Some(frozen) = &self.frozen {
            self.table(connection).fold(&frozen.rows, &frozen.order[frozen.done..], but)?;
        }
        self.table(connection).fold(&self.newest, &self.newest.in_order_of(table::order), but)?;
        set_folded(connection, self.sequence)
    }

    /// What is in memory of the journal is folded.
    fn forget_journal(&mut self) {
        self.frozen = None;
        self.newest = Unfolded::default();
        self.folded = self.sequence;
    }

    /// Leaves nothing of a journal that is folded and forgotten.
    fn wipe_journal(&mut self) -> Result<(), Error> {
        self.with_files(|store, _| store.journal.wipe().map_err(|error| Fault::of_disk(error, true)))
    }

    /// Begins a new part of the journal; the one so far is folded by the commits to come. While somebody copies the store,
    /// the journal stays as it is and grows: the copy may need all of it.
    fn freeze(&mut self) -> Result<(), Error> {
        if let Some(frozen) = &self.frozen {
            // A batch so large that the commits between two limits did not suffice, or they could not.
            self.fold_frozen(frozen.order.len())?;
        }
        let held = self.generation.try_hold()?;
        if !held && self.journal.active_bytes() < COPIED_LOG_BYTES {
            return Ok(());
        }
        let usual = 2 * self.journal_limit;
        let turned =
            self.with_files(|store, _| store.journal.turn(usual).map_err(|error| Fault::of_disk(error, false)));
        if held {
            self.generation.release();
        }
        turned?;
        self.frozen = Some(Frozen::of(take(&mut self.newest), self.sequence));
        Ok(())
    }

    /// How far the frozen rows are to be folded when the journal has grown to `bytes`: evenly, and to the end when
    /// it has grown to half its limit.
    fn due(&self, frozen: &Frozen, bytes: u64) -> usize {
        let half = u128::from(self.journal_limit / 2).max(1);
        let due = frozen.order.len() as u128 * u128::from(bytes) / half;
        let mut due = usize::try_from(due).unwrap_or(usize::MAX).clamp(frozen.done, frozen.order.len());
        // The parts of one row at once.
        let place = |at: usize| frozen.order.get(at).map(|&at| table::place(frozen.rows.entry(at).0));
        while due > frozen.done && place(due).is_some() && place(due) == place(due - 1) {
            due += 1;
        }
        due
    }

    /// That rows which are said to be new are: where one is not, it would outlive its deletion.
    #[cfg(test)]
    fn check_new(&mut self, changes: &Changes) {
        let mut before = std::collections::HashSet::new();
        for (key, body) in changes.bodies() {
            if matches!(body, Body::New(_)) && !before.contains(&key) {
                let mut found = |_: usize, _: &[u8]| panic!("{key:?} is said to be new");
                // A store that cannot be read cannot be written to either.
                let _ = self.load(&[key], &mut found);
            }
            before.insert(key);
        }
    }

    /// What the journal knows of a row.
    fn journalled(&self, key: &Key) -> Newest<'_> {
        match (self.newest.get(key), &self.frozen) {
            (Newest::Unknown, Some(frozen)) => frozen.rows.get(key),
            (newest, _) => newest,
        }
    }
}

impl SqliteStore {
    /// Lets go of the files without an answer.
    fn let_go(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if std::process::id() != self.process {
            // SQLite would take the parent's log for its own, fold it and unlink it under the parent's hands.
            return std::mem::forget(connection);
        }
        if self.generation.check_owner().is_err() || self.failed.is_some() {
            // The same of another owner's log; and one of which the disk may lack a part must not go and come back.
            if leave_the_files(&connection, true).is_err() {
                std::mem::forget(connection);
            }
            return;
        }
        // Closing copies the log back.
        let _ = self.generation.hold();
        drop(connection);
        let _ = self.generation.confirm_owner();
        self.generation.release();
    }

    /// Lets the next one have the store. To close the file is not enough: a process that is just being started has it, too.
    fn disown(&mut self) {
        let owner = self.owner.take();
        if std::process::id() == self.process {
            let _ = owner.map(|owner| owner.unlock());
        } else {
            self.journal.leave_the_thread();
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.let_go();
        self.disown();
    }
}

impl Store for SqliteStore {
    fn durable(&self) -> bool {
        true
    }

    fn runs_on(&mut self, backend: Backend) {
        self.backend = backend;
    }

    fn accounts(&mut self) -> Result<Vec<(u32, String)>, Error> {
        self.with_connection(|_, connection| {
            let mut accounts = connection.prepare_cached("SELECT id, name FROM accounts ORDER BY id")?;
            let accounts = accounts.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(accounts.collect::<Result<_, _>>()?)
        })
    }

    fn create_account(&mut self, name: &str, changes: &mut dyn FnMut(u32) -> Changes) -> Result<u32, Error> {
        let mut data_key = Secret::default();
        sealed::random(data_key.expose_mut())?;
        let (account, changes) = self.transact(|store, connection| {
            let taken = connection.prepare_cached("SELECT 1 FROM accounts WHERE name = ?1")?.exists([name])?;
            if taken {
                return Err(super::account_exists(name).into());
            }
            let last = connection
                .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'accounts'")?
                .query_row([], |row| row.get::<_, u32>(0))
                .optional()?;
            let account = last.unwrap_or(0).checked_add(1).ok_or_else(super::no_account_numbers)?;
            let changes = changes(account);
            super::check_accounts(changes.accounts(), |found| found == account)?;
            let made_by = store.sequence + u64::from(!changes.is_empty());
            connection
                .prepare_cached("INSERT INTO accounts (id, name, made_by) VALUES (?1, ?2, ?3)")?
                .execute(params![account, name, made_by as i64])?;
            let wrapped = sealed::wrap(&store.data_keys.operator_key, &store.store_id, account, name, &data_key)?;
            connection
                .prepare_cached("INSERT INTO data_keys (account, wrapped) VALUES (?1, ?2)")?
                .execute(params![account, wrapped])?;
            Ok((account, changes))
        })?;
        self.data_keys.known.insert(account, Arc::new(data_key));
        self.write(&changes).map(|()| account).inspect_err(|_| {
            self.data_keys.known.remove(&account);
            // Another block must not have the number that would make it. If it is in doubt what the disk has, opening sees to it.
            if let Err(error) = self.transact(|_, connection| forget_account(connection, account)) {
                self.fail(error);
            }
        })
    }

    fn delete_account(&mut self, account: u32) -> Result<(), Error> {
        self.transact(|store, connection| {
            if !forget_account(connection, account)? {
                return Err(super::no_account(account).into());
            }
            store.fold_all(connection, Some(account))?;
            let [first, last] = Key::bounds(&account.to_be_bytes());
            connection.execute("DELETE FROM rows WHERE key BETWEEN ?1 AND ?2", params![&first[..], &last[..]])?;
            // A number of its own: a copy from before is an old one.
            set_folded(connection, store.sequence + 1)
        })?;
        self.sequence += 1;
        self.emptied = true;
        self.forget_journal();
        self.data_keys.known.remove(&account);
        self.note_generation()
            .and_then(|()| self.generation.hold())
            .and_then(|()| self.with_connection(|_, connection| checkpoint(connection)))
            .and_then(|()| self.wipe_journal())
            .and_then(|()| self.generation.confirm_owner())
            .inspect(|()| self.generation.release())
            .map_err(|error| {
                Error::Store(format!("the account is deleted, but its last traces are not wiped, for {error}"))
            })
    }

    fn load(&mut self, keys: &[Key], found: FoundAt<'_>) -> Result<(), Error> {
        self.fetch(keys, found)?.open(Backend::portable(), found)
    }

    fn fetch(&mut self, keys: &[Key], found: FoundAt<'_>) -> Result<Unopened, Error> {
        self.with_connection(|store, connection| {
            let mut missing = Vec::with_capacity(keys.len());
            if store.newest.is_empty() && store.frozen.is_none() {
                missing.extend(0..keys.len());
            } else {
                for (i, key) in keys.iter().enumerate() {
                    match store.journalled(key) {
                        Newest::Body(body) => found(i, body)?,
                        Newest::Deleted => {}
                        Newest::Unknown => missing.push(i),
                    }
                }
            }
            let mut unopened = Unopened::new(store.path.clone(), store.store_id);
            if !missing.is_empty() {
                store.data_keys.fetch(connection, missing.iter().map(|&i| keys[i].account))?;
                store.table(connection).fetch(keys, &missing, &mut unopened)?;
            }
            Ok(unopened)
        })
    }

    fn scan(&mut self, account: u32, kind: Kind, found: FoundTag<'_>) -> Result<(), Error> {
        self.with_connection(|store, connection| {
            for (key, newest) in store.newest.of(account, kind) {
                if let Newest::Body(body) = newest {
                    found(key.tag, body)?;
                }
            }
            for (key, newest) in store.frozen.iter().flat_map(|frozen| frozen.rows.of(account, kind)) {
                if let (Newest::Body(body), Newest::Unknown) = (newest, store.newest.get(&key)) {
                    found(key.tag, body)?;
                }
            }
            store.data_keys.fetch(connection, [account])?;
            store.table(connection).scan(account, kind, |key| store.journalled(key) != Newest::Unknown, found)
        })
    }

    fn commit(&mut self, changes: Changes) -> Result<(), Error> {
        #[cfg(test)]
        self.check_new(&changes);
        self.write(&changes)
    }

    fn size_bytes(&mut self) -> Result<u64, Error> {
        self.with_connection(|store, _| {
            let main = fs::metadata(&store.path).map_err(|error| file_error(&store.path, &error))?;
            let journal = store.journal.size().map_err(|error| file_error(&store.path, &error))?;
            Ok(main.len() + store.log_bytes() + journal)
        })
    }

    fn close(&mut self) -> Result<(), Error> {
        let owned = self.generation.check_owner();
        if self.failed.is_some() || owned.is_err() {
            // What is on the disk is for the next opening to find out.
            if self.connection.is_none() {
                return Err(Error::Closed);
            }
            self.let_go();
            self.generation.close();
            self.disown();
            return owned;
        }
        if self.sequence != self.folded {
            self.transact(|store, connection| store.fold_all(connection, None))?;
            self.forget_journal();
        }
        self.generation.sync()?;
        self.generation.hold()?;
        let closed = self
            .with_connection(|store, connection| {
                space::leave(connection, store.folded != store.found_folded, store.emptied)?;
                store.journal.remove().map_err(|error| Fault::of_disk(error, false))
            })
            .and_then(|()| {
                let closed = self.connection.take().map(Connection::close);
                closed.transpose().map_err(|(_, error)| Fault::from(error).explain(&self.path))
            })
            .and_then(|_| self.generation.confirm_owner());
        self.generation.release();
        closed?;
        self.generation.close();
        self.disown();
        Ok(())
    }

    fn declare(&mut self) -> Result<(), Error> {
        let resume_at = self.resume_at;
        self.transact(|store, connection| {
            store.fold_all(connection, None)?;
            set_folded(connection, resume_at)
        })?;
        self.sequence = resume_at;
        self.forget_journal();
        self.generation.hold()?;
        let wiped = self.wipe_journal();
        self.generation.release();
        wiped?;
        self.generation.declare(resume_at)
    }
}

/// The accounts' data keys, unwrapped when first needed.
struct DataKeys {
    operator_key: Secret<32>,
    store_id: StoreId,
    known: HashMap<u32, Arc<Secret<32>>>,
}

impl DataKeys {
    fn of(&self, account: u32) -> Option<&Arc<Secret<32>>> {
        self.known.get(&account)
    }

    /// Unwraps those that are not known, in one query. An account that does not exist stays unknown.
    fn fetch(&mut self, connection: &Connection, accounts: impl IntoIterator<Item = u32>) -> Result<(), Fault> {
        let mut unknown = Vec::new();
        let mut last = None;
        for account in accounts {
            if last.replace(account) != Some(account) && !self.known.contains_key(&account) {
                unknown.push(Value::Integer(account.into()));
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let mut wrapped = connection
            .prepare_cached("SELECT id, name, wrapped FROM accounts JOIN data_keys ON account = id WHERE id IN (SELECT value FROM rarray(?1))")?;
        let mut wrapped = wrapped.query([Rc::new(unknown)])?;
        while let Some(row) = wrapped.next()? {
            let (account, name) = (row.get(0)?, row.get::<_, String>(1)?);
            let wrapped: Vec<u8> = row.get(2)?;
            let key = sealed::unwrap(&self.operator_key, &self.store_id, account, &name, &wrapped).map_err(|_| {
                Error::Store(format!(
                    "the data key of account {name} was damaged or moved: restore the store from a backup"
                ))
            })?;
            self.known.insert(account, Arc::new(key));
        }
        Ok(())
    }
}

/// Makes a store under another name and gives it its name when it is whole: there is never half a store.
fn create(path: &Path, operator_key: &Secret<32>) -> Result<(), Error> {
    let folder = path.parent().ok_or_else(|| said(path, "is a folder: name a file in it"))?;
    if !folder.is_dir() {
        return Err(said(path, "cannot be made, for its folder does not exist: make the folder first"));
    }
    for leftover in logs(path) {
        if leftover.exists() {
            let text = format!("is gone, but {} is there: restore both, or remove it too", leftover.display());
            return Err(said(path, &text));
        }
    }
    let mut random = [0; 8];
    sealed::random(&mut random)?;
    let draft = beside(path, &format!(".{:016x}.new", u64::from_le_bytes(random)));
    let made = make(&draft, operator_key).and_then(|()| {
        let named = match fs::hard_link(&draft, path) {
            // Another process was quicker: it is for opening to say that it has the store.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            // A file system without links.
            Err(_) if !path.exists() => fs::rename(&draft, path),
            named => named,
        };
        named.and_then(|()| sync_folder(folder)).map_err(|error| file_error(path, &error).into())
    });
    remove_draft(&draft);
    made.map_err(|fault| fault.explain(path))
}

/// What may lie beside a store that is open or was left: SQLite's logs, and the journal.
fn logs(path: &Path) -> impl Iterator<Item = PathBuf> {
    ["-wal", "-journal"].map(|suffix| beside(path, suffix)).into_iter().chain(journal::paths(path))
}

/// Removes what there is of a store that is being made under another name.
pub(super) fn remove_draft(draft: &Path) {
    for path in logs(draft).chain([draft.to_owned()]) {
        // Where one cannot be removed or is not there, nothing is lost.
        let _ = fs::remove_file(path);
    }
}

/// Writes an empty store.
fn make(path: &Path, operator_key: &Secret<32>) -> Result<(), Fault> {
    create_private(path).map_err(|error| file_error(path, &error))?;
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    space::prepare(&connection)?;
    configure(&connection)?;
    let mut store_id = StoreId::default();
    sealed::random(&mut store_id)?;
    let mut proof = Vec::new();
    sealed::seal(operator_key, &Nonces::draw(1)?.next()?, &store_id, Place::Proof, &[], &mut proof);
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction
        .execute("INSERT INTO store (id, store_id, proof, folded) VALUES (1, ?1, ?2, 0)", params![store_id, proof])?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA)?;
    transaction.commit()?;
    checkpoint(&connection)?;
    connection.close().map_err(|(_, error)| error.into())
}

/// Makes a file that others may not read. SQLite gives its log the same rights.
fn create_private(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Makes a new name outlive a power cut. Only Unix has a way to.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Takes the file for this process alone.
fn own(path: &Path) -> Result<fs::File, Error> {
    let file = fs::File::open(path).map_err(|error| file_error(path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(said(path, OPEN_ELSEWHERE)),
        Err(fs::TryLockError::Error(error)) => {
            Err(said(path, &format!("cannot be locked, so that it would have one owner ({error}): use a local disk")))
        }
    }
}

/// Opens a file that exists. Nothing is read or written.
pub(super) fn connect(path: &Path, access: OpenFlags) -> Result<Connection, Fault> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    prepare(&connection)?;
    Ok(connection)
}

/// Whether the files stay as they are when the connection ends, or its log is copied back and removed.
fn leave_the_files(connection: &Connection, leave: bool) -> Result<(), Fault> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, leave)?;
    Ok(())
}

/// Sets what is to be set before the first read.
fn prepare(connection: &Connection) -> Result<(), Fault> {
    // Whoever has the file keeps it: waiting is of no use.
    connection.busy_timeout(std::time::Duration::ZERO)?;
    // So that the log's index needs no shared memory.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    rusqlite::vtab::array::load_module(connection)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Write-ahead logging, durable and exclusive.
pub(super) fn configure(connection: &Connection) -> Result<(), Fault> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(
            Error::Store(format!("SQLite logs in mode {mode} here, not ahead of writing: use a local disk")).into()
        );
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "secure_delete", true)?;
    // SQLite would copy its log back by itself, and say nothing where that fails: but where the log could not be synced, the
    // disk may for ever lack a part of it, and whatever comes after that in the log.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // Takes the lock that is then never given back.
    connection.execute_batch("BEGIN IMMEDIATE; COMMIT")?;
    Ok(())
}

/// Copies the log back into the database and empties it.
pub(super) fn checkpoint(connection: &Connection) -> Result<(), Fault> {
    let busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy { Err(Error::Store("another connection reads the store's file: stop it".into()).into()) } else { Ok(()) }
}

/// Copies the log back into the database if it has grown to so many bytes: then it begins anew with the next transaction.
fn copy_back_from(connection: &Connection, bytes: u64) -> Result<(), Fault> {
    let number = |sql, column| connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(column));
    let log = number("PRAGMA wal_checkpoint(NOOP)", 1)? * number("PRAGMA page_size", 0)?;
    if log >= bytes as i64 {
        connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?.query_row([], |_| Ok(()))?;
    }
    Ok(())
}

/// Says that blocks up to this one are folded, also those that a copy came with.
fn set_folded(connection: &Connection, sequence: u64) -> Result<(), Fault> {
    connection.prepare_cached("UPDATE store SET folded = ?1")?.execute([sequence as i64])?;
    connection.prepare_cached("DELETE FROM journal WHERE seq <= ?1")?.execute([sequence as i64])?;
    Ok(())
}

/// Takes away an account and its data key, and thereby all that is sealed with it; whether there was one.
fn forget_account(connection: &Connection, account: u32) -> Result<bool, Fault> {
    let there = connection.execute("DELETE FROM accounts WHERE id = ?1", [account])? > 0;
    connection.execute("UPDATE data_keys SET wrapped = zeroblob(length(wrapped)) WHERE account = ?1", [account])?;
    Ok(there)
}

/// The account, length and content of the section that `block` begins with.
fn section(block: &[u8]) -> Option<(u32, usize, &[u8])> {
    let (account, rest) = block.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = u32::from_be_bytes(*length) as usize;
    Some((u32::from_be_bytes(*account), length, rest.get(..length)?))
}

/// kind ‖ tag ‖ length ‖ body, or kind with [`DELETED`] ‖ tag.
fn put_change(block: &mut Vec<u8>, key: Key, change: Change, bytes: &[u8]) {
    let Change::Put { start, end, .. } = change else {
        block.push(key.kind as u8 | DELETED);
        block.extend_from_slice(&key.tag);
        return;
    };
    block.push(key.kind as u8);
    block.extend_from_slice(&key.tag);
    put_length(block, end - start);
    block.extend_from_slice(&bytes[start..end]);
}

/// What [`put_change`] wrote.
fn take_change<'a>(account: u32, bytes: &mut &'a [u8]) -> Option<(Key, Option<&'a [u8]>)> {
    let (&kind, rest) = bytes.split_first()?;
    let (&tag, mut rest) = rest.split_first_chunk()?;
    let key = Key { account, kind: Kind::of_number(kind & !DELETED)?, tag };
    if kind & DELETED != 0 {
        *bytes = rest;
        return Some((key, None));
    }
    let length = take_length(&mut rest)?;
    let (body, after) = rest.split_at_checked(length)?;
    *bytes = after;
    Some((key, Some(body)))
}

/// A length, 7 bits a byte.
fn put_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
}

fn take_length(bytes: &mut &[u8]) -> Option<usize> {
    let mut length = 0;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(length);
        }
    }
    None
}

fn check_version(number: i32, name: &str) -> Result<(), Error> {
    if number < OLDEST_SQLITE {
        let text = format!("SQLite {name} can lose commits: build with the bundled one, or 3.51.3 or newer");
        return Err(Error::Store(text));
    }
    Ok(())
}

/// Why something was not done, before it is said in a line.
pub(super) enum Fault {
    Sqlite(rusqlite::Error),
    /// The journal's disk failed; `unknown`: what it has is not known.
    Disk {
        error: io::Error,
        unknown: bool,
    },
    Said(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Said(error)
    }
}

impl Fault {
    /// What a call to the journal's disk came back with, after which it may be unknown what the disk has.
    fn of_disk(error: io::Error, unknown: bool) -> Self {
        let harmless = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem
        );
        Self::Disk { unknown: unknown || !harmless, error }
    }

    /// Whether a commit that failed so may be on the disk all the same.
    fn leaves_the_disk_unknown(&self) -> bool {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure),
            Self::Disk { unknown, .. } => *unknown,
            Self::Said(_) => false,
        }
    }

    pub(super) fn explain(self, path: &Path) -> Error {
        let error = match self {
            Self::Sqlite(error) => error,
            Self::Said(error) => return error,
            Self::Disk { error, .. } => {
                return match error.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => said(path, NO_ROOM),
                    io::ErrorKind::ReadOnlyFilesystem => said(path, READ_ONLY),
                    _ => disk_fails(path, &error),
                };
            }
        };
        let text = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OPEN_ELSEWHERE,
            Some(ErrorCode::NotADatabase) => {
                "is not an interlane store: name another file, or restore it from a backup"
            }
            Some(ErrorCode::DatabaseCorrupt) => return damaged(path),
            Some(ErrorCode::ReadOnly) => READ_ONLY,
            Some(ErrorCode::PermissionDenied) => "may not be opened by this user: change its rights",
            Some(ErrorCode::DiskFull) => NO_ROOM,
            Some(ErrorCode::CannotOpen) => {
                "cannot be opened: see that it is a file and that this user may write to it and make files beside it"
            }
            Some(ErrorCode::SystemIoFailure) => return disk_fails(path, &error),
            Some(ErrorCode::TooBig) => "cannot take a row of over 10^9 bytes; nothing was written",
            Some(ErrorCode::OutOfMemory) => "needs more memory than there is; nothing was written",
            // A column of another type than ours, or text that is not UTF-8.
            None => return damaged(path),
            Some(_) => return said(path, &format!("was refused by SQLite ({error}): restore it from a backup")),
        };
        said(path, text)
    }
}

/// One line about the file, whatever is in its name.
pub(super) fn said(path: &Path, text: &str) -> Error {
    Error::Store(format!("{} {text}", path.display()).replace(['\n', '\r'], " "))
}

pub(super) fn damaged(path: &Path) -> Error {
    said(path, "is damaged or cut short: restore it from a backup")
}

fn disk_fails(path: &Path, error: &dyn std::fmt::Display) -> Error {
    said(path, &format!("is on a disk that fails ({error}): see to the disk, then open it again"))
}

pub(super) fn file_error(path: &Path, error: &io::Error) -> Error {
    said(path, &format!("cannot be opened: {error}"))
}

/// The file of this name and something more.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The same by the store's own name, whatever name it is opened by.
pub(super) fn beside_itself(store: &Path, suffix: &str) -> PathBuf {
    beside(&fs::canonicalize(store).unwrap_or_else(|_| store.to_owned()), suffix)
}

#[cfg(test)]
mod tests;
