"""Whether anything listens at an address: connections that are given up as soon as that is known. Nothing waits.

A kernel whose process has ended refuses at once. One that is frozen, cut off or without power does not answer, and one
that only closed a connection takes another: these say nothing.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket

from swarm import limits
from swarm.wire.ids import PeerId
from swarm.wire.records import Address


class Knocks:
    """Those that are on their way; `look` says which were refused."""

    def __init__(self) -> None:
        self._waiting: dict[socket.socket, tuple[PeerId, float]] = {}  # and since when
        self._refused: list[PeerId] = []  # at once

    def __bool__(self) -> bool:
        return bool(self._waiting or self._refused)

    def begin(self, peer: PeerId, address: Address, now: float) -> None:
        """See who is there; an address that is no number is not looked up."""
        if len(self._waiting) >= limits.MAX_PEERS:
            return
        with contextlib.suppress(OSError):
            numeric = socket.AI_NUMERICHOST
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=numeric)
            family, kind, protocol, _, place = found[0]
            probe = socket.socket(family, kind, protocol)
            probe.setblocking(False)
            self._waiting[probe] = peer, now
            outcome = probe.connect_ex(place)
            if outcome == errno.ECONNREFUSED:
                self._refused.append(peer)
            if outcome != errno.EINPROGRESS:
                self._forget(probe)

    def look(self, now: float) -> list[PeerId]:
        """Who was refused, of those that were knocked at."""
        refused, self._refused = self._refused, []
        for probe, (peer, since) in list(self._waiting.items()):
            poll = select.poll()
            poll.register(probe, select.POLLOUT)
            if poll.poll(0):
                if _is_refused(probe):
                    refused.append(peer)
                self._forget(probe)
            elif now - since > limits.KNOCK_S:
                self._forget(probe)
        return refused

    def close(self) -> None:
        """Nobody wants to know any more."""
        for probe in list(self._waiting):
            self._forget(probe)

    def _forget(self, probe: socket.socket) -> None:
        del self._waiting[probe]
        probe.close()


def _is_refused(probe: socket.socket) -> bool:
    return probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
