"""Records the traffic of this folder from deployed peers: ``python examples/traffic/record.py``.

Two desks with fixed test keys are written to (and called) by customers on four deployed implementations, each
a process under ``tests/peers/``. Their frames are collected, sent through a bad network (``network.py``), and
the oracle (``tests/reference.py``) says what each line must give. Written: ``accounts.json`` (what `interlane
account import` takes), ``events.jsonl`` (what `interlane relay` takes) and ``expected.jsonl``.

A recording has one difficulty: the desk that reads it draws its own ratchet keys, other ones at each run, so
a customer who had answered *those* could not be recorded. What can be foreseen is the responder's first
sending chain, whose ratchet key is the desk's signed prekey. The desk's first answer is sent on it here; that
ends the customer's prekey messages, and everything that the customer sends afterwards opens under any later
randomness of the desk. Baileys' engine knows no such chain: its customers hear nothing until the end, and all
of their frames are prekey messages.

The plan is seeded; the frames are not the same in two recordings, since the peers draw their own randomness.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "tests"), str(HERE)]

import network  # noqa: E402
import verdicts  # noqa: E402
from network import Item  # noqa: E402
from peers.harness import Bundle, Frame, Peer  # noqa: E402
from phrases import Writer  # noqa: E402
from reference import KeyPair, PreKeySignalMessage, Session  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = "interlane traffic 1"
DESKS = ("desk@nordlicht.example", "desk@acme.example")
THE_DESK = "desk"  # as customers' devices call it: one of the implementations takes no name with a dot
GROUPS = {DESKS[0]: "120363041112223334@g.us", DESKS[1]: "120363045556667778@g.us"}
PEERS = ("libsignal_client", "baileys", "rust_bridge", "go")
CUSTOMERS_PER_PEER_AND_DESK = 6
GROUP_MEMBERS_PER_PEER_AND_DESK = 2
TAKE_A_FIRST_ANSWER = ("libsignal_client", "rust_bridge", "go")
START_AGAIN = ("libsignal_client", "baileys", "go")  # the fourth keeps the session it has
ONE_TIME_PREKEYS = 60
SIGNED_PREKEYS = 2


def main() -> None:
    rng = seeded(SEED)
    desks = [Desk.made(name, rng) for name in DESKS]
    with ExitStack() as stack:
        peers = {name: stack.enter_context(Peer(name)) for name in PEERS}
        for name, peer in peers.items():
            print(f"{name}: {peer.hello()}", file=sys.stderr)
        streams = [stream for desk in desks for stream in record(desk, peers, rng)]
    events = number(network.deliver(streams, rng), desks, rng)
    expected = verdicts.of(events, [desk.private_json() for desk in desks])
    write(desks, [line for line, _ in events], expected)


# --- A desk: the account that is imported -------------------------------------------------------------------


@dataclass
class Desk:
    """Test keys, drawn from the seed. Newest signed prekey last."""

    name: str
    identity: KeyPair
    registration_id: int
    signed: list[tuple[int, KeyPair, bytes]]
    one_time: list[tuple[int, KeyPair]]
    unused: Iterator[tuple[int, KeyPair]] = field(init=False)

    def __post_init__(self) -> None:
        self.unused = iter(self.one_time)

    @classmethod
    def made(cls, name: str, rng: random.Random) -> Desk:
        identity = KeyPair.of(rng.randbytes(32))
        signed = []
        for id_ in range(1, SIGNED_PREKEYS + 1):
            pair = KeyPair.of(rng.randbytes(32))
            signed.append((id_, pair, identity.sign(pair.public, rng.randbytes(64))))
        one_time = [(id_, KeyPair.of(rng.randbytes(32))) for id_ in range(1, ONE_TIME_PREKEYS + 1)]
        return cls(name, identity, rng.randrange(1, 16_380), signed, one_time)

    def bundle(self, *, one_time: bool = True, signed: int = -1) -> Bundle:
        id_, pair, signature = self.signed[signed]
        prekey = next(self.unused) if one_time else None
        return {
            "registration_id": self.registration_id,
            "device_id": 1,
            "identity": self.identity.public,
            "signed_prekey": {"id": id_, "public": pair.public, "signature": signature},
            "one_time_prekey": None if prekey is None else {"id": prekey[0], "public": prekey[1].public},
        }

    def first_answer(self, first: bytes, text: str) -> Frame:
        """An answer to a customer's first frame, on the responder's first sending chain."""
        message = PreKeySignalMessage.parse(first)
        signed = {id_: pair for id_, pair, _ in self.signed}[message.signed_id]
        one_time = None if message.one_time_id is None else dict(self.one_time)[message.one_time_id]
        frame, _ = Session.respond(self.identity, signed, one_time, message).encrypt(text.encode())
        return Frame("msg", frame)

    def private_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "registration_id": self.registration_id,
            "identity_private": text_of(self.identity.private),
            "signed_prekeys": [
                {"id": id_, "private": text_of(pair.private), "signature": text_of(signature)}
                for id_, pair, signature in self.signed
            ],
            "one_time_prekeys": [
                {"id": id_, "private": text_of(pair.private)} for id_, pair in self.one_time
            ],
        }


# --- What customers do --------------------------------------------------------------------------------------


@dataclass
class Customer:
    """One device of one person, on one deployed implementation, writing to one desk."""

    peer: Peer
    who: str
    address: str
    desk: Desk
    writer: Writer
    stream: list[Item] = field(default_factory=list)

    def start(self, bundle: Bundle) -> None:
        self.peer.party(self.who)
        self.peer.start(self.who, THE_DESK, bundle)

    def frame(self, text: str) -> Item:
        """A message that was encrypted but is not yet on its way."""
        made = self.peer.encrypt(self.who, THE_DESK, text.encode())
        event = {"event": "frame", **self._address, "kind": made.kind, "frame": text_of(made.data)}
        return Item(event, text.encode())

    def opens(self) -> None:
        """A first frame that does arrive: without it nothing of this customer could be opened."""
        self.stream.append(replace(self.frame(self.writer.opening()), sure=True))

    def says(self, text: str) -> None:
        self.stream.append(self.frame(text))

    def is_answered(self) -> None:
        """The desk's first answer reaches the customer: its frames are plain messages from here on."""
        first = next(item for item in reversed(self.stream) if item.event.get("kind") == "pkmsg")
        text = self.writer.desk()
        self.hears(text)
        if self.peer.name not in TAKE_A_FIRST_ANSWER:
            return
        frame = base64.b64decode(first.event["frame"])
        self.peer.decrypt(self.who, THE_DESK, self.desk.first_answer(frame, text))

    def hears(self, text: str) -> None:
        self.stream.append(Item({"event": "text", **self._address, "text": text}))

    def talks(self, count: int) -> None:
        rng = self.writer.random
        for _ in range(count):
            self.says(self.writer.middle())
            if rng.random() < 0.15:
                self.hears(self.writer.desk())

    def converses(self, count: int) -> None:
        rng = self.writer.random
        self.opens()
        for _ in range(rng.randrange(3)):
            self.says(self.writer.middle())
        self.is_answered()
        self.talks(count)
        self.says(self.writer.closing())

    def distributes(self, group: str) -> None:
        """The sender key, inside a pairwise frame; the relay opens that and accepts what is in it."""
        made = self.peer.encrypt(self.who, THE_DESK, self.peer.group_distribute(self.who, group))
        where = {**self._address, "group": group}
        event = {"event": "distribution", **where, "kind": made.kind, "frame": text_of(made.data)}
        self.stream.append(Item(event, b""))

    def says_to(self, group: str, text: str) -> None:
        frame = self.peer.group_encrypt(self.who, group, text.encode())
        event = {"event": "group_frame", **self._address, "group": group, "frame": text_of(frame)}
        self.stream.append(Item(event, text.encode()))

    @property
    def _address(self) -> dict[str, str]:
        return {"account": self.desk.name, "peer": self.address}


