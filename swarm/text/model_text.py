"""How one model is talked to: conversations and texts become its prompt, its tokens become text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from swarm.errors import ContextFull, TextError
from swarm.text.answer_text import AnswerText
from swarm.text.call_formats import CallFormat, call_format
from swarm.text.calls import call_reader
from swarm.text.forms import Form, Speaker, grammar_of
from swarm.text.harmony import MARKS, MESSAGE, CallsOnChannels, HarmonySplitter, is_harmony
from swarm.text.infill import Infill, can_infill, infill_ids
from swarm.text.messages import Message
from swarm.text.template import NOTHING_MORE, ChatTemplate, Rendered
from swarm.text.thinking import StopStrings, ThinkingSplitter
from swarm.text.tokenizer import Tokenizer
from swarm.text.tools import AUTO, ToolChoice, Tools

NO_TOOLS = Tools(())


class Prompt(NamedTuple):
    """What a model is given to continue, and how what it says is to be read."""

    ids: list[int]
    is_chat: bool = False
    opens_thinking: bool = False  # the model begins inside its thinking
    calls: CallFormat | None = None  # how it calls functions, where it was offered some
    tools: Tools = NO_TOOLS
    one_call: bool = False
    grammar: str = ""  # that the answer must follow; "": none
    ends: frozenset[int] = frozenset()  # tokens that end the answer, beside those that end any


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
        choice: ToolChoice = AUTO,
        form: Form | None = None,
        thinking: bool | None = None,
        template_values: Mapping[str, object] = NOTHING_MORE,
        context: int,
    ) -> Prompt:
        """The prompt of a conversation; TextError when it cannot be one for this model.

        tools: functions that it may call; `choice`, what is demanded of it there. form: what the answer must be.

        ContextFull when it is too long for `context` tokens by its characters alone; see `check_fits` for the rest.
        """
        if self.template is None:
            raise TextError(
                f"{self.name} has no chat template, so it is no chat model; "
                "`swarm run --raw` and /v1/completions continue a text"
            )
        calls = self._calls() if tools else None
        offered = Tools(tools or ())
        rendered = self.template.render(messages, tools=tools, thinking=thinking, more=template_values)
        check_length(self.tokenizer.least_tokens(rendered.text), context)
        prompt = Prompt(
            rendered.encode(self.tokenizer),
            is_chat=True,
            opens_thinking=rendered.opens_thinking,
            calls=calls,
            tools=offered,
            one_call=not choice.parallel,
            grammar=self._grammar(grammar_of(form, offered, choice, self._speaker(rendered, thinking))),
        )
        self.check(prompt.ids)
        return prompt

    def continuation(self, prompt: str | Sequence[int], *, form: Form | None = None, context: int) -> Prompt:
        """The prompt that is a text, or token ids, as they are; ContextFull as for `chat`.

        Who writes a whole prompt writes the marks of turns and gaps, too: they are read as such, unlike in a chat.
        """
        if isinstance(prompt, str):
            check_length(self.tokenizer.least_tokens(prompt), context)
            marked = prompt.startswith(self._beginning) if self._beginning else False
            prompt = self.tokenizer.encode(prompt, special=True, add_bos=self.tokenizer.add_bos and not marked)
        self.check(prompt)
        plain = Speaker(None, inside_thought=False, may_think=False)
        return Prompt(list(prompt), grammar=self._grammar(grammar_of(form, NO_TOOLS, AUTO, plain)))

    def embedded(self, text: str | Sequence[int], *, context: int, cuts: bool) -> Prompt:
        """What a model is given to make an embedding of a text, or of token ids as they are; TextError, ContextFull as
        for `continuation`. cuts: what is too long is cut instead.

        Where the vocabulary says so, the token of the text's end comes last: such models were trained to embed there.
        """
        if not isinstance(text, str):
            self.check(text)
            return Prompt(list(text)[: context - 1] if cuts else list(text))
        while cuts and self.tokenizer.least_tokens(text[: len(text) // 2]) >= context:
            text = text[: len(text) // 2]  # twice what could be needed is enough to count
        ids = self.continuation(text, context=2 * len(text) + context if cuts else context).ids
        end = self.tokenizer.eos_id if self.tokenizer.vocabulary.add_eos else None
        ends = [] if end is None or ids[-1:] == [end] else [end]
        return Prompt((ids[: context - 1 - len(ends)] if cuts else ids) + ends)

    def infill(self, wanted: Infill, *, context: int) -> Prompt:
        """The prompt for what is between two texts; TextError where the model cannot, ContextFull as for `chat`."""
        texts = (wanted.prefix, wanted.suffix, *(text for _, text in wanted.files))
        check_length(sum(map(self.tokenizer.least_tokens, texts)), context)
        ids, ends = infill_ids(self.name, self.tokenizer, wanted)
        self.check(ids)
        return Prompt(ids, ends=ends)

    def reader(self, prompt: Prompt, stop: Sequence[str]) -> AnswerText:
        """What makes text of the answer to `prompt`."""
        if prompt.is_chat and self.template is not None and self.template.is_harmony:
            channels = HarmonySplitter(calls=prompt.calls is not None)
            stream, apart = self.tokenizer.stream(shown=MARKS), CallsOnChannels(channels)
            return AnswerText(stream, StopStrings(list(stop)), channels, apart, one_call=prompt.one_call)
        splitter = ThinkingSplitter(inside=prompt.opens_thinking) if prompt.is_chat else None
        calls = call_reader(prompt.calls, prompt.tools) if prompt.calls is not None else None
        stops = StopStrings(list(stop))
        return AnswerText(self.tokenizer.stream(), stops, splitter, calls, one_call=prompt.one_call)

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What it can do, in the words of Ollama: completion, tools, thinking, insert."""
        more = ("insert",) if can_infill(self.tokenizer) else ()
        return capabilities_of(self.template.source if self.template is not None else "") + more

    @property
    def _beginning(self) -> str:
        """The mark of a text's beginning; "" where the model has none."""
        return "" if self.tokenizer.bos_id is None else self.tokenizer.token_name(self.tokenizer.bos_id)

    def _grammar(self, grammar: str) -> str:
        """The same, when it can be followed; TextError when not."""
        if grammar:
            self.tokenizer.grammars.check(grammar)
        return grammar

    def _speaker(self, rendered: Rendered, thinking: bool | None) -> Speaker:
        may_think = thinking is not False and "thinking" in self.capabilities
        calls = self.template.calls if self.template is not None else None
        on_channels = self.template is not None and self.template.is_harmony and not rendered.text.endswith(MESSAGE)
        return Speaker(calls, rendered.opens_thinking, may_think, on_channels)

    def _calls(self) -> CallFormat:
        assert self.template is not None
        if self.template.calls is None:
            raise TextError(
                f"{self.name} does not support tools: its chat template has no place for them; "
                "leave them out, or take a model that was made for them"
            )
        return self.template.calls

    def check(self, ids: Sequence[int]) -> None:
        """Raise TextError for an id that is no token of this model."""
        bad = next((i for i in ids if not 0 <= i < self._n_vocab), None)
        if bad is not None:
            raise TextError(f"{bad} is no token of this model; its ids are 0 to {self._n_vocab - 1}")


def capabilities_of(template: str) -> tuple[str, ...]:
    """What a model with this chat template can do; "" for none."""
    thinks = "<think>" in template or "enable_thinking" in template or is_harmony(template)
    return ("completion", *(["tools"] if call_format(template) else []), *(["thinking"] if thinks else []))


def check_fits(prompt: Sequence[int], context: int) -> None:
    """Raise TextError for a prompt that is none, ContextFull for one that leaves no room for an answer."""
    if not prompt:
        raise TextError("the prompt is empty")
    if min(prompt) < 0:
        raise TextError(f"{min(prompt)} is not a token id")
    if len(prompt) >= context:
        raise _too_long(len(prompt), context)


def check_length(least_tokens: int, context: int) -> None:
    """Raise ContextFull for a text of at least so many tokens: to count them exactly could take minutes."""
    if least_tokens >= context:
        raise _too_long(least_tokens, context, "at least ")


def _too_long(n_tokens: int, context: int, at_least: str = "") -> ContextFull:
    return ContextFull(
        f"the conversation has {at_least}{n_tokens} tokens and the context holds {context}; "
        "start anew, shorten it, or raise the context",
        n_tokens=n_tokens,
        context=context,
    )


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids the two have in common from the start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
