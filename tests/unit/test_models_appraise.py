"""What a model needs beside its weights, by its header."""

from __future__ import annotations

import pytest

from swarm.errors import ConfigError, UnsupportedModel
from swarm.models.appraise import OVERHEAD_BYTES, beside_weights
from tests.helpers.tiny import TINY, gguf_metadata, tensor_table

METADATA, TENSORS = gguf_metadata(TINY["llama"]), tensor_table(TINY["llama"])


def test_keys_and_values_and_what_every_model_needs_are_counted() -> None:
    tiny = TINY["llama"]
    a_token = tiny.n_layers * 2 * tiny.n_kv_heads * tiny.head_dim * 2
    assert beside_weights(METADATA, TENSORS, kv="f16", context=100) == 100 * a_token + OVERHEAD_BYTES
    assert beside_weights(METADATA, TENSORS, kv="f16", context=0) == tiny.context * a_token + OVERHEAD_BYTES


def test_what_does_not_run_is_refused() -> None:
    with pytest.raises(UnsupportedModel):
        beside_weights({**METADATA, "general.architecture": "mamba"}, TENSORS, kv="f16", context=0)
    with pytest.raises(ConfigError):
        beside_weights(METADATA, TENSORS, kv="f16", context=10**6)
