//! Poly1305 (RFC 8439 §2.5) of many rows: a row a lane, a block of each row at a time.
//!
//! With the block read as a number `m`, over the integers mod `p = 2^130 − 5`:
//!
//! ```text
//! h ← (h + m) r     tag = (h + s) mod 2^128
//! ```
//!
//! A number is a few limbs, of as many bits as the instruction set's multiplier suits: three of 44, 44 and 42 bits where it
//! takes 52, five of 26 bits where it takes 32. Numbers are carried so far only that the next multiplication may read them;
//! `tests/checks/bounds.rs` proves for every input that this is far enough.

use crate::isa::{Isa, Limb, Part, Pieces, WIDEST};
use crate::kernels::covered::{Block, Covered, Runs, ZERO};
use core::marker::PhantomData;

/// The tag of each row of a tile. `keys` begin with `r ‖ s`.
#[inline(always)]
pub(in crate::kernels) fn tags<I: Isa>(isa: I, keys: &[[u8; 64]], covered: &[Covered<'_>]) -> [Block; WIDEST] {
    let mut tags = [[0; 16]; WIDEST];
    if I::MADD52 {
        // Two vectors' chains of multiplications side by side.
        isa.call(Tags::<[I::U64; 3], 2> { keys, covered, tags: &mut tags, number: PhantomData });
    } else {
        isa.call(Tags::<[I::U64; 5], 1> { keys, covered, tags: &mut tags, number: PhantomData });
    }
    tags
}

/// Takes `SIDE` vectors of rows at a time.
struct Tags<'a, N, const SIDE: usize> {
    keys: &'a [[u8; 64]],
    covered: &'a [Covered<'a>],
    tags: &'a mut [Block; WIDEST],
    number: PhantomData<N>,
}

impl<I: Isa, N: Number<I::U64>, const SIDE: usize> Part<I> for Tags<'_, N, SIDE> {
    type Out = ();

    #[inline(always)]
    fn run(self, isa: I) {
        const ONE: u64 = 1 << 40;
        let width = I::WIDTH / 2;
        for first in (0..self.keys.len()).step_by(SIDE * width) {
            let mut halves = [[&self.keys[0][..16]; WIDEST]; 2];
            for lane in 0..SIDE * width {
                let key = &self.keys[(first + lane).min(self.keys.len() - 1)];
                (halves[0][lane], halves[1][lane]) = (&key[..16], &key[16..32]);
            }
            let zero = isa.splat_limb(0);
            let mut r = [N::read([zero; 2], zero).power(); SIDE];
            let mut h = [N::read([zero; 2], zero); SIDE];
            for side in 0..SIDE {
                let [low, high] = load(isa, &as_blocks(&halves[0]), side);
                // RFC 8439 §2.5.1.
                let low = low & isa.splat_limb(0x0fff_fffc_0fff_ffff);
                let high = high & isa.splat_limb(0x0fff_fffc_0fff_fffc);
                r[side] = N::read([low, high], zero).power();
            }
            let one = isa.splat_limb(ONE);
            for run in 0..Covered::RUNS {
                let run = Runs::<WIDEST>::of(self.covered, first, run);
                for index in 0..run.least {
                    let blocks = run.at(index);
                    for side in 0..SIDE {
                        h[side] = h[side].plus(N::read(load(isa, &blocks, side), one)).times(&r[side]);
                    }
                }
                for index in run.least..run.most {
                    let (blocks, alive) = (run.at(index), run.alive(index));
                    for side in 0..SIDE {
                        let next = h[side].plus(N::read(load(isa, &blocks, side), one)).times(&r[side]);
                        let [alive, _] = load(isa, &alive, side);
                        h[side] = next.choose(alive.low(1), h[side]);
                    }
                }
            }
            for side in 0..SIDE {
                let s = N::read(load(isa, &as_blocks(&halves[1]), side), zero);
                store(isa, h[side].reduced().plus(s).halves(), self.tags, first + side * width);
            }
        }
    }
}

#[inline(always)]
fn as_blocks<'a>(halves: &[&'a [u8]; WIDEST]) -> [&'a Block; WIDEST] {
    let mut blocks = [&ZERO; WIDEST];
    for lane in 0..WIDEST {
        blocks[lane] = halves[lane].first_chunk().expect("16 bytes");
    }
    blocks
}

