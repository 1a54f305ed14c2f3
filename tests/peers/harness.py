"""Starts a live peer by name and speaks the peer protocol with it: a JSON object a line, a reply a request.

>>> with Peer("go") as go, Peer("interlane") as ours:
...     go.party("anna"); ours.party("desk")
...     ours.start("desk", "anna", go.bundle("anna"))
...     go.decrypt("anna", "desk", ours.encrypt("desk", "anna", b"hello"))
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, cast

from .setup import FOREIGN, HERE, lacking

OURS = "interlane"
NAMES: tuple[str, ...] = (*FOREIGN, OURS)
REPLY_SECONDS_MAX = 60.0

# The keys of the protocol whose values are base64 on the wire and bytes here.
_BYTES_KEYS = frozenset({"identity", "public", "signature", "frame", "plaintext"})


class Refused(Exception):
    """The peer answered ``{"error": ...}``; for ours the text is the row's status name."""


class PeerDied(Exception):
    """The peer ended, or did not answer in time."""


class Party(TypedDict):
    identity: bytes
    registration_id: int


class Prekey(TypedDict):
    id: int
    public: bytes


class SignedPrekey(TypedDict):
    id: int
    public: bytes
    signature: bytes


class Bundle(TypedDict):
    registration_id: int
    device_id: int
    identity: bytes
    signed_prekey: SignedPrekey
    one_time_prekey: Prekey | None


@dataclass(frozen=True)
class Frame:
    """A pairwise frame: ``kind`` is "pkmsg" or "msg"."""

    kind: str
    data: bytes


def available() -> dict[str, str | None]:
    """Each peer's name with the reason why it cannot run here; None: it can."""
    reasons = {name: lacking(name) for name in FOREIGN}
    return {**reasons, OURS: _ours_lacking()}


