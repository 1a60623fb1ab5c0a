"""The table of quants and its dequantisation, against the gguf package."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from swarm.kernels.quants import (
    QUANTS,
    UNSUPPORTED_TYPES,
    Quant,
    dequantize,
    quant_by_name,
    quant_names,
    type_name,
    why_refused,
)

ALL = list(QUANTS.values())
BY_NAME = pytest.mark.parametrize("quant", ALL, ids=[quant.name for quant in ALL])


def random_rows(quant: Quant, shape: tuple[int, ...], n_blocks: int, seed: int) -> np.ndarray:
    """Any bytes at all: among 65,536 possible half floats are nan, inf, subnormal and negative scales."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, size=(*shape, n_blocks * quant.block_bytes), dtype=np.uint8)


def assert_same_bits(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.dtype == np.float32 and actual.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(actual[numbers].view(np.uint32), expected[numbers].view(np.uint32))


@BY_NAME
def test_dequantisation_of_random_bytes_is_bit_equal_to_the_gguf_package(quant: Quant) -> None:
    raw = random_rows(quant, (60,), 40, seed=quant.id)
    with np.errstate(all="ignore"):
        expected = gguf.dequantize(raw, gguf.GGMLQuantizationType(quant.id))
    assert_same_bits(dequantize(quant, raw), expected)


@BY_NAME
@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, 6e-8, 65504.0, -0.0])
def test_every_special_scale_comes_out_as_the_gguf_package_gives_it(quant: Quant, scale: float) -> None:
    raw = np.frombuffer(np.full(quant.block_bytes * 3, scale, dtype="<f2").tobytes(), np.uint8).reshape(3, -1)
    with np.errstate(all="ignore"):
        expected = gguf.dequantize(raw, gguf.GGMLQuantizationType(quant.id))
    assert_same_bits(dequantize(quant, raw), expected)


@BY_NAME
def test_leading_dimensions_are_kept_and_rows_are_independent(quant: Quant) -> None:
    raw = random_rows(quant, (3, 5), 2, seed=quant.id)
    whole = dequantize(quant, raw)
    assert whole.shape == (3, 5, 2 * quant.block_cols)
    assert_same_bits(dequantize(quant, raw[1, 4]), whole[1, 4])


@BY_NAME
def test_rows_that_are_not_contiguous_are_read_in_their_own_order(quant: Quant) -> None:
    raw = random_rows(quant, (6,), 2, seed=quant.id)
    assert_same_bits(dequantize(quant, raw[::2]), dequantize(quant, raw)[::2])


@BY_NAME
def test_block_sizes_agree_with_the_gguf_package(quant: Quant) -> None:
    kind = gguf.GGMLQuantizationType(quant.id)
    assert (quant.name, (quant.block_cols, quant.block_bytes)) == (kind.name, gguf.GGML_QUANT_SIZES[kind])
    assert quant_by_name(quant.name) is quant


def test_every_type_of_the_gguf_package_has_its_name_here() -> None:
    for kind in gguf.GGMLQuantizationType:
        assert type_name(int(kind)) == kind.name
    assert not QUANTS.keys() & UNSUPPORTED_TYPES.keys()
    assert type_name(77) == "unknown type 77"


@pytest.mark.parametrize(
    ("type_id", "called", "instead"),
    [
        (139, "IQ4_K, a type of ik_llama.cpp; supported are F32, ", "Q4_K_M"),
        (146, "IQ4_KSS, a type of ik_llama.cpp; ", "Q4_K_M"),
        (137, "IQ2_K, a type of ik_llama.cpp; ", "Q2_K"),
        (140, "IQ5_K, a type of ik_llama.cpp; ", "Q5_K_M"),
        (206, "unknown type 206, a type of ik_llama.cpp; ", "Q4_K_M"),
        (36, "I2_S, a type of bitnet.cpp; ", "Q2_K"),
        (40, "NVFP4; supported are ", "Q4_K_M"),
        (42, "Q2_0; ", "Q2_K"),
        (1000, "unknown type 1000; ", "Q4_K_M"),
    ],
)
def test_a_refused_type_says_whose_it_is_and_which_file_runs(type_id: int, called: str, instead: str) -> None:
    why = why_refused(type_id)
    assert why.startswith(called)
    assert why.endswith(f": a file of the same model with {instead} in its name runs")


def test_the_list_for_messages_names_all_of_them() -> None:
    assert quant_names().split(", ") == [quant.name for quant in ALL]
    assert len(ALL) == 25


def test_row_bytes_counts_whole_blocks() -> None:
    assert quant_by_name("Q4_K").row_bytes(512) == 288
    with pytest.raises(AssertionError):
        quant_by_name("Q4_K").row_bytes(300)
