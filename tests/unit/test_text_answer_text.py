"""Tokens become what is read: whole characters, thinking apart, nothing from a stop string on."""

from __future__ import annotations

from swarm.answers import Piece
from swarm.text.answer_text import AnswerText
from swarm.text.thinking import StopStrings, ThinkingSplitter
from swarm.text.tokenizer import Tokenizer
from tests.helpers.tiny_text import text_metadata

TOKENIZER = Tokenizer.from_metadata(text_metadata("glm4"))


def read(text: str, *, stop: list[str] | None = None, chat: bool = False, thinking: bool = False) -> list[Piece]:
    splitter = ThinkingSplitter(inside=thinking) if chat else None
    reader = AnswerText(TOKENIZER.stream(), StopStrings(stop or []), splitter)
    pieces: list[Piece] = []
    for token in TOKENIZER.encode(text, special=True):
        pieces += reader.push(token)
        if reader.stopped:
            break
    return pieces + reader.finish()


def said(pieces: list[Piece], *, thinking: bool = False) -> str:
    return "".join(piece.text for piece in pieces if piece.thinking == thinking)


def test_a_text_stays_as_it_is() -> None:
    assert said(read("\n a 🦙<think>b")) == "\n a 🦙<think>b"


def test_a_chat_s_thinking_is_apart_and_blank_space_before_the_answer_left_out() -> None:
    pieces = read(" hm</think>\n\n yes ", chat=True, thinking=True)
    assert (said(pieces, thinking=True), said(pieces)) == (" hm", "yes ")


def test_nothing_comes_from_a_stop_string_on() -> None:
    assert said(read("one END two", stop=["END"])) == "one "
    assert said(read("one EN", stop=["END"])) == "one EN"


def test_a_stop_string_within_the_thinking_stops_nothing() -> None:
    pieces = read("a END b</think>c END d", stop=["END"], chat=True, thinking=True)
    assert (said(pieces, thinking=True), said(pieces)) == ("a END b", "c ")
