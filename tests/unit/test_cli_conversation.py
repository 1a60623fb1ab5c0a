"""A conversation is a value."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.cli.conversation import Conversation, Turn, from_json
from swarm.errors import ConfigError


def test_messages_start_with_the_system_text_and_end_with_the_question() -> None:
    talk = Conversation("Be brief.").answered("Hi", "Hello")
    assert talk.messages("Why?") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Why?"},
    ]


def test_without_a_system_text_there_is_no_system_message() -> None:
    assert Conversation().messages("Hi") == [{"role": "user", "content": "Hi"}]


def test_undo_takes_the_last_turn_and_then_says_that_nothing_is_left() -> None:
    talk = Conversation().answered("a", "1").answered("b", "2")
    assert talk.undone().turns == (Turn("a", "1"),)
    with pytest.raises(ConfigError, match="nothing to undo"):
        talk.undone().undone().undone()


texts = st.text(max_size=40)


@given(texts, st.lists(st.tuples(texts, texts), max_size=4))
def test_what_was_saved_loads_as_it_was(system: str, turns: list[tuple[str, str]]) -> None:
    talk = Conversation(system, tuple(Turn(*turn) for turn in turns))
    raw = talk.to_json("m").encode("utf-8", "surrogatepass")
    assert from_json(raw) == talk


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"swarm_chat": 2, "system": "", "turns": []}',
        b'{"swarm_chat": 1, "system": 1, "turns": []}',
        b'{"swarm_chat": 1, "system": "", "turns": {}}',
        b'{"swarm_chat": 1, "system": "", "turns": [1]}',
        b'{"swarm_chat": 1, "system": "", "turns": [{"user": "a"}]}',
        b" " * (16 * 1024 * 1024 + 1),
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_a_file_that_is_no_saved_chat_gives_one_line(raw: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        from_json(raw)
    assert "\n" not in str(caught.value)


def test_a_saved_chat_names_its_model() -> None:
    assert json.loads(Conversation().to_json("tiny"))["model"] == "tiny"
