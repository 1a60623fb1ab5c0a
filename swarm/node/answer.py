"""An answer of the swarm as its reader gets it: text as it comes, and now and then a quiet line about the devices.

A conversation's memory is reserved on every stage, so an answer asks for one KV reservation after the other: first for
the least of KV_RESERVATIONS, and when that is full it goes on where it stopped, with more room. The reader sees one
answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from swarm.answers import EndReason, ExpertUse, Meter, Piece, Stats
from swarm.cluster.effects import Effect, Embedded, Emit, Ended, Notice, NoticeKind, Unsay
from swarm.cluster.session import AnswerRequest
from swarm.engine.sampling import SamplingParams
from swarm.errors import DoesNotFit, FormDeadEnd, SwarmError, SwarmNetworkError, TooBusy
from swarm.node.library import KnownModel
from swarm.node.sampling import sampling_of
from swarm.text.forms import Form
from swarm.text.grammar import GrammarState
from swarm.text.infill import Infill
from swarm.text.messages import Message
from swarm.text.model_text import Prompt
from swarm.text.tools import AUTO, ToolChoice
from swarm.wire.ids import SessionId
from swarm.wire.records import TokenChance

KV_RESERVATIONS = (512, 1024, 2048, 4096, 8192)  # tokens of context that an answer reserves; beyond, each doubles
SETTLE_RETRY_S = 0.25  # a model that does not fit is tried again so often while the node settles
MIN_RESERVED_TOKENS = 128  # of a reservation that are free when it is made, at least


@dataclass(frozen=True, slots=True)
class Embedding:
    """A vector of its prompt is wanted, in place of an answer.

    dimensions: its first ones alone, made as long as the whole was. cuts: a text that is too long is cut.
    """

    dimensions: int | None = None
    cuts: bool = False


@dataclass(frozen=True)
class Question:
    """What somebody asks of a model: a conversation, or a text (or token ids) to be continued as it is."""

    model: str
    messages: Sequence[Message] = ()
    prompt: str | Sequence[int] | None = None
    params: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    thinking: bool | None = None
    template_values: Mapping[str, object] = field(default_factory=dict)  # for names of the model's own chat template
    tools: Sequence[Mapping[str, object]] | None = None
    tool_choice: ToolChoice = AUTO
    form: Form | None = None  # that the answer must have
    infill: Infill | None = None  # the texts around a gap that is to be filled in, in place of all that
    guess: bool = True  # compute tokens that may come along with those that are certain, where that is faster
    draft: bool = False  # a small model on this device says which
    embedding: Embedding | None = None
    asker: str = ""  # only the same one's conversations are gone on with: what is reused tells what was said


@dataclass(frozen=True, slots=True)
class Note:
    """One quiet line: why the answer waits, or what changed. Empty: it goes on."""

    text: str
    kind: NoticeKind


@dataclass(frozen=True, slots=True)
class Reading:
    """How much of the prompt is read: tokens done, of how many."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Pulse:
    """Nothing new; somebody wanted the reader to hear of it."""


@dataclass(frozen=True)
class Port:
    """What an answer needs of the node; called on its loop."""

    ask: Callable[[AnswerRequest], None]
    cancel: Callable[[SessionId], None]
    closed: Callable[[SessionId], None]
    is_settling: Callable[[], bool]  # the node has just started: devices that it knows may not be there yet
    expert_use: Callable[[], ExpertUse] = ExpertUse  # of the experts that this device has on disk, since the beginning


@dataclass(frozen=True, slots=True)
class Beginning:
    """The session of an answer, the one that it copies from, and how many of its tokens are there, it seems."""

    session: SessionId
    source: SessionId | None = None
    cached_tokens: int = 0
    owner: bytes = b""  # in whose name devices keep its keys and values


