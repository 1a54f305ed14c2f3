//! Fresh keys for rows. A call draws one seed from the operating system; what a row needs is made from the seed, the
//! row's number and what it is for, so that a batch split otherwise, or over other threads, gives the same frames.

use std::sync::atomic::{AtomicU64, Ordering};

use interlane_lanes::kernels::hmac::Hmac;
use interlane_lanes::{Backend, public};

use crate::error::Error;
use crate::secret::Secret;

/// What 32 random bytes are for.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Purpose {
    RatchetKey = 0,
    BaseKey = 1,
    PrivateKey = 2,
    Signature = 3,
    SignatureMore = 4,
    SenderChain = 5,
    SenderSigning = 6,
    Number = 7,
    Padding = 8,
}

/// Where seeds come from.
pub(crate) enum Source {
    /// The operating system, a seed a call.
    System,
    /// Tests: one seed, and rows numbered over the engine's life.
    Fixed { seed: Secret<32>, rows: AtomicU64 },
}

/// One call's randomness.
pub(crate) struct Randomness {
    seed: Secret<32>,
    first: u64,
    backend: Backend,
}

impl Source {
    /// Randomness for the next `rows` rows.
    pub(crate) fn call(&self, backend: Backend, rows: usize) -> Result<Randomness, Error> {
        match self {
            Self::System => Ok(Randomness { seed: system()?, first: 0, backend }),
            Self::Fixed { seed, rows: drawn } => {
                let first = drawn.fetch_add(rows as u64, Ordering::Relaxed);
                Ok(Randomness { seed: seed.duplicate(), first, backend })
            }
        }
    }
}

/// 32 bytes of the operating system's.
pub(crate) fn system() -> Result<Secret<32>, Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::Store(format!("the operating system gives no random bytes: {error}")))?;
    Ok(Secret::take(&mut bytes))
}

impl Randomness {
    /// 32 bytes for row `row` of the call: HMAC-SHA256(seed, row ‖ purpose).
    pub(crate) fn draw(&self, row: usize, purpose: Purpose) -> Secret<32> {
        let mut message = [purpose as u8; 9];
        message[..8].copy_from_slice(&(self.first + row as u64).to_le_bytes());
        let mut out = [[0; 32]];
        self.backend.run(Hmac { keys: &[*self.seed.expose()], heads: &[&[]], tails: &[&message], out: &mut out });
        Secret::take(&mut out[0])
    }

    /// The 64 bytes that a signature takes.
    pub(crate) fn signature(&self, row: usize) -> Secret<64> {
        let mut bytes = Secret::default();
        let both: &mut [u8; 64] = bytes.expose_mut();
        both[..32].copy_from_slice(self.draw(row, Purpose::Signature).expose());
        both[32..].copy_from_slice(self.draw(row, Purpose::SignatureMore).expose());
        bytes
    }

    /// A number of 32 bits, which names something and is public.
    pub(crate) fn number(&self, row: usize) -> u32 {
        let bytes = self.draw(row, Purpose::Number);
        public(u32::from_le_bytes(*bytes.expose().first_chunk().expect("4 of 32")))
    }
}
