//! Any CPU: one row at a time, by crates. Also the oracle of every vector backend.

use super::{Aead, Isa, Lanes};
use aes::Aes256Enc;
use aes::cipher::{Block, BlockCipherEncrypt};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use chacha20poly1305::ChaCha20Poly1305;
use curve25519_dalek::MontgomeryPoint;
use ghash::GHash;
use poly1305::Poly1305;
use poly1305::universal_hash::UniversalHash;
use sha2::block_api::compress256;
use subtle::ConstantTimeEq;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use graviola::key_agreement::x25519::{PublicKey, StaticPrivateKey};

/// The backend without vectors.
///
/// Graviola, where it runs, takes half the time of curve25519-dalek for X25519 (24 µs against 53) and is faster
/// than the crate chacha20poly1305 for long rows; for AES-256-GCM under a new key each it gains
/// nothing.
#[derive(Clone, Copy, Debug)]
pub struct Portable {
    graviola: bool,
}

impl Portable {
    /// Always there. Graviola asserts CPU features that are looked for here.
    #[must_use]
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        let graviola = is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("adx")
            && is_x86_feature_detected!("avx2");
        #[cfg(target_arch = "aarch64")]
        let graviola = std::arch::is_aarch64_feature_detected!("neon")
            && std::arch::is_aarch64_feature_detected!("aes")
            && std::arch::is_aarch64_feature_detected!("pmull")
            && std::arch::is_aarch64_feature_detected!("sha2");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let graviola = false;
        Self { graviola }
    }

    /// As [`Portable::detect`] gives it on a CPU that graviola does not support.
    #[must_use]
    pub fn without_graviola() -> Self {
        Self { graviola: false }
    }

    pub(super) fn kernels(self) -> [(&'static str, &'static str); 9] {
        let (chacha20poly1305, x25519) =
            if self.graviola { ("graviola", "graviola") } else { ("chacha20poly1305", "curve25519-dalek") };
        [
            ("sha256", "sha2"),
            ("hmac", "sha2"),
            ("hkdf", "sha2"),
            ("chain", "sha2"),
            ("cbc", "aes"),
            ("gcm", "aes-gcm"),
            ("chacha20poly1305", chacha20poly1305),
            ("x25519", x25519),
            ("xeddsa", "curve25519-dalek"),
        ]
    }
}

impl Lanes for u32 {
    #[inline(always)]
    fn to_be(self) -> Self {
        u32::to_be(self)
    }
}

impl Isa for Portable {
    const WIDTH: usize = 1;
    type U32 = u32;

    #[inline(always)]
    fn splat(self, word: u32) -> u32 {
        word
    }

