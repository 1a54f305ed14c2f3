//! A 32-bit word of each row.

use core::ops::{BitAnd, BitXor};

/// What an instruction set offers for words of 32 bits. A value of this type is proof that the set is present.
///
/// A group is up to `WIDTH` neighbouring rows; where an operation takes rows it takes one group of them, and lanes without
/// a row hold anything.
pub trait Words: Copy {
    /// Rows in a group; divides [`super::TILE`].
    const WIDTH: usize;
    /// Whether it compresses by itself ([`Words::compress`]); else SHA-256 is computed from words.
    const COMPRESSES: bool;
    /// A 32-bit word of each row of a group.
    type U32: Lanes;

    /// Runs a part of a kernel in a function of its own, compiled for this instruction set and never inlined.
    fn call<P: Part<Self>>(self, part: P) -> P::Out;

    /// The same word in every lane.
    fn splat(self, word: u32) -> Self::U32;
    /// The rows of a group, in memory order.
    fn load(self, rows: &[[u8; 32]]) -> [Self::U32; 8];
    /// One block of each row of a group, in memory order.
    fn load_blocks(self, rows: &[[u8; 64]]) -> [Self::U32; 16];
    /// The bytes from `at` on of each row of a group, from words in memory order: 32 of them, or what the row has left.
    fn store<const N: usize>(self, words: &[Self::U32; 8], rows: &mut [[u8; N]], at: usize);
    /// Lane by lane: `new` where `alive`, else `old`.
    fn choose(self, alive: &[bool], new: &[Self::U32; 8], old: &[Self::U32; 8]) -> [Self::U32; 8];

    /// SHA-256 compression (FIPS 180-4 §6.2.2) by instructions of its own: `state` in numeric order, `block` in memory
    /// order.
    fn compress(self, state: &mut [Self::U32; 8], block: &[Self::U32; 16]);
}

/// A part of a kernel that is called from several places and stands in the code once.
pub trait Part<I> {
    /// What it gives.
    type Out;
    /// Runs it.
    fn run(self, isa: I) -> Self::Out;
}

/// A word of each of `WIDTH` rows.
///
/// Words come in two orders: *numeric*, as SHA-256 computes with them, and *memory*, the bytes as they stand in a row.
pub trait Lanes: Copy + BitXor<Output = Self> + BitAnd<Output = Self> {
    /// From numeric order to the memory order of big-endian bytes and back, as `u32::to_be` does.
    #[must_use]
    fn to_be(self) -> Self;
    /// The sum modulo 2^32.
    #[must_use]
    fn wrapping_add(self, other: Self) -> Self;
    /// Shifted right, zeros coming in.
    #[must_use]
    fn shr<const BITS: i32>(self) -> Self;
    /// Turned right.
    #[must_use]
    fn rotr<const BITS: i32>(self) -> Self;
    /// `self ^ b ^ c`.
    #[must_use]
    fn xor3(self, b: Self, c: Self) -> Self;
    /// Bit by bit: `yes` where `self` is set, else `no`.
    #[must_use]
    fn choose(self, yes: Self, no: Self) -> Self;
    /// Bit by bit: what two of the three say.
    #[must_use]
    fn majority(self, b: Self, c: Self) -> Self;
}
