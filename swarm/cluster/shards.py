"""The placements that this device serves: offers taken or refused, weights loaded, authors told.

A placement is taken in two steps, so that no device loads gigabytes for a placement that another one refuses: an offer
reserves memory for OFFER_HOLD_S, a commit loads. The author of a placement is the entry node whose sessions it serves;
each author has at most one placement of a model here, and epochs of an author only grow.

Several authors may share weights: they count once. A placement without a running session makes way for one that has.

A slice of each layer is taken only where all such stages here have one leader. It decides alone which of their steps is
next, and has one out at a time, so that no two devices ever wait in different steps for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from swarm import limits
from swarm.cluster.cost import WORTH_LOADING, ModelCost
from swarm.cluster.effects import NEVER, CloseStage, Effect, Load, Log, LookUp, OpenStage, Send, StageId, Unload
from swarm.cluster.memory import ClaimKey, Held, Ledger, PartKey
from swarm.cluster.pipeline import Pipeline, Stage, is_cut
from swarm.cluster.planner import MIN_CONTEXT
from swarm.parts import MTP, Part
from swarm.units import size_text
from swarm.wire.ids import ModelId, PeerId
from swarm.wire.messages import PlacementCommit, PlacementOffer, PlacementReply, ShardReady
from swarm.wire.records import STAGE_SECRET_BYTES, Placement, Shard

LED_ALREADY = "it computes layers together with other devices, which another one leads"


@dataclass(frozen=True, slots=True)
class Claim:
    """A placement that this device takes part in."""

    placement: Placement
    shard: Shard
    parts: frozenset[PartKey]
    first_kv_bytes: int  # room that is kept so that at least one session can open
    expires_at: float  # of an offer without a commit
    resident_share: float = 1.0  # of the experts of its layers that is to be in memory
    ready_at: float = float("inf")  # when its author was told that the weights are in memory

    @property
    def key(self) -> ClaimKey:
        return self.placement.author, self.placement.model

    @property
    def stage(self) -> Stage[Shard]:
        stage = Pipeline.of(self.placement).member_of(self.shard.peer)
        assert stage is not None, "a claim is on a placement that we are part of"
        return stage

    @property
    def stage_id(self) -> StageId | None:
        """The stage whose layers others compute with us; None when they are ours alone."""
        placement = self.placement
        return None if self.shard.slice.whole else StageId(placement.author, placement.epoch, self.shard.layer_start)

    @property
    def holds_mtp(self) -> bool:
        """Whether the block that predicts further tokens is among the parts."""
        return any(part == MTP for _, part in self.parts)

    @property
    def held(self) -> Held:
        return self.shard.layer_start, self.shard.layer_end, self.shard.slice.bounds


class Shards:
    """What this device holds, and for whom."""

    def __init__(self, me: PeerId, ledger: Ledger, slice_port: int = 0) -> None:
        """`slice_port` is where this device listens for the other members of a stage; 0: it takes no slices."""
        self.me = me
        self.ledger = ledger
        self.slice_port = slice_port
        self.models: dict[ModelId, ModelCost] = {}
        self.offers: dict[ClaimKey, Claim] = {}
        self.live: dict[ClaimKey, Claim] = {}
        self.n_changes = 0  # of the placements that are live
        self.loaded: set[PartKey] = set()
        self.newest: dict[ClaimKey, int] = {}  # epochs: older messages of that author are stale
        self.loading: dict[int, set[PartKey]] = {}  # by ticket
        self._next_ticket = 1
        self._unknown: dict[ClaimKey, Placement] = {}  # offers that wait for the model's manifest

    # --- questions

    def ready(self, author: PeerId, model: ModelId, epoch: int) -> Claim | None:
        """The claim of that placement, when its weights are all in memory."""
        claim = self.live.get((author, model))
        return claim if claim and claim.placement.epoch == epoch and claim.parts <= self.loaded else None

    def staged(self, stage: StageId) -> Claim | None:
        """The claim of which that is the stage; None when it is not live."""
        return next((claim for claim in self.live.values() if claim.stage_id == stage), None)

    def stages(self) -> set[StageId]:
        """The stages of several devices that this one is a member of."""
        return {claim.stage_id for claim in self.live.values() if claim.stage_id is not None}

    def serves(self, author: PeerId, model: ModelId, epoch: int) -> bool:
        """True while that placement has not ended or been replaced."""
        claim = self.live.get((author, model))
        return claim is not None and claim.placement.epoch == epoch

    def needed(self) -> set[PartKey]:
        """Weights that some placement needs."""
        return {part for claim in self._claims() for part in claim.parts}

    def neighbours_parts(self, model: ModelId) -> frozenset[Part]:
        """What the next member holds of each stage of several that this device is in, the first one after the last.

        Were that one lost, most of it would fall to those beside it.
        """
        parts: set[Part] = set()
        for claim in self.live.values():
            if claim.stage_id is not None and claim.placement.model == model:
                members = claim.stage.members
                beside = members[(members.index(claim.shard) + 1) % len(members)]
                parts.update(self.models[model].parts(beside.layer_start, beside.layer_end, beside.slice.bounds))
        return frozenset(parts)

    def model_of(self, placement: Placement) -> ModelCost | None:
        """What the model costs that placement; None when it is not known, or its KV cannot be kept as it wants."""
        model = self.models.get(placement.model)
        return model.kept_as(placement.kv) if model is not None else None

    def cost_of(self, claim: Claim) -> ModelCost:
        """What the share of the model costs that this device has of a placement."""
        model = self.model_of(claim.placement)
        assert model is not None, "a claim is on a model that is known"
        return model.sliced(claim.shard.slice.bounds)

    def missing_for_kv(self, n_bytes: int) -> int:
        """Bytes that are missing for so much more KV beside all promised weights and running sessions."""
        return self.ledger.running_bytes() + n_bytes + self._weight_bytes(self._claims()) - self.ledger.total_bytes

    # --- events

    def model_known(self, model: ModelId, cost: ModelCost, now: float) -> list[Effect]:
        """The manifest is here: answer the offers that waited for it."""
        self.models[model] = cost
        waiting = [placement for key, placement in self._unknown.items() if key[1] == model]
        self._unknown = {key: p for key, p in self._unknown.items() if key[1] != model}
        return [effect for placement in waiting for effect in self.offer(PlacementOffer(placement), now)]

    def offer(self, message: PlacementOffer, now: float) -> list[Effect]:
        """An entry node asks us to take a shard."""
        placement = message.placement
        key = (placement.author, placement.model)
        if placement.epoch < self.newest.get(key, 0):
            return []
        if key in self.offers and self.offers[key].placement.epoch == placement.epoch:
            return [self._accept(placement)]  # our first answer was lost
        if placement.model not in self.models:
            return self._wait_for_manifest(key, placement)
        shard = Pipeline.of(placement).shard_of(self.me)
        if shard is None or not self._is_sane(placement, shard):
            return [_refuse(placement, "the offer has no shard that this device can hold")]
        if self.model_of(placement) is None:
            return [_refuse(placement, f"keys and values of this model cannot be kept as {placement.kv}")]
        return self._consider(self._claim(placement, shard, now), now)

    def commit(self, message: PlacementCommit, now: float) -> list[Effect]:
        """All took the placement: ours becomes live, the author's older one of this model ends."""
        placement = message.placement
        key = (placement.author, placement.model)
        if placement.epoch < self.newest.get(key, 0) or placement.model not in self.models:
            return []  # nothing of it can be here: what is not known is not offered
        self.newest[key] = placement.epoch
        if Pipeline.of(placement).shard_of(self.me) is None:
            return self._end(key)
        claim, live = self.offers.pop(key, None), self.live.get(key)
        if live is not None and live.placement.epoch == placement.epoch:
            return [_ready(live)] if live.parts <= self.loaded else []
        if claim is None or claim.placement.epoch != placement.epoch:
            return [_refuse(placement, "the offer was not answered in time")]
        if claim.stage_id is not None and not _says_how_to_meet(message):
            return [_refuse(placement, "the placement came without the ports and the secret of its stages")]
        closed = self._close_stage(live)
        self.live[key] = claim
        self.n_changes += 1
        dropped = [effect for each in self.ledger.outdated(key, claim.held) for effect in self.ledger.drop_kv(each)]
        return [*closed, *dropped, *self._open_stage(claim, message), *self._load_missing(claim, now)]

    def parts_loaded(self, ticket: int, now: float) -> list[Effect]:
        """Weights came into memory."""
        self.loaded |= self.loading.pop(ticket, set())
        return self._tell_ready(now)

    def load_failed(self, ticket: int, text: str) -> list[Effect]:
        """Weights cannot be had: tell the authors that wait for them, and let go."""
        parts = self.loading.pop(ticket, set())
        for part in parts:
            self.ledger.parts.pop(part, None)
        waiting = [claim for claim in self.live.values() if claim.parts & parts]
        ended = [effect for claim in waiting for effect in self._end(claim.key)]
        return ended + [_refuse(claim.placement, text) for claim in waiting]

    def author_gone(self, author: PeerId, *, restarted: bool) -> list[Effect]:
        """Its placements serve nobody now; after a restart its epochs begin anew."""
        if restarted:
            self.newest = {key: epoch for key, epoch in self.newest.items() if key[0] != author}
        self._unknown = {key: placement for key, placement in self._unknown.items() if key[0] != author}
        keys = sorted({claim.key for claim in self._claims() if claim.key[0] == author})
        return [effect for key in keys for effect in self._end(key)]

    def tick(self, now: float) -> None:
        """Offers that nobody committed lose their memory."""
        self.offers = {key: claim for key, claim in self.offers.items() if now < claim.expires_at}

    def timer(self) -> float:
        """When `tick` has something to do next."""
        return min((claim.expires_at for claim in self.offers.values()), default=NEVER)

    def make_way(self, kv_bytes: int, owner: ClaimKey, now: float) -> tuple[list[Effect], int]:
        """End placements that serve nobody until so much KV fits; return what is missing still."""
        ended: list[Effect] = []
        self._put_own_first(owner, now)
        for key in self._resting(owner, now):
            if self.missing_for_kv(kv_bytes) <= 0:
                break
            ended += self._end(key)
        return ended, self.missing_for_kv(kv_bytes)

    def make_room(self, n_bytes: int) -> list[Effect]:
        """Free memory that is only a cache."""
        return self._unloaded(self.ledger.make_room(n_bytes, self.needed()))

    def make_room_beside(self, n_bytes: int) -> list[Effect] | None:
        """Free memory of weights that no placement needs; None, and nothing is freed, when that is not enough."""
        needed = self.needed()
        surplus = sum(size for part, size in self.ledger.parts.items() if part not in needed)
        if n_bytes > self.ledger.free_bytes + surplus:
            return None
        return self._unloaded(self.ledger.unload_surplus(n_bytes, needed))

    def _unloaded(self, effects: list[Effect]) -> list[Effect]:
        self.loaded &= self.ledger.parts.keys()
        for parts in self.loading.values():
            parts.intersection_update(self.ledger.parts)
        return effects

    # --- within

    def _is_sane(self, placement: Placement, shard: Shard) -> bool:
        """Whether a shard is one of the model, and its slice one that makes up the model with those of others."""
        model = self.models[placement.model]
        if not shard.layer_start < shard.layer_end <= model.n_layers:
            return False
        pipeline = Pipeline.of(placement)
        stage = pipeline.member_of(self.me)
        if stage is not None and not is_cut(stage) and shard.slice.whole:
            return True
        return self.slice_port > 0 and not shard.experts and pipeline.is_cut_well(model.cuts)

    def _open_stage(self, claim: Claim, message: PlacementCommit) -> list[Effect]:
        """From now on the other members may call."""
        if claim.stage_id is None:
            return []
        members = tuple(shard.peer for shard in claim.stage.members)
        ports = dict(zip(Pipeline.of(claim.placement).peers, message.ports, strict=True))
        at = tuple(ports[peer] for peer in members)
        return [OpenStage(claim.stage_id, members, at, members.index(self.me), message.secret)]

    @staticmethod
    def _close_stage(claim: Claim | None) -> list[Effect]:
        return [CloseStage(claim.stage_id)] if claim is not None and claim.stage_id is not None else []

    def _led_by_others(self, claim: Claim) -> dict[ClaimKey, PeerId]:
        """Placements with slices here whose stage has another leader than this one's, and who that is."""
        if claim.stage_id is None:
            return {}
        leaders = {c.key: c.stage.leader.peer for c in self._claims() if c.stage_id is not None and c.key != claim.key}
        return {key: leader for key, leader in leaders.items() if leader != claim.stage.leader.peer}

    def _wait_for_manifest(self, key: ClaimKey, placement: Placement) -> list[Effect]:
        """An offer of a model that is not known here waits, with few others of its author."""
        n_waiting = sum(author == key[0] for author, _ in self._unknown)
        if key not in self._unknown and n_waiting >= limits.MAX_UNKNOWN_OFFERS:
            return [_refuse(placement, "too many offers of models that are not known here are waiting")]
        self._unknown[key] = placement
        return [LookUp(placement.model)]

    def _claims(self) -> list[Claim]:
        return [*self.live.values(), *self.offers.values()]

    def _weight_bytes(self, claims: Iterable[Claim]) -> int:
        """Memory of the weights of some claims; what they share counts once."""
        return sum(self._part_bytes(claims).values())

    def _part_bytes(self, claims: Iterable[Claim]) -> dict[PartKey, int]:
        parts: dict[PartKey, int] = {}
        for claim in claims:
            model = self.models[claim.placement.model].with_resident_share(claim.resident_share)
            for key in claim.parts:
                parts[key] = max(parts.get(key, 0), model.part_bytes(key[1]))
        return parts

    def _claim(self, placement: Placement, shard: Shard, now: float) -> Claim:
        model = self.model_of(placement)
        assert model is not None
        first, end, bounds = shard.layer_start, shard.layer_end, shard.slice.bounds
        parts = model.parts(first, end, bounds)
        kv = model.sliced(bounds).stage_kv_bytes(first, end, min(placement.context, MIN_CONTEXT))
        share = _resident_share(model.sliced(bounds), shard, placement.context)
        if placement.mtp and end == model.n_layers and not bounds and share == 1.0:
            parts = (*parts, *model.mtp_parts())
            kv += model.mtp_kv_bytes(min(placement.context, MIN_CONTEXT))
        keys = frozenset((placement.model, part) for part in parts)
        return Claim(placement, shard, keys, kv, now + limits.OFFER_HOLD_S, share)

    def _consider(self, claim: Claim, now: float) -> list[Effect]:
        """Take an offer when there is room, if need be in the place of others.

        Those are offers of authors with a higher id (so of two that ask at once one gets all its devices), then
        placements that serve nobody now.
        """
        self.offers.pop(claim.key, None)
        self._put_own_first(claim.key, now)
        outranked = sorted(key for key in self.offers if key[0] > claim.key[0] or self.me == claim.key[0])
        may_end = [*outranked, *self._resting(claim.key, now)]
        ended: list[Effect] = []
        in_the_way = self._led_by_others(claim)
        if any(key not in may_end for key in in_the_way):
            return [_refuse(claim.placement, LED_ALREADY, led_by=next(iter(in_the_way.values())))]
        for key in sorted(may_end, key=lambda key: key not in in_the_way):
            if key not in in_the_way and self._missing_bytes(claim) <= 0:
                break
            ended += self._end(key)
        missing = self._missing_bytes(claim)
        if missing > 0:
            return [*ended, _refuse(claim.placement, f"{size_text(missing)} of memory are missing there", missing)]
        self.offers[claim.key] = claim
        self.newest[claim.key] = claim.placement.epoch
        return [*ended, self._accept(claim.placement)]

    def _accept(self, placement: Placement) -> Send:
        reply = PlacementReply(placement.model, placement.epoch, True, "", slice_port=self.slice_port)
        return Send(placement.author, reply)

    def _resting(self, but: ClaimKey, now: float) -> list[ClaimKey]:
        """Live placements that serve nobody: loaded for a while, and no answer runs on them.

        For an answer of this device's own any that serves nobody: what others only promise to use does not stop it.
        """
        old = [c.key for c in self.live.values() if now - c.ready_at > limits.CLAIM_GRACE_S or but[0] == self.me]
        return sorted(key for key in old if key != but and not self.ledger.is_serving(key))

    def _put_own_first(self, key: ClaimKey, now: float) -> None:
        """An answer of this device's own does not wait for those of others that stand still."""
        if key[0] == self.me:
            self.ledger.rest_idle(self.me, now - limits.CONTENDED_KV_S)

    def _missing_bytes(self, claim: Claim) -> int:
        """Memory that taking this claim in the place of its author's older one lacks."""
        others = [c for c in self._claims() if c.key != claim.key]
        weights = self._weight_bytes([*others, claim])
        outdated = set(self.ledger.outdated(claim.key, claim.held))
        running = sum(e.n_bytes for s, e in self.ledger.kv.items() if e.running and s not in outdated)
        serving = any(e.running and e.owner == claim.key for s, e in self.ledger.kv.items() if s not in outdated)
        return weights + running + (0 if serving else claim.first_kv_bytes) - self.ledger.total_bytes

    def _load_missing(self, claim: Claim, now: float) -> list[Effect]:
        wanted = self._part_bytes([claim])
        again = self._too_small(claim, wanted)
        missing = sorted(part for part in claim.parts if part not in self.ledger.parts)
        if not missing:
            return self._tell_ready(now)
        n_bytes = sum(wanted[part] for part in missing)
        room = [*again, *self.make_room(n_bytes)]
        if n_bytes > self.ledger.free_bytes:
            return [*room, *self._end(claim.key), _refuse(claim.placement, "the memory was taken in the meantime")]
        for part in missing:
            self.ledger.parts[part] = wanted[part]
        ticket, self._next_ticket = self._next_ticket, self._next_ticket + 1
        self.loading[ticket] = set(missing)
        parts = frozenset(part for _, part in missing)
        return [*room, Load(ticket, claim.placement.model, parts, claim.resident_share)]

    def _too_small(self, claim: Claim, wanted: Mapping[PartKey, int]) -> list[Effect]:
        """Let go of parts that have less of their experts in memory than there is room for now, and serve no other."""
        others = {part for other in self.live.values() if other.key != claim.key for part in other.parts}
        small = {part for part, size in wanted.items() if part not in others and self._is_small(part, size)}
        if not small:
            return []
        for part in small:
            del self.ledger.parts[part]
        self.loaded -= small
        for parts in self.loading.values():
            parts.difference_update(small)
        return [Unload(claim.placement.model, frozenset(part for _, part in small))]

    def _is_small(self, part: PartKey, n_bytes: int) -> bool:
        return part in self.ledger.parts and self.ledger.parts[part] < WORTH_LOADING * n_bytes

    def _tell_ready(self, now: float) -> list[Effect]:
        """Tell the authors of placements that became complete."""
        complete = [c for c in self.live.values() if c.ready_at > now and c.parts <= self.loaded]
        for claim in complete:
            self.live[claim.key] = replace(claim, ready_at=now)
        return [_ready(claim) for claim in complete]

    def _end(self, key: ClaimKey) -> list[Effect]:
        """A placement ends; its weights stay as a cache."""
        live, offer = self.live.pop(key, None), self.offers.pop(key, None)
        self.n_changes += 1
        told = [Log("placement_ended", (("author", key[0]), ("model", key[1])))] if live or offer else []
        return [*self._close_stage(live), *told]


