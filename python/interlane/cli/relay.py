"""`interlane relay`: gateway events in, answers out, in batches."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from interlane.cli import events
from interlane.cli.calls import Answer, Calls
from interlane.cli.events import BadEvent, Event
from interlane.cli.failure import INTERRUPTED, ROWS_FAILED, Failure
from interlane.cli.journal import Journal, Key, line_of
from interlane.cli.lines import LINE_BYTES_MAX, Line, Lines
from interlane.cli.progress import Progress
from interlane.cli.show import Samples
from interlane.cli.store import StoreOptions, with_store
from interlane.cli.summary import Tally
from interlane.engine import LEASE, LEASE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

STANDARD = "-"
BATCH_MAX = 1_000_000
# Of one account. All is acknowledged after its batch: room for the largest, and for some that a crash left.
BUFFER_BYTES = 512 << 20


@click.command()
@click.argument("source", metavar="[EVENTS]", default=STANDARD)
@click.option(
    "-o", "--output", default=STANDARD, metavar="FILE", help="Where answers go. Default: standard output."
)
@click.option(
    "--journal", metavar="FILE", help="Keeps the answers of a pipe, so that it can be resumed by id."
)
@click.option(
    "--batch", default=1_000, show_default=True, type=click.IntRange(1, BATCH_MAX), help="Lines at once."
)
@click.option(
    "--linger",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0, 60_000),
    metavar="MS",
    help="From a pipe: how long a line may wait for its batch to fill.",
)
@click.option("--threads", type=click.IntRange(1, 1_024), help="Workers of one call. Default: the cores.")
@click.option(
    "--identity-changes",
    type=click.Choice(["accept", "refuse"]),
    default="accept",
    show_default=True,
    help="A peer's new identity key: an event, or a refusal until `trust`.",
)
@click.option(
    "--durability",
    type=click.Choice(["strict", "leased"]),
    default="strict",
    show_default=True,
    help="When sends are written: in each batch, or ahead of it.",
)
@click.option(
    "--lease",
    default=LEASE,
    show_default=True,
    type=click.IntRange(1, LEASE_MAX),
    metavar="N",
    help="Leased: counters that a crash may skip.",
)
@click.option(
    "--resident-sessions",
    type=click.IntRange(1),
    metavar="N",
    help="Sessions in memory, at some 400 bytes each. Default: all that were used.",
)
@click.option("--padding", is_flag=True, help="WhatsApp's message padding, added and removed.")
@click.option(
    "--base64", "plaintexts_as_data", is_flag=True, help="Plaintexts always as `data`, never as `text`."
)
@click.option(
    "--show", default=0, metavar="N", type=click.IntRange(0, 1_000), help="Show N of the plaintexts."
)
@click.option("--strict", is_flag=True, help="Exit with 1 when any line failed.")
@click.option("--quiet", is_flag=True, help="No progress and no summary.")
@with_store
def relay(
    store: StoreOptions,
    source: str,
    output: str,
    journal: str | None,
    batch: int,
    linger: float,
    plaintexts_as_data: bool,
    show: int,
    strict: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Runs gateway events through the engine.

    EVENTS is a file of JSON lines, or - for a pipe (the default). Every line gets one answer, a line of JSON
    with its number and id, in the order of the lines of its batch. docs/relay.md lists the events and
    answers.

    A file with --output FILE can be resumed: run the same command again after it was stopped, killed or
    crashed, and only the lines without an answer are handled. A pipe is resumed by the ids of its events:
    give --output FILE or --journal FILE, and send again what has no answer.
    """
    if journal is not None and output != STANDARD:
        raise Failure("--output FILE is its own journal: give --journal only with answers on standard output")
    tally, samples = Tally(), Samples(show)
    with ExitStack() as stack:
        lines = Lines(stack.enter_context(_input(source)), batch, linger / 1_000)
        kept = journal if output == STANDARD else output
        answers = None
        if kept is not None:
            by_line = source != STANDARD and output != STANDARD
            answers = Journal(Path(kept), _first_line(lines.fd) if by_line else None)
            stack.callback(answers.close)
            tally.answered_before = answers.answered
        engine = stack.enter_context(
            store.open(make=True, receive_buffer=True, buffer_bytes=BUFFER_BYTES, **options)
        )
        stack.enter_context(_stopping(lines))
        progress = stack.enter_context(Progress(lines.size_bytes, quiet=quiet))
        relaying = Relay(
            Calls(engine, plaintexts_as_data=plaintexts_as_data), answers, output == STANDARD, tally, samples
        )
        for gathered in lines.batches():
            relaying.handle(gathered)
            progress.show(lines.consumed_bytes, tally)
        progress.close()
        tally.recovered = relaying.calls.recovered
        if not quiet:
            samples.print()
            tally.print(engine.stats())
    if lines.stop:
        sys.exit(INTERRUPTED)
    if strict and tally.failed:
        sys.exit(ROWS_FAILED)


