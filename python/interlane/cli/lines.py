"""Reads lines from a file or a pipe, in batches, and never more than a batch ahead."""

from __future__ import annotations

import os
import select
import stat
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE_BYTES_MAX = 32 << 20  # the longest frame in base64 is 22 MiB
BATCH_BYTES_MAX = 64 << 20
CHUNK_BYTES = 1 << 20
LOOK_UP_SECONDS = 0.25  # how often a quiet pipe looks whether it is to stop


@dataclass(frozen=True, slots=True)
class Line:
    """One line of input, numbered from 1. `text` is None when it was too long to be kept."""

    number: int
    text: bytes | None


@dataclass
class Lines:
    """The input's lines. `stop` ends it after the batch that is being gathered."""

    fd: int
    batch: int
    linger_seconds: float
    stop: bool = False
    ended: bool = False
    consumed_bytes: int = 0
    _number: int = 0
    _rest: bytearray = field(default_factory=bytearray)
    _too_long: bool = False
    _read: deque[Line] = field(default_factory=deque)

    def batches(self) -> Iterator[list[Line]]:
        """Each batch is full, or its first line has waited for `linger_seconds`, or the input ended."""
        while not self.stop:
            gathered = self._gather()
            if gathered:
                yield gathered
            elif self.ended:
                return

    @property
    def size_bytes(self) -> int | None:
        """Of a file; a pipe has none."""
        status = os.fstat(self.fd)
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def _gather(self) -> list[Line]:
        waits = self.size_bytes is None
        gathered: list[Line] = []
        size_bytes = 0
        deadline = 0.0
        while len(gathered) < self.batch and size_bytes < BATCH_BYTES_MAX and not self.stop:
            if self._read:
                line = self._read.popleft()
                size_bytes += len(line.text or b"") + 1
                if not gathered:
                    deadline = time.monotonic() + self.linger_seconds
                gathered.append(line)
            elif self.ended:
                break
            else:
                patience = LOOK_UP_SECONDS
                if gathered and waits:
                    patience = min(patience, deadline - time.monotonic())
                    if patience <= 0:
                        break
                self._take_in(patience)
        self.consumed_bytes += size_bytes
        return gathered

    def _take_in(self, patience_seconds: float) -> None:
        if not select.select([self.fd], [], [], patience_seconds)[0]:
            return
        chunk = os.read(self.fd, CHUNK_BYTES)
        if not chunk:
            self.ended = True
            if self._rest or self._too_long:
                self._add(bytes(self._rest))
            return
        self._rest += chunk
        if b"\n" in chunk:
            *whole, rest = self._rest.split(b"\n")
            for text in whole:
                self._add(bytes(text))
            self._rest = rest
        if len(self._rest) > LINE_BYTES_MAX:
            self._too_long = True
            self._rest.clear()

    def _add(self, text: bytes) -> None:
        self._number += 1
        kept = None if self._too_long or len(text) > LINE_BYTES_MAX else text
        self._too_long = False
        self._read.append(Line(self._number, kept))