    #[inline(always)]
    fn load(self, rows: &[[u8; 32]]) -> [u32; 8] {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(rows[0].as_chunks().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        words
    }

    #[inline(always)]
    fn load_blocks(self, rows: &[[u8; 64]]) -> [u32; 16] {
        let mut words = [0; 16];
        for (word, bytes) in words.iter_mut().zip(rows[0].as_chunks().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        words
    }

    #[inline(always)]
    fn store<const N: usize>(self, words: &[u32; 8], rows: &mut [[u8; N]], at: usize) {
        let mut bytes = [0; 32];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_ne_bytes();
        }
        let row = &mut rows[0][at..];
        if let Some(row) = row.first_chunk_mut::<32>() {
            *row = bytes;
        } else {
            row.copy_from_slice(&bytes[..row.len()]);
        }
    }

    #[inline(always)]
    fn choose(self, alive: &[bool], new: &[u32; 8], old: &[u32; 8]) -> [u32; 8] {
        if alive[0] { *new } else { *old }
    }

    #[inline(always)]
    fn compress(self, state: &mut [u32; 8], block: &[u32; 16]) {
        let mut blocks = [[0; 64]];
        for (bytes, word) in blocks[0].as_chunks_mut().0.iter_mut().zip(block) {
            *bytes = word.to_ne_bytes();
        }
        compress256(state, &blocks);
        // The block may have been a key: four stores, too few to measure.
        blocks[0] = [0; 64];
        zeroize::optimization_barrier(&blocks);
    }

    #[inline]
    fn seal(self, cipher: Aead, key: &[u8; 32], nonce: &[u8; 12], associated: &[u8], text: &mut [u8]) -> [u8; 16] {
        match cipher {
            Aead::Aes256Gcm if text.len() <= GcmPass::MOST => {
                let pass = GcmPass::new(key, nonce, text.len());
                pass.apply(text);
                return pass.tag(associated, text);
            }
            Aead::Aes256Gcm => Aes256Gcm::new(key.into()).encrypt_inout_detached(nonce.into(), associated, text.into()),
            Aead::ChaCha20Poly1305 if text.len() <= OnePass::MOST => {
                let pass = OnePass::new(key, nonce, text);
                text.copy_from_slice(pass.output(text.len()));
                return pass.tag(associated, text);
            }
            Aead::ChaCha20Poly1305 => {
                #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
                if self.graviola {
                    let mut tag = [0; 16];
                    graviola::aead::ChaCha20Poly1305::new(*key).encrypt(nonce, associated, text, &mut tag);
                    return tag;
                }
                ChaCha20Poly1305::new(key.into()).encrypt_inout_detached(nonce.into(), associated, text.into())
            }
        }
        .expect("rows are far below the ciphers' limits of 64 GiB")
        .into()
    }

    #[inline]
    fn open(
        self,
        cipher: Aead,
        key: &[u8; 32],
        nonce: &[u8; 12],
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; 16],
    ) -> bool {
        match cipher {
            Aead::Aes256Gcm if text.len() <= GcmPass::MOST => {
                let pass = GcmPass::new(key, nonce, text.len());
                let ok = pass.tag(associated, text).ct_eq(tag).into();
                if ok {
                    pass.apply(text);
                }
                return ok;
            }
            Aead::Aes256Gcm => {
                Aes256Gcm::new(key.into()).decrypt_inout_detached(nonce.into(), associated, text.into(), tag.into())
            }
            Aead::ChaCha20Poly1305 if text.len() <= OnePass::MOST => {
                let pass = OnePass::new(key, nonce, text);
                let ok = pass.tag(associated, text).ct_eq(tag).into();
                if ok {
                    text.copy_from_slice(pass.output(text.len()));
                }
                return ok;
            }
            Aead::ChaCha20Poly1305 => {
                #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
                if self.graviola {
                    let cipher = graviola::aead::ChaCha20Poly1305::new(*key);
                    return cipher.decrypt(nonce, associated, text, tag).is_ok();
                }
                let cipher = ChaCha20Poly1305::new(key.into());
                cipher.decrypt_inout_detached(nonce.into(), associated, text.into(), tag.into())
            }
        }
        .is_ok()
    }

    #[inline]
    fn x25519(self, scalar: &[u8; 32], point: &[u8; 32]) -> [u8; 32] {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        if self.graviola {
            // The only error there is: the result is all zero.
            return match StaticPrivateKey::from_array(scalar).diffie_hellman(&PublicKey::from_array(point)) {
                Ok(shared) => shared.0,
                Err(_) => [0; 32],
            };
        }
        MontgomeryPoint(*point).mul_clamped(*scalar).0
    }

    #[inline]
    fn x25519_base(self, scalar: &[u8; 32]) -> [u8; 32] {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        if self.graviola {
            return StaticPrivateKey::from_array(scalar).public_key().as_bytes();
        }
        MontgomeryPoint::mul_base_clamped(*scalar).0
    }
}

/// ChaCha20-Poly1305 (RFC 8439 §2.8) of a short row: the block that makes Poly1305's key and the row's own blocks in one
/// run of ChaCha20, whose code takes several blocks at a time. 430 ns for 256 bytes, against 490 and 520 by the crates
/// that do them apart.
struct OnePass {
    bytes: [u8; Self::MOST + 64],
    used: usize,
}

