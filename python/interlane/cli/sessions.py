"""`interlane sessions`: with whom the accounts of a store talk."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import click
from rich import box
from rich.table import Table

from interlane.cli.accounts import short
from interlane.cli.failure import Failure
from interlane.cli.store import StoreOptions, with_store

if TYPE_CHECKING:
    import interlane
from interlane.cli import console


@click.command()
@click.argument("accounts", metavar="[ACCOUNT]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each peer.")
@with_store
def sessions(store: StoreOptions, accounts: tuple[str, ...], as_json: bool) -> None:
    """Lists the peers of these accounts, or of all, with their sessions.

    "waits": our messages carry the session's set-up until the peer has answered. "archived": older sessions,
    kept for late messages.
    """
    with store.open() as engine:
        known = engine.accounts()
        for name in accounts:
            if name not in known:
                raise Failure(f"there is no account {name}: `interlane account list` shows those there are")
        peers = [(name, peer) for name in accounts or known for peer in engine.account(name).peers()]
    if as_json:
        for name, peer in peers:
            click.echo(json.dumps(_peer_json(name, peer), ensure_ascii=False))
    else:
        console.out().print(_table(peers))


def _peer_json(account: str, peer: interlane.Peer) -> dict[str, object]:
    identity = None if peer.identity is None else base64.b64encode(peer.identity).decode()
    state = {"session": peer.session, "pending": peer.pending, "archived": peer.archived}
    return {"account": account, "peer": peer.address, "identity": identity, **state}


def _table(peers: list[tuple[str, interlane.Peer]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, caption=f"{len(peers):,} peers", caption_justify="left")
    table.add_column("account", style="magenta")
    table.add_column("peer", style="cyan")
    table.add_column("identity", style="dim")
    table.add_column("session")
    table.add_column("archived", justify="right")
    for account, peer in peers:
        identity = "" if peer.identity is None else short(peer.identity)
        state = "waits" if peer.pending else "open" if peer.session else "none"
        table.add_row(account, peer.address, identity, state, str(peer.archived or ""))
    return table
