//! Words of rows.

use super::Avx2;
use crate::isa::{Part, Portable, Words};

impl Words for Avx2 {
    const WIDTH: usize = 1;
    type U32 = u32;

    #[inline(always)]
    fn call<P: Part<Self>>(self, part: P) -> P::Out {
        part.run(self)
    }
    #[inline(always)]
    fn splat(self, word: u32) -> u32 {
        word
    }
    #[inline(always)]
    fn load(self, rows: &[[u8; 32]]) -> [u32; 8] {
        Portable::detect().load(rows)
    }
    #[inline(always)]
    fn load_blocks(self, rows: &[[u8; 64]]) -> [u32; 16] {
        Portable::detect().load_blocks(rows)
    }
    #[inline(always)]
    fn store<const N: usize>(self, words: &[u32; 8], rows: &mut [[u8; N]], at: usize) {
        Portable::detect().store(words, rows, at);
    }
    #[inline(always)]
    fn choose(self, alive: &[bool], new: &[u32; 8], old: &[u32; 8]) -> [u32; 8] {
        Portable::detect().choose(alive, new, old)
    }
    #[inline(always)]
    fn compress(self, state: &mut [u32; 8], block: &[u32; 16]) {
        Portable::detect().compress(state, block);
    }
}