impl OnePass {
    /// Longer rows go where long blocks are fast.
    const MOST: usize = 448;

    /// The first block of the key stream, and `text` under the others.
    #[inline]
    fn new(key: &[u8; 32], nonce: &[u8; 12], text: &[u8]) -> Self {
        let mut pass = Self { bytes: [0; Self::MOST + 64], used: 64 + text.len() };
        let used = &mut pass.bytes[..64 + text.len()];
        used[64..].copy_from_slice(text);
        ChaCha20::new(key.into(), nonce.into()).apply_keystream(used);
        pass
    }

    fn output(&self, length: usize) -> &[u8] {
        &self.bytes[64..64 + length]
    }

    /// The tag of a ciphertext.
    #[inline]
    fn tag(&self, associated: &[u8], ciphertext: &[u8]) -> [u8; 16] {
        let mut mac = Poly1305::new(self.bytes[..32].try_into().expect("32 of 64"));
        mac.update_padded(associated);
        mac.update_padded(ciphertext);
        let mut lengths = [0; 16];
        lengths[..8].copy_from_slice(&(associated.len() as u64).to_le_bytes());
        lengths[8..].copy_from_slice(&(ciphertext.len() as u64).to_le_bytes());
        mac.update_padded(&lengths);
        mac.finalize().into()
    }
}

impl Drop for OnePass {
    fn drop(&mut self) {
        self.bytes[..self.used].fill(0);
        zeroize::optimization_barrier(&self.bytes);
    }
}

/// AES-256-GCM (SP 800-38D §7) of a short row: the hash key, the tag's mask and the key stream in one run of AES, whose
/// code takes several blocks at a time. 350 ns for 256 bytes, against 450 by the crate that does them apart.
struct GcmPass {
    /// `E(0)`, then `E` of the counter blocks 1 (the mask), 2, 3 …
    blocks: [Block<Aes256Enc>; Self::MOST / 16 + 2],
    used: usize,
}

impl GcmPass {
    /// Longer rows go where long blocks are fast.
    const MOST: usize = 448;

    #[inline]
    fn new(key: &[u8; 32], nonce: &[u8; 12], length: usize) -> Self {
        let mut pass =
            Self { blocks: [Block::<Aes256Enc>::default(); Self::MOST / 16 + 2], used: 2 + length.div_ceil(16) };
        let mut counter = [0; 16];
        counter[..12].copy_from_slice(nonce);
        for (block, number) in pass.blocks[1..pass.used].iter_mut().zip(1_u32..) {
            counter[12..].copy_from_slice(&number.to_be_bytes());
            *block = counter.into();
        }
        Aes256Enc::new(key.into()).encrypt_blocks(&mut pass.blocks[..pass.used]);
        pass
    }

    /// Encrypts or decrypts.
    #[inline]
    fn apply(&self, text: &mut [u8]) {
        for (text, stream) in text.chunks_mut(16).zip(&self.blocks[2..]) {
            for (byte, stream) in text.iter_mut().zip(stream) {
                *byte ^= stream;
            }
        }
    }

    /// The tag of a ciphertext.
    #[inline]
    fn tag(&self, associated: &[u8], ciphertext: &[u8]) -> [u8; 16] {
        let mut hash = GHash::new(&self.blocks[0]);
        hash.update_padded(associated);
        hash.update_padded(ciphertext);
        let mut lengths = [0; 16];
        lengths[..8].copy_from_slice(&(8 * associated.len() as u64).to_be_bytes());
        lengths[8..].copy_from_slice(&(8 * ciphertext.len() as u64).to_be_bytes());
        hash.update_padded(&lengths);
        let mut tag: [u8; 16] = hash.finalize().into();
        for (byte, mask) in tag.iter_mut().zip(&self.blocks[1]) {
            *byte ^= mask;
        }
        tag
    }
}

impl Drop for GcmPass {
    fn drop(&mut self) {
        self.blocks[..self.used].fill(Block::<Aes256Enc>::default());
        zeroize::optimization_barrier(&self.blocks);
    }
}
