//! Diffie–Hellman for many rows at once: X3DH's shared secrets and the ratchet's root steps, pooled.

use interlane_lanes::Backend;
use interlane_lanes::kernels::hkdf::Hkdf;
use interlane_lanes::kernels::x25519::Agree;

use crate::ratchet::{AGREEMENT_INFO, ChainKey, DISCONTINUITY, ROOT_INFO, split_root};
use crate::secret::{Secret, SecretColumn};

/// Agreements that are collected and then computed together.
pub(crate) struct Agreements {
    scalars: Vec<Secret<32>>,
    points: Vec<[u8; 32]>,
}

/// Their results; `None` where the shared secret is all zero.
pub(crate) struct Shared {
    secrets: SecretColumn<32>,
    ok: Vec<bool>,
}

impl Agreements {
    /// Room for `n`; more than that would leave scalars behind in a vector that grew.
    pub(crate) fn with_capacity(n: usize) -> Self {
        Self { scalars: Vec::with_capacity(n), points: Vec::with_capacity(n) }
    }

    /// Adds one; results come in the same order.
    pub(crate) fn add(&mut self, private: &Secret<32>, public: &[u8; 32]) {
        debug_assert!(self.scalars.len() < self.scalars.capacity());
        self.scalars.push(private.duplicate());
        self.points.push(*public);
    }

    /// Computes all of them.
    pub(crate) fn run(self, backend: Backend) -> Shared {
        let n = self.points.len();
        let mut shared = Shared { secrets: SecretColumn::zeroes(n), ok: vec![false; n] };
        backend.run(Agree {
            scalars: &SecretColumn::copy_of(self.scalars.iter()),
            points: &self.points,
            out: &mut shared.secrets,
            ok: &mut shared.ok,
        });
        shared
    }
}

impl Shared {
    /// The results in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Option<&[u8; 32]>> {
        self.secrets.iter().zip(&self.ok).map(|(secret, ok)| ok.then_some(secret))
    }
}

/// X3DH's input key material: `FF*32 ‖ DH1 ‖ DH2 ‖ DH3 [‖ DH4]`.
pub(crate) struct Material {
    bytes: Secret<160>,
    len: usize,
}

impl Material {
    /// Of the next three shared secrets, and of a fourth where a one-time prekey took part. All of them are taken;
    /// `None` if one was all zero.
    pub(crate) fn collect<'s>(shared: &mut impl Iterator<Item = Option<&'s [u8; 32]>>, one_time: bool) -> Option<Self> {
        let mut bytes: Secret<160> = Secret::default();
        bytes.expose_mut()[..32].copy_from_slice(&DISCONTINUITY);
        let (mut len, mut sound) = (32, true);
        for _ in 0..3 + usize::from(one_time) {
            match shared.next().expect("as many results as agreements") {
                Some(secret) => bytes.expose_mut()[len..len + 32].copy_from_slice(secret),
                None => sound = false,
            }
            len += 32;
        }
        sound.then_some(Self { bytes, len })
    }
}

/// The first root and chain keys of sessions.
pub(crate) fn first_roots(backend: Backend, materials: &[Material]) -> Vec<(Secret<32>, ChainKey)> {
    let inputs: Vec<&[u8]> = materials.iter().map(|material| &material.bytes.expose()[..material.len]).collect();
    let mut out = SecretColumn::zeroes(inputs.len());
    backend.run(Hkdf { salts: None, inputs: &inputs, info: AGREEMENT_INFO, out: &mut out });
    out.iter_mut().map(split_root).collect()
}

/// Root steps: a root key and a shared secret give the next root key and a chain key.
pub(crate) fn root_steps(backend: Backend, steps: &[(&Secret<32>, &[u8; 32])]) -> Vec<(Secret<32>, ChainKey)> {
    let salts = SecretColumn::copy_of(steps.iter().map(|(root, _)| *root));
    let inputs: Vec<&[u8]> = steps.iter().map(|(_, shared)| &shared[..]).collect();
    let mut out = SecretColumn::zeroes(steps.len());
    backend.run(Hkdf { salts: Some(&salts), inputs: &inputs, info: ROOT_INFO, out: &mut out });
    out.iter_mut().map(split_root).collect()
}
