//! AES-256 (FIPS 197 §5.1, §5.2, §5.3.5): a block of each of many rows, and their key schedules, a word of each at a time.
//!
//! ```text
//! w_i = w_{i−8} ⊕ SubWord(RotWord(w_{i−1})) ⊕ Rcon_{i/8}    where 8 divides i
//!       w_{i−8} ⊕ SubWord(w_{i−1})                          where 8 leaves 4
//!       w_{i−8} ⊕ w_{i−1}                                   else
//! ```
//!
//! The equivalent inverse cipher takes the same round keys from the last to the first, and `InvMixColumns` of all but those
//! two.

use super::unrolled;
use crate::isa::pieces::load_words;
use crate::isa::{Isa, Pieces};

/// The round keys of a group: vector `i` has those of rows `i, i + 4, …`.
pub(super) type RoundKeys<V> = [[V; 4]; 15];

/// The round keys of a group of rows.
#[inline(always)]
pub(super) fn expand_keys<I: Isa>(isa: I, keys: &[[u8; 32]]) -> RoundKeys<I::U32> {
    // SubWord is AES's last round, whose ShiftRows is undone beforehand; RotWord goes into the same shuffle.
    const UNDO: [[u8; 16]; 2] = {
        let mut undo = [[0; 16]; 2];
        let mut byte = 0;
        while byte < 16 {
            let (column, row) = (byte / 4, byte % 4);
            let from = 4 * ((4 + column - row) % 4);
            undo[0][byte] = (from + row) as u8;
            undo[1][byte] = (from + (row + 1) % 4) as u8;
            byte += 1;
        }
        undo
    };
    let zero = isa.splat(0);
    let mut w = load_words::<I, _, 8>(isa, keys, 0);
    let mut round_keys = [[zero; 4]; 15];
    round_keys[0] = I::U32::transpose([w[0], w[1], w[2], w[3]]);
    round_keys[1] = I::U32::transpose([w[4], w[5], w[6], w[7]]);
    for half in 2..15 {
        let (at, word) = if half % 2 == 0 {
            (0, w[7].shuffle(UNDO[1]).aes_last(isa.splat(1 << (half / 2 - 1))))
        } else {
            (4, w[3].shuffle(UNDO[0]).aes_last(zero))
        };
        w[at] = w[at] ^ word;
        for i in at + 1..at + 4 {
            w[i] = w[i] ^ w[i - 1];
        }
        round_keys[half] = I::U32::transpose([w[at], w[at + 1], w[at + 2], w[at + 3]]);
    }
    round_keys
}

/// Encrypts a block of each row of a group.
#[inline(always)]
pub(super) fn encrypt<I: Isa>(_: I, keys: &RoundKeys<I::U32>, mut blocks: [I::U32; 4]) -> [I::U32; 4] {
    for i in 0..4 {
        blocks[i] = blocks[i] ^ keys[0][i];
    }
    unrolled!(ROUND in [1 2 3 4 5 6 7 8 9 10 11 12 13] {
        for i in 0..4 {
            blocks[i] = blocks[i].aes_round(keys[ROUND][i]);
        }
    });
    for i in 0..4 {
        blocks[i] = blocks[i].aes_last(keys[14][i]);
    }
    blocks
}

/// The round keys of a group for [`decrypt`], from those for [`encrypt`], in the same order.
#[inline(always)]
pub(super) fn invert_keys<I: Isa>(isa: I, keys: &mut RoundKeys<I::U32>) {
    let zero = isa.splat(0);
    for round in 1..14 {
        for i in 0..4 {
            // SubBytes and ShiftRows, undone again, and InvMixColumns.
            keys[round][i] = keys[round][i].aes_last(zero).aes_inverse_round(zero);
        }
    }
}

/// Decrypts a block of each row of a group.
#[inline(always)]
pub(super) fn decrypt<I: Isa>(_: I, keys: &RoundKeys<I::U32>, mut blocks: [I::U32; 4]) -> [I::U32; 4] {
    for i in 0..4 {
        blocks[i] = blocks[i] ^ keys[14][i];
    }
    unrolled!(ROUND in [13 12 11 10 9 8 7 6 5 4 3 2 1] {
        for i in 0..4 {
            blocks[i] = blocks[i].aes_inverse_round(keys[ROUND][i]);
        }
    });
    for i in 0..4 {
        blocks[i] = blocks[i].aes_inverse_last(keys[0][i]);
    }
    blocks
}
