"""csrc/pack.c: lossless, and equal to the gguf package where it dequantises."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize

from swarm.kernels.quants import quant_by_name
from tests.kernels.build import guards_intact, library
from tests.kernels.cases import TYPES, random_blocks

# A block of 256: d, scales of 4 bits (8 in IQ3, else 16), and codes of 4 bits (IQ3), 3 (IQ1 and IQ2) or 2.
CODED_BYTES = {
    "IQ3_XXS": 2 + 4 + 128,
    "IQ3_S": 2 + 4 + 128,
    "IQ2_XXS": 2 + 8 + 96,
    "IQ2_XS": 2 + 8 + 96,
    "IQ2_S": 2 + 8 + 96,
    "IQ1_S": 2 + 8 + 96,
    "IQ1_M": 2 + 8 + 96,
    "TQ1_0": 2 + 64,
}
SHAPES = [(1, 256), (16, 512), (17, 256), (40, 1280)]


def random_bytes(name: str, rows: int, cols: int, seed: int) -> np.ndarray:
    block, size = gguf.GGML_QUANT_SIZES[TYPES[name]]
    return np.random.default_rng(seed).integers(0, 256, (rows, cols // block * size), dtype=np.uint8)


def is_coded(name: str) -> bool:
    """The file holds places in a grid, or digits of three, and memory what these stand for."""
    return name.startswith(("IQ1", "IQ2", "IQ3")) or name == "TQ1_0"


def tiles(name: str, cols: int) -> list[int]:
    block = gguf.GGML_QUANT_SIZES[TYPES[name]][0]
    return sorted({cols, max(32, block), max(96, block)})


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", [name for name in TYPES if not is_coded(name)])
def test_any_bytes_come_back_from_the_packed_form(name: str, shape: tuple[int, int]) -> None:
    lib = library()
    for tile_cols in tiles(name, shape[1]):
        blocks = random_bytes(name, *shape, seed=1)
        packed = lib.pack(TYPES[name], blocks, *shape, tile_cols)
        assert guards_intact(packed.whole, packed.data)
        assert np.array_equal(lib.unpack(packed), blocks.reshape(-1)), tile_cols


@pytest.mark.parametrize("name", TYPES)
def test_packed_rows_take_what_gguf_takes_or_what_their_codes_do(name: str) -> None:
    block, size = gguf.GGML_QUANT_SIZES[TYPES[name]]
    assert library().block(TYPES[name]) == block
    assert library().lib.sw_type_bytes(TYPES[name]) == size
    packed = quant_by_name(name).packed_block_bytes
    assert library().lib.sw_packed_bytes(TYPES[name], 33, 4 * block, 4 * block) == 48 * 4 * packed
    assert packed == CODED_BYTES.get(name, size) and is_coded(name) == (name in CODED_BYTES)
    assert library().lib.sw_unpacks(TYPES[name]) != is_coded(name)


@pytest.mark.parametrize("name", TYPES)
def test_a_row_dequantises_as_the_gguf_package_does(name: str) -> None:
    rows, cols, lib = 37, 768, library()
    blocks = random_blocks(name, rows, cols, np.random.default_rng(2))
    want = dequantize(blocks.reshape(-1), gguf.GGMLQuantizationType[name]).reshape(rows, cols)
    for tile_cols in tiles(name, cols):
        packed = lib.pack(TYPES[name], blocks, rows, cols, tile_cols)
        got = np.stack([lib.dequant_row(packed, r) for r in range(rows)])
        assert np.array_equal(got.view(np.uint32), want.view(np.uint32))


@pytest.mark.parametrize("name", TYPES)
def test_a_tile_of_columns_is_one_contiguous_run_of_the_matrix(name: str) -> None:
    lib, rows, cols = library(), 20, 768
    tile = max(32, lib.block(TYPES[name]))
    blocks = random_bytes(name, rows, cols, seed=5)
    whole = lib.pack(TYPES[name], blocks, rows, cols, tile).data
    part = np.ascontiguousarray(blocks.reshape(rows, cols // tile, -1)[:, 1:2])
    alone = lib.pack(TYPES[name], part, rows, tile, tile).data
    assert np.array_equal(whole[alone.size : 2 * alone.size], alone)


def test_rows_can_be_packed_in_parts() -> None:
    lib = library()
    blocks = random_bytes("Q5_K", 40, 512, seed=6)
    for tile_cols in (512, 256):
        whole = lib.pack(TYPES["Q5_K"], blocks, 40, 512, tile_cols)
        parts = np.zeros_like(whole.data)
        for row0, row1 in ((32, 40), (0, 16), (16, 32)):
            lib.lib.sw_pack(whole.mat, parts.ctypes.data, blocks.ctypes.data, row0, row1, None)
        assert np.array_equal(parts, whole.data)


def test_an_unknown_type_has_no_size() -> None:
    lib = library().lib
    for qtype in (-1, 4, 9, 31, 40, 1000):
        assert lib.sw_type_block(qtype) == 0
        assert lib.sw_packed_bytes(qtype, 16, 256, 256) == 0
