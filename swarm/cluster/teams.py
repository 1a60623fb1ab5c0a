"""Teams: devices that compute every layer of a stage together. Which of them, with which slices, beside a pipeline?

Only devices whose links are wired form one: a token waits 2 * n_layers + 1 times for the slowest link between any two,
which over Wi-Fi is ruinous. Of each group of devices that are wired to each other all heads of its list by speed, and
by memory, are tried as one team, improved by leaving out, adding or exchanging single ones; and the whole group as two
to four teams in a pipeline, with those of other groups, and with devices that are wired to nobody.

Shares come from water-filling: everybody gets as much as it reads in the same time, up to its memory. They are rounded
to what cuts allow (cuts.py), axis by axis, each in the memory that those before it left; of several ways to keep heads
of one key head together the fastest is taken. The work is bounded, and ties go to the first: equal inputs give an equal
answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

from swarm.cluster.cost import Device, LinkOf, LinkSpeed, ModelCost, StageSums, joint_s
from swarm.cluster.cuts import AXES, HEADS, Bounds, Cuts
from swarm.cluster.pipeline import Stage

MAX_WIRED_RTT_S = 1e-3  # gigabit through a switch takes 0.3 to 0.5 ms with the program around it, Wi-Fi 2 and more
MAX_WIRED_EXCHANGE_S = 1e-3  # as it was rehearsed: 0.1 to 0.5 ms by cable
MAX_SPLITS = 4  # teams that a group is split into
MAX_LAYOUTS = 120  # pipelines of teams that are tried
MAX_STEPS = 60  # teams that are tried to improve one

Team = tuple[Device, ...]
Stages = tuple[Stage[Device], ...]
Score = Callable[[Stages], float]


@dataclass(frozen=True, slots=True)
class Terms:
    """What is placed, and on what."""

    model: ModelCost
    link: LinkOf
    context: int
    sessions: int
    any_link: bool = False  # teams over whatever links there are: somebody asked for slices


def best_teams(terms: Terms, devices: Sequence[Device], score: Score) -> Stages | None:
    """The best placement in which devices share layers; None where none fits. `score`: seconds a token, and more."""
    if terms.model.cuts is None:
        return None
    groups = [group for group in _groups(terms, devices) if len(group) > 1]
    found = [stages for group in groups for stages in _single_teams(terms, group, score)]
    found += _pipelines(terms, devices, groups)
    return min(found, key=score, default=None)


def cut_stage(terms: Terms, team: Team, first: int, end: int) -> Stage[Device] | None:
    """A stage of these devices, each with its slice; None where it does not fit. One alone has whole layers."""
    model, cuts = terms.model, terms.model.cuts
    if len(team) == 1:
        return _alone(terms, team[0], first, end)
    if cuts is None or len(team) > cuts.most_members:
        return None
    sums = StageSums.of(model, first, end)
    ways = [_slices(sums, cuts, team, terms.context * terms.sessions, group) for group in cuts.head_groups(len(team))]
    stages = [Stage(first, end, tuple(map(_with_slice, team, way))) for way in ways if way is not None]
    return min(stages, key=lambda stage: joint_s(model, stage, terms.context), default=None)


def _slices(sums: StageSums, cuts: Cuts, team: Team, kv_tokens: int, group: int) -> list[Bounds] | None:
    """A slice for each of a team, with heads kept together by so many; None where it does not fit.

    The heads first, for whose keys are cut holds some twice; then what falls in large steps; the finest fills up.
    """
    rates, sizes = [device.read_bytes_per_s for device in team], sums.cut_bytes(kv_tokens)
    slices: list[Bounds] = [(0,) * 2 * len(AXES)] * len(team)
    rooms: list[float] = [device.memory_bytes - sums.whole_bytes for device in team]
    todo = sum(sizes)
    for axis in sorted(AXES, key=lambda axis: (axis != HEADS, -sizes[axis] / max(cuts.n_steps(axis, group), 1), axis)):
        shares = water_fill(rates, [max(room / todo, 0.0) if todo else 1.0 for room in rooms])
        if shares is None:
            return None
        n_steps = cuts.n_steps(axis, group)
        most = [int(max(room, 0) * n_steps / sizes[axis]) if sizes[axis] else n_steps for room in rooms]
        try:
            ranges = cuts.ranges(axis, shares, group, most)
        except ValueError:
            return None
        slices = [
            (*bounds[: 2 * axis], *ends, *bounds[2 * axis + 2 :]) for bounds, ends in zip(slices, ranges, strict=True)
        ]
        rooms = [d.memory_bytes - sums.memory_bytes(b, cuts, kv_tokens) for d, b in zip(team, slices, strict=True)]
        todo -= sizes[axis]
    return slices if min(rooms) >= 0 else None


def water_fill(rates: Sequence[float], caps: Sequence[float]) -> list[float] | None:
    """Shares of one, each as its rate but at most its cap; None where the caps do not hold it."""
    if sum(caps) < 1.0 - 1e-9:
        return None
    shares, free, left = [0.0] * len(rates), set(range(len(rates))), 1.0
    while free:
        level = left / sum(rates[i] for i in free)
        full = {i for i in free if caps[i] < level * rates[i]}
        if not full:
            for i in free:
                shares[i] = level * rates[i]
            break
        for i in full:
            shares[i] = caps[i]
        left, free = left - sum(caps[i] for i in full), free - full
    return shares


def _with_slice(device: Device, bounds: Bounds) -> Device:
    return replace(device, slice=bounds)


def _alone(terms: Terms, device: Device, first: int, end: int) -> Stage[Device] | None:
    kv = terms.sessions * terms.model.stage_kv_bytes(first, end, terms.context)
    fits = terms.model.stage_weight_bytes(first, end) + kv <= device.memory_bytes
    return Stage(first, end, (device,)) if fits else None


# --- who may share layers


def _groups(terms: Terms, devices: Sequence[Device]) -> list[Team]:
    """Devices that are all wired to each other, the fastest first; nobody is in two groups."""
    left = sorted((d for d in devices if d.slices), key=lambda d: (-d.read_bytes_per_s, d.id))
    groups: list[Team] = []
    while left:
        group = [left[0]]
        for device in left[1:]:
            if all(are_wired(terms, device, other) for other in group):
                group.append(device)
        left = [device for device in left if device not in group]
        groups.append(tuple(group))
    return groups


def are_wired(terms: Terms, a: Device, b: Device) -> bool:
    """True when two devices may compute layers together."""
    ways = terms.link(a.id, b.id), terms.link(b.id, a.id)
    return all(way is not None and (terms.any_link or is_wired(way)) for way in ways)


def is_wired(way: LinkSpeed) -> bool:
    """True for a link over which devices may share layers: a heartbeat's round trip is believed of no real one."""
    if way.exchange is not None:
        return way.exchange.wait_s <= MAX_WIRED_EXCHANGE_S
    return way.may_share and way.rtt_s <= MAX_WIRED_RTT_S


