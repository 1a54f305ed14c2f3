//! What every test runs on: the backends of this machine, the crates that a lesser CPU gets, and an instruction set of four
//! lanes that no CPU has, to show that no kernel depends on a width.
#![allow(dead_code, reason = "each test binary uses a part")]

use interlane_lanes::isa::{Backend, Kernel, Lanes, Limbs, Part, Pieces, Portable, Words};
use std::ops::BitXor;

/// Sizes around a tile and around every width.
pub(crate) const SIZES: [usize; 6] = [0, 1, 15, 16, 17, 31];

/// Something that runs kernels.
pub(crate) trait Runs {
    fn run<K: Kernel>(&self, kernel: K) -> K::Out;
}

impl Runs for Backend {
    fn run<K: Kernel>(&self, kernel: K) -> K::Out {
        self.run_in_lanes(kernel)
    }
}

impl Runs for Wide {
    fn run<K: Kernel>(&self, kernel: K) -> K::Out {
        kernel.in_lanes(*self)
    }
}

/// Runs a generic test function on everything.
#[macro_export]
macro_rules! on_everything {
    ($($test:ident),* $(,)?) => { $(
        #[test]
        fn $test() {
            for backend in $crate::backends::backends() {
                super::$test(&backend);
            }
            super::$test(&$crate::backends::Wide);
        }
    )* };
}

pub(crate) fn backends() -> Vec<Backend> {
    let mut backends = Backend::available();
    backends.push(Backend::Portable(Portable::without_graviola()));
    backends
}

/// Four lanes, one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Wide;

#[derive(Clone, Copy)]
pub(crate) struct Four([u32; 4]);

impl BitXor for Four {
    type Output = Self;
    fn bitxor(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] ^ other.0[lane]))
    }
}

impl Lanes for Four {
    fn to_be(self) -> Self {
        Self(self.0.map(u32::to_be))
    }
}

impl Wide {
    fn lanes<const BYTES: usize, const WORDS: usize>(rows: &[[u8; BYTES]]) -> [Four; WORDS] {
        assert!((1..=4).contains(&rows.len()), "a group");
        // A lane without a row holds garbage, which must not be seen anywhere.
        let mut words = [Four([0xdead_beef; 4]); WORDS];
        for (lane, row) in rows.iter().enumerate() {
            for (word, bytes) in words.iter_mut().zip(row.as_chunks().0) {
                word.0[lane] = u32::from_ne_bytes(*bytes);
            }
        }
        words
    }
}

impl Words for Wide {
    const WIDTH: usize = 4;
    type U32 = Four;

    fn call<P: Part<Self>>(self, part: P) -> P::Out {
        part.run(self)
    }
    fn splat(self, word: u32) -> Four {
        Four([word; 4])
    }
    fn load(self, rows: &[[u8; 32]]) -> [Four; 8] {
        Self::lanes(rows)
    }
    fn load_blocks(self, rows: &[[u8; 64]]) -> [Four; 16] {
        Self::lanes(rows)
    }
    fn store<const N: usize>(self, words: &[Four; 8], rows: &mut [[u8; N]], at: usize) {
        assert!((1..=4).contains(&rows.len()), "a group");
        for (lane, row) in rows.iter_mut().enumerate() {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.0[lane].to_ne_bytes()).collect();
            let len = (N - at).min(32);
            row[at..at + len].copy_from_slice(&bytes[..len]);
        }
    }
    fn choose(self, alive: &[bool], new: &[Four; 8], old: &[Four; 8]) -> [Four; 8] {
        let mut out = *old;
        for (lane, _) in alive.iter().enumerate().filter(|(_, alive)| **alive) {
            for word in 0..8 {
                out[word].0[lane] = new[word].0[lane];
            }
        }
        out
    }
    fn compress(self, state: &mut [Four; 8], block: &[Four; 16]) {
        for lane in 0..4 {
            let mut bytes = [0; 64];
            for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(block) {
                *bytes = word.0[lane].to_ne_bytes();
            }
            let mut one = state.map(|word| word.0[lane]);
            sha2::block_api::compress256(&mut one, &[bytes]);
            for (word, one) in state.iter_mut().zip(one) {
                word.0[lane] = one;
            }
        }
    }
}

impl Pieces for Wide {}

impl Limbs for Wide {}

/// Test data, the same in every run (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.word() % end as u64) as usize
    }
    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.word() as u8)
    }
    pub(crate) fn arrays<const N: usize>(&mut self, n: usize) -> Vec<[u8; N]> {
        (0..n).map(|_| self.array()).collect()
    }
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.word() as u8).collect()
    }
    /// Rows of unequal lengths below `end`.
    pub(crate) fn rows(&mut self, n: usize, end: usize) -> Vec<Vec<u8>> {
        (0..n)
            .map(|_| {
                let len = self.below(end);
                self.bytes(len)
            })
            .collect()
    }
}

pub(crate) fn slices(rows: &[Vec<u8>]) -> Vec<&[u8]> {
    rows.iter().map(Vec::as_slice).collect()
}

pub(crate) fn slices_mut(rows: &mut [Vec<u8>]) -> Vec<&mut [u8]> {
    rows.iter_mut().map(Vec::as_mut_slice).collect()
}

/// Output rows with a canary before and behind them.
pub(crate) struct Canaries<T>(Vec<T>, T);

impl<T: Copy + PartialEq + std::fmt::Debug> Canaries<T> {
    pub(crate) fn new(n: usize, canary: T) -> Self {
        Self(vec![canary; n + 2], canary)
    }
    pub(crate) fn of(rows: &[T], canary: T) -> Self {
        let mut all = Self::new(rows.len(), canary);
        all.rows().copy_from_slice(rows);
        all
    }
    pub(crate) fn rows(&mut self) -> &mut [T] {
        let last = self.0.len() - 1;
        &mut self.0[1..last]
    }
    pub(crate) fn check(self) -> Vec<T> {
        let Self(mut all, canary) = self;
        assert_eq!((all.pop(), all.remove(0)), (Some(canary), canary), "a write outside of the rows");
        all
    }
}

/// Byte rows inside a larger buffer each, whose other bytes must not change.
pub(crate) struct Fenced(Vec<Vec<u8>>);

const FENCE: [u8; 32] = [0xc7; 32];

impl Fenced {
    pub(crate) fn new(rows: &[Vec<u8>]) -> Self {
        Self(rows.iter().map(|row| [&FENCE, &row[..], &FENCE].concat()).collect())
    }
    pub(crate) fn slices(&mut self) -> Vec<&mut [u8]> {
        self.0
            .iter_mut()
            .map(|row| {
                let end = row.len() - FENCE.len();
                &mut row[FENCE.len()..end]
            })
            .collect()
    }
    pub(crate) fn check(self) -> Vec<Vec<u8>> {
        self.0
            .into_iter()
            .map(|row| {
                let end = row.len() - FENCE.len();
                assert_eq!(row[..FENCE.len()], FENCE);
                assert_eq!(row[end..], FENCE);
                row[FENCE.len()..end].to_vec()
            })
            .collect()
    }
}
