"""What a warm call spends its time on, by perf: ``python benches/flamegraph.py [FLAMES.svg]``.

Encrypts and decrypts the rows of `encrypt/warm` for some seconds and prints which part of each call is crypto
(anything that runs inside of `rust/lanes`). With a file named, draws the stacks into it; that needs inferno
(``cargo install --locked inferno``). The extension module is built with its symbols, which `make build`
strips, and put beside a copy of the package: what is installed stays as it is.
"""

# ruff: noqa: S603, S607 - the commands are ours, the tools the ones on the developer's path

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).resolve().parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
ROWS = 10_000
SECONDS = 10
CALLS = {"encrypt": "Engine::encrypt", "decrypt": "Engine::decrypt"}
CRYPTO = "interlane_lanes::"


def work() -> None:
    """What is measured, in a process of its own."""
    from linked import link

    pair = link(ROWS)
    end = monotonic() + SECONDS
    while monotonic() < end:
        pair.check(pair.open_sent(pair.send()))


def package(folder: Path) -> None:
    """A copy of the package, with symbols."""
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "-p", "interlane-python"], cwd=ROOT, check=True
    )
    shutil.copytree(
        ROOT / "python" / "interlane", folder / "interlane", ignore=shutil.ignore_patterns("*.so")
    )
    shutil.copy(TARGET / "release" / "lib_native.so", folder / "interlane" / "_native.abi3.so")


def stacks(recorded: Path) -> Iterator[list[str]]:
    """The functions of each sample, the innermost first."""
    script = ["perf", "script", "--no-inline", "--fields", "ip,sym", "--input", recorded]
    printed = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    for sample in printed.split("\n\n"):
        yield [line.strip().partition(" ")[2] for line in sample.strip().splitlines()]


def share(recorded: Path) -> None:
    samples, crypto = Counter[str](), Counter[str]()
    for stack in stacks(recorded):
        for call, function in CALLS.items():
            if any(function in frame for frame in stack):
                samples[call] += 1
                crypto[call] += any(CRYPTO in frame for frame in stack)
    for call in CALLS:
        assert samples[call], f"{call} is in no sample: does the module have its symbols?"
        print(f"{call}: {crypto[call] / samples[call]:.0%} crypto, of {samples[call]} samples")


def draw(recorded: Path, flames: Path) -> None:
    script = subprocess.Popen(["perf", "script", "--no-inline", "--input", recorded], stdout=subprocess.PIPE)
    folded = subprocess.Popen(["inferno-collapse-perf"], stdin=script.stdout, stdout=subprocess.PIPE)
    with flames.open("wb") as svg:
        subprocess.run(["inferno-flamegraph"], stdin=folded.stdout, stdout=svg, check=True)
    assert (script.wait(), folded.wait()) == (0, 0)


def main(flames: Path | None) -> None:
    tools = ["perf", *(["inferno-collapse-perf", "inferno-flamegraph"] if flames else [])]
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        sys.exit(f"not installed: {', '.join(missing)} (Debian: linux-perf; cargo install --locked inferno)")
    with tempfile.TemporaryDirectory() as folder:
        package(Path(folder))
        recorded = Path(folder, "perf.data")
        record = ["perf", "record", "--quiet", "-e", "cpu-clock", "-F", "499", "--call-graph", "dwarf,4096"]
        subprocess.run(
            [*record, "--output", recorded, "--", sys.executable, __file__, "--work"],
            env=os.environ | {"PYTHONPATH": folder},
            check=True,
        )
        share(recorded)
        if flames:
            draw(recorded, flames)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--work"]:
            work()
        case []:
            main(None)
        case [flames]:
            main(Path(flames))
        case _:
            sys.exit(__doc__)
