"""The results of the benches: file, table and plot. `python benches/report.py` shows the last ones.

A row of `results.json` has the keys of `Result`; README.md says what each is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
PLOT = HERE / "results.svg"

NANOSECONDS = "ns"
BYTES = "bytes"
ALLOCATIONS = "allocations"
TABLE_WIDTH = 118
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Target:
    """What a result is to be: at least `ratio` times the peer, or at most `most` (in the row's unit)."""

    ratio: float | None = None
    most: float | None = None


VODOZEMAC = "vodozemac"
LIBSIGNAL_CLIENT = "@signalapp/libsignal-client"
GO = "go.mau.fi/libsignal"
CRYPTOGRAPHY = "cryptography"
MEMORY_STORE = "memory store"
ONE_THREAD = "one thread"

TARGETS = {
    ("encrypt/warm", VODOZEMAC): Target(ratio=6),
    ("encrypt/warm", LIBSIGNAL_CLIENT): Target(ratio=20),
    ("decrypt/warm", GO): Target(ratio=12),
    ("decrypt/warm", LIBSIGNAL_CLIENT): Target(ratio=20),
    ("setup", GO): Target(ratio=3.5),
    ("turn", GO): Target(ratio=3.5),
    ("group/open", GO): Target(ratio=2),
    ("group/send", GO): Target(ratio=2),
    ("aead/gcm", CRYPTOGRAPHY): Target(ratio=4),
    ("aead/chacha", CRYPTOGRAPHY): Target(ratio=4),
    ("store/strict", MEMORY_STORE): Target(ratio=0.5),
    ("rows/1", VODOZEMAC): Target(ratio=2.5),
    ("threads/2", ONE_THREAD): Target(ratio=1.8),
    ("memory/session", VODOZEMAC): Target(most=500),
    # Buffers of a run, shared by its thousand rows, are what is left.
    ("allocations/encrypt", None): Target(most=0.1),
    ("allocations/decrypt", None): Target(most=0.1),
}

# The least that a row of this work takes, in the steps that limits/run.sh measures: (times, step). Chain
# steps and key schedules have no counterpart there, so each sum is below what is truly possible.
LIMITS = {
    "encrypt/warm": [(1, "cbc_hmac")],
    "encrypt/list": [(1, "cbc_hmac")],
    "decrypt/warm": [(1, "cbc_hmac")],
    # Four agreements of X3DH, one of the ratchet; base key and ratchet key; the signed prekey's signature.
    "setup": [(5, "x25519"), (2, "x25519/public"), (1, "xeddsa/verify"), (1, "cbc_hmac")],
    # One agreement for each direction's chain, one new ratchet key, two messages.
    "turn": [(2, "x25519"), (1, "x25519/public"), (2, "cbc_hmac")],
    "group/open": [(1, "xeddsa/verify"), (1, "cbc")],
    "group/send": [(1, "xeddsa/sign"), (1, "cbc")],
    "aead/gcm": [(1, "aead/gcm")],
}


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
    target: float | None = None
    unit: str = NANOSECONDS
    commit: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        return (self.work, self.backend, self.cpu, self.rows, self.peer)

    @property
    def met(self) -> bool | None:
        """Whether the target is met, where there is one."""
        target = TARGETS.get((self.work, self.peer))
        if target is None:
            return None
        if target.most is not None:
            return self.ns <= target.most
        return self.ratio is not None and target.ratio is not None and self.ratio >= target.ratio

    def to_json(self) -> dict[str, object]:
        """Without what was not measured: a peer without a limit has no `limit`."""
        optional = ("limit", "limit_ns", "target")
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
    """A result with what follows from its figures: ratio, target, limit."""
    target = TARGETS.get((work, peer), Target())
    sums = LIMITS.get(work, [])
    limit = None
    if unit == NANOSECONDS and sums and steps and all(step in steps for _, step in sums):
        limit = sum(times * steps[step] for times, step in sums)
    return Result(
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
        target=target.most if target.ratio is None else target.ratio,
        unit=unit,
        commit=commit,
    )


def load() -> list[Result]:
    """The results in the file; none where there is no file."""
    if not RESULTS.is_file():
        return []
    return [Result(**row) for row in json.loads(RESULTS.read_text())]


def merged(old: Iterable[Result], new: Iterable[Result]) -> list[Result]:
    """`new` over `old`: other machines' and other backends' results stay."""
    rows = {row.key: row for row in (*old, *new)}
    return sorted(rows.values(), key=lambda row: (row.cpu, row.backend, row.work, row.peer or "", row.rows))


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
        for heading in ("rows", *headings, "limit") if wide else headings:
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("peer", overflow="fold")
        for row in group:
            rows, limit = [f"{row.rows:,}"], [_quantity(row.limit_ns, row.unit)]
            table.add_row(
                row.work,
                *(rows if wide else []),
                _quantity(row.ns, row.unit),
                _quantity(row.peer_ns, row.unit),
                Text("" if row.ratio is None else f"{row.ratio:.3g} {TIMES}", style=_style(row)),
                _target(row),
                *(limit if wide else []),
                row.peer or "",
            )
        console.print(table)


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
            color=f"C{n + 1}",
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
            label="limit (Intel multi-buffer libraries)",
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
        words.append(f"{row.peer} {_quantity(row.peer_ns, row.unit)}, {row.ratio:.3g} {TIMES}")
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
        return f"{value:.3g} {'B' if unit == BYTES else ''}".rstrip()
    for scale, name in ((1e6, "ms"), (1e3, "µs")):
        if value >= scale:
            return f"{value / scale:.3g} {name}"
    return f"{value:.3g} ns"


def _target(row: Result) -> str:
    target = TARGETS.get((row.work, row.peer))
    if target is None:
        return ""
    return f"≥ {target.ratio:g} {TIMES}" if target.most is None else f"≤ {_quantity(target.most, row.unit)}"


def _style(row: Result) -> str:
    return {True: "green", False: "bold red", None: ""}[row.met]


def _rounded(value: float) -> float:
    """Four digits: more than a shared machine repeats."""
    return float(f"{value:.4g}")


if __name__ == "__main__":
    last = load()
    show(last, console())
    plot(last)
