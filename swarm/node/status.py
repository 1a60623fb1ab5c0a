"""What `swarm status` shows: this node's view, and what its peers say about themselves."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import swarm
from swarm import limits
from swarm.net import interfaces
from swarm.net.doctor import NetworkFacts, NetworkFinding, check
from swarm.net.events import CloneSeen, NotLetIn
from swarm.wire.ids import PeerId
from swarm.wire.messages import StatusReply, StatusRequest
from swarm.wire.records import NodeState, SessionState, Shard

if TYPE_CHECKING:
    from swarm.node.node import Node

Json = dict[str, object]


class StatusReports:
    """Owned by the node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._replies: dict[int, dict[PeerId, StatusReply]] = {}
        self._changed = asyncio.Event()
        self._next_request = 1

    # --- peers ask, peers answer

    def answer_request(self, peer: PeerId, message: StatusRequest) -> None:
        """Tell a peer about this device."""
        self._node.send(peer, self.reply(message.request))

    def take_reply(self, peer: PeerId, message: StatusReply) -> None:
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

    async def collect(self, patience_s: float = 1.0) -> Json:
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
            "discovery": node.peers.problem,
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
            discovery_problem=node.peers.problem if node.options.discover else "",
            seen=tuple(node.peers.seen.values()),
            peers=node.transport.peers(),
            unreached=tuple(node.transport.unreached()),
            not_let_in=tuple(dict.fromkeys(t for t in node.troubles if isinstance(t, NotLetIn))),
            clones=tuple(dict.fromkeys(t for t in node.troubles if isinstance(t, CloneSeen))),
        )
        return findings_json(check(facts))

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


def findings_json(findings: Sequence[NetworkFinding]) -> list[Json]:
    """What the network's doctor found."""
    return [{"level": found.level.value, "text": found.text, "advice": found.advice} for found in findings]
