"""Why a whole call failed. Nothing has changed then, and nothing has left. Rows never raise: they have a
`Status`."""

from __future__ import annotations


class Error(Exception):
    """Every error of interlane's own: one line that says what to do."""

    # KeyError would print the text in quotes.
    __str__ = Exception.__str__


class MalformedCall(Error, ValueError):
    """An argument is wrong, or two do not fit each other. The text names it."""


class StoreError(Error):
    """The store, or the key that opens it, is not to be had, or it did not take what was to be written."""


class StoreBusy(StoreError):
    """A shared store cannot be reached now, did not say whether it took what was to be written, or has the
    account with another engine: call again. Calls with rows do not raise it: their rows are BUSY or CONFLICT.
    """


class ClosedError(Error):
    """The engine was closed."""


class ForkedError(Error):
    """This process is a fork of the one that opened the engine."""


class UnknownAccount(Error, KeyError):
    """The engine has no account of this name."""
