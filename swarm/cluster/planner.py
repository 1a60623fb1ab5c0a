"""Which devices take part, and who holds what: the placement with the least predicted time per token.

Layers go to devices whole, one after the other (search.py), or devices compute each of them together (teams.py). For
several readers at once rings of more and more devices are looked at, too, cut so that the slowest is as fast as can be.

A device takes part only where that makes a token faster, or where the model does not fit without it. Among placements
that are equally fast (within `search.FETCH_BIAS`) the one wins that must fetch fewer bytes. The answer carries its
reasons: what limits the speed, who is left out and why, or how much memory is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from swarm.answers import PIPELINED_PREFILL_BATCH
from swarm.cluster.cost import GUESSED_LINK, Device, LinkOf, LinkSpeed, ModelCost
from swarm.cluster.cuts import Bounds
from swarm.cluster.pipeline import Pipeline, Stage, is_cut
from swarm.cluster.prediction import Prediction, predict
from swarm.cluster.reasons import NOT_NEEDED, Obstacle, obstacle, why_left_out
from swarm.cluster.search import Search
from swarm.cluster.teams import Terms, best_teams
from swarm.parts import WHOLE, Part, all_parts
from swarm.units import rate_text, size_text
from swarm.wire.ids import PeerId
from swarm.wire.records import Shard, Slice

PREDICTED_PROMPT = 256  # tokens of the prompt whose time to first token is predicted
MIN_CONTEXT = 512  # tokens; a smaller context than this is not worth offering
# Of the experts in memory, tried from the largest down where all of them do not fit. Below the last one a home's disk
# takes tens of seconds a token.
RESIDENT_SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.16, 0.13, 0.1, 0.08, 0.06, 0.04, 0.03)
MORE_SHARES = 2  # of the experts in memory that are tried after the first that fits
WORTH_ADDING = 1.02  # a device that brings less than this is said to bring nothing
NEW_DEVICE = PeerId("f" * 32)
MAX_EXPLAINED = 16  # devices left out whose effect on the speed is computed; the rest are only named


Layout = Literal["auto", "pipeline", "slices"]  # slices: wherever two devices can share layers, however slow they are


@dataclass(frozen=True, slots=True)
class Demand:
    """What is to be placed: KV for `context` tokens is held for every one of `sessions` at once.

    What is fastest for all of them together counts.

    `from_disks`: every part must be on the disk of some device; otherwise a model that nobody holds is still to be had.
    """

    model: ModelCost
    context: int
    sessions: int = 1
    batch: int = PIPELINED_PREFILL_BATCH
    from_disks: bool = False
    layout: Layout = "auto"


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One device's share of a stage: the memory that it takes there and what must be fetched for it."""

    device: PeerId
    name: str
    memory_bytes: int
    fetch_bytes: int
    fetch_s: float = 0.0  # from the devices that have it; 0 when none has, or the link was not measured
    slice: Bounds = WHOLE
    share: float = 1.0  # of each layer


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A device that takes no part, and why."""

    device: PeerId
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A placement: the stages in the order that a token passes them."""

    demand: Demand
    stages: tuple[Stage[ShardPlan], ...]
    prediction: Prediction
    limits: str  # what sets the pace, in words
    left_out: tuple[LeftOut, ...] = ()
    in_memory: Prediction | None = None  # where some experts are on disk: as if all of them fitted


@dataclass(frozen=True, slots=True)
class NoPlan:
    """No placement exists: what is missing, and what would help."""

    demand: Demand
    reason: str
    missing_bytes: int = 0  # of memory; 0 when memory is not what is missing
    missing_parts: tuple[Part, ...] = ()  # that no device has on its disk
    context_that_fits: int = 0  # 0: none does
    left_out: tuple[LeftOut, ...] = ()


