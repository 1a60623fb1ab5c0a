"""The search behind the planner: which devices in which order, and where the layers are cut between them.

Exact for up to `EXACT_DEVICES` devices (dynamic programme over layers x sets of devices x last device, for every first
device, with the hop that closes the ring). Beyond, it improves an ordered list of devices by local search (drop,
replace, swap, insert), and each list is cut into layer ranges exactly (dynamic programme over layers x list). The
number of evaluations is bounded, so that 64 devices take well under a second. Ties go to the lower index: equal
inputs give an equal answer on every node.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from swarm.cluster.cost import FLOAT_BYTES, Device, LinkOf, ModelCost
from swarm.cluster.pipeline import Stage, hops
from swarm.cluster.prediction import TOKEN_BYTES, decode_s, round_s

EXACT_DEVICES = 6  # 46 layers: some 60 ms; 8 devices would take a second
SEARCH_WORK = 12_000  # (devices in the list) x (lists evaluated) of the local search; some 0.4 s
POOL_DEVICES = 24  # candidates that the local search may insert: the fastest, and the largest
FETCH_BIAS = 0.03  # a placement that is on the disks already may be this much slower than one to be fetched
PREFERENCE_S = 1e-9  # less than this is no gain: float noise must not decide

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Order = tuple[int, ...]  # indices of devices, in the order that a token passes them
Scored = tuple[float, Order]  # seconds per token
NOTHING: Scored = (float("inf"), ())


class Search:
    """One planning run: for each device the seconds of every layer range, infinite where it does not fit.

    `devices` must be sorted by id. Matrices are (n_layers + 1, n_layers + 1): entry [i, j] is the range [i, j).
    """

    def __init__(self, model: ModelCost, devices: Sequence[Device], link: LinkOf, context: int, sessions: int) -> None:
        self.model = model
        self.devices = tuple(devices)
        self.context = context
        self.sessions = sessions
        self.n = model.n_layers
        self.sums = _Sums.of(model)
        self.memory = self.sums.memory(model, context * sessions)
        self.hop = self._hops(link, model.hidden * FLOAT_BYTES)
        self.back = self._hops(link, TOKEN_BYTES)
        self.costs = [self._biased_cost(device) for device in self.devices]

    def best(self) -> tuple[Stage[Device], ...] | None:
        """The fastest placement; None when there is none."""
        if not self.devices:
            return None
        everyone = range(len(self.devices))
        _, order = self._exact(everyone) if len(everyone) <= EXACT_DEVICES else self._local_search()
        return self.cut(order) if order else None

    def rings(self) -> Iterator[tuple[Stage[Device], ...]]:
        """For several sessions, which are in as many stages at once: the fastest devices, more and more of them."""
        fast = sorted(range(len(self.devices)), key=lambda i: (-self.devices[i].read_bytes_per_s, i))
        for k in range(2, min(len(fast), self.sessions) + 1):
            stages = self.cut(tuple(fast[:k]), together=np.maximum)
            if stages is not None:
                yield stages

    def cut(self, order: Order, together: np.ufunc = np.add) -> tuple[Stage[Device], ...] | None:
        """The best layer ranges for this list of devices, at least one layer each; None when they do not fit.

        What counts is the sum of all stages or, with np.maximum `together`, the slowest one.
        """
        done = self.costs[order[0]][0]
        came: list[Ints] = []
        for new in order[1:]:
            reached = together(done[:, None], self.costs[new])
            came.append(np.argmin(reached, axis=0))
            done = np.min(reached, axis=0)
        if not np.isfinite(done[self.n]):
            return None
        ends = [self.n]
        for at in reversed(came):
            ends.append(int(at[ends[-1]]))
        ends.append(0)
        ends.reverse()
        return tuple(Stage(a, b, (self.devices[d],)) for d, (a, b) in zip(order, pairwise(ends), strict=True))

    def order_s(self, order: Order) -> float:
        """Seconds per token (with the bias for fetching) of the best cut over this list of devices."""
        ring = self._ring_s(order)
        if not np.isfinite(ring):
            return ring
        done = self.costs[order[0]][0]
        for new in order[1:]:
            done = np.min(done[:, None] + self.costs[new], axis=0)
        return float(done[self.n]) + ring

    def fetch_bytes(self, first: int, end: int, device: Device) -> int:
        """Bytes of the layers [first, end), or of its slice of them, that are not on that device's disk."""
        parts = self.model.parts(first, end, device.slice)
        missing = [part for part in parts if part not in device.held and part.whole not in device.held]
        if not missing or not device.slice:
            return sum(self.model.stored_bytes(part) for part in missing)
        # Layers are cut alike, and there are too many of them to look at each slice.
        ends, layers = ([part for part in missing if part.is_layer is kind] for kind in (False, True))
        whole = sum(self.model.stored_bytes(part.whole) for part in layers)
        last = layers[-1:]
        share = sum(map(self.model.stored_bytes, last)) / max(sum(self.model.stored_bytes(p.whole) for p in last), 1)
        return sum(map(self.model.stored_bytes, ends)) + int(share * whole)

    def score(self, stages: Sequence[Stage[Device]], link: LinkOf) -> float:
        """Seconds per token of a placement, with the bias for fetching; infinite where it cannot be.

        Of several sessions at once: seconds in which one of all their tokens comes.
        """
        if any(link(a.id, b.id) is None for a, b in hops(stages)):
            return float("inf")
        fetch = [self.fetch_bytes(stage.first, stage.end, d) for stage in stages for d in stage.members]
        rooms = [device.disk_bytes for stage in stages for device in stage.members]
        if any(n_bytes > room for n_bytes, room in zip(fetch, rooms, strict=True)):
            return float("inf")
        bias = FETCH_BIAS * self._fastest_token_s / max(self.model.weight_bytes, 1)
        return self._token_s(stages, link) + bias * sum(fetch)

    def _token_s(self, stages: Sequence[Stage[Device]], link: LinkOf) -> float:
        if self.sessions == 1:
            return decode_s(self.model, stages, link, self.context)
        return round_s(self.model, stages, link, self.context, self.sessions) / self.sessions

    def holds_a_layer(self, index: int) -> bool:
        """True when some layer fits on this device."""
        return bool(np.isfinite(self.costs[index]).any())

    def why_no_layer(self, index: int) -> str:
        """What that device has too little of for any layer."""
        smallest = float(np.min(self.memory[np.tri(self.n + 1, k=-1, dtype=bool).T]))
        enough = smallest <= self.devices[index].memory_bytes
        return "its disk has no room for a layer" if enough else "it lends too little memory for a layer"

    # --- tables

    def _biased_cost(self, device: Device) -> Floats:
        fetch = self._fetch(device)
        bias = FETCH_BIAS * self._fastest_token_s / max(self.model.weight_bytes, 1)
        fits = (self.memory <= device.memory_bytes) & (fetch <= device.disk_bytes)
        fits &= np.tri(self.n + 1, k=-1, dtype=bool).T
        return np.where(fits, self._cost(device) + bias * fetch, np.inf)

    def _cost(self, device: Device) -> Floats:
        """Seconds of a decode step, as `cost.step_s` computes them for one range."""
        s = self.sums
        read, macs = _between(s.read), _between(s.macs + self.context * s.context_macs)
        read[:, self.n] += self.model.lm_head_bytes
        macs[:, self.n] += self.model.lm_head_macs
        read_s = (read + _between(s.kv) * self.context) / device.read_bytes_per_s
        overhead = _between(np.arange(self.n + 1.0)) * device.layer_s + device.step_s
        late_s = _between(s.missed) / device.disk_bytes_per_s - _between(s.beside) / device.read_bytes_per_s
        return np.maximum(read_s, macs / device.macs_per_s) + np.maximum(late_s, 0.0) + overhead

    def _fetch(self, device: Device) -> Floats:
        """Bytes of each range that are not on the device's disk."""
        missing = [self.model.stored_bytes(p) if p not in device.held else 0 for p in self.model.parts(0, self.n)]
        fetch = _between(_running(missing[1:-1]))
        fetch[0, :] += missing[0]
        fetch[:, self.n] += missing[-1]
        return fetch

    @cached_property
    def _fastest_token_s(self) -> float:
        """Seconds of a token on the fastest device, as if it fitted: what the bias for fetching is measured in."""
        read = float(self.sums.read[self.n]) + self.model.lm_head_bytes
        return min(read / device.read_bytes_per_s for device in self.devices)

    def _hops(self, link: LinkOf, n_bytes: int) -> list[list[float]]:
        """Seconds from each device to each other; infinite where they do not reach each other."""
        found = [[link(a.id, b.id) if a is not b else None for b in self.devices] for a in self.devices]
        return [[way.hop_s(n_bytes) if way else float("inf") for way in row] for row in found]

    def _ring_s(self, order: Order) -> float:
        if len(order) == 1:
            return 0.0
        return sum(self.hop[a][b] for a, b in pairwise(order)) + self.back[order[-1]][order[0]]

    # --- few devices: exact

    def _exact(self, among: Sequence[int]) -> Scored:
        return min((self._exact_from(first, among) for first in among), key=_rank)

    def _exact_from(self, first: int, among: Sequence[int]) -> Scored:
        """The best ring that starts at `first`."""
        others = [d for d in among if d != first]
        states = {(frozenset[int](), first): _State(self.costs[first][0], None, None)}
        for size in range(1, len(others) + 1):
            for members in combinations(others, size):
                for new in members:
                    state = self._extend(states, frozenset(members) - {new}, new, first)
                    if state is not None:
                        states[frozenset(members), new] = state
        closing = [
            (float(state.done[self.n]) + (self.back[last][first] if members else 0.0), (members, last))
            for (members, last), state in states.items()
        ]
        found = [(value, _walk_back(states, key, self.n)) for value, key in closing if np.isfinite(value)]
        return min(found, key=_rank, default=NOTHING)

    def _extend(self, states: _States, members: frozenset[int], new: int, first: int) -> _State | None:
        """Append `new` to the best of all lists over `members`, for each number of layers that they have done."""
        befores = [(members, last) for last in (members or (first,))]
        befores = [key for key in sorted(befores, key=lambda k: k[1]) if key in states]
        befores = [key for key in befores if np.isfinite(self.hop[key[1]][new])]
        if not befores:
            return None
        done = np.stack([states[key].done + self.hop[key[1]][new] for key in befores])
        best = np.min(done, axis=0)  # over the lists: the range of `new` does not depend on which one it was
        reached = best[:, None] + self.costs[new]
        at = np.argmin(reached, axis=0)
        value = reached[at, np.arange(self.n + 1)]
        if not np.isfinite(value).any():
            return None
        chosen = np.argmin(done, axis=0)
        return _State(value, at, [befores[c] for c in chosen])

    # --- many devices: local search

    def _local_search(self) -> Scored:
        everyone = range(len(self.devices))
        fast = sorted(everyone, key=lambda i: (-self.devices[i].read_bytes_per_s, i))
        large = sorted(everyone, key=lambda i: (-self.devices[i].memory_bytes, i))
        pool = list(dict.fromkeys(fast[: POOL_DEVICES // 2] + large[: POOL_DEVICES // 2]))
        starts = [order for order in (self._shortest(fast), self._shortest(large)) if order]
        starts += [order for order in [self._exact(sorted(fast[:EXACT_DEVICES]))[1]] if order]
        found = [self._climb(start, pool, SEARCH_WORK // len(starts)) for start in dict.fromkeys(starts)]
        return min(found, key=_rank, default=NOTHING)

    def _shortest(self, by_merit: Sequence[int]) -> Order | None:
        """The shortest head of the list that holds the model; reordered by nearness where hops are missing."""
        for k in range(1, len(by_merit) + 1):
            head = tuple(by_merit[:k])
            for order in (head, self._chain(head)):
                if np.isfinite(self.order_s(order)):
                    return order
        return None

    def _chain(self, members: Order) -> Order:
        """The same devices, each followed by the nearest one left."""
        chain, left = [members[0]], list(members[1:])
        while left:
            nearest = min(left, key=lambda d: (self.hop[chain[-1]][d], d))
            chain.append(nearest)
            left.remove(nearest)
        return tuple(chain)

    def _climb(self, order: Order, pool: Sequence[int], work: int) -> Scored:
        """Take any step that is faster, until none is or the work is done."""
        best = (self.order_s(order), order)
        improved = True
        while improved and work > 0:
            improved = False
            for candidate in _neighbours(best[1], pool):
                work -= len(candidate)
                value = self.order_s(candidate)
                if value < best[0] - PREFERENCE_S:
                    best, improved = (value, candidate), True
                if improved or work <= 0:
                    break
        return best


_Key = tuple[frozenset[int], int]  # the devices after the first one, and the last of them


@dataclass(frozen=True, slots=True)
class _State:
    """The best lists over one set with one last device, for each number of layers done."""

    done: Floats  # (n_layers + 1,) seconds
    at: Ints | None  # layers done before the last device; None for the first one
    before: list[_Key] | None  # by layers done before: the state that was extended


_States = dict[_Key, _State]


def _walk_back(states: _States, key: _Key, layers: int) -> Order:
    order: list[int] = []
    while True:
        order.append(key[1])
        state = states[key]
        if state.at is None or state.before is None:
            return tuple(reversed(order))
        layers = int(state.at[layers])
        key = state.before[layers]


@dataclass(frozen=True, slots=True)
class _Sums:
    """Running sums over layers: entry i is the sum over the first i layers."""

    weight: Floats
    read: Floats
    kv: Floats
    macs: Floats
    context_macs: Floats
    beside: Floats
    missed: Floats

    @classmethod
    def of(cls, model: ModelCost) -> _Sums:
        return cls(
            weight=_running([layer.resident_bytes for layer in model.layers]),
            read=_running([layer.read_bytes() for layer in model.layers]),
            kv=_running([layer.kv_bytes for layer in model.layers]),
            macs=_running([layer.macs for layer in model.layers]),
            context_macs=_running([layer.context_macs for layer in model.layers]),
            beside=_running([layer.beside_bytes() for layer in model.layers]),
            missed=_running([layer.missed_bytes() for layer in model.layers]),
        )

    def memory(self, model: ModelCost, kv_tokens: int) -> Floats:
        """Bytes of weights and KV of each range."""
        memory = _between(self.weight) + _between(self.kv) * kv_tokens
        memory[0, :] += model.embed_bytes
        memory[:, model.n_layers] += model.lm_head_bytes + model.beside_head_bytes
        return memory


def _running(values: Sequence[float]) -> Floats:
    return np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))


def _between(running: Floats) -> Floats:
    """[i, j] -> the sum over the range [i, j)."""
    return running[None, :] - running[:, None]


def _rank(scored: Scored) -> tuple[float, int, Order]:
    """Faster first; of equally fast ones the shorter list, then the lower indices."""
    return round(scored[0] / PREFERENCE_S) if np.isfinite(scored[0]) else scored[0], len(scored[1]), scored[1]


def _neighbours(order: Order, pool: Sequence[int]) -> Iterator[Order]:
    """Lists one step away: a device less, another in its place, two swapped, one more."""
    unused = [d for d in pool if d not in order]
    at = range(len(order))
    if len(order) > 1:
        yield from (order[:i] + order[i + 1 :] for i in at)
    yield from ((*order[:i], d, *order[i + 1 :]) for i in at for d in unused)
    for i, j in combinations(at, 2):
        swapped = list(order)
        swapped[i], swapped[j] = swapped[j], swapped[i]
        yield tuple(swapped)
    yield from ((*order[:i], d, *order[i:]) for i in range(len(order) + 1) for d in unused)
