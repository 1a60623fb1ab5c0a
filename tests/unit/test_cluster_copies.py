"""Which devices a model depends on, and who copies what only one of them has."""

from __future__ import annotations

from collections.abc import Iterable

from swarm.cluster.copies import lost_with, second_copy
from swarm.cluster.cost import Device, LayerCost, ModelCost
from swarm.parts import Part, all_parts
from swarm.wire.ids import PeerId

MODEL = ModelCost("m", tuple(LayerCost(1000, 1, 1) for _ in range(4)), 500, 500, 8, 1)
PARTS = frozenset(all_parts(4))


def device(letter: str, held: Iterable[Part] = (), disk: int = 10**6, excluded: str = "") -> Device:
    return Device(PeerId(letter * 32), letter, 10**6, disk, 1e9, 1e9, held=frozenset(held), excluded=excluded)


def copied(devices: list[Device]) -> dict[str, list[Part]]:
    return {each.name: second_copy(each.id, devices, MODEL) for each in devices}


def test_a_model_depends_on_the_devices_that_alone_have_a_part() -> None:
    first, second = list(PARTS)[:3], list(PARTS)[3:]
    assert lost_with([device("a", PARTS), device("b", PARTS)], PARTS) == []
    told = lost_with([device("a", first), device("b", PARTS), device("c")], PARTS)
    assert told is not None and [each.name for each in told] == ["b"]
    told = lost_with([device("a", first), device("b", second)], PARTS)
    assert told is not None and [each.name for each in told] == ["a", "b"]
    assert lost_with([device("a", first)], PARTS) is None


def test_what_one_device_has_is_copied_by_one_other_with_most_disk() -> None:
    told = copied([device("a", PARTS), device("b", disk=10**6), device("c", disk=2 * 10**6)])
    assert told == {"a": [], "b": [], "c": sorted(PARTS)}
    assert copied([device("a", PARTS), device("b", PARTS), device("c")]) == {"a": [], "b": [], "c": []}


def test_devices_share_a_copy_that_is_too_large_for_one() -> None:
    told = copied([device("a", PARTS), device("b", disk=5000), device("c", disk=5000)])
    assert sorted(told["b"] + told["c"]) == sorted(PARTS)
    assert told["b"] and told["c"] and not set(told["b"]) & set(told["c"])
    for parts in (told["b"], told["c"]):
        assert sum(MODEL.part_bytes(part) for part in parts) <= 2500, "half of the disk is left"


def test_what_fits_nowhere_is_not_copied_and_a_device_that_is_out_copies_nothing() -> None:
    assert copied([device("a", PARTS), device("b", disk=100)])["b"] == []
    assert copied([device("a", PARTS), device("b", excluded="another version")])["b"] == []


def test_devices_that_hold_a_part_each_copy_each_others() -> None:
    first, second = sorted(PARTS)[:3], sorted(PARTS)[3:]
    assert copied([device("a", first), device("b", second)]) == {"a": second, "b": first}
