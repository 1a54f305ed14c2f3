//! What every test runs on: the backends of this machine, the crates that a lesser CPU gets, and an instruction set of four
//! lanes that no CPU has, to show that no kernel depends on a width.

use interlane_lanes::isa::field25519::radix52::Fe52;
use interlane_lanes::isa::{Backend, Kernel, Lanes, Limb, Limbs, Part, Pieces, Portable, Words};
use std::ops::{Add, BitAnd, BitXor, Sub};

/// Sizes around a tile and around every width.
pub(crate) const SIZES: [usize; 7] = [0, 1, 15, 16, 17, 31, 33];

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
    // On a CPU with the SHA instructions, what CPUs without them take.
    #[cfg(target_arch = "x86_64")]
    backends.extend(interlane_lanes::isa::Avx2::detect().map(|isa| Backend::Avx2(isa.without_sha())));
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
    fn halves(self) -> [u64; 2] {
        let all = u128::from_le_bytes(self.bytes());
        [all as u64, (all >> 64) as u64]
    }
    fn clmul(a: u64, b: u64) -> Self {
        let product = (0..64).filter(|bit| b >> bit & 1 == 1).fold(0, |sum, bit| sum ^ u128::from(a) << bit);
        Self::of_bytes(product.to_le_bytes())
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
    fn from_bytes(_: Wide, bytes: &[u8]) -> Self {
        Self::of_bytes(*bytes.first_chunk().expect("16 bytes"))
    }
    fn to_bytes(self, bytes: &mut [u8]) {
        *bytes.first_chunk_mut().expect("16 bytes") = self.bytes();
    }
    fn everywhere(self, piece: usize) -> Self {
        assert_eq!(piece, 0, "a piece a vector");
        self
    }
    fn join(places: [Self; 4]) -> [Self; 4] {
        places
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
    fn clmul_low(self, other: Self) -> Self {
        Self::clmul(self.halves()[0], other.halves()[0])
    }
    fn clmul_high(self, other: Self) -> Self {
        Self::clmul(self.halves()[1], other.halves()[1])
    }
    fn clmul_low_high(self, other: Self) -> Self {
        Self::clmul(self.halves()[0], other.halves()[1])
    }
}

impl Wide {
    fn lanes<const BYTES: usize, const WORDS: usize>(rows: &[&[u8; BYTES]]) -> [Four; WORDS] {
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
    const GROUPS: usize = 2;
    type Groups<T: Copy> = [T; 2];

    fn groups<T: Copy>(self, item: T) -> [T; 2] {
        [item; 2]
    }
    #[inline(never)]
    fn call<P: Part<Self>>(self, part: P) -> P::Out {
        part.run(self)
    }
    fn splat(self, word: u32) -> Four {
        Four([word; 4])
    }
    fn load(self, rows: &[[u8; 32]]) -> [Four; 8] {
        Self::lanes(&rows.iter().collect::<Vec<_>>())
    }
    fn load_blocks(self, rows: &[&[u8; 64]]) -> [Four; 16] {
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
    fn compresses(self) -> bool {
        false
    }
    fn compress(self, _: &mut [Four; 8], _: &[Four; 16]) {
        unreachable!("computed from words")
    }
    fn compress_known(self, _: &mut [Four; 8], _: &[u8; 64], _: &[u32; 64]) {
        unreachable!("computed from words")
    }
}

/// Two limbs, of 52 bits by 52 as IFMA multiplies them. What `bounds` proves for all inputs is looked at here for some:
/// nothing may overflow.
#[derive(Clone, Copy)]
pub(crate) struct Two([u64; 2]);

impl Limbs for Wide {
    const MADD52: bool = true;
    type U64 = Two;
    type Field = Fe52<Two>;

    fn splat_limb(self, limb: u64) -> Two {
        Two([limb; 2])
    }
    fn limbs(self, [a, b]: [Four; 2]) -> [Two; 2] {
        std::array::from_fn(|half| Two([a.halves()[half], b.halves()[half]]))
    }
    fn pieces(self, [low, high]: [Two; 2]) -> [Four; 2] {
        std::array::from_fn(|lane| {
            Four::of_bytes((u128::from(high.0[lane]) << 64 | u128::from(low.0[lane])).to_le_bytes())
        })
    }
}

impl Add for Two {
    type Output = Self;
    #[inline(never)]
    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane].checked_add(other.0[lane]).expect("no overflow")))
    }
}

impl Sub for Two {
    type Output = Self;
    #[inline(never)]
    fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane].checked_sub(other.0[lane]).expect("not below zero")))
    }
}

impl BitAnd for Two {
    type Output = Self;
    #[inline(never)]
    fn bitand(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] & other.0[lane]))
    }
}

impl BitXor for Two {
    type Output = Self;
    #[inline(never)]
    fn bitxor(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] ^ other.0[lane]))
    }
}

impl Two {
    fn product52(self, other: Self, half: impl Fn(u128) -> u128) -> Self {
        Self(std::array::from_fn(|lane| {
            assert!(self.0[lane] >> 52 == 0 && other.0[lane] >> 52 == 0, "52 bits");
            half(u128::from(self.0[lane]) * u128::from(other.0[lane])) as u64
        }))
    }
}

impl Limb for Two {
    fn fill(self, limb: u64) -> Self {
        Self([limb; 2])
    }
    #[inline(never)]
    fn shl(self, bits: u32) -> Self {
        Self(self.0.map(|limb| {
            assert!(limb.leading_zeros() >= bits, "no bit is lost");
            limb << bits
        }))
    }
    #[inline(never)]
    fn shr(self, bits: u32) -> Self {
        Self(self.0.map(|limb| limb >> bits))
    }
    #[inline(never)]
    fn choose(self, yes: Self, no: Self) -> Self {
        Self(std::array::from_fn(|lane| match self.0[lane] {
            0 => no.0[lane],
            1 => yes.0[lane],
            bit => panic!("{bit:x} is no bit"),
        }))
    }
    #[inline(never)]
    fn mul32(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| {
            assert!(self.0[lane] >> 32 == 0 && other.0[lane] >> 32 == 0, "32 bits");
            self.0[lane] * other.0[lane]
        }))
    }
    #[inline(never)]
    fn madd52_low(self, a: Self, b: Self) -> Self {
        self + a.product52(b, |product| product & ((1 << 52) - 1))
    }
    #[inline(never)]
    fn madd52_high(self, a: Self, b: Self) -> Self {
        self + a.product52(b, |product| product >> 52)
    }
    const ABOVE51: [u64; 2] = [0; 2];
    fn madd51_low(self, _: Self, _: Self) -> Self {
        unreachable!("52 bits by 52")
    }
    fn madd51_high(self, _: Self, _: Self) -> Self {
        unreachable!("52 bits by 52")
    }
}

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
