"""Which experts tokens use: recorded traces of real models, and synthetic ones as flat as GLM's are said to be.

A trace is int32 (tokens, layers, top_k).
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import numpy.typing as npt

I32 = npt.NDArray[np.int32]
N_EXPERTS = 128


def recorded(path: Path) -> I32:
    """The answer of a recorded trace: lines `..., phase, step, layer, place, expert, ...` of phase 1."""
    rows = [line.split(",")[1:6] for line in path.read_text().splitlines() if line[:1] not in ("#", "t", "")]
    table = np.array([row for row in rows if row[0] == "1"], dtype=np.int64)[:, 1:]
    steps = np.unique(table[:, 0])
    trace = np.full((len(steps), table[:, 1].max() + 1, table[:, 2].max() + 1), -1, np.int32)
    trace[np.searchsorted(steps, table[:, 0]), table[:, 1], table[:, 2]] = table[:, 3]
    return trace


def flat(n_tokens: int = 1000, n_layers: int = 45, top_k: int = 8, seed: int = 1) -> I32:
    """A fixed bias, a topic that changes, a fast and a slow wander, and noise; calibrated to what is published of GLM:
    18 % of a token's experts were used by the token before, and locality grows to 60 % over a conversation."""
    rng = np.random.default_rng(seed)
    shape = n_layers, N_EXPERTS
    bias = np.random.default_rng(12345).normal(0, 0.3, shape)
    fast, slow = rng.normal(0, 1, shape), rng.normal(0, 1, shape)
    topic, until = np.zeros(shape), 0
    trace = np.empty((n_tokens, n_layers, top_k), np.int32)
    for token in range(n_tokens):
        if token >= until:
            topic, until = rng.normal(0, 0.8, shape), token + int(rng.exponential(300)) + 50
        fast = 0.55 * fast + (1 - 0.55**2) ** 0.5 * rng.normal(0, 1, shape)
        slow = 0.985 * slow + (1 - 0.985**2) ** 0.5 * rng.normal(0, 1, shape)
        score = bias + topic + 0.95 * fast + 0.55 * slow + 0.7 * rng.normal(0, 1, shape)
        trace[token] = np.argpartition(-score, top_k, axis=1)[:, :top_k]
    return trace


def uniform(n_tokens: int = 400, n_layers: int = 45, top_k: int = 8, seed: int = 3) -> I32:
    """No locality at all: nothing can do better than the share that is in memory."""
    order = np.argsort(np.random.default_rng(seed).random((n_tokens, n_layers, N_EXPERTS)), axis=2)
    return order[:, :, :top_k].astype(np.int32)


def lru_hit_rate(trace: I32, n_slots: int) -> float:
    """The share of uses that plain least-recently-used, over all layers, finds in memory."""
    slots: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for layers in trace:
        for layer, experts in enumerate(layers):
            keys = [layer * N_EXPERTS + int(expert) for expert in experts]
            found = [key for key in keys if key in slots]
            hits += len(found)
            for key in found:
                slots.move_to_end(key)
            for key in keys:
                if key not in slots and len(slots) >= n_slots:
                    slots.popitem(last=False)
                slots[key] = None
                slots.move_to_end(key)
    return hits / trace.size


def belady_hit_rate(trace: I32, n_slots: int) -> float:
    """The share of uses found when what is used last of all goes: it knows the future, and nobody does better."""
    keys = (np.arange(trace.shape[1])[:, None] * N_EXPERTS + trace).reshape(len(trace) * trace.shape[1], -1)
    uses: dict[int, list[int]] = {}
    for visit, wanted in enumerate(keys):
        for key in wanted:
            uses.setdefault(int(key), []).append(visit)
    resident: set[int] = set()
    hits = 0
    for wanted in keys:
        now = {int(key) for key in wanted}
        hits += len(now & resident)
        for key in now:
            uses[key].pop(0)
        for key in now - resident:
            if len(resident) >= n_slots:
                gone = max(resident - now, key=lambda key: (uses[key][0] if uses[key] else len(keys), key))
                resident.remove(gone)
            resident.add(key)
    return hits / keys.size
