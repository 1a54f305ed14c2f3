"""Runs the Rust tests on older x86-64 CPUs: ``python tests/tiers/x86.py``. QEMU 7 knows none with AVX-512
or the SHA instructions: what has those is tested on the machine itself."""

from __future__ import annotations

import sys

from emulated import Tier, built, lacking, run

QEMU = "qemu-x86_64-static"
TIERS = [
    Tier("SSE4.2, no AES", (QEMU, "-cpu", "Nehalem"), "portable"),
    Tier("AES, no AVX", (QEMU, "-cpu", "Westmere"), "portable"),
    Tier("AVX2 and AES, no SHA", (QEMU, "-cpu", "Haswell"), "avx2"),
]


def main() -> None:
    if lacking(QEMU):
        sys.exit(f"{QEMU} is not installed (Debian: apt-get install qemu-user-static)")
    # The whole workspace, as `make test` builds it: then there is nothing left to build.
    programs = built("--workspace")
    for tier in TIERS:
        run(tier, programs)


if __name__ == "__main__":
    main()
