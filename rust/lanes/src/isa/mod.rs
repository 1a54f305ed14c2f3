//! Instruction sets: what each offers, which are here, and the one `match` over them.

use core::fmt;
use core::ops::BitXor;

mod portable;

pub use portable::Portable;

/// Rows of a tile. The width of every instruction set divides it.
pub const TILE: usize = 16;

/// The environment variable that forces a backend by its name.
pub const BACKEND_VARIABLE: &str = "INTERLANE_BACKEND";

/// A word of each of `WIDTH` rows.
///
/// Words come in two orders: *numeric*, as SHA-256 computes with them, and *memory*, the bytes as they stand in a row.
pub trait Lanes: Copy + BitXor<Output = Self> {
    /// From numeric order to the memory order of big-endian bytes, as `u32::to_be` does.
    #[must_use]
    fn to_be(self) -> Self;
}

/// What an instruction set offers. A value of this type is proof that the set is present, so all of it is safe to use.
///
/// A group is up to `WIDTH` neighbouring rows; where an operation takes rows it takes one group of them, and lanes without
/// a row hold anything.
pub trait Isa: Copy {
    /// Rows in a group; divides [`TILE`].
    const WIDTH: usize;
    /// A 32-bit word of each row of a group.
    type U32: Lanes;

    /// The same word in every lane.
    fn splat(self, word: u32) -> Self::U32;
    /// The rows of a group, in memory order.
    fn load(self, rows: &[[u8; 32]]) -> [Self::U32; 8];
    /// One block of each row of a group, in memory order.
    fn load_blocks(self, rows: &[[u8; 64]]) -> [Self::U32; 16];
    /// The bytes from `at` on of each row of a group, from words in memory order: 32 of them, or what the row has left.
    fn store<const N: usize>(self, words: &[Self::U32; 8], rows: &mut [[u8; N]], at: usize);
    /// Lane by lane: `new` where `alive`, else `old`.
    fn choose(self, alive: &[bool], new: &[Self::U32; 8], old: &[Self::U32; 8]) -> [Self::U32; 8];

    /// SHA-256 compression (FIPS 180-4 §6.2.2): `state` in numeric order, `block` in memory order.
    fn compress(self, state: &mut [Self::U32; 8], block: &[Self::U32; 16]);

    /// Encrypts one row in place and gives its tag.
    fn seal(self, cipher: Aead, key: &[u8; 32], nonce: &[u8; 12], associated: &[u8], text: &mut [u8]) -> [u8; 16];
    /// Decrypts one row in place if its tag is right, and says whether it was; else `text` holds anything.
    fn open(
        self,
        cipher: Aead,
        key: &[u8; 32],
        nonce: &[u8; 12],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; 16],
    ) -> bool;

    /// X25519 (RFC 7748 §5) of one row: clamps the scalar, masks the top bit of the point. All zero for a point of small
    /// order.
    fn x25519(self, scalar: &[u8; 32], point: &[u8; 32]) -> [u8; 32];
    /// X25519 of one row and the base point.
    fn x25519_base(self, scalar: &[u8; 32]) -> [u8; 32];
}

/// An authenticated cipher with keys of 32 bytes, nonces of 12 and tags of 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aead {
    /// NIST SP 800-38D.
    Aes256Gcm,
    /// RFC 8439.
    ChaCha20Poly1305,
}

/// A step for many rows, written over any instruction set.
pub trait Kernel {
    /// What running it gives; most kernels write to the slices they were given instead.
    type Out;
    /// Runs it.
    fn run<I: Isa>(self, isa: I) -> Self::Out;
}

/// An instruction set that is present on this CPU.
#[derive(Clone, Copy, Debug)]
pub enum Backend {
    /// Well-kept crates, which detect SHA and AES instructions themselves.
    Portable(Portable),
}

impl Backend {
    /// The best backend here, or the one that the environment variable `INTERLANE_BACKEND` names.
    ///
    /// # Errors
    ///
    /// The variable names a backend that is unknown or absent: what was asked for is never replaced silently.
    pub fn detect() -> Result<Self, UnknownBackend> {
        match std::env::var_os(BACKEND_VARIABLE) {
            None => Ok(Self::best()),
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

    fn best() -> Self {
        Self::Portable(Portable::detect())
    }

    /// Every backend that this CPU can run, the best one first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        vec![Self::Portable(Portable::detect())]
    }

    /// Its name, as `INTERLANE_BACKEND` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable(_) => "portable",
        }
    }

    /// Runs a kernel on this instruction set.
    pub fn run<K: Kernel>(self, kernel: K) -> K::Out {
        match self {
            Self::Portable(isa) => kernel.run(isa),
        }
    }

    /// Each kernel's name and what runs it here.
    #[must_use]
    pub fn kernels(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Portable(isa) => isa.kernels().to_vec(),
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
