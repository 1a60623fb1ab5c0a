"""What an exchange of sums costs between two devices: a rehearsal by the very way that members of a stage use.

PROTOCOL.md, "Rehearsals", has the sizes, for both ends must know them.
"""

from __future__ import annotations

import time

import numpy as np

from swarm.kernels import _native

FEW, MANY = 256, 4096  # sums of a token: next to nothing, and as in models with 9 to 100 billion parameters
BITS = 14  # of each, as measured
ROUNDS = ((1, FEW, 96), (15, MANY, 12))  # tokens at once, sums of each, and how often: fewer than are added up by parts
KEPT = 0.9  # of the times, the quickest: the others say what else these devices did
MIN_WAIT_S = 1e-6


def rehearse(stage: _native.Stage) -> tuple[float, float]:
    """Exchange, and return how long one waits beside its bytes, and how many bytes of sums pass in a second.

    `stage` is open, and has two members that do the same. Raise StageLost.

    What is waited is seen with a packet that is next to nothing, for some networks let a few packets pass sooner than
    their rate says: what 7 KB take there, less their share of that rate, is less than no time.
    """
    (few_s, few_bytes), (many_s, many_bytes) = (_exchanges(stage, *each) for each in ROUNDS)
    rate = (many_bytes - few_bytes) / max(many_s - few_s, 1e-9)
    return max(few_s - few_bytes / rate, MIN_WAIT_S), rate


def _exchanges(stage: _native.Stage, n_tokens: int, n_values: int, n_rounds: int) -> tuple[float, float]:
    """Seconds and bytes of an exchange of so many tokens: the mean of the quickest."""
    stage.reserve(n_values * n_tokens, 1)
    half = 1 << (BITS - 1)
    sums = np.random.default_rng(stage.me).integers(-half, half, (n_tokens, n_values), np.int32)
    far, wide = np.zeros((n_tokens, n_values), np.int64), np.zeros(n_tokens, np.int32)
    times = []
    before = stage.counters()[2]
    for i in range(n_rounds):
        mine = sums.copy()
        stage.begin(n_tokens * 1000 + i)
        started = time.perf_counter()
        stage.exchange(mine, far, wide)
        times.append(time.perf_counter() - started)
    kept = sorted(times)[: max(int(KEPT * n_rounds), 1)]
    return sum(kept) / len(kept), (stage.counters()[2] - before) / n_rounds
