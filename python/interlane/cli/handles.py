"""Handles for lines: each session and sender key is asked for once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

import interlane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from interlane.cli.events import Event

HANDLES_MAX = 1_000_000
Column = np.ndarray[Any, np.dtype[np.uint64]]
T = TypeVar("T")
U = TypeVar("U")


class Place(NamedTuple):
    """What a handle stands for. In a group, `peer` is the sender; our own sender key has none."""

    account: str
    peer: str | None
    group: str | None = None

    @classmethod
    def of(cls, verb: str, event: Event) -> Place:
        if verb in ("group_accept", "group_decrypt"):
            return cls(event.account, event.peer, event.group)
        if verb.startswith("group_"):
            return cls(event.account, None, event.group)
        return cls(event.account, event.peer)


class Handles:
    """The engine's handles, by place; forgotten all at once when there are very many."""

    def __init__(self, engine: interlane.Engine) -> None:
        self._engine = engine
        self._handles: dict[Place, int] = {}

    def of(self, places: Sequence[Place]) -> list[int | str]:
        """A handle for each place, or a line that says why there is none. All are of groups, or none is."""
        if len(self._handles) > HANDLES_MAX:
            self._handles.clear()
        missing = [place for place in dict.fromkeys(places) if place not in self._handles]
        known = {account: self._has(account) for account in {place.account for place in missing}}
        errors = {place: no_account(place.account) for place in missing if not known[place.account]}
        for some, handles in each([place for place in missing if known[place.account]], self._ask):
            if isinstance(handles, str):
                errors.update(dict.fromkeys(some, handles))
            else:
                self._handles.update(zip(some, handles.tolist(), strict=True))
        return [errors.get(place) or self._handles[place] for place in places]

    def _has(self, account: str) -> bool:
        try:
            self._engine.account(account)
        except interlane.UnknownAccount:
            return False
        return True

    def _ask(self, places: Sequence[Place]) -> Column:
        accounts = [place.account for place in places]
        if places[0].group is None:
            return self._engine.sessions(accounts, [str(place.peer) for place in places])
        groups = [str(place.group) for place in places]
        return self._engine.groups(accounts, groups, [place.peer for place in places])


def no_account(name: str) -> str:
    return f"there is no account {name}: send an `account` event first, or import it"


def each(items: Sequence[T], call: Callable[[Sequence[T]], U]) -> Iterator[tuple[Sequence[T], U | str]]:
    """One call for all; if the engine finds it malformed, one for each: only the bad item has an error."""
    if not items:
        return
    try:
        yield items, call(items)
    except interlane.MalformedCall as malformed:
        if len(items) == 1:
            yield items, str(malformed)
            return
        for item in items:
            yield from each([item], call)
