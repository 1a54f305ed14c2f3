"""aarch64 on another machine: cross-built, run under QEMU.

``python tests/tiers/aarch64.py wheel FOLDER`` builds the manylinux2014 wheel, where the tools for it are;
else it says which are lacking. ``… test WHEEL`` runs the Rust tests on every tier, then installs the wheel
into an aarch64 Python and runs the Python tests there.
``… check`` only type-checks the lanes, whose NEON code no other build sees.
"""

# ruff: noqa: S603, S607 - the commands are ours, the tools the ones on the developer's path

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from emulated import ROOT, TARGET, Tier, built, lacking, run

TRIPLE = "aarch64-unknown-linux-gnu"
QEMU = "qemu-aarch64-static"
GCC = "aarch64-linux-gnu-gcc"
# What is built and unpacked here.
HERE = TARGET / "tiers"
NO_CRYPTO = HERE / "no_crypto.so"
DEBIAN_ROOT = HERE / "debian"
PYTHON = HERE / "python-aarch64"
PACKAGES = ("python3-minimal:arm64", "libpython3-stdlib:arm64", "libstdc++6:arm64")

TIERS = [
    Tier("NEON, AES, SHA-2", (QEMU, "-cpu", "cortex-a72"), "neon-crypto"),
    Tier("NEON, AES, SHA-2, SVE and all that QEMU knows", (QEMU, "-cpu", "max"), "neon-crypto"),
    Tier("NEON alone", (QEMU, "-cpu", "cortex-a72", "-E", f"LD_PRELOAD={NO_CRYPTO}"), "neon"),
]

INSTALL = f"""aarch64 is left out; not installed: %s. On Debian:
  dpkg --add-architecture arm64 && apt-get update
  apt-get install rustc-web libstd-rust-web-dev libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu \\
    libc6-dev-arm64-cross libc6:arm64 qemu-user-static
(or, for the first three, a rustc that has the target {TRIPLE}: rustup target add {TRIPLE})"""


@cache
def rustc() -> str | None:
    """A compiler that has the standard library of aarch64; libraries of one do not fit another."""
    for compiler in (os.environ.get("RUSTC", "rustc"), "/usr/bin/rustc"):
        if shutil.which(compiler):
            asked = [compiler, "--print", "target-libdir", "--target", TRIPLE]
            folder = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
            if any(Path(folder).glob("libstd-*.rlib")):
                return compiler
    return None


def cross() -> dict[str, str]:
    """The environment of a cross build."""
    linker = f"CARGO_TARGET_{TRIPLE.upper().replace('-', '_')}_LINKER"
    compiler = rustc()
    assert compiler is not None
    # The tests come without link-time optimisation, which is most of their build; the wheel has it.
    return {
        "RUSTC": compiler,
        "CARGO_PROFILE_RELEASE_LTO": "off",
        linker: GCC,
        f"CC_{TRIPLE.replace('-', '_')}": GCC,
    }


def build_wheel(folder: Path) -> None:
    if platform.machine() == "aarch64":
        return  # the machine's own wheel is one
    if rustc() is None:
        print(INSTALL % f"the target {TRIPLE} of rustc")
        return
    command = ["maturin", "build", "--release", "--locked", "--compatibility", "manylinux2014", "--zig"]
    compiler = {"RUSTC": str(rustc())}
    subprocess.run(
        [*command, "--target", TRIPLE, "--out", folder], cwd=ROOT, env=os.environ | compiler, check=True
    )


def check() -> None:
    compiler = rustc()
    if compiler is None:
        print(INSTALL % f"the target {TRIPLE} of rustc")
        return
    command = ["cargo", "check", "--quiet", "--locked", "--target", TRIPLE, "-p", "interlane-lanes"]
    warnings = {"RUSTC": compiler, "RUSTFLAGS": "-D warnings"}
    subprocess.run(command, cwd=ROOT, env=os.environ | warnings, check=True)


def compile_no_crypto() -> None:
    HERE.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("no_crypto.c")
    subprocess.run([GCC, "-O2", "-shared", "-fPIC", "-o", NO_CRYPTO, source, "-ldl"], check=True)


def unpack_python() -> None:
    """Debian's Python of aarch64 in a folder, and a program that starts it there: beside the machine's own it
    cannot be installed."""
    if PYTHON.exists():
        return
    shutil.rmtree(DEBIAN_ROOT, ignore_errors=True)
    archives = DEBIAN_ROOT / "archives"
    archives.mkdir(parents=True)
    asked = ["apt-cache", "depends", "--recurse", "--important", *PACKAGES]
    depends = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"^(?:lib|zlib|python3)\S*:arm64$", depends, re.MULTILINE))
    subprocess.run(
        ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *sorted(needed)],
        cwd=archives,
        check=True,
    )
    for archive in archives.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", archive, DEBIAN_ROOT], check=True)
    [interpreter] = [path for path in DEBIAN_ROOT.glob("usr/bin/python3.*") if path.name[8:].isdigit()]
    # Python takes the name it was started by for its own, and starts itself again by it.
    started = f'-0 "$0" -L {DEBIAN_ROOT} -E PYTHONHOME={DEBIAN_ROOT / "usr"} {interpreter} "$@"'
    PYTHON.write_text(f"#!/bin/sh\nexec {' '.join(TIERS[0].emulator)} {started}\n")
    PYTHON.chmod(0o755)


def install(wheel: Path) -> None:
    """Into that Python, by its own tags; what the tests need is pinned as everywhere."""
    pip = [sys.executable, "-m", "pip", f"--python={PYTHON}", "install", "--quiet", "--break-system-packages"]
    pip += [
        "--disable-pip-version-check",
        "--root-user-action=ignore",
        "--no-warn-script-location",
        "--only-binary=:all:",
    ]
    pip += [f"--constraint={ROOT / 'requirements-dev.lock'}"]
    tools = ["pytest", "hypothesis", "cryptography", "nanoarrow", "pyarrow", "vodozemac"]
    subprocess.run([*pip, *tools, str(wheel)], check=True)
    # The same version may be another build.
    subprocess.run([*pip, "--no-deps", "--force-reinstall", str(wheel)], check=True)


def test(wheel: Path) -> None:
    missing = lacking(QEMU, GCC, "apt-cache", "dpkg-deb")
    if rustc() is None:
        missing.append(f"the target {TRIPLE} of rustc")
    if missing:
        sys.exit(INSTALL % ", ".join(missing))
    compile_no_crypto()
    programs = built("--target", TRIPLE, "-p", "interlane-lanes", "-p", "interlane", environment=cross())
    for tier in TIERS:
        run(tier, programs)
    unpack_python()
    install(wheel)
    subprocess.run([PYTHON, "-I", "tests/smoke.py"], cwd=ROOT, check=True)
    # With what was left out, and why: a live peer that is set up here runs beside the emulator as itself.
    subprocess.run([PYTHON, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"], cwd=ROOT, check=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["check"]:
            check()
        case ["wheel", folder]:
            build_wheel(Path(folder))
        case ["test", wheel]:
            test(Path(wheel).resolve())
        case _:
            sys.exit(__doc__)
