"""interlane as a live test peer, on its public Python API: ``interlane_peer.py [STORE]``, else ``:memory:``.

Speaks the peer protocol of this folder's README: one JSON object a line in, one a line out.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import interlane

MEMORY = ":memory:"

Json: TypeAlias = dict[str, Any]


class Refused(Exception):
    """Becomes the reply ``{"error": text}``."""


class Peer:
    """The operations of the protocol. A party is an account named ``who``."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._engine = interlane.open(path)

    def hello(self, _: Json) -> Json:
        can = ["pairwise", "group", "many"] + (["reopen"] if self._path != MEMORY else [])
        return {"name": "interlane", "version": interlane.__version__, "can": can}

    def party(self, asked: Json) -> Json:
        account = self._engine.account(asked["who"], create=True)
        return {"identity": _text(account.identity), "registration_id": account.registration_id}

    def bundle(self, asked: Json) -> Json:
        account = self._account(asked)
        if asked.get("one_time", True):
            (bundle,) = account.prekeys(1).bundles()
        else:
            bundle = account.prekeys(0).bundle()
        signed, one_time = bundle.signed_prekey, bundle.one_time_prekey
        return {
            "registration_id": bundle.registration_id,
            "device_id": bundle.device_id,
            "identity": _text(bundle.identity),
            "signed_prekey": {
                "id": signed.id,
                "public": _text(signed.public),
                "signature": _text(signed.signature),
            },
            "one_time_prekey": None
            if one_time is None
            else {"id": one_time.id, "public": _text(one_time.public)},
        }

    def start(self, asked: Json) -> Json:
        bundle = interlane.Bundle.from_dict(_decoded_bundle(asked["bundle"]))
        _only(self._account(asked).start_sessions([asked["peer"]], [bundle]))
        return {"ok": True}

    def encrypt(self, asked: Json) -> Json:
        row = _only(self._account(asked).encrypt([asked["peer"]], [_bytes(asked["plaintext"])]))
        return {"kind": row.kind, "frame": _text(row.data)}

    def decrypt(self, asked: Json) -> Json:
        account = self._account(asked)
        row = _only(account.decrypt([asked["peer"]], [asked["kind"]], [_bytes(asked["frame"])]))
        return {"plaintext": _text(row.data)}

    def encrypt_many(self, asked: Json) -> Json:
        rows = asked["rows"]
        result = self._account(asked).encrypt(
            [row["peer"] for row in rows], [_bytes(row["plaintext"]) for row in rows]
        )
        return {
            "rows": [_reply(row, lambda row: {"kind": row.kind, "frame": _text(row.data)}) for row in result]
        }

    def decrypt_many(self, asked: Json) -> Json:
        rows = asked["rows"]
        result = self._account(asked).decrypt(
            [row["peer"] for row in rows],
            [row["kind"] for row in rows],
            [_bytes(row["frame"]) for row in rows],
        )
        return {"rows": [_reply(row, lambda row: {"plaintext": _text(row.data)}) for row in result]}

    def group_distribute(self, asked: Json) -> Json:
        return {"frame": _text(self._group(asked).distribute())}

    def group_accept(self, asked: Json) -> Json:
        _only(self._group(asked).accept([asked["peer"]], [_bytes(asked["frame"])]))
        return {"ok": True}

    def group_encrypt(self, asked: Json) -> Json:
        return {"frame": _text(_only(self._group(asked).encrypt([_bytes(asked["plaintext"])])).data)}

    def group_decrypt(self, asked: Json) -> Json:
        return {
            "plaintext": _text(
                _only(self._group(asked).decrypt([asked["peer"]], [_bytes(asked["frame"])])).data
            )
        }

    def group_rotate(self, asked: Json) -> Json:
        self._group(asked).rotate()
        return {"ok": True}

    def reopen(self, _: Json) -> Json:
        if self._path == MEMORY:
            raise Refused("a memory store cannot be opened again: give a path")
        self._engine.close()
        self._engine = interlane.open(self._path)
        return {"ok": True}

    def close(self) -> None:
        self._engine.close()

    def _account(self, asked: Json) -> interlane.Account:
        return self._engine.account(asked["who"])

    def _group(self, asked: Json) -> interlane.Group:
        return self._account(asked).group(asked["group"])


OPERATIONS: dict[str, Callable[[Peer, Json], Json]] = {
    operation.__name__: operation
    for operation in (
        Peer.hello,
        Peer.party,
        Peer.bundle,
        Peer.start,
        Peer.encrypt,
        Peer.decrypt,
        Peer.encrypt_many,
        Peer.decrypt_many,
        Peer.group_distribute,
        Peer.group_accept,
        Peer.group_encrypt,
        Peer.group_decrypt,
        Peer.group_rotate,
        Peer.reopen,
    )
}


def answer(peer: Peer, line: bytes) -> Json:
    """The reply to one line; a refusal never ends the process."""
    try:
        asked = json.loads(line)
        if not isinstance(asked, dict) or asked.get("op") not in OPERATIONS:
            raise Refused("no such operation")
        return OPERATIONS[asked["op"]](peer, asked)
    except KeyError as error:
        return {"error": str(error) if isinstance(error, interlane.Error) else f"the request has no {error}"}
    except (Refused, interlane.Error, binascii.Error, TypeError, ValueError) as error:
        return {"error": str(error)}


def main() -> None:
    peer = Peer(sys.argv[1] if len(sys.argv) > 1 else MEMORY)
    try:
        for line in sys.stdin.buffer:
            sys.stdout.write(json.dumps(answer(peer, line)) + "\n")
            sys.stdout.flush()
    finally:
        peer.close()


def _only(rows: interlane.Rows) -> interlane.Row:
    row = rows[0]
    if row.status != interlane.Status.OK:
        raise Refused(row.status.name)
    return row


def _reply(row: interlane.Row, opened: Callable[[interlane.Row], Json]) -> Json:
    return opened(row) if row.status == interlane.Status.OK else {"error": row.status.name}


def _decoded_bundle(bundle: Json) -> Json:
    signed, one_time = bundle["signed_prekey"], bundle.get("one_time_prekey")
    return {
        **bundle,
        "identity": _bytes(bundle["identity"]),
        "signed_prekey": {
            "id": signed["id"],
            "public": _bytes(signed["public"]),
            "signature": _bytes(signed["signature"]),
        },
        "one_time_prekey": None
        if one_time is None
        else {"id": one_time["id"], "public": _bytes(one_time["public"])},
    }


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


if __name__ == "__main__":
    main()
