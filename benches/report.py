"""The results of the benches: file, table and plot. `python benches/report.py` shows the last ones, with
`--readme` it writes them to the README.

A row of `results.json` has the keys of `Result`; README.md says what each is.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
PLOT = HERE / "results.svg"
README = HERE.parent / "README.md"

NANOSECONDS = "ns"
BYTES = "bytes"
ALLOCATIONS = "allocations"
TABLE_WIDTH = 136
TIMES = "\N{MULTIPLICATION SIGN}"


VODOZEMAC = "vodozemac"
LIBSIGNAL_CLIENT = "@signalapp/libsignal-client"
GO = "go.mau.fi/libsignal"
WACORE = "wacore-libsignal"
WACORE_BEST = "wacore-libsignal + graviola"
CRYPTOGRAPHY = "cryptography"
GRAVIOLA = "graviola"
CRYPTO_MB = "crypto_mb"
IPSEC_MB = "ipsec-mb"
PORTABLE = "portable"
MEMORY_STORE = "memory store"
UPSERTS = "bare SQLite upserts"
ALONE = "median alone"
ONE_THREAD = "one thread"
IN_ORDER = "in order"
TWO_PROCESSES = "two processes"
BARE_WRITES = "memory store and bare writes"
ONE_ROW = "calls of one row"
BARE_UPSERT = "bare upsert"

# In the order of every table.
WORKS = (
    "encrypt/warm",
    "encrypt/list",
    "encrypt/shuffled",
    "decrypt/warm",
    "rows/1",
    "rows/4",
    "setup",
    "setup/responder",
    "fanout/1000",
    "turn",
    "group/send",
    "group/open",
    "aead/gcm",
    "aead/chacha",
    "x25519",
    "x25519/public",
    "xeddsa/sign",
    "xeddsa/verify",
    "cbc_hmac",
    "sha256/compression",
    "store/strict",
    "store/leased",
    "store/receive",
    "store/postgres",
    "store/bytes",
    "open/1000000",
    "warm/1000000",
    "latency/p99",
    "threads/2",
    "memory/session",
    "memory/pending",
    "allocations/encrypt",
    "allocations/decrypt",
)


@dataclass(frozen=True)
class Targets:
    """What results are to be."""

    # At least so many times the peer.
    ratio: dict[tuple[str, str], float]
    # At most so much, in the row's unit, whoever the peer is.
    most: dict[str, float]


# For every backend, where nothing else is asked of it below.
TARGETS = Targets(
    ratio={
        ("encrypt/warm", VODOZEMAC): 6,
        ("encrypt/warm", LIBSIGNAL_CLIENT): 20,
        ("decrypt/warm", GO): 12,
        ("decrypt/warm", LIBSIGNAL_CLIENT): 20,
        ("setup", GO): 3.5,
        ("turn", GO): 3.5,
        ("group/open", GO): 2,
        ("group/send", GO): 2,
        ("aead/gcm", CRYPTOGRAPHY): 4,
        ("aead/chacha", CRYPTOGRAPHY): 4,
        ("store/strict", MEMORY_STORE): 0.5,
        ("store/strict", UPSERTS): 0.7,
        ("store/leased", MEMORY_STORE): 0.7,
        ("store/receive", MEMORY_STORE): 0.5,
        ("latency/p99", ALONE): 1 / 5,
        ("store/postgres", BARE_UPSERT): 0.7,
        ("rows/1", VODOZEMAC): 2.5,
        ("threads/2", ONE_THREAD): 1.8,
    },
    most={
        "memory/session": 500,
        "store/bytes": 450,
        # 50 ms.
        "open/1000000": 50_000_000,
        # 2 s.
        "warm/1000000": 2_000_000_000,
        # Buffers of a run, shared by its thousand rows, are what is left.
        "allocations/encrypt": 0.1,
        "allocations/decrypt": 0.1,
    },
)
BACKEND_TARGETS = {
    # With IFMA.
    "avx512": Targets(
        ratio={
            ("encrypt/warm", VODOZEMAC): 20,
            ("encrypt/warm", WACORE): 4,
            ("decrypt/warm", WACORE): 4,
            ("turn", WACORE): 8.5,
            ("turn", WACORE_BEST): 5,
            ("setup", WACORE_BEST): 4.5,
            ("setup/responder", WACORE_BEST): 3.8,
            ("fanout/1000", WACORE_BEST): 4.5,
            ("group/open", WACORE): 3.8,
            ("group/send", WACORE): 7,
            ("x25519", CRYPTO_MB): 1 / 0.8,
            ("x25519/public", CRYPTO_MB): 1 / 0.35,
            ("xeddsa/sign", CRYPTO_MB): 1 / 0.6,
            ("xeddsa/verify", CRYPTO_MB): 1 / 0.8,
            ("cbc_hmac", IPSEC_MB): 1 / 1.6,
            ("aead/gcm", CRYPTOGRAPHY): 8,
            ("aead/chacha", CRYPTOGRAPHY): 8,
            ("sha256/compression", PORTABLE): 1 / 0.5,
            ("rows/1", PORTABLE): 1 / 1.1,
            ("rows/4", ONE_ROW): 1,
            ("threads/2", ONE_THREAD): 1.9,
        },
        most={
            "encrypt/warm": 750,
            "decrypt/warm": 850,
            "turn": 15_000,
            "setup": 45_000,
            "setup/responder": 45_000,
            # 0.05 s for the thousand.
            "fanout/1000": 50_000,
            "group/open": 9_000,
            "group/send": 3_000,
            "sha256/compression": 20,
        },
    ),
    "avx2": Targets(
        ratio={("x25519", GRAVIOLA): 1 / 0.65, ("rows/1", PORTABLE): 1 / 1.1, ("rows/4", ONE_ROW): 1},
        most={"encrypt/warm": 1_300},
    ),
}

# The least that a row of this work takes, in the steps that limits/run.sh measures: (times, step). Chain
# steps and key schedules have no counterpart there, so each sum is below what is truly possible.
LIMITS = {
    "encrypt/warm": [(1, "cbc_hmac")],
    "encrypt/list": [(1, "cbc_hmac")],
    "decrypt/warm": [(1, "cbc_hmac")],
    # Four agreements of X3DH, one of the ratchet; base key and ratchet key; the signed prekey's signature.
    "setup": [(5, "x25519"), (2, "x25519/public"), (1, "xeddsa/verify"), (1, "cbc_hmac")],
    # Four agreements of X3DH, one of the ratchet.
    "setup/responder": [(5, "x25519"), (1, "cbc_hmac")],
    # One agreement for each direction's chain, one new ratchet key, two messages.
    "turn": [(2, "x25519"), (1, "x25519/public"), (2, "cbc_hmac")],
    "group/open": [(1, "xeddsa/verify"), (1, "cbc")],
    "group/send": [(1, "xeddsa/sign"), (1, "cbc")],
    "aead/gcm": [(1, "aead/gcm")],
    # What two cores of this machine do at once: one worker's loop in two processes, which share nothing.
    "threads/2": [(1, TWO_PROCESSES)],
    # The memory store's, and what the store writes of a call, written to a file and synced.
    "store/receive": [(1, BARE_WRITES)],
}
LIMITS["fanout/1000"] = LIMITS["setup"]


@dataclass(frozen=True)
class Result:
    """One measured work, against one peer."""

    work: str
    backend: str
    cpu: str
    rows: int
    ns: float
    peer: str | None = None
    peer_ns: float | None = None
    ratio: float | None = None
    limit: str | None = None
    limit_ns: float | None = None
    limit_ratio: float | None = None
    target: float | None = None
    target_most: float | None = None
    unit: str = NANOSECONDS
    commit: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        return (self.work, self.backend, self.cpu, self.rows, self.peer)

    @property
    def met(self) -> bool | None:
        """Whether the targets are met, where there are any."""
        if self.target is None and self.target_most is None:
            return None
        ratio = self.target is None or (self.ratio is not None and self.ratio >= self.target)
        return ratio and (self.target_most is None or self.ns <= self.target_most)

    def to_json(self) -> dict[str, object]:
        """Without what was not measured: a peer without a limit has no `limit`."""
        optional = ("limit", "limit_ns", "limit_ratio", "target", "target_most")
        return {
            name: value for name, value in asdict(self).items() if value is not None or name not in optional
        }


def result(
    work: str,
    *,
    backend: str,
    cpu: str,
    commit: str,
    rows: int,
    ours: float,
    peer: str | None = None,
    theirs: float | None = None,
    unit: str = NANOSECONDS,
    steps: dict[str, float] | None = None,
) -> Result:
    """A result with what follows from its figures: ratio, limit, targets."""
    sums = LIMITS.get(work, [])
    limit = None
    if unit == NANOSECONDS and sums and steps and all(step in steps for _, step in sums):
        limit = sum(times * steps[step] for times, step in sums)
    row = Result(
        work=work,
        backend=backend,
        cpu=cpu,
        rows=rows,
        ns=_rounded(ours),
        peer=peer,
        peer_ns=None if theirs is None else _rounded(theirs),
        ratio=None if theirs is None or ours <= 0 else _rounded(theirs / ours),
        limit=None if limit is None else " + ".join(f"{times} {step}" for times, step in sums),
        limit_ns=None if limit is None else _rounded(limit),
        unit=unit,
        commit=commit,
    )
    return _completed(row)


def _completed(row: Result) -> Result:
    """With what follows from its figures, by today's targets: a file may have older ones."""
    ratio, most = TARGETS.ratio, TARGETS.most
    if own := BACKEND_TARGETS.get(row.backend):
        ratio, most = ratio | own.ratio, most | own.most
    target = ratio.get((row.work, row.peer or ""))
    return replace(
        row,
        limit_ratio=None if row.limit_ns is None else _rounded(row.ns / row.limit_ns),
        target=None if target is None else _rounded(target),
        target_most=most.get(row.work),
    )


