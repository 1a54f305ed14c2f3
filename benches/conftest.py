"""What all benches share: sizes, live peers, hardware limits, and the fixture `versus`, which times two sides
in turn and records the result."""

from __future__ import annotations

import gc
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any, TypeVar

import interlane
import pytest
import report
from linked import BYTES, Linked, link
from peers.harness import Peer, available

HERE = Path(__file__).resolve().parent
LIMITS_SECONDS_MAX = 600
BUILD_SECONDS_MAX = 3600
# Where the tests have them.
PEERS = {report.GO: "go", report.LIBSIGNAL_CLIENT: "libsignal_client"}
# Programs of this folder, and the arguments that make a peer of them.
NATIVE_PEERS = {report.WACORE: [], report.WACORE_BEST: ["--x25519=graviola"]}

Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rows: int = 10_000
    rounds: int = 7
    # A row of a peer takes up to milliseconds, and a smaller loop only helps its caches.
    peer_rows: int = 1_000
    idle_sessions: int = 1_000_000
    # Of a kernel, in a round: each takes milliseconds.
    samples: int = 25
    # Calls for all rows until both files of a store's journal have been written through.
    journal_calls: int = 100


QUICK = Sizes(rows=1_000, rounds=3, peer_rows=50, idle_sessions=20_000, samples=3, journal_calls=1)

