//! Limbs of rows.

use super::Avx512;
use crate::isa::Limbs;

impl Limbs for Avx512 {}