def load() -> list[Result]:
    """The results in the file; none where there is no file."""
    if not RESULTS.is_file():
        return []
    return merged([], (_completed(Result(**row)) for row in json.loads(RESULTS.read_text())))


def merged(old: Iterable[Result], new: Iterable[Result]) -> list[Result]:
    """`new` over `old`: other machines' and other backends' results stay."""
    rows = {row.key: row for row in (*old, *new)}
    places = {work: place for place, work in enumerate(WORKS)}
    return sorted(
        rows.values(),
        key=lambda row: (row.cpu, row.backend, places[row.work], row.peer or "", row.rows),
    )


def save(results: Iterable[Result]) -> None:
    """One row a line, so that a difference reads well."""
    lines = ",\n".join(f"  {json.dumps(row.to_json())}" for row in results)
    RESULTS.write_text(f"[\n{lines}\n]\n")


def console() -> Console:
    """Wide where nobody looks at a terminal: a log has room."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=TABLE_WIDTH)


def show(results: Iterable[Result], console: Console) -> None:
    """The table. A target that was missed is red. A narrow terminal gets no limits and no row counts."""
    wide = console.width >= TABLE_WIDTH
    for (cpu, backend), group in _grouped(results).items():
        title = f"{cpu} · backend {backend}"
        table = Table(
            title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        headings = ["interlane", "peer", "ratio", "target"]
        table.add_column("work", no_wrap=True)
        for heading in ("rows", *headings, "limit", "of it") if wide else headings:
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("peer", overflow="fold")
        for row in group:
            rows = [f"{row.rows:,}"]
            limit = [_quantity(row.limit_ns, row.unit), _times(row.limit_ratio)]
            table.add_row(
                row.work,
                *(rows if wide else []),
                _quantity(row.ns, row.unit),
                _quantity(row.peer_ns, row.unit),
                Text(_times(row.ratio), style=_style(row)),
                _target(row),
                *(limit if wide else []),
                row.peer or "",
            )
        console.print(table)


def readme(text: str, results: Iterable[Result]) -> str:
    """The README with its tables made anew: each stands between a comment that names processor and backend,
    and one that ends it. Raises KeyError for those that have no results."""
    groups = _grouped(results)

    def block(found: re.Match[str]) -> str:
        cpu, backend = found["cpu"], found["backend"]
        table = _markdown(groups[cpu, backend])
        return f"{found['begin']}\nOn {cpu}, backend `{backend}`:\n{table}{found['end']}"

    return README_BLOCK.sub(block, text)


README_BLOCK = re.compile(
    r"(?P<begin><!-- results: (?P<cpu>[^\n]+), backend (?P<backend>\w+) -->\n)"
    r".*?(?P<end><!-- end of results -->\n)",
    re.DOTALL,
)


def _markdown(rows: list[Result]) -> str:
    lines = [
        "| work | interlane | against | theirs | ratio | of the limit |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        cells = [
            f"`{row.work}`",
            _quantity(row.ns, row.unit),
            row.peer or "",
            _quantity(row.peer_ns, row.unit),
            _times(row.ratio),
            _times(row.limit_ratio),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(["", *lines, "", ""])


def plot(results: Iterable[Result]) -> None:
    """Nanoseconds a row on a log scale: peers, interlane, the hardware's limit. For one machine and backend:
    those of the last result given."""
    import matplotlib as mpl

    mpl.use("svg")
    # The same results give the same file.
    mpl.rcParams["svg.hashsalt"] = "interlane"
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    groups = _grouped(row for row in results if row.unit == NANOSECONDS)
    if not groups:
        return
    (cpu, backend), rows = list(groups.items())[-1]
    works = sorted({row.work for row in rows}, key=lambda work: min(r.ns for r in rows if r.work == work))
    place = {work: n for n, work in enumerate(works)}
    figure, axes = pyplot.subplots(figsize=(10, 0.42 * len(works) + 1.6), layout="constrained")
    for work in works:
        of_work = [row for row in rows if row.work == work]
        values = [value for row in of_work for value in (row.ns, row.peer_ns, row.limit_ns) if value]
        axes.plot([min(values), max(values)], [place[work]] * 2, color="0.85", linewidth=5, zorder=1)
    peers = sorted({row.peer for row in rows if row.peer})
    for n, peer in enumerate(peers):
        of_peer = [row for row in rows if row.peer == peer and row.peer_ns]
        axes.scatter(
            [row.peer_ns or 0 for row in of_peer],
            [place[row.work] for row in of_peer],
            marker="osDvPX^"[n % 7],
            s=36,
            # The first colour is ours.
            color=f"C{1 + n % 9}",
            label=peer,
            zorder=2,
        )
    limited = [row for row in rows if row.limit_ns]
    if limited:
        axes.scatter(
            [row.limit_ns or 0 for row in limited],
            [place[row.work] for row in limited],
            marker="|",
            s=160,
            color="black",
            label="limit (the hardware's)",
            zorder=2,
        )
    axes.scatter(
        [row.ns for row in rows],
        [place[row.work] for row in rows],
        s=64,
        color="C0",
        label="interlane",
        zorder=3,
    )
    axes.set_xscale("log")
    axes.set_xlabel("nanoseconds a row (left is faster)")
    axes.set_yticks(range(len(works)), works)
    axes.grid(axis="x", which="major", color="0.9")
    axes.set_title(f"{cpu} · backend {backend}", fontsize="medium")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    figure.savefig(PLOT, metadata={"Date": None})
    pyplot.close(figure)
    # matplotlib ends some lines with blanks.
    PLOT.write_text("".join(f"{line.rstrip()}\n" for line in PLOT.read_text().splitlines()))


def line(row: Result) -> str:
    """A result as one line, shown when it is there."""
    words = [f"{row.work:22}{_quantity(row.ns, row.unit):>10}"]
    if row.peer_ns is not None:
        words.append(f"{row.peer} {_quantity(row.peer_ns, row.unit)}, {_times(row.ratio)}")
    if row.met is not None:
        words.append(f"({'met' if row.met else 'MISSED'}: {_target(row)})")
    return "  ".join(words)


def _grouped(results: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    groups: dict[tuple[str, str], list[Result]] = {}
    for row in results:
        groups.setdefault((row.cpu, row.backend), []).append(row)
    return groups


def _quantity(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit != NANOSECONDS:
        return f"{value:,.0f} B" if unit == BYTES else f"{value:.3g}"
    for scale, name in ((1e6, "ms"), (1e3, "µs")):
        if value >= scale:
            return f"{value / scale:.3g} {name}"
    return f"{value:.3g} ns"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3g} {TIMES}"


def _target(row: Result) -> str:
    least = [] if row.target is None else [f"≥ {_times(row.target)}"]
    most = [] if row.target_most is None else [f"≤ {_quantity(row.target_most, row.unit)}"]
    return ", ".join(least + most)


def _style(row: Result) -> str:
    return {True: "green", False: "bold red", None: ""}[row.met]


def _rounded(value: float) -> float:
    """Four digits: more than a shared machine repeats."""
    return float(f"{value:.4g}")


def main() -> None:
    arguments = argparse.ArgumentParser(description="The results of the last benches.")
    arguments.add_argument("--readme", action="store_true", help="write the README's tables of results anew")
    if not arguments.parse_args().readme:
        last = load()
        show(last, console())
        plot(last)
        return
    README.write_text(readme(README.read_text(), load()))


if __name__ == "__main__":
    main()
