//! Where something made of secrets becomes public: a tag that is right or wrong, a public key, a length. Code may branch on
//! it from there on, and on nothing else that secrets are part of.
//!
//! In what ships, [`public`] is nothing. The harnesses of `tests/constant_time` build with `--cfg interlane_secrets`: they
//! mark secrets as undefined memory, follow them through the program, and are told here what to follow no longer.

#[cfg(interlane_secrets)]
use std::sync::OnceLock;

/// What the harness does with bytes (where they begin, how many) that become public.
#[cfg(interlane_secrets)]
pub static HARNESS: OnceLock<fn(*mut u8, usize)> = OnceLock::new();

/// The value, public from here on.
#[cfg(not(interlane_secrets))]
#[inline(always)]
#[must_use]
pub fn public<T: Copy>(value: T) -> T {
    value
}

/// The value, public from here on.
#[cfg(interlane_secrets)]
#[inline(never)]
#[must_use]
pub fn public<T: Copy>(mut value: T) -> T {
    if let Some(told) = HARNESS.get() {
        told((&raw mut value).cast(), size_of::<T>());
    }
    value
}
