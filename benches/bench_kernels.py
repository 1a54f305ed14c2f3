"""Kernels alone, in calls as the engine makes them: against the multi-buffer libraries, and against the
crates that one row at a time is left to."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import interlane
import pytest
from conftest import Limits, Recorder, Sizes, avx2_beside
from interlane._native import measure
from report import CRYPTO_MB, GRAVIOLA, IPSEC_MB, PORTABLE

# Of a call of `measure`.
ROWS = 64


class Kernel:
    """Times a kernel and a peer in turn. It compares the kernel's results with portable's itself."""

    def __init__(self, record: Recorder, sizes: Sizes) -> None:
        self._record = record
        self._sizes = sizes

    def clock(self, work: str, backend: str) -> Callable[[], float]:
        return lambda: median(measure(work, backend) for _ in range(self._sizes.samples))

    def __call__(self, work: str, backend: str, peer: str, theirs: Callable[[], float]) -> None:
        ours = self.clock(work, backend)
        rounds = [(theirs(), ours()) for _ in range(self._sizes.rounds)]
        theirs_ns, ours_ns = map(median, zip(*rounds, strict=True))
        self._record(work, backend=backend, rows=ROWS, ours=ours_ns, peer=peer, theirs=theirs_ns)


@pytest.fixture
def kernel(record: Recorder, sizes: Sizes) -> Kernel:
    return Kernel(record, sizes)


@pytest.mark.parametrize(
    ("work", "peer"),
    [
        ("x25519", CRYPTO_MB),
        ("x25519/public", CRYPTO_MB),
        ("xeddsa/sign", CRYPTO_MB),
        ("xeddsa/verify", CRYPTO_MB),
        ("cbc_hmac", IPSEC_MB),
    ],
)
def bench_multi_buffer(kernel: Kernel, limits: Limits, work: str, peer: str) -> None:
    """The peer's keys are expanded outside its clock; ours are each row's own, and inside."""
    kernel(work, interlane.backend(), peer, limits.clock(work))


def bench_compression(kernel: Kernel) -> None:
    """Portable has one stream: of the SHA instructions, where the CPU has them."""
    if interlane.backend() == PORTABLE:
        pytest.skip("sha256/compression: portable is its own peer")
    kernel("sha256/compression", interlane.backend(), PORTABLE, kernel.clock("sha256/compression", PORTABLE))


def bench_x25519_avx2(kernel: Kernel) -> None:
    """What a CPU without AVX-512 has."""
    avx2_beside("x25519")
    if GRAVIOLA not in dict(interlane.kernels(PORTABLE))["x25519"]:
        pytest.skip("x25519: graviola does not run here")
    kernel("x25519", "avx2", GRAVIOLA, kernel.clock("x25519", PORTABLE))
