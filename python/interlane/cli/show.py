"""Some of the plaintexts, to look at."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from interlane.cli import console
from interlane.cli.events import BadEvent, Event

if TYPE_CHECKING:
    from interlane.cli.calls import Answer


@dataclass
class Samples:
    """A fair sample of `count` opened texts, whatever their number: each stays with the same chance."""

    count: int
    seen: int = 0
    kept: list[tuple[Event, str]] = field(default_factory=list)
    _random: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - no secret

    def offer(self, event: Event | BadEvent, answer: Answer) -> None:
        if not self.count or isinstance(event, BadEvent) or event.event not in ("frame", "group_frame"):
            return
        text = answer.get("text")
        if not text:
            return
        self.seen += 1
        if len(self.kept) < self.count:
            self.kept.append((event, text))
        elif (at := self._random.randrange(self.seen)) < self.count:
            self.kept[at] = (event, text)

    def print(self) -> None:
        if not self.kept:
            return
        table = Table(
            box=box.SIMPLE_HEAD,
            title=f"{len(self.kept)} of {self.seen:,} opened messages",
            title_justify="left",
        )
        table.add_column("line", justify="right", style="dim")
        table.add_column("from", style="cyan", no_wrap=True)
        table.add_column("to", style="magenta", no_wrap=True)
        table.add_column("message", ratio=1)
        for event, text in sorted(self.kept, key=lambda kept: kept[0].line):
            to = f"group …{_short(event.group)[-6:]}" if event.group else event.account
            # Text, not markup: a stranger's message does not style our terminal, nor do its control
            # characters.
            message = Text("".join(character if character.isprintable() else "·" for character in text))
            table.add_row(str(event.line), _short(event.peer), to, message)
        console.err().print(table)


def _short(address: str) -> str:
    """The user and device of an address; its server says little to a reader."""
    user, _, server = address.partition("@")
    _, colon, device = server.partition(":")
    return user + colon + device if server.startswith(("s.whatsapp.net", "g.us")) else address
