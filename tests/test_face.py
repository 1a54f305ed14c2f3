"""Accounts and groups by name: what the face adds to the engine's handles."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import interlane
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from interlane import Event, MalformedCall, Status

RAW = serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()


@pytest.fixture
def engine() -> Iterator[interlane.Engine]:
    with interlane.open(":memory:", threads=1) as engine:
        yield engine


def acquaint(sender: interlane.Account, *receivers: interlane.Account) -> None:
    """Sessions from `sender` to accounts, each known by its name."""
    names = [receiver.name for receiver in receivers]
    bundles = [next(receiver.prekeys(1).bundles()) for receiver in receivers]
    assert sender.start_sessions(names, bundles).ok.all()


def public(private: bytes) -> bytes:
    key = X25519PrivateKey.from_private_bytes(private).public_key()
    return b"\5" + key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def test_accounts_come_and_go(engine: interlane.Engine) -> None:
    a, b = engine.account("a", create=True), engine.account("b", create=True)
    assert engine.account("a", create=True).identity == engine.account("a").identity == a.identity
    assert (a.name, len(a.identity), a.identity[0]) == ("a", 33, 5)
    assert a.identity != b.identity
    assert engine.accounts() == ["a", "b"]
    engine.delete_account("a")
    assert engine.accounts() == ["b"]
    with pytest.raises(interlane.UnknownAccount):
        engine.account("a")
    with pytest.raises(interlane.UnknownAccount):
        engine.delete_account("a")
    with pytest.raises(MalformedCall, match="deleted"):
        a.prekeys(1)
    assert engine.account("a", create=True).identity != a.identity


def test_one_account_made_by_many_threads(engine: interlane.Engine) -> None:
    identities: list[bytes] = []
    barrier = threading.Barrier(8)

    def make() -> None:
        barrier.wait()
        identities.append(engine.account("a", create=True).identity)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(identities) == 8
    assert len(set(identities)) == 1


def test_an_upload(engine: interlane.Engine) -> None:
    desk = engine.account("desk", create=True)
    upload = desk.prekeys(one_time=5)
    assert (upload.registration_id, upload.identity) == (desk.registration_id, desk.identity)
    assert len(upload.one_time_prekeys) == desk.stock == 5
    assert all(len(prekey.public) == 33 for prekey in upload.one_time_prekeys)
    assert [bundle.one_time_prekey for bundle in upload.bundles()] == upload.one_time_prekeys
    assert upload.bundle().one_time_prekey is None
    again = desk.prekeys(one_time=2)
    assert again.signed_prekey == upload.signed_prekey
    assert again.one_time_prekeys[0].id > upload.one_time_prekeys[-1].id
    assert desk.stock == 7
    rotated = desk.prekeys(0, rotate=True).signed_prekey
    assert rotated.id > upload.signed_prekey.id
    assert rotated.public != upload.signed_prekey.public
    with pytest.raises(MalformedCall):
        desk.prekeys(10**6)


def test_an_identity_moves_in(engine: interlane.Engine) -> None:
    identity, signed, one_time = (X25519PrivateKey.generate().private_bytes(*RAW) for _ in range(3))
    moved = engine.import_account(
        "moved",
        identity_private=identity,
        registration_id=77,
        signed_prekeys=[{"id": 5, "private": signed}],
        one_time_prekeys=[{"id": 9, "private": one_time}],
    )
    assert (moved.identity, moved.registration_id, moved.stock) == (public(identity), 77, 1)
    upload = moved.prekeys(1)
    assert (upload.signed_prekey.id, upload.signed_prekey.public) == (5, public(signed))
    assert upload.one_time_prekeys[0].id > 9
    bundle = interlane.Bundle(77, moved.identity, upload.signed_prekey, interlane.Prekey(9, public(one_time)))
    peer = engine.account("peer", create=True)
    assert peer.start_sessions(["moved"], [bundle]).ok.all()
    sent = peer.encrypt(["moved"], [b"hello"])
    got = moved.decrypt(["peer"], sent.kinds, sent.tolist())[0]
    assert (got.status, got.data) == (Status.OK, b"hello")
    assert Event.PREKEY_CONSUMED in got.events


def test_an_import_that_is_wrong(engine: interlane.Engine) -> None:
    good = {
        "identity_private": bytes(32),
        "registration_id": 1,
        "signed_prekeys": [{"id": 1, "private": bytes(32)}],
    }
    for changes, text in (
        ({"identity_private": b"short"}, "identity_private: 5 bytes; give 32"),
        ({"signed_prekeys": [{"id": 1}]}, "prekeys: KeyError"),
        ({"signed_prekeys": [{"id": 1, "private": b""}]}, "private: 0 bytes; give 32"),
        (
            {"signed_prekeys": [{"id": 1, "private": bytes(32), "signature": b"x"}]},
            "signature: 1 bytes; give 64",
        ),
        ({"one_time_prekeys": [5]}, "prekeys: TypeError"),
    ):
        with pytest.raises(MalformedCall, match=text):
            engine.import_account("moved", **{**good, **changes})
    assert engine.accounts() == []


def test_peers_trust_and_forget(engine: interlane.Engine) -> None:
    desk, ann = engine.account("desk", create=True), engine.account("ann", create=True)
    acquaint(desk, ann)
    assert desk.peers() == [interlane.Peer("ann", ann.identity, True, True, 0)]
    sent = desk.encrypt(["ann"], [b"hello"])
    assert ann.decrypt(["desk"], sent.kinds, sent.tolist()).tolist() == [b"hello"]
    back = ann.encrypt(["desk"], [b"hi"])
    assert desk.decrypt(["ann"], "msg", back.tolist()).tolist() == [b"hi"]
    assert not desk.peers()[0].pending
    assert desk.forget(["ann"]).ok.all()
    assert desk.peers() == [interlane.Peer("ann", ann.identity, False, False, 0)]
    assert desk.encrypt(["ann"], [b"hello"])[0].status is Status.NO_SESSION
    other = engine.account("other", create=True).identity
    assert desk.trust(["ann"], [other]).ok.all()
    assert desk.peers()[0].identity == other
    with pytest.raises(MalformedCall, match="33 bytes"):
        desk.trust(["ann"], [other[1:]])


class Family:
    """One account that sends to a group, and some that are in it."""

    def __init__(self, engine: interlane.Engine, members: int) -> None:
        self.desk = engine.account("desk", create=True)
        self.members = [engine.account(f"member-{i}", create=True) for i in range(members)]
        self.names = [member.name for member in self.members]
        acquaint(self.desk, *self.members)
        self.group = self.desk.group("family")

    def deliver(self, fan: interlane.Fan) -> list[bytes]:
        """What each member reads, after the distributions reached those that they are for."""
        by_name = dict(zip(self.names, self.members, strict=True))
        for device, row in zip(fan.devices, fan.distributions, strict=True):
            member = by_name[device]
            message = member.decrypt(["desk"], row.kind, [row.data])
            assert message.ok.all()
            assert member.group("family").accept(["desk"], message.tolist()).ok.all()
        frame = fan.message.tolist()
        return [
            row.data for member in self.members for row in member.group("family").decrypt(["desk"], frame)
        ]


def test_a_fan_serves_those_that_lack_the_key(engine: interlane.Engine) -> None:
    family = Family(engine, 3)
    first = family.group.encrypt(b"one", family.names[:2])
    assert first.devices == family.names[:2]
    assert family.deliver(first) == [b"one", b"one", b""]
    # The third joins: it alone is served.
    second = family.group.encrypt(b"two", family.names)
    assert second.devices == family.names[2:]
    assert family.deliver(second) == [b"two"] * 3
    third = family.group.encrypt(b"three", family.names)
    assert (third.devices, len(third.distributions)) == ([], 0)
    assert family.deliver(third) == [b"three"] * 3
    # A member leaves: everyone else gets a new key, and the one who left cannot read on.
    family.group.rotate()
    fourth = family.group.encrypt(b"four", family.names[1:])
    assert fourth.devices == family.names[1:]
    assert family.deliver(fourth) == [b"", b"four", b"four"]


def test_a_device_that_could_not_be_served_still_lacks_the_key(engine: interlane.Engine) -> None:
    family = Family(engine, 1)
    stranger = engine.account("stranger", create=True)
    fan = family.group.encrypt(b"one", ["stranger", *family.names])
    assert [row.status for row in fan.distributions] == [Status.NO_SESSION, Status.OK]
    acquaint(family.desk, stranger)
    assert family.group.encrypt(b"two", ["stranger", *family.names]).devices == ["stranger"]


def test_a_fan_wraps_the_distribution(engine: interlane.Engine) -> None:
    family = Family(engine, 1)
    wrapped: list[bytes] = []

    def wrap(message: bytes) -> bytes:
        wrapped.append(b"<" + message + b">")
        return wrapped[-1]

    fan = family.group.encrypt(b"one", family.names, wrap=wrap)
    row = fan.distributions[0]
    assert family.members[0].decrypt(["desk"], row.kind, [row.data]).tolist() == wrapped
    family.group.encrypt(b"nobody lacks it", family.names, wrap=wrap)
    assert len(wrapped) == 1
    accepted = family.members[0].group("family").accept(["desk"], [wrapped[0][1:-1]])
    assert accepted.ok.all()
    assert family.members[0].group("family").decrypt(["desk"], fan.message.tolist()).tolist() == [b"one"]

    def fails(_: bytes) -> bytes:
        raise RuntimeError("no")

    family.group.rotate()
    with pytest.raises(RuntimeError):
        family.group.encrypt(b"two", family.names, wrap=fails)
    # Nothing was sent, so nobody holds the key.
    assert family.group.encrypt(b"two", family.names).devices == family.names
    with pytest.raises(MalformedCall, match="wrap is for the devices"):
        family.group.encrypt([b"x"], wrap=fails)
    with pytest.raises(MalformedCall, match="there is one message"):
        family.group.encrypt([b"x"], family.names)


def test_fans_and_rotations_from_many_threads(engine: interlane.Engine) -> None:
    """Whoever is thought to hold the key holds it, after any mixture of fans and rotations."""
    family = Family(engine, 4)
    fans: list[interlane.Fan] = []

    def send() -> None:
        for i in range(40):
            if i % 5 == 4:
                family.desk.group("family").rotate()
            fans.append(family.group.encrypt(b"text", family.names))

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(fan.message.ok.all() for fan in fans)
    # Distributions first, in any order of the fans; then the last message.
    for fan in fans:
        family.deliver(fan)
    assert family.deliver(family.group.encrypt(b"the last", family.names)) == [b"the last"] * 4


def test_rows_for_a_group(engine: interlane.Engine) -> None:
    family = Family(engine, 2)
    assert [row.status for row in family.group.encrypt([b"early"])] == [Status.NO_SENDER_KEY]
    message = family.group.distribute()
    for member in family.members:
        assert member.group("family").accept(["desk"], [message]).ok.all()
    sent = family.group.encrypt([b"a", b"b", b"c"])
    got = family.members[0].group("family").decrypt(["desk"] * 3, sent.data, sent.offsets)
    assert got.tolist() == [b"a", b"b", b"c"]
    again = family.group.encrypt(b"de", sent.offsets[:3] // sent.offsets[1], offsets=None)
    assert family.members[0].group("family").decrypt(["desk"] * 2, again.tolist()).tolist() == [b"d", b"e"]
    late = family.members[1].group("family").decrypt(["desk"] * 2, again.tolist())
    assert late.tolist() == [b"d", b"e"]
