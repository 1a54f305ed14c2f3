//! One crypto step for many inputs.
//!
//! A *kernel* is one step (a hash, a cipher, a curve product) for `n` rows at once: a struct whose fields are its named
//! arguments, every slice of them with one entry a row. [`Backend::run`] runs it on what this CPU offers.
//!
//! ```
//! use interlane_lanes::Backend;
//! use interlane_lanes::kernels::sha256::Digest;
//!
//! let mut out = [[0; 32]; 2];
//! Backend::detect()?.run(Digest { messages: &[b"one", b"another"], out: &mut out });
//! assert_ne!(out[0], out[1]);
//! # Ok::<(), interlane_lanes::UnknownBackend>(())
//! ```
//!
//! # Map
//!
//! - [`isa`]: instruction sets. What each offers, which of them are here, and the one `match` over them.
//! - [`kernels`]: the steps, one file for each standard, written once over [`Isa`].
//! - [`public`](public()): where something made of secrets becomes public.
//!
//! # Layer rule
//!
//! `kernels` names `isa`; `isa` names no kernel. CPU features are detected and intrinsics are used in `isa` alone
//! (`tests/structure.rs` checks it). Nothing here knows a protocol: no message formats, no sessions, no storage. A kernel
//! takes lengths as they come, allocates nothing, and one bad row never changes what its neighbours get.
#![deny(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "words and limbs are numbered as their standards write them")]

pub mod isa;
pub mod kernels;
mod public;

pub use isa::{Backend, Isa, Kernel, TILE, UnknownBackend};
#[cfg(interlane_secrets)]
pub use public::HARNESS;
pub use public::public;
