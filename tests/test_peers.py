"""The live matrix: interlane and deployed implementations, each its own process, in both roles.

What is expected of ours is what the protocol asks. What a deployed peer does otherwise is written down as its
trait (``TRAITS`` and the sets below it), so that a test says whose fault it allows for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random

import pytest
from conftest import LivePeers
from peers.frames import (
    authenticated_bits,
    counter,
    flipped,
    iteration,
    message_fields,
    ratchet_key,
    regions,
)
from peers.harness import OURS, Frame, Peer, Refused
from peers.history import History, Side, Traits
from peers.setup import FOREIGN

# A damaged first frame makes them store a wrong identity, and then the true one is not trusted any more.
MESSAGES = frozenset({"msg"})
TRAITS: dict[str, Traits] = {
    OURS: Traits(duplicate="DUPLICATE"),
    "libsignal_client": Traits(damage=MESSAGES),
    # A frame for an older session leaves a ratchet step in the current one; a changed version byte passes.
    "baileys": Traits(damage=MESSAGES, version=False, crossing=False),
    "go": Traits(damage=MESSAGES, version=False, crossing=False),
    # It stores the session that a refused frame has changed.
    "rust_bridge": Traits(damage=frozenset(), stale=False, crossing=False),
}
THEIRS = sorted(FOREIGN)
IN_GROUPS = [name for name in THEIRS if name != "libsignal_client"]
MIXED_PAIRS = [(name, OURS) for name in THEIRS] + [(OURS, name) for name in THEIRS] + [(OURS, OURS)]
FOREIGN_PAIRS = [(one, two) for one in THEIRS for two in THEIRS]
GROUP_PAIRS = [(name, OURS) for name in IN_GROUPS] + [(OURS, name) for name in IN_GROUPS] + [(OURS, OURS)]
FOREIGN_GROUP_PAIRS = [(one, two) for one in IN_GROUPS for two in IN_GROUPS]

# Sender-key iterations of this peer go 0, 2, 4, ….
ITERATION_STEPS = {"baileys": 2}
FORWARD_JUMP_MAX = 2000
# The smallest jump that some deployed peer refuses is one more.
FORWARD_JUMP_MAX_ANYWHERE = 1999
SENDER_KEY_STATES_MAX = 5
HISTORY_STEPS = 300
MEBIBYTE = 1 << 20
PEER_BENCHES = [(name, work) for name in THEIRS for work in ("encrypt/warm", "decrypt/warm", "setup", "turn")]
PEER_BENCHES += [(name, work) for name in IN_GROUPS for work in ("group/open", "group/send")]
MALFORMED = [
    b"not json",
    b"[]",
    b"{}",
    b'{"op":"no such"}',
    b'{"op":"encrypt","who":"nobody"}',
    b'{"op":"start"}',
]

_names = count()

MakeSide = Callable[[str], Side]
# Who sent it, the frame, and what it must give: the plaintext, or the status.
Row = tuple[Side, Frame, bytes | str]


@pytest.fixture
def side(live: LivePeers) -> MakeSide:
    """Makes a fresh party at the peer of that name."""
    return lambda name: Side(live[name], f"party{next(_names)}@s.whatsapp.net", TRAITS[name])


@pytest.fixture
def ours_on_disk(live: LivePeers, tmp_path: Path) -> Iterator[Peer]:
    live.require(OURS)
    with Peer(OURS, tmp_path / "gateway.db") as peer:
        yield peer


def connect(starter: Side, responder: Side) -> None:
    """A session between the two that is acknowledged both ways."""
    starter.start(responder)
    pass_on(starter, responder, b"first")
    pass_on(responder, starter, b"answer")


def pass_on(sender: Side, receiver: Side, plaintext: bytes) -> Frame:
    frame = sender.send(receiver, plaintext)
    assert receiver.open(sender, frame) == plaintext
    return frame


def assert_refused(receiver: Side, sender: Side, frame: Frame, status: str) -> None:
    """``status`` is what ours must answer; of the others a refusal is all that is asked."""
    refusal = receiver.refusal(sender, frame)
    assert refusal is not None
    if receiver.peer.name == OURS:
        assert refusal == status


def assert_duplicate(receiver: Side, sender: Side, frame: Frame) -> None:
    assert_refused(receiver, sender, frame, "DUPLICATE")


# Sessions


@pytest.mark.parametrize("one_time", [True, False], ids=["one-time prekey", "no one-time prekey"])
@pytest.mark.parametrize(("starter", "responder"), MIXED_PAIRS + FOREIGN_PAIRS)
def test_conversation(side: MakeSide, starter: str, responder: str, one_time: bool) -> None:
    anna, boris = side(starter), side(responder)
    anna.start(boris, one_time=one_time)
    first = [anna.send(boris, b"%d" % n) for n in range(3)]
    assert [frame.kind for frame in first] == ["pkmsg"] * 3, (
        "until an answer comes, every frame can start the session"
    )
    assert [boris.open(anna, frame) for frame in first] == [b"0", b"1", b"2"]

    for turn in range(4):
        assert pass_on(boris, anna, b"answer %d" % turn).kind == "msg"
        for n in range(turn + 1):
            assert pass_on(anna, boris, b"%d of turn %d" % (n, turn)).kind == "msg"


@pytest.mark.parametrize(("starter", "responder"), MIXED_PAIRS)
def test_plaintexts_of_every_size(side: MakeSide, starter: str, responder: str) -> None:
    anna, boris = side(starter), side(responder)
    connect(anna, boris)
    content = Random(1)
    for size in [0, 1, 15, 16, 17, 255, 256, 4096, 65_537, MEBIBYTE]:
        pass_on(anna, boris, content.randbytes(size))
        pass_on(boris, anna, content.randbytes(size))


@pytest.mark.parametrize(("starter", "responder"), MIXED_PAIRS + FOREIGN_PAIRS)
def test_loss_and_reorder(side: MakeSide, starter: str, responder: str) -> None:
    anna, boris = side(starter), side(responder)
    anna.start(boris)
    # The first frame that arrives is the fourth; the session is built from it all the same.
    frames = [anna.send(boris, b"%d" % n) for n in range(8)]
    for n in (3, 7, 0, 5):
        assert boris.open(anna, frames[n]) == b"%d" % n
    late = frames[1]
    for turn in range(3):
        answers = [boris.send(anna, b"%d" % n) for n in range(6)]
        frames = [anna.send(boris, b"%d" % n) for n in range(6)] if turn else frames[:0]
        for n in (5, 1, 3):
            assert anna.open(boris, answers[n]) == b"%d" % n
        for n in (4, 2) if frames else ():
            assert boris.open(anna, frames[n]) == b"%d" % n
        pass_on(anna, boris, b"on the new chain")
        assert anna.open(boris, answers[0]) == b"0", "late, and of a chain that is not the newest"
    # Chains seen by now: the first, and three more. It is still among the five that are kept.
    assert boris.open(anna, late) == b"1"


@pytest.mark.parametrize(("starter", "responder"), MIXED_PAIRS + FOREIGN_PAIRS)
def test_duplicates(side: MakeSide, starter: str, responder: str) -> None:
    anna, boris = side(starter), side(responder)
    anna.start(boris)
    skipped = anna.send(boris, b"skipped")
    first = pass_on(anna, boris, b"first")
    assert_duplicate(boris, anna, first)
    assert boris.open(anna, skipped) == b"skipped"
    assert_duplicate(boris, anna, skipped)

    answer = pass_on(boris, anna, b"answer")
    assert_duplicate(anna, boris, answer)
    later = pass_on(anna, boris, b"on a new chain")
    pass_on(boris, anna, b"and back")
    for frame in (first, skipped, later):
        assert_duplicate(boris, anna, frame)
    assert_duplicate(anna, boris, answer)
    pass_on(anna, boris, b"after all that")
    pass_on(boris, anna, b"in both directions")


@pytest.mark.parametrize("name", THEIRS)
def test_second_user_of_a_one_time_prekey(side: MakeSide, name: str) -> None:
    for responder, starter in ((side(OURS), side(name)), (side(name), side(OURS))):
        other = Side(starter.peer, f"other-{starter.who}", starter.traits)
        bundle = responder.peer.bundle(responder.who)
        starter.peer.start(starter.who, responder.who, bundle)
        other.peer.start(other.who, responder.who, bundle)
        pass_on(starter, responder, b"it has used the prekey up")
        assert_refused(responder, other, other.send(responder, b"too late"), "NO_PREKEY")
        pass_on(responder, starter, b"and this session lives")


@pytest.mark.parametrize("name", THEIRS)
def test_bundle_with_a_bad_signature(side: MakeSide, name: str) -> None:
    ours, theirs = side(OURS), side(name)
    bundle = theirs.peer.bundle(theirs.who)
    bundle["signed_prekey"]["signature"] = flipped(bundle["signed_prekey"]["signature"], 77)
    with pytest.raises(Refused, match=r"^INVALID_BUNDLE$"):
        ours.peer.start(ours.who, theirs.who, bundle)
    with pytest.raises(Refused, match=r"^NO_SESSION$"):
        ours.send(theirs, b"there is nobody to send it to")


@pytest.mark.parametrize("name", THEIRS)
def test_frames_without_a_session(side: MakeSide, name: str) -> None:
    ours, theirs, stranger = side(OURS), side(name), side(name)
    connect(theirs, ours)
    frame = theirs.send(ours, b"from another")
    assert ours.refusal(stranger, frame) == "NO_SESSION"
    with pytest.raises(Refused, match=r"^NO_SESSION$"):
        ours.send(stranger, b"never started")
    assert ours.open(theirs, frame) == b"from another"


# Damage


def first_frame(theirs: Side, ours: Side) -> Frame:
    theirs.start(ours)
    return theirs.send(ours, b"true")


def first_frame_without_one_time_prekey(theirs: Side, ours: Side) -> Frame:
    theirs.start(ours, one_time=False)
    return theirs.send(ours, b"true")


def later_first_frame(theirs: Side, ours: Side) -> Frame:
    theirs.start(ours)
    pass_on(theirs, ours, b"first")
    return theirs.send(ours, b"true")


def frame_of_a_new_chain(theirs: Side, ours: Side) -> Frame:
    connect(theirs, ours)
    return theirs.send(ours, b"true")


def frame_of_a_known_chain(theirs: Side, ours: Side) -> Frame:
    connect(theirs, ours)
    pass_on(theirs, ours, b"before")
    return theirs.send(ours, b"true")


def skipped_frame(theirs: Side, ours: Side) -> Frame:
    connect(theirs, ours)
    frame = theirs.send(ours, b"true")
    pass_on(theirs, ours, b"after")
    pass_on(ours, theirs, b"answer")
    pass_on(theirs, ours, b"on a new chain")
    return frame


SITUATIONS = [
    first_frame,
    first_frame_without_one_time_prekey,
    later_first_frame,
    frame_of_a_new_chain,
    frame_of_a_known_chain,
    skipped_frame,
]


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
@pytest.mark.parametrize("name", THEIRS)
def test_every_flipped_bit_is_refused(
    side: MakeSide, name: str, situation: Callable[[Side, Side], Frame]
) -> None:
    theirs, ours = side(name), side(OURS)
    frame = situation(theirs, ours)
    bits = authenticated_bits(frame, known_session=situation is later_first_frame)
    damaged = [(theirs.who, Frame(frame.kind, flipped(frame.data, bit))) for bit in bits]
    answers = ours.peer.decrypt_many(ours.who, damaged)
    opened = [bit for bit, answer in zip(bits, answers, strict=True) if isinstance(answer, bytes)]
    assert not opened, f"opened with these bits turned over: {opened} of {regions(frame)}"
    assert ours.open(theirs, frame) == b"true", "the true frame opens after any number of damaged ones"
    assert ours.refusal(theirs, frame) == "DUPLICATE"
    pass_on(ours, theirs, b"and the session goes on")
    pass_on(theirs, ours, b"in both directions")


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
@pytest.mark.parametrize("name", THEIRS)
def test_truncated_and_lengthened_frames_are_refused(
    side: MakeSide, name: str, situation: Callable[[Side, Side], Frame]
) -> None:
    theirs, ours = side(name), side(OURS)
    frame = situation(theirs, ours)
    kinds = [frame.kind, "pkmsg" if frame.kind == "msg" else "msg"]
    shortened = [Frame(frame.kind, frame.data[:size]) for size in range(_sure_size(frame))]
    lengthened = [Frame(frame.kind, frame.data + bytes(size)) for size in (1, 8, 1000)]
    foreign = [
        Frame(kind, data) for kind in kinds for data in (b"", b"\x33", bytes(100), Random(2).randbytes(300))
    ]
    wrong_kind = [Frame(kinds[1], frame.data)]
    answers = ours.peer.decrypt_many(
        ours.who, [(theirs.who, damaged) for damaged in shortened + lengthened + foreign + wrong_kind]
    )
    assert all(isinstance(answer, Refused) for answer in answers)
    assert ours.open(theirs, frame) == b"true"


def _sure_size(frame: Frame) -> int:
    """The bytes without which a frame cannot be whole: the registration id comes after them, and may lack."""
    return regions(frame)["mac"].stop


# What these do with a damaged frame is a known fault of theirs: they lose the true one.
LOSES_THE_TRUE_FRAME = {"rust_bridge"}


@pytest.mark.parametrize("name", THEIRS)
def test_damaged_frames_at_theirs(side: MakeSide, name: str) -> None:
    """Whether they hold our frames to be what they are: a frame of ours that was damaged does not open."""
    theirs, ours = side(name), side(OURS)
    connect(ours, theirs)
    for region in ("ratchet_key", "counter", "ciphertext", "mac"):
        frame = ours.send(theirs, b"true")
        damaged = Frame(frame.kind, flipped(frame.data, 8 * regions(frame)[region][-1]))
        assert theirs.refusal(ours, damaged) is not None, region
        if name not in LOSES_THE_TRUE_FRAME:
            assert theirs.open(ours, frame) == b"true"


# Starting twice


@pytest.mark.parametrize(("one", "two"), MIXED_PAIRS)
def test_both_start(side: MakeSide, one: str, two: str) -> None:
    anna, boris = side(one), side(two)
    anna.start(boris)
    boris.start(anna)
    of_anna, of_boris = anna.send(boris, b"from anna"), boris.send(anna, b"from boris")
    assert boris.open(anna, of_anna) == b"from anna"
    assert anna.open(boris, of_boris) == b"from boris"
    _converge(anna, boris)


@pytest.mark.parametrize(("one", "two"), MIXED_PAIRS)
def test_both_start_and_send_more_before_anything_arrives(side: MakeSide, one: str, two: str) -> None:
    anna, boris = side(one), side(two)
    anna.start(boris)
    boris.start(anna)
    of_anna = [anna.send(boris, b"anna %d" % n) for n in range(3)]
    of_boris = [boris.send(anna, b"boris %d" % n) for n in range(3)]
    for n in (1, 0, 2):
        assert anna.open(boris, of_boris[n]) == b"boris %d" % n
    for n in (2, 0, 1):
        assert boris.open(anna, of_anna[n]) == b"anna %d" % n
    _converge(anna, boris)


def _converge(anna: Side, boris: Side) -> None:
    """Messages get through both ways; where a peer's sessions stay apart, a new start repairs that."""
    try:
        for turn in range(3):
            pass_on(anna, boris, b"anna %d" % turn)
            pass_on(boris, anna, b"boris %d" % turn)
    except Refused:
        assert not (anna.traits.crossing and boris.traits.crossing), "these two must converge by themselves"
        ours, theirs = (anna, boris) if anna.peer.name == OURS else (boris, anna)
        ours.start(theirs)
        for turn in range(3):
            pass_on(ours, theirs, b"ours %d" % turn)
            pass_on(theirs, ours, b"theirs %d" % turn)


