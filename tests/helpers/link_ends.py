"""Proven ends of links without sockets or keys, for tests of what is decided about them."""

from __future__ import annotations

from swarm.net.links import PeerLink
from swarm.wire.connection import Connection, Remote
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import PROTOCOL, Lane
from swarm.wire.records import Address

PEER, OTHER = PeerId("11" * 16), PeerId("22" * 16)
FIRST, SECOND = BootId("01" * 8), BootId("02" * 8)
HERE = Address("10.0.0.1", 7417)


def connection(peer: PeerId = PEER, lane: Lane = Lane.FAST, now: float = 0.0, boot: BootId = FIRST) -> Connection:
    """The other end, proven."""
    return Connection(Remote(peer, boot, f"device {peer[:2]}", PROTOCOL, 7417, 7418, bytes.fromhex(peer)), lane, now)


def caller(number: int, lane: Lane = Lane.FAST, now: float = 0.0) -> PeerLink:
    """A link that somebody else makes; not proven yet."""
    return PeerLink(lane, HERE, now, routing=b"%d" % number, fd=number)
