//! A limb as the interval of the values it may have, from `least` to `most`.
//!
//! Each operation gives the interval of all that it can give, and panics where it could lose something: a sum or a shift
//! past 64 bits, a difference below zero, a factor of more bits than a multiplication reads, a choice by what is no bit.
//! Where limbs depend on each other the interval is wider than what is possible, so a proof may fail that should not; none
//! passes that should not.

use crate::shapes::Shape;
use crate::tally::{Kind, one};
use interlane_lanes::isa::{Eight, Limb};
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::ops::{Add, BitAnd, BitXor, Sub};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Interval<S> {
    pub(crate) least: u64,
    pub(crate) most: u64,
    shape: PhantomData<S>,
}

/// Something left out of a run, to see that it is found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) what: What,
    /// Which of them, from zero.
    pub(crate) number: u64,
    /// And each that comes so many later.
    pub(crate) every: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What {
    /// A mask (`low`): a limb keeps what is carried away from it.
    Mask,
    /// Half of a product by doubles, for which the sum it belongs to began below zero.
    Split,
}

thread_local! {
    static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
    static TURNS: Cell<u64> = const { Cell::new(0) };
    static FACTORS: RefCell<Option<Vec<[u64; 4]>>> = const { RefCell::new(None) };
}

/// Runs with the fault, in this thread; how often it was met.
pub(crate) fn with(fault: Fault, run: impl FnOnce()) -> u64 {
    TURNS.set(0);
    FAULT.set(Some(fault));
    run();
    FAULT.set(None);
    TURNS.get()
}

/// Whether this is where the planted fault is.
fn left_out(what: What) -> bool {
    let Some(mut fault) = FAULT.get() else { return false };
    if fault.what != what {
        return false;
    }
    let here = fault.number == 0;
    if here {
        TURNS.set(TURNS.get() + 1);
        fault.number = fault.every;
    }
    fault.number = fault.number.wrapping_sub(1);
    FAULT.set(Some(fault));
    here
}

/// The factors of every product of limbs of a run, in order, each with its least and its most.
pub(crate) fn factors(run: impl FnOnce()) -> Vec<[u64; 4]> {
    FACTORS.set(Some(Vec::new()));
    run();
    FACTORS.take().expect("put there above")
}

impl<S: Shape> Interval<S> {
    pub(crate) const fn new(least: u64, most: u64) -> Self {
        assert!(least <= most);
        Self { least, most, shape: PhantomData }
    }
    pub(crate) const fn any() -> Self {
        Self::new(0, u64::MAX)
    }
    /// The highest number with the bits of `most`.
    fn ones(self) -> u64 {
        u64::MAX.checked_shr(self.most.leading_zeros()).unwrap_or(0)
    }
    fn exact(least: Option<u64>, most: Option<u64>) -> Self {
        let (Some(least), Some(most)) = (least, most) else { panic!("a limb goes below zero, or past 64 bits") };
        Self::new(least, most)
    }
    fn product(self, other: Self, bits: u32) -> [u128; 2] {
        for factor in [self, other] {
            assert!(factor.most >> bits == 0, "{factor:x?} has more than the {bits} bits that a multiplication reads");
        }
        FACTORS.with_borrow_mut(|factors| {
            if let Some(factors) = factors {
                factors.push([self.least, self.most, other.least, other.most]);
            }
        });
        let product = |a, b| u128::from(a) * u128::from(b);
        [product(self.least, other.least), product(self.most, other.most)]
    }
    /// Plus numbers of which the least may be negative, modulo 2^64: both ends wrap or none.
    fn modulo(self, above: u64, least: i64, most: i64) -> Self {
        let sum = |end: u64, by: i64| i128::from(end) + i128::from(above) + i128::from(by);
        let (least, most) = (sum(self.least, least), sum(self.most, most));
        assert!(least >= 0 && least >> 64 == most >> 64, "a sum of products begins too near to zero");
        Self::new(least as u64, most as u64)
    }
}

macro_rules! operator {
    ($trait:ident, $name:ident, $kind:ident, |$a:ident, $b:ident| $value:expr) => {
        impl<S: Shape> $trait for Interval<S> {
            type Output = Self;
            #[inline(never)]
            fn $name(self, other: Self) -> Self {
                one(Kind::$kind);
                let ($a, $b) = (self, other);
                $value
            }
        }
    };
}

operator!(Add, add, LimbAdd, |a, b| Self::exact(a.least.checked_add(b.least), a.most.checked_add(b.most)));
operator!(Sub, sub, LimbSub, |a, b| Self::exact(a.least.checked_sub(b.most), a.most.checked_sub(b.least)));
operator!(BitXor, bitxor, LimbXor, |a, b| Self::new(0, a.ones().max(b.ones())));
// The value as it is where a mask has all its bits; otherwise from zero to the smaller.
operator!(BitAnd, bitand, LimbAnd, |a, b| {
    let whole = |value: Self, mask: Self| {
        mask.least == mask.most && mask.most.trailing_ones() >= 64 - value.most.leading_zeros()
    };
    match (whole(a, b), whole(b, a)) {
        (true, _) => a,
        (_, true) => b,
        _ => Self::new(0, a.most.min(b.most)),
    }
});

