"""From a GGUF file to a manifest: every chunk is hashed where it lies, on all cores, and nothing is copied."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from blake3 import blake3

from swarm.limits import MAX_NAME_BYTES
from swarm.store.gguf import GGUF
from swarm.store.gguf_chunks import InOrder
from swarm.store.manifest import DIGEST_BYTES, HEADER_STEP, ChunkedTensor, Manifest, plan_chunks

HashProgress = Callable[[int, int], None]  # bytes done, bytes in all


def manifest_of(source: GGUF, *, threads: int = 1, progress: HashProgress | None = None) -> Manifest:
    """Cut and hash a model. Two devices with the same file get the same manifest."""
    tensors: list[ChunkedTensor] = []
    n_chunks = n_header = -(-source.header_bytes // HEADER_STEP)
    for info in source.tensors.values():
        tensors.append(plan_chunks(info.name, info.quant, info.shape, n_chunks))
        n_chunks += len(tensors[-1].chunks)
    plan = Manifest(model_name(source.metadata), source.header_bytes, tuple(tensors), bytes(n_chunks * DIGEST_BYTES))
    digests: list[bytes] = []
    done = 0
    in_order = InOrder(source, plan)
    with ThreadPoolExecutor(threads, "hash") as pool:

        def hash_all(chunks: range, n_bytes: int) -> None:
            nonlocal done
            digests.extend(pool.map(lambda chunk: blake3(in_order.read(chunk)).digest(), chunks))
            done += n_bytes
            if progress:
                progress(done, plan.total_bytes)

        hash_all(range(n_header), source.header_bytes)
        for tensor in tensors:
            hash_all(tensor.chunks, tensor.n_bytes)
            source.drop(tensor.name)
    return Manifest(plan.name, plan.header_bytes, plan.tensors, b"".join(digests))


def model_name(metadata: Mapping[str, Any]) -> str:
    """What a person calls the model: from the file's content, so that it is the same under every file name."""
    name = metadata.get("general.name") or metadata.get("general.architecture") or "model"
    kept = "".join(c for c in str(name) if c.isprintable() and unicodedata.category(c)[0] != "C")
    return kept.encode()[:MAX_NAME_BYTES].decode(errors="ignore").strip() or "model"
