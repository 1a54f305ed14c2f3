"""`interlane shards`: which engine serves which part of a shared store, and moving it while traffic flows."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import click
from rich import box
from rich.table import Table

from interlane.cli import console
from interlane.cli.failure import STORE, Failure
from interlane.cli.store import StoreOptions, with_store

if TYPE_CHECKING:
    from collections.abc import Callable

    import interlane

PAUSE_SECONDS = 0.1
"""Between two looks at shards that move."""


@click.group()
def shards() -> None:
    """Shows and moves the shards of a PostgreSQL store, and declares losses."""


@shards.command()
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each shard.")
@with_store
def show(store: StoreOptions, as_json: bool) -> None:
    """Lists the shards, with the engine that has each."""
    with _observer(store) as engine:
        listed = engine.shards()
    if as_json:
        for shard in listed:
            click.echo(json.dumps(asdict(shard), ensure_ascii=False))
    else:
        console.out().print(_table(listed))


@shards.command()
@click.argument("numbers", metavar="SHARDS")
@click.option("--to", "engine", required=True, metavar="ENGINE", help="The engine that is to have them.")
@click.option(
    "--wait", default=30.0, show_default=True, metavar="SECONDS", help="How long to wait until it does."
)
@click.option(
    "--force", is_flag=True, help="Take them away at once, from an engine that is gone or idle too."
)
@with_store
def take(store: StoreOptions, numbers: str, engine: str, wait: float, force: bool) -> None:
    """Moves shards ("all", or numbers such as 0-31,40) to an engine.

    The engine that serves a shard gives it up at its next call. One that makes no calls does not: --force
    takes it away, which loses nothing. What that engine is about to send ends as CONFLICT.
    """
    with _observer(store) as observer:
        chosen = _numbers(numbers, len(observer.shards()))
        observer.move_shards(sorted(chosen), engine, force=force)
        _wait(observer, chosen, wait, lambda shard: shard.engine == engine)


@shards.command()
@click.argument("engine")
@click.option(
    "--to", default="", metavar="ENGINE", help="The engine that is to have them. Default: any that comes."
)
@click.option(
    "--wait", default=30.0, show_default=True, metavar="SECONDS", help="How long to wait until it is done."
)
@click.option("--force", is_flag=True, help="Take them away at once.")
@with_store
def drain(store: StoreOptions, engine: str, to: str, wait: float, force: bool) -> None:
    """Moves every shard of an engine away, before it is stopped."""
    if to == engine:
        raise Failure("--to: an engine cannot be drained into itself")
    with _observer(store) as observer:
        had = {shard.number for shard in observer.shards() if shard.engine == engine}
        if not had:
            click.echo(f"{engine} has no shards")
            return
        observer.move_shards(sorted(had), to, force=force)
        _wait(observer, had, wait, lambda shard: shard.engine != engine)


@shards.command()
@click.argument("numbers", metavar="[SHARDS]", required=False)
@click.option(
    "--force",
    is_flag=True,
    help="Also shards of which nothing is known to be missing, and that an engine is said to serve.",
)
@with_store
def declare(store: StoreOptions, numbers: str | None, force: bool) -> None:
    """Gives up the commits that the server of some shards has lost, and lets engines serve them again.

    SHARDS are "all", or numbers such as 0-31,40; left out, those that are known to have gone back (`shards
    show`). What their engines sent since is not known, so no chain is used again: peers get new sessions, or
    answer first; groups get new sender keys. Make new prekeys afterwards (`interlane prekeys --rotate`).

    After a backup was put in the server's place nothing remembers what it lacks: stop the engines, and
    declare all shards with --force before the first one starts.
    """
    with _observer(store) as observer:
        listed = observer.shards()
        if numbers is None:
            chosen = {shard.number for shard in listed if shard.lost_from}
        else:
            chosen = _numbers(numbers, len(listed))
        if not chosen:
            click.echo("no shard is known to have gone back")
            return
        declared = observer.declare_shards(sorted(chosen), force=force)
    click.echo(
        f"{len(chosen):,} shards, {declared.accounts:,} accounts: {declared.peers:,} peers need a new "
        f"session or answer first, {declared.sender_keys:,} sender keys were dropped; make new prekeys"
    )


def _observer(store: StoreOptions) -> interlane.Engine:
    """The store, opened so that nothing is taken from anybody."""
    if "://" not in store.path:
        raise Failure("this store has one owner and no shards: those are PostgreSQL's")
    parts = urlsplit(store.path)
    options = [(name, value) for name, value in parse_qsl(parts.query) if name not in ("shards", "engine")]
    query = urlencode([*options, ("shards", "none")])
    return replace(store, path=urlunsplit(parts._replace(query=query))).open(threads=1)


def _numbers(text: str, count: int) -> set[int]:
    if text == "all":
        return set(range(count))
    chosen: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            numbers = range(int(first), int(last or first) + 1)
        except ValueError:
            numbers = range(0)
        if not numbers or numbers[0] < 0 or numbers[-1] >= count:
            raise Failure(f'{part!r} names no shards: give "all", or numbers below {count} such as 0-31,40')
        chosen.update(numbers)
    return chosen


def _wait(
    observer: interlane.Engine, chosen: set[int], seconds: float, done: Callable[[interlane.Shard], bool]
) -> None:
    """Until these shards are where they are to be."""
    end = time.monotonic() + seconds
    while True:
        left = [shard for shard in observer.shards() if shard.number in chosen and not done(shard)]
        if not left:
            click.echo(f"{len(chosen):,} shards moved")
            return
        if time.monotonic() >= end:
            holders = ", ".join(sorted({shard.engine for shard in left}))
            raise Failure(
                f"{len(left)} of {len(chosen)} shards are still with {holders}, which gives them up "
                "at its next call: wait, or give --force",
                STORE,
            )
        time.sleep(PAUSE_SECONDS)


def _table(listed: list[interlane.Shard]) -> Table:
    """Shards that stand alike, in a row."""
    table = Table(box=box.SIMPLE_HEAD, caption=f"{len(listed):,} shards", caption_justify="left")
    table.add_column("shards", style="cyan")
    table.add_column("engine", style="magenta")
    table.add_column("state")
    for name in ("accounts", "commits"):
        table.add_column(name, justify="right")
    groups: list[list[interlane.Shard]] = []
    for shard in listed:
        if groups and _standing(groups[-1][-1]) == _standing(shard):
            groups[-1].append(shard)
        else:
            groups.append([shard])
    for group in groups:
        first, last = group[0].number, group[-1].number
        engine, state = _standing(group[0])
        accounts = sum(shard.accounts for shard in group)
        commits = sum(shard.version for shard in group)
        numbers = str(first) if first == last else f"{first}-{last}"
        table.add_row(numbers, engine, state, f"{accounts:,}", f"{commits:,}")
    return table


def _standing(shard: interlane.Shard) -> tuple[str, str]:
    if shard.lost_from:
        state = f"went back: {shard.lost_from:,} commits were acknowledged; see shards declare"
    elif shard.wanted is not None:
        state = f"goes to {shard.wanted}" if shard.wanted else "is given up"
    elif shard.serving:
        state = "served"
    else:
        state = "waits for it" if shard.engine else "free"
    return shard.engine, state