def record(desk: Desk, peers: dict[str, Peer], rng: random.Random) -> Iterator[list[Item]]:
    """The streams of one desk: within one, things happen in order."""
    telephone = iter(rng.sample(range(4_915_550_100_000, 4_915_550_199_999), 500))

    def customer(peer: Peer, device: int = 0) -> Customer:
        number = next(telephone)
        address = f"{number}@s.whatsapp.net" + (f":{device}" if device else "")
        return Customer(peer, f"{number}-{device}", address, desk, Writer(seeded(rng.random())))

    members: list[str] = []
    for name, peer in peers.items():
        for place in range(CUSTOMERS_PER_PEER_AND_DESK):
            one = customer(peer, device=place % 3)
            one.start(desk.bundle(one_time=place != 1, signed=-1 if place else 0))
            if place < GROUP_MEMBERS_PER_PEER_AND_DESK and "group" in peer.hello()["can"]:
                group_life(one, GROUPS[desk.name])
                members.append(one.address)
            else:
                one.converses(rng.randrange(30, 45))
            if place == 4 and name in START_AGAIN:
                starts_again(one)
            if place == 5:
                reinstalled(one)
            yield one.stream
        yield second_user_of_a_prekey(customer(peer), customer(peer))
        yield never_answered(customer(peer))
        yield called_by_the_desk(customer(peer))
    yield jumped_too_far(customer(peers["go"]))
    yield called_by_the_desk(customer(peers["baileys"]), damaged_bundle=True)
    yield desk_writes_to_group(desk, members, rng)


