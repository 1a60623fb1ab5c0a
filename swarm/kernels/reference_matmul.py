"""NumPy reference of activation quantisation and of products with quantised blocks: the same bits as the C kernels.

It reads GGUF blocks, not packed panels, so it checks the packing too. Formulas: csrc/README.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import lcm

import numpy as np
import numpy.typing as npt

from swarm.kernels import grid_blocks
from swarm.kernels.quants import quant_by_name

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

BLOCK = 32
TINY = np.float32(2.0**-100)
IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int32)


@dataclass(frozen=True)
class Quantized:
    """Activations: q (tokens, blocks, 32), scale (tokens, blocks), sum of each half (tokens, blocks, 2)."""

    q: I32
    scale: F32
    sum: I32


@dataclass(frozen=True)
class Clear:
    """Weights in the clear, by row and 32-column block; d and m by the type's own blocks of 32 or 256 columns."""

    q: I32  # (rows, blocks, 32)
    d: F32  # (rows, blocks) or (rows, blocks / 8)
    m: F32 | None = None  # like d; added, or times `mins` subtracted
    s: I32 | None = None  # (rows, blocks, 1 or 2): integer scales of the whole block or of its halves
    mins: I32 | None = None  # (rows, blocks, 1 or 2)


def fma(a: F32, b: F32, c: F32) -> F32:
    """a * b + c rounded once. The double sum is rounded to odd, so that rounding it to f32 is right."""
    product = np.multiply(a, b, dtype=np.float64)
    addend = c.astype(np.float64)
    total = product + addend
    back = total - product
    lost = (product - (total - back)) + (addend - back)
    bits = total.view(np.int64).copy()
    inexact = np.isfinite(total) & np.isfinite(lost) & (lost != 0) & (bits & 1 == 0)
    toward_zero = (lost < 0) == (total > 0)
    bits += np.where(inexact, np.where(toward_zero, -1, 1), 0)
    return bits.view(np.float64).astype(np.float32)


