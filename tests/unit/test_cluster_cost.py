"""The cost model: sums that a person can check by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarm.cluster.cost import (
    EXCHANGE_EACH_S,
    FRAME_BYTES,
    MESSAGE_S,
    PAYLOAD_BITS,
    Device,
    Exchange,
    LayerCost,
    LinkSpeed,
    ModelCost,
    exchange_s,
    step_s,
)
from swarm.cluster.pipeline import Stage
from swarm.parts import EMBED, LM_HEAD, Part
from swarm.wire.ids import PeerId

DENSE = LayerCost(dense_bytes=100_000_000, macs=200_000_000, kv_bytes=1000)
MODEL = ModelCost(
    "m", (DENSE,) * 10, embed_bytes=50_000_000, lm_head_bytes=80_000_000, hidden=4096, lm_head_macs=100_000_000
)


def device(name: str = "a", **figures: float) -> Device:
    figures = {"read_bytes_per_s": 10e9, "macs_per_s": 50e9, "layer_s": 0.0, "step_s": 0.0, **figures}
    return Device(PeerId(name), name, 10**12, 10**12, **figures)  # type: ignore[arg-type]


def wire(a: PeerId, b: PeerId) -> LinkSpeed:
    return LinkSpeed(rtt_s=0.001, bytes_per_s=100e6)


def test_a_decode_step_reads_the_layers_once() -> None:
    assert step_s(MODEL, Stage(0, 5, (device(),)), context=0) == pytest.approx(5 * 100e6 / 10e9)


def test_the_last_stage_also_reads_the_head() -> None:
    assert step_s(MODEL, Stage(5, 10, (device(),)), context=0) == pytest.approx((500e6 + 80e6) / 10e9)


def test_kv_of_the_context_is_read_too() -> None:
    without, with_kv = (step_s(MODEL, Stage(0, 5, (device(),)), context=c) for c in (0, 4000))
    assert with_kv - without == pytest.approx(5 * 4000 * 1000 / 10e9)


def test_overheads_are_per_layer_and_per_step() -> None:
    slow = device(layer_s=1e-3, step_s=2e-3)
    extra = step_s(MODEL, Stage(0, 5, (slow,)), 0) - step_s(MODEL, Stage(0, 5, (device(),)), 0)
    assert extra == pytest.approx(7e-3)


def test_a_batch_is_bound_by_arithmetic_where_that_takes_longer() -> None:
    assert step_s(MODEL, Stage(0, 5, (device(),)), 0, n_tokens=128) == pytest.approx(128 * 5 * 200e6 / 50e9)


def test_one_token_reads_its_share_of_the_experts_and_many_read_nearly_all() -> None:
    layer = LayerCost(dense_bytes=10, macs=1, kv_bytes=0, expert_bytes=1280, expert_share=8 / 128)
    assert layer.read_bytes(1) == pytest.approx(10 + 80)
    assert 10 + 1279 < layer.read_bytes(128) <= 10 + 1280


def test_a_hop_is_half_a_round_trip_the_bytes_and_the_message() -> None:
    assert LinkSpeed(0.001, 100e6).hop_s(16384) == pytest.approx(0.0005 + 16384 / 100e6 + MESSAGE_S)


def test_weights_are_read_once_for_all_sessions_of_a_step_and_keys_of_each() -> None:
    stage, quick = Stage(0, 10, (device(macs_per_s=1e15),)), 1000
    one, three = step_s(MODEL, stage, quick), step_s(MODEL, stage, quick, 3, sessions=3)
    assert three - one == pytest.approx(2 * quick * 10 * 1000 / 10e9)


def test_parts_count_the_embedding_and_the_head() -> None:
    assert list(MODEL.parts(0, 3)) == [EMBED, Part(0), Part(1), Part(2)]
    assert list(MODEL.parts(3, 10)) == [*map(Part, range(3, 10)), LM_HEAD]
    assert MODEL.stage_weight_bytes(0, 10) == MODEL.weight_bytes == 1_130_000_000


def test_a_cost_follows_how_keys_and_values_are_kept() -> None:
    model = ModelCost("m", (LayerCost(10, 1, 32, kv_q8_0_bytes=17), LayerCost(10, 1, 64, kv_q8_0_bytes=34)), 5, 5, 8, 1)
    eighths = model.kept_as("q8_0")
    assert eighths is not None and model.kept_as("f16") is model
    assert (model.stage_kv_bytes(0, 2, 100), eighths.stage_kv_bytes(0, 2, 100)) == (9600, 5100)
    assert eighths.weight_bytes == model.weight_bytes
    assert model.kept_as("q4_0") is None
    assert ModelCost("m", (LayerCost(10, 1, 32),), 5, 5, 8, 1).kept_as("q8_0") is None, "heads of another size"


def test_an_exchange_that_was_rehearsed_costs_what_that_showed() -> None:
    three = [device(name, exchange=1.0) for name in "abc"]
    seen = {
        ("a", "b"): Exchange(200e-6, 50e6),
        ("a", "c"): Exchange(300e-6, 100e6),
        ("b", "c"): Exchange(100e-6, 100e6),
    }

    def link(a: PeerId, b: PeerId) -> LinkSpeed:
        return LinkSpeed(0.01, 1e3, seen[min(a, b), max(a, b)])

    payload = 4096 * PAYLOAD_BITS / 8 + FRAME_BYTES
    assert exchange_s(three[:2], link, 4096) == pytest.approx(200e-6 + payload / 50e6)
    assert exchange_s(three, link, 4096) == pytest.approx(300e-6 + EXCHANGE_EACH_S + 2 * payload / 50e6), "the worst"
    parts_s = 2 * (300e-6 + EXCHANGE_EACH_S) + 2 * 2 / 3 * 64 * payload / 50e6
    assert exchange_s(three, link, 4096, 64) == pytest.approx(parts_s)
    del seen["b", "c"]
    seen["b", "c"] = None  # type: ignore[assignment]
    assert exchange_s(three, link, 4096) > 0.005, "one pair has not: heartbeats say"


def test_what_was_seen_of_a_model_counts_in_place_of_what_is_usual() -> None:
    layer = LayerCost(dense_bytes=100, macs=1, kv_bytes=1, expert_bytes=1000, expert_share=0.25, resident_share=0.5)
    model = replace(MODEL, layers=(layer,) * 2)
    assert model.hit_rate == 0.92
    assert model.with_ranks([10.0] * 7).hit_rate == 0.92, "too little was seen"
    always = model.with_ranks([10_000.0, 0.0, 0.0, 0.0])
    assert (always.hit_rate, always.layers[0].missed_bytes()) == (1.0, 0.0)
    assert model.with_ranks([10_000.0] * 4).hit_rate == pytest.approx(0.5)


MIXTURE = LayerCost(
    127_700_000, 270_000_000, 4096, expert_bytes=128 * 9_732_096, expert_share=8 / 128, n_used=8
)  # of GLM-4.5-Air in Q4_0, with a share of what else a token reads


@pytest.mark.parametrize(
    ("slots", "found", "disk_bytes_per_s", "measured_tokens_per_s"),
    [(384, 1.0, 2.3e9, 47.3), (152, 0.861, 2.3e9, 28.7), (152, 0.857, 2.1e9, 26.1)],
)
def test_what_experts_on_disk_cost_is_what_was_measured(
    slots: int, found: float, disk_bytes_per_s: float, measured_tokens_per_s: float
) -> None:
    """EPYC, two cores, AVX-512: four layers, three of them mixtures (tools/bench/LOG.md, "Experts on disk")."""
    share = slots / 384
    curve = ((0.0, 0.0), (100 * share, 100 * found), (100.0, 100.0))
    mixture = replace(MIXTURE, resident_share=share, curve=curve)
    model = ModelCost("air", (replace(DENSE, dense_bytes=127_700_000), *(mixture,) * 3), 0, 349_000_000, 4096, 0)
    machine = device(read_bytes_per_s=48e9, macs_per_s=1e12, disk_bytes_per_s=disk_bytes_per_s)
    predicted = 1 / step_s(model, Stage(0, 4, (machine,)), context=64)
    assert predicted == pytest.approx(measured_tokens_per_s, rel=0.12)


def test_reading_is_hidden_only_by_what_is_computed_beside_it() -> None:
    always, half = (replace(MIXTURE, curve=((0.0, 0.0), (50.0, hits), (100.0, 100.0))) for hits in (100.0, 50.0))
    rare = replace(MIXTURE, resident_share=0.5, curve=((0.0, 0.0), (50.0, 90.0), (100.0, 100.0)))
    machine = device(disk_bytes_per_s=1e9)
    assert replace(always, resident_share=0.5).late_s(machine) == 0.0
    assert replace(half, resident_share=0.5).beside_bytes() == pytest.approx((1 - 0.5**8) * 4 * 9_732_096)
    assert rare.beside_bytes() == pytest.approx((1 - 0.9**8) * 0.9 * 8 * 9_732_096), "most layers read nothing"
    assert replace(rare, n_used=0).beside_bytes() == replace(rare, n_used=0).found_bytes()
    read_s = 0.8 * 9_732_096 / 1e9
    assert rare.late_s(machine) == pytest.approx(read_s - rare.beside_bytes() / machine.read_bytes_per_s)
    assert rare.late_s(device(disk_bytes_per_s=1e12)) == 0.0, "a disk that is never waited for"
