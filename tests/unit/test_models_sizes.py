"""Sizes of real models, from their shapes alone, and of small ones, from their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.models import ModelSizes, ModelSpec, kv_bytes_per_token, model_sizes, spec_from_gguf
from swarm.store.gguf import open_gguf
from tests.helpers.tiny import TINY, Tiny, TinyMoe, gguf_metadata, make_tiny, tensor_table

GLM4_9B = Tiny(
    "GLM-4-9B-0414",
    "glm4",
    n_layers=40,
    hidden=4096,
    n_heads=32,
    n_kv_heads=2,
    head_dim=128,
    ffn=13696,
    vocab=151552,
    context=32768,
    rope_dims=64,
    bias=True,
)
AIR = Tiny(
    "GLM-4.5-Air",
    "glm4moe",
    n_layers=46,
    hidden=4096,
    n_heads=96,
    n_kv_heads=8,
    head_dim=128,
    ffn=10944,
    vocab=151552,
    context=131072,
    theta=1e6,
    rope_dims=64,
    bias=True,
    mtp="absent",
    moe=TinyMoe(n_experts=128, top_k=8, ffn=1408, shared=1, gating="sigmoid", bias=True, dense_layers=1),
)
QWEN3_30B = Tiny(
    "Qwen3-30B-A3B",
    "qwen3moe",
    n_layers=48,
    hidden=2048,
    n_heads=32,
    n_kv_heads=4,
    head_dim=128,
    ffn=6144,
    vocab=151936,
    context=40960,
    eps=1e-6,
    theta=1e6,
    rope_dims=128,
    qk_norm=True,
    moe=TinyMoe(n_experts=128, top_k=8, ffn=768),
)
LLAMA_1B = Tiny(
    "Llama-3.2-1B",
    "llama",
    n_layers=16,
    hidden=2048,
    n_heads=32,
    n_kv_heads=8,
    head_dim=64,
    ffn=8192,
    vocab=128256,
    context=131072,
    theta=5e5,
    rope_dims=64,
    llama3_factor=32.0,
    tied=True,
)


def sized(tiny: Tiny, mix: str) -> tuple[ModelSpec, ModelSizes]:
    table = tensor_table(tiny, mix)
    spec = spec_from_gguf(gguf_metadata(tiny), table)
    return spec, model_sizes(spec, table)


def test_glm4_9b_in_q4_0_has_its_known_sizes() -> None:
    _, sizes = sized(GLM4_9B, "Q4_0")
    norms = 4 * 4096 * 4
    biases = (4096 + 2 * 256) * 4
    assert sizes.layers[0] == 20_054_016 + 94_666_752 + norms + biases
    assert sizes.embed == 349_175_808
    assert sizes.lm_head == 509_214_720 + 4096 * 4
    assert sizes.total == pytest.approx(5.451e9, rel=1e-3)
    assert sizes.active_per_token == pytest.approx(5.101e9, rel=1e-3)


def test_air_in_q4_0_has_its_known_sizes() -> None:
    spec, sizes = sized(AIR, "Q4_0")
    assert spec.n_layers == 46
    assert sizes.experts[0] == 0
    assert set(sizes.experts[1:]) == {9_732_096}
    assert sizes.layers[1] == 61_431_808 + 2_097_664 + 129 * 9_732_096
    assert sizes.total == pytest.approx(60.35e9, rel=1e-3)
    assert sizes.active_per_token == pytest.approx(7.45e9, rel=1e-3)


def test_air_in_mixed_k_quants_falls_back_where_rows_do_not_fit() -> None:
    table = tensor_table(AIR, "Q4_K")
    assert table["blk.1.ffn_down_exps.weight"].quant.name == "Q8_0"
    assert table["blk.1.ffn_gate_exps.weight"].quant.name == "Q4_K"
    assert sized(AIR, "Q8_0")[1].total == pytest.approx(113.60e9, rel=1e-3)


def test_qwen3_30b_has_its_known_sizes() -> None:
    _, sizes = sized(QWEN3_30B, "Q4_0")
    assert sizes.experts[0] == pytest.approx(2.654e6, rel=1e-3)
    assert sizes.total == pytest.approx(17.30e9, rel=1e-3)
    assert sizes.active_per_token == pytest.approx(1.84e9, rel=1e-2)


def test_tied_rows_count_once_in_the_total_and_are_read_by_the_head() -> None:
    _, sizes = sized(LLAMA_1B, "F16")
    assert sizes.total == pytest.approx(2.47e9, rel=1e-2)
    assert sizes.lm_head == sizes.embed + 2048 * 4
    assert sizes.active_per_token == sizes.total + sizes.embed_row


def test_keys_and_values_take_their_known_bytes() -> None:
    assert kv_bytes_per_token(sized(GLM4_9B, "F16")[0]) == 40_960
    assert kv_bytes_per_token(sized(AIR, "F16")[0]) == 188_416
    assert kv_bytes_per_token(sized(AIR, "F16")[0], "Q8_0", n_layers=1) == 2176


@pytest.mark.parametrize("mix", ["F32", "Q8_0", "Q4_K"])
@pytest.mark.parametrize("name", ["llama-tied-wide", "chatglm-wide", "glm355b-wide"])
def test_total_is_what_the_file_stores(name: str, mix: str, tmp_path: Path) -> None:
    with open_gguf(make_tiny(tmp_path / "tiny.gguf", name, mix)) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        stored = sum(tensor.n_bytes for tensor in model.tensors.values() if tensor.name != "rope_freqs.weight")
        assert model_sizes(spec, model.tensors).total == stored


def test_blocks_for_further_tokens_are_not_counted() -> None:
    with_block = TINY["intellect3"]
    assert sized(with_block, "F32")[1].layers == sized(TINY["air"], "F32")[1].layers
