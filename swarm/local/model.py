"""A model that answers on this device: the Python API."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt

from swarm.answers import ExpertUse
from swarm.config import parse_bytes, user_cache_dir
from swarm.cores import free_memory_bytes
from swarm.engine.draft import Choose, DraftModel
from swarm.engine.sampling import SamplingFields, SamplingParams
from swarm.errors import ConfigError, SwarmError
from swarm.files import stamps
from swarm.guessing import MTP
from swarm.limits import MIN_PACKED_FREE_BYTES
from swarm.local.answer import LocalAnswer, SessionLoan
from swarm.local.session import GuessingSteps, LocalSession, LongSteps, Order, OwnDraft, Progress, Steps
from swarm.text.forms import Form
from swarm.text.messages import Message
from swarm.text.model_text import ModelText, Prompt, check_fits
from swarm.text.same_tokens import check_vocabulary
from swarm.text.template import ChatTemplate
from swarm.text.tokenizer import Tokenizer
from swarm.text.tools import AUTO, ToolChoice

if TYPE_CHECKING:
    from swarm.config import Settings
    from swarm.engine.decoder import Decoder
    from swarm.engine.expert_cache import CachedExperts
    from swarm.engine.expert_folder import ExpertFolder
    from swarm.engine.mtp import MtpDecoder
    from swarm.engine.weights import Weights
    from swarm.local.memory import MemoryPlan
    from swarm.models.spec import ModelSpec, MtpSpec
    from swarm.store.gguf import GGUF
    from swarm.store.tensor_digests import CheckedGGUF

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
SLOW_LOAD_S = 4.0  # of packing a large model for the first time
TURN_S = 50e-6  # of the interpreter, while weights and text are made ready side by side
MAX_IDLE_SESSIONS = 1  # conversations whose KV cache is kept; each may take as much memory as a full context
LoadProgress = Callable[[int, int], None]  # bytes packed, bytes in all


class Model:
    """A loaded model; made by `swarm.load`. May be used from several threads: its steps take turns."""

    def __init__(
        self,
        path: Path,
        spec: ModelSpec,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        decoder: Steps,
        *,
        threads: int,
        guess: bool = True,
        draft: Steps | None = None,
        guesses_itself: bool = False,
    ) -> None:
        """`guess`: compute tokens that are likely to come along with those that are certain, where that is faster.

        draft: a small model of the same vocabulary that says which may come. guesses_itself: the decoder says it.
        """
        self.path = path
        self.spec = spec
        self.tokenizer = tokenizer
        self.context = decoder.context
        self.threads = threads
        self.guess = guess
        self._text = ModelText(path.name, tokenizer, template, spec.vocab)
        self._decoder = _InTurn(decoder)
        self._sessions = _Sessions(
            self._decoder,
            _InTurn(draft) if draft is not None else None,
            spec.vocab,
            guesses_itself=guesses_itself,
        )

    @property
    def template(self) -> ChatTemplate | None:
        """How conversations are written for it; None for a model that only continues texts."""
        return self._text.template

    def logits(self, ids: Sequence[int]) -> F32:
        """The logits float32 (len(ids), vocab) after each of `ids`, as a fresh sequence."""
        self._text.check(ids)
        if len(ids) > self.context:
            raise ConfigError(f"{len(ids)} tokens are more than the context of {self.context}")
        return self._decoder.logits(np.asarray(ids, dtype=np.int32))

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        params: SamplingParams | None = None,
        progress: Progress | None = None,
        **sampling: Unpack[SamplingFields],
    ) -> LocalAnswer:
        """Continue a text, or token ids, as they are. `sampling` overrides fields of `params`.

        Raise TextError or ContextFull at once when the prompt cannot be used.
        """
        made = self._text.continuation(prompt, context=self.context)
        return self._answer(made, max_tokens, _merged(params, sampling), stop=stop, progress=progress)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        thinking: bool | None = None,
        tools: Sequence[Mapping[str, object]] | None = None,
        tool_choice: ToolChoice = AUTO,
        form: Form | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        params: SamplingParams | None = None,
        progress: Progress | None = None,
        **sampling: Unpack[SamplingFields],
    ) -> LocalAnswer:
        """Answer a conversation: messages with `role` and `content`, as in the OpenAI API.

        thinking: ask for thinking before the answer, or for none; None leaves it to the model. tools: functions that it
        may call, or must, as `tool_choice` says. form: what the answer must be, as `json_form` of a schema. Raise
        TextError or ContextFull at once when the conversation cannot be used.
        """
        prompt = self._text.chat(
            messages, tools=tools, choice=tool_choice, form=form, thinking=thinking, context=self.context
        )
        return self._answer(prompt, max_tokens, _merged(params, sampling), stop=stop, progress=progress)

    def _answer(
        self,
        prompt: Prompt,
        max_tokens: int | None,
        params: SamplingParams,
        *,
        stop: str | Sequence[str],
        progress: Progress | None,
    ) -> LocalAnswer:
        check_fits(prompt.ids, self.context)
        if max_tokens is not None and max_tokens < 0:
            raise ConfigError(f"max_tokens is {max_tokens}; it must be 0 or more")
        form = self.tokenizer.grammars.start(prompt.grammar) if prompt.grammar else None
        return LocalAnswer(
            SessionLoan(self._sessions.take, self._sessions.give_back, self._decoder.expert_use),
            Order(
                prompt.ids,
                params.seeded(),
                self.tokenizer.end_tokens,
                max_tokens,
                allowed=form.allowed if form is not None else None,
                forced=form.forced if form is not None else None,
                guess=self.guess,
            ),
            self._text.reader(prompt, [stop] if isinstance(stop, str) else stop),
            progress=progress,
        )


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    context: int | None = None,
    kv: str | None = None,
    guess: str | None = None,
    memory: str | None = None,
    draft: str | os.PathLike[str] | None = None,
    progress: LoadProgress | None = None,
) -> Model:
    """Load a GGUF file. What is not given comes from the settings (swarm.toml, SWARM_THREADS and so on).

    threads: that compute; default one for each physical core that this process may use. context: tokens that a
    conversation may hold; default what the model was made for, at most 8192. kv: 'f16' or 'q8_0', how past tokens are
    kept. guess: 'auto' or 'never', whether tokens of a text that repeats are computed ahead. memory: the most that this
    process is to use, as in '6GiB'; a larger mixture keeps its experts on disk. draft: the file of a small model of the
    same vocabulary, which guesses, or 'mtp': the block of the model's own file that predicts further tokens. Raise
    ModelError for a file that cannot be run, OutOfMemory when it does not fit, ConfigError for a draft that speaks of
    other tokens, or a block that is not there.
    """
    from swarm import config
    from swarm.models.registry import spec_from_gguf
    from swarm.store.gguf import open_gguf

    settings = config.load({"threads": threads, "context": context, "kv": kv, "guess": guess, "memory": memory})
    if draft is not None and settings.guess == "never":
        raise ConfigError("a draft guesses, and guesses are off (guess, --no-guess): leave one of the two out")
    with open_gguf(path) as gguf, _two_at_work(), ThreadPoolExecutor(1) as beside:
        spec = spec_from_gguf(gguf.metadata, gguf.tensors)
        text = beside.submit(_text_of, gguf.metadata)

        def tell(done: int, total: int) -> None:
            if text.done():
                text.result()  # what is wrong with it is said before the rest of the weights is read
            if progress is not None:
                progress(done, total)

        mtp = mtp_of(gguf) if draft == MTP else None
        decoder = load_decoder(gguf, spec, settings, tell)
        own = with_block(decoder, mtp, gguf) if mtp is not None else None
    tokenizer, template = text.result()
    small = None
    if draft is not None and own is None:
        small = load_draft(draft, tokenizer, settings, decoder.context)
    return Model(
        gguf.path,
        spec,
        tokenizer,
        template,
        own or decoder,
        threads=decoder.threads,
        guess=settings.guess != "never",
        draft=small,
        guesses_itself=own is not None,
    )


def mtp_of(gguf: GGUF) -> MtpSpec:
    """The block of a file that predicts further tokens; raise ConfigError where it has none."""
    from swarm.models.registry import mtp_from_gguf

    mtp = mtp_from_gguf(gguf.metadata, gguf.tensors)
    if mtp is None:
        raise ConfigError(
            f"{gguf.path.name} has no block that predicts further tokens (MTP): of the models that run here, files of "
            "GLM-4.5 may have one; leave --draft mtp out, or name a small model"
        )
    return mtp


def with_block(decoder: Decoder, mtp: MtpSpec, gguf: GGUF) -> MtpDecoder:
    """The same, guessing for itself; raise ConfigError where its experts are on disk."""
    from swarm.engine.mtp import MtpBlock, MtpDecoder

    if decoder.experts is not None:
        raise ConfigError("this model's experts are on disk, for want of memory; there its own block has no room")
    return MtpDecoder(decoder, MtpBlock.of_file(mtp, gguf, decoder))


def load_draft(path: str | os.PathLike[str], tokenizer: Tokenizer, settings: Settings, context: int) -> Decoder:
    """The small model of a file, for as much context as the model has or less; raise as `load` does."""
    from swarm.models.registry import spec_from_gguf
    from swarm.store.gguf import open_gguf

    with open_gguf(path) as gguf:
        spec = spec_from_gguf(gguf.metadata, gguf.tensors)
        check_vocabulary(tokenizer, Tokenizer.from_metadata(gguf.metadata), gguf.path.name)
        return load_decoder(gguf, spec, replace(settings, context=min(context, spec.context_length)))


def _text_of(metadata: Mapping[str, object]) -> tuple[Tokenizer, ChatTemplate | None]:
    tokenizer = Tokenizer.from_metadata(metadata)
    return tokenizer, ChatTemplate.from_metadata(metadata, tokenizer)


@contextmanager
def _two_at_work() -> Iterator[None]:
    """While two threads make many objects that stay: no look for garbage, and none waits 5 ms for its turn."""
    collects, interval = gc.isenabled(), sys.getswitchinterval()
    gc.disable()
    sys.setswitchinterval(min(interval, TURN_S))
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        if collects:
            gc.enable()


def load_decoder(gguf: GGUF, spec: ModelSpec, settings: Settings, progress: LoadProgress | None = None) -> Decoder:
    """The model of a file, in the memory that the settings leave it: what computes, without text."""
    from swarm import kernels
    from swarm.engine.decoder import Decoder
    from swarm.engine.expert_folder import ExpertFolder
    from swarm.engine.packed import PackedFile
    from swarm.engine.ways import kept, products_of, renewed
    from swarm.engine.weights import load_weights
    from swarm.local.memory import memory_plan
    from swarm.parts import all_parts
    from swarm.store.fetching import is_looked_at

    threads, free = settings.threads or kernels.threads(), _free_bytes(settings)
    plan = memory_plan(spec, gguf.tensors, wanted_context=settings.context, kv=settings.kv, free_bytes=free)
    packed = packed_dir()
    keep = partial(PackedFile.open, packed, packed_key(gguf), always=settings.packed == "always")
    folder = ExpertFolder(packed / packed_key(gguf), spare=MIN_PACKED_FREE_BYTES) if plan.n_slots else None
    checked = None if is_looked_at(gguf.path) else _checked(gguf)  # nothing is hashed twice
    started = time.monotonic()
    weights = load_weights(
        checked or gguf,
        spec,
        all_parts(spec.n_layers),
        threads=threads,
        memory_bytes=free,
        keep=None if settings.packed == "never" or folder is not None else keep,
        experts=folder,
        progress=progress,
    )
    if checked is not None:
        checked.keep()
    isa = kernels.isa(settings.cpu)
    ways = kept(settings.home_path, isa, threads)
    if time.monotonic() - started > SLOW_LOAD_S:  # then a second more is not noticed
        ways = renewed(settings.home_path, products_of(weights), isa, threads)
    experts = _cached_experts(weights, plan, folder, threads) if folder is not None else None
    return Decoder(
        spec,
        weights,
        context=plan.context,
        threads=threads,
        isa=isa,
        kv=settings.kv,
        experts=experts,
        ways=ways,
        held_tokens=plan.held_tokens,
    )


def _checked(gguf: GGUF) -> CheckedGGUF:
    from swarm.store.tensor_digests import CheckedGGUF

    return CheckedGGUF(gguf, digests_dir())


def _cached_experts(weights: Weights, plan: MemoryPlan, folder: ExpertFolder, threads: int) -> CachedExperts:
    from swarm.engine.expert_cache import CachedExperts

    experts = CachedExperts(
        weights.expert_files, plan.n_slots, threads=threads, hot_list=folder.hot_list, min_slots=plan.min_slots
    )
    experts.warm_up()
    return experts


def _free_bytes(settings: Settings) -> int:
    """What this process may still take, of the machine and of its setting."""
    free = free_memory_bytes()
    if not settings.memory:
        return free
    import psutil

    limit = parse_bytes("memory", settings.memory, of=psutil.virtual_memory().total)
    used: int = psutil.Process().memory_info().rss
    return min(free, limit - used)


def packed_dir() -> Path:
    """Where runs keep the packed weights of models."""
    return user_cache_dir() / "packed"


def digests_dir() -> Path:
    """Where runs note what model files held when they were first read."""
    return user_cache_dir() / "digests"


def delete_packed(path: Path) -> int:
    """Delete what runs kept of a model file's packed weights and noted of it; the bytes that the disk gained."""
    from swarm.engine.expert_folder import delete_experts
    from swarm.store.gguf import open_gguf
    from swarm.store.tensor_digests import forget

    forget(path, digests_dir())

    try:
        with open_gguf(path) as gguf:
            key = packed_key(gguf)
    except (SwarmError, OSError):
        return 0  # a file that cannot be read was never packed
    n_bytes = delete_experts(packed_dir() / key)
    for file in packed_dir().glob(f"{key}-*"):
        n_bytes += file.lstat().st_blocks * 512
        file.unlink(missing_ok=True)
    return n_bytes


