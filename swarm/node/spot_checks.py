"""Tokens that others gave, computed again here: layer by layer over the whole text, beside all else.

What cluster/spot_checks.py asks for, on a thread of its own, which gives way to all others: it takes one core where
that is idle, and a tenth of one where it is not.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from swarm.cluster.effects import CheckTokens, StopCheck
from swarm.cluster.stage_session import recent_ids
from swarm.cores import free_memory_bytes
from swarm.engine.decoder import MAX_STEP_TOKENS, Decoder, Keep, Rows
from swarm.engine.sampling import sample
from swarm.engine.weights import Weights, join_weights, load_table, load_weights
from swarm.errors import OutOfMemory, SwarmError
from swarm.limits import CHECK_ROWS
from swarm.models.spec import ModelSpec
from swarm.node.background import Background, give_way_to_others
from swarm.node.compute import ComputeWorker
from swarm.node.driver import Driver
from swarm.node.event_log import EventLog
from swarm.node.holdings import Holdings
from swarm.node.library import KnownModel
from swarm.node.loader import SPARE_BYTES
from swarm.node.sampling import params_of
from swarm.parts import EMBED, Part, parts_of
from swarm.wire.ids import ModelId

log = logging.getLogger(__name__)
F32 = npt.NDArray[np.float32]
WeightsOf = Callable[[ModelId], dict[Part, Weights]]


class CheckStopped(Exception):
    """Nobody wants the result any more."""


class Checker:
    """Carries out `CheckTokens` and `StopCheck`; one check at a time."""

    def __init__(
        self,
        driver: Driver,
        background: Background,
        holdings: Holdings,
        *,
        worker: ComputeWorker,
        events: EventLog,
    ) -> None:
        self._driver = driver
        self._background = background
        self._holdings = holdings
        self._worker = worker
        self._events = events
        self._thread: threading.Thread | None = None
        self._stopped: set[int] = set()  # tickets that are given up
        self._ending = False
        driver.carry_out(CheckTokens, self._begin)
        driver.carry_out(StopCheck, lambda effect: self._stopped.add(effect.ticket))

    def stop(self) -> None:
        """Give up the check that runs, and wait for its thread."""
        self._ending = True
        if self._thread is not None:
            self._thread.join()

    def _begin(self, work: CheckTokens) -> None:
        self._background.post(lambda: self._background.spawn(self._prepare(work)))

    async def _prepare(self, work: CheckTokens) -> None:
        """What is here of the model must be right: a damaged disk must not blame an honest device."""
        try:
            known_model = await self._holdings.know(work.model)
            await self._holdings.get_right(work.model, known_model.chunks_of(known_model.all_parts))
        except SwarmError as error:
            self._answer(work, (), str(error))
            return
        self._thread = threading.Thread(target=self._run, args=(work, known_model), name="swarm-check", daemon=True)
        self._thread.start()

    def _run(self, work: CheckTokens, known_model: KnownModel) -> None:
        """On the thread of this check."""
        give_way_to_others()
        try:
            tokens, error = self._tokens(work, known_model), ""
        except CheckStopped:
            tokens, error = (), "it was given up"
        except (SwarmError, MemoryError, OSError, ValueError, KeyError) as failed:
            tokens, error = (), str(failed) or type(failed).__name__
        except Exception as bug:
            self._events.bug(bug)
            tokens, error = (), "a bug"
        self._answer(work, tokens, error)

    def _answer(self, work: CheckTokens, tokens: tuple[int, ...], error: str) -> None:
        self._stopped.discard(work.ticket)
        self._background.post(lambda: self._driver.act(lambda core, now: core.checked(work.ticket, tokens, now, error)))

    def _tokens(self, work: CheckTokens, known_model: KnownModel) -> tuple[int, ...]:
        def pause() -> None:
            if self._ending or work.ticket in self._stopped:
                raise CheckStopped

        def weights_of(parts: tuple[Part, ...]) -> list[Weights]:
            pause()
            there = self._worker.weights_of(work.model)
            return [_whole(there.get(part)) or _load(known_model, part) for part in parts]

        return tokens_again(work, known_model.spec, weights_of, pause)


def tokens_again(
    work: CheckTokens,
    spec: ModelSpec,
    weights_of: Callable[[tuple[Part, ...]], list[Weights]],
    pause: Callable[[], None],
) -> tuple[int, ...]:
    """The tokens ids[first:], each sampled after the ids before it. `pause` is called between steps, and may raise.

    One layer is in memory at a time, with the residual stream of all ids, float32 (tokens, hidden).
    """
    ids = np.array(work.ids[:-1], np.int32)  # nothing is sampled after the last one
    stream: npt.NDArray[np.int32] | F32 = ids
    for layer in range(spec.n_layers):
        weights = join_weights(weights_of(parts_of(layer, layer + 1, spec.n_layers)), range(layer, layer + 1))
        decoder = Decoder(spec, weights, context=len(ids), threads=1)
        if layer == spec.n_layers - 1:
            return _sampled(work, decoder, stream, pause)
        stream = _through(decoder, stream, work.kv, pause)
        del weights, decoder
    raise AssertionError("a model has layers")


def _through(decoder: Decoder, stream: npt.NDArray[np.int32] | F32, kv: str, pause: Callable[[], None]) -> F32:
    """The stream after a layer that is not the last."""
    cache, found = decoder.new_kv(len(stream), kv), []
    for start in range(0, len(stream), MAX_STEP_TOKENS):
        pause()
        found.append(decoder.step_hidden([Rows(stream[start : start + MAX_STEP_TOKENS], cache)]).copy())
    return np.concatenate(found)


def _sampled(
    work: CheckTokens, decoder: Decoder, stream: npt.NDArray[np.int32] | F32, pause: Callable[[], None]
) -> tuple[int, ...]:
    """The tokens that follow, of the last layer and the head."""
    cache, params = decoder.new_kv(len(stream), work.kv), params_of(work.sampling)
    certain = work.first - 1  # the first row of which the logits are wanted
    for start in range(0, certain, MAX_STEP_TOKENS):
        pause()
        decoder.store(stream[start : min(start + MAX_STEP_TOKENS, certain)], cache)
    tokens: list[int] = []
    for start in range(certain, len(stream), CHECK_ROWS):
        pause()
        rows = Rows(stream[start : start + CHECK_ROWS], cache, Keep.ALL)
        for logits in decoder.step_logits([rows]):
            position = work.first + len(tokens)
            tokens.append(sample(logits, params, position, recent_ids(work.ids, position, work.sampling)))
    return tuple(tokens)


def _whole(weights: Weights | None) -> Weights | None:
    """Weights that are all in memory."""
    return weights if weights is not None and not weights.expert_files else None


def _load(known_model: KnownModel, part: Part) -> Weights:
    if known_model.cost.part_bytes(part) + SPARE_BYTES > free_memory_bytes():
        raise OutOfMemory(f"there is no memory for {part.name} beside all else")
    if part == EMBED:
        return load_table(known_model.source, known_model.spec, known_model.source.open_rows)
    return load_weights(known_model.source, known_model.spec, [part], threads=1)
