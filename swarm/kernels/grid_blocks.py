"""What the blocks of the types below four bits that are made of grids or of digits stand for, in NumPy.

A block is 256 columns: a float d, odd scales of 32 or 16 columns each (TQ: none), and small integers. d is given with
the power of two that those integers are counted in, so a weight is d * scale * value, each product exact in f32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from swarm.kernels.grids import grid_of, values_of

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]


class Parts(NamedTuple):
    """Of blocks (...): d (...), scales (..., 8 or 16), values (..., 256)."""

    d: F32
    scales: I32
    values: I32


def read(name: str, blocks: U8) -> Parts:
    """The parts of blocks (..., bytes of a block) of a type of READERS."""
    return READERS[name](blocks)


def to_floats(name: str, blocks: U8) -> F32:
    """(..., 256)."""
    d, scales, values = read(name, blocks)
    scaled = d[..., None] * scales.astype(np.float32)
    by_scale = values.reshape(*values.shape[:-1], scales.shape[-1], -1)
    floats: F32 = (scaled[..., None] * by_scale.astype(np.float32)).reshape(values.shape)
    return floats


def _half(b: U8, at: int, parts: int = 1) -> F32:
    """d, and what of it the values count in."""
    d: F32 = np.ascontiguousarray(b[..., at : at + 2]).view("<f2")[..., 0].astype(np.float32) / np.float32(parts)
    return d


def _words(b: U8, first: int, last: int, kind: str) -> npt.NDArray[np.int64]:
    return np.ascontiguousarray(b[..., first:last]).view(kind).astype(np.int64)


def _bits(words: npt.NDArray[Any], shifts: list[int], mask: int) -> I32:
    """(..., n) to (..., n * len(shifts))."""
    fields: I32 = ((words.astype(np.int64)[..., None] >> np.array(shifts)) & mask).astype(np.int32)
    return fields.reshape(*words.shape[:-1], -1)


def _odd(fields: I32) -> I32:
    return 2 * fields + 1


def _nibbles(b: U8) -> I32:
    return _bits(b, [0, 4], 15)


def _signs(bytes_: npt.NDArray[Any]) -> I32:
    """A sign for each bit: 1, or -1 where it is set."""
    return 1 - 2 * _bits(bytes_, list(range(8)), 1)


def _even_signs(seven: I32) -> I32:
    """Seven bits each; the eighth makes the number of set ones even."""
    return _signs(seven | _bits(seven, list(range(7)), 1).reshape(*seven.shape, 7).sum(axis=-1) % 2 << 7)


def _entries(name: str, places: I32) -> I32:
    """The values (..., 256) at these places of a type's grid."""
    grid = grid_of(name)
    assert grid is not None
    values: I32 = np.array(values_of(name), np.int32)[grid][places]
    return values.reshape(*places.shape[:-1], 256)


def _iq2_xxs(b: U8) -> Parts:
    words = _words(b, 2, 66, "<u4").reshape(*b.shape[:-1], 8, 2)
    places = _bits(words[..., 0], [0, 8, 16, 24], 255)
    signs = _even_signs(_bits(words[..., 1], [0, 7, 14, 21], 127))
    return Parts(_half(b, 0, 8), _odd(_bits(words[..., 1], [28], 15)), _entries("IQ2_XXS", places) * signs)


def _iq2_xs(b: U8) -> Parts:
    words = _words(b, 2, 66, "<u2")
    values = _entries("IQ2_XS", _bits(words, [0], 511)) * _even_signs(_bits(words, [9], 127))
    return Parts(_half(b, 0, 8), _odd(_nibbles(b[..., 66:74])), values)


def _iq2_s(b: U8) -> Parts:
    places = b[..., 2:34] | _bits(b[..., 66:74], [0, 2, 4, 6], 3) << 8
    values = _entries("IQ2_S", places) * _signs(b[..., 34:66])
    return Parts(_half(b, 0, 8), _odd(_nibbles(b[..., 74:82])), values)


def _iq3_xxs(b: U8) -> Parts:
    words = _words(b, 66, 98, "<u4")
    signs = _even_signs(_bits(words, [0, 7, 14, 21], 127))
    values = _entries("IQ3_XXS", b[..., 2:66].astype(np.int32)) * signs
    return Parts(_half(b, 0, 4), _odd(_bits(words, [28], 15)), values)


def _iq3_s(b: U8) -> Parts:
    places = b[..., 2:66] | _bits(b[..., 66:74], list(range(8)), 1) << 8
    values = _entries("IQ3_S", places) * _signs(b[..., 74:106])
    return Parts(_half(b, 0), _odd(_nibbles(b[..., 106:110])), values)


def _shifted(entries: I32, less: I32) -> I32:
    """Eighths of -1, 0, 1 and an eighth more, or less where that is set for 256 / n columns."""
    n_columns = entries.shape[-1] // less.shape[-1]
    return 8 * entries + 1 - 2 * np.repeat(less, n_columns, axis=-1)


def _iq1_s(b: U8) -> Parts:
    words = _words(b, 34, 50, "<u2")
    entries = _entries("IQ1_S", b[..., 2:34] | _bits(words, [0, 3, 6, 9], 7) << 8)
    return Parts(_half(b, 0, 8), _odd(_bits(words, [12], 7)), _shifted(entries, _bits(words, [15], 1)))


def _iq1_m(b: U8) -> Parts:
    words, high = _words(b, 48, 56, "<u2"), _bits(b[..., 32:48], [0, 4], 15)
    pieces = (words >> 12) << np.array([0, 4, 8, 12])
    d = pieces.sum(axis=-1).astype("<u2").view("<f2").astype(np.float32)
    entries = _entries("IQ1_M", b[..., :32] | (high & 7) << 8)
    return Parts(d / np.float32(8), _odd(_bits(words, [0, 3, 6, 9], 7)), _shifted(entries, high >> 3))


def _tq1_0(b: U8) -> Parts:
    pieces = [b[..., 0:32], b[..., 32:48], b[..., 48:52]]
    digits = [_digits(piece, count) for piece, count in zip(pieces, (5, 5, 4), strict=True)]
    return Parts(_half(b, 52), _one(b), np.concatenate(digits, axis=-1) - 1)


def _digits(b: U8, count: int) -> I32:
    """The digits of bytes that count in 243rds, the first ones of all bytes first."""
    powers = np.array([1, 3, 9, 27, 81][:count], np.uint8)[:, None]
    digits = (b[..., None, :] * powers).astype(np.int32) * 3 >> 8
    return digits.reshape(*b.shape[:-1], -1)


def _tq2_0(b: U8) -> Parts:
    halves = b[..., :64].reshape(*b.shape[:-1], 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None]
    return Parts(_half(b, 64), _one(b), (halves & 3).reshape(*b.shape[:-1], 256).astype(np.int32) - 1)


def _one(b: U8) -> I32:
    return np.ones((*b.shape[:-1], 8), np.int32)


READERS: dict[str, Callable[[U8], Parts]] = {
    "IQ1_S": _iq1_s,
    "IQ1_M": _iq1_m,
    "IQ2_XXS": _iq2_xxs,
    "IQ2_XS": _iq2_xs,
    "IQ2_S": _iq2_s,
    "IQ3_XXS": _iq3_xxs,
    "IQ3_S": _iq3_s,
    "TQ1_0": _tq1_0,
    "TQ2_0": _tq2_0,
}
