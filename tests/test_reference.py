"""The oracle against published vectors, against the `cryptography` package, and against itself."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import reference
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import (
    BASE,
    LAST_COUNTER,
    NEUTRAL,
    Account,
    Bundle,
    Event,
    KeyPair,
    L,
    P,
    Prekey,
    Refused,
    Row,
    SenderKeyDistributionMessage,
    SignalMessage,
    Status,
    World,
    add,
    clamp,
    compress,
    edwards_y,
    hkdf,
    is_torsion_free,
    multiply,
    read_protobuf,
    strip_padding,
    varint,
    write_protobuf,
    x25519,
    xeddsa_sign,
    xeddsa_verify,
)

SEED = bytes(range(32))
NINE = (9).to_bytes(32, "little")

# --- Curve25519 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scalar", "u", "product"),
    [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ],
)
def test_x25519_as_in_rfc_7748_5_2(scalar: str, u: str, product: str) -> None:
    assert x25519(bytes.fromhex(scalar), bytes.fromhex(u)).hex() == product


def test_x25519_iterated_as_in_rfc_7748_5_2() -> None:
    k = u = NINE
    for i in range(1_000):
        k, u = x25519(k, u), k
        if i == 0:
            assert k.hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_x25519_as_another_library_has_it(private: bytes, other: bytes) -> None:
    theirs = X25519PrivateKey.from_private_bytes(private)
    public = theirs.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert KeyPair.of(private).public == b"\x05" + public
    product = x25519(private, other)  # `other` need be no point of the curve, nor reduced
    try:
        assert product == theirs.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError:  # how that library says that the product is zero
        assert product == bytes(32)


def low_order_points() -> list[bytes]:
    """Every encoding of u whose multiples by a clamped scalar are zero, those on the twist among them."""
    order_eight = set()
    for y_seed in range(2, 40):  # [L]Q of any point Q is of an order that divides 8
        point = reference.point_with(y_seed, 0)
        if point is not None:
            torsion = multiply(L, point)
            for k in range(1, 8):
                x = multiply(k, torsion)
                z_minus_y = (x.Z - x.Y) % P
                if z_minus_y:
                    order_eight.add((x.Z + x.Y) * reference.inverse(z_minus_y) % P)
    us = order_eight | {0, P - 1}
    encodings = {u + multiple for u in us for multiple in (0, P) if u + multiple < 2**255}
    return [u.to_bytes(32, "little") for u in sorted(encodings)]


def test_low_order_points_give_nothing_and_are_no_base_keys() -> None:
    points = low_order_points()
    assert len(points) == 7  # 0, 1, two of order 8 and -1; 0 and 1 have a second encoding below 2^255
    for point in points:
        assert not is_torsion_free(point)
        with pytest.raises(Refused) as refused:
            KeyPair.of(SEED).agree(b"\x05" + point)
        assert refused.value.status == Status.INVALID


@settings(max_examples=20, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_only_keys_of_the_prime_order_group_are_base_keys(private: bytes) -> None:
    honest = KeyPair.of(private).public[1:]
    assert is_torsion_free(honest)
    u = int.from_bytes(honest, "little")
    assert not is_torsion_free((u | 1 << 255).to_bytes(32, "little"))
    # The same point plus the one of order two, which clamped scalars do not tell apart: u becomes 1/u.
    mixed = reference.inverse(u).to_bytes(32, "little")
    assert not is_torsion_free(mixed)
    assert x25519(SEED, mixed) == x25519(SEED, honest)


def test_non_canonical_and_twist_points_are_no_base_keys() -> None:
    assert is_torsion_free(NINE)
    assert not is_torsion_free((9 + P).to_bytes(32, "little"))
    assert not is_torsion_free((2).to_bytes(32, "little"))  # 2 is on the twist: 2³ + A·2² + 2 is no square
    assert pow(8 + 486662 * 4 + 2, (P - 1) // 2, P) == P - 1


def test_the_edwards_curve_is_the_montgomery_curve() -> None:
    assert BASE is not None
    assert compress(BASE).hex() == "58" + "66" * 31
    assert edwards_y(9) == BASE.Y
    assert compress(multiply(L, BASE)) == compress(NEUTRAL)
    for private in (SEED, bytes(32), b"\xff" * 32):
        point = multiply(clamp(private), BASE)
        y = int.from_bytes(compress(point), "little") & (2**255 - 1)
        assert edwards_y(int.from_bytes(KeyPair.of(private).public[1:], "little")) == y
    assert compress(add(BASE, -BASE)) == compress(NEUTRAL)


# --- XEdDSA -------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    st.binary(min_size=32, max_size=32),
    st.binary(max_size=80),
    st.binary(min_size=64, max_size=64),
    st.data(),
)
def test_a_signature_verifies_and_no_bit_of_it_is_free(
    private: bytes, message: bytes, random: bytes, data: st.DataObject
) -> None:
    public = KeyPair.of(private).public[1:]
    signature = xeddsa_sign(private, message, random)
    assert xeddsa_verify(public, message, signature)
    bit = data.draw(st.integers(0, 511))
    broken = bytearray(signature)
    broken[bit // 8] ^= 1 << bit % 8
    assert not xeddsa_verify(public, message, bytes(broken))
    assert not xeddsa_verify(public, message + b"\0", signature)
    assert not xeddsa_verify(KeyPair.of(hashlib.sha256(private).digest()).public[1:], message, signature)


def test_the_sign_bit_is_set_in_about_half_of_all_keys() -> None:
    signs = [xeddsa_sign(bytes([i]) * 32, b"", bytes(64))[63] >> 7 for i in range(40)]
    assert 8 < sum(signs) < 32


def test_s_plus_l_is_accepted_while_the_top_bits_stay_clear() -> None:
    accepted = 0
    for i in range(12):
        signature = xeddsa_sign(SEED, bytes([i]), bytes(64))
        s, sign = int.from_bytes(signature[32:], "little") & (2**255 - 1), signature[63] & 0x80
        for multiple in (1, 2, 7, 8):
            shifted = bytearray(signature[:32] + (s + multiple * L).to_bytes(32, "little"))
            clear = shifted[63] & 0xE0 == 0
            shifted[63] |= sign
            assert xeddsa_verify(KeyPair.of(SEED).public[1:], bytes([i]), bytes(shifted)) == clear
            accepted += clear
    assert accepted > 0


def test_ed25519_verifies_what_xeddsa_signs() -> None:
    """The equation is Ed25519's: with the sign bit moved to the public key, any Ed25519 agrees."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signature = bytearray(xeddsa_sign(SEED, b"message", bytes(64)))
    y = edwards_y(int.from_bytes(KeyPair.of(SEED).public[1:], "little"))
    assert y is not None
    public = (y | (signature[63] >> 7) << 255).to_bytes(32, "little")
    signature[63] &= 0x7F
    Ed25519PublicKey.from_public_bytes(public).verify(bytes(signature), b"message")


