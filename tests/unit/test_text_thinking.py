"""Cutting a stream: thinking from answer, and at stop strings, wherever the pieces end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.answers import Channel, Piece
from swarm.text.thinking import StopStrings, ThinkingSplitter


def split(texts: list[str], *, inside: bool = False) -> tuple[str, str]:
    """Thinking and answer of a stream."""
    splitter = ThinkingSplitter(inside=inside)
    pieces: list[Piece] = []
    for text in texts:
        pieces += splitter.push(text)
    pieces += splitter.finish()
    assert all(piece.text for piece in pieces)
    return "".join(p.text for p in pieces if p.thinking), "".join(p.text for p in pieces if not p.thinking)


CASES = {
    "an answer without thinking": ("Hello", False, ("", "Hello")),
    "thinking first": ("<think>hm</think>Hello", False, ("hm", "Hello")),
    "blank lines before the tag": ("\n <think>hm</think>Hello", False, ("hm", "Hello")),
    "the prompt opened it": ("hm</think>Hello", True, ("hm", "Hello")),
    "it never closes": ("hm <b", True, ("hm <b", "")),
    "a tag inside the answer": ("a <think>b</think>", False, ("", "a <think>b</think>")),
    "a second thinking": ("<think>a</think><think>b</think>", False, ("a", "<think>b</think>")),
    "something like the tag": ("<thinker>", False, ("", "<thinker>")),
    "something like the end": ("a</thin>b</think>c", True, ("a</thin>b", "c")),
    "only the beginning of a tag": ("<thi", False, ("", "<thi")),
    "empty thinking": ("<think></think>Hello", False, ("", "Hello")),
    "nothing": ("", False, ("", "")),
}


@pytest.mark.parametrize(("text", "inside", "expected"), CASES.values(), ids=CASES.keys())
def test_thinking_is_told_from_answer_at_every_cut(text: str, inside: bool, expected: tuple[str, str]) -> None:
    assert split([text], inside=inside) == expected
    assert split(list(text), inside=inside) == expected
    for at in range(len(text)):
        assert split([text[:at], text[at:]], inside=inside) == expected


def test_thinking_that_is_certain_is_given_out_at_once() -> None:
    splitter = ThinkingSplitter(inside=True)
    assert splitter.push("hm ") == [Piece("hm ", Channel.THINKING)]
    assert splitter.push("so</th") == [Piece("so", Channel.THINKING)]
    assert splitter.push("ink>x") == [Piece("x")]


@given(
    pieces=st.lists(st.sampled_from(["<think>", "</think>", "<", "/", "think", ">", "a", "\n", " "])),
    inside=st.booleans(),
)
def test_no_cut_of_the_pieces_changes_what_is_thinking(pieces: list[str], inside: bool) -> None:
    assert split(pieces, inside=inside) == split(["".join(pieces)], inside=inside)


def stopped(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    stop = StopStrings(stops)
    text = "".join(stop.push(piece) for piece in pieces)
    return text + stop.finish(), stop.stopped


def test_a_stop_string_ends_the_text_before_itself_at_every_cut() -> None:
    text = "one STOP two"
    for at in range(len(text)):
        assert stopped([text[:at], text[at:]], ["STOP"]) == ("one ", True)


def test_the_first_of_several_stop_strings_counts() -> None:
    assert stopped(["ab cd ef"], ["ef", "cd"]) == ("ab ", True)
    assert stopped(list("aab"), ["ab", "b"]) == ("a", True)


def test_text_that_only_begins_like_a_stop_string_comes_in_the_end() -> None:
    assert stopped(["one ST"], ["STOP"]) == ("one ST", False)
    assert stopped(["one ST", "art"], ["STOP"]) == ("one STart", False)


def test_nothing_is_held_back_without_stop_strings() -> None:
    assert StopStrings([]).push("one") == "one"
    assert StopStrings([""]).push("one") == "one"


@given(text=st.text("ab", max_size=12), stops=st.lists(st.text("ab", min_size=1, max_size=3), max_size=3))
def test_stopping_agrees_with_a_search_of_the_whole_text(text: str, stops: list[str]) -> None:
    found = [text.find(stop) for stop in stops if stop in text]
    got, was_stopped = stopped(list(text), stops)
    assert was_stopped == bool(found)
    # Piece by piece, the stop string that is complete first ends the text.
    complete = min((text.find(stop) + len(stop) for stop in stops if stop in text), default=len(text))
    ended_by = [text.find(stop) for stop in stops if stop in text and text.find(stop) + len(stop) == complete]
    assert got == text[: min(ended_by, default=len(text))]
