"""A model that answers on this device: the Python API."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Unpack

import numpy as np
import numpy.typing as npt

from swarm import cores
from swarm.config import user_cache_dir
from swarm.engine import generate
from swarm.engine.generate import Progress, Request, Session, check_fits
from swarm.engine.sampling import SamplingFields, SamplingParams
from swarm.errors import ConfigError, OutOfMemory, TextError
from swarm.node.generation import Generation, SessionLoan
from swarm.text.messages import Message
from swarm.text.template import ChatTemplate
from swarm.text.thinking import ThinkingSplitter
from swarm.text.tokenizer import Tokenizer
from swarm.units import size_text

if TYPE_CHECKING:
    from swarm.config import Settings
    from swarm.engine.decoder import Decoder as EngineDecoder
    from swarm.models.spec import ModelSpec
    from swarm.store.gguf import GGUF

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
DEFAULT_CONTEXT = 8192  # where nobody says, and the model can do more: a KV cache that any home device holds
MIN_DEFAULT_CONTEXT = 1024  # with less memory than that takes, loading the weights fails and says so
MAX_IDLE_SESSIONS = 1  # conversations whose KV cache is kept; each may take as much memory as a full context
LoadProgress = Callable[[int, int], None]  # bytes packed, bytes in all


class Decoder(generate.Decoder, Protocol):
    """What a model needs beyond generation."""

    def logits(self, ids: I32, /) -> F32: ...


class Model:
    """A loaded model; made by `swarm.load`. May be used from several threads: its steps take turns."""

    def __init__(
        self,
        path: Path,
        spec: ModelSpec,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        decoder: Decoder,
        *,
        threads: int,
    ) -> None:
        self.path = path
        self.spec = spec
        self.tokenizer = tokenizer
        self.template = template
        self.context = decoder.context
        self.threads = threads
        self._decoder = _InTurn(decoder)
        self._sessions = _Sessions(self._decoder)

    def logits(self, ids: Sequence[int]) -> F32:
        """The logits float32 (len(ids), vocab) after each of `ids`, as a fresh sequence."""
        self._check(ids)
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
    ) -> Generation:
        """Continue a text, or token ids, as they are. `sampling` overrides fields of `params`.

        Raise TextError or ContextFull at once when the prompt cannot be used.
        """
        if isinstance(prompt, str):
            prompt = self.tokenizer.encode(prompt, add_bos=self.tokenizer.add_bos)
        return self._generation(prompt, max_tokens, _merged(params, sampling), stop=stop, progress=progress)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        thinking: bool | None = None,
        tools: Sequence[Mapping[str, object]] | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        params: SamplingParams | None = None,
        progress: Progress | None = None,
        **sampling: Unpack[SamplingFields],
    ) -> Generation:
        """Answer a conversation: messages with `role` and `content`, as in the OpenAI API.

        thinking: ask for thinking before the answer, or for none; None leaves it to the model. Raise TextError or
        ContextFull at once when the conversation cannot be used.
        """
        if self.template is None:
            raise TextError(
                f"{self.path.name} has no chat template, so it is no chat model; `swarm run --raw` continues a text"
            )
        prompt = self.template.render(messages, tools=tools, thinking=thinking)
        splitter = ThinkingSplitter(inside=prompt.opens_thinking)
        ids = prompt.encode(self.tokenizer)
        return self._generation(
            ids, max_tokens, _merged(params, sampling), stop=stop, progress=progress, splitter=splitter
        )

    def _generation(
        self,
        prompt: Sequence[int],
        max_tokens: int | None,
        params: SamplingParams,
        *,
        stop: str | Sequence[str],
        progress: Progress | None,
        splitter: ThinkingSplitter | None = None,
    ) -> Generation:
        self._check(prompt)
        check_fits(prompt, self.context)
        if max_tokens is not None and max_tokens < 0:
            raise ConfigError(f"max_tokens is {max_tokens}; it must be 0 or more")
        request = Request(list(prompt), params.seeded(), self.tokenizer.end_tokens, max_tokens)
        return Generation(
            SessionLoan(self._sessions.take, self._sessions.give_back),
            request,
            self.tokenizer.stream(),
            stop=[stop] if isinstance(stop, str) else list(stop),
            splitter=splitter,
            progress=progress,
        )

    def _check(self, ids: Sequence[int]) -> None:
        n_vocab = self.spec.vocab
        bad = next((i for i in ids if not 0 <= i < n_vocab), None)
        if bad is not None:
            raise TextError(f"{bad} is no token of this model; its ids are 0 to {n_vocab - 1}")


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    context: int | None = None,
    kv: str | None = None,
    progress: LoadProgress | None = None,
) -> Model:
    """Load a GGUF file. What is not given comes from the settings (swarm.toml, SWARM_THREADS and so on).

    threads: that compute; default one for each physical core that this process may use. context: tokens that a
    conversation may hold; default what the model was made for, at most 8192. kv: 'f16' or 'q8_0', how past tokens are
    kept. Raise ModelError for a file that cannot be run, OutOfMemory when it does not fit.
    """
    from swarm import config
    from swarm.models.registry import spec_from_gguf
    from swarm.store.gguf import open_gguf

    settings = config.load({"threads": threads, "context": context, "kv": kv})
    with open_gguf(path) as gguf:
        spec = spec_from_gguf(gguf.metadata, gguf.tensors)
        tokenizer = Tokenizer.from_metadata(gguf.metadata)
        template = ChatTemplate.from_metadata(gguf.metadata, tokenizer)
        decoder = _decoder(gguf, spec, settings, progress)
        return Model(gguf.path, spec, tokenizer, template, decoder, threads=decoder.threads)


def _decoder(gguf: GGUF, spec: ModelSpec, settings: Settings, progress: LoadProgress | None) -> EngineDecoder:
    from swarm import kernels
    from swarm.engine.decoder import Decoder as EngineDecoder
    from swarm.engine.packed import PackedFile
    from swarm.engine.weights import load_weights
    from swarm.models import kv_bytes_per_token, model_sizes
    from swarm.parts import all_parts

    threads, free = settings.threads or kernels.threads(), free_memory_bytes()
    room = free - model_sizes(spec, gguf.tensors).total
    context = fitting_context(spec, settings.context, kv_bytes_per_token(spec, settings.kv.upper()), room)
    keep = partial(PackedFile.open, user_cache_dir() / "packed", packed_key(gguf), always=settings.packed == "always")
    weights = load_weights(
        gguf,
        spec,
        all_parts(spec.n_layers),
        threads=threads,
        memory_bytes=free,
        keep=None if settings.packed == "never" else keep,
        progress=progress,
    )
    return EngineDecoder(spec, weights, context=context, threads=threads, isa=kernels.isa(settings.cpu), kv=settings.kv)


def packed_key(gguf: GGUF) -> str:
    """What the packed weights of a whole model depend on: the layout, and the files as far as a glance tells."""
    from blake3 import blake3

    from swarm.kernels import PACKED_LAYOUT

    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in gguf.split_files]
    return blake3(repr((PACKED_LAYOUT, stamps)).encode() + bytes(gguf.header())).hexdigest()[:32]


def fitting_context(spec: ModelSpec, wanted: int, kv_token_bytes: int, room_bytes: int) -> int:
    """The context to use: the `wanted` one, or (0) one that the memory beside the weights can hold.

    Raise ConfigError for more than the model was made for, OutOfMemory for more than fits.
    """
    if wanted > spec.context_length:
        raise ConfigError(f"context is {wanted}; this model was made for at most {spec.context_length} tokens")
    fits = max(room_bytes, 0) // kv_token_bytes
    if wanted and fits < wanted:
        raise OutOfMemory(
            f"a context of {wanted} tokens needs {size_text(wanted * kv_token_bytes)} beside the weights; "
            f"{fits} tokens would fit: lower the context, or keep it as q8_0"
        )
    context = wanted or min(spec.context_length, DEFAULT_CONTEXT)
    while not wanted and context > max(fits, MIN_DEFAULT_CONTEXT):
        context //= 2
    return context


def free_memory_bytes() -> int:
    """What this process may still take: free memory of the machine, or of its container where that is less."""
    import psutil

    free: int = psutil.virtual_memory().available
    limit, used = cores.cgroup_memory()
    return free if limit is None else min(free, max(0, limit - used))


def _merged(params: SamplingParams | None, fields: SamplingFields) -> SamplingParams:
    return replace(params or SamplingParams(), **fields)


class _InTurn:
    """A decoder whose steps wait for each other: it has one set of buffers."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._lock = threading.Lock()

    @property
    def context(self) -> int:
        return self._decoder.context

    def new_kv(self, capacity: int) -> Any:
        return self._decoder.new_kv(capacity)

    def forward(self, ids: I32, kv: Any) -> F32:
        with self._lock:
            return self._decoder.forward(ids, kv)

    def logits(self, ids: I32) -> F32:
        with self._lock:
            return self._decoder.logits(ids)


class _Sessions:
    """Sessions at rest, each with a KV cache that the next turn of the same conversation can use."""

    def __init__(self, decoder: _InTurn) -> None:
        self._decoder = decoder
        self._idle: list[Session] = []
        self._lock = threading.Lock()

    def take(self, prompt: Sequence[int]) -> Session:
        """The idle session that has computed most of `prompt`; a new one when all are busy."""
        with self._lock:
            if not self._idle:
                return Session(self._decoder)
            best = max(self._idle, key=lambda session: session.reusable(prompt))
            self._idle.remove(best)
            return best

    def give_back(self, session: Session) -> None:
        """Keep it for the next turn, in place of the one that has rested longest."""
        with self._lock:
            self._idle = [*self._idle, session][-MAX_IDLE_SESSIONS:]
