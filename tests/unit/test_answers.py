"""The figures of an answer."""

from __future__ import annotations

import pytest

from swarm.answers import Meter, Stats


def test_the_first_token_waits_for_the_prompt_and_the_rest_is_decoding() -> None:
    meter = Meter(prompt_tokens=12)
    meter.cached_tokens = 2
    assert meter.stats == Stats(prompt_tokens=12, cached_tokens=2)
    meter.prefilled(0.5)
    meter.prefilled(1.5)
    for after_s in (2.0, 0.25, 0.25):
        meter.token(after_s)
    stats = meter.stats
    assert (stats.first_token_s, stats.prefill_s, stats.decode_s) == (2.0, 1.5, 0.5)
    assert stats.prefill_tokens_per_s == pytest.approx(10 / 1.5)
    assert stats.decode_tokens_per_s == pytest.approx(4.0)


def test_where_nobody_tells_when_the_prompt_was_read_it_was_at_the_first_token() -> None:
    meter = Meter(prompt_tokens=3)
    meter.token(2.0)
    assert meter.stats.prefill_s == 2.0


def test_a_speed_needs_two_tokens() -> None:
    assert Stats(generated_tokens=1, decode_s=1.0).decode_tokens_per_s == 0.0
    assert Stats(prompt_tokens=5).prefill_tokens_per_s == 0.0