def _led(team: Sequence[Device]) -> Team | None:
    """A team with its leader first: the lowest id, or who leads members of it already; None where these are two."""
    leaders = {device.led_by for device in team} - {None}
    by_id = sorted(team, key=lambda device: device.id)
    if not leaders:
        return tuple(by_id)
    (leader, *more) = leaders
    if more or leader not in {device.id for device in team}:
        return None
    return tuple(sorted(by_id, key=lambda device: device.id != leader))


# --- one team


def _single_teams(terms: Terms, group: Team, score: Score) -> Iterator[Stages]:
    """Of one group: the best heads of its lists, and what single changes make of them."""
    by_memory = tuple(sorted(group, key=lambda device: (-device.memory_bytes, device.id)))
    heads = [members[:n] for members in (group, by_memory) for n in range(2, len(group) + 1)]
    whole = [(score(stages), stages) for head in heads if (stages := _whole(terms, head)) is not None]
    if not whole:
        return
    best = min(whole, key=lambda pair: pair[0])
    work = MAX_STEPS
    improved = True
    while improved and work > 0:
        improved = False
        for team in _changed(best[1], group):
            work -= 1
            stages = _whole(terms, team)
            if stages is not None and score(stages) < best[0] - 1e-9:
                best, improved = (score(stages), stages), True
            if improved or work <= 0:
                break
    yield best[1]


