"""`swarm plan` on a device where no node runs: this device, measured, and made-up ones."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from swarm import config, kernels
from swarm.cluster.cost import Device
from swarm.cluster.devices import WIRED, with_added
from swarm.cluster.planner import Demand, plan
from swarm.models.registry import spec_from_gguf
from swarm.models.sizes import context_of
from swarm.node import measure
from swarm.node.home import Home
from swarm.node.model_cost import model_cost
from swarm.node.plan import Json, cost_as_kept, default_plan_context, plan_json
from swarm.parts import all_parts
from swarm.store.gguf import open_gguf
from swarm.store.importing import model_name
from swarm.store.naming import slug
from swarm.wire.ids import PeerId


async def plan_here(path: Path, settings: config.Settings, add: Sequence[str], context: int) -> Json:
    """Where the model of a file would run."""
    return await asyncio.to_thread(_plan, path, settings, add, context)


def _plan(path: Path, settings: config.Settings, add: Sequence[str], context: int) -> Json:
    home = Home(settings.home_path)
    home.make()
    capabilities = measure.capabilities(home, settings, settings.threads or kernels.threads())
    with open_gguf(path) as file:
        spec = spec_from_gguf(file.metadata, file.tensors)
        cost = cost_as_kept(model_cost(slug(model_name(file)), spec, file.tensors), spec, settings.kv)
    context_of(spec, context)  # raises ConfigError for more than it was made for
    mine = Device(
        id=PeerId("0" * 32),
        name="this device",
        memory_bytes=capabilities.memory_bytes,
        disk_bytes=capabilities.disk_bytes,
        read_bytes_per_s=capabilities.read_bytes_per_s,
        macs_per_s=capabilities.prefill_ops_per_s,
        layer_s=capabilities.layer_s,
        step_s=capabilities.step_s,
        held=frozenset(all_parts(spec.n_layers)),
    )
    demand = Demand(cost, context or default_plan_context(spec.context_length, settings.context))
    return plan_json(plan(demand, with_added([mine], add), lambda a, b: WIRED))