def plan(demand: Demand, devices: Sequence[Device], link: LinkOf) -> Plan | NoPlan:
    """The fastest placement, or what is missing for any."""
    usable = sorted((d for d in devices if not d.excluded), key=lambda d: d.id)
    missing = missing_parts(demand, usable)
    if missing:
        return _no_source(demand, devices, missing)
    memory_bytes = sum(device.memory_bytes for device in usable)
    found: list[tuple[float, Search, tuple[Stage[Device], ...]]] = []
    for model in _models(demand.model):
        if model.stage_weight_bytes(0, model.n_layers) > memory_bytes:
            continue  # no need to search
        search = Search(model, usable, link, demand.context, demand.sessions)
        stages = _best(demand, search, usable, link)
        if stages is not None:
            found.append((search.score(stages, link), search, stages))
        # With less of its experts in memory devices may share layers, and then they read from all disks at once.
        if found and (len(found) > MORE_SHARES or not _may_share(demand, usable)):
            break
    if not found:
        return _does_not_fit(demand, devices, usable, link)
    _, search, stages = min(found, key=lambda each: each[0])
    return _plan(replace(demand, model=search.model), devices, search, stages, link)


def _may_share(demand: Demand, usable: Sequence[Device]) -> bool:
    return demand.layout != "pipeline" and demand.model.cuts is not None and sum(d.slices for d in usable) > 1


def _best(demand: Demand, search: Search, usable: Sequence[Device], link: LinkOf) -> tuple[Stage[Device], ...] | None:
    """Whole layers one after the other, or shared ones; of two that are as fast the first."""
    pipeline = search.best()
    if demand.sessions > 1 and pipeline is not None:
        pipeline = min((pipeline, *search.rings()), key=lambda stages: search.score(stages, link))
    if demand.layout == "pipeline":
        return pipeline
    terms = Terms(search.model, link, demand.context, demand.sessions, any_link=demand.layout == "slices")
    shared = best_teams(terms, usable, lambda stages: search.score(stages, link))
    if shared is None or search.score(shared, link) == float("inf"):
        return pipeline
    if pipeline is None or demand.layout == "slices":
        return shared
    return shared if search.score(shared, link) < search.score(pipeline, link) else pipeline


def _models(model: ModelCost) -> Iterator[ModelCost]:
    """All in memory; where that does not fit, less and less of the experts."""
    yield model
    if model.has_experts:
        yield from (model.with_resident_share(share) for share in RESIDENT_SHARES)


def _plan(
    demand: Demand, devices: Sequence[Device], search: Search, stages: Sequence[Stage[Device]], link: LinkOf
) -> Plan:
    def predicted(model: ModelCost) -> Prediction:
        return predict(
            model,
            stages,
            link,
            context=demand.context,
            prompt=PREDICTED_PROMPT,
            batch=demand.batch,
            sessions=demand.sessions,
        )

    prediction = predicted(demand.model)
    in_memory = predicted(demand.model.with_resident_share(1.0)) if demand.model.resident_share < 1.0 else None
    return Plan(
        demand=demand,
        stages=tuple(_planned(demand, search, stage, link) for stage in stages),
        prediction=prediction,
        limits=_what_limits(stages, prediction, in_memory),
        left_out=_left_out(devices, search, stages, link, prediction),
        in_memory=in_memory,
    )


def one_more(demand: Demand, devices: Sequence[Device], link: LinkOf, found: Plan) -> str:
    """What another device like the fastest of those that take part would bring, in words."""
    members = {shard.device for stage in found.stages for shard in stage.members}
    like = max((d for d in devices if d.id in members), key=lambda device: (device.read_bytes_per_s, device.id))
    new = replace(like, id=NEW_DEVICE, name=f"another {like.name}", held=frozenset())
    beside = next((device.id for device in devices if device.id != like.id and device.id in members), None)

    def also(a: PeerId, b: PeerId) -> LinkSpeed | None:
        ends = [like.id if each == NEW_DEVICE else each for each in (a, b)]
        if ends[0] != ends[1]:
            return link(ends[0], ends[1])
        return link(like.id, beside) if beside is not None else GUESSED_LINK

    result = plan(demand, [*devices, new], also)
    before, after = found.prediction.pace, result.prediction.pace if isinstance(result, Plan) else 0.0
    if after <= before * WORTH_ADDING:
        return f"another device like {like.name} would not make it faster"
    return f"another device like {like.name} would make it {after:.1f} tok/s"


