"""Bad input and too much of it: every row has a status, no call raises, nothing hangs, what is true opens.

How arguments can be malformed is `test_inputs.py`'s; here the calls are well made and what is in them is not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random

import interlane
import numpy as np
import pytest
from desks import desks
from forged import Forger, Frame, damaged, fields_of, known_account, varied
from interlane import MalformedCall, Status
from reference import KeyPair, varint, write_protobuf

DESK = "desk"
GROUP = "1203630@g.us"
PATIENCE = 60.0
BAD = {
    Status.INVALID,
    Status.NO_SESSION,
    Status.NO_PREKEY,
    Status.NO_SENDER_KEY,
    Status.TOO_FAR_AHEAD,
    Status.DUPLICATE,
}


@pytest.fixture
def engine() -> Iterator[interlane.Engine]:
    with interlane.open(":memory:", threads=2) as engine:
        yield engine


@pytest.fixture
def desk(engine: interlane.Engine) -> interlane.Account:
    account = engine.account(DESK, create=True)
    account.prekeys(4)
    return account


def acquainted(desk: interlane.Account, eve: Forger) -> None:
    eve.start(desk.name, next(desk.prekeys(1).bundles()))
    first = eve.send(desk.name, b"hello")
    assert desk.decrypt([eve.name], first.kind, [first.data]).tolist() == [b"hello"]
    assert eve.receive(desk.name, desk.encrypt([eve.name], [b"hi"])[0]) == b"hi"


def refused(rows: interlane.Rows) -> None:
    """No row went through, and no row has anything to show."""
    assert {Status(status) for status in np.unique(rows.status)} <= BAD
    assert not rows.kinds.any()
    assert not rows.events.any()
    assert len(rows.data) == 0
    assert not rows.offsets.any()


# --- How many rows ------------------------------------------------------------------------------------------


def test_no_rows_at_all(engine: interlane.Engine, desk: interlane.Account) -> None:
    none = np.zeros(0, np.uint64)
    group = desk.group(GROUP)
    for rows in (
        engine.encrypt(none, []),
        engine.decrypt(none, [], []),
        engine.decrypt(none, "msg", b"", np.zeros(1, np.int64)),
        engine.start_sessions(none, []),
        engine.group_distribute(none),
        engine.group_accept(none, []),
        engine.group_encrypt(none, []),
        engine.group_decrypt(none, []),
        engine.group_rotate(none),
        desk.trust([], []),
        desk.forget([]),
        group.encrypt([]),
    ):
        assert (len(rows), rows.offsets.tolist(), list(rows)) == (0, [0], [])
    assert engine.sessions(desk, []).tolist() == engine.groups(desk, []).tolist() == []
    assert engine.stats()["rows_failed"] == 0


ROWS = 1_000_000


def test_a_million_rows_of_unknown_handles(engine: interlane.Engine) -> None:
    handles = np.arange(ROWS, dtype=np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15) + np.uint64(1 << 32)
    offsets = np.zeros(ROWS + 1, np.int64)
    for rows in (
        engine.encrypt(handles, b"", offsets),
        engine.decrypt(handles, "msg", b"", offsets),
        engine.decrypt(handles, "pkmsg", b"", offsets),
        engine.group_encrypt(handles, b"", offsets),
        engine.group_decrypt(handles, b"", offsets),
        engine.group_accept(handles, b"", offsets),
        engine.group_distribute(handles),
        engine.group_rotate(handles),
    ):
        assert len(rows) == ROWS
        assert (rows.status == Status.UNKNOWN_HANDLE).all()
        assert len(rows.data) == 0
    assert engine.stats()["rows_failed"] == 8 * ROWS


def test_a_million_rows_without_a_session(engine: interlane.Engine, desk: interlane.Account) -> None:
    handles = desk.sessions([f"peer-{i}" for i in range(1_000)])
    many = np.tile(handles, ROWS // 1_000)
    offsets = np.arange(ROWS + 1, dtype=np.int64) * 4
    data = np.zeros(ROWS * 4, np.uint8)
    assert (engine.encrypt(many, data, offsets).status == Status.NO_SESSION).all()
    assert (engine.decrypt(many, "msg", data, offsets).status == Status.INVALID).all()
    assert (engine.decrypt(many, "pkmsg", data, offsets).status == Status.INVALID).all()


def test_many_rows_of_many_sessions(engine: interlane.Engine) -> None:
    """A thousand sessions with sixty rows each, of which every seventh is damaged on its way."""
    line = desks(engine, 1_000)
    rows = 60_000
    handles = np.tile(line.outward, rows // 1_000)
    offsets = np.arange(rows + 1, dtype=np.int64) * 8
    data = np.arange(rows, dtype=np.uint64).view(np.uint8)
    sent = engine.encrypt(handles, data, offsets)
    assert sent.ok.all()
    frames = sent.data.copy()
    ends = sent.offsets[1:]
    damage = np.arange(rows) % 7 == 3
    # In the inner MAC: registration id and signed prekey id come behind it.
    frames[ends[damage] - 12] ^= 1
    got = engine.decrypt(np.tile(line.inward, rows // 1_000), sent.kinds, frames, sent.offsets)
    assert (got.ok == ~damage).all()
    assert (got.status[damage] == Status.INVALID).all()
    assert (got.data.view(np.uint64) == np.arange(rows)[~damage]).all()


def test_a_hundred_thousand_rows_of_one_session(engine: interlane.Engine) -> None:
    line = desks(engine, 1)
    rows = 100_000
    outward, inward = (np.repeat(handles, rows) for handles in (line.outward, line.inward))
    offsets = np.arange(rows + 1, dtype=np.int64) * 8
    data = np.arange(rows, dtype=np.uint64).view(np.uint8)
    sent = engine.encrypt(outward, data, offsets)
    assert sent.ok.all()
    got = engine.decrypt(inward, sent.kinds, sent.data, sent.offsets)
    assert got.ok.all()
    assert (got.data.view(np.uint64) == np.arange(rows)).all()
    again = engine.decrypt(inward, sent.kinds, sent.data, sent.offsets)
    assert (again.status == Status.DUPLICATE).all()
    answers = engine.encrypt(inward, data, offsets)
    backwards = [row.data for row in answers][:2_000][::-1]
    got = engine.decrypt(np.repeat(line.outward, 2_000), "msg", backwards)
    assert got.ok.all()
    assert (got.data.view(np.uint64) == np.arange(2_000)[::-1]).all()


def test_a_hundred_thousand_rows_of_one_group(engine: interlane.Engine, desk: interlane.Account) -> None:
    rows = 2_000
    own, eve = desk.group(GROUP), engine.account("eve", create=True).group(GROUP)
    assert eve.accept([DESK], [own.distribute()]).ok.all()
    offsets = np.arange(rows + 1, dtype=np.int64) * 8
    data = np.arange(rows, dtype=np.uint64).view(np.uint8)
    sent = own.encrypt(data, offsets)
    got = eve.decrypt([DESK] * rows, [row.data for row in sent][::-1])
    assert got.ok.all()
    assert (got.data.view(np.uint64) == np.arange(rows)[::-1]).all()
    # And refused ones, which is cheap.
    many = 100_000
    short = eve.decrypt([DESK] * many, np.zeros(many, np.uint8), np.arange(many + 1, dtype=np.int64))
    refused(short)


# --- What is in the rows ------------------------------------------------------------------------------------


class Traffic:
    """A true frame of every sort, none of them opened yet, and how each is to be opened."""

    def __init__(self, desk: interlane.Account) -> None:
        self.desk = desk
        self.group = desk.group(GROUP)
        known, new = Forger("known", b"k" * 32), Forger("new", b"n" * 32)
        acquainted(desk, known)
        new.start(desk.name, next(desk.prekeys(1).bundles()))
        distribution = known.account.group(GROUP).distribute().data
        assert self.group.accept(["known"], [distribution]).ok.all()
        self.frames = {
            "msg": known.send(desk.name, b"a text of some length, for several blocks").data,
            "pkmsg": new.send(desk.name, b"first").data,
            "skmsg": known.account.group(GROUP).encrypt(b"to all").data,
            "skdm": new.account.group(GROUP).distribute().data,
        }
        assert new.account.peer(desk.name).current is not None

    def take(self, kind: str, frames: list[bytes]) -> interlane.Rows:
        match kind:
            case "msg":
                return self.desk.decrypt(["known"] * len(frames), "msg", frames)
            case "pkmsg":
                return self.desk.decrypt(["new"] * len(frames), "pkmsg", frames)
            case "skmsg":
                return self.group.decrypt(["known"] * len(frames), frames)
            case _:
                return self.group.accept(["new"] * len(frames), frames)


KINDS = ["msg", "pkmsg", "skmsg", "skdm"]


@pytest.fixture
def traffic(desk: interlane.Account) -> Traffic:
    return Traffic(desk)


def finally_opens(traffic: Traffic, kind: str) -> None:
    assert traffic.take(kind, [traffic.frames[kind]]).ok.all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation(traffic: Traffic, kind: str) -> None:
    """Cut at the end, and at the beginning. Cut between its last fields, a first
    frame lacks the signed prekey's id."""
    true = traffic.frames[kind]
    cuts = [true[:length] for length in range(len(true))] + [true[at:] for at in range(1, len(true))]
    refused(traffic.take(kind, cuts))
    for cut in cuts[:40]:
        refused(traffic.take(kind, [cut]))
    finally_opens(traffic, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 7, 8, 9, 33, 64, 65, 73, 100, 1_000, 1 << 16])
