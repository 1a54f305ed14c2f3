"""Stores that earlier interlanes made, opened by this one: their sessions go on. What is in them,
`schemas/make.py` says."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import interlane
import pytest
from interlane import Status, StoreError
from schemas.make import (
    ARCHIVED,
    DISTRUSTED,
    FORGOTTEN,
    GROUP,
    KEY,
    QUIET,
    SESSIONS,
    TURNED,
    UNANSWERED,
    bell,
    desk,
)

MADE = Path(__file__).with_name("schemas")
# What is kept in a receive buffer is kept for a month, and the fixtures are older.
EVER = 1 << 40


@pytest.fixture(params=sorted(folder.name for folder in MADE.iterdir() if (folder / "near.db").exists()))
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "stores"
    shutil.copytree(MADE / request.param, folder)
    return folder


class Ends:
    """Both stores, open."""

    def __init__(self, folder: Path) -> None:
        self.near = interlane.open(
            folder / "near.db", key=KEY, threads=2, receive_buffer=True, buffer_seconds=EVER
        )
        self.far = interlane.open(folder / "far.db", key=KEY, threads=2, durability="leased")
        self.desk, self.bell = self.near.account("desk"), self.far.account("bell")

    def close(self) -> None:
        self.near.close()
        self.far.close()

    def take(self, sent: dict[str, Any]) -> interlane.Row:
        account, name = (self.bell, desk) if sent["to"] == "far" else (self.desk, bell)
        return account.decrypt([name(sent["session"])], sent["kind"], [bytes.fromhex(sent["frame"])])[0]

    def talk(self, text: bytes) -> None:
        """Every session that there is, both ways: a counter that came twice would be a DUPLICATE."""
        sessions = [i for i in range(SESSIONS) if i not in (FORGOTTEN, DISTRUSTED)]
        for _ in range(2):
            sent = self.desk.encrypt([bell(i) for i in sessions], [text] * len(sessions))
            got = self.bell.decrypt([desk(i) for i in sessions], sent.kinds, sent.tolist())
            assert got.tolist() == [text] * len(sessions), got
            back = self.bell.encrypt([desk(i) for i in sessions], [text] * len(sessions))
            got = self.desk.decrypt([bell(i) for i in sessions], back.kinds, back.tolist())
            assert got.tolist() == [text] * len(sessions), got


@pytest.fixture
def ends(made: Path) -> Iterator[Ends]:
    with closing(Ends(made)) as both:
        yield both


def expected(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "expected.json").read_text())
    return found


def peers(account: interlane.Account) -> dict[str, list[Any]]:
    return {
        peer.address: [peer.identity and peer.identity.hex(), peer.session, peer.pending, peer.archived]
        for peer in account.peers()
    }


def test_sessions_go_on(made: Path, ends: Ends) -> None:
    before = expected(made)
    assert ends.near.accounts() == ["desk"]
    assert [ends.desk.stock, ends.bell.stock] == before["stock"]
    assert {"near": peers(ends.desk), "far": peers(ends.bell)} == before["peers"]
    for sent in before["on its way"]:
        row = ends.take(sent)
        assert (row.status, row.data.hex()) == (Status.OK, sent["text"]), sent
    ends.talk(b"after")
    assert ends.desk.encrypt([bell(FORGOTTEN)], [b"x"])[0].status is Status.NO_SESSION


def test_what_is_spent_stays_spent(made: Path, ends: Ends) -> None:
    before = expected(made)
    assert ends.take(before["spent"]).status is Status.DUPLICATE
    kept = ends.take(before["kept"])
    assert (kept.status, kept.data.hex()) == (Status.REDELIVERED, before["kept"]["text"])
    for sent in before["on its way"]:
        assert ends.take(sent).status is Status.OK
    assert ends.take(before["on its way"][-1]).status is Status.DUPLICATE


def test_an_identity_that_is_not_the_sessions(made: Path, ends: Ends) -> None:
    """The session was agreed with another identity than the one that is trusted since."""
    sent = ends.desk.encrypt([bell(DISTRUSTED)], [b"still"])[0]
    assert ends.bell.decrypt([desk(DISTRUSTED)], sent.kind, [sent.data]).tolist() == [b"still"]
    # And one of which the other way round is true only from here on.
    assert ends.desk.trust([bell(TURNED)], [b"\x05" + bytes(32)]).ok.all()
    ends.close()
    with closing(Ends(made)) as again:
        for i in (TURNED, DISTRUSTED):
            sent = again.desk.encrypt([bell(i)], [b"again"])[0]
            assert again.bell.decrypt([desk(i)], sent.kind, [sent.data]).tolist() == [b"again"]


def test_groups_go_on(made: Path, ends: Ends) -> None:
    before = expected(made)
    ours, theirs = ends.desk.group(GROUP), ends.bell.group(GROUP)
    frames = [bytes.fromhex(frame) for frame in before["group to far"]]
    assert theirs.decrypt(["desk"] * 3, frames).tolist() == [b"to the group %d" % n for n in range(3)]
    frames = [bytes.fromhex(frame) for frame in before["group to near"]]
    assert ours.decrypt(["bell"] * 2, frames).tolist() == [b"from the group %d" % n for n in range(2)]
    sent = ours.encrypt([b"after"])
    assert theirs.decrypt(["desk"], sent.tolist()).tolist() == [b"after"]
    assert ours.encrypt(b"x", [bell(TURNED), bell(QUIET), bell(ARCHIVED)]).devices == [bell(ARCHIVED)]


def test_it_is_closed_and_opened_and_goes_on(made: Path) -> None:
    for opening in range(3):
        with closing(Ends(made)) as both:
            if opening == 0:
                for sent in expected(made)["on its way"]:
                    assert both.take(sent).status is Status.OK
            both.talk(b"opening %d" % opening)
        with closing(sqlite3.connect(made / "near.db")) as raw:
            assert raw.execute("PRAGMA user_version").fetchone() == (5,)


def test_a_backup_of_before_can_be_restored(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "old.db"
    shutil.copy(made / "near.db", copy)
    with pytest.raises(StoreError, match="interlane restore"):
        interlane.open(copy, key=KEY)
    restored = interlane.restore(copy, key=KEY, newest=True)
    assert restored.accounts == 1
    with interlane.open(copy, key=KEY) as engine:
        sent = engine.account("desk").encrypt([bell(UNANSWERED)], [b"x"])
        assert sent.ok.all()


def test_another_key_migrates_nothing(made: Path) -> None:
    before = (made / "near.db").read_bytes()
    with pytest.raises(StoreError, match="another operator key"):
        interlane.open(made / "near.db", key=bytes(32))
    assert (made / "near.db").read_bytes() == before
