"""Two accounts with many sessions between them, for tests of what goes into a call and comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import interlane
import numpy as np


@dataclass
class Desks:
    """Session `i`: `sender` knows the other end as "to-i", `receiver` as "from-i"."""

    engine: interlane.Engine
    sender: interlane.Account
    receiver: interlane.Account
    outward: np.ndarray[Any, np.dtype[np.uint64]]
    inward: np.ndarray[Any, np.dtype[np.uint64]]

    @property
    def to(self) -> list[str]:
        return [f"to-{i}" for i in range(len(self.outward))]

    @property
    def sources(self) -> list[str]:
        return [f"from-{i}" for i in range(len(self.inward))]

    def opened(self, sent: interlane.Rows) -> list[bytes]:
        """The plaintexts of what was sent on the first sessions, each verified by the receiver."""
        got = self.receiver.decrypt(self.sources[: len(sent)], sent.kinds, sent.tolist())
        assert got.ok.all(), got
        return got.tolist()


def desks(engine: interlane.Engine, sessions: int) -> Desks:
    sender = engine.account("sender", create=True)
    receiver = engine.account("receiver", create=True)
    made = Desks(
        engine,
        sender,
        receiver,
        engine.sessions(sender, [f"to-{i}" for i in range(sessions)]),
        engine.sessions(receiver, [f"from-{i}" for i in range(sessions)]),
    )
    started = engine.start_sessions(made.outward, list(receiver.prekeys(sessions).bundles()))
    assert started.ok.all()
    return made
