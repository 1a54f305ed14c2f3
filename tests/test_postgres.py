"""Gateways that share a PostgreSQL store: opening, statuses, `interlane shards`. What becomes of frames when
servers and engines fail is tested in Rust (rust/engine/tests/postgres.rs)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import interlane
import postgres
import pytest
from command_line import interlane as run
from command_line import json_lines
from interlane import Status

KEY = bytes(range(32))
KEY_VARIABLE = {"INTERLANE_KEY": KEY.hex()}
SHARDS = 64


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.server() as running:
        yield running


@pytest.fixture
def url(server: postgres.Server, request: pytest.FixtureRequest) -> str:
    name = "".join(letter for letter in request.node.name if letter.isalnum())[:60]
    server.sql(f'CREATE DATABASE "{name}"')
    return server.url(name)


def gateway(url: str, name: str, shards: str = "free") -> interlane.Engine:
    return interlane.open(f"{url}?engine={name}&shards={shards}", key=KEY)


def test_a_store_comes_back_with_its_sessions(url: str) -> None:
    far = interlane.open(":memory:").account("ada", create=True)
    with gateway(url, "one") as engine:
        desk = engine.account("desk", create=True)
        assert desk.start_sessions(["ada"], list(far.prekeys(one_time=1).bundles())).ok.all()
        first = desk.encrypt(["ada"], [b"hello"])
    with gateway(url, "two") as engine:
        desk = engine.account("desk")
        second = desk.encrypt(["ada"], [b"again"])
        assert engine.stats()["store_bytes"] > 0
        assert engine.accounts() == ["desk"]
    for sent, text in ((first, b"hello"), (second, b"again")):
        assert far.decrypt(["desk"], sent.kinds, sent.data, sent.offsets).tolist() == [text]


def test_a_shared_store_can_be_leased(url: str) -> None:
    far = interlane.open(":memory:").account("ada", create=True)

    def gateway(name: str) -> interlane.Engine:
        return interlane.open(f"{url}?engine={name}&shards=all", key=KEY, durability="leased", lease=32)

    with pytest.raises(interlane.MalformedCall, match="lease"):
        interlane.open(f"{url}?engine=one", key=KEY, durability="leased", lease=2_000)
    one = gateway("one")
    desk = one.account("desk", create=True)
    desk.start_sessions(["ada"], list(far.prekeys(one_time=1).bundles()))
    sent = [desk.encrypt(["ada"], [b"%d" % n]) for n in range(100)]
    # It has the shards from here on, and the other one has not let go of them.
    with gateway("two") as two:
        sent += [two.account("desk").encrypt(["ada"], [b"%d" % n]) for n in range(100, 140)]
    stats = one.stats()
    assert 0 < int(stats["leases_written"]) + int(stats["calls_waited"]) < 50
    for n, rows in enumerate(sent):
        assert far.decrypt(["desk"], rows.kinds, rows.data, rows.offsets).tolist() == [b"%d" % n]
    one.close()


def test_sessions_come_and_go(url: str) -> None:
    """More than are kept in memory, in calls that name some of them or all."""
    peers = [f"ada-{i}" for i in range(12)]
    far = interlane.open(":memory:").account("ada", create=True)
    desks = [f"desk-{i}" for i in range(12)]
    with interlane.open(f"{url}?engine=one", key=KEY, resident_sessions=4) as engine:
        desk = engine.account("desk", create=True)
        assert desk.start_sessions(peers, list(far.prekeys(one_time=12).bundles())).ok.all()
        for call in range(12):
            part = slice(0, 12) if call % 4 == 3 else slice(call, call + 3)
            sent = desk.encrypt(peers[part], [b"text %d" % call] * len(peers[part]))
            got = far.decrypt(desks[part], sent.kinds, sent.data, sent.offsets)
            assert got.tolist() == [b"text %d" % call] * len(sent)
            back = far.encrypt(desks[part], [b"back"] * len(sent))
            assert desk.decrypt(peers[part], back.kinds, back.data, back.offsets).ok.all()
        stats = engine.stats()
        assert stats["sessions"] <= 4
        assert stats["sessions_evicted"] > 30


def test_rows_of_another_engines_account_are_conflict_and_it_says_whose(url: str) -> None:
    far = interlane.open(":memory:").account("ada", create=True)
    with gateway(url, "one") as one, gateway(url, "two") as two:
        desk = one.account("desk", create=True)
        desk.start_sessions(["ada"], list(far.prekeys(one_time=1).bundles()))
        with pytest.raises(
            interlane.StoreError, match=r"account desk is in shard 39, which engine one has: call there"
        ):
            two.account("desk", create=True)
        two.move_shards(range(SHARDS), "two", force=True)
        lost = desk.encrypt(["ada", "nobody"], [b"x", b"y"])
        assert [row.status for row in lost] == [Status.CONFLICT] * 2
        assert lost.data.size == 0
        with pytest.raises(interlane.StoreError, match="which engine two has: call there"):
            desk.prekeys(1)
        sent = two.account("desk").encrypt(["ada"], [b"hello"])
        assert far.decrypt(["desk"], sent.kinds, sent.data, sent.offsets).tolist() == [b"hello"]


def test_what_a_shared_store_is_not_given_is_said(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INTERLANE_KEY", raising=False)
    with pytest.raises(interlane.MalformedCall, match="INTERLANE_KEY"):
        interlane.open(f"{url}?engine=one")
    with pytest.raises(interlane.MalformedCall, match="name this engine"):
        interlane.open(url, key=KEY)
    with pytest.raises(interlane.MalformedCall, match="postgresql://"):
        interlane.open("mysql://host/database", key=KEY)
    gateway(url, "one").close()
    with pytest.raises(interlane.StoreError, match="another operator key"):
        interlane.open(f"{url}?engine=one", key=bytes(32))
    with pytest.raises(interlane.StoreBusy, match="cannot be reached"):
        interlane.open("postgresql://postgres@127.0.0.1:1/x?engine=one", key=KEY)
    memory = interlane.open(":memory:")
    with pytest.raises(interlane.MalformedCall, match="one owner"):
        memory.shards()
    with pytest.raises(interlane.MalformedCall, match="one owner"):
        memory.move_shards([1], "x")


def test_the_command_line_shows_and_moves_shards(url: str) -> None:
    with gateway(url, "one") as one, gateway(url, "two") as two:
        desk = one.account("desk", create=True)
        shard = next(shard for shard in one.shards() if shard.accounts)
        shown = json_lines(run("shards", "show", "--json", "--store", url, **KEY_VARIABLE).stdout)
        assert shown == [json.loads(json.dumps(fields)) for fields in map(vars_of, one.shards())]
        table = run("shards", "show", "--store", url, **KEY_VARIABLE).stdout.decode()
        assert "0-63" in table
        assert "served" in table

        # It is idle: it is asked, and does not hear it before it calls.
        asked = run(
            "shards",
            "take",
            str(shard.number),
            "--to",
            "two",
            "--wait",
            "0.5",
            "--store",
            url,
            **KEY_VARIABLE,
        )
        assert asked.returncode == 3
        assert b"1 of 1 shards are still with one" in asked.stderr
        desk.prekeys(1)
        with pytest.raises(interlane.StoreError, match="call there"):
            desk.prekeys(1)
        assert two.account("desk").prekeys(1).one_time_prekeys
        done = run("shards", "take", str(shard.number), "--to", "two", "--store", url, **KEY_VARIABLE)
        assert done.stdout == b"1 shards moved\n"

        forced = run("shards", "take", "all", "--to", "two", "--force", "--store", url, **KEY_VARIABLE)
        assert forced.stdout == b"64 shards moved\n"
        assert {shard.engine for shard in two.shards()} == {"two"}
        drained = run("shards", "drain", "two", "--force", "--store", url, **KEY_VARIABLE)
        assert drained.stdout == b"64 shards moved\n"
        assert not any(shard.engine or shard.serving for shard in one.shards())
        assert run("shards", "drain", "two", "--store", url, **KEY_VARIABLE).stdout == b"two has no shards\n"


def test_a_loss_is_declared_from_the_command_line(server: postgres.Server, url: str) -> None:
    far = interlane.open(":memory:").account("ada", create=True)
    declare = ("shards", "declare", "--store", url)
    with gateway(url, "one") as one:
        desk = one.account("desk", create=True)
        desk.start_sessions(["ada"], list(far.prekeys(one_time=1).bundles()))
        desk.group("family").distribute()
        first = desk.encrypt(["ada"], [b"hello"])
        assert far.decrypt(["desk"], first.kinds, first.data, first.offsets).tolist() == [b"hello"]
        shard = next(shard for shard in one.shards() if shard.accounts)
        number = str(shard.number)
        assert run(*declare, **KEY_VARIABLE).stdout == b"no shard is known to have gone back\n"
        served = run(*declare, "--", number, **KEY_VARIABLE)
        assert served.returncode == 2
        assert b"engine one serves it" in served.stderr

        # A standby that lacks the last commit, which an engine finds when it connects to it.
        database = url.rsplit("/", 1)[1]
        back = f"UPDATE interlane.shards SET version = version - 1 WHERE shard = {number}"  # noqa: S608 # our own
        server.sql(back, database)
        sessions = f"FROM pg_stat_activity WHERE datname = '{database}'"
        server.sql(f"SELECT pg_terminate_backend(pid) {sessions}")
        server.wait_for(f"SELECT count(*) {sessions}", "0")
        lost = desk.encrypt(["ada"], [b"twice"])
        assert [row.status for row in lost] == [Status.CONFLICT]
        with pytest.raises(interlane.StoreError, match=f"interlane shards declare {number}"):
            desk.prekeys(1)
        assert b"see shards declare" in b" ".join(
            run("shards", "show", "--store", url, **KEY_VARIABLE).stdout.split()
        )
        declared = run(*declare, **KEY_VARIABLE)
        assert declared.stdout == (
            b"1 shards, 1 accounts: 1 peers need a new session or answer first, "
            b"1 sender keys were dropped; make new prekeys\n"
        )
        assert one.account("desk").prekeys(1, rotate=True).one_time_prekeys[0].id > 65_536
        assert desk.encrypt(["ada"], [b"twice"])[0].status is Status.EXHAUSTED
        answer = far.encrypt(["desk"], [b"answer"])
        assert desk.decrypt(["ada"], answer.kinds, answer.data, answer.offsets).tolist() == [b"answer"]
        sent = desk.encrypt(["ada"], [b"on"])
        assert far.decrypt(["desk"], sent.kinds, sent.data, sent.offsets).tolist() == [b"on"]

    # A backup of a busy server remembers nothing: all of it is declared before an engine starts.
    everything = run(*declare, "--force", "--", "all", **KEY_VARIABLE)
    assert everything.stdout.startswith(b"64 shards, 1 accounts: 1 peers")
    with gateway(url, "two") as two:
        assert two.account("desk").encrypt(["ada"], [b"twice"])[0].status is Status.EXHAUSTED
        with pytest.raises(interlane.MalformedCall, match="the last one is 63"):
            two.declare_shards([SHARDS])
        with pytest.raises(interlane.MalformedCall, match="one owner"):
            interlane.open(":memory:").declare_shards([1])


def vars_of(shard: interlane.Shard) -> dict[str, object]:
    return {name: getattr(shard, name) for name in shard.__dataclass_fields__}


def test_the_command_line_refuses_what_makes_no_sense(url: str) -> None:
    gateway(url, "one").close()
    for numbers in ("64", "5-3", "x", "-1", "1,,2", ""):
        refused = run("shards", "take", "--to", "two", "--store", url, "--", numbers, **KEY_VARIABLE)
        assert refused.returncode == 2, numbers
        assert b"names no shards" in refused.stderr
    assert run("shards", "drain", "two", "--to", "two", "--store", url, **KEY_VARIABLE).returncode == 2
    in_file = run("shards", "show", "--store", "gateway.db", **KEY_VARIABLE)
    assert in_file.returncode == 2
    assert b"one owner" in in_file.stderr
    nothing = run("shards", "show", "--store", url.rsplit("/", 1)[0] + "/postgres", **KEY_VARIABLE)
    assert nothing.returncode == 3
    assert b"has no store of interlane's" in nothing.stderr
