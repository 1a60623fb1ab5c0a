"""The block goes to the last stage where there is room for it beside everything else, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarm.cluster.cost import Device, LayerCost, ModelCost, MtpCost
from swarm.cluster.mtp_room import with_mtp
from swarm.cluster.pipeline import Pipeline
from swarm.parts import EMBED, MTP, all_parts
from swarm.wire.ids import ModelId, PeerId
from swarm.wire.records import Placement, Shard, Slice

A, B = PeerId("a" * 32), PeerId("b" * 32)
COST = ModelCost("m", (LayerCost(100, 1, 2),) * 4, 30, 20, 8, 1, mtp=MtpCost(70, 3))
WITH = frozenset((*all_parts(4), MTP))
CONTEXT = 10
# Two layers with the head and their keys and values; the embedding, the block, and its own.
NEEDED = 2 * 100 + 20 + 2 * 2 * CONTEXT + 30 + 70 + 3 * CONTEXT


def pipeline(*shards: Shard) -> Pipeline:
    return Pipeline.of(Placement(ModelId("1" * 64), 1, A, CONTEXT, "f16", shards))


TWO = pipeline(Shard(A, 0, 2, True, False, 1), Shard(B, 2, 4, False, True, 1))
ONE = pipeline(Shard(B, 0, 4, True, True, 1))
CUT = pipeline(Shard(A, 0, 4, True, True, 1, Slice(0, 1)), Shard(B, 0, 4, True, True, 1, Slice(1, 2)))


def device(peer: PeerId, memory: int, *, held: frozenset[object] = WITH, disk: int = 0) -> Device:
    return Device(peer, peer[:1], memory, disk, 1e9, 1e9, held=held)  # type: ignore[arg-type]


def test_a_last_stage_with_room_takes_it_and_says_what_that_needs() -> None:
    devices = [device(A, 0), device(B, NEEDED)]
    found = with_mtp(TWO, COST, devices, CONTEXT)
    assert found is not None and found.last.leader == replaced(TWO.last.leader, NEEDED)
    assert found.first == TWO.first
    assert with_mtp(TWO, COST, [device(A, 10**6), device(B, NEEDED - 1)], CONTEXT) is None


def replaced(shard: Shard, memory: int) -> Shard:
    return Shard(shard.peer, shard.layer_start, shard.layer_end, shard.embed, shard.head, memory)


def test_a_stage_that_has_the_embedding_holds_it_once() -> None:
    needed = NEEDED + 2 * 100 + 2 * 2 * CONTEXT
    assert with_mtp(ONE, COST, [device(B, needed)], CONTEXT) is not None
    assert with_mtp(ONE, COST, [device(B, needed - 1)], CONTEXT) is None


def test_no_block_no_device_and_no_stage_of_several() -> None:
    devices = [device(A, 10**6), device(B, 10**6)]
    assert with_mtp(TWO, replace(COST, mtp=None), devices, CONTEXT) is None
    assert with_mtp(TWO, COST, devices[:1], CONTEXT) is None
    assert with_mtp(CUT, COST, devices, CONTEXT) is None


@pytest.mark.parametrize(("disk", "fits"), [(100, True), (99, False)])
def test_what_its_disk_lacks_must_be_on_another_and_have_room(disk: int, fits: bool) -> None:
    without = WITH - {MTP, EMBED}
    devices = [device(A, 0), device(B, NEEDED, held=without, disk=disk)]
    assert (with_mtp(TWO, COST, devices, CONTEXT) is not None) == fits
    nobody = [replace(each, held=WITH - {MTP}) for each in devices]
    assert with_mtp(TWO, COST, nobody, CONTEXT) is None