class Peer:
    """One peer process. A context manager; the process never outlives it."""

    def __init__(
        self,
        name: str,
        store: str | Path | None = None,
        *,
        command: Sequence[str] | None = None,
        timeout: float = REPLY_SECONDS_MAX,
    ) -> None:
        """`command` starts a peer that is not of this folder."""
        if command is None and name not in NAMES:
            raise ValueError(f"no peer {name!r}: there are {', '.join(NAMES)}")
        if store is not None and name != OURS:
            raise ValueError(f"the peer {name} keeps its store in memory")
        self.name = name
        self.timeout = timeout
        self._buffered = b""
        # A file, not a pipe: nobody reads standard error while the peer runs, and a full pipe would stop it.
        self._diagnostics = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the peer
        self._process = subprocess.Popen(  # noqa: S603 - the commands are the repository's own
            command or _command(name, store),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._diagnostics,
            bufsize=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """Ends the peer: by end of input, and by force when it does not go by itself."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._diagnostics.close()

    def kill(self) -> None:
        """Ends the peer at once, as a crash would."""
        self._kill()
        self.close()

    def request(self, op: str, *, timeout: float | None = None, **fields: object) -> dict[str, Any]:
        """One request and its reply; bytes in the fields travel as base64. Raises Refused and PeerDied."""
        reply = self.exchange({"op": op, **fields}, timeout=timeout)
        if "error" in reply:
            raise Refused(reply["error"])
        return reply

    def exchange(self, asked: object, *, timeout: float | None = None) -> dict[str, Any]:
        """Any JSON value as a line, and the reply to it as it is, a refusal too."""
        return self.exchange_line(json.dumps(_encoded(asked)).encode(), timeout=timeout)

    def exchange_line(self, line: bytes, *, timeout: float | None = None) -> dict[str, Any]:
        """A raw line, and the reply to it."""
        assert self._process.stdin is not None
        try:
            view = memoryview(line + b"\n")
            while view:
                view = view[self._process.stdin.write(view) :]
        except BrokenPipeError:
            raise PeerDied(f"the peer {self.name} has ended{self._last_words()}") from None
        return cast(dict[str, Any], _decoded(json.loads(self._read_line(timeout or self.timeout))))

    def hello(self) -> dict[str, Any]:
        return self.request("hello")

    def party(self, who: str) -> Party:
        return cast(Party, self.request("party", who=who))

    def bundle(self, who: str, *, one_time: bool = True) -> Bundle:
        return cast(Bundle, self.request("bundle", who=who, one_time=one_time))

    def start(self, who: str, peer: str, bundle: Bundle) -> None:
        self.request("start", who=who, peer=peer, bundle=bundle)

    def encrypt(self, who: str, peer: str, plaintext: bytes) -> Frame:
        reply = self.request("encrypt", who=who, peer=peer, plaintext=plaintext)
        return Frame(reply["kind"], reply["frame"])

    def decrypt(self, who: str, peer: str, frame: Frame) -> bytes:
        reply = self.request("decrypt", who=who, peer=peer, kind=frame.kind, frame=frame.data)
        return cast(bytes, reply["plaintext"])

    def encrypt_many(self, who: str, rows: Iterable[tuple[str, bytes]]) -> list[Frame | Refused]:
        asked = [{"peer": peer, "plaintext": plaintext} for peer, plaintext in rows]
        answered = self.request("encrypt_many", who=who, rows=asked)["rows"]
        return [
            Refused(row["error"]) if "error" in row else Frame(row["kind"], row["frame"]) for row in answered
        ]

    def decrypt_many(self, who: str, rows: Iterable[tuple[str, Frame]]) -> list[bytes | Refused]:
        asked = [{"peer": peer, "kind": frame.kind, "frame": frame.data} for peer, frame in rows]
        answered = self.request("decrypt_many", who=who, rows=asked)["rows"]
        return [
            Refused(row["error"]) if "error" in row else cast(bytes, row["plaintext"]) for row in answered
        ]

    def group_distribute(self, who: str, group: str) -> bytes:
        return cast(bytes, self.request("group_distribute", who=who, group=group)["frame"])

    def group_accept(self, who: str, peer: str, group: str, frame: bytes) -> None:
        self.request("group_accept", who=who, peer=peer, group=group, frame=frame)

    def group_encrypt(self, who: str, group: str, plaintext: bytes) -> bytes:
        return cast(bytes, self.request("group_encrypt", who=who, group=group, plaintext=plaintext)["frame"])

    def group_decrypt(self, who: str, peer: str, group: str, frame: bytes) -> bytes:
        return cast(
            bytes, self.request("group_decrypt", who=who, peer=peer, group=group, frame=frame)["plaintext"]
        )

    def group_rotate(self, who: str, group: str) -> None:
        self.request("group_rotate", who=who, group=group)

    def reopen(self) -> None:
        self.request("reopen")

    def bench(self, work: str, rows: int, size: int = 256, *, timeout: float = 600.0) -> float:
        """Nanoseconds a row of the peer's own loop; its preparation is outside the clock and may be slow."""
        return float(self.request("bench", timeout=timeout, work=work, rows=rows, bytes=size)["ns"])

    def _read_line(self, timeout: float) -> bytes:
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        pieces = [self._buffered]
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in pieces[-1]:
                if not selector.select(deadline - time.monotonic()):
                    self._kill()
                    raise PeerDied(f"the peer {self.name} gave no reply in {timeout:g} s{self._last_words()}")
                piece = os.read(self._process.stdout.fileno(), 1 << 20)
                if not piece:
                    self._process.wait()
                    raise PeerDied(f"the peer {self.name} has ended{self._last_words()}")
                pieces.append(piece)
        line, _, self._buffered = b"".join(pieces).partition(b"\n")
        return line

    def _kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _last_words(self) -> str:
        self._diagnostics.seek(0)
        words = self._diagnostics.read().decode(errors="replace").strip()
        return f"; it said:\n{words[-2000:]}" if words else ""


def _command(name: str, store: str | Path | None) -> Sequence[str]:
    if name == OURS:
        return [sys.executable, str(HERE / "interlane_peer.py"), *([] if store is None else [str(store)])]
    if reason := lacking(name):
        raise PeerDied(f"the peer {name} cannot run here: {reason}")
    return FOREIGN[name].command


def _ours_lacking() -> str | None:
    try:
        import interlane  # noqa: F401
    except ImportError:
        return "the package interlane is not installed here"
    return None


def _encoded(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: _encoded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(item) for item in value]
    return value


def _decoded(value: object, key: str = "") -> object:
    if isinstance(value, dict):
        return {name: _decoded(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if isinstance(value, str) and key in _BYTES_KEYS:
        return base64.b64decode(value, validate=True)
    return value