@pytest.mark.parametrize("name", THEIRS)
def test_they_start_again_and_late_frames_of_the_old_session_arrive(side: MakeSide, name: str) -> None:
    theirs, ours = side(name), side(OURS)
    connect(theirs, ours)
    late = [theirs.send(ours, b"late %d" % n) for n in range(3)]
    theirs.start(ours)
    assert pass_on(theirs, ours, b"of the new session").kind == "pkmsg"
    for n in (1, 2, 0):
        assert ours.open(theirs, late[n]) == b"late %d" % n
        assert_duplicate(ours, theirs, late[n])
    # The old session was the last that opened a frame. Wherever that leaves theirs, a new start leads on.
    theirs.start(ours)
    for turn in range(3):
        pass_on(theirs, ours, b"theirs %d" % turn)
        pass_on(ours, theirs, b"ours %d" % turn)


@pytest.mark.parametrize("name", THEIRS)
def test_ours_starts_again_and_late_frames_of_the_old_session_arrive(side: MakeSide, name: str) -> None:
    theirs, ours = side(name), side(OURS)
    connect(ours, theirs)
    late = theirs.send(ours, b"late")
    ours.start(theirs)
    fresh = ours.send(theirs, b"of the new session")
    assert fresh.kind == "pkmsg"
    assert theirs.open(ours, fresh) == b"of the new session"
    assert ours.open(theirs, late) == b"late"
    answer = theirs.send(ours, b"answer in the new session")
    assert ours.open(theirs, answer) == b"answer in the new session"
    for turn in range(3):
        pass_on(ours, theirs, b"ours %d" % turn)
        pass_on(theirs, ours, b"theirs %d" % turn)


@pytest.mark.parametrize(("starter", "responder"), MIXED_PAIRS)
def test_two_unanswered_starts_opened_newest_first(side: MakeSide, starter: str, responder: str) -> None:
    anna, boris = side(starter), side(responder)
    anna.start(boris)
    older = anna.send(boris, b"older")
    anna.start(boris)
    newer = anna.send(boris, b"newer")
    assert boris.open(anna, newer) == b"newer"
    assert boris.open(anna, older) == b"older"


# Limits


@pytest.mark.parametrize("name", THEIRS)
def test_longest_jump_that_ours_takes(side: MakeSide, name: str) -> None:
    theirs, ours = side(name), side(OURS)
    connect(theirs, ours)
    pass_on(theirs, ours, b"counter 0")
    frames = [theirs.send(ours, b"%d" % n) for n in range(1, FORWARD_JUMP_MAX + 3)]
    assert [counter(frame) for frame in frames] == list(range(1, FORWARD_JUMP_MAX + 3))
    skipped, longest, too_far = frames[:-2], frames[-2], frames[-1]
    assert ours.refusal(theirs, too_far) == "TOO_FAR_AHEAD"
    assert ours.open(theirs, longest) == b"%d" % counter(longest)
    assert ours.open(theirs, too_far) == b"%d" % counter(too_far), "it is the next one now"
    # All 2,000 that were skipped are kept, and open in one call, in any order.
    Random(3).shuffle(skipped)
    answers = ours.peer.decrypt_many(ours.who, [(theirs.who, frame) for frame in skipped])
    assert answers == [b"%d" % counter(frame) for frame in skipped]
    pass_on(ours, theirs, b"answer")


