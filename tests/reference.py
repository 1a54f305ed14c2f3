"""The specification in plain, slow, readable Python: the oracle.

X3DH, XEdDSA, the Double Ratchet, Sesame-like sessions and WhatsApp's sender keys, as the v3 profile has them.
It shares no line with the engine: curve arithmetic is on Python integers, hashes are `hashlib`'s, AES alone
is the `cryptography` package's. It takes one row at a time, in order; the engine must give the same for any
split into batches, any backend and any number of threads.

Two rules keep it honest and short:

- All state of a session, a peer or a sender key is immutable. A row computes new state and assigns it in its
  last lines, so a row that is refused cannot have changed anything.
- Whatever refuses a row raises `Refused` with the row's status.

From the bottom up: curve, hashes, protobuf, frames, chains, sessions, peers, sender keys, `World`.
Not constant time, and not to be used for anything but tests. The curve's operations remember their results,
since random histories repeat each other.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, IntFlag
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

# --- Limits and names ---------------------------------------------------------------------------------------

MAX_FORWARD_JUMP = 2_000
MAX_ARCHIVED_STEPS = 8_000  # of one frame, on all archived sessions together
MAX_SKIPPED_KEYS = 2_000
MAX_RECEIVING_CHAINS = 5
MAX_ARCHIVED_SESSIONS = 40
MAX_SENDER_KEY_STATES = 5
MAX_PLAINTEXT = (1 << 24) - 1_024
MAX_FRAME = 1 << 24
MAX_FIELDS = 64
MAX_KEY_ID = (1 << 24) - 1
LOW_STOCK = 5
MAX_SIGNED_PREKEYS = 64
LAST_COUNTER = (1 << 32) - 1


class Status(IntEnum):
    OK = 0
    NO_SESSION = 1
    DUPLICATE = 2
    TOO_FAR_AHEAD = 3
    INVALID = 4
    UNTRUSTED_IDENTITY = 5
    NO_PREKEY = 6
    NO_SENDER_KEY = 7
    INVALID_BUNDLE = 8
    TOO_LONG = 9
    UNKNOWN_HANDLE = 10
    EXHAUSTED = 11
    REDELIVERED = 12
    BUFFER_FULL = 13


class Event(IntFlag):
    NONE = 0
    NEW_SESSION = 1
    IDENTITY_CHANGED = 2
    PREKEY_CONSUMED = 4
    STOCK_LOW = 8


class Refused(Exception):
    """A row ends here, with this status, and nothing has changed."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


def require(condition: bool, status: Status = Status.INVALID) -> None:
    if not condition:
        raise Refused(status)


# --- Curve25519 as a Montgomery curve: X25519 (RFC 7748) ----------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
A24 = 121665


def inverse(x: int) -> int:
    """1/x mod p, and 0 for 0."""
    return pow(x, P - 2, P)


def clamp(private: bytes) -> int:
    scalar = int.from_bytes(private, "little")
    return (scalar & ~7 & (2**255 - 1)) | 2**254


@lru_cache(1 << 16)
def x25519(private: bytes, u_bytes: bytes) -> bytes:
    """RFC 7748 §5; the top bit of `u_bytes` is ignored, and u need not be reduced."""
    u = (int.from_bytes(u_bytes, "little") & (2**255 - 1)) % P
    scalar = clamp(private)
    x2, z2, x3, z3 = 1, 0, u, 1
    for i in reversed(range(255)):
        bit = scalar >> i & 1
        if bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = (x2 + z2) % P, (x2 - z2) % P, (x3 + z3) % P, (x3 - z3) % P
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + A24 * e) % P
        if bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * inverse(z2) % P).to_bytes(32, "little")


# --- Curve25519 as a twisted Edwards curve, -x² + y² = 1 + dx²y² (RFC 8032 §5.1) ----------------------------

