"""What all dialects have in common: pieces put together, and events as lines."""

from __future__ import annotations

import json

from swarm.answers import Channel, EndReason, Piece
from swarm.api.dialect import WholeCall, has_called, sse
from tests.helpers.played_answer import PlayedAnswer, calls, gathered


def test_pieces_are_put_together_by_channel() -> None:
    answer = PlayedAnswer(
        Piece("hm ", Channel.THINKING), Piece("a"), Piece("b"), *calls(("f", '{"x": 1}'), ("g", "{}"))
    )
    together = gathered(answer)
    assert (together.thinking, together.text) == ("hm ", "ab")
    assert together.calls == [WholeCall("f", '{"x": 1}'), WholeCall("g", "{}")]


def test_an_answer_has_called_only_when_the_model_ended_it() -> None:
    called = calls(("f", "{}"))
    assert has_called(PlayedAnswer(*called))  # type: ignore[arg-type]
    assert not has_called(PlayedAnswer(*called, reason=EndReason.LENGTH))  # type: ignore[arg-type]
    assert not has_called(PlayedAnswer(Piece("a")))  # type: ignore[arg-type]


def test_events_are_lines_that_a_reader_can_split() -> None:
    raw = sse({"text": "a\nb ü"}, "swarm").decode()
    name, data, *rest = raw.split("\n")
    assert name == "event: swarm" and json.loads(data.removeprefix("data: ")) == {"text": "a\nb ü"} and rest == ["", ""]
