"""`swarm plan` on a device where no node runs: this device, measured, and made-up ones."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from swarm import config, kernels
from swarm.cluster.cost import GUESSED_DISK_BYTES_PER_S, Device
from swarm.cluster.devices import WIRED, with_added
from swarm.cluster.planner import Demand, plan
from swarm.models.header import TensorEntry
from swarm.models.registry import spec_from_gguf
from swarm.models.sizes import context_of
from swarm.node import measure
from swarm.node.home import Home
from swarm.node.model_cost import model_cost
from swarm.node.plan import Json, cost_as_kept, default_plan_context, plan_json
from swarm.parts import all_parts
from swarm.store.gguf_metadata import Metadata
from swarm.store.importing import model_name
from swarm.store.naming import slug
from swarm.wire.ids import PeerId


class Headed(Protocol):
    """A model of which the header is known."""

    @property
    def metadata(self) -> Metadata: ...
    @property
    def tensors(self) -> Mapping[str, TensorEntry]: ...


async def plan_here(
    header: Headed,
    settings: config.Settings,
    add: Sequence[str],
    context: int,
    *,
    chats: int = 1,
    is_here: bool = True,
    ranks: Sequence[float] = (),
) -> Json:
    """Where a model would run; `is_here`: this device has its file. ranks: how it was seen to use its experts."""
    return await asyncio.to_thread(_plan, header, settings, add, context, chats=chats, is_here=is_here, ranks=ranks)


def _plan(
    header: Headed,
    settings: config.Settings,
    add: Sequence[str],
    context: int,
    *,
    chats: int,
    is_here: bool,
    ranks: Sequence[float],
) -> Json:
    home = Home(settings.home_path)
    home.make()
    capabilities = measure.capabilities(home, settings, settings.threads or kernels.threads())
    spec = spec_from_gguf(header.metadata, header.tensors)
    cost = cost_as_kept(model_cost(slug(model_name(header.metadata)), spec, header.tensors), spec, settings.kv)
    cost = cost.with_ranks(ranks)
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
        held=frozenset(all_parts(spec.n_layers)) if is_here else frozenset(),
        disk_bytes_per_s=capabilities.disk_bytes_per_s or GUESSED_DISK_BYTES_PER_S,
    )
    demand = Demand(cost, context or default_plan_context(spec.context_length, settings.context), chats)
    return plan_json(plan(demand, with_added([mine], add), lambda a, b: WIRED))
