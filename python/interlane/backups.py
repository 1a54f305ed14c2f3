"""Copies of a store, and what becomes of one that is put in a store's place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import _native
from .keys import operator_key

if TYPE_CHECKING:
    from . import inputs


class Restored(NamedTuple):
    """What a restored store, or shards that were declared, had to give up."""

    accounts: int
    """Accounts in it, or in them."""
    peers: int
    """Peers to whom a row is EXHAUSTED until they answer, or a new session is started."""
    sender_keys: int
    """Our sender keys that were dropped: distribute new ones."""


def backup(path: inputs.Path, destination: inputs.Path) -> None:
    """Copies the store at `path` to the file `destination`, which must not exist.

    The store may be open and busy, in this process or another one: the copy is of some commit meanwhile. It
    is sealed as the store is, and needs the same operator's key, which is not in it. Before it can be opened
    it must be declared, by `restore`.

    Raises `StoreError`.
    """
    _native.backup(Path(os.fsdecode(path)), Path(os.fsdecode(destination)))


def restore(
    path: inputs.Path,
    *,
    key: inputs.KeySource = None,
    generation: inputs.Path | None = None,
    newest: bool = False,
) -> Restored:
    """Declares that the copy which was put at `path` is the store from now on.

    `newest` says that nothing was sent since it was copied, as when a stopped gateway was moved: it goes on
    at the ends of its leases. Otherwise no chain that it could send with is used again, for the key of its
    next message may have been used since: rows to its peers are EXHAUSTED until a new session is started or
    the peer answers, our sender keys are dropped, and prekey ids are left out. Make new prekeys then, with
    `rotate`.

    Raises `StoreError`; until this has succeeded, the store is refused.
    """
    store = Path(os.fsdecode(path))
    second = None if generation is None else Path(os.fsdecode(generation))
    return Restored(*_native.restore(store, operator_key(key, store), second, newest))
