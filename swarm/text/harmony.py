"""The answers of gpt-oss: messages one after the other, each with a channel, told apart by control tokens.

    <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...<|return|>

What is said on the channel `analysis` is thinking. Marks and the headers between them are in neither.
"""

from __future__ import annotations

import re

from swarm.answers import Channel, Piece
from swarm.text.thinking import overlap

CHANNEL, MESSAGE, START, END = MARKS = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>")
ANALYSIS = "analysis"
FINAL = f"{CHANNEL}final{MESSAGE}"  # what makes the model answer at once
ASSISTANT = f"{START}assistant"
_MARK = re.compile("|".join(map(re.escape, MARKS)))


def is_harmony(template: str) -> bool:
    """Whether a template speaks so."""
    return CHANNEL in template and MESSAGE in template


class HarmonySplitter:
    """Tells thinking from answer, as `ThinkingSplitter` does; the marks must be in the text that it is given."""

    def __init__(self) -> None:
        self._held = ""
        self._header: str | None = None  # None: inside a message
        self._channel = Channel.ANSWER

    def push(self, text: str) -> list[Piece]:
        """The pieces that are now certain; the beginning of a possible mark is held back."""
        self._held += text
        pieces: list[Piece] = []
        while found := _MARK.search(self._held):
            self._add(pieces, self._held[: found.start()])
            self._held = self._held[found.end() :]
            self._pass(found[0])
        size = len(self._held) - max(overlap(self._held, mark) for mark in MARKS)
        self._add(pieces, self._held[:size])
        self._held = self._held[size:]
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back, for no mark will come."""
        pieces: list[Piece] = []
        self._add(pieces, self._held)
        self._held = ""
        return pieces

    def _add(self, pieces: list[Piece], text: str) -> None:
        if self._header is not None:
            self._header += text
        elif text:
            pieces.append(Piece(text, self._channel))

    def _pass(self, mark: str) -> None:
        """A mark begins a header, or ends it."""
        if mark != MESSAGE:
            self._header = ""
            return
        is_thought = (self._header or "").split(" ")[0].strip() == ANALYSIS
        self._channel = Channel.THINKING if is_thought else Channel.ANSWER
        self._header = None
