"""OpenAI's replies, whole or in chunks: what chats and completions have in common."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from swarm.answers import EndReason, ExpertUse, Piece, Stats
from swarm.api.dialect import EVENT_STREAM, STILL_AT_IT, Gathered, Json, has_called, sse
from swarm.api.errors import body_of
from swarm.api.openai_logprobs import TokenTexts, Told
from swarm.errors import SwarmError
from swarm.node.answer import Answer, Note, Reading

# What OpenAI calls the ways in which an answer ends.
FINISH = {
    EndReason.STOP: "stop",
    EndReason.LENGTH: "length",
    EndReason.CONTEXT: "length",
    EndReason.CANCELLED: "stop",
}


def finish_of(answer: Answer) -> str:
    """Why it ended, in OpenAI's words."""
    return "tool_calls" if has_called(answer) else FINISH[answer.finish_reason or EndReason.STOP]


def usage(answers: Sequence[Answer]) -> Json:
    """What answers to one prompt, or to several, took, in tokens; a prompt that several answer counts once."""
    prompts = {tuple(answer.prompt): answer.stats for answer in reversed(answers)}
    n_prompt = sum(stats.prompt_tokens for stats in prompts.values())
    n_generated = sum(answer.stats.generated_tokens for answer in answers)
    n_guessed = sum(answer.stats.guessed_tokens for answer in answers)
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_generated,
        "total_tokens": n_prompt + n_generated,
        "completion_tokens_details": {
            "accepted_prediction_tokens": n_guessed,
            "rejected_prediction_tokens": sum(answer.stats.guesses for answer in answers) - n_guessed,
        },
        "prompt_tokens_details": {"cached_tokens": sum(stats.cached_tokens for stats in prompts.values())},
        **_experts(answers),
    }


def _experts(answers: Sequence[Answer]) -> Json:
    """How experts that this device has on disk were found meanwhile, where some are: answers at once count the same."""
    use = max((answer.stats.experts for answer in answers), key=lambda use: use.hits + use.misses, default=ExpertUse())
    return {"experts": asdict(use)} if use.hits or use.misses else {}


def timings(stats: Stats) -> Json:
    """Times beside what OpenAI tells: ours in seconds, and llama-server's."""
    n_read, n_after = stats.prompt_tokens - stats.cached_tokens, max(stats.generated_tokens - 1, 0)
    guesses: Json = {"draft_n": stats.guesses, "draft_n_accepted": stats.guessed_tokens} if stats.guesses else {}
    return {
        "first_token_s": stats.first_token_s,
        "decode_s": stats.decode_s,
        "cache_n": stats.cached_tokens,
        "prompt_n": n_read,
        "prompt_ms": 1000 * stats.prefill_s,
        "prompt_per_token_ms": 1000 * stats.prefill_s / n_read if n_read else 0.0,
        "prompt_per_second": stats.prefill_tokens_per_s,
        "predicted_n": stats.generated_tokens,
        "predicted_ms": 1000 * stats.decode_s,
        "predicted_per_token_ms": 1000 * stats.decode_s / n_after if n_after else 0.0,
        "predicted_per_second": stats.decode_tokens_per_s,
        **guesses,
    }


