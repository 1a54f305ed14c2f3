//! The engine's best form: graviola's X25519 in its hook for crypto providers. All else stays the engine's own.

use graviola::key_agreement::x25519::{PublicKey, StaticPrivateKey};
use wacore_libsignal::crypto::{CryptoProviderError, GcmInPlaceBuffer, RustCryptoProvider, SignalCryptoProvider};
use wacore_libsignal::crypto::{TransportAead, set_crypto_provider};

type Done = Result<(), CryptoProviderError>;

/// Every later agreement of this process is graviola's.
pub fn install() -> Result<(), &'static str> {
    set_crypto_provider(GraviolaAgreement)
}

struct GraviolaAgreement;

const OWN: RustCryptoProvider = RustCryptoProvider;

impl SignalCryptoProvider for GraviolaAgreement {
    fn x25519_agreement(&self, private: &[u8; 32], public: &[u8; 32]) -> Result<[u8; 32], CryptoProviderError> {
        StaticPrivateKey::from_array(private)
            .diffie_hellman(&PublicKey::from_array(public))
            .map(|shared| shared.0)
            .map_err(|_| CryptoProviderError::BadInput)
    }

    fn aes_256_cbc_encrypt(&self, key: &[u8; 32], iv: &[u8; 16], plaintext: &[u8], out: &mut Vec<u8>) -> Done {
        OWN.aes_256_cbc_encrypt(key, iv, plaintext, out)
    }

    fn aes_256_cbc_decrypt(&self, key: &[u8; 32], iv: &[u8; 16], ciphertext: &[u8], out: &mut Vec<u8>) -> Done {
        OWN.aes_256_cbc_decrypt(key, iv, ciphertext, out)
    }

    fn aes_256_cbc_decrypt_in_place(&self, key: &[u8; 32], iv: &[u8; 16], buffer: &mut Vec<u8>) -> Done {
        OWN.aes_256_cbc_decrypt_in_place(key, iv, buffer)
    }

    fn aes_256_gcm_encrypt(
        &self,
        key: &[u8; 32],
        nonce: &[u8; 12],
        aad: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Done {
        OWN.aes_256_gcm_encrypt(key, nonce, aad, plaintext, out)
    }

    fn aes_256_gcm_decrypt(
        &self,
        key: &[u8; 32],
        nonce: &[u8; 12],
        aad: &[u8],
        ciphertext_with_tag: &[u8],
        out: &mut Vec<u8>,
    ) -> Done {
        OWN.aes_256_gcm_decrypt(key, nonce, aad, ciphertext_with_tag, out)
    }

    fn aes_256_gcm_encrypt_in_place(
        &self,
        key: &[u8; 32],
        nonce: &[u8; 12],
        aad: &[u8],
        buffer: &mut dyn GcmInPlaceBuffer,
    ) -> Done {
        OWN.aes_256_gcm_encrypt_in_place(key, nonce, aad, buffer)
    }

    fn aes_256_gcm_decrypt_in_place(
        &self,
        key: &[u8; 32],
        nonce: &[u8; 12],
        aad: &[u8],
        buffer: &mut dyn GcmInPlaceBuffer,
    ) -> Done {
        OWN.aes_256_gcm_decrypt_in_place(key, nonce, aad, buffer)
    }

    fn transport_aead(&'static self, key: &[u8; 32]) -> Result<Box<dyn TransportAead>, CryptoProviderError> {
        OWN.transport_aead(key)
    }

    fn hmac_sha256(&self, key: &[u8], input: &[u8]) -> [u8; 32] {
        OWN.hmac_sha256(key, input)
    }

    fn hmac_sha256_two_part(&self, key: &[u8], first: &[u8], second: &[u8]) -> [u8; 32] {
        OWN.hmac_sha256_two_part(key, first, second)
    }
}
