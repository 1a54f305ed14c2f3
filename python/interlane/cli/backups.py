"""`interlane backup` and `interlane restore`: copies of a store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click

import interlane
from interlane.cli.failure import Failure
from interlane.cli.store import StoreOptions, with_store


@click.command()
@click.argument("destination", metavar="FILE")
@with_store
def backup(store: StoreOptions, destination: str) -> None:
    """Copies a store to FILE, also while a gateway has it open.

    The copy is sealed: keep the operator's key elsewhere. `interlane restore` puts it back.
    """
    interlane.backup(store.path, destination)
    click.echo(f"{destination}: {Path(destination).stat().st_size:,} bytes")


@click.command()
@click.argument("copy", metavar="[COPY]", required=False)
@click.option("--newest", is_flag=True, help="Nothing was sent since the copy was made: go on where it is.")
@with_store
def restore(store: StoreOptions, copy: str | None, newest: bool) -> None:
    """Puts COPY in the store's place and declares it, or declares the copy that is there.

    What was sent after the copy was made is not in it, so no chain is used again: peers get new sessions, or
    answer first; groups get new sender keys. Make new prekeys afterwards (`interlane prekeys --rotate`).

    --newest is for a store that was stopped and moved: chains go on at the ends of their leases. If anything
    was sent since the copy was made, --newest uses keys twice.
    """
    if copy is not None:
        _put(Path(copy), Path(store.path))
    restored = interlane.restore(store.path, key=store.key, generation=store.generation, newest=newest)
    if newest:
        click.echo(f"{restored.accounts:,} accounts go on where they were")
        return
    click.echo(
        f"{restored.accounts:,} accounts: {restored.peers:,} peers need a new session or answer first, "
        f"{restored.sender_keys:,} sender keys were dropped; make new prekeys"
    )


def _put(copy: Path, store: Path) -> None:
    """Makes the store's file, whole or not at all."""
    for taken in (store, *(Path(f"{store}{suffix}") for suffix in ("-wal", ".journal-0", ".journal-1"))):
        if taken.exists():
            raise Failure(f"{taken} is there: move it away, or leave COPY out to declare the store as it is")
    draft = Path(f"{store}.new")
    shutil.copy(copy, draft)
    draft.chmod(0o600)
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.rename(store)
