"""Floats to stored blocks, for test files. Swarm itself never quantises.

The gguf package does the types it can; the K and IQ4 types are done here, with plain scales (no search).
"""

from __future__ import annotations

import gguf
import numpy as np

from swarm.kernels.quants import IQ4_LEVELS, Quant, quant_by_name
from tests.helpers import quantize_grids

BY_PACKAGE = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "MXFP4", "TQ1_0", "TQ2_0")


def quantize(quant: Quant | str, values: np.ndarray) -> np.ndarray:
    """The stored rows (..., row_bytes) as uint8 of the floats `values` (..., n_cols)."""
    quant = quant_by_name(quant) if isinstance(quant, str) else quant
    values = np.ascontiguousarray(values, dtype=np.float32)
    assert values.shape[-1] % quant.block_cols == 0, (quant.name, values.shape)
    if quant.name in BY_PACKAGE:
        raw = np.ascontiguousarray(gguf.quantize(values, gguf.GGMLQuantizationType(quant.id)))
        return raw.view(np.uint8).reshape(*values.shape[:-1], quant.row_bytes(values.shape[-1]))
    blocks = values.reshape(-1, quant.block_cols)
    with np.errstate(divide="ignore", invalid="ignore"):
        raw = QUANTIZE[quant.name](blocks)
    assert raw.shape == (len(blocks), quant.block_bytes) and raw.dtype == np.uint8
    return raw.reshape(*values.shape[:-1], quant.row_bytes(values.shape[-1]))


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, and 0 where b is 0."""
    return np.where(b == 0, 0, a / np.where(b == 0, 1, b))


def half(x: np.ndarray) -> np.ndarray:
    """Rounded to the half float that will be stored."""
    return x.astype(np.float16).astype(np.float32)


def half_bytes(x: np.ndarray) -> np.ndarray:
    return x.astype("<f2").reshape(-1, 1).view(np.uint8)


def extreme(x: np.ndarray) -> np.ndarray:
    """The value with the largest magnitude of each last axis, kept as an axis of one."""
    return np.take_along_axis(x, np.abs(x).argmax(axis=-1, keepdims=True), axis=-1)


def rounded(x: np.ndarray, low: int, high: int) -> np.ndarray:
    return np.clip(np.rint(x), low, high).astype(np.int32)


def join_bits(fields: np.ndarray, width: int) -> np.ndarray:
    """(..., count, n) small integers to (..., n) bytes, first field in the lowest bits."""
    shifts = np.arange(fields.shape[-2]) * width
    return (fields.astype(np.int64) << shifts[:, None]).sum(axis=-2).astype(np.uint8)


def with_minimum(blocks: np.ndarray, n_groups: int, levels: int, scale_levels: int):
    """Scales and minima of a block: d, dmin (n, 1), small integers scales, minima (n, groups), q (n, groups, cols)."""
    x = blocks.reshape(len(blocks), n_groups, -1)
    lowest = np.minimum(x.min(axis=-1), 0)
    steps = (np.maximum(x.max(axis=-1), 0) - lowest) / levels
    d = half(steps.max(axis=-1, keepdims=True) / scale_levels)
    dmin = half(-lowest.min(axis=-1, keepdims=True) / scale_levels)
    scales = rounded(divide(steps, d), 0, scale_levels)
    minima = rounded(divide(-lowest, dmin), 0, scale_levels)
    q = rounded(divide(x + (dmin * minima)[..., None], (d * scales)[..., None]), 0, levels)
    return d, dmin, scales, minima, q


def signed(blocks: np.ndarray, n_groups: int, lowest: int, scale_lowest: int, scale_highest: int):
    """Signed scales of a block: d (n, 1), scales (n, groups), x / (d * scale) (n, groups, cols)."""
    x = blocks.reshape(len(blocks), n_groups, -1)
    steps = extreme(x)[..., 0] / lowest
    d = half(extreme(steps) / scale_lowest)
    scales = rounded(divide(steps, d), scale_lowest, scale_highest)
    return d, scales, divide(x, (d * scales)[..., None])


def k_scales(scales: np.ndarray, minima: np.ndarray) -> np.ndarray:
    """Eight 6-bit scales and minima in the 12 bytes of Q4_K and Q5_K."""
    first = (scales[:, :4] | ((scales[:, 4:] >> 4) << 6)).astype(np.uint8)
    second = (minima[:, :4] | ((minima[:, 4:] >> 4) << 6)).astype(np.uint8)
    third = ((scales[:, 4:] & 15) | ((minima[:, 4:] & 15) << 4)).astype(np.uint8)
    return np.concatenate([first, second, third], axis=-1)


def q2_k(blocks: np.ndarray) -> np.ndarray:
    d, dmin, scales, minima, q = with_minimum(blocks, 16, 3, 15)
    packed = join_bits(q.reshape(-1, 2, 4, 32), 2).reshape(-1, 64)
    return np.concatenate([(scales | (minima << 4)).astype(np.uint8), packed, half_bytes(d), half_bytes(dmin)], axis=-1)


def q3_k(blocks: np.ndarray) -> np.ndarray:
    d, scales, x = signed(blocks, 16, -4, -32, 31)
    q, stored = rounded(x, -4, 3) + 4, scales + 32
    mask = join_bits((q >> 2).reshape(-1, 8, 32), 1)
    low = join_bits((q & 3).reshape(-1, 2, 4, 32), 2).reshape(-1, 64)
    scale_bytes = [join_bits((stored & 15).reshape(-1, 2, 8), 4), join_bits((stored >> 4).reshape(-1, 4, 4), 2)]
    return np.concatenate([mask, low, *scale_bytes, half_bytes(d)], axis=-1)


def q4_k(blocks: np.ndarray) -> np.ndarray:
    d, dmin, scales, minima, q = with_minimum(blocks, 8, 15, 63)
    packed = join_bits(q.reshape(-1, 4, 2, 32), 4).reshape(-1, 128)
    return np.concatenate([half_bytes(d), half_bytes(dmin), k_scales(scales, minima), packed], axis=-1)


def q5_k(blocks: np.ndarray) -> np.ndarray:
    d, dmin, scales, minima, q = with_minimum(blocks, 8, 31, 63)
    high = join_bits(q.reshape(-1, 8, 32) >> 4, 1)
    low = join_bits((q & 15).reshape(-1, 4, 2, 32), 4).reshape(-1, 128)
    return np.concatenate([half_bytes(d), half_bytes(dmin), k_scales(scales, minima), high, low], axis=-1)


def q6_k(blocks: np.ndarray) -> np.ndarray:
    d, scales, x = signed(blocks, 16, -32, -128, 127)
    q = rounded(x, -32, 31) + 32
    low = join_bits((q & 15).reshape(-1, 2, 2, 64), 4).reshape(-1, 128)
    high = join_bits((q >> 4).reshape(-1, 2, 4, 32), 2).reshape(-1, 64)
    return np.concatenate([low, high, scales.astype(np.int8).view(np.uint8), half_bytes(d)], axis=-1)


def nearest_level(x: np.ndarray) -> np.ndarray:
    return np.abs(x[..., None] - np.array(IQ4_LEVELS, dtype=np.float32)).argmin(axis=-1)


def iq4_nl(blocks: np.ndarray) -> np.ndarray:
    d = half(extreme(blocks) / -127)
    q = nearest_level(divide(blocks, d))
    return np.concatenate([half_bytes(d), join_bits(q.reshape(-1, 2, 16), 4)], axis=-1)


def iq4_xs(blocks: np.ndarray) -> np.ndarray:
    d, scales, x = signed(blocks, 8, -127, -32, 31)
    stored = scales + 32
    high = (((stored >> 4) << (2 * np.arange(8))).sum(axis=-1)).astype("<u2").reshape(-1, 1).view(np.uint8)
    low = join_bits(np.swapaxes((stored & 15).reshape(-1, 4, 2), -1, -2), 4)
    packed = join_bits(nearest_level(x).reshape(-1, 8, 2, 16), 4).reshape(-1, 128)
    return np.concatenate([half_bytes(d), high, low, packed], axis=-1)


QUANTIZE = {
    "Q2_K": q2_k,
    "Q3_K": q3_k,
    "Q4_K": q4_k,
    "Q5_K": q5_k,
    "Q6_K": q6_k,
    "IQ4_NL": iq4_nl,
    "IQ4_XS": iq4_xs,
    **quantize_grids.QUANTIZE,
}