sizes_key = pytest.StashKey[Sizes]()
results_key = pytest.StashKey[list[report.Result]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="small sizes, to see that the benches work; results are not kept"
    )
    parser.addoption(
        "--peers", choices=["native"], help="build the peers that are Rust programs, and run them"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[sizes_key] = QUICK if config.getoption("quick") else Sizes()
    config.stash[results_key] = []


@pytest.fixture(scope="session")
def sizes(pytestconfig: pytest.Config) -> Sizes:
    return pytestconfig.stash[sizes_key]


@pytest.fixture(scope="session")
def linked(sizes: Sizes) -> Iterator[Linked]:
    """Sessions in a memory store, one thread."""
    pair = link(sizes.rows)
    yield pair
    pair.close()


class Live:
    """The live peers that have their own loops, by the names that the results give them."""

    def __init__(self, rows: int, *, native: bool) -> None:
        self._rows = rows
        self._native = native
        self._lacking = available()
        self._running: dict[str, Peer] = {}

    def clock(self, name: str, work: str) -> Callable[[], float]:
        """Gives nanoseconds a row of the peer's loop."""
        if name not in self._running:
            self._running[name] = self._started(name)
        peer = self._running[name]
        return lambda: peer.bench(work, self._rows, BYTES)

    def _started(self, name: str) -> Peer:
        if name in NATIVE_PEERS:
            if not self._native:
                pytest.skip(f"native peer {name}: left out without --peers=native")
            return Peer(name, command=[native_program(), *NATIVE_PEERS[name]])
        folder = PEERS[name]
        if reason := self._lacking[folder]:
            pytest.skip(f"live peer {folder}: {reason}")
        return Peer(folder)

    def close(self) -> None:
        for peer in self._running.values():
            peer.close()


@cache
def native_program() -> str:
    """Built in a workspace of its own, which nothing that ships knows."""
    target = HERE.parent / "target" / "peers"
    built = subprocess.run(  # noqa: S603 - a folder of ours
        ["cargo", "build", "--release", "--locked", "--quiet", "--target-dir", str(target)],  # noqa: S607 - the developer's own
        cwd=HERE / "peers" / "wacore",
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS_MAX,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-2000:]
    return str(target / "release" / "wacore-peer")


@pytest.fixture(scope="session")
def live(sizes: Sizes, pytestconfig: pytest.Config) -> Iterator[Live]:
    peers = Live(sizes.peer_rows, native=pytestconfig.getoption("peers") == "native")
    yield peers
    peers.close()


class Limits:
    """What the hardware allows, by existing multi-buffer libraries."""

    def __init__(self, *, of_rows: bool) -> None:
        self._of_rows = of_rows

    @cached_property
    def steps(self) -> dict[str, float]:
        """Nanoseconds a step, for the limits of rows; empty where limits/run.sh cannot run."""
        return self._run() if self._of_rows else {}

    def clock(self, step: str) -> Callable[[], float]:
        """Gives nanoseconds of a step, measured anew each time."""
        if step not in self._run(step):
            pytest.skip(f"limits: {step} cannot be measured here")
        return lambda: self._run(step)[step]

    def _run(self, *step: str) -> dict[str, float]:
        build = HERE.parent / ".cache" / "limits"
        ran = subprocess.run(  # noqa: S603 - a script of this folder
            ["/bin/sh", str(HERE / "limits" / "run.sh"), str(build), *step],
            capture_output=True,
            text=True,
            timeout=LIMITS_SECONDS_MAX,
            check=False,
        )
        if ran.returncode != 0:
            reason = (ran.stderr.strip() or "no message").splitlines()[-1]
            print(f"limits left out: {reason}", file=sys.stderr)
        measured = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
        return {step["work"]: step["limit_ns"] for step in measured}


@pytest.fixture(scope="session")
def limits(sizes: Sizes) -> Limits:
    return Limits(of_rows=sizes != QUICK)


class Recorder:
    """Keeps results for the report, and shows each as soon as it is there."""

    def __init__(self, request: pytest.FixtureRequest, limits: Limits) -> None:
        self._request = request
        self._limits = limits

    def __call__(
        self,
        work: str,
        *,
        backend: str | None = None,
        steps: dict[str, float] | None = None,
        **figures: Any,
    ) -> report.Result:
        row = report.result(
            work,
            backend=backend or interlane.backend(),
            cpu=cpu(),
            commit=commit(),
            steps=self._limits.steps if steps is None else steps,
            **figures,
        )
        self._request.config.stash[results_key].append(row)
        self._request.node.user_properties.append(("result", report.line(row)))
        return row


@pytest.fixture
def record(request: pytest.FixtureRequest, limits: Limits) -> Recorder:
    return Recorder(request, limits)


class Versus:
    """Times ours and a peer in turn: peer, ours, peer, ours …; medians of the rounds."""

    def __init__(self, benchmark: Any, record: Recorder, sizes: Sizes) -> None:
        self._benchmark = benchmark
        self._record = record
        self._rounds = sizes.rounds

    def __call__(
        self,
        work: str,
        peer: str,
        *,
        rows: int,
        prepare: Callable[[], Prepared],
        ours: Callable[[Prepared], object],
        theirs: Callable[[], float],
        batch: int | None = None,
        backend: str | None = None,
        limit: tuple[str, Callable[[], float]] | None = None,
    ) -> None:
        """`ours` is given what `prepare` made outside the clock, and works off `rows` rows in calls of
        `batch` rows; `theirs` gives nanoseconds a row. `backend` is ours, where it is not the one in use.
        `limit` is a step of the work's limit that is timed in turn with them."""
        peer_ns: list[float] = []
        limit_ns: list[float] = []

        def set_up() -> tuple[tuple[Prepared], dict[str, Any]]:
            peer_ns.append(theirs())
            if limit is not None:
                limit_ns.append(limit[1]())
            return (prepare(),), {}

        self._benchmark.extra_info.update(
            work=work,
            peer=peer,
            backend=backend or interlane.backend(),
            rows=batch or rows,
            bytes=BYTES,
            commit=commit(),
        )
        self._benchmark.pedantic(ours, setup=set_up, rounds=self._rounds)
        if self._benchmark.stats is None:
            # --benchmark-disable: it ran, untimed.
            return
        ours_ns = self._benchmark.stats.stats.median * 1e9 / rows
        row = self._record(
            work,
            rows=batch or rows,
            ours=ours_ns,
            peer=peer,
            theirs=median(peer_ns),
            backend=backend,
            steps=None if limit is None else {limit[0]: median(limit_ns)},
        )
        self._benchmark.extra_info.update(peer_ns=row.peer_ns, ratio=row.ratio, peer_ns_min=min(peer_ns))


@pytest.fixture
def versus(benchmark: Any, record: Recorder, sizes: Sizes) -> Versus:
    return Versus(benchmark, record, sizes)


def clock(loop: Callable[[], int]) -> Callable[[], float]:
    """Gives nanoseconds a row of a peer that runs in this process; `loop` gives the number of its rows. The
    collector is off, as it is for ours."""

    def timed() -> float:
        gc.collect()
        gc.disable()
        try:
            begin = perf_counter_ns()
            rows = loop()
            return (perf_counter_ns() - begin) / rows
        finally:
            gc.enable()

    return timed


def avx2_beside(work: str) -> None:
    """Skips a bench of what a CPU without AVX-512 does, where it cannot run or crates were asked for."""
    if "avx2" not in interlane.backends() or interlane.backend() == report.PORTABLE:
        pytest.skip(f"{work}: no avx2 beside {interlane.backend()}")


@cache
def cpu() -> str:
    """The processor's name; family and model where the name alone says little."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n", maxsplit=1)[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name") or platform.machine()
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return name


@cache
def commit() -> str:
    """The commit, with a "+" where the tree differs from it; empty outside a checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(  # noqa: S603 - the arguments are those below
            ["git", *arguments],  # noqa: S607 - the developer's own
            cwd=HERE,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "../rust", "../python")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def pytest_report_header(config: pytest.Config) -> str:
    sizes = config.stash[sizes_key]
    return (
        f"interlane {interlane.__version__}, backend {interlane.backend()}, {cpu()}, {sizes.rows:,} sessions"
    )


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    lines = [line for name, line in report.user_properties if name == "result"]
    if report.when == "teardown" and lines:
        print("", *lines, sep="\n  ", flush=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    new = config.stash[results_key]
    if not new:
        return
    terminalreporter.ensure_newline()
    terminalreporter.write_line("")
    if config.stash[sizes_key] == QUICK:
        report.show(report.merged([], new), report.console())
        terminalreporter.write_line("--quick: nothing was kept")
        return
    results = report.merged(report.load(), new)
    report.save(results)
    measured = {(row.cpu, row.backend) for row in new}
    report.show([row for row in results if (row.cpu, row.backend) in measured], report.console())
    report.plot([row for row in results if (row.cpu, row.backend) == (cpu(), interlane.backend())])
    for file in (report.RESULTS, report.PLOT):
        terminalreporter.write_line(f"written: {os.path.relpath(file)}")
    terminalreporter.write_line("to the README: python benches/report.py --readme")
