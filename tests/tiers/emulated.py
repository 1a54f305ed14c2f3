"""The Rust tests on CPUs that this machine is not, under QEMU. A tier is a model of CPU and the backend
it must get: a test that ran on another one would show nothing."""

# ruff: noqa: S603 - the commands are ours, the tools the ones on the developer's path

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

# Tests that start themselves again do it by the words in this variable; where it is set, some wait longer.
RUNNER = "INTERLANE_TEST_RUNNER"
SECONDS_MAX = 1800


@dataclass(frozen=True)
class Tier:
    """A CPU to run on."""

    name: str
    emulator: tuple[str, ...]
    backend: str


@dataclass(frozen=True)
class Program:
    """A test program, and the folder of its crate, where cargo runs it."""

    name: str
    path: Path
    folder: Path


def lacking(*tools: str) -> list[str]:
    return [tool for tool in tools if shutil.which(tool) is None]


def built(*arguments: str, environment: Mapping[str, str] | None = None) -> list[Program]:
    """Builds test programs: `arguments` are cargo's."""
    command = [
        "cargo",
        "test",
        "--release",
        "--locked",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
    ]
    done = subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env=os.environ | dict(environment or {}),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(done.returncode)
    programs = []
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
            folder = Path(message["manifest_path"]).parent
            name = f"{folder.relative_to(ROOT)} {message['target']['name']}"
            programs.append(Program(name, Path(message["executable"]), folder))
    return programs


def run(tier: Tier, programs: list[Program]) -> None:
    """Runs them all; the first that fails ends it."""
    print(f"\n{tier.name}: {' '.join(tier.emulator)}", flush=True)
    [asked] = [program for program in programs if program.path.name.startswith("backend-")]
    shown = emulate(tier, asked, "--exact", "shows_what_is_detected", "--ignored", "--nocapture")
    if f"detected {tier.backend}\n" not in shown:
        sys.exit(f"{shown}\nThis CPU is to get the backend {tier.backend}")
    tier_began = time.monotonic()
    passed = 0
    for program in programs:
        began = time.monotonic()
        [result] = re.findall(r"^test result: (.*?);", emulate(tier, program, "--quiet"), re.MULTILINE)
        seconds = time.monotonic() - began
        print(f"  {tier.backend:<11} {program.name:<28} {result} ({seconds:.0f} s)", flush=True)
        passed += int(re.findall(r"(\d+) passed", result)[0])
    minutes = (time.monotonic() - tier_began) / 60
    print(f"  {tier.backend:<11} {passed} tests passed in {minutes:.0f} minutes", flush=True)


def emulate(tier: Tier, program: Program, *arguments: str) -> str:
    """What it prints."""
    ran = subprocess.run(
        [*tier.emulator, program.path, *arguments],
        cwd=program.folder,
        env=os.environ | {RUNNER: " ".join(tier.emulator)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    if ran.returncode != 0:
        sys.exit(f"{ran.stdout}\n{program.name} failed on {tier.name}: exit code {ran.returncode}")
    return ran.stdout