/// A block of each row of half a group, the `side`-th, in its halves.
#[inline(always)]
fn load<I: Isa>(isa: I, blocks: &[&Block; WIDEST], side: usize) -> [I::U64; 2] {
    let quarter = I::WIDTH / 4;
    let mut pieces = [[blocks[0]; 4]; 2];
    for half in 0..2 {
        for j in 0..quarter {
            pieces[half][j] = blocks[(2 * side + half) * quarter + j];
        }
    }
    isa.limbs([I::U32::from_pieces(isa, pieces[0]), I::U32::from_pieces(isa, pieces[1])])
}

/// The other way, from row `first` on.
#[inline(always)]
fn store<I: Isa>(isa: I, halves: [I::U64; 2], tags: &mut [Block; WIDEST], first: usize) {
    let quarter = I::WIDTH / 4;
    for (pieces, tags) in isa.pieces(halves).into_iter().zip(tags[first..].chunks_mut(quarter)) {
        let mut to = [const { None }; 4];
        for (to, tag) in to.iter_mut().zip(tags) {
            *to = Some(tag);
        }
        pieces.to_pieces(to);
    }
}

/// A number mod `p` of each row, in limbs `V`.
trait Number<V>: Copy {
    /// A factor, and what of it is multiplied beforehand.
    type Power: Copy;

    /// Of 16 bytes, and 2^88 times `top`.
    fn read(halves: [V; 2], top: V) -> Self;
    fn power(self) -> Self::Power;
    fn plus(self, other: Self) -> Self;
    /// The product, carried.
    fn times(self, power: &Self::Power) -> Self;
    /// Row by row: itself where `alive`, else `old`.
    fn choose(self, alive: V, old: Self) -> Self;
    /// The same number mod `p`, below `p`.
    fn reduced(self) -> Self;
    /// The number mod 2^128, in 64-bit halves.
    fn halves(self) -> [V; 2];
}

/// 44, 44 and 42 bits.
impl<V: Limb> Number<V> for [V; 3] {
    /// The upper limbs times 20: 5 for the fold, 4 because 3 · 44 is 132.
    type Power = ([V; 3], [V; 2]);

    #[inline(always)]
    fn read([low, high]: [V; 2], top: V) -> Self {
        [low.low(44), low.shr(44) + high.low(24).shl(20), high.shr(24) + top]
    }
    #[inline(always)]
    fn power(self) -> Self::Power {
        let [_, b, c] = self;
        (self, [b.shl(4) + b.shl(2), c.shl(4) + c.shl(2)])
    }
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        [self[0] + other[0], self[1] + other[1], self[2] + other[2]]
    }
    #[inline(always)]
    fn times(self, (r, folded): &Self::Power) -> Self {
        let zero = r[0].fill(0);
        let (mut low, mut high) = ([zero; 3], [zero; 3]);
        for j in 0..3 {
            for i in 0..3 {
                let factor = if j <= i { r[i - j] } else { folded[2 + i - j] };
                low[i] = low[i].madd52_low(self[j], factor);
                high[i] = high[i].madd52_high(self[j], factor);
            }
        }
        // The high part of limb i counts 2^52, which is 2^8 in limb i + 1, and 2^10 · 5 in limb 0 from the last.
        let b = low[1] + low[0].shr(44) + high[0].shl(8);
        let c = low[2] + b.shr(44) + high[1].shl(8);
        let over = c.shr(42) + high[2].shl(10);
        [low[0].low(44) + over + over.shl(2), b.low(44), c.low(42)]
    }
    #[inline(always)]
    fn choose(self, alive: V, old: Self) -> Self {
        [alive.choose(self[0], old[0]), alive.choose(self[1], old[1]), alive.choose(self[2], old[2])]
    }
    #[inline(always)]
    fn reduced(self) -> Self {
        let [mut a, mut b, mut c] = self;
        for _ in 0..2 {
            (a, b) = (a.low(44), b + a.shr(44));
            (b, c) = (b.low(44), c + b.shr(44));
            let over = c.shr(42);
            (a, c) = (a + over + over.shl(2), c.low(42));
        }
        (a, b) = (a.low(44), b + a.shr(44));
        // Below 2^130 now, and p or more just if adding 5 carries out of bit 130: then 5 less than 2^130 goes away.
        let five = a.fill(5);
        let over = (c + (b + (a + five).shr(44)).shr(44)).shr(42);
        a = a + over + over.shl(2);
        (a, b) = (a.low(44), b + a.shr(44));
        [a, b.low(44), (c + b.shr(44)).low(42)]
    }
    #[inline(always)]
    fn halves(self) -> [V; 2] {
        let [a, b, c] = self;
        let b = b + a.shr(44);
        let c = c + b.shr(44);
        [a.low(44) + b.low(20).shl(44), b.low(44).shr(20) + c.low(40).shl(24)]
    }
}

