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

use super::hkdf::{Info, NO_SALT, expand};
use super::hmac::{BEHIND_32, Tile};
use super::sha256::{Known, last_block};
use super::{over_words, rows};
use crate::isa::Words;

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
    /// The label, laid out.
    pub info: &'a Info,
    /// The keys.
    pub out: &'a mut [[u8; N]],
}

/// [`Step`] and [`MessageKeys`] in one: a seed is never laid out for the second, and where nobody keeps it never leaves its
/// lane.
pub struct StepToKeys<'a, const N: usize> {
    /// Chain keys, replaced.
    pub chains: &'a mut [[u8; 32]],
    /// The seeds in between: of every row or, empty, of none.
    pub seeds: &'a mut [[u8; 32]],
    /// The label, laid out.
    pub info: &'a Info,
    /// The keys.
    pub out: &'a mut [[u8; N]],
}

const SEED: Known = Known::new(last_block(&[1], 64));
const NEXT: Known = Known::new(last_block(&[2], 64));

over_words!([] Step<'_>, seeds);

impl Step<'_> {
    #[inline(always)]
    fn run<I: Words>(self, isa: I) {
        rows([self.chains.len(), self.seeds.len()]);
        let mut tile = Tile::new(isa);
        let chains = self.chains.chunks_mut(I::AT_ONCE);
        for (chains, seeds) in chains.zip(self.seeds.chunks_mut(I::AT_ONCE)) {
            step(isa, &mut tile, chains);
            tile.store(isa, seeds, 0);
        }
        tile.wipe(isa);
    }
}

over_words!([const N: usize] MessageKeys<'_, N>, out);

impl<const N: usize> MessageKeys<'_, N> {
    #[inline(always)]
    fn run<I: Words>(self, isa: I) {
        rows([self.seeds.len(), self.out.len()]);
        let mut tile = Tile::new(isa);
        let seeds = self.seeds.chunks(I::AT_ONCE);
        for (seeds, out) in seeds.zip(self.out.chunks_mut(I::AT_ONCE)) {
            tile.load(isa, seeds);
            message_keys(isa, &mut tile, self.info, out);
        }
        tile.wipe(isa);
    }
}

over_words!([const N: usize] StepToKeys<'_, N>, out);

impl<const N: usize> StepToKeys<'_, N> {
    #[inline(always)]
    fn run<I: Words>(self, isa: I) {
        rows([self.chains.len(), self.out.len()]);
        assert!(self.seeds.is_empty() || self.seeds.len() == self.out.len(), "seeds of all rows, or of none");
        let mut tile = Tile::new(isa);
        let (chains, mut seeds) = (self.chains.chunks_mut(I::AT_ONCE), self.seeds.chunks_mut(I::AT_ONCE));
        for (chains, out) in chains.zip(self.out.chunks_mut(I::AT_ONCE)) {
            step(isa, &mut tile, chains);
            if let Some(seeds) = seeds.next() {
                tile.store(isa, seeds, 0);
            }
            message_keys(isa, &mut tile, self.info, out);
        }
        tile.wipe(isa);
    }
}

/// One step of a tile of chains; leaves the seeds in it.
#[inline(always)]
fn step<I: Words>(isa: I, tile: &mut Tile<I>, chains: &mut [[u8; 32]]) {
    tile.load(isa, chains);
    tile.set_keys(isa);
    tile.known(isa, &NEXT);
    tile.store(isa, chains, 0);
    tile.known(isa, &SEED);
}

/// The keys of a tile of seeds.
#[inline(always)]
fn message_keys<I: Words, const N: usize>(isa: I, tile: &mut Tile<I>, info: &Info, out: &mut [[u8; N]]) {
    tile.set_known_keys(isa, out.len(), &NO_SALT);
    tile.start();
    tile.take_behind(isa, &BEHIND_32);
    tile.finish(isa);
    expand(isa, tile, info, out);
}
