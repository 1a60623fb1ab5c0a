"""The experts of a shard's mixtures in less memory than they need: the owner of slots, files and the threads that read.

What decides and what waits is compiled (csrc/experts.c, csrc/readers.c); here is what is slow: sizes, files, start,
stop, figures, and what was learnt about the use of experts, which a later run begins with.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from swarm.answers import ExpertUse
from swarm.engine.expert_file import ExpertFile
from swarm.engine.weights import Memory
from swarm.errors import ExpertUnreadable
from swarm.files import replace_file
from swarm.kernels import _native
from swarm.kernels.reference_experts import FAST_HALF_LIFE, SLOW_HALF_LIFE, fading

F64 = npt.NDArray[np.float64]
READERS = 4  # enough to use up any disk of a home in pieces of 3 MB
WARMING_SLOTS = 4  # on their way at once while nobody waits: a question that comes meanwhile waits for so many
WARMING_POLL_S = 0.005


class CachedExperts:
    """The experts of some layers in `n_slots` slots. It outlives decoders; one step at a time uses it.

    hot_list: a file that keeps what was learnt about their use, from run to run. Raise MemoryError.
    """

    def __init__(
        self,
        files: Mapping[int, ExpertFile],
        n_slots: int,
        *,
        threads: int = 1,
        hot_list: Path | None = None,
        readers: int = READERS,
    ) -> None:
        self.files = dict(sorted(files.items()))
        self.layers = list(self.files)
        self.slot_bytes = max(file.shape.expert_bytes for file in files.values())
        self.n_experts = max(file.shape.n_experts for file in files.values())
        self.n_slots = min(n_slots, self.n_experts * len(files))
        self._threads = threads
        self._memory = Memory(self.n_slots * self.slot_bytes).take(self.n_slots * self.slot_bytes)
        self._hot_list = hot_list
        self.residents = _native.Residents(
            len(files), self.n_experts, self.n_slots, fading(FAST_HALF_LIFE), fading(SLOW_HALF_LIFE)
        )
        self.native = _native.ExpertCache(
            self.residents,
            [(f.descriptor, f.through_page_cache, f.first, f.shape.expert_bytes, f.sums) for f in self.files.values()],
            self._memory,
            self.slot_bytes,
            next(iter(files.values())).piece_bytes,
            readers,
        )
        self._end = weakref.finalize(self, _end, self.native, self.residents, hot_list, self.layers)

    @property
    def n_bytes(self) -> int:
        """Memory of all slots."""
        return self.n_slots * self.slot_bytes

    @property
    def n_resident(self) -> int:
        """Experts that are in memory, or on their way."""
        return int(self.residents.resident().sum())

    @property
    def n_all(self) -> int:
        """Experts of all layers."""
        return self.n_experts * len(self.layers)

    def place(self, layer: int) -> int:
        """Which of the cache's layers this layer of the model is."""
        return self.layers.index(layer)

    def template(self, layer: int) -> tuple[_native.Mat, _native.Mat, _native.Mat]:
        """Gate, up and down of some expert of a layer: their shapes count."""
        return self.files[layer].shape.mats(self._memory)

    def use(self) -> ExpertUse:
        """The figures since the beginning."""
        hits, misses, read_bytes, wait_s = self.native.counters()
        return ExpertUse(hits, misses, read_bytes, wait_s / self._threads)

    def begin_step(self) -> None:
        """A step is about to run: what is read ahead must not be in its way."""
        self.native.begun = True

    def warm_up(self) -> None:
        """Read, in the background, the experts that were used most in the runs before, until the first step."""
        if self._hot_list is None or (scores := _read_scores(self._hot_list, self.layers, self.n_experts)) is None:
            return
        self.residents.set_scores(scores)
        order = np.argsort(-scores.sum(0).reshape(-1), kind="stable")[: self.n_slots]
        wanted = [divmod(int(key), self.n_experts) for key in sorted(order) if scores.sum(0).reshape(-1)[key] > 0]
        threading.Thread(target=_warm_up, args=(self.native, wanted), name="expert-warm-up", daemon=True).start()

    def error_of(self, error: ExpertUnreadable) -> ExpertUnreadable:
        """The same error with the layer's number in the model and what to do; a damaged file is taken away."""
        file = self.files[self.layers[error.layer]]
        advice = f"start again: {file.path} is written anew from the model"
        with suppress(OSError):
            file.path.unlink()
        return ExpertUnreadable(self.layers[error.layer], error.expert, error.why, advice)

    def close(self) -> None:
        """Keep what was learnt, end the threads that read, and give back the memory."""
        self._end()


def _end(native: _native.ExpertCache, residents: _native.Residents, hot_list: Path | None, layers: list[int]) -> None:
    native.close()
    if hot_list is not None and native.counters()[0] + native.counters()[1]:
        with suppress(OSError):  # not kept: the next run begins cold
            replace_file(hot_list, _scores_bytes(residents.scores(), layers), durable=False)


def _warm_up(native: _native.ExpertCache, wanted: list[tuple[int, int]]) -> None:
    for layer, expert in wanted:
        while native.n_filling >= WARMING_SLOTS and not native.begun:
            time.sleep(WARMING_POLL_S)
        if native.begun:
            return
        native.fetch(layer, expert)


def _scores_bytes(scores: F64, layers: list[int]) -> bytes:
    """float32 rows of (layer, fast and slow score of each expert)."""
    table = np.concatenate([np.array(layers)[:, None], scores.transpose(1, 0, 2).reshape(len(layers), -1)], axis=1)
    return table.astype("<f4").tobytes()


def _read_scores(path: Path, layers: list[int], n_experts: int) -> F64 | None:
    """What a run before has learnt of these layers; None where there is nothing, or nothing that makes sense."""
    width = 1 + 2 * n_experts
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if not data or len(data) % (4 * width):
        return None
    table = np.frombuffer(data, "<f4").reshape(-1, width).astype(np.float64)
    rows = {int(row[0]): row[1:] for row in table if np.isfinite(row).all()}
    scores = np.stack([rows.get(layer, np.zeros(2 * n_experts)) for layer in layers])
    return np.clip(scores, 0.0, 1.0).reshape(len(layers), 2, n_experts).transpose(1, 0, 2)
