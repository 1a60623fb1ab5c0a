"""A small model with every kind of tensor, for tests of manifests and the chunk store."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from swarm.store.chunks import ChunkStore
from swarm.store.gguf import GGUF
from swarm.store.manifest import Manifest
from swarm.store.rectangles import Rectangle
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


Q = "blk.0.attn_q.weight"  # 1536 x 256 F32, cut by rows
OUT = "blk.0.attn_output.weight"  # 256 x 1536 Q4_K, cut by columns
GATE = "blk.1.ffn_gate_exps.weight"  # 3 x 320 x 256 Q5_0, cut by rows
DOWN = "blk.1.ffn_down_exps.weight"  # 3 x 1024 x 320 F16, cut by columns
NORM = "blk.1.attn_norm.weight"

# Of the tensors of `write_model`.
RECTANGLES = [
    Rectangle(Q, [range(0, 1536)], range(0, 256)),
    Rectangle(Q, [range(40, 97)], None),
    Rectangle(Q, [range(1200, 1300), range(3, 17), range(1250, 1536)], None),
    Rectangle(Q, [range(40, 97)], range(17, 100)),
    Rectangle(OUT, None, range(256, 1024)),
    Rectangle(OUT, [range(7, 30)], range(1280, 1536)),
    Rectangle(GATE, [range(0, 32), range(192, 320)], None),
    Rectangle(DOWN, None, range(64, 160)),
    Rectangle(DOWN, [range(5, 10), range(5, 10)], range(300, 320)),
    Rectangle(NORM, [range(10, 20), range(10, 20), range(200, 256)], range(0, 1)),
]


def expected(file: GGUF, rectangle: Rectangle) -> np.ndarray:
    """The rectangle, block by block, from the whole tensor."""
    name, rows, columns, _ = rectangle
    info = file.tensors[name]
    whole = file.raw(name)
    if whole.ndim == 1:
        values = whole.view(np.float32)
        return np.concatenate([values[piece.start : piece.stop] for piece in rows or []]).view(np.uint8)
    blocks = whole.reshape(*whole.shape[:-1], -1, info.quant.block_bytes)
    first, end = (columns.start, columns.stop) if columns else (0, info.shape[-1])
    blocks = blocks[..., first // info.quant.block_cols : end // info.quant.block_cols, :]
    index = np.concatenate([np.arange(piece.start, piece.stop) for piece in rows or [range(info.shape[-2])]])
    return blocks[..., index, :, :].reshape(*whole.shape[:-2], len(index), -1)
