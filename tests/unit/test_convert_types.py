"""Which type a tensor gets in a mix."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from swarm.convert.types import MIXES, counts_more, quant_of, stored
from swarm.kernels.quants import quant_by_name


def kind(mix: str, name: str, shape: tuple[int, ...] = (512, 512), *, tied: bool = False) -> str:
    return quant_of(mix, name, shape, 32, tied=tied).name


@pytest.mark.parametrize("mix", MIXES)
def test_vectors_biases_and_routers_stay_floats(mix: str) -> None:
    assert kind(mix, "blk.0.attn_norm.weight", (512,)) == "F32"
    assert kind(mix, "blk.0.ffn_gate_exps.bias", (8, 512)) == "F32"
    assert kind(mix, "blk.0.ffn_gate_inp.weight", (8, 512)) == "F32"


def test_a_mix_keeps_more_bits_where_they_count() -> None:
    assert kind("Q4_K_M", "output.weight") == kind("Q4_0", "output.weight") == "Q6_K"
    assert kind("Q4_K_M", "token_embd.weight") == "Q4_K"
    assert kind("Q4_K_M", "token_embd.weight", tied=True) == "Q6_K"
    assert [kind("Q4_K_M", f"blk.{i}.ffn_down.weight") for i in (0, 4, 5, 6, 31)] == [
        *("Q6_K", "Q4_K", "Q4_K", "Q6_K", "Q6_K")
    ]
    assert kind("Q4_K_M", "blk.0.attn_q.weight") == "Q4_K"


def test_rows_that_are_no_whole_blocks_get_the_next_larger_type() -> None:
    assert kind("Q4_K_M", "blk.5.ffn_down_exps.weight", (8, 512, 1408)) == "Q5_0"
    assert kind("Q4_K_M", "blk.0.ffn_down_exps.weight", (8, 512, 1408)) == "Q8_0"
    assert kind("Q8_0", "blk.0.attn_k_b.weight", (4, 512, 24)) == "F16"
    assert kind("Q4_K_M", "blk.0.attn_q.weight", (512, 40)) == "F16"


def test_the_layers_that_count_more_are_the_ends_and_every_third() -> None:
    assert [i for i in range(16) if counts_more(i, 16)] == [0, 1, 4, 7, 10, 13, 14, 15]
    assert [i for i in range(3) if counts_more(i, 3)] == [2]


@pytest.mark.parametrize("name", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_0"])
def test_bytes_are_those_of_the_gguf_package(name: str) -> None:
    values = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    expected = gguf.quantize(values, gguf.GGMLQuantizationType[name])
    assert np.array_equal(stored(quant_by_name(name), values), np.ascontiguousarray(expected).view(np.uint8))
