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
    Block, Half, Known, Messages, State, Tail, absorb, compress_behind, compress_known, head, head_of, last_block,
    splat, start,
};
use super::{over_words, rows, wipe};
use crate::isa::Words;

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
        let mut tile = Tile::new(isa);
        for at in (0..n).step_by(I::AT_ONCE) {
            let rows = at..n.min(at + I::AT_ONCE);
            tile.load(isa, &self.keys[rows.clone()]);
            tile.set_keys(isa);
            let heads = Some(&self.heads[rows.clone()]);
            tile.absorb(isa, Messages { heads, tails: &self.tails[rows.clone()], before: 64 });
            tile.store(isa, &mut self.out[rows], 0);
        }
        tile.wipe(isa);
    }
}

const IPAD: u8 = 0x36;
const OPAD: u8 = 0x5c;

/// What follows a message of 32 bytes, such as a digest is, in its one block behind a key's.
pub(super) const BEHIND_32: Tail = Tail::new(last_block(&[0; 32], 64));

/// HMAC of as many rows as are taken at a time, step by step.
pub(super) struct Tile<I: Words> {
    /// How many groups there are.
    groups: usize,
    /// The keys, absorbed.
    inner: I::Groups<State<I>>,
    outer: I::Groups<State<I>>,
    /// Hashes on their way.
    states: I::Groups<State<I>>,
    blocks: I::Groups<Block<I>>,
    /// Keys that come in and codes that go out, as [`head`] gives them.
    halves: I::Groups<Half<I>>,
}

impl<I: Words> Tile<I> {
    #[inline(always)]
    pub(super) fn new(isa: I) -> Self {
        let zero = isa.groups([isa.splat(0); 8]);
        Self { groups: 0, inner: zero, outer: zero, states: zero, blocks: isa.groups([isa.splat(0); 16]), halves: zero }
    }

    #[inline(always)]
    pub(super) fn wipe(&mut self, isa: I) {
        let zero = [isa.splat(0); 8];
        for states in [&mut self.inner, &mut self.outer, &mut self.states, &mut self.halves] {
            wipe(states.as_mut(), zero);
        }
        wipe(self.blocks.as_mut(), [isa.splat(0); 16]);
    }

    /// Takes rows.
    #[inline(always)]
    pub(super) fn load(&mut self, isa: I, rows: &[[u8; 32]]) {
        self.groups = rows.len().div_ceil(I::WIDTH);
        for (half, rows) in self.halves.as_mut().iter_mut().zip(rows.chunks(I::WIDTH)) {
            *half = head(isa, &isa.load(rows));
        }
    }

    /// Gives them: bytes `at` to `at + 32`, or what the rows have left.
    #[inline(always)]
    pub(super) fn store<const N: usize>(&self, isa: I, rows: &mut [[u8; N]], at: usize) {
        for (half, rows) in self.halves.as_ref().iter().zip(rows.chunks_mut(I::WIDTH)) {
            isa.store(&head(isa, half), rows, at);
        }
    }

    /// Makes them the keys; they are gone then.
    #[inline(always)]
    pub(super) fn set_keys(&mut self, isa: I) {
        (self.inner, self.outer) = (isa.groups(start(isa)), isa.groups(start(isa)));
        let groups = self.groups;
        for (states, pad, before, tail) in [
            (&mut self.inner, IPAD, 0, const { Tail::new([IPAD; 64]) }),
            (&mut self.outer, OPAD, IPAD, const { Tail::new([OPAD; 64]) }),
        ] {
            let pad = isa.splat(u32::from_ne_bytes([pad ^ before; 4]));
            for half in &mut self.halves.as_mut()[..groups] {
                for word in half {
                    *word = *word ^ pad;
                }
            }
            let (states, blocks) = (&mut states.as_mut()[..groups], &mut self.blocks.as_mut()[..groups]);
            compress_behind(isa, states, &self.halves.as_ref()[..groups], &tail, blocks);
        }
    }

    /// Keys whose states are known: the same in `rows` rows.
    #[inline(always)]
    pub(super) fn set_known_keys(&mut self, isa: I, rows: usize, [inner, outer]: &[[u32; 8]; 2]) {
        self.groups = rows.div_ceil(I::WIDTH);
        (self.inner, self.outer) = (isa.groups(splat(isa, inner)), isa.groups(splat(isa, outer)));
    }

    /// The states of a row's key, where a group is one row.
    #[cfg(test)]
    pub(super) fn keys(&self, row: usize) -> [State<I>; 2] {
        [self.inner[row], self.outer[row]]
    }

    /// The codes of messages.
    #[inline(always)]
    pub(super) fn absorb(&mut self, isa: I, messages: Messages<'_>) {
        self.start();
        absorb(isa, &mut self.states, messages, &mut self.blocks);
        self.finish(isa);
    }

    /// The codes of a last block that is the same in every row.
    #[inline(always)]
    pub(super) fn known(&mut self, isa: I, block: &Known) {
        self.start();
        self.take_known(isa, block);
        self.finish(isa);
    }

    /// Begins the inner hash.
    #[inline(always)]
    pub(super) fn start(&mut self) {
        self.states = self.inner;
    }

    /// A block of it that is the same in every row.
    #[inline(always)]
    pub(super) fn take_known(&mut self, isa: I, block: &Known) {
        compress_known(isa, &mut self.states.as_mut()[..self.groups], block);
    }

    /// A block of it that is the same in every row but for the 32 bytes at its beginning, which are the rows' own.
    #[inline(always)]
    pub(super) fn take_behind(&mut self, isa: I, tail: &Tail) {
        let groups = self.groups;
        let (states, blocks) = (&mut self.states.as_mut()[..groups], &mut self.blocks.as_mut()[..groups]);
        compress_behind(isa, states, &self.halves.as_ref()[..groups], tail, blocks);
    }

    /// The outer hash, of the inner one's digest.
    #[inline(always)]
    pub(super) fn finish(&mut self, isa: I) {
        self.take_states(isa);
        self.states = self.outer;
        self.take_behind(isa, &BEHIND_32);
        self.take_states(isa);
    }

    #[inline(always)]
    fn take_states(&mut self, isa: I) {
        for group in 0..self.groups {
            self.halves[group] = head_of(isa, &self.states[group]);
        }
    }
}
