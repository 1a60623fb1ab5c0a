"""The small model of this node, which says what may come in the answers that are asked for here.

It computes on a thread of its own: while it does, the stages of the answer that it guesses for wait, and there is no
other answer of this node under way (cluster/drafting.py).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from swarm import kernels
from swarm.cluster.core import Core
from swarm.cluster.effects import Effect, Propose
from swarm.config import Settings
from swarm.engine.decoder import Decoder
from swarm.engine.draft import DraftModel
from swarm.engine.sampling import sample
from swarm.engine.ways import kept
from swarm.engine.weights import load_weights
from swarm.errors import ConfigError, OutOfMemory
from swarm.files import stamps
from swarm.guessing import MTP
from swarm.models.registry import spec_from_gguf
from swarm.models.sizes import context_of
from swarm.node.background import Background
from swarm.node.driver import Driver
from swarm.node.event_log import EventLog
from swarm.node.library import KnownModel
from swarm.node.model_cost import model_cost
from swarm.node.sampling import params_of
from swarm.parts import all_parts
from swarm.store.gguf import GGUF, open_gguf
from swarm.store.naming import resolve
from swarm.text.same_tokens import check_vocabulary, have_same_tokens
from swarm.text.tokenizer import Tokenizer
from swarm.units import size_text
from swarm.wire.ids import ModelId

log = logging.getLogger(__name__)
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Change:
    """Another model drafts from now on, or none."""

    small: Small | None


@dataclass(frozen=True)
class Small:
    """The model that drafts, ready to compute."""

    path: Path
    stamps: object  # of its files: the same ones are not loaded again
    tokenizer: Tokenizer
    decoder: Decoder


class DraftWorker:
    """Owner of the small model, where there is one; on the loop, but for its thread."""

    def __init__(
        self, driver: Driver, background: Background, events: EventLog, *, settings: Settings, threads: int
    ) -> None:
        self._driver = driver
        self._background = background
        self._events = events
        self._settings = settings
        self._threads = threads
        self._small: Small | None = None
        self._fits: dict[ModelId, bool] = {}  # whether the small model has the same tokens
        self._queue: queue.SimpleQueue[Propose | _Change | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        driver.carry_out(Propose, self._queue.put)

    async def start(self) -> None:
        """Take the model of the settings, if they name one; raise SwarmError where it cannot be had."""
        name = self._settings.draft
        if name == MTP:
            self._use_own_block(None)
        elif name:
            await self.use(await self._background.run_io(partial(resolve, name, settings=self._settings)))

    async def use(self, path: Path, model: KnownModel | None = None) -> None:
        """From now on the model of this file guesses, in place of what did before; `mtp`: models' own blocks do.

        Raise ConfigError where `model` has other tokens, or guesses are off; OutOfMemory; ModelError for the file.
        """
        if self._settings.guess == "never":
            raise ConfigError("a draft guesses, and guesses are off at this device's node (guess): turn them on there")
        if str(path) == MTP:
            self._use_own_block(model)
            return
        self._driver.act(lambda core, now: core.guess_with_mtp(uses=False))
        before = self._small
        if before is None or before.path != path or before.stamps != stamps([path]):
            self._change(None)
            try:
                before = await self._background.run_io(self._loaded, path, model)
            except BaseException:
                self._driver.act(lambda core, now: core.set_aside(0, now))
                raise
            self._change(before)
        if model is not None:
            check_vocabulary(model.tokenizer, before.tokenizer, path.name)

    def _use_own_block(self, model: KnownModel | None) -> None:
        """From now on the blocks of models' own files guess, where their last stage has room for it.

        Raise ConfigError where `model` has none, or guesses are off.
        """
        if self._settings.guess == "never":
            raise ConfigError("a draft guesses, and guesses are off at this device's node (guess): turn them on there")
        if model is not None and model.mtp is None:
            raise ConfigError(
                f"{model.name} has no block that predicts further tokens (MTP): of the models that run here, files of "
                "GLM-4.5 may have one; leave --draft mtp out, or name a small model"
            )
        if self._small is not None:
            self._change(None)
            self._driver.act(lambda core, now: core.set_aside(0, now))
        self._driver.act(lambda core, now: core.guess_with_mtp(uses=True))
        self._events.note("draft", model=MTP)

    def serves(self, model: KnownModel) -> bool:
        """Whether it can guess for that model."""
        if self._small is None:
            return False
        if model.id not in self._fits:
            self._fits[model.id] = have_same_tokens(model.tokenizer, self._small.tokenizer)
        return self._fits[model.id]

    def stop(self) -> None:
        """End the thread after what it computes."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    # --- loading

    def _change(self, small: Small | None) -> None:
        self._small = small
        self._fits.clear()
        if self._thread is None and small is not None:
            self._thread = threading.Thread(target=self._run, name="swarm-draft", daemon=True)
            self._thread.start()
        if self._thread is not None:
            self._queue.put(_Change(small))
        if small is not None:
            self._events.note("draft", model=small.path.name)

    def _loaded(self, path: Path, model: KnownModel | None) -> Small:
        with open_gguf(path) as gguf:
            tokenizer = Tokenizer.from_metadata(gguf.metadata)
            if model is not None:
                check_vocabulary(model.tokenizer, tokenizer, path.name)
            return Small(path, stamps([path]), tokenizer, self._decoder(gguf))

    def _decoder(self, gguf: GGUF) -> Decoder:
        spec = spec_from_gguf(gguf.metadata, gguf.tensors)
        context = context_of(spec, self._settings.context)
        cost = model_cost(gguf.path.name, spec, gguf.tensors).kept_as(self._settings.kv)
        if cost is None:
            raise ConfigError(f"past tokens of {gguf.path.name} cannot be kept as {self._settings.kv}")
        self._set_aside(cost.all_stored_bytes + cost.stage_kv_bytes(0, spec.n_layers, context))
        weights = load_weights(gguf, spec, all_parts(spec.n_layers), threads=self._threads)
        isa = kernels.isa(self._settings.cpu)
        ways = kept(self._settings.home_path, isa, self._threads)
        return Decoder(spec, weights, context=context, threads=self._threads, isa=isa, kv=self._settings.kv, ways=ways)

    def _set_aside(self, n_bytes: int) -> None:
        def decide(core: Core, now: float) -> list[Effect]:
            missing = core.missing_for_aside(n_bytes)
            if missing > 0:
                raise OutOfMemory(
                    f"the draft needs {size_text(n_bytes)}, and {size_text(missing)} of that are not free on this "
                    "device; take a smaller one, or give the node more with --memory"
                )
            return core.set_aside(n_bytes, now)

        self._driver.act(decide)

    # --- the thread

    def _run(self) -> None:
        small: DraftModel | None = None
        while (work := self._queue.get()) is not None:
            if isinstance(work, _Change):
                n_tokens = len(work.small.tokenizer.vocabulary.tokens) if work.small is not None else 0
                small = DraftModel(work.small.decoder, n_tokens) if work.small is not None else None
                continue
            try:
                found = self._found(small, work)
            except Exception:  # a bug: the answer goes on without guesses
                log.exception("a bug")
                found = []
            if found is not None:
                self._tell(work, found)

    def _tell(self, asked: Propose, found: Sequence[int]) -> None:
        try:
            self._driver.act(lambda core, now: core.drafted(asked, found, now))
        except Exception as error:  # a bug in one answer must not end the thread
            self._events.bug(error)

    def _found(self, small: DraftModel | None, asked: Propose) -> list[int] | None:
        """What may come; None when there is somebody else to guess for before the prompt was read."""
        if small is None:
            return []
        if asked.n == 0:
            return [] if small.read(asked.ids, self._queue.empty) else None
        params = params_of(asked.sampling)

        def choose(logits: F32, ids: Sequence[int]) -> int:
            return sample(logits, params, len(ids), ids)

        return small.propose(asked.ids, asked.n, choose)
