"""What every dialect of the API has in common: a reply is made of answers, which come as pieces.

A dialect turns a request into questions and pieces into its own words. It knows nothing of how answers are computed,
and answering.py, which drives it, nothing of its words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from swarm.answers import Channel, EndReason, Piece
from swarm.errors import SwarmError
from swarm.node.answer import Answer, Note, Question, Reading

Json = dict[str, Any]
to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # json.dumps makes one for each call
EVENT_STREAM = "text/event-stream"
STILL_AT_IT = b": still at it\n\n"  # a comment, which readers of event streams skip


@dataclass
class WholeCall:
    """A call of a function, with its arguments as JSON text."""

    name: str
    arguments: str = ""


@dataclass
class Gathered:
    """All that came of one answer, by channel."""

    answer: Answer
    text: str = ""
    thinking: str = ""
    calls: list[WholeCall] = field(default_factory=list)

    def add(self, pieces: Sequence[Piece]) -> None:
        """Put the pieces, which are all of it, together."""
        self.text = "".join(piece.text for piece in pieces if piece.channel is Channel.ANSWER)
        self.thinking = "".join(piece.text for piece in pieces if piece.channel is Channel.THINKING)
        for piece in pieces:
            if piece.channel is Channel.CALL:
                if piece.name:
                    self.calls.append(WholeCall(piece.name))
                self.calls[piece.call].arguments += piece.text


class Dialect(Protocol):
    """Makes the response to one request. Whatever it has nothing to say for is empty."""

    media_type: str  # of a stream
    silence: bytes  # what a silent stream says now and then, so that its reader does not give up

    def begin(self, index: int, answer: Answer) -> bytes:
        """Before the first piece of one of the answers, which come one after the other."""
        ...

    def piece(self, index: int, answer: Answer, piece: Piece) -> bytes: ...

    def quiet(self, event: Note | Reading) -> bytes:
        """How far the prompt is read, and why the answer waits."""
        ...

    def end(self, index: int, answer: Answer) -> bytes:
        """After the last piece of an answer."""
        ...

    def close(self, answers: Sequence[Answer]) -> bytes:
        """After the last answer."""
        ...

    def error(self, error: SwarmError) -> bytes:
        """In place of all that would follow."""
        ...

    def whole(self, gathered: Sequence[Gathered]) -> Json:
        """The response when nothing is streamed."""
        ...


@dataclass(frozen=True)
class Wanted:
    """A request that was checked: what is asked, one question after the other, and who speaks."""

    questions: Sequence[Question]
    stream: bool
    dialect: Dialect


def sse(value: Json | str, event: str = "") -> bytes:
    """One event of a stream."""
    data = value if isinstance(value, str) else to_json(value)
    return (f"event: {event}\n" if event else "").encode() + f"data: {data}\n\n".encode()


def has_called(answer: Answer) -> bool:
    """Whether it ended because functions are to be carried out now."""
    return answer.called and answer.finish_reason is EndReason.STOP
