"""Small mixtures whose experts are on disk, and decoders over them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from swarm.engine.decoder import Decoder
from swarm.engine.expert_cache import CachedExperts
from swarm.engine.expert_folder import ExpertFolder
from swarm.engine.weights import load_weights
from swarm.models import spec_from_gguf
from swarm.parts import parts_of
from swarm.store.gguf import open_gguf
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny

N_EXPERTS, TOP_K = 32, 4
MIN_SLOTS = 2 * TOP_K
PIECE_BYTES = 3 * 4096  # many pieces an expert, and a last one that is shorter


def write_mixture(folder: Path, name: str = "air", mix: str = "Q4_K") -> Path:
    """A GGUF file of a mixture of 32 experts, four of which a token uses."""
    tiny = TINY[name]
    assert tiny.moe is not None
    tiny = replace(tiny, moe=replace(tiny.moe, n_experts=N_EXPERTS, top_k=TOP_K))
    tiny = tiny if mix == "F32" else wide(tiny, 256)
    return write_tiny(folder / f"{name}-{mix}.gguf", tiny, make_weights(tiny), mix)


def expert_folder(path: Path) -> ExpertFolder:
    """Where the experts of a model of a test are kept."""
    return ExpertFolder(path.with_suffix(""), piece_bytes=PIECE_BYTES)


def from_disk(
    path: Path, n_slots: int, *, threads: int = 2, layers: range | None = None, hot_list: Path | None = None
) -> Decoder:
    """A decoder whose experts are on disk but for `n_slots` of them."""
    with open_gguf(path) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        layers = layers or range(spec.n_layers)
        parts = parts_of(layers.start, layers.stop, spec.n_layers)
        weights = load_weights(model, spec, parts, experts=expert_folder(path))
    experts = CachedExperts(weights.expert_files, n_slots, threads=threads, hot_list=hot_list)
    return Decoder(spec, weights, context=512, threads=threads, experts=experts)


def from_memory(path: Path, *, threads: int = 2, layers: range | None = None) -> Decoder:
    """The same with everything in memory."""
    with open_gguf(path) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        layers = layers or range(spec.n_layers)
        weights = load_weights(model, spec, parts_of(layers.start, layers.stop, spec.n_layers))
    return Decoder(spec, weights, context=512, threads=threads)


def cached_experts(decoder: Decoder) -> CachedExperts:
    """The cache of a decoder that has one."""
    assert decoder.experts is not None
    return decoder.experts
