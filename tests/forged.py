"""A peer that knows its own keys, follows the protocol as far as it likes, and writes any frame it wants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import NamedTuple

import interlane
import reference
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from reference import Fields, KeyPair, read_protobuf, write_protobuf


class Frame(NamedTuple):
    kind: str
    data: bytes


class Forger:
    """An account of the oracle's, with its parts laid open. Peers know it by its name."""

    def __init__(self, name: str = "eve", seed: bytes = b"e" * 32) -> None:
        self.name = name
        self.world = reference.World(seed)
        self.account = self.world.account(name, create=True)
        self.upload = self.account.prekeys(0)

    def start(self, desk: str, bundle: interlane.Bundle) -> None:
        assert self.account.start_sessions(desk, oracles_bundle(bundle)).status == reference.Status.OK

    def send(self, desk: str, plaintext: bytes) -> Frame:
        row = self.account.encrypt(desk, plaintext)
        assert row.status == reference.Status.OK, row
        return Frame(row.kind, row.data)

    def receive(self, desk: str, row: interlane.Row) -> bytes:
        """The plaintext of what the engine sent; it must open."""
        got = self.account.decrypt(desk, row.kind, row.data)
        assert got.status == reference.Status.OK, (row.kind, got.status)
        return got.data

    def bundle(self) -> interlane.Bundle:
        """A bundle for the engine, with a fresh one-time prekey."""
        made = self.account.prekeys(1).bundles()[0]
        assert made.one_time_prekey is not None
        return interlane.Bundle(
            made.registration_id,
            made.identity,
            interlane.SignedPrekey(
                made.signed_prekey.id, made.signed_prekey.public, made.signed_prekey.signature
            ),
            interlane.Prekey(made.one_time_prekey.id, made.one_time_prekey.public),
        )

    def session(self, desk: str) -> reference.Session:
        session = self.account.peer(desk).current
        assert session is not None
        return session

    def set_session(self, desk: str, session: reference.Session) -> None:
        self.account.peer_records[desk] = replace(self.account.peer(desk), current=session)

    def skip(self, desk: str, messages: int) -> None:
        """As if so many messages had been sent and lost."""
        session = self.session(desk)
        chain = session.sending
        for _ in range(messages):
            chain = chain.next()
        self.set_session(desk, replace(session, sending=chain))

    def mac(self, desk: str, counter: int, body: bytes) -> bytes:
        """The MAC that a SignalMessage of these bytes must have as message `counter` of the sending chain,
        which must not be past it."""
        session = self.session(desk)
        return sealed_with(session, counter).mac_of(session.our_identity, session.their_identity, body)

    def ciphertext(self, desk: str, counter: int, padded: bytes) -> bytes:
        """CBC without padding, under the keys of message `counter`."""
        keys = sealed_with(self.session(desk), counter).keys
        return raw_cbc(keys.cipher, keys.iv, padded)

    def message(self, desk: str, fields: Fields, *, counter: int, version: int = 0x33) -> bytes:
        """A SignalMessage of these fields, with the right MAC for what is written."""
        body = bytes([version]) + write_protobuf(fields)
        return body + self.mac(desk, counter, body)


class Sealed(NamedTuple):
    keys: reference.MessageKeys

    def mac_of(self, sender: bytes, receiver: bytes, body: bytes) -> bytes:
        return reference.hmac_sha256(self.keys.mac, sender + receiver + body)[: reference.MAC_LENGTH]


def sealed_with(session: reference.Session, counter: int) -> Sealed:
    chain = session.sending
    assert chain.index <= counter, "the chain is past this message"
    while chain.index < counter:
        chain = chain.next()
    return Sealed(reference.MessageKeys.of(chain.message_seed))


