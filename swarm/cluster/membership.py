"""Who is there: what a node believes about its peers, from links, heartbeats and what they say about each other.

A peer is `alive` while it is heard, `suspect` when it was silent for SUSPECT_S or its link broke, `lost` after
PEER_SILENCE_S of silence, DOWN_GRACE_S after a broken link, or at once when it said goodbye or nothing listens there
any more. Who shares layers beats quickly, and is lost sooner: after QUICK_SILENCE_S, or STALL_FACTOR times the longest
pause between its last heartbeats, so that one which is only slow is given the time that it takes. A lost peer is there
again when its link comes `up`; or, where only its silence was too long and its link never broke (the transport judges
silence by a clock of its own, and may have heard it in the last moment), when it is heard.

Nobody votes, and there is no leader: each node acts on its own belief. That is safe because nothing that a wrong belief
could spoil is shared (see session.py): a device that is wrongly held to be lost costs time, never a token.

Two runs of one device: a restart sends a new boot id, and the old one is never heard again. If it is, the device id was
cloned (a copied SD card); then neither is used until only one has been heard for CLONE_S.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from swarm import limits
from swarm.cluster.cost import GUESSED_LINK, Exchange, LinkSpeed
from swarm.cluster.effects import NEVER
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import Measured
from swarm.wire.records import Capabilities, LinkMeasurement, NodeState

AWAKE_S = limits.SUSPECT_S / 2  # between two looks at the clock while somebody is there: a longer gap was our own sleep


class Health(StrEnum):
    """What we believe of a peer."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    LOST = "lost"


@dataclass(slots=True)
class Peer:
    """One other device."""

    id: PeerId
    name: str
    boot: BootId
    health: Health
    heard_at: float
    link_up: bool = True
    down_at: float = 0.0
    state: NodeState = field(default_factory=NodeState)
    capabilities: Capabilities | None = None
    reaches: dict[PeerId, LinkMeasurement] | None = None  # what it said; None: nothing yet
    rtt_s: float | None = None
    bytes_per_s: float = 0.0
    exchanges: deque[Exchange] = field(default_factory=lambda: deque(maxlen=limits.REHEARSALS_KEPT))  # with it
    old_boots: deque[BootId] = field(default_factory=lambda: deque(maxlen=4))
    cloned_until: float = 0.0
    lost_at: deque[float] = field(default_factory=lambda: deque(maxlen=limits.MAX_FLAPS))
    lost_why: str = ""
    beat_at: float = 0.0  # the last heartbeat
    stalls: deque[float] = field(default_factory=lambda: deque(maxlen=limits.STALLS_KEPT))  # so late were quick ones

    @property
    def exchange(self) -> Exchange | None:
        """The quickest of those seen lately, for whatever disturbs one makes it slower; None before the first."""
        return min(self.exchanges, key=lambda seen: seen.wait_s, default=None)

    @property
    def pace(self) -> float:
        """How many usual intervals it takes between two heartbeats, as it says itself: 1, or more while it is idle."""
        return self.state.beat_s / limits.HEARTBEAT_INTERVAL_S

    @property
    def patience_s(self) -> float:
        """Silence of it that is too long."""
        most_s = limits.PEER_SILENCE_S * self.pace
        if not self.state.quick:
            return most_s
        pause_s = limits.QUICK_HEARTBEAT_S + max(self.stalls, default=0.0)
        return min(most_s, max(limits.QUICK_SILENCE_S, limits.STALL_FACTOR * pause_s))

    def is_flapping(self, now: float) -> bool:
        return len(self.lost_at) == limits.MAX_FLAPS and now - self.lost_at[0] < limits.FLAP_WINDOW_S


# --- what changes


