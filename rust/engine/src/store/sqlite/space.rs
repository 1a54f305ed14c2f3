//! What the file takes of the disk. The journal comes and goes, tens of megabytes of it; while the store is open its
//! pages are used again, and when it is closed they are given back to the system.

use rusqlite::{Connection, ErrorCode};

use super::{Fault, PAGE_BYTES, checkpoint, configure};

/// A store is closed with one free page for so many others; to give back fewer would not be noticed.
const OTHERS_FOR_A_FREE_PAGE: u64 = 32;

/// Before the first table is made: pages of our size, and a map of who points to each, so that the last ones can be moved
/// to where some are free.
pub(super) fn prepare(connection: &Connection) -> Result<(), Fault> {
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    Ok(())
}

/// Gives free pages back and copies the log into the database: for a store that is closed.
pub(super) fn leave(connection: &Connection) -> Result<(), Fault> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (free, pages) = (number("freelist_count")?.max(0) as u64, number("page_count")?.max(0) as u64);
    if free * OTHERS_FOR_A_FREE_PAGE > pages {
        or_full(give_back(connection))?;
    }
    checkpoint(connection)
}

/// Moves the last pages to free ones, in one transaction.
fn give_back(connection: &Connection) -> Result<(), Fault> {
    let mut step = connection.prepare("PRAGMA incremental_vacuum")?;
    let mut steps = step.query([])?;
    while steps.next()?.is_some() {}
    Ok(())
}

/// Writes the file anew, in order: after a migration, for one that was made with other pages or has many free ones. Where
/// there is no room for that, it stays as it is.
pub(super) fn compact(connection: &Connection) -> Result<(), Fault> {
    checkpoint(connection)?;
    // The size of pages cannot be changed while there is a log.
    connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
    prepare(connection)?;
    let compacted = or_full(connection.execute_batch("VACUUM").map_err(Fault::from));
    configure(connection)?;
    compacted
}

/// A store that stays larger than it could be is as good.
fn or_full(done: Result<(), Fault>) -> Result<(), Fault> {
    match done {
        Err(Fault::Sqlite(error)) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => Ok(()),
        done => done,
    }
}
