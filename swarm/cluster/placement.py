"""Where this entry node's sessions run: one placement per model, planned, offered, committed, replaced when it breaks.

Who decides? Every entry node for its own sessions; there is no leader, no vote and no quorum. A placement is therefore
known by (author, epoch), and each device alone arbitrates its own memory (shards.py). Why that is enough:

- The only thing that must never fork is a session, and a session has one owner for its whole life (session.py).
- Weights are read-only and chunks are content-addressed: any number of authors may use them at once.
- Memory is decided where it is: a device takes a shard or refuses it, so that two authors cannot overbook it, even from
  two sides of a split network.

A majority would forbid a swarm of two to survive the loss of one; here the side of the split with the entry node goes
on if its devices can hold the model, and else waits. To share weights, an author adopts the layout of another one where
that is nearly as fast as its own best (ADOPT_SLACK); of two that ask at once, the lower id gets all its devices.

A member that does not do its part is left out (conduct.py), and the answer goes on without it at once: on this device
alone where that can hold the model and has it, for its reader has waited enough. The next answer is planned anew.

States of one model's placement (NEXT_STATES is the table):

    IDLE --need--> OFFERING --all took it--> LOADING --all ready--> READY
      ^               | refused                |  a device is lost, or cannot load
      |               v                        v
      +---------- BACKOFF (the devices are busy)      UNFIT (they cannot hold it: something must come back)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from enum import Enum
from random import Random
from typing import Protocol

from swarm import limits
from swarm.cluster.conduct import Conduct
from swarm.cluster.cost import WORTH_LOADING, Device, LinkSpeed, ModelCost
from swarm.cluster.drift import Known, is_like, known_of
from swarm.cluster.effects import NEVER, Effect, Log, LookUp, Send
from swarm.cluster.mtp_room import with_mtp, with_room
from swarm.cluster.pipeline import Pipeline, is_cut
from swarm.cluster.planner import Demand, Layout, NoPlan, Plan, pipeline_of, plan
from swarm.cluster.prediction import Prediction, decode_s
from swarm.plain import one_line
from swarm.units import size_text
from swarm.wire.ids import ModelId, PeerId
from swarm.wire.messages import PlacementCommit, PlacementOffer, PlacementReply, ShardReady
from swarm.wire.records import STAGE_SECRET_BYTES, KvFormat, Placement

KEEP_SLACK = 1.10  # a new layout must be so much faster before the current one is given up
ADOPT_SLACK = 1.25  # another author's layout may be so much slower than our best: sharing saves memory and loading


class World(Protocol):
    """What the placer sees of the swarm."""

    def devices(self, model: ModelId, now: float) -> list[Device]:
        """All devices that are there, ourselves too; with `excluded` set where one may not be used."""

    def link(self, a: PeerId, b: PeerId) -> LinkSpeed | None:
        """The link from a to b; None when there is none."""

    def doubts(self, peer: PeerId, now: float) -> str:
        """Why a device is only to be used where nothing fits without it; empty when it is as good as any."""

    def rests(self, peer: PeerId) -> str:
        """Why a device would rather not take part just now (heat, battery, its user); empty when it does gladly."""

    def others(self) -> list[PeerId]:
        """All living peers but ourselves."""

    def name_of(self, peer: PeerId) -> str:
        """What a person calls that device."""


class State(Enum):
    """Of one model's placement."""

    IDLE = "idle"
    OFFERING = "offering"
    LOADING = "loading"
    READY = "ready"
    BACKOFF = "backoff"
    UNFIT = "unfit"


_PLANNED = frozenset({State.IDLE, State.OFFERING, State.BACKOFF, State.UNFIT})  # where a new plan leads, whatever was
NEXT_STATES: Mapping[State, frozenset[State]] = {
    State.IDLE: _PLANNED,
    State.OFFERING: _PLANNED | {State.LOADING},
    State.LOADING: _PLANNED | {State.READY},
    State.READY: _PLANNED,
    State.BACKOFF: _PLANNED,
    State.UNFIT: _PLANNED,
}


