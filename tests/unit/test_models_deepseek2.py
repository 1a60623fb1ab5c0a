"""deepseek2: widths of latent attention, what a file of its beginnings lacks, and what it means where it is silent."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest

from swarm.errors import BadModelFile, UnsupportedModel
from swarm.models import kv_bytes_per_token
from swarm.models.spec import LatentSpec, Role
from tests.helpers.declared import declared
from tests.helpers.tiny import TINY


def test_a_token_leaves_one_row_for_all_heads() -> None:
    spec = declared(TINY["flash"])
    assert (spec.n_kv_heads, spec.head_dim, spec.latent) == (1, 96, LatentSpec(rank=64, q_rank=96, nope=64, value=32))
    assert kv_bytes_per_token(spec) == 3 * 96 * 2
    assert kv_bytes_per_token(spec, "Q8_0") == 3 * 96 // 32 * 34


def test_there_is_a_matrix_for_each_head() -> None:
    tensors = declared(TINY["flash"]).layers[1].tensors
    assert (tensors[Role.K_B].n_rows, len(tensors[Role.K_B].columns)) == (64, 64)
    assert (tensors[Role.V_B].n_rows, len(tensors[Role.V_B].columns)) == (32, 64)
    assert tensors[Role.Q].name == "blk.1.attn_q_b.weight"


def test_the_query_of_lite_models_has_one_matrix() -> None:
    tensors = declared(TINY["deepseek-lite"]).layers[1].tensors
    assert Role.Q_A not in tensors and tensors[Role.Q].name == "blk.1.attn_q.weight"


def test_what_yarn_leaves_out_of_cos_and_sin_counts_on_the_scale_of_attention() -> None:
    spec = declared(TINY["deepseek-lite"])
    assert spec.rope.scaling is not None and spec.rope.scaling.attention_factor == 1.0
    assert spec.attention_scale == pytest.approx(64**-0.5 * (1 + 0.0707 * log(40)) ** 2)


def test_a_gate_that_is_not_said_is_softmax_but_of_files_of_flash() -> None:
    def gating(vocab: int, blocks: int) -> str:
        tiny = replace(TINY["flash"], vocab=vocab, n_layers=blocks, mtp="none", left_out=("expert_gating_func",))
        moe = declared(tiny).layers[1].moe
        assert moe is not None
        return moe.gating

    assert gating(vocab=154880, blocks=47) == gating(vocab=154880, blocks=48) == "sigmoid"
    assert gating(vocab=154880, blocks=4) == gating(vocab=102400, blocks=47) == "softmax"


def test_files_from_before_keys_and_values_were_parted_are_refused_with_what_to_do() -> None:
    with pytest.raises(UnsupportedModel, match=r"key_length_mla is missing: .*fetch a newer one"):
        declared(TINY["flash"], without=("attention.key_length_mla",))


def test_rows_that_do_not_fit_are_named() -> None:
    with pytest.raises(BadModelFile, match=r"attention\.key_length is 128: must be 64 and the 32"):
        declared(TINY["flash"], attention__key_length=128)
    with pytest.raises(UnsupportedModel, match="latents of 48 columns"):
        declared(TINY["flash"], attention__kv_lora_rank=48, attention__key_length=80, attention__value_length=48)


def test_groups_of_deepseek_v2_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="groups of experts and no correction"):
        declared(TINY["deepseek-lite"], expert_group_count=4, expert_group_used_count=2)


def test_a_model_without_experts_may_speak_of_them() -> None:
    assert TINY["flash"].moe is not None
    dense = replace(TINY["flash"], mtp="none", moe=replace(TINY["flash"].moe, dense_layers=3))
    assert [layer.moe for layer in declared(dense).layers] == [None] * 3
