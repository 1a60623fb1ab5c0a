"""Floats to the blocks of Q4_K and Q6_K, by search for the scales that lose least.

A block has 256 columns in groups, each with a scale (and in Q4_K a minimum) of its own, which are integers times one
float of the block. For each group some scales about the obvious one are tried; of each the best fit by weighted least
squares is found, and the one with the smallest error is kept (csrc/fit.c). Then scales are rounded, and columns again
with those.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from swarm.kernels import _native

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]

COLUMNS = 256


def q4_k(values: F32) -> U8:
    """(blocks, 144) bytes of values (blocks, 256): x = d * scale * level - dmin * minimum."""
    groups = values.reshape(-1, 8, 32)
    scale, minimum = _native.fit_with_minimum(np.ascontiguousarray(groups.reshape(-1, 32)), 15)
    scale, minimum = scale.reshape(-1, 8), minimum.reshape(-1, 8)
    d, scales = _rounded_scales(scale, 63)
    dmin, minimums = _rounded_scales(minimum, 63)
    step = _half(d)[:, None] * scales
    lowest = _half(dmin)[:, None] * minimums
    levels = _levels(groups + lowest[..., None], step[..., None], 0, 15).reshape(-1, 4, 2, 32)
    nibbles = (levels[:, :, 0] | levels[:, :, 1] << 4).astype(np.uint8).reshape(-1, 128)
    return np.concatenate([_half_bytes(d), _half_bytes(dmin), _pack_scales(scales, minimums), nibbles], axis=1)


def q6_k(values: F32) -> U8:
    """(blocks, 210) bytes of values (blocks, 256): x = d * scale * (level - 32)."""
    groups = values.reshape(-1, 16, 16)
    scale = _native.fit_signed(np.ascontiguousarray(groups.reshape(-1, 16)), 32).reshape(-1, 16)
    largest = np.take_along_axis(scale, np.abs(scale).argmax(axis=1)[:, None], axis=1)[:, 0]
    d = largest / np.float32(-128)
    scales = np.clip(np.rint(_divide(scale, _half(d)[:, None])), -128, 127)
    step = _half(d)[:, None] * scales.astype(np.float32)
    levels = (_levels(groups, step[..., None], -32, 31) + 32).reshape(-1, 2, 4, 32)
    low = (levels[:, :, :2] & 15 | (levels[:, :, 2:] & 15) << 4).astype(np.uint8).reshape(-1, 128)
    shifts = np.array([0, 2, 4, 6])[:, None]
    high = np.bitwise_or.reduce((levels >> 4) << shifts, axis=2).astype(np.uint8).reshape(-1, 64)
    return np.concatenate([low, high, scales.astype(np.int8).view(np.uint8), _half_bytes(d)], axis=1)


QUANTIZE: dict[str, Callable[[F32], U8]] = {"Q4_K": q4_k, "Q6_K": q6_k}


def _rounded_scales(scale: F32, top: int) -> tuple[F32, F32]:
    """The float of each block, and its groups' scales as whole numbers from 0 to top times it."""
    d = scale.max(axis=1) / np.float32(top)
    return d, np.clip(np.rint(_divide(scale, _half(d)[:, None])), 0, top).astype(np.float32)


def _levels(x: F32, step: F32, low: int, high: int) -> I32:
    return np.clip(np.rint(_divide(x, step)), low, high).astype(np.int32)


def _divide(a: F32, b: F32 | np.float32) -> F32:
    """a / b, and 0 where b is 0."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(b == 0, np.float32(0), a / b).astype(np.float32)


def _half(x: F32) -> F32:
    """Rounded to the half float that is stored."""
    return x.astype(np.float16).astype(np.float32)


def _half_bytes(x: F32) -> U8:
    return x.astype("<f2").reshape(-1, 1).view(np.uint8)


def _pack_scales(scales: F32, minimums: F32) -> U8:
    """Eight scales and minimums of 6 bits in 12 bytes: four whole of each, then the low and high bits of the others."""
    s, m = scales.astype(np.uint8), minimums.astype(np.uint8)
    first = s[:, :4] | (s[:, 4:] >> 4) << 6
    second = m[:, :4] | (m[:, 4:] >> 4) << 6
    return np.concatenate([first, second, s[:, 4:] & 15 | (m[:, 4:] & 15) << 4], axis=1)
