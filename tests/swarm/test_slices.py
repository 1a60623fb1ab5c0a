"""Slices of every family, run side by side and added by hand, give the logits of the whole model, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from swarm.engine.decoder import Decoder
from swarm.engine.weights import load_weights
from swarm.models import spec_from_gguf
from swarm.models.slices import cut_model, narrow
from swarm.models.spec import tensors_needed
from swarm.parts import all_parts
from swarm.store import manifest as manifest_module
from swarm.store.chunks import ChunkStore
from swarm.store.gguf import GGUF, open_gguf
from swarm.store.rectangles import Rectangle
from tests.helpers.sliced import SlicedModel, slice_decoder
from tests.helpers.tiny import TINY, Tiny, make_weights, wide, write_tiny

IDS = np.random.default_rng(7).integers(4, 256, 40).tolist()
STEPS = (17, 1, 1, 21)
# Uneven on purpose. Of 8 heads in 2 groups, 2:1 and 5 slices cut a group; 1:1 and some of the others cut none.
SHARES = ((1.0, 1.0), (2.0, 1.0), (1.0, 3.0, 2.0), (1.0, 2.0, 1.0, 1.5, 2.5))


def sliceable(name: str) -> Tiny:
    """The checkpoint with enough heads and columns for five slices, where K-quants allow it."""
    return replace(
        wide(TINY[name], ffn=1280), n_layers=max(2, TINY[name].moe.dense_layers + 1 if TINY[name].moe else 0)
    )


def write(tmp_path: Path, name: str, mix: str) -> Path:
    tiny = sliceable(name)
    return write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), mix)


def whole_logits(model: GGUF) -> np.ndarray:
    spec = spec_from_gguf(model.metadata, model.tensors)
    weights = load_weights(model, spec, all_parts(spec.n_layers))
    return Decoder(spec, weights, context=128, threads=1, kv="f32").logits(IDS)


def check_same(model: GGUF, shares: tuple[float, ...]) -> None:
    spec = spec_from_gguf(model.metadata, model.tensors)
    want = whole_logits(model)
    got = SlicedModel.load(model, spec, cut_model(spec, model.tensors, shares), kv="f32").logits(IDS, STEPS)
    assert np.isfinite(want).all()
    assert np.array_equal(got, want), f"{shares}: {np.abs(got - want).max()} of {np.abs(want).max()}"


@pytest.mark.parametrize("name", TINY)
def test_uneven_slices_of_every_family_are_the_whole_model(tmp_path: Path, name: str) -> None:
    with open_gguf(write(tmp_path, name, "F32")) as model:
        n_heads = spec_from_gguf(model.metadata, model.tensors).n_heads
        for shares in SHARES:
            if len(shares) <= n_heads:
                check_same(model, shares)


@pytest.mark.parametrize(("name", "mix"), [("glm4-fused", "Q4_0"), ("chatglm", "Q8_0"), ("glm355b", "Q4_0")])
def test_slices_of_blocks_of_32_are_the_whole_model(tmp_path: Path, name: str, mix: str) -> None:
    with open_gguf(write(tmp_path, name, mix)) as model:
        for shares in SHARES:
            check_same(model, shares)


@pytest.mark.parametrize("name", ["llama", "air", "qwen3moe", "glm4"])
def test_slices_of_k_quants_are_cut_between_their_blocks(tmp_path: Path, name: str) -> None:
    with open_gguf(write(tmp_path, name, "Q4_K")) as model:
        check_same(model, (1.0, 2.0))
        spec = spec_from_gguf(model.metadata, model.tensors)
        with pytest.raises(ValueError, match="do not make 5 slices"):
            cut_model(spec, model.tensors, SHARES[-1])


@pytest.mark.parametrize(
    ("name", "mix"), [("chatglm", "Q8_0"), ("glm355b", "F32"), ("air", "Q4_K"), ("flash", "Q8_0"), ("gpt-oss", "F32")]
)
def test_a_device_that_fetched_only_its_slice_computes_it(
    tmp_path: Path, name: str, mix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_module, "CHUNK_BYTES", 8192)  # several to each of these small tensors
    monkeypatch.setattr(manifest_module, "EXPERT_CHUNK_BYTES", 8192)
    path = write(tmp_path, name, mix)
    seeder = ChunkStore(tmp_path / "seeder")
    manifest = seeder.import_gguf(path)
    with open_gguf(path) as file:
        spec = spec_from_gguf(file.metadata, file.tensors)
        for number, bounds in enumerate(cut_model(spec, file.tensors, (1.0, 2.0))):
            store = ChunkStore(tmp_path / f"slice{number}")
            store.add_manifest(manifest.encoded, manifest.id)
            refs = [need.ref for need in tensors_needed(narrow(spec, file.tensors, bounds), all_parts(spec.n_layers))]
            chunks = manifest.chunks_of(Rectangle(ref.name, ref.rows, ref.columns, ref.slabs) for ref in refs)
            assert len(chunks) < 0.8 * manifest.n_chunks
            for chunk in chunks:
                data = seeder.read(manifest.chunk_id(chunk), 0, int(manifest.chunk_sizes[chunk]))
                assert data is not None and store.put(manifest.id, chunk, data)
            stored, mapped = (slice_decoder(s, spec, bounds, kv="f16") for s in (store.open(manifest.id), file))
            assert np.array_equal(stored.logits(IDS), mapped.logits(IDS))
            store.close()
    seeder.close()
