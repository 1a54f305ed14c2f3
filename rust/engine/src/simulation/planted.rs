//! Faults that the simulation has to find: stores that do not keep their word.

use crate::store::passing::Passing;
use crate::store::{Changes, Kind, Store};

/// How a store breaks its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    /// Chains' leases are not written, though it says so.
    UnwrittenLeases,
    /// Every so many commits one is forgotten, though it says that it is durable.
    LostCommits(u32),
    /// Plaintexts of the receive buffer are not kept.
    UnkeptPlaintexts,
}

/// A store that passes everything on, but for what is planted.
pub(super) fn untrue(store: Box<dyn Store>, planted: Planted) -> Box<dyn Store> {
    let mut commits = 0_u32;
    Passing::over(store, move |store, changes| {
        commits += 1;
        let mut kept = Changes::default();
        let mut every = changes.iter().peekable();
        let lost = match planted {
            Planted::UnwrittenLeases => changes.iter().all(|(key, _)| key.kind == Kind::Sending),
            Planted::LostCommits(each) => commits.is_multiple_of(each),
            Planted::UnkeptPlaintexts => false,
        };
        if lost && every.peek().is_some() {
            return Ok(());
        }
        for (key, body) in every {
            match body {
                Some(_) if planted == Planted::UnkeptPlaintexts && key.kind == Kind::Buffered => {}
                Some(body) => {
                    kept.reserve(body.len());
                    kept.put(key, |bytes| bytes.extend_from_slice(body));
                }
                None => kept.delete(key),
            }
        }
        store.commit(kept)
    })
}
