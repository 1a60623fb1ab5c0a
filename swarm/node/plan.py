"""Where a model would run: the answer of `swarm plan`, for people and for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from swarm.cluster.core import Core
from swarm.cluster.cost import Device, LinkSpeed, ModelCost
from swarm.cluster.devices import WIRED, with_added
from swarm.cluster.explain import explain
from swarm.cluster.planner import Demand, NoPlan, Plan, instead, one_more, plan
from swarm.models.sizes import kv_bytes_per_token
from swarm.models.spec import ModelSpec
from swarm.node.driver import Driver
from swarm.node.fetch import RunIo
from swarm.wire.ids import ModelId, PeerId

Json = dict[str, object]
PLANNED_CONTEXT = 2048


async def plan_model(driver: Driver, model: ModelId, demand: Demand, add: Sequence[str], run_io: RunIo) -> Json:
    """Where a model would run, with made-up devices if wanted; on devices that rest only where nothing fits without."""
    there, rests = driver.read(lambda core: _devices(core, model, driver.now))
    real = {device.id for device in there}

    def link(a: PeerId, b: PeerId) -> LinkSpeed | None:
        return driver.read(lambda core: core.link(a, b)) if a in real and b in real else WIRED

    devices = with_added(there, add)
    result = await run_io(plan, demand, [replace(d, excluded=d.excluded or rests.get(d.id, "")) for d in devices], link)
    if isinstance(result, NoPlan) and any(rests.values()):
        result = await run_io(plan, demand, devices, link)
    if isinstance(result, NoPlan):
        return plan_json(result)
    others = await run_io(instead, demand, devices, link, result)
    return plan_json(result, [*others, await run_io(one_more, demand, devices, link, result)])


def _devices(core: Core, model: ModelId, now: float) -> tuple[list[Device], dict[PeerId, str]]:
    """The devices that are there, and why some of them would rather rest."""
    devices = core.devices(model, now)
    return devices, {device.id: core.rests(device.id) for device in devices}


def cost_as_kept(cost: ModelCost, spec: ModelSpec, kv: str) -> ModelCost:
    """The cost with keys and values kept in that format; raise ConfigError where they cannot be."""
    kv_bytes_per_token(spec, kv.upper())
    kept = cost.kept_as(kv)
    assert kept is not None
    return kept


def default_plan_context(context_length: int, wanted: int) -> int:
    """Tokens of context to plan for when nobody says: a long chat."""
    return wanted or min(context_length, PLANNED_CONTEXT)


def plan_json(result: Plan | NoPlan, more: Sequence[str] = ()) -> Json:
    """A plan for people (`lines`, then `more`) and for scripts."""
    lines = [*explain(result), *more]
    left_out = [{"name": out.name, "reason": out.reason} for out in result.left_out]
    if isinstance(result, NoPlan):
        missing = {"fits": False, "missing_bytes": result.missing_bytes, "context_that_fits": result.context_that_fits}
        return {"lines": lines, **missing, "left_out": left_out}
    prediction = result.prediction
    return {
        "lines": lines,
        "fits": True,
        "stages": [
            {"first": stage.first, "end": stage.end, **asdict(shard)}
            for stage in result.stages
            for shard in stage.members
        ],
        "tokens_per_s": prediction.tokens_per_s,
        "resident_share": result.demand.model.resident_share,
        "tokens_per_s_in_memory": (result.in_memory or prediction).tokens_per_s,
        "busy_tokens_per_s": prediction.busy_tokens_per_s,
        "first_token_s": prediction.first_token_s,
        "computing_s": sum(prediction.stage_s) - prediction.exchange_s,
        "exchange_s": prediction.exchange_s,
        "hops_s": sum(prediction.hop_s),
        "left_out": left_out,
    }