# --- Hashes, paddings, protobuf -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ikm", "salt", "info", "okm"),
    [
        (
            b"\x0b" * 22,
            bytes(range(13)),
            bytes(range(0xF0, 0xFA)),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            bytes(range(0x50)),
            bytes(range(0x60, 0xB0)),
            bytes(range(0xB0, 0x100)),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            b"\x0b" * 22,
            bytes(32),
            b"",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)
def test_hkdf_as_in_rfc_5869_a(ikm: bytes, salt: bytes, info: bytes, okm: str) -> None:
    assert hkdf(ikm, info, len(okm) // 2, salt).hex() == okm


@given(st.binary(max_size=100), st.binary(max_size=40), st.integers(1, 200))
def test_hkdf_as_another_library_has_it(ikm: bytes, info: bytes, length: int) -> None:
    assert hkdf(ikm, info, length) == HKDF(hashes.SHA256(), length, None, info).derive(ikm)


def test_padding_is_removed_only_where_it_is_padding() -> None:
    assert strip_padding(b"\x01") == b""
    assert strip_padding(b"\x10" * 16) == b""
    assert strip_padding(b"\x09\x02\x02") == b"\x09"
    for bad in (b"", b"\x00", b"\x11" * 17, b"\x02", b"\x03\x02\x03"):
        with pytest.raises(Refused):
            strip_padding(bad)


def test_varints_as_protobuf_documents_them() -> None:
    assert varint(0) == b"\x00"
    assert varint(150) == b"\x96\x01"
    assert varint(LAST_COUNTER) == b"\xff\xff\xff\xff\x0f"
    assert write_protobuf([(1, 150), (2, b"testing")]) == bytes.fromhex("089601120774657374696e67")


@given(
    st.lists(
        st.tuples(st.integers(1, 2**29 - 1), st.one_of(st.integers(0, LAST_COUNTER), st.binary(max_size=9)))
    )
)
def test_what_is_written_is_read(fields: list[tuple[int, int | bytes]]) -> None:
    fields = fields[: reference.MAX_FIELDS]
    assert list(read_protobuf(write_protobuf(fields))) == fields


@pytest.mark.parametrize(
    "bad",
    [
        b"\x08",  # no value
        b"\x00\x00",  # field 0
        b"\x0b\x0c",  # a group
        b"\x0a\x05abc",  # shorter than it says
        b"\x08" + b"\x80" * 10 + b"\x00",  # a varint of eleven bytes
        b"\x08\x00" * 65,  # more fields than are read
        b"\x80\x80\x80\x80\x10\x00",  # field 2^29
    ],
)
def test_malformed_protobuf_is_refused(bad: bytes) -> None:
    with pytest.raises(Refused):
        list(read_protobuf(bad))


# --- Frames -------------------------------------------------------------------------------------------------


def world(seed: int = 1, *, refuse: bool = False, padding: bool = False) -> World:
    return World(bytes([seed]) * 32, refuse, padding)


def pair(*, refuse: bool = False, padding: bool = False) -> tuple[Account, Account]:
    """Ann with Bob's bundle taken up, in one world."""
    both = world(refuse=refuse, padding=padding)
    ann, bob = both.account("ann", create=True), both.account("bob", create=True)
    upload = bob.prekeys(6)
    ann.prekeys(6)
    assert ann.start_sessions("bob", upload.bundles()[0]).status == Status.OK
    return ann, bob


def send(sender: Account, receiver: Account, text: bytes) -> Row:
    return deliver(sender, receiver, sender.encrypt(name_of(receiver), text))


def deliver(sender: Account, receiver: Account, sent: Row) -> Row:
    return receiver.decrypt(name_of(sender), sent.kind, sent.data)


def name_of(account: Account) -> str:
    return next(name for name, other in account.world._accounts.items() if other is account)


def test_a_frame_byte_for_byte() -> None:
    ann, bob = pair()
    first = ann.encrypt("bob", b"one")
    assert first.kind == "pkmsg"
    fields = list(read_protobuf(first.data[1:]))
    session = ann.peer("bob").current
    assert session is not None
    inner = dict(fields)[4]
    assert isinstance(inner, bytes)
    assert first.data[0] == inner[0] == 0x33
    assert fields == [
        (1, 1),
        (2, session.base_key),
        (3, ann.identity),
        (4, inner),
        (5, ann.registration_id),
        (6, 1),
    ]
    assert inner[1:3] == b"\x0a\x21"
    assert inner[3:36] == session.ratchet.public
    assert inner[36:42] == bytes.fromhex("100018002210")  # counter 0, previous counter 0, 16 bytes follow
    assert len(inner) == 42 + 16 + 8

    assert deliver(ann, bob, first) == Row(
        Status.OK, "pkmsg", b"one", Event.NEW_SESSION | Event.PREKEY_CONSUMED
    )
    reply = bob.encrypt("ann", b"two")
    assert reply.kind == "msg"
    assert deliver(bob, ann, reply) == Row(Status.OK, "msg", b"two")
    assert ann.encrypt("bob", b"three").kind == "msg"


@pytest.mark.parametrize("version", range(256))
def test_versions(version: int) -> None:
    ann, bob = pair()
    frame = ann.encrypt("bob", b"").data
    accepted = 0x33 <= version <= 0x3F
    assert bob.decrypt("ann", "pkmsg", bytes([version]) + frame[1:]).status == (
        Status.OK if accepted else Status.INVALID
    )


# --- Sessions -----------------------------------------------------------------------------------------------


def test_a_conversation_with_loss_and_reorder() -> None:
    ann, bob = pair()
    assert send(ann, bob, b"hello").status == Status.OK
    for turn in range(8):
        sender, receiver = (bob, ann) if turn % 2 == 0 else (ann, bob)
        sent = [sender.encrypt(name_of(receiver), bytes([turn, i])) for i in range(5)]
        for i in (3, 0, 4, 1):  # 2 is lost
            assert deliver(sender, receiver, sent[i]).data == bytes([turn, i])
        for i in (3, 0, 4, 1):
            assert deliver(sender, receiver, sent[i]).status == Status.DUPLICATE


def test_previous_counter_is_the_last_index_of_the_chain_before() -> None:
    ann, bob = pair()
    for _ in range(3):
        send(ann, bob, b"")
    sent = bob.encrypt("ann", b"")
    assert list(read_protobuf(sent.data[1:-8]))[2] == (
        3,
        0,
    )  # Bob's chain on his signed prekey was never used
    deliver(bob, ann, sent)
    assert list(read_protobuf(ann.encrypt("bob", b"").data[1:-8]))[2] == (3, 2)


def test_a_responder_may_send_before_it_ratchets() -> None:
    """Its first sending chain is its signed prekey's; the initiator holds it as its first receiving chain."""
    ann, bob = pair()
    frame = reference.PreKeySignalMessage.parse(ann.encrypt("bob", b"").data)
    fresh = reference.Session.respond(bob.identity_pair, bob.signed[1][0], bob.one_time[1], frame)
    session = ann.peer("bob").current
    assert session is not None
    sent, _ = fresh.encrypt(b"early")
    plaintext, after = session.decrypt(SignalMessage.parse(sent), ann.world.randomness.row())
    assert plaintext == b"early"
    assert after.sending == session.sending
    assert after.pending is None


@pytest.mark.parametrize("jump", [0, 1, 1_999, 2_000, 2_001])
def test_the_jump_limit(jump: int) -> None:
    ann, bob = pair()
    send(ann, bob, b"first")
    skipped = [ann.encrypt("bob", b"") for _ in range(jump)]
    before = bob.state()
    landed = send(ann, bob, b"landed")
    if jump > 2_000:
        assert landed.status == Status.TOO_FAR_AHEAD
        assert bob.state() == before
        assert deliver(ann, bob, skipped[0]).status == Status.OK
    else:
        assert landed.data == b"landed"
        assert all(
            deliver(ann, bob, sent).status == Status.OK for sent in skipped[:2] + skipped[-2:][: jump - 2]
        )


def test_only_the_newest_skipped_keys_are_kept() -> None:
    ann, bob = pair()
    sent = [ann.encrypt("bob", b"%d" % i) for i in range(3_002)]
    assert deliver(ann, bob, sent[1_500]).status == Status.OK
    assert deliver(ann, bob, sent[3_001]).status == Status.OK  # 3,000 were skipped, 2,000 are kept
    assert deliver(ann, bob, sent[999]).status == Status.DUPLICATE
    assert deliver(ann, bob, sent[1_000]).data == b"1000"
    assert deliver(ann, bob, sent[1_000]).status == Status.DUPLICATE
    assert deliver(ann, bob, sent[3_000]).data == b"3000"


def test_five_receiving_chains_are_kept() -> None:
    ann, bob = pair()
    late = []
    for _ in range(6):
        late.append(ann.encrypt("bob", b"late"))
        assert send(ann, bob, b"").status == Status.OK
        assert send(bob, ann, b"").status == Status.OK
    statuses = [deliver(ann, bob, sent).status for sent in late]
    assert statuses == [Status.INVALID] + [Status.OK] * 5


def test_a_damaged_frame_changes_nothing() -> None:
    ann, bob = pair()
    first = ann.encrypt("bob", b"first")
    before = bob.world.digest()
    # The envelope's registration id says nothing of the message and is not authenticated: §10.
    registration_id = write_protobuf([(5, ann.registration_id)])
    free = first.data.index(registration_id, len(first.data) - 8)
    for at in range(len(first.data)):
        damaged = bytearray(first.data)
        damaged[at] ^= 0x10
        if not free <= at < free + len(registration_id):
            status = bob.decrypt("ann", "pkmsg", bytes(damaged)).status
            assert status in (Status.INVALID, Status.NO_PREKEY), f"byte {at} is not authenticated"
    assert bob.world.digest() == before
    assert deliver(ann, bob, first).data == b"first"


def test_both_initiate_and_converge() -> None:
    ann, bob = pair()
    upload = ann.prekeys(1)
    bob.start_sessions("ann", upload.bundles()[0])
    from_ann, from_bob = ann.encrypt("bob", b"a"), bob.encrypt("ann", b"b")
    assert deliver(ann, bob, from_ann).events & Event.NEW_SESSION
    assert deliver(bob, ann, from_bob).events & Event.NEW_SESSION
    assert ann.peer("bob").archived
    assert bob.peer("ann").archived
    for i in range(6):
        assert send(ann, bob, bytes([i])).data == bytes([i])
        assert send(bob, ann, bytes([i])).data == bytes([i])
    current = ann.peer("bob").current, bob.peer("ann").current
    assert current[0] is not None
    assert current[1] is not None
    assert current[0].base_key == current[1].base_key


def test_forty_sessions_are_archived() -> None:
    ann, bob = pair()
    late = [ann.encrypt("bob", b"late 0")]
    deliver(ann, bob, ann.encrypt("bob", b""))
    for i in range(1, 42):
        ann.start_sessions("bob", bob.prekeys(1).bundles()[0])
        late.append(ann.encrypt("bob", b"late %d" % i))
        assert deliver(ann, bob, ann.encrypt("bob", b"")).status == Status.OK
    assert bob.state().peers["ann"].archived == 40
    inner = [reference.PreKeySignalMessage.parse(sent.data) for sent in late]
    # The oldest session is gone, and so is its one-time prekey.
    assert deliver(ann, bob, late[0]).status == Status.NO_PREKEY
    raw = dict(read_protobuf(late[1].data[1:]))[4]
    assert isinstance(raw, bytes)
    assert bob.decrypt("ann", "msg", raw).data == b"late 1"
    current = bob.peer("ann").current
    assert current is not None
    assert current.base_key == inner[1].base_key
    assert len(bob.peer("ann").archived) == 40


def test_a_known_base_key_needs_no_prekeys_but_its_identity() -> None:
    ann, bob = pair()
    first, second = ann.encrypt("bob", b"1"), ann.encrypt("bob", b"2")
    assert deliver(ann, bob, first).events == Event.NEW_SESSION | Event.PREKEY_CONSUMED
    fields = [(n, v) for n, v in read_protobuf(second.data[1:]) if n != 5]
    stranger = KeyPair.of(SEED).public
    forged = [(n, stranger if n == 3 else v) for n, v in fields]
    assert bob.decrypt("ann", "pkmsg", b"\x33" + write_protobuf(forged)).status == Status.INVALID
    moved = [(n, 77 if n in (1, 6) else v) for n, v in fields]
    assert bob.decrypt("ann", "pkmsg", b"\x33" + write_protobuf(moved)) == Row(Status.OK, "pkmsg", b"2")


def test_prekeys_that_are_not_there() -> None:
    ann, bob = pair()
    first = ann.encrypt("bob", b"1")
    fields = list(read_protobuf(first.data[1:]))
    for number in (1, 6):
        moved = [(n, 77 if n == number else v) for n, v in fields]
        assert bob.decrypt("ann", "pkmsg", b"\x33" + write_protobuf(moved)).status == Status.NO_PREKEY
    zero = [(n, 0 if n == 1 else v) for n, v in fields]
    assert bob.decrypt("ann", "pkmsg", b"\x33" + write_protobuf(zero)).status == Status.INVALID
    assert deliver(ann, bob, first).status == Status.OK
    # Under another address there is no session of this base key, and the prekey is spent.
    assert bob.decrypt("someone else", "pkmsg", first.data).status == Status.NO_PREKEY


def test_stock() -> None:
    ann, bob = pair()
    events = []
    bundle = bob.prekeys(0, rotate=True).bundle()
    for id_ in range(1, 7):
        ann.start_sessions("bob", replace(bundle, one_time_prekey=Prekey(id_, bob.one_time[id_].public)))
        events.append(send(ann, bob, b"").events)
    consumed = Event.NEW_SESSION | Event.PREKEY_CONSUMED
    assert events == [consumed] + [consumed | Event.STOCK_LOW] * 5
    assert bob.stock == 0


@pytest.mark.parametrize("refuse", [False, True])
def test_a_changed_identity(refuse: bool) -> None:
    ann, bob = pair(refuse=refuse)
    send(ann, bob, b"")
    impostor = ann.world.account("eve", create=True)
    impostor.start_sessions("bob", bob.prekeys(1).bundles()[0])
    sent = impostor.encrypt("bob", b"it is me")
    before = bob.world.digest()
    got = bob.decrypt("ann", sent.kind, sent.data)
    if refuse:
        assert got == Row(Status.UNTRUSTED_IDENTITY)
        assert bob.world.digest() == before
        assert bob.start_sessions("ann", impostor.prekeys(0).bundle()).status == Status.UNTRUSTED_IDENTITY
        assert bob.trust("ann", impostor.identity).status == Status.OK
        assert bob.decrypt("ann", sent.kind, sent.data).data == b"it is me"
    else:
        assert got.events == Event.NEW_SESSION | Event.IDENTITY_CHANGED | Event.PREKEY_CONSUMED
        assert bob.state().peers["ann"].identity == impostor.identity
        again = bob.start_sessions("ann", ann.prekeys(0).bundle())
        assert again.events == Event.NEW_SESSION | Event.IDENTITY_CHANGED


def test_bundles_that_are_refused() -> None:
    ann, bob = pair()
    good = bob.prekeys(1).bundles()[0]
    assert good.one_time_prekey is not None
    signed, one_time = good.signed_prekey, good.one_time_prekey
    zero = b"\x05" + bytes(32)
    bad: list[Bundle] = [
        replace(good, identity=ann.identity),
        replace(good, identity=good.identity[:32]),
        replace(good, identity=b"\x06" + good.identity[1:]),
        replace(good, signed_prekey=replace(signed, id=0)),
        replace(good, signed_prekey=replace(signed, id=1 << 24)),
        replace(good, signed_prekey=replace(signed, signature=signed.signature[:63])),
        replace(good, signed_prekey=replace(signed, signature=bytes(64))),
        replace(good, signed_prekey=replace(signed, public=one_time.public)),
        replace(good, one_time_prekey=replace(one_time, id=1 << 24)),
        replace(good, one_time_prekey=replace(one_time, public=one_time.public[1:])),
        replace(good, one_time_prekey=replace(one_time, public=zero)),
        replace(
            good,
            signed_prekey=replace(signed, public=zero, signature=bob.identity_pair.sign(zero, bytes(64))),
        ),
    ]
    before = ann.world.digest()
    for bundle in bad:
        assert ann.start_sessions("bob", bundle) == Row(Status.INVALID_BUNDLE)
    assert ann.world.digest() == before
    assert ann.start_sessions("bob", replace(good, one_time_prekey=Prekey(0, b""))).status == Status.OK
    assert ann.encrypt("bob", b"").data[1:2] != b"\x08"  # no one-time id is named
    assert send(ann, bob, b"without").events == Event.NEW_SESSION


def test_a_base_key_of_low_order_or_not_canonical_spends_nothing() -> None:
    ann, bob = pair()
    first = ann.encrypt("bob", b"1")
    fields = list(read_protobuf(first.data[1:]))
    base = dict(fields)[2]
    assert isinstance(base, bytes)
    before = bob.world.digest()
    for key in [base[:32] + bytes([base[32] | 0x80]), *(b"\x05" + point for point in low_order_points())]:
        forged = [(n, key if n == 2 else v) for n, v in fields]
        assert bob.decrypt("ann", "pkmsg", b"\x33" + write_protobuf(forged)).status == Status.INVALID
    assert bob.world.digest() == before
    assert deliver(ann, bob, first).status == Status.OK


def test_message_padding() -> None:
    ann, bob = pair(padding=True)
    lengths = set()
    for i in range(40):
        sent = ann.encrypt("bob", b"x" * i)
        assert deliver(ann, bob, sent).data == b"x" * i
        lengths.add((len(sent.data), i))
    plain = world(2)
    cay = plain.account("cay", create=True)
    cay.start_sessions("bob", bob.prekeys(1).bundles()[0])
    unpadded = cay.encrypt("bob", b"no padding")
    assert bob.decrypt("cay", unpadded.kind, unpadded.data).status == Status.INVALID
    sixteen = cay.encrypt("bob", b"sixteen" + b"\x10" * 16)  # one deployed sender emits it
    assert bob.decrypt("cay", sixteen.kind, sixteen.data).data == b"sixteen"


def test_limits_of_a_sender() -> None:
    ann, bob = pair()
    assert ann.encrypt("nobody", b"").status == Status.NO_SESSION
    assert ann.encrypt("bob", bytes(reference.MAX_PLAINTEXT + 1)).status == Status.TOO_LONG
    peer = ann.peer("bob")
    assert peer.current is not None
    last = replace(peer.current, sending=replace(peer.current.sending, index=LAST_COUNTER))
    ann.peer_records["bob"] = replace(peer, current=last)
    assert ann.encrypt("bob", b"").status == Status.EXHAUSTED
    assert bob.decrypt("nobody", "msg", ann.encrypt("bob", b"").data).status == Status.INVALID


def test_a_message_without_a_session() -> None:
    ann, bob = pair()
    raw = dict(read_protobuf(ann.encrypt("bob", b"").data[1:]))[4]
    assert isinstance(raw, bytes)
    assert bob.decrypt("ann", "msg", raw).status == Status.NO_SESSION
    assert bob.decrypt("ann", "msg", raw[1:]).status == Status.INVALID


# --- Groups -------------------------------------------------------------------------------------------------


def members() -> tuple[reference.Group, reference.Group]:
    both = world()
    return (both.account("ann", create=True).group("g"), both.account("bob", create=True).group("g"))


def test_a_group_message() -> None:
    ann, bob = members()
    assert ann.encrypt(b"").status == Status.NO_SENDER_KEY
    distribution = ann.distribute()
    assert ann.distribute().data == distribution.data
    sent = [ann.encrypt(b"%d" % i) for i in range(4)]
    assert bob.decrypt("ann", sent[0].data).status == Status.NO_SENDER_KEY
    assert bob.accept("ann", distribution.data).status == Status.OK
    assert bob.decrypt("bob", sent[0].data).status == Status.NO_SENDER_KEY
    assert [bob.decrypt("ann", sent[i].data).data for i in (2, 0, 3, 1)] == [b"2", b"0", b"3", b"1"]
    assert bob.decrypt("ann", sent[2].data).status == Status.DUPLICATE
    # A late member starts where the chain stands.
    cay = ann.account.world.account("cay", create=True).group("g")
    cay.accept("ann", ann.distribute().data)
    assert cay.decrypt("ann", sent[3].data).status == Status.DUPLICATE
    assert cay.decrypt("ann", ann.encrypt(b"now").data).data == b"now"


def test_a_group_frame_byte_for_byte() -> None:
    ann, _ = members()
    distribution = SenderKeyDistributionMessage.parse(ann.distribute().data)
    assert distribution.id < 1 << 31
    assert distribution.iteration == 0
    sent = ann.encrypt(b"").data
    fields = list(read_protobuf(sent[1:-64]))
    assert [n for n, _ in fields] == [1, 2, 3]
    assert fields[:2] == [(1, distribution.id), (2, 0)]
    assert reference.verify(distribution.signing_key, sent[:-64], sent[-64:])


def test_the_signature_is_checked_before_the_chain_is_touched() -> None:
    ann, bob = members()
    bob.accept("ann", ann.distribute().data)
    sent = [ann.encrypt(b"%d" % i).data for i in range(3)]
    far = [(n, 99_999 if n == 2 else v) for n, v in read_protobuf(sent[1][1:-64])]
    assert bob.decrypt("ann", b"\x33" + write_protobuf(far) + sent[1][-64:]).status == Status.INVALID
    for at in range(len(sent[0])):
        damaged = sent[0][:at] + bytes([sent[0][at] ^ 1]) + sent[0][at + 1 :]
        assert bob.decrypt("ann", damaged).status in (Status.INVALID, Status.NO_SENDER_KEY)
    assert [bob.decrypt("ann", frame).data for frame in sent] == [b"0", b"1", b"2"]


def test_repeated_and_replaced_distributions() -> None:
    ann, bob = members()
    distribution = ann.distribute().data
    bob.accept("ann", distribution)
    first, second = ann.encrypt(b"1").data, ann.encrypt(b"2").data
    assert bob.decrypt("ann", second).data == b"2"
    bob.accept("ann", distribution)  # no reset: the late frame still opens, the seen one does not
    assert bob.decrypt("ann", second).status == Status.DUPLICATE
    assert bob.decrypt("ann", first).data == b"1"
    fields = [(n, KeyPair.of(SEED).public if n == 4 else v) for n, v in read_protobuf(distribution[1:])]
    bob.accept("ann", b"\x33" + write_protobuf(fields))
    assert bob.decrypt("ann", first).status == Status.INVALID
    assert len(bob.account.sender_keys["g", "ann"].states) == 1


def test_five_sender_key_states() -> None:
    ann, bob = members()
    late = []
    for i in range(6):
        ann.rotate()
        bob.accept("ann", ann.distribute().data)
        late.append(ann.encrypt(b"%d" % i).data)
    assert bob.decrypt("ann", late[0]).status == Status.NO_SENDER_KEY
    assert [bob.decrypt("ann", frame).data for frame in late[1:]] == [b"1", b"2", b"3", b"4", b"5"]


@pytest.mark.parametrize("iteration", [2_000, 2_001])
def test_the_jump_limit_of_a_sender_key(iteration: int) -> None:
    ann, bob = members()
    bob.accept("ann", ann.distribute().data)
    own = ann.account.own_sender_keys
    chain = own["g"].chain
    while chain.index < iteration:
        chain = chain.next()
    own["g"] = replace(own["g"], chain=chain)
    expected = Status.OK if iteration == 2_000 else Status.TOO_FAR_AHEAD
    assert bob.decrypt("ann", ann.encrypt(b"").data).status == expected


# --- Randomness ---------------------------------------------------------------------------------------------


def test_every_row_of_a_drawing_call_counts() -> None:
    one = world()
    ann = one.account("ann", create=True)
    assert one.randomness.rows == 1
    upload = ann.prekeys(3)
    assert one.randomness.rows == 5
    ann.prekeys(2)
    assert one.randomness.rows == 7
    ann.prekeys(0, rotate=True)
    assert one.randomness.rows == 8
    bob = one.account("bob", create=True)
    bob.start_sessions("ann", upload.bundle())
    bob.start_sessions("ann", replace(upload.bundle(), identity=b""))
    assert one.randomness.rows == 11
    frame = bob.encrypt("ann", b"").data
    assert one.randomness.rows == 11
    ann.decrypt("bob", "pkmsg", frame)
    ann.decrypt("bob", "pkmsg", b"")
    assert one.randomness.rows == 13
    group = ann.group("g")
    group.encrypt(b"")
    group.distribute()
    group.distribute()
    group.encrypt(b"")
    group.rotate()
    assert one.randomness.rows == 17
    one.unknown_handle("decrypt")
    one.unknown_handle("encrypt")
    assert one.randomness.rows == 18


def test_the_same_seed_gives_the_same_frames() -> None:
    def frames() -> list[bytes]:
        ann, bob = pair()
        first = ann.encrypt("bob", b"")
        deliver(ann, bob, first)
        group = ann.group("g")
        return [first.data, bob.encrypt("ann", b"").data, group.distribute().data, group.encrypt(b"").data]

    assert frames() == frames()


def test_an_imported_account_is_the_same_account() -> None:
    ann, bob = pair()
    first = ann.encrypt("bob", b"for the one that moved")
    moved = world(3).import_account(
        "bob",
        identity_private=bob.identity_pair.private,
        registration_id=bob.registration_id,
        signed_prekeys=[(id_, pair.private, signature) for id_, (pair, signature) in bob.signed.items()],
        one_time_prekeys=[(id_, pair.private) for id_, pair in bob.one_time.items()],
    )
    assert moved.state() == bob.state()
    assert moved.decrypt("ann", first.kind, first.data).data == b"for the one that moved"
    assert moved.prekeys(1).one_time_prekeys[0].id == 7
