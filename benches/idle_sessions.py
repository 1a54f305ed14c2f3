"""What an idle session takes: `python benches/idle_sessions.py KIND SESSIONS` prints bytes a session.

The figure is the growth of the process's resident set, addresses and the allocator's losses included, divided
by the sessions. Kinds:

- answerer: interlane, memory store; the peer started the session, its first message is opened, none was sent
- starter: interlane, memory store; started from a bundle and not acknowledged
- vodozemac: its sessions in a Python list; answerers, too
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import interlane
import numpy as np
from linked import ACCOUNTS, MEMORY, PLAINTEXT, Packed, accounts, address
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

CHUNK = 10_000
OLM_KEYS_MAX = 50

# Each value says how many sessions were added.
Filling = Iterator[int]


def answerers(held: list[Any]) -> Filling:
    """The senders are dropped chunk by chunk. What they leave of the heap was there before the first reading,
    and the next chunk uses it again."""
    engine = interlane.open(MEMORY, threads=2)
    held.append(engine)
    bundles = [account.prekeys(0).bundle() for account in accounts(engine, ACCOUNTS)] * (CHUNK // ACCOUNTS)
    plaintexts = Packed.repeated(PLAINTEXT, CHUNK)
    for first in range(0, sys.maxsize, CHUNK):
        addresses = [address(n) for n in range(first, first + CHUNK)]
        with interlane.open(MEMORY, threads=2) as senders:
            handles = senders.sessions(accounts(senders, CHUNK), addresses)
            assert senders.start_sessions(handles, bundles).ok.all()
            sent = senders.encrypt(handles, plaintexts.data, plaintexts.offsets)
        handles = engine.sessions(accounts(engine, CHUNK), addresses)
        opened = engine.decrypt(handles, sent.kinds, sent.data, sent.offsets)
        assert opened.ok.all()
        assert np.array_equal(opened.data, plaintexts.data)
        yield CHUNK


def starters(held: list[Any]) -> Filling:
    engine = interlane.open(MEMORY, threads=2)
    with interlane.open(MEMORY, threads=2) as peers:
        published = [account.prekeys(0).bundle() for account in accounts(peers, ACCOUNTS)]
    held.append(engine)
    bundles = published * (CHUNK // ACCOUNTS)
    for first in range(0, sys.maxsize, CHUNK):
        addresses = [address(n) for n in range(first, first + CHUNK)]
        handles = engine.sessions(accounts(engine, CHUNK), addresses)
        assert engine.start_sessions(handles, bundles).ok.all()
        yield CHUNK


def vodozemacs(held: list[Any]) -> Filling:
    import vodozemac

    near, far = vodozemac.Account(), vodozemac.Account()
    while True:
        near.generate_one_time_keys(OLM_KEYS_MAX)
        keys = list(near.one_time_keys.values())
        near.mark_keys_as_published()
        for key in keys:
            sender = far.create_outbound_session(near.curve25519_key, key)
            first = sender.encrypt(PLAINTEXT).to_pre_key()
            assert first is not None
            session, opened = near.create_inbound_session(far.curve25519_key, first)
            assert opened == PLAINTEXT
            held.append(session)
        yield len(keys)


KINDS: dict[str, Callable[[list[Any]], Filling]] = {
    "answerer": answerers,
    "starter": starters,
    "vodozemac": vodozemacs,
}


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure(kind: str, sessions: int) -> dict[str, object]:
    held: list[Any] = []
    filling = KINDS[kind](held)
    # What is there once (code, accounts, buffers of a call) is not a session's.
    sum(islice(filling, 2))
    before, made = resident(), 0
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"idle sessions ({kind})", total=sessions)
        while made < sessions:
            made += next(filling)
            progress.update(task, completed=made)
    return {"kind": kind, "sessions": made, "bytes": (resident() - before) / made}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
