"""What a relay did, counted while it runs and printed as a table when it ends."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from interlane.cli import console
from interlane.cli.events import BadEvent, Event

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from interlane.cli.calls import Answer

LATENCIES_KEPT = 100_000
BAR_WIDTH = 16
ERROR = "error"

MEANINGS = {
    "OK": "done, and durable before it left",
    "NO_SESSION": "no session: fetch a bundle",
    "DUPLICATE": "came twice: opened before",
    "TOO_FAR_AHEAD": "too many messages missing before it",
    "INVALID": "damaged, forged, or no frame",
    "UNTRUSTED_IDENTITY": "not the trusted identity key",
    "NO_PREKEY": "its prekey is used up",
    "NO_SENDER_KEY": "ask for a distribution",
    "INVALID_BUNDLE": "a bad signature or key",
    "TOO_LONG": "longer than a message can be",
    "UNKNOWN_HANDLE": "its account is gone",
    "EXHAUSTED": "start a new session",
    "REDELIVERED": "opened before, not acknowledged",
    "BUFFER_FULL": "too much is not acknowledged",
    "BUSY": "the store is away: send again",
    "CONFLICT": "with another engine: send there",
    ERROR: "no event: its answer says why",
}


@dataclass
class Tally:
    """Counts of one run. `answered_before`: lines that earlier runs had answered."""

    answered_before: int = 0
    repeated: int = 0
    lines: int = 0
    seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    recovered: int = 0
    latencies_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))

    def answer(self, event: Event | BadEvent, answer: Answer) -> None:
        self.statuses[answer.get("status", ERROR)] += 1
        self.kinds[event.event if isinstance(event, Event) else ERROR] += 1
        self.flags.update(answer.get("events", ()))

    def batch(self, lines: int, seconds: float) -> None:
        self.lines += lines
        self.seconds += seconds
        self.latencies_seconds.append(seconds)

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != "OK")

    @property
    def lines_per_second(self) -> float:
        """While lines were being handled: waiting for a pipe does not count."""
        return self.lines / self.seconds if self.seconds else 0.0

    def print(self, stats: Mapping[str, Any]) -> None:
        parts = [self._statuses(), self._facts(stats)] if self.lines else [self._facts(stats)]
        panel = Panel(Group(*parts), title="[bold]interlane relay", border_style="cyan", expand=False)
        console.err().print(panel)

    def _statuses(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="rows by status", title_justify="left")
        table.add_column("status")
        table.add_column("rows", justify="right")
        table.add_column("", width=BAR_WIDTH, no_wrap=True)
        table.add_column("meaning", style="dim")
        order = [*MEANINGS, *(status for status in self.statuses if status not in MEANINGS)]
        for status in order:
            if count := self.statuses[status]:
                colour = "green" if status == "OK" else "red" if status == ERROR else "yellow"
                filled = Text(bar(count / self.lines), colour)
                table.add_row(Text(status, colour), f"{count:,}", filled, MEANINGS.get(status, ""))
        return table

    def _facts(self, stats: Mapping[str, Any]) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold")
        table.add_column()
        if self.answered_before:
            table.add_row("resumed", f"{self.answered_before:,} lines had their answers already")
        if self.recovered:
            table.add_row(
                "recovered", f"{self.recovered:,} plaintexts that a crash had kept from their answers"
            )
        table.add_row(
            "lines", f"{self.lines:,} handled{_listed(self.kinds)}" if self.lines else "none was left to do"
        )
        if self.flags:
            table.add_row("events", _listed(self.flags).removeprefix(": "))
        if self.lines:
            p50, p99 = percentiles(list(self.latencies_seconds))
            table.add_row("speed", f"{self.lines_per_second:,.0f} messages/s, every answer synced to disk")
            table.add_row(
                "batches", f"{len(self.latencies_seconds):,}: p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms"
            )
        table.add_row("engine", f"backend {stats['backend']}, {stats['threads']} threads")
        sessions = f"{stats['accounts']} accounts, {stats['sessions']:,} sessions in memory"
        table.add_row("store", f"{sessions}, {size(stats['store_bytes'])}")
        return table


def bar(share: float) -> str:
    """A bar of at most BAR_WIDTH characters, in eighths of one; what is not nothing shows."""
    eighths = max(1, round(share * BAR_WIDTH * 8))
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].rstrip()


def percentiles(latencies: Sequence[float]) -> tuple[float, float]:
    """p50 and p99."""
    if len(latencies) == 1:
        return latencies[0], latencies[0]
    cuts = quantiles(latencies, n=100, method="inclusive")
    return cuts[49], cuts[98]


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1_024 or unit == "GiB":
            break
        count /= 1_024
    return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"


def _listed(counts: Counter[str]) -> str:
    return ": " + ", ".join(f"{count:,} {name}" for name, count in counts.most_common()) if counts else ""