def _whole(terms: Terms, members: Sequence[Device]) -> Stages | None:
    """The whole model on one team."""
    team = _led(members)
    stage = cut_stage(terms, team, 0, terms.model.n_layers) if team is not None else None
    return (stage,) if stage is not None else None


def _changed(stages: Stages, group: Team) -> Iterator[Team]:
    """The team of a single stage with a member less, one more, or one in the place of another."""
    (stage,) = stages
    ids = {device.id for device in stage.members}
    team = tuple(device for device in group if device.id in ids)
    others = [device for device in group if device.id not in ids]
    if len(team) > 2:
        yield from (team[:i] + team[i + 1 :] for i in range(len(team)))
    yield from ((*team, other) for other in others)
    yield from ((*team[:i], other, *team[i + 1 :]) for i in range(len(team)) for other in others)


# --- teams with a pipeline between them


def _pipelines(terms: Terms, devices: Sequence[Device], groups: Sequence[Team]) -> list[Stages]:
    grouped = {device.id for group in groups for device in group}
    lonely = sorted((d for d in devices if d.id not in grouped), key=lambda d: (-d.read_bytes_per_s, d.id))
    singles = [tuple((device,) for device in lonely[:n]) for n in range(len(lonely) + 1)]
    ways = product(*(_splits(group) for group in groups), singles)
    layouts = ([team for part in way for team in part] for way in islice(ways, MAX_LAYOUTS))
    found = (_pipeline(terms, teams) for teams in layouts if len(teams) > 1 and any(len(team) > 1 for team in teams))
    return [stages for stages in found if stages is not None]


def _splits(group: Team) -> list[tuple[Team, ...]]:
    """A group as one team or several of about the same speed, or not at all."""
    counts = [n for n in range(1, MAX_SPLITS + 1) if len(group) >= 2 * n]
    return [tuple(group[i::n] for i in range(n)) for n in counts] + [()]


def _pipeline(terms: Terms, members: Sequence[Sequence[Device]]) -> Stages | None:
    """These teams one after the other, each with as many layers as it is fast, and has room for."""
    teams = [team for each in members if (team := _led(each)) is not None]
    model, kv_tokens = terms.model, terms.context * terms.sessions
    if len(teams) < len(members) or len(teams) > model.n_layers:
        return None
    layer_bytes = sum(layer.resident_bytes + layer.kv_bytes * kv_tokens for layer in model.layers) / model.n_layers
    rooms = [max(sum(device.memory_bytes for device in team) - model.embed_bytes, 0) for team in teams]
    caps = [room / layer_bytes / model.n_layers for room in rooms]
    shares = water_fill([sum(device.read_bytes_per_s for device in team) for team in teams], caps)
    if shares is None:
        return None
    stages: list[Stage[Device]] = []
    for team, (first, end) in zip(teams, _ranges(model.n_layers, shares), strict=True):
        stage = cut_stage(terms, team, first, end)
        if stage is None:
            return None
        stages.append(stage)
    return tuple(stages)


def _ranges(n_layers: int, shares: Sequence[float]) -> list[tuple[int, int]]:
    """Layers for each share, at least one."""
    ends, done = [], 0
    for i in range(len(shares)):
        left = len(shares) - i - 1
        end = round(n_layers * sum(shares[: i + 1])) if left else n_layers
        done_now = min(max(end, done + 1), n_layers - left)
        ends.append((done, done_now))
        done = done_now
    return ends