@dataclass(frozen=True, slots=True)
class Change:
    """Base of what membership reports."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Joined(Change):
    """A device is there (again); `restarted` when it lost what it had in memory."""

    restarted: bool


@dataclass(frozen=True, slots=True)
class Lost(Change):
    """A device is gone; `why` in words."""

    why: str


@dataclass(frozen=True, slots=True)
class Suspected(Change):
    """A device was silent for a moment."""


@dataclass(frozen=True, slots=True)
class Cloned(Change):
    """Two devices with one id are running."""

    names: tuple[str, str]


@dataclass(frozen=True, slots=True)
class ReachChanged(Change):
    """A device said that it reaches other devices than before."""


class Membership:
    """The peers of one node. Every method that can change a belief returns the changes."""

    def __init__(self, me: PeerId, boot: BootId, name: str) -> None:
        self.me = me
        self.boot = boot
        self.name = name
        self.peers: dict[PeerId, Peer] = {}
        self.cloned_me_until = 0.0
        self._ticked_at: float | None = None

    # --- events

    def up(self, peer_id: PeerId, boot: BootId, name: str, now: float) -> list[Change]:
        """A link to a proven peer is there."""
        if peer_id == self.me:
            return self._met_myself(boot, name, now)
        peer = self.peers.get(peer_id)
        if peer is None:
            if len(self.peers) >= limits.MAX_PEERS:
                return []
            self.peers[peer_id] = Peer(peer_id, name, boot, Health.ALIVE, now)
            return [Joined(peer_id, restarted=False)]
        if boot == peer.boot:
            return self._came_back(peer, now)
        if boot in peer.old_boots and peer.heard_at > now - limits.CLONE_S:
            return self._is_cloned(peer, name, now)
        return self._restarted(peer, boot, name, now)

    def down(self, peer_id: PeerId, why: str, now: float, *, certain: bool) -> list[Change]:
        """The link broke. `certain`: it said goodbye, or nothing listens there any more."""
        peer = self.peers.get(peer_id)
        if peer is None:
            return []
        if peer.link_up:
            peer.link_up, peer.down_at = False, now
        if peer.health is Health.LOST:
            return []
        return self._lose(peer, why, now) if certain else self._suspect(peer)

    def clone_seen(self, peer_id: PeerId, name: str, now: float) -> list[Change]:
        """The transport met two running devices with one id."""
        if peer_id == self.me:
            return self._met_myself(BootId(""), name, now)
        peer = self.peers.get(peer_id)
        return self._is_cloned(peer, name, now) if peer is not None else []

    def heard(self, peer_id: PeerId, now: float) -> list[Change]:
        """Any message came from it. What comes late, after its link broke, brings no lost peer back."""
        peer = self.peers.get(peer_id)
        if peer is None or (peer.health is Health.LOST and not peer.link_up):
            return []
        peer.heard_at = now
        if peer.health is Health.ALIVE:
            return []
        return self._came_back(peer, now) if peer.link_up else []

    def state(self, peer_id: PeerId, state: NodeState, rtt_s: float | None, now: float) -> None:
        """What its heartbeat said."""
        peer = self.peers.get(peer_id)
        if peer is not None:
            if peer.state.quick:
                peer.stalls.append(max(now - peer.beat_at - limits.QUICK_HEARTBEAT_S, 0.0))
            peer.beat_at = now
            peer.state, peer.rtt_s = state, rtt_s if rtt_s is not None else peer.rtt_s

    def measured(self, peer_id: PeerId, message: Measured) -> list[Change]:
        """What it measured about itself and its links."""
        peer = self.peers.get(peer_id)
        if peer is None:
            return []
        before = peer.reaches.keys() if peer.reaches is not None else None
        peer.capabilities = message.capabilities
        peer.reaches = {link.peer: link for link in message.links}
        return [ReachChanged(peer_id)] if before != peer.reaches.keys() else []

    def link_measured(self, peer: PeerId, bytes_per_s: float) -> None:
        """We measured the throughput to it."""
        if peer in self.peers:
            self.peers[peer].bytes_per_s = bytes_per_s

    def rehearsed(self, peer: PeerId, seen: Exchange) -> None:
        """We exchanged sums with it."""
        if peer in self.peers:
            self.peers[peer].exchanges.append(seen)

    def tick(self, now: float) -> list[Change]:
        """Time passed."""
        self._forgive_our_own_sleep(now)
        changes: list[Change] = []
        for peer in self.peers.values():
            if peer.health is not Health.LOST:
                changes += self._check(peer, now)
        return changes

    def timer(self) -> float:
        """When `tick` has something to do next."""
        due, fastest = NEVER, NEVER
        for peer in self.peers.values():
            if peer.health is Health.LOST:
                continue
            pace, wait_s = peer.pace, peer.patience_s
            fastest = min(fastest, pace)
            if peer.health is Health.ALIVE:
                wait_s = min(wait_s, limits.SUSPECT_S * pace)
            due = min(due, peer.heard_at + wait_s)
            if not peer.link_up:
                due = min(due, peer.down_at + limits.DOWN_GRACE_S)
        return min(due, (self._ticked_at or 0.0) + AWAKE_S * fastest)

    # --- questions

    @property
    def pace(self) -> float:
        """That of the fastest living peer: 1 in a swarm that has something to do."""
        return min((peer.pace for peer in self.peers.values() if peer.health is not Health.LOST), default=1.0)

    def is_alive(self, peer: PeerId) -> bool:
        """True for ourselves and for every peer that is not lost."""
        return peer == self.me or (peer in self.peers and self.peers[peer].health is not Health.LOST)

    def living(self) -> Iterator[Peer]:
        """Peers that are not lost, by id."""
        return (self.peers[p] for p in sorted(self.peers) if self.peers[p].health is not Health.LOST)

    def name_of(self, peer: PeerId) -> str:
        if peer == self.me:
            return self.name
        return self.peers[peer].name if peer in self.peers else peer[:8]

    def why_unusable(self, peer_id: PeerId, now: float) -> str:
        """Why nothing may be placed there; empty when something may."""
        if peer_id == self.me:
            return "another device runs with this device's id" if now < self.cloned_me_until else ""
        peer = self.peers[peer_id]
        if now < peer.cloned_until:
            return "two devices run with its id (a copied disk?): remove the keys on one and let it join anew"
        return ""

    def doubts(self, peer_id: PeerId, now: float) -> str:
        """Why it is only to be used where nothing fits without it; empty when it is as good as any."""
        peer = self.peers.get(peer_id)
        if peer is None:
            return ""
        if peer.health is Health.SUSPECT:
            return "it has not been heard for a moment"
        return f"it was lost {limits.MAX_FLAPS} times lately" if peer.is_flapping(now) else ""

    def link(self, a: PeerId, b: PeerId) -> LinkSpeed | None:
        """The link from a to b as far as we know; None when one of them says that it does not reach the other."""
        if self.me in (a, b):
            other = self.peers.get(b if a == self.me else a)
            if other is None or other.health is Health.LOST or not self._says_it_reaches(other, self.me):
                return None
            rtt = other.rtt_s if other.rtt_s is not None else GUESSED_LINK.rtt_s
            exchange = other.exchange
            return LinkSpeed(rtt, other.bytes_per_s or GUESSED_LINK.bytes_per_s, exchange, exchange is not None)
        return self._link_between(a, b)

    def measured_links(self) -> tuple[LinkMeasurement, ...]:
        """Whom we reach, for others to know."""
        return tuple(map(_said_of, self.living()))

    # --- within

    def _link_between(self, a: PeerId, b: PeerId) -> LinkSpeed | None:
        pa, pb = self.peers.get(a), self.peers.get(b)
        if pa is None or pb is None or not self._says_it_reaches(pa, b) or not self._says_it_reaches(pb, a):
            return None
        said = pa.reaches.get(b) if pa.reaches is not None else None
        if said is None:
            return replace(GUESSED_LINK, may_share=False)
        exchange = Exchange(said.exchange_s, said.exchange_bytes_per_s) if said.exchange_bytes_per_s else None
        return LinkSpeed(said.rtt_s, said.bytes_per_s or GUESSED_LINK.bytes_per_s, exchange, exchange is not None)

    @staticmethod
    def _says_it_reaches(peer: Peer, other: PeerId) -> bool:
        return peer.reaches is None or other in peer.reaches

    def _check(self, peer: Peer, now: float) -> list[Change]:
        if now >= peer.heard_at + peer.patience_s:
            return self._lose(peer, f"it has not been heard for {now - peer.heard_at:.1f} s", now)
        if not peer.link_up and now >= peer.down_at + limits.DOWN_GRACE_S:
            return self._lose(peer, "its link broke", now)
        return self._suspect(peer) if now >= peer.heard_at + limits.SUSPECT_S * peer.pace else []

    def _suspect(self, peer: Peer) -> list[Change]:
        if peer.health is not Health.ALIVE:
            return []
        peer.health = Health.SUSPECT
        return [Suspected(peer.id)]

    def _lose(self, peer: Peer, why: str, now: float) -> list[Change]:
        peer.health, peer.lost_why = Health.LOST, why
        peer.lost_at.append(now)
        peer.reaches = None
        return [Lost(peer.id, why)]

    def _came_back(self, peer: Peer, now: float) -> list[Change]:
        peer.heard_at, peer.link_up = now, True
        was, peer.health = peer.health, Health.ALIVE
        return [Joined(peer.id, restarted=False)] if was is Health.LOST else []

    def _restarted(self, peer: Peer, boot: BootId, name: str, now: float) -> list[Change]:
        changes: list[Change] = []
        if peer.health is not Health.LOST:
            changes = self._lose(peer, "it was restarted", now)
        peer.old_boots.append(peer.boot)
        peer.boot, peer.name, peer.health = boot, name, Health.ALIVE
        peer.heard_at, peer.link_up, peer.reaches, peer.state = now, True, None, NodeState()
        return [*changes, Joined(peer.id, restarted=True)]

    def _is_cloned(self, peer: Peer, name: str, now: float) -> list[Change]:
        new, peer.cloned_until = now >= peer.cloned_until, now + limits.CLONE_S
        return [Cloned(peer.id, (peer.name, name))] if new else []

    def _met_myself(self, boot: BootId, name: str, now: float) -> list[Change]:
        if boot == self.boot:
            return []
        new, self.cloned_me_until = now >= self.cloned_me_until, now + limits.CLONE_S
        return [Cloned(self.me, (self.name, name))] if new else []

    def _forgive_our_own_sleep(self, now: float) -> None:
        """After this process was stopped or its machine slept, silence says nothing about the others."""
        slept = now - self._ticked_at if self._ticked_at is not None else 0.0
        self._ticked_at = now
        if slept > limits.SUSPECT_S * self.pace:
            for peer in self.peers.values():
                peer.heard_at, peer.down_at = min(peer.heard_at + slept, now), min(peer.down_at + slept, now)


def _said_of(peer: Peer) -> LinkMeasurement:
    """What others are told of our link to a peer."""
    rtt_s, seen = peer.rtt_s if peer.rtt_s is not None else GUESSED_LINK.rtt_s, peer.exchange
    if seen is None:
        return LinkMeasurement(peer.id, rtt_s, peer.bytes_per_s)
    return LinkMeasurement(peer.id, rtt_s, peer.bytes_per_s, seen.wait_s, seen.bytes_per_s)
