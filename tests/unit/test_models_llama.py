"""llama: what a file may have or leave out."""

from __future__ import annotations

from dataclasses import replace

from swarm.models import Role
from tests.helpers.declared import declared
from tests.helpers.tiny import TINY


def test_biases_of_query_key_and_value_are_used_where_the_file_has_them() -> None:
    with_bias = declared(replace(TINY["llama"], bias=True))
    assert with_bias.qkv_bias and Role.V_BIAS in with_bias.layers[2].tensors
    without = declared(TINY["llama"])
    assert not without.qkv_bias and Role.V_BIAS not in without.layers[2].tensors


def test_a_file_without_an_lm_head_is_tied_to_its_embedding() -> None:
    tied = declared(TINY["llama-tied"])
    assert tied.tied_lm_head and tied.tensors[Role.LM_HEAD] == tied.tensors[Role.EMBED]
    assert not declared(TINY["llama"]).tied_lm_head


def test_heads_are_as_wide_as_the_hidden_state_allows_where_the_file_does_not_say() -> None:
    spec = declared(TINY["llama-tied"])  # leaves out key_length and value_length
    assert spec.head_dim == spec.hidden // spec.n_heads == 16
