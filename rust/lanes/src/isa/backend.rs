//! Which instruction sets are here, and what runs on them.

#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512};
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
use super::{Crypto, Neon, Plain};
use super::{Kernel, Portable};
use core::fmt;

/// The environment variable that forces a backend by its name.
pub const BACKEND_VARIABLE: &str = "INTERLANE_BACKEND";

/// A kind of kernel, as the table of what runs where knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// SHA-256, HMAC and HKDF: rows are short and the same instruction serves all.
    Hash,
    /// SHA-512.
    Sha512,
    /// AES-256-CBC, encrypting: a row's blocks wait for each other.
    CbcEncrypt,
    /// AES-256-CBC, decrypting: they do not.
    CbcDecrypt,
    /// AES-256-CMAC.
    Cmac,
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

/// What runs a kernel in lanes, and from how many rows on that is sooner done than the same rows by crates, one after the
/// other; `None`, where it has no lanes. As measured by `cargo run --release --example time`, on the CPU that the line names.
const fn lanes(backend: Backend, step: Step) -> Option<InLanes> {
    let (runs, fewest) = match (backend, step) {
        (Backend::Portable(_), _) => return None,
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2(isa), Step::Hash) if isa.has_sha() => ("SHA instructions, 4 rows side by side", 6), // Zen 5
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2(_), Step::Hash) => ("AVX2, 8 lanes", 3), // Zen 5
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2(_), Step::Sha512) => ("AVX2, 4 lanes", 3), // Zen 5
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2(_), Step::CbcEncrypt) => ("AES-NI, 8 rows side by side", 2), // Zen 5
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2(_), Step::CbcDecrypt) => ("AES-NI, 8 rows side by side", 5), // Zen 5
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2(_), Step::Cmac) => ("AES-NI, 8 rows side by side", 2), // Zen 3
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2(_), Step::Gcm) => ("AES-NI, 8 rows side by side", 4), // Zen 5
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2(_), Step::ChaCha20Poly1305) => ("AVX2, 8 lanes", 4), // Zen 5
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx512(_), Step::Hash) => ("AVX-512, 16 lanes", 8), // Zen 5
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx512(_), Step::Sha512) => ("AVX-512, 8 lanes", 2), // Zen 5
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx512(_), Step::CbcEncrypt) => ("VAES, 16 rows side by side", 2), // Zen 5
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx512(_), Step::CbcDecrypt) => ("VAES, 16 rows side by side", 5), // Zen 5
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx512(_), Step::Cmac) => ("VAES, 16 rows side by side", 1), // Xeon (model 207)
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx512(_), Step::Gcm) => ("VAES, 16 rows side by side", 3), // Zen 5
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx512(_), Step::ChaCha20Poly1305) => ("AVX-512, 16 lanes", 3), // Zen 5
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2(_), Step::Sign) => ("AVX2 and FMA, 4 lanes", 1), // Zen 5
        // Five rows take as long as eight, and no longer than by crates.
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx2(_), Step::X25519 | Step::X25519Base | Step::Verify) => ("AVX2 and FMA, 4 lanes", 3), // Zen 5
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx512(_), Step::X25519 | Step::X25519Base) => ("AVX-512 IFMA, 8 lanes", 2), // Zen 5
        #[cfg(target_arch = "x86_64")]
        (Backend::Avx512(_), Step::Sign | Step::Verify) => ("AVX-512 IFMA, 8 lanes", 1), // Zen 5
        // No such CPU was at hand: from how many rows on lanes take fewer instructions, counted under QEMU.
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        (Backend::NeonCrypto(_), Step::Hash) => ("SHA-2 instructions, 4 rows side by side", 3),
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        (Backend::NeonCrypto(_), Step::CbcEncrypt) => ("AES instructions, 4 rows side by side", 3),
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        (Backend::NeonCrypto(_), Step::Cmac) => ("AES instructions, 4 rows side by side", 3),
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        (Backend::NeonCrypto(_), Step::Gcm) => ("AES instructions, 4 rows side by side", 2),
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        (Backend::NeonCrypto(_), Step::ChaCha20Poly1305) => ("NEON, 4 lanes", 3),
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        (Backend::Neon(_), Step::Hash) => ("NEON, 4 lanes", 2),
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        (Backend::NeonCrypto(_) | Backend::Neon(_), _) => return None,
    };
    Some(InLanes { runs, fewest })
}

/// Lanes that run a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InLanes {
    /// The instructions, and how many rows they take at once.
    pub runs: &'static str,
    /// From how many rows on.
    pub fewest: usize,
}

/// What runs a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runner {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Its lanes, where it has any.
    pub lanes: Option<InLanes>,
    /// The crate that runs it else, one row after the other.
    pub by_row: &'static str,
}

impl fmt::Display for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lanes {
            Some(InLanes { runs, fewest: 1 }) => f.write_str(runs),
            Some(InLanes { runs, fewest: 2 }) => write!(f, "{runs}; one row: crate {}", self.by_row),
            Some(InLanes { runs, fewest }) => write!(f, "{runs}; fewer than {fewest} rows: crate {}", self.by_row),
            None => write!(f, "crate {}", self.by_row),
        }
    }
}

/// An instruction set that is present on this CPU.
#[derive(Clone, Copy, Debug)]
pub enum Backend {
    /// Well-kept crates, which detect SHA and AES instructions themselves.
    Portable(Portable),
    /// AVX2 with AES, with or without the SHA instructions.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 with IFMA and VAES.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// NEON alone.
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    Neon(Neon<Plain>),
    /// NEON with the instructions for AES, PMULL and SHA-2.
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    NeonCrypto(Neon<Crypto>),
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
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Neon::detect().map(Self::NeonCrypto),
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Neon::detect().map(Self::Neon),
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
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Self::Neon(_) => "neon",
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Self::NeonCrypto(_) => "neon-crypto",
        }
    }

    /// Runs a kernel: in lanes, where it has enough rows to pay for them.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Out {
        match lanes(self, K::STEP) {
            Some(lanes) if kernel.rows() >= lanes.fewest => self.run_in_lanes(kernel),
            _ => kernel.by_row(self.crates()),
        }
    }

    /// Runs a kernel in lanes, however few rows it has: for tests, and to measure what few are.
    pub fn run_in_lanes<K: Kernel>(self, kernel: K) -> K::Out {
        match self {
            Self::Portable(crates) => kernel.by_row(crates),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(isa) => isa.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(isa) => isa.run(kernel),
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Self::Neon(isa) => isa.run(kernel),
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Self::NeonCrypto(isa) => isa.run(kernel),
        }
    }

    /// What runs each kernel here.
    #[must_use]
    pub fn kernels(self) -> Vec<Runner> {
        let mut runners = Vec::new();
        for (kernel, step, by_row) in self.crates().kernels() {
            runners.push(Runner { kernel, lanes: lanes(self, step), by_row });
        }
        runners
    }

    /// What takes the rows that lanes do not.
    #[inline]
    fn crates(self) -> Portable {
        match self {
            Self::Portable(crates) => crates,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) | Self::Avx512(_) => Portable::detect(),
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Self::Neon(_) | Self::NeonCrypto(_) => Portable::detect(),
        }
    }
}

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
