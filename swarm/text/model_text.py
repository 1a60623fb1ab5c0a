"""How one model is talked to: conversations and texts become its prompt, its tokens become text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from swarm.errors import ContextFull, TextError
from swarm.text.answer_text import AnswerText
from swarm.text.messages import Message
from swarm.text.template import ChatTemplate
from swarm.text.thinking import StopStrings, ThinkingSplitter
from swarm.text.tokenizer import Tokenizer


class Prompt(NamedTuple):
    """What a model is given to continue, and how what it says is to be read."""

    ids: list[int]
    is_chat: bool = False
    opens_thinking: bool = False  # the model begins inside its thinking


class ModelText:
    """The text side of a model called `name`, with `n_vocab` tokens."""

    def __init__(self, name: str, tokenizer: Tokenizer, template: ChatTemplate | None, n_vocab: int) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.template = template
        self._n_vocab = n_vocab

    def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
        thinking: bool | None = None,
        context: int,
    ) -> Prompt:
        """The prompt of a conversation; TextError when it cannot be one for this model.

        ContextFull when it is too long for `context` tokens by its characters alone; see `check_fits` for the rest.
        """
        if self.template is None:
            raise TextError(
                f"{self.name} has no chat template, so it is no chat model; "
                "`swarm run --raw` and /v1/completions continue a text"
            )
        rendered = self.template.render(messages, tools=tools, thinking=thinking)
        check_length(self.tokenizer.least_tokens(rendered.text), context)
        prompt = Prompt(rendered.encode(self.tokenizer), is_chat=True, opens_thinking=rendered.opens_thinking)
        self.check(prompt.ids)
        return prompt

    def continuation(self, prompt: str | Sequence[int], *, context: int) -> Prompt:
        """The prompt that is a text, or token ids, as they are; ContextFull as for `chat`."""
        if isinstance(prompt, str):
            check_length(self.tokenizer.least_tokens(prompt), context)
            prompt = self.tokenizer.encode(prompt, add_bos=self.tokenizer.add_bos)
        self.check(prompt)
        return Prompt(list(prompt))

    def reader(self, prompt: Prompt, stop: Sequence[str]) -> AnswerText:
        """What makes text of the answer to `prompt`."""
        splitter = ThinkingSplitter(inside=prompt.opens_thinking) if prompt.is_chat else None
        return AnswerText(self.tokenizer.stream(), StopStrings(list(stop)), splitter)

    def check(self, ids: Sequence[int]) -> None:
        """Raise TextError for an id that is no token of this model."""
        bad = next((i for i in ids if not 0 <= i < self._n_vocab), None)
        if bad is not None:
            raise TextError(f"{bad} is no token of this model; its ids are 0 to {self._n_vocab - 1}")


def check_fits(prompt: Sequence[int], context: int) -> None:
    """Raise TextError for a prompt that is none, ContextFull for one that leaves no room for an answer."""
    if not prompt:
        raise TextError("the prompt is empty")
    if min(prompt) < 0:
        raise TextError(f"{min(prompt)} is not a token id")
    if len(prompt) >= context:
        raise _too_long(str(len(prompt)), context)


def check_length(least_tokens: int, context: int) -> None:
    """Raise ContextFull for a text of at least so many tokens: to count them exactly could take minutes."""
    if least_tokens >= context:
        raise _too_long(f"at least {least_tokens}", context)


def _too_long(n_tokens: str, context: int) -> ContextFull:
    return ContextFull(
        f"the conversation has {n_tokens} tokens and the context holds {context}; "
        "start anew, shorten it, or raise the context"
    )


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids the two have in common from the start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
