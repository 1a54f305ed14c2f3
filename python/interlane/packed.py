"""What calls give back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ._native import Rows
from .status import Event, Status

__all__ = ["Fan", "Row", "Rows"]


class Row(NamedTuple):
    """One row of a result."""

    status: Status
    kind: str
    """What `data` is, or what a plaintext came in: "msg", "pkmsg", "skmsg" or "skdm"; "none" where the row
    failed or has no bytes."""
    data: bytes
    """A frame or a plaintext; empty for a row that failed."""
    events: Event


@dataclass(frozen=True, slots=True)
class Fan:
    """One message for a group."""

    message: Rows
    """One row: the frame for all devices."""
    distributions: Rows
    """One row for each of `devices`: our sender key, encrypted for it. Deliver it before `message`."""
    devices: list[str]
    """The devices that lacked our sender key. One whose row failed still lacks it."""
