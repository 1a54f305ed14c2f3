//! AVX2 with FMA, AES and PCLMULQDQ: 8 words, 2 pieces, 4 limbs; and the SHA instructions, on CPUs that have those too.
#![allow(unsafe_code, reason = "intrinsics, behind a token that proves that they are here")]

mod limbs;
mod sha;
mod words;

use super::Kernel;

/// Puts the caller's stack at a multiple of a cache line. Vectors that do not fit the registers are kept there, and where the
/// compiler learns of them too late for that, half of them lie across two lines. So X25519 takes 9.5 µs and not 10.8. AVX-512,
/// which spills less, loses by it (SHA-256 up to a third): an aligned frame costs a register and moves what the compiler takes
/// inline.
#[inline(always)]
fn align_stack() {
    #[repr(align(64))]
    struct Line {
        _bytes: [u8; 64],
    }
    std::hint::black_box(&mut std::mem::MaybeUninit::<Line>::uninit());
}

/// Proof that it is present, and whether the SHA instructions are.
#[derive(Clone, Copy, Debug)]
pub struct Avx2 {
    sha: bool,
}

impl Avx2 {
    /// The token, on a CPU that has all of it; the SHA instructions may be missing.
    #[must_use]
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq"))
        .then(|| Self { sha: is_x86_feature_detected!("sha") })
    }

    /// What a CPU without the SHA instructions would get.
    #[must_use]
    pub const fn without_sha(self) -> Self {
        Self { sha: false }
    }

    pub(super) const fn has_sha(self) -> bool {
        self.sha
    }

    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Out {
        #[target_feature(enable = "avx2,fma,aes,pclmulqdq")]
        fn run<K: Kernel>(isa: Avx2, kernel: K) -> K::Out {
            align_stack();
            kernel.in_lanes(isa)
        }
        // SAFETY: `self` proves that the features are present.
        unsafe { run(self, kernel) }
    }
}
