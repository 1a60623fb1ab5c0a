"""Every reason that a plan gives is true: take that one thing away, and the device takes part, or the model fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from swarm.cluster.cost import Device, LayerCost, LinkOf, LinkSpeed, ModelCost
from swarm.cluster.planner import MAX_EXPLAINED, Demand, NoPlan, Plan, plan
from swarm.cluster.reasons import NO_GAIN, NOT_NEEDED
from swarm.parts import all_parts
from swarm.wire.ids import PeerId

MB = 10**6
LAYER = LayerCost(dense_bytes=100 * MB, macs=200 * MB, kv_bytes=4000)
TOY = ModelCost("toy", (LAYER,) * 10, 50 * MB, 80 * MB, 4096, 300 * MB)  # 1130 MB in all
FAST = LinkSpeed(0.0003, 117e6)


def device(index: int, memory_mb: float, gb_per_s: float = 10.0, **more: object) -> Device:
    figures = {"macs_per_s": 50e9, "disk_bytes": 10**12, **more}
    return Device(
        PeerId(f"{index:032x}"),
        f"d{index}",
        int(memory_mb * MB),
        read_bytes_per_s=gb_per_s * 1e9,
        **figures,  # type: ignore[arg-type]
    )


def wired(a: PeerId, b: PeerId) -> LinkSpeed:
    return FAST


def cut(*pairs: tuple[Device, Device]) -> LinkOf:
    """Everybody reaches everybody but these."""
    dead = {frozenset((a.id, b.id)) for a, b in pairs}

    def link(a: PeerId, b: PeerId) -> LinkSpeed | None:
        return None if frozenset((a, b)) in dead else FAST

    return link


def reason(devices: list[Device], link: LinkOf, of: str, context: int = 0) -> str:
    result = plan(Demand(TOY, context), devices, link)
    assert isinstance(result, Plan), result
    return next(out.reason for out in result.left_out if out.name == of)


def test_too_little_memory_for_a_layer() -> None:
    whole, tiny = device(1, 2000, 1), device(2, 90, 99)
    assert reason([whole, tiny], wired, "d2") == "it lends too little memory for a layer"
    result = plan(Demand(TOY, 0), [whole, replace(tiny, memory_bytes=190 * MB)], wired)
    assert isinstance(result, Plan) and not result.left_out


def test_a_layer_in_the_middle_would_fit_but_neither_end_beside_a_device_that_holds_the_rest() -> None:
    """The device reaches the other one very well; it cannot hold the embedding or the head with its layer."""
    whole, small = device(1, 2000, 1), device(2, 120, 99)
    assert reason([whole, small], wired, "d2") == "it lends too little memory for a share beside d1"
    result = plan(Demand(TOY, 0), [whole, replace(small, memory_bytes=190 * MB)], wired)
    assert isinstance(result, Plan) and not result.left_out


def test_no_room_on_its_disk_for_a_layer() -> None:
    full = device(2, 2000, 99, disk_bytes=0)
    assert reason([device(1, 2000, 1), full], wired, "d2") == "its disk has no room for a layer"
    assert isinstance(plan(Demand(TOY, 0), [replace(full, disk_bytes=10**12)], wired), Plan)


def test_room_on_its_disk_for_a_layer_but_for_no_share_of_its_own() -> None:
    everything = frozenset(all_parts(10))
    whole, narrow = device(1, 2000, 1, held=everything), device(2, 2000, 99, disk_bytes=110 * MB)
    assert reason([whole, narrow], wired, "d2") == "its disk has too little room for a share beside d1"
    result = plan(Demand(TOY, 0), [whole, replace(narrow, disk_bytes=10**12)], wired)
    assert isinstance(result, Plan) and not [out for out in result.left_out if out.name == "d2"]


def test_a_device_that_does_not_reach_the_others_and_only_that() -> None:
    a, b, lost = device(1, 700, 10), device(2, 500, 10), device(3, 500, 99)
    assert reason([a, b, lost], cut((a, lost), (b, lost)), "d3") == "it does not reach d1, d2"
    assert reason([a, b, lost], cut((a, lost)), "d3") == "it does not reach d1"
    result = plan(Demand(TOY, 0), [a, b, lost], wired)
    assert isinstance(result, Plan) and "d3" not in [out.name for out in result.left_out]


def test_a_slow_device_is_told_what_it_would_cost() -> None:
    text = reason([device(1, 2000, 20), device(2, 2000, 2)], wired, "d2")
    assert "ms longer" in text and float(text.split()[4]) > 0


def test_a_gain_that_is_not_worth_the_fetching() -> None:
    """It would be 1 % faster with the second device, which has nothing of the model yet."""
    holder, faster = device(1, 2000, 10, held=frozenset(all_parts(10))), device(2, 1000, 10.2)
    instant = LinkSpeed(0.0, 1e18)
    assert reason([holder, faster], lambda a, b: instant, "d2") == NO_GAIN
    result = plan(Demand(TOY, 0), [holder, replace(faster, held=holder.held)], lambda a, b: instant)
    assert isinstance(result, Plan) and not result.left_out


def test_more_devices_than_layers_are_not_needed() -> None:
    many = [device(i, 190, 10) for i in range(1, 12)]
    result = plan(Demand(TOY, 0), many, wired)
    assert isinstance(result, Plan) and len(result.stages) == 10
    assert [out.reason for out in result.left_out] == [NOT_NEEDED]


def test_of_many_that_are_left_out_only_some_are_explained() -> None:
    slow = [device(i, 2000, 1) for i in range(2, MAX_EXPLAINED + 5)]
    result = plan(Demand(TOY, 0), [device(1, 2000, 50), *slow], wired)
    assert isinstance(result, Plan)
    assert [out.reason == NOT_NEEDED for out in result.left_out] == [False] * MAX_EXPLAINED + [True] * 3


@pytest.mark.parametrize("many", [0, MAX_EXPLAINED + 2])
def test_what_the_node_says_against_a_device_is_repeated_however_many_there_are(many: int) -> None:
    others = [device(i, 2000, 1) for i in range(2, many + 2)]
    odd = device(999, 2000, 99, excluded="it is too hot (95 °C)")
    assert reason([device(1, 2000, 50), *others, odd], wired, "d999") == "it is too hot (95 °C)"


# --- when nothing fits


def no_plan(devices: list[Device], link: LinkOf = wired) -> NoPlan:
    result = plan(Demand(TOY, 0), devices, link)
    assert isinstance(result, NoPlan)
    return result


SMALL = [device(1, 700), device(2, 700)]
CASES: list[tuple[str, list[Device], LinkOf, Callable[[list[Device]], tuple[list[Device], LinkOf]]]] = [
    (
        "more memory than the devices at hand have",
        [device(1, 300), device(2, 300)],
        wired,
        lambda devices: ([replace(d, memory_bytes=700 * MB) for d in devices], wired),
    ),
    (
        "the devices that could hold it do not reach each other",
        SMALL,
        cut((SMALL[0], SMALL[1])),
        lambda devices: (devices, wired),
    ),
    (
        "the disks have too little room",
        [replace(d, disk_bytes=0) for d in SMALL],
        wired,
        lambda devices: ([replace(d, disk_bytes=10**12) for d in devices], wired),
    ),
    (
        "do not reach each other, and their disks have too little room",
        [replace(d, disk_bytes=0) for d in SMALL],
        cut((SMALL[0], SMALL[1])),
        lambda devices: ([replace(d, disk_bytes=10**12) for d in devices], wired),
    ),
]


@pytest.mark.parametrize(("text", "devices", "link", "mend"), CASES, ids=[case[0][:30] for case in CASES])
def test_why_nothing_fits_is_what_must_be_mended(
    text: str, devices: list[Device], link: LinkOf, mend: Callable[[list[Device]], tuple[list[Device], LinkOf]]
) -> None:
    assert text in no_plan(devices, link).reason
    mended, links = mend(devices)
    assert isinstance(plan(Demand(TOY, 0), mended, links), Plan)


def test_memory_that_is_missing_is_told_and_is_enough() -> None:
    result = no_plan([device(1, 300), device(2, 400)])
    helped = [device(1, 300), device(2, 400), device(3, result.missing_bytes / MB)]
    assert isinstance(plan(Demand(TOY, 0), helped, wired), Plan)


def test_memory_that_is_missing_at_the_ends_only_is_not_told_as_nothing() -> None:
    """Each layer would find a place, but not the embedding or the head beside it."""
    result = no_plan([device(i, 105) for i in range(1, 13)])
    assert "more memory" in result.reason and result.missing_bytes > MB


def test_devices_that_may_not_be_used_are_named_when_there_are_no_others() -> None:
    result = no_plan([device(1, 2000, excluded="two devices run with its id")])
    assert "no device at hand may be used" in result.reason
    assert [out.reason for out in result.left_out] == ["two devices run with its id"]
