"""The relay's plan: few calls, and each session's rows in the order of their lines."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from interlane.cli.events import Event
from interlane.cli.plan import BARRIERS, Call, plan, verbs_of


def event(line: int, name: str, account: str, peer: str, group: str, **more: Any) -> Event:
    return Event(line, None, name, account, peer=peer, group=group, **more)


@st.composite
def batches(draw: st.DrawFn) -> list[Event]:
    names = (
        "text",
        "frame",
        "bundle",
        "trust",
        "forget",
        "distribute",
        "distribution",
        "group_text",
        "group_frame",
    )
    made = []
    for line in range(draw(st.integers(0, 40))):
        name = draw(st.sampled_from((*names, "rotate", "account", "prekeys")))
        more: dict[str, Any] = {}
        if name == "frame":
            more["kind"] = draw(st.sampled_from(["msg", "pkmsg"]))
        if name == "distribution":
            more["kind"] = draw(st.sampled_from(["", "msg", "pkmsg"]))
        if name == "group_text" and draw(st.booleans()):
            more["devices"] = tuple(draw(st.lists(st.sampled_from("pqr"), max_size=3)))
        where = [draw(st.sampled_from(choice)) for choice in ("ab", "pqr", "gh")]
        made.append(event(line, name, *where, **more))
    return made


def touched(verb: str, one: Event) -> set[tuple[str, ...]]:
    """What a row reads or writes, said another way than the plan does: by what the verb is about."""
    sessions = {(one.account, one.peer)}
    if verb in ("start", "encrypt", "decrypt", "trust", "forget"):
        return {(*one_session, "session") for one_session in sessions}
    if verb in ("group_accept", "group_decrypt"):
        return {(one.account, one.group, one.peer, "theirs")}
    own = {(one.account, one.group, "own")}
    if verb == "group_fan":
        return own | {(one.account, device, "session") for device in one.devices or ()}
    return own


@given(batches())
def test_rows_that_touch_each_other_keep_their_order(events: list[Event]) -> None:
    calls = plan(events)
    places = {
        (one.line, call.verb): (at, row)
        for at, call in enumerate(calls)
        for row, one in enumerate(call.events)
    }
    rows = [(one, verb) for one in events for verb in verbs_of(one)]
    assert sorted((one.line, verb) for one, verb in rows) == sorted(places)
    for later, (one, verb) in enumerate(rows):
        for other, other_verb in rows[:later]:
            before, after = places[other.line, other_verb], places[one.line, verb]
            alone = verb in BARRIERS or other_verb in BARRIERS
            if alone or other.line == one.line or touched(verb, one) & touched(other_verb, other):
                assert before < after, (other, one)
            first_frames = verb == other_verb == "decrypt" and one.kind == other.kind == "pkmsg"
            if first_frames and one.account == other.account:
                assert before < after, "the first of two that name one prekey has it"


def shape(calls: list[Call]) -> list[tuple[str, int]]:
    return [(call.verb, len(call.events)) for call in calls]


def test_a_mixed_batch_is_a_handful_of_calls() -> None:
    events = []
    for peer in range(100):
        events.append(event(4 * peer, "frame", "a", f"{peer}", "", kind="pkmsg"))
        events.append(event(4 * peer + 1, "text", "a", f"{peer}", ""))
        events.append(event(4 * peer + 2, "frame", "a", f"{peer}", "", kind="msg"))
        events.append(event(4 * peer + 3, "group_frame", "a", f"{peer}", "g"))
    assert shape(plan(events)) == [
        ("decrypt", 100),
        ("encrypt", 100),
        ("decrypt", 100),
        ("group_decrypt", 100),
    ]


def test_an_account_is_made_before_what_follows_it() -> None:
    events = [
        event(1, "text", "a", "p", ""),
        event(2, "account", "a", "", ""),
        event(3, "text", "b", "q", ""),
    ]
    assert shape(plan(events)) == [("encrypt", 1), ("account", 1), ("encrypt", 1)]
