"""The last conversation of `swarm chat`, so that `--continue` picks it up: also one that was cut off in an answer.

An answer that was cut off is not kept half: its question, its parameters and its seed are, and asked again they give
the very same answer, on whichever devices are there then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swarm import config
from swarm.cli.conversation import Conversation, from_json
from swarm.errors import ConfigError
from swarm.files import PRIVATE, replace_file
from swarm.limits import MAX_CHAT_FILE_BYTES

if TYPE_CHECKING:
    from swarm.engine.sampling import SamplingParams


@dataclass(frozen=True)
class Pending:
    """A question whose answer has begun."""

    question: str
    params: SamplingParams
    max_tokens: int | None = None
    thinking: bool | None = None


@dataclass(frozen=True)
class LastChat:
    """What there is to continue."""

    conversation: Conversation
    model: str
    pending: Pending | None


KeepChat = Callable[[Conversation, str, Pending | None], None]


def file() -> Path:
    """Where it is kept."""
    return config.user_data_dir() / "last-chat.json"


def keep(conversation: Conversation, model: str, pending: Pending | None) -> None:
    """Write it; a disk that is full or read-only costs the continuing, not the chat."""
    value = json.loads(conversation.to_json(model))
    if pending is not None:
        value["pending"] = asdict(pending)
    try:
        file().parent.mkdir(parents=True, exist_ok=True)
        # Not durable: nobody waits for an SD card before and after each answer.
        replace_file(file(), json.dumps(value, ensure_ascii=False).encode(), mode=PRIVATE, durable=False)
    except OSError:
        return


def keep_nothing(conversation: Conversation, model: str, pending: Pending | None) -> None:
    """For a chat that is not to be continued."""


def read() -> LastChat:
    """What was kept; ConfigError when there is nothing."""
    try:
        with open(os.open(file(), os.O_RDONLY | os.O_CLOEXEC), "rb") as opened:
            raw = opened.read(MAX_CHAT_FILE_BYTES + 1)
    except OSError:
        raise ConfigError("there is no chat to continue yet") from None
    conversation = from_json(raw)
    value = json.loads(raw)
    model = value.get("model")
    return LastChat(conversation, model if isinstance(model, str) else "", _pending(value.get("pending")))


def _pending(value: object) -> Pending | None:
    from swarm.engine.sampling import SamplingParams

    if not isinstance(value, dict):
        return None
    try:
        biases = tuple((token, bias) for token, bias in value["params"].get("logit_bias", ()))  # JSON has lists
        params = SamplingParams(**{**value["params"], "logit_bias": biases})
        return Pending(str(value["question"]), params, value["max_tokens"], value["thinking"])
    except (AttributeError, TypeError, ValueError, KeyError):
        return None
