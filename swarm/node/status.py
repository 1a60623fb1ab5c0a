"""What `swarm status` shows: this node's view, and what its peers say about themselves."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import zip_longest

import msgspec

import swarm
from swarm import limits
from swarm.cluster.copies import lost_with
from swarm.cluster.core import Core
from swarm.cluster.cost import ModelCost
from swarm.net.links import PeerInfo
from swarm.net.transport import Transport
from swarm.node.compute import ComputeWorker
from swarm.node.driver import Driver
from swarm.node.event_log import EventLog
from swarm.node.holdings import Holdings
from swarm.node.library import Entry
from swarm.node.meters import Meters
from swarm.node.outbox import Outbox
from swarm.node.peers import Peers
from swarm.node.provide import Provider
from swarm.node.routes import Routes
from swarm.wire.ids import ModelId, PeerId
from swarm.wire.messages import StatusReply, StatusRequest
from swarm.wire.records import ModelHolding, NodeState, SessionState, Shard

Json = dict[str, object]


class StatusReports:
    """Reports of this device for others, and of all of them for the command line; on the loop."""

    def __init__(
        self,
        driver: Driver,
        *,
        transport: Transport,
        outbox: Outbox,
        holdings: Holdings,
        worker: ComputeWorker,
        meters: Meters,
        provider: Provider,
        peers: Peers,
        events: EventLog,
        beat_s: Callable[[], float],
        is_active: Callable[[], bool],
        temperature_c: Callable[[], float | None],
    ) -> None:
        """`beat_s`: between two heartbeats; `is_active`: this device has something to do itself.

        `temperature_c`: of its processor, where the machine tells it.
        """
        self._driver = driver
        self._transport = transport
        self._outbox = outbox
        self._holdings = holdings
        self._worker = worker
        self._meters = meters
        self._provider = provider
        self._peers = peers
        self._events = events
        self._beat_s = beat_s
        self._is_active = is_active
        self._temperature_c = temperature_c
        self._started_at = time.time()
        self._replies: dict[int, dict[PeerId, StatusReply]] = {}
        self._changed = asyncio.Event()
        self._next_request = 1

    # --- peers ask, peers answer

    def take_messages(self, routes: Routes) -> None:
        """Questions of peers, and their answers."""
        routes.take(StatusRequest, self.answer_request)
        routes.take(StatusReply, self.take_reply)

    def answer_request(self, peer: PeerId, message: StatusRequest) -> None:
        """Tell a peer about this device."""
        self._outbox.send(peer, self.reply(message.request))

    def take_reply(self, peer: PeerId, message: StatusReply) -> None:
        """A peer told about itself."""
        if message.request in self._replies:
            self._replies[message.request][peer] = message
            self._changed.set()

    def reply(self, request: int) -> StatusReply:
        """This device as it tells others."""
        state, models = self.state(), self._holdings.catalog().models
        return self._driver.read(lambda core: self._reply(core, request, state, models))

    def state(self) -> NodeState:
        """What our heartbeats say."""
        done, wanted = self._holdings.library.fetcher.progress()
        fetching = done / wanted if wanted else 1.0
        meters, now = self._meters, self._driver.now
        state = self._driver.read(lambda core: core.state(now, meters.busy, meters.tokens_per_s, fetching))
        beat_s = self._beat_s()
        quick = state.quick and beat_s <= limits.HEARTBEAT_INTERVAL_S
        return msgspec.structs.replace(state, beat_s=beat_s, active=self._is_active(), quick=quick)

    # --- for the command line

    async def collect(self, patience_s: float = 1.0) -> Json:
        """The whole swarm as JSON; a device that does not answer in time is shown as last heard."""
        replies = await self._ask_all(patience_s)
        links = {info.peer: info for info in self._transport.peers()}
        now, worker = self._driver.now, self._worker
        ours = _row(self._transport.me.peer, "here", self.reply(0), self._driver.read(lambda core: core.shards.models))
        others, chats, dropped = self._driver.read(
            lambda core: (_others(core, replies, links, now), _chats(core), dict(core.stage_sessions.dropped))
        )
        return {
            "software": swarm.__version__,
            "name": self._transport.me.name,
            "peer": self._transport.me.peer,
            "uptime_s": int(time.time() - self._started_at),
            "devices": [ours, *others],
            "models": [self._model(entry) for entry in self._holdings.library.entries()],
            "chats": chats,
            "events": [{"at": at, "event": event, **fields} for at, event, fields in list(self._events.entries)[-20:]],
            "discovery": self._peers.problem,
            "other_swarms": list(self._peers.of_others.values()),
            "fetched_bytes": self._holdings.library.fetcher.bytes_fetched,
            "given_bytes": self._provider.bytes_given,
            "computed": {
                "seconds": worker.busy_s,
                "positions": worker.positions,
                "exchanges": worker.n_exchanges,
                "decode_step_s": statistics.median(list(worker.decode_steps) or [0.0]),
            },
            "experts": asdict(experts) if (experts := worker.experts()) is not None else None,
            "dropped": dropped,
        }

    # --- within

    def _model(self, entry: Entry) -> Json:
        """A model of the swarm, and the devices without which it is not whole any more; null when it is not known."""
        known_model = self._holdings.library.known.get(entry.id)
        lost = None
        if known_model is not None:
            devices = self._driver.read(lambda core: core.devices(entry.id, self._driver.now))
            lost = lost_with(devices, known_model.all_parts)
        return {**asdict(entry), "lost_with": [device.name for device in lost] if lost is not None else None}

    def _reply(self, core: Core, request: int, state: NodeState, models: tuple[ModelHolding, ...]) -> StatusReply:
        shards = _shards(core)
        return StatusReply(
            request=request,
            name=self._transport.me.name,
            software=swarm.__version__,
            uptime_s=int(time.time() - self._started_at),
            state=state,
            capabilities=core.capabilities,
            shards=tuple(shards.values()),
            links=core.members.measured_links(),
            models=models,
            sessions=_sessions(core),
            shard_models=tuple(model for model, _ in shards),
            temperature_c=min(max(self._temperature_c() or 0.0, 0.0), limits.MAX_CELSIUS),
        )

    async def _ask_all(self, patience_s: float) -> dict[PeerId, StatusReply]:
        request, self._next_request = self._next_request, self._next_request % (2**31 - 1) + 1
        replies = self._replies[request] = {}
        others = self._driver.read(lambda core: core.others())
        asked = [peer for peer in others if self._outbox.send(peer, StatusRequest(request))]
        try:
            async with asyncio.timeout(patience_s):
                while len(replies) < len(asked):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        finally:
            del self._replies[request]
        return replies


def _sessions(core: Core) -> tuple[SessionState, ...]:
    """The sessions whose keys and values are here."""
    kv = core.ledger.kv
    sessions = [
        SessionState(key, stage.done, kv[key].n_bytes)
        for key, stage in core.stage_sessions.sessions.items()
        if key in kv
    ]
    return tuple(sessions[: limits.MAX_SESSIONS_SHOWN])


def _shards(core: Core) -> dict[tuple[ModelId, Shard], Shard]:
    """What this device holds for answers, each once."""
    shards = {(claim.placement.model, claim.shard): claim.shard for claim in core.shards.live.values()}
    return dict(list(shards.items())[: limits.MAX_MODELS])


def _others(core: Core, replies: dict[PeerId, StatusReply], links: dict[PeerId, PeerInfo], now: float) -> list[Json]:
    rows = []
    for peer in core.members.peers.values():
        reply, info = replies.get(peer.id), links.get(peer.id)
        row = _row(peer.id, str(peer.health), reply, core.shards.models)
        if reply is None:
            row |= {"state": msgspec.structs.asdict(peer.state), "shards": [], "capabilities": None}
        row |= {
            "name": peer.name,
            "rtt_s": peer.rtt_s,
            "lost_why": peer.lost_why,
            "address": str(info.address) if info is not None else "",
            "clock_offset_s": info.wall_offset_s if info is not None else None,
            "link_bytes_per_s": peer.bytes_per_s,
            "exchange_s": peer.exchange.wait_s if peer.exchange is not None else None,
            "excluded": core.members.why_unusable(peer.id, now),
        }
        rows.append(row)
    return rows


def _row(peer: PeerId, health: str, reply: StatusReply | None, models: Mapping[ModelId, ModelCost]) -> Json:
    """A device, by what it says of itself."""
    row: Json = {"peer": peer, "health": health, "rtt_s": 0.0, "lost_why": ""}
    if reply is None:
        return row
    return {
        **row,
        "name": reply.name,
        "software": reply.software,
        "uptime_s": reply.uptime_s,
        "state": msgspec.structs.asdict(reply.state),
        "temperature_c": reply.temperature_c or None,
        "capabilities": msgspec.structs.asdict(reply.capabilities) if reply.capabilities is not None else None,
        # An older node does not say of which models.
        "shards": [
            _shard(shard, model, models.get(model) if model else None)
            for shard, model in zip_longest(reply.shards, reply.shard_models[: len(reply.shards)])
        ],
        "models": [msgspec.structs.asdict(holding) for holding in reply.models],
        "sessions": [msgspec.structs.asdict(session) for session in reply.sessions],
        "links": [msgspec.structs.asdict(link) for link in reply.links],
    }


def _shard(shard: Shard, model: ModelId | None, cost: ModelCost | None) -> Json:
    """`share`: of each layer; null for a slice of a model that is not known here."""
    bounds = shard.slice.bounds
    share = None if bounds else 1.0
    if bounds and cost is not None and cost.cuts is not None and cost.cuts.has(bounds):
        share = cost.share_of_layers(shard.layer_start, shard.layer_end, bounds)
    return {
        "model": model or "",
        "first": shard.layer_start,
        "end": shard.layer_end,
        "embed": shard.embed,
        "head": shard.head,
        "memory_bytes": shard.memory_bytes,
        "share": share,
    }


def _chats(core: Core) -> list[Json]:
    names = core.members.name_of
    return [
        {
            "session": session.id,
            "phase": session.phase.value,
            "model": session.ask.model,
            "tokens": len(session.ids),
            "devices": [names(peer) for peer in session.pipeline.peers],
            "epoch": session.epoch,
            "notice": session.notice,
        }
        for session in core.sessions.sessions.values()
    ]
