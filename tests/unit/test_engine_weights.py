"""Weights from a file into memory: what is packed, how often, and what is given back on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from swarm.engine import weights as loading
from swarm.engine.decoder import Decoder, Keep, Rows
from swarm.engine.weights import Memory, Weights, join_weights, load_weights, packed_bytes
from swarm.errors import OutOfMemory
from swarm.kernels import _native
from swarm.kernels.quants import quant_by_name
from swarm.models import Role, spec_from_gguf
from swarm.models.slices import cut_model, narrow
from swarm.models.spec import OUTSIDE_LAYERS, tensors_needed
from swarm.parts import EMBED, LM_HEAD, Part, all_parts
from swarm.store.gguf import GGUF, open_gguf
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny


def write(tmp_path: Path, name: str, mix: str) -> Path:
    tiny = TINY[name] if mix == "F32" else wide(TINY[name])
    return write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), mix)


def same(one: Weights, other: Weights) -> bool:
    """Whether two shards hold the same bytes under the same keys."""
    if not (one.matrices.keys() == other.matrices.keys() and one.experts.keys() == other.experts.keys()):
        return False
    pairs = [(one.matrices[key], other.matrices[key]) for key in one.matrices]
    pairs += [pair for key in one.experts for pair in zip(one.experts[key], other.experts[key], strict=True)]
    vectors = all(np.array_equal(one.vectors[key], other.vectors[key]) for key in one.vectors)
    return vectors and all(np.array_equal(a.unpack(), b.unpack()) for a, b in pairs)


def test_weights_that_do_not_fit_the_memory_are_refused_before_loading(tmp_path: Path) -> None:
    with open_gguf(write(tmp_path, "llama", "F32")) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        with pytest.raises(OutOfMemory, match="weights need"):
            load_weights(model, spec, all_parts(spec.n_layers), memory_bytes=1000)


def test_a_tied_head_is_packed_once(tmp_path: Path) -> None:
    with open_gguf(write(tmp_path, "qwen3", "F32")) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        both = load_weights(model, spec, all_parts(spec.n_layers))
        one = load_weights(model, spec, all_parts(spec.n_layers)[:-1])
    assert spec.tied_lm_head
    assert both.n_bytes == one.n_bytes


def test_pages_of_the_file_are_given_back_before_all_experts_are_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = []
    monkeypatch.setattr(GGUF, "drop", lambda self, name: dropped.append(name))
    monkeypatch.setattr(loading, "PACK_BYTES", 8192)
    with open_gguf(write(tmp_path, "air", "Q8_0")) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        load_weights(model, spec, all_parts(spec.n_layers))
    assert dropped.count("blk.1.ffn_up_exps.weight") > 1
    assert set(dropped) >= {"token_embd.weight", "blk.0.attn_q.weight", "blk.2.ffn_down_exps.weight"}


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_many_pieces_are_packed_as_each_alone(n_threads: int) -> None:
    random, pieces, expected = np.random.default_rng(n_threads), [], []
    for name, n_rows, cols in [("Q4_1", 16, 64), ("Q6_K", 200, 256), ("IQ2_XS", 70, 512), ("F32", 1, 32)]:
        quant = quant_by_name(name)
        raw = random.integers(0, 256, (n_rows, quant.row_bytes(cols)), dtype=np.uint8)
        n_bytes = _native.packed_bytes(quant.id, n_rows, cols, cols)
        alone, out = Memory(n_bytes).take(n_bytes), Memory(n_bytes).take(n_bytes)
        _native.pack(quant.id, raw, cols, alone)
        expected.append(alone)
        pieces.append((quant.id, raw, cols, out))
    _native.pack_many(pieces, n_threads)
    assert all(np.array_equal(out, alone) for (*_, out), alone in zip(pieces, expected, strict=True))
    with pytest.raises(ValueError, match="are not 96 columns"):
        _native.pack_many([*pieces, (pieces[0][0], pieces[0][1], 96, pieces[0][3])], n_threads)
    _native.pack_many([], n_threads)


def test_small_matrices_are_packed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(loading._native, "pack_many", lambda pieces, n_threads: calls.append(len(pieces)))
    with open_gguf(write(tmp_path, "llama", "Q8_0")) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        load_weights(model, spec, all_parts(spec.n_layers))
    assert len(calls) == 1 and calls[0] > spec.n_layers


def test_weights_of_single_layers_join_into_a_shard(tmp_path: Path) -> None:
    with open_gguf(write(tmp_path, "air", "Q4_K")) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        parts = [load_weights(model, spec, [part]) for part in all_parts(spec.n_layers)]
        joined = join_weights(parts, range(spec.n_layers))
        assert same(joined, load_weights(model, spec, all_parts(spec.n_layers)))
    assert joined.layers == range(spec.n_layers)


def test_every_rectangle_is_packed_as_the_file_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PACK_BYTES", 8192)  # in several pieces
    with open_gguf(write(tmp_path, "glm355b", "Q8_0")) as model:
        whole = spec_from_gguf(model.metadata, model.tensors)
        for bounds in cut_model(whole, model.tensors, (2.0, 1.0)):
            spec = narrow(whole, model.tensors, bounds)
            weights = load_weights(model, spec, [Part(3)])
            for need in tensors_needed(spec, [Part(3)]):
                rectangle = need.ref.name, need.ref.rows, need.ref.columns
                if (need.layer, need.role) in weights.matrices:
                    assert np.array_equal(weights.matrices[need.layer, need.role].unpack(), model.raw(*rectangle))
                elif (need.layer, need.role) in weights.experts:
                    experts = np.stack([mat.unpack() for mat in weights.experts[need.layer, need.role]])
                    assert np.array_equal(experts, model.raw(*rectangle))
                else:
                    values = model.raw(need.ref.name, need.ref.rows).view(np.float32)
                    assert np.array_equal(weights.vectors[need.layer, need.role], values)


def test_bytes_are_counted_before_they_are_packed(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with open_gguf(write(tmp_path, "qwen3moe", "Q4_0")) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        needed = tensors_needed(spec, [EMBED, LM_HEAD, Part(1)])
        refs = {n.ref: n for n in needed if n.role in loading.MATRICES}
        total = sum(packed_bytes(n, model.tensors[n.ref.name].quant) for n in refs.values())
        weights = load_weights(
            model, spec, [EMBED, LM_HEAD, Part(1)], progress=lambda done, of: told.append((done, of))
        )
    assert weights.n_bytes == total and told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert weights.matrices[OUTSIDE_LAYERS, Role.LM_HEAD].shape == (spec.vocab, spec.hidden)


@pytest.mark.parametrize("name", ["air", "qwen3moe"])
def test_a_router_that_bf16_holds_is_packed_so_and_computes_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    tiny = wide(TINY[name])
    values = make_weights(tiny)
    for key, floats in values.items():
        if key[1] == "router":
            values[key] = (floats.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    path = write_tiny(tmp_path / "tiny.gguf", tiny, values, "Q8_0")
    half, logits = loaded_and_run(path)
    monkeypatch.setattr(loading, "_quant_in_memory", lambda source, need: source.tensors[need.ref.name].quant)
    whole, expected = loaded_and_run(path)
    routers = [key for key in half.matrices if key[1] is Role.ROUTER]
    assert routers and all(half.matrices[key].qtype == quant_by_name("BF16").id for key in routers)
    assert whole.n_bytes - half.n_bytes >= sum(whole.matrices[key].n_bytes for key in routers) // 2
    assert np.array_equal(logits, expected)


def test_a_router_that_bf16_does_not_hold_stays_as_it_is(tmp_path: Path) -> None:
    weights, _ = loaded_and_run(write(tmp_path, "air", "Q8_0"))
    types = {weights.matrices[key].qtype for key in weights.matrices if key[1] is Role.ROUTER}
    assert types == {quant_by_name("F32").id}


def loaded_and_run(path: Path) -> tuple[Weights, np.ndarray]:
    """The weights, and the logits of a few tokens read as a batch and of one after them."""
    with open_gguf(path) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        weights = load_weights(model, spec, all_parts(spec.n_layers))
        decoder = Decoder(spec, weights, context=32, threads=1)
        kv = decoder.new_kv()
        batch = decoder.step_logits([Rows(np.arange(20, dtype=np.int32), kv, Keep.ALL)])
        one = decoder.step_logits([Rows(np.array([7], np.int32), kv, Keep.LAST)])
    return weights, np.concatenate([np.array(batch), np.array(one)])
