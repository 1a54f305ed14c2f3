//! What every test runs on: the backends of this machine, the crates that a lesser CPU gets, and an instruction set of four
//! lanes that no CPU has, to show that no kernel depends on a width.
#![allow(dead_code, reason = "each test binary uses a part")]

use interlane_lanes::isa::{Backend, Kernel, Lanes, Limbs, Part, Pieces, Portable, Words};
use std::ops::{BitAnd, BitXor};

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

/// Four lanes, one after the other: plain Rust, a piece a vector.
#[derive(Clone, Copy)]
pub(crate) struct Wide;

#[derive(Clone, Copy)]
pub(crate) struct Four([u32; 4]);

impl Four {
    fn each(self, of: impl Fn(u32) -> u32) -> Self {
        Self(self.0.map(of))
    }
    fn both(self, other: Self, of: impl Fn(u32, u32) -> u32) -> Self {
        Self(std::array::from_fn(|lane| of(self.0[lane], other.0[lane])))
    }
    fn bytes(self) -> [u8; 16] {
        std::array::from_fn(|byte| self.0[byte / 4].to_ne_bytes()[byte % 4])
    }
    fn of_bytes(bytes: [u8; 16]) -> Self {
        Self(std::array::from_fn(|word| u32::from_ne_bytes(bytes[4 * word..][..4].try_into().expect("4 bytes"))))
    }
}

impl BitXor for Four {
    type Output = Self;
    fn bitxor(self, other: Self) -> Self {
        self.both(other, |a, b| a ^ b)
    }
}

impl BitAnd for Four {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        self.both(other, |a, b| a & b)
    }
}

impl Lanes for Four {
    fn to_be(self) -> Self {
        self.each(u32::to_be)
    }
    fn wrapping_add(self, other: Self) -> Self {
        self.both(other, u32::wrapping_add)
    }
    fn shr<const BITS: i32>(self) -> Self {
        self.each(|word| word >> BITS)
    }
    fn rotr<const BITS: i32>(self) -> Self {
        self.each(|word| word.rotate_right(BITS.cast_unsigned()))
    }
    fn xor3(self, b: Self, c: Self) -> Self {
        self ^ b ^ c
    }
    fn choose(self, yes: Self, no: Self) -> Self {
        (self & yes) ^ (self.each(|word| !word) & no)
    }
    fn majority(self, b: Self, c: Self) -> Self {
        (self & b) ^ (self & c) ^ (b & c)
    }
}

impl Pieces<Wide> for Four {
    fn from_words(_: Wide, words: &[u32; 16]) -> Self {
        Self(*words.first_chunk().expect("4 of 16"))
    }
    fn from_pieces(_: Wide, pieces: [&[u8; 16]; 4]) -> Self {
        Self::of_bytes(*pieces[0])
    }
    fn to_pieces(self, [to, ..]: [Option<&mut [u8; 16]>; 4]) {
        if let Some(to) = to {
            *to = self.bytes();
        }
    }
    fn splat_piece(_: Wide, piece: &[u8; 16]) -> Self {
        Self::of_bytes(*piece)
    }
    fn transpose(quad: [Self; 4]) -> [Self; 4] {
        std::array::from_fn(|i| Self(std::array::from_fn(|j| quad[j].0[i])))
    }
    fn shuffle(self, order: [u8; 16]) -> Self {
        let bytes = self.bytes();
        Self::of_bytes(order.map(|from| bytes[usize::from(from)]))
    }
    fn aes_round(self, key: Self) -> Self {
        let mut block = self.bytes().into();
        aes::hazmat::cipher_round(&mut block, &key.bytes().into());
        Self::of_bytes(block.into())
    }
    fn aes_last(self, key: Self) -> Self {
        let mut block = self.bytes().into();
        aes::hazmat::cipher_round(&mut block, &[0; 16].into());
        aes::hazmat::inv_mix_columns(&mut block);
        Self::of_bytes(block.into()) ^ key
    }
    fn aes_inverse_round(self, key: Self) -> Self {
        let mut block = self.bytes().into();
        aes::hazmat::equiv_inv_cipher_round(&mut block, &key.bytes().into());
        Self::of_bytes(block.into())
    }
    fn aes_inverse_last(self, key: Self) -> Self {
        let mut block = self.bytes().into();
        aes::hazmat::equiv_inv_cipher_round(&mut block, &[0; 16].into());
        aes::hazmat::mix_columns(&mut block);
        Self::of_bytes(block.into()) ^ key
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
    const COMPRESSES: bool = false;
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
    fn compress(self, _: &mut [Four; 8], _: &[Four; 16]) {
        unreachable!("computed from words")
    }
}

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
