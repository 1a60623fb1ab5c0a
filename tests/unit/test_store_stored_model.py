"""A model read from chunks as if it were a GGUF file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from swarm.errors import ModelNotFound
from swarm.store.gguf import open_gguf
from swarm.store.rectangles import Rectangle
from tests.helpers.chunked import fetch


def test_a_fetched_model_reads_like_the_file_it_came_from(seeder, open_store, chunked_model: Path) -> None:
    source, manifest = seeder
    store = open_store()
    fetch(store, source, manifest)
    with open_gguf(chunked_model) as file:
        for stored in (store.open(manifest.id), source.open(manifest.id)):
            assert dict(stored.metadata).keys() == dict(file.metadata).keys()
            assert stored.metadata["tokenizer.ggml.tokens"] == file.metadata["tokenizer.ggml.tokens"]
            assert list(stored.tensors) == list(file.tensors) and stored.name == "Tiny chunked"
            for name, info in file.tensors.items():
                assert (stored.tensors[name].shape, stored.tensors[name].quant) == (info.shape, info.quant)
                raw = file.raw(name)
                np.testing.assert_array_equal(stored.raw(name), raw)
                slabs = list(stored.slabs(name))
                np.testing.assert_array_equal(np.stack(slabs).reshape(raw.shape), raw)
                stored.drop(name)


def test_a_shard_can_be_loaded_when_only_its_chunks_are_here(seeder, open_store, chunked_model: Path) -> None:
    source, manifest = seeder
    store = open_store()
    names = [name for name in manifest.by_name if name.startswith("blk.1.")]
    fetch(store, source, manifest, manifest.chunks_of(map(Rectangle, names)))
    stored = store.open(manifest.id)
    with open_gguf(chunked_model) as file:
        for name in names:
            np.testing.assert_array_equal(stored.raw(name), file.raw(name))
    with pytest.raises(ModelNotFound, match=r"chunks of tensor 'blk.0.attn_q.weight' are not on this device yet"):
        stored.raw("blk.0.attn_q.weight")
