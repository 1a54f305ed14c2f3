"""Progress of a relay on standard error: a bar for a file, a counter for a pipe, nothing if nobody looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich import progress

from interlane.cli import console

if TYPE_CHECKING:
    from types import TracebackType

    from interlane.cli.summary import Tally


class Progress:
    """A context manager. `size_bytes` is the input's, None for a pipe."""

    def __init__(self, size_bytes: int | None, *, quiet: bool) -> None:
        err = console.err()
        known = [progress.BarColumn(), progress.TaskProgressColumn()] if size_bytes is not None else []
        self._progress = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("[bold]{task.description}"),
            *known,
            progress.TextColumn("{task.fields[lines]:,} lines"),
            progress.TextColumn("[cyan]{task.fields[rate]:,.0f}/s"),
            progress.TimeElapsedColumn(),
            console=err,
            transient=True,
            disable=quiet or not err.is_terminal,
        )
        self._task = self._progress.add_task("relay", total=size_bytes, lines=0, rate=0.0)

    def show(self, consumed_bytes: int, tally: Tally) -> None:
        self._progress.update(
            self._task, completed=consumed_bytes, lines=tally.lines, rate=tally.lines_per_second
        )

    def close(self) -> None:
        self._progress.stop()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
