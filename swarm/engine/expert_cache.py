"""The experts of a shard's mixtures in less memory than they need: the owner of slots, files and the threads that read.

What decides and what waits is compiled (csrc/experts.c, csrc/readers.c); here is what is slow: sizes, files, start,
stop, figures, and what was learnt about the use of experts, which a later run begins with.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from swarm.answers import ExpertUse
from swarm.cores import container_headroom, machine_free_bytes, machine_memory_bytes, memory_stall
from swarm.engine.expert_file import ExpertFile, take_away
from swarm.engine.expert_room import ExpertRoom, MemoryLook
from swarm.engine.weights import Memory
from swarm.errors import ExpertUnreadable
from swarm.files import replace_file
from swarm.kernels import _native
from swarm.kernels.reference_experts import FAST_HALF_LIFE, SLOW_HALF_LIFE, fading
from swarm.models.header import MAX_EXPERTS

log = logging.getLogger(__name__)
F64 = npt.NDArray[np.float64]
READERS = 4  # enough to use up any disk of a home in pieces of 3 MB
WARMING_SLOTS = 4  # on their way at once while nobody waits: a question that comes meanwhile waits for so many
WARMING_POLL_S = 0.005
LOOK_S = 1.0  # between looks at how much memory other programs leave
KEEP_S = 600.0  # between notes of what was learnt: that much is lost with the power
HITS_FILE = "experts.hits"  # beside a hot list: uses by rank, for plans
MAX_USES = 1e15  # of one rank: more was never counted
MAX_KEPT_USES = 1e6  # of earlier runs: what a model is used for changes


def look_at_memory() -> MemoryLook:
    """What the system says now."""
    return MemoryLook(machine_free_bytes(), machine_memory_bytes(), container_headroom(), memory_stall())


class CachedExperts:
    """The experts of some layers in `n_slots` slots. It outlives decoders; one step at a time uses it.

    hot_list: a file that keeps what was learnt about their use, from run to run. min_slots: how few other programs may
    leave it. Raise MemoryError.
    """

    def __init__(
        self,
        files: Mapping[int, ExpertFile],
        n_slots: int,
        *,
        threads: int = 1,
        hot_list: Path | None = None,
        readers: int = READERS,
        min_slots: int = 0,
    ) -> None:
        self.files = dict(sorted(files.items()))
        self.layers = list(self.files)
        self.slot_bytes = max(file.shape.expert_bytes for file in files.values())
        self.n_experts = max(file.shape.n_experts for file in files.values())
        self.n_slots = min(n_slots, self.n_experts * len(files))
        self._threads = threads
        self._arena = Memory(self.n_slots * self.slot_bytes)
        self._memory = self._arena.take(self.n_slots * self.slot_bytes)
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
        self.turn = threading.Lock()  # of steps, and of what may happen between them
        self._room = ExpertRoom(self.n_slots, min_slots or self.n_slots, self.slot_bytes)
        if hot_list is not None:
            self.residents.set_ranks(_read_ranks(hot_list.with_name(HITS_FILE), self.n_experts))
        self._end = weakref.finalize(self, _end, self.native, self.residents, hot_list, self.layers)
        if min_slots and min_slots < self.n_slots:
            arguments = weakref.ref(self), look_at_memory
            threading.Thread(target=_watch, args=arguments, name="expert-room", daemon=True).start()

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

    def begin_step(self, before: int = -1, *, more: bool = False) -> None:
        """A step is about to run, with `turn` held: what is read ahead must not be in its way.

        before: of a step that goes layer by layer, in parts, the rows that came before this part; more: others follow.
        """
        self.native.begun = True
        self.residents.part(before, more)
        if self._room.n_slots != self.n_slots:
            self._resize()

    def leave_room(self, now: float, memory: MemoryLook) -> None:
        """Go on with as many slots as other programs leave room for; where a step runs, from the next one on."""
        self._room.look(now, memory)
        if self._room.n_slots != self.n_slots and self.turn.acquire(blocking=False):
            try:
                self._resize()
            finally:
                self.turn.release()

    def _resize(self) -> None:
        before, self.n_slots = self.n_slots, self._room.n_slots
        self.native.resize(self.n_slots)
        self._arena.give_back(self.n_bytes, before * self.slot_bytes)
        why = "other programs need memory" if self.n_slots < before else "there is room again"
        log.info("%s: %d of %d experts may stay in memory, not %d", why, self.n_slots, self.n_all, before)

    def keep(self) -> None:
        """Note what was learnt."""
        _keep(self.native, self.residents, self._hot_list, self.layers)

    def warm_up(self) -> None:
        """Read, in the background, the experts that were used most in the runs before, until the first step."""
        if self._hot_list is None or (scores := _read_scores(self._hot_list, self.layers, self.n_experts)) is None:
            return
        self.residents.set_scores(scores)
        order = np.argsort(-scores.sum(0).reshape(-1), kind="stable")[: self.n_slots]
        wanted = [divmod(int(key), self.n_experts) for key in sorted(order) if scores.sum(0).reshape(-1)[key] > 0]
        arguments = self.native, self.turn, wanted
        threading.Thread(target=_warm_up, args=arguments, name="expert-warm-up", daemon=True).start()

    def error_of(self, error: ExpertUnreadable) -> ExpertUnreadable:
        """The same error with the layer's number in the model and what to do; a damaged file is taken away."""
        file = self.files[self.layers[error.layer]]
        advice = f"start again: {file.path} is written anew from the model"
        with suppress(OSError):
            take_away(file.path)
        return ExpertUnreadable(self.layers[error.layer], error.expert, error.why, advice)

    @property
    def is_closed(self) -> bool:
        """Whether its threads have ended."""
        return not self._end.alive

    def close(self) -> None:
        """Keep what was learnt, end the threads that read, and give back the memory."""
        self._end()


