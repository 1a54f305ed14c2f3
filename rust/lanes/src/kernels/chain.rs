//! The symmetric-key ratchet (The Double Ratchet Algorithm §2.2, §7.2): HMAC-SHA256 with constant inputs, and the message
//! keys' HKDF of its output.
//!
//! ```text
//! seed = HMAC(ck, 01)     ck' = HMAC(ck, 02)
//! keys = HKDF(salt = 0, input = seed, info)
//! ```
//!
//! A step is six compressions a row: the two key blocks serve both codes, the message blocks are constant. Message keys
//! are two compressions for the extract (its key is constant), two for the key blocks of the expand and two for each 32
//! bytes: ten for 80.

use super::hkdf::{Expand, set_no_salt};
use super::hmac::{Keyed, load_tile};
use super::sha256::{behind, known, last_block};
use super::{over_words, rows, wipe};
use crate::isa::{TILE, Words};

/// Replaces each chain key by the next and gives the seed of the message between them.
pub struct Step<'a> {
    /// Chain keys, replaced.
    pub chains: &'a mut [[u8; 32]],
    /// The seeds that come out.
    pub seeds: &'a mut [[u8; 32]],
}

/// HKDF without a salt of 32-byte seeds, `N` bytes a row.
pub struct MessageKeys<'a, const N: usize> {
    /// What the keys are derived from.
    pub seeds: &'a [[u8; 32]],
    /// The label, at most [`super::hkdf::INFO_MAX`] bytes.
    pub info: &'a [u8],
    /// The keys.
    pub out: &'a mut [[u8; N]],
}

const SEED: [u8; 64] = last_block(&[1], 64);
const NEXT: [u8; 64] = last_block(&[2], 64);
/// The second half of the block of a 32-byte message behind a key block.
const INPUT: [u8; 64] = last_block(&[0; 32], 64);

over_words!([] Step<'_>, seeds);

impl Step<'_> {
    #[inline(always)]
    fn run<I: Words>(self, isa: I) {
        rows([self.chains.len(), self.seeds.len()]);
        let mut keyed = Keyed::new(isa);
        let mut halves = [[isa.splat(0); 8]; TILE];
        for (chains, seeds) in self.chains.chunks_mut(TILE).zip(self.seeds.chunks_mut(TILE)) {
            load_tile(isa, chains, &mut halves);
            keyed.set(isa, &halves, chains.len());
            for (group, seeds) in seeds.chunks_mut(I::WIDTH).enumerate() {
                isa.store(&keyed.code(isa, group, &known(isa, &SEED)), seeds, 0);
            }
            for (group, chains) in chains.chunks_mut(I::WIDTH).enumerate() {
                isa.store(&keyed.code(isa, group, &known(isa, &NEXT)), chains, 0);
            }
        }
        keyed.wipe(isa);
        wipe(&mut halves, [isa.splat(0); 8]);
    }
}

over_words!([const N: usize] MessageKeys<'_, N>, out);

impl<const N: usize> MessageKeys<'_, N> {
    #[inline(always)]
    fn run<I: Words>(self, isa: I) {
        rows([self.seeds.len(), self.out.len()]);
        let mut expand = Expand::new(isa, self.info);
        for (seeds, out) in self.seeds.chunks(TILE).zip(self.out.chunks_mut(TILE)) {
            load_tile(isa, seeds, &mut expand.halves);
            set_no_salt(isa, &mut expand.keyed);
            for group in 0..seeds.len().div_ceil(I::WIDTH) {
                let block = behind(isa, &expand.halves[group], &INPUT);
                expand.halves[group] = expand.keyed.code(isa, group, &block);
            }
            expand.run(isa, out);
        }
        expand.wipe(isa);
    }
}
