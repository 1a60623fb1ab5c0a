"""What a plan was made for, and whether it still is so."""

from __future__ import annotations

from dataclasses import replace

from swarm.cluster.cost import Device, Exchange, LinkSpeed
from swarm.cluster.drift import DRIFT, is_like, known_of
from swarm.cluster.planner import Layout
from swarm.wire.ids import PeerId

A, B = PeerId("a" * 32), PeerId("b" * 32)
SEEN = LinkSpeed(0.0003, 1e8, Exchange(0.0002, 1e8))
HEARD = LinkSpeed(0.0003, 1e8, None, may_share=False)


def device(peer: PeerId, rate: float = 1e10) -> Device:
    return Device(peer, peer[:1], 10**9, 10**9, rate, 1e11, slices=True)


def test_little_changes_nothing_and_much_does() -> None:
    before = known_of([device(A), device(B)], lambda a, b: SEEN, "auto")
    for rate, like in (
        (1e10 * 1.1, True),
        (1e10 / 1.1, True),
        (1e10 * DRIFT * 1.01, False),
        (1e10 / DRIFT / 1.01, False),
    ):
        assert is_like(before, known_of([device(A), device(B, rate)], lambda a, b: SEEN, "auto")) is like


def test_who_comes_goes_or_may_not_be_used_changes_it() -> None:
    before = known_of([device(A), device(B)], lambda a, b: SEEN, "auto")
    excluded = replace(device(B), excluded="it is too hot")
    smaller = replace(device(B), memory_bytes=10**8)
    for devices in ([device(A)], [device(A), excluded], [device(A), smaller]):
        assert not is_like(before, known_of(devices, lambda a, b: SEEN, "auto"))


def test_a_link_over_which_layers_may_be_shared_now_changes_it_where_they_are() -> None:
    layouts: tuple[tuple[Layout, bool], ...] = (("auto", False), ("pipeline", True), ("slices", True))
    for layout, like in layouts:  # slices: over any link, also before
        before = known_of([device(A), device(B)], lambda a, b: HEARD, layout)
        assert is_like(before, known_of([device(A), device(B)], lambda a, b: SEEN, layout)) is like


def test_whom_a_device_reaches_changes_it_in_every_layout() -> None:
    layouts: tuple[Layout, ...] = ("auto", "pipeline", "slices")
    for layout in layouts:
        apart = known_of([device(A), device(B)], lambda a, b: None, layout)
        together = known_of([device(A), device(B)], lambda a, b: HEARD, layout)
        assert not is_like(apart, together) and not is_like(together, apart)
