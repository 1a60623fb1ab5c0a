"""A conversation as a value: what was said, undone, saved and loaded. Nothing here prints or computes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from swarm.errors import ConfigError
from swarm.limits import MAX_CHAT_FILE_BYTES
from swarm.units import size_text

FORMAT = 1  # of saved chats
Message = dict[str, str]


@dataclass(frozen=True)
class Turn:
    """A question and its answer; the answer may have been stopped half-way."""

    user: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """The system text and the turns so far. Every change returns a new conversation."""

    system: str = ""
    turns: tuple[Turn, ...] = ()

    def messages(self, question: str | None = None) -> list[Message]:
        """The messages a model reads, ending with `question` when one is given."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            messages.append({"role": "user", "content": turn.user})
            messages.append({"role": "assistant", "content": turn.answer})
        if question is not None:
            messages.append({"role": "user", "content": question})
        return messages

    def answered(self, question: str, answer: str) -> Conversation:
        """With one more turn."""
        return replace(self, turns=(*self.turns, Turn(question, answer)))

    def undone(self) -> Conversation:
        """Without the last turn; ConfigError when there is none."""
        if not self.turns:
            raise ConfigError("there is nothing to undo")
        return replace(self, turns=self.turns[:-1])

    def to_json(self, model: str) -> str:
        """The text of a file that `from_json` reads."""
        return json.dumps({"swarm_chat": FORMAT, "model": model, **asdict(self)}, ensure_ascii=False, indent=1)


def with_files(question: str, files: Sequence[tuple[str, str]]) -> str:
    """A question with files (name and text) before it, each between fences that do not occur in it."""
    parts = []
    for name, text in files:
        fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`{3,}", text)), 3)
        parts.append(f"{name}:\n{fence}\n{text.removesuffix(chr(10))}\n{fence}\n")
    return "\n".join([*parts, question])


def from_json(raw: bytes) -> Conversation:
    """The conversation in a saved file; ConfigError, in one line, when it is no such file."""
    if len(raw) > MAX_CHAT_FILE_BYTES:
        raise ConfigError(f"the file is larger than {size_text(MAX_CHAT_FILE_BYTES)}; it is not a saved chat")
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or data.get("swarm_chat") != FORMAT:
        raise ConfigError("the file is not a chat that /save wrote")
    system, turns = data.get("system"), data.get("turns")
    if not isinstance(system, str) or not isinstance(turns, list) or not all(map(_is_turn, turns)):
        raise ConfigError("the file is a damaged chat: its turns cannot be read")
    return Conversation(system, tuple(Turn(turn["user"], turn["answer"]) for turn in turns))


def _is_turn(turn: object) -> bool:
    return isinstance(turn, dict) and isinstance(turn.get("user"), str) and isinstance(turn.get("answer"), str)
