"""The spec that a checkpoint's metadata declares, with values changed or left out."""

from __future__ import annotations

from typing import Any

from swarm.models import ModelSpec, spec_from_gguf
from tests.helpers.tiny import Tiny, gguf_metadata, tensor_table


def declared(tiny: Tiny, without: tuple[str, ...] = (), **changes: Any) -> ModelSpec:
    """The spec of a checkpoint whose metadata is changed: `attention__head_count=3`."""
    metadata = gguf_metadata(tiny)
    for key in without:
        del metadata[f"{tiny.arch}.{key}"]
    metadata |= {f"{tiny.arch}.{key.replace('__', '.')}": value for key, value in changes.items()}
    return spec_from_gguf(metadata, tensor_table(tiny))
