"""A random history of one conversation over a bad network, and what each side must make of it.

The network loses, delays, repeats and damages frames. Every frame that it delivers untouched and within the
limits opens exactly once and gives its plaintext; a repeated or damaged one never opens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Self

from .frames import authenticated_bits, flipped, ratchet_key
from .harness import Frame, Peer, Refused

# A receiver keeps five chains, the newest included.
RECEIVING_CHAINS_MAX = 5
PLAINTEXT_BYTES_MAX = 300


@dataclass(frozen=True)
class Traits:
    """What a peer is known to do. The defaults are what is right."""

    duplicate: str | None = None
    """The text with which it refuses a frame that it has opened before; None: any."""
    damage: frozenset[str] = frozenset({"pkmsg", "msg"})
    """The kinds of frame that, damaged, leave it as it was."""
    version: bool = True
    """A message whose version byte was changed is a damaged one to it."""
    stale: bool = True
    """Frames of chains that it has forgotten leave it as it was."""
    crossing: bool = True
    """It keeps its sessions when both sides start, or one again, while frames are under way."""


@dataclass
class Side:
    """One party of a peer process."""

    peer: Peer
    who: str
    traits: Traits = Traits()

    def __post_init__(self) -> None:
        self.peer.party(self.who)

    def start(self, other: Self, *, one_time: bool = True) -> None:
        self.peer.start(self.who, other.who, other.peer.bundle(other.who, one_time=one_time))

    def send(self, other: Self, plaintext: bytes) -> Frame:
        return self.peer.encrypt(self.who, other.who, plaintext)

    def open(self, other: Self, frame: Frame) -> bytes:
        return self.peer.decrypt(self.who, other.who, frame)

    def answer(self, other: Self, frame: Frame) -> bytes | Refused:
        """The plaintext, or why there is none."""
        try:
            return self.open(other, frame)
        except Refused as refused:
            return refused

    def refusal(self, other: Self, frame: Frame) -> str | None:
        """Why the frame is refused; None when it opens."""
        answer = self.answer(other, frame)
        return str(answer) if isinstance(answer, Refused) else None


@dataclass
class _Way:
    """One direction: what is under way, what has been opened, and the chains that the receiver has seen."""

    sender: Side
    receiver: Side
    under_way: list[tuple[Frame, bytes]] = field(default_factory=list)
    opened: list[Frame] = field(default_factory=list)
    chains: list[bytes] = field(default_factory=list)

    def within_limits(self, frame: Frame) -> bool:
        # Counted over all sessions, so never too generous: an archived session keeps its chains for longer.
        return ratchet_key(frame) not in self.chains[:-RECEIVING_CHAINS_MAX]

    def saw(self, frame: Frame) -> None:
        if ratchet_key(frame) not in self.chains:
            self.chains.append(ratchet_key(frame))
        self.opened.append(frame)


class History:
    """``run(steps)`` plays; a departure from what must happen is an AssertionError that names the step."""

    def __init__(
        self, seed: int, one: Side, two: Side, *, crossing: bool = False, reopened: Peer | None = None
    ) -> None:
        """``crossing``: both sides start, and one or the other again, while frames are under way. Where a
        peer's traits say that its sessions do not survive that, refusals are let pass, and a new start by the
        other must repair everything. ``reopened`` is closed and opened again now and then.
        """
        self._random = Random(seed)
        self._ways = (_Way(one, two), _Way(two, one))
        self._crossing = crossing
        self._sure = not crossing or (one.traits.crossing and two.traits.crossing)
        self._reopened = reopened
        self.done: Counter[str] = Counter()

    def run(self, steps: int) -> None:
        self._start(self._ways[0])
        actions: dict[Callable[[_Way], None], int] = {
            self._send: 40,
            self._deliver: 38,
            self._repeat: 6,
            self._lose: 4,
            self._damage: 10,
        }
        if self._crossing:
            self._start(self._ways[1])
            actions[self._start] = 1
        if self._reopened is not None:
            actions[self._reopen] = 6
        for _ in range(steps):
            (action,) = self._random.choices(list(actions), list(actions.values()))
            action(self._random.choice(self._ways))
        for way in self._ways:
            while way.under_way:
                self._hand_over(way, 0)
        if not self._sure:
            self._repair()
        self._converge()

    def _start(self, way: _Way) -> None:
        way.sender.start(way.receiver, one_time=self._random.random() < 0.7)
        self.done["start"] += 1
        self._send(way)

    def _send(self, way: _Way) -> None:
        if not self._has_session(way):
            return
        plaintext = self._random.randbytes(self._random.randrange(PLAINTEXT_BYTES_MAX))
        way.under_way.append((way.sender.send(way.receiver, plaintext), plaintext))
        self.done["send"] += 1

    def _has_session(self, way: _Way) -> bool:
        back = self._ways[1 - self._ways.index(way)]
        return way is self._ways[0] or self._crossing or bool(back.opened)

    def _deliver(self, way: _Way) -> None:
        if way.under_way:
            in_order = self._random.random() < 0.6
            self._hand_over(way, 0 if in_order else self._random.randrange(len(way.under_way)))

    def _hand_over(self, way: _Way, place: int) -> None:
        frame, plaintext = way.under_way.pop(place)
        must_open = self._sure and way.within_limits(frame)
        answer = way.receiver.answer(way.sender, frame)
        if isinstance(answer, Refused):
            assert not must_open, self._told(way, "refused a good frame", str(answer))
            self.done["refused"] += 1
        else:
            assert answer == plaintext, self._told(way, "gave another plaintext", "")
            way.saw(frame)
            self.done["open"] += 1

    def _repeat(self, way: _Way) -> None:
        if not way.opened:
            return
        frame = self._random.choice(way.opened[-40:])
        within_limits = way.within_limits(frame)
        if not (within_limits or way.receiver.traits.stale):
            return
        refusal = way.receiver.refusal(way.sender, frame)
        if refusal is None:
            # A session that does not survive crossing may open a frame again.
            unsure = not (self._sure or way.receiver.traits.crossing)
            assert unsure, self._told(way, "opened a frame twice", "")
            return
        if way.receiver.traits.duplicate is not None and within_limits:
            told = self._told(way, "refused a duplicate as", refusal)
            assert refusal == way.receiver.traits.duplicate, told
        self.done["repeat"] += 1

    def _damage(self, way: _Way) -> None:
        if not way.under_way:
            return
        frame, _ = self._random.choice(way.under_way)
        if frame.kind in way.receiver.traits.damage:
            bits = authenticated_bits(frame, known_session=True)
            if not way.receiver.traits.version:
                bits = bits[bits.index(8) :]
            damaged = Frame(frame.kind, flipped(frame.data, self._random.choice(bits)))
            refusal = way.receiver.refusal(way.sender, damaged)
            assert refusal is not None, self._told(way, "opened a damaged frame", "")
            self.done["damage"] += 1

    def _lose(self, way: _Way) -> None:
        if way.under_way:
            way.under_way.pop(self._random.randrange(len(way.under_way)))
            self.done["lose"] += 1

    def _reopen(self, _: _Way) -> None:
        assert self._reopened is not None
        self._reopened.reopen()
        self.done["reopen"] += 1

    def _repair(self) -> None:
        """A new start by the side whose sessions survive everything."""
        self._sure = True
        (way,) = (way for way in self._ways if way.sender.traits.crossing)
        self._start(way)
        self._hand_over(way, 0)

    def _converge(self) -> None:
        """A few more messages each way, nothing lost: both directions work."""
        for _ in range(2):
            for way in self._ways:
                if self._has_session(way):
                    self._send(way)
                    self._hand_over(way, 0)

    def _told(self, way: _Way, what: str, reason: str) -> str:
        names = f"{way.receiver.peer.name} from {way.sender.peer.name}"
        return f"{names}: {what} {reason} after {sum(self.done.values())} steps {dict(self.done)}"
