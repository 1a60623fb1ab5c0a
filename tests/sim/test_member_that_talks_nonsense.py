"""A member whose messages are legal but make no sense: nobody falls, no answer changes, memory is kept."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from swarm.answers import EndReason
from swarm.wire.ids import BootId, ModelId, PeerId, SessionId
from swarm.wire.messages import MESSAGES, Goodbye, Heartbeat, Message
from swarm.wire.records import Placement, Shard
from swarm.wire.routing import TRANSPORT
from tests.helpers.sim import MODEL, Node, Sim
from tests.helpers.wire_values import frame_of, record
from tests.sim.test_faults import swarm, talking

FOOL = PeerId("f" * 32)
KINDS = [kind for kind in MESSAGES if kind not in TRANSPORT - {Goodbye} and kind is not Heartbeat]
N_MESSAGES = 3000


def plausible(message: object, sim: Sim, node: Node, rng: Random) -> object:
    """The same record, with ids and epochs that mean something to the node."""
    known: dict[str, list[object]] = {
        "peer": [FOOL, *(n.id for n in sim.nodes)],
        "author": [FOOL, FOOL, *(n.id for n in sim.nodes)],
        "entry": [FOOL, FOOL, *(n.id for n in sim.nodes)],
        "model": [MODEL, MODEL, ModelId("9" * 64)],
        "session": [*node.core.sessions.sessions, *node.core.stage_sessions.sessions, SessionId("9" * 32)],
        "epoch": [s.epoch + rng.randint(-1, 1) for s in node.core.stage_sessions.sessions.values()] or [1],
        "position": [s.expected + rng.randint(-1, 1) for s in node.core.stage_sessions.sessions.values()] or [1],
        "layer_start": [0, 1, 3],
        "layer_end": [2, 3, 6, 7],
    }
    changes: dict[str, object] = {}
    for field in msgspec.structs.fields(message):
        value = getattr(message, field.name)
        if field.name in known and rng.random() < 0.8:
            changes[field.name] = (
                max(rng.choice(known[field.name]), 0) if isinstance(value, int) else rng.choice(known[field.name])
            )  # type: ignore[type-var]
        elif isinstance(value, (Placement, Shard)):
            changes[field.name] = plausible(value, sim, node, rng)
        elif isinstance(value, tuple) and value and isinstance(value[0], Shard):
            changes[field.name] = tuple(plausible(shard, sim, node, rng) for shard in value)
    return msgspec.structs.replace(message, **changes)


@pytest.mark.parametrize("seed", range(4))
def test_no_answer_changes_and_nobody_falls(seed: int) -> None:
    rng = Random(seed)
    sim = swarm([0.6, 0.6, 0.6], seed=seed + 1)
    chat = talking(sim, sim.nodes[0])
    for node in sim.nodes:
        node.do(node.core.peer_up(FOOL, BootId("f" * 16), "fool", node.now))
    for _ in range(N_MESSAGES):
        node = rng.choice(sim.nodes)
        message = plausible(record(rng.choice(KINDS), rng), sim, node, rng)
        assert isinstance(message, Message)
        if isinstance(message, Goodbye):  # the transport takes it
            node.do(node.core.peer_down(FOOL, message.text, node.now, certain=True))
            node.do(node.core.peer_up(FOOL, BootId("f" * 16), "fool", node.now))
        else:
            node.do(node.core.received(FOOL, message, frame_of(message, rng), node.now))
        sim.run_until(sim.now + 0.0005)
        sim.check(node)
    sim.run_until(sim.now + 60, done=lambda: chat.ended is not None)
    assert chat.ended is not None and chat.ended.reason in (EndReason.STOP, EndReason.LENGTH)
    assert chat.got == chat.expected
