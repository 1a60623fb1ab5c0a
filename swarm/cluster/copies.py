"""Whether a model survives the loss of a device, and who makes a second copy of what only one device has."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from swarm.cluster.cost import Device, ModelCost
from swarm.parts import Part, all_parts
from swarm.wire.ids import PeerId

DISK_SHARE = 0.5  # of what a device has free that second copies may take: the rest is for what it is asked to run


def lost_with(devices: Sequence[Device], parts: Collection[Part]) -> list[Device] | None:
    """Devices without which some part of a model is on no disk any more; None when some part is on none already."""
    holders = [[device for device in devices if part in device.held] for part in parts]
    if not all(holders):
        return None
    lonely = {device.id for few in holders if len(few) == 1 for device in few}
    return [device for device in devices if device.id in lonely]


def second_copy(me: PeerId, devices: Sequence[Device], model: ModelCost) -> list[Part]:
    """The parts that this device is to copy, because only one other has them.

    Those with most free disk take them, as many as go into their share of it; every device comes to the same result.
    """
    room = {device.id: int(DISK_SHARE * device.disk_bytes) for device in devices if not device.excluded}
    mine: list[Part] = []
    for part in sorted(all_parts(model.n_layers)):
        holders = [device.id for device in devices if part in device.held]
        if len(holders) != 1:
            continue
        n_bytes = model.stored_bytes(part)
        takers = sorted(
            (id_ for id_ in room if id_ not in holders and room[id_] >= n_bytes), key=lambda i: (-room[i], i)
        )
        if takers:
            room[takers[0]] -= n_bytes
            mine += [part] * (takers[0] == me)
    return mine