@dataclass(slots=True)
class Placing:
    """The placing of one model, for the sessions of this entry node."""

    model: ModelId
    context: int
    state: State = State.IDLE
    placement: Placement | None = None
    plan: Plan | None = None
    took: set[PeerId] = field(default_factory=set)  # peers that accepted, then peers that are ready
    ports: dict[PeerId, int] = field(default_factory=dict)  # where those that accepted listen for their stage
    secret: bytes = b""  # of the stages of several devices; empty where there are none
    asked_at: float = 0.0
    sent_at: float = 0.0
    retry_at: float = 0.0
    judge_at: float = 0.0  # when those that are not ready are looked at
    failures: int = 0  # of members, since the last token
    attempts: int = 0  # to place it, since the last token
    trouble: str = ""  # what went wrong last, for the reader
    no_plan: NoPlan | None = None
    wanted: bool = False  # a session waits for it
    uses_mtp: bool = False  # the block was wanted when it was offered last
    planned_for: Known = field(default_factory=dict)  # the devices that the last plan knew

    @property
    def pipeline(self) -> Pipeline:
        return Pipeline.of(self.placement)

    @property
    def peers(self) -> tuple[PeerId, ...]:
        return self.pipeline.peers


class Placer:
    """The placings of all models that sessions of this node need."""

    def __init__(
        self,
        me: PeerId,
        world: World,
        rng: Random,
        *,
        first_epoch: int,
        kv: KvFormat = "f16",
        layout: Layout = "auto",
    ) -> None:
        """`kv` is how the sessions of these placements keep keys and values, on every stage."""
        self.me = me
        self.kv = kv
        self.layout = layout
        self.world = world
        self.rng = rng
        self.epoch = first_epoch
        self.models: dict[ModelId, ModelCost] = {}
        self.placings: dict[ModelId, Placing] = {}
        self.seen: dict[tuple[PeerId, ModelId], Placement] = {}  # committed by other authors
        self.led: dict[PeerId, tuple[PeerId, float]] = {}  # who said by whom it is led, and until when that is believed
        self.conduct = Conduct(me)
        self.uses_mtp = False  # the model's own block is to guess, where a last stage has room for it
        self.n_changes = 0  # of states: the sessions follow

    def next_epoch(self) -> int:
        """Epochs of this node's placements and sessions come from one counter: they only grow."""
        self.epoch += 1
        return self.epoch

    # --- what sessions ask

    def ready(self, model: ModelId) -> Placement | None:
        """The placement that sessions may open on now."""
        placing = self.placings.get(model)
        return placing.placement if placing is not None and placing.state is State.READY else None

    def need(self, model: ModelId, context: int, now: float) -> list[Effect]:
        """A session of that model starts, or waits: see that there is a placement with room for `context` tokens."""
        placing = self.placings.setdefault(model, Placing(model, context))
        placing.wanted = True
        if model not in self.models:
            return [LookUp(model)]
        if context > placing.context:
            placing.context = context
            return self._replan(placing, now)
        if placing.state in (State.IDLE, State.UNFIT):
            return self._replan(placing, now)
        return []

    def rest(self, model: ModelId) -> None:
        """No session needs the placement now: it stays while it holds, and is not renewed when it breaks."""
        if model in self.placings:
            self.placings[model].wanted = False

    def refresh(self, model: ModelId, now: float) -> list[Effect]:
        """Between answers: use devices that came since, where that is faster."""
        placing = self.placings.get(model)
        if placing is None or placing.state is not State.READY:
            return []
        if placing.uses_mtp != self.uses_mtp and self.models[model].mtp is not None:
            return self._broke(placing, now)
        return [] if is_like(placing.planned_for, self._known(model, now)) else self._replan(placing, now)

    def failed(self, peers: AbstractSet[PeerId], why: str, now: float) -> list[Effect]:
        """Devices did not do their part, in whatever way: they are left out, and what they took part in is made anew.

        `why` is a verb and what follows, for the reader: "does not answer".
        """
        broken = [placing for placing in self.placings.values() if not peers.isdisjoint(placing.peers)]
        effects: list[Effect] = []
        for peer in sorted(peers):
            effects += self._count(peer, self.conduct.failed(peer, why, now), why)
        return effects + [effect for placing in broken for effect in self._broke(placing, now)]

    def falsified(self, peers: AbstractSet[PeerId], why: str, now: float) -> list[Effect]:
        """One of these computed something else than the model says: as `failed`, but for longer."""
        broken = [placing for placing in self.placings.values() if not peers.isdisjoint(placing.peers)]
        left_out = self.conduct.falsified(peers, why, now)
        effects = [effect for peer, seconds in left_out.items() for effect in self._count(peer, seconds, why)]
        return effects + [effect for placing in broken for effect in self._broke(placing, now)]

    def can_do_without(self, model: ModelId, peers: AbstractSet[PeerId], now: float) -> bool:
        """True when an answer can begin at once on devices that have not disappointed, these left out."""
        placing = self.placings[model]
        devices = [device for device in self._devices(model, now, strict=True) if device.id not in peers]
        if self._alone(placing, devices) is not None:
            return True
        found = plan(self._demand(placing), devices, self.world.link)
        if isinstance(found, NoPlan):
            return False
        return not any(share.fetch_bytes for stage in found.stages for share in stage.members)

    @property
    def waits_for_weights(self) -> bool:
        """A session waits for a placement whose weights are being loaded."""
        return any(placing.state is State.LOADING and placing.wanted for placing in self.placings.values())

    def awaited(self, model: ModelId) -> set[PeerId]:
        """The other devices that a placement waits for, while it waits for nothing of this one."""
        placing = self.placings[model]
        if placing.state not in (State.OFFERING, State.LOADING):
            return set()
        missing = set(placing.peers) - placing.took
        return missing if self.me not in missing else set()

    def predicted(self, model: ModelId) -> Prediction | None:
        """What was promised of the placement that there is; None when there is none."""
        placing = self.placings.get(model)
        return placing.plan.prediction if placing is not None and placing.plan is not None else None

    def progressed(self, model: ModelId) -> None:
        """A token came: what went wrong before is over."""
        placing = self.placings.get(model)
        if placing is not None:
            placing.failures, placing.attempts, placing.trouble = 0, 0, ""

    def renew(self, model: ModelId, now: float) -> list[Effect]:
        """The placement turned out to be gone: make a new one."""
        placing = self.placings.get(model)
        return self._broke(placing, now) if placing is not None else []

    # --- events

    def model_known(self, model: ModelId, cost: ModelCost, now: float) -> list[Effect]:
        self.models[model] = cost.kept_as(self.kv) or cost  # who asks for a session sees to it that they can be
        placing = self.placings.get(model)
        return (
            self._replan(placing, now) if placing is not None and placing.state is State.IDLE and placing.wanted else []
        )

    def devices_changed(self, now: float) -> list[Effect]:
        """A device came, changed, or holds more than before: what did not fit may fit now."""
        waiting = [placing for placing in self.placings.values() if placing.state is State.UNFIT and placing.wanted]
        effects = [effect for placing in waiting for effect in self._replan(placing, now)] + self._check_links(now)
        return effects + self._let_rest(now)

    def peer_lost(self, peer: PeerId, now: float) -> list[Effect]:
        self.seen = {key: placement for key, placement in self.seen.items() if key[0] != peer}
        broken = [placing for placing in self.placings.values() if peer in placing.peers]
        return [effect for placing in broken for effect in self._broke(placing, now)]

    def reply(self, sender: PeerId, message: PlacementReply, now: float) -> list[Effect]:
        """A device takes its shard, or does not."""
        placing = self._current(message.model, message.epoch)
        if placing is None or sender not in placing.peers:
            return []
        if not message.accepted:
            return self._refused(placing, sender, message, now)
        if placing.state is not State.OFFERING:
            return []
        placing.took.add(sender)
        placing.ports[sender] = message.slice_port
        return self._commit(placing, now) if placing.took >= set(placing.peers) else []

    def shard_ready(self, sender: PeerId, message: ShardReady) -> list[Effect]:
        placing = self._current(message.model, message.epoch)
        if placing is None or placing.state is not State.LOADING or sender not in placing.peers:
            return []
        placing.took.add(sender)
        if placing.took >= set(placing.peers):
            self._enter(placing, State.READY)
            return [Log("placement_ready", (("model", placing.model), ("epoch", message.epoch)))]
        return []

    def commit_seen(self, message: PlacementCommit) -> None:
        """Another author's placement: it may be worth adopting."""
        placement = message.placement
        key = (placement.author, placement.model)
        old = self.seen.get(key)
        if old is None or old.epoch < placement.epoch:
            self.seen[key] = placement
        if len(self.seen) > limits.MAX_PEERS:
            del self.seen[next(iter(self.seen))]

    def tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for placing in self.placings.values():
            if placing.state is State.OFFERING:
                effects += self._await_answers(placing, now)
            elif placing.state is State.LOADING:
                effects += self._await_ready(placing, now)
            elif placing.state is State.BACKOFF and now >= placing.retry_at and placing.wanted:
                effects += self._replan(placing, now)
        return effects

    def timer(self) -> float:
        """When `tick` has something to do next."""
        return min((_due(placing) for placing in self.placings.values()), default=NEVER)

    # --- within

    def _enter(self, placing: Placing, state: State) -> None:
        was = placing.state.value
        assert state in NEXT_STATES[placing.state], f"a placement that is {was} cannot become {state.value}"
        placing.state = state
        self.n_changes += 1

    def _current(self, model: ModelId, epoch: int) -> Placing | None:
        placing = self.placings.get(model)
        placement = placing.placement if placing is not None else None
        return placing if placement is not None and placement.epoch == epoch else None

    def _broke(self, placing: Placing, now: float) -> list[Effect]:
        self._enter(placing, State.IDLE)
        placing.placement = None
        return self._replan(placing, now) if placing.wanted else []

    def _check_links(self, now: float) -> list[Effect]:
        """Devices of a ring that do not reach each other any more (we may still reach both) break it."""
        broken = [
            placing
            for placing in self.placings.values()
            if placing.placement is not None and not self._is_connected(placing.pipeline)
        ]
        return [effect for placing in broken for effect in self._broke(placing, now)]

    def _let_rest(self, now: float) -> list[Effect]:
        """An answer goes on without the devices that want to rest, where the others can hold the model."""
        effects: list[Effect] = []
        for placing in self.placings.values():
            if placing.state is not State.READY or not placing.wanted or not any(map(self.world.rests, placing.peers)):
                continue
            there = self._known(placing.model, now)
            if not is_like(placing.planned_for, there):
                placing.planned_for = there
                devices = self._devices(placing.model, now, strict=True)
                if isinstance(plan(self._demand(placing), devices, self.world.link), Plan):
                    effects += self._replan(placing, now)
        return effects

    def _is_connected(self, pipeline: Pipeline) -> bool:
        mine = all(self.world.link(self.me, peer) is not None for peer in pipeline.peers if peer != self.me)
        return mine and all(self.world.link(a, b) is not None for a, b in pipeline.links())

    def _devices(self, model: ModelId, now: float, *, strict: bool, resting: bool = False) -> list[Device]:
        """The devices to plan with; `strict` leaves out and shrinks those that disappointed us lately.

        Strict, it leaves out those that rest, too, but for `resting`.
        """
        led_by = self._led_by(model, now)
        believed = (self.conduct.believed(device, now) for device in self.world.devices(model, now))
        devices = [replace(device, led_by=led_by.get(device.id)) for device in believed]
        if not strict:
            return devices
        trusted = [self._left_out(device, now) for device in devices]
        if resting:
            return trusted
        return [replace(d, excluded=d.excluded or self.world.rests(d.id)) for d in trusted]

    def _left_out(self, device: Device, now: float) -> Device:
        why = self.conduct.why_left_out(device.id, now) or self.world.doubts(device.id, now)
        memory = self.conduct.memory_bytes(device, now)
        return replace(device, memory_bytes=memory, excluded=device.excluded or why)

    def _alone(self, placing: Placing, devices: Sequence[Device]) -> Plan | None:
        """The plan that needs nobody else, where this device can hold the model and has all of it."""
        found = plan(self._demand(placing), [device for device in devices if device.id == self.me], self.world.link)
        return found if isinstance(found, Plan) else None

    def _demand(self, placing: Placing) -> Demand:
        return Demand(self.models[placing.model], placing.context, from_disks=True, layout=self.layout)

    def _known(self, model: ModelId, now: float) -> Known:
        """What a plan is made for: who is there, and what each can do."""
        devices = self._devices(model, now, strict=True)
        return known_of(devices, self.world.link, self.layout)

    def _replan(self, placing: Placing, now: float) -> list[Effect]:
        demand = self._demand(placing)
        devices = self._devices(placing.model, now, strict=True)
        is_hard = placing.attempts >= limits.MAX_QUICK_PLANS
        own_plan = self._alone(placing, devices) if placing.failures or is_hard else None
        if is_hard and own_plan is None and placing.state is State.IDLE and placing.trouble:
            return self._back_off(placing, now)
        placing.planned_for = self._known(placing.model, now) if own_plan is None else {}  # between answers: anew
        result = own_plan or plan(demand, devices, self.world.link)
        if self.uses_mtp and isinstance(result, Plan) and own_plan is None:
            result = with_room(demand, result, devices, self.world.link)
        if isinstance(result, NoPlan) and any(self.world.rests(device.id) for device in devices):
            devices = self._devices(placing.model, now, strict=True, resting=True)
            result = plan(demand, devices, self.world.link)
        if isinstance(result, NoPlan):
            devices = self._devices(placing.model, now, strict=False)
            result = plan(demand, devices, self.world.link)
            if isinstance(result, NoPlan):
                self._enter(placing, State.UNFIT)
                placing.no_plan, placing.placement = result, None
                return [Log("does_not_fit", (("model", placing.model), ("missing_bytes", result.missing_bytes)))]
            if placing.state is not State.BACKOFF:
                return self._back_off(placing, now)
        pipeline = pipeline_of(result) if own_plan else self._choose(placing, result.demand, devices, result)
        ready = placing.placement if placing.state is State.READY else None
        holds = ready is None or not ready.mtp or self._with_mtp(placing, pipeline, now) is not None
        if ready is not None and pipeline == placing.pipeline and holds:
            return []
        return self._offer(placing, result, pipeline, now)

    def _choose(self, placing: Placing, demand: Demand, devices: Sequence[Device], best: Plan) -> Pipeline:
        """Our best layout, or one that is in use already and nearly as fast: ours first, then the lowest author's."""
        others = [p for key, p in sorted(self.seen.items()) if key[1] == placing.model and placing.attempts % 2 == 0]
        mine = [placing.placement] if placing.placement is not None else []
        for placement, slack in [(p, KEEP_SLACK) for p in mine] + [(p, ADOPT_SLACK) for p in others]:
            pipeline = Pipeline.of(placement)
            seconds = self._token_s(demand, devices, pipeline)
            if seconds is not None and seconds <= slack * best.prediction.token_s:
                return pipeline
        return pipeline_of(best)

    def _token_s(self, demand: Demand, devices: Sequence[Device], pipeline: Pipeline) -> float | None:
        """The predicted time per token of a layout; None when it cannot be used."""
        by_id = {device.id: device for device in devices if not device.excluded}
        if any(peer not in by_id for peer in pipeline.peers):
            return None
        if not pipeline.covers(demand.model.n_layers) or not self._is_connected(pipeline):
            return None
        if not self._may_be_cut(demand, by_id, pipeline):
            return None
        stages = [
            stage.of(lambda shard: replace(by_id[shard.peer], slice=shard.slice.bounds)) for stage in pipeline.stages
        ]
        for stage, layout in zip(stages, pipeline.stages, strict=True):
            for device, shard in zip(stage.members, layout.members, strict=True):
                kv = demand.model.sliced(device.slice).stage_kv_bytes(stage.first, stage.end, demand.context)
                need = demand.model.stage_weight_bytes(stage.first, stage.end, device.slice) + kv
                if 0 < shard.memory_bytes < WORTH_LOADING * need and demand.model.has_experts:
                    return None  # planned when there was room for less of its experts
                if need > device.memory_bytes:
                    return None
        return decode_s(demand.model, stages, self.world.link, demand.context)

    def _may_be_cut(self, demand: Demand, by_id: Mapping[PeerId, Device], pipeline: Pipeline) -> bool:
        """True when the slices of a layout make up the model, and its devices can share layers with that leader."""
        if not pipeline.is_cut_well(demand.model.cuts):  # others' layouts too come here: no slice counts before this
            return False
        if demand.layout == ("pipeline" if any(map(is_cut, pipeline.stages)) else "slices"):
            return False
        return all(
            by_id[shard.peer].slices and by_id[shard.peer].led_by in (None, stage.leader.peer)
            for stage in pipeline.stages
            if is_cut(stage)
            for shard in stage.members
        )

    def _led_by(self, but: ModelId, now: float) -> dict[PeerId, PeerId]:
        """Who leads the stages of several devices that are in use, by their members."""
        own = [p.placement for p in self.placings.values() if p.placement is not None and p.model != but]
        stages = [stage for placement in (*self.seen.values(), *own) for stage in Pipeline.of(placement).stages]
        seen = {shard.peer: stage.leader.peer for stage in stages if is_cut(stage) for shard in stage.members}
        return seen | {peer: leader for peer, (leader, until) in self.led.items() if now < until}

    def _offer(self, placing: Placing, best: Plan, pipeline: Pipeline, now: float) -> list[Effect]:
        placing.uses_mtp = self.uses_mtp
        more = self._with_mtp(placing, pipeline, now) if self.uses_mtp else None
        shards, epoch = (more or pipeline).shards, self.next_epoch()
        placing.placement = Placement(
            placing.model, epoch, self.me, placing.context, self.kv, shards, mtp=more is not None
        )
        self._enter(placing, State.OFFERING)
        self.conduct.planned(pipeline.peers)
        placing.attempts, placing.judge_at = placing.attempts + 1, now + limits.OFFER_TIMEOUT_S
        placing.plan, placing.no_plan, placing.took, placing.asked_at = best, None, set(), now
        placing.ports, placing.secret = {}, b""
        return self._send(placing, PlacementOffer(placing.placement), now)

    def _with_mtp(self, placing: Placing, pipeline: Pipeline, now: float) -> Pipeline | None:
        devices = self._devices(placing.model, now, strict=True, resting=True)
        return with_mtp(pipeline, self.models[placing.model], devices, placing.context)

    def _send(self, placing: Placing, message: PlacementOffer | PlacementCommit, now: float) -> list[Effect]:
        """To every device of the placement that has not answered yet."""
        placing.sent_at = now
        return [Send(peer, message) for peer in placing.peers if peer not in placing.took]

    def _commit(self, placing: Placing, now: float) -> list[Effect]:
        """Everybody hears of it: members load, others let go of our older one and know what is in use."""
        assert placing.placement is not None
        self._enter(placing, State.LOADING)
        placing.took, placing.asked_at, placing.sent_at = set(), now, now
        placing.judge_at = now + limits.LOAD_PATIENCE_S
        if any(map(is_cut, placing.pipeline.stages)):
            placing.secret = self.rng.randbytes(STAGE_SECRET_BYTES)
        others = dict.fromkeys(peer for peer in (self.me, *self.world.others()) if peer not in placing.peers)
        told = [Send(peer, PlacementCommit(placing.placement)) for peer in others]
        return [*self._send(placing, self._committed(placing), now), *told]

    @staticmethod
    def _committed(placing: Placing) -> PlacementCommit:
        """What members are told; nobody else gets the secret."""
        assert placing.placement is not None
        ports = tuple(placing.ports[peer] for peer in placing.peers) if placing.secret else ()
        return PlacementCommit(placing.placement, placing.secret, ports)

    def _await_answers(self, placing: Placing, now: float) -> list[Effect]:
        waited_s = now - placing.asked_at
        if now >= placing.judge_at:
            placing.judge_at = now + limits.JUDGE_EVERY_S
            silent = set(placing.peers) - placing.took - {self.me}
            if not silent:
                return self._replan(placing, now)
            # A device that has not heard of the model gets to know it first; who can be done without is not waited for.
            if waited_s >= limits.OFFER_MAX_S or self.can_do_without(placing.model, silent, now):
                return self.failed(silent, "does not answer", now)
        if now < placing.sent_at + limits.OFFER_RETRY_S or placing.placement is None:
            return []
        return self._send(placing, PlacementOffer(placing.placement), now)

    def _await_ready(self, placing: Placing, now: float) -> list[Effect]:
        """Loading may take long where a model is fetched first; who can be done without is not waited for."""
        waited_s = now - placing.asked_at
        if now >= placing.judge_at:
            placing.judge_at = now + max(limits.JUDGE_EVERY_S, waited_s / 2)
            late = self.awaited(placing.model)
            if late and (waited_s >= limits.LOAD_MAX_S or self.can_do_without(placing.model, late, now)):
                return self.failed(late, "is not ready in time", now)
        if now < placing.sent_at + limits.OFFER_TIMEOUT_S:
            return []
        return self._send(placing, self._committed(placing), now)

    def _refused(self, placing: Placing, sender: PeerId, message: PlacementReply, now: float) -> list[Effect]:
        if message.led_by is not None and placing.attempts % limits.MAX_QUICK_PLANS:
            # Nobody's fault: two that plan at once cannot know. The next plan does.
            self.led[sender] = message.led_by, now + limits.LED_BELIEVED_S
            while len(self.led) > limits.MAX_PEERS:
                del self.led[next(iter(self.led))]
            placing.placement = None
            return self._replan(placing, now)
        if message.missing_bytes:
            why = f"says that {size_text(message.missing_bytes)} of memory are missing there"
            shard = placing.pipeline.shard_of(sender)
            memory = max(shard.memory_bytes - message.missing_bytes, 0) if shard else 0
            seconds = self.conduct.lacked(sender, memory, why, now)
        else:
            why = f"does not take its part of the model: {one_line(message.text)}"
            seconds = self.conduct.failed(sender, why, now)
        effects = self._count(sender, seconds, why)
        placing.placement = None
        again = self._back_off if placing.attempts % limits.MAX_QUICK_PLANS == 0 else self._replan
        return effects + again(placing, now)

    def _count(self, peer: PeerId, left_out_s: float, why: str) -> list[Effect]:
        """What a failure means for the placements that the device takes part in; it is told once."""
        name = self.world.name_of(peer)
        for placing in self.placings.values():
            if peer in placing.peers:
                placing.trouble = f"{name} {why}"
                placing.failures += bool(left_out_s)
        told = (("name", name), ("why", why), ("for_s", round(left_out_s)))
        return [Log("left_out", told)] if left_out_s else []

    def _back_off(self, placing: Placing, now: float) -> list[Effect]:
        """It would fit if devices were not busy: try again, not all at the same moment."""
        wait = min(limits.REPLAN_S * 2 ** min(placing.attempts // 2, 8), limits.REPLAN_MAX_S)
        self._enter(placing, State.BACKOFF)
        placing.placement = None
        placing.retry_at = now + wait * (0.5 + self.rng.random())
        return [Log("placement_waits", (("model", placing.model), ("why", placing.trouble)))]


def _due(placing: Placing) -> float:
    """When time alone moves this placement on."""
    if placing.state is State.OFFERING:
        return min(placing.judge_at, placing.sent_at + limits.OFFER_RETRY_S)
    if placing.state is State.LOADING:
        return min(placing.sent_at + limits.OFFER_TIMEOUT_S, placing.judge_at)
    return placing.retry_at if placing.state is State.BACKOFF and placing.wanted else NEVER
