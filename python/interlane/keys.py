"""Where the operator's key comes from. It wraps every account's data key: without it a store is noise."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import string
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .errors import MalformedCall, StoreError

KEY_BYTES = 32
VARIABLE = "INTERLANE_KEY"


def operator_key(source: bytes | str | Callable[[], bytes] | None, store: Path | None) -> bytes:
    """The key of the store in the file `store`, or of one in no file, from a source as `interlane.open` takes
    it.

    Raises `MalformedCall` for a source that is none, and `StoreError` for one that gives no key.
    """
    if source is None:
        if VARIABLE in os.environ:
            return _from_variable(VARIABLE)
        if store is None:
            # Engines on several machines need the same one, so none is made here.
            raise MalformedCall(
                f"key: None; give the key that all engines of this store share, or set {VARIABLE}"
            )
        return _beside(store)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _checked(bytes(source), "key")
    if isinstance(source, str):
        scheme, _, rest = source.partition(":")
        if scheme == "file" and rest:
            return _from_file(Path(rest))
        if scheme == "env" and rest:
            return _from_variable(rest)
        raise MalformedCall('key: a str that is no source; give "file:PATH", "env:NAME" or 32 bytes')
    if callable(source):
        key = source()
        if not isinstance(key, (bytes, bytearray, memoryview)):
            raise MalformedCall(
                f"key: the callable gave {type(key).__name__}; it is to give {KEY_BYTES} bytes"
            )
        return _checked(bytes(key), "key: the callable's result")
    raise MalformedCall(f'key: {type(source).__name__}; give 32 bytes, "file:PATH", "env:NAME" or a callable')


def _checked(key: bytes, what: str) -> bytes:
    if len(key) != KEY_BYTES:
        raise MalformedCall(f"{what}: {len(key)} bytes; a key has {KEY_BYTES}")
    return key


def _from_variable(name: str) -> bytes:
    text = os.environ.get(name, "").strip()
    if not text:
        raise StoreError(
            f"the key's environment variable {name} is not set: set it to 64 hex digits or base64"
        )
    key = _from_hex(text)
    if key is None:
        with suppress(binascii.Error, ValueError):
            key = base64.b64decode(text, validate=True)
    if key is None or len(key) != KEY_BYTES:
        raise StoreError(
            f"the environment variable {name} holds no key: set it to 64 hex digits or base64 of 32 bytes"
        )
    return key


def _from_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # No key file is longer; a wrong path may lead to something endless.
            content = file.read(1024)
    except OSError as error:
        raise StoreError(
            f"the key file {path} cannot be read ({error.strerror}): give the store's key"
        ) from None
    if len(content) == KEY_BYTES:
        return content
    key = _from_hex(content.decode("ascii", "replace").strip())
    if key is None:
        raise StoreError(f"the key file {path} holds no key: it is to have 32 raw bytes or 64 hex digits")
    return key


def _from_hex(text: str) -> bytes | None:
    if len(text) == 2 * KEY_BYTES and all(digit in string.hexdigits for digit in text):
        return bytes.fromhex(text)
    return None


def _beside(store: Path) -> bytes:
    """The file `<store>.key`, which is made together with the store."""
    path = store.with_name(store.name + ".key")
    if not path.exists():
        if store.exists():
            raise StoreError(
                f"the store {store} is there, but not its key file {path}: put it back, or give key="
            )
        _make(path)
    return _from_file(path)


def _make(path: Path) -> None:
    """Writes a fresh key, durably and whole, unless another process was faster."""
    try:
        # Of mode 0600, as `tempfile` makes all of its files.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    except OSError as error:
        raise StoreError(
            f"no key file can be made at {path} ({error.strerror}): choose a folder that exists"
        ) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # A link fails if the name is taken: what another process made stays.
        with suppress(FileExistsError):
            os.link(name, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"no key file can be made at {path} ({error.strerror}): give key=") from None
    finally:
        os.unlink(name)


def _sync_folder(path: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