/// 26 bits each.
impl<V: Limb> Number<V> for [V; 5] {
    /// The upper limbs times 5.
    type Power = ([V; 5], [V; 4]);

    #[inline(always)]
    fn read([low, high]: [V; 2], top: V) -> Self {
        [
            low.low(26),
            low.shr(26).low(26),
            low.shr(52) + high.low(14).shl(12),
            high.shr(14).low(26),
            // 2^88 is 2^(104 − 16).
            high.shr(40) + top.shr(16),
        ]
    }
    #[inline(always)]
    fn power(self) -> Self::Power {
        let mut folded = [self[0]; 4];
        for i in 0..4 {
            folded[i] = self[i + 1] + self[i + 1].shl(2);
        }
        (self, folded)
    }
    #[inline(always)]
    fn plus(mut self, other: Self) -> Self {
        for i in 0..5 {
            self[i] = self[i] + other[i];
        }
        self
    }
    #[inline(always)]
    fn times(self, (r, folded): &Self::Power) -> Self {
        let mut sum = [self[0]; 5];
        for i in 0..5 {
            sum[i] = self[0].mul32(r[i]);
        }
        for j in 1..5 {
            for i in 0..5 {
                let factor = if j <= i { r[i - j] } else { folded[4 + i - j] };
                sum[i] = sum[i] + self[j].mul32(factor);
            }
        }
        // Two chains of carries side by side, each of three limbs.
        let [a, b, c, d, e] = sum;
        let (b, e) = (b + a.shr(26), e + d.shr(26));
        let (a, d) = (a.low(26), d.low(26));
        let over = e.shr(26);
        let (c, a) = (c + b.shr(26), a + over + over.shl(2));
        let (b, e) = (b.low(26), e.low(26));
        let (d, b) = (d + c.shr(26), b + a.shr(26));
        let (c, a) = (c.low(26), a.low(26));
        [a, b, c, d.low(26), e + d.shr(26)]
    }
    #[inline(always)]
    fn choose(self, alive: V, old: Self) -> Self {
        let mut out = old;
        for i in 0..5 {
            out[i] = alive.choose(self[i], old[i]);
        }
        out
    }
    #[inline(always)]
    fn reduced(mut self) -> Self {
        for _ in 0..2 {
            self = up(self);
            let over = self[4].shr(26);
            self[4] = self[4].low(26);
            self[0] = self[0] + over + over.shl(2);
        }
        self = up(self);
        // Below 2^130 now, and p or more just if adding 5 carries out of bit 130: then 5 less than 2^130 goes away.
        let mut plus = self;
        plus[0] = plus[0] + plus[0].fill(5);
        let over = up(plus)[4].shr(26);
        self[0] = self[0] + over + over.shl(2);
        self = up(self);
        self[4] = self[4].low(26);
        self
    }
    #[inline(always)]
    fn halves(self) -> [V; 2] {
        let [a, b, c, d, e] = up(self);
        [a + b.shl(26) + c.low(12).shl(52), c.shr(12) + d.shl(14) + e.low(24).shl(40)]
    }
}

/// Carries from each limb to the next, and leaves what is above 2^130 in the last.
#[inline(always)]
fn up<V: Limb>(mut limbs: [V; 5]) -> [V; 5] {
    for i in 0..4 {
        limbs[i + 1] = limbs[i + 1] + limbs[i].shr(26);
        limbs[i] = limbs[i].low(26);
    }
    limbs
}
