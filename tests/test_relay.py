"""`interlane relay` over the recorded traffic: what the oracle said comes out, also when it is killed."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import time
from pathlib import Path
from random import Random
from typing import Any

import interlane as package
import pytest
from command_line import TRAFFIC, interlane, json_lines, started
from interlane.cli.calls import Calls
from interlane.cli.journal import Journal
from interlane.cli.lines import Line
from interlane.cli.relay import Relay
from interlane.cli.show import Samples
from interlane.cli.summary import Tally

EVENTS = TRAFFIC / "events.jsonl"
EXPECTED = json_lines((TRAFFIC / "expected.jsonl").read_bytes())
DESK = "desk@nordlicht.example"
FIRST = EVENTS.read_bytes().partition(b"\n")[0]
KILLS_MAX = 12


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with the recording's accounts."""
    path = tmp_path / "gateway.db"
    assert interlane("account", "import", TRAFFIC / "accounts.json", "--store", path).returncode == 0
    return path


def agrees(answer: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether an answer is what the oracle said for its line."""
    if "error" in expected:
        return bool(answer.get("error"))
    told = {key: answer.get(key) for key in expected if key != "distributions"}
    if told != {key: value for key, value in expected.items() if key != "distributions"}:
        return False
    sent = {one["peer"]: one["status"] for one in answer.get("distributions", ())}
    return sent == expected.get("distributions", {}) and ("events" in answer) == ("events" in expected)


@pytest.mark.parametrize("batch", [1_000_000, 1_000, 23])
def test_recorded_traffic_gives_what_the_oracle_said(store: Path, tmp_path: Path, batch: int) -> None:
    output = tmp_path / "answers.jsonl"
    done = interlane("relay", EVENTS, "--store", store, "-o", output, "--batch", str(batch), "--show", "5")
    assert done.returncode == 0, done.stderr.decode()
    answers = json_lines(output.read_bytes())
    assert [answer["line"] for answer in answers] == [one["line"] for one in EXPECTED]
    assert not [(a, e) for a, e in zip(answers, EXPECTED, strict=True) if not agrees(a, e)]
    assert "5 of " in done.stderr.decode()
    assert f"{len(EXPECTED):,} handled" in done.stderr.decode()


def test_the_recording_is_what_it_says() -> None:
    frames = [event for event in map(parsed, EVENTS.read_bytes().splitlines()) if "frame" in event]
    statuses = {one.get("status") for one in EXPECTED}
    assert len(frames) >= 2_000
    assert {"pkmsg", "msg"} <= {event.get("kind") for event in frames}
    assert any(event["event"] == "group_frame" for event in frames)
    assert {"OK", "DUPLICATE", "INVALID", "TOO_FAR_AHEAD", "NO_PREKEY", "INVALID_BUNDLE"} <= statuses
    assert EVENTS.stat().st_size < 3_000_000


def parsed(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


# --- Crashes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "durability", "resident"), [(1, "strict", ()), (2, "leased", ()), (3, "leased", (5,))]
)
def test_killed_at_random_points_each_line_is_answered_once(
    store: Path, tmp_path: Path, seed: int, durability: str, resident: tuple[int, ...]
) -> None:
    random = Random(seed)
    output = tmp_path / "answers.jsonl"
    batch = 60
    command = ("relay", EVENTS, "--store", store, "-o", output, "--batch", str(batch), "--quiet")
    command += ("--durability", durability, "--lease", "16")
    for sessions in resident:
        command += ("--resident-sessions", str(sessions))
    kills = 0
    redone: set[int] = set()
    unacknowledged: set[int] = set()
    while kills < KILLS_MAX:
        size_before = output.stat().st_size if output.exists() else 0
        process = started(*command)
        until = size_before + random.randrange(30_000, 150_000)
        while process.poll() is None and (not output.exists() or output.stat().st_size < until):
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.03))
        process.kill()
        process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
        journal = Journal(output, FIRST)
        assert len(journal.in_doubt) <= batch
        redone |= {int(line) for line in journal.in_doubt}
        # An acknowledgement is written with the next commit.
        unacknowledged |= set(range(max(1, journal.answered - 2 * batch), journal.answered + 1))
        journal.close()
    done = interlane(*command)
    assert done.returncode == 0, done.stderr.decode()
    assert kills >= 3

    answers = json_lines(output.read_bytes())
    assert sorted(answer["line"] for answer in answers) == [one["line"] for one in EXPECTED]
    judge(answers, redone, unacknowledged)


def judge(answers: list[dict[str, Any]], redone: set[int], unacknowledged: set[int]) -> None:
    """No plaintext is missing. What was not handled twice is as the oracle said, but for a frame that the
    network brought again: while its first line's answer is not acknowledged, the second may get it too."""
    events = [parsed(line) for line in EVENTS.read_bytes().splitlines()]
    again = {frame for line in redone | unacknowledged if (frame := events[line - 1].get("frame"))}
    for answer in answers:
        event, expected = events[answer["line"] - 1], EXPECTED[answer["line"] - 1]
        if "error" in expected:
            assert answer["error"]
        elif "text" in expected or "data" in expected:
            assert agrees(answer, expected), (answer, expected)
        elif answer["line"] in redone:
            # What had come too early, or before its sender key, may open the second time; of a damaged frame
            # the true one may have been opened since.
            assert answer["status"] in ("OK", "DUPLICATE", expected["status"]), answer
        elif event["event"] == "group_text" and "devices" in event:
            # The sender key was rotated after a crash, or those who were to get it here had it before.
            assert answer["status"] == expected["status"]
        elif event.get("frame") in again and expected["status"] == "DUPLICATE":
            assert answer["status"] in ("DUPLICATE", "OK")
        else:
            assert agrees(answer, expected), (answer, expected)
    frames = [answer["frame"] for answer in answers if answer.get("kind") in ("msg", "pkmsg", "skmsg")]
    assert len(frames) == len(set(frames))


def relay(engine: package.Engine, journal: Journal) -> Relay:
    return Relay(Calls(engine), journal, False, Tally(), Samples(0))


def test_what_the_engine_committed_and_we_did_not_write_is_given_again(store: Path, tmp_path: Path) -> None:
    lines = [Line(at, text) for at, text in enumerate(EVENTS.read_bytes().splitlines()[:200], start=1)]
    output = tmp_path / "answers.jsonl"

    class Crash(Exception):
        pass

    class Crashing(Journal):
        def write(self, _: Any) -> bytes:
            raise Crash

    with package.open(store, receive_buffer=True) as engine:
        journal = Journal(output, FIRST)
        relay(engine, journal).handle(lines[:100])
        journal.close()
        journal = Crashing(output, FIRST)
        with pytest.raises(Crash):
            relay(engine, journal).handle(lines[100:150])
        journal.close()
        journal = Journal(output, FIRST)
        assert journal.in_doubt == frozenset(range(101, 151))
        resumed = relay(engine, journal)
        resumed.handle(lines)
        journal.close()
        assert engine.stats()["rows_buffered"] == 0

    answers = json_lines(output.read_bytes())
    assert [answer["line"] for answer in answers] == list(range(1, 201))
    assert not [(a, e) for a, e in zip(answers, EXPECTED[:200], strict=True) if not agrees(a, e)]
    opened = [one for one in EXPECTED[100:150] if "text" in one or "data" in one]
    assert resumed.calls.recovered >= len(opened) > 20


def test_when_the_store_fails_what_was_done_has_its_answers(store: Path, tmp_path: Path) -> None:
    lines = [Line(at, text) for at, text in enumerate(EVENTS.read_bytes().splitlines()[:100], start=1)]
    output = tmp_path / "answers.jsonl"

    class Failing:
        """An engine whose disk is full when it is to encrypt."""

        def __init__(self, engine: package.Engine) -> None:
            self.engine = engine

        def __getattr__(self, name: str) -> Any:
            return getattr(self.engine, name)

        def encrypt(self, *_: Any) -> None:
            raise package.StoreError("the disk is full: make room")

    with package.open(store, receive_buffer=True) as engine:
        journal = Journal(output, FIRST)
        failing: Any = Failing(engine)
        with pytest.raises(package.StoreError):
            relay(failing, journal).handle(lines)
        journal.close()
        done = json_lines(output.read_bytes())
        assert {answer["event"] for answer in done if "event" in answer} >= {"account", "frame"}
        assert "text" not in {answer.get("event") for answer in done}
        journal = Journal(output, FIRST)
        assert journal.in_doubt == set(range(1, 101)) - {answer["line"] for answer in done}
        relay(engine, journal).handle(lines)
        journal.close()
    answers = sorted(json_lines(output.read_bytes()), key=lambda answer: answer["line"])
    assert not [(a, e) for a, e in zip(answers, EXPECTED[:100], strict=True) if not agrees(a, e)]


def test_a_doubt_outlives_a_second_crash(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "answers", b"first")
    journal.begin([1, 2, 3, 4, 5])
    journal.close()
    journal = Journal(tmp_path / "answers", b"first")
    journal.begin([1, 2])
    journal.write([{"line": 1}])
    journal.close()
    assert Journal(tmp_path / "answers", b"first").in_doubt == {2, 3, 4, 5}


@pytest.mark.parametrize("by_line", [True, False])
def test_a_journal_may_be_cut_off_anywhere(tmp_path: Path, by_line: bool) -> None:
    path = tmp_path / "answers"
    journal = Journal(path, b"first" if by_line else None)
    journal.begin([1, 2, 3])
    whole = journal.write([{"line": at, "id": at, "text": "ä" * at} for at in (1, 2, 3)])
    journal.close()
    notes = Path(f"{path}.relay").read_bytes()
    assert path.read_bytes() == whole
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        Path(f"{path}.relay").write_bytes(notes)
        journal = Journal(path, b"first" if by_line else None)
        lines = whole[:cut].count(b"\n")
        assert journal.answered == lines
        assert journal.in_doubt == set(range(lines + 1, 4))
        journal.close()
        assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:lines])
    for cut in range(len(notes) - 1):
        if b"\n" not in notes[:cut]:
            path.write_bytes(b"")  # the heading is synced before there is an answer
        Path(f"{path}.relay").write_bytes(notes[:cut])
        journal = Journal(path, b"first" if by_line else None)
        assert journal.in_doubt == frozenset()
        journal.close()