@pytest.mark.parametrize("name", THEIRS)
def test_oldest_skipped_key_gives_way(side: MakeSide, name: str) -> None:
    theirs, ours = side(name), side(OURS)
    connect(theirs, ours)
    frames = [theirs.send(ours, b"%d" % n) for n in range(FORWARD_JUMP_MAX + 3)]
    assert ours.open(theirs, frames[FORWARD_JUMP_MAX]) == b"%d" % FORWARD_JUMP_MAX
    assert ours.open(theirs, frames[FORWARD_JUMP_MAX + 2]) == b"%d" % (FORWARD_JUMP_MAX + 2)
    assert ours.refusal(theirs, frames[0]) is not None, "one more was skipped than is kept"
    assert ours.open(theirs, frames[1]) == b"1"
    assert ours.open(theirs, frames[FORWARD_JUMP_MAX + 1]) == b"%d" % (FORWARD_JUMP_MAX + 1)


@pytest.mark.parametrize("name", THEIRS)
def test_jump_that_every_peer_takes_from_ours(side: MakeSide, name: str) -> None:
    theirs, ours = side(name), side(OURS)
    connect(ours, theirs)
    pass_on(ours, theirs, b"counter 0")
    rows = [(theirs.who, b"%d" % n) for n in range(1, FORWARD_JUMP_MAX_ANYWHERE + 2)]
    frames = ours.peer.encrypt_many(ours.who, rows)
    last = frames[-1]
    assert isinstance(last, Frame)
    assert counter(last) == FORWARD_JUMP_MAX_ANYWHERE + 1
    assert theirs.open(ours, last) == rows[-1][1]
    first = frames[0]
    assert isinstance(first, Frame)
    assert theirs.open(ours, first) == rows[0][1]


