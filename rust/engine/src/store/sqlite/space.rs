//! What the file takes of the disk. The journal comes and goes, tens of megabytes of it; while the store is open its
//! pages are used again, and when it is closed they are given back to the system. A store of moderate size is then also
//! written anew where that makes it smaller.

use rusqlite::ffi::SQLITE_IOERR_GETTEMPPATH;
use rusqlite::{Connection, ErrorCode};

use super::{Fault, PAGE_BYTES, checkpoint, configure};
use crate::limits::COMPACTED_BYTES;

/// A store is closed with one free page for so many others; to give back fewer would not be noticed.
const OTHERS_FOR_A_FREE_PAGE: u64 = 32;

/// Bytes that SQLite adds to a row of ours, and to a page of them.
const ROW_HEAD: u64 = 9;
const PAGE_HEAD: u64 = 12;

/// Pages of all other tables, in a store whose accounts are few.
const PAGES_OF_OTHERS: u64 = 16;

/// Before the first table is made: pages of our size, and a map of who points to each, so that the last ones can be moved
/// to where some are free.
pub(super) fn prepare(connection: &Connection) -> Result<(), Fault> {
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    Ok(())
}

/// Gives back what the file does not need and copies the log into it: for a store that is closed. Whether its rows would
/// take less is looked at where they changed: that takes a walk through them. Where an account was deleted (`emptied`) it is
/// written anew: SQLite wipes rows that go, but not the copies that it leaves in the gaps of pages when it moves their
/// neighbours. Nobody can open those, for the account's key is wiped.
pub(super) fn leave(connection: &Connection, rows_changed: bool, emptied: bool) -> Result<(), Fault> {
    let size = Size::of(connection)?;
    let moderate = size.pages * size.page <= COMPACTED_BYTES;
    if moderate && (emptied || (rows_changed && size.would_shrink(connection)?)) {
        or_full(connection.execute_batch("VACUUM").map_err(Fault::from))?;
    } else if size.free * OTHERS_FOR_A_FREE_PAGE > size.pages {
        or_full(give_back(connection))?;
    }
    checkpoint(connection)
}

/// How large the file is.
struct Size {
    /// Bytes of a page.
    page: u64,
    pages: u64,
    free: u64,
}

impl Size {
    fn of(connection: &Connection) -> Result<Self, Fault> {
        let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let number = |name: &str| number(name).map(|number| number.max(0) as u64);
        Ok(Self { page: number("page_size")?, pages: number("page_count")?, free: number("freelist_count")? })
    }

    /// Whether the table of rows would take a sixteenth less if it were written anew: rows that come in no order leave
    /// their pages in part empty.
    fn would_shrink(&self, connection: &Connection) -> Result<bool, Fault> {
        let (rows, bytes): (u64, u64) =
            connection.query_row("SELECT count(*), total(length(key) + length(body)) FROM rows", [], |row| {
                Ok((row.get::<_, i64>(0)? as u64, row.get::<_, f64>(1)? as u64))
            })?;
        let row = bytes / rows.max(1) + ROW_HEAD;
        let pages = rows.div_ceil(((self.page - PAGE_HEAD) / row).max(1));
        let taken = (self.pages - self.free).saturating_sub(PAGES_OF_OTHERS);
        // Rows so large that they do not fit a page in fours are laid out in other ways.
        Ok(row <= self.page / 5 && taken > pages + pages / 16)
    }
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

/// A store that stays larger than it could be is as good: there may be no room for a second one, here or where temporary
/// files are.
fn or_full(done: Result<(), Fault>) -> Result<(), Fault> {
    match done {
        Err(Fault::Sqlite(error))
            if error.sqlite_error_code() == Some(ErrorCode::DiskFull)
                || error.sqlite_error().is_some_and(|error| error.extended_code == SQLITE_IOERR_GETTEMPPATH) =>
        {
            Ok(())
        }
        done => done,
    }
}
