"""The store that a command works on: the options that name it, and its opening."""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

import interlane
from interlane.cli.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R")


@dataclass(frozen=True)
class StoreOptions:
    """What the options of `with_store` said."""

    path: str
    key: str | None
    generation: str | None

    def open(self, *, make: bool = False, **options: Any) -> interlane.Engine:
        """The engine. Only what puts something into a store makes one: a mistyped path is an error."""
        if not make and self.path != ":memory:" and "://" not in self.path and not Path(self.path).exists():
            raise Failure(
                f"there is no store at {self.path}: check --store, or make an account with `account create`"
            )
        return interlane.open(self.path, key=self.key, generation=self.generation, **options)


def with_store(command: Callable[..., R]) -> Callable[..., R]:
    """Gives a command --store, --key and --generation; it takes `store: StoreOptions`. To be innermost."""

    @click.option(
        "--store",
        "path",
        envvar="INTERLANE_STORE",
        metavar="PATH",
        help="The SQLite file, or postgresql://…. [INTERLANE_STORE]",
    )
    @click.option(
        "--key",
        metavar="KEY",
        help="The operator's key: file:PATH or env:NAME. Default: INTERLANE_KEY, or else the file PATH.key.",
    )
    @click.option(
        "--generation",
        envvar="INTERLANE_GENERATION",
        metavar="PATH",
        help="A second place for the store's generation: an old copy is refused. [INTERLANE_GENERATION]",
    )
    @wraps(command)
    def wrapped(path: str | None, key: str | None, generation: str | None, **others: Any) -> R:
        if not path:
            raise Failure("which store? Give --store PATH or set INTERLANE_STORE")
        if key is not None and not key.startswith(("file:", "env:")):
            raise Failure(
                "--key takes file:PATH or env:NAME; a key on the command line could be seen by others"
            )
        return command(store=StoreOptions(path, key, generation), **others)

    return wrapped
