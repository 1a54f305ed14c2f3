"""Public keys on their way to and from a chat server. Public keys have 33 bytes: 5, then the Montgomery
u-coordinate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import MalformedCall


@dataclass(frozen=True, slots=True)
class Prekey:
    """A one-time prekey."""

    id: int
    public: bytes


@dataclass(frozen=True, slots=True)
class SignedPrekey:
    """A signed prekey: `signature` is the identity key's, over `public`."""

    id: int
    public: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Bundle:
    """A peer's public keys, from which a session is started (X3DH §3.2). It is verified where it is used."""

    registration_id: int
    identity: bytes
    signed_prekey: SignedPrekey
    one_time_prekey: Prekey | None = None
    device_id: int = 1

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Bundle:
        """From a mapping with the names of this class's fields, its keys being bytes.

        Raises `MalformedCall` if a field is missing.
        """
        try:
            signed, one_time = fields["signed_prekey"], fields.get("one_time_prekey")
            return cls(
                registration_id=fields["registration_id"],
                identity=fields["identity"],
                signed_prekey=SignedPrekey(signed["id"], signed["public"], signed["signature"]),
                one_time_prekey=None if one_time is None else Prekey(one_time["id"], one_time["public"]),
                device_id=fields.get("device_id", 1),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise MalformedCall(
                f"bundle: {error!r}; give a mapping with the fields of interlane.Bundle"
            ) from None


@dataclass(frozen=True, slots=True)
class Upload:
    """What the chat server is to be given for an account."""

    registration_id: int
    identity: bytes
    signed_prekey: SignedPrekey
    one_time_prekeys: list[Prekey]
    """Those that were just made."""

    def bundle(self) -> Bundle:
        """A bundle without a one-time prekey: the server's last resort."""
        return Bundle(self.registration_id, self.identity, self.signed_prekey)

    def bundles(self) -> Iterator[Bundle]:
        """A bundle with each one-time prekey, each to be given out once."""
        for prekey in self.one_time_prekeys:
            yield Bundle(self.registration_id, self.identity, self.signed_prekey, prekey)