@pytest.mark.parametrize("name", THEIRS)
def test_five_receiving_chains_are_kept(side: MakeSide, name: str) -> None:
    theirs, ours = side(name), side(OURS)
    connect(theirs, ours)
    late = []
    for turn in range(6):
        late.append(theirs.send(ours, b"late %d" % turn))
        pass_on(theirs, ours, b"turn %d" % turn)
        pass_on(ours, theirs, b"answer %d" % turn)
    assert len({ratchet_key(frame) for frame in late}) == 6
    assert ours.refusal(theirs, late[0]) is not None, "its chain has given way"
    for turn in range(1, 6):
        assert ours.open(theirs, late[turn]) == b"late %d" % turn
    pass_on(theirs, ours, b"and the newest chain lives")


@pytest.mark.parametrize("name", THEIRS)
def test_what_ours_puts_on_the_wire(side: MakeSide, name: str) -> None:
    """The frame's form is exact, because one deployed receiver encodes it again before it checks the MAC."""
    theirs, ours = side(name), side(OURS)
    connect(theirs, ours)
    for turn in range(3):
        for n in range(3):
            frame = pass_on(ours, theirs, b"x")
            fields = message_fields(frame)
            assert list(fields) == ["ratchet_key", "counter", "previous_counter", "ciphertext"]
            assert frame.data[0] == 0x33
            assert counter(frame) == (n + 1 if turn == 0 else n), "connect() has sent the first"
            # The index of the last message of the chain before, which is 0 where there was none.
            assert fields["previous_counter"].value == (0 if turn == 0 else [3, 2][turn - 1])
        pass_on(theirs, ours, b"answer")


# Groups


@pytest.mark.parametrize(("sender", "member"), GROUP_PAIRS + FOREIGN_GROUP_PAIRS)
def test_group(side: MakeSide, sender: str, member: str) -> None:
    anna, boris = side(sender), side(member)
    group = "1203630@g.us"
    # As deployed: the distribution message travels inside a pairwise message.
    anna.start(boris)
    invitation = anna.send(boris, anna.peer.group_distribute(anna.who, group))
    boris.peer.group_accept(boris.who, anna.who, group, boris.open(anna, invitation))
    frames = [anna.peer.group_encrypt(anna.who, group, b"%d" % n) for n in range(6)]
    assert [iteration(frame) for frame in frames] == [n * ITERATION_STEPS.get(sender, 1) for n in range(6)]
    for n in (2, 0, 5, 3):
        assert boris.peer.group_decrypt(boris.who, anna.who, group, frames[n]) == b"%d" % n
    for n in (2, 0, 5):
        _assert_group_refused(boris, anna, group, frames[n], "DUPLICATE")
    for n in (1, 4):
        assert boris.peer.group_decrypt(boris.who, anna.who, group, frames[n]) == b"%d" % n


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 70_000])
@pytest.mark.parametrize(("sender", "member"), GROUP_PAIRS)
def test_group_plaintexts_of_every_size(side: MakeSide, sender: str, member: str, size: int) -> None:
    anna, boris = side(sender), side(member)
    _invite(anna, boris, "g@g.us")
    plaintext = Random(size).randbytes(size)
    frame = anna.peer.group_encrypt(anna.who, "g@g.us", plaintext)
    assert boris.peer.group_decrypt(boris.who, anna.who, "g@g.us", frame) == plaintext


@pytest.mark.parametrize(("sender", "member"), GROUP_PAIRS + FOREIGN_GROUP_PAIRS)
def test_late_member_reads_from_then_on(side: MakeSide, sender: str, member: str) -> None:
    anna, early, late = side(sender), side(member), side(member)
    _invite(anna, early, "g@g.us")
    before = [anna.peer.group_encrypt(anna.who, "g@g.us", b"before") for _ in range(3)]
    _invite(anna, late, "g@g.us")
    after = anna.peer.group_encrypt(anna.who, "g@g.us", b"after")
    assert late.peer.group_decrypt(late.who, anna.who, "g@g.us", after) == b"after"
    _assert_group_refused(late, anna, "g@g.us", before[-1], "DUPLICATE")
    assert early.peer.group_decrypt(early.who, anna.who, "g@g.us", after) == b"after"
    assert early.peer.group_decrypt(early.who, anna.who, "g@g.us", before[0]) == b"before"


