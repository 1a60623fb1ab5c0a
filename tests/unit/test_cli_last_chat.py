"""The last conversation, kept for `swarm chat --continue`."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from swarm.cli import last_chat
from swarm.cli.conversation import Conversation
from swarm.cli.last_chat import Pending
from swarm.engine.sampling import SamplingParams
from swarm.errors import ConfigError


def test_a_chat_is_continued_with_the_question_whose_answer_was_cut_off(own_home: Path) -> None:
    talk = Conversation("Be brief.").answered("one", "1")
    pending = Pending("two", SamplingParams(0.3, seed=7), max_tokens=5, thinking=True)
    last_chat.keep(talk, "tiny", pending)
    kept = last_chat.read()
    assert (kept.conversation, kept.model, kept.pending) == (talk, "tiny", pending)
    last_chat.keep(talk.answered("two", "2"), "tiny", None)
    assert last_chat.read().pending is None


def test_it_is_for_its_owner_only(own_home: Path) -> None:
    last_chat.keep(Conversation(), "tiny", None)
    assert stat.S_IMODE(last_chat.file().stat().st_mode) == 0o600


def test_without_one_there_is_nothing_to_continue(own_home: Path) -> None:
    with pytest.raises(ConfigError, match="no chat to continue"):
        last_chat.read()


def test_a_disk_that_cannot_be_written_costs_only_the_continuing(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_chat, "file", lambda: Path("/proc/nowhere/last-chat.json"))
    last_chat.keep(Conversation(), "tiny", None)


@pytest.mark.parametrize("pending", ['"x"', "{}", '{"question": "q", "params": {"no": 1}, "max_tokens": 1}'])
def test_a_pending_question_that_is_damaged_is_left_out(own_home: Path, pending: str) -> None:
    last_chat.keep(Conversation().answered("one", "1"), "tiny", None)
    path = last_chat.file()
    path.write_text(f'{path.read_text()[:-1]}, "pending": {pending}}}')
    assert last_chat.read().pending is None
