"""Authenticated encryption by the batch, with a key for each row.

AES-256-GCM (NIST SP 800-38D) and ChaCha20-Poly1305 (RFC 8439): keys of 32 bytes, nonces of 12, tags of 16.
A key must never meet the same nonce twice.

Both functions take `keys` and `nonces` as one buffer for all rows or as a list with one for each row, the
rows as `Engine.encrypt` does, and `associated` as None, one bytes-like object for all rows, or a list with
one for each row. They raise `MalformedCall` for arguments that do not fit. A row that `open` refuses has the
status INVALID and no bytes.
"""

from __future__ import annotations

from ._native import aead_open as open
from ._native import aead_seal as seal

__all__ = ["open", "seal"]
