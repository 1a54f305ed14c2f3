//! Which instruction sets are here, and what runs on them.

#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512};
use super::{Kernel, Portable};
use core::fmt;

/// The environment variable that forces a backend by its name.
pub const BACKEND_VARIABLE: &str = "INTERLANE_BACKEND";

/// A kind of kernel, as the table of what runs where knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// SHA-256, HMAC and HKDF: rows are short and the same instruction serves all.
    Hash,
    /// AES-256-CBC.
    Cbc,
    /// AES-256-GCM.
    Gcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
    /// X25519 with a point of each row's own.
    X25519,
    /// X25519 with the base point.
    X25519Base,
    /// XEdDSA, signing.
    Sign,
    /// XEdDSA, verifying.
    Verify,
}

/// From how many rows on lanes are sooner done than the same rows by crates, one after the other; never, where a kernel has
/// none. As measured by `cargo run --release --example time`, on the CPU that the line names.
const fn fewest(backend: Backend, step: Step) -> usize {
    match (backend, step) {
        (Backend::Portable(_), _) => NEVER,
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2(_), Step::Hash) => NEVER,
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2(_), Step::Gcm | Step::ChaCha20Poly1305) => 4, // AMD EPYC, Zen 5
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2(_), _) => NEVER,
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx512(_), Step::Hash) => 8,
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx512(_), Step::Gcm | Step::ChaCha20Poly1305) => 3, // AMD EPYC, Zen 5
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx512(_), _) => NEVER,
    }
}

/// An instruction set that is present on this CPU.
#[derive(Clone, Copy, Debug)]
pub enum Backend {
    /// Well-kept crates, which detect SHA and AES instructions themselves.
    Portable(Portable),
    /// AVX2 with AES.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 with IFMA and VAES.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Backend {
    /// The best backend here, or the one that the environment variable `INTERLANE_BACKEND` names.
    ///
    /// # Errors
    ///
    /// The variable names a backend that is unknown or absent: what was asked for is never replaced silently.
    pub fn detect() -> Result<Self, UnknownBackend> {
        match std::env::var_os(BACKEND_VARIABLE) {
            None => Ok(Self::available()[0]),
            Some(name) => Self::by_name(&name.to_string_lossy()),
        }
    }

    /// The backend of this name.
    ///
    /// # Errors
    ///
    /// There is none, or this CPU cannot run it.
    pub fn by_name(name: &str) -> Result<Self, UnknownBackend> {
        Self::available()
            .into_iter()
            .find(|backend| backend.name() == name)
            .ok_or_else(|| UnknownBackend { asked: name.to_owned() })
    }

    /// Every backend that this CPU can run, the best one first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        [
            #[cfg(target_arch = "x86_64")]
            Avx512::detect().map(Self::Avx512),
            #[cfg(target_arch = "x86_64")]
            Avx2::detect().map(Self::Avx2),
            Some(Self::portable()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The crates: what every machine has.
    #[must_use]
    pub fn portable() -> Self {
        Self::Portable(Portable::detect())
    }

    /// Its name, as `INTERLANE_BACKEND` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
        }
    }

    /// Runs a kernel: in lanes, where it has enough rows to pay for them.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Out {
        if let Self::Portable(crates) = self {
            return kernel.by_row(crates);
        }
        if kernel.rows() < fewest(self, K::STEP) {
            return kernel.by_row(Portable::detect());
        }
        self.run_in_lanes(kernel)
    }

    /// Runs a kernel in lanes, however few rows it has: for tests, and to measure what few are.
    pub fn run_in_lanes<K: Kernel>(self, kernel: K) -> K::Out {
        match self {
            Self::Portable(crates) => kernel.by_row(crates),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(isa) => isa.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(isa) => isa.run(kernel),
        }
    }

    /// Each kernel's name and what runs it here: a crate, or `lanes`, where it has as many rows as the table asks for.
    #[must_use]
    pub fn kernels(self) -> Vec<(&'static str, &'static str)> {
        let by_row = Portable::detect().kernels();
        let runs =
            by_row.map(|(name, step, by_row)| (name, if fewest(self, step) == NEVER { by_row } else { "lanes" }));
        runs.to_vec()
    }
}

/// More rows than there are.
const NEVER: usize = usize::MAX;

/// A backend was asked for that does not exist or that this CPU cannot run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownBackend {
    asked: String,
}

impl fmt::Display for UnknownBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BACKEND_VARIABLE}={:?} is not a backend of this machine; available:", self.asked)?;
        for backend in Backend::available() {
            write!(f, " {}", backend.name())?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownBackend {}
