"""Calls of functions are read out of an answer's text while it comes: what is call and what is answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from swarm.answers import Channel, Piece
from swarm.text.call_formats import CallFormat
from swarm.text.call_json import JsonCall, ObjectEnd
from swarm.text.call_tags import FUNCTION_TAGS, KEY_TAGS, TaggedCall
from swarm.text.thinking import overlap
from swarm.text.tools import Tools

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_BARE_HEADS = ('{"name":', '{"type":"function",', '{"function":')


class CallReader(Protocol):
    """Tells calls from answer, wherever the text is cut."""

    @property
    def n_calls(self) -> int:
        """Calls that are whole by now."""
        ...

    def push(self, text: str) -> list[Piece]:
        """What is certain by now."""
        ...

    def finish(self) -> list[Piece]:
        """What was held back, for no more will come."""
        ...


class CallInProgress(Protocol):
    """One call in the making."""

    @property
    def begun(self) -> bool: ...
    def push(self, text: str) -> list[Piece]: ...
    def finish(self) -> list[Piece]: ...


def call_reader(kind: CallFormat, tools: Tools) -> CallReader:
    """The reader of a format."""
    match kind:
        case CallFormat.HERMES:
            return CallsInTags(JsonCall)
        case CallFormat.FUNCTION_TAGS:
            return CallsInTags(lambda number: TaggedCall(number, FUNCTION_TAGS, tools))
        case CallFormat.KEY_TAGS:
            return CallsInTags(lambda number: TaggedCall(number, KEY_TAGS, tools))
        case CallFormat.FIRST_LINE:
            return CallsAfterNames(tools)
        case CallFormat.BARE_JSON:
            return BareCalls(tools)
        case CallFormat.HARMONY:
            raise ValueError("its calls are told apart with its channels: harmony.py")


class CallsInTags:
    """Calls between `<tool_call>` and `</tool_call>`; blank space around them is no answer."""

    def __init__(self, new_call: Callable[[int], CallInProgress]) -> None:
        self.n_calls = 0
        self._new_call = new_call
        self._call: CallInProgress | None = None
        self._raw = ""  # of a call of which nothing was given out yet
        self._held = ""

    def push(self, text: str) -> list[Piece]:
        """What is certain by now."""
        self._held += text
        pieces: list[Piece] = []
        while True:
            tag = OPEN if self._call is None else CLOSE
            before, found, after = self._held.partition(tag)
            if not found:
                break
            self._held = after
            pieces += self._before_call(before) if self._call is None else self._end_of_call(before)
        sure = len(self._held) - overlap(self._held, tag)
        if self._call is None:
            # Blank space that a call may follow is held back with the beginning of its tag.
            sure = len(self._held[:sure].rstrip())
            pieces += _answer(self._held[:sure])
        else:
            pieces += self._within(self._held[:sure])
        self._held = self._held[sure:]
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back; a call that was cut off is given out as far as it came."""
        held, self._held = self._held, ""
        if self._call is None:
            return _answer(held) if held.strip() else []
        return self._end_of_call(held, tag="")

    def _before_call(self, before: str) -> list[Piece]:
        self._call, self._raw = self._new_call(self.n_calls), ""
        return _answer(before.rstrip())

    def _within(self, text: str) -> list[Piece]:
        assert self._call is not None
        pieces = self._call.push(text)
        self._raw = "" if self._call.begun else self._raw + text
        return pieces

    def _end_of_call(self, text: str, tag: str = CLOSE) -> list[Piece]:
        call, pieces = self._call, self._within(text)
        assert call is not None
        self._call = None
        try:
            pieces += call.finish()
        except ValueError:
            return _answer(f"{OPEN}{self._raw}{tag}")  # whatever it was, its reader sees it
        self.n_calls = 1 + max((piece.call for piece in pieces), default=self.n_calls)
        return pieces


