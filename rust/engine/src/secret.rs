//! The sole owner of single keys.

use std::ops::{Deref, DerefMut};

use interlane_lanes::public;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, optimization_barrier};

/// `N` secret bytes: zeroed when dropped, compared in constant time, never printed, copied only by name.
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Drop for Secret<N> {
    // A whole store and a barrier, instead of `zeroize`'s volatile byte after byte: a tile has thousands of them.
    fn drop(&mut self) {
        self.0 = [0; N];
        optimization_barrier(&self.0);
    }
}

impl<const N: usize> ZeroizeOnDrop for Secret<N> {}

impl<const N: usize> Secret<N> {
    /// Takes the bytes over and zeroes where they were.
    pub fn take(bytes: &mut [u8; N]) -> Self {
        let secret = Self(*bytes);
        *bytes = [0; N];
        optimization_barrier(bytes);
        secret
    }

    /// A copy of `bytes`, which stay the caller's to zero.
    pub fn copy_of(bytes: &[u8; N]) -> Self {
        Self(*bytes)
    }

    /// A second owner of the same key. Not `Clone`: a copy of a key is written where it is made.
    pub fn duplicate(&self) -> Self {
        Self(self.0)
    }

    /// The key itself.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// The key itself, to be written in place.
    pub fn expose_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }
}

impl<const N: usize> Default for Secret<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        public(self.0.ct_eq(&other.0).into())
    }
}

impl<const N: usize> Eq for Secret<N> {}

impl<const N: usize> Serialize for Secret<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Secret<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        let bytes: &[u8; N] = bytes.try_into().map_err(|_| de::Error::invalid_length(bytes.len(), &"a key"))?;
        Ok(Self(*bytes))
    }
}

/// A column of secrets of a tile or a run: as long as it was made, zeroed when dropped.
#[derive(Default)]
pub(crate) struct SecretColumn<const N: usize>(Vec<[u8; N]>);

impl<const N: usize> SecretColumn<N> {
    /// `rows` zeroes.
    pub(crate) fn zeroes(rows: usize) -> Self {
        Self(vec![[0; N]; rows])
    }

    /// Copies of secrets that others own.
    pub(crate) fn copy_of<'a>(secrets: impl ExactSizeIterator<Item = &'a Secret<N>>) -> Self {
        Self(secrets.map(|secret| *secret.expose()).collect())
    }
}

impl<const N: usize> Deref for SecretColumn<N> {
    type Target = [[u8; N]];
    fn deref(&self) -> &[[u8; N]] {
        &self.0
    }
}

impl<const N: usize> DerefMut for SecretColumn<N> {
    fn deref_mut(&mut self) -> &mut [[u8; N]] {
        &mut self.0
    }
}

impl<const N: usize> Drop for SecretColumn<N> {
    fn drop(&mut self) {
        self.0.fill([0; N]);
        optimization_barrier(&self.0[..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_zeroes_the_source() {
        let mut bytes = [7; 32];
        let secret = Secret::take(&mut bytes);
        assert_eq!(bytes, [0; 32]);
        assert_eq!(secret.expose(), &[7; 32]);
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        let short = postcard::to_stdvec(&Secret::<16>::copy_of(&[1; 16])).unwrap();
        assert!(postcard::from_bytes::<Secret<32>>(&short).is_err());
    }
}
