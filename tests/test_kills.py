"""A busy gateway is killed (SIGKILL) at random moments, over and over. Whatever the moment: no key is used
twice, no chain skips more than its mode allows, and no plaintext is lost.

`make test` kills a few dozen times, `make chaos` thousands of times: INTERLANE_KILLS is the number for each
test, INTERLANE_SEED what chooses the moments.
"""

# ruff: noqa: S603 - the commands are this file's own

from __future__ import annotations

import base64
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import interlane
import pytest
from conftest import LivePeers
from interlane import Status
from peers.harness import Frame, Peer
from test_store import KEY, place

KILLS = int(os.environ.get("INTERLANE_KILLS", "15"))
SEED = int(os.environ.get("INTERLANE_SEED", "1"))
SESSIONS = 6
BELLS = [f"bell-{i}" for i in range(SESSIONS)]
GROUP = "1203630@g.us"
LEASE = 64
# A call of the gateway has at most so many rows for one chain.
ROWS_MAX = 3
FAR_ENDS = ["interlane", "go", "libsignal_client"]


# --- The gateway: a process that is forked, so that a kill costs milliseconds -------------------------------


def encoded(rows: interlane.Rows) -> list[list[Any]]:
    return [[row.status.name, row.kind, base64.b64encode(row.data).decode()] for row in rows]


def say(**fields: object) -> None:
    """What was said has left: the line is whole, or it was never said."""
    os.write(1, json.dumps(fields).encode() + b"\n")


def gateway(path: str, durability: Any, inbox: str) -> None:
    engine = interlane.open(path, key=KEY, threads=2, durability=durability, lease=LEASE, receive_buffer=True)
    desk = engine.account("desk")
    group = desk.group(GROUP)
    source = random.Random(os.getpid())
    waiting = [json.loads(line) for line in Path(inbox).read_text().splitlines()]
    say(sent=[[*BELLS], encoded(desk.encrypt(BELLS, [b"begin"] * SESSIONS))])
    say(group=encoded(group.encrypt([b"begin"])))
    while True:
        count = source.randint(1, 3)
        part, waiting = waiting[:count], waiting[count:]
        if part:
            peers = [one["peer"] for one in part]
            frames = [base64.b64decode(one["frame"]) for one in part]
            got = desk.decrypt(peers, [one["kind"] for one in part], frames)
            say(got=[[one["id"], *row] for one, row in zip(part, encoded(got), strict=True)])
            got.ack()
        peers = [source.choice(BELLS) for _ in range(source.randint(1, ROWS_MAX))]
        say(sent=[peers, encoded(desk.encrypt(peers, [b"text"] * len(peers)))])
        if source.random() < 0.3:
            say(group=encoded(group.encrypt([b"text"] * source.randint(1, ROWS_MAX))))
        if source.random() < 0.1:
            desk.prekeys(5)