def raw_cbc(key: bytes, iv: bytes, padded: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(padded) + encryptor.finalize()


def oracles_bundle(bundle: interlane.Bundle) -> reference.Bundle:
    signed, one_time = bundle.signed_prekey, bundle.one_time_prekey
    return reference.Bundle(
        bundle.registration_id,
        bytes(bundle.identity),
        reference.SignedPrekey(signed.id, bytes(signed.public), bytes(signed.signature)),
        None if one_time is None else reference.Prekey(one_time.id, bytes(one_time.public)),
    )


def fields_of(protobuf: bytes) -> Fields:
    return list(read_protobuf(protobuf))


def with_field(fields: Fields, number: int, value: reference.Value | None) -> Fields:
    """The fields with another value for one of them; `None` takes it away."""
    changed = [(n, value if n == number else v) for n, v in fields]
    return [(n, v) for n, v in changed if v is not None]


def envelope(frame: bytes, **changes: reference.Value | None) -> bytes:
    """A PreKeySignalMessage with other fields: `one_time_id`, `base_key`, `identity`, `message`,
    `registration_id`, `signed_id`."""
    numbers = {
        "one_time_id": 1,
        "base_key": 2,
        "identity": 3,
        "message": 4,
        "registration_id": 5,
        "signed_id": 6,
    }
    fields = fields_of(frame[1:])
    for name, value in changes.items():
        fields = with_field(fields, numbers[name], value)
    return frame[:1] + write_protobuf(fields)


class Keys(NamedTuple):
    """All private keys of an account of the engine."""

    identity: KeyPair
    signed: KeyPair
    one_time: KeyPair


def known_account(engine: interlane.Engine, name: str, seed: int = 0, stock: int = 8) -> Keys:
    """Makes an account of known private keys: the signed prekey's id is 5, the first one-time prekey's 9."""
    random = Random(f"{name} {seed}")
    identity, signed, one_time = (KeyPair.of(random.randbytes(32)) for _ in range(3))
    more = [{"id": 10 + i, "private": random.randbytes(32)} for i in range(stock - 1)]
    engine.import_account(
        name,
        identity_private=identity.private,
        registration_id=77,
        signed_prekeys=[{"id": 5, "private": signed.private}],
        one_time_prekeys=[{"id": 9, "private": one_time.private}, *more],
    )
    return Keys(identity, signed, one_time)


def known_bundle(
    engine: interlane.Engine, name: str, keys: Keys, *, one_time: bool = True
) -> interlane.Bundle:
    upload = engine.account(name).prekeys(0)
    prekey = interlane.Prekey(9, keys.one_time.public) if one_time else None
    return interlane.Bundle(upload.registration_id, upload.identity, upload.signed_prekey, prekey)


def first_frame(
    keys: Keys, identity: KeyPair, base_key: bytes, plaintext: bytes, *, one_time: bool = True
) -> bytes:
    """A first frame whose MAC is right for a receiver of these keys that checks nothing: whatever the base
    key is, its shared secrets (all-zero ones too) are those that the receiver computes."""
    ratchet = KeyPair.of(b"r" * 32)
    pairs = [(keys.signed, identity.public), (keys.identity, base_key), (keys.signed, base_key)]
    if one_time:
        pairs.append((keys.one_time, base_key))
    shared = [reference.x25519(pair.private, public[1:]) for pair, public in pairs]
    root, _ = reference.first_root(shared)
    _, chain = reference.root_step(root, reference.x25519(keys.signed.private, ratchet.public[1:]))
    message_keys = reference.MessageKeys.of(chain.message_seed)
    body = b"\x33" + write_protobuf(
        [
            (1, ratchet.public),
            (2, 0),
            (3, 0),
            (4, reference.cbc_encrypt(message_keys.cipher, message_keys.iv, plaintext)),
        ]
    )
    message = body + Sealed(message_keys).mac_of(identity.public, keys.identity.public, body)
    fields: Fields = [(1, 9)] if one_time else []
    fields += [(2, base_key), (3, identity.public), (4, message), (5, 1), (6, 5)]
    return b"\x33" + write_protobuf(fields)


def damaged(random: Random, frame: bytes, others: Sequence[bytes]) -> bytes:
    """One change of any sort to a frame: bits, bytes, lengths, or a part of another frame."""
    data = bytearray(frame)
    match random.randrange(7):
        case 0:
            for _ in range(random.choice([1, 1, 1, 2, 5])):
                data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        case 1:
            del data[random.randrange(len(data)) :]
        case 2:
            at = random.randrange(len(data) + 1)
            data[at:at] = random.randbytes(random.choice([1, 1, 2, 8, 40]))
        case 3:
            at = random.randrange(len(data))
            del data[at : at + random.choice([1, 1, 2, 8, 33])]
        case 4:
            other = random.choice(others)
            data[random.randrange(len(data)) :] = other[random.randrange(len(other)) :]
        case 5:
            other = random.choice(others)
            at, length = random.randrange(len(data)), random.choice([1, 8, 16, 33, 64])
            data[at : at + length] = other[at : at + length]
        case 6:
            at, length = random.randrange(len(data)), random.choice([1, 4, 16])
            data[at : at + length] = random.choice([bytes(length), b"\xff" * length])
    return bytes(data)


def varied(random: Random, frame: bytes, others: Sequence[bytes]) -> Iterator[bytes]:
    """Damaged frames without end, none of which is one of the true ones."""
    true = {frame, *others}
    while True:
        data = damaged(random, frame, others)
        if data not in true:
            yield data
