"""What `swarm status` and `swarm plan` show: this node's view, and what its peers say about themselves."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import swarm
from swarm import limits
from swarm.cluster.cost import Device, Link
from swarm.cluster.devices import WIRED, typical_devices
from swarm.cluster.explain import explain
from swarm.cluster.planner import NoPlan, Plan, Wanted, plan
from swarm.net import interfaces
from swarm.net.doctor import Finding, NetworkFacts, check
from swarm.net.events import CloneSeen, NotLetIn
from swarm.wire.ids import PeerId
from swarm.wire.messages import StatusReply, StatusRequest
from swarm.wire.records import NodeState, SessionState, Shard

if TYPE_CHECKING:
    from swarm.node.node import Node

Json = dict[str, object]
RATE_WINDOW_S = 2.0
PLANNED_CONTEXT = 2048


class Meters:
    """How busy this device was, and how many tokens passed through it, in the last seconds."""

    def __init__(self) -> None:
        self.busy = 0.0
        self.tokens_per_s = 0.0
        self._samples: deque[tuple[float, float, int]] = deque()  # time, seconds computed, positions

    def tick(self, busy_s: float, positions: int, now: float) -> None:
        """Take the worker's counters."""
        self._samples.append((now, busy_s, positions))
        while now - self._samples[0][0] > RATE_WINDOW_S:
            self._samples.popleft()
        then, busy_then, positions_then = self._samples[0]
        elapsed = max(now - then, 1e-3)
        self.busy = min(max((busy_s - busy_then) / elapsed, 0.0), 1.0)
        self.tokens_per_s = (positions - positions_then) / elapsed