def packed_key(gguf: GGUF) -> str:
    """What the packed weights of a whole model depend on: the layout, and the files as far as a glance tells."""
    from blake3 import blake3

    from swarm.kernels import PACKED_LAYOUT

    return blake3(repr((PACKED_LAYOUT, stamps(gguf.split_files))).encode() + bytes(gguf.header())).hexdigest()[:32]


def _merged(params: SamplingParams | None, fields: SamplingFields) -> SamplingParams:
    return replace(params or SamplingParams(), **fields)


class _InTurn:
    """A decoder whose steps wait for each other: it has one set of buffers."""

    def __init__(self, decoder: Steps) -> None:
        self._decoder = decoder
        self._lock = threading.Lock()

    @property
    def context(self) -> int:
        return self._decoder.context

    def new_kv(self, capacity: int) -> Any:
        return self._decoder.new_kv(capacity)

    def expert_use(self) -> ExpertUse:
        """How experts were found since the model was loaded."""
        experts = getattr(self._decoder, "experts", None)
        return experts.use() if experts is not None else ExpertUse()

    def forward(self, ids: I32, kv: Any) -> F32:
        with self._lock:
            return self._decoder.forward(ids, kv)

    def forward_all(self, ids: I32, kv: Any) -> F32:
        with self._lock:
            return self._decoder.forward_all(ids, kv)

    def logits(self, ids: I32) -> F32:
        with self._lock:
            return self._decoder.logits(ids)

    @property
    def held_tokens(self) -> int:
        """Of a prompt, what is computed at once where experts are on disk; 0: no more than any other."""
        return getattr(self._decoder, "held_tokens", 0)

    def prompt(self, ids: I32, kv: Any) -> Generator[float, None, F32]:
        """Of a decoder that takes so much at once. Between two pieces others have their turns."""
        decoder: LongSteps = self._decoder  # type: ignore[assignment]  # asked of no other
        steps = decoder.prompt(ids, kv)
        while True:
            try:
                with self._lock:
                    share = next(steps)
            except StopIteration as done:
                logits: F32 = done.value
                return logits
            yield share

    def propose(self, ids: Sequence[int], choose: Choose, kv: Any) -> list[int]:
        """Of a decoder that guesses for itself."""
        decoder: GuessingSteps = self._decoder  # type: ignore[assignment]  # asked of no other
        with self._lock:
            return decoder.propose(ids, choose, kv)


class _Sessions:
    """Sessions at rest, each with a KV cache that the next turn of the same conversation can use."""

    def __init__(self, decoder: _InTurn, draft: _InTurn | None, vocab: int, *, guesses_itself: bool = False) -> None:
        self._decoder, self._draft, self._vocab = decoder, draft, vocab
        self._guesses_itself = guesses_itself
        self._idle: list[LocalSession] = []
        self._lock = threading.Lock()

    def take(self, prompt: Sequence[int]) -> LocalSession:
        """The idle session that has computed most of `prompt`; a new one when all are busy."""
        with self._lock:
            if not self._idle:
                return self._new()
            best = max(self._idle, key=lambda session: session.reusable(prompt))
            self._idle.remove(best)
            return best

    def _new(self) -> LocalSession:
        session = LocalSession(self._decoder, long=self._decoder)
        if self._guesses_itself:
            session.draft = OwnDraft(self._decoder, session)
        elif self._draft is not None:
            session.draft = DraftModel(self._draft, self._vocab)
        return session

    def give_back(self, session: LocalSession) -> None:
        """Keep it for the next turn, in place of the one that has rested longest."""
        with self._lock:
            self._idle = [*self._idle, session][-MAX_IDLE_SESSIONS:]
