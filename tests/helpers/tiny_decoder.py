"""A decoder of a tiny model, straight from a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swarm.engine.decoder import Decoder
from swarm.engine.weights import load_weights
from swarm.models import spec_from_gguf
from swarm.parts import all_parts
from swarm.store.gguf import open_gguf
from tests.helpers.tiny import Tiny, make_weights, write_tiny


@contextmanager
def tiny_decoder(folder: Path, tiny: Tiny, mix: str = "F32", *, context: int, kv: str = "f16") -> Iterator[Decoder]:
    """All layers on one thread; the file is in `folder`."""
    with open_gguf(write_tiny(folder / "tiny.gguf", tiny, make_weights(tiny), mix)) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        yield Decoder(spec, load_weights(model, spec, all_parts(spec.n_layers)), context=context, threads=1, kv=kv)
