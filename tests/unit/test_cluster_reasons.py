"""Every reason that a plan gives is true: take that one thing away, and the device takes part, or the model fits."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from swarm.cluster import membership, planner, reasons, search
from swarm.cluster.cost import Device, LayerCost, LinkOf, LinkSpeed, ModelCost
from swarm.cluster.cuts import Cuts
from swarm.cluster.pipeline import is_cut
from swarm.cluster.planner import MAX_EXPLAINED, Demand, NoPlan, Plan, plan
from swarm.cluster.reasons import NO_GAIN, NOT_NEEDED
from swarm.node import condition
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


def test_of_many_beside_which_there_is_no_place_three_are_named() -> None:
    """It could hold the small layer alone, in the middle of what the first of four full devices has."""
    small_layer = replace(LAYER, dense_bytes=20 * MB)
    model = replace(TOY, layers=(*TOY.layers[:2], small_layer, *TOY.layers[3:]))
    full = [device(1, 480), device(2, 201), device(3, 201), device(4, 190)]
    result = plan(Demand(model, 0), [*full, device(5, 30, 99)], wired)
    assert isinstance(result, Plan) and len(result.stages) == 4
    told = "it lends too little memory for a share beside d1 and d2 and d3 and others"
    assert [out.reason for out in result.left_out] == [told]
    helped = plan(Demand(model, 0), [*full, device(5, 700, 99)], wired)
    assert isinstance(helped, Plan) and "d5" not in [out.name for out in helped.left_out]


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


# --- beside devices that share every layer

WIDE = LayerCost(100 * MB, 200 * MB, 1024, query_bytes=20 * MB, key_bytes=1 * MB, ffn_bytes=79 * MB)
CUTS = Cuts((8, 8192, 0, 0, 8192), (1,) * 5, 1)
SHARED = ModelCost("shared", (WIDE,) * 10, 50 * MB, 80 * MB, 4096, 300 * MB, 8192, CUTS)


def in_team(*devices: Device, link: LinkOf = wired) -> tuple[Plan, dict[str, str]]:
    """The plan in which some share layers, and why others do not."""
    result = plan(Demand(SHARED, 0), devices, link)
    assert isinstance(result, Plan) and any(map(is_cut, result.stages)), result
    return result, {out.name: out.reason for out in result.left_out}


def sharing(index: int, gb_per_s: float = 10.0, memory_mb: float = 2000, **more: object) -> Device:
    return device(index, memory_mb, gb_per_s, slices=True, **more)


def test_a_device_that_cannot_compute_layers_with_others() -> None:
    old = device(3, 2000, 10)
    assert in_team(sharing(1), sharing(2), old)[1] == {"d3": "it cannot compute layers together with others"}
    assert in_team(sharing(1), sharing(2), replace(old, slices=True))[1] == {}


def test_a_link_that_is_too_slow_for_what_a_token_waits_for() -> None:
    def wifi(a: PeerId, b: PeerId) -> LinkSpeed:
        return LinkSpeed(4e-3, 25e6) if PeerId(f"{3:032x}") in (a, b) else FAST

    devices = sharing(1), sharing(2), sharing(3)
    assert in_team(*devices, link=wifi)[1] == {"d3": "its link to d1, d2 is too slow to compute layers together"}
    assert in_team(*devices)[1] == {}


def test_a_share_that_finds_no_place_in_a_devices_memory() -> None:
    tiny = sharing(3, memory_mb=20)
    assert in_team(sharing(1), sharing(2), tiny)[1] == {"d3": "it finds no share beside d1, d2"}
    assert in_team(sharing(1), sharing(2), replace(tiny, memory_bytes=2000 * MB))[1] == {}


def test_a_device_that_would_hold_up_those_who_share_layers() -> None:
    slow = sharing(3, layer_s=2e-3)
    assert "ms longer" in in_team(sharing(1), sharing(2), slow)[1]["d3"]
    assert in_team(sharing(1), sharing(2), replace(slow, layer_s=sharing(1).layer_s))[1] == {}


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


def test_a_mixture_that_does_not_fit_even_from_disk_says_so() -> None:
    layer = replace(LAYER, dense_bytes=50 * MB, expert_bytes=500 * MB, expert_share=1 / 16)
    mixture = replace(TOY, layers=(layer,) * 10)
    result = plan(Demand(mixture, 0), [device(1, 400)], wired)
    assert isinstance(result, NoPlan)
    assert "more memory than the devices at hand have, even with its experts on disk" in result.reason
    helped = [device(1, 400 + result.missing_bytes / MB)]
    found = plan(Demand(mixture, 0), helped, wired)
    assert isinstance(found, Plan) and found.demand.model.resident_share < 1


def test_a_model_that_is_on_no_disk_is_said_in_whole_or_in_part() -> None:
    parts = all_parts(10)
    half = device(1, 2000, held=frozenset(parts[:-6]))
    four = ", ".join(part.name for part in parts[-6:-2])
    assert no_plan([half]).reason == f"no device at hand has {four} and 2 more of toy on its disk"
    nothing = plan(Demand(TOY, 0, from_disks=True), [device(1, 2000)], wired)
    assert isinstance(nothing, NoPlan) and nothing.reason == "no device at hand has toy on its disk"
    assert isinstance(plan(Demand(TOY, 0), [half, device(2, 2000, held=frozenset(parts))], wired), Plan)


# --- that no reason is without a test

GIVEN_BY: list[tuple[ModuleType, tuple[str, ...]]] = [
    (reasons, ("why_left_out", "_why_not_in_team", "_why_no_place")),
    (search, ("why_no_layer",)),
    (planner, ("_no_source", "_does_not_fit")),
    (membership, ("why_unusable", "doubts")),
    (condition, ("_condition",)),
]
LEAST_LETTERS = 8  # of a piece of text that tells one reason from another


def texts(tree: ast.AST) -> Iterator[str]:
    """The longest fixed piece of every text that is no docstring."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    within = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield max((p.value for p in node.values if isinstance(p, ast.Constant)), key=len, default="").strip()
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation | within:
            yield node.value.strip()


def is_telling(text: str) -> bool:
    return len(re.sub(r"\W", "", text)) >= LEAST_LETTERS


def test_every_reason_that_a_plan_gives_is_expected_by_a_test() -> None:
    expected: set[str] = set()
    for path in Path(__file__).parent.glob("test_*_*.py"):
        expected |= set(filter(is_telling, texts(ast.parse(path.read_text()))))
    given = {
        text
        for module, names in GIVEN_BY
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.FunctionDef) and node.name in names
        for text in filter(is_telling, texts(node))
    }
    assert len(given) > 20
    assert [reason for reason in sorted(given) if not any(e in reason or reason in e for e in expected)] == []
