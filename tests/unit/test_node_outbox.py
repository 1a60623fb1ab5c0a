"""What can be sent is sent; what cannot is lost, and said only when it is a bug."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.cluster.effects import Send
from swarm.errors import LocalProtocolError, PeerBusy, PeerLost, SwarmError
from swarm.node.event_log import EventLog
from swarm.node.outbox import Outbox
from swarm.wire.ids import PeerId
from swarm.wire.messages import Goodbye

PEER, MESSAGE = PeerId("a" * 32), Goodbye("x")


class Wire:
    """A transport that takes everything, or raises."""

    def __init__(self, error: SwarmError | None = None) -> None:
        self.error = error
        self.sent: list[tuple[object, ...]] = []

    def send(self, *what: object) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append(what)


def test_a_message_goes_to_the_transport() -> None:
    wire: Any = Wire()
    outbox = Outbox(wire, EventLog())
    assert outbox.send(PEER, MESSAGE, b"frame")
    outbox.carry_out(Send(PEER, MESSAGE))
    assert wire.sent == [(PEER, MESSAGE, b"frame"), (PEER, MESSAGE, None)]


@pytest.mark.parametrize("error", [PeerLost("gone"), PeerBusy("busy"), LocalProtocolError("too long")])
def test_a_message_that_cannot_be_sent_raises_nothing(error: SwarmError) -> None:
    wire: Any = Wire(error)
    events = EventLog()
    assert not Outbox(wire, events).send(PEER, MESSAGE)
    assert [event for _, event, _ in events.entries] == (["bug"] if isinstance(error, LocalProtocolError) else [])
