"""Leased durability: sends that write nothing, and what they cost when something goes wrong."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import interlane
import pytest
from test_store import BELL, DESK, GROUP, KEY, Line, place, texts

LEASE = 64


def opened(path: Path, lease: int = LEASE, resident: int | None = None) -> interlane.Engine:
    return interlane.open(
        path, key=KEY, threads=2, durability="leased", lease=lease, resident_sessions=resident
    )


def wait_for_leases(engine: interlane.Engine) -> None:
    """Until the thread that writes them has nothing to do."""
    before = -1
    while before != (before := engine.stats()["leases_written"]):
        time.sleep(0.05)


def counters(rows: interlane.Rows) -> set[int]:
    return {place(row.kind, row.data)[1] for row in rows}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


def test_sends_within_a_lease_write_nothing(path: Path) -> None:
    with opened(path) as engine:
        desk = engine.account("desk", create=True)
        line = Line.to(desk)
        group = desk.group(GROUP)
        assert line.bell.group(GROUP).accept(["desk"], [group.distribute()]).ok.all()
        log = path.with_name("gateway.db-wal")
        writes = 0
        for call in range(1_000):
            before = log.stat().st_mtime_ns
            line.takes(desk.encrypt(BELL, texts("warm")))
            sent = group.encrypt([b"warm"])
            line.note(*place("skmsg", sent[0].data))
            assert line.bell.group(GROUP).decrypt(["desk"], sent.tolist()).ok.all()
            writes += before != log.stat().st_mtime_ns
            if call % 32 == 0:
                wait_for_leases(engine)
        assert line.gap == 0
        stats = engine.stats()
    # A chain is leased 64 counters further every 32, and a few times more while it is young; nobody waits for
    # that but, at the very first, who comes before the thread does.
    assert 31 * (1_000 // 64) < stats["leases_written"] < 31 * (1_000 // 32 + 10)
    assert stats["calls_waited"] <= 20
    assert writes < 300


def test_closing_gives_leases_back(path: Path) -> None:
    with opened(path) as engine:
        desk = engine.account("desk", create=True)
        line = Line.to(desk)
        group = desk.group(GROUP)
        assert line.bell.group(GROUP).accept(["desk"], [group.distribute()]).ok.all()
    for n in range(20):
        with opened(path) as engine:
            desk = engine.account("desk")
            line.takes(desk.encrypt(BELL, texts("x")))
            line.note(*place("skmsg", desk.group(GROUP).encrypt([b"x"])[0].data))
            if n % 2:
                wait_for_leases(engine)
    assert line.gap == 0
    assert len(line.seen) == 20 * 31


@pytest.mark.parametrize("mode", ["strict", "leased"])
def test_a_copy_of_the_files_goes_on_at_the_leases_end(path: Path, tmp_path: Path, mode: str) -> None:
    """As after a power cut; in whichever mode it is opened."""
    engine = opened(path)
    desk = engine.account("desk", create=True)
    line = Line.to(desk)
    group = desk.group(GROUP)
    assert line.bell.group(GROUP).accept(["desk"], [group.distribute()]).ok.all()
    for n in range(1, 90):
        line.takes(desk.encrypt(BELL, texts("x")))
        assert group.encrypt([b"x"]).ok.all()
        if n % 11:
            continue
        wait_for_leases(engine)
        copy = tmp_path / f"copy-{n}"
        copy.mkdir()
        for file in path.parent.glob("gateway.db*"):
            shutil.copy(file, copy)
        with interlane.open(copy / "gateway.db", key=KEY, durability=mode) as after:  # type: ignore[arg-type]
            sent = [
                after.account("desk").encrypt(BELL, texts("y")),
                after.account("desk").group(GROUP).encrypt([b"y"]),
            ]
            for at in counters(sent[0]) | counters(sent[1]):
                assert n <= at <= n + LEASE
    engine.close()


@pytest.mark.parametrize("resident", [None, 1])
def test_many_threads_share_leases(path: Path, resident: int | None) -> None:
    """No counter twice and none missing, however calls, the thread, turns of the ratchet and evictions come
    together."""
    engine = opened(path, 4, resident)
    desk = engine.account("desk", create=True)
    line = Line.to(desk)
    released: list[interlane.Rows] = []
    failed: list[BaseException] = []
    lock = threading.Lock()

    def send() -> None:
        try:
            for _ in range(100):
                rows = desk.encrypt(BELL, texts("x"))
                with lock:
                    released.append(rows)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(30):
        # An answer turns the ratchet in the midst of it.
        time.sleep(0.01)
        with lock:
            arrived, released = released, []
        for rows in sorted(arrived, key=lambda rows: place(rows[0].kind, rows[0].data)[1]):
            line.takes(rows)
        if arrived:
            back = line.bell.encrypt(DESK, texts(f"turn {n}"))
            assert desk.decrypt(BELL, [row.kind for row in back], back.tolist()).ok.all()
    for thread in threads:
        thread.join()
    assert not failed
    for rows in released:
        line.takes(rows)
    engine.close()
    # Whatever came last to the store was right: the chains go on where they were.
    with opened(path) as engine:
        line.takes(engine.account("desk").encrypt(BELL, texts("after")), texts("after"))
    assert len(line.seen) == 401 * len(BELL)
    ends: dict[bytes, set[int]] = {}
    for chain, counter in line.seen:
        ends.setdefault(chain, set()).add(counter)
    assert all(seen == set(range(len(seen))) for seen in ends.values())


def test_evictions_give_leases_back(path: Path) -> None:
    """Sessions that come and go: every counter once, and a lease of many is not burnt by a call of one."""
    with opened(path, resident=2) as engine:
        desk, bell = engine.account("desk", create=True), engine.account("bell", create=True)
        peers = [f"peer {i}" for i in range(12)]
        assert desk.start_sessions(peers, list(bell.prekeys(12).bundles())).ok.all()
        counts = dict.fromkeys(peers, 0)
        for call in range(120):
            some = [peers[(call * 5 + i * i) % 12] for i in range(1 + call % 4)]
            for peer, row in zip(some, desk.encrypt(some, [b"x"] * len(some)), strict=True):
                assert place(row.kind, row.data)[1] == counts[peer]
                counts[peer] += 1
        stats = engine.stats()
        assert stats["sessions"] <= 2
        assert stats["sessions_evicted"] > 100
        assert stats["sessions_loaded"] >= stats["sessions_evicted"] - 12
    # Also in the next engine: what was evicted last was as it is.
    with opened(path) as engine:
        for peer, row in zip(peers, engine.account("desk").encrypt(peers, [b"x"] * 12), strict=True):
            assert place(row.kind, row.data)[1] == counts[peer]


def test_a_store_in_memory_leases_nothing() -> None:
    with interlane.open(":memory:", durability="leased", lease=1) as engine:
        desk = engine.account("desk", create=True)
        line = Line.to(desk)
        for _ in range(3):
            line.takes(desk.encrypt(BELL, texts("x")))
        stats = engine.stats()
        assert (stats["calls_waited"], stats["leases_written"]) == (0, 0)
