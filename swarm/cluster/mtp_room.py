"""Whether the block of a model that predicts further tokens is held: by the last stage, where that has room beside all.

Layers go elsewhere for its sake where that costs (next to) nothing: a model runs without it. A stage of several devices
does without, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace as replaced

from msgspec.structs import replace

from swarm.cluster.cost import Device, LinkOf, ModelCost
from swarm.cluster.pipeline import Pipeline, is_cut
from swarm.cluster.planner import Demand, NoPlan, Plan, plan
from swarm.parts import Part
from swarm.wire.records import Shard

WORTH = 1.02  # times as long a token may take for its sake, before it has said anything


def with_mtp(pipeline: Pipeline, model: ModelCost, devices: Sequence[Device], context: int) -> Pipeline | None:
    """The same stages, where the last one has room for the block, and what it takes; None where it has not.

    Every part of it must be on the disk of some device.
    """
    last = pipeline.last
    device = next((each for each in devices if each.id == last.leader.peer), None)
    parts = model.mtp_parts()
    if device is None or not parts or is_cut(last) or not _can_be_had(parts, device, devices, model):
        return None
    memory = _memory_bytes(model, last.leader, context)
    if memory > device.memory_bytes:
        return None
    return pipeline.with_last(replace(last.leader, memory_bytes=memory))


def with_room(demand: Demand, found: Plan, devices: Sequence[Device], link: LinkOf) -> Plan:
    """A plan that leaves room for the block beside the head, or the one that was found where that is faster."""
    model = demand.model
    if model.mtp is None or found.demand.model.resident_share < 1.0:
        return found
    n_bytes = sum(map(model.part_bytes, model.mtp_parts())) + model.mtp_kv_bytes(demand.context)
    roomy = plan(replaced(demand, model=replaced(model, beside_head_bytes=n_bytes)), devices, link)
    if isinstance(roomy, NoPlan) or roomy.demand.model.resident_share < 1.0:
        return found
    return roomy if roomy.prediction.token_s <= WORTH * found.prediction.token_s else found


def _can_be_had(parts: Sequence[Part], device: Device, devices: Sequence[Device], model: ModelCost) -> bool:
    missing = [part for part in parts if part not in device.held]
    held = frozenset[Part]().union(*(each.held for each in devices))
    return held.issuperset(parts) and sum(map(model.stored_bytes, missing)) <= device.disk_bytes


def _memory_bytes(model: ModelCost, shard: Shard, context: int) -> int:
    """Of the stage, all its experts in memory, with the block."""
    first, end = shard.layer_start, shard.layer_end
    parts = {*model.parts(first, end), *model.mtp_parts()}
    kv = model.stage_kv_bytes(first, end, context) + model.mtp_kv_bytes(context)
    return sum(map(model.part_bytes, parts)) + kv