def nursery() -> None:
    """Forks a gateway for each line that it reads, and says its process id first."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            say(pid=os.getpid())
            gateway(*json.loads(line))
        _, ended = os.waitpid(child, 0)
        # What was cut off by the kill is a line of its own.
        os.write(1, b"\n")
        say(ended=os.waitstatus_to_exitcode(ended))


# --- The far end --------------------------------------------------------------------------------------------


class Ours:
    """The bells in an engine of this process."""

    def __init__(self) -> None:
        self.engine = interlane.open(":memory:", threads=1)
        self.bell = self.engine.account("bell", create=True)
        self.places = {name: f"desk of {name}" for name in BELLS}

    def bundles(self) -> list[Any]:
        return list(self.bell.prekeys(SESSIONS).bundles())

    def open(self, peer: str, kind: str, frame: bytes) -> bytes:
        row = self.bell.decrypt([self.places[peer]], kind, [frame])[0]
        assert row.status is Status.OK, row
        return row.data

    def answer(self, peer: str, text: bytes) -> tuple[str, bytes]:
        row = self.bell.encrypt([self.places[peer]], [text])[0]
        return row.kind, row.data

    def accept(self, distribution: bytes) -> None:
        assert self.bell.group(GROUP).accept(["desk"], [distribution]).ok.all()

    def open_group(self, frame: bytes) -> bytes:
        row = self.bell.group(GROUP).decrypt(["desk"], [frame])[0]
        assert row.status is Status.OK, row
        return row.data


class Theirs:
    """The bells in a deployed implementation, a process of its own."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.run = os.urandom(4).hex()
        for name in BELLS:
            peer.party(self.who(name))

    def who(self, name: str) -> str:
        return f"{name}-{self.run}"

    def bundles(self) -> list[Any]:
        return [interlane.Bundle.from_dict({**self.peer.bundle(self.who(name))}) for name in BELLS]

    def open(self, peer: str, kind: str, frame: bytes) -> bytes:
        return self.peer.decrypt(self.who(peer), "desk", Frame(kind, frame))

    def answer(self, peer: str, text: bytes) -> tuple[str, bytes]:
        frame = self.peer.encrypt(self.who(peer), "desk", text)
        return frame.kind, frame.data

    def accept(self, distribution: bytes) -> None:
        if self.peer.name != "libsignal_client":
            self.peer.group_accept(self.who(BELLS[0]), "desk", GROUP, distribution)

    def open_group(self, frame: bytes) -> bytes | None:
        if self.peer.name == "libsignal_client":
            return None
        return self.peer.group_decrypt(self.who(BELLS[0]), "desk", GROUP, frame)


# --- The judge ----------------------------------------------------------------------------------------------


@dataclass
class Judge:
    far: Ours | Theirs
    skipped_max: int
    seen: set[tuple[bytes, int]] = field(default_factory=set)
    newest: dict[bytes, int] = field(default_factory=dict)
    skipped: int = 0
    answers: dict[int, tuple[str, str, bytes, bytes]] = field(default_factory=dict)
    handled: set[int] = field(default_factory=set)
    redelivered: int = 0

    def released(self, kind: str, frame: bytes) -> None:
        chain, counter = place(kind, frame)
        assert (chain, counter) not in self.seen, "a key was used twice"
        self.seen.add((chain, counter))
        gap = counter - self.newest.get(chain, -1) - 1
        assert gap <= self.skipped_max, f"{gap} counters of a chain were skipped"
        self.skipped = max(self.skipped, gap)
        self.newest[chain] = max(counter, self.newest.get(chain, -1))

    def take(self, said: dict[str, Any]) -> None:
        if "sent" in said:
            peers, rows = said["sent"]
            for peer, (status, kind, data) in zip(peers, rows, strict=True):
                assert status == "OK"
                frame = base64.b64decode(data)
                self.released(kind, frame)
                assert self.far.open(peer, kind, frame) in (b"begin", b"text")
        for status, kind, data in said.get("group", ()):
            assert status == "OK"
            frame = base64.b64decode(data)
            self.released(kind, frame)
            assert self.far.open_group(frame) in (b"begin", b"text", None)
        for number, status, _, data in said.get("got", ()):
            if status == "DUPLICATE":
                assert number in self.handled, "a plaintext was lost"
                continue
            assert status in ("OK", "REDELIVERED"), status
            assert base64.b64decode(data) == self.answers[number][3]
            self.redelivered += status == "REDELIVERED"
            self.handled.add(number)

    def waiting(self) -> list[int]:
        return sorted(set(self.answers) - self.handled)

    def inbox(self) -> str:
        """What the network delivers: all that was not handled, in order, and something that was."""
        numbers = self.waiting()
        again = sorted(self.handled)[-3:]
        lines = []
        for number in sorted({*numbers, *again}):
            peer, kind, frame, _ = self.answers[number]
            one = {"id": number, "peer": peer, "kind": kind, "frame": base64.b64encode(frame).decode()}
            lines.append(json.dumps(one) + "\n")
        return "".join(lines)

    def answer(self, source: random.Random) -> None:
        for _ in range(source.randint(0, 12)):
            number = len(self.answers)
            peer, text = source.choice(BELLS), f"answer {number}".encode()
            self.answers[number] = (peer, *self.far.answer(peer, text), text)


