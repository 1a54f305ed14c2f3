"""What arguments may be, as types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer


class ArrowArray(Protocol):
    """Whatever exports one Arrow array (pyarrow, polars, nanoarrow …); here a binary or large_binary one."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...


BytesLike: TypeAlias = "Buffer | NDArray[np.uint8]"
"""bytes, bytearray, memoryview, a uint8 array: C-contiguous."""

Data: TypeAlias = "Sequence[BytesLike] | BytesLike | ArrowArray"
"""Rows of bytes: a list or tuple, one buffer together with offsets, or an Arrow array without nulls.

They are copied when a call begins. What cannot change is read where it lies: one `bytes` object, a result's
`data`, and arrays or memoryviews over either."""

Offsets: TypeAlias = "Buffer | NDArray[np.int64]"
"""int64, one more than there are rows: row `i` is `data[offsets[i]:offsets[i + 1]]`."""

Handles: TypeAlias = "Buffer | NDArray[np.uint64] | Sequence[int]"
"""uint64, one a row: what `Engine.sessions` and `Engine.groups` give."""

RowNumbers: TypeAlias = "Buffer | NDArray[np.uint64] | Sequence[int]"
"""uint64: rows of a result, counted from 0."""

Kinds: TypeAlias = "str | Sequence[str] | Buffer | NDArray[np.uint8]"
"""`"msg"` or `"pkmsg"` for all rows, or one a row, or uint8 as in `Rows.kinds`."""

KeySource: TypeAlias = "bytes | str | Callable[[], bytes] | None"
"""The operator's key: see `interlane.open`."""

Path: TypeAlias = "str | PathLike[str]"
"""A file's path, or a store's address as a str."""
