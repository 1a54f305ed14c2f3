//! The steps, one file for each standard.
//!
//! A kernel's fields are slices with one entry a row, all of the same length `n`, which may be 0; it panics if they are
//! not. Rows are worked on by the tile: all rows of a tile take a step before any takes the next, so that a vector has its
//! lanes full and a CPU that computes row by row always has an independent row to go on with.

mod aes256;
pub mod cbc;
mod chacha20;
pub mod chacha20poly1305;
pub mod chain;
pub mod cmac;
mod covered;
mod edwards25519;
pub mod gcm;
pub mod hkdf;
pub mod hmac;
mod poly1305;
pub mod sha256;
pub mod sha512;
pub mod x25519;
pub mod xeddsa;

/// A kernel of hashes: the same code over words, one row wide by a crate or as wide as the vectors.
macro_rules! over_words {
    ([$($generics:tt)*] $kernel:ty, $field:ident) => {
        impl<$($generics)*> $crate::isa::Kernel for $kernel {
            type Out = ();
            const STEP: $crate::isa::Step = $crate::isa::Step::Hash;

            #[inline(always)]
            fn rows(&self) -> usize {
                self.$field.len()
            }

            #[inline]
            fn by_row(self, crates: $crate::isa::Portable) {
                self.run(crates);
            }

            #[inline(always)]
            fn in_lanes<I: $crate::isa::Isa>(self, isa: I) {
                self.run(isa);
            }
        }
    };
}
use over_words;

/// A loop that must be unrolled: left to itself, the compiler keeps the words of a hash in memory, or puts the halves of a
/// vector together after every round of a cipher, and takes twice as long.
macro_rules! unrolled {
    ($i:ident in [$($n:literal)*] $body:block) => { $({ const $i: usize = $n; $body })* };
}
use unrolled;

/// The number of rows, from the lengths of all arguments of a kernel.
#[inline(always)]
fn rows<const N: usize>(lengths: [usize; N]) -> usize {
    for length in lengths {
        assert_eq!(length, lengths[0], "every argument of a kernel has one entry a row");
    }
    lengths[0]
}

/// Overwrites what must not stay in memory.
#[inline(always)]
fn wipe<T: Copy>(items: &mut [T], zero: T) {
    items.fill(zero);
    ::zeroize::optimization_barrier(items);
}