@pytest.mark.parametrize(("sender", "member"), GROUP_PAIRS + FOREIGN_GROUP_PAIRS)
def test_rotation(side: MakeSide, sender: str, member: str) -> None:
    anna, boris, gone = side(sender), side(member), side(member)
    for other in (boris, gone):
        _invite(anna, other, "g@g.us")
    late = anna.peer.group_encrypt(anna.who, "g@g.us", b"late")
    anna.peer.group_rotate(anna.who, "g@g.us")
    _invite(anna, boris, "g@g.us")
    fresh = anna.peer.group_encrypt(anna.who, "g@g.us", b"fresh")
    _assert_group_refused(gone, anna, "g@g.us", fresh, "NO_SENDER_KEY")
    assert boris.peer.group_decrypt(boris.who, anna.who, "g@g.us", fresh) == b"fresh"
    assert boris.peer.group_decrypt(boris.who, anna.who, "g@g.us", late) == b"late", (
        "the old key is kept for late frames"
    )


@pytest.mark.parametrize("sender", IN_GROUPS)
def test_every_flipped_bit_of_a_group_frame_is_refused(side: MakeSide, sender: str) -> None:
    anna, ours = side(sender), side(OURS)
    _invite(anna, ours, "g@g.us")
    skipped = anna.peer.group_encrypt(anna.who, "g@g.us", b"skipped")
    opened = anna.peer.group_encrypt(anna.who, "g@g.us", b"true")
    assert ours.peer.group_decrypt(ours.who, anna.who, "g@g.us", opened) == b"true"
    ahead = anna.peer.group_encrypt(anna.who, "g@g.us", b"true")
    for frame in (skipped, ahead):
        for bit in range(8 * len(frame)):
            with pytest.raises(Refused):
                ours.peer.group_decrypt(ours.who, anna.who, "g@g.us", flipped(frame, bit))
        for size in range(len(frame)):
            with pytest.raises(Refused):
                ours.peer.group_decrypt(ours.who, anna.who, "g@g.us", frame[:size])
    assert ours.peer.group_decrypt(ours.who, anna.who, "g@g.us", ahead) == b"true"
    assert ours.peer.group_decrypt(ours.who, anna.who, "g@g.us", skipped) == b"skipped"


@pytest.mark.parametrize("name", IN_GROUPS)
def test_group_frames_of_the_wrong_sender(side: MakeSide, name: str) -> None:
    anna, other, ours = side(name), side(name), side(OURS)
    for sender in (anna, other):
        _invite(sender, ours, "g@g.us")
    frame = anna.peer.group_encrypt(anna.who, "g@g.us", b"anna's")
    _assert_group_refused(ours, other, "g@g.us", frame, "NO_SENDER_KEY")
    _assert_group_refused(ours, anna, "another@g.us", frame, "NO_SENDER_KEY")
    assert ours.peer.group_decrypt(ours.who, anna.who, "g@g.us", frame) == b"anna's"