def instead(demand: Demand, devices: Sequence[Device], link: LinkOf, found: Plan) -> list[str]:
    """What the other way to use the devices would bring, in words: whole layers in a row, or a part of each."""
    if any(map(is_cut, found.stages)):
        in_a_row = plan(replace(demand, layout="pipeline"), devices, link)
        if isinstance(in_a_row, NoPlan):
            return ["with whole layers one after the other it would not fit"]
        return [f"with whole layers one after the other: {in_a_row.prediction.pace:.1f} tok/s"]
    shared = plan(replace(demand, layout="slices"), devices, link) if demand.layout == "auto" else None
    if not isinstance(shared, Plan) or not any(map(is_cut, shared.stages)):
        return []
    share = shared.prediction.exchange_s / shared.prediction.token_s
    rate = f"{shared.prediction.pace:.1f} tok/s"
    return [f"with a part of every layer on each: {rate}, for {100 * share:.0f}% of a token would pass in exchanges"]


def pipeline_of(found: Plan) -> Pipeline:
    """What was planned, as it travels."""
    return Pipeline(tuple(_shards(stage, found.demand.model.n_layers) for stage in found.stages))


def _shards(stage: Stage[ShardPlan], n_layers: int) -> Stage[Shard]:
    first, end = stage.first, stage.end
    return stage.of(
        lambda plan: Shard(plan.device, first, end, first == 0, end == n_layers, plan.memory_bytes, Slice(*plan.slice))
    )


def missing_parts(demand: Demand, devices: Sequence[Device]) -> tuple[Part, ...]:
    """Parts that would have to come from a disk, and are on none."""
    held = frozenset[Part]().union(*(d.held for d in devices))
    needed = all_parts(demand.model.n_layers) if held or demand.from_disks else ()
    return tuple(part for part in needed if part not in held)


def _planned(demand: Demand, search: Search, stage: Stage[Device], link: LinkOf) -> Stage[ShardPlan]:
    first, end = stage.first, stage.end

    def shard(device: Device) -> ShardPlan:
        fetch = search.fetch_bytes(first, end, device)
        return ShardPlan(
            device=device.id,
            name=device.name,
            memory_bytes=_stage_bytes(demand, first, end, device.slice),
            fetch_bytes=fetch,
            fetch_s=fetch / _fetch_rate(device, search, link) if fetch else 0.0,
            slice=device.slice,
            share=demand.model.share_of_layers(first, end, device.slice),
        )

    return stage.of(shard)


def _fetch_rate(device: Device, search: Search, link: LinkOf) -> float:
    """Bytes per second from the best connected device that has anything of the model; infinite where none has."""
    ways = [link(other.id, device.id) for other in search.devices if other.held and other is not device]
    return max((way.bytes_per_s for way in ways if way is not None), default=float("inf"))


def _what_limits(stages: Sequence[Stage[Device]], prediction: Prediction, in_memory: Prediction | None) -> str:
    """The largest part of a token's time, in words."""
    late_s = prediction.token_s - in_memory.token_s if in_memory is not None else 0.0
    if late_s > prediction.token_s / 2:
        share = f"{100 * late_s / prediction.token_s:.0f}% of a token"
        slowest_disk = min((d for stage in stages for d in stage.members), key=lambda device: device.disk_bytes_per_s)
        speed = rate_text(slowest_disk.disk_bytes_per_s)
        return f"reading experts from disk: {share}; {slowest_disk.name} reads {speed}"
    network = sum(prediction.hop_s) + prediction.exchange_s
    slowest, slowest_s = max(zip(stages, prediction.stage_s, strict=True), key=lambda pair: pair[1])
    reading = sum(prediction.stage_s) - prediction.overhead_s - prediction.exchange_s
    shares = {"network": network, "overhead": prediction.overhead_s, "memory": reading}
    worst = max(sorted(shares), key=lambda key: shares[key])
    share = f"{100 * shares[worst] / prediction.token_s:.0f}% of a token"
    if worst == "network":
        what = (
            "goes by while devices exchange sums"
            if prediction.exchange_s > network / 2
            else "passes between the devices"
        )
        return f"the network: {share} {what}"
    if worst == "overhead":
        return f"fixed costs per layer and step: {share}"
    if is_cut(slowest):
        rate = sum(device.read_bytes_per_s for device in slowest.members)
        return f"memory bandwidth: {share} is read by {len(slowest.members)} devices, {rate_text(rate)} together"
    device = slowest.leader
    own = f"{100 * slowest_s / prediction.token_s:.0f}% of a token is spent on {device.name}"
    return f"memory bandwidth: {own}, which reads {rate_text(device.read_bytes_per_s)}"


