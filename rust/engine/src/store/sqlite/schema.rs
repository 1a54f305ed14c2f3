//! The tables, and how a store that has older ones comes to these.
//!
//! Whoever changes them raises [`SCHEMA`], changes [`TABLES`] and appends a function to [`MIGRATIONS`]; and before that
//! keeps a store of the schema as it was, with `tests/schemas/make.py`, for `tests/test_schemas.py` to migrate. A migration
//! must go on doing what it did: where it uses what a later schema changes, it takes a copy of that along.

use std::path::Path;

use interlane_lanes::Backend;
use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator;
use rusqlite::{Connection, params};
use zeroize::Zeroizing;

use super::table::{Content, Parts, Table};
use super::{DataKeys, Fault, damaged, said, space};
use crate::store::sealed::{Nonces, Place};
use crate::store::{Key, Kind};

/// The version of the tables below.
pub(super) const SCHEMA: i32 = 5;

/// The oldest one that can be migrated: no release wrote those before.
const OLDEST: i32 = 2;

/// A wrapped data key is never deleted but overwritten with as many zeros, so that it never moves: SQLite wipes what it
/// deletes, but where it moves neighbours to join or split pages it leaves copies of them in the gaps. An account is
/// there once the block of the journal is that has its first rows (`made_by`). The table `journal` has blocks only in a copy that
/// was made while the store was open: those that were beside it.
pub(super) const TABLES: &str = "
    CREATE TABLE store (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        store_id BLOB NOT NULL,
        proof BLOB NOT NULL,
        folded INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE accounts (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        made_by INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE data_keys (account INTEGER PRIMARY KEY, wrapped BLOB NOT NULL) STRICT;
    CREATE TABLE journal (seq INTEGER PRIMARY KEY, block BLOB NOT NULL) STRICT;
    CREATE TABLE rows (key BLOB PRIMARY KEY, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
";

/// From one schema to the next, in the transaction of the whole migration.
type Migration = fn(&Table<'_>) -> Result<(), Fault>;

/// The first one is from [`OLDEST`].
const MIGRATIONS: [Migration; (SCHEMA - OLDEST) as usize] = [peers_in_one_row, blocks_in_slots, blocks_beside];

/// Refuses a schema that cannot be opened.
pub(super) fn check(path: &Path, found: i32) -> Result<(), Fault> {
    let text = match found {
        OLDEST..=SCHEMA => return Ok(()),
        newer if newer > SCHEMA => format!("has schema {newer}, this interlane knows {SCHEMA}: update interlane"),
        older if older > 0 => {
            format!("has schema {older}, this interlane takes over {OLDEST} and newer: open it with an older one first")
        }
        _ => return Err(damaged(path).into()),
    };
    Err(said(path, &text).into())
}

/// Brings the tables to [`SCHEMA`], in one transaction. The operator's key has been checked.
pub(super) fn migrate(connection: &Connection, data_keys: &mut DataKeys, path: &Path, found: i32) -> Result<(), Fault> {
    let transaction = connection.unchecked_transaction()?;
    let accounts = transaction
        .prepare("SELECT id FROM accounts")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<Vec<u32>, _>>()?;
    data_keys.fetch(&transaction, accounts)?;
    let table = Table { connection: &transaction, data_keys, path, backend: Backend::portable() };
    for migration in &MIGRATIONS[(found - OLDEST) as usize..] {
        migration(&table)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA)?;
    transaction.commit()?;
    space::compact(connection)
}

/// The number of the last block in the journal of a schema, 0 where there is none.
pub(in crate::store) fn last_block(connection: &Connection, path: &Path, found: i32) -> Result<u64, Fault> {
    let last = "SELECT max(seq) FROM journal";
    if found != 4 {
        let last = connection.query_row(last, [], |row| row.get::<_, Option<i64>>(0))?;
        return Ok(last.unwrap_or(0).max(0) as u64);
    }
    let last = connection.query_row(last, [], |row| row.get::<_, Option<Vec<u8>>>(0))?;
    let last = last.map(|last| <[u8; 8]>::try_from(last).map_err(|_| damaged(path)));
    Ok(last.transpose()?.map_or(0, u64::from_be_bytes))
}

/// To schema 5: the journal is beside the database, but for the blocks that are in it now; accounts tell which block made them.
fn blocks_beside(table: &Table<'_>) -> Result<(), Fault> {
    // A block of schema 4 begins with the length of its sections, and is filled up.
    let connection = table.connection;
    connection.execute_batch(
        "CREATE TABLE journal_of_5 (seq INTEGER PRIMARY KEY, block BLOB NOT NULL) STRICT;
         ALTER TABLE accounts ADD COLUMN made_by INTEGER NOT NULL DEFAULT 0;",
    )?;
    let mut blocks = connection.prepare("SELECT seq, block FROM journal WHERE seq > ?1 ORDER BY seq")?;
    let mut put = connection.prepare("INSERT INTO journal_of_5 (seq, block) VALUES (?1, ?2)")?;
    let folded = connection.query_row("SELECT folded FROM store", [], |row| row.get::<_, i64>(0))?;
    let mut blocks = blocks.query([&folded.to_be_bytes()[..]])?;
    while let Some(row) = blocks.next()? {
        let number = row.get::<_, [u8; 8]>(0)?;
        let block = row.get_ref(1)?.as_blob().map_err(|_| damaged(table.path))?;
        let (length, sections) = block.split_first_chunk().ok_or_else(|| damaged(table.path))?;
        let sections = sections.get(..u32::from_be_bytes(*length) as usize).ok_or_else(|| damaged(table.path))?;
        put.execute(params![i64::from_be_bytes(number), sections])?;
    }
    Ok(connection.execute_batch("DROP TABLE journal; ALTER TABLE journal_of_5 RENAME TO journal")?)
}

/// To schema 4: the journal's rows have keys of their own beside the blocks' numbers, and a block begins with its length.
fn blocks_in_slots(table: &Table<'_>) -> Result<(), Fault> {
    Ok(table.connection.execute_batch(
        "CREATE TABLE journal_of_4 (slot INTEGER PRIMARY KEY, seq BLOB NOT NULL, block BLOB NOT NULL) STRICT;
         INSERT INTO journal_of_4 (seq, block)
             SELECT unhex(printf('%016X', seq)), unhex(printf('%08X', length(block)) || hex(block))
             FROM journal ORDER BY seq;
         DROP TABLE journal;
         ALTER TABLE journal_of_4 RENAME TO journal;",
    )?)
}

/// To schema 3: a peer's rows become the parts of one. The journal has them one by one, before as after.
fn peers_in_one_row(table: &Table<'_>) -> Result<(), Fault> {
    let connection = table.connection;
    connection
        .execute_batch("CREATE TABLE rows_of_3 (key BLOB PRIMARY KEY, body BLOB NOT NULL) STRICT, WITHOUT ROWID")?;
    let accounts = connection
        .prepare("SELECT id FROM accounts ORDER BY id")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<Vec<u32>, _>>()?;
    // In the order of the table, which fills its pages best.
    for account in accounts {
        copy(table, account, [Kind::Account, Kind::OneTimePrekey])?;
        put_together(table, account)?;
        copy(table, account, [Kind::SenderKey, Kind::Buffered])?;
    }
    Ok(connection.execute_batch("DROP TABLE rows; ALTER TABLE rows_of_3 RENAME TO rows")?)
}

/// Rows from one kind to another, as they are.
fn copy(table: &Table<'_>, account: u32, kinds: [Kind; 2]) -> Result<(), Fault> {
    let [[first, _], [_, last]] = kinds.map(|kind| Key::bounds(&prefix(account, kind)));
    let sql = "INSERT INTO rows_of_3 SELECT key, body FROM rows WHERE key BETWEEN ?1 AND ?2 ORDER BY key";
    table.connection.prepare_cached(sql)?.execute(params![&first[..], &last[..]])?;
    Ok(())
}

/// An account's peers: five walks through its rows side by side, one for each kind.
fn put_together(table: &Table<'_>, account: u32) -> Result<(), Fault> {
    let connection = table.connection;
    let mut put = connection.prepare_cached("INSERT INTO rows_of_3 (key, body) VALUES (?1, ?2)")?;
    let walk = || connection.prepare("SELECT key, body FROM rows WHERE key BETWEEN ?1 AND ?2 ORDER BY key");
    let mut statements = Kind::OF_A_PEER.map(|_| walk()).into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut walks = Vec::with_capacity(statements.len());
    for (statement, kind) in statements.iter_mut().zip(Kind::OF_A_PEER) {
        let [first, last] = Key::bounds(&prefix(account, kind));
        let mut walk = statement.query(params![&first[..], &last[..]])?;
        walk.advance()?;
        walks.push(walk);
    }
    let mut nonces = Nonces::draw(1_000)?;
    let (mut plain, mut body) = (Kind::OF_A_PEER.map(|_| Zeroizing::default()), Vec::new());
    loop {
        let mut heads = [None; Kind::OF_A_PEER.len()];
        for (head, walk) in heads.iter_mut().zip(&walks) {
            *head = walk.get().map(|row| table.key(row)).transpose()?;
        }
        let Some(tag) = heads.iter().flatten().map(|key| key.tag).min() else { return Ok(()) };
        let mut parts = Parts::default();
        for ((key, walk), plain) in heads.iter().zip(&mut walks).zip(&mut plain) {
            if let (Some(key), Some(row)) = (key.filter(|key| key.tag == tag), walk.get()) {
                table.unseal(account, Place::Row(key), row, plain)?;
                parts.set(key.kind, Some(plain.as_slice()));
                walk.advance()?;
            }
        }
        let at = Key { account, kind: Kind::Peer, tag };
        table.seal(at, &nonces.next()?, &Content::Parts(parts), &mut body);
        put.execute(params![&at.to_bytes()[..], &body])?;
    }
}

fn prefix(account: u32, kind: Kind) -> [u8; 5] {
    let mut prefix = [kind as u8; 5];
    prefix[..4].copy_from_slice(&account.to_be_bytes());
    prefix
}
