"""Constant time on the binary: ``python tests/constant_time/run.py``. Every kernel with its secrets marked as
undefined memory, on every tier of this machine, under memcheck and MSan; see docs/constant-time.md."""

# ruff: noqa: S603 - the commands are ours, the tools the ones on the developer's path

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parents[1] / "target")) / "constant-time"
TRIPLE = "x86_64-unknown-linux-gnu"
SECONDS_MAX = 900
TOOL = {"memcheck": 9, "msan": 77}

# Valgrind hides AVX-512, VAES, SHA and ADX (and with that graviola) from the program: those are MSan's.
TIERS = {
    "memcheck": ["avx2, no SHA", "portable, no graviola"],
    "msan": ["avx512", "avx2, SHA", "portable, no graviola", "portable"],
}

# Where a report is no leak of ours: what its innermost function is, and why. The letters are the table's.
EXCUSED = {
    "memcheck": [
        (
            "a",
            r"decrypt_inout_detached \((src/)?(lib|cipher)\.rs",
            "the crates aes-gcm and chacha20poly1305 branch on whether a tag is right, which is public",
        ),
        (
            "b",
            r"internal_invert_batch",
            "curve25519-dalek asks whether a Z that it inverts with others is zero: none ever is",
        ),
    ],
    "msan": [
        ("b", r"internal_invert_batch", "as above; MSan stops there"),
        (
            "c",
            r"_mm_aeskeygenassist_si128",
            "MSan cannot follow this instruction, of the crate aes: memcheck does",
        ),
        ("d", r"\bcmovne\b", "MSan cannot follow assembler, of the crate cmov: memcheck does"),
    ],
}
# Where MSan loses the marks, so that clean says nothing.
LOST = {
    ("avx2, SHA", "x25519"): ("e", "MSan does not follow what a blend is chosen by: memcheck does"),
    ("portable", "x25519"): ("f", "graviola's assembler: neither harness follows it"),
}


@dataclass
class Result:
    said: str
    good: bool


def build(harness: str) -> Path:
    environment = dict(os.environ, CARGO_TARGET_DIR=str(TARGET / harness))
    flags = ["--cfg", "interlane_secrets"]
    command = ["cargo", "build", "--release", "--manifest-path", str(HERE / "Cargo.toml")]
    folder = TARGET / harness
    if harness == "msan":
        # Of this compiler, whatever it is: what nightly has is what the next stable has.
        environment["RUSTC_BOOTSTRAP"] = "1"
        flags += ["--cfg", "interlane_msan", "-Zsanitizer=memory", "-Cunsafe-allow-abi-mismatch=sanitizer"]
        flags += ["-Cllvm-args=-msan-eager-checks=0", "-Cllvm-args=-msan-poison-stack=0"]
        command += ["--target", TRIPLE]
        folder /= TRIPLE
    environment["CARGO_ENCODED_RUSTFLAGS"] = "\x1f".join(flags)
    environment.pop("RUSTFLAGS", None)
    subprocess.run(command, env=environment, check=True)
    return folder / "release" / "constant-time"


def run(harness: str, *command: str) -> tuple[int, str, str]:
    environment = dict(os.environ, MSAN_OPTIONS="poison_in_malloc=0:poison_in_free=0:exitcode=77")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX)
    if done.returncode not in (0, TOOL[harness]):
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.returncode, done.stdout, done.stderr


def places(harness: str, report: str) -> list[str]:
    """The innermost function of each report."""
    if harness == "memcheck":
        return re.findall(r"^==\d+==    at 0x[0-9A-F]+: (.*)$", report, re.MULTILINE)
    found = re.findall(r"^ *#0 0x[0-9a-f]+ (?:in )?(.*)$", report, re.MULTILINE)
    return found[:1] or ["somewhere: llvm-symbolizer is not there"]


def judged(harness: str, tier: str, name: str, kind: str, line: str | None, report: str) -> Result:
    reports = int(line.split("\t")[1]) if line else 1
    found = places(harness, report) if reports else []
    if kind == "leak":
        # The same place is shown once, however many probes lead there.
        return Result("caught" if reports else "NOT CAUGHT", reports > 0)
    letters = set()
    for place in found:
        letter = next((letter for letter, what, _ in EXCUSED[harness] if re.search(what, place)), None)
        if letter is None:
            return Result(f"LEAK {place}", False)
        letters.add(letter)
    if line is None:
        return Result("stops (" + ", ".join(sorted(letters)) + ")", True)
    _, _, marked, size = line.split("\t")
    share = int(marked) / int(size)
    lost = LOST.get((tier, name.split(",")[0].removesuffix(" public key")))
    if share < (0.25 if kind == "engine" else 0.9):
        # A share that grows is a harness that sees more: the entry goes.
        return Result(f"not seen ({lost[0]})", True) if lost else Result(f"MARKS LOST {share:.0%}", False)
    if reports and not letters:
        letters.add("as above")
    return Result("clean" + (f" ({', '.join(sorted(letters))})" if letters else ""), True)


def of_tier(harness: str, program: Path, tier: str, probes: list[tuple[str, str]]) -> dict[str, Result]:
    results = {}
    if harness == "memcheck":
        # A report is shown once in a process: each probe has its own.
        before = ["valgrind", "--tool=memcheck", "-q", "--error-limit=no", "--error-exitcode=9"]
    else:
        before = []
    for kind, name in probes:
        code, out, report = run(harness, *before, str(program), tier, name)
        line = next((line for line in out.splitlines() if line.startswith(f"{name}\t")), None)
        if line is None and code == 0:
            sys.exit(f"{name} on {tier} said nothing")
        results[name] = judged(harness, tier, name, kind, line, report)
    return results


def main() -> None:
    if platform.machine() != "x86_64":
        sys.exit("the harnesses are for x86-64 alone")
    missing = [tool for tool in ("valgrind", "llvm-symbolizer") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"not installed: {' '.join(missing)} (Debian: apt-get install valgrind llvm)")
    cpu = next(
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")
    ).split()
    here = {
        "avx512": "avx512ifma" in cpu and "vaes" in cpu,
        "avx2, SHA": "sha_ni" in cpu,
        "portable": "adx" in cpu,
    }
    # The crates in the versions that ship.
    shutil.copy(HERE.parents[1] / "Cargo.lock", HERE / "Cargo.lock")
    columns: dict[tuple[str, str], dict[str, Result]] = {}
    probes: list[tuple[str, str]] = []
    for harness, tiers in TIERS.items():
        program = build(harness)
        listed = subprocess.run([program, "probes"], capture_output=True, text=True, check=True).stdout
        probes = [(kind, name) for kind, name in (line.split("\t") for line in listed.splitlines())]
        for tier in tiers:
            if here.get(tier, True):
                columns[harness, tier] = of_tier(harness, program, tier, probes)
    print("| | " + " | ".join(f"{harness}: {tier}" for harness, tier in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for _, name in probes:
        print(f"| {name} | " + " | ".join(results[name].said for results in columns.values()) + " |")
    print()
    for letter, reason in sorted(
        {letter: reason for rows in reversed(EXCUSED.values()) for letter, _, reason in rows}.items()
        | dict(LOST.values()).items()
    ):
        print(f"({letter}) {reason}")
    absent = [tier for tier, there in here.items() if not there]
    if absent:
        print(f"this CPU lacks: {'; '.join(absent)}")
    if not all(result.good for results in columns.values() for result in results.values()):
        sys.exit("not constant time, or a harness that does not see it: look at what is in capitals")


if __name__ == "__main__":
    main()