class Seeing:
    """Owned by the node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._replies: dict[int, dict[PeerId, StatusReply]] = {}
        self._changed = asyncio.Event()
        self._next_request = 1

    # --- peers ask, peers answer

    def status_request(self, peer: PeerId, message: StatusRequest) -> None:
        """Tell a peer about this device."""
        self._node.send(peer, self.reply(message.request))

    def status_reply(self, peer: PeerId, message: StatusReply) -> None:
        """A peer told about itself."""
        if message.request in self._replies:
            self._replies[message.request][peer] = message
            self._changed.set()

    def reply(self, request: int) -> StatusReply:
        """This device as it tells others."""
        node, core = self._node, self._node.core
        with node.lock:
            sessions = [
                SessionState(key, stage.done, core.ledger.kv[key].n_bytes)
                for key, stage in core.stage.sessions.items()
                if key in core.ledger.kv
            ]
        return StatusReply(
            request=request,
            name=node.name,
            software=swarm.__version__,
            uptime_s=int(time.time() - node.started_at),
            state=self.state(),
            capabilities=core.capabilities,
            shards=self.shards(),
            links=core.members.measured_links(),
            models=tuple(node.store.holdings())[: limits.MAX_MODELS],
            sessions=tuple(sessions[: limits.MAX_SESSIONS_SHOWN]),
            addresses=(),
        )

    def state(self) -> NodeState:
        """What our heartbeats say."""
        node = self._node
        done, wanted = node.library.fetcher.progress()
        fetching = done / wanted if wanted else 1.0
        with node.lock:
            return node.core.state(node.now, node.meters.busy, node.meters.tokens_per_s, fetching)

    def shards(self) -> tuple[Shard, ...]:
        """What this device holds for answers, each once."""
        with self._node.lock:
            claims = list(self._node.core.shards.live.values())
        return tuple(dict.fromkeys(claim.shard for claim in claims))[: limits.MAX_MODELS]

    # --- for the command line

    async def status(self, patience_s: float = 1.0) -> Json:
        """The whole swarm as JSON; a device that does not answer in time is shown as last heard."""
        replies = await self._ask_all(patience_s)
        node = self._node
        links = {info.peer: info for info in node.transport.peers()}
        devices = [self._device(node.peer, self.reply(0), "here", 0.0, "")]
        for peer in node.core.members.peers.values():
            info = links.get(peer.id)
            row = self._device(peer.id, replies.get(peer.id), str(peer.health), peer.rtt_s, peer.lost_why)
            row["name"] = peer.name
            row["address"] = str(info.address) if info is not None else ""
            row["clock_offset_s"] = info.wall_offset_s if info is not None else None
            row["link_bytes_per_s"] = peer.bytes_per_s
            row["excluded"] = node.core.members.why_unusable(peer.id, node.now)
            devices.append(row)
        return {
            "software": swarm.__version__,
            "name": node.name,
            "peer": node.peer,
            "uptime_s": int(time.time() - node.started_at),
            "devices": devices,
            "models": [asdict(entry) for entry in node.library.entries()],
            "chats": self._chats(),
            "events": [{"at": at, "event": event, **fields} for at, event, fields in list(node.log)[-20:]],
            "discovery": node.neighbours.problem,
            "fetched_bytes": node.library.fetcher.bytes_fetched,
            "given_bytes": node.provider.bytes_given,
            "computed": {
                "seconds": node.worker.busy_s,
                "positions": node.worker.positions,
                "decode_step_s": statistics.median(list(node.worker.decode_steps) or [0.0]),
            },
            "dropped": dict(node.core.stage.dropped),
        }

    def doctor(self) -> list[Json]:
        """What is wrong between this device and the others."""
        node, me = self._node, self._node.transport.me
        facts = NetworkFacts(
            me=me.peer,
            fingerprint=me.credentials.fingerprint,
            port=me.port,
            interfaces=interfaces.here(),
            discovery_problem=node.neighbours.problem if node.options.discover else "",
            seen=tuple(node.neighbours.seen.values()),
            peers=node.transport.peers(),
            unreached=tuple(node.transport.unreached()),
            not_let_in=tuple(dict.fromkeys(t for t in node.troubles if isinstance(t, NotLetIn))),
            clones=tuple(dict.fromkeys(t for t in node.troubles if isinstance(t, CloneSeen))),
        )
        return findings_json(check(facts))

    async def plan(self, model: str, add: Sequence[str], context: int) -> Json:
        """Where a model would run, with made-up devices if wanted."""
        node = self._node
        known = await node.know(await node.asking.find(model))
        devices = node.core.devices(known.id, node.now)
        for text in add:
            devices += typical_devices(text, start=len(devices))
        added = {device.id for device in devices} - {node.peer, *node.core.members.peers}

        def link(a: PeerId, b: PeerId) -> Link | None:
            return WIRED if a in added or b in added else node.core.link(a, b)

        wanted = Wanted(known.cost, context or default_plan_context(known.spec.context_length, node.settings.context))
        return plan_json(await node.run_io(plan, wanted, devices, link))

    async def _ask_all(self, patience_s: float) -> dict[PeerId, StatusReply]:
        request, self._next_request = self._next_request, self._next_request % (2**31 - 1) + 1
        replies = self._replies[request] = {}
        peers = [peer for peer in self._node.core.others() if self._node.send(peer, StatusRequest(request))]
        try:
            async with asyncio.timeout(patience_s):
                while len(replies) < len(peers):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        finally:
            del self._replies[request]
        return replies

    def _device(self, peer: PeerId, reply: StatusReply | None, health: str, rtt_s: float | None, lost_why: str) -> Json:
        row: Json = {"peer": peer, "health": health, "rtt_s": rtt_s, "lost_why": lost_why}
        if reply is None:
            known = self._node.core.members.peers[peer]
            return {**row, "name": known.name, "state": asdict(known.state), "shards": [], "capabilities": None}
        return {
            **row,
            "name": reply.name,
            "software": reply.software,
            "uptime_s": reply.uptime_s,
            "state": asdict(reply.state),
            "capabilities": asdict(reply.capabilities) if reply.capabilities is not None else None,
            "shards": [self._shard(shard) for shard in reply.shards],
            "models": [asdict(holding) for holding in reply.models],
            "sessions": [asdict(session) for session in reply.sessions],
        }

    @staticmethod
    def _shard(shard: Shard) -> Json:
        return {
            "first": shard.layer_start,
            "end": shard.layer_end,
            "embed": shard.embed,
            "head": shard.head,
            "memory_bytes": shard.memory_bytes,
        }

    def _chats(self) -> list[Json]:
        with self._node.lock:
            sessions = list(self._node.core.sessions.sessions.values())
        names = self._node.core.members.name_of
        return [
            {
                "session": session.id,
                "phase": session.phase.value,
                "tokens": len(session.ids),
                "devices": [names(peer) for peer in session.stages],
                "epoch": session.epoch,
                "notice": session.notice,
            }
            for session in sessions
        ]


def findings_json(findings: Sequence[Finding]) -> list[Json]:
    """What the network's doctor found."""
    return [{"level": found.level.value, "text": found.text, "advice": found.advice} for found in findings]


def default_plan_context(context_length: int, wanted: int) -> int:
    """Tokens of context to plan for when nobody says: a long chat."""
    return wanted or min(context_length, PLANNED_CONTEXT)


def plan_json(result: Plan | NoPlan) -> Json:
    """A plan for people (`lines`) and for scripts."""
    lines = explain(result)
    left_out = [{"name": out.name, "reason": out.reason} for out in result.left_out]
    if isinstance(result, NoPlan):
        missing = {"fits": False, "missing_bytes": result.missing_bytes, "context_that_fits": result.context_that_fits}
        return {"lines": lines, **missing, "left_out": left_out}
    prediction = result.prediction
    return {
        "lines": lines,
        "fits": True,
        "stages": [asdict(stage) for stage in result.stages],
        "tokens_per_s": prediction.tokens_per_s,
        "busy_tokens_per_s": prediction.busy_tokens_per_s,
        "first_token_s": prediction.first_token_s,
        "left_out": left_out,
    }


def devices_with(mine: Device, add: Sequence[str]) -> list[Device]:
    """This device and made-up ones."""
    devices = [mine]
    for text in add:
        devices += typical_devices(text, start=len(devices))
    return devices
