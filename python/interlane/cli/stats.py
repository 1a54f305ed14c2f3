"""`interlane stats` and `interlane backends`: what a store holds, and what this machine runs."""

from __future__ import annotations

import json

import click
from rich.table import Table

import interlane
from interlane.cli import console
from interlane.cli.measured import show_measured
from interlane.cli.store import StoreOptions, with_store
from interlane.cli.summary import size


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@with_store
def stats(store: StoreOptions, as_json: bool) -> None:
    """Numbers about a store, and the engine that this machine opens it with."""
    with store.open() as engine:
        numbers = _numbers(engine)
    if as_json:
        click.echo(json.dumps(numbers))
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in numbers.items():
        shown = value if isinstance(value, str) else size(value) if name.endswith("_bytes") else f"{value:,}"
        table.add_row(name.removesuffix("_bytes").replace("_", " "), shown)
    console.out().print(table)


def _numbers(engine: interlane.Engine) -> dict[str, int | float | str]:
    """Of all accounts together: the engine's own count of sessions is of those that it has loaded."""
    accounts = [engine.account(name) for name in engine.accounts()]
    peers = [peer for account in accounts for peer in account.peers()]
    now = engine.stats()
    return {
        "accounts": len(accounts),
        "peers": len(peers),
        "sessions": sum(peer.session for peer in peers),
        "archived_sessions": sum(peer.archived for peer in peers),
        "one_time_prekeys": sum(account.stock for account in accounts),
        "store_bytes": now["store_bytes"],
        "backend": now["backend"],
        "threads": now["threads"],
        "version": interlane.__version__,
    }


@click.command()
@click.option("--measure", is_flag=True, help="Time every kernel on every backend, which takes seconds.")
def backends(measure: bool) -> None:
    """Lists the backends that are here, and what runs each kernel on them; the star is the one in use.

    INTERLANE_BACKEND chooses another one; to ask for one that is absent is an error.
    """
    current = interlane.backend()
    for name in interlane.backends():
        click.echo(f"{'*' if name == current else ' '} {name}")
        for kernel, runner in interlane.kernels(name):
            click.echo(f"      {kernel:18}{runner}")
    if measure:
        show_measured()
