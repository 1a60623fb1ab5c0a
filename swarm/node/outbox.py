"""Messages to peers, from any thread."""

from __future__ import annotations

import logging

from swarm.cluster.effects import Send
from swarm.errors import LocalProtocolError, SwarmNetworkError
from swarm.net.transport import Transport
from swarm.node.event_log import EventLog
from swarm.wire.codec import Buffer
from swarm.wire.ids import PeerId
from swarm.wire.messages import Message

log = logging.getLogger(__name__)


class Outbox:
    """Sends what can be sent."""

    def __init__(self, transport: Transport, events: EventLog) -> None:
        self._transport = transport
        self._events = events

    def send(self, peer: PeerId, message: Message, frame: Buffer | None = None) -> bool:
        """Send; what cannot be sent is lost, and whoever needs it asks again."""
        try:
            self._transport.send(peer, message, frame)
            return True
        except LocalProtocolError as error:
            self._events.note("bug", why=str(error))
        except SwarmNetworkError as error:
            log.debug("not sent to %s: %s", peer, error)
        return False

    def carry_out(self, effect: Send) -> None:
        """Send what the core wants sent."""
        self.send(effect.to, effect.message, effect.frame)