def _left_out(
    devices: Sequence[Device], search: Search, stages: Sequence[Stage[Device]], link: LinkOf, prediction: Prediction
) -> tuple[LeftOut, ...]:
    taking_part = {device.id for stage in stages for device in stage.members}
    others = sorted((d for d in devices if d.id not in taking_part and not d.excluded), key=lambda d: d.id)
    why = {
        d.id: why_left_out(d, search, stages, link, prediction) if i < MAX_EXPLAINED else NOT_NEEDED
        for i, d in enumerate(others)
    }
    why |= {d.id: d.excluded for d in devices if d.excluded}
    return tuple(LeftOut(d.id, d.name, why[d.id]) for d in sorted(devices, key=lambda d: d.id) if d.id in why)


# --- when it does not fit


def _no_source(demand: Demand, devices: Sequence[Device], missing: tuple[Part, ...]) -> NoPlan:
    shown = ", ".join(part.name for part in missing[:4])
    more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
    is_all = len(missing) == len(all_parts(demand.model.n_layers))
    what = demand.model.name if is_all else f"{shown}{more} of {demand.model.name}"
    reason = f"no device at hand has {what} on its disk"
    return NoPlan(demand, reason, missing_parts=missing, left_out=_excluded(devices))


def _does_not_fit(demand: Demand, devices: Sequence[Device], usable: Sequence[Device], link: LinkOf) -> NoPlan:
    name, left_out = demand.model.name, _excluded(devices)
    if not usable:
        return NoPlan(demand, f"no device at hand may be used for {name}", left_out=left_out)
    on_disk = ""
    if demand.model.has_experts:
        demand = replace(demand, model=demand.model.with_resident_share(RESIDENT_SHARES[-1]))
        on_disk = ", even with its experts on disk"
    match obstacle(demand.model, usable, link, demand.context, demand.sessions):
        case Obstacle.MEMORY:
            missing = _missing_memory(demand, usable)
            context = _context_that_fits(demand, usable, link)
            reason = f"{name} needs {size_text(missing)} more memory than the devices at hand have{on_disk}"
            return NoPlan(demand, reason, missing, context_that_fits=context, left_out=left_out)
        case Obstacle.DISK:
            reason = f"{name} would fit into memory, but the disks have too little room for what must be fetched"
        case Obstacle.LINKS:
            reason = f"{name} would fit, but the devices that could hold it do not reach each other"
        case Obstacle.DISK_AND_LINKS:
            reason = f"{name} would fit, but the devices do not reach each other, and their disks have too little room"
    return NoPlan(demand, reason, left_out=left_out)


def _missing_memory(demand: Demand, usable: Sequence[Device]) -> int:
    """Bytes of the layers that find no place when the largest devices take all they can, one after the other."""
    model = demand.model
    first = 0
    for device in sorted(usable, key=lambda d: (-d.memory_bytes, d.id)):
        end = first
        while end < model.n_layers and _stage_bytes(demand, first, end + 1) <= device.memory_bytes:
            end += 1
        first = end
    return _stage_bytes(demand, first, model.n_layers) if first < model.n_layers else 0


def _stage_bytes(demand: Demand, first: int, end: int, bounds: Bounds = WHOLE) -> int:
    kv = demand.model.sliced(bounds).stage_kv_bytes(first, end, demand.context)
    return demand.model.stage_weight_bytes(first, end, bounds) + demand.sessions * kv


def _context_that_fits(demand: Demand, usable: Sequence[Device], link: LinkOf) -> int:
    """The largest context of those halved from the wanted one; 0 when not even MIN_CONTEXT fits."""
    context = demand.context // 2
    while context >= MIN_CONTEXT:
        smaller = replace(demand, context=context)
        if _missing_memory(smaller, usable) == 0:
            search = Search(demand.model, usable, link, context, demand.sessions)
            if search.best() is not None:
                return context
        context //= 2
    return 0


def _excluded(devices: Sequence[Device]) -> tuple[LeftOut, ...]:
    return tuple(LeftOut(d.id, d.name, d.excluded) for d in sorted(devices, key=lambda d: d.id) if d.excluded)
