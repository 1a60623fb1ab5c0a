"""Values of a file's metadata: defaults where they are missing, one line where they make no sense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swarm.errors import BadModelFile, ModelError, UnsupportedModel
from swarm.models import spec_from_gguf
from swarm.models.header import HARMLESS
from swarm.models.spec import RopeScaling
from swarm.node.model_cost import model_cost
from swarm.store.gguf import open_gguf
from tests.helpers.declared import declared
from tests.helpers.families import open_decoder
from tests.helpers.gguf_keys import KEYS
from tests.helpers.tiny import TINY, Tiny, gguf_metadata, make_weights, write_tiny


def test_missing_keys_get_the_defaults_of_files_in_the_wild() -> None:
    plain = replace(TINY["llama-tied"], left_out=())
    assert declared(plain) == declared(TINY["llama-tied"])
    moe = declared(TINY["intellect3"], without=("expert_gating_func", "expert_weights_scale")).layers[1].moe
    assert moe is not None
    assert (moe.gating, moe.normalise, moe.scale) == ("sigmoid", True, 1.0)
    assert declared(TINY["air"], expert_weights_scale=0.0).layers[1].moe == moe


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


def test_a_factor_without_a_type_and_the_old_key_are_linear() -> None:
    tiny = TINY["llama-tied"]
    assert declared(tiny, rope__scaling__factor=4.0).rope.scaling == RopeScaling("linear", 4.0)
    assert declared(tiny, rope__scale_linear=4.0).rope.scaling == RopeScaling("linear", 4.0)
    both = declared(tiny, rope__scale_linear=4.0, rope__scaling__factor=2.0)
    assert both.rope.scaling == RopeScaling("linear", 2.0), "the new key counts"
    assert declared(tiny, rope__scaling__factor=4.0, rope__scaling__type="none").rope.scaling is None


def test_attn_factor_counts_with_any_type() -> None:
    tiny = TINY["llama-tied"]
    assert declared(tiny, rope__scaling__attn_factor=0.5).rope.scaling == RopeScaling("linear", 1.0, 0, 0.5)
    linear = declared(tiny, rope__scaling__attn_factor=0.5, rope__scaling__factor=2.0).rope.scaling
    assert linear == RopeScaling("linear", 2.0, 0, 0.5)
    yarn = declared(TINY["qwen3-yarn"], rope__scaling__attn_factor=0.5).rope.scaling
    assert yarn is not None and yarn.attention_factor == pytest.approx(0.5 * 1.1386294)


def test_the_magnitude_of_yarn_may_be_said() -> None:
    scaling = declared(TINY["qwen3-yarn"], rope__scaling__yarn_attn_factor=1.0).rope.scaling
    assert scaling is not None and scaling.attention_factor == 1.0
    same = declared(TINY["qwen3-yarn"], rope__scaling__yarn_ext_factor=1.0)
    assert same == declared(TINY["qwen3-yarn"])


def changes_nothing(key: str, tiny: Tiny) -> bool:
    """Whether a key of KEYS says nothing new of this checkpoint."""
    if key == "rope.scaling.original_context_length":
        return not tiny.yarn_factor
    if key.startswith("ssm."):
        return tiny.arch.startswith("granite") and key != "ssm.dt_b_c_rms"
    return key in HARMLESS or {
        "expert_group_used_count": tiny.moe is not None and tiny.moe.n_group == 1,
        "expert_weights_norm": tiny.moe is None or not tiny.moe.normalise or tiny.arch == "gpt-oss",  # false
        "feed_forward_length": tiny.moe is not None and tiny.moe.dense_layers == 0,
        "rope.dimension_sections": tiny.arch == "glm4moe" or tiny.sections != (),
        "rope.scale_linear": tiny.yarn_factor > 0,  # the new key counts
        "rope.scaling.yarn_log_multiplier": tiny.latent is not None and not tiny.yarn_factor,
        "use_parallel_residual": tiny.arch == "qwen2",
    }.get(key, False)


@pytest.mark.parametrize("name", TINY)
def test_every_key_is_obeyed_refused_or_harmless(name: str) -> None:
    tiny = TINY[name]
    plain = declared(tiny)
    for key, value in KEYS.items():
        try:
            changed = declared(tiny, **{key.replace(".", "__"): value})
        except ModelError as error:
            assert "\n" not in str(error)
        else:
            assert (changed == plain) == changes_nothing(key, tiny), key


@pytest.mark.parametrize("name", TINY)
def test_a_key_that_nobody_knows_is_refused_by_its_name_unless_it_says_nothing(name: str) -> None:
    tiny = TINY[name]
    for value in (1, -0.5, True, "x", [0, 1], float("nan")):
        with pytest.raises(UnsupportedModel) as error:
            declared(tiny, key__of__tomorrow=value)
        assert str(error.value).startswith(f"{tiny.arch}.key.of.tomorrow is ")
    for value in (0, 0.0, False, "", [], [0, 0], [False]):
        assert declared(tiny, key__of__tomorrow=value) == declared(tiny)


def test_the_list_of_keys_has_all_of_the_gguf_package() -> None:
    gguf = pytest.importorskip("gguf")
    known = {key.removeprefix("{arch}.") for key in texts_of(gguf.Keys) if key.startswith("{arch}.")}
    assert {key for key in known if "{" not in key} - KEYS.keys() == set()


def texts_of(names: type) -> set[str]:
    """The texts of a class and of the classes in it."""
    values = [value for name, value in vars(names).items() if not name.startswith("__")]
    inner = (texts_of(value) for value in values if isinstance(value, type))
    return {value for value in values if isinstance(value, str)}.union(*inner)


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
    ("llama", {"attention.causal": False}, "llama.attention.causal is False"),
    ("qwen3-yarn", {"rope.scaling.yarn_ext_factor": 0.5}, "qwen3.rope.scaling.yarn_ext_factor is not 1"),
    ("qwen3-yarn", {"rope.scaling.factor": 0.5}, "qwen3.rope.scaling.factor is 0.5"),
    ("llama", {"logit_scale": 0.25}, "llama.logit_scale is 0.25: Swarm's llama does not know what it changes"),
    ("glm4", {"nextn_predict_layers": 1}, "glm4.nextn_predict_layers is 1"),
    ("qwen2", {"rope.dimension_sections": [8, 4, 4, 0]}, "qwen2.rope.dimension_sections is a list of 4"),
    ("air", {"expert_gating_func": 3}, "glm4moe.expert_gating_func is 3"),
]


@pytest.mark.parametrize(("name", "changes", "message"), UNSUPPORTED)
def test_feature_that_is_not_run_is_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModel) as error:
        declared(TINY[name], **{key.replace(".", "__"): value for key, value in changes.items()})
    assert message in str(error.value)


def test_list_that_says_the_same_for_every_layer_is_one_value() -> None:
    assert declared(TINY["llama"], attention__head_count=[4, 4, 4]) == declared(TINY["llama"])


@pytest.mark.parametrize("key", ["attention.head_count", "feed_forward_length"])
@pytest.mark.parametrize("values", [[4, 4], [4, 4, 4, 4], []])
def test_list_for_another_number_of_layers_is_a_broken_file(key: str, values: list[int]) -> None:
    with pytest.raises(BadModelFile, match=rf"{key} has {len(values)} values for 3 layers"):
        declared(TINY["llama"], **{key.replace(".", "__"): values})


@pytest.mark.parametrize("name", TINY)
def test_a_list_for_layers_is_obeyed_or_refused_and_never_misread(name: str) -> None:
    tiny, plain = TINY[name], declared(TINY[name])
    blocks = gguf_metadata(tiny)[f"{tiny.arch}.block_count"]
    assert isinstance(blocks, int)
    for key in KEYS:
        own = gguf_metadata(tiny).get(f"{tiny.arch}.{key}")
        if not isinstance(own, int | float) or isinstance(own, bool) or key == "block_count":
            continue
        alike = [own] * blocks
        lists = (alike, [*alike[1:], own + 1], [own + 1, *alike[1:]])
        for values in (*lists, *map(np.array, lists)):
            try:
                found = declared(tiny, **{key.replace(".", "__"): values})
            except ModelError as error:
                assert ("\n" not in str(error) and tiny.arch in str(error)) or "tensor " in str(error), key
            else:
                assert list(values) == alike or is_of_dense_layers(key, tiny), key
                assert found == plain, key


def is_of_dense_layers(key: str, tiny: Tiny) -> bool:
    """Layers with experts do not read it, whatever a list says of them."""
    return key in HARMLESS or (key == "feed_forward_length" and tiny.moe is not None)


def test_every_layer_is_as_wide_as_a_list_says(tmp_path: Path) -> None:
    whole = replace(TINY["llama-tied"], ffn=128)
    weights = dict(make_weights(whole))
    for role in ("gate", "up"):
        weights[1, role] = weights[1, role] * (np.arange(128) < 64)[:, None]
    alike = write_tiny(tmp_path / "alike.gguf", whole, weights)
    for role in ("gate", "up", "down"):
        weights[1, role] = weights[1, role][:64] if role != "down" else weights[1, role][:, :64]
    uneven = write_tiny(tmp_path / "uneven.gguf", whole, weights, more={"llama.feed_forward_length": [128, 64, 128]})
    with open_gguf(uneven) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        assert [layer.ffn for layer in spec.layers] == [128, 64, 128]
        assert model_cost("uneven", spec, model.tensors).cuts is None, "layers of several widths are not shared"
    ids = list(range(40, 60))
    assert np.array_equal(open_decoder(uneven).logits(ids), open_decoder(alike).logits(ids))


@pytest.mark.parametrize("key", ["block_count", "embedding_length", "attention.head_count", "context_length"])
def test_missing_key_is_named(key: str) -> None:
    with pytest.raises(BadModelFile, match=f"qwen3.{key} is missing"):
        declared(TINY["qwen3"], without=(key,))
