"""Bytes of an idle session, and heap allocations of a row."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Recorder, Sizes
from report import ALLOCATIONS, BYTES, VODOZEMAC

HERE = Path(__file__).resolve().parent
SECONDS_MAX = 3600
# A million of vodozemac's would be gigabytes; a session's size does not depend on their number.
VODOZEMAC_SESSIONS = 20_000
STARTERS = 100_000


@pytest.mark.parametrize(("work", "kind"), [("memory/session", "answerer"), ("memory/pending", "starter")])
def bench_session(
    record: Recorder, sizes: Sizes, capfd: pytest.CaptureFixture[str], work: str, kind: str
) -> None:
    """In a process of its own. The row's figure is bytes."""
    sessions = sizes.idle_sessions if kind == "answerer" else min(STARTERS, sizes.idle_sessions)
    with capfd.disabled():
        ours = idle_sessions(kind, sessions)
        theirs = idle_sessions("vodozemac", VODOZEMAC_SESSIONS) if kind == "answerer" else None
    assert ours["sessions"] >= sessions
    if theirs is None:
        record(work, rows=ours["sessions"], ours=ours["bytes"], unit=BYTES)
    else:
        record(
            work,
            rows=ours["sessions"],
            ours=ours["bytes"],
            unit=BYTES,
            peer=VODOZEMAC,
            theirs=theirs["bytes"],
        )


def bench_allocations(record: Recorder) -> None:
    """How many heap allocations one row more costs: from calls of 1,000 and of 10,000 rows, by a counting
    allocator. It counts the engine, without Python's own."""
    if shutil.which("cargo") is None:
        pytest.skip("the count needs cargo")
    ran = subprocess.run(
        ["cargo", "run", "--release", "--quiet"],  # noqa: S607 - the developer's own
        cwd=HERE / "allocations",
        env={**os.environ, "CARGO_TARGET_DIR": str(HERE.parent / "target")},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    for counted in map(json.loads, ran.stdout.splitlines()):
        record(
            f"allocations/{counted['work']}",
            rows=counted["rows"],
            ours=counted["allocations_per_row"],
            unit=ALLOCATIONS,
        )


def idle_sessions(kind: str, sessions: int) -> dict[str, Any]:
    ran = subprocess.run(  # noqa: S603 - a script of this folder
        [sys.executable, str(HERE / "idle_sessions.py"), kind, str(sessions)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=SECONDS_MAX,
        check=True,
    )
    measured: dict[str, Any] = json.loads(ran.stdout)
    return measured
