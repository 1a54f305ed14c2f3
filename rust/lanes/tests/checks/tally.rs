//! What was done in this thread, by kind.

use std::cell::Cell;

macro_rules! kinds {
    ($($kind:ident $name:literal,)*) => {
        /// An operation of the traits of `src/isa`, by the name it has there.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Kind { $($kind),* }

        pub(crate) const NAMES: [&str; [$($name),*].len()] = [$($name),*];
    };
}

// What words and pieces do first, then what limbs do.
kinds! {
    Load "load",
    Store "store",
    Transpose "transpose",
    Join "join",
    Shuffle "shuffle",
    Everywhere "everywhere",
    ToBe "to_be",
    WrappingAdd "wrapping_add",
    Xor "xor",
    Xor3 "xor3",
    And "and",
    Choose "choose",
    Majority "majority",
    Shift "shr",
    Rotate "rotr",
    Aes "aes",
    Clmul "clmul",
    Unpack "unpack",
    LimbAdd "+",
    LimbSub "−",
    LimbAnd "&",
    LimbXor "^",
    LimbShl "shl",
    LimbShr "shr",
    LimbChoose "choose",
    Lookup "lookup",
    LimbWrapping "wrapping_add",
    LimbRotr "rotr",
    LimbXor3 "xor3",
    LimbSelect "select",
    LimbMajority "majority",
    LimbSwap "swap_bytes",
    Mul32 "mul32",
    Madd52 "madd52",
    Madd51 "madd51",
}

/// The first kind of limbs.
pub(crate) const LIMBS: usize = Kind::Unpack as usize;

pub(crate) type Tally = [u64; NAMES.len()];

thread_local!(static TALLY: [Cell<u64>; NAMES.len()] = const { [const { Cell::new(0) }; NAMES.len()] });

/// Counts one.
#[inline(never)]
pub(crate) fn one(kind: Kind) {
    TALLY.with(|tally| tally[kind as usize].set(tally[kind as usize].get() + 1));
}

/// What was counted in this thread since the last call.
pub(crate) fn take() -> Tally {
    TALLY.with(|tally| std::array::from_fn(|kind| tally[kind].take()))
}
