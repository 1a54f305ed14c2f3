//! A 64-bit limb of each row: multiplications.

/// What an instruction set offers for numbers of more than one word.
pub trait Limbs: Copy {}
