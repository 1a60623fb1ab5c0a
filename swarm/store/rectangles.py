"""Rectangles of tensors: ranges of rows, one after the other, and a range of columns in whole blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swarm.kernels.quants import Quant

U8 = npt.NDArray[np.uint8]
Rows = Sequence[range]


class Rectangle(NamedTuple):
    """These rows and columns (None: all) of a tensor, in these of its slabs."""

    name: str
    rows: Rows | None = None
    columns: range | None = None
    slabs: range | None = None


def cut(raw: U8, quant: Quant, rows: Rows | None, columns: range | None) -> U8:
    """The bytes of these rows and columns (None: all) of a tensor (..., rows, row_bytes), or of a vector's values.

    A view where the rows are one range, else a copy. `columns` begin and end with blocks, except where the row ends.
    """
    if raw.ndim == 1:
        return cut(raw.reshape(-1, quant.row_bytes(1)), quant, rows, None).reshape(-1) if rows is not None else raw
    if columns is not None:
        raw = raw[..., quant.row_bytes(columns.start) : quant.row_bytes(columns.stop)]
    if rows is None:
        return raw
    pieces = [raw[..., piece.start : piece.stop, :] for piece in rows]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=-2)


def overlaps(rows: Rows, row0: int, row1: int) -> Iterator[tuple[slice, slice]]:
    """Where rows [row0, row1) meet these ranges: counted from row0, and in the ranges put one after the other."""
    start = 0
    for piece in rows:
        top, bottom = max(piece.start, row0), min(piece.stop, row1)
        if top < bottom:
            yield slice(top - row0, bottom - row0), slice(start + top - piece.start, start + bottom - piece.start)
        start += len(piece)
