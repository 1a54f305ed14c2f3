"""Tries an installed wheel: ``python -I tests/smoke.py`` where nothing else of interlane is to be found."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import interlane


def main() -> None:
    assert Path(interlane.__file__).is_relative_to(sys.prefix), "this is not the installed package"
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "gateway.db"
        with interlane.open(store) as engine:
            desk, peer = (engine.account(name, create=True) for name in ("desk", "peer"))
            assert desk.start_sessions(["peer"], [peer.prekeys(1).bundle()]).ok.all()
            sent = desk.encrypt(["peer"] * 20, [b"message %d" % at for at in range(20)])
            got = peer.decrypt(["desk"] * 20, [row.kind for row in sent], sent.tolist())
            assert got.tolist() == [b"message %d" % at for at in range(20)]
        with interlane.open(store) as engine:
            answer = engine.account("peer").encrypt(["desk"], [b"after reopening"])
            opened = engine.account("desk").decrypt(["peer"], "msg", answer.tolist())
            assert opened.tolist() == [b"after reopening"]
    print(f"interlane {interlane.__version__}, backend {interlane.backend()}: the wheel works")


if __name__ == "__main__":
    main()
