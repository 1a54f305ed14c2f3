//! A 32-bit word of each row.

use core::ops::{BitAnd, BitXor, IndexMut};

/// The constants of SHA-256 (FIPS 180-4 §4.2.2): for the kernel, and for instruction sets that compress by themselves.
pub(crate) const ROUND_CONSTANTS: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
    0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
    0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
    0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2,
];

/// What an instruction set offers for words of 32 bits. A value of this type is proof that the set is present.
///
/// A group is up to `WIDTH` neighbouring rows; where an operation takes rows it takes one group of them, and lanes without
/// a row hold anything.
pub trait Words: Copy {
    /// Rows in a group; at most [`super::WIDEST`].
    const WIDTH: usize;
    /// A 32-bit word of each row of a group.
    type U32: Lanes;
    /// Groups that hashes take at a time.
    const GROUPS: usize;
    /// The rows of those; divides [`super::TILE`].
    const AT_ONCE: usize = Self::GROUPS * Self::WIDTH;
    /// Whether two groups' compressions fit in the registers, where they are computed from words.
    const PAIRS: bool = false;
    /// One of something for each of them: an array of `GROUPS`.
    type Groups<T: Copy>: Copy + IndexMut<usize, Output = T> + AsRef<[T]> + AsMut<[T]>;

    /// The same for each of them.
    fn groups<T: Copy>(self, item: T) -> Self::Groups<T>;

    /// Runs a part of a kernel in a function of its own, compiled for this instruction set and never inlined.
    fn call<P: Part<Self>>(self, part: P) -> P::Out;

    /// The same word in every lane.
    fn splat(self, word: u32) -> Self::U32;
    /// The rows of a group, in memory order.
    fn load(self, rows: &[[u8; 32]]) -> [Self::U32; 8];
    /// One block of each row of a group, in memory order.
    fn load_blocks(self, rows: &[&[u8; 64]]) -> [Self::U32; 16];
    /// The bytes from `at` on of each row of a group, from words in memory order: 32 of them, or what the row has left.
    fn store<const N: usize>(self, words: &[Self::U32; 8], rows: &mut [[u8; N]], at: usize);
    /// Lane by lane: `new` where `alive`, else `old`.
    fn choose(self, alive: &[bool], new: &[Self::U32; 8], old: &[Self::U32; 8]) -> [Self::U32; 8];

    /// Whether it has SHA-256's compression ([`Words::compress`]); else that is computed from words.
    fn compresses(self) -> bool;
    /// SHA-256 compression (FIPS 180-4 §6.2.2) by instructions of its own: `state` in numeric order, `block` in memory
    /// order.
    fn compress(self, state: &mut [Self::U32; 8], block: &[Self::U32; 16]);
    /// [`Words::compress`] of a block that is the same in every row: its bytes, and its words for the 64 rounds with the
    /// rounds' constants added.
    fn compress_known(self, state: &mut [Self::U32; 8], block: &[u8; 64], rounds: &[u32; 64]);
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
