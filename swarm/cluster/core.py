"""The deciding part of a node in one piece: events and the time go in, effects come out.

The node owns one `Core`, calls it under one lock (from whichever thread the event is on), and carries out the effects
(effects.py says how). It owns no clock, socket, thread, file or random source of its own, so the simulator in
tests/helpers/sim.py runs it as it is.

    peer_up, peer_down, clone_seen, received     from the transport
    tick                                         when get_timer() says so
    ask, cancel, forget                          from the local API
    model_known, holdings, measured              from the store and the measurements
    loaded, load_failed, computed, checked, drafted  answers to effects
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from msgspec.structs import replace

from swarm import limits
from swarm.cluster.cost import (
    GUESSED_DISK_BYTES_PER_S,
    LAYER_S,
    STEP_S,
    Device,
    Exchange,
    LinkSpeed,
    ModelCost,
    exchange_of,
)
from swarm.cluster.effects import NEVER, Buffer, Effect, KeptKv, Log, Propose, Send, StepOutput
from swarm.cluster.membership import Change, Joined, Lost, Membership, ReachChanged
from swarm.cluster.memory import Ledger
from swarm.cluster.placement import Placer
from swarm.cluster.planner import Layout
from swarm.cluster.session import AnswerRequest
from swarm.cluster.sessions import Sessions
from swarm.cluster.shards import Shards
from swarm.cluster.spot_checks import SpotChecks
from swarm.cluster.stage_sessions import StageSessions
from swarm.parts import Part, all_parts
from swarm.wire import messages as m
from swarm.wire.ids import BootId, ModelId, PeerId, SessionId
from swarm.wire.records import Capabilities, KvFormat, NodeState

Handler = Callable[[PeerId, Any, Buffer | None, float], list[Effect]]  # each takes its own type of message


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is, in this run. `first_epoch` is higher than any epoch of an earlier run: seconds since 1970."""

    peer: PeerId
    boot: BootId
    name: str
    first_epoch: int = 1