D = -121665 * inverse(121666) % P
SQRT_MINUS_ONE = pow(2, (P - 1) // 4, P)


class Point(NamedTuple):
    """Extended coordinates: x = X/Z, y = Y/Z, T = XY/Z."""

    X: int
    Y: int
    Z: int
    T: int

    def __neg__(self) -> Point:
        return Point(-self.X % P, self.Y, self.Z, -self.T % P)


NEUTRAL = Point(0, 1, 1, 0)


def add(p: Point, q: Point) -> Point:
    """RFC 8032 §5.1.4; complete, so it doubles too."""
    a = (p.Y - p.X) * (q.Y - q.X) % P
    b = (p.Y + p.X) * (q.Y + q.X) % P
    c = 2 * p.T * q.T * D % P
    d = 2 * p.Z * q.Z % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return Point(e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(scalar: int, point: Point) -> Point:
    result = NEUTRAL
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def compress(point: Point) -> bytes:
    x, y = point.X * inverse(point.Z) % P, point.Y * inverse(point.Z) % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def point_with(y: int, sign: int) -> Point | None:
    """The curve's point of this y whose x has this parity; `None` where the curve has none."""
    square = (y * y - 1) * inverse(D * y * y + 1) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * SQRT_MINUS_ONE % P
    if x * x % P != square:
        return None
    if x & 1 != sign:
        x = -x % P
    return Point(x, y, 1, x * y % P)


def edwards_y(u: int) -> int | None:
    """The birational map; u = -1 has no image."""
    return None if (u + 1) % P == 0 else (u - 1) * inverse(u + 1) % P


BASE = point_with(4 * inverse(5) % P, 0)
assert BASE is not None


@lru_cache(1 << 16)
def is_torsion_free(u_bytes: bytes) -> bool:
    """§2's base-key rule: canonical, and a point of the group of prime order (which no u of the twist is)."""
    u = int.from_bytes(u_bytes, "little")
    if u >= P:
        return False
    y = edwards_y(u)
    point = None if y is None else point_with(y, 0)
    if point is None:
        return False
    x, y, z, _ = multiply(L, point)
    return x == 0 and y == z


# --- XEdDSA, as deployed: the sign bit of A travels in the signature's last bit -----------------------------


@lru_cache(1 << 16)
def xeddsa_sign(private: bytes, message: bytes, random: bytes) -> bytes:
    """64 bytes, from 64 random ones."""
    assert BASE is not None
    scalar = clamp(private)
    a = scalar % L
    public = compress(multiply(a, BASE))
    prefix, clamped = b"\xfe" + b"\xff" * 31, scalar.to_bytes(32, "little")
    r = int.from_bytes(hashlib.sha512(prefix + clamped + message + random).digest(), "little") % L
    commitment = compress(multiply(r, BASE))
    h = int.from_bytes(hashlib.sha512(commitment + public + message).digest(), "little") % L
    s = (r + h * a) % L
    sign = public[31] & 0x80
    signature = bytearray(commitment + s.to_bytes(32, "little"))
    signature[63] |= sign
    return bytes(signature)


@lru_cache(1 << 16)
def xeddsa_verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """`public_key` is the u-coordinate, 32 bytes; cofactorless; s is not required to be reduced."""
    assert BASE is not None
    sign = signature[63] >> 7
    commitment, scalar = signature[:32], signature[32:63] + bytes([signature[63] & 0x7F])
    if scalar[31] & 0xE0:
        return False
    y = edwards_y((int.from_bytes(public_key, "little") & (2**255 - 1)) % P)
    point = None if y is None else point_with(y, sign)
    if y is None or point is None:
        return False
    encoded = (y | sign << 255).to_bytes(32, "little")
    h = int.from_bytes(hashlib.sha512(commitment + encoded + message).digest(), "little") % L
    s = int.from_bytes(scalar, "little")
    return compress(add(multiply(s, BASE), multiply(h, -point))) == commitment


# --- Keys on the wire ---------------------------------------------------------------------------------------

PublicKey = bytes  # 0x05 ‖ u-coordinate, 33 bytes

KEY_TYPE = b"\x05"


def is_public_key(wire: bytes) -> bool:
    return len(wire) == 33 and wire[:1] == KEY_TYPE


@dataclass(frozen=True)
class KeyPair:
    private: bytes
    public: PublicKey

    @classmethod
    def of(cls, private: bytes) -> KeyPair:
        return cls(private, KEY_TYPE + x25519(private, (9).to_bytes(32, "little")))

    def agree(self, their: PublicKey) -> bytes:
        """Diffie-Hellman; an all-zero shared secret is refused."""
        secret = x25519(self.private, their[1:])
        require(secret != bytes(32))
        return secret

    def sign(self, message: bytes, random: bytes) -> bytes:
        return xeddsa_sign(self.private, message, random)


def verify(public: PublicKey, message: bytes, signature: bytes) -> bool:
    return xeddsa_verify(public[1:], message, signature)


# --- Hashes and the cipher ----------------------------------------------------------------------------------


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def hkdf(ikm: bytes, info: bytes, length: int, salt: bytes = bytes(32)) -> bytes:
    """RFC 5869 with SHA-256; no salt is a salt of zeros."""
    key = hmac_sha256(salt, ikm)
    output, block = b"", b""
    for i in range(1, -(-length // 32) + 1):
        block = hmac_sha256(key, block + info + bytes([i]))
        output += block
    return output[:length]


def cbc_encrypt(key: bytes, iv: bytes, plaintext: bytes) -> bytes:
    """AES-256-CBC with PKCS#7."""
    count = 16 - len(plaintext) % 16
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(plaintext + bytes([count]) * count) + encryptor.finalize()


def cbc_decrypt(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    require(len(ciphertext) > 0 and len(ciphertext) % 16 == 0)
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    return strip_padding(decryptor.update(ciphertext) + decryptor.finalize())


def strip_padding(padded: bytes) -> bytes:
    """Removes 1 to 16 bytes that each equal their count: PKCS#7's and the message padding's rule alike."""
    require(len(padded) > 0)
    count = padded[-1]
    require(1 <= count <= 16 and padded.endswith(bytes([count]) * count))
    return padded[:-count]


# --- Protobuf (proto2), as much as the frames use -----------------------------------------------------------

Value = int | bytes
Fields = list[tuple[int, Value]]


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_protobuf(fields: Fields) -> bytes:
    """In the order given, minimal varints."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, length: int) -> bytes:
        require(length <= len(self.data) - self.at)
        self.at += length
        return self.data[self.at - length : self.at]

    def varint(self) -> int:
        """Of ten bytes at most; what is beyond 64 bits is lost."""
        value = 0
        for i in range(10):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                return value & (2**64 - 1)
        raise Refused(Status.INVALID)


def read_protobuf(data: bytes) -> Iterator[tuple[int, Value]]:
    """Varint and length-delimited fields in order; fixed-width ones are stepped over, groups refused."""
    reader = _Reader(data)
    count = 0
    while reader.at < len(data):
        count += 1
        require(count <= MAX_FIELDS)
        tag = reader.varint()
        number, wire_type = tag >> 3, tag & 7
        require(1 <= number < 1 << 29)
        if wire_type == 0:
            yield number, reader.varint()
        elif wire_type == 1:
            reader.take(8)
        elif wire_type == 2:
            yield number, reader.take(reader.varint())
        elif wire_type == 5:
            reader.take(4)
        else:
            raise Refused(Status.INVALID)


@dataclass(frozen=True)
class Shape:
    """What a field must look like."""

    kind: type
    length: int | None = None
    start: bytes = b""

    def read(self, value: Value) -> Value:
        if isinstance(value, int):
            return value & 0xFFFF_FFFF  # a u32; protobuf drops the upper half of a wider number
        require(self.length in (None, len(value)) and value.startswith(self.start))
        return value


def read_fields(data: bytes, shapes: dict[int, Shape]) -> dict[int, Value]:
    """The known fields, of which the last of each number counts but every one must have its shape.

    Unknown fields, and known numbers of another wire type, are ignored.
    """
    found: dict[int, Value] = {}
    for number, value in read_protobuf(data):
        shape = shapes.get(number)
        if shape is not None and isinstance(value, shape.kind):
            found[number] = shape.read(value)
    return found


U32 = Shape(int)
BYTES = Shape(bytes)
PUBLIC_KEY = Shape(bytes, length=33, start=KEY_TYPE)
CHAIN_KEY = Shape(bytes, length=32)


def number_of(fields: dict[int, Value], number: int) -> int:
    value = fields.get(number)
    if not isinstance(value, int):
        raise Refused(Status.INVALID)
    return value


def bytes_of(fields: dict[int, Value], number: int) -> bytes:
    value = fields.get(number)
    if not isinstance(value, bytes):
        raise Refused(Status.INVALID)
    return value


# --- Frames (§5) --------------------------------------------------------------------------------------------

VERSION = 0x33
MAC_LENGTH = 8
SIGNATURE_LENGTH = 64


class Spelling:
    """How a sender writes frames: ours here. Tests write other lawful spellings, which must be accepted."""

    version: int = VERSION

    def write(self, fields: Fields) -> bytes:
        """The version byte and the fields."""
        return bytes([self.version]) + write_protobuf(fields)


OUR_SPELLING = Spelling()


def split_version(frame: bytes) -> bytes:
    """What follows a version byte that we know: 3 under any newest version from 3 on."""
    require(1 <= len(frame) <= MAX_FRAME)
    require(frame[0] >> 4 == 3 and frame[0] & 0x0F >= 3)
    return frame[1:]


@dataclass(frozen=True)
class SignalMessage:
    """`previous_counter` is not kept: older chains are, instead of it."""

    ratchet_key: PublicKey
    counter: int
    ciphertext: bytes
    authenticated: bytes
    mac: bytes

    @classmethod
    def parse(cls, frame: bytes) -> SignalMessage:
        require(MAC_LENGTH < len(frame) <= MAX_FRAME)
        authenticated, mac = frame[:-MAC_LENGTH], frame[-MAC_LENGTH:]
        fields = read_fields(split_version(authenticated), {1: PUBLIC_KEY, 2: U32, 4: BYTES})
        return cls(bytes_of(fields, 1), number_of(fields, 2), bytes_of(fields, 4), authenticated, mac)


@dataclass(frozen=True)
class PreKeySignalMessage:
    one_time_id: int | None
    base_key: PublicKey
    identity: PublicKey
    message: SignalMessage
    registration_id: int
    signed_id: int

    @classmethod
    def parse(cls, frame: bytes) -> PreKeySignalMessage:
        shapes = {1: U32, 2: PUBLIC_KEY, 3: PUBLIC_KEY, 4: BYTES, 5: U32, 6: U32}
        fields = read_fields(split_version(frame), shapes)
        return cls(
            one_time_id=(number_of(fields, 1) or None) if 1 in fields else None,
            base_key=bytes_of(fields, 2),
            identity=bytes_of(fields, 3),
            message=SignalMessage.parse(bytes_of(fields, 4)),
            registration_id=number_of(fields, 5) if 5 in fields else 0,
            signed_id=number_of(fields, 6),
        )


@dataclass(frozen=True)
class SenderKeyMessage:
    id: int
    iteration: int
    ciphertext: bytes
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, frame: bytes) -> SenderKeyMessage:
        require(SIGNATURE_LENGTH < len(frame) <= MAX_FRAME)
        signed, signature = frame[:-SIGNATURE_LENGTH], frame[-SIGNATURE_LENGTH:]
        fields = read_fields(split_version(signed), {1: U32, 2: U32, 3: BYTES})
        return cls(number_of(fields, 1), number_of(fields, 2), bytes_of(fields, 3), signed, signature)


@dataclass(frozen=True)
class SenderKeyDistributionMessage:
    id: int
    iteration: int
    chain_key: bytes
    signing_key: PublicKey

    @classmethod
    def parse(cls, frame: bytes) -> SenderKeyDistributionMessage:
        fields = read_fields(split_version(frame), {1: U32, 2: U32, 3: CHAIN_KEY, 4: PUBLIC_KEY})
        return cls(number_of(fields, 1), number_of(fields, 2), bytes_of(fields, 3), bytes_of(fields, 4))


# --- Chains (§4) --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChainKey:
    """A symmetric ratchet that stands before message `index`."""

    key: bytes
    index: int = 0

    @property
    def message_seed(self) -> bytes:
        return hmac_sha256(self.key, b"\x01")

    def next(self) -> ChainKey:
        return ChainKey(hmac_sha256(self.key, b"\x02"), self.index + 1)


@dataclass(frozen=True)
class ReceivingChain:
    """A chain with the seeds that were jumped over, oldest first."""

    chain: ChainKey
    skipped: tuple[tuple[int, bytes], ...] = ()

    def seed_of(self, counter: int) -> tuple[bytes, ReceivingChain]:
        """The seed of message `counter`, and the chain after its use."""
        if counter < self.chain.index:
            seed = dict(self.skipped).get(counter)
            if seed is None:
                raise Refused(Status.DUPLICATE)
            kept = tuple(item for item in self.skipped if item[0] != counter)
            return seed, replace(self, skipped=kept)
        require(counter - self.chain.index <= MAX_FORWARD_JUMP, Status.TOO_FAR_AHEAD)
        chain, skipped = self.chain, list(self.skipped)
        while chain.index < counter:
            skipped.append((chain.index, chain.message_seed))
            chain = chain.next()
        return chain.message_seed, ReceivingChain(chain.next(), tuple(skipped[-MAX_SKIPPED_KEYS:]))


@dataclass(frozen=True)
class MessageKeys:
    cipher: bytes
    mac: bytes
    iv: bytes

    @classmethod
    def of(cls, seed: bytes) -> MessageKeys:
        keys = hkdf(seed, b"WhisperMessageKeys", 80)
        return cls(keys[:32], keys[32:64], keys[64:])


def root_step(root_key: bytes, shared: bytes) -> tuple[bytes, ChainKey]:
    output = hkdf(shared, b"WhisperRatchet", 64, salt=root_key)
    return output[:32], ChainKey(output[32:])


def first_root(shared: Sequence[bytes]) -> tuple[bytes, ChainKey]:
    """X3DH §2.2, from DH1, DH2, DH3 and, with a one-time prekey, DH4."""
    output = hkdf(b"\xff" * 32 + b"".join(shared), b"WhisperText", 64)
    return output[:32], ChainKey(output[32:])


# --- Randomness ---------------------------------------------------------------------------------------------

Draw = Callable[[int], bytes]

RATCHET_KEY, BASE_KEY, PRIVATE_KEY = 0, 1, 2
SIGNATURE, SIGNATURE_MORE = 3, 4
SENDER_CHAIN, SENDER_SIGNING = 5, 6
NUMBER, PADDING = 7, 8


class Randomness:
    """Rows are numbered over an engine's life; a row draws 32 bytes for each purpose."""

    def __init__(self, seed: bytes) -> None:
        assert len(seed) == 32
        self.seed = seed
        self.rows = 0

    def row(self) -> Draw:
        """The next row's randomness. Taken for every row of a call that may draw, whether it draws or not."""
        number = self.rows.to_bytes(8, "little")
        self.rows += 1
        return lambda purpose: hmac_sha256(self.seed, number + bytes([purpose]))


def signature_randomness(draw: Draw) -> bytes:
    return draw(SIGNATURE) + draw(SIGNATURE_MORE)


def small_number(draw: Draw) -> int:
    return int.from_bytes(draw(NUMBER)[:4], "little")


# --- A session: the Double Ratchet --------------------------------------------------------------------------


@dataclass(frozen=True)
class Pending:
    """What an initiator repeats in every frame until the first answer was opened."""

    one_time_id: int | None
    signed_id: int


@dataclass(frozen=True)
class Session:
    base_key: PublicKey
    our_identity: PublicKey
    their_identity: PublicKey
    root_key: bytes
    ratchet: KeyPair
    sending: ChainKey
    receiving: tuple[tuple[PublicKey, ReceivingChain], ...] = ()  # by ratchet key, newest first
    previous_counter: int = 0
    pending: Pending | None = None

    @classmethod
    def initiate(cls, identity: KeyPair, bundle: Bundle, draw: Draw) -> Session:
        base, prekey, one_time = KeyPair.of(draw(BASE_KEY)), bundle.signed_prekey, bundle.usable_one_time
        shared = [
            identity.agree(prekey.public),
            base.agree(bundle.identity),
            base.agree(prekey.public),
        ]
        if one_time is not None:
            shared.append(base.agree(one_time.public))
        root_key, first_chain = first_root(shared)
        ratchet = KeyPair.of(draw(RATCHET_KEY))
        root_key, sending = root_step(root_key, ratchet.agree(prekey.public))
        return cls(
            base_key=base.public,
            our_identity=identity.public,
            their_identity=bundle.identity,
            root_key=root_key,
            ratchet=ratchet,
            sending=sending,
            receiving=((prekey.public, ReceivingChain(first_chain)),),
            pending=Pending(None if one_time is None else one_time.id, prekey.id),
        )

    @classmethod
    def respond(
        cls, identity: KeyPair, signed: KeyPair, one_time: KeyPair | None, frame: PreKeySignalMessage
    ) -> Session:
        shared = [
            signed.agree(frame.identity),
            identity.agree(frame.base_key),
            signed.agree(frame.base_key),
        ]
        if one_time is not None:
            shared.append(one_time.agree(frame.base_key))
        root_key, first_chain = first_root(shared)
        return cls(
            base_key=frame.base_key,
            our_identity=identity.public,
            their_identity=frame.identity,
            root_key=root_key,
            ratchet=signed,
            sending=first_chain,
        )

    def encrypt(self, plaintext: bytes, spelling: Spelling = OUR_SPELLING) -> tuple[bytes, Session]:
        """A whole SignalMessage, and the session after it."""
        require(self.sending.index < LAST_COUNTER, Status.EXHAUSTED)
        keys = MessageKeys.of(self.sending.message_seed)
        body = spelling.write(
            [
                (1, self.ratchet.public),
                (2, self.sending.index),
                (3, self.previous_counter),
                (4, cbc_encrypt(keys.cipher, keys.iv, plaintext)),
            ]
        )
        mac = hmac_sha256(keys.mac, self.our_identity + self.their_identity + body)[:MAC_LENGTH]
        return body + mac, replace(self, sending=self.sending.next())

    def decrypt(self, message: SignalMessage, draw: Draw) -> tuple[bytes, Session]:
        """The plaintext, and the session after it; any success ends `pending`."""
        chains = dict(self.receiving)
        known = chains.get(message.ratchet_key)
        if known is None:  # before any agreement: what is refused anyway must not cost one
            require(message.counter <= MAX_FORWARD_JUMP, Status.TOO_FAR_AHEAD)
        advanced = self if known is not None else self.turn(message.ratchet_key, draw)
        seed, chain = dict(advanced.receiving)[message.ratchet_key].seed_of(message.counter)
        plaintext = self._open(message, MessageKeys.of(seed))
        receiving = tuple(
            (key, chain if key == message.ratchet_key else other) for key, other in advanced.receiving
        )
        return plaintext, replace(advanced, receiving=receiving, pending=None)

    def steps_to(self, message: SignalMessage) -> int:
        """How many messages it would jump over; refuses what `decrypt` refuses before any cryptography."""
        known = dict(self.receiving).get(message.ratchet_key)
        if known is not None and message.counter < known.chain.index:
            require(message.counter in dict(known.skipped), Status.DUPLICATE)
            return 0
        steps = message.counter - (0 if known is None else known.chain.index)
        require(steps <= MAX_FORWARD_JUMP, Status.TOO_FAR_AHEAD)
        return steps

    def turn(self, their_ratchet: PublicKey, draw: Draw) -> Session:
        """Both halves of a Diffie-Hellman ratchet step."""
        root_key, receiving = root_step(self.root_key, self.ratchet.agree(their_ratchet))
        ratchet = KeyPair.of(draw(RATCHET_KEY))
        root_key, sending = root_step(root_key, ratchet.agree(their_ratchet))
        chains = ((their_ratchet, ReceivingChain(receiving)), *self.receiving)
        return replace(
            self,
            root_key=root_key,
            ratchet=ratchet,
            sending=sending,
            receiving=chains[:MAX_RECEIVING_CHAINS],
            previous_counter=max(self.sending.index - 1, 0),
        )

    def _open(self, message: SignalMessage, keys: MessageKeys) -> bytes:
        associated = self.their_identity + self.our_identity
        mac = hmac_sha256(keys.mac, associated + message.authenticated)[:MAC_LENGTH]
        require(mac == message.mac)
        return cbc_decrypt(keys.cipher, keys.iv, message.ciphertext)


# --- A peer device: its identity and sessions (Sesame, §8) --------------------------------------------------


@dataclass(frozen=True)
class Peer:
    identity: PublicKey | None = None
    current: Session | None = None
    archived: tuple[Session, ...] = ()  # newest first

    @property
    def sessions(self) -> tuple[Session, ...]:
        return () if self.current is None else (self.current, *self.archived)

    def begin(self, session: Session) -> Peer:
        """`session` becomes current; the former current one is archived."""
        former = self.sessions
        return replace(self, current=session, archived=former[:MAX_ARCHIVED_SESSIONS])

    def advance(self, at: int, session: Session) -> Peer:
        """`session` takes the place of session `at` and becomes current, if it is not."""
        others = self.sessions[:at] + self.sessions[at + 1 :]
        return replace(self, current=session, archived=others)


# --- Prekeys ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prekey:
    id: int
    public: PublicKey


@dataclass(frozen=True)
class SignedPrekey:
    id: int
    public: PublicKey
    signature: bytes


@dataclass(frozen=True)
class Bundle:
    """A peer's prekeys as a server hands them out; nothing of it is checked yet."""

    registration_id: int
    identity: PublicKey
    signed_prekey: SignedPrekey
    one_time_prekey: Prekey | None = None
    device_id: int = 1

    @property
    def usable_one_time(self) -> Prekey | None:
        """Id 0 means different things to different peers: it is ignored."""
        prekey = self.one_time_prekey
        return None if prekey is None or prekey.id == 0 else prekey

    def check(self) -> None:
        """Shapes, then the signature. INVALID_BUNDLE."""
        signed, one_time = self.signed_prekey, self.usable_one_time
        good = (
            is_public_key(self.identity)
            and is_public_key(signed.public)
            and 0 < signed.id <= MAX_KEY_ID
            and len(signed.signature) == SIGNATURE_LENGTH
            and (one_time is None or (is_public_key(one_time.public) and one_time.id <= MAX_KEY_ID))
        )
        require(good, Status.INVALID_BUNDLE)
        require(verify(self.identity, signed.public, signed.signature), Status.INVALID_BUNDLE)


@dataclass(frozen=True)
class Upload:
    """What the chat server is to be given."""

    registration_id: int
    identity: PublicKey
    signed_prekey: SignedPrekey
    one_time_prekeys: list[Prekey]

    def bundles(self) -> list[Bundle]:
        return [replace(self.bundle(), one_time_prekey=prekey) for prekey in self.one_time_prekeys]

    def bundle(self) -> Bundle:
        return Bundle(self.registration_id, self.identity, self.signed_prekey)


# --- Sender keys (§6) ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OwnSenderKey:
    id: int
    chain: ChainKey
    signing: KeyPair

    @classmethod
    def make(cls, draw: Draw) -> OwnSenderKey:
        signing = KeyPair.of(draw(SENDER_SIGNING))
        return cls(small_number(draw) & 0x7FFF_FFFF, ChainKey(draw(SENDER_CHAIN)), signing)

    def distribution(self, spelling: Spelling = OUR_SPELLING) -> bytes:
        chain = self.chain
        return spelling.write([(1, self.id), (2, chain.index), (3, chain.key), (4, self.signing.public)])

    def encrypt(
        self, plaintext: bytes, random: bytes, spelling: Spelling = OUR_SPELLING
    ) -> tuple[bytes, OwnSenderKey]:
        """A whole SenderKeyMessage, signed with 64 random bytes, and the sender key after it."""
        require(self.chain.index < LAST_COUNTER, Status.EXHAUSTED)
        iv, cipher = group_keys(self.chain.message_seed)
        ciphertext = cbc_encrypt(cipher, iv, plaintext)
        signed = spelling.write([(1, self.id), (2, self.chain.index), (3, ciphertext)])
        return signed + self.signing.sign(signed, random), replace(self, chain=self.chain.next())


@dataclass(frozen=True)
class SenderKeyState:
    id: int
    signing_key: PublicKey
    chain: ReceivingChain

    def decrypt(self, message: SenderKeyMessage) -> tuple[bytes, SenderKeyState]:
        """The signature comes before the chain."""
        require(verify(self.signing_key, message.signed, message.signature))
        seed, chain = self.chain.seed_of(message.iteration)
        iv, cipher = group_keys(seed)
        return cbc_decrypt(cipher, iv, message.ciphertext), replace(self, chain=chain)


@dataclass(frozen=True)
class SenderKeyRecord:
    """One sender's keys in one group, newest first."""

    states: tuple[SenderKeyState, ...] = ()

    def accept(self, message: SenderKeyDistributionMessage) -> SenderKeyRecord:
        others = []
        for state in self.states:
            if state.id != message.id:
                others.append(state)
            elif state.signing_key == message.signing_key:
                return self  # a reset would lose late frames
        chain = ReceivingChain(ChainKey(message.chain_key, message.iteration))
        state = SenderKeyState(message.id, message.signing_key, chain)
        return SenderKeyRecord((state, *others)[:MAX_SENDER_KEY_STATES])

    def decrypt(self, message: SenderKeyMessage) -> tuple[bytes, SenderKeyRecord]:
        for at, state in enumerate(self.states):
            if state.id == message.id:
                plaintext, advanced = state.decrypt(message)
                return plaintext, SenderKeyRecord((*self.states[:at], advanced, *self.states[at + 1 :]))
        raise Refused(Status.NO_SENDER_KEY)


def group_keys(seed: bytes) -> tuple[bytes, bytes]:
    """IV and cipher key: here the IV is first."""
    keys = hkdf(seed, b"WhisperGroup", 48)
    return keys[:16], keys[16:]


# --- The account world --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A row's result. One that was refused has no bytes, no kind and no events."""

    status: Status
    kind: str = "none"
    data: bytes = b""
    events: Event = Event.NONE


Arrival: TypeAlias = tuple[str, str, str, bytes]
"""What the receive buffer knows a frame by: its kind, its group or "", its sender, itself."""


@dataclass(frozen=True)
class PeerInfo:
    identity: PublicKey | None
    session: bool
    pending: bool
    archived: int


@dataclass(frozen=True)
class AccountInfo:
    """What can be observed of an account: two engines in the same state agree on it."""

    identity: PublicKey
    registration_id: int
    stock: int
    peers: dict[str, PeerInfo]


class World:
    """An engine with all its accounts. `seed` fixes the randomness, `spelling` is how frames are written."""

    def __init__(
        self,
        seed: bytes,
        refuse_identity_changes: bool = False,
        padding: bool = False,
        spelling: Spelling = OUR_SPELLING,
        receive_buffer: bool = False,
    ) -> None:
        self.randomness = Randomness(seed)
        self.receive_buffer = receive_buffer
        self.refuse_identity_changes = refuse_identity_changes
        self.padding = padding
        self.spelling = spelling
        self._accounts: dict[str, Account] = {}

    def reopen(self, seed: bytes) -> None:
        """The engine was closed and opened again: rows are numbered from 0, under another seed."""
        self.randomness = Randomness(seed)

    def account(self, name: str, *, create: bool = False) -> Account:
        if create and name not in self._accounts:
            draw = self.randomness.row()
            identity = KeyPair.of(draw(PRIVATE_KEY))
            self._accounts[name] = Account(self, identity, 1 + small_number(draw) % 16_380)
        return self._accounts[name]

    def import_account(
        self,
        name: str,
        *,
        identity_private: bytes,
        registration_id: int,
        signed_prekeys: Sequence[tuple[int, bytes, bytes]],
        one_time_prekeys: Sequence[tuple[int, bytes]] = (),
    ) -> Account:
        """`signed_prekeys` are (id, private, signature), newest last; `one_time_prekeys` (id, private)."""
        account = Account(self, KeyPair.of(identity_private), registration_id)
        for id_, private, signature in signed_prekeys:
            account.signed[id_] = (KeyPair.of(private), signature)
        account.one_time = {id_: KeyPair.of(private) for id_, private in one_time_prekeys}
        account.next_signed_id = 1 + max(account.signed, default=0)
        account.next_one_time_id = 1 + max(account.one_time, default=0)
        self._accounts[name] = account
        return account

    def accounts(self) -> list[str]:
        return sorted(self._accounts)

    def delete_account(self, name: str) -> None:
        del self._accounts[name]

    def unknown_handle(self, call: str) -> Row:
        """A row whose handle the engine never gave out, in a call of this name."""
        drawing = ["start_sessions", "decrypt", "group_distribute", "group_encrypt"]
        if call in drawing or (call == "encrypt" and self.padding):
            self.randomness.row()
        return Row(Status.UNKNOWN_HANDLE)

    def state(self) -> dict[str, AccountInfo]:
        return {name: account.state() for name, account in self._accounts.items()}

    def digest(self) -> str:
        """One line for the whole observable state."""
        return hashlib.sha256(repr(sorted(self.state().items())).encode()).hexdigest()

    def pad(self, plaintext: bytes, draw: Draw | None) -> bytes:
        """Message padding (§9): 1 to 15 bytes, a random nibble, 0 standing for 15."""
        if draw is None or not self.padding:
            return plaintext
        count = (draw(PADDING)[0] & 0x0F) or 15
        return plaintext + bytes([count]) * count

    def unpad(self, plaintext: bytes) -> bytes:
        return strip_padding(plaintext) if self.padding else plaintext


@dataclass
class Account:
    world: World
    identity_pair: KeyPair
    registration_id: int
    signed: dict[int, tuple[KeyPair, bytes]] = field(default_factory=dict)  # pair and signature, newest last
    one_time: dict[int, KeyPair] = field(default_factory=dict)
    next_signed_id: int = 1
    next_one_time_id: int = 1
    peer_records: dict[str, Peer] = field(default_factory=dict)
    own_sender_keys: dict[str, OwnSenderKey] = field(default_factory=dict)
    sender_keys: dict[tuple[str, str], SenderKeyRecord] = field(default_factory=dict)
    buffer: dict[Arrival, Row] = field(default_factory=dict)  # opened, and not acknowledged

    @property
    def identity(self) -> PublicKey:
        return self.identity_pair.public

    @property
    def stock(self) -> int:
        return len(self.one_time)

    def peer(self, address: str) -> Peer:
        return self.peer_records.get(address, Peer())

    def state(self) -> AccountInfo:
        return AccountInfo(self.identity, self.registration_id, self.stock, self.peers())

    def peers(self) -> dict[str, PeerInfo]:
        """Every peer of which anything is known."""
        return {
            address: PeerInfo(
                identity=peer.identity,
                session=peer.current is not None,
                pending=peer.current is not None and peer.current.pending is not None,
                archived=len(peer.archived),
            )
            for address, peer in sorted(self.peer_records.items())
            if peer != Peer()
        }

    # Prekeys.

    def prekeys(self, one_time: int = 812, *, rotate: bool = False) -> Upload:
        if rotate or not self.signed:
            draw = self.world.randomness.row()
            pair = KeyPair.of(draw(PRIVATE_KEY))
            signature = self.identity_pair.sign(pair.public, signature_randomness(draw))
            self.signed[self.next_signed_id] = (pair, signature)
            self.next_signed_id += 1
            if len(self.signed) > MAX_SIGNED_PREKEYS:
                del self.signed[min(self.signed)]
        fresh = []
        for _ in range(one_time):
            pair = KeyPair.of(self.world.randomness.row()(PRIVATE_KEY))
            self.one_time[self.next_one_time_id] = pair
            fresh.append(Prekey(self.next_one_time_id, pair.public))
            self.next_one_time_id += 1
        newest, (pair, signature) = list(self.signed.items())[-1]
        signed = SignedPrekey(newest, pair.public, signature)
        return Upload(self.registration_id, self.identity, signed, fresh)

    # Pairwise.

    def start_sessions(self, peer: str, bundle: Bundle) -> Row:
        draw = self.world.randomness.row()
        try:
            return self._start(peer, bundle, draw)
        except Refused as refused:
            return Row(refused.status)

    def _start(self, address: str, bundle: Bundle, draw: Draw) -> Row:
        peer = self.peer(address)
        bundle.check()
        events = Event.NEW_SESSION | self._judge_identity(peer, bundle.identity)
        try:
            session = Session.initiate(self.identity_pair, bundle, draw)
        except Refused:
            raise Refused(Status.INVALID_BUNDLE) from None
        self.peer_records[address] = replace(peer.begin(session), identity=bundle.identity)
        return Row(Status.OK, events=events)

    def _judge_identity(self, peer: Peer, identity: PublicKey) -> Event:
        """Trust on first use."""
        if peer.identity is None or peer.identity == identity:
            return Event.NONE
        require(not self.world.refuse_identity_changes, Status.UNTRUSTED_IDENTITY)
        return Event.IDENTITY_CHANGED

    def encrypt(self, peer: str, plaintext: bytes) -> Row:
        draw = self.world.randomness.row() if self.world.padding else None
        try:
            return self._encrypt(peer, plaintext, draw)
        except Refused as refused:
            return Row(refused.status)

    def _encrypt(self, address: str, plaintext: bytes, draw: Draw | None) -> Row:
        peer, spelling = self.peer(address), self.world.spelling
        if peer.current is None:
            raise Refused(Status.NO_SESSION)
        require(len(plaintext) <= MAX_PLAINTEXT, Status.TOO_LONG)
        frame, session = peer.current.encrypt(self.world.pad(plaintext, draw), spelling)
        kind, pending = "msg", session.pending
        if pending is not None:
            kind = "pkmsg"
            fields: Fields = [] if pending.one_time_id is None else [(1, pending.one_time_id)]
            fields += [
                (2, session.base_key),
                (3, self.identity),
                (4, frame),
                (5, self.registration_id),
                (6, pending.signed_id),
            ]
            frame = spelling.write(fields)
        self.peer_records[address] = replace(peer, current=session)
        return Row(Status.OK, kind, frame)

    def decrypt(self, peer: str, kind: str, frame: bytes) -> Row:
        draw = self.world.randomness.row()

        def opened() -> Row:
            if kind == "msg":
                return self._decrypt(peer, SignalMessage.parse(frame), draw)
            if kind == "pkmsg":
                return self._decrypt_first(peer, PreKeySignalMessage.parse(frame), draw)
            raise ValueError(f"no pairwise kind: {kind}")

        return self.receive((kind, "", peer, frame), opened)

    def receive(self, arrival: Arrival, opened: Callable[[], Row]) -> Row:
        """A frame that is in the receive buffer gives what it gave before; another one is opened."""
        if (kept := self.buffer.get(arrival)) is not None:
            return replace(kept, status=Status.REDELIVERED)
        try:
            row = opened()
        except Refused as refused:
            return Row(refused.status)
        if self.world.receive_buffer:
            self.buffer[arrival] = replace(row, events=row.events & ~Event.STOCK_LOW)
        return row

    def acknowledge(self, arrival: Arrival) -> None:
        self.buffer.pop(arrival, None)

    def _decrypt(self, address: str, message: SignalMessage, draw: Draw) -> Row:
        peer = self.peer(address)
        require(peer.current is not None, Status.NO_SESSION)
        verdict = Status.INVALID
        steps_left = MAX_ARCHIVED_STEPS
        for at, session in enumerate(peer.sessions):
            try:
                if at > 0:
                    steps = session.steps_to(message)
                    require(steps <= steps_left, Status.TOO_FAR_AHEAD)
                    steps_left -= steps
                plaintext, advanced = self._open(session, message, draw)
            except Refused as refused:
                if refused.status == Status.DUPLICATE:
                    raise
                if verdict == Status.INVALID:
                    verdict = refused.status
                continue
            self.peer_records[address] = peer.advance(at, advanced)
            return Row(Status.OK, "msg", plaintext)
        raise Refused(verdict)

    def _open(self, session: Session, message: SignalMessage, draw: Draw) -> tuple[bytes, Session]:
        plaintext, advanced = session.decrypt(message, draw)
        return self.world.unpad(plaintext), advanced

    def _decrypt_first(self, address: str, frame: PreKeySignalMessage, draw: Draw) -> Row:
        peer = self.peer(address)
        for at, session in enumerate(peer.sessions):
            if session.base_key == frame.base_key:
                require(session.their_identity == frame.identity)
                plaintext, advanced = self._open(session, frame.message, draw)
                self.peer_records[address] = peer.advance(at, advanced)
                return Row(Status.OK, "pkmsg", plaintext)

        require(is_torsion_free(frame.base_key[1:]))
        require(frame.signed_id in self.signed, Status.NO_PREKEY)
        signed, _ = self.signed[frame.signed_id]
        one_time = None
        if frame.one_time_id is not None:
            require(frame.one_time_id in self.one_time, Status.NO_PREKEY)
            one_time = self.one_time[frame.one_time_id]
        fresh = Session.respond(self.identity_pair, signed, one_time, frame)
        plaintext, session = self._open(fresh, frame.message, draw)
        events = Event.NEW_SESSION | self._judge_identity(peer, frame.identity)

        self.peer_records[address] = replace(peer.begin(session), identity=frame.identity)
        if frame.one_time_id is not None:
            del self.one_time[frame.one_time_id]
            events |= Event.PREKEY_CONSUMED
            if self.stock < LOW_STOCK:
                events |= Event.STOCK_LOW
        return Row(Status.OK, "pkmsg", plaintext, events)

    def trust(self, peer: str, identity: PublicKey) -> Row:
        """The operator's decision on a changed identity; a malformed one is the caller's fault, no row's."""
        if not is_public_key(identity):
            raise ValueError("identities are 33 bytes that begin with 5")
        self.peer_records[peer] = replace(self.peer(peer), identity=identity)
        return Row(Status.OK)

    def forget(self, peer: str) -> Row:
        """Drops the sessions, not the trusted identity."""
        self.peer_records[peer] = Peer(identity=self.peer(peer).identity)
        return Row(Status.OK)

    def group(self, group_id: str) -> Group:
        return Group(self, group_id)


@dataclass(frozen=True)
class Group:
    """An account's part in one group: its own sender key, and those of the others."""

    account: Account
    id: str

    def distribute(self) -> Row:
        draw = self.account.world.randomness.row()
        own = self.account.own_sender_keys
        if self.id not in own:
            own[self.id] = OwnSenderKey.make(draw)
        return Row(Status.OK, "skdm", own[self.id].distribution(self.account.world.spelling))

    def rotate(self) -> Row:
        """Drops our sender key; the next distribution makes another."""
        self.account.own_sender_keys.pop(self.id, None)
        return Row(Status.OK)

    def accept(self, sender: str, frame: bytes) -> Row:
        records, place = self.account.sender_keys, (self.id, sender)
        try:
            message = SenderKeyDistributionMessage.parse(frame)
        except Refused as refused:
            return Row(refused.status)
        records[place] = records.get(place, SenderKeyRecord()).accept(message)
        return Row(Status.OK)

    def encrypt(self, plaintext: bytes) -> Row:
        world, own = self.account.world, self.account.own_sender_keys
        draw = world.randomness.row()
        try:
            require(self.id in own, Status.NO_SENDER_KEY)
            require(len(plaintext) <= MAX_PLAINTEXT, Status.TOO_LONG)
            padded = world.pad(plaintext, draw)
            frame, own[self.id] = own[self.id].encrypt(padded, signature_randomness(draw), world.spelling)
        except Refused as refused:
            return Row(refused.status)
        return Row(Status.OK, "skmsg", frame)

    def decrypt(self, sender: str, frame: bytes) -> Row:
        records, place = self.account.sender_keys, (self.id, sender)

        def opened() -> Row:
            plaintext, record = records.get(place, SenderKeyRecord()).decrypt(SenderKeyMessage.parse(frame))
            plaintext = self.account.world.unpad(plaintext)
            records[place] = record
            return Row(Status.OK, "skmsg", plaintext)

        return self.account.receive(("skmsg", self.id, sender, frame), opened)
