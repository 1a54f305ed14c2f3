"""Lines become few engine calls without a change of what they give.

A call is one verb of the engine over many rows. Lines of different sessions do not touch each other, so a
line may join an earlier call of its verb as long as nothing of its own session (or sender key) comes between:
a batch of ten thousand mixed lines is a handful of calls, where calls of consecutive lines alone would be
thousands.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from interlane.cli.events import Event

# What an event asks of the engine, in order. A distribution that came in a pairwise frame is two rows: the
# second takes what the first one opened.
VERBS: dict[str, tuple[str, ...]] = {
    "account": ("account",),
    "prekeys": ("prekeys",),
    "bundle": ("start",),
    "text": ("encrypt",),
    "frame": ("decrypt",),
    "trust": ("trust",),
    "forget": ("forget",),
    "distribute": ("group_distribute",),
    "distribution": ("group_accept",),
    "group_text": ("group_encrypt",),
    "group_frame": ("group_decrypt",),
    "rotate": ("group_rotate",),
}
# These change what is true for the whole account: nothing is moved across them.
BARRIERS = frozenset({"account", "prekeys"})


@dataclass
class Call:
    """One call of the engine, its rows in the order of their lines."""

    verb: str
    events: list[Event] = field(default_factory=list)


def plan(events: Iterable[Event]) -> list[Call]:
    """The calls, in the order in which they are to be made."""
    calls: list[Call] = []
    by_verb: dict[str, list[int]] = {}
    touched: dict[Hashable, int] = {}  # the last call that touches a key
    floor = 0  # nothing goes before the last barrier
    for event in events:
        at = floor
        for verb in verbs_of(event):
            keys = _keys(verb, event)
            at = _place(calls, by_verb, verb, max([at, *(touched.get(key, 0) for key in keys)]))
            calls[at].events.append(event)
            for key in keys:
                touched[key] = at
            if verb in BARRIERS:
                floor = len(calls)
    return calls


def verbs_of(event: Event) -> tuple[str, ...]:
    if event.event == "distribution" and event.kind:
        return ("decrypt", "group_accept")
    if event.event == "group_text" and event.devices is not None:
        return ("group_fan",)
    return VERBS[event.event]


def _place(calls: list[Call], by_verb: dict[str, list[int]], verb: str, at: int) -> int:
    """The first call of this verb at or after `at`; a new one at the end when there is none."""
    places = by_verb.setdefault(verb, [])
    fitting = bisect_left(places, at)
    if fitting == len(places) or verb in BARRIERS:
        calls.append(Call(verb))
        places.append(len(calls) - 1)
        return places[-1]
    return places[fitting]


def _keys(verb: str, event: Event) -> list[Hashable]:
    """The state that a row reads and writes."""
    if verb in BARRIERS:
        return []
    session, group = ("session", event.account, event.peer), ("group", event.account, event.group)
    match verb:
        case "decrypt" if event.kind == "pkmsg":
            return [session, ("prekeys", event.account)]  # the first of two that name one prekey has it
        case "start" | "encrypt" | "decrypt" | "trust" | "forget":
            return [session]
        case "group_accept" | "group_decrypt":
            return [(*group, event.peer)]
        case "group_fan":
            return [group, *(("session", event.account, device) for device in event.devices or ())]
        case _:
            return [group]
