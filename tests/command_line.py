"""Runs `interlane` as a user does: a process of its own, with the interpreter that runs the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TRAFFIC = Path(__file__).resolve().parents[1] / "examples" / "traffic"
COMMAND = [sys.executable, "-m", "interlane.cli"]
SECONDS_MAX = 120


def interlane(
    *arguments: str | Path, given: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """A whole run: `given` is its standard input."""
    return subprocess.run(  # noqa: S603 # our own command
        [*COMMAND, *map(str, arguments)],
        input=given,
        capture_output=True,
        timeout=SECONDS_MAX,
        env=clean_environment() | environment,
        check=False,
    )


def started(*arguments: str | Path) -> subprocess.Popen[bytes]:
    """A run that goes on, with pipes at both ends."""
    return subprocess.Popen(  # noqa: S603 # our own command
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    )


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("INTERLANE_")}


def json_lines(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
