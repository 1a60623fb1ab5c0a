"""Chat templates: a conversation becomes the text that a model was trained to continue."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from swarm.errors import BadModelFile, TextError
from swarm.text.call_formats import CallFormat, call_format
from swarm.text.guard import Guard
from swarm.text.harmony import ASSISTANT, FINAL, described, is_harmony
from swarm.text.messages import Message, checked, for_template, with_text_arguments, with_tools
from swarm.text.sandbox import RENDERER, SandboxedTemplate
from swarm.text.tokenizer import Tokenizer

_BUILT_IN = Path(__file__).with_name("templates")
_KEY = "tokenizer.chat_template"
_PROBE = "does-it-write-this"


NOTHING_MORE: Mapping[str, object] = MappingProxyType({})
_HINTS = frozenset(("reasoning_effort",))
_OF_THE_CONVERSATION = frozenset(("messages", "tools", "add_generation_prompt", "bos_token", "eos_token"))


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    `literal` holds the positions, rising, of characters that people wrote and that no control token may cover:
    encode with `tokenizer.encode(text, special=True, literal=literal)`.
    """

    text: str
    literal: Sequence[int]

    @property
    def opens_thinking(self) -> bool:
        """Whether the model goes on inside a `<think>` that the template has opened."""
        return self.text.rstrip().endswith("<think>")

    def without_thinking(self) -> Rendered:
        """The same with the thinking that the template opens closed again, for templates that know no other way."""
        return Rendered(self.text.rstrip() + "\n\n</think>\n\n", self.literal)

    def answering_at_once(self) -> Rendered:
        """The same with the channel of the answer chosen, where the model would choose one (see harmony.py)."""
        text = self.text.rstrip()
        return Rendered(text + FINAL, self.literal) if text.endswith(ASSISTANT) else self

    def encode(self, tokenizer: Tokenizer) -> list[int]:
        """The prompt's ids, with the token of the text's beginning where the model wants one."""
        ids = tokenizer.encode(self.text, special=True, literal=self.literal)
        missing = tokenizer.add_bos and tokenizer.bos_id is not None and ids[:1] != [tokenizer.bos_id]
        return tokenizer.encode("", add_bos=missing) + ids


