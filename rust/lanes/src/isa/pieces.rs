//! 16 bytes of each row: blocks of AES and GHASH, and the way between rows and words.
//!
//! A vector of `WIDTH` words is also `WIDTH / 4` *pieces* of 16 bytes. Four vectors, a *quad*, hold one piece of each row
//! of a group: vector `i` those of rows `i, i + 4, i + 8 …`. Transposing a quad never crosses 16 bytes, and turns four
//! pieces of each row into four words of each row, and back.

use super::words::{Lanes, Words};

/// What a vector offers for the pieces in it. `I` is the token of its instruction set.
pub trait Pieces<I>: Lanes {
    /// One word a lane; `WIDTH` of them are read.
    fn from_words(isa: I, words: &[u32; 16]) -> Self;
    /// One piece after the other; `WIDTH / 4` of them are read.
    fn from_pieces(isa: I, pieces: [&[u8; 16]; 4]) -> Self;
    /// The pieces of the first `rows`, one after the other.
    fn to_pieces(self, to: [Option<&mut [u8; 16]>; 4]);
    /// The same piece everywhere.
    fn splat_piece(isa: I, piece: &[u8; 16]) -> Self;
    /// The first `4 * WIDTH` of the bytes, which are pieces one after the other.
    fn from_bytes(isa: I, bytes: &[u8]) -> Self;
    /// The other way.
    fn to_bytes(self, bytes: &mut [u8]);
    /// One of the pieces, everywhere.
    #[must_use]
    fn everywhere(self, piece: usize) -> Self;

    /// The 4 × 4 words in each piece of a quad, transposed.
    #[must_use]
    fn transpose(quad: [Self; 4]) -> [Self; 4];
    /// From four pieces of each row, a vector for each place in the row, to rows of 64 bytes: the four vectors one after
    /// the other are all of the first row, then all of the second …
    #[must_use]
    fn join(places: [Self; 4]) -> [Self; 4];
    /// In each piece: byte `i` becomes byte `order[i]`.
    #[must_use]
    fn shuffle(self, order: [u8; 16]) -> Self;

    /// A round of AES encryption (FIPS 197 §5.1) of each piece.
    #[must_use]
    fn aes_round(self, key: Self) -> Self;
    /// Its last round, without MixColumns.
    #[must_use]
    fn aes_last(self, key: Self) -> Self;
    /// A round of AES decryption by the equivalent inverse cipher (FIPS 197 §5.3.5) of each piece.
    #[must_use]
    fn aes_inverse_round(self, key: Self) -> Self;
    /// Its last round, without InvMixColumns.
    #[must_use]
    fn aes_inverse_last(self, key: Self) -> Self;

    /// In each piece: the product without carries of the lower halves, 8 bytes each, as little-endian numbers.
    #[must_use]
    fn clmul_low(self, other: Self) -> Self;
    /// Of the upper halves.
    #[must_use]
    fn clmul_high(self, other: Self) -> Self;
    /// Of the lower half of `self` and the upper half of `other`.
    #[must_use]
    fn clmul_low_high(self, other: Self) -> Self;
}

/// Bytes `at` to `at + 16` of rows `first, first + 4, …` of a group; zero for rows that are not there.
#[inline(always)]
pub(crate) fn load_pieces<I, R>(isa: I, rows: &[R], first: usize, at: usize) -> I::U32
where
    I: Words<U32: Pieces<I>>,
    R: AsRef<[u8]>,
{
    let mut pieces = [&[0; 16]; 4];
    for j in 0..I::WIDTH / 4 {
        if let Some(row) = rows.get(first + 4 * j) {
            pieces[j] = row.as_ref()[at..].first_chunk().expect("16 bytes");
        }
    }
    I::U32::from_pieces(isa, pieces)
}

/// The other way; rows that are not there get nothing.
#[inline(always)]
pub(crate) fn store_pieces<I, R>(_: I, pieces: I::U32, rows: &mut [R], first: usize, at: usize)
where
    I: Words<U32: Pieces<I>>,
    R: AsMut<[u8]>,
{
    let mut to = [const { None }; 4];
    for (n, row) in rows.iter_mut().skip(first).step_by(4).take(I::WIDTH / 4).enumerate() {
        to[n] = Some(row.as_mut()[at..].first_chunk_mut().expect("16 bytes"));
    }
    pieces.to_pieces(to);
}

/// `W` words of each row of a group from byte `at` on, in memory order.
#[inline(always)]
pub(crate) fn load_words<I, R, const W: usize>(isa: I, rows: &[R], at: usize) -> [I::U32; W]
where
    I: Words<U32: Pieces<I>>,
    R: AsRef<[u8]>,
{
    const { assert!(W.is_multiple_of(4)) };
    let mut words = [isa.splat(0); W];
    for first in (0..W).step_by(4) {
        let mut quad = [words[0]; 4];
        for i in 0..4 {
            quad[i] = load_pieces(isa, rows, i, at + 4 * first);
        }
        words[first..first + 4].copy_from_slice(&I::U32::transpose(quad));
    }
    words
}

/// [`Words::store`], for vectors.
#[inline(always)]
pub(super) fn store_words<I, const N: usize>(isa: I, words: &[I::U32; 8], rows: &mut [[u8; N]], at: usize)
where
    I: Words<U32: Pieces<I>>,
{
    for half in 0..2 {
        let quad = I::U32::transpose([words[4 * half], words[4 * half + 1], words[4 * half + 2], words[4 * half + 3]]);
        let at = at + 16 * half;
        if at + 16 <= N {
            for i in 0..4 {
                store_pieces(isa, quad[i], rows, i, at);
            }
        } else if at < N {
            let mut ends = [[0; 16]; super::WIDEST];
            for i in 0..4 {
                store_pieces(isa, quad[i], &mut ends[..I::WIDTH], i, 0);
            }
            for (row, end) in rows.iter_mut().zip(&ends) {
                row[at..].copy_from_slice(&end[..N - at]);
            }
            ends = [[0; 16]; super::WIDEST];
            zeroize::optimization_barrier(&ends);
        }
    }
}

/// [`Words::choose`], for vectors.
#[inline(always)]
pub(super) fn choose_words<I>(isa: I, alive: &[bool], new: &[I::U32; 8], old: &[I::U32; 8]) -> [I::U32; 8]
where
    I: Words<U32: Pieces<I>>,
{
    let mut words = [0; super::WIDEST];
    for (word, alive) in words.iter_mut().zip(alive) {
        *word = u32::from(*alive).wrapping_neg();
    }
    let mask = I::U32::from_words(isa, &words);
    let mut out = *old;
    for i in 0..8 {
        out[i] = mask.choose(new[i], old[i]);
    }
    out
}