def test_random_bytes(traffic: Traffic, kind: str, length: int) -> None:
    random = Random(f"{kind} {length}")
    count = 2_000 if length <= 1_000 else 50
    frames = [random.randbytes(length) for _ in range(count)]
    refused(traffic.take(kind, frames))
    # As if they were of our version, with a first field that fits.
    frames = [b"\x33" + random.choice([b"\x0a\x21\x05", b"\x08", b"\x12", b""]) + frame for frame in frames]
    rows = traffic.take(kind, frames)
    assert not rows.ok.any()
    finally_opens(traffic, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_oversized(traffic: Traffic, kind: str) -> None:
    true = traffic.frames[kind]
    mebibyte = 1 << 20
    unknown = write_protobuf([(99, bytes(mebibyte))])
    frames = [
        true + bytes(mebibyte),
        bytes(mebibyte) + true,
        true[:1] + unknown + true[1:],
        true[:1] + write_protobuf([(99, bytes((1 << 24) - len(true) - 6))]) + true[1:],
        true[:1] + write_protobuf([(99, bytes((1 << 24) + 1))]) + true[1:],
        bytes(17 * mebibyte),
        b"\x33" + bytes(17 * mebibyte),
        b"\xff" * 17 * mebibyte,
    ]
    rows = traffic.take(kind, frames)
    well = {i for i, row in enumerate(rows) if row.status is Status.OK}
    # The envelope and the distribution message are not authenticated themselves: unknown fields may be.
    assert well <= ({2, 3} if kind in ("pkmsg", "skdm") else set())
    if not well:
        finally_opens(traffic, kind)


def test_the_longest_plaintext_and_one_more(engine: interlane.Engine) -> None:
    line = desks(engine, 1)
    most = (1 << 24) - 1_024
    rows = engine.encrypt(np.repeat(line.outward, 3), [bytes(most), bytes(most + 1), b"after"])
    assert [row.status for row in rows] == [Status.OK, Status.TOO_LONG, Status.OK]
    good = rows.ok
    got = engine.decrypt(np.repeat(line.inward, 2), rows.kinds[good], [row.data for row in rows if row.data])
    assert [len(row.data) for row in got] == [most, 5]
    group, other = line.sender.group(GROUP), line.receiver.group(GROUP)
    assert group.encrypt([bytes(10)])[0].status is Status.NO_SENDER_KEY
    assert other.accept(["sender"], [group.distribute()]).ok.all()
    rows = group.encrypt([bytes(most), bytes(most + 1), b"after"])
    assert [row.status for row in rows] == [Status.OK, Status.TOO_LONG, Status.OK]
    got = other.decrypt(["sender"] * 2, [row.data for row in rows if row.data])
    assert [len(row.data) for row in got] == [most, 5]


def bombs(true: bytes) -> Iterator[bytes]:
    """Protobufs that keep a careless reader busy, or lead it out of bounds."""
    body = true[1:]
    yield b"\x33" + b"\x78\x00" * 500_000 + body
    yield b"\x33" + b"\x7a\x00" * 500_000 + body
    yield b"\x33" + b"\x79" + bytes(8) + (b"\x79" + bytes(8)) * 100_000
    yield b"\x33" + body * (2_000_000 // len(body))
    for number in range(1, 8):
        for length in (
            2**31 - 1,
            2**31,
            2**32 - 1,
            2**32,
            2**63 - 1,
            2**63,
            2**64 - 1,
            len(body),
            len(body) + 1,
        ):
            yield b"\x33" + varint(number << 3 | 2) + varint(length) + body
    nested = b""
    for _ in range(2_000):
        nested = write_protobuf([(4, nested)])
    yield b"\x33" + nested
    inner = true
    for _ in range(50):
        inner = b"\x33" + write_protobuf([(4, inner), (3, inner[:33]), (2, inner[:33])])
    yield inner[: 1 << 20]
    yield b"\x33" + b"\x7b" * 100_000 + b"\x7c" * 100_000  # groups
    yield b"\x33" + b"\xff" * 100_000
    yield b"\x33" + b"\x80" * 100_000 + b"\x01"
    yield b"\x33" + b"\x08" + b"\xff" * 10 + b"\x01" + body
    yield b"\x33" + b"\x00\x00" + body
    yield b"\x33" + varint(2**29 << 3) + b"\x00" + body
    yield b"\x33" + varint(2**61 - 1 << 3) + b"\x00" + body
    for wire_type in (3, 4, 6, 7):
        yield b"\x33" + varint(1 << 3 | wire_type) + body


@pytest.mark.parametrize("kind", KINDS)
def test_protobuf_bombs(traffic: Traffic, kind: str) -> None:
    frames = list(bombs(traffic.frames[kind]))
    begun = time.perf_counter()
    rows = traffic.take(kind, frames * 5)
    assert time.perf_counter() - begun < 10
    assert not rows.ok.any()
    # A bomb as the message inside a first frame.
    if kind == "msg":
        fields = fields_of(traffic.frames["pkmsg"][1:])
        inner = [
            b"\x33" + write_protobuf([(n, frame if n == 4 else v) for n, v in fields]) for frame in frames[4:]
        ]
        assert not traffic.take("pkmsg", inner).ok.any()
        finally_opens(traffic, "pkmsg")
    finally_opens(traffic, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_another_kind(traffic: Traffic, kind: str) -> None:
    others = [frame for other, frame in traffic.frames.items() if other != kind]
    refused(traffic.take(kind, others))
    finally_opens(traffic, kind)


def test_a_damaged_row_harms_no_other(engine: interlane.Engine) -> None:
    """In a batch of many sessions every row stands for itself."""
    line = desks(engine, 400)
    random = Random(3)
    for _ in range(3):
        sent = engine.encrypt(line.outward, [b"%d" % i for i in range(400)])
        frames = [row.data for row in sent]
        bad = set(random.sample(range(400), 150))
        mixed = [
            next(islice(varied(random, frame[:-10], frames), 1))[: len(frame) - 9] if i in bad else frame
            for i, frame in enumerate(frames)
        ]
        rows = engine.decrypt(line.inward, sent.kinds, mixed)
        assert {i for i, row in enumerate(rows) if row.status is not Status.OK} == bad
        assert [row.data for i, row in enumerate(rows) if i not in bad] == [
            b"%d" % i for i in range(400) if i not in bad
        ]
        late = sorted(bad)
        rows = engine.decrypt(line.inward[late], sent.kinds[late], [frames[i] for i in late])
        assert rows.tolist() == [b"%d" % i for i in late]


def test_distributions_that_cannot_be(desk: interlane.Account) -> None:
    """Numbers at their ends, keys of low order and of other lengths: a status, and no call that raises."""
    group, key = desk.group(GROUP), KeyPair.of(b"k" * 32)
    random = Random(4)
    for id_ in (0, 1, 2**31, 2**32 - 1, 2**32, 2**64 - 1):
        for iteration in (0, 2**31, 2**32 - 2_001, 2**32 - 2, 2**32 - 1):
            for signing in (key.public, b"\5" + bytes(32), b"\5" + b"\xff" * 32):
                frame = b"\x33" + write_protobuf(
                    [(1, id_), (2, iteration), (3, random.randbytes(32)), (4, signing)]
                )
                assert group.accept(["eve"], [frame]).ok.all()
                for at in (iteration, max(iteration - 1, 0), 2**32 - 1):
                    signed = b"\x33" + write_protobuf([(1, id_ % 2**32), (2, at), (3, bytes(16))])
                    rows = group.decrypt(
                        ["eve"] * 2, [signed + bytes(64), signed + key.sign(signed, b"z" * 64)]
                    )
                    assert not rows.ok.any()
    for fields in (
        [(1, 1), (2, 0), (3, bytes(31)), (4, key.public)],
        [(1, 1), (2, 0), (3, bytes(33)), (4, key.public)],
        [(1, 1), (2, 0), (3, bytes(32)), (4, key.public[1:])],
        [(1, 1), (2, 0), (3, bytes(32)), (4, b"\6" + key.public[1:])],
        [(1, 1), (2, 0), (3, bytes(32))],
        [(1, 1), (3, bytes(32)), (4, key.public)],
        [(2, 0), (3, bytes(32)), (4, key.public)],
    ):
        refused(group.accept(["eve"], [b"\x33" + write_protobuf(fields)]))  # type: ignore[arg-type]


def test_a_forged_frame_costs_a_few_jumps_and_not_one_for_each_session(desk: interlane.Account) -> None:
    """Anyone who can send under a peer's name can write a frame of a new ratchet key and the largest
    counter. However many sessions are kept for the peer, refusing it may not cost a jump in each of them."""
    eve, mallory = Forger("eve"), Forger("mallory", b"m" * 32)
    for _ in range(41):
        eve.start(DESK, desk.prekeys(0).bundle())
        first = eve.send(DESK, b"x")
        assert desk.decrypt([eve.name], first.kind, [first.data]).ok.all()
    acquainted(desk, mallory)
    body = b"\x33" + write_protobuf([(1, KeyPair.of(b"n" * 32).public), (2, 2_000), (3, 0), (4, bytes(16))])

    def cost(peer: str) -> float:
        best = float("inf")
        for _ in range(10):
            begun = time.thread_time()
            refused(desk.decrypt([peer], "msg", [body + bytes(8)]))
            best = min(best, time.thread_time() - begun)
        return best

    # Five jumps against one; 41 if each session cost one.
    assert cost(eve.name) < 16 * cost(mallory.name)


# --- Names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "is empty"),
        ("x" * 513, "has 513 bytes"),
        ("ü" * 257, "has 514 bytes"),
        ("x" * 1_000_000, "has 1000000 bytes"),
        ("\ud800", "is no name"),
        ("a\udfffb", "is no name"),
    ],
    ids=["empty", "513 bytes", "514 bytes of 257", "a million", "a surrogate", "a surrogate inside"],
)
def test_names_that_are_none(engine: interlane.Engine, desk: interlane.Account, name: str, text: str) -> None:
    group = desk.group(GROUP)
    before = engine.stats()
    for call in (
        lambda: desk.sessions([name]),
        lambda: desk.sessions(["good", name]),
        lambda: desk.encrypt([name], [b""]),
        lambda: desk.decrypt([name], "msg", [b""]),
        lambda: desk.trust([name], [desk.identity]),
        lambda: desk.forget([name]),
        lambda: engine.sessions(DESK, [name]),
        lambda: engine.groups(DESK, [name]),
        lambda: engine.groups(DESK, [GROUP], [name]),
        lambda: group.decrypt([name], [b""]),
        lambda: group.accept([name], [b""]),
    ):
        with pytest.raises(MalformedCall, match=text) as raised:
            call()
        assert "\n" not in str(raised.value)
    for make in (lambda: engine.account(name, create=True), lambda: known_account(engine, name)):
        with pytest.raises((MalformedCall, UnicodeEncodeError)):
            make()
    assert engine.stats() == before


@pytest.mark.parametrize(
    "name", ["\0", "a\0b", "x" * 512, "ü" * 256, "\n", "' OR 1=1 --", "../../x", "🦀", "\ufeff"]
)
def test_names_that_are_odd(engine: interlane.Engine, desk: interlane.Account, name: str) -> None:
    other = engine.account(name, create=True)
    assert engine.account(name).identity == other.identity
    assert desk.start_sessions([name], list(other.prekeys(1).bundles())).ok.all()
    sent = desk.encrypt([name], [b"hello"])
    assert other.decrypt([DESK], sent.kinds, sent.tolist()).tolist() == [b"hello"]
    assert [peer.address for peer in desk.peers()] == [name]
    assert engine.groups(name, [name], [name]).tolist() != engine.groups(name, [name]).tolist()
    engine.delete_account(name)
    assert name not in engine.accounts()


def test_names_do_not_run_into_each_other(engine: interlane.Engine) -> None:
    engine.account("a", create=True)
    pairs = [("ab", "c"), ("a", "bc"), ("abc", None), ("ab", "c\0"), ("a", "b"), ("a", None), ("\0", "\0\0")]
    handles = engine.groups("a", [group for group, _ in pairs], [sender for _, sender in pairs])
    assert len(set(handles.tolist())) == len(pairs)


# --- Threads ------------------------------------------------------------------------------------------------


def all_end(*works: Callable[[], None], seconds: float = PATIENCE) -> None:
    """Runs each in a thread of its own. What one raises is raised; one that does not end is a deadlock."""
    raised: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), "a call hangs"
    if raised:
        raise raised[0]


