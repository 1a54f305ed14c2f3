"""The commands beside `relay`, and how they end."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import interlane as package
import pytest
from command_line import TRAFFIC, interlane, json_lines
from interlane._native import works

ACCOUNTS = TRAFFIC / "accounts.json"
DESK = "desk@nordlicht.example"
OK, ROWS_FAILED, USAGE, STORE, FILES = range(5)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.db"
    assert interlane("account", "import", ACCOUNTS, "--store", path).returncode == OK
    return path


def fails(exit_code: int, words: str, *arguments: str | Path, given: bytes = b"", **environment: str) -> None:
    """The command ends with this code, and with one line that has these words."""
    done = interlane(*arguments, given=given, **environment)
    told = done.stderr.decode()
    assert done.returncode == exit_code, told
    assert words in told
    assert len(told.removeprefix("Usage").splitlines()) == 1, told
    assert "Traceback" not in told
    assert done.stdout == b""


def test_an_account_is_made_listed_and_deleted(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    assert interlane("account", "create", "desk", "--store", store).returncode == OK
    fails(USAGE, "exists already", "account", "create", "desk", "--store", store)
    (listed,) = json_lines(interlane("account", "list", "--json", "--store", store).stdout)
    assert (listed["account"], listed["stock"]) == ("desk", 0)
    assert b"desk" in interlane("account", "list", "--store", store).stdout
    fails(USAGE, "no account nobody", "account", "delete", "nobody", "--store", store)
    asked = interlane("account", "delete", "desk", "--store", store, given=b"n\n")
    assert asked.returncode != OK
    assert json_lines(interlane("account", "list", "--json", "--store", store).stdout)
    assert interlane("account", "delete", "desk", "--yes", "--store", store).returncode == OK
    assert interlane("account", "list", "--json", "--store", store).stdout == b""


def test_prekeys_are_an_upload(store: Path, tmp_path: Path) -> None:
    printed = json.loads(interlane("prekeys", DESK, "--one-time", "3", "--rotate", "--store", store).stdout)
    imported = next(one for one in json.loads(ACCOUNTS.read_text())["accounts"] if one["name"] == DESK)
    assert printed["account"] == DESK
    assert printed["registration_id"] == imported["registration_id"]
    assert printed["signed_prekey"]["id"] == 1 + max(one["id"] for one in imported["signed_prekeys"])
    assert [one["id"] for one in printed["one_time_prekeys"]] == [61, 62, 63]
    signed = printed["signed_prekey"]
    bundle = package.Bundle(
        printed["registration_id"],
        base64.b64decode(printed["identity"]),
        package.SignedPrekey(
            signed["id"], base64.b64decode(signed["public"]), base64.b64decode(signed["signature"])
        ),
    )
    with package.open(":memory:") as engine:
        assert engine.account("peer", create=True).start_sessions(["desk"], [bundle]).ok.all()
    output = tmp_path / "upload.json"
    assert interlane("prekeys", DESK, "-o", output, "--store", store).stdout == b""
    assert len(json.loads(output.read_text())["one_time_prekeys"]) == 812
    fails(USAGE, "no account nobody", "prekeys", "nobody", "--store", store)


def test_sessions_and_stats_look_into_a_store(store: Path, tmp_path: Path) -> None:
    relayed = interlane(
        "relay", TRAFFIC / "events.jsonl", "--store", store, "-o", tmp_path / "out", "--quiet"
    )
    assert (relayed.returncode, relayed.stderr) == (OK, b"")
    peers = json_lines(interlane("sessions", "--json", "--store", store).stdout)
    stats = json.loads(interlane("stats", "--json", "--store", store).stdout)
    assert stats["accounts"] == 2
    assert stats["peers"] == len(peers) > 50
    assert stats["sessions"] == sum(peer["session"] for peer in peers)
    assert stats["archived_sessions"] == sum(peer["archived"] for peer in peers) > 0
    assert stats["store_bytes"] > 0
    assert stats["backend"] in package.backends()
    some = json_lines(interlane("sessions", DESK, "--json", "--store", store).stdout)
    assert some == [peer for peer in peers if peer["account"] == DESK]
    assert any(peer["pending"] for peer in peers)
    table = interlane("sessions", "--store", store).stdout.decode()
    assert all(peer["peer"] in table for peer in peers)
    assert "sessions" in interlane("stats", "--store", store).stdout.decode()
    fails(USAGE, "no account nobody", "sessions", "nobody", "--store", store)


def test_backends_are_named() -> None:
    printed = interlane("backends").stdout.decode().split("\n")
    assert f"* {package.backend()}" in printed
    assert len([line for line in printed if line[2:3].strip()]) == len(package.backends())
    for name in package.backends():
        for kernel, runner in package.kernels(name):
            assert f"      {kernel:18}{runner}" in printed
    measured = interlane("backends", "--measure").stdout.decode().split("Nanoseconds")[1]
    for work in works():
        (line,) = [line.split() for line in measured.split("\n") if line.split()[:1] == [work]]
        assert len(line) == 1 + len(package.backends())
        assert all(float(ns.replace(",", "")) > 0 for ns in line[1:])
    assert interlane("--version").stdout.decode().split()[-1] == package.__version__


@pytest.mark.parametrize("command", ["relay", "account", "prekeys", "sessions", "stats", "backends", "bench"])
def test_help(command: str) -> None:
    told = interlane("--help").stdout.decode()
    assert f"  {command} " in told
    assert "Exit codes" in told
    assert interlane(command, "--help").returncode == OK


# --- Bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("sessions",), ("stats",), ("prekeys", "a"), ("account", "list")])
def test_a_store_has_to_be_named_and_there(command: tuple[str, ...], tmp_path: Path) -> None:
    fails(USAGE, "--store PATH", *command)
    missing = tmp_path / "missing.db"
    fails(USAGE, "no store at", *command, "--store", missing)
    fails(USAGE, "no store at", *command, INTERLANE_STORE=str(missing))
    assert not missing.exists()


def test_the_wrong_key_opens_nothing(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    other.write_bytes(bytes(range(32)))
    fails(STORE, "key", "stats", "--store", store, "--key", f"file:{other}")
    fails(STORE, "key", "stats", "--store", store, INTERLANE_KEY="00" * 32)
    fails(STORE, "not set", "stats", "--store", store, "--key", "env:INTERLANE_NO_SUCH")
    fails(STORE, "cannot be read", "stats", "--store", store, "--key", f"file:{tmp_path / 'none'}")
    fails(USAGE, "file:PATH or env:NAME", "stats", "--store", store, "--key", "00" * 32)
    assert interlane("stats", "--store", store, "--key", f"file:{store}.key").returncode == OK


def test_a_store_in_use_is_locked(store: Path) -> None:
    with package.open(store):
        fails(STORE, "", "stats", "--store", store)
        fails(STORE, "", "relay", TRAFFIC / "events.jsonl", "--store", store, "--quiet")


def test_what_is_no_store_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Not a database, and long enough to be taken for one. " * 100)
    (tmp_path / "notes.txt.key").write_bytes(bytes(32))
    before = path.read_bytes()
    fails(STORE, "", "stats", "--store", path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "lacks 'name'"),
        ('{"accounts": []}', "list of accounts"),
        ('{"accounts": 3}', "list of accounts"),
        ('{"accounts": [3]}', "wrong kind"),
        ('{"name": "a", "registration_id": 1, "identity_private": "!", "signed_prekeys": []}', "wrong kind"),
        ('{"name": "a", "registration_id": 1, "identity_private": 7, "signed_prekeys": []}', "wrong kind"),
        ('{"name": "a", "registration_id": 1, "identity_private": "AA==", "signed_prekeys": []}', "32"),
    ],
)
def test_an_import_that_is_wrong_imports_nothing(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "accounts.json"
    file.write_text(text)
    fails(USAGE, words, "account", "import", file, "--store", tmp_path / "s.db")


def test_an_import_does_not_replace_an_account(store: Path) -> None:
    fails(USAGE, "exists already", "account", "import", ACCOUNTS, "--store", store)


def test_files_that_are_not_to_be_had(store: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / "out.jsonl"
    fails(FILES, "No such file", "relay", tmp_path / "none.jsonl", "--store", store)
    fails(FILES, "No such file", "relay", TRAFFIC / "events.jsonl", "--store", store, "-o", nowhere)
    fails(FILES, "directory", "relay", tmp_path, "--store", store, "-o", "-")
    fails(
        USAGE,
        "--journal",
        "relay",
        TRAFFIC / "events.jsonl",
        "--store",
        store,
        "-o",
        tmp_path / "o",
        "--journal",
        nowhere,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_one_line(store: Path) -> None:
    fails(FILES, "space", "prekeys", DESK, "--store", store, "-o", "/dev/full")
