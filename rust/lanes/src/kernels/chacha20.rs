//! ChaCha20 (RFC 8439 §2.3, §2.4): blocks of the key stream, each in a lane.
//!
//! ```text
//! block(key, counter, nonce) = start + rounds(start)     start = constants ‖ key ‖ counter ‖ nonce
//! text ← text ⊕ block(key, 1, nonce) ‖ block(key, 2, nonce) ‖ …
//! ```
//!
//! A lane is a block of any row, not a row: rows of unequal length leave no lane empty, and the blocks of one long row fill
//! them as well as those of many short ones. The price is that each vector gathers its lanes' keys anew, a tenth of the
//! rounds.

use crate::isa::pieces::load_words;
use crate::isa::{Isa, Lanes, Part, Pieces, WIDEST};

/// Vectors that are computed side by side, where there are blocks for them: each waits for its own results, and a vector
/// has twice the registers that it needs. Measured on Zen 5, AVX-512: 9 ns a block one at a time, 6 two at a time.
const SIDE: usize = 2;
const MOST: usize = SIDE * WIDEST;

/// Blocks that wait until there is one for each lane.
pub(super) struct Stream<'a, I> {
    isa: I,
    keys: [&'a [u8; 32]; MOST],
    /// The last 16 bytes of each start.
    ends: [[u8; 16]; MOST],
    texts: [Option<&'a mut [u8; 64]>; MOST],
    count: usize,
}

impl<'a, I: Isa> Stream<'a, I> {
    #[inline(always)]
    pub(super) fn new(isa: I) -> Self {
        Self { isa, keys: [&[0; 32]; MOST], ends: [[0; 16]; MOST], texts: [const { None }; MOST], count: 0 }
    }

    /// Adds block `counter` of a key stream to `text`, now or later.
    #[inline(always)]
    pub(super) fn apply(&mut self, key: &'a [u8; 32], counter: u32, nonce: &[u8; 12], text: &'a mut [u8; 64]) {
        let lane = self.count;
        self.keys[lane] = key;
        self.ends[lane][..4].copy_from_slice(&counter.to_le_bytes());
        self.ends[lane][4..].copy_from_slice(nonce);
        self.texts[lane] = Some(text);
        self.count += 1;
        if self.count == SIDE * I::WIDTH {
            self.finish();
        }
    }

    /// Adds to all texts what is still to be added.
    #[inline(always)]
    pub(super) fn finish(&mut self) {
        let (keys, ends) = (&self.keys[..self.count], &self.ends[..self.count]);
        if self.count > I::WIDTH {
            self.isa.call(Blocks::<SIDE> { keys, ends, texts: &mut self.texts });
        } else if self.count > 0 {
            self.isa.call(Blocks::<1> { keys, ends, texts: &mut self.texts });
        }
        self.count = 0;
    }
}

struct Blocks<'s, 'a, const SIDE: usize> {
    keys: &'s [&'a [u8; 32]],
    ends: &'s [[u8; 16]],
    texts: &'s mut [Option<&'a mut [u8; 64]>; MOST],
}

impl<I: Isa, const SIDE: usize> Part<I> for Blocks<'_, '_, SIDE> {
    type Out = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let mut start = [[isa.splat(0); 16]; SIDE];
        for side in 0..SIDE {
            for i in 0..4 {
                start[side][i] = isa.splat(CONSTANTS[i]);
            }
            let first = side * I::WIDTH;
            let end = self.keys.len().min(first + I::WIDTH);
            start[side][4..12].copy_from_slice(&load_words::<I, _, 8>(isa, &self.keys[first..end], 0));
            start[side][12..].copy_from_slice(&load_words::<I, _, 4>(isa, &self.ends[first..end], 0));
        }
        let mut s = start;
        for _ in 0..10 {
            quarter_rounds::<I, SIDE>(&mut s, 0, 4, 8, 12);
            quarter_rounds::<I, SIDE>(&mut s, 1, 5, 9, 13);
            quarter_rounds::<I, SIDE>(&mut s, 2, 6, 10, 14);
            quarter_rounds::<I, SIDE>(&mut s, 3, 7, 11, 15);
            quarter_rounds::<I, SIDE>(&mut s, 0, 5, 10, 15);
            quarter_rounds::<I, SIDE>(&mut s, 1, 6, 11, 12);
            quarter_rounds::<I, SIDE>(&mut s, 2, 7, 8, 13);
            quarter_rounds::<I, SIDE>(&mut s, 3, 4, 9, 14);
        }
        for side in 0..SIDE {
            let mut s = s[side];
            for i in 0..16 {
                s[i] = s[i].wrapping_add(start[side][i]);
            }
            let a = I::U32::transpose([s[0], s[1], s[2], s[3]]);
            let b = I::U32::transpose([s[4], s[5], s[6], s[7]]);
            let c = I::U32::transpose([s[8], s[9], s[10], s[11]]);
            let d = I::U32::transpose([s[12], s[13], s[14], s[15]]);
            for i in 0..4 {
                let blocks = I::U32::join([a[i], b[i], c[i], d[i]]);
                let each = 16 / I::WIDTH;
                for j in 0..I::WIDTH / 4 {
                    if let Some(text) = self.texts[side * I::WIDTH + i + 4 * j].take() {
                        for part in 0..each {
                            let bytes = &mut text[4 * I::WIDTH * part..];
                            (I::U32::from_bytes(isa, bytes) ^ blocks[each * j + part]).to_bytes(bytes);
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn quarter_rounds<I: Isa, const SIDE: usize>(s: &mut [[I::U32; 16]; SIDE], a: usize, b: usize, c: usize, d: usize) {
    for side in 0..SIDE {
        quarter_round::<I>(&mut s[side], a, b, c, d);
    }
}

#[inline(always)]
fn quarter_round<I: Isa>(s: &mut [I::U32; 16], a: usize, b: usize, c: usize, d: usize) {
    s[a] = s[a].wrapping_add(s[b]);
    s[d] = (s[d] ^ s[a]).rotr::<16>();
    s[c] = s[c].wrapping_add(s[d]);
    s[b] = (s[b] ^ s[c]).rotr::<20>();
    s[a] = s[a].wrapping_add(s[b]);
    s[d] = (s[d] ^ s[a]).rotr::<24>();
    s[c] = s[c].wrapping_add(s[d]);
    s[b] = (s[b] ^ s[c]).rotr::<25>();
}

/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
