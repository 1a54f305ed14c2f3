"""Makes the fixtures of `test_schemas.py`: two stores whose accounts talk to each other, as a killed gateway
leaves them, and what was on its way between them.

    python tests/schemas/make.py FOLDER

Run once for each schema, with the last interlane that wrote it; what it made is committed, and never made
again:

| folder | interlane |
|---|---|
| 2 | ed6426f |
| 3 | 67ec4e5 |
| 4 | af8978c |

Session `i` is near's `desk` with far's `bell`. Near is strict and has a receive buffer, far is leased. All
sessions were in the table once; what came after is in the journal.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import interlane

KEY = bytes(range(32))
GROUP = "1203630@g.us"
SESSIONS = 10
# The others answered in the first half, in the second, or both.
UNANSWERED, SKIPPED, ARCHIVED, FORGOTTEN, STARTED_BY_FAR, DISTRUSTED, TURNED, QUIET = range(8)


def bell(i: int) -> str:
    return f"49151{i:07}@s.whatsapp.net"


def desk(i: int) -> str:
    return f"49152{i:07}@s.whatsapp.net"


class Ends:
    """Both stores, open."""

    def __init__(self, folder: Path) -> None:
        self.near = interlane.open(folder / "near.db", key=KEY, threads=1, receive_buffer=True)
        self.far = interlane.open(folder / "far.db", key=KEY, threads=1, durability="leased")
        self.desk = self.near.account("desk", create=True)
        self.bell = self.far.account("bell", create=True)

    def sends(self, i: int, text: bytes) -> dict[str, Any]:
        return frame("far", i, self.desk.encrypt([bell(i)], [text])[0], text)

    def answers(self, i: int, text: bytes) -> dict[str, Any]:
        return frame("near", i, self.bell.encrypt([desk(i)], [text])[0], text)

    def takes(self, *frames: dict[str, Any], acknowledge: bool = True) -> None:
        for sent in frames:
            account, name = (self.bell, desk) if sent["to"] == "far" else (self.desk, bell)
            got = account.decrypt([name(sent["session"])], sent["kind"], [bytes.fromhex(sent["frame"])])
            assert got.tolist() == [bytes.fromhex(sent["text"])], (sent, got)
            if acknowledge:
                got.ack()

    def talks(self, i: int, turns: int, text: bytes) -> None:
        for turn in range(turns):
            self.takes(self.sends(i, text + b" out %d" % turn))
            self.takes(self.answers(i, text + b" back %d" % turn))


def frame(to: str, session: int, row: interlane.Row, text: bytes) -> dict[str, Any]:
    assert row.status is interlane.Status.OK, row
    return {"to": to, "session": session, "kind": row.kind, "frame": row.data.hex(), "text": text.hex()}


def first_half(ends: Ends) -> None:
    """What the table will have."""
    near, far = ends.desk, ends.bell
    offered = list(far.prekeys(SESSIONS + 3).bundles())
    started = [i for i in range(SESSIONS) if i != STARTED_BY_FAR]
    assert near.start_sessions([bell(i) for i in started], offered[: len(started)]).ok.all()
    assert far.start_sessions([desk(STARTED_BY_FAR)], list(near.prekeys(5).bundles())[:1]).ok.all()
    ends.takes(ends.answers(STARTED_BY_FAR, b"hello"))
    for i in range(SESSIONS):
        if i not in (UNANSWERED, STARTED_BY_FAR):
            ends.talks(i, 1, b"first")
    ends.talks(TURNED, 7, b"turn")
    assert near.start_sessions([bell(ARCHIVED)], offered[-1:]).ok.all()
    ends.talks(ARCHIVED, 2, b"anew")
    near.forget([bell(FORGOTTEN)])
    near.trust([bell(DISTRUSTED)], [b"\x05" + bytes(range(1, 33))])
    ours, theirs = near.group(GROUP), far.group(GROUP)
    assert theirs.accept(["desk"], [ours.distribute()]).ok.all()
    assert ours.accept(["bell"], [theirs.distribute()]).ok.all()
    fan = ours.encrypt(b"fan", [bell(TURNED), bell(QUIET)])
    assert theirs.decrypt(["desk"], [fan.message[0].data]).tolist() == [b"fan"]
    near.engine.account("gone", create=True).prekeys(2)
    near.engine.delete_account("gone")


def second_half(ends: Ends) -> dict[str, Any]:
    """What the journal has: on top of what the table has, and alone."""
    for i in range(SESSIONS):
        if i not in (UNANSWERED, FORGOTTEN, DISTRUSTED, QUIET):
            ends.talks(i, 2, b"second")
    on_its_way = [ends.sends(UNANSWERED, b"never answered"), ends.sends(TURNED, b"sent")]
    late = [ends.answers(SKIPPED, b"late %d" % n) for n in range(4)]
    ends.takes(late.pop())
    on_its_way += [*late, ends.answers(TURNED, b"answered")]
    on_its_way += [ends.answers(STARTED_BY_FAR, b"more"), ends.sends(QUIET, b"quiet")]
    kept = ends.answers(SKIPPED, b"not acknowledged")
    ends.takes(kept, acknowledge=False)
    spent = ends.answers(SKIPPED, b"acknowledged")
    ends.takes(spent)
    sent = ends.desk.group(GROUP).encrypt([b"to the group %d" % n for n in range(3)])
    answered = ends.bell.group(GROUP).encrypt([b"from the group %d" % n for n in range(3)])
    assert ends.desk.group(GROUP).decrypt(["bell"], answered.tolist()[2:]).tolist() == [b"from the group 2"]
    return {
        "on its way": on_its_way,
        "kept": kept,
        "spent": spent,
        "group to far": [row.hex() for row in sent.tolist()],
        "group to near": [row.hex() for row in answered.tolist()[:2]],
        "stock": [ends.desk.stock, ends.bell.stock],
        "peers": {
            name: {
                peer.address: [
                    peer.identity and peer.identity.hex(),
                    peer.session,
                    peer.pending,
                    peer.archived,
                ]
                for peer in account.peers()
            }
            for name, account in (("near", ends.desk), ("far", ends.bell))
        },
    }


def main(folder: Path) -> None:
    work = folder / "work"
    work.mkdir(parents=True)
    ends = Ends(work)
    first_half(ends)
    ends.near.close()
    ends.far.close()
    ends = Ends(work)
    expected = second_half(ends)
    # As a crash now would leave them, the log copied back.
    for name in ("near.db", "far.db"):
        for file in work.glob(f"{name}*"):
            shutil.copy(file, folder)
        connection = sqlite3.connect(folder / name)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
    ends.near.close()
    ends.far.close()
    shutil.rmtree(work)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
