"""The command line, for operators: `interlane --help`."""

from __future__ import annotations

from typing import Any

import click

import interlane
from interlane.cli.accounts import account, prekeys
from interlane.cli.backups import backup, restore
from interlane.cli.bench import bench
from interlane.cli.failure import EXIT_CODES, FILES, STORE, Failure
from interlane.cli.relay import relay
from interlane.cli.sessions import sessions
from interlane.cli.shards import shards
from interlane.cli.stats import backends, stats


class Commands(click.Group):
    """Gives every error its one line and its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (interlane.StoreError, interlane.ClosedError, interlane.ForkedError) as error:
            raise Failure(str(error), STORE) from None
        except interlane.Error as error:
            raise Failure(str(error)) from None
        except BrokenPipeError:
            raise Failure(
                "the reader of standard output is gone: what it did not get is in the journal, if any", FILES
            ) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise Failure(f"{where}{error.strerror or error}", FILES) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(interlane.__version__, prog_name="interlane")
def main() -> None:
    """Signal-protocol sessions for gateways, in batches."""


for command in (
    relay,
    account,
    prekeys,
    sessions,
    shards,
    stats,
    backup,
    restore,
    backends,
    bench,
):
    main.add_command(command)
