"""The store through Python: what is closed opens again, what fails says so in a line, and whatever happens
(a full disk, a kill, a fork, a second opener) no counter is ever given out twice."""

# ruff: noqa: S603, S607 - the commands are this file's own, and the system's

from __future__ import annotations

import gc
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import interlane
import pytest
import reference
from forged import Forger, fields_of, known_account
from interlane import ClosedError, Status, StoreError

KEY = bytes(range(32))
SESSIONS = 30
# Bytes of a page of the store.
PAGE = 16_384
BELL = [f"bell-{i}@s.whatsapp.net" for i in range(SESSIONS)]
DESK = [f"desk-{i}@s.whatsapp.net" for i in range(SESSIONS)]
GROUP = "1203630@g.us"
# Also for the processes that the tests start.
DURABILITY = "INTERLANE_TESTS_DURABILITY"
RESIDENT = "INTERLANE_TESTS_RESIDENT"


def opened(path: Path, **options: Any) -> interlane.Engine:
    options.setdefault("durability", os.environ.get(DURABILITY, "strict"))
    if resident := os.environ.get(RESIDENT):
        options.setdefault("resident_sessions", int(resident))
    return interlane.open(path, key=KEY, threads=options.pop("threads", 2), **options)


@pytest.fixture(params=["strict", "leased", "evicting"])
def durability(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A test that asks for it is run in both modes, and leased with fewer sessions in memory than it has."""
    mode = "leased" if request.param == "evicting" else str(request.param)
    monkeypatch.setenv(DURABILITY, mode)
    if request.param == "evicting":
        monkeypatch.setenv(RESIDENT, "7")
    return mode


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


def says(call: Callable[[], object], text: str) -> None:
    """The call raises a `StoreError` of one line, with this text."""
    with pytest.raises(StoreError, match=text) as raised:
        call()
    assert "\n" not in str(raised.value)


def one_line(error: StoreError, text: str = "") -> None:
    assert "\n" not in str(error)
    assert text in str(error)


def place(kind: str, data: bytes) -> tuple[bytes, int]:
    """Ratchet key and counter of a frame of ours, or sender key id and iteration."""
    message = dict(fields_of(data[1:]))[4] if kind == "pkmsg" else data
    assert isinstance(message, bytes)
    if kind == "skmsg":
        fields = dict(fields_of(message[1:-64]))
        return b"group %d" % int(fields[1]), int(fields[2])
    fields = dict(fields_of(message[1:-8]))
    assert isinstance(fields[1], bytes)
    return fields[1], int(fields[2])


@dataclass
class Line:
    """The other ends, in an engine that stays: it opens what a desk releases, and no two frames may have
    one key."""

    engine: interlane.Engine
    bell: interlane.Account
    seen: set[tuple[bytes, int]] = field(default_factory=set)
    newest: dict[bytes, int] = field(default_factory=dict)
    gap: int = 0

    @classmethod
    def to(cls, desk: interlane.Account) -> Line:
        """Starts the desk's sessions."""
        engine = interlane.open(":memory:", threads=1)
        bell = engine.account("bell", create=True)
        assert desk.start_sessions(BELL, list(bell.prekeys(SESSIONS).bundles())).ok.all()
        return cls(engine, bell)

    def take(self, kinds: list[str], frames: list[bytes], plaintexts: list[bytes] | None = None) -> None:
        """Frames for all sessions, or the first of them, as the desk released them."""
        for kind, data in zip(kinds, frames, strict=True):
            self.note(*place(kind, data))
        got = self.bell.decrypt(DESK[: len(frames)], kinds, frames)
        assert got.ok.all(), got
        assert plaintexts is None or got.tolist() == plaintexts

    def note(self, chain: bytes, counter: int) -> None:
        assert (chain, counter) not in self.seen, "a key was used twice"
        self.seen.add((chain, counter))
        self.gap = max(self.gap, counter - self.newest.get(chain, -1) - 1)
        self.newest[chain] = max(counter, self.newest.get(chain, -1))

    def takes(self, sent: interlane.Rows, plaintexts: list[bytes] | None = None) -> None:
        assert sent.ok.all(), sent
        self.take([row.kind for row in sent], sent.tolist(), plaintexts)


def texts(word: str) -> list[bytes]:
    return [f"{word} {i}".encode() for i in range(SESSIONS)]


def acquaintances(desk: interlane.Account) -> dict[str, interlane.Peer]:
    return {peer.address: peer for peer in desk.peers()}


# --- Opening ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("durability")
def test_what_is_closed_opens_again(path: Path) -> None:
    with opened(path) as engine:
        desk = engine.account("desk", create=True)
        line = Line.to(desk)
        line.takes(desk.encrypt(BELL, texts("first")), texts("first"))
        own = desk.group(GROUP)
        distribution = own.distribute()
        assert line.bell.group(GROUP).accept(["desk"], [distribution]).ok.all()
        identity, stock = desk.identity, desk.prekeys(7).one_time_prekeys
        peers = acquaintances(desk)
    assert sorted(os.listdir(path.parent)) == ["gateway.db", "gateway.db.generation"]
    for _ in range(3):
        with opened(path) as engine:
            desk = engine.account("desk")
            assert engine.accounts() == ["desk"]
            assert (desk.identity, desk.stock) == (identity, len(stock))
            assert acquaintances(desk) == peers
            line.takes(desk.encrypt(BELL, texts("again")), texts("again"))
            sent = desk.group(GROUP).encrypt([b"one", b"two"])
            got = line.bell.group(GROUP).decrypt(["desk"] * 2, sent.tolist())
            assert got.tolist() == [b"one", b"two"]
            # Ids go on where they were.
            stock += desk.prekeys(1).one_time_prekeys
            assert [prekey.id for prekey in stock] == list(range(1, len(stock) + 1))


def test_sessions_are_warmed(path: Path) -> None:
    with opened(path) as engine:
        desk = engine.account("desk", create=True)
        line = Line.to(desk)
    engine = opened(path)
    desk = engine.account("desk")
    handles = desk.sessions([*BELL, "a stranger"])
    assert engine.stats()["sessions"] == 0
    engine.warm(handles[:3])
    assert engine.stats()["sessions"] == 3
    # Again, twice in one call, handles that are none, and a peer without a session.
    for _ in range(2):
        engine.warm([*handles[::-1], handles[5], 10**6, 2**64 - 1])
        assert engine.stats()["sessions"] == SESSIONS
    engine.warm([])
    line.takes(desk.encrypt(BELL, texts("warm")), texts("warm"))
    assert desk.encrypt(["a stranger"], [b"x"])[0].status is Status.NO_SESSION
    engine.close()
    with pytest.raises(interlane.ClosedError):
        engine.warm(handles)


def test_what_was_received_stays_received(path: Path) -> None:
    eve = Forger()
    engine = opened(path)
    desk = engine.account("desk", create=True)
    eve.start("desk", next(desk.prekeys(2).bundles()))
    frames = [eve.send("desk", b"%d" % i) for i in range(6)]
    for at in (0, 3):
        assert desk.decrypt([eve.name], frames[at].kind, [frames[at].data]).ok.all()
    engine.close()
    for at, status in ((0, Status.DUPLICATE), (1, Status.OK), (3, Status.DUPLICATE), (4, Status.OK)):
        with opened(path) as engine:
            desk = engine.account("desk")
            row = desk.decrypt([eve.name], frames[at].kind, [frames[at].data])[0]
            assert row.status is status
            assert desk.stock == 1


def test_a_session_with_the_same_signed_prekey_keeps_its_own_chain(path: Path) -> None:
    """Two sessions that were started from one signed prekey have a receiving chain of the same ratchet key: a
    responder may answer before it ratchets. One session's chain must not be taken for the other's."""
    eve = Forger()
    bundles = [eve.bundle(), eve.bundle()]
    engine = opened(path)
    desk = engine.account("desk", create=True)
    answers = []
    for bundle in bundles:
        assert desk.start_sessions([eve.name], [bundle]).ok.all()
        first = desk.encrypt([eve.name], [b"hello"])[0]
        # What the responder has before it opens the message: a chain under its signed prekey.
        frame = reference.PreKeySignalMessage.parse(first.data)
        signed, _ = eve.account.signed[frame.signed_id]
        one_time = eve.account.one_time[frame.one_time_id] if frame.one_time_id else None
        pair = eve.account.identity_pair
        eve.set_session("desk", reference.Session.respond(pair, signed, one_time, frame))
        answers.append([eve.send("desk", b"%d" % i) for i in range(6)])
        if bundle is bundles[0]:
            for i, answer in enumerate(answers[0]):
                assert desk.decrypt([eve.name], answer.kind, [answer.data]).tolist() == [b"%d" % i]
    assert desk.decrypt([eve.name], "msg", [answers[1][0].data]).tolist() == [b"0"]
    engine.close()
    with opened(path) as engine:
        desk = engine.account("desk")
        for i, answer in enumerate(answers[1][1:], 1):
            row = desk.decrypt([eve.name], answer.kind, [answer.data])[0]
            assert (row.status, row.data) == (Status.OK, b"%d" % i)


def test_a_second_opener_is_told(path: Path) -> None:
    with opened(path) as engine:
        engine.account("desk", create=True)
        says(lambda: opened(path), "is open in another process")
        shown = subprocess.run(child("open", path), capture_output=True, text=True, timeout=60, check=False)
        assert shown.stdout.startswith("StoreError: "), shown
        assert "is open in another process" in shown.stdout
        assert len(engine.account("bell", create=True).prekeys(1).one_time_prekeys) == 1
    with opened(path) as engine:
        assert engine.accounts() == ["desk", "bell"]


def test_a_second_opener_is_told_after_the_owner_has_read_the_file(path: Path) -> None:
    """POSIX locks go when their process closes the file, however it had opened it: a copy made for a backup
    would let a second owner in."""
    with opened(path) as engine:
        engine.account("desk", create=True)
        shutil.copy(path, path.parent / "copy.db")
        shown = subprocess.run(child("open", path), capture_output=True, text=True, timeout=60, check=False)
        assert shown.stdout.startswith("StoreError: "), shown


def test_another_operator_key_is_told(path: Path) -> None:
    opened(path).close()
    says(lambda: interlane.open(path, key=bytes(32)), "was made with another operator key")
    says(lambda: interlane.open(path, key=lambda: b"k" * 32), "was made with another operator key")
    opened(path).close()


def test_a_file_that_is_no_store_is_told_and_left_alone(path: Path) -> None:
    for content, text in (
        (b"Dear diary, " * 500, "is not an interlane store"),
        (b"", "is empty"),
        (b"x", "is damaged or cut short"),
    ):
        path.write_bytes(content)
        says(lambda: opened(path), text)
        assert path.read_bytes() == content
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE diary (day)")
    other.close()
    says(lambda: opened(path), "is another program's SQLite database")
    path.unlink()
    path.mkdir()
    says(lambda: opened(path), "is a folder")
    assert os.listdir(path.parent) == ["gateway.db"]


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    says(lambda: opened(tmp_path / "no" / "such" / "gateway.db"), "make the folder first")
    says(lambda: interlane.open(tmp_path / "no" / "gateway.db"), "folder")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("version", [6, 99, 2**31 - 1])
def test_a_newer_schema_is_told_and_left_alone(path: Path, version: int) -> None:
    with opened(path) as engine:
        engine.account("desk", create=True)

    def bump(to: int) -> None:
        raw = sqlite3.connect(path)
        raw.execute(f"PRAGMA user_version = {to}")
        raw.close()

    raw = sqlite3.connect(path)
    (schema,) = raw.execute("PRAGMA user_version").fetchone()
    raw.close()
    bump(version)
    before = path.read_bytes()
    says(lambda: opened(path), f"has schema {version}.*update interlane")
    assert path.read_bytes() == before
    bump(schema)
    with opened(path) as engine:
        assert engine.accounts() == ["desk"]


def test_a_truncated_store_is_told(path: Path) -> None:
    with opened(path) as engine:
        Line.to(engine.account("desk", create=True))
    whole = path.read_bytes()
    # A cut in the last page takes nothing away where that page is free.
    lengths = range(1, len(whole) - PAGE, max(1, len(whole) // 40))
    for length in [*range(2, 40), 100, 511, 512, 4_096, PAGE - 1, PAGE, PAGE + 1, *lengths]:
        path.write_bytes(whole[:length])

        def use() -> None:
            with opened(path) as engine:
                desk = engine.account("desk")
                desk.peers()
                desk.encrypt(BELL, texts("x"))

        says(use, "restore it from a backup")
    path.write_bytes(whole)
    with opened(path) as engine:
        assert len(engine.account("desk").peers()) == SESSIONS


def test_a_damaged_store_is_told_and_no_counter_goes_back(path: Path) -> None:
    """One bit of the file at rest is another, also where nothing is sealed (keys of rows, pages, lists): an
    error of one line, or a session that is gone, but never one that goes on from where it was before."""
    with opened(path) as engine:
        desk = engine.account("desk", create=True)
        line = Line.to(desk)
        line.takes(desk.encrypt(BELL, texts("before")))
    whole = path.read_bytes()
    source = random.Random(7)
    told = 0
    again: dict[int, list[interlane.Row]] = {}
    raw = sqlite3.connect(path)
    rows = [key for (key,) in raw.execute("SELECT key FROM rows ORDER BY key")]
    raw.close()
    in_keys = [whole.index(key) + source.randrange(4, len(key)) for key in source.choices(rows, k=60)]
    for at in [*in_keys, *(source.randrange(len(whole)) for _ in range(120))]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << source.randrange(8)]) + whole[at + 1 :])
        try:
            with opened(path, threads=1) as engine:
                sent = engine.account("desk").encrypt(BELL, texts("after"))
        except StoreError as error:
            told += 1
            one_line(error)
        else:
            assert {row.status for row in sent} <= {Status.OK, Status.NO_SESSION}
            if used := [row for row in sent if row.data and place(row.kind, row.data) in line.seen]:
                again[at] = used
        for leftover in path.parent.glob("gateway.db-*"):
            leftover.unlink()
    assert told > 20
    assert again == {}, "a key was used twice"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 16 MiB, or a skip where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)):
        pytest.skip("a file system may only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def mount(*arguments: str) -> bool:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def test_a_read_only_store_is_told(disk: Path) -> None:
    path = disk / "gateway.db"
    with opened(path) as engine:
        engine.account("desk", create=True)
    before = path.read_bytes()
    assert mount("-o", "remount,ro", str(disk))
    says(lambda: opened(path), "read-only|cannot be opened")
    says(lambda: opened(disk / "new.db"), "new.db")
    assert path.read_bytes() == before
    assert mount("-o", "remount,rw", str(disk))
    with opened(path) as engine:
        assert engine.accounts() == ["desk"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write to any file")
def test_a_read_only_file_is_told(path: Path) -> None:
    opened(path).close()
    path.chmod(0o400)
    says(lambda: opened(path), "read-only|may not be opened|cannot be opened")


# --- A full disk --------------------------------------------------------------------------------------------


def fill(folder: Path, leave: int = 0) -> Path:
    """Takes all room of a disk, but for some."""
    filler = folder / "filler"
    size = shutil.disk_usage(folder).free - leave
    # Unbuffered: the engine's thread may take the last block first, and closing would try to write again.
    with filler.open("wb", buffering=0) as file:
        try:
            while size > 0:
                size -= file.write(bytes(min(size, 1 << 16)))
        except OSError:
            pass
    return filler


@pytest.mark.usefixtures("durability")
@pytest.mark.parametrize("leave", [0, 4_096, 40_000, 300_000])
def test_a_full_disk_releases_nothing_and_room_brings_it_back(disk: Path, leave: int) -> None:
    """The same engine goes on; what it could not write has not left, and nothing that left comes again."""
    path = disk / "gateway.db"
    engine = opened(path)
    desk = engine.account("desk", create=True)
    line = Line.to(desk)
    line.takes(desk.encrypt(BELL, texts("before")))
    eve = Forger()
    eve.start("desk", next(desk.prekeys(3).bundles()))
    received = eve.send("desk", b"received")
    for _ in range(3):
        stock = desk.stock
        filler = fill(disk, leave)
        failed = 0
        while failed < 5:
            try:
                line.takes(desk.encrypt(BELL, texts("full")))
            except StoreError as error:
                failed += 1
                one_line(error)
        if leave == 0:
            for call in (
                lambda: desk.decrypt([eve.name], received.kind, [received.data]),
                lambda: desk.prekeys(1_000),
                lambda: engine.account("another", create=True),
                lambda: desk.group(GROUP).distribute(),
                lambda: desk.forget(BELL),
                lambda: desk.trust(BELL[:1], [eve.account.identity]),
            ):
                says(call, "room")
            assert engine.accounts() == ["desk"]
            assert desk.stock == stock
        filler.unlink()
        line.takes(desk.encrypt(BELL, texts("room again")), texts("room again"))
    row = desk.decrypt([eve.name], received.kind, [received.data])[0]
    assert (row.status, row.data) == (Status.OK, b"received")
    engine.close()
    with opened(path) as engine:
        desk = engine.account("desk")
        line.takes(desk.encrypt(BELL, texts("after")), texts("after"))
        assert desk.decrypt([eve.name], received.kind, [received.data])[0].status is Status.DUPLICATE


@pytest.mark.usefixtures("durability")
def test_closing_on_a_full_disk_loses_nothing(disk: Path) -> None:
    path = disk / "gateway.db"
    engine = opened(path)
    desk = engine.account("desk", create=True)
    line = Line.to(desk)
    for _ in range(20):
        line.takes(desk.encrypt(BELL, texts("before")))
    filler = fill(disk)
    try:
        engine.close()
    except StoreError as error:
        one_line(error)
    del engine, desk
    filler.unlink()
    with opened(path) as engine:
        line.takes(engine.account("desk").encrypt(BELL, texts("after")), texts("after"))


def test_an_account_whose_deletion_met_a_full_disk_harms_no_other(disk: Path) -> None:
    """A batch with rows of the account and of others: whether it is gone or not, the others' go through."""
    path = disk / "gateway.db"
    engine = opened(path)
    desk, gone = engine.account("desk", create=True), engine.account("gone", create=True)
    line = Line.to(desk)
    bell = line.bell.prekeys(1)
    assert gone.start_sessions(["bell"], list(bell.bundles())).ok.all()
    # Much in the log that is not in the database yet.
    for _ in range(2):
        desk.prekeys(15_000)
    handles = [int(engine.sessions(gone, ["bell"])[0]), *engine.sessions(desk, BELL).tolist()]
    failed = 0
    for leave in range(0, 6 << 20, 1 << 18):
        if "gone" not in engine.accounts():
            break
        filler = fill(disk, leave)
        try:
            engine.delete_account("gone")
        except StoreError:
            failed += 1
        filler.unlink()
        sent = engine.encrypt(handles, [b"x"] * len(handles))
        assert {row.status for row in sent} <= {Status.OK, Status.UNKNOWN_HANDLE}
        line.take([row.kind for row in sent][1:], sent.tolist()[1:])
    assert failed > 0
    # Closing folds the whole log into the database: that takes more than this disk ever had.
    assert mount("-o", "remount,size=64m", str(disk))
    engine.close()


@pytest.mark.usefixtures("durability")
@pytest.mark.parametrize("room", [0, 20_000, 200_000])
def test_a_file_size_limit_releases_nothing(path: Path, room: int) -> None:
    """As a full disk, but another error of the system's, and without root's rights."""
    engine = opened(path)
    line = Line.to(engine.account("desk", create=True))
    engine.close()
    shown = subprocess.run(
        child("limited", path, room), capture_output=True, text=True, timeout=120, check=False
    )
    assert shown.returncode == 0, shown.stderr
    failures = 0
    for said in map(json.loads, shown.stdout.splitlines()):
        if "error" in said:
            failures += 1
            assert said["error"] == "StoreError"
            assert "\n" not in said["text"]
        else:
            line.take(said["kinds"], [bytes.fromhex(frame) for frame in said["frames"]])
    assert failures == 3
    with opened(path) as engine:
        line.takes(engine.account("desk").encrypt(BELL, texts("after")), texts("after"))


# --- Forks --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("durability")
@pytest.mark.parametrize("leaves", ["exits", "closes", "forgets", "collects"])
def test_a_forked_child_refuses_and_leaves_the_store_alone(path: Path, leaves: str) -> None:
    """The parent goes on after its child has ended, and is killed; what it had released stays so."""
    with opened(path) as engine:
        line = Line.to(engine.account("desk", create=True))
    shown = subprocess.run(
        child("forks", path, leaves), capture_output=True, text=True, timeout=60, check=False
    )
    assert shown.returncode == -signal.SIGKILL, shown.stderr
    said = [json.loads(text) for text in shown.stdout.splitlines()]
    assert said[0] == {"child": ["ForkedError"] * 11}
    for sent in said[1:]:
        line.take(sent["kinds"], [bytes.fromhex(frame) for frame in sent["frames"]])
    assert len(said) == 4
    with opened(path) as engine:
        line.takes(engine.account("desk").encrypt(BELL, texts("after")), texts("after"))


# --- Closing ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("durability")
def test_closing_during_calls_of_other_threads(path: Path) -> None:
    engine = opened(path)
    desk = engine.account("desk", create=True)
    line = Line.to(desk)
    released: list[interlane.Rows] = []
    ended: list[str] = []
    lock = threading.Lock()

    def send() -> None:
        try:
            while True:
                rows = desk.encrypt(BELL, texts("x"))
                with lock:
                    released.append(rows)
        except Exception as error:  # whatever it is, it is to be this one
            ended.append(type(error).__name__)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(released) < 10:
        time.sleep(0.001)
    engine.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert ended == ["ClosedError"] * 4
    for rows in released:
        line.takes(rows)
    with opened(path) as engine:
        line.takes(engine.account("desk").encrypt(BELL, texts("after")), texts("after"))


@pytest.mark.parametrize("where", ["file", ":memory:"])
def test_use_after_close_is_told(path: Path, where: str) -> None:
    engine = opened(path) if where == "file" else interlane.open(":memory:")
    desk = engine.account("desk", create=True)
    handles, group = desk.sessions(BELL), desk.group(GROUP)
    engine.close()
    engine.close()
    for call in calls(engine, desk, group, handles):
        with pytest.raises(ClosedError, match="the engine is closed: open it again"):
            call()
    assert desk.name == "desk"
    assert len(desk.identity) == 33


def calls(engine: Any, desk: Any, group: Any, handles: Any) -> list[Callable[[], object]]:
    """One of each sort."""
    one = handles[:1]
    return [
        lambda: engine.accounts(),
        lambda: engine.account("new", create=True),
        lambda: engine.stats(),
        lambda: engine.encrypt(one, [b""]),
        lambda: engine.decrypt(one, "pkmsg", [b""]),
        lambda: desk.prekeys(1),
        lambda: desk.peers(),
        lambda: desk.forget(["new"]),
        lambda: group.distribute(),
        lambda: engine.delete_account("desk"),
        lambda: desk.sessions(["new"]),
    ]


# --- At rest ------------------------------------------------------------------------------------------------


def on_disk(folder: Path) -> bytes:
    """All bytes of all files, and their names."""
    return b"\0".join(
        file.name.encode() + b"\0" + file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()
    )


def test_nothing_can_be_read_at_rest(path: Path) -> None:
    engine = opened(path)
    keys = known_account(engine, "desk")
    desk, eve = engine.account("desk"), Forger("eve-of-the-long-address@s.whatsapp.net")
    bundle = desk.prekeys(0).bundle()
    eve.start(
        "desk",
        interlane.Bundle(
            77, bundle.identity, bundle.signed_prekey, interlane.Prekey(9, keys.one_time.public)
        ),
    )
    secret = b"a plaintext that nobody else may ever see"
    for i in range(6):
        frame = eve.send("desk", secret)
        if i % 2:
            assert desk.decrypt([eve.name], frame.kind, [frame.data]).tolist() == [secret]
    chain = eve.session("desk").sending.key
    assert eve.receive("desk", desk.encrypt([eve.name], [secret])[0]) == secret
    received = dict(eve.session("desk").receiving)
    group = desk.group("group-of-the-long-name@g.us")
    distribution = dict(fields_of(group.distribute()[1:]))
    group.encrypt([secret])
    assert eve.account.group("other").distribute().status == 0
    own = eve.account.own_sender_keys["other"]
    sender = desk.group("other-group-of-a-long-name@g.us")
    assert sender.accept([eve.name], [own.distribution()]).ok.all()
    hidden = {
        "the peer's address": eve.name.encode(),
        "a part of the peer's address": b"eve-of-the-long",
        "a group's name": b"group-of-the-long-name",
        "a sender's group": b"other-group-of-a-long",
        "the plaintext": secret,
        "the identity's private key": keys.identity.private,
        "the signed prekey": keys.signed.private,
        "the one-time prekey": keys.one_time.private,
        "the root key": eve.session("desk").root_key,
        "a receiving chain key": chain,
        "a sending chain key": next(iter(received.values())).chain.key,
        "our sender key": distribution[3],
        "a sender's key": own.chain.key,
        "the operator's key": KEY,
        "the peer's identity": eve.account.identity[1:],
    }
    for state in ("open", "closed", "opened again", "closed again"):
        if state == "opened again":
            engine = opened(path)
            engine.account("desk").encrypt([eve.name], [secret])
        elif state != "open":
            engine.close()
        content = on_disk(path.parent)
        assert len(content) > 4_096
        for what, value in hidden.items():
            assert isinstance(value, bytes)
            assert value not in content, f"{what} is on the disk ({state})"
            assert value[:16] not in content, f"a part of {what} is on the disk ({state})"


def sealed_rows(path: Path, account: int) -> list[bytes]:
    """The sealed bodies of an account in a closed store."""
    raw = sqlite3.connect(path)
    prefix = account.to_bytes(4, "big")
    bodies = [body for key, body in raw.execute("SELECT key, body FROM rows") if key[:4] == prefix]
    raw.close()
    return bodies


def wrapped_key(path: Path, account: int) -> bytes:
    """The wrapped data key of an account in a closed store."""
    raw = sqlite3.connect(path)
    ((wrapped,),) = raw.execute("SELECT wrapped FROM data_keys WHERE account = ?", (account,))
    raw.close()
    assert isinstance(wrapped, bytes)
    return wrapped


@pytest.mark.parametrize("prekeys", range(70, 121, 10))
def test_a_deleted_account_leaves_nothing(path: Path, prekeys: int) -> None:
    engine = opened(path)
    name = "desk-to-be-deleted@acme.example"
    for account in (name, "desk-that-stays@acme.example"):
        desk = engine.account(account, create=True)
        desk.prekeys(prekeys)
        line = Line.to(desk)
        line.takes(desk.encrypt(BELL, texts("x")))
        desk.group(GROUP).distribute()
    engine.close()
    gone, stays = sealed_rows(path, 1), sealed_rows(path, 2)
    data_key = wrapped_key(path, 1)
    assert data_key in on_disk(path.parent)
    assert min(len(gone), len(stays)) > 100
    engine = opened(path)
    # Some of its rows are in the journal too.
    assert engine.account(name).encrypt(BELL, texts("y")).ok.all()
    engine.delete_account(name)
    for state in ("open", "closed"):
        if state == "closed":
            engine.close()
        content = on_disk(path.parent)
        assert name.encode() not in content, state
        # Whatever SQLite leaves in the gaps of pages while the store is open cannot be read without this.
        assert data_key not in content, state
        if state == "closed":
            assert not [body for body in gone if body[:24] in content or body[-24:] in content]
        assert all(body[:24] in content for body in stays), state
    with opened(path) as engine:
        assert engine.accounts() == ["desk-that-stays@acme.example"]
        line.takes(engine.account("desk-that-stays@acme.example").encrypt(BELL, texts("z")), texts("z"))
        again = engine.account(name, create=True)
        assert again.peers() == []
        assert again.encrypt(BELL[:1], [b""])[0].status is Status.NO_SESSION


def test_no_name_outlives_its_account(path: Path) -> None:
    """Enough accounts, in no order, to move the neighbours of what is deleted from page to page."""
    source = random.Random(5)
    names = [f"{source.getrandbits(64):016x}@acme.example" for _ in range(400)]
    engine = opened(path)
    for name in names:
        engine.account(name, create=True)
    gone = names[:300]
    source.shuffle(gone)
    for name in gone:
        engine.delete_account(name)
    for state in ("open", "closed"):
        if state == "closed":
            engine.close()
        content = on_disk(path.parent)
        assert [name for name in gone if name[:16].encode() in content] == [], state
        assert all(name.encode() in content for name in names[300:]), state


# --- The children -------------------------------------------------------------------------------------------


def child(role: str, *arguments: object) -> list[str]:
    return [sys.executable, "-W", "ignore::DeprecationWarning", __file__, role, *map(str, arguments)]


def show(sent: interlane.Rows, opened: int = 0) -> None:
    """Releases frames: what was printed has left."""
    frames = {
        "kinds": [row.kind for row in sent],
        "frames": [row.data.hex() for row in sent],
        "opened": opened,
    }
    sys.stdout.write(json.dumps(frames) + "\n")
    sys.stdout.flush()


def child_open(path: str) -> None:
    try:
        opened(Path(path))
    except interlane.Error as error:
        print(f"{type(error).__name__}: {error}")
    else:
        print("opened")


def child_limited(path: str, room: str) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for _ in range(3):
        engine = opened(Path(path))
        desk = engine.account("desk")
        show(desk.encrypt(BELL, texts("before")))
        biggest = max(file.stat().st_size for file in Path(path).parent.glob("gateway.db*"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (biggest + int(room), hard))
        error: interlane.Error | None = None
        while error is None:
            try:
                sent = desk.encrypt(BELL, texts("limited"))
            except interlane.Error as raised:
                error = raised
            else:
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
                show(sent)
                resource.setrlimit(resource.RLIMIT_FSIZE, (biggest + int(room), hard))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        sys.stdout.write(json.dumps({"error": type(error).__name__, "text": str(error)}) + "\n")
        # The same engine, if it can; else it says that it is to be opened again.
        try:
            show(desk.encrypt(BELL, texts("again")))
        except StoreError as raised:
            one_line(raised, "open it again")
        engine.close()


def child_forks(path: str, leaves: str) -> None:
    engine = opened(Path(path))
    desk = engine.account("desk")
    group, handles = desk.group(GROUP), desk.sessions(BELL)
    show_later = [desk.encrypt(BELL, texts("before"))]
    pid = os.fork()
    if pid == 0:
        raised = []
        for call in calls(engine, desk, group, handles):
            try:
                call()
                raised.append("none")
            except Exception as error:
                raised.append(type(error).__name__)
        sys.stdout.write(json.dumps({"child": raised}) + "\n")
        sys.stdout.flush()
        match leaves:
            case "closes":
                with suppress(interlane.ForkedError):
                    engine.close()
            case "forgets":
                del engine, desk, group, handles, call
            case "collects":
                del engine, desk, group, handles, call
                gc.collect()
                os._exit(0)
        sys.exit(0)
    os.waitpid(pid, 0)
    for sent in show_later:
        show(sent)
    for _ in range(2):
        show(desk.encrypt(BELL, texts("after the fork")))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    roles: dict[str, Callable[..., None]] = {
        "open": child_open,
        "limited": child_limited,
        "forks": child_forks,
    }
    roles[sys.argv[1]](*sys.argv[2:])