class Answer:
    """Iterate over `events()` once, on the node's loop; then `finish_reason` and `stats` say how it went."""

    def __init__(
        self,
        port: Port,
        model: KnownModel,
        question: Question,
        prompt: Prompt,
        *,
        beginning: Beginning,
        context: int,
    ) -> None:
        self.model = model
        self.session = beginning.session
        self.question = question
        self.prompt = prompt.ids
        self._ends = prompt.ends
        self.tokens: list[int] = []
        self.told: list[tuple[TokenChance, ...]] = []  # of each token, where the parameters ask for it
        self.vector = b""  # float32, little-endian, where an embedding is what was asked for
        self.finish_reason: EndReason | None = None
        self._port = port
        self.context = context
        self._sampling = msgspec.structs.replace(
            sampling_of(question.params.seeded()),
            grammar=prompt.grammar,
            answer_at=len(prompt.ids),
            vector=question.embedding is not None,
        )
        self._reader_of = partial(model.text.reader, prompt, question.stop)
        self._reader = self._reader_of()
        self._n_shown = 0  # characters of pieces
        self._form = model.tokenizer.grammars.start(prompt.grammar) if prompt.grammar else None
        self._inbox: asyncio.Queue[Effect | Reading | Pulse] = asyncio.Queue()
        self._meter = Meter(len(prompt.ids))
        self._meter.cached_tokens = beginning.cached_tokens
        self._used_before = port.expert_use()
        self._source = beginning.source
        self._owner = beginning.owner
        self._last_at = time.perf_counter()  # when the last token came, or the question
        self._cancelled = False

    @property
    def called(self) -> bool:
        """Whether it calls functions."""
        return self._reader.n_calls > 0

    @property
    def stop_string(self) -> str | None:
        """The one that ended it, if one did."""
        return self._reader.stop_string

    @property
    def stats(self) -> Stats:
        """The figures so far."""
        return self._meter.stats

    def deliver(self, news: Effect | Reading | Pulse) -> None:
        """There is something for this answer, mostly from the core."""
        self._inbox.put_nowait(news)

    def reused(self, n: int | None) -> None:
        """So many tokens of the prompt were there when the stages began, if that is known."""
        if n is not None:
            self._meter.cached_tokens = n

    def cancel(self) -> None:
        """End it early."""
        if self.finish_reason is None and not self._cancelled:
            self._cancelled = True
            self._port.cancel(self.session)

    async def events(self) -> AsyncGenerator[Piece | Note | Reading | Pulse, None]:
        """The answer as it comes; raise SwarmError when it cannot go on. Stop iterating to cancel it."""
        try:
            if self.question.max_tokens == 0:
                self.finish_reason = EndReason.LENGTH
                return
            self._reserve_next()
            while self.finish_reason is None:
                event = await self._inbox.get()
                if isinstance(event, Emit):
                    for piece in self._on_token(event):
                        self._n_shown += len(piece.text)
                        yield piece
                elif isinstance(event, Embedded):
                    self.vector = event.vector
                elif isinstance(event, Unsay):
                    self._unsay(event)
                elif isinstance(event, Notice):
                    yield Note(event.text, event.kind)
                elif isinstance(event, (Reading, Pulse)):
                    yield event
                elif isinstance(event, Ended) and event.missing_bytes and not self.tokens and self._port.is_settling():
                    await asyncio.sleep(SETTLE_RETRY_S)
                    self._reserve_next()
                elif isinstance(event, Ended):
                    for piece in self._on_end(event):
                        yield piece
                    await self._check_whole(event)
        finally:
            self.cancel()
            self._port.closed(self.session)

    # --- within

    def _reserve_next(self) -> None:
        ids = (*self.prompt, *self.tokens)
        most = self.context - len(ids)
        if self.question.max_tokens is not None:
            most = min(most, self.question.max_tokens - len(self.tokens))
        room = min(most, next_reservation(len(ids)) - len(ids))
        ends = tuple(sorted(self.model.tokenizer.end_tokens | self._ends))
        request = AnswerRequest(
            session=self.session,
            model=self.model.id,
            ids=ids,
            max_tokens=room,
            sampling=self._sampling,
            end_ids=ends,
            source=self._source,
            asker=self.question.asker,
            owner=self._owner,
            has_more=room < most,
            goes_on=bool(self.tokens),
            guess=self.question.guess,
            draft=self.question.draft
            and self._form is None,  # what a form asks for is known better where it is sampled
        )
        self._port.ask(request)

    def _on_token(self, emit: Emit) -> Iterator[Piece]:
        if self._cancelled:
            return
        now = time.perf_counter()
        self._meter.token(now - self._last_at)
        self._meter.guessed_tokens += emit.guessed
        self._meter.guesses += emit.n_guesses
        self._last_at = now
        self.tokens.append(emit.token)
        if self._form is not None and not self._keeps(self._form):
            raise self._formless()
        if self.question.params.n_told:
            self.told.append(emit.told)
        yield from self._reader.push(emit.token)
        if self._reader.stopped:
            self.cancel()

    def _unsay(self, event: Unsay) -> None:
        """Forget tokens that a device has falsified; raise SwarmNetworkError when their text was seen."""
        kept = self.tokens[: event.position - len(self.prompt)]
        reader = self._reader_of()
        if sum(len(piece.text) for token in kept for piece in reader.push(token)) != self._n_shown:
            self.finish_reason = EndReason.FAILED
            self._port.cancel(self.session)
            raise SwarmNetworkError(
                f"the last words of this answer are not the model's: {event.names} computed something else; ask again, "
                "it goes on without"
            )
        self._reader, self.tokens, self.told = reader, kept, self.told[: len(kept)]

    def _on_end(self, ended: Ended) -> Iterator[Piece]:
        self._meter.experts = (self._port.expert_use() - self._used_before).sensible
        if ended.reason is EndReason.FAILED:
            self.finish_reason = EndReason.FAILED
            raise error_of(ended)
        is_full = len(self.prompt) + len(self.tokens) >= self.context
        if ended.reason is EndReason.LENGTH and not (self._cancelled or is_full or self._has_all):
            self._reserve_next()
            return
        yield from self._reader.finish()
        self.finish_reason = self._reason(ended)

    def _keeps(self, form: GrammarState) -> bool:
        """Whether the answer so far keeps to its form; FormDeadEnd where the form itself is at fault."""
        try:
            return form.takes(self.tokens)
        except FormDeadEnd:
            self.finish_reason = EndReason.FAILED
            self._port.cancel(self.session)
            raise

    async def _check_whole(self, ended: Ended) -> None:
        """Raise where an answer has ended without its whole form: FormDeadEnd where that led nowhere, and no device is
        to blame. To see it may take a large form a second.
        """
        form = self._form
        if ended.reason is not EndReason.STOP or form is None or await asyncio.to_thread(lambda: form.is_whole):
            return
        self.finish_reason = EndReason.FAILED
        grammars = self.model.tokenizer.grammars
        await asyncio.to_thread(grammars.check_goes_on, self._sampling.grammar, self.tokens)
        raise self._formless()

    def _formless(self) -> SwarmNetworkError:
        """The device that samples is of a version that knows no grammars: to say nothing would be a lie."""
        self.finish_reason = EndReason.FAILED
        self._port.cancel(self.session)
        return SwarmNetworkError(
            "a device of this swarm does not keep the form of answers; update Swarm there, or ask without a form"
        )

    def _reason(self, ended: Ended) -> EndReason:
        if self._reader.stopped or ended.reason is EndReason.STOP:
            return EndReason.STOP
        if ended.reason is EndReason.CANCELLED:
            return EndReason.CANCELLED
        return EndReason.LENGTH if self._has_all else EndReason.CONTEXT

    @property
    def _has_all(self) -> bool:
        """As many tokens came as were asked for."""
        return self.question.max_tokens is not None and len(self.tokens) >= self.question.max_tokens


def next_reservation(n_ids: int) -> int:
    """The context that is reserved next for so many tokens."""
    for reserved in KV_RESERVATIONS:
        if n_ids + MIN_RESERVED_TOKENS <= reserved:
            return reserved
    return max(2 * KV_RESERVATIONS[-1], 1 << (n_ids + MIN_RESERVED_TOKENS - 1).bit_length())


def error_of(ended: Ended) -> SwarmError:
    """Why an answer failed, as an error for the user."""
    if ended.retry_s:
        return TooBusy(ended.error, ended.retry_s)
    return DoesNotFit(ended.error) if ended.missing_bytes else SwarmNetworkError(ended.error or "the answer was lost")
