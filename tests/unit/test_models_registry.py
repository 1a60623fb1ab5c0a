"""The table of families: every one declares what its checkpoint was made as; others are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from swarm.architectures import ARCHITECTURES
from swarm.errors import BadModelFile, UnsupportedModel
from swarm.models import FAMILIES, spec_from_gguf
from tests.helpers.declared import declared
from tests.helpers.tiny import TINY

ROPE_STYLE = {
    "chatglm": "pair",
    "deepseek2": "pair",
    "glm4": "pair",
    "glm4moe": "half",
    "gpt-oss": "half",
    "granite": "pair",
    "granitemoe": "pair",
    "llama": "pair",
    "mistral3": "pair",
    "qwen2": "half",
    "qwen3": "half",
    "qwen3moe": "half",
    "smollm3": "pair",
}


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
    latent = tiny.latent
    kept = (1, latent.rank + tiny.rope_dims) if latent else (tiny.n_kv_heads, tiny.head_dim)
    assert (spec.n_heads, spec.n_kv_heads, spec.head_dim) == (tiny.n_heads, *kept)
    assert (spec.rope.style, spec.rope.dims) == ("half" if tiny.sections else ROPE_STYLE[tiny.arch], tiny.rope_dims)
    assert (spec.qkv_bias, spec.qk_norm, spec.sandwich_norms, spec.tied_lm_head) == (
        tiny.bias,
        tiny.qk_norm,
        tiny.arch == "glm4",
        tiny.tied,
    )
    assert [layer.moe is not None for layer in spec.layers] == [tiny.is_moe(i) for i in range(tiny.n_layers)]
    width = latent.nope + tiny.rope_dims if latent else tiny.head_dim
    sharper = 1 + 0.1 * tiny.yarn_multiplier * math.log(tiny.yarn_factor) if latent and tiny.yarn_factor else 1.0
    assert spec.attention_scale == pytest.approx(tiny.attention_scale or width**-0.5 * sharper**2)


def test_every_family_has_a_checkpoint_and_a_rope_style() -> None:
    assert set(FAMILIES) == set(ARCHITECTURES) == {tiny.arch for tiny in TINY.values()} == set(ROPE_STYLE)


@pytest.mark.parametrize("arch", ["gemma4", "", None, 7, "x" * 100_000, "a\nb"])
def test_unknown_architecture_is_refused_in_one_line(arch: Any) -> None:
    with pytest.raises((UnsupportedModel, BadModelFile)) as error:
        spec_from_gguf({"general.architecture": arch}, {})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_unknown_architecture_lists_the_known_ones() -> None:
    with pytest.raises(UnsupportedModel, match=", ".join(ARCHITECTURES)):
        spec_from_gguf({"general.architecture": "gemma4"}, {})
