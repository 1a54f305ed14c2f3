//! Instruction sets: what each offers, which are here, and the one `match` over them.
//!
//! - [`Words`] (`words`): a 32-bit word of each row; what hashes and stream ciphers compute with.
//! - [`Pieces`] (`pieces`): 16 bytes of each row, in the same vectors; what AES and GHASH compute with.
//! - [`Limbs`] (`limbs`): a 64-bit limb of each row; what Poly1305 and curves compute with, these by way of
//!   [`Field`] (`field25519`): an element of GF(2^255 − 19) of each row.
//! - [`Isa`] is all three: what a vector instruction set offers. [`Portable`] has words alone, one row wide.
//! - [`Backend`] (`backend`): which of them are here, and from how many rows on lanes are worth it.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod backend;
pub mod field25519;
pub(crate) mod limbs;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod neon;
pub(crate) mod pieces;
mod portable;
pub(crate) mod words;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use backend::{BACKEND_VARIABLE, Backend, InLanes, Runner, Step, UnknownBackend};
pub use field25519::Field;
pub use limbs::{Eight, Limb, Limbs};
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
pub use neon::{Crypto, Neon, Plain};
pub use pieces::Pieces;
pub use portable::Portable;
pub use words::{Lanes, Part, Words};

/// Rows of a tile: two groups of the widest instruction set, whose hashes go side by side.
pub const TILE: usize = 2 * WIDEST;

/// Most rows of a group. The width of every instruction set divides it.
pub const WIDEST: usize = 16;

/// A vector instruction set. A value of this type is proof that the set is present, so all of it is safe to use.
pub trait Isa: Words<U32: Pieces<Self>> + Limbs {}

impl<I: Words<U32: Pieces<I>> + Limbs> Isa for I {}

/// A step for many rows.
pub trait Kernel {
    /// What running it gives; most kernels write to the slices they were given instead.
    type Out;
    /// Its place in the table of what runs where.
    const STEP: Step;

    /// How many rows it has: a few are done sooner one after the other than in lanes.
    fn rows(&self) -> usize;
    /// One row after the other, by crates: for CPUs without vectors, for few rows, and as the oracle of the lanes.
    fn by_row(self, crates: Portable) -> Self::Out;
    /// As many rows at once as the instruction set has lanes.
    fn in_lanes<I: Isa>(self, isa: I) -> Self::Out;
}
