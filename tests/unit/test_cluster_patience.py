"""How long an answer waits, and for whom."""

from __future__ import annotations

from swarm import limits
from swarm.cluster.patience import broken_between, first_token_s, is_too_slow, next_token_s
from swarm.cluster.pipeline import Pipeline, Stage
from swarm.cluster.prediction import Prediction
from swarm.wire.ids import PeerId
from swarm.wire.records import Shard

ME, A, B = (PeerId(c * 32) for c in "0ab")
PLANNED = Prediction(token_s=0.1, first_token_s=2.0, prompt=256, stage_s=(), hop_s=(), overhead_s=0.0)


def test_a_reader_waits_for_the_first_token_as_the_prompt_is_long() -> None:
    assert first_token_s(None, 10) == limits.PATIENCE_S
    assert first_token_s(PLANNED, 10) == limits.PATIENCE_S + 8.0
    assert first_token_s(PLANNED, 512) == limits.PATIENCE_S + 16.0


def test_and_for_the_next_as_was_planned() -> None:
    assert next_token_s(PLANNED) == limits.PATIENCE_S + 0.4 and next_token_s(None) == limits.PATIENCE_S


def test_slow_is_many_times_slower_than_planned_and_slow_for_a_reader() -> None:
    assert is_too_slow(0.81, PLANNED) and not is_too_slow(0.79, PLANNED) and not is_too_slow(9.0, None)
    quick = Prediction(token_s=1e-6, first_token_s=1.0, prompt=256, stage_s=(), hop_s=(), overhead_s=0.0)
    assert not is_too_slow(0.29, quick)


def test_messages_are_lost_between_two_and_this_device_is_not_the_reason() -> None:
    ring = Pipeline(tuple(Stage(i, i + 1, (Shard(peer, i, i + 1, False, False),)) for i, peer in enumerate((ME, A, B))))
    assert broken_between(ring, {ME: 5, A: 4, B: 4}, 5, ME) == {A}
    assert broken_between(ring, {ME: 5, A: 5, B: 4}, 5, ME) == {A, B}
    assert broken_between(ring, {ME: 5, A: 5, B: 5}, 5, ME) == {B}
    assert broken_between(ring, {}, 5, ME) == set(), "what is lost within this device is nobody's fault"
