"""An answer of a model on this device: text, thinking, stop strings, figures."""

from __future__ import annotations

import pytest

from swarm.answers import Channel, Piece
from tests.helpers.local_models import TOKENIZER, chatting, model_saying, saying


def test_a_text_is_continued() -> None:
    answer = saying(" upon a time")
    assert answer.text == " upon a time"
    assert answer.finish_reason == "stop"
    assert TOKENIZER.decode(answer.tokens) == " upon a time"


def test_pieces_are_whole_characters_and_make_up_the_text() -> None:
    answer = saying("the 🦙 end")
    pieces = list(answer)
    assert "".join(piece.text for piece in pieces) == answer.text == "the 🦙 end"
    assert any("🦙" in piece.text for piece in pieces)
    assert len(pieces) < len(answer.tokens)  # the first bytes of the character made no piece


def test_nothing_is_computed_before_the_first_piece_is_asked_for() -> None:
    model, decoder = model_saying("a", prompt=[1])
    answer = model.generate([1])
    assert not decoder.steps
    assert answer.finish_reason is None
    assert answer.stats.generated_tokens == 0


def test_the_text_while_iterating_is_what_has_come_so_far() -> None:
    answer = saying("abc")
    next(answer)
    assert answer.text == "a"


def test_thinking_is_told_from_the_answer_when_the_prompt_opens_it() -> None:
    answer = chatting("hm\n</think>\n\nHello")
    assert Piece("h", Channel.THINKING) in list(answer)
    assert (answer.thinking_text, answer.text) == ("hm\n", "Hello")


def test_blank_space_before_a_chat_s_answer_is_left_out_but_not_before_a_continuation() -> None:
    assert chatting("</think>\n\n Hello\n").text == "Hello\n"
    assert saying("\n\n Hello").text == "\n\n Hello"


def test_tags_in_a_continued_text_stay() -> None:
    assert saying("<think>a</think>b").text == "<think>a</think>b"


def test_a_stop_string_ends_the_answer_across_pieces_and_not_the_thinking() -> None:
    answer = chatting("a END b</think>c EN, END d", stop=["END"])
    assert (answer.thinking_text, answer.text) == ("a END b", "c EN, ")
    assert answer.finish_reason == "stop"
    assert saying("one two", stop="tw").text == "one "


def test_text_held_back_for_a_stop_string_comes_in_the_end() -> None:
    assert saying("one EN", stop="END").text == "one EN"
    assert chatting("</think>one <", stop="<x").text == "one <"


@pytest.mark.parametrize(("limit", "text"), [(0, ""), (1, "a"), (2, "ab"), (9, "abc")])
def test_max_tokens_limits_the_answer(limit: int, text: str) -> None:
    answer = saying("abc", max_tokens=limit)
    assert answer.text == text
    assert answer.finish_reason == ("stop" if limit == 9 else "length")


def test_a_full_context_ends_the_answer_and_says_so() -> None:
    prompt = TOKENIZER.encode("Once")
    model, _ = model_saying("xyzxyzxyz", prompt=prompt, context=len(prompt) + 4)
    answer = model.generate(prompt, temperature=0.0)
    assert answer.text == "xyzx"
    assert answer.finish_reason == "context"


def test_cancel_keeps_what_has_come() -> None:
    answer = saying("abcdef")
    texts = []
    for piece in answer:
        texts.append(piece.text)
        if piece.text == "c":
            answer.cancel()
    assert (texts, answer.text, answer.finish_reason) == (["a", "b", "c"], "abc", "cancelled")


def test_cancel_before_the_first_piece_gives_an_empty_answer() -> None:
    answer = saying("abc")
    answer.cancel()
    assert (answer.text, answer.finish_reason) == ("", "cancelled")


def test_a_reader_that_goes_away_gives_the_session_back() -> None:
    model, decoder = model_saying("abc", prompt=[1])
    answer = model.generate([1], temperature=0.0)
    next(answer)
    answer.close()
    assert answer.finish_reason == "cancelled"
    assert model.generate([1], temperature=0.0).text == "abc"
    assert len(decoder.kvs) == 1


def test_figures_tell_reused_from_computed_tokens() -> None:
    model, _ = model_saying("abc", prompt=list(range(10)))
    first = model.generate(list(range(10)), temperature=0.0)
    list(first)
    assert (first.stats.prompt_tokens, first.stats.cached_tokens, first.stats.generated_tokens) == (10, 0, 3)
    again = model.generate([*range(10), *first.tokens[:2], 7], temperature=0.0, max_tokens=1)
    list(again)
    assert (again.stats.prompt_tokens, again.stats.cached_tokens) == (13, 12)
    stats = first.stats
    assert 0 < stats.prefill_s <= stats.first_token_s
    assert stats.decode_s > 0
    assert stats.decode_tokens_per_s == pytest.approx(2 / stats.decode_s)
    assert stats.prefill_tokens_per_s == pytest.approx(10 / stats.prefill_s)


def test_progress_of_the_prompt_is_told() -> None:
    model, _ = model_saying("a", prompt=[1] * 10)
    seen: list[tuple[int, int]] = []
    list(model.generate([1] * 10, temperature=0.0, progress=lambda done, total: seen.append((done, total))))
    assert seen == [(10, 10)]
