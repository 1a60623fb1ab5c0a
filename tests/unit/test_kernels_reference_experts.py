"""Which experts stay: C and NumPy decide equally, and hit rates are those of the design's table."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from swarm.kernels import _native
from swarm.kernels.reference_experts import FAST_HALF_LIFE, SLOW_HALF_LIFE, ReferenceResidents, fading
from tests.helpers import routing

SHARES = (0.03, 0.045, 0.0625, 0.08, 0.10, 0.20, 0.30, 0.40, 0.50, 0.70)
# Per cent of all uses found in memory, from an empty one, at these shares of the experts; the replay of the design.
EXPECTED = {
    "qwen": (29.0, 36.4, 44.1, 50.6, 57.1, 77.1, 87.3, 91.0, 91.7, 91.7),
    "gptoss": (34.9, 44.1, 51.1, 56.2, 60.0, 70.7, 72.0, 72.0, 72.0, 72.0),
    "flat": (19.6, 27.0, 34.5, 40.8, 46.6, 66.8, 77.8, 84.9, 89.7, 95.0),
    "uniform": (2.7, 4.3, 6.1, 7.9, 9.9, 19.6, 29.1, 38.6, 48.3, 67.1),
}


def trace_of(name: str) -> routing.I32:
    if name == "flat":
        return np.ascontiguousarray(routing.flat(600)[:, ::3])
    if name == "uniform":
        return np.ascontiguousarray(routing.uniform()[:200, ::3])
    path = Path(os.environ.get("SWARM_TEST_DATA", "")) / "traces" / f"{name}.csv"
    if not path.exists():
        pytest.skip("SWARM_TEST_DATA names no folder with traces")
    return routing.recorded(path)


def fades() -> tuple[np.ndarray, np.ndarray]:
    return fading(FAST_HALF_LIFE), fading(SLOW_HALF_LIFE)


def slots_for(trace: routing.I32, share: float) -> int:
    return max(round(share * trace.shape[1] * routing.N_EXPERTS), trace.shape[2])


def replay(trace: routing.I32, n_slots: int) -> np.ndarray:
    return _native.Residents(trace.shape[1], routing.N_EXPERTS, n_slots, *fades()).replay(trace)


def hits(did: np.ndarray) -> float:
    return 100 * float(np.mean(did == _native.HIT))


@pytest.mark.parametrize("name", EXPECTED)
def test_hit_rates_are_those_of_the_replay(name: str) -> None:
    trace = trace_of(name)
    for share, expected in zip(SHARES, EXPECTED[name], strict=True):
        got = hits(replay(trace, slots_for(trace, share)))
        assert abs(got - expected) <= 0.1 + 0.05, f"{share:.1%}: {got:.2f}, not {expected}"  # the table is rounded


@pytest.mark.parametrize("name", EXPECTED)
def test_it_is_never_worse_than_least_recently_used(name: str) -> None:
    trace = trace_of(name)
    for share in SHARES:
        n_slots = slots_for(trace, share)
        lru = 100 * routing.lru_hit_rate(trace, n_slots)
        # Where one cycle of a token fits exactly, LRU keeps just that: chance decides by some tenths.
        slack = 0.4 if share == 0.0625 else 0.05
        assert hits(replay(trace, n_slots)) >= lru - slack, f"{share:.1%}: LRU has {lru:.2f}"


@pytest.mark.parametrize("share", [0.03, 0.10, 0.30, 0.70])
@pytest.mark.parametrize("name", EXPECTED)
def test_c_and_numpy_decide_equally(name: str, share: float) -> None:
    trace = np.ascontiguousarray(trace_of(name)[:48, :12])
    n_slots = slots_for(trace, share)
    reference = ReferenceResidents(trace.shape[1], routing.N_EXPERTS, n_slots, *fades())
    native = _native.Residents(trace.shape[1], routing.N_EXPERTS, n_slots, *fades())
    assert np.array_equal(native.replay(trace), reference.replay(trace))
    assert np.array_equal(native.ranks(), reference.ranks) and reference.ranks.sum() == trace.size


def test_a_use_is_forgotten_after_as_many_tokens_as_the_table_has() -> None:
    trace = np.zeros((_native.FADES + 40, 1, 1), np.int32)
    trace[1:, 0, 0] = 1 + np.arange(len(trace) - 1) % 3
    expected = ReferenceResidents(1, 4, 3, *fades()).replay(trace)
    assert np.array_equal(_native.Residents(1, 4, 3, *fades()).replay(trace), expected)


def test_what_makes_no_sense_is_refused() -> None:
    residents = _native.Residents(2, 8, 4, *fades())
    with pytest.raises(ValueError, match="numbers that no expert has"):
        residents.replay(np.full((1, 2, 2), 8, np.int32))
    with pytest.raises(ValueError, match="a trace of 3 layers"):
        residents.replay(np.zeros((1, 3, 2), np.int32))
    with pytest.raises(ValueError, match="a table of fading"):
        _native.Residents(2, 8, 4, np.ones(3), np.ones(3))
