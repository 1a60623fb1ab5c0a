"""chatglm: two checkpoints of one model, whose queries, keys and values lie in one tensor or in three."""

from __future__ import annotations

import pytest

from swarm.errors import BadModelFile
from swarm.models import Role, spec_from_gguf
from tests.helpers.declared import declared
from tests.helpers.tiny import TINY, gguf_metadata, tensor_table


def test_both_checkpoints_hold_the_same_rows_under_other_names() -> None:
    fused, separate = (declared(TINY[name]).layers[1].tensors for name in ("chatglm", "chatglm-separate"))
    assert fused.keys() == separate.keys()
    for role in (Role.Q, Role.K, Role.V, Role.Q_BIAS, Role.K_BIAS, Role.V_BIAS):
        assert (fused[role].n_rows, fused[role].columns) == (separate[role].n_rows, separate[role].columns)
        assert separate[role].rows[0].start == 0


def test_half_of_each_head_is_rotated_in_adjacent_pairs_also_where_the_file_does_not_say() -> None:
    rope = declared(TINY["chatglm-separate"]).rope
    assert (rope.style, rope.dims) == ("pair", 16)


def test_a_file_without_the_bias_of_one_layer_is_not_complete() -> None:
    tiny = TINY["chatglm"]
    table = {name: entry for name, entry in tensor_table(tiny).items() if name != "blk.0.attn_qkv.bias"}
    with pytest.raises(BadModelFile, match=r"blk\.0\.attn_q\.bias is missing"):
        spec_from_gguf(gguf_metadata(tiny), table)


def test_glm_edge_has_no_biases() -> None:
    spec = declared(TINY["glm-edge"])
    assert not spec.qkv_bias and spec.tied_lm_head
    assert Role.Q_BIAS not in spec.layers[0].tensors
