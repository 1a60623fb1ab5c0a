"""qwen2: queries, keys and values have biases, and nothing else does."""

from __future__ import annotations

import pytest

from swarm.errors import BadModelFile, UnsupportedModel
from swarm.models import Role, spec_from_gguf
from tests.helpers.declared import declared
from tests.helpers.tiny import TINY, StoredTensor, gguf_metadata, tensor_table


def test_halves_are_rotated_and_biases_are_as_wide_as_their_matrices() -> None:
    spec = declared(TINY["qwen2"])
    assert spec.rope.style == "half" and spec.qkv_bias and not spec.qk_norm
    tensors = spec.layers[0].tensors
    for bias, matrix in ((Role.Q_BIAS, Role.Q), (Role.K_BIAS, Role.K), (Role.V_BIAS, Role.V)):
        assert tensors[bias].n_rows == tensors[matrix].n_rows


@pytest.mark.parametrize("part", "qkv")
def test_a_file_without_one_of_them_is_not_complete(part: str) -> None:
    tiny = TINY["qwen2"]
    table = {key: entry for key, entry in tensor_table(tiny).items() if key != f"blk.1.attn_{part}.bias"}
    with pytest.raises(BadModelFile, match=rf"blk\.1\.attn_{part}\.bias is missing"):
        spec_from_gguf(gguf_metadata(tiny), table)


def test_a_bias_of_the_lm_head_is_refused() -> None:
    tiny = TINY["qwen2"]
    table = tensor_table(tiny)
    extra = {"output.bias": StoredTensor((tiny.vocab,), table["output_norm.weight"].quant)}
    with pytest.raises(UnsupportedModel, match=r"output\.bias"):
        spec_from_gguf(gguf_metadata(tiny), {**table, **extra})


def test_the_parallel_residual_that_converters_of_2024_declared_is_ignored() -> None:
    assert declared(TINY["qwen2"], use_parallel_residual=True) == declared(TINY["qwen2"])