class ChatTemplate:
    """The chat template of one model."""

    def __init__(
        self,
        source: str,
        *,
        control: Iterable[str] = (),
        bos_token: str = "",
        eos_token: str = "",
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """`control`: the names of the vocabulary's control tokens, which no user's text may become."""
        self.source = source
        self._control = frozenset(control)
        self._specials = {"bos_token": bos_token, "eos_token": eos_token}
        self._now = now

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object], tokenizer: Tokenizer) -> ChatTemplate | None:
        """The template in the file, or one of ours for models that are known by their tokens; None for neither."""
        source = metadata.get(_KEY)
        if source is not None and not isinstance(source, str):
            raise BadModelFile(f"{_KEY} is {source!r:.80}: must be text")
        if not (source or "").strip():  # a blank one is none: it would write no word of the conversation
            source = None
            name = fallback_name(str(metadata.get("general.architecture", "")), tokenizer)
            source = built_in(name) if name else None
        if source is None:
            return None
        RENDERER.start()  # while weights are read: the first conversation need not wait for it
        return cls(
            source,
            control=tokenizer.vocabulary.control,
            bos_token=_name(tokenizer, tokenizer.bos_id),
            eos_token=_name(tokenizer, tokenizer.eos_id),
        )

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, object]] | None = None,
        thinking: bool | None = None,
        add_generation_prompt: bool = True,
        more: Mapping[str, object] = NOTHING_MORE,
    ) -> Rendered:
        """The conversation as text, ending where the assistant's answer begins; TextError when it cannot be rendered.

        thinking: ask for it or for none, where the template can; None leaves the choice to the template. more: values
        for the template's own names; TextError for one that it does not read, or that is of the conversation.
        """
        more = self._read_of(more)
        adapted = with_tools(for_template(checked(messages), self.source), tools, self.source)
        tools = described(tools) if tools and self.is_harmony else tools
        guard = Guard(self._control, (adapted, tools, more))
        options = {"tools": guard.protect(list(tools)) if tools else None, **_thinking_options(thinking)}
        options |= {name: guard.protect(value) for name, value in more.items()}
        options["add_generation_prompt"] = add_generation_prompt
        try:
            text = self._render(guard, adapted, options)
        except TextError:
            # Some templates can only join strings: they fail on arguments that are objects, and on no content.
            if not any("tool_calls" in message for message in adapted):
                raise
            text = self._render(guard, with_text_arguments(adapted), options)
        rendered = Rendered(*guard.reveal(text))
        if self.is_harmony:  # on the channel of answers it could call nothing
            return rendered.answering_at_once() if thinking is False and not tools else rendered
        return rendered.without_thinking() if thinking is False and rendered.opens_thinking else rendered

    @property
    def is_harmony(self) -> bool:
        """Whether answers come as messages on channels."""
        return is_harmony(self.source)

    @cached_property
    def calls(self) -> CallFormat | None:
        """How the model writes calls of functions; None when the template has none, or of a kind that is unknown."""
        return call_format(self.source)

    def _read_of(self, more: Mapping[str, object]) -> dict[str, object]:
        """What the template reads of these values; TextError for others, but for those that any model is told."""
        read = {name: value for name, value in more.items() if re.search(rf"\b{re.escape(name)}\b", self.source)}
        wrong = next((name for name in more if name in _OF_THE_CONVERSATION), None)
        if wrong is not None:
            raise TextError(f"chat_template_kwargs has {wrong}, which comes from the conversation; leave it out")
        wrong = next((name for name in more if name not in read and name not in _HINTS), None)
        if wrong is not None:
            raise TextError(f"chat_template_kwargs has {wrong!r:.80}, which this model's chat template does not read")
        return read

    def _render(self, guard: Guard, messages: Sequence[Message], options: Mapping[str, object]) -> str:
        protected = [_protected(guard, message) for message in messages]
        if self._wants_parts:
            protected = [_in_parts(message) for message in protected]
        return self._template.render({"messages": protected, **options, **self._specials}, self._now())

    @cached_property
    def _wants_parts(self) -> bool:
        """Whether the template leaves out contents that are texts, and writes those that are lists of parts."""
        return not self._writes(_PROBE) and self._writes([{"type": "text", "text": _PROBE}])

    def _writes(self, content: object) -> bool:
        values = {"messages": [{"role": "user", "content": content}], "add_generation_prompt": True, **self._specials}
        try:
            return _PROBE in self._template.render(values, self._now())
        except TextError:
            return False

    @cached_property
    def _template(self) -> SandboxedTemplate:
        return SandboxedTemplate(self.source)


def built_in(name: str) -> str:
    """The source of one of our own templates."""
    return (_BUILT_IN / f"{name}.jinja").read_text(encoding="utf-8")


def fallback_name(architecture: str, tokenizer: Tokenizer) -> str | None:
    """Which of our own templates fits a model whose file brings none, judged by its architecture and tokens."""

    def has(*names: str) -> bool:
        return all(tokenizer.token_id(name) is not None for name in names)

    if architecture == "glm4moe" and has("<|im_start|>", "<|im_end|>"):
        return "intellect-3"
    if has("[gMASK]", "<sop>", "<|user|>", "<|assistant|>"):
        return "glm-4.5" if architecture == "glm4moe" else "glm-4-0414"
    if has("<|im_start|>", "<|im_end|>"):
        return "chatml"
    if has("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"):
        return "llama-3"
    return None


def _protected(guard: Guard, message: Message) -> object:
    rest = {key: value for key, value in message.items() if key != "role"}
    protected = guard.protect(rest, free_thinking=message["role"] == "assistant")
    assert isinstance(protected, dict)
    return {"role": message["role"], **protected}


def _in_parts(message: object) -> object:
    assert isinstance(message, dict)
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def _thinking_options(thinking: bool | None) -> dict[str, object]:
    # Absent is a value of its own: templates ask whether enable_thinking is defined.
    return {} if thinking is None else {"enable_thinking": thinking, "thinking": thinking}


def _name(tokenizer: Tokenizer, token: int | None) -> str:
    return "" if token is None else tokenizer.token_name(token)
