"""The receive buffer: what it keeps, for how long, how much, and what frees it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import interlane
import numpy as np
import pytest
from desks import Desks, desks
from interlane import Event, Status

MIB = 1 << 20


def buffered(path: str | Path = ":memory:", sessions: int = 4, **options: Any) -> Desks:
    return desks(interlane.open(path, threads=1, receive_buffer=True, **options), sessions)


def sent(line: Desks, text: bytes = b"text %d") -> interlane.Rows:
    return line.sender.encrypt(line.to, [text.replace(b"%d", b"%d" % i) for i in range(len(line.to))])


def received(line: Desks, frames: interlane.Rows) -> interlane.Rows:
    return line.receiver.decrypt(line.sources, frames.kinds, frames.data, frames.offsets)


def statuses(rows: interlane.Rows) -> list[Status]:
    return [row.status for row in rows]


def test_what_is_acknowledged_is_gone() -> None:
    line = buffered()
    frames = sent(line)
    first = received(line, frames)
    assert statuses(first) == [Status.OK] * 4
    again = received(line, frames)
    assert statuses(again) == [Status.REDELIVERED] * 4
    assert again.tolist() == first.tolist()
    assert [row.events for row in again] == [row.events & ~Event.STOCK_LOW for row in first]
    assert Event.NEW_SESSION in again[0].events
    assert line.engine.stats()["rows_buffered"] == 4
    assert again.ack([2, 0]) == 2
    assert again.ack(np.array([2], dtype=np.uint64)) == 0
    assert statuses(received(line, frames)) == [
        Status.DUPLICATE,
        Status.REDELIVERED,
        Status.DUPLICATE,
        Status.REDELIVERED,
    ]
    assert first.ack() == 2
    assert first.ack() == again.ack() == 0
    stats = line.engine.stats()
    assert (stats["rows_buffered"], stats["buffered_bytes"]) == (0, 0)
    # Sends have nothing to acknowledge; what was opened is neither a failure nor opened twice.
    assert frames.ack() == 0
    assert (stats["rows_decrypted"], stats["rows_failed"]) == (4, 2)


def test_rows_to_acknowledge_that_are_none() -> None:
    line = buffered()
    rows = received(line, sent(line))
    for wrong in ([4], np.array([1 << 40], dtype=np.uint64)):
        with pytest.raises(interlane.MalformedCall, match=r"rows: \d+ is not one; the result has 4"):
            rows.ack(wrong)
    with pytest.raises(interlane.MalformedCall, match=r"rows\[1\]: str is no row"):
        rows.ack([0, "1"])  # type: ignore[list-item]
    assert rows.ack([]) == 0
    assert rows.ack() == 4
    line.engine.close()
    with pytest.raises(interlane.ClosedError):
        rows.ack()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"buffer_bytes": 32 * MIB - 1}, "buffer_bytes: 33554431; give a number from 33554432 to"),
        ({"buffer_bytes": 1 << 63}, "buffer_bytes: 9223372036854775808; give a number"),
        ({"buffer_seconds": 0}, "buffer_seconds: 0; give a number from 1 to"),
        ({"buffer_seconds": 1.5}, "buffer_seconds: 1.5; give a number"),
    ],
)
def test_malformed_limits(options: dict[str, Any], text: str) -> None:
    with pytest.raises(interlane.MalformedCall, match=text):
        interlane.open(":memory:", receive_buffer=True, **options)


def test_a_full_buffer_opens_nothing_and_loses_nothing() -> None:
    line = buffered(buffer_bytes=32 * MIB)
    frames = sent(line, bytes(9 * MIB))
    rows = received(line, frames)
    assert statuses(rows) == [Status.OK] * 3 + [Status.BUFFER_FULL]
    assert rows[3].data == b""
    # Another account has its own room.
    assert received(line, frames).status.tolist() == [12, 12, 12, 13]
    back = line.receiver.encrypt(line.sources[:1], [b"back"])
    assert line.sender.decrypt(line.to[:1], back.kinds, back.tolist()).ok.all()
    assert rows.ack([1]) == 1
    late = line.receiver.decrypt(line.sources[3:], frames.kinds[3:], frames.tolist()[3:])
    assert statuses(late) == [Status.OK]
    assert line.engine.stats()["buffered_bytes"] == 3 * (9 * MIB + 128) + 4 + 128


def test_rows_leave_when_they_are_old(tmp_path: Path) -> None:
    line = buffered(tmp_path / "a.db", buffer_seconds=1)
    frames = sent(line)
    assert received(line, frames).ok.all()
    time.sleep(2.1)
    assert statuses(received(line, frames)) == [Status.DUPLICATE] * 4
    assert line.engine.stats()["rows_buffered"] == 0
    line.engine.close()
    with interlane.open(tmp_path / "a.db") as engine:
        assert engine.stats()["rows_buffered"] == 0


def test_what_was_kept_is_given_also_where_nothing_is_kept_any_more(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    line = buffered(path)
    frames = sent(line)
    assert received(line, frames).ok.all()
    line.engine.close()
    with interlane.open(path) as engine:
        rows = engine.account("receiver").decrypt(line.sources, frames.kinds, frames.tolist())
        assert statuses(rows) == [Status.REDELIVERED] * 4
        assert rows.ack() == 4
        more = engine.account("sender").encrypt(line.to, [b"more"] * 4)
        for status in (Status.OK, Status.DUPLICATE):
            rows = engine.account("receiver").decrypt(line.sources, more.kinds, more.tolist())
            assert statuses(rows) == [status] * 4
            assert rows.ack() == 0
    with interlane.open(path) as engine:
        assert engine.stats()["rows_buffered"] == 0


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("closed", [False, True])
def test_frames_of_every_length_come_again(tmp_path: Path, closed: bool, padding: bool) -> None:
    """Of a long one its key is kept, and the frame opened again; of a short or a first one, the text."""
    path = tmp_path / "a.db"
    lengths = [0, 1, 15, 16, 51, 52, 53, 64, 255, 256, 5_000, 70_000]
    texts = [bytes((length + i) % 256 for i in range(length)) for length in lengths]
    line = buffered(path, len(lengths), padding=padding)
    firsts = sent(line)
    opened = received(line, firsts)
    assert opened.ok.all()
    answers = line.receiver.encrypt(line.sources, [b"back"] * len(lengths))
    assert line.sender.decrypt(line.to, answers.kinds, answers.tolist()).ok.all()
    rounds = [line.sender.encrypt(line.to, texts) for _ in range(2)]
    # The first turns the ratchet, the second is the next on its chain.
    for frames in rounds:
        assert received(line, frames).tolist() == texts
    damaged = [frame[:-9] + bytes([frame[-9] ^ 1]) + frame[-8:] for frame in rounds[1].tolist()]
    if closed:
        line.engine.close()
        # Padding is what the texts had when they came.
        engine = interlane.open(path, threads=1, receive_buffer=True, padding=not padding)
        line = Desks(engine, engine.account("sender"), engine.account("receiver"), line.outward, line.inward)
    assert line.engine.stats()["buffered_bytes"] >= 2 * (sum(lengths) + len(lengths) * 128)
    assert set(statuses(line.receiver.decrypt(line.sources, rounds[1].kinds, damaged))) <= {
        Status.INVALID,
        Status.DUPLICATE,
    }
    for frames, expected in [
        (rounds[1], texts),
        (rounds[0], texts),
        (firsts, opened.tolist()),
        (rounds[1], texts),
    ]:
        again = received(line, frames)
        assert statuses(again) == [Status.REDELIVERED] * len(lengths)
        assert again.tolist() == expected
        assert again.kinds.tolist() == frames.kinds.tolist()
    assert again.ack() == len(lengths)
    assert statuses(received(line, rounds[1])) == [Status.DUPLICATE] * len(lengths)


def test_an_account_takes_its_buffer_with_it(tmp_path: Path) -> None:
    line = buffered(tmp_path / "a.db")
    rows = received(line, sent(line))
    assert line.engine.stats()["rows_buffered"] == 4
    line.engine.delete_account("receiver")
    assert line.engine.stats()["rows_buffered"] == 0
    assert rows.ack() == 0
    assert line.engine.stats()["buffered_bytes"] == 0
    line.engine.close()


def test_nothing_can_be_read_at_rest(tmp_path: Path) -> None:
    """Neither plaintexts nor frames nor their hashes."""
    line = buffered(tmp_path / "a.db")
    frames = sent(line, b"what only the owner may read %d")
    assert received(line, frames).ok.all()
    line.engine.close()
    tables = sqlite3.connect(tmp_path / "a.db")
    keys = [key for (key,) in tables.execute("SELECT key FROM rows") if key[4] == 11]
    tables.close()
    assert len(keys) == 1
    stored = (tmp_path / "a.db").read_bytes()
    assert b"what only the owner" not in stored
    assert not [frame for frame in frames.tolist() if frame[8:24] in stored]


# Frames of a call are kept together, 32 of an account: some more, whatever is left of each.
MANY = 75

# Receives many frames and acknowledges some, in parts: after each of them something is committed. Then it
# dies.
ACKNOWLEDGES = """
import json, os, signal, sys, interlane
path, parts = sys.argv[1], json.loads(sys.argv[2])
engine = interlane.open(path, receive_buffer=True)
receiver = engine.account("receiver")
frames = [bytes.fromhex(line) for line in sys.stdin.read().split()]
rows = receiver.decrypt([f"from-{i}" for i in range(len(frames))], "msg", frames)
assert rows.ok.all()
for part in parts:
    assert rows.ack(part) == len(part)
    assert receiver.encrypt(["from-0"], [b"committed"]).ok.all()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([list(range(0, MANY, 3))], id="every third"),
        pytest.param([[i] for i in range(40)], id="one after the other"),
        pytest.param([list(range(64)), [70, 74]], id="whole lots and a few"),
        pytest.param([[5, 40], [6, 41], list(range(7, 40))], id="here and there"),
        pytest.param([list(range(MANY))], id="all"),
    ],
)
def test_what_was_acknowledged_is_gone_and_nothing_else(tmp_path: Path, parts: list[list[int]]) -> None:
    path = tmp_path / "a.db"
    line = buffered(path, MANY)
    opened = received(line, sent(line))
    answers = line.receiver.encrypt(line.sources, [b"back"] * MANY)
    answered = line.sender.decrypt(line.to, answers.kinds, answers.tolist())
    turned = received(line, sent(line))
    for rows in (opened, answered, turned):
        assert rows.ack() == MANY
    # Short ones are kept as they are, of long ones the seed; some are longer than what is kept together.
    texts = [bytes([i]) * (5_000 if i % 20 == 3 else 3 * i) for i in range(MANY)]
    frames = line.sender.encrypt(line.to, texts)
    line.engine.close()
    died = subprocess.run(  # noqa: S603
        [sys.executable, "-c", ACKNOWLEDGES, str(path), json.dumps(parts)],
        input="\n".join(frame.hex() for frame in frames.tolist()),
        text=True,
        env=os.environ,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    acknowledged = {row for part in parts for row in part}
    left = [row for row in range(MANY) if row not in acknowledged]
    with interlane.open(path, receive_buffer=True) as engine:
        assert engine.stats()["rows_buffered"] == len(left)
        assert engine.stats()["buffered_bytes"] == sum(128 + len(texts[row]) for row in left)
        rows = engine.account("receiver").decrypt(line.sources, frames.kinds, frames.tolist())
        assert statuses(rows) == [
            Status.DUPLICATE if i in acknowledged else Status.REDELIVERED for i in range(MANY)
        ]
        assert [rows[row].data for row in left] == [texts[row] for row in left]
        assert rows.ack() == len(left)
    with interlane.open(path) as engine:
        assert engine.stats()["rows_buffered"] == 0


# Receives four frames and dies in the middle of handling them.
DIES = """
import os, signal, sys, interlane
engine = interlane.open(sys.argv[1], receive_buffer=True)
frames = [bytes.fromhex(line) for line in sys.stdin.read().split()]
rows = engine.account("receiver").decrypt([f"from-{i}" for i in range(4)], "pkmsg", frames)
assert rows.ok.all()
print(rows[0].data.decode(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_who_dies_while_handling_gets_everything_again(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    line = buffered(path)
    frames = sent(line)
    line.engine.close()
    died = subprocess.run(  # noqa: S603
        [sys.executable, "-c", DIES, str(path)],
        input="\n".join(frame.hex() for frame in frames.tolist()),
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
        check=False,
    )
    assert (died.returncode, died.stdout) == (-signal.SIGKILL, "text 0\n")
    with interlane.open(path, receive_buffer=True) as engine:
        rows = engine.account("receiver").decrypt(line.sources, frames.kinds, frames.tolist())
        assert statuses(rows) == [Status.REDELIVERED] * 4
        assert rows.tolist() == [b"text %d" % i for i in range(4)]
        assert rows.ack() == 4
