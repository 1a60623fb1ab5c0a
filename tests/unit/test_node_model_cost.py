"""What a model costs, counted from its tensors."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.cluster.cost import LayerCost
from swarm.models import Role, spec_from_gguf
from swarm.models.spec import tensors_needed
from swarm.node.model_cost import model_cost
from swarm.parts import EMBED, all_parts
from swarm.store.gguf import open_gguf
from tests.helpers.tiny import TINY, make_weights, write_tiny


@pytest.mark.parametrize("name", TINY)
def test_a_models_cost_counts_every_tensor_once_where_it_lies(tmp_path: Path, name: str) -> None:
    path = write_tiny(tmp_path / "tiny.gguf", TINY[name], make_weights(TINY[name]), "Q8_0")
    with open_gguf(path) as file:
        spec = spec_from_gguf(file.metadata, file.tensors)
        cost = model_cost("tiny", spec, file.tensors)
        used = {need.ref.name for need in tensors_needed(spec, all_parts(spec.n_layers))}
        assert used <= file.tensors.keys()
        packed = sum(file.tensors[tensor].n_bytes for tensor in used)
        embedding = file.tensors[spec.tensors[Role.EMBED].name].n_bytes
    assert cost.n_layers == spec.n_layers and all(layer.kv_bytes > 0 and layer.macs > 0 for layer in cost.layers)
    assert cost.all_stored_bytes >= 0.9 * packed
    moe = [layer for layer in cost.layers if layer.expert_bytes]
    assert len(moe) == sum(layer.moe is not None for layer in spec.layers)
    assert all(isinstance(layer, LayerCost) and 0 < layer.expert_share < 1 for layer in moe)
    assert cost.stored_bytes(EMBED) >= embedding, "on the disk"
    assert cost.part_bytes(EMBED) == 4 * spec.vocab < embedding, "in memory there are checksums of its rows"
