"""Figures and ways to end, in OpenAI's words and in llama-server's."""

from __future__ import annotations

import pytest

from swarm.answers import EndReason, ExpertUse, Piece, Stats
from swarm.api.openai_reply import finish_of, timings, usage
from tests.helpers.played_answer import PlayedAnswer, calls


@pytest.mark.parametrize(
    ("answer", "finish"),
    [
        (PlayedAnswer(Piece("a")), "stop"),
        (PlayedAnswer(reason=EndReason.LENGTH), "length"),
        (PlayedAnswer(reason=EndReason.CONTEXT), "length"),
        (PlayedAnswer(*calls(("f", "{}"))), "tool_calls"),
        (PlayedAnswer(*calls(("f", "{}")), reason=EndReason.LENGTH), "length"),
    ],
)
def test_how_an_answer_ended(answer: PlayedAnswer, finish: str) -> None:
    assert finish_of(answer) == finish  # type: ignore[arg-type]


def test_answers_to_several_prompts_are_added_up_and_each_prompt_counts_once() -> None:
    first, second, other = PlayedAnswer(), PlayedAnswer(), PlayedAnswer()
    second.stats = Stats(prompt_tokens=7, cached_tokens=6, generated_tokens=4, guessed_tokens=2, guesses=5)
    other.prompt = [9]
    figures = usage([first, second, other])  # type: ignore[list-item]
    assert (figures["prompt_tokens"], figures["completion_tokens"], figures["total_tokens"]) == (14, 10, 24)
    assert figures["prompt_tokens_details"] == {"cached_tokens": 4}
    guesses = {"accepted_prediction_tokens": 2, "rejected_prediction_tokens": 3}
    assert figures["completion_tokens_details"] == guesses


def test_times_are_told_in_seconds_and_as_llama_server_does() -> None:
    told = timings(Stats(prompt_tokens=7, cached_tokens=2, generated_tokens=3, prefill_s=0.5, decode_s=0.25))
    assert (told["decode_s"], told["prompt_n"], told["prompt_ms"], told["prompt_per_second"]) == (0.25, 5, 500, 10)
    assert (told["predicted_n"], told["predicted_per_token_ms"], told["predicted_per_second"]) == (3, 125, 8)
    assert timings(Stats())["predicted_per_token_ms"] == 0
    told = timings(Stats(generated_tokens=3, guessed_tokens=1, guesses=4))
    assert (told["draft_n"], told["draft_n_accepted"]) == (4, 1)
    assert "draft_n" not in timings(Stats(generated_tokens=3))


def test_how_experts_were_found_is_told_where_some_are_on_disk() -> None:
    answer = PlayedAnswer()
    assert "experts" not in usage([answer])  # type: ignore[list-item]
    answer.stats = Stats(experts=ExpertUse(hits=3, misses=1, read_bytes=4096, wait_s=0.5))
    assert usage([answer])["experts"] == {"hits": 3, "misses": 1, "read_bytes": 4096, "wait_s": 0.5}  # type: ignore[list-item]
