//! The instruction set itself: words and pieces are counted and nothing else, for what they compute wraps as its standard says;
//! limbs are intervals.

use crate::interval::Interval;
use crate::shapes::Shape;
use crate::tally::{Kind, one};
use interlane_lanes::isa::{Lanes, Limbs, Part, Pieces, Words};
use std::marker::PhantomData;
use std::ops::{BitAnd, BitXor};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Checking<S>(PhantomData<S>);

impl<S> Checking<S> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

/// A vector of words that may be anything; of limbs, the most that the lower and the upper half of a piece may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word<S> {
    most: [u64; 2],
    shape: PhantomData<S>,
}

impl<S: Shape> Word<S> {
    fn new(most: [u64; 2]) -> Self {
        Self { most, shape: PhantomData }
    }
    #[inline(never)]
    fn any(kind: Kind) -> Self {
        one(kind);
        Self::new([u64::MAX; 2])
    }
    fn bytes(self) -> [u8; 16] {
        (u128::from(self.most[1]) << 64 | u128::from(self.most[0])).to_le_bytes()
    }
    /// A group's rows to words, or back: a vector of each piece of the rows, four of them transposed at a time.
    fn loaded<const WORDS: usize>() -> [Self; WORDS] {
        let mut words = [Self::new([u64::MAX; 2]); WORDS];
        for quad in words.as_chunks_mut().0 {
            *quad = Self::transpose([(); 4].map(|()| Self::any(Kind::Load)));
        }
        words
    }
}

impl<S: Shape> Words for Checking<S> {
    const WIDTH: usize = S::WIDTH;
    type U32 = Word<S>;
    const GROUPS: usize = S::GROUPS;
    const PAIRS: bool = S::PAIRS;
    type Groups<T: Copy> = S::Groups<T>;

    fn groups<T: Copy>(self, item: T) -> S::Groups<T> {
        S::groups(item)
    }
    #[inline(never)]
    fn call<P: Part<Self>>(self, part: P) -> P::Out {
        part.run(self)
    }
    fn splat(self, _: u32) -> Word<S> {
        Word::new([u64::MAX; 2])
    }
    fn load(self, _: &[[u8; 32]]) -> [Word<S>; 8] {
        Word::loaded()
    }
    fn load_blocks(self, _: &[&[u8; 64]]) -> [Word<S>; 16] {
        Word::loaded()
    }
    fn store<const N: usize>(self, _: &[Word<S>; 8], rows: &mut [[u8; N]], at: usize) {
        for at in [at, at + 16] {
            if at < N {
                one(Kind::Transpose);
                for _ in 0..4 {
                    one(Kind::Store);
                }
                for row in &mut *rows {
                    row[at..N.min(at + 16)].fill(0xff);
                }
            }
        }
    }
    fn choose(self, _: &[bool], new: &[Word<S>; 8], old: &[Word<S>; 8]) -> [Word<S>; 8] {
        let mask = Word::any(Kind::Load);
        std::array::from_fn(|i| mask.choose(new[i], old[i]))
    }
    fn compresses(self) -> bool {
        false
    }
    fn compress(self, _: &mut [Word<S>; 8], _: &[Word<S>; 16]) {
        unreachable!("computed from words")
    }
    fn compress_known(self, _: &mut [Word<S>; 8], _: &[u8; 64], _: &[u32; 64]) {
        unreachable!("computed from words")
    }
}

impl<S: Shape> Limbs for Checking<S> {
    const MADD52: bool = S::MADD52;
    type U64 = Interval<S>;
    type Field = S::Field;

    fn splat_limb(self, limb: u64) -> Interval<S> {
        Interval::new(limb, limb)
    }
    fn limbs(self, _: [Word<S>; 2]) -> [Interval<S>; 2] {
        [(); 2].map(|()| {
            one(Kind::Unpack);
            Interval::any()
        })
    }
    fn pieces(self, [low, high]: [Interval<S>; 2]) -> [Word<S>; 2] {
        [(); 2].map(|()| {
            one(Kind::Unpack);
            Word::new([low.most, high.most])
        })
    }
}

impl<S: Shape> BitXor for Word<S> {
    type Output = Self;
    fn bitxor(self, _: Self) -> Self {
        Self::any(Kind::Xor)
    }
}

impl<S: Shape> BitAnd for Word<S> {
    type Output = Self;
    fn bitand(self, _: Self) -> Self {
        Self::any(Kind::And)
    }
}

macro_rules! counted {
    ($($name:ident($($arg:ident: $of:ty),*): $kind:ident;)*) => { $(
        fn $name(self, $(_: $of),*) -> Self {
            Self::any(Kind::$kind)
        }
    )* };
}

impl<S: Shape> Lanes for Word<S> {
    counted! {
        to_be(): ToBe;
        wrapping_add(other: Self): WrappingAdd;
        xor3(b: Self, c: Self): Xor3;
        choose(yes: Self, no: Self): Choose;
        majority(b: Self, c: Self): Majority;
    }
    fn shr<const BITS: i32>(self) -> Self {
        Self::any(Kind::Shift)
    }
    fn rotr<const BITS: i32>(self) -> Self {
        Self::any(Kind::Rotate)
    }
}

impl<S: Shape> Pieces<Checking<S>> for Word<S> {
    fn from_words(_: Checking<S>, _: &[u32; 16]) -> Self {
        Self::any(Kind::Load)
    }
    fn from_pieces(_: Checking<S>, _: [&[u8; 16]; 4]) -> Self {
        Self::any(Kind::Load)
    }
    fn to_pieces(self, to: [Option<&mut [u8; 16]>; 4]) {
        one(Kind::Store);
        for to in to.into_iter().take(S::WIDTH / 4).flatten() {
            *to = self.bytes();
        }
    }
    fn splat_piece(_: Checking<S>, _: &[u8; 16]) -> Self {
        Self::new([u64::MAX; 2])
    }
    fn from_bytes(_: Checking<S>, bytes: &[u8]) -> Self {
        assert!(bytes.len() >= 4 * S::WIDTH, "a vector of bytes");
        Self::any(Kind::Load)
    }
    fn to_bytes(self, bytes: &mut [u8]) {
        one(Kind::Store);
        bytes[..4 * S::WIDTH].as_chunks_mut().0.fill(self.bytes());
    }
    fn transpose(quad: [Self; 4]) -> [Self; 4] {
        one(Kind::Transpose);
        quad
    }
    fn join(places: [Self; 4]) -> [Self; 4] {
        one(Kind::Join);
        places
    }
    counted! {
        everywhere(piece: usize): Everywhere;
        shuffle(order: [u8; 16]): Shuffle;
        aes_round(key: Self): Aes;
        aes_last(key: Self): Aes;
        aes_inverse_round(key: Self): Aes;
        aes_inverse_last(key: Self): Aes;
        clmul_low(other: Self): Clmul;
        clmul_high(other: Self): Clmul;
        clmul_low_high(other: Self): Clmul;
    }
}
