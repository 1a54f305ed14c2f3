"""Gateway events: one line of JSON in, one `Event` out, or `BadEvent` with a line that says what is wrong.

Parse, do not validate: what has become an `Event` can be given to the engine. docs/relay.md has the table of
kinds.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import interlane

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAME_BYTES_MAX = 512  # the engine's limit on accounts, addresses and groups
PREKEYS_MAX = 65_536
DEVICES_MAX = 10_000  # of one group_text: ten times the largest group in use
ID_CHARACTERS_MAX = 200


class BadEvent(Exception):
    """The line is no event; `id` is there when it could be read."""

    def __init__(self, message: str, event_id: str | int | None = None) -> None:
        super().__init__(message)
        self.id = event_id


@dataclass(frozen=True, slots=True)
class Event:
    """A line that can be given to the engine. Fields that its kind does not have are empty."""

    line: int
    id: str | int | None
    event: str
    account: str
    peer: str = ""
    group: str = ""
    kind: str = ""
    data: bytes = b""
    bundle: interlane.Bundle | None = None
    devices: tuple[str, ...] | None = None
    identity: bytes = b""
    one_time: int = 812
    rotate: bool = False
    in_doubt: bool = False  # it may have been handled before, in a run that crashed


def parse(line: int, text: bytes) -> Event:
    """The event on line `line`. Raises BadEvent."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise BadEvent("not a line of JSON") from None
    if not isinstance(given, dict):
        raise BadEvent("not a JSON object")
    id = given.get("id")
    if not (id is None or _is_number(id) or (isinstance(id, str) and len(id) <= ID_CHARACTERS_MAX)):
        raise BadEvent(f"`id` must be a number or a text of at most {ID_CHARACTERS_MAX} characters")
    try:
        return Event(line, id, **_fields(given))
    except BadEvent as bad:
        raise BadEvent(str(bad), id) from None


def _fields(given: Mapping[str, Any]) -> dict[str, Any]:
    name = given.get("event")
    if not isinstance(name, str) or name not in KINDS:
        raise BadEvent(f"`event` must be one of {', '.join(KINDS)}")
    needed, allowed = KINDS[name]
    fields: dict[str, Any] = {"event": name}
    for field in needed:
        if field not in given:
            raise BadEvent(f"an event `{name}` needs `{field}`")
    for field in (*needed, *(field for field in allowed if given.get(field) is not None)):
        try:
            target = "data" if field == "frame" else field
            fields[target] = READERS[field](given[field])
        except BadEvent as bad:
            raise BadEvent(f"`{field}` {bad}") from None
    if name in ("text", "group_text"):
        fields["data"] = _body(given)
    return fields


def _body(given: Mapping[str, Any]) -> bytes:
    text, data = given.get("text"), given.get("data")
    if (text is None) == (data is None):
        raise BadEvent("needs either `text` or `data` (base64)")
    if data is not None:
        try:
            return _bytes(data)
        except BadEvent as bad:
            raise BadEvent(f"`data` {bad}") from None
    if not isinstance(text, str):
        raise BadEvent("`text` must be a text")
    return _encoded(text)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadEvent("has half of a surrogate pair, which is no text") from None


def _name(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value or len(_encoded(value)) > NAME_BYTES_MAX:
        raise BadEvent(f"must be a text of 1 to {NAME_BYTES_MAX} bytes")
    return value


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > DEVICES_MAX:
        raise BadEvent(f"must be a list of at most {DEVICES_MAX} addresses")
    return tuple(_name(one) for one in value)


def _bytes(value: object) -> bytes:
    if not isinstance(value, str):
        raise BadEvent("must be base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise BadEvent("is not standard base64") from None


def _kind(value: object) -> str:
    if value not in ("msg", "pkmsg"):
        raise BadEvent('must be "msg" or "pkmsg"')
    return str(value)


def _u32(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
        raise BadEvent("must be a number from 0 to 4294967295")
    return value


def _stock(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= PREKEYS_MAX:
        raise BadEvent(f"must be a number from 0 to {PREKEYS_MAX}")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise BadEvent("must be true or false")
    return value


def _bundle(value: object) -> interlane.Bundle:
    """The shape of a prekey bundle. Its signature and the lengths of its keys are the engine's to check."""
    whole = _object(value, "")
    signed = _object(whole.get("signed_prekey"), "signed_prekey")
    one_time = whole.get("one_time_prekey")
    if one_time is not None:
        one_time = _object(one_time, "one_time_prekey")
        one_time = interlane.Prekey(
            _inner(one_time, "one_time_prekey", "id", _u32),
            _inner(one_time, "one_time_prekey", "public", _bytes),
        )
    return interlane.Bundle(
        registration_id=_inner(whole, "", "registration_id", _u32),
        identity=_inner(whole, "", "identity", _bytes),
        signed_prekey=interlane.SignedPrekey(
            _inner(signed, "signed_prekey", "id", _u32),
            _inner(signed, "signed_prekey", "public", _bytes),
            _inner(signed, "signed_prekey", "signature", _bytes),
        ),
        one_time_prekey=one_time,
        device_id=_u32(whole.get("device_id", 1)),
    )


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadEvent(f"needs `{name}`, an object" if name else "must be an object")
    return value


def _inner(fields: dict[str, Any], name: str, field: str, reader: Callable[[object], Any]) -> Any:
    whole_name = f"{name}.{field}" if name else field
    if field not in fields:
        raise BadEvent(f"needs `{whole_name}`")
    try:
        return reader(fields[field])
    except BadEvent as bad:
        raise BadEvent(f"has a `{whole_name}` that {bad}") from None


READERS: dict[str, Callable[[object], Any]] = {
    "account": _name,
    "peer": _name,
    "group": _name,
    "kind": _kind,
    "frame": _bytes,
    "bundle": _bundle,
    "devices": _names,
    "identity": _bytes,
    "one_time": _stock,
    "rotate": _flag,
}

# Each kind's fields: those it needs, and those it may have beside them.
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "account": (("account",), ()),
    "prekeys": (("account",), ("one_time", "rotate")),
    "bundle": (("account", "peer", "bundle"), ()),
    "text": (("account", "peer"), ()),
    "frame": (("account", "peer", "kind", "frame"), ()),
    "trust": (("account", "peer", "identity"), ()),
    "forget": (("account", "peer"), ()),
    "distribute": (("account", "group"), ()),
    "distribution": (("account", "group", "peer", "frame"), ("kind",)),
    "group_text": (("account", "group"), ("devices",)),
    "group_frame": (("account", "group", "peer", "frame"), ()),
    "rotate": (("account", "group"), ()),
}
