"""A model that came as chunks is the model of the file: same spec, same logits, whole or by layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from swarm.engine.decoder import Decoder
from swarm.engine.weights import TensorSource, load_weights
from swarm.errors import ModelNotFound
from swarm.models import spec_from_gguf
from swarm.models.spec import tensors_needed
from swarm.parts import parts_of
from swarm.store.chunks import ChunkStore
from swarm.store.gguf import open_gguf
from swarm.store.rectangles import Rectangle
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny

IDS = np.random.default_rng(7).integers(4, 256, 20).astype(np.int32)


def decoder(source: TensorSource, layers: range | None = None) -> Decoder:
    spec = spec_from_gguf(source.metadata, source.tensors)
    layers = layers or range(spec.n_layers)
    weights = load_weights(source, spec, parts_of(layers.start, layers.stop, spec.n_layers))
    return Decoder(spec, weights, context=128, threads=1, kv="f32")


@pytest.mark.parametrize(("name", "mix"), [("llama", "Q4_K"), ("air", "Q4_K"), ("air", "F32"), ("qwen3moe", "Q4_0")])
def test_stages_that_fetched_only_their_layers_answer_as_the_file_does(tmp_path: Path, name: str, mix: str) -> None:
    tiny = TINY[name] if mix == "F32" else wide(TINY[name])
    path = write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), mix)
    with open_gguf(path) as file:
        want = decoder(file).forward(IDS, decoder(file).new_kv())
        spec = spec_from_gguf(file.metadata, file.tensors)
    seeder = ChunkStore(tmp_path / "seeder")
    manifest = seeder.import_gguf(path)
    stages, stores = [], [seeder]
    for number, layers in enumerate((range(0, 1), range(1, spec.n_layers))):
        store = ChunkStore(tmp_path / f"stage{number}")
        stores.append(store)
        store.add_manifest(manifest.encoded, manifest.id)
        needed = tensors_needed(spec, parts_of(layers.start, layers.stop, spec.n_layers))
        for chunk in manifest.chunks_of(Rectangle(need.ref.name) for need in needed):
            data = seeder.read(manifest.chunk_id(chunk), 0, int(manifest.chunk_sizes[chunk]))
            assert data is not None and store.put(manifest.id, chunk, data)
        model = store.open(manifest.id)
        assert spec_from_gguf(model.metadata, model.tensors) == spec
        stages.append(decoder(model, layers))
        with pytest.raises(ModelNotFound, match="are not on this device yet"):
            decoder(model)
    first, last = stages
    hidden = first.embed(IDS, first.new_kv())
    assert np.array_equal(last.finish(hidden, last.new_kv()), want)
    for store in stores:
        store.close()