def group_life(one: Customer, group: str) -> None:
    """A member: distributes, writes, leaves with the old sender key and writes on with the next."""
    one.opens()
    one.is_answered()
    for _ in range(2):
        one.distributes(group)
        for _ in range(28):
            one.says_to(group, one.writer.group())
            if one.writer.random.random() < 0.25:
                one.says(one.writer.middle())
        one.peer.group_rotate(one.who, group)


def starts_again(one: Customer) -> None:
    """A second session with the same identity; three frames of the first one arrive after it began."""
    late = [one.frame(one.writer.middle()) for _ in range(3)]
    one.start(one.desk.bundle())
    one.converses(6)
    one.stream.extend(late)
    one.talks(3)


def reinstalled(one: Customer) -> None:
    """The same address with another identity key: an event that the desk must see."""
    again = Customer(one.peer, one.who + "-reinstalled", one.address, one.desk, one.writer, one.stream)
    again.start(again.desk.bundle())
    again.converses(8)


def second_user_of_a_prekey(first: Customer, second: Customer) -> list[Item]:
    """A server that hands out a one-time prekey twice: the second who uses it is refused."""
    bundle = first.desk.bundle()
    for one in (first, second):
        one.start(bundle)
        one.opens()
        one.says(one.writer.middle())
    return first.stream + second.stream


def never_answered(one: Customer) -> list[Item]:
    """Every frame stays a prekey message."""
    one.start(one.desk.bundle())
    one.opens()
    for _ in range(7):
        one.says(one.writer.middle())
    return one.stream


def called_by_the_desk(one: Customer, *, damaged_bundle: bool = False) -> list[Item]:
    """The desk starts the session."""
    one.peer.party(one.who)
    bundle = encoded(one.peer.bundle(one.who))
    if damaged_bundle:
        signature = bytearray(base64.b64decode(bundle["signed_prekey"]["signature"]))
        signature[7] ^= 0x10
        bundle["signed_prekey"]["signature"] = text_of(bytes(signature))
    where = {"account": one.desk.name, "peer": one.address}
    one.stream.append(Item({"event": "bundle", **where, "bundle": bundle}))
    for _ in range(3):
        one.hears(one.writer.desk())
    return one.stream


