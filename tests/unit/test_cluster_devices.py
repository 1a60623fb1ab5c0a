"""Made-up devices for `swarm plan --add`."""

from __future__ import annotations

import pytest

from swarm.cluster.devices import CLASSES, MAX_ADDED, typical_devices, with_added
from swarm.errors import ConfigError

GIB = 2**30
MINE = typical_devices("laptop")[0]


@pytest.mark.parametrize("n", [0, 1, 16, 17, MAX_ADDED])
def test_every_added_device_counts(n: int) -> None:
    devices = with_added([MINE], ["pi5:8GiB"] * n)
    assert devices[0] is MINE and len(devices) == n + 1 == len({(d.id, d.name) for d in devices})


@pytest.mark.parametrize("texts", [["pi5"] * (MAX_ADDED + 1), ["pi5x40", "pi4x40"]])
def test_more_than_can_be_planned_with_are_refused_in_one_line(texts: list[str]) -> None:
    with pytest.raises(ConfigError, match=f"at most {MAX_ADDED} devices") as caught:
        with_added([MINE], texts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_brings_its_usable_memory(name: str) -> None:
    (device,) = typical_devices(name)
    assert 0 < device.memory_bytes < CLASSES[name].memory_bytes
    (half,) = typical_devices(f"{name}:{CLASSES[name].memory_bytes // 2**31}GiB")
    assert half.memory_bytes == device.memory_bytes // 2


@pytest.mark.parametrize(
    ("text", "count", "memory"),
    [("pi5", 1, 8 * GIB), ("pi5:4GiB", 1, 4 * GIB), ("n100:16GBx3", 3, 16 * 10**9), ("laptop:7.5g", 1, 7.5 * GIB)],
)
def test_a_device_is_written_as_class_and_memory(text: str, count: int, memory: float) -> None:
    devices = typical_devices(text)
    share = CLASSES[text.split(":", maxsplit=1)[0].split("x", maxsplit=1)[0]].usable_share
    assert len(devices) == count and devices[0].memory_bytes == int(int(memory) * share)


@pytest.mark.parametrize(
    "text", ["", "pi6", "pi5:", "pi5:lots", "pi5:8XB", "pi5x0", "pi5x99999", "pi5:0GiB", "pi5:1e9GiB"]
)
def test_what_is_no_device_gets_one_clear_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"pi5:8GiB|8GiB|from 1 to 64"):
        typical_devices(text)


def test_added_devices_have_ids_of_their_own() -> None:
    ids = [d.id for i, text in enumerate(["pi5x3", "pi4x2"]) for d in typical_devices(text, 10 * i)]
    assert len(set(ids)) == 5


def test_added_devices_are_counted_by_themselves_and_come_after_the_real_ones() -> None:
    real = typical_devices("n100")
    added = with_added(real, ["pi5x2", "pi4"])
    assert [device.name for device in added[1:]] == ["pi5 (added 1)", "pi5 (added 2)", "pi4 (added 3)"]
    assert len({device.id for device in added[1:]}) == 3
