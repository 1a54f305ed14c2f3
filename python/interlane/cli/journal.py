"""Which lines were answered, so that none is handled twice, also after a crash at any point.

The journal is the file of answers itself: JSON lines, appended in whole batches and synced to disk before
anything else happens with them. Beside it, in ``<file>.relay``, stands what the answers are to (a digest of
the input's first line) and the *intent*: the lines that are being handled now. It is synced before the engine
is called.

After a crash (or `kill -9`), opening the journal

1. cuts off a last line that was not written to its end,
2. reads which lines have an answer: these are never given to the engine again,
3. reads the intent: its lines without an answer are *in doubt*. The engine may have committed them, though
   their answers did not get as far as the disk. They are handled again.

What that guarantees:

- Every line gets one answer; a plaintext is written at most once.
- No key is used twice. A text in doubt is encrypted again, under the chain's next counter; the frame that was
  lost had not left the process, and its counter is skipped, as if the network had lost it.
- A frame in doubt that the engine had opened gives its plaintext: the engine keeps it in its receive buffer,
  in the transaction that spends the key, and it is acknowledged only when its answer is synced. The same goes
  for a distribution message.
- The distributions of a group text in doubt may be lost, though the engine counts their devices as served.
  Our sender key of that group is therefore rotated, once, before the text is sent again: its devices all get
  the new one.
- What is handled again sees what the lost try left behind: a frame that had come too early may open now, a
  bundle starts another session, prekeys that were lost stay in stock unused.

An acknowledgement that a crash takes back does no harm: the line has its answer, and is not handled again.
Only where the network brings the same frame once more, as another line, that line has the plaintext too.
"""

from __future__ import annotations

import json
import os
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from interlane.cli.failure import FILES, Failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

Key = int | str


class Journal:
    """Answers at `path`. With the input's first line, lines are known by number; without, by event id."""

    def __init__(self, path: Path, first_line: bytes | None = None) -> None:
        self.path = path
        self.by_line = first_line is not None
        self._heading = _heading_of(first_line)
        self._through = 0  # by line: all lines up to this one have an answer
        self._beyond: set[int] = set()
        self._places: dict[Key, tuple[int, int]] = {}  # by id: offset and length
        self._answers = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._end = self._read_answers()
        self._notes = os.open(f"{path}.relay", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.in_doubt = frozenset(key for key in self._read_notes() if key not in self)
        _sync_folder(path.parent)

    def __contains__(self, key: Key) -> bool:
        if self.by_line:
            assert isinstance(key, int)
            return key <= self._through or key in self._beyond
        return key in self._places

    @property
    def answered(self) -> int:
        """Lines with an answer."""
        return self._through + len(self._beyond) if self.by_line else len(self._places)

    def begin(self, keys: Sequence[Key]) -> None:
        """These lines are about to be handled. Synced."""
        keys = [*keys, *(key for key in self.in_doubt if key not in self)]
        if self.by_line:
            numbers = [key for key in keys if isinstance(key, int)]
            intent: dict[str, Any] = {"first": min(numbers), "last": max(numbers)}
        else:
            intent = {"ids": keys}
        # Overwritten in place: one torn by a crash is not read, and rightly, since nothing was handled under
        # it yet.
        os.ftruncate(self._notes, len(self._heading))
        _write_at(self._notes, line_of(intent), len(self._heading))
        os.fdatasync(self._notes)

    def write(self, answers: Sequence[dict[str, Any]]) -> bytes:
        """Appends the answers, in this order, and syncs. Returns the bytes."""
        lines = [line_of(answer) for answer in answers]
        whole = b"".join(lines)
        _write_at(self._answers, whole, self._end)
        os.fdatasync(self._answers)
        for answer, line in zip(answers, lines, strict=True):
            self._note(answer, len(line))
        return whole

    def answer_to(self, key: Key) -> bytes:
        """By id: the answer that was given, a whole line."""
        offset, length = self._places[key]
        return os.pread(self._answers, length, offset)

    def close(self) -> None:
        os.close(self._answers)
        os.close(self._notes)

    def _note(self, answer: dict[str, Any], length: int) -> None:
        if self.by_line:
            self._beyond.add(answer["line"])
            while self._through + 1 in self._beyond:
                self._through += 1
                self._beyond.remove(self._through)
        elif answer.get("id") is not None:
            self._places[answer["id"]] = (self._end, length)
        self._end += length

    def _read_answers(self) -> int:
        self._end = 0
        with open(self._answers, "rb", closefd=False) as answers:
            for line in answers:
                if not line.endswith(b"\n"):
                    break
                self._note(self._parsed(line), len(line))
        os.ftruncate(self._answers, self._end)
        return self._end

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not isinstance(answer.get("line"), int):
            raise Failure(f"{self.path} has a line that relay did not write: take another --output", FILES)
        return answer

    def _read_notes(self) -> Iterable[Key]:
        """The lines of the intent. Writes the heading of a new journal."""
        notes = os.pread(self._notes, os.fstat(self._notes).st_size, 0)
        if not notes.startswith(self._heading):
            # A heading that was cut off stands before no answer: nothing is handled until it is synced.
            if self.answered or b"\n" in notes:
                raise Failure(
                    f"{self.path} has the answers to another input: take another --output, or remove it"
                )
            os.ftruncate(self._notes, 0)
            _write_at(self._notes, self._heading, 0)
            return ()
        try:
            intent = json.loads(notes[len(self._heading) :])
        except ValueError:
            return ()
        return range(intent["first"], intent["last"] + 1) if "first" in intent else intent["ids"]


def _heading_of(first_line: bytes | None) -> bytes:
    return b"" if first_line is None else line_of({"input": sha256(first_line).hexdigest()[:16]})


def line_of(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _write_at(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _sync_folder(folder: Path) -> None:
    """A file that was just made is in its folder after a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
