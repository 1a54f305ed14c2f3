//! HKDF-SHA256 (RFC 5869 §2).
//!
//! ```text
//! PRK  = HMAC(salt, input)                      salt: 32 zero bytes if there is none
//! T(i) = HMAC(PRK, T(i−1) ‖ info ‖ byte i)      T(0) is empty, i = 1, 2, … 255
//! out  = the first N bytes of T(1) ‖ T(2) ‖ …
//! ```
//!
//! What stands behind `T(i−1)` is the same in every row but for `i`, so its blocks are laid out once.

use super::hmac::{Keyed, finish, load_tile};
use super::sha256::{Half, Message, State, absorb, compress, known, splat};
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
        let mut expand = Expand::new(isa, self.info);
        let mut blocks = [[0; 64]; TILE];
        for at in (0..n).step_by(TILE) {
            let tile = at..n.min(at + TILE);
            let count = tile.len();
            if let Some(salts) = self.salts {
                load_tile(isa, &salts[tile.clone()], &mut expand.halves);
                expand.keyed.set(isa, &expand.halves, count);
            } else {
                set_no_salt(isa, &mut expand.keyed);
            }
            let mut messages = [Message::EMPTY; TILE];
            for (lane, row) in tile.clone().enumerate() {
                messages[lane] = Message { head: &[], tail: self.inputs[row], before: 64 };
            }
            absorb(isa, &mut expand.keyed.inner, &messages[..count], &mut blocks);
            for group in 0..count.div_ceil(I::WIDTH) {
                expand.halves[group] = finish(isa, &expand.keyed.inner[group], &expand.keyed.outer[group]);
            }
            expand.run(isa, &mut self.out[tile]);
        }
        expand.wipe(isa);
        wipe(&mut blocks, [0; 64]);
    }
}

/// The states of the key of 32 zero bytes, inner and outer.
const NO_SALT: [[u32; 8]; 2] = [
    [0xf454dead, 0x9725214f, 0x90daf2a0, 0xdf1228ea, 0x64e5750f, 0xa3924181, 0x824a932b, 0xf8e04e32],
    [0xd385480f, 0x7abb6477, 0x37c9c538, 0x5dd82467, 0x8e043a72, 0x753434b0, 0xdeb82818, 0x361d45a6],
];

#[inline(always)]
pub(super) fn set_no_salt<I: Words>(isa: I, keyed: &mut Keyed<I>) {
    keyed.inner.fill(splat(isa, &NO_SALT[0]));
    keyed.outer.fill(splat(isa, &NO_SALT[1]));
}

/// The expand of a tile; `halves` holds the pseudorandom keys, then each `T` in turn.
pub(super) struct Expand<I: Words> {
    pub(super) keyed: Keyed<I>,
    pub(super) halves: [Half<I>; TILE],
    states: [State<I>; TILE],
    first: Suffix,
    later: Suffix,
}

impl<I: Words> Expand<I> {
    #[inline(always)]
    pub(super) fn new(isa: I, info: &[u8]) -> Self {
        let zero = [[isa.splat(0); 8]; TILE];
        Self {
            keyed: Keyed::new(isa),
            halves: zero,
            states: zero,
            first: Suffix::new(0, info),
            later: Suffix::new(32, info),
        }
    }

    /// From the keys in `halves` to the rows' output.
    #[inline(always)]
    pub(super) fn run<const N: usize>(&mut self, isa: I, out: &mut [[u8; N]]) {
        const { assert!(N <= 255 * 32, "RFC 5869 §2.3: the counter is one byte") };
        let groups = out.len().div_ceil(I::WIDTH);
        self.keyed.set(isa, &self.halves, out.len());
        for part in 0..N.div_ceil(32) {
            let suffix = if part == 0 { &mut self.first } else { &mut self.later };
            suffix.count(part + 1);
            self.states[..groups].copy_from_slice(&self.keyed.inner[..groups]);
            for index in 0..suffix.used {
                for group in 0..groups {
                    let mut block = known(isa, &suffix.blocks[index]);
                    if part > 0 && index == 0 {
                        block[..8].copy_from_slice(&self.halves[group]);
                    }
                    compress(isa, &mut self.states[group], &block);
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
        wipe(&mut self.halves, zero);
        wipe(&mut self.states, zero);
    }
}

/// The blocks of `info ‖ counter` and padding, behind a key block and `hole` bytes that are left zero.
struct Suffix {
    blocks: [[u8; 64]; 3],
    used: usize,
    counter: usize,
}

impl Suffix {
    fn new(hole: usize, info: &[u8]) -> Self {
        assert!(info.len() <= INFO_MAX, "an info of at most {INFO_MAX} bytes");
        let mut bytes = [0; 32 + INFO_MAX + 1];
        let counter = hole + info.len();
        bytes[hole..counter].copy_from_slice(info);
        let message = Message { head: &bytes[..=counter], tail: &[], before: 64 };
        let mut blocks = [[0; 64]; 3];
        for (index, block) in blocks.iter_mut().enumerate().take(message.blocks()) {
            message.write(index, block);
        }
        Self { blocks, used: message.blocks(), counter }
    }

    #[inline(always)]
    fn count(&mut self, counter: usize) {
        self.blocks[self.counter / 64][self.counter % 64] = u8::try_from(counter).expect("at most 255");
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
