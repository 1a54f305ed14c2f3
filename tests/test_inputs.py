"""What goes into a call: every form of the same rows does the same, and a malformed call changes nothing."""

from __future__ import annotations

import array
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import interlane
import nanoarrow
import numpy as np
import pyarrow as pa
import pytest
from desks import Desks, desks
from hypothesis import given
from hypothesis import strategies as st
from interlane import MalformedCall, Status, aead

SESSIONS = 20
PLAINTEXTS = [bytes([i]) * (i * 7 % 50) for i in range(SESSIONS)]


@pytest.fixture(scope="module")
def line() -> Iterator[Desks]:
    with interlane.open(":memory:", threads=2) as engine:
        yield desks(engine, SESSIONS)


def packed(rows: list[bytes]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return np.frombuffer(b"".join(rows), np.uint8), offsets


def sealed(data: Any, offsets: Any = None, *, rows: int) -> list[bytes]:
    """The one call whose result depends on its rows alone: it tells whether two forms are the same."""
    keys = bytes(i % 251 for i in range(rows * 32))
    nonces = bytes(i % 241 for i in range(rows * 12))
    return aead.seal("aes-256-gcm", keys, nonces, data, offsets).tolist()


FORMS: dict[str, Callable[[list[bytes]], tuple[Any, ...]]] = {
    "tuple": lambda rows: (tuple(rows),),
    "bytearrays": lambda rows: ([bytearray(row) for row in rows],),
    "memoryviews": lambda rows: ([memoryview(row) for row in rows],),
    "arrays": lambda rows: ([np.frombuffer(row, np.uint8) for row in rows],),
    "mixed": lambda rows: ([row if i % 2 else bytearray(row) for i, row in enumerate(rows)],),
    "numpy": packed,
    "bytes": lambda rows: (b"".join(rows), packed(rows)[1]),
    "bytearray and array": lambda rows: (
        bytearray(b"".join(rows)),
        array.array("q", packed(rows)[1].tolist()),
    ),
    "unaligned offsets": lambda rows: (
        packed(rows)[0],
        np.frombuffer(b"x" + packed(rows)[1].tobytes(), np.uint8)[1:].view(np.int64),
    ),
    "part of an array": lambda rows: (
        np.frombuffer(b"head" + b"".join(rows) + b"tail", np.uint8)[2:-2],
        packed(rows)[1] + 2,
    ),
    "part of a memoryview": lambda rows: (
        memoryview(b"head" + b"".join(rows) + b"tail")[4:],
        packed(rows)[1],
    ),
    "offsets from the middle": lambda rows: (b"head" + b"".join(rows) + b"tail", packed(rows)[1] + 4),
    "binary": lambda rows: (pa.array(rows, pa.binary()),),
    "large_binary": lambda rows: (pa.array(rows, pa.large_binary()),),
    "sliced binary": lambda rows: (pa.array([b"ab", None, *rows, None], pa.binary())[2:-1],),
    "sliced large_binary": lambda rows: (pa.array([b"a", b"", *rows, b"z"], pa.large_binary())[2:-1],),
    "nanoarrow": lambda rows: (nanoarrow.Array(rows, nanoarrow.binary()),),
    "nanoarrow large": lambda rows: (nanoarrow.Array(rows, nanoarrow.large_binary()),),
}


@pytest.mark.parametrize("form", FORMS)
@given(rows=st.lists(st.binary(max_size=40), max_size=40))
def test_every_form_is_the_same_rows(form: str, rows: list[bytes]) -> None:
    expected = sealed(rows, rows=len(rows))
    assert sealed(*FORMS[form](rows), rows=len(rows)) == expected
    assert [len(row) for row in expected] == [len(row) + 16 for row in rows]


@pytest.mark.parametrize("form", ["list", *FORMS])
def test_every_form_is_sent_and_opened(line: Desks, form: str) -> None:
    arguments = (list(PLAINTEXTS),) if form == "list" else FORMS[form](PLAINTEXTS)
    assert line.opened(line.engine.encrypt(line.outward, *arguments)) == PLAINTEXTS
    sent = line.sender.encrypt(line.to, *arguments)
    data = FORMS[form](sent.tolist()) if form != "list" else (sent.tolist(),)
    got = line.engine.decrypt(line.inward, sent.kinds, *data)
    assert got.tolist() == PLAINTEXTS


def test_a_result_goes_back_in(line: Desks) -> None:
    """Its memory cannot change: it is read where it lies, and kept meanwhile."""
    sent = line.sender.encrypt(line.to, PLAINTEXTS)
    columns = sent.kinds[5:], sent.data[int(sent.offsets[5]) :], sent.offsets[5:] - sent.offsets[5]
    del sent
    assert line.engine.decrypt(line.inward[5:], *columns).tolist() == PLAINTEXTS[5:]


class Claiming(bytearray):
    """Names an owner whose memory is another."""

    base = bytes(sum(map(len, PLAINTEXTS)))


def test_an_owner_is_believed_of_its_own_memory_alone(line: Desks) -> None:
    data, offsets = packed(PLAINTEXTS)
    assert line.opened(line.engine.encrypt(line.outward, Claiming(data.tobytes()), offsets)) == PLAINTEXTS


@pytest.mark.parametrize("form", ["list", *FORMS])
def test_no_rows(line: Desks, form: str) -> None:
    data = FORMS[form]([]) if form != "list" else ([],)
    none = line.outward[:0]
    for rows in (
        line.engine.encrypt(none, *data),
        line.engine.decrypt(none, "msg", *data),
        line.engine.group_encrypt(none, *data),
        line.engine.group_decrypt([], *data),
        line.engine.group_accept((), *data),
        line.sender.encrypt([], *data),
    ):
        assert len(rows) == 0
        assert rows.tolist() == list(rows) == []
        assert rows.offsets.tolist() == [0]


@pytest.mark.parametrize(
    "handles",
    [
        lambda handles: handles.tolist(),
        lambda handles: tuple(handles.tolist()),
        lambda handles: list(handles),
        lambda handles: array.array("Q", handles.tolist()),
        lambda handles: memoryview(handles),
        lambda handles: np.frombuffer(b"x" + handles.tobytes(), np.uint8)[1:].view(np.uint64),
    ],
    ids=["list", "tuple", "numpy scalars", "array", "memoryview", "unaligned"],
)
def test_handles_in_every_form(line: Desks, handles: Callable[[Any], Any]) -> None:
    assert line.opened(line.engine.encrypt(handles(line.outward), PLAINTEXTS)) == PLAINTEXTS


@pytest.mark.parametrize(
    "form",
    [
        lambda kinds: kinds,
        lambda kinds: kinds.tobytes(),
        lambda kinds: [{1: "msg", 2: "pkmsg"}[kind] for kind in kinds.tolist()],
        lambda kinds: tuple(interlane.Kind(kind) for kind in kinds.tolist()),
        lambda kinds: {1: "msg", 2: "pkmsg"}[kinds.tolist()[0]],
    ],
    ids=["numpy", "bytes", "names", "enum", "one name"],
)
def test_kinds_in_every_form(line: Desks, form: Callable[[Any], Any]) -> None:
    sent = line.engine.encrypt(line.outward, PLAINTEXTS)
    assert line.engine.decrypt(line.inward, form(sent.kinds), sent.tolist()).tolist() == PLAINTEXTS


def test_names_are_handles(line: Desks) -> None:
    assert line.sender.sessions(line.to).tolist() == line.outward.tolist()
    # Again, when the account remembers them, and in another order, with new ones among them.
    names = [*reversed(line.to), "new-1", "to-0", "new-2"]
    by_engine = line.engine.sessions("sender", names)
    assert line.sender.sessions(names).tolist() == by_engine.tolist()
    assert line.sender.sessions(names).tolist() == by_engine.tolist()
    assert len(set(by_engine.tolist())) == SESSIONS + 2
    mixed = line.engine.sessions([line.sender, "receiver", "sender"], ["to-3", "from-4", "to-5"])
    assert mixed.tolist() == [line.outward[3], line.inward[4], line.outward[5]]
    assert mixed.dtype == np.uint64
    assert mixed.flags.writeable


def test_group_names_are_handles(line: Desks) -> None:
    own, again = line.engine.groups(line.sender, ["g", "g"]).tolist()
    assert own == again == line.sender.group("g").handle
    theirs = line.engine.groups("sender", ["g", "g", "h"], ["from-1", None, "from-1"]).tolist()
    assert theirs[1] == own
    assert len(set(theirs)) == 3


class Iterable:
    """Neither a sequence nor a buffer."""

    def __iter__(self) -> Iterator[bytes]:
        return iter(PLAINTEXTS)


class NotArrow:
    """Something that claims to be an Arrow array."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def __arrow_c_array__(self, requested_schema: object = None) -> Any:
        return self.result


DATA, OFFSETS = packed(PLAINTEXTS)


def changed(at: int, value: int) -> np.ndarray[Any, Any]:
    offsets = OFFSETS.copy()
    offsets[at] = value
    return offsets


MALFORMED_DATA: list[tuple[Any, Any, str]] = [
    ("text", None, "data: str; give a list of bytes"),
    (5, None, "data: int; give a list of bytes"),
    (None, None, "data: NoneType"),
    (Iterable(), None, "data: Iterable"),
    (DATA, None, "data: one buffer for all rows needs offsets"),
    (b"".join(PLAINTEXTS), None, "data: one buffer for all rows needs offsets"),
    ([*PLAINTEXTS[:-1], "text"], None, rf"data\[{SESSIONS - 1}\]: str is no buffer"),
    ([*PLAINTEXTS[:-1], None], None, rf"data\[{SESSIONS - 1}\]: NoneType is no buffer"),
    ([np.zeros(4, np.uint16), *PLAINTEXTS[1:]], None, r"data\[0\]: a buffer of format \"H\"; give uint8"),
    ([np.zeros(8, np.uint8)[::2], *PLAINTEXTS[1:]], None, r"data\[0\]: the buffer has gaps"),
    (PLAINTEXTS, OFFSETS, "offsets: data is a list already"),
    (PLAINTEXTS[1:], None, r"20 handles, but data has 19 rows"),
    ([*PLAINTEXTS, b""], None, r"20 handles, but data has 21 rows"),
    (DATA, OFFSETS[:-1], r"20 handles, but data has 19 rows"),
    (DATA.astype(np.int8), OFFSETS, 'data: a buffer of format "b"; give uint8'),
    (DATA.astype(np.float32), OFFSETS, 'data: a buffer of format "f"; give uint8'),
    (np.repeat(DATA, 2)[::2], OFFSETS, "data: the buffer has gaps"),
    (DATA[:4].reshape(2, 2), OFFSETS, "data: 2 dimensions"),
    (np.zeros((2, 2), np.uint8, order="F"), OFFSETS, "data: the buffer has gaps"),
    (np.uint8(3), OFFSETS, "data: uint8 is no buffer"),
    (5, OFFSETS, "data: int is no buffer"),
    (DATA, OFFSETS.tolist(), "offsets: list is no buffer; give an int64 buffer"),
    (DATA, OFFSETS.astype(np.int32), 'offsets: a buffer of format "i"; give int64'),
    (DATA, OFFSETS.astype(np.uint64), 'offsets: a buffer of format "L"; give int64'),
    (DATA, OFFSETS.astype(">i8"), 'offsets: a buffer of format ">q"; give int64'),
    (DATA, np.repeat(OFFSETS, 2)[::2], "offsets: the buffer has gaps"),
    (DATA, OFFSETS[:0], "offsets: empty"),
    (DATA, changed(0, -1), "offsets: the first is -1"),
    (DATA, changed(0, -(2**63)), "offsets: the first is -9223372036854775808"),
    (DATA, changed(5, int(OFFSETS[4]) - 1), r"offsets: offsets\[5\] is \d+, below the one before it"),
    (DATA, changed(5, -1), r"offsets: offsets\[5\] is -1, below the one before it"),
    (DATA, changed(5, 2**63 - 1), r"offsets: offsets\[6\] is \d+, below the one before it"),
    (DATA, OFFSETS[::-1].copy(), r"offsets: offsets\[1\] is"),
    (DATA, changed(-1, len(DATA) + 1), r"offsets: the last is \d+, but data has \d+ bytes"),
    (DATA, changed(-1, 2**63 - 1), "offsets: the last is 9223372036854775807"),
    (b"", OFFSETS, "offsets: the last is"),
    (pa.array([*PLAINTEXTS[:-1], None]), None, rf"data\[{SESSIONS - 1}\]: is null"),
    (pa.array([b"a", *PLAINTEXTS[:-1], None])[1:], None, rf"data\[{SESSIONS - 1}\]: is null"),
    (pa.array(["text"] * SESSIONS), None, r'data: StringArray: Arrow format "u"; give a binary'),
    (pa.array(PLAINTEXTS, pa.binary_view()), None, r'data: BinaryViewArray: Arrow format "vz"'),
    (pa.array([b"ab"] * SESSIONS, pa.binary(2)), None, r'data: FixedSizeBinaryArray: Arrow format "w:2"'),
    (pa.array(PLAINTEXTS).dictionary_encode(), None, "data: DictionaryArray: Arrow format"),
    (pa.array(range(SESSIONS)), None, r'data: Int64Array: Arrow format "l"'),
    (pa.chunked_array([PLAINTEXTS]), None, "data: ChunkedArray"),
    (NotArrow(None), None, "data: NotArrow: no pair of Arrow capsules"),
    (NotArrow((1, 2)), None, "data: NotArrow: no pair of Arrow capsules"),
    (NotArrow(()), None, "data: NotArrow: no pair of Arrow capsules"),
    (NotArrow(pa.array([b""]).__arrow_c_array__()[::-1]), None, "data: NotArrow: no pair of Arrow capsules"),
]


@pytest.mark.parametrize(("data", "offsets", "text"), MALFORMED_DATA)
def test_malformed_rows(line: Desks, data: Any, offsets: Any, text: str) -> None:
    before = line.engine.stats()
    calls: list[Callable[[], Any]] = [
        lambda: line.engine.encrypt(line.outward, data, offsets),
        lambda: line.sender.encrypt(line.to, data, offsets),
        lambda: line.engine.decrypt(line.inward, "msg", data, offsets),
        lambda: line.engine.group_accept(line.inward, data, offsets),
        lambda: line.engine.group_encrypt(line.inward, data, offsets),
        lambda: line.engine.group_decrypt(line.inward, data, offsets),
    ]
    for call in calls:
        with pytest.raises(MalformedCall, match=text) as raised:
            call()
        assert isinstance(raised.value, ValueError)
        assert "\n" not in str(raised.value)
    assert line.engine.stats() == before
    assert line.opened(line.engine.encrypt(line.outward, PLAINTEXTS)) == PLAINTEXTS


@pytest.mark.parametrize(
    ("handles", "text"),
    [
        (np.arange(SESSIONS), 'handles: a buffer of format "l"; give uint64'),
        (np.arange(SESSIONS, dtype=np.uint32), 'handles: a buffer of format "I"; give uint64'),
        (np.arange(SESSIONS, dtype=">u8"), 'handles: a buffer of format ">Q"; give uint64'),
        (np.arange(SESSIONS, dtype=float), 'handles: a buffer of format "d"; give uint64'),
        (np.arange(2 * SESSIONS, dtype=np.uint64)[::2], "handles: the buffer has gaps"),
        (np.zeros((2, SESSIONS // 2), np.uint64), "handles: 2 dimensions"),
        (b"12345678", 'handles: a buffer of format "B"; give uint64'),
        (7, "handles: int is no buffer"),
        ("to-0", "handles: str is no buffer"),
        (None, "handles: NoneType is no buffer"),
        (["to-0"] * SESSIONS, r"handles\[0\]: str is no handle"),
        ([*range(SESSIONS - 1), -1], r"handles\[19\]: int is no handle"),
        ([*range(SESSIONS - 1), 2**64], r"handles\[19\]: int is no handle"),
        ([*range(SESSIONS - 1), 1.0], r"handles\[19\]: float is no handle"),
        (range(SESSIONS), "handles: range is no buffer"),
        ([], "0 handles, but data has 20 rows"),
    ],
)
def test_malformed_handles(line: Desks, handles: Any, text: str) -> None:
    with pytest.raises(MalformedCall, match=text):
        line.engine.encrypt(handles, PLAINTEXTS)
    with pytest.raises(MalformedCall, match=text):
        line.engine.decrypt(handles, "msg", PLAINTEXTS)


@pytest.mark.parametrize(
    ("kinds", "text"),
    [
        ("MSG", 'kinds: "MSG" is no kind'),
        ("", 'kinds: "" is no kind'),
        ("skmsg", r"kinds\[0\] is 3"),
        (None, "kinds: NoneType is no buffer"),
        (2, "kinds: int is no buffer"),
        (["msg"] * 19 + ["x"], r'kinds\[19\]: "x" is no kind'),
        (["msg"] * 19 + [None], r"kinds\[19\]: NoneType"),
        (["msg"] * 19 + [1000], r"kinds\[19\]: int"),
        (["msg"] * 19 + ["none"], r"kinds\[19\] is 0"),
        (["msg"] * 19, "20 handles, but kinds has 19 rows"),
        (bytes([1] * 21), "20 handles, but kinds has 21 rows"),
        (bytes([1] * 19 + [5]), r"kinds\[19\] is 5"),
        (np.ones(20, np.int64), 'kinds: a buffer of format "l"; give uint8'),
        (np.ones(40, np.uint8)[::2], "kinds: the buffer has gaps"),
    ],
)
def test_malformed_kinds(line: Desks, kinds: Any, text: str) -> None:
    sent = line.engine.encrypt(line.outward, PLAINTEXTS)
    with pytest.raises(MalformedCall, match=text):
        line.engine.decrypt(line.inward, kinds, sent.tolist())
    assert line.opened(sent) == PLAINTEXTS


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("to-0", "peers: str; give a list of str"),
        (b"to-0", "peers: bytes; give a list of str"),
        (None, "peers: NoneType; give a list of str"),
        (["to-0", None], r"peers\[1\]: NoneType is no name"),
        (["to-0", b"to-1"], r"peers\[1\]: bytes is no name"),
        (["to-0", "\ud800"], r"peers\[1\]: str is no name"),
        (["to-0", ""], "a peer name is empty"),
        (["to-0", "x" * 513], "a peer name has 513 bytes"),
    ],
)
def test_malformed_names(line: Desks, names: Any, text: str) -> None:
    for call in (
        lambda: line.sender.encrypt(names, [b"", b""]),
        lambda: line.sender.sessions(names),
        lambda: line.engine.sessions(line.sender, names),
        lambda: line.sender.forget(names),
    ):
        with pytest.raises(MalformedCall, match=text):
            call()
    with pytest.raises(MalformedCall, match=text.replace("peer", "sender")):
        line.sender.group("g").decrypt(names, [b"", b""])


def test_malformed_accounts(line: Desks) -> None:
    with pytest.raises(interlane.UnknownAccount, match='there is no account "who"') as raised:
        line.engine.account("who")
    assert isinstance(raised.value, KeyError)
    for accounts in ("who", ["sender", "who"]):
        with pytest.raises(interlane.UnknownAccount):
            line.engine.sessions(accounts, ["a", "b"])
    with pytest.raises(MalformedCall, match="accounts: int"):
        line.engine.sessions(5, ["a"])
    with pytest.raises(MalformedCall, match="accounts: float"):
        line.engine.sessions([1.5], ["a"])
    with pytest.raises(MalformedCall, match="2 accounts for 3 names"):
        line.engine.sessions(["sender", "receiver"], ["a", "b", "c"])
    with pytest.raises(MalformedCall, match="2 handles, but senders has 1"):
        line.engine.groups("sender", ["g", "h"], ["a"])


def test_malformed_bundles(line: Desks) -> None:
    bundle = line.receiver.prekeys(0).bundle()
    for wrong, text in (
        (None, r"bundles\[1\]\.signed_prekey: NoneType has none; give an interlane.Bundle"),
        (interlane.Bundle(-1, bundle.identity, bundle.signed_prekey), r"bundles\[1\]\.registration_id: int"),
        (interlane.Bundle(1, "x", bundle.signed_prekey), r"bundles\[1\]\.identity: str; give bytes"),
        (
            interlane.Bundle(1, b"", interlane.SignedPrekey(2**40, b"", b"")),
            r"bundles\[1\]\.signed_prekey\.id",
        ),
        (
            interlane.Bundle(1, b"", bundle.signed_prekey, interlane.Prekey(1, None)),
            r"bundles\[1\]\.one_time_prekey\.public: NoneType",
        ),
    ):
        with pytest.raises(MalformedCall, match=text):
            line.sender.start_sessions(["new-1", "new-2"], [bundle, wrong])
    with pytest.raises(MalformedCall, match="bundles: Bundle; give a list of Bundle"):
        line.sender.start_sessions(["new-1"], bundle)
    # A peer's bundle that is wrong in itself is its row's matter.
    cut = interlane.Bundle(1, bundle.identity[:-1], bundle.signed_prekey)
    rows = line.sender.start_sessions(["new-1", "new-2"], [bundle, cut])
    assert [row.status for row in rows] == [Status.OK, Status.INVALID_BUNDLE]


def test_a_bundle_from_a_dict(line: Desks) -> None:
    bundle = next(line.receiver.prekeys(1).bundles())
    assert bundle.one_time_prekey is not None
    fields = {
        "registration_id": bundle.registration_id,
        "device_id": 3,
        "identity": bundle.identity,
        "signed_prekey": {
            "id": bundle.signed_prekey.id,
            "public": bundle.signed_prekey.public,
            "signature": bundle.signed_prekey.signature,
        },
        "one_time_prekey": {"id": bundle.one_time_prekey.id, "public": bundle.one_time_prekey.public},
    }
    made = interlane.Bundle.from_dict(fields)
    assert (made.device_id, made.one_time_prekey) == (3, bundle.one_time_prekey)
    assert interlane.Bundle.from_dict({**fields, "one_time_prekey": None}).one_time_prekey is None
    for wrong in ({}, {**fields, "signed_prekey": 5}, {**fields, "one_time_prekey": {"id": 1}}, 7):
        with pytest.raises(MalformedCall, match="bundle: "):
            interlane.Bundle.from_dict(wrong)


def test_unknown_handles_are_rows(line: Desks) -> None:
    handles = line.outward.copy()
    handles[[0, 7, 19]] = [2**64 - 1, 2**40, 10**6]
    sent = line.engine.encrypt(handles, PLAINTEXTS)
    assert [i for i, row in enumerate(sent) if row.status is Status.UNKNOWN_HANDLE] == [0, 7, 19]
    assert [row.data for row in sent if row.status] == [b""] * 3
    good = sent.ok
    got = line.engine.decrypt(
        line.inward[good], sent.kinds[good], [row.data for row in sent if not row.status]
    )
    assert got.tolist() == [PLAINTEXTS[i] for i in np.flatnonzero(good)]


def test_buffers_are_let_go(line: Desks) -> None:
    data, handles = bytearray(b"".join(PLAINTEXTS)), array.array("Q", line.outward.tolist())
    rows = [bytearray(row) for row in PLAINTEXTS]
    line.engine.encrypt(handles, data, OFFSETS)
    line.engine.encrypt(handles, rows)
    with pytest.raises(MalformedCall):
        line.engine.encrypt(handles, data, OFFSETS[:-1])
    # Resizing a buffer that someone still holds is an error.
    data.append(0)
    handles.append(0)
    for row in rows:
        row.append(0)


def test_data_that_another_thread_changes(line: Desks) -> None:
    """Each row is sent as it was or as it became: the input is read once, before it is worked on."""
    versions = [bytes([letter]) * (200 * SESSIONS) for letter in b"AB"]
    data = bytearray(versions[0])
    offsets = np.arange(SESSIONS + 1, dtype=np.int64) * 200
    stop = threading.Event()

    def write() -> None:
        view = memoryview(data)
        while not stop.is_set():
            for version in versions:
                for i in range(SESSIONS):
                    view[200 * i : 200 * i + 200] = version[:200]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {
            row for _ in range(300) for row in line.opened(line.engine.encrypt(line.outward, data, offsets))
        }
    finally:
        stop.set()
        writer.join()
        sys.setswitchinterval(interval)
    assert seen == {versions[0][:200], versions[1][:200]}


def test_offsets_that_another_thread_changes() -> None:
    """Never out of bounds: the call goes through with one version's rows, or is malformed."""
    data = np.arange(SESSIONS * 8, dtype=np.uint8)
    offsets = np.arange(SESSIONS + 1, dtype=np.int64) * 8
    stop = threading.Event()

    def write() -> None:
        values = [2**62, -5, 0, 8 * SESSIONS]
        while not stop.is_set():
            for i in range(1, SESSIONS):
                for value in (*values, 8 * i):
                    offsets[i] = value

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    writer = threading.Thread(target=write)
    writer.start()
    outcomes = {"sent": 0, "malformed": 0}
    try:
        for _ in range(2_000):
            try:
                rows = sealed(data, offsets, rows=SESSIONS)
            except MalformedCall:
                outcomes["malformed"] += 1
            else:
                outcomes["sent"] += 1
                assert sum(len(row) - 16 for row in rows) == len(data)
    finally:
        stop.set()
        writer.join()
        sys.setswitchinterval(interval)
    assert all(outcomes.values()), outcomes


def test_calls_from_many_threads(line: Desks) -> None:
    """Names are remembered under a lock, rows of a session taken one after the other: all open."""
    sent: list[interlane.Rows] = []

    def send() -> None:
        for _ in range(30):
            sent.append(line.sender.encrypt(line.to, PLAINTEXTS))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) == 120
    assert all(line.opened(rows) == PLAINTEXTS for rows in sent)