@pytest.mark.parametrize("same", [True, False], ids=["one session", "sessions of their own"])
def test_two_threads_hammer(engine: interlane.Engine, same: bool) -> None:
    line = desks(engine, 4)
    sent: list[interlane.Rows] = []

    def work(part: slice) -> Callable[[], None]:
        handles = np.tile(line.outward[part], 20)

        def hammer() -> None:
            for i in range(150):
                # In one order and the other, so that what is taken bit by bit would meet head on.
                sent.append(engine.encrypt(handles if i % 2 else handles[::-1].copy(), [b"x"] * len(handles)))

        return hammer

    all_end(*(work(slice(None) if same else part) for part in (slice(0, 2), slice(2, 4))))
    assert all(rows.ok.all() for rows in sent)
    keys = set()
    for rows in sent:
        for row in rows:
            inner = dict(fields_of(row.data[1:]))[4]
            assert isinstance(inner, bytes)
            fields = dict(fields_of(inner[1:-8]))
            keys.add((fields[1], fields[2]))
    assert len(keys) == sum(len(rows) for rows in sent)


def test_a_call_on_all_sessions_gets_its_turn(engine: interlane.Engine) -> None:
    """While other threads keep every one of its sessions busy."""
    line = desks(engine, 6)
    stop = threading.Event()
    waited: list[float] = []

    def busy(at: int) -> Callable[[], None]:
        handles, data = np.repeat(line.outward[at], 1_000), [bytes(200)] * 1_000

        def work() -> None:
            while not stop.is_set():
                engine.encrypt(handles, data)

        return work

    def whole() -> None:
        try:
            for _ in range(10):
                begun = time.monotonic()
                assert engine.encrypt(line.outward, [b"x"] * 6).ok.all()
                waited.append(time.monotonic() - begun)
        finally:
            stop.set()

    all_end(whole, *(busy(at) for at in range(6)))
    assert len(waited) == 10


