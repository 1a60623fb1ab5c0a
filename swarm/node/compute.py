"""The compute worker: one thread with the weights, decoders and KV caches of this device.

The node puts effects in, in order, and gets answers back. Nothing else touches what is here, so nothing is pulled from
under a step; the engine releases the GIL while it computes.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, TypeVarTuple

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from swarm.answers import ExpertUse
from swarm.cluster.effects import (
    Compute,
    DropKv,
    Effect,
    KeepKv,
    OpenKv,
    SessionRows,
    StepOutput,
    Together,
    Unload,
)
from swarm.engine.candidates import Candidates, all_logits, candidates_of, decode, encode, needs_all, sample_candidates
from swarm.engine.decoder import Decoder, Keep, Rows
from swarm.engine.expert_cache import CachedExperts
from swarm.engine.sampling import SamplingParams, sample, told
from swarm.engine.ways import Choices, Product, products_of
from swarm.engine.weights import Weights, join_weights
from swarm.errors import ResourceError, StageLost, SwarmError
from swarm.kernels import _native
from swarm.limits import MIN_LOGPROB
from swarm.models.spec import ModelSpec, Role
from swarm.node.activations import activations, output_of, outputs_of_stage
from swarm.node.background import Post
from swarm.node.constraints import Constraints
from swarm.node.kept_caches import KeptCaches
from swarm.node.kept_kv import KeptFiles
from swarm.node.own_guesses import OwnGuesses, with_states
from swarm.node.sampling import params_of
from swarm.node.stages import OpenedStage, Stages
from swarm.parts import MTP, WHOLE, Part, parts_of
from swarm.value import Value
from swarm.wire.ids import ModelId, SessionId
from swarm.wire.records import Sampling, TokenChance

log = logging.getLogger(__name__)
F32 = npt.NDArray[np.float32]
Logits = F32 | Sequence[Candidates]  # of the whole vocabulary, or what members of a stage told of their slices
Args = TypeVarTuple("Args")
FORGOTTEN = "the conversation's memory is gone here"
STEPS_KEPT = 256  # whose median tells how fast this device decodes now


class Done(Value):
    """A `Compute` is done: what each of its rows gave, in their order."""

    job: int
    outputs: tuple[StepOutput, ...]


@dataclass(frozen=True, slots=True)
class ExpertState:
    """Experts that are on disk, on this device: how many of them are in memory, and how they were found."""

    n_resident: int
    n_all: int
    n_bytes: int  # of memory
    use: ExpertUse


class _Range(NamedTuple):
    """Layers [first, end) of a model, or a slice of each."""

    model: ModelId
    first: int
    end: int
    slice: tuple[int, ...] = WHOLE


@dataclass(slots=True)
class _Model:
    """A model's weights that are in memory, by part, and the decoders that run ranges of its layers."""

    specs: dict[tuple[int, ...], ModelSpec] = field(default_factory=dict)  # of the model and of slices of it
    parts: dict[Part, Weights] = field(default_factory=dict)
    decoders: dict[_Range, Decoder] = field(default_factory=dict)
    experts: dict[_Range, CachedExperts] = field(default_factory=dict)  # of ranges that have some on disk

    def parts_of(self, layers: _Range) -> tuple[Part, ...]:
        """What runs these layers."""
        return parts_of(layers.first, layers.end, self.specs[layers.slice].n_layers, layers.slice)

    def drop_range(self, layers: _Range) -> None:
        """Let go of what runs these layers."""
        self.decoders.pop(layers, None)
        if (experts := self.experts.pop(layers, None)) is not None:
            experts.close()


@dataclass(slots=True)
class _Kv:
    layers: _Range
    kind: str
    cache: _native.KvCache
    params: tuple[Sampling, SamplingParams] | None = None  # what was asked for last, as the engine takes it

    def params_of(self, sampling: Sampling) -> SamplingParams:
        """The same for every token of an answer, and checked once."""
        if self.params is None or self.params[0] is not sampling:
            self.params = sampling, params_of(sampling)
        return self.params[1]


