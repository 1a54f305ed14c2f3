"""Reads the frames of protocol v3 as an observer on the network does: what each byte is, without any key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .harness import Frame

MAC_BYTES = 8
SIGNATURE_BYTES = 64

_MESSAGE = {1: "ratchet_key", 2: "counter", 3: "previous_counter", 4: "ciphertext"}
_FIRST_MESSAGE = {
    1: "prekey_id",
    2: "base_key",
    3: "identity_key",
    4: "message",
    5: "registration_id",
    6: "signed_prekey_id",
}
_SENDER_KEY_MESSAGE = {1: "sender_key_id", 2: "iteration", 3: "ciphertext"}


@dataclass(frozen=True)
class Field:
    """A protobuf field: bytes ``begin`` to ``end`` of the frame, its tag included."""

    number: int
    begin: int
    end: int
    value: int | bytes


def message_fields(frame: Frame) -> dict[str, Field]:
    """The fields of a SignalMessage, or of the one inside a first message; places are in the whole frame."""
    if frame.kind != "pkmsg":
        return _named(frame.data, 1, len(frame.data) - MAC_BYTES, _MESSAGE)
    inner = first_message_fields(frame)["message"]
    assert isinstance(inner.value, bytes)
    begin = inner.end - len(inner.value)
    return _named(frame.data, begin + 1, inner.end - MAC_BYTES, _MESSAGE)


def first_message_fields(frame: Frame) -> dict[str, Field]:
    """The fields of a PreKeySignalMessage."""
    assert frame.kind == "pkmsg"
    return _named(frame.data, 1, len(frame.data), _FIRST_MESSAGE)


def sender_key_message_fields(data: bytes) -> dict[str, Field]:
    """The fields of a SenderKeyMessage."""
    return _named(data, 1, len(data) - SIGNATURE_BYTES, _SENDER_KEY_MESSAGE)


def ratchet_key(frame: Frame) -> bytes:
    value = message_fields(frame)["ratchet_key"].value
    assert isinstance(value, bytes)
    return value


def counter(frame: Frame) -> int:
    value = message_fields(frame)["counter"].value
    assert isinstance(value, int)
    return value


def iteration(data: bytes) -> int:
    value = sender_key_message_fields(data)["iteration"].value
    assert isinstance(value, int)
    return value


def regions(frame: Frame) -> dict[str, range]:
    """Every byte of the frame under the name of what it belongs to."""
    found = {"version": range(1)}
    inner = message_fields(frame)
    if frame.kind == "pkmsg":
        outer = first_message_fields(frame)
        message = outer.pop("message")
        assert isinstance(message.value, bytes)
        inner_begin = message.end - len(message.value)
        found["message_header"] = range(message.begin, inner_begin)
        found["inner_version"] = range(inner_begin, inner_begin + 1)
        found |= {name: range(field.begin, field.end) for name, field in outer.items()}
        mac_end = message.end
    else:
        mac_end = len(frame.data)
    found |= {name: range(field.begin, field.end) for name, field in inner.items()}
    found["mac"] = range(mac_end - MAC_BYTES, mac_end)
    return found


def flipped(data: bytes, bit: int) -> bytes:
    """The frame with one bit turned over; bit n is bit n % 8 of byte n // 8."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def authenticated_bits(frame: Frame, *, known_session: bool) -> list[int]:
    """The bits of which any one, turned over, must make the frame refused.

    Left out are those that no key covers: the registration id of a first message, and in its outer version
    byte the two bits that only announce a newer sender. Where the receiver has the session already, nobody
    looks at the prekey ids either.
    """
    free: set[int] = set()
    if frame.kind == "pkmsg":
        outer = first_message_fields(frame)
        names = {"registration_id"} | ({"prekey_id", "signed_prekey_id"} if known_session else set())
        free = {2, 3} | {bit for name in names & set(outer) for bit in _bits(outer[name])}
    return [bit for bit in range(8 * len(frame.data)) if bit not in free]


def _bits(field: Field) -> range:
    return range(8 * field.begin, 8 * field.end)


def _named(data: bytes, begin: int, end: int, names: dict[int, str]) -> dict[str, Field]:
    return {names[field.number]: field for field in _fields(data, begin, end) if field.number in names}


def _fields(data: bytes, begin: int, end: int) -> Iterator[Field]:
    place = begin
    while place < end:
        start = place
        tag, place = _varint(data, place)
        value: int | bytes
        if tag & 7 == 0:
            value, place = _varint(data, place)
        elif tag & 7 == 2:
            length, place = _varint(data, place)
            value, place = data[place : place + length], place + length
        else:
            raise ValueError(f"wire type {tag & 7}")
        if place > end:
            raise ValueError("a field runs over the end")
        yield Field(tag >> 3, start, place, value)


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while data[place] & 0x80:
        value |= (data[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
    return value | data[place] << shift, place + 1
