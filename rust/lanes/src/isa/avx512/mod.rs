//! AVX-512 with IFMA, VAES and VPCLMULQDQ: 16 words, 4 pieces, 8 limbs (Intel from Ice Lake on, AMD from Zen 4 on).
#![allow(unsafe_code, reason = "intrinsics, behind a token that proves that they are here")]

mod limbs;
mod words;

use super::Kernel;

/// Proof that it is present.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// The token, on a CPU that has all of it.
    #[must_use]
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512ifma")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq"))
        .then_some(Self(()))
    }

    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Out {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,vaes,vpclmulqdq")]
        fn run<K: Kernel>(isa: Avx512, kernel: K) -> K::Out {
            kernel.in_lanes(isa)
        }
        // SAFETY: `self` proves that the features are present.
        unsafe { run(self, kernel) }
    }
}
