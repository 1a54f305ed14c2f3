"""`interlane bench`: the benchmark suite, which lives in the checkout and not in the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

import interlane
from interlane.cli.failure import Failure


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Runs the benchmarks of a checkout: a table, and a plot in a file.

    ARGUMENTS go to the suite, which is pytest's: `-k encrypt` chooses some, `--quick` takes small sizes.
    """
    suite = checkout() / "benches"
    ended = subprocess.run(  # noqa: S603 # the arguments are the caller's own
        [sys.executable, "-m", "pytest", str(suite), *arguments], cwd=suite.parent, check=False
    )
    sys.exit(ended.returncode)


def checkout() -> Path:
    """The repository that this package runs from."""
    root = Path(interlane.__file__).resolve().parents[2]
    if not (root / "benches").is_dir() or not (root / "Cargo.toml").is_file():
        raise Failure("the benchmarks are in the source checkout: run `make bench` there")
    return root
