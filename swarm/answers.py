"""What an answer is to whoever reads it: pieces of text, why it ended, what it took. One meaning everywhere, from the
core of a swarm to the command line."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

# Of a prompt that one device computes at once: enough to read each weight once for many tokens, few enough to show
# progress and to stop.
PREFILL_BATCH = 512
# Of a prompt that goes layer by layer, because experts are read from disk: 32 MiB of hidden states at 4,096 values.
HELD_TOKENS = 2048
# Where stages work one behind another, smaller batches keep all of them busy.
PIPELINED_PREFILL_BATCH = 128


class Channel(StrEnum):
    """What a piece of an answer is for."""

    ANSWER = "answer"
    THINKING = "thinking"
    CALL = "call"  # of a function, which whoever asked is to carry out


class Piece(NamedTuple):
    """Some text of an answer, and its channel.

    In the channel of calls the text is a part of the arguments, which are one JSON object; `call` counts the calls of
    an answer from 0, and `name` is the function's, in the first piece of each call and nowhere else.
    """

    text: str
    channel: Channel = Channel.ANSWER
    call: int = 0
    name: str = ""

    @property
    def thinking(self) -> bool:
        """Whether the model is still thinking."""
        return self.channel is Channel.THINKING


class EndReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"  # the model ended it, or a stop string came
    LENGTH = "length"  # as many tokens as were asked for
    CONTEXT = "context"  # the context is full
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ExpertUse:
    """How a mixture that is larger than memory was served. A use is an expert that a step needed, of any layer."""

    hits: int = 0  # uses that found it in memory
    misses: int = 0
    read_bytes: int = 0  # from disk
    wait_s: float = 0.0  # that a thread waited for experts, on average

    @property
    def hit_rate(self) -> float:
        """The share of uses that found their expert in memory; 1 where there was none."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else 1.0

    @property
    def sensible(self) -> ExpertUse:
        """None at all where figures run backwards: what they were taken from has begun anew in between."""
        return self if min(self.hits, self.misses, self.read_bytes) >= 0 else ExpertUse()

    def __add__(self, other: ExpertUse) -> ExpertUse:
        return ExpertUse(
            self.hits + other.hits,
            self.misses + other.misses,
            self.read_bytes + other.read_bytes,
            self.wait_s + other.wait_s,
        )

    def __sub__(self, other: ExpertUse) -> ExpertUse:
        return ExpertUse(
            self.hits - other.hits,
            self.misses - other.misses,
            self.read_bytes - other.read_bytes,
            self.wait_s - other.wait_s,
        )


@dataclass(frozen=True, slots=True)
class Stats:
    """What an answer took. Tokens that end an answer are not counted."""

    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt, reused from the turn before
    generated_tokens: int = 0
    guessed_tokens: int = 0  # of those, that were computed before it was certain that they come
    guesses: int = 0  # that were computed, also those that did not come
    first_token_s: float = 0.0  # from the beginning to the first token
    prefill_s: float = 0.0  # for the prompt tokens that were not cached
    decode_s: float = 0.0  # for all tokens after the first
    experts: ExpertUse = ExpertUse()

    @property
    def prefill_tokens_per_s(self) -> float:
        """Speed of reading the prompt; 0 where nothing was read."""
        return (self.prompt_tokens - self.cached_tokens) / self.prefill_s if self.prefill_s > 0 else 0.0

    @property
    def decode_tokens_per_s(self) -> float:
        """Speed of answering after the first token; 0 for fewer than two tokens."""
        return (self.generated_tokens - 1) / self.decode_s if self.generated_tokens > 1 and self.decode_s > 0 else 0.0


class Meter:
    """Adds up what an answer takes; the seconds are those that its reader waited for the model."""

    def __init__(self, prompt_tokens: int) -> None:
        self.cached_tokens = 0
        self.guessed_tokens = self.guesses = 0
        self._prompt_tokens = prompt_tokens
        self._generated_tokens = 0
        self._prefill_s: float | None = None
        self._first_token_s = self._decode_s = 0.0
        self.experts = ExpertUse()

    def prefilled(self, after_s: float) -> None:
        """So long after the beginning, so much of the prompt was read; called again for each batch."""
        self._prefill_s = after_s

    def token(self, after_s: float) -> None:
        """One more token, so long after the one before; the first, after the beginning."""
        self._generated_tokens += 1
        if self._generated_tokens == 1:
            self._first_token_s = after_s
        else:
            self._decode_s += after_s

    @property
    def stats(self) -> Stats:
        """The figures so far. Where nobody tells when the prompt was read, it was when the first token came."""
        return Stats(
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self.cached_tokens,
            generated_tokens=self._generated_tokens,
            guessed_tokens=self.guessed_tokens,
            guesses=self.guesses,
            first_token_s=self._first_token_s,
            prefill_s=self._first_token_s if self._prefill_s is None else self._prefill_s,
            decode_s=self._decode_s,
            experts=self.experts,
        )