@pytest.mark.parametrize("name", IN_GROUPS)
def test_longest_group_jump_that_ours_takes(side: MakeSide, name: str) -> None:
    anna, ours = side(name), side(OURS)
    _invite(anna, ours, "g@g.us")
    messages = FORWARD_JUMP_MAX // ITERATION_STEPS.get(name, 1) + 2
    frames = [anna.peer.group_encrypt(anna.who, "g@g.us", b"%d" % n) for n in range(messages)]
    longest, too_far = messages - 2, messages - 1
    assert iteration(frames[longest]) == FORWARD_JUMP_MAX
    _assert_group_refused(ours, anna, "g@g.us", frames[too_far], "TOO_FAR_AHEAD")
    for n in (longest, 0, too_far, 1, messages // 2):
        assert ours.peer.group_decrypt(ours.who, anna.who, "g@g.us", frames[n]) == b"%d" % n


@pytest.mark.parametrize("name", IN_GROUPS)
def test_group_from_ours_to_many_members(side: MakeSide, name: str) -> None:
    ours, members = side(OURS), [side(name) for _ in range(5)]
    for joined, member in enumerate(members):
        _invite(ours, member, "g@g.us")
        frame = ours.peer.group_encrypt(ours.who, "g@g.us", b"%d" % joined)
        for reader in members[: joined + 1]:
            assert reader.peer.group_decrypt(reader.who, ours.who, "g@g.us", frame) == b"%d" % joined


def _invite(sender: Side, member: Side, group: str) -> None:
    distribution = sender.peer.group_distribute(sender.who, group)
    member.peer.group_accept(member.who, sender.who, group, distribution)


def _assert_group_refused(member: Side, sender: Side, group: str, frame: bytes, status: str) -> None:
    with pytest.raises(Refused) as refused:
        member.peer.group_decrypt(member.who, sender.who, group, frame)
    if member.peer.name == OURS:
        assert str(refused.value) == status


# The store


@pytest.mark.parametrize("name", THEIRS)
def test_reopen_in_the_middle_of_a_conversation(side: MakeSide, ours_on_disk: Peer, name: str) -> None:
    theirs = side(name)
    ours = Side(ours_on_disk, f"desk-{name}", TRAITS[OURS])
    identity = ours_on_disk.party(ours.who)
    theirs.start(ours)
    ours_on_disk.reopen()
    first = pass_on(theirs, ours, b"the prekeys were kept")
    skipped = theirs.send(ours, b"skipped")
    pass_on(theirs, ours, b"one was skipped")
    ours_on_disk.reopen()
    assert ours_on_disk.party(ours.who) == identity
    for frame in (first,):
        assert_duplicate(ours, theirs, frame)
    late_answer = ours.send(theirs, b"late answer")
    ours_on_disk.reopen()
    assert ours.open(theirs, skipped) == b"skipped"
    pass_on(ours, theirs, b"answer")
    assert theirs.open(ours, late_answer) == b"late answer"
    ours_on_disk.reopen()
    pass_on(theirs, ours, b"on a new chain")
    if name in IN_GROUPS:
        _invite(theirs, ours, "g@g.us")
        _invite(ours, theirs, "g@g.us")
        ours_on_disk.reopen()
        group_frame = theirs.peer.group_encrypt(theirs.who, "g@g.us", b"to the group")
        assert ours.peer.group_decrypt(ours.who, theirs.who, "g@g.us", group_frame) == b"to the group"
        ours_on_disk.reopen()
        _assert_group_refused(ours, theirs, "g@g.us", group_frame, "DUPLICATE")
        for n in range(3):
            group_frame = ours.peer.group_encrypt(ours.who, "g@g.us", b"%d" % n)
            assert iteration(group_frame) == n, "an iteration that is used twice is a key that is used twice"
            assert theirs.peer.group_decrypt(theirs.who, ours.who, "g@g.us", group_frame) == b"%d" % n
            ours_on_disk.reopen()


@pytest.mark.parametrize("name", THEIRS)
def test_killed_at_any_moment(side: MakeSide, live: LivePeers, tmp_path: Path, name: str) -> None:
    """What was answered is durable: after a kill the next counter follows, and nothing opens twice."""
    live.require(OURS)
    store = tmp_path / "gateway.db"
    theirs = side(name)
    with Peer(OURS, store) as peer:
        ours = Side(peer, "desk", TRAITS[OURS])
        connect(theirs, ours)
        received = pass_on(theirs, ours, b"before the crash")
        sent = [ours.send(theirs, b"0")]
        peer.kill()
    for n in range(1, 5):
        with Peer(OURS, store) as peer:
            ours = Side(peer, "desk", TRAITS[OURS])
            assert_duplicate(ours, theirs, received)
            sent.append(ours.send(theirs, b"%d" % n))
            peer.kill()
    assert [counter(frame) for frame in sent] == list(range(5))
    for n in (4, 0, 2, 1, 3):
        assert theirs.open(ours, sent[n]) == b"%d" % n


# Batches


def test_many_rows_of_all_peers_in_one_call(side: MakeSide, live: LivePeers) -> None:
    """Rows of every peer, several a session, good and bad ones mixed: each gets what it would get alone."""
    ours = side(OURS)
    others = [side(name) for name in THEIRS for _ in range(3)]
    for n, other in enumerate(others):
        connect(*((ours, other) if n % 2 else (other, ours)))
    order = Random(4)
    expected: list[Row] = []
    for other in others:
        frames = [other.send(ours, b"%s %d" % (other.who.encode(), n)) for n in range(6)]
        rows: list[Row] = [
            (other, frame, b"%s %d" % (other.who.encode(), n)) for n, frame in enumerate(frames) if n != 2
        ]
        order.shuffle(rows)
        bad = Frame(frames[2].kind, flipped(frames[2].data, 8 * len(frames[2].data) - 1))
        rows.insert(order.randrange(len(rows) + 1), (other, bad, "INVALID"))
        repeated = order.randrange(len(rows))
        if isinstance(rows[repeated][2], bytes):
            rows.append((other, rows[repeated][1], "DUPLICATE"))
        rows.append((other, frames[2], b"%s 2" % other.who.encode()))
        expected += rows
    stranger = Side(live[OURS], f"stranger-{ours.who}", TRAITS[OURS])
    expected.insert(len(expected) // 2, (stranger, expected[0][1], "NO_SESSION"))
    # The rows of a session keep their order; those of different sessions are mixed.
    expected = _mixed(expected, order)
    answers = ours.peer.decrypt_many(ours.who, [(other.who, frame) for other, frame, _ in expected])
    assert [str(answer) if isinstance(answer, Refused) else answer for answer in answers] == [
        result for _, _, result in expected
    ]

    sendings = [(other, b"%d" % n) for n in range(5) for other in [*others, stranger]]
    sent = ours.peer.encrypt_many(ours.who, [(other.who, plaintext) for other, plaintext in sendings])
    for (other, plaintext), answer in zip(sendings, sent, strict=True):
        if other is stranger:
            assert str(answer) == "NO_SESSION"
        else:
            assert isinstance(answer, Frame)
            assert other.open(ours, answer) == plaintext


def test_no_rows(side: MakeSide) -> None:
    ours = side(OURS)
    assert ours.peer.encrypt_many(ours.who, []) == []
    assert ours.peer.decrypt_many(ours.who, []) == []


def _mixed(rows: list[Row], order: Random) -> list[Row]:
    queues: dict[str, list[Row]] = {}
    for row in rows:
        queues.setdefault(row[0].who, []).append(row)
    mixed = []
    while queues:
        who = order.choice(list(queues))
        mixed.append(queues[who].pop(0))
        if not queues[who]:
            del queues[who]
    return mixed


# Random histories


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("starter", "responder"), MIXED_PAIRS)
def test_history(side: MakeSide, starter: str, responder: str, seed: int) -> None:
    history = History(seed, side(starter), side(responder))
    history.run(HISTORY_STEPS)
    assert history.done["open"] > HISTORY_STEPS / 5
    assert history.done["repeat"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("starter", "responder"), MIXED_PAIRS)
def test_history_in_which_both_start(side: MakeSide, starter: str, responder: str, seed: int) -> None:
    history = History(seed, side(starter), side(responder), crossing=True)
    history.run(HISTORY_STEPS)
    assert history.done["start"] > 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("sender", "member"), GROUP_PAIRS)
