"""The PostgreSQL store: a call's rows are at a synchronous standby before its frames are given."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import asyncpg
import postgres
import pytest
from conftest import Sizes, Versus, clock
from interlane import Rows
from linked import PLAINTEXT, Linked, Packed, link
from report import BARE_UPSERT

BATCH = 1_000
SENDING = 7
"""The kind of the rows that a send writes: the fifth byte of their keys."""

BARE = """
    INSERT INTO bare (key, body) SELECT p.key, p.body FROM unnest($1::bytea[], $2::bytea[]) AS p (key, body)
    ON CONFLICT (key) DO UPDATE SET body = excluded.body
"""


@pytest.fixture
def primary() -> Iterator[postgres.Server]:
    with postgres.pair() as (primary, _):
        primary.sql("CREATE DATABASE bench")
        yield primary


class Bare:
    """One connection that upserts the same rows as a send does, prepared, in batches as large."""

    def __init__(self, url: str, rows: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._connection = self._loop.run_until_complete(asyncpg.connect(url))
        self._loop.run_until_complete(self._prepare(rows))

    async def _prepare(self, rows: int) -> None:
        ours = "SELECT key, body FROM interlane.rows WHERE get_byte(key, 4) = $1 ORDER BY random()"
        found = await self._connection.fetch(ours, SENDING)
        assert len(found) == rows
        await self._connection.execute(
            "CREATE TABLE bare (key bytea PRIMARY KEY, body bytea NOT NULL) WITH (fillfactor = 70)"
        )
        batches = [sorted(found[first : first + BATCH]) for first in range(0, rows, BATCH)]
        self._batches = [([key for key, _ in batch], [body for _, body in batch]) for batch in batches]
        self._statement = await self._connection.prepare(BARE)
        self.rows = rows

    def upsert(self) -> int:
        """Writes all rows, each batch a commit."""

        async def write() -> None:
            for keys, bodies in self._batches:
                await self._statement.fetch(keys, bodies)

        self._loop.run_until_complete(write())
        return self.rows

    def check(self) -> None:
        count = self._loop.run_until_complete(self._connection.fetchval("SELECT count(*) FROM bare"))
        assert count == self.rows

    def close(self) -> None:
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()


def bench_postgres(versus: Versus, sizes: Sizes, primary: postgres.Server) -> None:
    """Calls of 1,000 rows over all sessions, against a bare upsert of the rows that they write."""
    url = primary.url("bench")
    ours = link(sizes.rows, store=f"{url}?engine=bench")
    batch = Packed.repeated(PLAINTEXT, min(BATCH, sizes.rows))
    rows = len(batch.offsets) - 1
    bare = Bare(url, sizes.rows)

    def send() -> list[Rows]:
        return [
            ours.near.encrypt(ours.near_handles[first : first + rows], batch.data, batch.offsets)
            for first in range(0, ours.rows, rows)
        ]

    sent: list[list[Rows]] = [send()]
    bare.upsert()
    bare.check()

    def check(of: Linked) -> None:
        while sent:
            for n, frames in enumerate(sent.pop()):
                far_handles = of.far_handles[n * rows : (n + 1) * rows]
                opened = of.far.decrypt(far_handles, frames.kinds, frames.data, frames.offsets)
                assert opened.ok.all()
                assert opened.data.tobytes() == batch.data.tobytes()

    versus(
        "store/postgres",
        BARE_UPSERT,
        rows=sizes.rows,
        batch=rows,
        prepare=lambda: check(ours),
        ours=lambda _: sent.append(send()),
        theirs=clock(bare.upsert),
    )
    check(ours)
    bare.close()
    ours.close()