def test_calls_of_every_sort_from_many_threads(engine: interlane.Engine) -> None:
    """Start, encrypt, decrypt, forget, delete, prekeys, groups at once: each call ends, and none raises."""
    desk, bell = engine.account(DESK, create=True), engine.account("bell", create=True)
    names = [f"peer-{i}" for i in range(40)]
    bundle = bell.prekeys(50).bundle()
    until = time.monotonic() + 4
    calls = {"start": 0, "encrypt": 0, "open": 0, "forget": 0, "delete": 0, "prekeys": 0, "group": 0}

    def again(name: str, call: Callable[[Random], object]) -> Callable[[], None]:
        def work() -> None:
            random = Random(name)
            while time.monotonic() < until:
                call(random)
                calls[name] += 1

        return work

    def start(random: Random) -> None:
        some = random.sample(names, 10)
        assert desk.start_sessions(some, [bundle] * 10).ok.all()

    def encrypt(random: Random) -> None:
        some = random.choices(names, k=50)
        rows = desk.encrypt(some, [b"x"] * 50)
        assert {row.status for row in rows} <= {Status.OK, Status.NO_SESSION}

    def open_(random: Random) -> None:
        some = random.sample(names, 20)
        sent = desk.encrypt(some, [name.encode() for name in some])
        good = sent.ok
        frames = [row.data for row in sent if row.data]
        got = bell.decrypt(
            [name for name, ok in zip(some, good, strict=True) if ok], sent.kinds[good], frames
        )
        assert {row.status for row in got} <= {Status.OK, Status.DUPLICATE}
        if len(frames):
            refused(bell.decrypt(["who"], "msg", [damaged(random, frames[0], frames)]))

    def forget(random: Random) -> None:
        assert desk.forget(random.sample(names, 3)).ok.all()
        desk.peers()

    def delete(random: Random) -> None:
        name = f"short-lived-{random.random()}"
        account = engine.account(name, create=True)
        handles = [*engine.sessions(account, names[:5]).tolist(), *desk.sessions(names[:5]).tolist()]
        assert account.start_sessions(names[:5], [bundle] * 5).ok.all()
        rows: list[interlane.Rows] = []
        mixed = threading.Thread(
            target=lambda: rows.extend(engine.encrypt(handles, [b"x"] * 10) for _ in range(5)), daemon=True
        )
        mixed.start()
        engine.delete_account(name)
        mixed.join(PATIENCE)
        assert len(rows) == 5
        for part in rows:
            assert {row.status for row in part} <= {Status.OK, Status.NO_SESSION, Status.UNKNOWN_HANDLE}

    def prekeys(random: Random) -> None:
        desk.prekeys(random.randrange(20))
        assert desk.stock >= 0
        engine.stats()

    def group(random: Random) -> None:
        own = desk.group(random.choice("abc"))
        if random.random() < 0.3:
            own.rotate()
        message = own.distribute()
        sent = own.encrypt([b"x"] * 3)
        assert bell.group(random.choice("abc")).accept([DESK], [message]).ok.all()
        assert {row.status for row in sent} <= {Status.OK, Status.NO_SENDER_KEY}

    works = {
        "start": start,
        "encrypt": encrypt,
        "open": open_,
        "forget": forget,
        "delete": delete,
        "prekeys": prekeys,
        "group": group,
    }
    all_end(*(again(name, call) for name, call in works.items()))
    assert all(calls.values()), calls


