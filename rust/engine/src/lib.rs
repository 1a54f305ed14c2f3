//! Signal-protocol sessions by the batch.
//!
//! A gateway advances thousands of independent ratchets at once. Every ratchet step is the same short program on
//! different data, so one crypto step runs for a tile of sessions at a time, and what is around it (parsing, locks,
//! the transaction) is paid once a batch.
//!
//! The house, from the top; each part knows only those below it:
//!
//! - [`Engine`] (`batch`): rows → waves → tiles; sessions in columns; what is advanced is a copy until it is durable
//! - `ratchet`: the state, one file for each noun of the specifications
//! - `wire`: the frames
//! - `store`: sealed rows, committed before anything leaves; known to `batch` alone
//! - [`Status`], [`limits`], [`Secret`], [`Bytes`], `machine` (the time, random bytes): leaves
//!
//! The cryptography is the crate `interlane_lanes`, which knows no protocol.

#![forbid(unsafe_code)]

mod batch;
mod bytes;
mod error;
pub mod limits;
mod machine;
mod ratchet;
mod secret;
#[cfg(test)]
mod simulation;
mod store;
mod wire;

pub use batch::{
    AccountId, AccountInfo, BufferLimits, Durability, Engine, Import, Kind, Location, Options, Packed, PeerInfo,
    Restored, Rows, Stats, Upload, backup,
};
pub use bytes::Bytes;
pub use error::{Error, Events, Status};
pub use ratchet::Bundle;
pub use secret::Secret;
pub use store::Shard;