def test_a_group_text_in_doubt_reaches_its_devices(tmp_path: Path) -> None:
    """The distribution was lost with the crash; the engine counts the device as served. It gets a new key."""
    output = tmp_path / "answers.jsonl"
    with package.open(":memory:") as engine:
        desk, peer = engine.account("desk", create=True), engine.account("peer", create=True)
        desk.start_sessions(["peer"], [peer.prekeys(1).bundle()])
        lost = desk.group("g").encrypt(b"all", ["peer"])
        assert lost.devices == ["peer"]

        line = b'{"event":"group_text","account":"desk","group":"g","text":"all","devices":["peer"]}'
        journal = Journal(output, FIRST)
        journal.begin([1])
        journal.close()
        journal = Journal(output, FIRST)
        relay(engine, journal).handle([Line(1, line)])
        journal.close()

        (answer,) = json_lines(output.read_bytes())
        (sent,) = answer["distributions"]
        opened = peer.decrypt(["desk"], sent["kind"], [base64.b64decode(sent["frame"])])
        assert peer.group("g").accept(["desk"], opened.tolist()).ok.all()
        assert peer.group("g").decrypt(["desk"], [base64.b64decode(answer["frame"])]).tolist() == [b"all"]


def test_signals_end_it_after_a_batch_and_it_goes_on_from_there(store: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    command = ("relay", EVENTS, "--store", store, "-o", output, "--batch", "20")
    process = started(*command)
    while not output.exists() or output.stat().st_size < 20_000:
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    handled = len(json_lines(output.read_bytes()))
    assert 0 < handled < len(EXPECTED)
    assert f"{handled:,} handled" in told.decode()

    done = interlane(*command)
    assert done.returncode == 0
    assert f"{handled:,} lines had their answers already" in done.stderr.decode()
    answers = json_lines(output.read_bytes())
    assert not [(a, e) for a, e in zip(answers, EXPECTED, strict=True) if not agrees(a, e)]


# --- Pipes --------------------------------------------------------------------------------------------------


def ask(process: subprocess.Popen[bytes], **event: Any) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(event).encode() + b"\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def test_a_pipe_is_a_conversation(tmp_path: Path) -> None:
    """Two accounts of one store talk through it; nothing but the answers is on standard output."""
    process = started("relay", "--store", tmp_path / "pipe.db", "--quiet")
    try:
        upload = ask(process, event="account", account="a")
        assert upload["status"] == "OK"
        ask(process, event="account", account="b")
        upload = ask(process, event="prekeys", account="b", one_time=3)["prekeys"]
        bundle = {**upload, "one_time_prekey": upload["one_time_prekeys"][0]}
        assert ask(process, event="bundle", account="a", peer="b", bundle=bundle)["status"] == "OK"
        sent = ask(process, id=7, event="text", account="a", peer="b", text="Grüße")
        assert (sent["id"], sent["kind"]) == (7, "pkmsg")
        got = ask(process, event="frame", account="b", peer="a", kind=sent["kind"], frame=sent["frame"])
        assert got["text"] == "Grüße"
        assert got["events"] == ["NEW_SESSION", "PREKEY_CONSUMED", "STOCK_LOW"]
        again = ask(process, event="frame", account="b", peer="a", kind=sent["kind"], frame=sent["frame"])
        assert again["status"] == "DUPLICATE"
        raw = base64.b64encode(b"\xff\x00").decode()
        sent = ask(process, event="text", account="b", peer="a", data=raw)
        assert (
            ask(process, event="frame", account="a", peer="b", kind="msg", frame=sent["frame"])["data"] == raw
        )

        fan = ask(process, event="group_text", account="a", group="g", text="all", devices=["b", "nobody"])
        assert [one["status"] for one in fan["distributions"]] == ["OK", "NO_SESSION"]
        key = fan["distributions"][0]
        accepted = ask(
            process,
            event="distribution",
            account="b",
            group="g",
            peer="a",
            kind=key["kind"],
            frame=key["frame"],
        )
        assert accepted["status"] == "OK"
        opened = ask(process, event="group_frame", account="b", group="g", peer="a", frame=fan["frame"])
        assert opened["text"] == "all"
        own = ask(process, event="distribute", account="b", group="g")
        assert own["kind"] == "skdm"
        assert (
            ask(process, event="distribution", account="a", group="g", peer="b", frame=own["frame"])["status"]
            == "OK"
        )
        assert ask(process, event="rotate", account="b", group="g")["status"] == "OK"

        assert (
            ask(process, event="trust", account="a", peer="b", identity=upload["identity"])["status"] == "OK"
        )
        assert ask(process, event="forget", account="a", peer="b")["status"] == "OK"
        assert ask(process, event="text", account="a", peer="b", text="x")["status"] == "NO_SESSION"
    finally:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, b"", b"")


