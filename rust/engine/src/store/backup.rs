//! A copy of a store, also of one that is open in another process and busy.
//!
//! The copier holds the lock of the store's generation file. Its owner then leaves the logs alone: it appends to SQLite's
//! and copies nothing back into the database, and appends to the journal and writes over nothing of it. So the database lies
//! still, and with the journal and then SQLite's log as they are afterwards it is the store as of some commit during the
//! copying. In that order: the log may have accounts whose blocks came later, and they count for nothing; blocks of accounts
//! that the log does not have could not be read. What is folded meanwhile is of blocks from before. In the copy, the journal's
//! blocks are in a table.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params};

use super::generation;
use super::sealed::StoreId;
use super::sqlite::journal::{self, Journal};
use super::sqlite::schema;
use super::sqlite::{
    APPLICATION_ID, Fault, beside, checkpoint, configure, connect, damaged, file_error, remove_draft, said, sync_folder,
};
use crate::error::Error;

/// Bytes of the header of a write-ahead log, and of what tells a block of the journal; another one means that the file was
/// begun anew.
const LOG_HEADER: usize = 32;

/// How often a store is copied before it is given up.
const COPIES: usize = 3;

/// Copies the store at `from` to `to`, which must not exist. The copy is one file; to be opened, it must be declared.
pub(crate) fn backup(from: &Path, to: &Path) -> Result<(), Error> {
    let note = generation::path_beside(from);
    if !from.is_file() {
        return Err(said(from, "is no store: name its file"));
    }
    if beside(from, "-journal").exists() {
        return Err(said(from, "was left in the middle of being migrated: open it once, with any command"));
    }
    if to.exists() {
        return Err(said(to, "exists: give the backup another name"));
    }
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(said(to, "cannot be made, for its folder does not exist: make the folder first"));
    }
    let draft = beside(to, ".new");
    let made = copy(from, &note, &draft).and_then(|()| {
        // Not over what came there meanwhile.
        fs::hard_link(&draft, to)
            .or_else(|error| if to.exists() { Err(error) } else { fs::rename(&draft, to) })
            .and_then(|()| sync_folder(folder))
            .map_err(|error| file_error(to, &error))
    });
    remove_draft(&draft);
    made
}

fn copy(from: &Path, note: &Path, draft: &Path) -> Result<(), Error> {
    let unreadable = |path: &Path, error: &io::Error| said(path, &format!("cannot be copied: {error}"));
    let held = File::open(note).map_err(|error| {
        said(from, &format!("has no generation file ({error}); declare it first: interlane restore --store PATH"))
    })?;
    held.lock().map_err(|error| unreadable(note, &error))?;
    let log = beside(from, "-wal");
    let journal = journal::paths(from);
    let beside_it: Vec<_> = journal.iter().zip(journal::paths(draft)).chain([(&log, beside(draft, "-wal"))]).collect();
    let heads = || {
        let head = |path: &PathBuf| header(path).map_err(|error| unreadable(path, &error));
        journal.iter().map(head).collect::<Result<Vec<_>, Error>>()
    };
    // A log that was all copied back before begins anew with the owner's next commit, and goes on from there, and so does a
    // journal: the second copy is whole.
    for _ in 0..COPIES {
        let begun = header(&log).map_err(|error| unreadable(&log, &error))?;
        let blocks_begun = heads()?;
        fs::copy(from, draft).map_err(|error| unreadable(from, &error))?;
        for (path, draft) in &beside_it {
            match fs::copy(path, draft) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                copied => drop(copied.map_err(|error| unreadable(path, &error))?),
            }
        }
        let same = begun.is_none() || header(&log).map_err(|error| unreadable(&log, &error))? == begun;
        if same && heads()? == blocks_begun && finish(draft).map_err(|fault| fault.explain(draft))? {
            return Ok(());
        }
        remove_draft(draft);
    }
    // The owner waits for a copier, but not while its log grows beyond all measure.
    Err(said(from, "was written to faster than it could be copied: copy to a faster disk"))
}

/// The header of a file, if there is one.
fn header(log: &Path) -> io::Result<Option<[u8; LOG_HEADER]>> {
    let mut header = [0; LOG_HEADER];
    match File::open(log).and_then(|mut log| log.read_exact(&mut header)) {
        Ok(()) => Ok(Some(header)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes the logs into the copy and reads all of it once; whether there is all of the journal.
fn finish(draft: &Path) -> Result<bool, Fault> {
    let connection = connect(draft, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    if connection.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0))? != APPLICATION_ID {
        return Err(said(draft, "is another program's SQLite database: name another file").into());
    }
    configure(&connection)?;
    if !take_journal(&connection, draft)? {
        return Ok(false);
    }
    checkpoint(&connection)?;
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(damaged(draft).into());
    }
    connection.close().map_err(|(_, error)| error)?;
    File::open(draft).and_then(|copy| copy.sync_all()).map_err(|error| file_error(draft, &error))?;
    Ok(true)
}

/// Puts the blocks of a copied journal in their table; whether none is missing between them. Of the last one there may have
/// been only a part.
fn take_journal(connection: &Connection, draft: &Path) -> Result<bool, Fault> {
    let (store_id, folded) = connection.query_row("SELECT store_id, folded FROM store", [], |row| {
        Ok((row.get::<_, StoreId>(0)?, row.get::<_, i64>(1)? as u64))
    })?;
    let schema_found = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let mut last = schema::last_block(connection, draft, schema_found)?.max(folded);
    let unreadable = |error: io::Error| file_error(draft, &error);
    let (journal, blocks) = Journal::read(draft, store_id, last).map_err(unreadable)?;
    let transaction = connection.unchecked_transaction()?;
    let mut put = transaction.prepare("INSERT INTO journal (seq, block) VALUES (?1, ?2)")?;
    let mut sections = Vec::new();
    for block in &blocks {
        if block.number != last + 1 {
            return Ok(false);
        }
        journal.sections(block, &mut sections).map_err(unreadable)?;
        put.execute(params![block.number as i64, sections])?;
        last = block.number;
    }
    drop(put);
    transaction.commit()?;
    Ok(true)
}
