"""Faults that were measured in deployed implementations, one test a fault: none of them is the engine's.

A test's peer is the oracle's account with its keys laid open, so that what it writes is wrong in one place
and right in every other: a frame that is to be refused has the MAC or the signature that an engine without
the check would take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import interlane
import pytest
import reference
from forged import (
    Forger,
    Frame,
    Keys,
    envelope,
    fields_of,
    first_frame,
    known_account,
    known_bundle,
    raw_cbc,
    varied,
    with_field,
)
from interlane import Event, Status
from reference import Fields, KeyPair, L, P, varint, write_protobuf

DESK = "desk"


@pytest.fixture(params=["accept", "refuse"])
def engine(request: pytest.FixtureRequest) -> Iterator[interlane.Engine]:
    """No fault may depend on how changed identities are taken."""
    with interlane.open(":memory:", threads=1, identity_changes=request.param) as engine:
        yield engine


@pytest.fixture
def desk(engine: interlane.Engine) -> interlane.Account:
    account = engine.account(DESK, create=True)
    account.prekeys(8)
    return account


def one(account: interlane.Account, sender: str, frame: Frame) -> interlane.Row:
    return account.decrypt([sender], frame.kind, [frame.data])[0]


def opens(account: interlane.Account, sender: str, frame: Frame, plaintext: bytes) -> interlane.Row:
    row = one(account, sender, frame)
    assert (row.status, row.data) == (Status.OK, plaintext)
    return row


def refused(account: interlane.Account, sender: str, frame: Frame, status: Status = Status.INVALID) -> None:
    """The row has this status, no bytes and no events, and nothing that can be observed has changed."""
    before = account.peers(), account.stock
    row = one(account, sender, frame)
    assert row == (status, "none", b"", Event(0))
    assert (account.peers(), account.stock) == before


def acquainted(desk: interlane.Account, eve: Forger) -> None:
    """A session that both have used, so that either sends `msg`."""
    eve.start(desk.name, next(desk.prekeys(1).bundles()))
    opens(desk, eve.name, eve.send(desk.name, b"hello"), b"hello")
    assert eve.receive(desk.name, desk.encrypt([eve.name], [b"hi"])[0]) == b"hi"


# --- The identity of a first frame --------------------------------------------------------------------------


@pytest.mark.parametrize("bit", [0, 7, 100, 254, 255])
def test_the_identity_is_not_stored_before_the_mac_is_checked(desk: interlane.Account, bit: int) -> None:
    eve = Forger()
    eve.start(DESK, next(desk.prekeys(1).bundles()))
    true = eve.send(DESK, b"hello")
    identity = bytearray(eve.account.identity)
    identity[1 + bit // 8] ^= 1 << bit % 8
    wrong = Frame("pkmsg", envelope(true.data, identity=bytes(identity)))
    refused(desk, eve.name, wrong)
    assert desk.peers() == []
    row = opens(desk, eve.name, true, b"hello")
    assert row.events == Event.NEW_SESSION | Event.PREKEY_CONSUMED
    assert desk.peers()[0].identity == eve.account.identity


def test_a_known_base_key_under_another_identity_is_refused(desk: interlane.Account) -> None:
    eve, mallory = Forger(), Forger("mallory", b"m" * 32)
    eve.start(DESK, next(desk.prekeys(1).bundles()))
    first, second = eve.send(DESK, b"one"), eve.send(DESK, b"two")
    opens(desk, eve.name, first, b"one")
    refused(desk, eve.name, Frame("pkmsg", envelope(second.data, identity=mallory.account.identity)))
    opens(desk, eve.name, second, b"two")
    assert desk.peers()[0].identity == eve.account.identity


# --- What the MAC and the signature cover -------------------------------------------------------------------


def wide(value: int, to: int) -> bytes:
    """A varint of `to` bytes, however few would do."""
    return bytes([value >> 7 * i & 0x7F | 0x80 for i in range(to - 1)] + [value >> 7 * (to - 1) & 0x7F])


def spelled(fields: Fields, number: int, length: int) -> bytes:
    """The fields, one of them with its number, its tag and (of bytes) its length wider than need be."""
    out = b""
    for n, value in fields:
        if n != number:
            out += write_protobuf([(n, value)])
        elif isinstance(value, int):
            out += wide(n << 3, 2) + wide(value, length)
        else:
            out += wide(n << 3 | 2, 2) + wide(len(value), length) + value
    return out


OTHER_SPELLINGS: dict[str, Callable[[Fields], bytes]] = {
    "an added number": lambda fields: b"\x33" + write_protobuf([*fields, (15, 1)]),
    "added bytes in front": lambda fields: b"\x33" + write_protobuf([(99, b"new"), *fields]),
    "added fixed-width fields": lambda fields: (
        b"\x33" + write_protobuf(fields) + varint(20 << 3 | 1) + bytes(8) + varint(21 << 3 | 5) + bytes(4)
    ),
    "another order": lambda fields: b"\x33" + write_protobuf(fields[::-1]),
    "two swapped": lambda fields: b"\x33" + write_protobuf([fields[1], fields[0], *fields[2:]]),
    "a field twice": lambda fields: b"\x33" + write_protobuf([fields[1], *fields]),
    "another value before the true one": lambda fields: (
        b"\x33" + write_protobuf([(fields[1][0], 9), *fields])
    ),
    "a wide counter": lambda fields: b"\x33" + spelled(fields, 2, 5),
    "a counter of ten bytes": lambda fields: b"\x33" + spelled(fields, 2, 10),
    "a counter wider than 32 bits": lambda fields: (
        b"\x33" + write_protobuf(with_field(fields, 2, fields[1][1] | 1 << 40))  # type: ignore[operator]
    ),
    "a wide length": lambda fields: b"\x33" + spelled(fields, fields[-1][0], 4),
    "a newer sender": lambda fields: b"\x34" + write_protobuf(fields),
    "the newest sender": lambda fields: b"\x3f" + write_protobuf(fields),
}
PAIRWISE_SPELLINGS: dict[str, Callable[[Fields], bytes]] = OTHER_SPELLINGS | {
    "no previous counter": lambda fields: b"\x33" + write_protobuf(with_field(fields, 3, None)),
    "the last previous counter": lambda fields: b"\x33" + write_protobuf(with_field(fields, 3, 2**32 - 1)),
}


@pytest.mark.parametrize("kind", ["msg", "pkmsg"])
@pytest.mark.parametrize("spelling", PAIRWISE_SPELLINGS)
def test_the_mac_is_over_the_bytes_received(desk: interlane.Account, kind: str, spelling: str) -> None:
    eve = Forger()
    if kind == "msg":
        acquainted(desk, eve)
    else:
        eve.start(DESK, next(desk.prekeys(1).bundles()))
    former = eve.session(DESK)
    true = eve.send(DESK, b"hello")
    later = eve.send(DESK, b"again")
    assert true.kind == kind
    message = true.data if kind == "msg" else dict(fields_of(true.data[1:]))[4]
    assert isinstance(message, bytes)
    body = PAIRWISE_SPELLINGS[spelling](fields_of(message[1:-8]))
    assert body != message[:-8]

    def frame(message: bytes) -> Frame:
        return Frame(kind, message if kind == "msg" else envelope(true.data, message=message))

    refused(desk, eve.name, frame(body + message[-8:]))
    eve.set_session(DESK, former)
    opens(desk, eve.name, frame(body + eve.mac(DESK, former.sending.index, body)), b"hello")
    refused(desk, eve.name, true, Status.DUPLICATE)
    opens(desk, eve.name, later, b"again")


@pytest.mark.parametrize("kind", ["msg", "pkmsg"])
@pytest.mark.parametrize("version", [0x30, 0x31, 0x32, 0x23, 0x43, 0x44, 0x03, 0x13, 0xF3, 0x00, 0xFF])
def test_another_version_is_refused_whatever_its_mac(
    desk: interlane.Account, kind: str, version: int
) -> None:
    eve = Forger()
    if kind == "msg":
        acquainted(desk, eve)
    else:
        eve.start(DESK, next(desk.prekeys(1).bundles()))
    former = eve.session(DESK)
    true = eve.send(DESK, b"hello")
    message = true.data if kind == "msg" else dict(fields_of(true.data[1:]))[4]
    assert isinstance(message, bytes)
    body = bytes([version]) + message[1:-8]
    eve.set_session(DESK, former)
    for mac in (message[-8:], eve.mac(DESK, former.sending.index, body)):
        changed = body + mac
        refused(
            desk, eve.name, Frame(kind, changed if kind == "msg" else envelope(true.data, message=changed))
        )
    if kind == "pkmsg":
        refused(desk, eve.name, Frame(kind, bytes([version]) + true.data[1:]))
    opens(desk, eve.name, true, b"hello")


@pytest.mark.parametrize("version", [0x34, 0x35, 0x3F])
def test_the_version_byte_is_authenticated(desk: interlane.Account, version: int) -> None:
    eve = Forger()
    acquainted(desk, eve)
    true = eve.send(DESK, b"hello")
    refused(desk, eve.name, Frame("msg", bytes([version]) + true.data[1:]))
    opens(desk, eve.name, true, b"hello")


def test_every_bit_of_a_message_is_authenticated(desk: interlane.Account) -> None:
    eve = Forger()
    acquainted(desk, eve)
    true = eve.send(DESK, b"hello")
    frames = []
    for bit in range(8 * len(true.data)):
        data = bytearray(true.data)
        data[bit // 8] ^= 1 << bit % 8
        frames.append(bytes(data))
    rows = desk.decrypt([eve.name] * len(frames), "msg", frames)
    assert not rows.ok.any()
    assert len(rows.data) == 0
    opens(desk, eve.name, true, b"hello")


class Group:
    """A desk that knows a forger's sender key."""

    def __init__(self, desk: interlane.Account, iteration: int = 0) -> None:
        self.eve = Forger()
        self.group = desk.group("family")
        eves = self.eve.account.group("family")
        row = eves.distribute()
        own = self.eve.account.own_sender_keys["family"]
        if iteration:
            own = replace(own, chain=replace(own.chain, index=iteration))
            self.eve.account.own_sender_keys["family"] = own
            row = eves.distribute()
        assert self.group.accept([self.eve.name], [row.data]).ok.all()

    @property
    def own(self) -> reference.OwnSenderKey:
        return self.eve.account.own_sender_keys["family"]

    def send(self, plaintext: bytes) -> bytes:
        row = self.eve.account.group("family").encrypt(plaintext)
        assert row.status == reference.Status.OK
        return row.data

    def skip(self, messages: int) -> None:
        chain = self.own.chain
        for _ in range(messages):
            chain = chain.next()
        self.eve.account.own_sender_keys["family"] = replace(self.own, chain=chain)

    def sign(self, body: bytes) -> bytes:
        return body + self.own.signing.sign(body, b"z" * 64)

    def frame(self, padded: bytes, iteration: int) -> bytes:
        """A signed frame of this plaintext, to which no padding is added."""
        chain = self.own.chain
        while chain.index < iteration:
            chain = chain.next()
        iv, key = reference.group_keys(chain.message_seed)
        ciphertext = raw_cbc(key, iv, padded)
        return self.sign(b"\x33" + write_protobuf([(1, self.own.id), (2, iteration), (3, ciphertext)]))

    def refused(self, data: bytes, status: Status = Status.INVALID) -> None:
        row = self.group.decrypt([self.eve.name], [data])[0]
        assert row == (status, "none", b"", Event(0))

    def opens(self, data: bytes, plaintext: bytes) -> None:
        row = self.group.decrypt([self.eve.name], [data])[0]
        assert (row.status, row.data) == (Status.OK, plaintext)


