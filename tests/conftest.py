"""What all tests share: the live peers, and the word about those that were left out."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from peers.harness import Peer, available

LIVE_COLLECTED = pytest.StashKey[bool]()


class LivePeers:
    """The peer processes of a test run: one a name, started at the first asking and again when it died."""

    def __init__(self) -> None:
        self._lacking = available()
        self._running: dict[str, Peer] = {}

    def __getitem__(self, name: str) -> Peer:
        self.require(name)
        if name not in self._running or not self._running[name].alive:
            self._running[name] = Peer(name)
        return self._running[name]

    def require(self, name: str) -> None:
        """Skips the test when this peer cannot run here; in CI, where every peer must run, fails it."""
        if reason := self._lacking[name]:
            message = f"live peer {name}: {reason}"
            if os.environ.get("CI") == "true":
                pytest.fail(message)
            pytest.skip(message)

    def close(self) -> None:
        for peer in self._running.values():
            peer.close()


@pytest.fixture(scope="session")
def live() -> Iterator[LivePeers]:
    peers = LivePeers()
    yield peers
    peers.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[LIVE_COLLECTED] = any("live" in getattr(item, "fixturenames", ()) for item in items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not config.stash.get(LIVE_COLLECTED, False):
        return
    left_out = {name: reason for name, reason in available().items() if reason}
    if left_out:
        terminalreporter.section("live peers left out", yellow=True)
        for name, reason in left_out.items():
            terminalreporter.write_line(f"{name}: {reason}")