def test_a_closed_engine_refuses() -> None:
    engine = interlane.open(":memory:")
    account = engine.account("a", create=True)
    group = account.group("g")
    engine.close()
    engine.close()
    for call in (
        lambda: engine.encrypt([0], [b""]),
        lambda: engine.account("a"),
        lambda: engine.stats(),
        lambda: account.encrypt(["b"], [b""]),
        lambda: account.prekeys(1),
        lambda: group.distribute(),
    ):
        with pytest.raises(interlane.ClosedError, match="the engine is closed"):
            call()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_refuses(line: Desks) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            line.engine.encrypt(line.outward, PLAINTEXTS)
        except interlane.ForkedError:
            code = 42
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert line.opened(line.engine.encrypt(line.outward, PLAINTEXTS)) == PLAINTEXTS


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"threads": 0}, "threads: 0; give 1 to 1024"),
        ({"threads": 5000}, "threads: 5000"),
        ({"identity_changes": "maybe"}, "identity_changes: 'maybe'"),
        ({"resident_sessions": 0}, "resident_sessions: 0; give a number from 1 to"),
        ({"resident_sessions": 1.5}, "resident_sessions: 1.5; give a number from 1 to"),
        ({"resident_sessions": 1}, "resident_sessions: a store in memory has nothing to load sessions from"),
        ({"durability": "lazy"}, 'durability: \'lazy\'; give "strict" or "leased"'),
        ({"durability": "leased", "lease": 0}, "lease: 0; give a number from 1 to 1900"),
        ({"durability": "leased", "lease": 1_901}, "lease: 1901; give a number from 1 to 1900"),
        ({"backend": "abacus"}, 'backend: "abacus" is not one of this machine; available: .*portable'),
        ({"_seed": b"short"}, "_seed: 5 bytes; give 32"),
        ({"path": "mysql://here"}, "path: 'mysql://here'"),
        (
            {"path": "postgresql://here", "key": bytes(32), "generation": "g"},
            "generation: only a store in a file",
        ),
        ({"path": ""}, "path: ''"),
    ],
)
def test_malformed_options(options: dict[str, Any], text: str) -> None:
    with pytest.raises(MalformedCall, match=text):
        interlane.open(**{"path": ":memory:", **options})


def test_a_seed_fixes_the_randomness() -> None:
    identities = [
        interlane.open(":memory:", _seed=seed).account("a", create=True).identity
        for seed in (bytes(32), bytes(32), b"\1" * 32)
    ]
    assert identities[0] == identities[1] != identities[2]