@dataclass
class Relay:
    """Handles batches of lines: parse, plan, call, journal, answer."""

    calls: Calls
    journal: Journal | None
    to_standard_output: bool
    tally: Tally
    samples: Samples

    def handle(self, gathered: list[Line]) -> None:
        started = time.perf_counter()
        read: dict[int, Event | BadEvent] = {line.number: _parsed(line) for line in gathered}
        keys = {
            number: key for number, event in read.items() if (key := self._key(number, event)) is not None
        }
        fresh = self._fresh(read, keys)
        if fresh:
            self._answer(fresh, keys)
            self.tally.batch(len(fresh), time.perf_counter() - started)
        repeated = [number for number in read if number not in fresh]
        self.tally.repeated += len(repeated)
        if self.to_standard_output and self.journal is not None:
            _write_all(b"".join(self.journal.answer_to(keys[number]) for number in repeated))

    def _key(self, number: int, event: Event | BadEvent) -> Key | None:
        """What the journal knows the line by."""
        if self.journal is None:
            return None
        return number if self.journal.by_line else event.id

    def _fresh(self, read: dict[int, Event | BadEvent], keys: dict[int, Key]) -> dict[int, Event | BadEvent]:
        """The lines that have no answer yet; of two with one id, the first."""
        seen: set[Key] = set()
        fresh = {}
        for number, event in read.items():
            key = keys.get(number)
            if key is not None and self.journal is not None:
                if key in seen or key in self.journal:
                    continue
                seen.add(key)
            fresh[number] = event
        return fresh

    def _answer(self, fresh: dict[int, Event | BadEvent], keys: dict[int, Key]) -> None:
        answers: dict[int, Answer] = {}

        def done(event: Event, answer: Answer) -> None:
            answers[event.line] = answer

        if self.journal is not None and (begun := [keys[number] for number in fresh if number in keys]):
            self.journal.begin(begun)
        for number, event in fresh.items():
            if isinstance(event, BadEvent):
                answers[number] = {"error": str(event)}
        doubted = self.journal.in_doubt if self.journal else frozenset()
        given = [
            replace(event, in_doubt=True) if keys.get(number) in doubted else event
            for number, event in fresh.items()
            if isinstance(event, Event)
        ]
        try:
            self.calls.answer(given, done)
        finally:
            # When the store failed half-way, what was committed before has its answers all the same.
            self._release([(number, fresh[number], answers[number]) for number in fresh if number in answers])

    def _release(self, answered: list[tuple[int, Event | BadEvent, Answer]]) -> None:
        whole = []
        for number, event, answer in answered:
            self.tally.answer(event, answer)
            self.samples.offer(event, answer)
            name = {"event": event.event} if isinstance(event, Event) else {}
            whole.append({"line": number, **({} if event.id is None else {"id": event.id}), **name, **answer})
        written = self.journal.write(whole) if self.journal else b"".join(map(line_of, whole))
        if self.to_standard_output:
            _write_all(written)
        self.calls.acknowledge({number for number, _, _ in answered})


def _parsed(line: Line) -> Event | BadEvent:
    if line.text is None:
        return BadEvent(f"longer than {LINE_BYTES_MAX >> 20} MiB")
    try:
        return events.parse(line.number, line.text)
    except BadEvent as bad:
        return bad


@contextmanager
def _input(source: str) -> Iterator[int]:
    """The file descriptor of a file, or of standard input."""
    if source == STANDARD:
        yield 0
        return
    fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _first_line(fd: int) -> bytes:
    try:
        return os.pread(fd, 1 << 16, 0).partition(b"\n")[0]
    except OSError:
        raise Failure("EVENTS is a pipe: give it as -, on standard input") from None


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


@contextmanager
def _stopping(lines: Lines) -> Iterator[None]:
    """The first SIGINT or SIGTERM ends the relay after its batch: an interrupted one would be done twice."""

    def stop(number: int, _: object) -> None:
        lines.stop = True
        signal.signal(number, before[number])

    signals = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    finally:
        for each in signals:
            signal.signal(each, before[each])
