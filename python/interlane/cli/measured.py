"""What `interlane backends --measure` shows: how long each kernel takes on each backend of this machine."""

from __future__ import annotations

from rich import box, progress
from rich.table import Table

from interlane._native import backend, backends, measure, works
from interlane.cli import console

ROUNDS = 9


def show_measured() -> None:
    """The table on standard output, a bar on standard error while it is made."""
    names = backends()
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("kernel")
    for name in names:
        table.add_column(f"* {name}" if name == backend() else name, justify="right")
    err = console.err()
    with progress.Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        for work in bar.track(works(), description="measure"):
            table.add_row(work, *(figure(ns) for ns in measured(work, names)))
    console.out().print("Nanoseconds a row of a large call; of sha256/compression, a block:", table)


def measured(work: str, names: list[str]) -> list[float]:
    """The least of the rounds, to which other programs only add. The backends take turns."""
    rounds = [[measure(work, name) for name in names] for _ in range(ROUNDS)]
    return [min(samples) for samples in zip(*rounds, strict=True)]


def figure(ns: float) -> str:
    return f"{ns:,.1f}" if ns < 100 else f"{ns:,.0f}"
