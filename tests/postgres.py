"""PostgreSQL servers on loopback, in folders of their own: one, or a primary with a synchronous standby.

The programs are this machine's newest.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SECONDS_MAX = 60
# Ends the server when the tests do, however they do: it reads until they are gone.
WATCH = '"$@" & server=$!; cat > /dev/null; kill -QUIT $server; wait $server'
SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
wal_keep_size = 64MB
hot_standby = on
wal_retrieve_retry_interval = 100ms
"""


def _binaries() -> Path | None:
    found = [
        folder / "bin"
        for folder in Path("/usr/lib/postgresql").glob("*")
        if folder.name.isdigit() and (folder / "bin" / "initdb").exists()
    ]
    if found:
        return max(found, key=lambda folder: int(folder.parent.name))
    in_path = shutil.which("initdb")
    return None if in_path is None else Path(in_path).resolve().parent


def require() -> Path:
    """The folder of the programs; skips the test where there are none, and fails it in CI."""
    folder = _binaries()
    if folder is not None:
        return folder
    message = "PostgreSQL is not installed: apt-get install postgresql"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def _user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextmanager
def _port() -> Iterator[int]:
    """A port of loopback that nobody else is given meanwhile, whether the server runs or not."""
    with socket.socket() as bound:
        # It does not listen. Where both say so, Linux lets the server bind to it too, and listen.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        if sys.platform != "linux":
            bound.close()
        yield port


@dataclass
class Server:
    """One that runs."""

    programs: Path
    data: Path
    port: int

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        done = subprocess.run(  # noqa: S603 # our own statements
            [self.programs / "psql", "-XAtq", "-d", self.url(database), "-c", statement],
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=True,
        )
        return done.stdout.strip()

    def wait_for(self, statement: str, expected: str) -> None:
        end = time.monotonic() + SECONDS_MAX
        while True:
            try:
                if self.sql(statement) == expected:
                    return
            except subprocess.CalledProcessError:
                pass
            assert time.monotonic() < end, self.data.with_suffix(".log").read_text()
            time.sleep(0.05)

    @contextmanager
    def running(self) -> Iterator[Server]:
        with self.data.with_suffix(".log").open("wb") as log:
            command = [self.programs / "postgres", "-D", self.data, "-p", str(self.port)]
            watch = subprocess.Popen(  # noqa: S603 # our own command
                ["/bin/sh", "-c", WATCH, "watch", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                user=_user(),
                cwd="/",
            )
        try:
            self.wait_for("SELECT 1", "1")
            yield self
        finally:
            watch.communicate()


@contextmanager
def server() -> Iterator[Server]:
    """One on its own."""
    programs = require()
    with _folder() as folder, _port() as port, _initialized(programs, folder, port).running() as running:
        yield running


@contextmanager
def pair() -> Iterator[tuple[Server, Server]]:
    """A primary, and the standby that its commits wait for."""
    programs = require()
    with _folder() as folder, _port() as port, _port() as standby_port:
        primary = _initialized(programs, folder, port)
        standby = Server(programs, folder / "standby", standby_port)
        # A cluster that was shut down cleanly is a standby's base backup.
        _run("cp", "-r", primary.data, standby.data)
        _run("chmod", "700", standby.data)
        _run("touch", standby.data / "standby.signal")
        with (primary.data / "postgresql.conf").open("a") as settings:
            settings.write("synchronous_standby_names = 'standby'\n")
        with (standby.data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"primary_conninfo = 'host=127.0.0.1 port={primary.port} user=postgres"
                " application_name=standby'\n"
            )
        with primary.running(), standby.running():
            primary.wait_for("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'", "1")
            yield primary, standby


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="interlane-postgres-") as name:
        user = _user()
        if user is not None:
            shutil.chown(name, user)
        yield Path(name)


def _initialized(programs: Path, folder: Path, port: int) -> Server:
    data = folder / "data"
    _run(programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8")
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(SETTINGS)
    return Server(programs, data, port)


def _run(*command: str | Path) -> None:
    done = subprocess.run(  # noqa: S603 # our own commands
        command, capture_output=True, text=True, timeout=SECONDS_MAX, user=_user(), cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr
