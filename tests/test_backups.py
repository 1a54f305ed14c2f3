"""Copies of a store: made while it is busy, refused where they are old, and what declared ones may do."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import interlane
import pytest
from command_line import interlane as command
from interlane import Status, StoreError
from test_store import BELL, DESK, GROUP, KEY, Line, place, says, texts

DECLARE = "declare it: interlane restore --store"


def opened(path: Path, **options: object) -> interlane.Engine:
    return interlane.open(path, key=KEY, threads=2, **options)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.fixture(params=["strict", "leased"])
def mode(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def busy(path: Path) -> Line:
    """A store with sessions and a sender key, closed."""
    with opened(path) as engine:
        desk = engine.account("desk", create=True)
        desk.prekeys(10)
        line = Line.to(desk)
        group = desk.group(GROUP)
        assert line.bell.group(GROUP).accept(["desk"], [group.distribute()]).ok.all()
        send(engine, line)
    return line


def send(engine: interlane.Engine, line: Line) -> None:
    desk = engine.account("desk")
    line.takes(desk.encrypt(BELL, texts("x")), texts("x"))
    line.note(*place("skmsg", desk.group(GROUP).encrypt([b"x"])[0].data))


def put_back(copy: Path, path: Path) -> None:
    for file in path.parent.glob(path.name + "-*"):
        file.unlink()
    shutil.copy(copy, path)


# --- Old copies ---------------------------------------------------------------------------------------------


def test_an_old_copy_is_refused_until_it_is_declared(path: Path, tmp_path: Path, mode: str) -> None:
    line = busy(path)
    old = tmp_path / "old.db"
    shutil.copy(path, old)
    with opened(path, durability=mode) as engine:
        send(engine, line)
    newest = tmp_path / "newest.db"
    shutil.copy(path, newest)
    put_back(old, path)
    for _ in range(2):
        says(lambda: opened(path, durability=mode), f"is older than it was.*{DECLARE}")
    # The newest state needs no declaration.
    put_back(newest, path)
    with opened(path, durability=mode) as engine:
        send(engine, line)
    assert line.gap == 0


def test_a_store_that_was_killed_is_no_old_copy(path: Path) -> None:
    """The note is behind it, or level with it, whenever the process dies."""
    line = busy(path)
    engine = opened(path)
    send(engine, line)
    note = Path(f"{path}.generation").read_bytes()
    number = int.from_bytes(note[16:24], "little")
    crashed = path.parent / "crashed"
    for behind in (0, 1, number):
        crashed.mkdir()
        for file in path.parent.glob("gateway.db*"):
            shutil.copy(file, crashed)
        (crashed / "gateway.db.generation").write_bytes(note[:16] + (number - behind).to_bytes(8, "little"))
        opened(crashed / "gateway.db").close()
        shutil.rmtree(crashed)
    for file in path.parent.glob("gateway.db*"):
        crashed.mkdir(exist_ok=True)
        shutil.copy(file, crashed)
    ahead = crashed / "gateway.db.generation"
    ahead.write_bytes(note[:16] + (number + 1).to_bytes(8, "little"))
    says(lambda: opened(crashed / "gateway.db"), "is older than it was")
    engine.close()


@pytest.mark.parametrize("content", [None, b"", b"x" * 23, b"x" * 24, b"x" * 25, b"x" * 33])
def test_a_store_without_its_note_is_refused(path: Path, content: bytes | None) -> None:
    busy(path)
    note = Path(f"{path}.generation")
    note.unlink()
    if content is not None:
        note.write_bytes(content)
    says(lambda: opened(path), f"generation file.*{DECLARE}")
    assert (note.read_bytes() if note.exists() else None) == content
    assert interlane.restore(path, key=KEY, newest=True) == (1, 0, 0)
    assert note.stat().st_mode & 0o777 == 0o600 or content is not None
    opened(path).close()


def test_a_second_place_knows_when_the_first_is_old_too(path: Path, tmp_path: Path) -> None:
    second = tmp_path / "elsewhere" / "desk.generation"
    second.parent.mkdir()
    line = busy(path)
    snapshot = tmp_path / "snapshot"
    with opened(path, generation=second) as engine:
        send(engine, line)
    shutil.copytree(path.parent, snapshot, ignore=shutil.ignore_patterns("elsewhere", "snapshot"))
    with opened(path, generation=second) as engine:
        send(engine, line)
    for file in snapshot.iterdir():
        shutil.copy(file, path.parent)
    says(lambda: opened(path, generation=second), "is older than it was")
    assert interlane.restore(path, key=KEY, generation=second).peers == len(BELL)
    opened(path, generation=second).close()
    other = tmp_path / "other.db"
    says(lambda: opened(other, generation=second), "is another store's generation file")
    says(lambda: opened(path, generation=tmp_path / "none" / "x"), "cannot be used to note")


def test_a_second_place_that_is_not_mounted_is_missed(path: Path, tmp_path: Path) -> None:
    disk, away = tmp_path / "disk", tmp_path / "away"
    disk.mkdir()
    second = disk / "desk.generation"
    line = busy(path)
    with opened(path, generation=second) as engine:
        send(engine, line)
    # Without it for once, and with it again: it stays the store's second place.
    with opened(path) as engine:
        send(engine, line)
    disk.rename(away)
    disk.mkdir()
    for _ in range(2):
        says(lambda: opened(path, generation=second), "has a second generation file, which is not there")
        assert not second.exists()
    disk.rmdir()
    away.rename(disk)
    opened(path, generation=second).close()
    # Moved elsewhere by its owner.
    moved = second.rename(tmp_path / "moved.generation")
    opened(path, generation=moved).close()
    # Lost: declared, and noted anew.
    moved.unlink()
    assert interlane.restore(path, key=KEY, generation=moved).peers == len(BELL)
    opened(path, generation=moved).close()


def test_a_deleted_account_does_not_come_back(path: Path, tmp_path: Path) -> None:
    busy(path)
    shutil.copy(path, tmp_path / "old.db")
    with opened(path) as engine:
        engine.delete_account("desk")
    put_back(tmp_path / "old.db", path)
    says(lambda: opened(path), "is older than it was")


def test_a_new_store_takes_the_place_of_one_that_is_gone(path: Path) -> None:
    busy(path)
    for file in path.parent.glob("gateway.db*"):
        if not file.name.endswith(".generation"):
            file.unlink()
    with opened(path) as engine:
        assert engine.accounts() == []


# --- Backup and restore -------------------------------------------------------------------------------------


def test_what_is_restored_sends_nothing_by_the_chains_it_had(path: Path, tmp_path: Path, mode: str) -> None:
    line = busy(path)
    copy = tmp_path / "copy.db"
    engine = opened(path, durability=mode)
    interlane.backup(path, copy)
    for _ in range(5):
        send(engine, line)
    given = engine.account("desk").prekeys(5, rotate=True)
    before = line.bell.encrypt(DESK[:2], texts("before")[:2])
    engine.close()
    for file in path.parent.glob("gateway.db*"):
        file.unlink()
    shutil.copy(copy, path)
    says(lambda: opened(path), DECLARE)
    assert interlane.restore(path, key=KEY) == (1, len(BELL), 1)
    with opened(path, durability=mode) as engine:
        desk = engine.account("desk")
        sent = desk.encrypt(BELL, texts("x"))
        assert [row.status for row in sent] == [Status.EXHAUSTED] * len(BELL)
        assert desk.group(GROUP).encrypt([b"x"])[0].status == Status.NO_SENDER_KEY
        # What the copy could receive it still can; an answer turns the ratchet.
        got = desk.decrypt(BELL[:2], [row.kind for row in before], before.tolist())
        assert got.ok.all()
        back = desk.encrypt(BELL[:2], [b"a", b"b"])
        assert back.ok.all()
        line.take([row.kind for row in back], back.tolist(), [b"a", b"b"])
        # The others get new sessions.
        assert desk.start_sessions(BELL[2:], list(line.bell.prekeys(len(BELL)).bundles())[2:]).ok.all()
        line.takes(desk.encrypt(BELL, texts("y")), texts("y"))
        # Ids that were given out after the copy are not given again.
        made = desk.prekeys(5, rotate=True)
        assert min(prekey.id for prekey in made.one_time_prekeys) > max(p.id for p in given.one_time_prekeys)
        assert made.signed_prekey.id > given.signed_prekey.id


def test_a_store_that_was_moved_goes_on(path: Path, tmp_path: Path, mode: str) -> None:
    line = busy(path)
    with opened(path, durability=mode) as engine:
        send(engine, line)
    moved = tmp_path / "moved" / "gateway.db"
    moved.parent.mkdir()
    path.rename(moved)
    says(lambda: opened(moved), DECLARE)
    assert interlane.restore(moved, key=KEY, newest=True) == (1, 0, 0)
    with opened(moved, durability=mode) as engine:
        send(engine, line)
    assert line.gap == 0


def test_a_restoration_that_was_not_ended_is_refused(path: Path, tmp_path: Path) -> None:
    """Its commits must not make the copy look newer than the state that it is older than."""
    line = busy(path)
    copy = tmp_path / "copy.db"
    interlane.backup(path, copy)
    with opened(path) as engine:
        send(engine, line)
    put_back(copy, path)
    program = (
        "import os, sys, interlane, interlane._native as native\n"
        "from pathlib import Path\n"
        # The disk is full when the restoration is half done.
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "size = Path(sys.argv[1]).stat().st_size\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "interlane.restore(sys.argv[1], key=bytes(range(32)))\n"
    )
    failed = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1
    assert "StoreError" in failed.stderr
    says(lambda: opened(path), "is older than it was")
    assert interlane.restore(path, key=KEY).peers == len(BELL)
    opened(path).close()


@pytest.fixture
def traffic(path: Path) -> Iterator[Line]:
    """A desk that sends, receives and makes prekeys as fast as it can."""
    line = busy(path)
    engine = opened(path, durability="leased")
    stop = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        desk = engine.account("desk")
        try:
            while not stop.is_set():
                sent = desk.encrypt(BELL, texts("x"))
                line.takes(sent)
                back = line.bell.encrypt(DESK, texts("back"))
                assert desk.decrypt(BELL, [row.kind for row in back], back.tolist()).ok.all()
                desk.prekeys(200)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield line
    stop.set()
    thread.join()
    engine.close()
    assert not failed


def test_copies_of_a_busy_store_are_whole(path: Path, tmp_path: Path, traffic: Line) -> None:
    """In this process and from another one; each opens, and has every row that was there before it."""
    stocks = []
    for n in range(6):
        before = len(traffic.seen)
        copy = tmp_path / f"copy-{n}.db"
        if n % 2:
            made = command("backup", copy, "--store", path)
            assert made.returncode == 0, made.stderr
        else:
            interlane.backup(path, copy)
        with sqlite3.connect(copy) as tables:
            assert tables.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copy.stat().st_mode & 0o777 == 0o600
        assert interlane.restore(copy, key=KEY) == (1, len(BELL), 1)
        with opened(copy) as engine:
            desk = engine.account("desk")
            stocks.append(desk.stock)
            assert sum(peer.session for peer in desk.peers()) == len(BELL)
        assert len(traffic.seen) >= before
        time.sleep(0.2)
    assert stocks == sorted(set(stocks))
    assert not list(tmp_path.glob("*.new*"))


def test_backups_that_cannot_be_made(path: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken.db"
    taken.write_bytes(b"mine")
    says(lambda: interlane.backup(path, tmp_path / "copy.db"), "is no store")
    busy(path)
    says(lambda: interlane.backup(path, taken), "exists")
    says(lambda: interlane.backup(path, tmp_path / "none" / "copy.db"), "folder does not exist")
    assert taken.read_bytes() == b"mine"
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as tables:
        tables.execute("CREATE TABLE x (y)")
    shutil.copy(f"{path}.generation", f"{other}.generation")
    says(lambda: interlane.backup(other, tmp_path / "copy.db"), "another program's")
    assert not (tmp_path / "copy.db").exists()
    with pytest.raises(StoreError, match="another operator key"):
        interlane.restore(path, key=bytes(32))
    says(lambda: interlane.restore(tmp_path / "gone.db", key=KEY), "is not there")


def test_the_commands(path: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(KEY)
    line = busy(path)
    options = ("--store", path, "--key", f"file:{key}")
    made = command("backup", tmp_path / "copy.db", "--store", path)
    assert made.returncode == 0
    assert made.stdout.decode().startswith(f"{tmp_path / 'copy.db'}: ")
    with opened(path) as engine:
        send(engine, line)
    refused = command("restore", tmp_path / "copy.db", *options)
    assert refused.returncode != 0
    assert b"move it away" in refused.stderr
    path.rename(tmp_path / "away.db")
    restored = command("restore", tmp_path / "copy.db", *options)
    assert restored.returncode == 0, restored.stderr
    assert b"30 peers need a new session" in restored.stdout
    shown = command("stats", "--json", *options)
    assert json.loads(shown.stdout)["sessions"] == len(BELL)
    # And back again.
    path.unlink()
    (tmp_path / "away.db").rename(path)
    shown = command("stats", *options)
    assert shown.returncode != 0
    assert DECLARE.encode() in shown.stderr.replace(b"\n", b" ")


# --- Forks --------------------------------------------------------------------------------------------------


def calls_in_a_fork(engine: interlane.Engine, answers: multiprocessing.SimpleQueue[str]) -> None:
    for call in (lambda: engine.account("desk").encrypt(BELL, texts("x")), engine.close, engine.stats):
        try:
            call()
            answers.put("none")
        except Exception as error:
            answers.put(type(error).__name__)


def test_a_fork_by_multiprocessing_refuses(path: Path, mode: str) -> None:
    line = busy(path)
    with opened(path, durability=mode) as engine:
        forks = multiprocessing.get_context("fork")
        answers = forks.SimpleQueue()
        child = forks.Process(target=calls_in_a_fork, args=(engine, answers))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert [answers.get() for _ in range(3)] == ["ForkedError"] * 3
        send(engine, line)
    assert line.gap == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forks_while_threads_send(path: Path, mode: str) -> None:
    """Whatever lock a thread holds at that moment, the child refuses at once, and the parent goes on."""
    line = busy(path)
    engine = opened(path, durability=mode)
    desk = engine.account("desk")
    stop = threading.Event()
    released: list[interlane.Rows] = []

    def run() -> None:
        while not stop.is_set():
            released.append(desk.encrypt(BELL, texts("x")))

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(30):
        child = os.fork()
        if child == 0:
            try:
                desk.encrypt(BELL, texts("x"))
            except interlane.ForkedError:
                os._exit(7)
            os._exit(1)
        deadline = time.monotonic() + 20
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            assert time.monotonic() < deadline, "the child hangs"
            time.sleep(0.001)
        assert os.waitstatus_to_exitcode(ended[1]) == 7
    stop.set()
    thread.join()
    engine.close()
    for rows in released:
        line.takes(rows)
    with opened(path) as engine:
        send(engine, line)
    assert line.gap == 0
