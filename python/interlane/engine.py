"""The engine, its accounts and their groups. The calls that carry rows are the extension module's own
methods."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np

from . import _native
from .backups import Restored
from .errors import Error, MalformedCall
from .keys import operator_key
from .packed import Fan, Rows
from .prekeys import Prekey, SignedPrekey, Upload
from .status import Status

if TYPE_CHECKING:
    from . import inputs

MEMORY = ":memory:"
POSTGRES = ("postgresql://", "postgres://")

# Counters of a lease where none are given, and at most: receivers allow a gap of 1,999.
LEASE = 64
LEASE_MAX = 1_900

# The limits of the receive buffer, as rust/engine/src/limits.rs has them with their reasons.
BUFFER_BYTES = 64 << 20
BUFFER_BYTES_MIN = 32 << 20
BUFFER_SECONDS = 30 * 24 * 3_600


def open(
    path: inputs.Path,
    *,
    key: inputs.KeySource = None,
    generation: inputs.Path | None = None,
    threads: int | None = None,
    identity_changes: Literal["accept", "refuse"] = "accept",
    padding: bool = False,
    durability: Literal["strict", "leased"] = "strict",
    lease: int = LEASE,
    receive_buffer: bool = False,
    buffer_bytes: int = BUFFER_BYTES,
    buffer_seconds: int = BUFFER_SECONDS,
    resident_sessions: int | None = None,
    backend: str | None = None,
    _seed: bytes | None = None,
) -> Engine:
    """Opens a store, and makes it where there is none.

    `path` is a file, or ":memory:" for an engine that keeps nothing. A store has one owner: a second opener
    gets a `StoreError`. Engines on several machines share a PostgreSQL database,
    "postgresql://USER@HOST:PORT,HOST2/DATABASE?engine=NAME": docs/operating-postgres.md.

    `key` wraps every account's data key: 32 bytes; "file:PATH" (32 raw bytes or 64 hex digits); "env:NAME"
    (64 hex digits or base64); or a callable that returns 32 bytes, for a KMS. None takes the environment
    variable INTERLANE_KEY if it is set, else the file `<path>.key`, which is made together with the store;
    a shared store has no such file.

    `generation` names a second place for the number by which the store is known to be the newest, on another
    disk or machine; the first is the file `<path>.generation`. A store that is behind either is refused.

    `threads` is the number of workers of one call; None: one a core. `identity_changes`: whether a peer whose
    identity key changed is accepted with an event, or refused with the status UNTRUSTED_IDENTITY. `padding`
    adds and removes WhatsApp's message padding.

    `durability`: with "strict" every call commits its chains before its frames leave. With "leased" the store
    is ahead of each sending chain by up to `lease` counters, sends within write nothing, and after a crash a
    chain skips what was left of its lease. In a shared store, so it does when its account goes to another
    engine, and an engine that was replaced sends for one more second at most.

    `receive_buffer` keeps every plaintext, sealed like all else, in the transaction that spends its key,
    until `Rows.ack` frees it: a frame that comes again gives it again, with the status REDELIVERED. An
    account's buffer holds at most `buffer_bytes` (128 a row, and its plaintext), beyond which frames are
    BUFFER_FULL, and each row for at most `buffer_seconds`.

    `resident_sessions` is how many sessions are kept in memory, at some 400 bytes each (skipped message keys
    and archived sessions come on top); None: all that were used since the store was opened. Beyond it, those
    that were used longest ago are evicted, and loaded again when they are used. Handles stay good, at some 80
    bytes each and the address. A call on more sessions works; it has them all in memory until it returns. Not
    for ":memory:", where nothing can be loaded.

    `backend` is a name from `interlane.backends()`; None: the best, or the one that the environment variable
    INTERLANE_BACKEND names.

    Raises `MalformedCall` for an argument that is wrong, and `StoreError` for a store that is locked,
    damaged, of a newer version, an old copy, or not this key's; `StoreBusy` for one that cannot be reached.
    """
    if identity_changes not in ("accept", "refuse"):
        raise MalformedCall(f'identity_changes: {identity_changes!r}; give "accept" or "refuse"')
    if durability not in ("strict", "leased"):
        raise MalformedCall(f'durability: {durability!r}; give "strict" or "leased"')
    ahead = _number("lease", lease, 1, LEASE_MAX)
    limits = (
        _number("buffer_bytes", buffer_bytes, BUFFER_BYTES_MIN),
        _number("buffer_seconds", buffer_seconds, 1),
    )
    resident = None if resident_sessions is None else _number("resident_sessions", resident_sessions, 1)
    name = os.fsdecode(path)
    url = name if name.startswith(POSTGRES) else None
    if not name or (url is None and "://" in name):
        raise MalformedCall(f'path: {name!r}; give a file\'s path, ":memory:" or "postgresql://…"')
    store = None if name == MEMORY or url is not None else Path(name)
    if generation is not None and store is None:
        raise MalformedCall("generation: only a store in a file has one; leave it away")
    wrapping = None if name == MEMORY else operator_key(key, store)
    return Engine(
        store,
        url,
        wrapping,
        None if generation is None else Path(os.fsdecode(generation)),
        threads,
        identity_changes == "refuse",
        padding,
        ahead if durability == "leased" else None,
        limits if receive_buffer else None,
        resident,
        backend,
        _seed,
    )


def _number(argument: str, value: object, least: int, most: int = (1 << 63) - 1) -> int:
    if not isinstance(value, int) or not least <= value <= most:
        raise MalformedCall(f"{argument}: {value!r}; give a number from {least} to {most}")
    return value


class Engine(_native.Engine):
    """Sessions of many accounts, in columns. Its methods may be called from several threads; calls on
    different sessions run in parallel. A context manager: leaving it closes the store.

    `encrypt`, `decrypt`, `start_sessions` and the `group_` methods take handles, one a row, and give `Rows`.
    """

    __slots__ = ("_distributing",)
    _distributing: dict[int, RLock]

    def __init__(self, *_: object) -> None:
        self._distributing = {}

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def account(self, name: str, *, create: bool = False) -> Account:
        """The account of this name; `create` makes it where there is none.

        Raises `UnknownAccount`.
        """
        return Account(self, name, create)

    def import_account(
        self,
        name: str,
        *,
        identity_private: bytes,
        registration_id: int,
        signed_prekeys: Sequence[Mapping[str, Any]],
        one_time_prekeys: Sequence[Mapping[str, Any]] = (),
    ) -> Account:
        """Makes an account of an identity that exists elsewhere, with raw private keys of 32 bytes.

        A signed prekey is a mapping with `id`, `private` and, where it was published, `signature`; the last
        is the current one. A one-time prekey is a mapping with `id` and `private`. Raises `MalformedCall` if
        the name is taken or a key or id is wrong.
        """
        try:
            signed = [(prekey["id"], prekey["private"], prekey.get("signature")) for prekey in signed_prekeys]
            one_time = [(prekey["id"], prekey["private"]) for prekey in one_time_prekeys]
        except (KeyError, TypeError, AttributeError) as error:
            # The error names a field or a type, no value.
            raise MalformedCall(f"prekeys: {error!r}; give mappings with id and private") from None
        self._import(name, identity_private, registration_id, signed, one_time)
        return Account(self, name, False)

    def shards(self) -> list[Shard]:
        """The shards of a shared store, and which engine has each.

        Raises `MalformedCall` for a store that is not shared.
        """
        return [Shard(*fields) for fields in self._shards()]

    def move_shards(self, shards: Sequence[int], to: str, *, force: bool = False) -> None:
        """Assigns shards to the engine of this name ("": to whichever comes), which may be this one.

        The engine that serves a shard gives it up at its next call. `force` takes it away at once: what that
        engine is about to commit ends as CONFLICT, and none of its frames leave.
        """
        self._move_shards(list(shards), to, force)

    def declare_shards(self, shards: Sequence[int], *, force: bool = False) -> Restored:
        """Declares that what the server has of these shards is the newest state there is, though it had
        acknowledged more: a standby was promoted that lacks commits, or a backup put in the server's place.

        No chain that was stored is used again, as after `restore`: rows to the accounts' peers are EXHAUSTED
        until a new session is started or the peer answers, our sender keys are dropped, and prekey ids are
        left out. Make new prekeys then, with `rotate`. The shards wait for the engines that they are assigned
        to.

        `force`: also shards of which nothing is known to be missing and that an engine is said to serve. It
        is needed after a backup of a busy server was put back, and costs their sessions otherwise.

        Raises `MalformedCall` for a store that is not shared, and for a shard that an engine serves;
        `StoreBusy`, `StoreError`: until this has succeeded, the shards are refused.
        """
        return Restored(*self._declare_shards(list(shards), force))


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of a shared store's accounts, which one engine owns at a time."""

    number: int
    engine: str
    """The engine that it is assigned to; "": none."""
    serving: bool
    """Whether that engine has taken it."""
    wanted: str | None
    """The engine that it is to be handed to, "" where any may have it; None where it stays."""
    epoch: int
    """How often it changed hands. An engine that knows an older epoch can write nothing."""
    version: int
    """How many commits it had."""
    lost_from: int
    """Of a shard whose server has fewer commits than it had acknowledged: how many those were; else 0. It is
    refused until that is declared."""
    accounts: int


