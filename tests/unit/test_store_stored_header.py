"""Headers of models in a store that another process uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from swarm.errors import ModelNotFound
from swarm.store.chunks import ChunkStore
from swarm.store.gguf import open_gguf
from swarm.store.stored_header import read_stored_header
from swarm.wire.ids import ModelId
from tests.helpers.tiny import make_tiny


def test_the_header_is_read_from_the_file_or_from_chunks_while_the_store_is_in_use(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", "air", "Q8_0")
    giver, taker = ChunkStore(tmp_path / "giver"), ChunkStore(tmp_path / "taker")
    manifest = giver.import_gguf(path)
    taker.add_manifest(manifest.encoded, manifest.id)
    with pytest.raises(ModelNotFound, match="is not on this device"):
        read_stored_header(taker.root, manifest.id)
    for chunk in manifest.header_chunks:
        data = giver.read(manifest.chunk_id(chunk), 0, int(manifest.chunk_sizes[chunk]))
        assert data is not None and taker.put(manifest.id, chunk, data)
    with open_gguf(path) as whole:
        for store in (giver, taker):
            header = read_stored_header(store.root, manifest.id)
            assert set(header.metadata) == set(whole.metadata) and header.metadata["general.name"] == "tiny air"
            assert {n: (t.shape, t.quant, t.n_bytes) for n, t in header.tensors.items()} == {
                n: (t.shape, t.quant, t.n_bytes) for n, t in whole.tensors.items()
            }
            assert np.isclose(header.size_bytes, whole.size_bytes, rtol=0.1)
    giver.close()
    taker.close()


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_what_is_damaged_is_not_there(tmp_path: Path, content: bytes) -> None:
    model = ModelId("a" * 64)
    directory = tmp_path / "models" / model
    directory.mkdir(parents=True)
    (directory / "manifest").write_bytes(content)
    with pytest.raises(ModelNotFound):
        read_stored_header(tmp_path, model)
