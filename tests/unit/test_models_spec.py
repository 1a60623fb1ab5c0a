"""What each family's file declares of a model, also where files leave things out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from swarm.errors import BadModelFile, UnsupportedModel
from swarm.models import FAMILIES, ModelSpec, Role, TensorRef, spec_from_gguf, tensors_needed
from swarm.models.spec import OUTSIDE_LAYERS, RopeScaling
from swarm.parts import EMBED, LM_HEAD, Part
from tests.helpers.tiny import TINY, StoredTensor, Tiny, TinyMoe, gguf_metadata, tensor_table

ROPE_STYLE = {
    "chatglm": "pair",
    "glm4": "pair",
    "glm4moe": "half",
    "llama": "pair",
    "qwen3": "half",
    "qwen3moe": "half",
}


def declared(tiny: Tiny, without: tuple[str, ...] = (), **changes: Any) -> ModelSpec:
    """The spec of a checkpoint whose metadata is changed: `attention__head_count=3`."""
    metadata = gguf_metadata(tiny)
    for key in without:
        del metadata[f"{tiny.arch}.{key}"]
    metadata |= {f"{tiny.arch}.{key.replace('__', '.')}": value for key, value in changes.items()}
    return spec_from_gguf(metadata, tensor_table(tiny))


@pytest.mark.parametrize("name", TINY)
def test_spec_says_what_the_checkpoint_was_made_as(name: str) -> None:
    tiny = TINY[name]
    spec = declared(tiny)
    assert (spec.family, spec.n_layers, spec.hidden, spec.vocab) == (
        tiny.arch,
        tiny.n_layers,
        tiny.hidden,
        tiny.vocab,
    )
    assert (spec.n_heads, spec.n_kv_heads, spec.head_dim) == (tiny.n_heads, tiny.n_kv_heads, tiny.head_dim)
    assert (spec.rope.style, spec.rope.dims) == (ROPE_STYLE[tiny.arch], tiny.rope_dims)
    assert (spec.qkv_bias, spec.qk_norm, spec.sandwich_norms, spec.tied_lm_head) == (
        tiny.bias,
        tiny.qk_norm,
        tiny.arch == "glm4",
        tiny.tied,
    )
    assert [layer.moe is not None for layer in spec.layers] == [tiny.is_moe(i) for i in range(tiny.n_layers)]
    assert spec.attention_scale == tiny.head_dim**-0.5


def test_every_family_has_a_checkpoint_and_a_rope_style() -> None:
    assert set(FAMILIES) == {tiny.arch for tiny in TINY.values()} == set(ROPE_STYLE)


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


def test_post_attention_norm_means_another_norm_in_glm4_than_in_glm4moe() -> None:
    glm4, air = declared(TINY["glm4"]).layers[0].tensors, declared(TINY["air"]).layers[0].tensors
    assert glm4[Role.ATTN_POST_NORM].name == air[Role.FFN_NORM].name == "blk.0.post_attention_norm.weight"
    assert glm4[Role.FFN_NORM].name == "blk.0.ffn_norm.weight"


def test_glm_rotates_half_of_a_head_when_the_file_does_not_say() -> None:
    assert declared(TINY["glm4"], without=("rope.dimension_count",)).rope.dims == 16
    assert declared(TINY["llama"], without=("rope.dimension_count",)).rope.dims == 32


def test_missing_keys_get_the_defaults_of_files_in_the_wild() -> None:
    plain = replace(TINY["llama-tied"], left_out=())
    assert declared(plain) == declared(TINY["llama-tied"])
    moe = declared(TINY["intellect3"], without=("expert_gating_func", "expert_weights_scale")).layers[1].moe
    assert moe is not None
    assert (moe.gating, moe.normalise, moe.scale) == ("sigmoid", True, 1.0)
    assert declared(TINY["air"], expert_weights_scale=0.0).layers[1].moe == moe


def test_qwen3moe_takes_the_width_of_all_experts_of_a_token_where_that_of_one_is_missing() -> None:
    tiny = TINY["qwen3moe"]
    spec = declared(tiny, without=("expert_feed_forward_length",), feed_forward_length=3 * 32)
    assert spec.layers[0].moe == declared(tiny).layers[0].moe


# ---- blocks that predict further tokens ----


def test_mtp_block_is_no_layer_present_or_absent() -> None:
    for name in ("air", "intellect3"):
        spec = declared(TINY[name])
        assert spec.n_layers == len(spec.layers) == 3
        assert not any("blk.3." in ref.name for layer in spec.layers for ref in layer.tensors.values())


def test_block_count_that_leaves_out_a_declared_mtp_block_loses_no_layer() -> None:
    tiny = replace(TINY["air"], mtp="none")
    assert declared(tiny, nextn_predict_layers=1).n_layers == 3
    assert declared(tiny, nextn_predict_layers=0).n_layers == 3


def test_mtp_block_in_the_table_is_told_by_its_tensors() -> None:
    tiny = TINY["air"]
    table: dict[str, Any] = dict(tensor_table(tiny))
    last = {name.replace("blk.2.", "blk.3."): info for name, info in table.items() if name.startswith("blk.2.")}
    table |= last | {"blk.3.nextn.eh_proj.weight": StoredTensor((64, 128), table["output.weight"].quant)}
    assert spec_from_gguf(gguf_metadata(tiny), table).n_layers == 3


# ---- rope scaling ----


def test_yarn_is_read_with_its_sharper_attention() -> None:
    scaling = declared(TINY["qwen3-yarn"]).rope.scaling
    assert scaling is not None
    assert (scaling.kind, scaling.factor, scaling.original_context) == ("yarn", 4.0, 64)
    assert scaling.attention_factor == pytest.approx(1.1386294)


def test_linear_scaling_is_read_and_no_scaling_is_none() -> None:
    tiny = TINY["llama-tied"]
    linear = declared(tiny, rope__scaling__type="linear", rope__scaling__factor=2.0)
    assert linear.rope.scaling == RopeScaling("linear", 2.0)
    assert declared(tiny, rope__scaling__type="none").rope.scaling is None
    assert declared(tiny, rope__scaling__type="yarn", rope__scaling__factor=1.0).rope.scaling is None


def test_llama3_frequencies_are_a_tensor_of_the_spec() -> None:
    assert declared(TINY["llama"]).tensors[Role.ROPE_FREQS] == TensorRef("rope_freqs.weight", (range(0, 16),), range(1))
    assert Role.ROPE_FREQS not in declared(TINY["llama-tied"]).tensors


# ---- what a shard needs ----


def test_shard_of_middle_layers_needs_only_those() -> None:
    needs = tensors_needed(declared(TINY["air"]), [Part(1)])
    assert {need.layer for need in needs} == {1}
    assert next(n for n in needs if n.role is Role.EXPERT_DOWN)[3:] == (64, 32, 8)
    assert next(n for n in needs if n.role is Role.Q_BIAS)[3:] == (128, 1, 1)


def test_shard_with_both_ends_of_a_tied_model_lists_the_embedding_twice() -> None:
    needs = tensors_needed(declared(TINY["llama-tied"]), [EMBED, LM_HEAD])
    assert [(n.role, n.layer, n.ref.name) for n in needs] == [
        (Role.EMBED, OUTSIDE_LAYERS, "token_embd.weight"),
        (Role.OUTPUT_NORM, OUTSIDE_LAYERS, "output_norm.weight"),
        (Role.LM_HEAD, OUTSIDE_LAYERS, "token_embd.weight"),
    ]


def test_any_shard_with_layers_needs_the_rope_divisors() -> None:
    spec = declared(TINY["llama"])
    assert Role.ROPE_FREQS in {n.role for n in tensors_needed(spec, [Part(2)])}
    assert Role.ROPE_FREQS not in {n.role for n in tensors_needed(spec, [EMBED, LM_HEAD])}


# ---- broken and foreign files: one line each, which names what is wrong ----

BAD_VALUES = [
    ("glm4", {"block_count": 0}, "glm4.block_count is 0: must be a whole number from 1 to 1024"),
    ("glm4", {"block_count": 4_000_000_000}, "glm4.block_count is 4000000000"),
    ("glm4", {"block_count": 4}, "tensor blk.3.attn_norm.weight is missing"),
    ("glm4", {"block_count": True}, "glm4.block_count is True"),
    ("glm4", {"block_count": "3"}, "glm4.block_count is '3'"),
    ("glm4", {"embedding_length": -64}, "glm4.embedding_length is -64"),
    ("glm4", {"embedding_length": 96}, "tensor token_embd.weight is 317 x 64: the metadata makes it 317 x 96"),
    ("glm4", {"context_length": 0}, "glm4.context_length is 0"),
    ("glm4", {"feed_forward_length": 97}, "tensor blk.0.ffn_up.weight is 192 x 64: the metadata makes it 194 x 64"),
    ("glm4", {"attention.head_count": 0}, "glm4.attention.head_count is 0"),
    ("glm4", {"attention.head_count": 3}, "glm4.attention.head_count is 3: not a multiple of the 2"),
    ("glm4", {"attention.head_count": 8}, "tensor blk.0.attn_q.weight is 128 x 64: the metadata makes it 256 x 64"),
    ("glm4", {"attention.head_count_kv": 0}, "glm4.attention.head_count_kv is 0"),
    ("glm4", {"attention.layer_norm_rms_epsilon": float("nan")}, "glm4.attention.layer_norm_rms_epsilon is nan"),
    ("glm4", {"attention.layer_norm_rms_epsilon": -1e-5}, "glm4.attention.layer_norm_rms_epsilon is -1e-05"),
    ("glm4", {"attention.layer_norm_rms_epsilon": 0.0}, "glm4.attention.layer_norm_rms_epsilon is 0.0"),
    ("glm4", {"rope.dimension_count": 34}, "glm4.rope.dimension_count is 34: must be even and at most 32"),
    ("glm4", {"rope.dimension_count": 15}, "glm4.rope.dimension_count is 15: must be even"),
    ("glm4", {"rope.freq_base": float("inf")}, "glm4.rope.freq_base is inf"),
    ("glm4", {"rope.freq_base": 0.0}, "glm4.rope.freq_base is 0.0"),
    ("llama-tied", {"attention.head_count": 5, "attention.head_count_kv": 5}, "not a multiple of the 5 heads"),
    ("qwen3moe", {"expert_count": 0}, "qwen3moe.expert_count is 0"),
    ("qwen3moe", {"expert_count": 1 << 31}, "qwen3moe.expert_count is 2147483648"),
    ("qwen3moe", {"expert_used_count": 9}, "qwen3moe.expert_used_count is 9: there are only 8 experts"),
    ("qwen3moe", {"expert_used_count": 0}, "qwen3moe.expert_used_count is 0"),
    ("qwen3moe", {"expert_weights_norm": 2}, "qwen3moe.expert_weights_norm is 2: must be true or false"),
    ("qwen3moe", {"rope.scaling.type": 7}, "qwen3moe.rope.scaling.type is 7: must be text"),
    ("air", {"nextn_predict_layers": 4}, "glm4moe.nextn_predict_layers is 4: there are only 4 blocks"),
    ("air", {"leading_dense_block_count": 2}, "tensor blk.1.ffn_gate.weight is missing"),
    ("air", {"leading_dense_block_count": 0}, "tensor blk.0.ffn_gate_inp.weight is missing"),
    ("air", {"expert_weights_scale": float("nan")}, "glm4moe.expert_weights_scale is nan"),
    ("glm-groups", {"expert_group_count": 3}, "glm4moe.expert_group_count is 3: 8 experts do not make such groups"),
    ("glm-groups", {"expert_group_count": 8}, "glm4moe.expert_group_count is 8"),
    ("glm-groups", {"expert_group_used_count": 5}, "glm4moe.expert_group_used_count is 5"),
    ("glm-groups", {"expert_group_used_count": 1}, "glm4moe.expert_group_used_count is 1: 3 experts do not fit"),
]


@pytest.mark.parametrize(("name", "changes", "message"), BAD_VALUES)
def test_value_that_makes_no_sense_is_named(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadModelFile) as error:
        declared(TINY[name], **{key.replace(".", "__"): value for key, value in changes.items()})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


UNSUPPORTED = [
    ("glm4", {"attention.key_length": 31, "attention.value_length": 31}, "heads of 31 columns: Swarm runs multiples"),
    ("llama-tied", {"attention.head_count": 8}, "heads of 8 columns"),
    ("llama", {"expert_count": 8}, "llama.expert_count is 8"),
    ("llama", {"rope.scaling.type": "longrope"}, "llama.rope.scaling.type is 'longrope'"),
    ("llama", {"attention.sliding_window": 4096}, "llama.attention.sliding_window is 4096"),
    ("llama", {"attention.value_length": 16}, "keys of 32 and values of 16 columns"),
    ("llama", {"attention.head_count": [4, 4, 8]}, "llama.attention.head_count differs from layer to layer"),
    ("glm4", {"rope.dimension_sections": [8, 4, 4, 0]}, "glm4.rope.dimension_sections is a list of 4"),
    ("air", {"expert_gating_func": 3}, "glm4moe.expert_gating_func is 3"),
]


@pytest.mark.parametrize(("name", "changes", "message"), UNSUPPORTED)
def test_feature_that_is_not_run_is_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModel) as error:
        declared(TINY[name], **{key.replace(".", "__"): value for key, value in changes.items()})
    assert message in str(error.value)


def test_list_that_says_the_same_for_every_layer_is_one_value() -> None:
    assert declared(TINY["llama"], attention__head_count=[4, 4, 4]) == declared(TINY["llama"])


@pytest.mark.parametrize("key", ["block_count", "embedding_length", "attention.head_count", "context_length"])
def test_missing_key_is_named(key: str) -> None:
    with pytest.raises(BadModelFile, match=f"qwen3.{key} is missing"):
        declared(TINY["qwen3"], without=(key,))


@pytest.mark.parametrize("arch", ["gemma4", "", None, 7, "x" * 100_000, "a\nb"])
def test_unknown_architecture_is_refused_in_one_line(arch: Any) -> None:
    with pytest.raises((UnsupportedModel, BadModelFile)) as error:
        spec_from_gguf({"general.architecture": arch}, {})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_unknown_architecture_lists_the_known_ones() -> None:
    with pytest.raises(UnsupportedModel, match="chatglm, glm4, glm4moe, llama, qwen3, qwen3moe"):
        spec_from_gguf({"general.architecture": "gemma4"}, {})


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


def test_tensor_of_no_layer_is_ignored() -> None:
    tiny = TINY["llama"]
    table = tensor_table(tiny)
    extra = {
        name: StoredTensor((64,), table["output_norm.weight"].quant)
        for name in ("v.blk.0.ln1.weight", "blk.x.y", "blk.99.z", "blk.1.attn_rot_embd")
    }
    assert spec_from_gguf(gguf_metadata(tiny), {**table, **extra}) == declared(tiny)


def test_shared_experts_of_another_width_are_read() -> None:
    tiny = replace(TINY["air"], moe=TinyMoe(shared=2, gating="sigmoid", bias=True, dense_layers=1))
    moe = declared(tiny).layers[1].moe
    assert moe is not None
    assert moe.shared_ffn == 64
