"""The operator's key: where it comes from, and what is said when it does not come."""

from __future__ import annotations

import base64
import stat
import threading
from pathlib import Path
from typing import Any

import interlane
import pytest
from interlane import MalformedCall, StoreError

KEY = bytes(range(32))


@pytest.fixture(autouse=True)
def _no_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INTERLANE_KEY", raising=False)


def make(store: Path, key: Any = None) -> bytes:
    with interlane.open(store, key=key) as engine:
        return engine.account("a", create=True).identity


def identity(store: Path, key: Any = None) -> bytes:
    with interlane.open(store, key=key) as engine:
        return engine.account("a").identity


def test_every_source_is_the_same_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store.db"
    made = make(store, KEY)
    raw, digits = tmp_path / "raw", tmp_path / "digits"
    raw.write_bytes(KEY)
    digits.write_text(KEY.hex() + "\n")
    monkeypatch.setenv("HEX_KEY", KEY.hex().upper())
    monkeypatch.setenv("BASE64_KEY", base64.b64encode(KEY).decode())
    for source in (
        KEY,
        bytearray(KEY),
        f"file:{raw}",
        f"file:{digits}",
        "env:HEX_KEY",
        "env:BASE64_KEY",
        lambda: KEY,
    ):
        assert identity(store, source) == made
    monkeypatch.setenv("INTERLANE_KEY", KEY.hex())
    assert identity(store) == made
    assert not Path(f"{store}.key").exists()


def test_the_key_beside_the_store(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    made = make(store)
    key = tmp_path / "store.db.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_bytes()) == 32
    assert identity(store) == identity(store, f"file:{key}") == made
    key.rename(tmp_path / "away")
    with pytest.raises(StoreError, match=r"is there, but not its key file .*put it back"):
        interlane.open(store)
    assert not key.exists()
    assert sorted(path.name for path in tmp_path.iterdir() if "key" in path.name) == []
    assert identity(store, f"file:{tmp_path / 'away'}") == made


def test_two_stores_have_two_keys(tmp_path: Path) -> None:
    for name in ("a.db", "b.db"):
        make(tmp_path / name)
    assert (tmp_path / "a.db.key").read_bytes() != (tmp_path / "b.db.key").read_bytes()


def test_two_first_openers_agree_on_a_key(tmp_path: Path) -> None:
    """The store has one owner, but both may make its key: whoever loses the race takes the winner's."""
    store = tmp_path / "store.db"
    keys: list[bytes] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        keys.append(interlane.keys.operator_key(None, store))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["store.db.key"]


def test_another_key_does_not_open_the_store(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    made = make(store, KEY)
    with pytest.raises(StoreError) as raised:
        interlane.open(store, key=bytes(32))
    assert "\n" not in str(raised.value)
    assert KEY.hex() not in str(raised.value)
    assert identity(store, KEY) == made


def test_a_store_in_memory_needs_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    interlane.open(":memory:").close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "error", "text"),
    [
        (KEY[:-1], MalformedCall, "key: 31 bytes; a key has 32"),
        ("secret", MalformedCall, "key: a str that is no source"),
        ("file:", MalformedCall, "key: a str that is no source"),
        (5, MalformedCall, "key: int; give 32 bytes"),
        (lambda: b"", MalformedCall, "key: the callable's result: 0 bytes"),
        (lambda: "text", MalformedCall, "key: the callable gave str"),
        ("file:absent", StoreError, "the key file absent cannot be read"),
        ("file:/dev/zero", StoreError, "holds no key"),
        ("file:/", StoreError, "cannot be read"),
        ("env:ABSENT", StoreError, "ABSENT is not set"),
        ("env:SHORT", StoreError, "SHORT holds no key"),
        ("env:LETTERS", StoreError, "LETTERS holds no key"),
    ],
)
def test_sources_that_give_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any, error: type[Exception], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHORT", "abcd")
    monkeypatch.setenv("LETTERS", "not a key in any way, whatever its length may be, is it")
    with pytest.raises(error, match=text) as raised:
        interlane.open("store.db", key=source)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_callable_may_fail(tmp_path: Path) -> None:
    def unreachable() -> bytes:
        raise ConnectionError("the KMS is down")

    with pytest.raises(ConnectionError, match="the KMS is down"):
        interlane.open(tmp_path / "store.db", key=unreachable)


def test_no_folder_for_the_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no key file can be made"):
        interlane.open(tmp_path / "absent" / "store.db")
