"""Weights from disk into memory, part by part, on a thread of its own: a placement may take minutes to load.

Each part is packed into memory of its own, so that a changed placement keeps what it can use. Parts that are given up
while they wait are not loaded.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from swarm.cores import free_memory_bytes
from swarm.engine.expert_chunks import ExpertChunks
from swarm.engine.expert_folder import ExpertFolder, experts_by_layer
from swarm.engine.weights import TensorSource, Weights, load_table, load_weights
from swarm.errors import OutOfMemory, SwarmError
from swarm.models.spec import ModelSpec, tensors_needed
from swarm.node.background import Post
from swarm.parts import EMBED, MTP, Part
from swarm.store.stored_model import StoredModel
from swarm.units import size_text
from swarm.wire.ids import ModelId

log = logging.getLogger(__name__)
SpecOf = Callable[[Part], ModelSpec]
SPARE_BYTES = 128 * 1024 * 1024  # of the machine's free memory that loading leaves: the kernel kills before it fails


@dataclass(eq=False)
class Loading:
    """One `Load`: what is still to come. The node takes parts out that are not wanted any more."""

    ticket: int
    model: ModelId
    parts: set[Part]
    error: str = ""
    weight_bytes: dict[Part, int] = field(default_factory=dict)
    resident_share: float = 1.0  # of the experts; the others stay in files of `experts`
    experts: ExpertFolder | None = None


class Loader:
    """`load` one after the other; `installed` and `ended` are called on the loop."""

    def __init__(
        self,
        post: Post,
        installed: Callable[[Loading, Part, ModelSpec, Weights], None],
        ended: Callable[[Loading], None],
        *,
        threads: int,
    ) -> None:
        self._post = post
        self._installed = installed
        self._ended = ended
        self._threads = threads
        self._queue: queue.SimpleQueue[tuple[Loading, TensorSource, SpecOf] | None] = queue.SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="swarm-loader", daemon=True)
        self._thread.start()

    def load(self, loading: Loading, source: TensorSource, spec_of: SpecOf) -> None:
        """Load what is still wanted when its turn comes; `spec_of` gives the spec that a part is loaded with."""
        self._queue.put((loading, source, spec_of))

    def stop(self) -> None:
        """End the thread after the part that it packs."""
        self._stopping = True
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None and not self._stopping:
            loading, source, spec_of = work
            try:
                self._load(loading, source, spec_of)
            except (SwarmError, MemoryError, OSError, ValueError, KeyError) as error:
                loading.error = str(error) or type(error).__name__
                log.warning("loading %s failed: %s", loading.model, loading.error)
            self._post(self._ended, loading)

    def _load(self, loading: Loading, source: TensorSource, spec_of: SpecOf) -> None:
        for part in sorted(loading.parts):
            if self._stopping:
                return
            if part in loading.parts:  # it may have been given up meanwhile
                spec = spec_of(part)
                self._post(self._installed, loading, part, spec, self._pack(loading, part, source, spec))

    def _pack(self, loading: Loading, part: Part, source: TensorSource, spec: ModelSpec) -> Weights:
        if part == EMBED and isinstance(source, StoredModel):
            return load_table(source, spec, source.open_rows)
        needed, free = loading.weight_bytes.get(part, 0), free_memory_bytes()
        if needed + SPARE_BYTES > free:
            raise OutOfMemory(
                f"{size_text(needed)} of weights do not fit the {size_text(free)} that are free there; "
                "close other programs, or lower its --memory"
            )
        on_disk = loading.experts if loading.resident_share < 1.0 else None
        if on_disk is not None and isinstance(source, StoredModel):
            source.chunks.may_move = True
        wanted = Part(0) if part == MTP else part  # which is a model of one layer
        weights = load_weights(source, spec, [wanted], threads=self._threads, experts=on_disk)
        if on_disk is not None and isinstance(source, StoredModel):
            leave_to_files(source, spec, wanted, weights)
        n_experts = sum(file.shape.n_experts for file in weights.expert_files.values())
        return replace(weights, expert_slots=int(loading.resident_share * n_experts))


def leave_to_files(source: StoredModel, spec: ModelSpec, part: Part, weights: Weights) -> None:
    """Chunks of experts that are in the files of `weights` go from the store's data files: no byte is kept twice.

    A model whose GGUF file is on this device has no such chunks. What fails costs room, and nothing else.
    """
    chunks, files = source.chunks, weights.expert_files
    if not isinstance(chunks.elsewhere, ExpertChunks) or chunks.source is not None:
        return
    try:
        if not chunks.can_move:
            return
        layers = experts_by_layer(tensors_needed(spec, [part]))
        for layer, file in files.items():
            gained = chunks.move_out(chunks.elsewhere.take(file, layers[layer], chunks.on_disk))
            if gained:
                log.info("layer %d: %s of chunks are read from %s now", layer, size_text(gained), file.path.name)
        chunks.elsewhere.tidy()
    except (SwarmError, OSError) as error:
        log.warning("experts are kept twice: %s", error)