class ComputeWorker:
    """`put` effects and other work; `answer` is called for every `Compute`, on the worker's thread."""

    def __init__(
        self,
        post: Post,
        answer: Callable[[Done], None],
        *,
        threads: int,
        isa: str = "",
        constraints: Constraints | None = None,
        stages: Stages | None = None,
        kept: KeptFiles | None = None,
        kv_read: Callable[[SessionId, int, int], object] = lambda session, epoch, n: None,
        ways: Choices | None = None,
    ) -> None:
        """`kv_read`: a session begins with so many positions from the disk; on the worker's thread."""
        self.busy_s = 0.0  # computing, since the start
        self.positions = 0  # computed, since the start
        self.decode_steps: deque[float] = deque(maxlen=STEPS_KEPT)  # seconds of the last steps over a single token
        self._post = post
        self._answer = answer
        self._threads = threads
        self._isa = isa
        self._constraints = constraints
        self._stages = stages
        self._ways: Choices = ways or {}
        self.products: dict[Product, None] = {}  # that models needed which were loaded; of the loop
        self._models: dict[ModelId, _Model] = {}
        self._kv: dict[SessionId, _Kv] = {}
        self._own = OwnGuesses()
        self._queue: queue.SimpleQueue[Effect | Callable[[], None] | None] = queue.SimpleQueue()
        self._files = kept
        self._kept: KeptCaches | None = None
        if kept is not None:
            self._kept = KeptCaches(kept, call=self._queue.put, cache_of=self._cache_of, have_read=kv_read)
        self._thread = threading.Thread(target=self._run, name="swarm-compute", daemon=True)
        self._thread.start()

    # --- for the loop

    def put(self, effect: Effect) -> None:
        """Carry out an effect after all that was put before."""
        self._queue.put(effect)

    def install(self, model: ModelId, spec: ModelSpec, part: Part, weights: Weights) -> None:
        """Weights that were loaded."""
        self.products.update(dict.fromkeys(products_of(weights)))
        self._queue.put(lambda: self._install(model, spec, part, weights))

    def weights_of(self, model: ModelId) -> dict[Part, Weights]:
        """What is in memory of a model now; from any thread. They stay there for as long as they are held."""
        loaded = self._models.get(model)
        return dict(loaded.parts) if loaded is not None else {}

    def choose(self, ways: Choices) -> None:
        """From the next step on, products of a token are computed as it was found fastest here."""
        self._queue.put(lambda: self._choose(ways))

    def call_after(self, function: Callable[[], object]) -> None:
        """Call a function on the loop when all that was put before is done."""
        self._queue.put(lambda: self._tell(function))

    def stop(self) -> None:
        """End the thread after the step that runs."""
        self._queue.put(None)
        self._thread.join()
        for loaded in self._models.values():
            for layers in list(loaded.experts):
                loaded.drop_range(layers)
        self._models.clear()
        self._kv.clear()

    # --- the thread

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                if isinstance(work, Effect):
                    self._carry_out(work)
                else:
                    work()
            except Exception:  # a bug: without this thread the device would take part and never answer
                log.exception("a bug")

    def _tell(self, function: Callable[[*Args], object], *args: *Args) -> None:
        self._post(function, *args)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Compute():
                self._compute(effect)
            case OpenKv():
                try:
                    self._open_kv(effect)
                except Exception as error:
                    # Without its KV the session's next step fails, and its entry node hears of that.
                    log.error("no KV for session %s: %s", effect.session, _line(error))
                    self._kv.pop(effect.session, None)
            case DropKv(session, kept):
                kv = self._kv.pop(session, None)
                self._own.drop(session)
                if kept is not None and self._files is not None:
                    self._files.write(kept, kv.cache if kv is not None else None)
            case KeepKv(session, kept):
                if self._kept is not None:
                    self._kept.keep(session, kept)
            case Unload(model, parts):
                self._unload(model, parts)

    def _install(self, model: ModelId, spec: ModelSpec, part: Part, weights: Weights) -> None:
        loaded = self._models.setdefault(model, _Model())
        loaded.parts[part] = weights
        if part == MTP:
            self._own.install(model, spec)
        else:
            loaded.specs.setdefault(part.slice, spec)

    def _choose(self, ways: Choices) -> None:
        self._ways = ways
        self._own.choose(ways)
        for loaded in self._models.values():
            for decoder in loaded.decoders.values():
                decoder.choose(ways)

    def _unload(self, model: ModelId, parts: Iterable[Part]) -> None:
        loaded = self._models.get(model)
        if loaded is None:
            return
        gone = [part for part in parts if loaded.parts.pop(part, None) is not None]
        self._own.unload(model, set(gone))
        for layers in list(loaded.decoders):
            if any(part in loaded.parts_of(layers) for part in gone):
                loaded.drop_range(layers)
        if not loaded.parts:
            del self._models[model]

    def _open_kv(self, effect: OpenKv) -> None:
        if effect.source is not None and effect.source not in self._kv:
            raise SwarmError(FORGOTTEN)
        if effect.source is not None and effect.moves:
            self._kv[effect.session] = self._kv.pop(effect.source)
            self._put_aside(effect)
        kv = self._kv.get(effect.session)
        layers = _Range(effect.model, effect.first, effect.end, effect.slice)
        if kv is None or (kv.layers, kv.kind) != (layers, effect.kv):
            self._kv.pop(effect.session, None)  # before the new one takes memory
            kv = _Kv(layers, effect.kv, self._decoder(layers, effect.context).new_kv(effect.context, effect.kv))
            self._kv[effect.session] = kv
        lender = self._kv.get(effect.source) if effect.source is not None else None
        kv.cache.truncate(min(effect.keep, kv.cache.length) if lender is None else 0)
        if kv.cache.capacity < effect.context:
            kv.cache.resize(effect.context)
        if lender is not None:
            kv.cache.copy(lender.cache, effect.keep)
        self._own.open(effect, self._models[effect.model].parts, lambda: self._decoder(layers, effect.context))
        if self._kept is not None:
            self._kept.opened(effect.session, effect.beginning)

    def _put_aside(self, effect: OpenKv) -> None:
        """What a cache that changes its session holds goes to the disk, as far as memory allows."""
        if effect.kept is None or self._files is None:
            return
        kv, n = self._kv[effect.session], effect.kept.n
        aside = None
        if kv.cache.length >= n:
            aside = self._decoder(kv.layers, n).new_kv(n, kv.kind)
            aside.copy(kv.cache, n)
        self._files.write(effect.kept, aside)

    def _cache_of(self, session: SessionId) -> _native.KvCache | None:
        kv = self._kv.get(session)
        return kv.cache if kv is not None else None

    def _compute(self, job: Compute) -> None:
        started = time.perf_counter()
        try:
            outputs = self._step(job)
        except Exception as error:  # whatever it is, the worker goes on, and the entry nodes hear of it
            outputs = [StepOutput(error=_line(error))] * len(job.rows)
        took_s = time.perf_counter() - started
        self._answer(Done(job.job, tuple(outputs)))  # before the bookkeeping: the next stage waits for it
        n_positions = sum(len(rows.ids) for rows in job.rows)
        self.busy_s += took_s
        self.positions += n_positions
        if n_positions == 1:
            self.decode_steps.append(took_s)

    def _step(self, job: Compute) -> list[StepOutput]:
        """One step over the rows of all sessions; one that is not ready stays out of it and hears why."""
        layers = _Range(job.model, job.first, job.end, job.slice)
        if job.together is not None:
            return self._step_together(job, layers, job.together)
        if len(job.rows) == 1:
            return [self._step_alone(job, layers, job.rows[0])]
        capacities = [kv.cache.capacity for rows in job.rows if (kv := self._kv.get(rows.session)) is not None]
        if not capacities:
            return [StepOutput(error=FORGOTTEN)] * len(job.rows)
        decoder = self._decoder(layers, max(capacities))
        outputs: list[StepOutput | None] = []
        batch: list[tuple[SessionRows, Rows]] = []
        for rows in job.rows:
            try:
                batch.append((rows, self._ready(rows, job, decoder)))
                outputs.append(None)
            except Exception as error:
                outputs.append(StepOutput(error=_line(error)))
        computed: Iterator[StepOutput] = iter(())
        if batch and job.end < decoder.spec.n_layers:
            computed = iter(outputs_of_stage(decoder, batch))
        elif batch:
            logits = iter(decoder.step_logits([ready for _, ready in batch]))
            computed = iter(self._all_sampled(logits, job.model, batch, decoder))
        return [next(computed) if output is None else output for output in outputs]

    def _step_alone(self, job: Compute, layers: _Range, rows: SessionRows) -> StepOutput:
        """The same of a session alone, without lists of one: it is made for every token of most answers."""
        kv = self._kv.get(rows.session)
        if kv is None:
            return StepOutput(error=FORGOTTEN)
        decoder = self._decoder(layers, kv.cache.capacity)
        ready = (self._ready(rows, job, decoder),)
        if job.end < decoder.spec.n_layers:
            return output_of(decoder.step_hidden(ready))
        if self._own.follows(rows.session) and not rows.sampling.vector:
            return self._step_followed(job, decoder, ready[0], rows)
        logits = decoder.step_logits(ready)
        if rows.sample and rows.sampling.vector:
            return _vector(decoder, 0)
        return self._sampled(logits, job.model, rows) if rows.sample else StepOutput()

    def _step_followed(self, job: Compute, decoder: Decoder, ready: Rows, rows: SessionRows) -> StepOutput:
        """The same where the model's own block follows: what it would say next comes along, where that is asked for."""
        logits, states = with_states(decoder, ready)
        output = self._sampled(logits, job.model, rows) if rows.sample else StepOutput()
        tokens = [output.token, *output.more] if output.token is not None else []
        n = len(rows.ids) - rows.n_guesses + len(output.more)  # that are certain
        started = time.perf_counter()
        self._own.saw(rows.session, rows.position, rows.ids[:n], states[:n], decoder)
        said = self._own.logits(rows.session, tokens[-1]) if rows.asks and tokens and not output.forced else None
        if said is None:
            return output
        try:
            own, _ = self._token(said, job.model, rows, tokens)
        except Exception:  # a form that has ended: nothing follows
            return output
        return replace(output, own=(own,), own_s=time.perf_counter() - started)

    def _step_together(self, job: Compute, layers: _Range, together: Together) -> list[StepOutput]:
        """The same with the other members of a stage, who compute the very same rows: all of them, or none."""
        stage = self._stages.get(together.stage) if self._stages is not None else None
        if stage is None:
            raise ResourceError("the links to the devices that compute these layers together with it are closed there")
        try:
            capacities = [kv.cache.capacity for rows in job.rows if (kv := self._kv.get(rows.session)) is not None]
            decoder = self._decoder(layers, max(capacities, default=sum(len(rows.ids) for rows in job.rows)))
            batch = [(rows, self._ready(rows, job, decoder)) for rows in job.rows]
            decoder.meet(stage.meet(), together.sequence)
            if job.end == decoder.spec.n_layers:
                return self._last_together(job.model, decoder, batch, stage)
            computed = outputs_of_stage(decoder, batch)
            return computed if stage.leads else [StepOutput()] * len(batch)
        except StageLost as error:
            return [StepOutput(error=str(error), lost=stage.peer(error.member))] * len(job.rows)
        except Exception as error:
            stage.link.abort(_line(error), sequence=together.sequence)
            raise

    def _last_together(
        self, model: ModelId, decoder: Decoder, batch: list[tuple[SessionRows, Rows]], stage: OpenedStage
    ) -> list[StepOutput]:
        """A step of a last stage: each member tells what of its vocabulary can be chosen, and the leader samples."""
        logits = iter(decoder.step_logits([ready for _, ready in batch]))
        sampled = [rows for rows, _ in batch if rows.sample]
        cut = decoder.spec.tensors[Role.LM_HEAD].rows[0].start
        told_here = [
            each for rows in sampled for each in self._candidates(islice(logits, 1 + rows.n_guesses), rows, cut)
        ]
        everybody = stage.link.gather(encode(told_here)) if sampled else None
        if everybody is None:
            return [StepOutput()] * len(batch)
        vocab = range(decoder.spec.tensors[Role.EMBED].n_rows)
        slices = zip(*(decode(data, len(told_here), vocab) for data in everybody), strict=True)
        return self._all_sampled(slices, model, batch, decoder)

    def _ready(self, rows: SessionRows, job: Compute, decoder: Decoder) -> Rows:
        """What a session brings to a step."""
        tokens = np.array(rows.ids, np.int32) if job.first == 0 else activations(rows, decoder)
        keep = Keep.NONE if not rows.sample else Keep.ALL if rows.n_guesses else Keep.LAST
        if rows.is_void:
            return Rows(tokens, decoder.new_kv(len(rows.ids)), keep)
        kv = self._kv.get(rows.session)
        if kv is None or kv.cache.length < rows.position:
            raise SwarmError(FORGOTTEN)
        kv.cache.truncate(rows.position)
        ready = Rows(tokens, kv.cache, keep)
        decoder.check_room(ready)  # here it fails this session alone, in the step all of them
        return ready

    def _all_sampled(
        self, logits: Iterator[Logits], model: ModelId, batch: list[tuple[SessionRows, Rows]], decoder: Decoder
    ) -> list[StepOutput]:
        """What each session of a step gets; `logits`: of all ids that are sampled after, in order."""
        outputs: list[StepOutput] = []
        n_before = 0  # rows of logits
        for rows, _ in batch:
            n = 1 + rows.n_guesses if rows.sample else 0
            own = list(islice(logits, n))
            if n and rows.sampling.vector:
                outputs.append(_vector(decoder, n_before))
            else:
                outputs.append(self._sampled(own, model, rows) if n else StepOutput())
            n_before += n
        return outputs

    def _sampled(self, logits: Iterable[Logits], model: ModelId, rows: SessionRows) -> StepOutput:
        """The tokens after those that are certain: one, and as long as guesses are right the one after each.

        `logits`: of each id that one is sampled after.
        """
        n_certain = len(rows.ids) - rows.n_guesses
        tokens: list[int] = []
        chances: list[tuple[TokenChance, ...]] = []
        forced: tuple[int, ...] = ()
        try:
            for each in logits:
                if tokens and tokens != list(rows.ids[n_certain : n_certain + len(tokens)]):
                    break
                token, told_of = self._token(each, model, rows, tokens)
                tokens.append(token)
                chances.append(told_of)
            forced = self._forced(model, rows, tokens)
        except Exception as error:  # of one session: the others of the step have their tokens
            if not tokens:
                return StepOutput(error=_line(error))
        return StepOutput(
            token=tokens[0],
            told=chances[0],
            more=tuple(tokens[1:]),
            more_told=tuple(chances[1:]) if any(chances) else (),
            forced=forced,
        )

    def _forced(self, model: ModelId, rows: SessionRows, tokens: list[int]) -> tuple[int, ...]:
        """What a form asks for after these tokens."""
        if not rows.sampling.grammar or self._constraints is None:
            return ()
        return self._constraints.forced(model, _after(rows, tokens))

    def _token(
        self, logits: Logits, model: ModelId, rows: SessionRows, guessed: list[int]
    ) -> tuple[int, tuple[TokenChance, ...]]:
        """The token after those that are certain and these guesses that were right, and how likely it was."""
        params, allowed = self._params_of(rows), None
        if not isinstance(logits, np.ndarray) and _needs_all(params, rows):
            logits = all_logits(logits)
        if rows.sampling.grammar and self._constraints is not None:
            allowed = self._constraints.allowed(model, _after(rows, guessed), len(logits))
        position = rows.position + len(rows.ids) - rows.n_guesses + len(guessed)
        if not isinstance(logits, np.ndarray):
            return sample_candidates(logits, params, position), ()
        token = sample(logits, params, position, (*rows.recent, *guessed) if rows.recent else (), allowed)
        chances = told(logits, token, params.n_told) if params.n_told else ()
        return token, tuple(TokenChance(i, max(p, MIN_LOGPROB)) for i, p in chances)

    def _candidates(self, logits: Iterable[F32], rows: SessionRows, first: int) -> Iterator[Candidates]:
        """What this device tells of its slice of a session's logits, which begins with token `first`."""
        params = self._params_of(rows)
        n_certain = len(rows.ids) - rows.n_guesses
        for i, each in enumerate(logits):
            recent = (*rows.recent, *rows.ids[n_certain : n_certain + i]) if rows.recent else ()
            yield candidates_of(each, params, recent, first, whole=_needs_all(params, rows))

    def _params_of(self, rows: SessionRows) -> SamplingParams:
        kv = self._kv.get(rows.session)
        return kv.params_of(rows.sampling) if kv is not None else params_of(rows.sampling)

    def _decoder(self, layers: _Range, context: int) -> Decoder:
        """The decoder of a range of layers, with buffers for so much context."""
        loaded = self._models[layers.model]
        decoder = loaded.decoders.get(layers)
        if decoder is None or decoder.context < context:
            weights = join_weights((loaded.parts[part] for part in loaded.parts_of(layers)), range(*layers[1:3]))
            size = max(context, 2 * decoder.context if decoder is not None else 0)
            decoder = Decoder(
                loaded.specs[layers.slice],
                weights,
                context=size,
                threads=self._threads,
                isa=self._isa,
                experts=self._cached_experts(loaded, layers, weights),
                ways=self._ways,
            )
            loaded.decoders[layers] = decoder
        return decoder

    def _cached_experts(self, loaded: _Model, layers: _Range, weights: Weights) -> CachedExperts | None:
        """The cache of these layers' experts, where some are on disk; it outlives the decoder."""
        if weights.expert_files and layers not in loaded.experts:
            top_k = max(layer.moe.top_k for layer in loaded.specs[layers.slice].layers if layer.moe)
            folder = next(iter(weights.expert_files.values())).path.parent
            n_slots = max(weights.expert_slots, 2 * top_k)
            cut = "".join(f"-{edge}" for edge in layers.slice)
            loaded.experts[layers] = CachedExperts(
                weights.expert_files,
                n_slots,
                threads=self._threads,
                hot_list=folder / f"{layers.first}-{layers.end}{cut}.hot",
                min_slots=2 * top_k,
            )
            loaded.experts[layers].warm_up()
        return loaded.experts.get(layers)

    @property
    def n_exchanges(self) -> int:
        """So often sums were exchanged with others that compute layers together with this device; from any thread."""
        return self._stages.n_exchanges if self._stages is not None else 0

    def experts(self) -> ExpertState | None:
        """How the experts that are on disk are doing, of all models that are loaded now; from any thread."""
        caches = self._caches()
        if not caches:
            return None
        return ExpertState(
            sum(cache.n_resident for cache in caches),
            sum(cache.n_all for cache in caches),
            sum(cache.n_bytes for cache in caches),
            self.expert_use(),
        )

    def expert_use(self) -> ExpertUse:
        """The figures of all models that are loaded now, since they were; from any thread."""
        return sum((cache.use() for cache in self._caches()), ExpertUse())

    def _caches(self) -> list[CachedExperts]:
        return [cache for loaded in list(self._models.values()) for cache in list(loaded.experts.values())]


def _after(rows: SessionRows, tokens: list[int]) -> SessionRows:
    """The same with these tokens at the end of the answer."""
    return replace(rows, answer=(*rows.answer, *tokens)) if tokens else rows


def _needs_all(params: SamplingParams, rows: SessionRows) -> bool:
    return needs_all(params, grammar=bool(rows.sampling.grammar))


def _vector(decoder: Decoder, row: int) -> StepOutput:
    """What a session gets that wants no token: the hidden state of a row of which the step before made logits."""
    try:
        return output_of(decoder.normed(row)[None])
    except Exception as error:  # of one session: the others of the step have their tokens
        return StepOutput(error=_line(error))


def _line(error: BaseException) -> str:
    """What to tell the entry node; a bug is named as one."""
    if isinstance(error, SwarmError):
        return str(error)
    if isinstance(error, MemoryError):
        return "the device ran out of memory"
    log.exception("a step failed", exc_info=error)
    return f"{type(error).__name__}: {error}"