def _resident_share(model: ModelCost, shard: Shard, context: int) -> float:
    """How much of its experts a shard is to have in memory: as much as the planner left room for."""
    first, end = shard.layer_start, shard.layer_end
    whole = model.stage_weight_bytes(first, end) + model.stage_kv_bytes(first, end, context)
    experts = sum(layer.expert_bytes for layer in model.layers[first:end])
    if not shard.memory_bytes or shard.memory_bytes >= whole or not experts:
        return 1.0
    return max(1.0 - (whole - shard.memory_bytes) / experts, 0.0)


def _says_how_to_meet(message: PlacementCommit) -> bool:
    """True when the members of stages can find each other, and prove themselves."""
    ports = message.ports
    return len(message.secret) == STAGE_SECRET_BYTES and len(ports) == len(Pipeline.of(message.placement).peers)


def _refuse(placement: Placement, text: str, missing_bytes: int = 0, led_by: PeerId | None = None) -> Send:
    text = text[: limits.MAX_TEXT_BYTES]
    reply = PlacementReply(placement.model, placement.epoch, False, text, missing_bytes, led_by=led_by)
    return Send(placement.author, reply)


def _ready(claim: Claim) -> Send:
    return Send(claim.placement.author, ShardReady(claim.placement.model, claim.placement.epoch, claim.shard))