@dataclass(frozen=True, slots=True)
class Peer:
    """What an account knows of a peer."""

    address: str
    identity: bytes | None
    """The trusted identity key, 33 bytes."""
    session: bool
    """Whether there is a session."""
    pending: bool
    """Whether the peer has not answered the session that we started."""
    archived: int
    """How many older sessions are kept for late frames."""


class Account(_native.Account):
    """An account of an engine. Peers are named by their addresses; an address names a device."""

    __slots__ = ()

    def prekeys(self, one_time: int = 812, *, rotate: bool = False) -> Upload:
        """Makes one-time prekeys, and a signed prekey where there is none yet or `rotate` says so (X3DH
        §3.2)."""
        registration_id, identity, signed_prekey, prekeys = self._prekeys(one_time, rotate)
        return Upload(
            registration_id,
            identity,
            SignedPrekey(*signed_prekey),
            [Prekey(id, public) for id, public in prekeys],
        )

    def group(self, group_id: str) -> Group:
        """A group, as this account sees it."""
        return Group(self, group_id)

    def peers(self) -> list[Peer]:
        """All peers whose identity this account knows."""
        return [Peer(*fields) for fields in self._peers()]


class Group(_native.Group):
    """A group as one account sees it: its own sender key, and those of the other members."""

    __slots__ = ()

    def distribute(self) -> bytes:
        """The distribution message of our sender key, which is made on first use. It is secret: encrypt it
        pairwise."""
        return self._single(self.account.engine.group_distribute([self.handle]))

    def rotate(self) -> None:
        """Drops our sender key: to be done when a member leaves. The next `distribute` makes another."""
        with self._distributing():
            self._single(self.account.engine.group_rotate([self.handle]))

    @overload
    def encrypt(self, plaintexts: inputs.Data, offsets: inputs.Offsets | None = None, /) -> Rows: ...
    @overload
    def encrypt(self, plaintexts: inputs.Data, *, offsets: inputs.Offsets) -> Rows: ...
    @overload
    def encrypt(
        self,
        plaintexts: bytes,
        devices: Sequence[str],
        *,
        wrap: Callable[[bytes], bytes] | None = None,
    ) -> Fan: ...
    def encrypt(
        self,
        plaintexts: inputs.Data,
        devices: Sequence[str] | inputs.Offsets | None = None,
        *,
        offsets: inputs.Offsets | None = None,
        wrap: Callable[[bytes], bytes] | None = None,
    ) -> Rows | Fan:
        """Encrypts for the group, in one of two ways.

        `encrypt(plaintexts)`: each row with our sender key, which must have been distributed (NO_SENDER_KEY).

        `encrypt(plaintext, devices)`: one plaintext, and our sender key's distribution message, pairwise
        encrypted, for each device that lacks it. `wrap` makes the pairwise plaintext from the distribution
        message. A device whose row failed still lacks the key and is served by the next call.
        """
        if not isinstance(devices, (list, tuple)):
            if wrap is not None:
                raise MalformedCall(
                    "devices: wrap is for the devices that lack our sender key; give their list"
                )
            return self._encrypt(plaintexts, offsets if devices is None else cast("inputs.Offsets", devices))
        if not isinstance(plaintexts, (bytes, bytearray, memoryview)) or offsets is not None:
            raise MalformedCall(
                "plaintexts: with devices there is one message; give it as bytes, without offsets"
            )
        account = self.account
        engine = account.engine
        with self._distributing():
            distribution = self.distribute()
            handles = account.sessions(devices)
            lacking = np.array(engine._group_lacking(self.handle, handles), dtype=np.bool_)
            lack = [device for device, lacks in zip(devices, lacking, strict=True) if lacks]
            handles = handles[lacking]
            pairwise = distribution if wrap is None or not lack else wrap(distribution)
            distributions = engine.encrypt(handles, [pairwise] * len(lack))
            if lack:
                engine._group_holders(self.handle, distribution, handles[distributions.ok])
            message = self._encrypt([plaintexts], None)
        return Fan(message, distributions, lack)

    def _distributing(self) -> RLock:
        """Held while it is decided which devices hold our sender key: a rotation in between would make it
        untrue."""
        return self.account.engine._distributing.setdefault(self.handle, RLock())

    def _single(self, rows: Rows) -> bytes:
        status, _, data, _ = rows[0]
        if status is not Status.OK:
            raise Error(
                f"the sender key of {self!r} is not to be had ({status.name}): open the account again"
            )
        return data
