"""Links to peers and which of them to use: pure. No socket is here; whoever has sockets keeps them by their link."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from swarm import limits
from swarm.net.budget import MessageBudget
from swarm.net.dial import Key
from swarm.wire.codec import Buffer
from swarm.wire.connection import Connection
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import Lane
from swarm.wire.records import Address, Version

Outgoing = tuple[bytes, Buffer | None]  # header, raw frame


@dataclass(eq=False)
class PeerLink:
    """One link: a call of ours, or a caller behind a listening socket (routing id and file descriptor)."""

    lane: Lane
    address: Address
    started_at: float
    key: Key | None = None  # whom a call is for, where the dialer asked for it
    has_greeted: bool = False
    routing: bytes = b""
    fd: int = -1
    connection: Connection | None = None  # once the other end is proven
    queue: deque[Outgoing] = field(default_factory=deque)

    @property
    def is_call(self) -> bool:
        """True when we called."""
        return not self.routing


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A connected device as `swarm status` shows it."""

    peer: PeerId
    name: str
    boot: BootId
    version: Version
    address: Address
    we_called: bool
    has_bulk: bool
    rtt_s: float | None
    wall_offset_s: float | None
    heard_at: float
    n_unknown: int


@dataclass
class ConnectedPeer:
    """A device and all links to it; bulk messages wait in `pending` until a bulk link is there."""

    connection: Connection
    lanes: dict[Lane, list[PeerLink]] = field(default_factory=lambda: {Lane.FAST: [], Lane.BULK: []})
    pending: deque[Outgoing] = field(default_factory=deque)
    call_bulk_at: float = 0.0
    budget: MessageBudget = field(default_factory=lambda: MessageBudget(0.0))

    def all(self) -> list[PeerLink]:
        """Every link, the fast ones first."""
        return [*self.lanes[Lane.FAST], *self.lanes[Lane.BULK]]


class Links:
    """Every proven link, by peer; and every incoming one by its routing id."""

    def __init__(self) -> None:
        self.peers: dict[PeerId, ConnectedPeer] = {}
        self.incoming: dict[Lane, dict[bytes, PeerLink]] = {Lane.FAST: {}, Lane.BULK: {}}

    def add(self, link: PeerLink, now: float) -> PeerLink | None:
        """Take a proven link in; return one of that lane when there are too many, to be closed.

        The link in use stays in use while it lives, so that messages keep their order; one that has not been heard of
        is replaced, because a peer calls anew when it has given the old link up.
        """
        assert link.connection is not None
        peer = self.peers.setdefault(link.connection.remote.peer, ConnectedPeer(link.connection))
        lane = peer.lanes[link.lane]
        in_use = lane[0].connection if lane else None
        is_alive = in_use is not None and now - in_use.heard_at < 2 * in_use.beat_s
        lane.insert(len(lane) if is_alive else 0, link)
        if link.routing:
            self.incoming[link.lane][link.routing] = link
        return lane[-1] if len(lane) > limits.MAX_LINKS_PER_LANE else None

    def remove(self, link: PeerLink) -> bool:
        """Forget a link; True when it was the last fast one to its peer."""
        if link.routing:
            self.incoming[link.lane].pop(link.routing, None)
        if link.connection is None:
            return False
        peer = self.peers.get(link.connection.remote.peer)
        if peer is None or link not in peer.lanes[link.lane]:
            return False
        peer.lanes[link.lane].remove(link)
        return link.lane is Lane.FAST and not peer.lanes[Lane.FAST]

    def best(self, peer: PeerId, lane: Lane) -> PeerLink | None:
        """Return the link to send on."""
        links = self.peers[peer].lanes[lane] if peer in self.peers else []
        return links[0] if links else None

    def by_fd(self, lane: Lane, fd: int) -> PeerLink | None:
        """Return the incoming link on that file descriptor."""
        return next((link for link in self.incoming[lane].values() if link.fd == fd), None)

    def all(self) -> Iterator[PeerLink]:
        """Every proven link."""
        for peer in list(self.peers.values()):
            yield from peer.all()

    def infos(self) -> tuple[PeerInfo, ...]:
        """Return what is known of every connected device."""
        return tuple(info for peer in list(self.peers) if (info := self._info(peer)) is not None)

    def _info(self, peer: PeerId) -> PeerInfo | None:
        link = self.best(peer, Lane.FAST)
        if link is None or link.connection is None:
            return None
        end, remote = link.connection, link.connection.remote
        return PeerInfo(
            peer,
            remote.name,
            remote.boot,
            remote.version,
            link.address,
            link.is_call,
            self.best(peer, Lane.BULK) is not None,
            end.rtt_s,
            end.wall_offset_s,
            end.heard_at,
            sum(end.unknown.values()),
        )
