//! HMAC-SHA256 (RFC 2104 §2; FIPS 198-1 §4).
//!
//! With a key `K` of at most a block, filled up with zeros to the 64 bytes of one,
//!
//! ```text
//! HMAC(K, M) = H((K ⊕ opad) ‖ H((K ⊕ ipad) ‖ M))     ipad = 36…36, opad = 5c…5c
//! ```
//!
//! `K ⊕ ipad` and `K ⊕ opad` are a block each: two states, made once, are all that is left of a key.

use super::sha256::{
    Half, Known, Message, State, absorb, behind, compress, compress_known, last_block, splat, start, to_memory,
};
use super::{over_words, rows, wipe};
use crate::isa::{TILE, Words};

/// The code of `head ‖ tail` under a key of each row's own.
pub struct Hmac<'a> {
    /// The keys.
    pub keys: &'a [[u8; 32]],
    /// The first part of each message.
    pub heads: &'a [&'a [u8]],
    /// The second part of each message.
    pub tails: &'a [&'a [u8]],
    /// The codes.
    pub out: &'a mut [[u8; 32]],
}

over_words!([] Hmac<'_>, out);

impl Hmac<'_> {
    #[inline(always)]
    fn run<I: Words>(self, isa: I) {
        let n = rows([self.keys.len(), self.heads.len(), self.tails.len(), self.out.len()]);
        let mut keyed = Keyed::new(isa);
        let mut halves = isa.groups([isa.splat(0); 8]);
        let mut blocks = [[0; 64]; TILE];
        for at in (0..n).step_by(TILE) {
            let tile = at..n.min(at + TILE);
            let count = tile.len();
            let mut messages = [Message::EMPTY; TILE];
            for (lane, row) in tile.clone().enumerate() {
                messages[lane] = Message { head: self.heads[row], tail: self.tails[row], before: 64 };
            }
            load_tile(isa, &self.keys[tile.clone()], &mut halves);
            keyed.set(isa, &halves, count);
            absorb(isa, &mut keyed.inner, &messages[..count], &mut blocks);
            for (group, out) in self.out[tile].chunks_mut(I::WIDTH).enumerate() {
                isa.store(&finish(isa, &keyed.inner[group], &keyed.outer[group]), out, 0);
            }
        }
        keyed.wipe(isa);
        wipe(halves.as_mut(), [isa.splat(0); 8]);
        wipe(&mut blocks, [0; 64]);
    }
}

const IPAD: u32 = 0x36363636;
const OPAD: u32 = 0x5c5c5c5c;

/// A digest is a message of one block behind one block.
const DIGEST: [u8; 64] = last_block(&[0; 32], 64);

/// HMAC with the keys of a tile absorbed.
pub(super) struct Keyed<I: Words> {
    pub(super) inner: I::Groups<State<I>>,
    pub(super) outer: I::Groups<State<I>>,
}

impl<I: Words> Keyed<I> {
    #[inline(always)]
    pub(super) fn new(isa: I) -> Self {
        Self { inner: isa.groups(start(isa)), outer: isa.groups(start(isa)) }
    }

    /// Takes the keys of `count` rows.
    #[inline(always)]
    pub(super) fn set(&mut self, isa: I, keys: &I::Groups<Half<I>>, count: usize) {
        for (group, key) in keys.as_ref().iter().enumerate().take(count.div_ceil(I::WIDTH)) {
            self.inner[group] = pad_state(isa, key, IPAD);
            self.outer[group] = pad_state(isa, key, OPAD);
        }
    }

    #[inline(always)]
    pub(super) fn wipe(&mut self, isa: I) {
        wipe(self.inner.as_mut(), start(isa));
        wipe(self.outer.as_mut(), start(isa));
    }

    /// The code of one last block that is the same in every row.
    #[inline(always)]
    pub(super) fn code_known(&self, isa: I, group: usize, block: &Known) -> Half<I> {
        let mut inner = self.inner[group];
        compress_known(isa, &mut inner, block);
        finish(isa, &inner, &self.outer[group])
    }
}

#[inline(always)]
fn pad_state<I: Words>(isa: I, key: &Half<I>, pad: u32) -> State<I> {
    let mut block = splat(isa, &[pad; 16]);
    for i in 0..8 {
        block[i] = key[i] ^ block[i];
    }
    let mut state = start(isa);
    compress(isa, &mut state, &block);
    state
}

/// The outer hash, of the inner one's digest.
#[inline(always)]
pub(super) fn finish<I: Words>(isa: I, inner: &State<I>, outer: &State<I>) -> Half<I> {
    let mut state = *outer;
    compress(isa, &mut state, &behind(isa, &to_memory::<I>(inner), &DIGEST));
    to_memory::<I>(&state)
}

/// Up to a tile of rows, by groups.
#[inline(always)]
pub(super) fn load_tile<I: Words>(isa: I, rows: &[[u8; 32]], halves: &mut I::Groups<Half<I>>) {
    for (half, rows) in halves.as_mut().iter_mut().zip(rows.chunks(I::WIDTH)) {
        *half = isa.load(rows);
    }
}
