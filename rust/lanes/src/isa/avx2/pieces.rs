//! Pieces of rows.

use super::Avx2;
use crate::isa::Pieces;

impl Pieces for Avx2 {}
