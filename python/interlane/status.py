"""The numbers in a result's columns, by name."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Status(IntEnum):
    """How a row ended."""

    OK = 0
    """The row's output is there and its state is durable."""
    NO_SESSION = 1
    """No session with this peer: fetch a bundle and start one."""
    DUPLICATE = 2
    """This frame's key was used before: the frame was handled already."""
    TOO_FAR_AHEAD = 3
    """The frame is too far ahead of the last one seen."""
    INVALID = 4
    """The frame does not parse, or is not authentic."""
    UNTRUSTED_IDENTITY = 5
    """Authentic, but of another identity than the trusted one, and changes are refused."""
    NO_PREKEY = 6
    """The frame names a prekey that this account does not have (any more)."""
    NO_SENDER_KEY = 7
    """No sender key for this frame: ask the sender to distribute it again."""
    INVALID_BUNDLE = 8
    """The bundle's signature is wrong, or one of its keys is unusable."""
    TOO_LONG = 9
    """The plaintext is longer than 16 MiB less 1 KiB."""
    UNKNOWN_HANDLE = 10
    """The handle was not given out by this engine, or its account is gone."""
    EXHAUSTED = 11
    """The chain has used its last counter: start a new session, or rotate the sender key."""
    REDELIVERED = 12
    """The frame was opened before, its plaintext not acknowledged: here it is again. Nothing has changed."""
    BUFFER_FULL = 13
    """The account's receive buffer is full: acknowledge what was received. Nothing has changed; the frame
    opens when it comes again."""
    BUSY = 14
    """The store cannot be reached, or did not say whether it took the row: nothing has left. Call again."""
    CONFLICT = 15
    """The account's shard is with another engine: nothing has changed here. Call there."""


class Event(IntFlag):
    """What else happened with a row."""

    NEW_SESSION = 1
    """A session was made."""
    IDENTITY_CHANGED = 2
    """The peer's identity key is another one than before: show it to the account's owner."""
    PREKEY_CONSUMED = 4
    """A one-time prekey of ours was used up."""
    STOCK_LOW = 8
    """Few one-time prekeys are left: make and publish more."""


class Kind(IntEnum):
    """What a row's bytes are. On the wire the names are in lower case."""

    NONE = 0
    MSG = 1
    PKMSG = 2
    SKMSG = 3
    SKDM = 4
    """A sender key distribution message; it travels inside pairwise messages."""
