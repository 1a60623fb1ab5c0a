"""What the link policy wants done with sockets. The reactor carries effects out in the order in which they came."""

from __future__ import annotations

from swarm.net.events import Event
from swarm.net.links import Link
from swarm.value import value
from swarm.wire.messages import Message


@value
class Call:
    """Open a socket to the link's address. What comes of it: `handshake_done`, or `closed`."""

    link: Link


@value
class Greet:
    """Say Hello on a call. What comes of it: `welcomed`, `refused`, `broke_protocol` or `closed`."""

    link: Link


@value
class Admit:
    """Say Welcome to a caller; when that could be sent, the link is `up`."""

    link: Link


@value
class Beat:
    """Send a heartbeat."""

    link: Link


@value
class Say:
    """Send a small message beside the queue; it is lost when libzmq is full."""

    link: Link
    message: Message


@value
class Flush:
    """Send what waits in the link's queue."""

    link: Link


@value
class Close:
    """Nothing comes or goes on this link any more. A caller's connection stays, until the caller hangs up."""

    link: Link


@value
class Report:
    """Tell the node."""

    event: Event


Effect = Call | Greet | Admit | Beat | Say | Flush | Close | Report
