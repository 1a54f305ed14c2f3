"""What durability costs: the stores against the memory store, and against bare SQLite."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter_ns
from typing import Any

import interlane
import pytest
from conftest import Recorder, Sizes, Versus, clock
from interlane import Rows
from linked import PLAINTEXT, Handles, Linked, Packed, accounts, address, bundles, link
from linked import handles as all_handles
from report import ALONE, BARE_WRITES, BYTES, MEMORY_STORE, UPSERTS

BATCH = 1_000
# What a chain's newest key takes in the store: its key, and its body with nonce and tag.
ROW_KEY = 21
ROW_BODY = 105
# What a received row takes of the journal: its chain's newest key, and the seed that is kept until it is
# acknowledged.
RECEIVED_ROW = 108
BARE_FILE_BYTES = 16 << 20
# Of one store that is made once, read many times.
BYTES_SESSIONS = 100_000
OPENED_AT_ONCE = 50_000
OPENINGS = 9
# Of these so many are warmed.
WARMINGS = 3
# A call that answers a few customers, beside calls for everybody.
SMALL_CALL = 100
SMALL_CALLS = 1_000


class Batches:
    """All sessions of a pair, in calls of `BATCH` rows."""

    def __init__(self, pair: Linked) -> None:
        self.pair = pair
        self.packed = Packed.repeated(PLAINTEXT, min(BATCH, pair.rows))
        self.size = len(self.packed.offsets) - 1
        self._starts = range(0, pair.rows, self.size)

    def of(self, handles: Handles) -> Iterator[Handles]:
        return (handles[start : start + self.size] for start in self._starts)

    def send(self) -> list[Rows]:
        pair, packed = self.pair, self.packed
        return [pair.near.encrypt(of, packed.data, packed.offsets) for of in self.of(pair.near_handles)]

    def answer(self) -> list[Rows]:
        pair, packed = self.pair, self.packed
        return [pair.far.encrypt(of, packed.data, packed.offsets) for of in self.of(pair.far_handles)]

    def open_sent(self, sent: list[Rows]) -> None:
        for of, frames in zip(self.of(self.pair.far_handles), sent, strict=True):
            self.check(self.pair.far.decrypt(of, frames.kinds, frames.data, frames.offsets))

    def open_answers(self, answers: list[Rows], *, acknowledge: bool) -> list[Rows]:
        opened = []
        for of, frames in zip(self.of(self.pair.near_handles), answers, strict=True):
            opened.append(self.pair.near.decrypt(of, frames.kinds, frames.data, frames.offsets))
            if acknowledge:
                opened[-1].ack()
        return opened

    def check(self, opened: Rows) -> None:
        assert opened.ok.all()
        assert opened.data.tobytes() == self.packed.data.tobytes()


def sending(batches: Batches) -> tuple[Callable[[], None], Callable[[], int]]:
    """What empties the clock's loop, outside the clock, and the loop."""
    sent = [batches.send()]

    def drain() -> None:
        while sent:
            batches.open_sent(sent.pop())

    def loop() -> int:
        sent.append(batches.send())
        return batches.pair.rows

    return drain, loop


@pytest.fixture
def in_memory(linked: Linked) -> Batches:
    return Batches(linked)


@contextmanager
def in_file(sizes: Sizes, folder: Path, **options: Any) -> Iterator[Batches]:
    with closing(link(sizes.rows, store=folder / "gateway.db", **options)) as pair:
        yield Batches(pair)


@pytest.mark.parametrize("durability", ["strict", "leased"])
def bench_sends(versus: Versus, sizes: Sizes, in_memory: Batches, tmp_path: Path, durability: str) -> None:
    with in_file(sizes, tmp_path, durability=durability) as durable:
        drain, ours = sending(durable)
        drain_memory, theirs = sending(in_memory)

        def prepare() -> None:
            drain()
            drain_memory()

        versus(
            f"store/{durability}",
            MEMORY_STORE,
            rows=sizes.rows,
            batch=durable.size,
            prepare=prepare,
            ours=lambda _: ours(),
            theirs=clock(theirs),
        )
        prepare()


def bench_strict_against_upserts(versus: Versus, sizes: Sizes, tmp_path: Path) -> None:
    """Ours with its crypto; theirs without any: rows of the same size, upserted from Python."""
    with in_file(sizes, tmp_path) as durable, closing(bare(tmp_path / "bare.db")) as connection:
        drain, ours = sending(durable)
        rows = [(os.urandom(ROW_KEY), os.urandom(ROW_BODY)) for _ in range(sizes.rows)]

        def loop() -> int:
            for start in range(0, len(rows), durable.size):
                upsert(connection, rows[start : start + durable.size])
            return len(rows)

        loop()
        versus(
            "store/strict",
            UPSERTS,
            rows=sizes.rows,
            batch=durable.size,
            prepare=drain,
            ours=lambda _: ours(),
            theirs=clock(loop),
        )
        drain()


