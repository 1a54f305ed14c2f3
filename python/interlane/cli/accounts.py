"""`interlane account …` and `interlane prekeys`: the identities that a store holds."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.table import Table

import interlane
from interlane.cli import console
from interlane.cli.calls import upload_json
from interlane.cli.failure import Failure
from interlane.cli.store import StoreOptions, with_store


@click.group()
def account() -> None:
    """Makes, lists, imports and deletes accounts."""


@account.command()
@click.argument("name")
@with_store
def create(store: StoreOptions, name: str) -> None:
    """Makes an account with a new identity, and the store with it if there is none."""
    with store.open(make=True) as engine:
        if name in engine.accounts():
            raise Failure(f"the account {name} exists already")
        made = engine.account(name, create=True)
        click.echo(f"made {name}: registration id {made.registration_id}, identity {short(made.identity)}")


@account.command("list")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each.")
@with_store
def list_accounts(store: StoreOptions, as_json: bool) -> None:
    """Lists the accounts."""
    with store.open() as engine:
        accounts = [engine.account(name) for name in engine.accounts()]
        if as_json:
            for one in accounts:
                click.echo(json.dumps(_public_json(one)))
            return
        table = Table(box=box.SIMPLE_HEAD)
        for column in ("account", "registration id", "identity", "one-time prekeys"):
            table.add_column(
                column, overflow="fold", justify="right" if column.endswith(("id", "prekeys")) else "left"
            )
        for one in accounts:
            table.add_row(one.name, str(one.registration_id), short(one.identity), f"{one.stock:,}")
        console.out().print(table)


@account.command("import")
@click.argument("file", type=click.File("rb"))
@with_store
def import_accounts(store: StoreOptions, file: Any) -> None:
    """Moves accounts in, with the private keys that they have elsewhere.

    FILE (or -) is JSON: one account, or {"accounts": [...]}. An account is {"name", "registration_id",
    "identity_private", "signed_prekeys": [{"id", "private", "signature"}], "one_time_prekeys": [{"id",
    "private"}]}, keys in base64, the newest signed prekey last; a signature may be left out. Delete the file
    afterwards.
    """
    given = _read_json(file)
    accounts = given.get("accounts", [given])
    if not isinstance(accounts, list) or not accounts:
        raise Failure("`accounts` must be a list of accounts: see `interlane account import --help`")
    parsed = [_private_account(one, place) for place, one in enumerate(accounts, start=1)]
    with store.open(make=True) as engine:
        present = set(engine.accounts())
        for name, _ in parsed:
            if name in present:
                raise Failure(
                    f"the account {name} exists already: delete it first, or import into another store"
                )
            present.add(name)
        for name, fields in parsed:
            made = engine.import_account(name, **fields)
            click.echo(
                f"imported {name}: identity {short(made.identity)}, {made.stock:,} one-time prekeys", err=True
            )


@account.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_store
def delete(store: StoreOptions, name: str, yes: bool) -> None:
    """Deletes an account: its keys, sessions and sender keys are gone for ever."""
    with store.open() as engine:
        if name not in engine.accounts():
            raise Failure(f"there is no account {name}: `interlane account list` shows those there are")
        if not yes:
            click.confirm(f"Delete {name} with all its keys and sessions?", abort=True, err=True)
        engine.delete_account(name)
    click.echo(f"deleted {name}", err=True)


@click.command()
@click.argument("name", metavar="ACCOUNT")
@click.option(
    "--one-time", default=812, show_default=True, type=click.IntRange(0, 65_536), help="How many to make."
)
@click.option("--rotate", is_flag=True, help="Make a new signed prekey too.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: standard output.")
@with_store
def prekeys(store: StoreOptions, name: str, one_time: int, rotate: bool, output: Path | None) -> None:
    """Makes prekeys, and prints what the chat server is to be given (JSON, keys in base64)."""
    with store.open() as engine:
        try:
            upload = engine.account(name).prekeys(one_time, rotate=rotate)
        except interlane.UnknownAccount:
            raise Failure(
                f"there is no account {name}: `interlane account list` shows those there are"
            ) from None
    text = json.dumps({"account": name, **upload_json(upload)}) + "\n"
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text)


def short(identity: bytes) -> str:
    """Enough of an identity key to tell it from others; its first byte is the type, the same for all."""
    return f"{identity[1:9].hex()}…"


def _public_json(account: interlane.Account) -> dict[str, Any]:
    identity = base64.b64encode(account.identity).decode()
    known = {"account": account.name, "registration_id": account.registration_id}
    return {**known, "identity": identity, "stock": account.stock}


def _read_json(file: Any) -> dict[str, Any]:
    try:
        given = json.load(file)
    except (ValueError, RecursionError):
        raise Failure(f"{file.name} is not JSON: see `interlane account import --help`") from None
    if not isinstance(given, dict):
        raise Failure(f"{file.name} is not a JSON object: see `interlane account import --help`")
    return given


def _private_account(given: Any, place: int) -> tuple[str, dict[str, Any]]:
    """The name, and what `Engine.import_account` takes. The message of a Failure never holds a key."""
    try:
        return given["name"], {
            "identity_private": _key(given["identity_private"]),
            "registration_id": given["registration_id"],
            "signed_prekeys": [_prekey(one) for one in given["signed_prekeys"]],
            "one_time_prekeys": [_prekey(one) for one in given.get("one_time_prekeys", ())],
        }
    except KeyError as missing:
        raise Failure(f"account {place} of the file lacks {missing}") from None
    except (TypeError, AttributeError, binascii.Error, ValueError):
        raise Failure(
            f"account {place} of the file has a field of the wrong kind: keys are texts in base64"
        ) from None


def _prekey(given: dict[str, Any]) -> dict[str, Any]:
    signature = given.get("signature")
    prekey = {"id": given["id"], "private": _key(given["private"])}
    return prekey if signature is None else {**prekey, "signature": _key(signature)}


def _key(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
