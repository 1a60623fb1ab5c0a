"""A small model with every kind of tensor, for tests of manifests and the chunk store."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from swarm.store.chunks import ChunkStore
from swarm.store.manifest import Manifest
from tests.helpers.gguf_writer import write_gguf

METADATA = {
    "general.architecture": "glm4moe",
    "general.name": "Tiny chunked",
    "tokenizer.ggml.tokens": [f"token {i}" for i in range(3000)],
}
N_EXPERTS = 3


def write_model(path: Path, *, layers: int = 2, width: int = 256, seed: int = 0) -> Path:
    """About 1.2 MB a layer: a matrix cut by rows, two by columns, one of them of experts, and vectors."""
    rng = np.random.default_rng(seed)

    def values(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    tensors = {"token_embd.weight": (values(3000, width), "Q8_0"), "output_norm.weight": (values(width), "F32")}
    for i in range(layers):
        tensors |= {
            f"blk.{i}.attn_norm.weight": (values(width), "F32"),
            f"blk.{i}.attn_q.weight": (values(6 * width, width), "F32"),
            f"blk.{i}.attn_output.weight": (values(width, 6 * width), "Q4_K"),
            f"blk.{i}.ffn_gate_exps.weight": (values(N_EXPERTS, 320, width), "Q5_0"),
            f"blk.{i}.ffn_down_exps.weight": (values(N_EXPERTS, 4 * width, 320), "F16"),
        }
    return write_gguf(path, METADATA, tensors)


def fetch(store: ChunkStore, seeder: ChunkStore, manifest: Manifest, chunks: list[int] | range | None = None) -> None:
    """Bring chunks (None: all) from one store to the other."""
    store.add_manifest(manifest.encoded, manifest.id)
    for chunk in range(manifest.n_chunks) if chunks is None else chunks:
        data = seeder.read(manifest.chunk_id(chunk), 0, int(manifest.chunk_sizes[chunk]))
        assert data is not None and store.put(manifest.id, chunk, data)


def held(store: ChunkStore, manifest: Manifest) -> np.ndarray:
    """Which chunks a store has."""
    chunks = store.model(manifest.id)
    assert chunks is not None
    return chunks.held
