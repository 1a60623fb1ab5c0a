"""Why a device takes no part, and why nothing fits: found by taking one obstacle away at a time and looking again.

Every reason is a cause: without it the device (or the plan) would do. Whatever stands in several ways is told the one
that a person meets first: memory, then disk, then links.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

from swarm.cluster.cost import GUESSED_LINK, Device, LinkOf, LinkSpeed, ModelCost
from swarm.cluster.pipeline import Stage, is_cut
from swarm.cluster.prediction import Prediction, decode_s
from swarm.cluster.search import Order, Search
from swarm.cluster.teams import Terms, are_wired, cut_stage
from swarm.limits import MAX_BYTE_COUNT
from swarm.wire.ids import PeerId

NOT_NEEDED = "not needed"
NO_GAIN = "it would gain less than it costs to fetch its share"


class Obstacle(Enum):
    """What keeps a model from fitting on the devices at hand."""

    MEMORY = "memory"
    DISK = "disk"
    LINKS = "links"
    DISK_AND_LINKS = "disk and links"


def all_reach(a: PeerId, b: PeerId) -> LinkSpeed:
    """The link of a network in which everybody reaches everybody."""
    return GUESSED_LINK


def obstacle(model: ModelCost, devices: Sequence[Device], link: LinkOf, context: int, sessions: int) -> Obstacle:
    """The one thing without which there would be a placement, where there is none."""
    roomy = [replace(device, disk_bytes=MAX_BYTE_COUNT) for device in devices]
    if Search(model, roomy, all_reach, context, sessions).best() is None:
        return Obstacle.MEMORY
    if Search(model, roomy, link, context, sessions).best() is not None:
        return Obstacle.DISK
    if Search(model, devices, all_reach, context, sessions).best() is not None:
        return Obstacle.LINKS
    return Obstacle.DISK_AND_LINKS


def why_left_out(
    device: Device, search: Search, stages: Sequence[Stage[Device]], link: LinkOf, prediction: Prediction
) -> str:
    """Why the fastest placement is one without this device, which may be used."""
    if any(map(is_cut, stages)):
        return _why_not_in_team(device, search, stages, link, prediction)
    ids = [d.id for d in search.devices]
    order, new = tuple(ids.index(stage.leader.id) for stage in stages), ids.index(device.id)
    if not search.holds_a_layer(new):
        return search.why_no_layer(new)
    with_it = _orders_with(new, order)
    if min(map(search.order_s, with_it)) == float("inf"):
        return _why_no_place(device, search, order, new, link)
    slower_s = _token_s(device, search, with_it, link) - prediction.token_s
    if slower_s <= 0:
        return NO_GAIN
    return f"a token would take {1e3 * slower_s:.1f} ms longer ({1 / (prediction.token_s + slower_s):.1f} tok/s)"


def _why_not_in_team(
    device: Device, search: Search, stages: Sequence[Stage[Device]], link: LinkOf, prediction: Prediction
) -> str:
    """Why it does not share the layers of a stage of several."""
    if not device.slices:
        return "it cannot compute layers together with others"
    terms = Terms(search.model, link, search.context, search.sessions)
    team = [member for stage in stages if is_cut(stage) for member in stage.members]
    far = sorted(member.name for member in team if not are_wired(terms, device, member))
    if far:
        return f"its link to {', '.join(far[:3])} is too slow to compute layers together"
    slower_s = min((_team_s(device, i, terms, stages) for i in range(len(stages))), default=float("inf"))
    slower_s -= prediction.token_s
    if slower_s == float("inf"):
        return f"it finds no share beside {', '.join(sorted(member.name for member in team)[:3])}"
    if slower_s <= 0:
        return NO_GAIN
    return f"a token would take {1e3 * slower_s:.1f} ms longer ({1 / (prediction.token_s + slower_s):.1f} tok/s)"


def _team_s(device: Device, at: int, terms: Terms, stages: Sequence[Stage[Device]]) -> float:
    """Seconds of a token when a device takes part in that stage, too."""
    stage = stages[at]
    new = cut_stage(terms, (*stage.members, device), stage.first, stage.end) if is_cut(stage) else None
    if new is None:
        return float("inf")
    return decode_s(terms.model, [new if each is stage else each for each in stages], terms.link, terms.context)


def _token_s(device: Device, search: Search, orders: list[Order], link: LinkOf) -> float:
    """Seconds of a token on the best of these lists, when nothing had to be fetched for this device's share."""
    everything = frozenset(search.model.parts(0, search.n))
    devices = [replace(d, held=everything) if d.id == device.id else d for d in search.devices]
    fetched = Search(search.model, devices, link, search.context, search.sessions)
    placed = fetched.cut(min(orders, key=fetched.order_s))
    assert placed is not None, "what fits beside a fetch fits without one"
    return decode_s(search.model, placed, link, search.context)


def _orders_with(new: int, order: Order) -> list[Order]:
    return [(*order[:i], new, *order[i:]) for i in range(len(order) + 1)]


def _why_no_place(device: Device, search: Search, order: Order, new: int, link: LinkOf) -> str:
    """It holds a layer, but no list of the chosen devices and this one can be cut."""
    if len(order) >= search.n:
        return NOT_NEEDED
    chosen = [search.devices[i] for i in order]
    names = " and ".join(sorted(d.name for d in chosen)[:3]) + (" and others" if len(chosen) > 3 else "")
    roomy = [replace(d, disk_bytes=MAX_BYTE_COUNT) for d in search.devices]
    if not _has_place(Search(search.model, roomy, all_reach, search.context, search.sessions), order, new):
        return f"it lends too little memory for a share beside {names}"
    if not _has_place(Search(search.model, search.devices, all_reach, search.context, search.sessions), order, new):
        return f"its disk has too little room for a share beside {names}"
    cut_off = sorted(d.name for d in chosen if link(d.id, device.id) is None or link(device.id, d.id) is None)
    return f"it does not reach {', '.join(cut_off)}"


def _has_place(search: Search, order: Order, new: int) -> bool:
    return any(search.cut(each) is not None for each in _orders_with(new, order))
