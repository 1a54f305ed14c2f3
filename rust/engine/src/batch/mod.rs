//! The batch: a call's rows become waves (the k-th row of every session), waves become tiles, and a tile
//! goes through a crypto step at once. State is advanced on copies, made durable, then put back.

mod accounts;
#[cfg(test)]
mod acknowledgements;
mod agreement;
mod arrivals;
mod buffer;
mod columns;
mod decrypt;
mod encrypt;
mod engine;
mod group;
mod lease;
mod lot_record;
mod plan;
mod randomness;
mod records;
mod residents;
mod restore;
mod rows;
mod session_record;
mod standing;
mod start;
#[cfg(test)]
pub(crate) mod tap;
mod tile;

pub use accounts::{AccountId, AccountInfo, Import, Upload};
pub use buffer::BufferLimits;
pub use engine::{Engine, Location, Options, PeerInfo, Stats};
pub use lease::Durability;
#[cfg(test)]
pub(crate) use lease::Turn;
pub use restore::{Restored, backup};
pub use rows::{Kind, Packed, Rows};
