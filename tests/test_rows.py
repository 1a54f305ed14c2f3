"""What comes out of a call: columns that are lent, not copied, and that outlive everything else."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import interlane
import nanoarrow
import numpy as np
import pyarrow as pa
import pytest
from desks import Desks, desks
from interlane import Event, Kind, Row, Status, _native, aead

PLAINTEXTS = [b"", b"one", b"another", b"x" * 300]


@pytest.fixture
def line() -> Iterator[Desks]:
    with interlane.open(":memory:", threads=1) as engine:
        yield desks(engine, len(PLAINTEXTS))


@pytest.fixture
def rows(line: Desks) -> interlane.Rows:
    """Four rows, of which the second failed."""
    sent = line.sender.encrypt(line.to, PLAINTEXTS)
    frames = sent.tolist()
    # In the inner message's MAC.
    frames[1] = frames[1][:-20] + bytes([frames[1][-20] ^ 1]) + frames[1][-19:]
    return line.receiver.decrypt(line.sources, sent.kinds, frames)


def test_columns(rows: interlane.Rows) -> None:
    assert len(rows) == 4
    assert rows.status.tolist() == [0, 4, 0, 0]
    assert rows.ok.tolist() == [True, False, True, True]
    assert rows.kinds.tolist() == [2, 0, 2, 2]
    assert rows.events[1] == 0
    assert rows.offsets.tolist() == [0, 0, 0, 7, 307]
    assert rows.data.tobytes() == b"another" + b"x" * 300
    assert [column.dtype for column in (rows.status, rows.kinds, rows.events, rows.data)] == [np.uint8] * 4
    assert rows.offsets.dtype == np.int64
    assert rows.ok.dtype == np.bool_
    assert rows.tolist() == [b"", b"", b"another", b"x" * 300]


def test_rows_one_by_one(rows: interlane.Rows) -> None:
    first, failed, third, last = rows
    assert failed == Row(Status.INVALID, "none", b"", Event(0))
    assert third[:3] == (Status.OK, "pkmsg", b"another")
    assert isinstance(first.status, Status)
    assert isinstance(first.events, Event)
    assert Event.NEW_SESSION in first.events
    assert Event.PREKEY_CONSUMED in first.events
    assert rows[3] == rows[-1] == rows[np.int64(3)] == last
    assert rows[-4] == first
    for index in (4, -5, 2**62, -(2**62)):
        with pytest.raises(IndexError):
            rows[index]
    with pytest.raises(TypeError):
        rows["0"]
    with pytest.raises((IndexError, OverflowError)):
        rows[2**64]
    iterator = iter(rows)
    assert next(iterator) == first
    assert list(iterator) == [failed, third, last]
    assert list(iterator) == []
    status, kind, data, events = third
    assert (status, kind, data, events) == tuple(third)


def test_the_kinds_of_frames(line: Desks) -> None:
    assert {row.kind for row in line.sender.encrypt(line.to, PLAINTEXTS)} == {"pkmsg"}
    group = line.sender.group("g")
    group.distribute()
    assert [row.kind for row in group.encrypt([b"a", b"b"])] == ["skmsg", "skmsg"]
    assert [row.kind for row in line.engine.group_distribute([group.handle])] == ["skdm"]


def test_no_content_is_printed(rows: interlane.Rows) -> None:
    assert repr(rows) == "<Rows: 4 rows, 307 bytes, 3 OK, 1 INVALID>"


def test_names_agree_with_the_engine() -> None:
    assert [status.name for status in Status] == _native.statuses()
    assert list(Status) == list(range(len(Status)))
    assert [kind.name.lower() for kind in Kind] == ["none", "msg", "pkmsg", "skmsg", "skdm"]
    assert interlane.backend() in interlane.backends()
    assert "portable" in interlane.backends()
    assert dict(interlane.kernels("portable")).keys() >= {"sha256", "gcm", "x25519"}
    assert _native.measure("gcm", "portable") > 0
    with pytest.raises(interlane.MalformedCall, match="there are sha256/compression, hmac"):
        _native.measure("aes")


def test_views_copy_nothing(rows: interlane.Rows) -> None:
    array = pa.array(rows)
    columns = [rows.status, rows.kinds, rows.events]
    for name, column in zip(("status", "kind", "events"), columns, strict=True):
        assert array.field(name).buffers()[1].address == column.ctypes.data
    _, offsets, data = array.field("data").buffers()
    assert offsets.address == rows.offsets.ctypes.data
    assert data.address == rows.data.ctypes.data
    for column in (*columns, rows.offsets, rows.data):
        assert not column.flags.owndata
        assert not column.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            column[:1] = 0
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            column.flags.writeable = True
    # Made once.
    assert rows.data is rows.data
    assert rows.status is not rows.kinds


def test_what_is_lent_outlives_its_lender() -> None:
    engine = interlane.open(":memory:")
    line = desks(engine, len(PLAINTEXTS))
    sent = line.engine.encrypt(line.outward, PLAINTEXTS)
    frames = sent.tolist()
    data, offsets, status = sent.data, sent.offsets, sent.status
    iterator, arrow, capsules = iter(sent), pa.array(sent), sent.__arrow_c_array__()
    engine.close()
    del engine, line, sent
    gc.collect()
    # What was freed too early would be written over by these.
    churn = [bytes([i]) * len(data) for i in range(64)]
    assert [data[start:end].tobytes() for start, end in pairwise(offsets)] == frames
    assert status.tolist() == [0] * 4
    assert [row.data for row in iterator] == frames
    assert arrow.field("data").to_pylist() == frames
    assert nanoarrow.Array(capsules[1], capsules[0]).to_pylist()[1]["data"] == frames[1]
    del churn


def test_arrow_is_read_by_others(rows: interlane.Rows) -> None:
    batch = pa.record_batch(rows)
    batch.validate(full=True)
    assert batch.schema.names == ["status", "kind", "events", "data"]
    assert [str(field.type) for field in batch.schema] == ["uint8", "uint8", "uint8", "large_binary"]
    assert batch.num_rows == 4
    assert batch.column("data").to_pylist() == rows.tolist()
    assert batch.column("status").to_pylist() == rows.status.tolist()
    struct = pa.array(rows)
    struct.validate(full=True)
    assert struct.null_count == 0
    assert struct[2].as_py() == {"status": 0, "kind": 2, "events": int(rows.events[2]), "data": b"another"}
    read = nanoarrow.Array(rows)
    assert [row["data"] for row in read.to_pylist()] == rows.tolist()
    assert [field.name for field in read.schema.fields] == ["status", "kind", "events", "data"]
    # A child that is moved away keeps the memory when its parent is let go.
    child = struct.field("data")
    del struct, batch, read
    gc.collect()
    assert child.to_pylist() == rows.tolist()


def test_arrow_goes_back_in(line: Desks) -> None:
    sent = pa.record_batch(line.sender.encrypt(line.to, PLAINTEXTS))
    got = line.receiver.decrypt(line.sources, sent.column("kind").to_numpy(), sent.column("data"))
    assert got.tolist() == PLAINTEXTS


def test_no_rows_are_lent_too() -> None:
    none = aead.seal("aes-256-gcm", b"", b"", [])
    assert [len(column) for column in (none.status, none.kinds, none.events, none.data, none.ok)] == [0] * 5
    assert none.offsets.tolist() == [0]
    assert (
        list(none) == none.tolist() == pa.array(none).to_pylist() == nanoarrow.Array(none).to_pylist() == []
    )
    with pytest.raises(IndexError):
        none[0]


def test_the_memory_is_given_back() -> None:
    """A result's memory goes when the last of its borrowers does, however it was borrowed, taken or left."""
    megabytes = 8

    def resident() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096

    def borrow(way: int) -> None:
        rows = aead.seal("aes-256-gcm", bytes(32), bytes(12), [bytes(megabytes << 20)])
        match way % 5:
            case 0:
                rows.__arrow_c_array__()
            case 1:
                pa.array(rows)
            case 2:
                pa.record_batch(rows).column("data")
            case 3:
                nanoarrow.Array(rows)
            case 4:
                rows.data.sum()

    for way in range(5):
        borrow(way)
    before = resident()
    for way in range(40):
        borrow(way)
    assert resident() - before < 3 * megabytes << 20


@pytest.mark.parametrize("accounts", [2, 17, 50])
def test_rows_of_many_accounts_are_mixed_in_one_call(accounts: int) -> None:
    """More of them than a run has at hand, in turn: every row is its own account's."""
    with interlane.open(":memory:", threads=1) as engine:
        far = engine.account("far", create=True)
        near = [engine.account(f"near-{i}", create=True) for i in range(accounts)]
        names = [f"near-{i}" for i in range(accounts)]
        outward = engine.sessions(near, ["far"] * accounts)
        inward = engine.sessions([far] * accounts, names)
        bundles = list(far.prekeys(accounts).bundles())
        assert engine.start_sessions(outward, bundles).ok.all()
        order = [*range(accounts), *reversed(range(accounts)), 0, accounts - 1, 0]
        plaintexts = [f"row {at} of {i}".encode() for at, i in enumerate(order)]
        sent = engine.encrypt(outward[order], plaintexts)
        opened = engine.decrypt(inward[order], sent.kinds, sent.data, sent.offsets)
        assert opened.tolist() == plaintexts
        answers = engine.encrypt(inward[order], plaintexts)
        assert engine.decrypt(outward[order], answers.kinds, answers.tolist()).tolist() == plaintexts
