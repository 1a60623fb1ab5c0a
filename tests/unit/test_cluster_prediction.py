"""What a placement is expected to do: sums that a person can check by hand."""

from __future__ import annotations

import pytest

from swarm.cluster.cost import step_s
from swarm.cluster.pipeline import Stage
from swarm.cluster.prediction import TOKEN_BYTES, decode_s, predict, prefill_s, ring_s, round_s
from swarm.wire.ids import PeerId
from tests.unit.test_cluster_cost import MODEL, device, wire


def test_a_token_goes_once_round_the_ring() -> None:
    stages = [Stage(0, 5, (device("a"),)), Stage(5, 10, (device("b"),))]
    hops = wire(PeerId("a"), PeerId("b")).hop_s(4096 * 4) + wire(PeerId("b"), PeerId("a")).hop_s(TOKEN_BYTES)
    assert decode_s(MODEL, stages, wire, 0) == pytest.approx(sum(step_s(MODEL, s, 0) for s in stages) + hops)


def test_one_stage_has_no_hops() -> None:
    prediction = predict(MODEL, [Stage(0, 10, (device(),))], wire, context=0, prompt=1, batch=128)
    assert prediction.hop_s == () and prediction.tokens_per_s == pytest.approx(10e9 / 1080e6)


def test_batches_of_a_prefill_overlap_on_the_stages() -> None:
    stages = [Stage(0, 5, (device("a"),)), Stage(5, 10, (device("b"),))]
    one, eight = (prefill_s(MODEL, stages, wire, n * 128, 128) for n in (1, 8))
    batch = step_s(MODEL, stages[0], 0, 128)
    assert one > 2 * batch
    assert eight - one == pytest.approx(7 * batch, rel=0.1)


def test_with_as_many_chats_as_stages_the_slowest_sets_the_pace() -> None:
    stages = [Stage(0, 7, (device("a"),)), Stage(7, 10, (device("b"),))]
    prediction = predict(MODEL, stages, wire, context=0, prompt=1, batch=128)
    assert prediction.busy_tokens_per_s == pytest.approx(1 / step_s(MODEL, stages[0], 0))


def test_several_chats_go_round_in_as_many_groups_as_stages() -> None:
    stages = [Stage(0, 7, (device("a"),)), Stage(7, 10, (device("b"),))]
    slowest = step_s(MODEL, stages[0], 2000, 2, sessions=2)
    assert round_s(MODEL, stages, wire, 2000, 4) == pytest.approx(2 * slowest)
    alike = [Stage(0, 5, (device("a"),)), Stage(5, 10, (device("b"),))]
    once = sum(step_s(MODEL, stage, 2000) for stage in alike) + sum(ring_s(MODEL, alike, wire, 1))
    assert round_s(MODEL, alike, wire, 2000, 2) == pytest.approx(max(once, 2 * step_s(MODEL, alike[1], 2000)))
    prediction = predict(MODEL, stages, wire, context=2000, prompt=1, batch=128, sessions=4)
    assert prediction.busy_tokens_per_s == prediction.pace == pytest.approx(4 / (2 * slowest))


def test_devices_that_do_not_reach_each_other_are_an_error() -> None:
    stages = [Stage(0, 5, (device("a"),)), Stage(5, 10, (device("b"),))]
    with pytest.raises(ValueError, match="a does not reach b"):
        decode_s(MODEL, stages, lambda a, b: None, 0)
