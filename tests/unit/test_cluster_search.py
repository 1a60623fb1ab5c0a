"""The search behind the planner: its tables are the cost model's, and its cuts are possible."""

from __future__ import annotations

from itertools import pairwise

import pytest

from swarm.cluster.cost import Device, LayerCost, LinkSpeed, ModelCost
from swarm.cluster.pipeline import Stage
from swarm.cluster.prediction import decode_s
from swarm.cluster.search import EXACT_DEVICES, Search
from swarm.parts import LM_HEAD, Part, all_parts
from swarm.wire.ids import PeerId

MB = 10**6
MODEL = ModelCost("m", (LayerCost(100 * MB, 200 * MB, 4000),) * 10, 50 * MB, 80 * MB, 4096, 300 * MB)
WIRE = LinkSpeed(1e-3, 100e6)


def device(index: int, memory_mb: int, gb_per_s: float = 10.0, held: frozenset[Part] = frozenset()) -> Device:
    peer = PeerId(f"{index:032x}")
    return Device(peer, f"d{index}", memory_mb * MB, 2000 * MB, gb_per_s * 1e9, 1e12, layer_s=1e-4, held=held)


def search(*devices: Device, context: int = 1024) -> Search:
    return Search(MODEL, devices, lambda a, b: WIRE, context, 1)


@pytest.mark.parametrize(("first", "end"), [(0, 1), (0, 10), (3, 5), (7, 10)])
def test_a_step_costs_what_the_cost_model_says(first: int, end: int) -> None:
    whole = device(1, 5000, 20, held=frozenset(all_parts(10)))
    stage = Stage(first, end, (whole,))
    assert search(whole).costs[0][first, end] == pytest.approx(decode_s(MODEL, [stage], lambda a, b: WIRE, 1024))


@pytest.mark.parametrize("n", [1, 3, EXACT_DEVICES, EXACT_DEVICES + 2])
def test_stages_cover_the_model_without_a_gap_and_fit_their_devices(n: int) -> None:
    stages = search(*(device(i, 1300 // n + 250) for i in range(n))).best()
    assert stages is not None and (stages[0].first, stages[-1].end) == (0, 10)
    assert all(a.end == b.first for a, b in pairwise(stages))
    for stage in stages:
        assert MODEL.stage_weight_bytes(stage.first, stage.end) <= stage.leader.memory_bytes


def test_what_does_not_fit_has_no_placement() -> None:
    assert search(device(1, 300), device(2, 300)).best() is None and search().best() is None


def test_only_what_is_not_on_the_disk_is_fetched() -> None:
    has_all_but = device(1, 5000, held=frozenset(all_parts(10)) - {Part(3), LM_HEAD})
    made = search(has_all_but)
    assert made.fetch_bytes(0, 3, has_all_but) == 0
    assert made.fetch_bytes(0, 10, has_all_but) == 180 * MB


def test_a_device_without_room_for_a_layer_says_so() -> None:
    made = search(device(1, 5000), device(2, 10))
    assert made.holds_a_layer(0) and not made.holds_a_layer(1)
    assert made.why_no_layer(1) == "it lends too little memory for a layer"


def test_equal_devices_are_chosen_by_their_id() -> None:
    stages = search(*(device(i, 2000) for i in range(4))).best()
    assert stages is not None and [stage.leader.name for stage in stages] == ["d0"]
