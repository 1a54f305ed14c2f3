//! Pieces of rows.

use super::Avx512;
use crate::isa::Pieces;

impl Pieces for Avx512 {}
