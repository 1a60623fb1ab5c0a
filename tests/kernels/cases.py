"""What the kernel tests and the kernel benchmark walk through."""

from __future__ import annotations

from dataclasses import dataclass

import gguf
import numpy as np
from gguf.quants import quantize

from swarm.kernels import quants

FLOATS = ("F32", "F16", "BF16")
QUANTS = tuple(quant.name for quant in quants.QUANTS.values() if quant.name not in FLOATS)
NAMES = FLOATS + QUANTS
TYPES = {name: int(gguf.GGMLQuantizationType[name]) for name in NAMES}
BLOCK = {name: gguf.GGML_QUANT_SIZES[TYPES[name]][0] for name in NAMES}
BYTES = {name: gguf.GGML_QUANT_SIZES[TYPES[name]][1] for name in NAMES}

# Where d (and m or dmin) lie in a GGUF block.
SCALES = {
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
    "Q4_1": (0, 2),
    "Q5_1": (0, 2),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
}
# Where d is a power of two in one byte, which may not become infinite.
EXPONENTS = {"MXFP4": 0}


@dataclass(frozen=True)
class Shape:
    """rows x cols in tiles; blocks counts the type's own blocks, so that every type gets legal widths."""

    rows: int
    blocks: int
    tile_blocks: int = 0  # 0: one tile
    tokens: int = 1

    def cols(self, name: str) -> int:
        return self.blocks * max(BLOCK[name], 32)

    def tile_cols(self, name: str) -> int:
        return self.tile_blocks * max(BLOCK[name], 32) or self.cols(name)


# Odd sizes: rows beside multiples of 16 and of panel groups, few blocks, 1..9 tokens, tiles that do and do not divide.
SHAPES = [
    Shape(1, 1, 0, 1),
    Shape(16, 1, 0, 2),
    Shape(15, 2, 0, 3),
    Shape(33, 3, 0, 4),
    Shape(64, 2, 0, 5),
    Shape(70, 5, 0, 1),
    Shape(130, 4, 0, 9),
    Shape(50, 5, 1, 1),
    Shape(80, 7, 1, 6),
    Shape(41, 5, 2, 7),
    Shape(97, 9, 4, 8),
]


def random_blocks(name: str, rows: int, cols: int, rng: np.random.Generator) -> np.ndarray:
    """(rows, bytes): every quant and sub-block scale equally likely, scales as in real files."""
    if name in FLOATS:
        values = rng.standard_normal((rows, cols), dtype=np.float32)
        return quantize(values, gguf.GGMLQuantizationType[name]).view(np.uint8).reshape(rows, -1)
    n = cols // BLOCK[name]
    blocks = rng.integers(0, 256, (rows, n, BYTES[name]), dtype=np.uint8)
    if name in EXPONENTS:
        blocks[:, :, EXPONENTS[name]] = rng.integers(110, 128, (rows, n))
        return blocks.reshape(rows, -1)
    for at in SCALES.get(name, (0,)):
        half = (rng.standard_normal((rows, n, 1), dtype=np.float32) * 0.01).astype(np.float16)
        if name == "IQ1_M":
            put_in_pieces(blocks, half.view(np.uint16))
        else:
            blocks[:, :, at : at + 2] = half.view(np.uint8)
    return blocks.reshape(rows, -1)


def put_in_pieces(blocks: np.ndarray, half: np.ndarray) -> None:
    """The d of IQ1_M, (rows, n, 1): four bits of it at the top of each word that holds scales."""
    words = np.ascontiguousarray(blocks[:, :, 48:56]).view("<u2")
    words &= 0x0FFF
    words |= (half >> np.array([0, 4, 8, 12], np.uint16) & 15) << 12
    blocks[:, :, 48:56] = words.view(np.uint8)


def extreme_blocks(name: str, rows: int, cols: int, rng: np.random.Generator) -> np.ndarray:
    """Every byte all ones, all zeros or 0x80: the sums that come closest to overflow."""
    blocks = random_blocks(name, rows, cols, rng).reshape(rows, cols // BLOCK[name], BYTES[name])
    if name in FLOATS:
        return blocks.reshape(rows, -1)
    if name == "IQ1_M":
        blocks[:] = rng.choice(np.array([0, 255, 128, 127], np.uint8), (rows, 1, 1))
        put_in_pieces(blocks, np.full((rows, 1, 1), 0.01, np.float16).view(np.uint16))
        return blocks.reshape(rows, -1)
    halves = SCALES.get(name, (0,))
    keep = [EXPONENTS[name]] if name in EXPONENTS else [i for at in halves for i in (at, at + 1)]
    scales = blocks[:, :, keep].copy()
    blocks[:] = rng.choice(np.array([0, 255, 128, 127], np.uint8), (rows, 1, 1))
    blocks[:, :, keep] = scales
    return blocks.reshape(rows, -1)


def random_activations(tokens: int, cols: int, rng: np.random.Generator) -> np.ndarray:
    """Normal values with a few outliers, and a block of zeros."""
    x = rng.standard_normal((tokens, cols), dtype=np.float32)
    x[rng.random(x.shape) < 0.01] *= 30
    x[:, : min(32, cols // 2)] *= rng.random() < 0.5
    return x


def extreme_activations(tokens: int, cols: int, rng: np.random.Generator) -> np.ndarray:
    """Only +-127 and, in some rows, all of one sign."""
    sign = rng.choice(np.array([-1, 1], np.float32), (tokens, cols))
    sign[::2] = rng.choice(np.array([-1, 1], np.float32), (len(sign[::2]), 1))
    return sign


def lane_activations(cols: int) -> np.ndarray:
    """(patterns, cols) of +-127: the sign changes every 1, 2, 4, 8, 16 columns, or never. Sums of 16 bits hold some
    of a group's columns, so that what cancels in a row may be largest in these."""
    return np.array([1 - 2 * (np.arange(cols) // run % 2) for run in (1, 2, 4, 8, 16, cols)], dtype=np.float32)
