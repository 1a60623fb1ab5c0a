"""Names of tensors, bound to rectangles: fused ones, missing ones, and those of a wrong shape."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarm.errors import BadModelFile, UnsupportedModel
from swarm.models import Role, TensorRef, spec_from_gguf
from tests.helpers.declared import declared
from tests.helpers.tiny import TINY, StoredTensor, gguf_metadata, tensor_table


def test_fused_query_key_value_are_consecutive_rows() -> None:
    tensors = declared(TINY["chatglm"]).layers[1].tensors
    assert tensors[Role.Q] == TensorRef("blk.1.attn_qkv.weight", (range(0, 128),), range(64))
    assert tensors[Role.K] == TensorRef("blk.1.attn_qkv.weight", (range(128, 192),), range(64))
    assert tensors[Role.V] == TensorRef("blk.1.attn_qkv.weight", (range(192, 256),), range(64))
    assert tensors[Role.V_BIAS] == TensorRef("blk.1.attn_qkv.bias", (range(192, 256),), range(1))


def test_fused_gate_rows_come_before_up_rows() -> None:
    dense = declared(TINY["glm4"]).layers[0].tensors
    assert dense[Role.GATE] == TensorRef("blk.0.ffn_up.weight", (range(0, 96),), range(64))
    assert dense[Role.UP] == TensorRef("blk.0.ffn_up.weight", (range(96, 192),), range(64))
    experts = declared(TINY["glm355b"]).layers[3].tensors
    assert experts[Role.EXPERT_GATE] == TensorRef("blk.3.ffn_gate_up_exps.weight", (range(0, 32),), range(64))
    assert experts[Role.EXPERT_UP] == TensorRef("blk.3.ffn_gate_up_exps.weight", (range(32, 64),), range(64))


def test_llama3_frequencies_are_a_tensor_of_the_spec() -> None:
    assert declared(TINY["llama"]).tensors[Role.ROPE_FREQS] == TensorRef("rope_freqs.weight", (range(0, 16),), range(1))
    assert Role.ROPE_FREQS not in declared(TINY["llama-tied"]).tensors


@pytest.mark.parametrize("name", TINY)
def test_each_missing_tensor_is_named(name: str) -> None:
    tiny = TINY[name]
    table = tensor_table(tiny)
    for tensor in set(table) - {"output.weight", "rope_freqs.weight"}:
        with pytest.raises((BadModelFile, UnsupportedModel)) as error:
            spec_from_gguf(gguf_metadata(tiny), {key: info for key, info in table.items() if key != tensor})
        assert "tensor" in str(error.value)


@pytest.mark.parametrize("name", TINY)
def test_each_tensor_of_a_wrong_shape_is_named(name: str) -> None:
    tiny = TINY[name]
    table = tensor_table(tiny)
    for tensor, info in table.items():
        for shape in ((*info.shape[:-1], info.shape[-1] + 1), (*info.shape, 1), ()):
            if tensor == "token_embd.weight" and len(shape) == 2 and shape[1] == info.shape[1]:
                continue
            with pytest.raises(BadModelFile) as error:
                spec_from_gguf(gguf_metadata(tiny), {**table, tensor: replace(info, shape=shape)})
            assert f"tensor {tensor} " in str(error.value)


def test_vector_in_a_block_type_is_refused() -> None:
    tiny = TINY["qwen3"]
    table = tensor_table(tiny, mix="Q8_0")
    quantised = replace(table["output_norm.weight"], quant=table["token_embd.weight"].quant)
    with pytest.raises(BadModelFile, match=r"tensor output_norm\.weight is Q8_0"):
        spec_from_gguf(gguf_metadata(tiny), {**table, "output_norm.weight": quantised})


def test_layer_tensor_that_the_family_does_not_know_is_refused() -> None:
    tiny = TINY["llama"]
    table = tensor_table(tiny)
    extra = {"blk.1.attn_output.bias": StoredTensor((64,), table["output_norm.weight"].quant)}
    with pytest.raises(UnsupportedModel, match=r"blk\.1\.attn_output\.bias"):
        spec_from_gguf(gguf_metadata(tiny), {**table, **extra})


FOREIGN = (
    "output.bias",
    "output.scale",
    "output_norm.bias",
    "token_embd_norm.weight",
    "position_embd.weight",
    "rope_factors_long.weight",
    "rope_factors_short.weight",
    "token_embd.weight.lora_a",
    "cls.weight",
    "cls.output.weight",
    "v.blk.0.ln1.weight",
    "mm.0.weight",
    "per_layer_token_embd.weight",
    "blk.x.y",
    "blk.1",
    "blk.99.attn_norm.weight",
    "blk.0.rope_freqs.weight",
    "blk.0.attn_output.bias",
    "blk.0.attn_q.weight.lora_a",
    "blk.0.attn_q.scale",
    "blk.0.attn_sinks.weight",
    "blk.0.attn_norm.bias",
    "blk.0.attn_sub_norm.weight",
    "blk.0.attn_gate.weight",
    "blk.0.ffn_down.bias",
    "blk.0.ffn_gate_inp.bias",
    "blk.0.ffn_gate_inp_shexp.weight",
    "blk.0.ffn_norm_exps.weight",
    "blk.0.layer_output_norm.weight",
    "blk.0.ssm_a",
)


@pytest.mark.parametrize("name", TINY)
def test_each_foreign_tensor_is_refused_by_its_name(name: str) -> None:
    tiny = TINY[name]
    table = tensor_table(tiny)
    for foreign in set(FOREIGN) - set(table):
        extra = {foreign: StoredTensor((64,), table["output_norm.weight"].quant)}
        with pytest.raises(UnsupportedModel) as error:
            spec_from_gguf(gguf_metadata(tiny), {**table, **extra})
        assert str(error.value).startswith(f"tensor '{foreign}': Swarm's {tiny.arch} has no use for it")


@pytest.mark.parametrize("foreign", ["blk.1.attn_rot_embd", "blk.0.attn_rot_embd.weight"])
def test_rotations_that_files_of_2023_carry_are_left_out(foreign: str) -> None:
    tiny = TINY["llama"]
    table = tensor_table(tiny)
    extra = {foreign: StoredTensor((64,), table["output_norm.weight"].quant)}
    assert spec_from_gguf(gguf_metadata(tiny), {**table, **extra}) == declared(tiny)