def test_an_account_deleted_during_calls_on_new_sessions_harms_no_other(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """On a store: sessions made after the deletion had begun are not claimed by it, and a batch that
    has them beside another account's must not fail for the deleted account's sake."""
    path = tmp_path_factory.mktemp("store") / "gateway.db"
    with interlane.open(path, key=bytes(32), threads=1) as engine:
        desk, bell = engine.account(DESK, create=True), engine.account("bell", create=True)
        bundle = bell.prekeys(0).bundle()
        until = time.monotonic() + 6
        names = (f"short-lived-{i}" for i in range(10**9))
        current = [next(names)]
        engine.account(current[0], create=True)

        def mixed() -> None:
            i = 0
            while time.monotonic() < until:
                i += 1
                try:
                    handles = engine.sessions([current[0], DESK], [f"fresh-{i}", f"fresh-{i}"])
                except (MalformedCall, interlane.UnknownAccount):
                    continue
                rows = engine.start_sessions(handles, [bundle] * 2)
                assert rows[1].status is Status.OK
                assert rows[0].status in (Status.OK, Status.UNKNOWN_HANDLE)

        def delete() -> None:
            while time.monotonic() < until:
                name = next(names)
                engine.account(name, create=True)
                former, current[0] = current[0], name
                engine.delete_account(former)

        all_end(mixed, mixed, delete)
        assert desk.encrypt(["fresh-1"], [b"x"])[0].status in (Status.OK, Status.NO_SESSION)


def test_a_frame_made_for_everyone_is_one_peers(desk: interlane.Account) -> None:
    """A peer's frame under another peer's name is refused there, and opens where it belongs."""
    eve, mallory = Forger("eve"), Forger("mallory", b"m" * 32)
    acquainted(desk, eve)
    acquainted(desk, mallory)
    frame: Frame = eve.send(DESK, b"mine")
    refused(desk.decrypt([mallory.name], frame.kind, [frame.data]))
    assert desk.decrypt([eve.name], frame.kind, [frame.data]).tolist() == [b"mine"]
