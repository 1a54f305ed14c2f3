"""Where tables go. Rich takes 80 columns for what is no terminal; a log has room for whole addresses."""

from __future__ import annotations

from rich.console import Console

LOG_COLUMNS = 110


def out() -> Console:
    return _wide(Console())


def err() -> Console:
    return _wide(Console(stderr=True))


def _wide(console: Console) -> Console:
    if not console.is_terminal:
        console.width = LOG_COLUMNS
    return console
