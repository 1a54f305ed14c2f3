//! The instruction sets of `src/isa`, as far as kernels can tell them apart.

use crate::interval::Interval;
use interlane_lanes::isa::Field;
use interlane_lanes::isa::field25519::radix51::{self, Fe51, Loose51};
use interlane_lanes::isa::field25519::radix52::{self, Fe52, Loose52};
use std::fmt::Debug;
use std::ops::{Add, IndexMut, Sub};

/// What one chooses.
pub(crate) trait Shape: Copy + PartialEq + Debug + 'static {
    const NAME: &'static str;
    const WIDTH: usize;
    const GROUPS: usize;
    const PAIRS: bool;
    type Groups<T: Copy>: Copy + IndexMut<usize, Output = T> + AsRef<[T]> + AsMut<[T]>;
    fn groups<T: Copy>(item: T) -> Self::Groups<T>;
    const MADD52: bool;
    const ABOVE51: [u64; 2];
    /// Whether a table of eight limbs is looked up in by one instruction.
    const LOOKS_UP: bool;
    type Field: Field<Limb = Interval<Self>, Loose = Self::Loose>;
    type Loose: Copy + Add<Output = Self::Loose> + Sub<Output = Self::Loose>;
    /// Of these limbs.
    fn loose(limbs: [Interval<Self>; 5]) -> Self::Loose;
    /// What limbs of an element are below.
    const TIGHT: [u64; 5];
    /// What those of a product are below.
    const PRODUCT: [u64; 5];
}

/// 16 words, 8 limbs, IFMA.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Avx512;

impl Shape for Avx512 {
    const NAME: &'static str = "avx512";
    const WIDTH: usize = 16;
    const GROUPS: usize = 2;
    const PAIRS: bool = true;
    type Groups<T: Copy> = [T; 2];
    fn groups<T: Copy>(item: T) -> [T; 2] {
        [item; 2]
    }
    const MADD52: bool = true;
    const ABOVE51: [u64; 2] = [0; 2];
    const LOOKS_UP: bool = true;
    type Field = Fe52<Interval<Self>>;
    type Loose = Loose52<Interval<Self>>;
    fn loose(limbs: [Interval<Self>; 5]) -> Self::Loose {
        Loose52(limbs)
    }
    const TIGHT: [u64; 5] = radix52::TIGHT;
    const PRODUCT: [u64; 5] = radix52::PRODUCT;
}

/// 8 words, 4 limbs, doubles and FMA; SHA-256 is computed from words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Avx2;

impl Shape for Avx2 {
    const NAME: &'static str = "avx2";
    const WIDTH: usize = 8;
    const GROUPS: usize = 2;
    const PAIRS: bool = false;
    type Groups<T: Copy> = [T; 2];
    fn groups<T: Copy>(item: T) -> [T; 2] {
        [item; 2]
    }
    const MADD52: bool = false;
    /// The bits of 3 · 2^51 and of 2^103.
    const ABOVE51: [u64; 2] =
        [(3.0 * (1_u64 << 51) as f64).to_bits(), ((1_u64 << 52) as f64 * (1_u64 << 51) as f64).to_bits()];
    const LOOKS_UP: bool = false;
    type Field = Fe51<Interval<Self>>;
    type Loose = Loose51<Interval<Self>>;
    fn loose(limbs: [Interval<Self>; 5]) -> Self::Loose {
        Loose51(limbs)
    }
    const TIGHT: [u64; 5] = radix51::TIGHT;
    const PRODUCT: [u64; 5] = radix51::PRODUCT;
}

/// 4 words, 2 limbs, doubles and FMA; SHA-256 is computed from words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Neon;

impl Shape for Neon {
    const NAME: &'static str = "neon";
    const WIDTH: usize = 4;
    const GROUPS: usize = 4;
    const PAIRS: bool = false;
    type Groups<T: Copy> = [T; 4];
    fn groups<T: Copy>(item: T) -> [T; 4] {
        [item; 4]
    }
    const MADD52: bool = false;
    const ABOVE51: [u64; 2] = Avx2::ABOVE51;
    const LOOKS_UP: bool = false;
    type Field = Fe51<Interval<Self>>;
    type Loose = Loose51<Interval<Self>>;
    fn loose(limbs: [Interval<Self>; 5]) -> Self::Loose {
        Loose51(limbs)
    }
    const TIGHT: [u64; 5] = radix51::TIGHT;
    const PRODUCT: [u64; 5] = radix51::PRODUCT;
}
