"""What a plan was made for, and whether that is about so still: little does not count, for moving loads weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swarm.cluster.cost import Device, LinkOf
from swarm.cluster.planner import Layout
from swarm.wire.ids import PeerId

DRIFT = 1.15  # a device that is so much slower or faster than when a plan was made is planned with anew

# Of each device: what must not change at all, and how fast it reads.
Known = Mapping[PeerId, tuple[object, float]]


def known_of(devices: Sequence[Device], link: LinkOf, layout: Layout) -> Known:
    """Who is there, what each can do, whom each reaches and, where that counts, with whom it may share layers."""
    able = {device.id for device in devices if device.slices and layout != "pipeline"}
    ids = [device.id for device in devices]
    ways = {(a, b): way for a in ids for b in ids if a != b and (way := link(a, b)) is not None}
    shares = {pair for pair, way in ways.items() if able.issuperset(pair) and (way.may_share or layout == "slices")}
    return {
        device.id: (
            (
                device.memory_bytes,
                bool(device.excluded),
                frozenset((b, (a, b) in shares) for a, b in ways if a == device.id),
            ),
            device.read_bytes_per_s,
        )
        for device in devices
    }


def is_like(before: Known, now: Known) -> bool:
    """True while the same devices are there, and none of them became much faster or slower."""
    if before.keys() != now.keys() or any(before[peer][0] != what for peer, (what, _) in now.items()):
        return False
    return all(before[peer][1] / DRIFT < rate < before[peer][1] * DRIFT for peer, (_, rate) in now.items())
