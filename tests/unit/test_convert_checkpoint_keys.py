"""config.json and the keys of a file: old names and new, and values that make no sense."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.convert.checkpoint_keys import ARCHITECTURES, architecture_of, keys_of
from swarm.errors import BadModelFile, UnsupportedModel
from swarm.models import FAMILIES
from tests.helpers.tiny import TINY, gguf_metadata
from tests.helpers.transformers_oracle import config_of

HERE_ONLY = {"vocab_size", "expert_gating_func", "expert_weights_norm", "nextn_predict_layers"}


def keys(name: str, **changes: Any) -> dict[str, Any]:
    return keys_of({**config_of(TINY[name]), **changes})


@pytest.mark.parametrize("name", [name for name in TINY if TINY[name].mtp == "none" and not TINY[name].sections])
def test_keys_are_those_of_a_file_written_by_hand(name: str) -> None:
    arch = TINY[name].arch
    by_hand = {k.removeprefix(f"{arch}."): v for k, v in gguf_metadata(TINY[name]).items() if k.startswith(f"{arch}.")}
    found = keys(name)
    for key, value in by_hand.items():
        if key in HERE_ONLY or key == "rope.scale_linear":
            continue
        assert found[key] == pytest.approx(value), key


def test_every_family_can_be_converted() -> None:
    assert set(ARCHITECTURES.values()) == set(FAMILIES)


def test_old_configs_say_rope_in_another_place() -> None:
    old = {"rope_parameters": None, "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}
    found = keys("llama-tied", **old)
    assert (found["rope.freq_base"], found["rope.scaling.type"], found["rope.scaling.factor"]) == (5e5, "linear", 2.0)


def test_the_remote_code_of_chatglm_has_names_of_its_own() -> None:
    config = {
        "architectures": ["ChatGLMModel"],
        "num_layers": 40,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "multi_query_group_num": 2,
        "kv_channels": 128,
        "ffn_hidden_size": 13696,
        "seq_length": 131072,
        "padded_vocab_size": 151552,
        "layernorm_epsilon": 1.5625e-07,
        "rope_ratio": 500,
    }
    found = keys_of(config)
    assert (found["block_count"], found["attention.head_count_kv"], found["rope.freq_base"]) == (40, 2, 5e6)
    assert (found["rope.dimension_count"], found["feed_forward_length"]) == (64, 13696)


@pytest.mark.parametrize("value", [None, -1, "x", 2.5, True, [4], 1 << 40])
def test_numbers_that_make_no_sense_are_named(value: object) -> None:
    with pytest.raises(BadModelFile, match=r"config\.json: num_hidden_layers is"):
        keys("llama", num_hidden_layers=value)


def test_ways_to_stretch_that_swarm_does_not_run_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="rope_type is 'dynamic'"):
        keys("llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0})
    with pytest.raises(BadModelFile, match="rope_parameters must be an object"):
        keys("llama", rope_parameters=[1])


def test_a_model_that_swarm_does_not_run_is_named() -> None:
    with pytest.raises(UnsupportedModel, match="'GemmaForCausalLM'; Swarm converts LlamaForCausalLM"):
        architecture_of({"architectures": ["GemmaForCausalLM"]})
    for odd in ({}, {"architectures": []}, {"architectures": "x"}, {"architectures": [7]}):
        with pytest.raises(UnsupportedModel):
            architecture_of(odd)
