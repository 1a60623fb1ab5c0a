"""What a model needs where it runs, told by its header alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swarm.models.header import TensorEntry
from swarm.models.registry import spec_from_gguf
from swarm.models.sizes import context_of, kv_bytes_per_token

# Beside weights and KV cache: activations, tokenizer, Python and its libraries. Measured on SmolLM2 and held by a test.
OVERHEAD_BYTES = 150_000_000


def beside_weights(
    metadata: Mapping[str, Any],
    tensors: Mapping[str, TensorEntry],
    *,
    kv: str,
    context: int,
    overhead: int = OVERHEAD_BYTES,
) -> int:
    """Bytes of memory beside the weights, for a conversation of `context` tokens (0: the default).

    `overhead`: 0 where the memory that this is compared with is told without it, as a node does.
    Raise ModelError for a model that Swarm does not run.
    """
    spec = spec_from_gguf(metadata, tensors)
    return context_of(spec, context) * kv_bytes_per_token(spec, kv.upper()) + overhead
