//! AES-256-CMAC (NIST SP 800-38B §6; RFC 4493 §2).
//!
//! ```text
//! C_j = E(K, M_j ⊕ C_{j−1})     C_0 = 0     code = E(K, last ⊕ C_{n−1})
//! last = M_n ⊕ K1                where M_n has 16 bytes        K1 = 2 · E(K, 0)
//!        (M_n ‖ 10…0) ⊕ K2      where it has fewer, or none   K2 = 2 · K1
//! ```
//!
//! Numbers are big-endian, their products those of GF(2^128) modulo `x^128 + x^7 + x^2 + x + 1`.
//!
//! A message's blocks wait for each other, those of other rows do not. A head of whole blocks leaves the tail's blocks where
//! they lie: they are taken from there, and nothing is kept of a row but its `C`.

use super::aes256::{self, RoundKeys, expand_keys};
use super::covered::{Block, ONES, Runs, ZERO};
use super::{rows, wipe};
use crate::isa::pieces::{load_pieces, store_pieces};
use crate::isa::{Isa, Kernel, Lanes, Pieces, Portable, Step, WIDEST};
use aes::Aes256;
use cmac::{KeyInit, Mac};

/// The code of `head ‖ tail` under a key of each row's own.
pub struct Cmac<'a, const HEAD: usize> {
    /// The keys.
    pub keys: &'a [[u8; 32]],
    /// The first part of each message: whole blocks.
    pub heads: &'a [[u8; HEAD]],
    /// The second part of each message; lengths may differ.
    pub tails: &'a [&'a [u8]],
    /// The codes.
    pub out: &'a mut [[u8; 16]],
}

impl<const HEAD: usize> Kernel for Cmac<'_, HEAD> {
    type Out = ();
    const STEP: Step = Step::Cmac;

    #[inline(always)]
    fn rows(&self) -> usize {
        self.out.len()
    }

    fn by_row(self, _: Portable) {
        rows([self.keys.len(), self.heads.len(), self.tails.len(), self.out.len()]);
        for (((key, head), tail), out) in self.keys.iter().zip(self.heads).zip(self.tails).zip(self.out) {
            let mut code = cmac::Cmac::<Aes256>::new(key.into());
            code.update(head);
            code.update(tail);
            *out = code.finalize().into_bytes().into();
        }
    }

    #[inline(always)]
    fn in_lanes<I: Isa>(self, isa: I) {
        const { assert!(HEAD.is_multiple_of(16)) };
        rows([self.keys.len(), self.heads.len(), self.tails.len(), self.out.len()]);
        let messages = self.heads.chunks(I::WIDTH).zip(self.tails.chunks(I::WIDTH));
        for ((keys, (heads, tails)), out) in self.keys.chunks(I::WIDTH).zip(messages).zip(self.out.chunks_mut(I::WIDTH))
        {
            run_group(isa, keys, heads, tails, out);
        }
    }
}

/// The codes of a group.
#[inline(always)]
fn run_group<I: Isa, const HEAD: usize>(
    isa: I,
    keys: &[[u8; 32]],
    heads: &[[u8; HEAD]],
    tails: &[&[u8]],
    out: &mut [[u8; 16]],
) {
    let (mut before, mut inside): ([&[Block]; WIDEST], [&[Block]; WIDEST]) = ([&[]; WIDEST], [&[]; WIDEST]);
    let (mut last, mut whole) = ([ZERO; WIDEST], [&ZERO; WIDEST]);
    for lane in 0..WIDEST {
        // In the place of a row that is not there stands the last one once more.
        let row = lane.min(tails.len() - 1);
        let end;
        (before[lane], _) = heads[row].as_chunks();
        (inside[lane], end) = tails[row].as_chunks();
        let blocks = if tails[row].is_empty() { &mut before[lane] } else { &mut inside[lane] };
        match blocks.split_last() {
            Some((block, others)) if end.is_empty() => {
                (*blocks, last[lane], whole[lane]) = (others, *block, &ONES);
            }
            _ => {
                last[lane][..end.len()].copy_from_slice(end);
                last[lane][end.len()] = 0x80;
            }
        }
    }
    let zero = isa.splat(0);
    let mut keys = expand_keys(isa, keys);
    let mut codes = [zero; 4];
    for blocks in [before, inside] {
        let run = Runs::new(blocks);
        for index in 0..run.least {
            codes = step(isa, &keys, codes, &run.at(index));
        }
        for index in run.least..run.most {
            let (new, alive) = (step(isa, &keys, codes, &run.at(index)), run.alive(index));
            for i in 0..4 {
                codes[i] = load_pieces(isa, &alive[..I::WIDTH], i, 0).choose(new[i], codes[i]);
            }
        }
    }
    let mut subkeys = aes256::encrypt(isa, &keys, [zero; 4]);
    for i in 0..4 {
        let once = doubled(isa, subkeys[i].shuffle(BACKWARDS));
        let twice = doubled(isa, once);
        let whole = load_pieces(isa, &whole[..I::WIDTH], i, 0);
        subkeys[i] = whole.choose(once, twice).shuffle(BACKWARDS);
        codes[i] = codes[i] ^ subkeys[i];
    }
    codes = step(isa, &keys, codes, &last.each_ref());
    for i in 0..4 {
        store_pieces(isa, codes[i], out, i, 0);
    }
    wipe(&mut keys, [zero; 4]);
    wipe(&mut subkeys, zero);
    wipe(&mut last, ZERO);
}

/// A block of each row.
#[inline(always)]
fn step<I: Isa>(isa: I, keys: &RoundKeys<I::U32>, mut codes: [I::U32; 4], blocks: &[&Block; WIDEST]) -> [I::U32; 4] {
    for i in 0..4 {
        codes[i] = codes[i] ^ load_pieces(isa, &blocks[..I::WIDTH], i, 0);
    }
    aes256::encrypt(isa, keys, codes)
}

const BACKWARDS: [u8; 16] = [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];

/// Twice a number whose lowest byte is the first.
#[inline(always)]
fn doubled<I: Isa>(isa: I, number: I::U32) -> I::U32 {
    // What the highest bit of a word adds to the next word; that of the last one to the first, for x^128 = x^7 + x^2 + x + 1.
    const UP: [u8; 16] = [12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    let carries = I::U32::splat_piece(isa, &[0x87, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    // All ones where the bit is not set.
    let unset = number.shr::<31>().shuffle(UP).wrapping_add(isa.splat(u32::MAX));
    number.wrapping_add(number).xor3(unset & carries, carries)
}
