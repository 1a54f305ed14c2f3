//! 16 bytes of each row: blocks of AES and GHASH.

use super::Words;

/// What an instruction set offers for blocks of 16 bytes.
pub trait Pieces: Words {}
