"""The planner: against brute force where that is possible, and by its promises where it is not."""

from __future__ import annotations

import time
from itertools import combinations, permutations
from random import Random

import pytest

from swarm.cluster.cost import Device, LayerCost, LinkOf, LinkSpeed, ModelCost
from swarm.cluster.pipeline import Stage
from swarm.cluster.planner import Demand, NoPlan, Plan, plan
from swarm.cluster.prediction import decode_s
from swarm.cluster.search import EXACT_DEVICES
from swarm.parts import Part, all_parts
from swarm.wire.ids import PeerId

MB = 10**6
LAYER = LayerCost(dense_bytes=100 * MB, macs=200 * MB, kv_bytes=4000)
FAST = LinkSpeed(0.0003, 117e6)


def model(n_layers: int = 10, layer: LayerCost = LAYER) -> ModelCost:
    return ModelCost("toy", (layer,) * n_layers, 50 * MB, 80 * MB, 4096, 300 * MB)


def device(index: int, memory_mb: float, gb_per_s: float = 10.0, **more: object) -> Device:
    figures = {"macs_per_s": 50e9, **more}
    return Device(PeerId(f"{index:032x}"), f"d{index}", int(memory_mb * MB), 10**12, gb_per_s * 1e9, **figures)  # type: ignore[arg-type]


def wired(a: PeerId, b: PeerId) -> LinkSpeed:
    return FAST


def planned(result: Plan | NoPlan) -> Plan:
    assert isinstance(result, Plan), result
    return result


def holders(result: Plan | NoPlan) -> list[tuple[str, int, int]]:
    return [(stage.leader.name, stage.first, stage.end) for stage in planned(result).stages]


def brute_force(demand: Demand, devices: list[Device], link: LinkOf) -> float:
    """The least seconds per token over all orders of all subsets and all cuts; infinite when nothing fits."""
    n = demand.model.n_layers
    best = float("inf")
    for k in range(1, len(devices) + 1):
        for order in permutations(devices, k):
            for inner in combinations(range(1, n), k - 1):
                ends = [0, *inner, n]
                stages = [Stage(a, b, (d,)) for d, a, b in zip(order, ends[:-1], ends[1:], strict=True)]
                if all(_fits(demand, stage) for stage in stages):
                    try:
                        best = min(best, decode_s(demand.model, stages, link, demand.context))
                    except ValueError:
                        continue
    return best


def _fits(demand: Demand, stage: Stage[Device]) -> bool:
    memory = demand.model.stage_weight_bytes(stage.first, stage.end)
    memory += demand.sessions * demand.model.stage_kv_bytes(stage.first, stage.end, demand.context)
    return memory <= stage.leader.memory_bytes