def jumped_too_far(one: Customer) -> list[Item]:
    """2,001 messages are lost in one piece: one more than a chain may be jumped over by."""
    one.start(one.desk.bundle())
    one.opens()
    one.is_answered()
    lost = [one.frame(one.writer.middle()) for _ in range(2_002)]
    one.stream.append(lost[-1])  # counter 2002, expected 1
    one.stream.append(lost[-3])  # counter 2000: the furthest jump there is
    one.talks(2)
    return one.stream


def desk_writes_to_group(desk: Desk, members: list[str], rng: random.Random) -> list[Item]:
    writer = Writer(rng)
    where = {"account": desk.name, "group": GROUPS[desk.name]}
    stream = [Item({"event": "group_text", **where, "text": writer.group()})]  # no sender key yet
    stream.append(Item({"event": "distribute", **where}))
    for round_ in range(2):
        stream.append(Item({"event": "group_text", **where, "text": writer.group(), "devices": members[:-1]}))
        stream.extend(Item({"event": "group_text", **where, "text": writer.group()}) for _ in range(4))
        stream.append(Item({"event": "group_text", **where, "text": writer.group(), "devices": members}))
        if round_ == 0:
            stream.append(Item({"event": "rotate", **where}))
    return network.at_the_end(stream)


# --- The files ----------------------------------------------------------------------------------------------

BAD_LINES = (
    '{"event":"frame","account":"desk@acme.example","peer":"4915550100001@s.whatsapp.net","kind":"msg","frame":"MwohB',
    '{"event":"frame","account":"desk@acme.example","kind":"msg","frame":"MwohBQ=="}',
    '{"event":"frame","account":"desk@acme.example","peer":"4915550100001@s.whatsapp.net","kind":"msg","frame":"***"}',
    '{"event":"frame","account":"nobody@acme.example","peer":"4915550100001@s.whatsapp.net","kind":"msg","frame":"Mw=="}',
    '{"event":"postcard","account":"desk@acme.example"}',
    '["not","an","event"]',
    "PING",
)


def number(items: list[Item], desks: list[Desk], rng: random.Random) -> list[tuple[str, Item | None]]:
    """Lines with ids, the two accounts first, and some that are no events (None) among them."""
    items = [Item({"event": "account", "account": desk.name}) for desk in desks] + items
    lines: list[tuple[str, Item | None]] = [
        (json.dumps({"id": f"e{at}", **item.event}, ensure_ascii=False, separators=(",", ":")), item)
        for at, item in enumerate(items, start=1)
    ]
    for bad in BAD_LINES:
        lines.insert(rng.randrange(len(desks), len(lines)), (bad, None))
    return lines


def write(desks: list[Desk], lines: list[str], expected: list[dict[str, Any]]) -> None:
    warning = "TEST KEYS. They are published in interlane's repository: never use them for anything real."
    accounts = {"warning": warning, "accounts": [desk.private_json() for desk in desks]}
    (HERE / "accounts.json").write_text(json.dumps(accounts, indent=1) + "\n")
    (HERE / "events.jsonl").write_text("".join(line + "\n" for line in lines))
    rows = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in expected]
    (HERE / "expected.jsonl").write_text("".join(row + "\n" for row in rows))
    digest = hashlib.sha256((HERE / "events.jsonl").read_bytes()).hexdigest()
    print(verdicts.summary(lines, expected), f"events.jsonl sha256 {digest}", sep="\n", file=sys.stderr)


def seeded(seed: str | float) -> random.Random:
    return random.Random(seed)  # noqa: S311 # a plan that can be made again, and keys that are public anyway


def encoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return text_of(value)
    if isinstance(value, dict):
        return {key: encoded(item) for key, item in value.items()}
    return value


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


if __name__ == "__main__":
    main()
