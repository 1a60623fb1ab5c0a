"""Which experts stay in memory, in NumPy: the reference of csrc/experts.c, to the decision.

Each expert has two decayed frequencies of use. When one needs a slot, the expert goes whose next use is expected last:
after the layers until its own comes again, and a whole round of layers for each token that does without it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from swarm.kernels._native import FADES, FREE, HIT

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

FAST_HALF_LIFE, SLOW_HALF_LIFE = 4.0, 32.0  # tokens; between 2 + 16 and 8 + 64 hit rates differ by a point
RAREST = 1e-6


def fading(half_life: float) -> F64:
    """What so many tokens leave of a use: float64 (FADES,)."""
    faded: F64 = 0.5 ** (np.arange(FADES) / half_life)
    return faded


class ReferenceResidents:
    """The same as `_native.Residents`: experts of `n_layers` layers in `n_slots` slots."""

    def __init__(self, n_layers: int, n_experts: int, n_slots: int, fade_fast: F64, fade_slow: F64) -> None:
        self.n_layers, self.n_experts = n_layers, n_experts
        self.fades = np.stack([fade_fast, fade_slow])
        self.uses = np.zeros((2, n_layers * n_experts))
        self.used_at = np.zeros(n_layers * n_experts, np.int64)
        self.key_of = np.full(n_slots, -1)
        self.ranks = np.zeros(n_experts)  # uses by how many experts of the layer were used more until then

    def replay(self, trace: I32) -> I32:
        """Use experts as `trace` (tokens, layers, top_k) says; what each use did, like `_native.Residents.replay`."""
        out = np.empty_like(trace)
        for token, layers in enumerate(trace):
            for layer, experts in enumerate(layers):
                out[token, layer] = self._visit(token, layer, experts)
        return out

    def _visit(self, token: int, layer: int, experts: Sequence[int] | I32) -> list[int]:
        keys = layer * self.n_experts + np.asarray(experts)
        self._count_ranks(token, layer, keys)
        self.uses[:, keys] = self._faded(keys, token) + (1.0 - self.fades[:, 1:2])
        self.used_at[keys] = token
        did = [HIT if key in self.key_of else FREE for key in keys]
        pinned = set(keys[[one == HIT for one in did]])
        for i, key in enumerate(keys):
            if did[i] != HIT:
                slot = self._victim(token, layer, pinned)
                did[i] = int(self.key_of[slot])
                self.key_of[slot] = key
                pinned.add(key)
        return did

    def _count_ranks(self, token: int, layer: int, keys: npt.NDArray[np.int64]) -> None:
        fast, slow = self._faded(np.arange(layer * self.n_experts, (layer + 1) * self.n_experts), token)
        rates = fast + slow
        for key in keys:
            self.ranks[np.count_nonzero(rates > rates[key % self.n_experts])] += 1

    def _faded(self, keys: npt.NDArray[np.int64], token: int) -> F64:
        age = token - self.used_at[keys]
        fades = np.where(age < FADES, self.fades[:, np.minimum(age, FADES - 1)], 0.0)
        faded: F64 = self.uses[:, keys] * fades
        return faded

    def _victim(self, token: int, layer: int, pinned: set[int]) -> int:
        free = np.flatnonzero(self.key_of < 0)
        if len(free):
            return int(free[0])
        keys = self.key_of
        ahead = (keys // self.n_experts - layer - 1) % self.n_layers + 1
        fast, slow = self._faded(keys, token)
        when = ahead + self.n_layers * (1.0 / np.maximum(0.5 * (fast + slow), RAREST) - 1.0)
        when[np.isin(keys, list(pinned))] = -1.0
        latest = np.flatnonzero(when == when.max())
        return int(latest[np.argmin(keys[latest])])
