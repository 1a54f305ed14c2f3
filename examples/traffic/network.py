"""A bad network between the customers and the desks: it loses, delays, repeats and damages. Seeded."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

LOST, DELAYED, REPEATED, DAMAGED = 0.015, 0.07, 0.045, 0.045
DELAY_LINES_MAX = 60


@dataclass(frozen=True)
class Item:
    """One event, and the bytes that must come out where a frame goes in."""

    event: dict[str, Any]
    plaintext: bytes | None = None
    sure: bool = False
    late: bool = False

    @property
    def travels(self) -> bool:
        """Only frames cross the bad network; what the desk says and does is at home."""
        return self.event["event"] in ("frame", "group_frame") and not self.sure


def at_the_end(stream: list[Item]) -> list[Item]:
    """Marks a stream that comes when the others have mostly been heard."""
    return [replace(item, late=True) for item in stream]


def deliver(streams: list[list[Item]], rng: random.Random) -> list[Item]:
    """All streams as one, in the order of arrival."""
    arrivals: list[tuple[float, Item]] = []
    for at, item in enumerate(_merged(streams, rng)):
        if not item.travels:
            arrivals.append((at, item))
            continue
        if rng.random() < DAMAGED:
            arrivals.append((at - rng.uniform(0.1, 5), damaged(item, rng)))
        if rng.random() < REPEATED:
            arrivals.append((at + rng.uniform(0.1, DELAY_LINES_MAX), item))
        if rng.random() >= LOST:
            delay = rng.uniform(1, DELAY_LINES_MAX) if rng.random() < DELAYED else 0
            arrivals.append((at + delay, item))
    return [item for _, item in sorted(arrivals, key=lambda arrival: arrival[0])]


def damaged(item: Item, rng: random.Random) -> Item:
    """One flipped bit, or a frame that was cut off."""
    frame = bytearray(base64.b64decode(item.event["frame"]))
    if rng.random() < 0.2:
        del frame[rng.randrange(1, len(frame)) :]
    else:
        frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
    return replace(item, event={**item.event, "frame": base64.b64encode(frame).decode()})


def _merged(streams: list[list[Item]], rng: random.Random) -> list[Item]:
    """Each stream keeps its order; a late one fills the last fifth."""
    placed: list[tuple[float, Item]] = []
    for stream in streams:
        if not stream:
            continue
        low = 0.8 if stream[0].late else rng.uniform(0, 0.25)
        high = 1.0 if len(stream) > 5 else rng.uniform(low + 0.05, 1.0)
        times = sorted(rng.uniform(low, high) for _ in stream)
        placed.extend(zip(times, stream, strict=True))
    return [item for _, item in sorted(placed, key=lambda one: one[0])]
