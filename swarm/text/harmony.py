"""The answers of gpt-oss: messages one after the other, each with a channel, told apart by control tokens.

    <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...<|return|>
    <|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{...}<|call|>

What is said on the channel `analysis`, or to a tool that nobody offered, is thinking; what is said to a function is its
call. The name may also stand before the channel, as templates write calls of the past. Marks and the headers between
them are in none. <|return|> and <|call|> end an answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from swarm.answers import Channel, Piece
from swarm.text.thinking import overlap

CHANNEL, MESSAGE, START, END = MARKS = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>")
ANALYSIS = "analysis"
FINAL = f"{CHANNEL}final{MESSAGE}"  # what makes the model answer at once
ASSISTANT = f"{START}assistant"
FUNCTIONS = "functions."
_MARK = re.compile("|".join(map(re.escape, MARKS)))
_RECIPIENT = re.compile(r"\bto=(\S+)")
_HEADER_BEGUN = re.compile(r"\s*(t|to|to=\S*\s*)?")  # what may follow the name of the one who speaks


def is_harmony(template: str) -> bool:
    """Whether a template speaks so."""
    return CHANNEL in template and MESSAGE in template


class HarmonySplitter:
    """Tells thinking, answer and calls apart; the marks must be in the text that it is given.

    It is also what counts the calls, for whoever reads an answer in which there are some.
    """

    def __init__(self, *, calls: bool = False) -> None:
        """`calls`: functions were offered; without, what is said to one is an answer."""
        self.n_calls = 0
        self._calls = calls
        self._held = ""
        self._role = ""  # what stood before the channel
        self._header: str | None = ""  # None: inside a message
        self._begins = True  # no mark has come, and the prompt may end inside a message
        self._channel = Channel.ANSWER
        self._is_blank_call = False

    def push(self, text: str) -> list[Piece]:
        """The pieces that are now certain; the beginning of a possible mark is held back."""
        self._held += text
        pieces: list[Piece] = []
        while found := _MARK.search(self._held):
            self._add(pieces, self._held[: found.start()])
            self._held = self._held[found.end() :]
            self._pass(pieces, found[0])
        size = len(self._held) - max(overlap(self._held, mark) for mark in MARKS)
        self._add(pieces, self._held[:size])
        self._held = self._held[size:]
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back, for no mark will come."""
        pieces: list[Piece] = []
        self._add(pieces, self._held)
        if self._begins and self._header:
            pieces.append(Piece(self._header))
        self._end_call(pieces)
        self._held, self._header = "", None
        return pieces

    def _add(self, pieces: list[Piece], text: str) -> None:
        if self._header is not None:
            self._header += text
            if self._begins and not _HEADER_BEGUN.fullmatch(self._header):
                text, self._header, self._begins = self._header, None, False
        if self._header is None and text:
            self._is_blank_call = self._is_blank_call and not text.strip()
            number = self.n_calls if self._channel is Channel.CALL else 0
            pieces.append(Piece(text, self._channel, number))

    def _pass(self, pieces: list[Piece], mark: str) -> None:
        """A mark begins a header, goes on with it, or ends it."""
        self._begins = False
        if mark == MESSAGE:
            self._begin_message(pieces)
            return
        self._end_call(pieces)
        self._role = self._header or "" if mark == CHANNEL else ""
        self._header = ""

    def _begin_message(self, pieces: list[Piece]) -> None:
        header, self._header = self._header or "", None
        recipient = _RECIPIENT.search(f"{self._role} {header}")
        self._role = ""
        to = recipient[1] if recipient is not None else ""
        if self._calls and to.startswith(FUNCTIONS):
            self._channel, self._is_blank_call = Channel.CALL, True
            pieces.append(Piece("", Channel.CALL, self.n_calls, to.removeprefix(FUNCTIONS)))
            return
        is_thought = header.split(" ")[0].strip() == ANALYSIS or (bool(to) and not to.startswith(FUNCTIONS))
        self._channel = Channel.THINKING if is_thought else Channel.ANSWER

    def _end_call(self, pieces: list[Piece]) -> None:
        if self._channel is not Channel.CALL:
            return
        if self._is_blank_call:
            pieces.append(Piece("{}", Channel.CALL, self.n_calls))
        self._channel, self.n_calls = Channel.ANSWER, self.n_calls + 1


class CallsOnChannels:
    """The reader of calls of an answer whose splitter has told them apart already."""

    def __init__(self, splitter: HarmonySplitter) -> None:
        self._splitter = splitter

    @property
    def n_calls(self) -> int:
        """Calls that are whole by now."""
        return self._splitter.n_calls

    def push(self, text: str) -> list[Piece]:
        """The text of an answer is nothing else."""
        return [Piece(text)] if text else []

    def finish(self) -> list[Piece]:
        """Nothing is held back here."""
        return []


# ---- what such templates want of a conversation


def one_call_each(messages: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Each call in a message of its own, with its result behind it: the template knows one call a message.

    What was thought before a call goes with it, as the model was trained; a message without content has an empty one.
    """
    adapted: list[dict[str, object]] = []
    results = {id_: message for message in messages if isinstance(id_ := message.get("tool_call_id"), str)}
    placed: set[int] = set()
    for message in messages:
        calls = message.get("tool_calls")
        if id(message) in placed:
            continue
        if not isinstance(calls, list) or not calls:
            adapted.append({**message, "content": message.get("content") or ""})
            continue
        said = {**message, "content": "", "thinking": _thought(message)}
        for i, call in enumerate(calls):
            adapted.append({**(said if i == 0 else {"role": "assistant", "content": ""}), "tool_calls": [call]})
            result = results.get(str(call.get("id"))) if isinstance(call, Mapping) else None
            if result is not None and len(calls) > 1 and id(result) not in placed:
                placed.add(id(result))
                adapted.append({**result, "content": result.get("content") or ""})
    return adapted


def described(tools: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """The functions with a description each, be it an empty one: the template joins texts."""
    return [_described(tool) for tool in tools]


def _thought(message: Mapping[str, object]) -> str:
    said = (message.get("thinking") or message.get("reasoning_content") or "", message.get("content") or "")
    return "\n\n".join(text for text in said if isinstance(text, str) and text)


def _described(tool: Mapping[str, object]) -> Mapping[str, object]:
    function = tool.get("function")
    if not isinstance(function, Mapping):
        function = tool
    return {**tool, "function": {**function, "description": function.get("description") or ""}}
