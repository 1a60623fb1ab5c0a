"""Chats with a model that says what it is told to, fed with lines."""

from __future__ import annotations

from swarm.cli import prompt, slash
from swarm.cli.chat_loop import Chat
from swarm.engine.sampling import SamplingParams
from tests.helpers.fake_model import FakeModel


def new_chat(model: FakeModel | None = None, **values: object) -> Chat:
    """A chat with the commands of `swarm chat`."""
    defaults: dict[str, object] = {
        "model_name": "fake",
        "context": 2048,
        "params": SamplingParams(),
        "perform": slash.perform,
    }
    return Chat(model or FakeModel(), **{**defaults, **values})  # type: ignore[arg-type]


def reader(*lines: str | BaseException) -> prompt.Reader:
    """Hands out the lines, raises the exceptions, then ends."""
    waiting = list(lines)

    def read() -> str:
        line = waiting.pop(0) if waiting else EOFError()
        if isinstance(line, BaseException):
            raise line
        return line

    return read
