"""Which chunk to ask of which peer: pure, so that it runs under a virtual clock. Events and `now` in, effects out.

- From all peers that have something at once; the rarest chunks first, in runs that follow the peer's disk, each run
  from a random place, so that devices which fetch at the same time soon have something for each other.
- To each peer as much is asked ahead as it delivers in PULL_WINDOW_S, so that a fast link stays full and a slow one
  short. Everything that is asked or not yet on disk is bounded by MAX_PULL_BYTES.
- A peer that delivers nothing for a while loses its requests to others and is tried again later; one whose bytes do not
  have the promised hash is banned, and named. Whole chunks come from one peer, so the blame is certain.
- In the end idle peers are asked for what is slow to come from others; whichever arrives second is cancelled.
- `set_rate` throttles all of it while an answer needs the network.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from swarm import limits
from swarm.store.pacing import RateLimit
from swarm.store.pull_peer import AskedChunk, PullPeer
from swarm.wire.ids import PeerId


@dataclass(frozen=True, slots=True)
class AskChunk:
    """Request a whole chunk."""

    peer: PeerId
    request: int
    chunk: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """A request is not needed any more; an answer to it is ignored."""

    peer: PeerId
    request: int


@dataclass(frozen=True, slots=True)
class AskHave:
    """AskChunk a peer which chunks it has now; the answer comes in by `peer_has`."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Ban:
    """A peer sent wrong bytes. It is not asked again; the reason is one line for the user."""

    peer: PeerId
    reason: str


PullEffect = AskChunk | Cancel | AskHave | Ban

_IDLE, _NEEDED, _ASKED, _ARRIVED = 0, 1, 2, 3  # what is the matter with a chunk


