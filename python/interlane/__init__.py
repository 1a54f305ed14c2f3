"""Signal-protocol sessions by the batch, for gateways: the state durable before a frame leaves.

    import interlane

    engine = interlane.open("gateway.db")
    desk = engine.account("desk@acme.example", create=True)
    upload = desk.prekeys()                          # what the chat server is to be given
    desk.start_sessions(peers, bundles)
    sent = desk.encrypt(peers, [b"hello", b"hallo"])

- `engine`: `open`, `Engine`, `Account`, `Group`, `Peer`, `Shard`
- `backups`: `backup`, `restore`
- `packed`: `Rows`, every call's result, `Row` and `Fan`
- `prekeys`: `Bundle`, `Upload`, `Prekey`, `SignedPrekey`
- `status`: `Status`, `Event`, `Kind`, the numbers in a result's columns
- `errors`: what a call raises
- `aead`: batch AEAD with a key for each row
- `inputs`: what arguments may be, as types
- `keys`: where the operator's key comes from
"""

from __future__ import annotations

from . import aead
from ._native import __version__, backend, backends, kernels
from .backups import Restored, backup, restore
from .engine import Account, Engine, Group, Peer, Shard, open
from .errors import ClosedError, Error, ForkedError, MalformedCall, StoreBusy, StoreError, UnknownAccount
from .packed import Fan, Row, Rows
from .prekeys import Bundle, Prekey, SignedPrekey, Upload
from .status import Event, Kind, Status

__all__ = [
    "Account",
    "Bundle",
    "ClosedError",
    "Engine",
    "Error",
    "Event",
    "Fan",
    "ForkedError",
    "Group",
    "Kind",
    "MalformedCall",
    "Peer",
    "Prekey",
    "Restored",
    "Row",
    "Rows",
    "Shard",
    "SignedPrekey",
    "Status",
    "StoreBusy",
    "StoreError",
    "UnknownAccount",
    "Upload",
    "__version__",
    "aead",
    "backend",
    "backends",
    "backup",
    "kernels",
    "open",
    "restore",
]
