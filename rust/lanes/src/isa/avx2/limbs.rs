//! Limbs of rows.

use super::Avx2;
use crate::isa::Limbs;

impl Limbs for Avx2 {}
