"""Batch AEAD with a key for each row, against one object and one call a row."""

from __future__ import annotations

import os
from typing import Literal

import pytest
from conftest import Sizes, Versus, clock
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from interlane import Rows, aead
from linked import PLAINTEXT, Packed
from report import CRYPTOGRAPHY

KEY_BYTES = 32
NONCE_BYTES = 12


@pytest.mark.parametrize(
    ("work", "algorithm", "cipher"),
    [
        ("aead/gcm", "aes-256-gcm", AESGCM),
        ("aead/chacha", "chacha20-poly1305", ChaCha20Poly1305),
    ],
)
def bench_seal(
    versus: Versus,
    sizes: Sizes,
    work: str,
    algorithm: Literal["aes-256-gcm", "chacha20-poly1305"],
    cipher: type[AESGCM | ChaCha20Poly1305],
) -> None:
    keys, nonces = os.urandom(KEY_BYTES * sizes.rows), os.urandom(NONCE_BYTES * sizes.rows)
    plaintexts = Packed.repeated(PLAINTEXT, sizes.rows)
    key_list = [keys[n : n + KEY_BYTES] for n in range(0, len(keys), KEY_BYTES)]
    nonce_list = [nonces[n : n + NONCE_BYTES] for n in range(0, len(nonces), NONCE_BYTES)]
    sealed: list[Rows] = []

    def ours(_: None) -> None:
        sealed.append(aead.seal(algorithm, keys, nonces, plaintexts.data, plaintexts.offsets))

    def loop() -> int:
        for key, nonce in zip(key_list, nonce_list, strict=True):
            cipher(key).encrypt(nonce, PLAINTEXT, None)
        return len(key_list)

    ours(None)
    frames = sealed.pop()
    expected = [
        cipher(key).encrypt(nonce, PLAINTEXT, None) for key, nonce in zip(key_list, nonce_list, strict=True)
    ]
    assert frames.tolist() == expected
    opened = aead.open(algorithm, keys, nonces, frames.data, frames.offsets)
    assert opened.tolist() == [PLAINTEXT] * sizes.rows
    versus(work, CRYPTOGRAPHY, rows=sizes.rows, prepare=sealed.clear, ours=ours, theirs=clock(loop))
    assert sealed[-1].tolist() == expected
