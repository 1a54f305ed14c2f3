//! How rows and calls end.

use std::ops::{BitOr, BitOrAssign};

/// How one row of a call ended. `INVALID` is one opaque word for everything that can be wrong with a ciphertext
/// (shape, MAC, signature, padding), so that no answer tells an attacker more than "no".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// The row's output is there and its state is durable.
    #[default]
    Ok = 0,
    /// No session with this peer: fetch a bundle and start one.
    NoSession = 1,
    /// This frame's key was used before: the frame was handled already.
    Duplicate = 2,
    /// The frame is more than [`crate::limits::MAX_FORWARD_JUMP`] ahead of the last one seen.
    TooFarAhead = 3,
    /// The frame does not parse, or is not authentic.
    Invalid = 4,
    /// The frame or bundle is authentic, but of another identity than the trusted one, and changes are refused.
    UntrustedIdentity = 5,
    /// The frame names a prekey that this account does not have (any more).
    NoPrekey = 6,
    /// No sender key for this frame: ask the sender to distribute it again.
    NoSenderKey = 7,
    /// The bundle's signature is wrong or one of its keys is unusable.
    InvalidBundle = 8,
    /// The plaintext is longer than [`crate::limits::MAX_PLAINTEXT`].
    TooLong = 9,
    /// The handle was not given out by this engine, or its account is gone.
    UnknownHandle = 10,
    /// The chain has used its last counter: start a new session (or rotate the sender key).
    Exhausted = 11,
    /// The frame was opened before and its plaintext not acknowledged: here it is again. Nothing has changed.
    Redelivered = 12,
    /// The account's receive buffer is full: acknowledge what was received; nothing has changed, and the frame opens
    /// when it is delivered again.
    BufferFull = 13,
    /// The store cannot be reached, or did not say whether it took the row: nothing has left. Call again.
    Busy = 14,
    /// The account's shard is with another engine: nothing has changed here. Call there.
    Conflict = 15,
}

impl Status {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::Ok,
        Self::NoSession,
        Self::Duplicate,
        Self::TooFarAhead,
        Self::Invalid,
        Self::UntrustedIdentity,
        Self::NoPrekey,
        Self::NoSenderKey,
        Self::InvalidBundle,
        Self::TooLong,
        Self::UnknownHandle,
        Self::Exhausted,
        Self::Redelivered,
        Self::BufferFull,
        Self::Busy,
        Self::Conflict,
    ];

    /// Whether a row that ends so was answered by what is known of its session, sender key or prekeys, and changed none
    /// of it.
    pub(crate) fn tells_of_state(self) -> bool {
        match self {
            Self::NoSession
            | Self::Duplicate
            | Self::TooFarAhead
            | Self::Invalid
            | Self::UntrustedIdentity
            | Self::NoPrekey
            | Self::NoSenderKey
            | Self::Exhausted
            | Self::Redelivered
            | Self::BufferFull => true,
            Self::Ok | Self::InvalidBundle | Self::TooLong | Self::UnknownHandle | Self::Busy | Self::Conflict => false,
        }
    }

    /// The name that users see: `"OK"`, `"NO_SESSION"` …
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::NoSession => "NO_SESSION",
            Self::Duplicate => "DUPLICATE",
            Self::TooFarAhead => "TOO_FAR_AHEAD",
            Self::Invalid => "INVALID",
            Self::UntrustedIdentity => "UNTRUSTED_IDENTITY",
            Self::NoPrekey => "NO_PREKEY",
            Self::NoSenderKey => "NO_SENDER_KEY",
            Self::InvalidBundle => "INVALID_BUNDLE",
            Self::TooLong => "TOO_LONG",
            Self::UnknownHandle => "UNKNOWN_HANDLE",
            Self::Exhausted => "EXHAUSTED",
            Self::Redelivered => "REDELIVERED",
            Self::BufferFull => "BUFFER_FULL",
            Self::Busy => "BUSY",
            Self::Conflict => "CONFLICT",
        }
    }
}

/// What else happened with a row: bits of one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(pub u8);

impl Events {
    /// A session was made.
    pub const NEW_SESSION: Self = Self(1);
    /// The peer's identity key is another one than before. DMA interoperability obliges the caller to show it.
    pub const IDENTITY_CHANGED: Self = Self(2);
    /// A one-time prekey of ours was used up.
    pub const PREKEY_CONSUMED: Self = Self(4);
    /// Fewer than [`crate::limits::LOW_STOCK`] one-time prekeys are left: make and publish more.
    pub const STOCK_LOW: Self = Self(8);

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Events {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Events {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Why a whole call failed: it was malformed, or the store did not take it. Nothing has changed and nothing has left.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments do not fit each other.
    #[error("{0}")]
    Malformed(String),
    /// The store could not do it; the text says what to do.
    #[error("{0}")]
    Store(String),
    /// The store cannot be reached now, or did not say whether it took what it was given. Nothing has left,
    /// and the engine reads what is stored before it goes on. A call with rows does not end so: its rows are
    /// [`Status::Busy`].
    #[error("{0}")]
    Busy(String),
    /// The engine was closed.
    #[error("the engine is closed: open it again")]
    Closed,
    /// Something in the engine was not as it must be: the call was given up, and nothing has left.
    #[error(
        "a fault in interlane, please report it with what stands before it: the call was given up, nothing has left"
    )]
    Fault,
    /// This process is a fork of the one that opened the engine.
    #[error("this process was forked after the engine was opened: open an engine in the child, on a store of its own")]
    Forked,
}