@pytest.mark.parametrize("seed", range(30))
def test_no_placement_of_up_to_four_devices_is_faster(seed: int) -> None:
    rng = Random(seed)
    layers = tuple(
        LayerCost(rng.randint(50, 150) * MB, rng.randint(100, 900) * MB, 4000) for _ in range(rng.randint(2, 7))
    )
    demand = Demand(ModelCost("toy", layers, 50 * MB, 120 * MB, 4096, 300 * MB), rng.choice([512, 8192]))
    everything = frozenset(all_parts(len(layers)))
    devices = [device(i, rng.randint(100, 900), rng.uniform(2, 60), held=everything) for i in range(rng.randint(1, 4))]
    links = {
        (a.id, b.id): LinkSpeed(rng.uniform(1e-4, 2e-2), 10 ** rng.uniform(6, 8)) for a in devices for b in devices
    }
    dead = {pair for pair in links if rng.random() < 0.15}

    def link(a: PeerId, b: PeerId) -> LinkSpeed | None:
        return None if (a, b) in dead else links[a, b]

    best = brute_force(demand, devices, link)
    result = plan(demand, devices, link)
    if best == float("inf"):
        assert isinstance(result, NoPlan)
    else:
        assert planned(result).prediction.token_s == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_beyond_the_exact_search_the_answer_is_within_two_percent_of_it(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = Random(seed)
    devices = [device(i, rng.randint(150, 700), rng.uniform(2, 60)) for i in range(EXACT_DEVICES + 1)]
    searched = planned(plan(Demand(model(), 1024), devices, wired)).prediction.token_s
    monkeypatch.setattr("swarm.cluster.search.EXACT_DEVICES", EXACT_DEVICES + 1)
    exact = planned(plan(Demand(model(), 1024), devices, wired)).prediction.token_s
    assert exact <= searched * 1.0001
    assert searched <= exact * 1.02


@pytest.mark.parametrize("n", [16, 64])
def test_many_devices_take_less_than_a_second(n: int) -> None:
    rng = Random(n)
    devices = [device(i, rng.choice([600, 900, 2000]), rng.choice([3, 10, 20, 34])) for i in range(n)]
    layer = LayerCost(70 * MB, 280 * MB, 4096, 1220 * MB // 8, 8 / 128)
    started = time.process_time()
    planned(plan(Demand(model(46, layer), 4096), devices, wired))
    assert time.process_time() - started < 1.0


def test_equal_inputs_in_another_order_give_the_same_plan() -> None:
    devices = [device(i, 400, 10) for i in range(5)]
    plans = {tuple(holders(plan(Demand(model(), 1024), list(order), wired))) for order in permutations(devices)}
    assert len(plans) == 1


def test_one_device_that_holds_all_alone_does() -> None:
    assert holders(plan(Demand(model(), 1024), [device(1, 2000), device(2, 2000)], wired)) == [("d1", 0, 10)]


def test_the_fast_device_takes_all_it_can() -> None:
    result = plan(Demand(model(), 0), [device(1, 2000, 5), device(2, 690, 50)], wired)
    assert dict((name, end - first) for name, first, end in holders(result))["d2"] == 6


def test_a_device_that_would_slow_the_answer_is_left_out_and_told_why() -> None:
    result = planned(plan(Demand(model(), 1024), [device(1, 2000, 20), device(2, 2000, 2)], wired))
    (left_out,) = result.left_out
    assert left_out.name == "d2" and "ms longer" in left_out.reason


def test_a_slow_link_keeps_a_fast_device_out() -> None:
    def link(a: PeerId, b: PeerId) -> LinkSpeed:
        return LinkSpeed(0.2, 1e6)

    result = plan(Demand(model(), 0), [device(1, 2000, 10), device(2, 700, 60)], link)
    assert holders(result) == [("d1", 0, 10)]


def test_devices_that_do_not_reach_each_other_are_not_neighbours() -> None:
    a, b, c = (device(i, 450) for i in (1, 2, 3))

    def link(x: PeerId, y: PeerId) -> LinkSpeed | None:
        return None if {x, y} == {a.id, b.id} else FAST

    result = plan(Demand(model(8), 0), [a, b, c], link)
    assert isinstance(result, NoPlan) and "do not reach" in result.reason
    d = device(4, 450)
    names = [name for name, _, _ in holders(plan(Demand(model(8), 0), [a, b, c, d], link))]
    ring = {frozenset(pair) for pair in zip(names, [*names[1:], names[0]], strict=True)}
    assert frozenset(("d1", "d2")) not in ring


def test_ties_go_to_the_device_that_has_the_chunks() -> None:
    holder = device(2, 2000, 10, held=frozenset(all_parts(10)))
    result = planned(plan(Demand(model(), 0), [device(1, 2000, 10), holder], wired))
    assert [stage.leader.name for stage in result.stages] == ["d2"] and result.stages[0].leader.fetch_bytes == 0
    faster = device(1, 2000, 12)
    assert planned(plan(Demand(model(), 0), [faster, holder], wired)).stages[0].leader.name == "d1"


def test_memory_counts_kv_for_every_session() -> None:
    tight = device(1, 1130 + 10 * 4000 * 1000 / MB)
    assert isinstance(plan(Demand(model(), 1000), [tight], wired), Plan)
    assert isinstance(plan(Demand(model(), 1000, sessions=2), [tight], wired), NoPlan)


def test_a_full_disk_takes_no_layer_that_is_not_there_yet() -> None:
    full = Device(PeerId("1" * 32), "full", 2000 * MB, 0, 50e9, 50e9)
    result = planned(plan(Demand(model(), 0), [full, device(2, 2000, 10)], wired))
    assert [stage.leader.name for stage in result.stages] == ["d2"]
    assert result.left_out[0].reason == "its disk has no room for a layer"


def test_what_does_not_fit_says_how_much_is_missing_and_that_much_is_enough() -> None:
    devices = [device(1, 300), device(2, 400)]
    result = plan(Demand(model(), 1024), devices, wired)
    assert isinstance(result, NoPlan) and 400 * MB < result.missing_bytes < 800 * MB
    helped = [*devices, device(3, result.missing_bytes / MB)]
    assert isinstance(plan(Demand(model(), 1024), helped, wired), Plan)


def test_a_context_that_fits_is_offered() -> None:
    result = plan(Demand(model(), 16384), [device(1, 1130 + 200)], wired)
    assert isinstance(result, NoPlan) and result.context_that_fits == 4096


def test_a_layer_that_is_on_no_disk_is_named() -> None:
    holder = device(1, 2000, held=frozenset(all_parts(10)) - {Part(3)})
    result = plan(Demand(model(), 0), [holder, device(2, 2000)], wired)
    assert isinstance(result, NoPlan) and result.missing_parts == (Part(3),) and "layer 3" in result.reason


def test_a_model_that_nobody_has_can_be_planned_but_not_placed() -> None:
    assert isinstance(plan(Demand(model(), 0), [device(1, 2000)], wired), Plan)
    result = plan(Demand(model(), 0, from_disks=True), [device(1, 2000)], wired)
    assert isinstance(result, NoPlan) and result.reason == "no device at hand has toy on its disk"


def test_an_excluded_device_takes_no_part_and_says_its_reason() -> None:
    odd = device(1, 2000, 50, excluded="it runs another version")
    result = planned(plan(Demand(model(), 0), [odd, device(2, 2000)], wired))
    assert [stage.leader.name for stage in result.stages] == ["d2"]
    assert result.left_out[0].reason == "it runs another version"


def test_no_device_at_all_is_no_plan() -> None:
    assert isinstance(plan(Demand(model(), 0), [], wired), NoPlan)


def test_several_readers_go_through_several_stages_at_once_where_computing_takes_long() -> None:
    """Weights are read once for all rows of a step, but each row is computed: three devices do that at once."""
    everything = frozenset(all_parts(10))
    devices = [device(i, 3000, macs_per_s=20e9, held=everything) for i in range(3)]
    one, six = (planned(plan(Demand(model(), 1024, n), devices, wired)) for n in (1, 6))
    assert len(one.stages) == 1 and len(six.stages) == 3
    alone = planned(plan(Demand(model(), 1024, 6), devices[:1], wired))
    assert six.prediction.pace > 2 * alone.prediction.pace
    slower = [*devices[:2], device(2, 3000, 1.0, macs_per_s=2e9, held=everything)]
    assert len(planned(plan(Demand(model(), 1024, 6), slower, wired)).stages) == 2, "the slowest would hold all up"
