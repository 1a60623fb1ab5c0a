"""Devices that share a model make the vectors that one makes, bit for bit: real processes on loopback."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swarm.engine.decoder import Decoder
from swarm.engine.weights import load_weights
from swarm.models.registry import spec_from_gguf
from swarm.node.embedding import unit_vector
from swarm.parts import all_parts
from swarm.store.gguf import open_gguf
from tests.helpers.nodes import Swarm, cost_of, memories_for
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny
from tests.swarm.test_same_answer import CONTEXT, layers_held

TEXTS = [[5, 6, 7, 8], list(range(4, 150))]


@pytest.mark.parametrize("layout", ["pipeline", "slices"])
def test_a_vector_does_not_tell_who_made_it(tmp_path: Path, layout: str) -> None:
    tiny = replace(wide(TINY["glm4"], ffn=1280), n_layers=4)
    path = write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), "Q8_0")
    memories = memories_for(cost_of(path), (2, 2), CONTEXT) if layout == "pipeline" else [2_000_000_000] * 2
    with Swarm(tmp_path / "swarm", memories, model=path, context=CONTEXT, layout=layout) as nodes:
        replies: list[Any] = [
            node.post("/v1/embeddings", {"model": nodes.model, "input": TEXTS}) for node in nodes.nodes
        ]
        held = layers_held(nodes.nodes[0].status())
    assert sorted(held.values()) == ([2, 2] if layout == "pipeline" else [4, 4])
    with open_gguf(path) as model:
        spec = spec_from_gguf(model.metadata, model.tensors)
        weights = load_weights(model, spec, all_parts(spec.n_layers))
    decoder = Decoder(spec, weights, context=CONTEXT, threads=1)
    wanted = []
    for ids in TEXTS:
        decoder.forward(ids, decoder.new_kv())
        wanted.append(unit_vector(decoder.normed(0).tobytes()).tolist())
    for reply in replies:
        assert [row["embedding"] for row in reply["data"]] == wanted
        assert reply["usage"]["prompt_tokens"] == sum(map(len, TEXTS))
