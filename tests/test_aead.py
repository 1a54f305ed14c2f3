"""Batch AEAD against `cryptography`, one call a row."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st
from interlane import MalformedCall, Status, aead

ALGORITHMS = {"aes-256-gcm": AESGCM, "chacha20-poly1305": ChaCha20Poly1305}
LENGTHS = [0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 1_000, 4_096, 70_000]

both = pytest.mark.parametrize("algorithm", ALGORITHMS)


class Batch:
    """Rows with their own keys, nonces and associated data, and what `cryptography` makes of them."""

    def __init__(self, algorithm: str, lengths: list[int], seed: int = 1) -> None:
        draw = random.Random(seed)
        self.algorithm = algorithm
        self.rows = [draw.randbytes(length) for length in lengths]
        self.keys = [draw.randbytes(32) for _ in lengths]
        self.nonces = [draw.randbytes(12) for _ in lengths]
        self.associated = [draw.randbytes(draw.randrange(40)) for _ in lengths]

    def expected(self, associated: list[bytes | None]) -> list[bytes]:
        cipher = ALGORITHMS[self.algorithm]
        rows = zip(self.keys, self.nonces, self.rows, associated, strict=True)
        return [cipher(key).encrypt(nonce, row, extra) for key, nonce, row, extra in rows]


@both
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 31, 100])
def test_as_cryptography_does(algorithm: str, count: int) -> None:
    batch = Batch(algorithm, [LENGTHS[i % len(LENGTHS)] for i in range(count)])
    given = (algorithm, batch.keys, batch.nonces)
    for associated, expected in (
        (None, batch.expected([None] * count)),
        (b"", batch.expected([b""] * count)),
        (b"for all", batch.expected([b"for all"] * count)),
        (batch.associated, batch.expected([*batch.associated])),
    ):
        sealed = aead.seal(*given, batch.rows, associated=associated)
        assert sealed.tolist() == expected
        assert sealed.ok.all()
        opened = aead.open(*given, expected, associated=associated)
        assert opened.tolist() == batch.rows
        assert opened.ok.all()


@both
def test_keys_and_nonces_in_every_form(algorithm: str) -> None:
    batch = Batch(algorithm, LENGTHS)
    count = len(LENGTHS)
    expected = batch.expected([None] * count)
    keys, nonces = b"".join(batch.keys), b"".join(batch.nonces)
    for keys_given, nonces_given in (
        (keys, nonces),
        (bytearray(keys), memoryview(nonces)),
        (tuple(batch.keys), [bytearray(nonce) for nonce in batch.nonces]),
        (np.frombuffer(keys, np.uint8), np.frombuffer(nonces, np.uint8).reshape(count, 12)),
    ):
        assert aead.seal(algorithm, keys_given, nonces_given, batch.rows).tolist() == expected
    sealed = aead.seal(algorithm, keys, nonces, batch.rows)
    assert aead.open(algorithm, keys, nonces, sealed.data, sealed.offsets).tolist() == batch.rows
    assert aead.open(algorithm, keys, nonces, pa.array(expected)).tolist() == batch.rows


@both
@given(st.data())
def test_a_damaged_row_fails_alone(algorithm: str, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, 70), min_size=1, max_size=40))
    batch = Batch(algorithm, lengths, data.draw(st.integers(0, 2**32)))
    frames = batch.expected([*batch.associated])
    keys, nonces, associated = batch.keys[:], batch.nonces[:], batch.associated[:]
    damaged = data.draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1))
    for i in damaged:
        what = [(frames, i), (keys, i), (nonces, i), (associated, i)][data.draw(st.integers(0, 3))]
        where, row = what
        if not where[row]:
            where[row] = b"\0"
            continue
        bit = data.draw(st.integers(0, 8 * len(where[row]) - 1))
        flipped = bytearray(where[row])
        flipped[bit // 8] ^= 1 << bit % 8
        where[row] = bytes(flipped)
    opened = aead.open(algorithm, keys, nonces, frames, associated=associated)
    for i, row in enumerate(opened):
        if i in damaged:
            assert (row.status, row.data) == (Status.INVALID, b"")
        else:
            assert (row.status, row.data) == (Status.OK, batch.rows[i])


@both
def test_every_bit_is_covered(algorithm: str) -> None:
    batch = Batch(algorithm, [37])
    (frame,) = batch.expected([b"header"])
    flips = []
    for bit in range(8 * len(frame)):
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        flips.append(bytes(flipped))
    count = len(flips)
    opened = aead.open(algorithm, batch.keys * count, batch.nonces * count, flips, associated=b"header")
    assert opened.status.tolist() == [Status.INVALID] * count
    assert len(opened.data) == 0


@both
def test_frames_that_are_cut(algorithm: str) -> None:
    batch = Batch(algorithm, [20])
    (frame,) = batch.expected([None])
    cuts = [frame[:length] for length in range(len(frame))] + [frame, frame + b"\0"]
    count = len(cuts)
    opened = aead.open(algorithm, batch.keys * count, batch.nonces * count, cuts)
    assert np.flatnonzero(opened.ok).tolist() == [len(frame)]
    assert opened[len(frame)].data == batch.rows[0]
    assert opened.tolist().count(b"") == count - 1


def test_the_algorithms_differ() -> None:
    batch = Batch("aes-256-gcm", [50])
    opened = aead.open("chacha20-poly1305", batch.keys, batch.nonces, batch.expected([None]))
    assert opened[0].status is Status.INVALID


KEY, NONCE = bytes(32), bytes(12)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"algorithm": "aes-128-gcm"}, r'algorithm: "aes-128-gcm"; give "aes-256-gcm"'),
        ({"keys": KEY * 3}, "keys: 96 bytes for 2 rows; give 32 for each row"),
        ({"keys": KEY}, "keys: 32 bytes for 2 rows"),
        ({"keys": [KEY]}, "keys: 1 for 2 rows; give one for each row"),
        ({"keys": [KEY] * 3}, "keys: 3 for 2 rows"),
        ({"keys": [KEY, KEY[:-1]]}, r"keys\[1\]: 31 bytes; give 32"),
        ({"keys": [KEY, KEY + b"x"]}, r"keys\[1\]: 33 bytes; give 32"),
        ({"keys": [KEY, "text"]}, r"keys\[1\]: str is no buffer"),
        ({"keys": "text"}, "keys: str is no buffer"),
        ({"keys": None}, "keys: NoneType is no buffer"),
        ({"keys": np.zeros(16, np.uint32)}, 'keys: a buffer of format "I"'),
        ({"keys": np.zeros((2, 64), np.uint8)[:, ::2]}, "keys: the buffer has gaps"),
        ({"nonces": NONCE}, "nonces: 12 bytes for 2 rows; give 12 for each row"),
        ({"nonces": [NONCE, NONCE[1:]]}, r"nonces\[1\]: 11 bytes; give 12"),
        ({"associated": [b""]}, "associated: 1 for 2 rows; give one for each row"),
        ({"associated": [b"", "text"]}, r"associated\[1\]: str is no buffer"),
        ({"associated": "text"}, "associated: str is no buffer"),
        ({"data": b"text"}, "data: one buffer for all rows needs offsets"),
        ({"data": [b"", 5]}, r"data\[1\]: int is no buffer"),
        ({"data": b"text", "offsets": np.array([0, 3, 2])}, r"offsets\[2\] is 2, below"),
        ({"data": b"text", "offsets": np.array([0, 3, 5])}, "the last is 5, but data has 4 bytes"),
        ({"data": pa.array([b"", None])}, r"data\[1\]: is null"),
    ],
)
def test_malformed_calls(changes: dict[str, Any], text: str) -> None:
    arguments = {"algorithm": "aes-256-gcm", "keys": KEY * 2, "nonces": NONCE * 2, "data": [b"a", b"b"]}
    for call in (aead.seal, aead.open):
        with pytest.raises(MalformedCall, match=text) as raised:
            call(**{**arguments, **changes})
        assert "\n" not in str(raised.value)
