"""Public face of the compiled engine: what this CPU can run, how many threads, how fast its memory is.

`swarm.kernels._native` holds the classes that compute (Mat, Attention, Ffn, Layers, KvCache, Engine).
"""

from __future__ import annotations

import os
import time

import numpy as np

from swarm import cores
from swarm.errors import ConfigError, NativeError

# libgomp reads this once, when it is loaded. Its own default spins for milliseconds at the end of a parallel region,
# which on a machine with one busy neighbour makes two threads many times slower than one. 20,000 turns are about 50 us:
# enough to catch the next region of a decode step without a sleep.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

try:
    from swarm.kernels import _native as _native
except ImportError as error:
    raise NativeError(
        f"the compiled kernels are missing ({error}); reinstall with a C compiler present: "
        "sudo apt install gcc python3-dev, then pip install ."
    ) from error

PACKED_LAYOUT = 3  # a new number whenever csrc/pack.c orders bytes otherwise; kept files of another number are not used
BANDWIDTH_BYTES = 256 * 1024 * 1024  # read by the measurement: past any cache of a home device


def isas() -> list[str]:
    """Names of the kernel sets that this CPU and operating system can run, slowest first."""
    return _native.isa_names()


def isa(wanted: str = "") -> str:
    """The kernel set to use: the best, or `wanted`, which may only lower it; ConfigError when it cannot run here."""
    if wanted in ("", "auto"):
        return _native.best_isa()
    if wanted not in isas():
        raise ConfigError(f"SWARM_CPU={wanted}: this device runs only {', '.join(isas())}")
    return wanted


def threads() -> int:
    """Threads to compute with when nobody says: the physical cores that this process may use."""
    return cores.default_threads()


def read_bandwidth(n_threads: int, seconds: float = 0.5) -> float:
    """Bytes per second that n_threads read from memory: the best of repeated passes over 256 MiB."""
    data = np.ones(BANDWIDTH_BYTES, np.uint8)
    best = 0.0
    deadline = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        _native.read_all(data, n_threads)
        now = time.perf_counter()
        best = max(best, len(data) / (now - start))
        if now > deadline:
            return best
