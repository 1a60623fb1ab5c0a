"""What the link policy wants done with sockets. The reactor carries effects out in the order in which they came."""

from __future__ import annotations

from swarm.net.events import Event
from swarm.net.links import PeerLink
from swarm.value import Value
from swarm.wire.ids import PeerId
from swarm.wire.messages import Message
from swarm.wire.records import Address


class Call(Value):
    """Open a socket to the link's address. What comes of it: `handshake_done`, or `closed`."""

    link: PeerLink


class Greet(Value):
    """Say Hello on a call. What comes of it: `welcomed`, `refused`, `broke_protocol` or `closed`."""

    link: PeerLink


class Admit(Value):
    """Say Welcome to a caller; when that could be sent, the link is `up`."""

    link: PeerLink


class Beat(Value):
    """Send a heartbeat."""

    link: PeerLink


class Say(Value):
    """Send a small message beside the queue; it is lost when libzmq is full."""

    link: PeerLink
    message: Message


class Flush(Value):
    """Send what waits in the link's queue."""

    link: PeerLink


class Close(Value):
    """Nothing comes or goes on this link any more. A caller's connection stays, until the caller hangs up."""

    link: PeerLink


class Knock(Value):
    """See whether anything listens where a device was a moment ago. What comes of it: `refused_knock`, or nothing."""

    peer: PeerId
    address: Address


class Report(Value):
    """Tell the node."""

    event: Event


Effect = Call | Greet | Admit | Beat | Say | Flush | Close | Knock | Report
