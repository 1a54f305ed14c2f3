//! Fresh keys for rows. A call draws one seed from the operating system; what a row needs is made from the seed, the
//! row's number and what it is for, so that a batch split otherwise, or over other threads, gives the same frames.

use std::sync::atomic::{AtomicU64, Ordering};

use interlane_lanes::kernels::hmac::Hmac;
use interlane_lanes::{Backend, TILE, public};

use super::tile;
use crate::error::Error;
use crate::machine;
use crate::secret::{Secret, SecretColumn};

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
    machine::random(&mut bytes)?;
    Ok(Secret::take(&mut bytes))
}

impl Randomness {
    /// 32 bytes for row `row` of the call: HMAC-SHA256(seed, row ‖ purpose).
    pub(crate) fn draw(&self, row: usize, purpose: Purpose) -> Secret<32> {
        Secret::take(&mut self.draws([row as u32].into_iter(), [purpose])[0])
    }

    /// What [`Self::draw`] gives for each of these rows and purposes: all of a row, then all of the next.
    pub(crate) fn draws<const N: usize>(
        &self,
        rows: impl ExactSizeIterator<Item = u32>,
        purposes: [Purpose; N],
    ) -> SecretColumn<32> {
        let mut out = SecretColumn::zeroes(N * rows.len());
        let mut wanted = rows.flat_map(|row| purposes.map(|purpose| (row, purpose)));
        let mut keys = tile::column::<32>();
        keys.fill(*self.seed.expose());
        for out in out.chunks_mut(TILE) {
            let mut messages = [[0; 9]; TILE];
            for (message, (row, purpose)) in messages.iter_mut().zip(wanted.by_ref().take(out.len())) {
                message[..8].copy_from_slice(&(self.first + u64::from(row)).to_le_bytes());
                message[8] = purpose as u8;
            }
            let tails = messages.each_ref().map(|message| &message[..]);
            let n = out.len();
            self.backend.run(Hmac { keys: &keys[..n], heads: &[&[][..]; TILE][..n], tails: &tails[..n], out });
        }
        out
    }

    /// The 64 bytes that a signature takes.
    pub(crate) fn signature(&self, row: usize) -> Secret<64> {
        let mut drawn = self.signatures([row as u32].into_iter());
        Secret::take(&mut drawn[0])
    }

    /// What [`Self::signature`] gives for each of these rows.
    pub(crate) fn signatures(&self, rows: impl ExactSizeIterator<Item = u32>) -> SecretColumn<64> {
        let drawn = self.draws(rows, [Purpose::Signature, Purpose::SignatureMore]);
        let mut both = SecretColumn::zeroes(drawn.len() / 2);
        both.copy_from_slice(drawn.as_flattened().as_chunks().0);
        both
    }

    /// A number of 32 bits, which names something and is public.
    pub(crate) fn number(&self, row: usize) -> u32 {
        number(self.draw(row, Purpose::Number).expose())
    }
}

/// A number of 32 bits, of what was drawn. It names something and is public.
pub(crate) fn number(bytes: &[u8; 32]) -> u32 {
    public(u32::from_le_bytes(*bytes.first_chunk().expect("4 of 32")))
}