@pytest.fixture
def gateways() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


def life(gateways: subprocess.Popen[bytes], source: random.Random, *order: str) -> list[dict[str, Any]]:
    """One gateway from its start to its death; what it said before."""
    assert gateways.stdin is not None
    assert gateways.stdout is not None
    gateways.stdin.write(json.dumps(order).encode() + b"\n")
    said: list[dict[str, Any]] = []
    pid, buffered, timer = 0, b"", None
    while True:
        piece = os.read(gateways.stdout.fileno(), 1 << 20)
        assert piece, "the nursery died"
        *lines, buffered = (buffered + piece).split(b"\n")
        for line in lines:
            try:
                one = json.loads(line)
            except ValueError:
                continue  # cut off: it was never said
            if "pid" in one:
                pid = one["pid"]
            elif "ended" in one:
                assert one["ended"] == -signal.SIGKILL, said[-1:]
                assert timer is not None
                timer.join()
                return said
            else:
                said.append(one)
            if len(said) == 2 and timer is None:
                # Each kind of chain has released something before the next kill.
                delay_seconds = source.choice([0.002, 0.01, 0.06]) * source.random()
                timer = threading.Timer(delay_seconds, os.kill, (pid, signal.SIGKILL))
                timer.start()


@pytest.mark.parametrize("durability", ["strict", "leased"])
@pytest.mark.parametrize("name", FAR_ENDS)
def test_no_kill_repeats_a_key_or_loses_a_plaintext(
    live: LivePeers, gateways: subprocess.Popen[bytes], tmp_path: Path, name: str, durability: Any
) -> None:
    if name != "interlane":
        live.require(name)
    source = random.Random(f"{SEED} {name} {durability}")
    path, inbox = str(tmp_path / "gateway.db"), tmp_path / "inbox.jsonl"
    far: Ours | Theirs = Ours() if name == "interlane" else Theirs(live[name])
    with interlane.open(path, key=KEY, threads=1, durability=durability, lease=LEASE) as engine:
        desk = engine.account("desk", create=True)
        assert desk.start_sessions(BELLS, far.bundles()).ok.all()
        far.accept(desk.group(GROUP).distribute())
        # The far ends can answer from here on.
        judge = Judge(far, LEASE if durability == "leased" else ROWS_MAX)
        rows = desk.encrypt(BELLS, [b"begin"] * SESSIONS)
        judge.take({"sent": [BELLS, encoded(rows)]})
    for _ in range(KILLS):
        judge.answer(source)
        inbox.write_text(judge.inbox())
        for said in life(gateways, source, path, durability, str(inbox)):
            judge.take(said)
    with interlane.open(path, key=KEY, threads=1, receive_buffer=True) as engine:
        desk = engine.account("desk")
        for number in judge.waiting():
            peer, kind, frame, _ = judge.answers[number]
            rows = desk.decrypt([peer], kind, [frame])
            judge.take({"got": [[number, *encoded(rows)[0]]]})
            rows.ack()
        judge.take({"sent": [BELLS, encoded(desk.encrypt(BELLS, [b"text"] * SESSIONS))]})
        judge.take({"group": encoded(desk.group(GROUP).encrypt([b"text"]))})
    assert not judge.waiting()
    print(
        f"{durability}, {name}, seed {SEED}: {KILLS} kills, {len(judge.seen):,} keys used once, "
        f"{judge.skipped} counters skipped at most, {len(judge.handled):,} plaintexts, "
        f"{judge.redelivered} of them delivered again"
    )
    if KILLS >= 100:  # fewer may all come at harmless moments
        assert judge.skipped > 0, "no kill came at a bad moment"
        assert judge.redelivered > 0, "no kill came before an acknowledgement"


if __name__ == "__main__":
    nursery()
