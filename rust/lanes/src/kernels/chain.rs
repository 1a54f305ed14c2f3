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
//! bytes: ten for 80. Three of the sixteen are of blocks that are the same for everybody.

use super::hkdf::{Expand, Info, NO_SALT};
use super::hmac::{Keyed, finish, load_tile};
use super::sha256::{Half, Known, behind, compress, last_block, splat};
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

/// [`Step`] and [`MessageKeys`] in one: the seed never leaves its lane.
pub struct StepToKeys<'a, const N: usize> {
    /// Chain keys, replaced.
    pub chains: &'a mut [[u8; 32]],
    /// The label, laid out.
    pub info: &'a Info,
    /// The keys.
    pub out: &'a mut [[u8; N]],
}

const SEED: Known = Known::new(last_block(&[1], 64));
const NEXT: Known = Known::new(last_block(&[2], 64));
/// The second half of the block of a 32-byte message behind a key block.
const INPUT: [u8; 64] = last_block(&[0; 32], 64);

over_words!([] Step<'_>, seeds);

impl Step<'_> {
    #[inline(always)]
    fn run<I: Words>(self, isa: I) {
        rows([self.chains.len(), self.seeds.len()]);
        let mut keyed = Keyed::new(isa);
        let mut halves = isa.groups([isa.splat(0); 8]);
        for (chains, seeds) in self.chains.chunks_mut(TILE).zip(self.seeds.chunks_mut(TILE)) {
            step(isa, chains, &mut keyed, &mut halves);
            for (group, seeds) in seeds.chunks_mut(I::WIDTH).enumerate() {
                isa.store(&halves[group], seeds, 0);
            }
        }
        keyed.wipe(isa);
        wipe(halves.as_mut(), [isa.splat(0); 8]);
    }
}

over_words!([const N: usize] MessageKeys<'_, N>, out);

impl<const N: usize> MessageKeys<'_, N> {
    #[inline(always)]
    fn run<I: Words>(self, isa: I) {
        rows([self.seeds.len(), self.out.len()]);
        let info = Info::new(self.info);
        let mut expand = Expand::new(isa);
        for (seeds, out) in self.seeds.chunks(TILE).zip(self.out.chunks_mut(TILE)) {
            load_tile(isa, seeds, &mut expand.halves);
            message_keys(isa, &mut expand, &info, out);
        }
        expand.wipe(isa);
    }
}

over_words!([const N: usize] StepToKeys<'_, N>, out);

impl<const N: usize> StepToKeys<'_, N> {
    #[inline(always)]
    fn run<I: Words>(self, isa: I) {
        rows([self.chains.len(), self.out.len()]);
        let mut expand = Expand::new(isa);
        for (chains, out) in self.chains.chunks_mut(TILE).zip(self.out.chunks_mut(TILE)) {
            step(isa, chains, &mut expand.keyed, &mut expand.halves);
            message_keys(isa, &mut expand, self.info, out);
        }
        expand.wipe(isa);
    }
}

/// One step of a tile of chains; the seeds are in `halves`.
#[inline(always)]
fn step<I: Words>(isa: I, chains: &mut [[u8; 32]], keyed: &mut Keyed<I>, halves: &mut I::Groups<Half<I>>) {
    load_tile(isa, chains, halves);
    keyed.set(isa, halves, chains.len());
    for (group, chains) in chains.chunks_mut(I::WIDTH).enumerate() {
        halves[group] = keyed.code_known(isa, group, &SEED);
        isa.store(&keyed.code_known(isa, group, &NEXT), chains, 0);
    }
}

/// The keys of a tile from the seeds in `halves`.
#[inline(always)]
fn message_keys<I: Words, const N: usize>(isa: I, expand: &mut Expand<I>, info: &Info, out: &mut [[u8; N]]) {
    for group in 0..out.len().div_ceil(I::WIDTH) {
        let mut inner = splat(isa, &NO_SALT[0]);
        compress(isa, &mut inner, &behind(isa, &expand.halves[group], &INPUT));
        expand.halves[group] = finish(isa, &inner, &splat(isa, &NO_SALT[1]));
    }
    expand.run(isa, info, out);
}
