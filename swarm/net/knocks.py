"""Whether anything listens at an address: connections that are given up as soon as that is known. Nothing waits.

A kernel whose process has ended refuses at once. One that is frozen, cut off or without power does not answer, and one
that only closed a connection takes another: these say nothing. A process that is ending may have closed connections
and listen still, so one that was taken is followed by others, for a moment.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket

from swarm import limits
from swarm.value import Value
from swarm.wire.ids import PeerId
from swarm.wire.records import Address

AGAIN_S = 0.02  # after one that was taken, then after twice as long: six in all


class Visit(Value):
    """Whom one knocks at, since when, and when next if this one is taken."""

    peer: PeerId
    address: Address
    until: float
    again_at: float
    wait_s: float


class Knocks:
    """Those that are on their way; `look` says which were refused."""

    def __init__(self) -> None:
        self._waiting: dict[socket.socket, Visit] = {}
        self._later: list[Visit] = []
        self._refused: list[PeerId] = []  # at once

    def __bool__(self) -> bool:
        return bool(self._waiting or self._later or self._refused)

    def begin(self, peer: PeerId, address: Address, now: float) -> None:
        """See who is there; an address that is no number is not looked up."""
        if len(self._waiting) + len(self._later) < limits.MAX_PEERS:
            self._try(Visit(peer, address, now + limits.KNOCK_S, now + AGAIN_S, AGAIN_S))

    def look(self, now: float) -> list[PeerId]:
        """Who was refused, of those that were knocked at."""
        due = [visit for visit in self._later if now >= visit.again_at]
        self._later = [visit for visit in self._later if now < visit.again_at]
        for visit in due:
            wait_s = 2 * visit.wait_s
            self._try(Visit(visit.peer, visit.address, visit.until, now + wait_s, wait_s))
        refused, self._refused = self._refused, []
        for probe, visit in list(self._waiting.items()):
            poll = select.poll()
            poll.register(probe, select.POLLOUT)
            if poll.poll(0):
                self._forget(probe)
                if _is_refused(probe):
                    refused.append(visit.peer)
                else:
                    self._taken(visit)
                probe.close()
            elif now >= visit.until:
                self._forget(probe)
                probe.close()
        return refused

    def close(self) -> None:
        """Nobody wants to know any more."""
        for probe in list(self._waiting):
            self._forget(probe)
            probe.close()
        self._later = []

    def _try(self, visit: Visit) -> None:
        with contextlib.suppress(OSError):
            host, port, numeric = visit.address.host, visit.address.port, socket.AI_NUMERICHOST
            family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=numeric)[0]
            probe = socket.socket(family, kind, protocol)
            probe.setblocking(False)
            outcome = probe.connect_ex(place)
            if outcome == errno.EINPROGRESS:
                self._waiting[probe] = visit
                return
            probe.close()
            if outcome == errno.ECONNREFUSED:
                self._refused.append(visit.peer)
            elif outcome == 0:
                self._taken(visit)

    def _taken(self, visit: Visit) -> None:
        if visit.again_at < visit.until:
            self._later.append(visit)

    def _forget(self, probe: socket.socket) -> None:
        del self._waiting[probe]


def _is_refused(probe: socket.socket) -> bool:
    return probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
