"""A member gone bad, for the simulator: it has the key, claims the world, and lies in ways chosen by its seed."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from random import Random

import msgspec

from swarm.cluster.effects import Buffer
from swarm.wire import messages as m
from swarm.wire.ids import BootId, ModelId, PeerId, SessionId
from swarm.wire.records import Capabilities, LinkMeasurement, Placement, Shard
from swarm.wire.routing import CORE
from tests.helpers.sim import MODEL, Node, Sim
from tests.helpers.wire_values import frame_of, record

Sent = list[tuple[float, m.Message, Buffer | None]]
Lie = Callable[["Liar", m.Message, Buffer | None], Sent]
KINDS = [kind for kind in m.MESSAGES if kind in CORE]
BOASTS = Capabilities("x86_64", "avx2", 64, 2**50, 2**50, 1e15, 1e17, 1e12, 1e-9, 1e-9)


def _as_it_is(liar: Liar, message: m.Message, frame: Buffer | None) -> Sent:
    return [(0.0, message, frame)]


def _never(liar: Liar, message: m.Message, frame: Buffer | None) -> Sent:
    return []


def _late(liar: Liar, message: m.Message, frame: Buffer | None) -> Sent:
    return [(liar.rng.choice((0.3, 1.9, 3.9, 20.0)), message, frame)]


def _often(liar: Liar, message: m.Message, frame: Buffer | None) -> Sent:
    return [(0.001 * i, message, frame) for i in range(5)]


def _refuses(liar: Liar, message: m.Message, frame: Buffer | None) -> Sent:
    missing = liar.rng.choice((0, 1, 2**40))
    if isinstance(message, m.PlacementReply | m.SessionReply):
        return [(0.0, _with(message, accepted=False, text="no", missing_bytes=missing), frame)]
    if isinstance(message, m.ShardReady):
        return [(0.0, m.PlacementReply(message.model, message.epoch, False, "no", missing), None)]
    if isinstance(message, m.SessionProbed | m.Token | m.Prefilled | m.Activation):
        fault = liar.rng.choice(("failed", "unknown"))
        return [(0.0, m.SessionError(message.session, message.epoch, fault, "no", liar.rng.random() < 0.5), None)]
    return [(0.0, message, frame)]


def _boasts(liar: Liar, message: m.Message, frame: Buffer | None) -> Sent:
    """Numbers that cannot be."""
    match message:
        case m.SessionReply():
            message = _with(message, have=liar.rng.choice((1, message.have + 1, 2**31 - 1)))
        case m.SessionProbed():
            message = _with(message, position=liar.rng.choice((0, 2**31 - 1)), busy=liar.rng.random() < 0.7)
        case m.Prefilled() | m.Activation():
            message = _with(message, position=liar.rng.choice((0, message.position + 1, 2**31 - 1)))
        case m.Token():
            message = _with(message, position=message.position + liar.rng.choice((-1, 1, 5)))
    return [(0.0, message, frame)]


def _falsifies(liar: Liar, message: m.Message, frame: Buffer | None) -> Sent:
    """Wrong content; what nobody can see to be wrong changes the text."""
    if isinstance(message, m.Token):
        return [(0.0, _with(message, token=liar.rng.choice((0, 1, 199, 200, 2**31 - 1))), frame)]
    if isinstance(message, m.Activation) and frame is not None:
        noise = array("f", [liar.rng.choice((0.0, 1.5, float("nan"), float("inf"))) for _ in range(len(frame) // 4)])
        return [(0.0, message, noise.tobytes()[: liar.rng.choice((len(frame), len(frame), 4))])]
    return [(0.0, message, frame)]


def _turns(liar: Liar, message: m.Message, frame: Buffer | None) -> Sent:
    """Sees others, and then not; has memory, and then not."""
    if isinstance(message, m.Measured):
        memory = liar.rng.choice((0, 300_000, 2**50))
        links = message.links if liar.rng.random() < 0.5 else message.links[:1]
        return [(0.0, _with(message, capabilities=_with(BOASTS, memory_bytes=memory), links=links), frame)]
    return [(0.0, message, frame)]


LIES: tuple[Lie, ...] = (_as_it_is, _never, _late, _often, _refuses, _boasts, _falsifies, _turns)


class Liar:
    """Of one node. What it does with each kind of message is chosen once, or anew each time, by its seed."""

    def __init__(self, sim: Sim, node: Node, rng: Random) -> None:
        self.sim = sim
        self.node = node
        self.rng = rng
        self.is_fickle = rng.random() < 0.4
        self.honest_share = rng.choice((0.0, 0.5, 0.9))
        self.ways = {kind: rng.choice(LIES) for kind in KINDS}
        self.chatter_s = rng.choice((0.0, 0.0, 0.01, 0.1))  # between messages that nobody asked for
        sim.is_spoilt = sim.is_spoilt or self.is_fickle or self.ways[m.Token] in (_falsifies, _boasts)
        sim.is_spoilt = sim.is_spoilt or self.ways[m.Activation] in (_falsifies, _boasts)
        node.malice = self
        node.core.capabilities = BOASTS
        if self.chatter_s:
            sim.at(2.0, self._chatter)

    def change(self, to: PeerId, message: m.Message, frame: Buffer | None) -> Sent:
        if isinstance(message, m.Measured):
            links = tuple(LinkMeasurement(node.id, 1e-6, 1e18) for node in self.sim.nodes if node is not self.node)
            message = _with(message, capabilities=BOASTS, links=links)
        if self.rng.random() < self.honest_share:
            return [(0.0, message, frame)]
        lie = self.rng.choice(LIES) if self.is_fickle else self.ways.get(type(message), _as_it_is)
        return lie(self, message, frame)

    def _chatter(self) -> None:
        node = self.rng.choice([each for each in self.sim.nodes if each is not self.node])
        if self.node.alive and node.alive and self.node.id in node.links:
            message = plausible(record(self.rng.choice(KINDS), self.rng), self.node.id, self.sim, node, self.rng)
            assert isinstance(message, m.Message)
            self.sim.transmit(self.node, node, message, frame_of(message, self.rng))
        if self.rng.random() < 0.002:
            self.sim.transmit(self.node, node, m.Goodbye("bye"), None)
        self.sim.at(self.chatter_s, self._chatter)


def _with(message: object, **changes: object) -> m.Message:
    changes = {name: max(value, 0) if type(value) is int else value for name, value in changes.items()}
    return msgspec.structs.replace(message, **changes)  # type: ignore[type-var]


def plausible(message: object, sender: PeerId, sim: Sim, node: Node, rng: Random) -> object:
    """The same record, with ids and epochs that mean something to the node."""
    staged = node.core.stage_sessions.sessions
    known: dict[str, list[object]] = {
        "peer": [sender, *(n.id for n in sim.nodes)],
        "author": [sender, sender, *(n.id for n in sim.nodes)],
        "entry": [sender, sender, *(n.id for n in sim.nodes)],
        "model": [MODEL, MODEL, ModelId("9" * 64)],
        "session": [*node.core.sessions.sessions, *staged, SessionId("9" * 32)],
        "epoch": [s.epoch + rng.randint(-1, 1) for s in staged.values()] or [1],
        "position": [s.expected + rng.randint(-1, 1) for s in staged.values()] or [1],
        "layer_start": [0, 1, 3],
        "layer_end": [2, 3, 6, 7],
    }
    changes: dict[str, object] = {}
    for name in message.__struct_fields__:  # type: ignore[attr-defined]
        value = getattr(message, name)
        if name in known and rng.random() < 0.8:
            chosen = rng.choice(known[name])
            changes[name] = max(chosen, 0) if isinstance(value, int) else chosen  # type: ignore[call-overload]
        elif isinstance(value, Placement | Shard):
            changes[name] = plausible(value, sender, sim, node, rng)
        elif isinstance(value, tuple) and value and isinstance(value[0], Shard):
            changes[name] = tuple(plausible(shard, sender, sim, node, rng) for shard in value)
    return msgspec.structs.replace(message, **changes)  # type: ignore[type-var]


def restart_with_a_wrong_clock(node: Node) -> None:
    """It dies, and comes back in the past: its epochs begin again below those that others have seen."""
    node.sim.kill(node)
    node.boots -= 1
    node.sim.restart(node)
    node.boot = BootId(f"{node.sim.rng.getrandbits(32):08x}{node.id[-8:]}")


class Forger:
    """Does its part in every respect, but that what it computes is wrong now and then: its form does not show that."""

    def __init__(self, sim: Sim, node: Node, rng: Random, share: float) -> None:
        self.rng = rng
        self.share = share  # of the messages of data
        self.n_forged = 0
        sim.is_spoilt = True
        node.malice = self
        node.core.capabilities = BOASTS

    def change(self, to: PeerId, message: m.Message, frame: Buffer | None) -> Sent:
        if not isinstance(message, m.Token | m.Activation) or self.rng.random() >= self.share:
            return [(0.0, message, frame)]
        self.n_forged += 1
        if isinstance(message, m.Token):
            return [(0.0, _with(message, token=(message.token + 1) % 200), frame)]
        return [(0.0, message, array("f", [x + 1.0 for x in array("f", bytes(frame or b""))]).tobytes())]