def quantize(x: F32) -> Quantized:
    """x: (tokens, cols) float32; the last block is padded with zeros."""
    tokens, cols = x.shape
    blocks = -(-cols // BLOCK)
    padded = np.zeros((tokens, blocks * BLOCK), np.float32)
    padded[:, :cols] = x
    parts = padded.reshape(tokens, blocks, BLOCK)
    top = np.abs(parts).view(np.uint32).max(axis=2).view(np.float32)
    finite = np.isfinite(top)
    live = finite & (top >= TINY)
    scale = np.where(live | ~finite, top / np.float32(127), np.float32(0)).astype(np.float32)
    factor = np.divide(np.float32(127), top, out=np.zeros_like(top), where=live)
    with np.errstate(invalid="ignore"):
        q = np.where(live[:, :, None], np.rint(parts * factor[:, :, None]), 0).astype(np.int32)
    return Quantized(q, scale, q.reshape(tokens, blocks, 2, 16).sum(axis=3, dtype=np.int32))


def matmul(qtype: str, blocks: U8, x: F32) -> F32:
    """y (tokens, rows) = x (tokens, cols) @ W.T; `blocks` is (rows, bytes of a row) as in the GGUF file."""
    if qtype in FLOATS:
        return float_matmul(FLOATS[qtype](blocks), x)
    return quantized_matmul(clear(qtype, blocks), quantize(x))


def float_matmul(w: F32, x: F32) -> F32:
    acc = np.zeros((x.shape[0], w.shape[0]), np.float32)
    for k in range(w.shape[1]):
        acc = fma(w[None, :, k], x[:, None, k], acc)
    return acc


def quantized_matmul(w: Clear, x: Quantized, blocks: range | None = None) -> F32:
    """Over all blocks of the type, or these."""
    acc = np.zeros((x.q.shape[0], w.q.shape[0]), np.float32)
    for b in blocks or range(w.d.shape[1]):
        m = None if w.m is None else w.m[None, :, b]
        if w.s is None:
            acc = fma(w.d[None, :, b] * x.scale[:, b, None], dots(w, x, b), acc)
            acc = acc if m is None else fma(m, scaled_sum(x, b, slice(0, 2)), acc)
            continue
        dot, low = np.zeros_like(acc), np.zeros_like(acc)
        for j in range(8 * b, 8 * b + 8):
            dot = fma(x.scale[:, j, None], dots(w, x, j), dot)
            if w.mins is not None:
                low = add_mins(w.mins[:, j], x, j, low)
        acc = fma(w.d[None, :, b], dot, acc)
        acc = acc if m is None else fma(-m, low, acc)
    return acc


# --- exact sums: csrc/README.md ---------------------------------------------------------------------------------------

PANEL = 16
X_BITS, OWN_BITS, OWN_UNIT = 12, 12, 2.0**-24
MAX_GROUP_COLS = 512
MAX_PARTIAL = 2.0**50


def group_cols(qtype: str, unit: int) -> int:
    """Columns of a group where columns may be cut at multiples of `unit`."""
    block = max(BLOCK, quant_by_name(qtype).block_cols)
    n = lcm(block, unit) // block
    parts = next(p for p in range(1, n + 1) if n % p == 0 and n // p * block <= MAX_GROUP_COLS)
    return n // parts * block


def step_of(x: F32, eps: float) -> F32:
    """(tokens, 1): the step of each token's sums in a half that sees x (tokens, hidden), where sums are not normed."""
    rms = np.sqrt(np.mean(np.square(x), axis=1, dtype=np.float64) + eps)
    step: F32 = np.exp2(np.clip(np.floor(np.log2(rms)), -100, 100) - X_BITS).astype(np.float32)[:, None]
    return step


def sums(qtype: str, blocks: U8, x: F32, *, columns: int, factor: F32, own: bool = False) -> I64:
    """(tokens, rows): integers of the product, in groups of so many columns; OverflowError where they are none.

    factor (tokens, 1): an expert's weight; without `own` over the step.
    """
    total = np.zeros((x.shape[0], len(blocks)), np.int64)
    for partial in partial_sums(qtype, blocks, x, columns):
        rounded = rounded_partial(partial, factor, own=own)
        if not (np.abs(rounded) < MAX_PARTIAL).all():
            raise OverflowError("a partial sum is no number, or too large")
        total += rounded.astype(np.int64)
    return total


def partial_sums(qtype: str, blocks: U8, x: F32, columns: int) -> list[F32]:
    """The product (tokens, rows) over each group of columns."""
    starts = range(0, x.shape[1], columns)
    if qtype in FLOATS:
        w = FLOATS[qtype](blocks)
        return [float_matmul(w[:, k : k + columns], x[:, k : k + columns]) for k in starts]
    values, acts, block = clear(qtype, blocks), quantize(x), quant_by_name(qtype).block_cols
    last = x.shape[1] // block
    return [quantized_matmul(values, acts, range(k // block, min((k + columns) // block, last))) for k in starts]


def rounded_partial(partial: F32, factor: F32, *, own: bool) -> F64:
    """The integers (tokens, rows) that a group adds, where they are any; factor as for `sums`."""
    with np.errstate(invalid="ignore", over="ignore"):
        rounded: F64 = _on_own_grid(partial * factor) if own else np.rint(partial.astype(np.float64) * factor)
    return rounded


def _on_own_grid(values: F32) -> F64:
    """Rounded to OWN_BITS below the largest of each token and panel of rows, and counted in OWN_UNIT."""
    tokens, rows = values.shape
    panels = np.zeros((tokens, -(-rows // PANEL) * PANEL), np.float64)
    panels[:, :rows] = values
    by_panel = panels.reshape(tokens, -1, PANEL)
    top = np.abs(by_panel).max(axis=2, keepdims=True)
    with np.errstate(divide="ignore"):
        step = np.maximum(np.exp2(np.floor(np.log2(top)) - OWN_BITS), OWN_UNIT)
    rounded: F64 = (np.rint(by_panel / step) * step / OWN_UNIT).reshape(tokens, -1)[:, :rows]
    return rounded


# --- parts of both ----------------------------------------------------------------------------------------------------


def dots(w: Clear, x: Quantized, b: int) -> F32:
    """(tokens, rows): exact integers, below 2^24."""
    halves = np.einsum("rhk,thk->trh", w.q[:, b].reshape(-1, 2, 16), x.q[:, b].reshape(-1, 2, 16))
    total = halves if w.s is None else halves * w.s[None, :, b]
    exact: F32 = total.sum(axis=2).astype(np.float32)
    return exact


def scaled_sum(x: Quantized, b: int, half: slice) -> F32:
    """(tokens, 1): scale * (sum of q), rounded."""
    total: F32 = x.sum[:, b, half].sum(axis=1, dtype=np.int32)[:, None].astype(np.float32)
    return x.scale[:, b, None] * total


def add_mins(mins: I32, x: Quantized, b: int, low: F32) -> F32:
    slices = [slice(0, 2)] if mins.shape[1] == 1 else [slice(0, 1), slice(1, 2)]
    for h, half in enumerate(slices):
        low = fma(scaled_sum(x, b, half), mins[None, :, h].astype(np.float32), low)
    return low


# --- blocks in the clear ---------------------------------------------------------------------------------------------


def clear(qtype: str, blocks: U8) -> Clear:
    return CLEAR[qtype](blocks.reshape(len(blocks), -1, quant_by_name(qtype).block_bytes))


def half(b: U8, at: int) -> F32:
    return np.ascontiguousarray(b[..., at : at + 2]).view(np.float16)[..., 0].astype(np.float32)


def nibbles(b: U8) -> I32:
    """(..., 16) bytes -> (..., 32): the low ones first."""
    return np.concatenate([b & 15, b >> 4], axis=-1).astype(np.int32)


def fifth_bits(b: U8) -> I32:
    return np.unpackbits(b, axis=-1, bitorder="little").astype(np.int32) << 4


def q4_0(b: U8) -> Clear:
    return Clear(nibbles(b[..., 2:]) - 8, half(b, 0))


def q4_1(b: U8) -> Clear:
    return Clear(nibbles(b[..., 4:]), half(b, 0), half(b, 2))


def q5_0(b: U8) -> Clear:
    return Clear((nibbles(b[..., 6:]) | fifth_bits(b[..., 2:6])) - 16, half(b, 0))


def q5_1(b: U8) -> Clear:
    return Clear(nibbles(b[..., 8:]) | fifth_bits(b[..., 4:8]), half(b, 0), half(b, 2))


def q8_0(b: U8) -> Clear:
    return Clear(b[..., 2:].view(np.int8).astype(np.int32), half(b, 0))


def iq4_nl(b: U8) -> Clear:
    return Clear(IQ4_VALUES[nibbles(b[..., 2:])], half(b, 0))


def shifted(b: U8, shifts: list[int], mask: int) -> I32:
    """(..., n, 32) bytes -> (..., n * len(shifts), 32)."""
    parts = [(b >> s) & mask for s in shifts]
    stacked = np.stack(parts, axis=-2)
    return stacked.reshape(*b.shape[:-2], -1, 32).astype(np.int32)


def k4_scales(s: U8) -> tuple[I32, I32]:
    """12 bytes -> 8 scales and 8 mins of 6 bits."""
    a, b, c = s[..., 0:4], s[..., 4:8], s[..., 8:12]
    scale = np.concatenate([a & 63, (c & 15) | (a >> 6) << 4], axis=-1)
    mins = np.concatenate([b & 63, (c >> 4) | (b >> 6) << 4], axis=-1)
    return scale.astype(np.int32), mins.astype(np.int32)


def k4(b: U8, q: I32) -> Clear:
    scale, mins = k4_scales(b[..., 4:16])
    return supers(q, half(b, 0), scale, half(b, 2), mins)


def pairs(b: U8) -> I32:
    """128 bytes: 4 times 32 bytes of low, then high nibbles."""
    return shifted(b.reshape(*b.shape[:-1], 4, 32), [0, 4], 15)


def q4_k(b: U8) -> Clear:
    return k4(b, pairs(b[..., 16:]))


def q5_k(b: U8) -> Clear:
    high = shifted(b[..., None, 16:48], list(range(8)), 1)
    return k4(b, pairs(b[..., 48:]) | high << 4)


def q6_k(b: U8) -> Clear:
    low = b[..., :128].reshape(*b.shape[:-1], 2, 2, 32)
    high = shifted(b[..., 128:192].reshape(*b.shape[:-1], 2, 32), [0, 2, 4, 6], 3)
    q = np.stack([low & 15, low >> 4], axis=-3).reshape(*b.shape[:-1], 8, 32).astype(np.int32) | high << 4
    return supers(q - 32, half(b, 208), b[..., 192:208].view(np.int8).astype(np.int32))


def supers(q: I32, d: F32, s: I32, m: F32 | None = None, mins: I32 | None = None) -> Clear:
    """q (rows, blocks, 8, 32); s and mins (rows, blocks, 8 or 16)."""

    def by_32(x: I32) -> I32:
        return x.reshape(x.shape[0], x.shape[1] * 8, -1)

    return Clear(by_32(q), d, m, by_32(s), None if mins is None else by_32(mins))


def two_bits(b: U8) -> I32:
    return shifted(b.reshape(*b.shape[:-1], 2, 32), [0, 2, 4, 6], 3)


def q2_k(b: U8) -> Clear:
    s = b[..., :16]
    return supers(
        two_bits(b[..., 16:80]), half(b, 80), (s & 15).astype(np.int32), half(b, 82), (s >> 4).astype(np.int32)
    )


def q3_k(b: U8) -> Clear:
    s = b[..., 96:108]
    low = np.concatenate([s[..., :8] & 15, s[..., :8] >> 4], axis=-1)
    high = np.concatenate([(s[..., 8:] >> shift) & 3 for shift in (0, 2, 4, 6)], axis=-1)
    q = two_bits(b[..., 32:96]) | shifted(b[..., None, :32], list(range(8)), 1) << 2
    return supers(q - 4, half(b, 108), (low | high << 4).astype(np.int32) - 32)


def iq4_xs(b: U8) -> Clear:
    low = np.stack([b[..., 4:8] & 15, b[..., 4:8] >> 4], axis=-1).reshape(*b.shape[:-1], 8)
    high = np.stack([(b[..., 2 + i // 4] >> 2 * (i % 4)) & 3 for i in range(8)], axis=-1)
    q = IQ4_VALUES[nibbles(b[..., 8:].reshape(*b.shape[:-1], 8, 16))]
    return supers(q, half(b, 0), (low | high << 4).astype(np.int32) - 32)


FP4_VALUES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int32)


def mxfp4(b: U8) -> Clear:
    return Clear(FP4_VALUES[nibbles(b[..., 1:])], np.ldexp(np.float32(1), b[..., 0].astype(np.int32) - 128))


def of_grids(name: str) -> Callable[[U8], Clear]:
    """Blocks whose values come from a grid, or are digits."""

    def to_clear(b: U8) -> Clear:
        d, scales, values = grid_blocks.read(name, b)
        return supers(values.reshape(*values.shape[:-1], 8, 32), d, scales)

    return to_clear


CLEAR = {
    "Q4_0": q4_0, "Q4_1": q4_1, "Q5_0": q5_0, "Q5_1": q5_1, "Q8_0": q8_0, "IQ4_NL": iq4_nl, "IQ4_XS": iq4_xs,
    "Q2_K": q2_k, "Q3_K": q3_k, "Q4_K": q4_k, "Q5_K": q5_k, "Q6_K": q6_k,
    "MXFP4": mxfp4,
} | {name: of_grids(name) for name in grid_blocks.READERS}  # fmt: skip
FLOATS = {
    "F32": lambda b: b.view(np.float32),
    "F16": lambda b: b.view(np.float16).astype(np.float32),
    "BF16": lambda b: (b.view(np.uint16).astype(np.uint32) << 16).view(np.float32),
}
