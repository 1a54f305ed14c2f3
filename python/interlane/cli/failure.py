"""How a command ends: one line that says what to do, and an exit code for what kind of thing it was."""

from __future__ import annotations

import click

OK, ROWS_FAILED, USAGE, STORE, FILES, INTERRUPTED = 0, 1, 2, 3, 4, 130

EXIT_CODES = """\b
Exit codes:
    0  done
    1  some lines failed, and --strict was given
    2  the command line, the environment or an input file is not right
    3  the store could not be opened, read or written
    4  a file or pipe could not be read or written
  130  interrupted; relay finishes its batch first
"""


class Failure(click.ClickException):
    """Ends the command with `exit_code`; the message is one line."""

    def __init__(self, message: str, exit_code: int = USAGE) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code  # type: ignore[misc] # click declares it for the class