def test_group_history(side: MakeSide, sender: str, member: str, seed: int) -> None:
    """One sender, one member, a bad network: a frame of the five newest sender keys opens exactly once."""
    anna, boris, dice = side(sender), side(member), Random(seed)
    group, steps = "g@g.us", HISTORY_STEPS // (3 if "baileys" in (sender, member) else 1)
    # Each frame with its plaintext and the number of its sender key.
    under_way: list[tuple[bytes, bytes, int]] = []
    opened: list[tuple[bytes, bytes, int]] = []
    _invite(anna, boris, group)
    newest_key = 0

    def deliver(place: int) -> None:
        frame, plaintext, key = under_way.pop(place)
        if newest_key - key < SENDER_KEY_STATES_MAX:
            assert boris.peer.group_decrypt(boris.who, anna.who, group, frame) == plaintext
            opened.append((frame, plaintext, key))

    for step in range(steps):
        action = dice.choices(
            ["send", "deliver", "repeat", "lose", "damage", "rotate"], [40, 36, 8, 4, 8, 2]
        )[0]
        if action == "send":
            plaintext = b"%d" % step * dice.randrange(20)
            under_way.append((anna.peer.group_encrypt(anna.who, group, plaintext), plaintext, newest_key))
        elif action == "deliver" and under_way:
            deliver(dice.randrange(len(under_way)))
        elif action == "repeat" and opened:
            frame, _, key = dice.choice(opened)
            kept = newest_key - key < SENDER_KEY_STATES_MAX
            _assert_group_refused(boris, anna, group, frame, "DUPLICATE" if kept else "NO_SENDER_KEY")
        elif action == "lose" and under_way:
            under_way.pop(dice.randrange(len(under_way)))
        elif action == "damage" and under_way and member == OURS:
            frame = dice.choice(under_way)[0]
            damaged = flipped(frame, dice.randrange(8 * len(frame)))
            with pytest.raises(Refused):
                boris.peer.group_decrypt(boris.who, anna.who, group, damaged)
        elif action == "rotate":
            anna.peer.group_rotate(anna.who, group)
            _invite(anna, boris, group)
            newest_key += 1
    while under_way:
        deliver(0)
    assert len(opened) > steps / 5


@pytest.mark.parametrize(("one", "two"), FOREIGN_PAIRS)
def test_history_of_theirs(side: MakeSide, one: str, two: str) -> None:
    """Checks the oracle of the histories: peers that know nothing of each other's makers agree with it."""
    History(0, side(one), side(two)).run(HISTORY_STEPS)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", THEIRS)
def test_history_with_reopening(side: MakeSide, ours_on_disk: Peer, name: str, seed: int) -> None:
    ours = Side(ours_on_disk, "desk", TRAITS[OURS])
    history = History(seed, ours, side(name), reopened=ours_on_disk)
    history.run(HISTORY_STEPS // 2)
    assert history.done["reopen"]


# The protocol of the test peers itself


@pytest.mark.parametrize("name", [*THEIRS, OURS])
def test_a_refusal_never_ends_a_peer(live: LivePeers, name: str) -> None:
    peer = live[name]
    hello = peer.hello()
    assert hello["name"]
    assert hello["version"]
    assert "pairwise" in hello["can"]
    for line in MALFORMED:
        assert isinstance(peer.exchange_line(line)["error"], str)
    who = f"party{next(_names)}"
    party = peer.party(who)
    assert peer.party(who) == party, "asked again, a party is opened, not made anew"
    assert len(party["identity"]) == 33
    one, two = peer.bundle(who), peer.bundle(who)
    assert one["identity"] == party["identity"]
    assert one["one_time_prekey"] != two["one_time_prekey"]
    assert peer.bundle(who, one_time=False)["one_time_prekey"] is None
    with pytest.raises(Refused):
        peer.decrypt(who, "nobody", Frame("msg", b"\x33"))


@pytest.mark.parametrize(("name", "work"), PEER_BENCHES)
def test_bench_of_a_peer(live: LivePeers, name: str, work: str) -> None:
    assert 1_000 < live[name].bench(work, rows=3) < 1e9
