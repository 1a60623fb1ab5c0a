"""Devices that fetch a model from each other under a virtual clock: links with rates, liars, deaths, losses.

Every device has an uplink and a downlink that carry one chunk at a time; a chunk takes its bytes / rate on both, at
the same time, after half a round trip. Requests and small messages cost half a round trip.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from swarm import limits
from swarm.store.pull import AskChunk, AskHave, Ban, Cancel, Pull, PullEffect
from swarm.wire.ids import PeerId

GIGABIT = 112e6  # bytes per second of payload


@dataclass
class Device:
    """A device: what it has, how it behaves, and its pull when it fetches."""

    have: np.ndarray
    bytes_per_s: float = GIGABIT
    lies: float = 0.0  # share of answers with wrong bytes
    loses: float = 0.0  # share of answers that never come
    alive: bool = True
    frozen: bool = False
    pull: Pull | None = None
    up_free_at: float = 0.0
    down_free_at: float = 0.0
    sent_bytes: int = 0
    received: Counter = field(default_factory=Counter)
    bans: list[PeerId] = field(default_factory=list)
    done_at: float | None = None
    cancelled: set[int] = field(default_factory=set)


class Lan:
    """The devices and the clock. `check` runs after every event."""

    def __init__(self, sizes: np.ndarray, seed: int, *, rtt_s: float = 0.0005, verify_s: float = 0.001) -> None:
        self.sizes = sizes
        self.rng = random.Random(seed)
        self.rtt_s = rtt_s
        self.verify_s = verify_s
        self.now = 0.0
        self.devices: dict[PeerId, Device] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._n = 0

    def add(self, name: str, have: Iterable[int] = (), **kwargs: object) -> Device:
        held = np.zeros(len(self.sizes), np.bool_)
        held[list(have)] = True
        device = self.devices[PeerId(name)] = Device(held, **kwargs)  # type: ignore[arg-type]
        return device

    def fetch(self, name: str, wanted: Iterable[int], peers: Iterable[str] | None = None) -> Pull:
        """Let a device fetch what it does not have, from `peers` (default: all others)."""
        device = self.devices[PeerId(name)]
        pull = device.pull = Pull(self.sizes, random.Random(self.rng.random()))
        self.apply(PeerId(name), pull.want([chunk for chunk in wanted if not device.have[chunk]], self.now))
        for peer in peers if peers is not None else [other for other in self.devices if other != name]:
            self.apply(PeerId(name), pull.add_peer(PeerId(peer), self.now))
        self._tick(PeerId(name), pull)
        return pull

    def at(self, time: float, action: Callable[[], None]) -> None:
        self._n += 1
        heapq.heappush(self._queue, (time, self._n, action))

    def run(self, until: float, stop: Callable[[], bool] | None = None) -> None:
        while self._queue and self._queue[0][0] <= until and not (stop and stop()):
            self.now, _, action = heapq.heappop(self._queue)
            action()
            self.check()

    def check(self) -> None:
        for name, device in self.devices.items():
            pull = device.pull
            if pull is None:
                continue
            assert pull._bytes_out <= limits.MAX_PULL_BYTES + limits.MAX_CHUNK_BYTES, name
            assert pull._bytes_out == sum(r.n_bytes for r in [*pull._requests.values(), *pull._arrived.values()])
            for peer_id, peer in pull._peers.items():
                assert peer_id not in pull.banned
                assert peer.asked_bytes == sum(r.n_bytes for r in peer.requests.values()) >= 0
                assert len(peer.requests) <= limits.MAX_PULL_REQUESTS
            assert (pull._n_holders >= 0).all()
            assert pull.bytes_done <= pull.bytes_wanted

    # ---- effects of a pull

    def apply(self, name: PeerId, effects: list[PullEffect]) -> None:
        pull = self.devices[name].pull
        for effect in effects:
            if isinstance(effect, AskChunk):
                assert effect.peer not in pull.banned and effect.n_bytes == self.sizes[effect.chunk]
                peer = pull._peers[effect.peer]
                assert peer.asked_bytes < peer.window_bytes + limits.MAX_CHUNK_BYTES
                self.at(self.now + self.rtt_s / 2, lambda ask=effect: self._serve(name, pull, ask))
            elif isinstance(effect, AskHave):
                self.at(self.now + self.rtt_s / 2, lambda peer=effect.peer: self._tell(name, pull, peer))
            elif isinstance(effect, Ban):
                assert str(self.devices[effect.peer].lies > 0) == "True", f"{effect.peer} never lied"
                self.devices[name].bans.append(effect.peer)
            elif isinstance(effect, Cancel):
                self.devices[name].cancelled.add(effect.request)
        if pull.done and self.devices[name].done_at is None:
            self.devices[name].done_at = self.now

    def _event(self, name: PeerId, pull: Pull, call: Callable[[], list[PullEffect]]) -> None:
        if self.devices[name].pull is pull and self.devices[name].alive:
            self.apply(name, call())

    def _tick(self, name: PeerId, pull: Pull) -> None:
        if self.devices[name].pull is not pull or pull.done:
            return
        self.at(self.now + limits.PULL_TICK_S, lambda: self._tick(name, pull))
        self._event(name, pull, lambda: pull.tick(self.now))

    def _tell(self, name: PeerId, pull: Pull, peer: PeerId) -> None:
        device = self.devices[peer]
        if device.alive and not device.frozen:
            bits = np.packbits(device.have, bitorder="little").tobytes()
            later = self.now + self.rtt_s / 2
            self.at(later, lambda: self._event(name, pull, lambda: pull.peer_has(peer, bits, 0, self.now)))

    def _serve(self, name: PeerId, pull: Pull, ask: AskChunk) -> None:
        server, asker = self.devices[ask.peer], self.devices[name]
        if not server.alive or server.frozen or self.rng.random() < server.loses or ask.request in asker.cancelled:
            return
        if not server.have[ask.chunk]:
            self.at(
                self.now + self.rtt_s / 2,
                lambda: self._event(name, pull, lambda: pull.arrived(ask.request, False, self.now)),
            )
            return
        start = max(self.now, server.up_free_at)
        server.up_free_at = start + ask.n_bytes / server.bytes_per_s
        server.sent_bytes += ask.n_bytes
        right = self.rng.random() >= server.lies

        def receive() -> None:
            asker.down_free_at = max(asker.down_free_at, self.now) + ask.n_bytes / asker.bytes_per_s
            self.at(asker.down_free_at + self.rtt_s / 2, lambda: self._deliver(name, pull, ask, right))

        self.at(max(self.now, server.up_free_at - ask.n_bytes / asker.bytes_per_s), receive)

    def _deliver(self, name: PeerId, pull: Pull, ask: AskChunk, right: bool) -> None:
        device = self.devices[name]
        if not self.devices[ask.peer].alive or device.pull is not pull or not pull.is_wanted(ask.request):
            return
        self._event(name, pull, lambda: pull.arrived(ask.request, True, self.now))

        def verify() -> None:
            if device.pull is pull:
                device.received[ask.chunk] += right
                device.have[ask.chunk] |= right
                self._event(name, pull, lambda: pull.verified(ask.request, right, self.now))

        self.at(self.now + self.verify_s, verify)
