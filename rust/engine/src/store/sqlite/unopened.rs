//! Rows as they lie in the table, which are opened after the store's turn has ended: reading a row takes a third of what
//! opening it does, and others wait for the store meanwhile.

use std::path::PathBuf;
use std::sync::Arc;

use interlane_lanes::Backend;

use super::table::{self, bound_to};
use crate::bytes::Bytes;
use crate::error::Error;
use crate::secret::Secret;
use crate::store::sealed::{self, Sealed, StoreId};
use crate::store::{FoundAt, Key, Kind};

/// Rows that are opened together: they fill lanes, and stay in the cache until they are read.
const OPENED_AT_ONCE: usize = 64;

/// Rows that memory is made ready for, at most.
const MOST_EXPECTED: usize = 4_096;

/// Rows of a look-up that are still sealed.
#[derive(Default)]
pub(crate) struct Unopened {
    path: PathBuf,
    store_id: StoreId,
    /// Data keys, one for each run of rows of one account.
    keys: Vec<(u32, Arc<Secret<32>>)>,
    rows: Vec<Lying>,
    /// What was asked for that is in the rows: its place among all that was, and its kind.
    wanted: Vec<(usize, Kind)>,
    /// The rows' bodies, one after another: sealed, and then open.
    bodies: Bytes,
    /// How many rows are looked for.
    expected: usize,
}

/// A row, with where its part of the others ends.
struct Lying {
    at: Key,
    key: usize,
    wanted: usize,
    body: usize,
}

impl Unopened {
    pub(super) fn new(path: PathBuf, store_id: StoreId) -> Self {
        Self { path, store_id, ..Self::default() }
    }

    /// So many rows are looked for.
    pub(super) fn expect(&mut self, rows: usize) {
        self.expected = rows;
    }

    /// Adds the row at a place, which is sealed under this data key.
    pub(super) fn add(&mut self, at: Key, data_key: &Arc<Secret<32>>, body: &[u8]) {
        if self.keys.last().is_none_or(|&(account, _)| account != at.account) {
            self.keys.push((at.account, Arc::clone(data_key)));
        }
        if self.rows.is_empty() {
            // Most are about as long as the first one. Until all are here they are sealed: what a vector leaves behind when
            // it grows is no secret.
            self.rows.reserve(self.expected);
            self.bodies.reserve(body.len() * self.expected.min(MOST_EXPECTED));
        }
        self.bodies.extend_from_slice(body);
        let (key, wanted, body) = (self.keys.len() - 1, self.wanted.len(), self.bodies.len());
        self.rows.push(Lying { at, key, wanted, body });
    }

    /// That something is wanted of the row that was added last.
    pub(super) fn want(&mut self, i: usize, kind: Kind) {
        self.wanted.push((i, kind));
        self.rows.last_mut().expect("a row was added").wanted = self.wanted.len();
    }

    /// Opens the rows: `found(i, body)` for each of what was asked for that is in them.
    ///
    /// # Errors
    /// [`Error::Store`] if one was damaged or moved; `found` may have been given others then.
    pub(crate) fn open(mut self, backend: Backend, found: FoundAt<'_>) -> Result<(), Error> {
        let (mut wanted, mut bodies) = (&self.wanted[..], &mut self.bodies[..]);
        let (mut wanted_before, mut bodies_before) = (0, 0);
        for rows in self.rows.chunks(OPENED_AT_ONCE) {
            let mut split = Vec::with_capacity(rows.len());
            for row in rows {
                let (body, rest) = bodies.split_at_mut(row.body - bodies_before);
                (bodies, bodies_before) = (rest, row.body);
                split.push(body);
            }
            let to_open = rows.iter().zip(&mut split).map(|(row, body)| Sealed {
                key: &self.keys[row.key].1,
                place: bound_to(row.at),
                body,
            });
            sealed::open_many(backend, &self.store_id, to_open).map_err(|_| table::unreadable(&self.path))?;
            for (row, body) in rows.iter().zip(&split) {
                let content =
                    table::content(row.at, sealed::plain(body)).ok_or_else(|| table::unreadable(&self.path))?;
                let (of_row, rest) = wanted.split_at(row.wanted - wanted_before);
                (wanted, wanted_before) = (rest, row.wanted);
                for &(i, kind) in of_row {
                    if let Some(body) = content.of(kind) {
                        found(i, body)?;
                    }
                }
            }
        }
        Ok(())
    }
}
