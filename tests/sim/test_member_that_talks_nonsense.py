"""A member whose messages are legal but make no sense: nobody falls, no answer changes, memory is kept."""

from __future__ import annotations

from random import Random

import pytest

from swarm.answers import EndReason
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import MESSAGES, Goodbye, Heartbeat, Message
from swarm.wire.routing import TRANSPORT
from tests.helpers.malice import plausible
from tests.helpers.wire_values import frame_of, record
from tests.sim.test_faults import swarm, talking

FOOL = PeerId("f" * 32)
KINDS = [kind for kind in MESSAGES if kind not in TRANSPORT - {Goodbye} and kind is not Heartbeat]
N_MESSAGES = 3000


@pytest.mark.parametrize("seed", range(4))
def test_no_answer_changes_and_nobody_falls(seed: int) -> None:
    rng = Random(seed)
    sim = swarm([0.6, 0.6, 0.6], seed=seed + 1)
    chat = talking(sim, sim.nodes[0])
    for node in sim.nodes:
        node.do(node.core.peer_up(FOOL, BootId("f" * 16), "fool", node.now))
    for _ in range(N_MESSAGES):
        node = rng.choice(sim.nodes)
        message = plausible(record(rng.choice(KINDS), rng), FOOL, sim, node, rng)
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