class OpenAiReply(ABC):
    """One reply; what it consists of is said by `Chat` and `Completion`."""

    media_type = EVENT_STREAM
    silence = STILL_AT_IT
    kind = ""  # of the whole
    chunk_kind = ""
    tells = False  # log probabilities

    def __init__(
        self,
        prefix: str,
        model: str,
        *,
        wants_usage: bool = False,
        wants_progress: bool = False,
        for_us: bool = False,
    ) -> None:
        """`model`: as it was asked for; `for_us`: our own clients hear the quiet lines, too."""
        self.id = prefix + secrets.token_hex(12)
        self._created = int(time.time())
        self._model = model
        self._wants_usage = wants_usage or for_us
        self._wants_progress = wants_progress
        self._for_us = for_us
        self._began_at = time.perf_counter()
        self._n_told = 0  # tokens of this choice that were told of
        self._n_cached = 0  # of its prompt, reused

    # --- what a kind of reply says

    def begin(self, index: int, answer: Answer) -> bytes:
        """Before the first piece of a choice."""
        self._model = self._model or answer.model.name
        self._n_told, self._n_cached = 0, answer.stats.cached_tokens
        return b""

    @abstractmethod
    def delta(self, index: int, piece: Piece) -> Json:
        """The part of a choice that a piece is."""

    @abstractmethod
    def last(self) -> Json:
        """The part of a choice that ends it."""

    @abstractmethod
    def choice(self, index: int, gathered: Gathered) -> Json:
        """A choice that is whole."""

    @abstractmethod
    def chances(self, told: Told, texts: TokenTexts) -> Json:
        """Log probabilities of some tokens."""

    # --- the reply

    def piece(self, index: int, answer: Answer, piece: Piece) -> bytes:
        """A chunk with some text."""
        return sse(self.chunk(index, {**self.delta(index, piece), **self._new_chances(answer)}))

    def quiet(self, event: Note | Reading) -> bytes:
        """For those who asked: how far the prompt is read."""
        if self._for_us:
            told = {"reading": [event.done, event.total]} if isinstance(event, Reading) else _note(event)
            return sse(told, "swarm")
        if not self._wants_progress or isinstance(event, Note):
            return b""
        took_ms = int(1000 * (time.perf_counter() - self._began_at))
        progress = {"total": event.total, "cache": self._n_cached, "processed": event.done, "time_ms": took_ms}
        return sse({**self.chunk(0, self.last()), "prompt_progress": progress})

    def end(self, index: int, answer: Answer) -> bytes:
        """The chunk that ends a choice."""
        return sse(self.chunk(index, {**self.last(), **self._new_chances(answer)}, finish_of(answer)))

    def close(self, answers: Sequence[Answer]) -> bytes:
        """The figures, for those who ask for them, and the end of the stream."""
        figures = sse(self._figures(answers)) if self._wants_usage else b""
        return figures + sse("[DONE]")

    def error(self, error: SwarmError) -> bytes:
        """In place of all that would follow."""
        return sse(dict(body_of(error)))

    def whole(self, gathered: Sequence[Gathered]) -> Json:
        """The response when nothing is streamed."""
        answers = [each.answer for each in gathered]
        self._model = self._model or answers[0].model.name
        choices = [
            {"index": i, **self.choice(i, each), **self._all_chances(each), "finish_reason": finish_of(each.answer)}
            for i, each in enumerate(gathered)
        ]
        figures = {"usage": usage(answers), "timings": timings(answers[-1].stats)}
        return {**self._head(self.kind), "choices": choices, **figures}

    def chunk(self, index: int, part: Json, finish: str | None = None) -> Json:
        """A part of a choice as a chunk."""
        choice: dict[str, Any] = {"index": index, **part, "finish_reason": finish}
        return {**self._head(self.chunk_kind), "choices": [choice]}

    def _new_chances(self, answer: Answer) -> Json:
        """Of the tokens that came since the last chunk."""
        new = answer.told[self._n_told :] if self.tells else []
        self._n_told += len(new)
        return {"logprobs": self.chances(new, answer.model.tokenizer)} if new else {}

    def _all_chances(self, gathered: Gathered) -> Json:
        self.begin(0, gathered.answer)
        return self._new_chances(gathered.answer)

    def _figures(self, answers: Sequence[Answer]) -> Json:
        last = answers[-1]
        ours: Json = {"swarm_finish": last.finish_reason, "swarm_tokens": last.tokens} if self._for_us else {}
        figures = {"usage": usage(answers), "timings": timings(last.stats)}
        return {**self._head(self.chunk_kind), "choices": [], **figures, **ours}

    def _head(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": self._created, "model": self._model}


def _note(note: Note) -> Json:
    return {"note": note.text, "kind": note.kind.value}
