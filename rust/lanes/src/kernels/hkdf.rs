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

use super::hmac::{Keyed, finish, load_tile};
use super::sha256::{Half, Known, Message, State, absorb, compress, compress_known, known, splat};
use super::{over_words, rows, wipe};
use crate::isa::{TILE, Words};

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
        let mut expand = Expand::new(isa);
        let mut blocks = [[0; 64]; TILE];
        for at in (0..n).step_by(TILE) {
            let tile = at..n.min(at + TILE);
            let count = tile.len();
            if let Some(salts) = self.salts {
                load_tile(isa, &salts[tile.clone()], &mut expand.halves);
                expand.keyed.set(isa, &expand.halves, count);
            } else {
                expand.keyed.inner = isa.groups(splat(isa, &NO_SALT[0]));
                expand.keyed.outer = isa.groups(splat(isa, &NO_SALT[1]));
            }
            let mut messages = [Message::EMPTY; TILE];
            for (lane, row) in tile.clone().enumerate() {
                messages[lane] = Message { head: &[], tail: self.inputs[row], before: 64 };
            }
            absorb(isa, &mut expand.keyed.inner, &messages[..count], &mut blocks);
            for group in 0..count.div_ceil(I::WIDTH) {
                expand.halves[group] = finish(isa, &expand.keyed.inner[group], &expand.keyed.outer[group]);
            }
            expand.run(isa, &info, &mut self.out[tile]);
        }
        expand.wipe(isa);
        wipe(&mut blocks, [0; 64]);
    }
}

/// The states of the key of 32 zero bytes, inner and outer.
pub(super) const NO_SALT: [[u32; 8]; 2] = [
    [0xf454dead, 0x9725214f, 0x90daf2a0, 0xdf1228ea, 0x64e5750f, 0xa3924181, 0x824a932b, 0xf8e04e32],
    [0xd385480f, 0x7abb6477, 0x37c9c538, 0x5dd82467, 0x8e043a72, 0x753434b0, 0xdeb82818, 0x361d45a6],
];

/// The expand of a tile; `halves` holds the pseudorandom keys, then each `T` in turn.
pub(super) struct Expand<I: Words> {
    pub(super) keyed: Keyed<I>,
    pub(super) halves: I::Groups<Half<I>>,
    states: I::Groups<State<I>>,
}

impl<I: Words> Expand<I> {
    #[inline(always)]
    pub(super) fn new(isa: I) -> Self {
        let zero = isa.groups([isa.splat(0); 8]);
        Self { keyed: Keyed::new(isa), halves: zero, states: zero }
    }

    /// From the keys in `halves` to the rows' output.
    #[inline(always)]
    pub(super) fn run<const N: usize>(&mut self, isa: I, info: &Info, out: &mut [[u8; N]]) {
        const { assert!(N <= 255 * 32, "RFC 5869 §2.3: the counter is one byte") };
        let groups = out.len().div_ceil(I::WIDTH);
        self.keyed.set(isa, &self.halves, out.len());
        for part in 0..N.div_ceil(32) {
            self.states = self.keyed.inner;
            if part == 0 {
                for group in 0..groups {
                    compress_known(isa, &mut self.states[group], &info.known);
                }
                for index in 1..info.first.used {
                    for group in 0..groups {
                        compress(isa, &mut self.states[group], &known(isa, &info.first.blocks[index]));
                    }
                }
            } else {
                for index in 0..info.later.used {
                    let bytes = info.later.block(index, part + 1);
                    for group in 0..groups {
                        let mut block = known(isa, &bytes);
                        if index == 0 {
                            block[..8].copy_from_slice(&self.halves[group]);
                        }
                        compress(isa, &mut self.states[group], &block);
                    }
                }
            }
            for (group, out) in out.chunks_mut(I::WIDTH).enumerate() {
                self.halves[group] = finish(isa, &self.states[group], &self.keyed.outer[group]);
                isa.store(&self.halves[group], out, 32 * part);
            }
        }
    }

    #[inline(always)]
    pub(super) fn wipe(&mut self, isa: I) {
        let zero = [isa.splat(0); 8];
        self.keyed.wipe(isa);
        wipe(self.halves.as_mut(), zero);
        wipe(self.states.as_mut(), zero);
    }
}

/// An `info` laid out beforehand, as its blocks are hashed: made in a constant, it costs nothing where it is used.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    first: Suffix,
    /// The first block of `first`.
    known: Known,
    later: Suffix,
}

impl Info {
    /// At most [`INFO_MAX`] bytes.
    #[must_use]
    pub const fn new(info: &[u8]) -> Self {
        assert!(info.len() <= INFO_MAX, "an info of at most 128 bytes");
        let first = Suffix::new(0, info);
        Self { known: Known::new(first.blocks[0]), first, later: Suffix::new(32, info) }
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
    #[inline(always)]
    fn block(&self, index: usize, counter: usize) -> [u8; 64] {
        let mut block = self.blocks[index];
        if index == self.counter / 64 {
            block[self.counter % 64] = u8::try_from(counter).expect("at most 255");
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
        let mut keyed = Keyed::new(isa);
        keyed.set(isa, &[[0; 8]; TILE], TILE);
        assert_eq!([keyed.inner[0], keyed.outer[0]], NO_SALT);
    }

    #[test]
    fn longest_info_fits_its_blocks() {
        assert_eq!(Suffix::new(32, &[7; INFO_MAX]).used, 3);
        assert_eq!(Suffix::new(32, &[7; 22]).used, 1);
        assert_eq!(Suffix::new(32, &[7; 23]).used, 2);
    }
}
