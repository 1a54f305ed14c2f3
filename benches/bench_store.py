"""Strict durability: every call commits its new states and syncs them before it gives frames."""

from __future__ import annotations

from pathlib import Path

from conftest import Sizes, Versus, clock
from interlane import Rows
from linked import PLAINTEXT, Linked, Packed, link
from report import MEMORY_STORE

BATCH = 1_000


def bench_strict(versus: Versus, linked: Linked, sizes: Sizes, tmp_path: Path) -> None:
    """Calls of 1,000 rows over all sessions, SQLite against the memory store."""
    durable = link(sizes.rows, store=tmp_path / "gateway.db")
    batch = Packed.repeated(PLAINTEXT, min(BATCH, sizes.rows))
    rows = len(batch.offsets) - 1

    def send(of: Linked) -> list[Rows]:
        return [
            of.near.encrypt(of.near_handles[first : first + rows], batch.data, batch.offsets)
            for first in range(0, of.rows, rows)
        ]

    def check(of: Linked, sent: list[Rows]) -> None:
        for n, frames in enumerate(sent):
            far_handles = of.far_handles[n * rows : (n + 1) * rows]
            opened = of.far.decrypt(far_handles, frames.kinds, frames.data, frames.offsets)
            assert opened.ok.all()
            assert opened.data.tobytes() == batch.data.tobytes()

    in_file: list[list[Rows]] = [send(durable)]
    in_memory: list[list[Rows]] = [send(linked)]

    def prepare() -> None:
        while in_file:
            check(durable, in_file.pop())
        while in_memory:
            check(linked, in_memory.pop())

    def ours(_: None) -> None:
        in_file.append(send(durable))

    def loop() -> int:
        in_memory.append(send(linked))
        return linked.rows

    versus(
        "store/strict",
        MEMORY_STORE,
        rows=sizes.rows,
        batch=rows,
        prepare=prepare,
        ours=ours,
        theirs=clock(loop),
    )
    prepare()
    durable.close()