def bare(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "locking_mode = EXCLUSIVE"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE rows (key BLOB PRIMARY KEY, body BLOB NOT NULL) STRICT, WITHOUT ROWID")
    return connection


def upsert(connection: sqlite3.Connection, rows: list[tuple[bytes, bytes]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        "INSERT INTO rows VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET body = excluded.body", rows
    )
    connection.execute("COMMIT")


def bench_receive(versus: Versus, sizes: Sizes, in_memory: Batches, tmp_path: Path) -> None:
    """Opened, kept until it is acknowledged, and acknowledged."""
    with in_file(sizes, tmp_path, receive_buffer=True) as durable:
        opened: list[tuple[Batches, list[Rows]]] = []
        answers: list[Rows] = []

        def prepare() -> list[Rows]:
            while opened:
                batches, of = opened.pop()
                for rows in of:
                    batches.check(rows)
            answers[:] = in_memory.answer()
            return durable.answer()

        def ours(frames: list[Rows]) -> None:
            opened.append((durable, durable.open_answers(frames, acknowledge=True)))

        def loop() -> int:
            opened.append((in_memory, in_memory.open_answers(answers, acknowledge=False)))
            return sizes.rows

        # A gateway writes over what its journal's files have, as is done beside it. In the first round
        # they grow, and their file system has that to write down too.
        for _ in range(sizes.journal_calls):
            ours(prepare())
        with bare_writes(tmp_path / "bare", durable.size * RECEIVED_ROW) as write:

            def limit() -> float:
                frames = in_memory.answer()

                def loop() -> int:
                    opened.append((in_memory, in_memory.open_answers(frames, acknowledge=False)))
                    for _ in frames:
                        write()
                    return sizes.rows

                return clock(loop)()

            versus(
                "store/receive",
                MEMORY_STORE,
                rows=sizes.rows,
                batch=durable.size,
                prepare=prepare,
                ours=ours,
                theirs=clock(loop),
                limit=(BARE_WRITES, limit),
            )
        prepare()


@contextmanager
def bare_writes(path: Path, size: int) -> Iterator[Callable[[], None]]:
    """Writes so many bytes to a file that is there in whole, round and round, and syncs them."""
    some = os.urandom(size)
    with path.open("wb", buffering=0) as file:
        file.write(os.urandom(BARE_FILE_BYTES))
        os.fsync(file.fileno())
        file.seek(0)

        def write() -> None:
            if file.tell() + size > BARE_FILE_BYTES:
                file.seek(0)
            file.write(some)
            os.fdatasync(file.fileno())

        yield write


def bench_bytes(record: Recorder, sizes: Sizes, tmp_path: Path) -> None:
    """Of a closed store, whose sessions have sent and received."""
    sessions = min(BYTES_SESSIONS, sizes.idle_sessions)
    path = tmp_path / "gateway.db"
    link(sessions, store=path).close()
    record("store/bytes", rows=sessions, ours=path.stat().st_size / sessions, unit=BYTES)


def bench_open_and_warm(record: Recorder, sizes: Sizes, tmp_path: Path) -> None:
    """Opening a store, whatever is in it, and then taking all of its sessions into memory; their handles are
    there. A row's figure is the whole call's."""
    path, sessions = tmp_path / "gateway.db", sizes.idle_sessions
    with interlane.open(":memory:") as far:
        published = bundles(far, OPENED_AT_ONCE)
    with interlane.open(path, key=bytes(32)) as engine:
        for start in range(0, sessions, OPENED_AT_ONCE):
            some = range(start, min(start + OPENED_AT_ONCE, sessions))
            handles = engine.sessions(accounts(engine, len(some)), [address(n) for n in some])
            assert engine.start_sessions(handles, published[: len(some)]).ok.all()
    opened, warmed = [], []
    for opening in range(OPENINGS):
        begun = perf_counter_ns()
        engine = interlane.open(path, key=bytes(32))
        opened.append(perf_counter_ns() - begun)
        if opening < WARMINGS:
            handles = all_handles(engine, sessions)
            begun = perf_counter_ns()
            engine.warm(handles)
            warmed.append(perf_counter_ns() - begun)
            assert engine.stats()["sessions"] == sessions
        engine.close()
    record("open/1000000", rows=sessions, ours=median(opened))
    record("warm/1000000", rows=sessions, ours=median(warmed))


def bench_latency(record: Recorder, linked: Linked) -> None:
    """A small call while another thread makes large ones for other sessions: the hundredth part of the calls
    that waits longest, against the usual call when nobody else is there."""
    small, large = linked.near_handles[:SMALL_CALL], linked.near_handles[SMALL_CALL:]
    few, many = Packed.repeated(PLAINTEXT, len(small)), Packed.repeated(PLAINTEXT, len(large))

    def calls() -> list[int]:
        taken = []
        for _ in range(SMALL_CALLS):
            begun = perf_counter_ns()
            sent = linked.near.encrypt(small, few.data, few.offsets)
            taken.append(perf_counter_ns() - begun)
            assert sent.ok.all()
        return taken

    def busy() -> None:
        while not ended.is_set():
            assert linked.near.encrypt(large, many.data, many.offsets).ok.all()

    alone = median(calls())
    ended = threading.Event()
    other = threading.Thread(target=busy)
    other.start()
    try:
        beside = calls()
    finally:
        ended.set()
        other.join()
    record("latency/p99", rows=SMALL_CALL, ours=quantiles(beside, n=100)[-1], peer=ALONE, theirs=alone)