@pytest.mark.parametrize("spelling", OTHER_SPELLINGS)
def test_the_signature_is_over_the_bytes_received(desk: interlane.Account, spelling: str) -> None:
    group = Group(desk)
    true, later = group.send(b"hello"), group.send(b"again")
    body = OTHER_SPELLINGS[spelling](fields_of(true[1:-64]))
    assert body != true[:-64]
    group.refused(body + true[-64:])
    group.opens(group.sign(body), b"hello")
    group.refused(true, Status.DUPLICATE)
    group.opens(later, b"again")


def test_every_bit_of_a_group_message_is_authenticated(desk: interlane.Account) -> None:
    group = Group(desk)
    true = group.send(b"hello")
    frames = []
    for bit in range(8 * len(true)):
        data = bytearray(true)
        data[bit // 8] ^= 1 << bit % 8
        frames.append(bytes(data))
    rows = group.group.decrypt([group.eve.name] * len(frames), frames)
    assert not rows.ok.any()
    assert len(rows.data) == 0
    group.opens(true, b"hello")


def test_a_group_chain_is_not_moved_before_the_signature_is_checked(desk: interlane.Account) -> None:
    group, mallory = Group(desk), Forger("mallory", b"m" * 32)
    true = group.send(b"hello")
    group.skip(1_999)
    ahead = group.send(b"far")
    # Mallory knows the sender key, as every member does, but not the key that signs.
    mallory.account.group("family").distribute()
    signing = mallory.account.own_sender_keys["family"].signing
    for frame in (true, ahead):
        group.refused(frame[:-64] + signing.sign(frame[:-64], b"z" * 64))
    group.opens(true, b"hello")
    group.opens(ahead, b"far")


# --- Sessions beside the current one ------------------------------------------------------------------------


def converse(desk: interlane.Account, eve: Forger, rounds: int) -> None:
    """Both directions work, with a ratchet step in each."""
    for i in range(rounds):
        for text in (b"to eve %d" % i, b"to eve again"):
            assert eve.receive(desk.name, desk.encrypt([eve.name], [text])[0]) == text
        for text in (b"to desk %d" % i, b"to desk again"):
            opens(desk, eve.name, eve.send(desk.name, text), text)


def test_sessions_that_both_sides_start_at_once_converge(desk: interlane.Account) -> None:
    """Messages of both sessions cross: a frame of the older one must not step the current one's ratchet."""
    eve = Forger()
    eve.start(DESK, next(desk.prekeys(1).bundles()))
    assert desk.start_sessions([eve.name], [eve.bundle()]).ok.all()
    theirs = [eve.send(DESK, b"eve %d" % i) for i in range(3)]
    ours = desk.encrypt([eve.name] * 3, [b"desk %d" % i for i in range(3)])
    opens(desk, eve.name, theirs[0], b"eve 0")
    assert eve.receive(DESK, ours[0]) == b"desk 0"
    # Each side's current session is now the one that the other began: what was sent meanwhile crosses again.
    crossing = desk.encrypt([eve.name] * 2, [b"crossing 0", b"crossing 1"])
    answer = [eve.send(DESK, b"answer %d" % i) for i in range(2)]
    for frame, text in ((answer[1], b"answer 1"), (theirs[2], b"eve 2"), (answer[0], b"answer 0")):
        opens(desk, eve.name, frame, text)
    for row, text in ((crossing[1], b"crossing 1"), (ours[2], b"desk 2"), (crossing[0], b"crossing 0")):
        assert eve.receive(DESK, row) == text
    opens(desk, eve.name, theirs[1], b"eve 1")
    assert eve.receive(DESK, ours[1]) == b"desk 1"
    converse(desk, eve, 3)


@pytest.mark.parametrize("starter", ["desk", "eve"])
@pytest.mark.parametrize("turned", [False, True])
def test_late_frames_of_an_old_session_leave_the_current_one_whole(
    desk: interlane.Account, starter: str, turned: bool
) -> None:
    """After a re-start late frames of the old session arrive, with a ratchet key that was seen or not."""
    eve = Forger()
    acquainted(desk, eve)
    converse(desk, eve, 1)
    if turned:
        assert eve.receive(DESK, desk.encrypt([eve.name], [b"turn"])[0]) == b"turn"
    late = [eve.send(DESK, b"late %d" % i) for i in range(4)]
    if starter == "desk":
        assert desk.start_sessions([eve.name], [eve.bundle()]).ok.all()
        assert eve.receive(DESK, desk.encrypt([eve.name], [b"new"])[0]) == b"new"
    else:
        eve.start(DESK, next(desk.prekeys(1).bundles()))
        opens(desk, eve.name, eve.send(DESK, b"new"), b"new")
    converse(desk, eve, 1)
    # Sent on the new session, and not opened before the old one has become current by a late frame.
    crossing = desk.encrypt([eve.name] * 2, [b"crossing 0", b"crossing 1"])
    ahead = [eve.send(DESK, b"ahead %d" % i) for i in range(2)]
    opens(desk, eve.name, late[2], b"late 2")
    opens(desk, eve.name, ahead[1], b"ahead 1")
    opens(desk, eve.name, late[0], b"late 0")
    refused(desk, eve.name, late[0], Status.DUPLICATE)
    damaged = Frame("msg", late[1].data[:-1] + bytes([late[1].data[-1] ^ 1]))
    refused(desk, eve.name, damaged)
    opens(desk, eve.name, ahead[0], b"ahead 0")
    assert [eve.receive(DESK, row) for row in crossing] == [b"crossing 0", b"crossing 1"]
    converse(desk, eve, 2)
    opens(desk, eve.name, late[3], b"late 3")
    opens(desk, eve.name, late[1], b"late 1")
    converse(desk, eve, 1)


def test_a_failed_try_of_every_session_changes_none(desk: interlane.Account) -> None:
    """A frame with a new ratchet key is tried on all 41 sessions; none of them keeps a step of it."""
    eve = Forger()
    late = []
    for i in range(41):
        eve.start(DESK, next(desk.prekeys(1).bundles()))
        opens(desk, eve.name, eve.send(DESK, b"start"), b"start")
        late.append(eve.send(DESK, b"late %d" % i))
    assert desk.peers()[0].archived == 40
    body = b"\x33" + write_protobuf([(1, KeyPair.of(b"n" * 32).public), (2, 7), (3, 0), (4, bytes(16))])
    for _ in range(3):
        refused(desk, eve.name, Frame("msg", body + bytes(8)))
    for i, frame in reversed(list(enumerate(late))):
        opens(desk, eve.name, frame, b"late %d" % i)


# --- Bundles ------------------------------------------------------------------------------------------------


def resigned(bundle: interlane.Bundle, signature: bytes) -> interlane.Bundle:
    return replace(bundle, signed_prekey=replace(bundle.signed_prekey, signature=signature))


def test_a_bundle_with_a_bad_signature_is_refused(desk: interlane.Account) -> None:
    eve, mallory = Forger(), Forger("mallory", b"m" * 32)
    good = eve.bundle()
    signature, public = good.signed_prekey.signature, good.signed_prekey.public
    bad = [bytes(64), b"\xff" * 64, mallory.account.identity_pair.sign(public, b"z" * 64)]
    bad.append(eve.account.identity_pair.sign(public[1:], b"z" * 64))
    bad.append(eve.account.identity_pair.sign(public + b"\0", b"z" * 64))
    for bit in (0, 255, 256, 300, 504, 505, 509, 510, 511):
        flipped = bytearray(signature)
        flipped[bit // 8] ^= 1 << bit % 8
        bad.append(bytes(flipped))
    bundles = [resigned(good, one) for one in bad]
    # The same signature over another key, and under another identity.
    bundles.append(replace(good, signed_prekey=replace(good.signed_prekey, public=eve.account.identity)))
    bundles.append(replace(good, identity=mallory.account.identity))
    for short in (signature[:-1], signature + b"\0", b""):
        bundles.append(resigned(good, short))
    rows = desk.start_sessions([eve.name] * len(bundles), bundles)
    assert {row.status for row in rows} == {Status.INVALID_BUNDLE}
    assert desk.peers() == []
    assert desk.encrypt([eve.name], [b"x"])[0].status is Status.NO_SESSION
    assert desk.start_sessions([eve.name], [good]).ok.all()
    assert eve.receive(DESK, desk.encrypt([eve.name], [b"hello"])[0]) == b"hello"


def test_a_signature_whose_s_is_not_reduced_is_accepted_as_deployed(desk: interlane.Account) -> None:
    eve = Forger()
    good = eve.bundle()
    signature = good.signed_prekey.signature
    s = int.from_bytes(signature[32:63] + bytes([signature[63] & 0x7F]), "little")
    raised = bytearray((s + L).to_bytes(32, "little"))
    assert raised[31] & 0xE0 == 0
    raised[31] |= signature[63] & 0x80
    assert desk.start_sessions([eve.name], [resigned(good, signature[:32] + bytes(raised))]).ok.all()
    for times in (2, 7):
        above = bytearray(min(s + (times + 7) * L, 2**255 - 1).to_bytes(32, "little"))
        above[31] |= signature[63] & 0x80
        rows = desk.start_sessions([eve.name], [resigned(good, signature[:32] + bytes(above))])
        assert rows[0].status is Status.INVALID_BUNDLE


def test_a_bundle_of_low_order_keys_is_refused(desk: interlane.Account) -> None:
    eve = Forger()
    good = eve.bundle()
    for low in LOW_ORDER:
        key = b"\5" + low.to_bytes(32, "little")
        signed = replace(
            good.signed_prekey, public=key, signature=eve.account.identity_pair.sign(key, b"z" * 64)
        )
        for bundle in (
            replace(good, one_time_prekey=interlane.Prekey(3, key)),
            replace(good, signed_prekey=signed),
            replace(good, identity=key),
        ):
            assert desk.start_sessions([eve.name], [bundle])[0].status is Status.INVALID_BUNDLE
    assert desk.peers() == []


# --- A bad frame, then the true one -------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["first", "next", "ahead", "late", "new chain", "ahead on a new chain"])
def test_after_a_bad_mac_the_true_frame_opens(desk: interlane.Account, state: str) -> None:
    eve = Forger()
    if state == "first":
        eve.start(DESK, next(desk.prekeys(1).bundles()))
    else:
        acquainted(desk, eve)
        opens(desk, eve.name, eve.send(DESK, b"x"), b"x")
    if "new chain" in state:
        assert eve.receive(DESK, desk.encrypt([eve.name], [b"turn"])[0]) == b"turn"
    if "ahead" in state:
        eve.skip(DESK, 300)
    true = eve.send(DESK, b"true")
    if state == "late":
        opens(desk, eve.name, eve.send(DESK, b"later"), b"later")
    message = true.data if true.kind == "msg" else dict(fields_of(true.data[1:]))[4]
    assert isinstance(message, bytes)
    for at in (-1, -8, len(message) - 9):
        wrong = bytearray(message)
        wrong[at] ^= 0x40
        changed = bytes(wrong) if true.kind == "msg" else envelope(true.data, message=bytes(wrong))
        for _ in range(2):
            refused(desk, eve.name, Frame(true.kind, changed))
    opens(desk, eve.name, true, b"true")
    refused(desk, eve.name, true, Status.DUPLICATE)
    converse(desk, eve, 1)


BAD_PADDING = [
    b"x" * 15 + b"\x00",
    b"x" * 15 + b"\x11",
    b"x" * 15 + b"\xff",
    b"x" * 13 + b"\x02\x03\x03",
    b"\x10" * 15 + b"\x0f" + b"\x10" * 15 + b"\x11",
    b"\x0f" + b"\x10" * 15,
    b"x" * 14 + b"\x01\x02",
]


@pytest.mark.parametrize("padded", BAD_PADDING, ids=[padded.hex() for padded in BAD_PADDING])
def test_bad_cbc_padding_under_a_good_mac_gives_nothing(desk: interlane.Account, padded: bytes) -> None:
    eve = Forger()
    acquainted(desk, eve)
    ratchet, counter = eve.session(DESK).ratchet.public, eve.session(DESK).sending.index

    def message(ciphertext: bytes) -> Frame:
        return Frame("msg", eve.message(DESK, [(1, ratchet), (2, counter), (4, ciphertext)], counter=counter))

    refused(desk, eve.name, message(eve.ciphertext(DESK, counter, padded)))
    for ciphertext in (b"", b"x", bytes(15), bytes(17)):
        refused(desk, eve.name, message(ciphertext))
    opens(desk, eve.name, message(eve.ciphertext(DESK, counter, b"fine" + b"\x0c" * 12)), b"fine")


@pytest.mark.parametrize("padded", BAD_PADDING, ids=[padded.hex() for padded in BAD_PADDING])
def test_bad_cbc_padding_under_a_good_signature_gives_nothing(desk: interlane.Account, padded: bytes) -> None:
    group = Group(desk)
    for iteration in (0, 300):
        group.refused(group.frame(padded, iteration))
    for ciphertext in (b"", b"x", bytes(15), bytes(17)):
        group.refused(group.sign(b"\x33" + write_protobuf([(1, group.own.id), (2, 0), (3, ciphertext)])))
    group.opens(group.frame(b"fine" + b"\x0c" * 12, 0), b"fine")
    group.opens(group.frame(b"ahead" + b"\x0b" * 11, 300), b"ahead")


def test_bad_message_padding_under_a_good_mac_gives_nothing() -> None:
    with interlane.open(":memory:", threads=1, padding=True) as engine:
        desk = engine.account(DESK, create=True)
        desk.prekeys(1)
        eve = Forger()
        eve.world.padding = True
        acquainted(desk, eve)
        eve.world.padding = False
        former = eve.session(DESK)
        for text in (b"", b"x\x00", b"x\x11", b"\x02", b"x\x02\x03", b"\x11" * 17, b"\x0f" + b"\x10" * 15):
            eve.set_session(DESK, former)
            refused(desk, eve.name, eve.send(DESK, text))
        eve.set_session(DESK, former)
        opens(desk, eve.name, eve.send(DESK, b"fine" + b"\x10" * 16), b"fine")
        group = Group(desk)
        for text in (b"", b"x\x00", b"x\x11", b"\x02", b"x\x02\x03"):
            count = 16 - len(text) % 16
            group.refused(group.frame(text + bytes([count]) * count, 0))
        group.opens(group.send(b"fine\x01"), b"fine")


# --- Base keys ----------------------------------------------------------------------------------------------


def torsion_of_order_8() -> list[int]:
    """The u-coordinates of the points of order 8."""
    found = set()
    for y in range(2, 200):
        point = reference.point_with(y, 0)
        if point is None:
            continue
        low = reference.multiply(L, point)
        if reference.multiply(4, low).X % P == 0 and reference.multiply(2, low).X % P == 0:
            continue
        y_low = low.Y * reference.inverse(low.Z) % P
        found.add((1 + y_low) * reference.inverse(1 - y_low) % P)
    return sorted(found)


# RFC 7748 §6.1 and the usual list: order 1 or 2, 4 (on the twist or the curve), 8.
LOW_ORDER = [0, 1, P - 1, *torsion_of_order_8()]
SOUND = KeyPair.of(b"b" * 32)


def u_of(point: reference.Point) -> int:
    y = point.Y * reference.inverse(point.Z) % P
    return (1 + y) * reference.inverse(1 - y) % P


def with_torsion(times: int) -> int:
    """The u of a sound key plus a multiple of a point of order 8: its shared secrets are the sound one's."""
    y, low = (
        reference.edwards_y(u) for u in (int.from_bytes(SOUND.public[1:], "little"), torsion_of_order_8()[0])
    )
    assert y is not None
    assert low is not None
    sound, torsion = reference.point_with(y, 0), reference.point_with(low, 0)
    assert sound is not None
    assert torsion is not None
    return u_of(reference.add(sound, reference.multiply(times, torsion)))


def on_the_twist() -> list[int]:
    return [u for u in range(2, 60) if reference.point_with(reference.edwards_y(u) or 0, 0) is None][:4]


BASE_KEYS = {
    **{f"low order {u:x}"[:40]: u for u in LOW_ORDER},
    **{f"low order and not canonical: p+{u}": P + u for u in (0, 1)},
    "2^255 - 1, which is 18": 2**255 - 1,
    "p + 9, which is the base point": P + 9,
    **{f"low order with the top bit: {u:x}"[:40]: u + 2**255 for u in LOW_ORDER},
    "a sound key with the top bit": int.from_bytes(SOUND.public[1:], "little") + 2**255,
    **{f"a sound key and torsion of order {8 // order}": with_torsion(order) for order in (1, 2, 4)},
    **{f"on the twist: {u}": u for u in on_the_twist()},
}


def test_the_base_keys_are_what_they_are_called() -> None:
    assert len(torsion_of_order_8()) == 2
    for u in LOW_ORDER:
        assert reference.x25519(b"k" * 32, u.to_bytes(32, "little")) == bytes(32)
    for order in (1, 2, 4):
        twin = with_torsion(order).to_bytes(32, "little")
        assert twin != SOUND.public[1:]
        assert reference.x25519(b"k" * 32, twin) == reference.x25519(b"k" * 32, SOUND.public[1:])
    assert len(on_the_twist()) == 4


@pytest.mark.parametrize("one_time", [True, False], ids=["one-time prekey", "none"])
@pytest.mark.parametrize("u", BASE_KEYS.values(), ids=BASE_KEYS)
def test_a_base_key_that_breaks_the_rule_is_refused(engine: interlane.Engine, u: int, one_time: bool) -> None:
    keys = known_account(engine, DESK)
    desk, identity = engine.account(DESK), KeyPair.of(b"i" * 32)
    assert desk.stock == 8
    wrong = first_frame(keys, identity, b"\5" + u.to_bytes(32, "little"), b"hello", one_time=one_time)
    for _ in range(2):
        refused(desk, "eve", Frame("pkmsg", wrong))
    assert (desk.stock, desk.peers()) == (8, [])
    # The same frame of a sound key opens: nothing else was wrong with it.
    sound = first_frame(keys, identity, SOUND.public, b"hello", one_time=one_time)
    opens(desk, "eve", Frame("pkmsg", sound), b"hello")
    assert desk.stock == (7 if one_time else 8)
    # Of a known base key, too, there is one spelling.
    refused(desk, "eve", Frame("pkmsg", wrong), Status.INVALID)


def test_a_base_key_with_its_top_bit_flipped_spends_nothing(desk: interlane.Account) -> None:
    eve = Forger()
    eve.start(DESK, next(desk.prekeys(1).bundles()))
    stock = desk.stock
    first, second = eve.send(DESK, b"one"), eve.send(DESK, b"two")
    base_key = bytearray(eve.session(DESK).base_key)
    base_key[32] ^= 0x80
    for frame in (first, second, first):
        refused(desk, eve.name, Frame("pkmsg", envelope(frame.data, base_key=bytes(base_key))))
    assert desk.stock == stock
    opens(desk, eve.name, first, b"one")
    refused(desk, eve.name, Frame("pkmsg", envelope(second.data, base_key=bytes(base_key))))
    opens(desk, eve.name, second, b"two")
    assert desk.stock == stock - 1
    converse(desk, eve, 1)


# --- Prekey ids ---------------------------------------------------------------------------------------------


def test_an_absent_prekey_id_is_not_zero(engine: interlane.Engine) -> None:
    keys = known_account(engine, DESK)
    desk, identity = engine.account(DESK), KeyPair.of(b"i" * 32)
    with_one = first_frame(keys, identity, SOUND.public, b"hello")
    without = first_frame(keys, identity, KeyPair.of(b"c" * 32).public, b"hello", one_time=False)
    # DH4 was computed: without its id, or with 0, which is no id, the MAC does not fit.
    refused(desk, "eve", Frame("pkmsg", envelope(with_one, one_time_id=None)))
    refused(desk, "eve", Frame("pkmsg", envelope(with_one, one_time_id=0)))
    refused(desk, "eve", Frame("pkmsg", envelope(with_one, one_time_id=10)))
    for unknown in (1, 8, 2**24 - 1, 2**24, 2**32 - 1):
        refused(desk, "eve", Frame("pkmsg", envelope(with_one, one_time_id=unknown)), Status.NO_PREKEY)
    for unknown in (0, 1, 9, 2**24 + 5):
        refused(desk, "eve", Frame("pkmsg", envelope(with_one, signed_id=unknown)), Status.NO_PREKEY)
    refused(desk, "eve", Frame("pkmsg", envelope(with_one, signed_id=None)))
    assert desk.stock == 8
    zero = b"\x33" + write_protobuf([(1, 0), *fields_of(without[1:])])
    row = opens(desk, "eve", Frame("pkmsg", zero), b"hello")
    assert row.events == Event.NEW_SESSION
    row = opens(desk, "eve", Frame("pkmsg", with_one), b"hello")
    assert row.events == Event.NEW_SESSION | Event.PREKEY_CONSUMED
    assert desk.stock == 7


def test_a_bundles_one_time_prekey_with_id_0_is_ignored(desk: interlane.Account) -> None:
    eve = Forger()
    bundle = eve.bundle()
    assert bundle.one_time_prekey is not None
    zero = replace(bundle, one_time_prekey=replace(bundle.one_time_prekey, id=0))
    assert desk.start_sessions([eve.name], [zero]).ok.all()
    row = desk.encrypt([eve.name], [b"hello"])[0]
    assert 1 not in dict(fields_of(row.data[1:]))
    assert eve.receive(DESK, row) == b"hello"


def test_a_prekey_opens_one_session(engine: interlane.Engine) -> None:
    """A second initiator on a used one-time prekey is refused, in one call and in the next."""
    keys = known_account(engine, DESK)
    desk = engine.account(DESK)
    frames = [
        first_frame(keys, KeyPair.of(bytes([i]) * 32), KeyPair.of(bytes([50 + i]) * 32).public, b"%d" % i)
        for i in range(1, 4)
    ]
    rows = desk.decrypt(["eve", "mallory"], "pkmsg", frames[:2])
    assert [row.status for row in rows] == [Status.OK, Status.NO_PREKEY]
    assert [row.data for row in rows] == [b"1", b""]
    refused(desk, "oscar", Frame("pkmsg", frames[2]), Status.NO_PREKEY)
    assert desk.stock == 7
    assert [peer.address for peer in desk.peers()] == ["eve"]


# --- Limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chain", ["known", "new", "first"])
def test_a_jump_is_bounded(desk: interlane.Account, chain: str) -> None:
    eve = Forger()
    if chain == "first":
        eve.start(DESK, next(desk.prekeys(1).bundles()))
    else:
        acquainted(desk, eve)
        opens(desk, eve.name, eve.send(DESK, b"x"), b"x")
    if chain == "new":
        assert eve.receive(DESK, desk.encrypt([eve.name], [b"turn"])[0]) == b"turn"
    begin = eve.session(DESK)
    for jump, status in ((2_001, Status.TOO_FAR_AHEAD), (2_500, Status.TOO_FAR_AHEAD), (2_000, Status.OK)):
        eve.set_session(DESK, begin)
        eve.skip(DESK, jump)
        frame = eve.send(DESK, b"far")
        if status is Status.OK:
            opens(desk, eve.name, frame, b"far")
        else:
            refused(desk, eve.name, frame, status)
    # A counter that no chain will ever have costs a comparison.
    body = write_protobuf([(1, begin.ratchet.public), (2, 2**32 - 1), (3, 0), (4, bytes(16))])
    for _ in range(100):
        message = b"\x33" + body + bytes(8)
        data = message if chain != "first" else envelope(eve.send(DESK, b"").data, message=message)
        refused(desk, eve.name, Frame("msg" if chain != "first" else "pkmsg", data), Status.TOO_FAR_AHEAD)
    converse(desk, eve, 1)


def test_a_jump_is_bounded_in_groups(desk: interlane.Account) -> None:
    group = Group(desk)
    group.opens(group.send(b"x"), b"x")
    begin = group.own
    for jump in (2_001, 5_000):
        group.skip(jump)
        group.refused(group.send(b"far"), Status.TOO_FAR_AHEAD)
        group.eve.account.own_sender_keys["family"] = begin
    group.skip(2_000)
    group.opens(group.send(b"far"), b"far")


def reopened(path: Path, engine: interlane.Engine) -> interlane.Engine:
    engine.close()
    return interlane.open(path, key=bytes(32), threads=1)


@pytest.mark.parametrize("restart", [False, True], ids=["in memory", "reopened"])
def test_skipped_keys_are_bounded_and_the_oldest_goes(tmp_path: Path, restart: bool) -> None:
    path = tmp_path / "gateway.db"
    engine = interlane.open(path, key=bytes(32), threads=1)
    desk, eve = engine.account(DESK, create=True), Forger()
    acquainted(desk, eve)
    begin = eve.session(DESK)
    frames = {}
    for counter in (0, 1, 4, 5, 6, 1_000, 1_999):
        eve.set_session(DESK, begin)
        eve.skip(DESK, counter)
        frames[counter] = eve.send(DESK, b"%d" % counter)
    group = Group(desk)
    group_begin = group.own
    group_frames = {}
    for counter in (0, 1, 4, 5, 6, 1_000, 1_999):
        group.eve.account.own_sender_keys["family"] = group_begin
        group.skip(counter)
        group_frames[counter] = group.send(b"%d" % counter)
    # 2,000 are skipped, then 5 more: those of 0 to 4 go.
    for jump in (2_000, 2_006):
        eve.set_session(DESK, begin)
        eve.skip(DESK, jump)
        opens(desk, eve.name, eve.send(DESK, b"far"), b"far")
        group.eve.account.own_sender_keys["family"] = group_begin
        group.skip(jump)
        group.opens(group.send(b"far"), b"far")
    if restart:
        engine = reopened(path, engine)
        desk = engine.account(DESK)
        group.group = desk.group("family")
    for counter in (0, 1, 4):
        refused(desk, eve.name, frames[counter], Status.DUPLICATE)
        group.refused(group_frames[counter], Status.DUPLICATE)
    for counter in (5, 6, 1_000, 1_999):
        opens(desk, eve.name, frames[counter], b"%d" % counter)
        refused(desk, eve.name, frames[counter], Status.DUPLICATE)
        group.opens(group_frames[counter], b"%d" % counter)
        group.refused(group_frames[counter], Status.DUPLICATE)
    engine.close()


def test_receiving_chains_are_bounded_and_the_oldest_goes(desk: interlane.Account) -> None:
    eve = Forger()
    acquainted(desk, eve)
    late = []
    for i in range(6):
        late.append(eve.send(DESK, b"late %d" % i))
        opens(desk, eve.name, eve.send(DESK, b"seen"), b"seen")
        assert eve.receive(DESK, desk.encrypt([eve.name], [b"turn"])[0]) == b"turn"
    opens(desk, eve.name, eve.send(DESK, b"newest"), b"newest")
    # Of seven chains five are kept. To the session that forgot it, an old ratchet key is a new one.
    for i in (0, 1):
        refused(desk, eve.name, late[i])
    for i in range(2, 6):
        opens(desk, eve.name, late[i], b"late %d" % i)


@pytest.mark.parametrize("iteration", [2**32 - 1, 2**32 - 2, 2**31])
def test_the_last_iterations_are_rows_like_others(desk: interlane.Account, iteration: int) -> None:
    """A sender may begin its chain where it likes: at the very end of the numbers too."""
    group = Group(desk, iteration)
    own = group.own
    for step in range(2):
        if own.chain.index + step > 2**32 - 1:
            break
        data = group.frame(b"last" + b"\x0c" * 12, own.chain.index + step)
        group.opens(data, b"last")
        group.refused(data, Status.DUPLICATE)


# --- Any number of damaged frames ---------------------------------------------------------------------------

MUTATIONS = 2_000


def says(data: bytes, *, known: bool) -> tuple[object, ...]:
    """All of a first frame that matters: not its registration id and unknown fields, nor, where its base key
    is known, its prekeys' ids."""
    try:
        parsed = reference.PreKeySignalMessage.parse(data)
    except reference.Refused:
        return (data,)
    ids = () if known else (parsed.one_time_id, parsed.signed_id)
    return (parsed.base_key, parsed.identity, parsed.message, *ids)


@pytest.mark.parametrize("batch", [1, 50, MUTATIONS])
@pytest.mark.parametrize("kind", ["pkmsg", "known pkmsg", "msg", "new chain", "skipped"])
def test_a_true_frame_opens_after_any_number_of_damaged_ones(
    desk: interlane.Account, kind: str, batch: int
) -> None:
    random = Random(f"{kind} {batch}")
    eve, mallory = Forger(), Forger("mallory", b"m" * 32)
    mallory.start(DESK, next(desk.prekeys(1).bundles()))
    opens(desk, mallory.name, mallory.send(DESK, b"x"), b"x")
    eve.start(DESK, next(desk.prekeys(1).bundles()))
    if kind != "pkmsg":
        opens(desk, eve.name, eve.send(DESK, b"x"), b"x")
    if kind in ("msg", "new chain", "skipped"):
        assert eve.receive(DESK, desk.encrypt([eve.name], [b"turn"])[0]) == b"turn"
    if kind in ("msg", "skipped"):
        opens(desk, eve.name, eve.send(DESK, b"turned"), b"turned")
    true = eve.send(DESK, b"true")
    if kind == "skipped":
        opens(desk, eve.name, eve.send(DESK, b"later"), b"later")
    others = [eve.send(DESK, bytes(40)).data, mallory.send(DESK, b"other").data, mallory.send(DESK, b"").data]
    makes = varied(random, true.data, others)
    if true.kind == "pkmsg":
        known = kind == "known pkmsg"
        truths = {says(data, known=known) for data in (true.data, others[0])}
        makes = (data for data in makes if says(data, known=known) not in truths)
    count = MUTATIONS if batch > 1 else MUTATIONS // 10
    frames = list(islice(makes, count))
    before = desk.peers(), desk.stock
    for at in range(0, count, batch):
        part = frames[at : at + batch]
        rows = desk.decrypt([eve.name] * len(part), true.kind, part)
        good = [frame.hex() for frame, row in zip(part, rows, strict=True) if row.status is Status.OK]
        assert good == []
        assert len(rows.data) == 0
        assert not rows.events.any()
    assert (desk.peers(), desk.stock) == before
    # In one call with the true frame, whatever comes before it in the batch.
    mixed = [*frames[:20], true.data, *frames[20:40]]
    rows = desk.decrypt([eve.name] * len(mixed), true.kind, mixed)
    assert [i for i, row in enumerate(rows) if row.status is Status.OK] == [20]
    assert rows[20].data == b"true"
    converse(desk, eve, 1)


@pytest.mark.parametrize("batch", [1, 50, MUTATIONS])
@pytest.mark.parametrize("kind", ["next", "ahead", "skipped"])
def test_a_true_group_frame_opens_after_any_number_of_damaged_ones(
    desk: interlane.Account, kind: str, batch: int
) -> None:
    random = Random(f"{kind} {batch}")
    group = Group(desk)
    if kind == "ahead":
        group.skip(100)
    true = group.send(b"true")
    if kind == "skipped":
        group.opens(group.send(b"later"), b"later")
    others = [group.send(bytes(40)), group.send(b"")]
    count = MUTATIONS if batch > 1 else MUTATIONS // 10
    frames = list(islice(varied(random, true, others), count))
    for at in range(0, count, batch):
        part = frames[at : at + batch]
        rows = group.group.decrypt([group.eve.name] * len(part), part)
        assert [frame.hex() for frame, row in zip(part, rows, strict=True) if row.status is Status.OK] == []
        assert len(rows.data) == 0
    mixed = [*frames[:20], true, *frames[20:40]]
    rows = group.group.decrypt([group.eve.name] * len(mixed), mixed)
    assert [i for i, row in enumerate(rows) if row.status is Status.OK] == [20]
    assert rows[20].data == b"true"
    group.opens(group.send(b"and on"), b"and on")


@pytest.mark.parametrize("one_time", [True, False])
def test_the_frames_that_are_made_here_are_right(engine: interlane.Engine, one_time: bool) -> None:
    """A first frame as `first_frame` makes it is one that the oracle, with these keys, makes or opens too."""
    keys: Keys = known_account(engine, DESK)
    eve = Forger()
    eve.start(DESK, known_bundle(engine, DESK, keys, one_time=one_time))
    opens(engine.account(DESK), eve.name, eve.send(DESK, b"hello"), b"hello")
    world = reference.World(b"o" * 32)
    signature = keys.identity.sign(keys.signed.public, b"z" * 64)
    desk = world.import_account(
        DESK,
        identity_private=keys.identity.private,
        registration_id=77,
        signed_prekeys=[(5, keys.signed.private, signature)],
        one_time_prekeys=[(9, keys.one_time.private)],
    )
    frame = first_frame(keys, KeyPair.of(b"i" * 32), SOUND.public, b"hello", one_time=one_time)
    row = desk.decrypt("eve", "pkmsg", frame)
    assert (row.status, row.data) == (reference.Status.OK, b"hello")
