"""The shape of a placement: stages in the order that a token passes them, each a layer range and who runs it together.

Nobody else looks into `Placement.shards`, asks for the first or the last of them, or takes their number for that of the
stages: shards with the same layers are one stage.

The first member of a stage leads it. Only leaders speak with the entry node's data and with other stages: the leader of
the first stage takes ids, each passes activations on to the next leader, the last one samples and tells the first. The
other members get their steps from their leader; but a session is opened, probed and closed on every one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, groupby, pairwise
from typing import Generic, TypeVar

from swarm.cluster.cuts import Cuts
from swarm.wire.ids import PeerId
from swarm.wire.records import Placement, Shard

Member = TypeVar("Member")  # a shard of a placement; a device, or what is planned for it, while one is sought
Other = TypeVar("Other")


@dataclass(frozen=True, slots=True)
class Stage(Generic[Member]):
    """The layers [first, end) and those that run them together, the leader first."""

    first: int
    end: int
    members: tuple[Member, ...]

    @property
    def leader(self) -> Member:
        return self.members[0]

    @property
    def n_layers(self) -> int:
        return self.end - self.first

    def of(self, change: Callable[[Member], Other]) -> Stage[Other]:
        """The same layers with something else in the place of each member."""
        return Stage(self.first, self.end, tuple(map(change, self.members)))


def hops(stages: Sequence[Stage[Member]]) -> list[tuple[Member, Member]]:
    """The leaders between which a token passes: each and the one after it, and the last and the first at the end."""
    leaders = [stage.leader for stage in stages]
    return [*pairwise(leaders), (leaders[-1], leaders[0])] if leaders[1:] else []


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The stages of one placement; none of an empty one."""

    stages: tuple[Stage[Shard], ...]
    peers: tuple[PeerId, ...] = field(init=False, compare=False)  # all members of all stages

    def __post_init__(self) -> None:
        peers = tuple(shard.peer for stage in self.stages for shard in stage.members)
        object.__setattr__(self, "peers", peers)

    @classmethod
    def of(cls, placement: Placement | None) -> Pipeline:
        """The stages of a placement; of None, none."""
        shards = placement.shards if placement is not None else ()
        groups = groupby(shards, key=lambda shard: (shard.layer_start, shard.layer_end))
        return cls(tuple(Stage(first, end, tuple(members)) for (first, end), members in groups))

    @property
    def shards(self) -> tuple[Shard, ...]:
        """As a placement lists them."""
        return tuple(shard for stage in self.stages for shard in stage.members)

    @property
    def first(self) -> Stage[Shard]:
        return self.stages[0]

    @property
    def last(self) -> Stage[Shard]:
        return self.stages[-1]

    def with_last(self, shard: Shard) -> Pipeline:
        """The same with this shard in place of the last one, whose stage is one device's."""
        return Pipeline((*self.stages[:-1], replace(self.last, members=(shard,))))

    @property
    def n_busy(self) -> int:
        """Batches of a prompt that keep everybody at work: one in each stage, and one on its way."""
        return len(self.stages) + 1

    def before(self, stage: Stage[Shard]) -> Stage[Shard] | None:
        """The stage that sends to this one; None before the first."""
        return self.stages[i - 1] if (i := self.stages.index(stage)) else None

    def after(self, stage: Stage[Shard]) -> Stage[Shard] | None:
        """The stage that this one sends to; None after the last."""
        i = self.stages.index(stage)
        return self.stages[i + 1] if i + 1 < len(self.stages) else None

    def member_of(self, peer: PeerId) -> Stage[Shard] | None:
        """The stage that a device is a member of."""
        return next((stage for stage in self.stages if any(shard.peer == peer for shard in stage.members)), None)

    def shard_of(self, peer: PeerId) -> Shard | None:
        """What a device holds."""
        return next((shard for shard in self.shards if shard.peer == peer), None)

    def covers(self, n_layers: int) -> bool:
        """True when the stages are all layers of a model, in order and without a gap."""
        starts = [stage.first for stage in self.stages]
        return bool(starts) and [*starts, n_layers] == [0, *(stage.end for stage in self.stages)]

    def is_cut_well(self, cuts: Cuts | None) -> bool:
        """True when no device is in it twice, and the slices of each stage's members are its layers, each part once."""
        return len(set(self.peers)) == len(self.peers) and all(_is_cut_well(stage, cuts) for stage in self.stages)

    def links(self) -> Iterator[tuple[PeerId, PeerId]]:
        """The links that the stages need: leaders round the ring, and the members of a stage among themselves."""
        yield from ((a.peer, b.peer) for a, b in hops(self.stages))
        for stage in self.stages:
            for a, b in combinations(stage.members, 2):
                yield from ((a.peer, b.peer), (b.peer, a.peer))


def _is_cut_well(stage: Stage[Shard], cuts: Cuts | None) -> bool:
    if not is_cut(stage):
        return stage.leader.slice.whole
    return cuts is not None and cuts.are_whole([shard.slice.bounds for shard in stage.members])


def is_cut(stage: Stage[Member]) -> bool:
    """True when several devices run the stage together, a slice each."""
    return len(stage.members) > 1


NOBODY = Pipeline(())