def test_a_pipe_is_resumed_by_ids(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    arguments = ("relay", "--store", tmp_path / "pipe.db", "--journal", journal, "--quiet")
    process = started(*arguments)
    ask(process, id="1", event="account", account="a")
    bundle = upload_of(ask(process, id="2", event="prekeys", account="a", one_time=0))
    ask(process, id="3", event="account", account="b")
    ask(process, id="4", event="bundle", account="b", peer="a", bundle=bundle)
    sent = ask(process, id="5", event="text", account="b", peer="a", text="once")
    assert ask(process, id="5", event="text", account="b", peer="a", text="once") == sent
    process.kill()
    process.communicate()

    process = started(*arguments)
    assert ask(process, id="5", event="text", account="b", peer="a", text="once") == sent
    second = ask(process, id="6", event="text", account="b", peer="a", text="twice")
    assert second["frame"] != sent["frame"]
    process.communicate(timeout=30)
    assert [answer["id"] for answer in json_lines(journal.read_bytes())] == ["1", "2", "3", "4", "5", "6"]


def upload_of(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer["prekeys"], "one_time_prekey": None}


def test_a_line_waits_no_longer_than_the_linger(tmp_path: Path) -> None:
    process = started("relay", "--store", tmp_path / "s.db", "--quiet", "--batch", "1000000", "--linger", "1")
    assert ask(process, event="account", account="a")["line"] == 1  # else this would wait for ever
    process.communicate(timeout=30)
    assert process.returncode == 0


# --- Bad lines ----------------------------------------------------------------------------------------------

BAD_LINES = [
    (b"", "not a line of JSON"),
    (b"{", "not a line of JSON"),
    (b"\xff\xfe", "not a line of JSON"),
    (b"[" * 100_000, "not a line of JSON"),
    (b"17", "not a JSON object"),
    (b"{}", "`event` must be one of"),
    (b'{"event":["frame"]}', "`event` must be one of"),
    (b'{"event":"account"}', "needs `account`"),
    (b'{"event":"account","account":""}', "`account` must be a text"),
    (b'{"event":"account","account":"a\\u0000b"}', "`account` must be a text"),
    (b'{"event":"account","account":"\\ud800"}', "surrogate"),
    (b'{"event":"account","account":"%s"}' % (b"a" * 600), "1 to 512 bytes"),
    (b'{"id":true,"event":"account","account":"a"}', "`id` must be"),
    (b'{"id":1e400,"event":"account","account":"a"}', "`id` must be"),
    (b'{"event":"text","account":"a","peer":"p"}', "either `text` or `data`"),
    (b'{"event":"text","account":"a","peer":"p","text":"x","data":"eA=="}', "either `text` or `data`"),
    (b'{"event":"text","account":"a","peer":"p","data":"e"}', "`data` is not standard base64"),
    (b'{"event":"frame","account":"a","peer":"p","kind":"skmsg","frame":""}', '"msg" or "pkmsg"'),
    (b'{"event":"frame","account":"a","peer":"p","kind":"msg","frame":"_-_-"}', "not standard base64"),
    (b'{"event":"frame","account":"nobody","peer":"p","kind":"msg","frame":"Mw=="}', "no account nobody"),
    (b'{"event":"bundle","account":"a","peer":"p","bundle":{}}', "`bundle` needs `signed_prekey`"),
    (b'{"event":"bundle","account":"a","peer":"p","bundle":[]}', "`bundle` must be an object"),
    (b'{"event":"prekeys","account":"a","one_time":1000000}', "`one_time` must be a number"),
    (b'{"event":"group_text","account":"a","group":"g","text":"","devices":[1]}', "`devices` must be a text"),
    (b'{"event":"trust","account":"a","peer":"p","identity":7}', "`identity` must be base64"),
]


def test_bad_lines_have_an_error_and_the_rest_goes_on(tmp_path: Path) -> None:
    lines = [b'{"id":"first","event":"account","account":"a"}', *(line for line, _ in BAD_LINES)]
    lines.append(b'{"id":"last","event":"prekeys","account":"a","one_time":1}')
    done = interlane("relay", "--store", tmp_path / "s.db", "--strict", given=b"\n".join(lines))
    assert done.returncode == 1
    answers = json_lines(done.stdout)
    assert [answer["line"] for answer in answers] == list(range(1, len(lines) + 1))
    assert answers[0]["status"] == answers[-1]["status"] == "OK"
    for answer, (line, error) in zip(answers[1:-1], BAD_LINES, strict=True):
        assert error in answer["error"], line
        assert "\n" not in answer["error"]


def test_a_line_that_is_too_long_is_not_kept(tmp_path: Path) -> None:
    long = b'{"event":"text","account":"a","peer":"p","text":"' + b"x" * (33 << 20) + b'"}'
    lines = [b'{"event":"account","account":"a"}', long, b'{"event":"account","account":"a"}']
    answers = json_lines(interlane("relay", "--store", tmp_path / "s.db", given=b"\n".join(lines)).stdout)
    assert [answer.get("status") for answer in answers] == ["OK", None, "OK"]
    assert answers[1]["error"] == "longer than 32 MiB"


def test_a_bad_bundle_is_a_status_and_not_an_end(tmp_path: Path) -> None:
    short = base64.b64encode(b"short").decode()
    signed = {"id": 1, "public": short, "signature": short}
    bundle = {"registration_id": 1, "identity": short, "signed_prekey": signed}
    given = [{"event": "account", "account": "a"}]
    given += [{"event": "bundle", "account": "a", "peer": f"p{at}", "bundle": bundle} for at in range(3)]  # type: ignore[dict-item]
    text = "".join(json.dumps(one) + "\n" for one in given).encode()
    answers = json_lines(interlane("relay", "--store", tmp_path / "s.db", given=text).stdout)
    assert [answer["status"] for answer in answers] == ["OK"] + ["INVALID_BUNDLE"] * 3


# --- Other files --------------------------------------------------------------------------------------------


def test_answers_are_to_one_input(store: Path, tmp_path: Path) -> None:
    output, other = tmp_path / "answers.jsonl", tmp_path / "other.jsonl"
    other.write_text('{"event":"account","account":"x"}\n')
    assert interlane("relay", other, "--store", store, "-o", output).returncode == 0
    done = interlane("relay", EVENTS, "--store", store, "-o", output)
    assert (done.returncode, b"another input" in done.stderr) == (2, True)
    Path(f"{output}.relay").unlink()
    assert interlane("relay", EVENTS, "--store", store, "-o", output).returncode == 2
    output.write_text("a file of somebody's\n")
    done = interlane("relay", EVENTS, "--store", store, "-o", output)
    assert (done.returncode, b"did not write" in done.stderr) == (4, True)
    assert output.read_text() == "a file of somebody's\n"


def test_a_reader_that_goes_away_ends_it(store: Path) -> None:
    with started("relay", EVENTS, "--store", store, "--batch", "10", "--quiet") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()
        assert process.wait(timeout=30) == 4
    assert told.count(b"\n") == 1
    assert b"reader" in told