impl<S: Shape> Limb for Interval<S> {
    fn fill(self, limb: u64) -> Self {
        Self::new(limb, limb)
    }
    #[inline(never)]
    fn shl(self, bits: u32) -> Self {
        one(Kind::LimbShl);
        assert!(self.most.leading_zeros() >= bits, "{self:x?} loses bits, {bits} to the left");
        Self::new(self.least << bits, self.most << bits)
    }
    #[inline(never)]
    fn shr(self, bits: u32) -> Self {
        one(Kind::LimbShr);
        Self::new(self.least >> bits, self.most >> bits)
    }
    #[inline(never)]
    fn choose(self, yes: Self, no: Self) -> Self {
        one(Kind::LimbChoose);
        assert!(self.most <= 1, "{self:x?} is no bit");
        Self::new(yes.least.min(no.least), yes.most.max(no.most))
    }
    #[inline(never)]
    fn mul32(self, other: Self) -> Self {
        one(Kind::Mul32);
        let [least, most] = self.product(other, 32);
        Self::new(least as u64, most as u64)
    }
    #[inline(never)]
    fn madd52_low(self, a: Self, b: Self) -> Self {
        one(Kind::Madd52);
        assert!(S::MADD52, "an instruction that is not there");
        let [least, most] = a.product(b, 52);
        let low = if most >> 52 == 0 { [least as u64, most as u64] } else { [0, (1 << 52) - 1] };
        Self::exact(self.least.checked_add(low[0]), self.most.checked_add(low[1]))
    }
    #[inline(never)]
    fn madd52_high(self, a: Self, b: Self) -> Self {
        one(Kind::Madd52);
        assert!(S::MADD52, "an instruction that is not there");
        let [least, most] = a.product(b, 52);
        Self::exact(self.least.checked_add((least >> 52) as u64), self.most.checked_add((most >> 52) as u64))
    }
    #[inline(never)]
    fn plus52(self, number: Self, factor: u64) -> Self {
        one(Kind::Madd52);
        assert!(S::MADD52, "an instruction that is not there");
        let [least, most] = number.product(self.fill(factor), 52);
        assert!(most >> 52 == 0, "{number:x?} times {factor} has more than 52 bits");
        Self::exact(self.least.checked_add(least as u64), self.most.checked_add(most as u64))
    }
    /// An instruction set with this multiplication does nothing here.
    #[inline(never)]
    fn factor52(self) -> Self {
        assert!(S::MADD52, "an instruction that is not there");
        if left_out(What::Mask) || self.most >> 52 == 0 { self } else { Self::new(0, (1 << 52) - 1) }
    }
    const ABOVE51: [u64; 2] = S::ABOVE51;
    #[inline(never)]
    fn madd51_low(self, a: Self, b: Self) -> Self {
        one(Kind::Madd51);
        let [least, most] = a.split(b);
        if left_out(What::Split) {
            return self;
        }
        // To the nearest: ties either way.
        if most <= 1 << 50 {
            self.modulo(S::ABOVE51[0], least as i64, most as i64)
        } else {
            self.modulo(S::ABOVE51[0], -1 << 50, 1 << 50)
        }
    }
    #[inline(never)]
    fn madd51_high(self, a: Self, b: Self) -> Self {
        one(Kind::Madd51);
        let [least, most] = a.split(b);
        if left_out(What::Split) {
            return self;
        }
        let nearest = |product: u128, tie: u128| ((product + tie) >> 51) as i64;
        self.modulo(S::ABOVE51[1], nearest(least, (1 << 50) - 1), nearest(most, 1 << 50))
    }
    #[inline(never)]
    fn twice(self) -> Self {
        one(Kind::LimbAdd);
        let twice = |end: u64| u128::from(end) * 2;
        let (least, most) = (twice(self.least), twice(self.most));
        assert!(least >> 64 == most >> 64, "twice a sum is too near to zero");
        Self::new(least as u64, most as u64)
    }
    #[inline(never)]
    fn low(self, bits: u32) -> Self {
        if left_out(What::Mask) {
            return self;
        }
        self & self.fill((1 << bits) - 1)
    }
    // Words of SHA-512 may be anything.
    #[inline(never)]
    fn wrapping_add(self, _: Self) -> Self {
        one(Kind::LimbWrapping);
        Self::any()
    }
    #[inline(never)]
    fn rotr<const BITS: i32>(self) -> Self {
        one(Kind::LimbRotr);
        Self::any()
    }
    #[inline(never)]
    fn xor3(self, _: Self, _: Self) -> Self {
        one(Kind::LimbXor3);
        Self::any()
    }
    #[inline(never)]
    fn select(self, _: Self, _: Self) -> Self {
        one(Kind::LimbSelect);
        Self::any()
    }
    #[inline(never)]
    fn majority(self, _: Self, _: Self) -> Self {
        one(Kind::LimbMajority);
        Self::any()
    }
    #[inline(never)]
    fn swap_bytes(self) -> Self {
        one(Kind::LimbSwap);
        Self::any()
    }
    /// What a checking instruction set stores is the most that it may be. A table that is kept may be of another one with as
    /// many limbs: an entry is taken to be anything below the bound of elements, which `bounds` proves of either.
    #[inline(never)]
    fn lookup(self, table: &Eight) -> Self {
        assert!(self.most < 8, "{self:x?} is beyond the table");
        if S::LOOKS_UP {
            one(Kind::Lookup);
        } else {
            for depth in 0..3 {
                let bit = self.shr(depth).low(1);
                for _ in 0..4 >> depth {
                    let _ = bit.choose(self, self);
                }
            }
        }
        let most = *table.0.iter().max().expect("eight");
        let bounds = S::TIGHT.iter().map(|tight| tight - 1);
        Self::new(0, bounds.filter(|bound| most <= *bound).min().unwrap_or(most))
    }
}

impl<S: Shape> Interval<S> {
    /// The product, for doubles: each factor is one exactly, and the sum of the product and 2^103 stays below 2^104, where
    /// doubles are the multiples of 2^51.
    fn split(self, other: Self) -> [u128; 2] {
        assert!(S::ABOVE51 != [0; 2], "an instruction that is not there");
        let product = self.product(other, 52);
        assert!(product[1] >> 103 == 0, "{self:x?} times {other:x?} has more than 103 bits");
        product
    }
}
