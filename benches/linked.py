"""Two engines whose accounts talk to each other: what every bench of sessions starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import interlane
import numpy as np
from interlane import Bundle, Engine, Rows
from numpy.typing import NDArray

MEMORY = ":memory:"
BYTES = 256
PLAINTEXT = bytes(range(256)) * (BYTES // 256)
# Rows of several accounts are mixed in one call, as in a gateway.
ACCOUNTS = 10

Handles = NDArray[np.uint64]


@dataclass(frozen=True)
class Packed:
    """Rows in one buffer, with offsets."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def repeated(cls, row: bytes, rows: int) -> Packed:
        return cls(np.frombuffer(row * rows, dtype=np.uint8), np.arange(rows + 1, dtype=np.int64) * len(row))


@dataclass(frozen=True)
class Linked:
    """Session `n` of `near` and session `n` of `far` are the two ends of one session. Both are acknowledged,
    and `near` has sent on a chain that `far` follows."""

    near: Engine
    far: Engine
    near_handles: Handles
    far_handles: Handles
    plaintexts: Packed

    @property
    def rows(self) -> int:
        return len(self.near_handles)

    def send(self) -> Rows:
        return self.near.encrypt(self.near_handles, self.plaintexts.data, self.plaintexts.offsets)

    def answer(self) -> Rows:
        return self.far.encrypt(self.far_handles, self.plaintexts.data, self.plaintexts.offsets)

    def open_sent(self, sent: Rows) -> Rows:
        return self.far.decrypt(self.far_handles, sent.kinds, sent.data, sent.offsets)

    def open_answer(self, answer: Rows) -> Rows:
        return self.near.decrypt(self.near_handles, answer.kinds, answer.data, answer.offsets)

    def check(self, opened: Rows) -> None:
        """Every row gave the plaintext back."""
        assert opened.ok.all()
        assert np.array_equal(opened.offsets, self.plaintexts.offsets)
        assert np.array_equal(opened.data, self.plaintexts.data)

    def close(self) -> None:
        self.near.close()
        self.far.close()


def link(
    rows: int,
    *,
    store: str | Path = MEMORY,
    threads: int = 1,
    backend: str | None = None,
    **near_options: Any,
) -> Linked:
    """`rows` sessions between `ACCOUNTS` accounts of a near engine, kept in `store`, and as many of a far
    one."""
    key = None if store == MEMORY else bytes(32)
    near = interlane.open(store, key=key, threads=threads, backend=backend, **near_options)
    far = interlane.open(MEMORY, threads=threads, backend=backend)
    linked = Linked(near, far, handles(near, rows), handles(far, rows), Packed.repeated(PLAINTEXT, rows))
    assert near.start_sessions(linked.near_handles, bundles(far, rows)).ok.all()
    linked.check(linked.open_sent(linked.send()))
    linked.check(linked.open_answer(linked.answer()))
    linked.check(linked.open_sent(linked.send()))
    return linked


def handles(engine: Engine, rows: int) -> Handles:
    """Row `n` is account `n % ACCOUNTS` with a peer of its own."""
    return engine.sessions(accounts(engine, rows), [address(n) for n in range(rows)])


def accounts(engine: Engine, rows: int) -> list[interlane.Account]:
    """The account of each row."""
    made = [engine.account(f"account-{n}@bench.example", create=True) for n in range(ACCOUNTS)]
    return [made[n % ACCOUNTS] for n in range(rows)]


def bundles(engine: Engine, rows: int) -> Sequence[Bundle]:
    """Row `n`: a bundle of account `n % ACCOUNTS`, with a one-time prekey of its own."""
    uploads = [account.prekeys(-(-rows // ACCOUNTS)).bundles() for account in accounts(engine, ACCOUNTS)]
    return list(chain.from_iterable(zip(*uploads, strict=True)))[:rows]


def address(n: int) -> str:
    """As long as the addresses of the deployed network are."""
    return f"4915{n:09d}@s.whatsapp.net"
