"""Installs the live test peers: ``python tests/peers/setup.py``. Quick when they are already there.

Every peer is pinned by its lock file, and no package runs code while it is installed (``.npmrc``). A peer
whose tools are missing is left out and named; with ``CI=true`` that is a failure.
"""

# ruff: noqa: S603, S607 - the tools are the ones on the developer's path

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
NODE_MAJOR_MIN = 20
INSTALL_SECONDS_MAX = 600


@dataclass(frozen=True)
class NodePeer:
    """A peer in JavaScript: ``npm ci`` in its folder, then ``node peer.mjs``."""

    folder: Path

    @property
    def command(self) -> list[str]:
        return ["node", "--expose-gc", str(self.folder / "peer.mjs")]

    def tools_lacking(self) -> str | None:
        if shutil.which("node") is None or shutil.which("npm") is None:
            return "Node and npm are not installed"
        asked = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
        version = asked.stdout.strip()
        if int(version.lstrip("v").split(".")[0]) < NODE_MAJOR_MIN:
            return f"Node {version} is too old: it takes {NODE_MAJOR_MIN} or newer"
        return None

    def installed(self) -> bool:
        stamp = self._stamp()
        return stamp.is_file() and stamp.read_text() == self._lock_digest()

    def install(self) -> None:
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], self.folder)
        self._stamp().write_text(self._lock_digest())

    def _stamp(self) -> Path:
        return self.folder / "node_modules" / ".installed-lock"

    def _lock_digest(self) -> str:
        return hashlib.sha256((self.folder / "package-lock.json").read_bytes()).hexdigest()


@dataclass(frozen=True)
class GoPeer:
    """A peer in Go: built from its folder to the binary ``peer``, which git ignores."""

    folder: Path

    @property
    def command(self) -> list[str]:
        return [str(self.folder / "peer")]

    def tools_lacking(self) -> str | None:
        return None if shutil.which("go") else "Go is not installed"

    def installed(self) -> bool:
        binary = self.folder / "peer"
        if not binary.is_file():
            return False
        sources = [*self.folder.glob("*.go"), self.folder / "go.mod", self.folder / "go.sum"]
        return all(source.stat().st_mtime <= binary.stat().st_mtime for source in sources)

    def install(self) -> None:
        _run(["go", "build", "-trimpath", "-o", "peer", "."], self.folder)


FOREIGN: dict[str, NodePeer | GoPeer] = {
    "libsignal_client": NodePeer(HERE / "libsignal_client"),
    "baileys": NodePeer(HERE / "baileys"),
    "rust_bridge": NodePeer(HERE / "rust_bridge"),
    "go": GoPeer(HERE / "go"),
}


def lacking(name: str) -> str | None:
    """Why this peer cannot run here, or None when it can."""
    peer = FOREIGN[name]
    if reason := peer.tools_lacking():
        return reason
    return None if peer.installed() else "not installed: run python tests/peers/setup.py"


def main() -> int:
    left_out = 0
    for name, peer in FOREIGN.items():
        reason = peer.tools_lacking()
        if reason is None and not peer.installed():
            try:
                peer.install()
            except (subprocess.SubprocessError, OSError) as error:
                reason = str(error)
        print(f"live peer {name}: {'ready' if reason is None else 'left out, ' + reason}", flush=True)
        left_out += reason is not None
    return 1 if left_out and os.environ.get("CI") == "true" else 0


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX)
    if done.returncode != 0:
        last_line = (done.stderr.strip() or "no message").splitlines()[-1]
        raise OSError(f"{' '.join(command[:2])} failed: {last_line}")


if __name__ == "__main__":
    sys.exit(main())
