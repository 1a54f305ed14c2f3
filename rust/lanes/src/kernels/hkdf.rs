//! HKDF-SHA256 (RFC 5869 §2).
//!
//! ```text
//! PRK  = HMAC(salt, input)                      salt: 32 zero bytes if there is none
//! T(i) = HMAC(PRK, T(i−1) ‖ info ‖ byte i)      T(0) is empty, i = 1, 2, … 255
//! out  = the first N bytes of T(1) ‖ T(2) ‖ …
//! ```
//!
//! What stands behind `T(i−1)` is the same in every row but for `i`, so its blocks are laid out once ([`Info`]); those of
//! `T(1)` are the same in every row as a whole.

use super::hmac::Tile;
use super::sha256::{Known, Messages, Tail};
use super::{over_words, rows};
use crate::isa::Words;

/// Longest `info`: a `T`, 128 bytes and the padding fill three blocks; labels of the protocols have below 64.
pub const INFO_MAX: usize = 128;

/// `N` bytes a row, at most 255 · 32, from each row's input.
pub struct Hkdf<'a, const N: usize> {
    /// A salt for each row; 32 zero bytes if there are none.
    pub salts: Option<&'a [[u8; 32]]>,
    /// Input keying material.
    pub inputs: &'a [&'a [u8]],
    /// The label, at most [`INFO_MAX`] bytes.
    pub info: &'a [u8],
    /// Output keying material.
    pub out: &'a mut [[u8; N]],
}

over_words!([const N: usize] Hkdf<'_, N>, out);

impl<const N: usize> Hkdf<'_, N> {
    #[inline(always)]
    fn run<I: Words>(self, isa: I) {
        let n = rows([self.salts.map_or(self.inputs.len(), <[_]>::len), self.inputs.len(), self.out.len()]);
        let info = Info::new(self.info);
        let mut tile = Tile::new(isa);
        for at in (0..n).step_by(I::AT_ONCE) {
            let rows = at..n.min(at + I::AT_ONCE);
            if let Some(salts) = self.salts {
                tile.load(isa, &salts[rows.clone()]);
                tile.set_keys(isa);
            } else {
                tile.set_known_keys(isa, rows.len(), &NO_SALT);
            }
            tile.absorb(isa, Messages { heads: None, tails: &self.inputs[rows.clone()], before: 64 });
            expand(isa, &mut tile, &info, &mut self.out[rows]);
        }
        tile.wipe(isa);
    }
}

/// The states of the key of 32 zero bytes, inner and outer.
pub(super) const NO_SALT: [[u32; 8]; 2] = [
    [0xf454dead, 0x9725214f, 0x90daf2a0, 0xdf1228ea, 0x64e5750f, 0xa3924181, 0x824a932b, 0xf8e04e32],
    [0xd385480f, 0x7abb6477, 0x37c9c538, 0x5dd82467, 0x8e043a72, 0x753434b0, 0xdeb82818, 0x361d45a6],
];

/// From the pseudorandom keys of a tile to its rows' output.
#[inline(always)]
pub(super) fn expand<I: Words, const N: usize>(isa: I, tile: &mut Tile<I>, info: &Info, out: &mut [[u8; N]]) {
    const { assert!(N <= 255 * 32, "RFC 5869 §2.3: the counter is one byte") };
    tile.set_keys(isa);
    for part in 0..N.div_ceil(32) {
        tile.start();
        if part == 0 {
            for block in &info.first[..info.first_used] {
                tile.take_known(isa, block);
            }
        } else {
            let counter = u8::try_from(part + 1).expect("at most 255");
            match info.tails.get(part - 1) {
                Some(tail) => tile.take_behind(isa, tail),
                None => tile.take_behind(isa, &Tail::new(info.later.block(0, counter))),
            }
            for index in 1..info.later.used {
                tile.take_known(isa, &Known::new(info.later.block(index, counter)));
            }
        }
        tile.finish(isa);
        tile.store(isa, out, 32 * part);
    }
}

/// An `info` laid out beforehand, as its blocks are hashed: made in a constant, it costs nothing where it is used.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    first: [Known; 3],
    first_used: usize,
    later: Suffix,
    /// Of the first block of `T(2)` and `T(3)`: more than 96 bytes are derived nowhere in the protocol.
    tails: [Tail; 2],
}

impl Info {
    /// At most [`INFO_MAX`] bytes.
    #[must_use]
    pub const fn new(info: &[u8]) -> Self {
        assert!(info.len() <= INFO_MAX, "an info of at most 128 bytes");
        let Suffix { blocks: [first, second, third], used, .. } = Suffix::new(0, info);
        let later = Suffix::new(32, info);
        Self {
            first: [Known::new(first), Known::new(second), Known::new(third)],
            first_used: used,
            tails: [Tail::new(later.block(0, 2)), Tail::new(later.block(0, 3))],
            later,
        }
    }
}

/// The blocks of `info ‖ 1` and padding, behind a key block and `hole` bytes that are left zero.
#[derive(Clone, Copy, Debug)]
struct Suffix {
    blocks: [[u8; 64]; 3],
    used: usize,
    counter: usize,
}

impl Suffix {
    const fn new(hole: usize, info: &[u8]) -> Self {
        let counter = hole + info.len();
        let used = (counter + 1 + 9).div_ceil(64);
        let mut blocks = [[0; 64]; 3];
        let mut i = 0;
        while i < info.len() {
            blocks[(hole + i) / 64][(hole + i) % 64] = info[i];
            i += 1;
        }
        blocks[counter / 64][counter % 64] = 1;
        blocks[(counter + 1) / 64][(counter + 1) % 64] = 0x80;
        let bits = (8 * (64 + counter as u64 + 1)).to_be_bytes();
        i = 0;
        while i < 8 {
            blocks[used - 1][56 + i] = bits[i];
            i += 1;
        }
        Self { blocks, used, counter }
    }

    /// One of its blocks, with this counter.
    const fn block(&self, index: usize, counter: u8) -> [u8; 64] {
        let mut block = self.blocks[index];
        if index == self.counter / 64 {
            block[self.counter % 64] = counter;
        }
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Portable;

    #[test]
    fn no_salt_is_the_key_of_zeros() {
        let isa = Portable::detect();
        let mut tile = Tile::new(isa);
        tile.load(isa, &[[0; 32]]);
        tile.set_keys(isa);
        assert_eq!(tile.keys(0), NO_SALT);
    }

    #[test]
    fn longest_info_fits_its_blocks() {
        assert_eq!(Suffix::new(32, &[7; INFO_MAX]).used, 3);
        assert_eq!(Suffix::new(32, &[7; 22]).used, 1);
        assert_eq!(Suffix::new(32, &[7; 23]).used, 2);
    }
}
