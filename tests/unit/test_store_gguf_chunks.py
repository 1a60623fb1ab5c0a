"""Chunks in a GGUF file: read alone, or one after the other."""

from __future__ import annotations

import os
from pathlib import Path

from swarm.store.gguf import open_gguf
from swarm.store.gguf_chunks import InOrder, chunk_of_gguf
from swarm.store.importing import manifest_of
from swarm.store.manifest import Cut
from tests.helpers.chunked import write_model


def test_chunks_read_in_order_are_those_read_alone_also_of_a_cut_file(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.gguf")
    with open_gguf(model) as file:
        manifest = manifest_of(file)
    assert any(t.cut is Cut.COLUMNS and t.chunks_per_slab > 1 for t in manifest.tensors)
    with open_gguf(model) as file:
        in_order = InOrder(file, manifest)
        chunks = [*range(manifest.n_chunks), 0, *reversed(range(manifest.n_chunks))]
        for chunk in chunks:
            assert in_order.read(chunk) == bytes(chunk_of_gguf(file, manifest, chunk))
        os.truncate(model, file.header_bytes)
        cut = [c for c in range(manifest.n_chunks) if len(InOrder(file, manifest).read(c)) < manifest.chunk_sizes[c]]
        assert cut == list(range(len(manifest.header_chunks), manifest.n_chunks))