class CallsAfterNames:
    """GLM-4's calls: a function's name alone in a line, then an object."""

    def __init__(self, tools: Tools) -> None:
        self.n_calls = 0
        self._names = tools.names
        self._held = ""
        self._arguments: ObjectEnd | None = None
        self._at_line_start = True

    def push(self, text: str) -> list[Piece]:
        """What is certain by now."""
        self._held += text
        pieces: list[Piece] = []
        while self._held:
            step = self._take_arguments() if self._arguments is not None else self._take_line()
            if step is None:
                break
            pieces += step
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back."""
        held, self._held = self._held, ""
        if self._arguments is not None:
            self.n_calls += 1
            return []
        if held.strip() in self._names:
            self.n_calls += 1
            return [Piece("{}", Channel.CALL, self.n_calls - 1, held.strip())]
        return _answer(held) if held.strip() else []

    def _take_arguments(self) -> list[Piece]:
        assert self._arguments is not None
        size = self._arguments.feed(self._held)
        text, self._held = self._held[:size], self._held[size:] if size is not None else ""
        piece = Piece(text, Channel.CALL, self.n_calls)
        if size is not None:
            self._arguments, self._at_line_start, self.n_calls = None, True, self.n_calls + 1
        return [piece]

    def _take_line(self) -> list[Piece] | None:
        """A line of the answer, or the beginning of a call; None when more must come first."""
        if not self._at_line_start:
            return self._take_text()
        line, ended, rest = self._held.lstrip().partition("\n")
        name = line.strip()
        if not ended:
            waits = any(each.startswith(name) for each in self._names)
            return None if waits else self._take_text()
        if name not in self._names:
            return self._take_text()
        if not rest.lstrip():
            return None
        if not rest.lstrip().startswith("{"):
            return self._take_text()
        self._held, self._arguments = rest.lstrip(), ObjectEnd()
        return [Piece("", Channel.CALL, self.n_calls, name)]

    def _take_text(self) -> list[Piece]:
        """Up to and with the end of a line."""
        line, ended, rest = self._held.partition("\n")
        self._at_line_start, self._held = bool(ended), rest
        return _answer(line + ended)


class BareCalls:
    """Llama 3's calls: an answer that is one JSON object, or several, and nothing else."""

    def __init__(self, tools: Tools) -> None:
        self.n_calls = 0
        self._names = tools.names
        self._is_answer = False
        self._held = ""
        self._call: JsonCall | None = None
        self._end = ObjectEnd()
        self._raw = ""

    def push(self, text: str) -> list[Piece]:
        """What is certain by now."""
        self._held += text
        pieces: list[Piece] = []
        while self._held and not self._is_answer:
            step = self._take_within() if self._call is not None else self._begin()
            if step is None:
                return pieces
            pieces += step
        if self._is_answer:
            held, self._held = self._held, ""
            pieces += _answer(held)
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back; a call that was cut off is given out as far as it came."""
        held, self._held = self._raw + self._held, ""
        if self._call is not None and self._call.begun:
            self.n_calls += 1
            return []
        return _answer(held) if held.strip() else []

    def _begin(self) -> list[Piece] | None:
        """See whether a call begins here; None when more must come first."""
        begun = self._held.lstrip(" \t\r\n;")
        compact = "".join(begun.split())
        if any(head.startswith(compact) for head in _BARE_HEADS):
            return None
        if not compact.startswith(_BARE_HEADS):
            self._is_answer = True
            return []
        self._held, self._raw = begun, ""
        self._call, self._end = JsonCall(self.n_calls), ObjectEnd()
        return []

    def _take_within(self) -> list[Piece]:
        assert self._call is not None
        size = self._end.feed(self._held)
        text, self._held = self._held[:size], self._held[size:] if size is not None else ""
        self._raw += text
        pieces = self._call.push(text)
        try:
            pieces += self._call.finish() if size is not None else []
        except ValueError:
            pieces = [Piece("", Channel.CALL, name="?")]
        if any(piece.name and piece.name not in self._names for piece in pieces):
            # JSON that somebody asked for, which happens to have a name.
            self._is_answer, self._call, self._held, self._raw = True, None, self._raw + self._held, ""
            return []
        self._raw = "" if self._call.begun else self._raw
        if size is not None:
            self._call, self._raw, self.n_calls = None, "", self.n_calls + 1
        return pieces


def _answer(text: str) -> list[Piece]:
    return [Piece(text)] if text else []
