"""What devices tell each other about where the others are: pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from swarm import limits
from swarm.net.links import PeerInfo
from swarm.wire.ids import PeerId
from swarm.wire.messages import Gossip
from swarm.wire.records import Address, PeerAddresses


def tell(infos: tuple[PeerInfo, ...], now: float, leave_out: PeerId | None = None) -> Gossip:
    """Return what we know of the devices that are connected to us."""
    peers = [_told(info, now) for info in infos if info.peer != leave_out and is_told(info.address)]
    return Gossip(tuple(peers[: limits.MAX_PEERS]))


def news_of(infos: tuple[PeerInfo, ...], peer: PeerId, now: float) -> Gossip:
    """Return what we know of one device."""
    return tell(tuple(info for info in infos if info.peer == peer), now)


def to_learn(gossip: Gossip, me: PeerId, teller: Address) -> Iterator[tuple[PeerId, tuple[Address, ...]]]:
    """Yield the devices worth calling and where. Names are left out: looking them up would block a socket thread.

    Addresses of this very machine mean something only from a `teller` on it.
    """
    is_here = _is_loopback(teller)
    for told in gossip.peers:
        addresses = tuple(each for each in told.addresses if is_told(each) and (is_here or not _is_loopback(each)))
        if told.peer != me and addresses:
            yield told.peer, addresses


def is_told(address: Address) -> bool:
    """True for an address that means the same on another device."""
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        return False
    return not (ip.is_link_local or ip.is_multicast or ip.is_unspecified)


def _is_loopback(address: Address) -> bool:
    try:
        return ipaddress.ip_address(address.host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _told(info: PeerInfo, now: float) -> PeerAddresses:
    return PeerAddresses(info.peer, info.name, (info.address,), max(0.0, now - info.heard_at))
