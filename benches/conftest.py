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
from functools import cache
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
PEERS = {report.GO: "go", report.LIBSIGNAL_CLIENT: "libsignal_client"}

Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rows: int = 10_000
    rounds: int = 7
    # A row of a peer takes up to milliseconds, and a smaller loop only helps its caches.
    peer_rows: int = 1_000
    idle_sessions: int = 1_000_000


QUICK = Sizes(rows=1_000, rounds=3, peer_rows=50, idle_sessions=20_000)

sizes_key = pytest.StashKey[Sizes]()
results_key = pytest.StashKey[list[report.Result]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="small sizes, to see that the benches work; results are not kept"
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

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._lacking = available()
        self._running: dict[str, Peer] = {}

    def clock(self, name: str, work: str) -> Callable[[], float]:
        """Gives nanoseconds a row of the peer's loop."""
        peer = self._peer(name)
        return lambda: peer.bench(work, self._rows, BYTES)

    def _peer(self, name: str) -> Peer:
        folder = PEERS[name]
        if reason := self._lacking[folder]:
            pytest.skip(f"live peer {folder}: {reason}")
        if folder not in self._running:
            self._running[folder] = Peer(folder)
        return self._running[folder]

    def close(self) -> None:
        for peer in self._running.values():
            peer.close()


@pytest.fixture(scope="session")
def live(sizes: Sizes) -> Iterator[Live]:
    peers = Live(sizes.peer_rows)
    yield peers
    peers.close()


@pytest.fixture(scope="session")
def steps(sizes: Sizes) -> dict[str, float]:
    """What the hardware allows, in nanoseconds a step; empty where limits/run.sh cannot run."""
    if sizes == QUICK:
        return {}
    build = HERE.parent / ".cache" / "limits"
    ran = subprocess.run(  # noqa: S603
        ["/bin/sh", str(HERE / "limits" / "run.sh"), str(build)],
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


class Recorder:
    """Keeps results for the report, and shows each as soon as it is there."""

    def __init__(self, request: pytest.FixtureRequest, steps: dict[str, float]) -> None:
        self._request = request
        self._steps = steps

    def __call__(self, work: str, **figures: Any) -> report.Result:
        row = report.result(
            work,
            backend=interlane.backend(),
            cpu=cpu(),
            commit=commit(),
            steps=self._steps,
            **figures,
        )
        self._request.config.stash[results_key].append(row)
        self._request.node.user_properties.append(("result", report.line(row)))
        return row


@pytest.fixture
def record(request: pytest.FixtureRequest, steps: dict[str, float]) -> Recorder:
    return Recorder(request, steps)


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
    ) -> None:
        """`ours` is given what `prepare` made outside the clock, and works off `rows` rows in calls of
        `batch` rows; `theirs` gives nanoseconds a row."""
        peer_ns: list[float] = []

        def set_up() -> tuple[tuple[Prepared], dict[str, Any]]:
            peer_ns.append(theirs())
            return (prepare(),), {}

        self._benchmark.extra_info.update(
            work=work,
            peer=peer,
            backend=interlane.backend(),
            rows=batch or rows,
            bytes=BYTES,
            commit=commit(),
        )
        self._benchmark.pedantic(ours, setup=set_up, rounds=self._rounds)
        if self._benchmark.stats is None:
            # --benchmark-disable: it ran, untimed.
            return
        ours_ns = self._benchmark.stats.stats.median * 1e9 / rows
        row = self._record(work, rows=batch or rows, ours=ours_ns, peer=peer, theirs=median(peer_ns))
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
        return subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
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
        report.show(new, report.console())
        terminalreporter.write_line("--quick: nothing was kept")
        return
    results = report.merged(report.load(), new)
    report.save(results)
    here = [row for row in results if (row.cpu, row.backend) == (cpu(), interlane.backend())]
    report.show(here, report.console())
    report.plot(here)
    for file in (report.RESULTS, report.PLOT):
        terminalreporter.write_line(f"written: {os.path.relpath(file)}")