class Pull:
    """Fetches the wanted chunks of one model. `sizes` are the bytes of all its chunks."""

    def __init__(self, sizes: npt.NDArray[np.int64], rng: random.Random, name: str = "the model") -> None:
        self.name = name
        self.bytes_wanted = 0
        self.bytes_done = 0
        self.banned: set[PeerId] = set()
        self._sizes = sizes
        self._rng = rng
        self._state = np.full(len(sizes), _IDLE, np.uint8)
        self._n_holders = np.zeros(len(sizes), np.int32)
        self._n_open = 0  # chunks that are wanted and not verified
        self._peers: dict[PeerId, PullPeer] = {}
        self._requests: dict[int, AskedChunk] = {}
        self._copies: dict[int, set[int]] = {}  # chunk -> its requests
        self._arrived: dict[int, AskedChunk] = {}  # not verified yet
        self._bytes_out = 0  # asked, or arrived and not verified
        self._next_request = 1
        self._limit = RateLimit()
        self._ticked_at = 0.0

    # ---- what there is to know

    @property
    def done(self) -> bool:
        """True when every wanted chunk was verified."""
        return self._n_open == 0

    def unavailable(self) -> list[int]:
        """Wanted chunks that no peer has: why nothing happens."""
        missing = ((self._state == _NEEDED) | (self._state == _ASKED)) & (self._n_holders == 0)
        return [int(chunk) for chunk in np.flatnonzero(missing)]

    def next_tick(self, now: float) -> float | None:
        """When to call `tick`, should no event come before; None: never."""
        if self.done or not self._peers:
            return None
        due = self._ticked_at + limits.PULL_TICK_S
        wait_s = self._limit.wait_s(now)
        return due if wait_s is None else min(due, now + wait_s)

    # ---- events

    def want(self, chunks: Iterable[int], now: float) -> list[PullEffect]:
        """Fetch these chunks too."""
        wanted = np.zeros(len(self._sizes), np.bool_)
        wanted[np.fromiter(chunks, np.int64)] = True
        new = np.flatnonzero(wanted & (self._state == _IDLE))
        self._state[new] = _NEEDED
        self._n_open += len(new)
        self.bytes_wanted += int(self._sizes[new].sum())
        return self._fill(now)

    def add_peer(self, peer: PeerId, now: float) -> list[PullEffect]:
        """A peer that may have chunks of this model."""
        if peer in self._peers or peer in self.banned or len(self._peers) >= limits.MAX_PULL_PEERS:
            return []
        self._peers[peer] = PullPeer(np.zeros(len(self._sizes), np.bool_), asked_have_at=now)
        return [AskHave(peer)]

    def peer_has(self, peer: PeerId, bits: bytes, start: int, now: float) -> list[PullEffect]:
        """The peer says which chunks it has from number `start` on: one bit each, least significant first."""
        state = self._peers.get(peer)
        if state is None or not 0 <= start <= len(self._sizes):
            return []
        told = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")[: len(self._sizes) - start].astype(
            np.bool_
        )
        part = slice(start, start + len(told))
        self._n_holders[part] += told.astype(np.int32) - state.have[part]
        state.have[part] = told
        return self._fill(now)

    def peer_gone(self, peer: PeerId, now: float) -> list[PullEffect]:
        """The peer is not there any more; it may come back by `add_peer`."""
        self._remove(peer)
        return self._fill(now)

    def arrived(self, request: int, found: bool, now: float) -> list[PullEffect]:
        """The answer to a request: the bytes, which go to be verified and stored, or that the chunk is not there."""
        held = self._requests.get(request)
        if held is None:
            return []
        peer = self._peers[held.peer]
        peer.heard(now)
        if found:
            peer.count(held.n_bytes, now)
            self._close(request)
            self._arrived[request] = held
            self._bytes_out += held.n_bytes
            self._state[held.chunk] = _ARRIVED
            return self._fill(now, [held.peer])
        self._close(request)
        self._reopen(held.chunk)
        self._n_holders[held.chunk] -= peer.have[held.chunk]
        peer.have[held.chunk] = False
        return self._fill(now)

    def is_wanted(self, request: int) -> bool:
        """True when the bytes of this answer are worth verifying."""
        return request in self._requests or request in self._arrived

    def verified(self, request: int, right: bool, now: float) -> list[PullEffect]:
        """The bytes of an answer were verified, and stored if they are right."""
        held = self._arrived.pop(request, None)
        if held is None:
            return []
        was_full = self._bytes_out >= limits.MAX_PULL_BYTES
        self._bytes_out -= held.n_bytes
        if not right:
            self._reopen(held.chunk)
            return [*self._ban(held), *self._fill(now)]
        effects: list[PullEffect] = []
        if self._state[held.chunk] != _IDLE:
            self._state[held.chunk] = _IDLE
            self._n_open -= 1
            self.bytes_done += held.n_bytes
            effects += [self._cancel(other) for other in sorted(self._copies.get(held.chunk, ()))]
        return effects + self._fill(now) if was_full or effects else []

    def not_kept(self, request: int, now: float) -> list[PullEffect]:
        """The bytes could not be stored (the disk is full): nobody's fault, the chunk is still wanted."""
        held = self._arrived.pop(request, None)
        if held is not None:
            self._bytes_out -= held.n_bytes
            self._reopen(held.chunk)
        return self._fill(now)

    def set_rate(self, bytes_per_s: float | None, now: float) -> list[PullEffect]:
        """AskChunk for no more than this; 0 pauses, None lets go."""
        self._limit.set_rate(bytes_per_s, now)
        return self._fill(now)

    def tick(self, now: float) -> list[PullEffect]:
        """Time has passed: lose patience, try again, help."""
        self._ticked_at = now
        effects: list[PullEffect] = []
        for peer in self._peers.values():
            if peer.requests and now >= peer.deadline():
                peer.give_up(now)
                effects += [self._cancel(request) for request in list(peer.requests)]
        return effects + self._fill(now)

    # ---- deciding

    def _fill(self, now: float, peers: list[PeerId] | None = None) -> list[PullEffect]:
        """AskChunk these peers (None: all) in turns, until windows, memory or the rate limit are used up."""
        effects: list[PullEffect] = []
        if peers is None:
            peers = list(self._peers)
            self._rng.shuffle(peers)
        ready = [peer_id for peer_id in peers if self._peers[peer_id].is_ready(now)] if self._n_open else []
        while ready:
            still_ready = []
            for peer_id in ready:
                if self._bytes_out >= limits.MAX_PULL_BYTES or not self._limit.may_go(now):
                    return effects
                peer = self._peers[peer_id]
                chunk = self._choose(peer_id, peer, now)
                if chunk is not None:
                    effects.append(self._ask(peer_id, peer, chunk, now))
                    if peer.is_ready(now):
                        still_ready.append(peer_id)
                elif now - peer.asked_have_at >= limits.PULL_HAVE_INTERVAL_S:
                    peer.asked_have_at = now
                    effects.append(AskHave(peer_id))
            ready = still_ready
        return effects

    def _choose(self, peer_id: PeerId, peer: PullPeer, now: float) -> int | None:
        """The next chunk for a peer: of its run, of a new run, or one that is slow to come from another."""
        while True:
            while peer.run:
                chunk = peer.run.popleft()
                if self._state[chunk] == _NEEDED and peer.have[chunk]:
                    return chunk
            candidates = np.flatnonzero((self._state == _NEEDED) & peer.have)
            if not len(candidates):
                return self._slow_elsewhere(peer_id, peer, now)
            peer.run.extend(self._new_run(candidates))

    def _new_run(self, candidates: npt.NDArray[np.intp]) -> list[int]:
        """Some of the rarest candidates, one after the other from a random one on."""
        n_holders = self._n_holders[candidates]
        rarest = candidates[n_holders == n_holders.min()]
        start = self._rng.randrange(len(rarest))
        run = rarest[start : start + limits.PULL_RUN_CHUNKS]
        n_more = limits.PULL_RUN_CHUNKS - len(run)
        run = np.concatenate([run, rarest[: min(start, n_more)]])
        n_fitting = int(np.searchsorted(np.cumsum(self._sizes[run]), limits.PULL_RUN_BYTES))
        return [int(chunk) for chunk in run[: n_fitting + 1]]

    def _slow_elsewhere(self, peer_id: PeerId, peer: PullPeer, now: float) -> int | None:
        for request in self._requests.values():
            if now - request.asked_at < limits.PULL_HELP_AFTER_S:
                return None  # they are in the order of asking
            if request.peer != peer_id and peer.have[request.chunk] and self._is_alone(request.chunk):
                return request.chunk
        return None

    def _is_alone(self, chunk: int) -> bool:
        return len(self._copies[chunk]) == 1 and self._state[chunk] == _ASKED

    def _ask(self, peer_id: PeerId, peer: PullPeer, chunk: int, now: float) -> AskChunk:
        number, n_bytes = self._next_request, int(self._sizes[chunk])
        self._next_request += 1
        request = self._requests[number] = AskedChunk(peer_id, chunk, n_bytes, now)
        peer.asked(number, request)
        self._copies.setdefault(chunk, set()).add(number)
        self._bytes_out += n_bytes
        self._state[chunk] = _ASKED
        self._limit.take(n_bytes)
        return AskChunk(peer_id, number, chunk, n_bytes)

    def _close(self, number: int) -> None:
        """A request is over, one way or another."""
        request = self._requests.pop(number)
        self._peers[request.peer].answered(number)
        self._copies[request.chunk].discard(number)
        if not self._copies[request.chunk]:
            del self._copies[request.chunk]
        self._bytes_out -= request.n_bytes

    def _cancel(self, number: int) -> Cancel:
        request = self._requests[number]
        self._close(number)
        self._reopen(request.chunk)
        return Cancel(request.peer, number)

    def _reopen(self, chunk: int) -> None:
        """A chunk did not come this way: it is needed again, unless another copy is on its way or here."""
        if self._state[chunk] == _IDLE:
            return
        if any(request.chunk == chunk for request in self._arrived.values()):
            self._state[chunk] = _ARRIVED
        else:
            self._state[chunk] = _ASKED if chunk in self._copies else _NEEDED

    def _ban(self, wrong: AskedChunk) -> list[PullEffect]:
        if wrong.peer in self.banned:
            return []
        self.banned.add(wrong.peer)
        self._remove(wrong.peer)
        reason = f"it sent a wrong chunk {wrong.chunk} of {self.name}: its hash is not the promised one"
        return [Ban(wrong.peer, reason)]

    def _remove(self, peer_id: PeerId) -> None:
        peer = self._peers.get(peer_id)
        if peer is None:
            return
        for number in list(peer.requests):
            self._cancel(number)
        self._n_holders -= peer.have
        del self._peers[peer_id]
