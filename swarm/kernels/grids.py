"""The grids of the types of less than four bits, as the `gguf` package has them.

The quants of IQ1, IQ2 and IQ3 are not stored each by itself: four or eight of them at once are an entry of a grid, and
the file holds its place. The grids are facts of the format, a few thousand entries; the package is asked for them only
when weights of such a type are met.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]

NAMES = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")


@cache
def grid_of(name: str) -> U8 | None:
    """uint8 (entries, 4 or 8): which of `values_of` each quant of an entry is. None for a type that has no grid."""
    if name not in NAMES:
        return None
    of_type = _in_package(name)
    places = np.searchsorted(np.array(values_of(name), np.float32), of_type.grid[0, 0])
    return np.ascontiguousarray(places.astype(np.uint8))


def values_of(name: str) -> tuple[int, ...]:
    """What an entry's quants may be, in increasing order; their signs are stored beside it (IQ1: have no others)."""
    return tuple(_in_package(name).grid_map)


@cache
def _in_package(name: str):  # type: ignore[no-untyped-def]  # the package has no types for it
    import gguf.quants

    of_type = getattr(gguf.quants, name)
    of_type.init_grid()
    return of_type