def _end(native: _native.ExpertCache, residents: _native.Residents, hot_list: Path | None, layers: list[int]) -> None:
    native.close()
    _keep(native, residents, hot_list, layers)


def _keep(native: _native.ExpertCache, residents: _native.Residents, hot_list: Path | None, layers: list[int]) -> None:
    if hot_list is not None and native.counters()[0] + native.counters()[1]:
        with suppress(OSError):  # not kept: the next run begins cold
            replace_file(hot_list, _scores_bytes(residents.scores(), layers), durable=False)
            ranks = residents.ranks().astype("<f8").tobytes()
            replace_file(hot_list.with_name(HITS_FILE), ranks, durable=False)


def _watch(owner: weakref.ref[CachedExperts], look: Callable[[], MemoryLook]) -> None:
    """Until the owner is gone: leave room for others, and note what was learnt."""
    kept_at = time.monotonic()
    while True:
        time.sleep(LOOK_S)
        if (experts := owner()) is None or experts.is_closed:
            return
        now = time.monotonic()
        experts.leave_room(now, look())
        if now - kept_at >= KEEP_S:
            kept_at = now
            experts.keep()


def _warm_up(native: _native.ExpertCache, turn: threading.Lock, wanted: list[tuple[int, int]]) -> None:
    for layer, expert in wanted:
        while native.n_filling >= WARMING_SLOTS and not native.begun:
            time.sleep(WARMING_POLL_S)
        with turn:
            if native.begun:
                return
            native.fetch(layer, expert)


def learnt_ranks(folder: Path) -> list[float]:
    """Uses of a model's experts by how many of their layer were used more, as runs noted in its folder; [] for none."""
    try:
        ranks = np.frombuffer((folder / HITS_FILE).read_bytes()[: 8 * MAX_EXPERTS], "<f8")
    except (OSError, ValueError):
        return []
    return [float(uses) for uses in ranks] if _makes_sense(ranks) else []


def _makes_sense(ranks: F64) -> bool:
    return bool(len(ranks) and np.isfinite(ranks).all() and ranks.min() >= 0.0 and ranks.max() <= MAX_USES)


def _read_ranks(path: Path, n_experts: int) -> F64:
    ranks = np.array(learnt_ranks(path.parent))
    if len(ranks) != n_experts or not ranks.sum():
        return np.zeros(n_experts)
    kept: F64 = ranks * min(1.0, MAX_KEPT_USES / float(ranks.sum()))
    return kept


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