class Core:
    """One node's decisions."""

    def __init__(
        self,
        me: Identity,
        capabilities: Capabilities,
        rng: Random,
        *,
        kv: KvFormat = "f16",
        slice_port: int = 0,
        layout: Layout = "auto",
    ) -> None:
        """`kv` is how the sessions that begin here keep keys and values, on every device that takes part.

        `layout` says whether devices compute the layers of this node's answers together.

        `slice_port` is where this device listens for others that compute layers together with it; 0: it cannot. Keys
        of such stages come from `rng`, so outside of tests it must be one that nobody can guess (SystemRandom).
        """
        self.me = me.peer
        self.slice_port = slice_port
        self.measured_here = capabilities
        self.capabilities = replace(capabilities, slices=slice_port > 0)
        self._aside_bytes = 0  # of memory, for what is neither weights nor KV of the swarm's
        self.members = Membership(me.peer, me.boot, me.name)
        self.ledger = Ledger(capabilities.memory_bytes)
        self.shards = Shards(me.peer, self.ledger, slice_port)
        self.stage_sessions = StageSessions(me.peer, self.ledger, self.shards)
        self.placer = Placer(me.peer, self, rng, first_epoch=me.first_epoch, kv=kv, layout=layout)
        self.checks = SpotChecks(me.peer, self.placer, self.shards, self._has_all_of, rng)
        self.sessions = Sessions(me.peer, self.placer, self.checks)
        self.held: dict[tuple[PeerId, ModelId], frozenset[Part]] = {}
        self._advertised_at = -NEVER
        self._followed = 0  # the number of changes of placements that the sessions have followed
        self._handlers: dict[type[m.Message], Handler] = self._table()

    # --- the transport

    def peer_up(self, peer: PeerId, boot: BootId, name: str, now: float) -> list[Effect]:
        """A link to a proven peer is there."""
        changes = self.members.up(peer, boot, name, now)
        return self._run([*self._advertise([peer]), *self._changed(changes, now)], now)

    def peer_down(self, peer: PeerId, why: str, now: float, *, certain: bool = False) -> list[Effect]:
        """The last link to a peer is gone. `certain`: it cannot come back by itself (it said goodbye)."""
        return self._run(self._changed(self.members.down(peer, why, now, certain=certain), now), now)

    def clone_seen(self, peer: PeerId, name: str, now: float) -> list[Effect]:
        """The transport met two running devices with one id."""
        return self._run(self._changed(self.members.clone_seen(peer, name, now), now), now)

    def received(self, sender: PeerId, message: m.Message, frame: Buffer | None, now: float) -> list[Effect]:
        """A message from a connected peer."""
        if not self.members.is_alive(sender):
            return []
        self.members.heard(sender, now)
        return self._run(self._handle(sender, message, frame, now), now)

    def heartbeat(self, sender: PeerId, state: NodeState, rtt_s: float | None, now: float) -> list[Effect]:
        """A heartbeat came; the transport measured the round trip."""
        changes = self.members.heard(sender, now)
        self.members.state(sender, state, rtt_s, now)
        return self._run(self._changed(changes, now), now) if changes else []

    def link_measured(self, peer: PeerId, bytes_per_s: float, now: float) -> list[Effect]:
        """The throughput to a peer was measured."""
        self.members.link_measured(peer, bytes_per_s)
        return self._run([], now)

    def rehearsed(self, peer: PeerId, seen: Exchange, now: float) -> list[Effect]:
        """We exchanged sums with a peer as members of a stage do: others hear what that costs."""
        self.members.rehearsed(peer, seen)
        return self._run(self._advertise(self.others()), now)

    def tick(self, now: float) -> list[Effect]:
        """Time passed: what is due is done. A tick before `get_timer()` does nothing, a late one does it late."""
        effects = self._changed(self.members.tick(now), now)
        self.shards.tick(now)
        effects += self.stage_sessions.tick(now)
        effects += self.placer.tick(now) + self._follow(now) + self.sessions.tick(now)
        if now >= self._advertised_at + limits.ADVERTISE_S * self.members.pace:
            self._advertised_at = now
            effects += self._advertise(self.others())
        return self._run(effects, now)

    def get_timer(self) -> float:
        """When to call `tick` next, on the clock of `now`; -inf before the first tick.

        Ask again after every call of any method, for it may have moved either way: sleep until then, not longer.
        """
        parts = (self.members, self.shards, self.stage_sessions, self.placer, self.sessions)
        return min(self._advertised_at + limits.ADVERTISE_S * self.members.pace, *(part.timer() for part in parts))

    def misbehaved(self, peer: PeerId, why: str, now: float) -> list[Effect]:
        """The transport or the store saw that a device does not do its part; `why` as in "sends garbage"."""
        return self._run(self.placer.failed({peer}, why, now), now)

    def leave(self, now: float) -> list[Effect]:
        """Say goodbye to everybody."""
        return [Send(peer, m.Goodbye("leaves")) for peer in self.others()]

    # --- the user

    def ask(self, ask: AnswerRequest, now: float) -> list[Effect]:
        """Start an answer."""
        return self._run(self.sessions.ask(ask, now), now)

    def cancel(self, session: SessionId, now: float) -> list[Effect]:
        """Stop an answer."""
        return self._run(self.sessions.cancel(session, now), now)

    def forget(self, session: SessionId, now: float) -> list[Effect]:
        """Stop an answer, and free its KV everywhere."""
        return self._run(self.sessions.forget(session, now), now)

    # --- the store and the measurements

    def model_known(self, model: ModelId, cost: ModelCost, now: float) -> list[Effect]:
        """The manifest of a model is here."""
        return self._run(self.shards.model_known(model, cost, now) + self.placer.model_known(model, cost, now), now)

    def holdings(self, peer: PeerId, model: ModelId, parts: frozenset[Part], now: float) -> list[Effect]:
        """A device (or this one) has these parts of a model on its disk."""
        if self.held.get((peer, model)) == parts:
            return []
        self.held[peer, model] = parts
        return self._run(self.placer.devices_changed(now), now)

    def measured(self, capabilities: Capabilities, now: float) -> list[Effect]:
        """This device measured itself (again)."""
        self.measured_here = capabilities
        left = max(capabilities.memory_bytes - self._aside_bytes, 0)
        self.capabilities = replace(capabilities, slices=self.slice_port > 0, memory_bytes=left)
        return self._run(self._advertise(self.others()) + self.placer.devices_changed(now), now)

    def missing_for_aside(self, n_bytes: int) -> int:
        """Bytes that weights and running answers would lack if so many were set aside; 0 or less: none."""
        return self.shards.missing_for_kv(n_bytes - self._aside_bytes)

    def set_aside(self, n_bytes: int, now: float) -> list[Effect]:
        """So much of this device's memory is for something else from now on, in place of what was before."""
        more, self._aside_bytes = n_bytes - self._aside_bytes, n_bytes
        room = self.shards.make_room(max(more, 0))
        self.ledger.total_bytes -= more
        return room + self.measured(self.measured_here, now)

    def guess_with_mtp(self, *, uses: bool) -> list[Effect]:
        """From the next placement on, the model's own block is to guess in answers of this node, or is not."""
        self.placer.uses_mtp = uses
        return []

    # --- answers to effects

    def loaded(self, ticket: int, now: float) -> list[Effect]:
        """A `Load` is done."""
        return self._run(self.shards.parts_loaded(ticket, now), now)

    def load_failed(self, ticket: int, text: str, now: float) -> list[Effect]:
        """A `Load` cannot be done; `text` is one line."""
        return self._run(self.shards.load_failed(ticket, text), now)

    def computed(self, job: int, outputs: Sequence[StepOutput], now: float) -> list[Effect]:
        """A `Compute` is done: what each of its sessions got, in their order; an error is one line."""
        return [effect for part in self.computed_in_parts(job, outputs, now) for effect in part]

    def computed_in_parts(self, job: int, outputs: Sequence[StepOutput], now: float) -> Iterator[list[Effect]]:
        """The same, first what other devices wait for: carry it out before what else follows is asked for."""
        effects = self.stage_sessions.computed(job, outputs, now)
        n_away = 0
        while n_away < len(effects) and type(effect := effects[n_away]) is Send and effect.to != self.me:
            n_away += 1
        yield effects[:n_away]
        yield self._run(effects[n_away:], now)

    def checked(self, ticket: int, tokens: Sequence[int], now: float, error: str = "") -> list[Effect]:
        """A `CheckTokens` is done: the tokens as this device computes them, or why it could not, in one line."""
        return self._run(self.checks.done(ticket, tokens, error, self.sessions.sessions, now), now)

    def drafted(self, asked: Propose, found: Sequence[int], now: float) -> list[Effect]:
        """A `Propose` is done; nothing is found where it cannot be."""
        return self._run(self.sessions.drafted(asked, found, now), now)

    def kept_found(self, files: Sequence[KeptKv], quota_bytes: int, now: float) -> list[Effect]:
        """Keys and values are on the disk, those that were used longest ago first; so much may be from now on."""
        return self._run(self.stage_sessions.kept.found(files, quota_bytes), now)

    def kv_kept(self, name: str, now: float) -> list[Effect]:
        """Keys and values that left memory are on the disk."""
        return self._run(self.stage_sessions.kept.written(name), now)

    def kv_lost(self, name: str, now: float) -> list[Effect]:
        """They are not, or what is there is damaged."""
        self.stage_sessions.kept.lost(name)
        return self._run([], now)

    def kv_read(self, session: SessionId, epoch: int, n: int, now: float) -> list[Effect]:
        """A session begins with so many positions from the disk."""
        return self._run(self.stage_sessions.kept.read(session, epoch, n), now)

    def keep_all(self, now: float) -> list[Effect]:
        """This node ends: what its memory holds of conversations goes to the disk."""
        return self._run(self.stage_sessions.kept.keep_all(), now)

    # --- World: what the placer sees

    def devices(self, model: ModelId, now: float) -> list[Device]:
        """All devices that are there, as the planner sees them."""
        mine = self._device(self.me, self.members.name, self.capabilities, model, now)
        others = [
            self._device(p.id, p.name, p.capabilities, model, now)
            for p in self.members.living()
            if p.capabilities is not None
        ]
        return [mine, *others]

    def link(self, a: PeerId, b: PeerId) -> LinkSpeed | None:
        """The link from a to b, as far as we know."""
        return self.members.link(a, b)

    def doubts(self, peer: PeerId, now: float) -> str:
        """Why a device is only to be used where nothing fits without it."""
        return self.members.doubts(peer, now)

    def rests(self, peer: PeerId) -> str:
        """Why a device would rather not take part just now; empty when it does gladly."""
        if peer == self.me:
            return self.capabilities.rests
        member = self.members.peers.get(peer)
        return member.capabilities.rests if member is not None and member.capabilities is not None else ""

    def shares_layers(self, peer: PeerId) -> bool:
        """True for a peer that can compute layers together with others."""
        member = self.members.peers.get(peer)
        return member is not None and member.capabilities is not None and member.capabilities.slices

    def others(self) -> list[PeerId]:
        """All living peers."""
        return [peer.id for peer in self.members.living()]

    def name_of(self, peer: PeerId) -> str:
        """What a person calls that device."""
        return self.members.name_of(peer)

    def state(self, now: float, busy: float, tokens_per_s: float, fetching: float) -> NodeState:
        """What our heartbeats say."""
        placed = max((c.placement.epoch for c in self.shards.live.values()), default=0)
        ready = all(c.parts <= self.shards.loaded for c in self.shards.live.values())
        free = max(self.ledger.free_bytes, 0)
        running = sum(entry.running for entry in self.ledger.kv.values())
        quick = bool(self.shards.stages())
        return NodeState(placed, busy, free, running, tokens_per_s, ready, fetching, quick=quick)

    # --- within

    def _has_all_of(self, model: ModelId) -> bool:
        """Whether all of a model is on this device's disk."""
        cost = self.shards.models.get(model)
        return cost is not None and self.held.get((self.me, model), frozenset()).issuperset(all_parts(cost.n_layers))

    def _device(self, peer: PeerId, name: str, caps: Capabilities, model: ModelId, now: float) -> Device:
        held = self.held.get((peer, model), frozenset())
        return Device(
            id=peer,
            name=name,
            memory_bytes=caps.memory_bytes,
            disk_bytes=caps.disk_bytes,
            read_bytes_per_s=max(caps.read_bytes_per_s, 1.0),
            macs_per_s=max(caps.prefill_ops_per_s, 1.0),
            layer_s=caps.layer_s or LAYER_S,
            step_s=caps.step_s or STEP_S,
            held=held,
            disk_bytes_per_s=caps.disk_bytes_per_s or GUESSED_DISK_BYTES_PER_S,
            excluded=self.members.why_unusable(peer, now),
            slices=caps.slices,
            exchange=exchange_of(caps.step_s or STEP_S),
        )

    def _run(self, effects: list[Effect], now: float) -> list[Effect]:
        """Messages to ourselves are handled here, in order; all other effects are the node's.

        Last the next step begins, of all that wait then.
        """
        if self.stage_sessions.settled != self.shards.n_changes:
            self.stage_sessions.settle(now)
        if self._followed != self.placer.n_changes:
            effects = effects + self._follow(now)
        for effect in effects:
            if type(effect) is Send and effect.to == self.me:
                effects = self._run_all(deque(effects), now)
                break
        if self.checks.running is not None:
            effects = effects + self.checks.give_way()
        begun = self.stage_sessions.next_step(now)
        while any(type(effect) is Send and effect.to == self.me for effect in begun):
            # A step of several devices that this one cannot join: the entry node hears of it, which may be this one.
            effects = effects + self._run_all(deque(begun), now)
            begun = self.stage_sessions.next_step(now)
        return effects + begun

    def _follow(self, now: float) -> list[Effect]:
        """After anything that changed a placement the sessions follow."""
        effects: list[Effect] = []
        while self._followed != self.placer.n_changes:
            self._followed = self.placer.n_changes
            effects += self.sessions.placements_changed(now)
        return effects

    def _run_all(self, queue: deque[Effect], now: float) -> list[Effect]:
        out: list[Effect] = []
        while queue:
            effect = queue.popleft()
            if type(effect) is Send and effect.to == self.me:
                queue.extend(self._handle(self.me, effect.message, effect.frame, now))
                self.stage_sessions.settle(now)
                queue.extend(self._follow(now))
            else:
                out.append(effect)
        return out

    def _handle(self, sender: PeerId, message: m.Message, frame: Buffer | None, now: float) -> list[Effect]:
        handler = self._handlers.get(type(message))
        return handler(sender, message, frame, now) if handler is not None else []

    def _table(self) -> dict[type[m.Message], Handler]:
        """What happens on each message that ends here (wire/routing.py)."""
        shards, staged, placer, sessions = self.shards, self.stage_sessions, self.placer, self.sessions
        return {
            m.Measured: self._on_measured,
            m.PlacementOffer: lambda p, x, f, t: shards.offer(x, t) if x.placement.author == p else [],
            m.PlacementReply: lambda p, x, f, t: placer.reply(p, x, t),
            m.PlacementCommit: self._on_commit,
            m.ShardReady: lambda p, x, f, t: placer.shard_ready(p, x),
            m.SessionOpen: lambda p, x, f, t: staged.open(p, x, t),
            m.SessionReply: lambda p, x, f, t: sessions.reply(p, x, t),
            m.Tokens: self._on_tokens,
            m.Activation: staged.activation,
            m.Token: lambda p, x, f, t: staged.token(p, x, t) + sessions.token(p, x, t),
            m.Vector: sessions.vector,
            m.StageStep: staged.stage_step,
            m.SessionClose: lambda p, x, f, t: staged.close(p, x, t),
            m.SessionError: lambda p, x, f, t: sessions.error(p, x, t),
            m.Prefilled: lambda p, x, f, t: sessions.prefilled(p, x, t),
            m.SessionProbe: lambda p, x, f, t: staged.probe(p, x),
            m.SessionProbed: lambda p, x, f, t: sessions.probed(p, x, t),
        }

    def _on_measured(self, sender: PeerId, message: m.Message, frame: Buffer | None, now: float) -> list[Effect]:
        assert isinstance(message, m.Measured)
        before = self.members.peers[sender].capabilities if sender in self.members.peers else None
        changes = self.members.measured(sender, message)
        news = changes or before != message.capabilities
        return self.placer.devices_changed(now) if news else []

    def _on_commit(self, sender: PeerId, message: m.Message, frame: Buffer | None, now: float) -> list[Effect]:
        assert isinstance(message, m.PlacementCommit)
        if message.placement.author != sender:
            return []
        if sender != self.me:
            self.placer.commit_seen(message)
        return self.shards.commit(message, now)

    def _on_tokens(self, sender: PeerId, message: m.Message, frame: Buffer | None, now: float) -> list[Effect]:
        assert isinstance(message, m.Tokens)
        if frame is None or message.tensor.dtype != "i32" or len(frame) != message.tensor.n_bytes:
            return []
        ids = array("i", bytes(frame))
        return self.stage_sessions.tokens(sender, message, tuple(ids), now) if all(i >= 0 for i in ids) else []

    def _changed(self, changes: list[Change], now: float) -> list[Effect]:
        effects: list[Effect] = []
        for change in changes:
            effects.append(Log(type(change).__name__.lower(), (("peer", change.peer),)))
            match change:
                case Lost(peer, _):
                    effects += self._lost(peer, now)
                case Joined(peer, restarted):
                    effects += self._joined(peer, now, restarted=restarted)
                case ReachChanged():
                    effects += self.placer.devices_changed(now)
        return effects

    def _lost(self, peer: PeerId, now: float) -> list[Effect]:
        effects = self.shards.author_gone(peer, restarted=False)
        effects += self.stage_sessions.entry_gone(peer, now, restarted=False)
        effects += self.stage_sessions.peer_lost(peer) + self.placer.peer_lost(peer, now)
        return effects + self._advertise(self.others())

    def _joined(self, peer: PeerId, now: float, *, restarted: bool) -> list[Effect]:
        effects: list[Effect] = []
        if restarted:
            effects += self.shards.author_gone(peer, restarted=True)
            effects += self.stage_sessions.entry_gone(peer, now, restarted=True)
        return effects + self._advertise(self.others()) + self.placer.devices_changed(now)

    def _advertise(self, peers: list[PeerId]) -> list[Effect]:
        """Tell peers what we can and whom we reach."""
        message = m.Measured(self.capabilities, self.members.measured_links())
        return [Send(peer, message) for peer in peers]
