"""The placements of one entry node: offered, committed, replaced."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random
from typing import TypeVar

import pytest

from swarm import limits
from swarm.cluster.cost import Device, LayerCost, LinkSpeed, ModelCost, MtpCost
from swarm.cluster.cuts import Cuts
from swarm.cluster.effects import Effect, LookUp, Send
from swarm.cluster.pipeline import Pipeline
from swarm.cluster.placement import Placer, State
from swarm.parts import MTP, all_parts
from swarm.wire.ids import ModelId, PeerId
from swarm.wire.messages import Message, PlacementCommit, PlacementOffer, PlacementReply, ShardReady
from swarm.wire.records import Placement, Shard, Slice
from tests.helpers.cuts import cut

ME, A, B, C = (PeerId(c * 32) for c in "0abc")
M = TypeVar("M", bound=Message)
MODEL = ModelId("1" * 64)
COST = ModelCost("m", (LayerCost(10_000_000, 1, 1),) * 8, 5_000_000, 5_000_000, 8, 1)


@dataclass
class FakeWorld:
    """Devices as the test says."""

    present: dict[PeerId, Device]
    cut: set[frozenset[PeerId]] = field(default_factory=set)
    doubtful: set[PeerId] = field(default_factory=set)
    resting: set[PeerId] = field(default_factory=set)

    def devices(self, model: ModelId, now: float) -> list[Device]:
        return list(self.present.values())

    def link(self, a: PeerId, b: PeerId) -> LinkSpeed | None:
        gone = frozenset((a, b)) in self.cut or not {a, b} <= self.present.keys()
        return None if gone else LinkSpeed(0.0003, 1e8)

    def doubts(self, peer: PeerId, now: float) -> str:
        return "it flaps" if peer in self.doubtful else ""

    def rests(self, peer: PeerId) -> str:
        return "it is too hot" if peer in self.resting else ""

    def others(self) -> list[PeerId]:
        return [peer for peer in self.present if peer != ME]

    def name_of(self, peer: PeerId) -> str:
        return f"device {peer[:1]}"


def device(peer: PeerId, memory: int = 60_000_000, speed: float = 1e10) -> Device:
    return Device(peer, peer[:1], memory, 10**12, speed, 1e12, held=frozenset(all_parts(8)))


@pytest.fixture
def world() -> FakeWorld:
    return FakeWorld({peer: device(peer) for peer in (ME, A, B)})


@pytest.fixture
def placer(world: FakeWorld) -> Placer:
    placer = Placer(ME, world, Random(1), first_epoch=1)
    placer.model_known(MODEL, COST, 0.0)
    return placer


def sent(effects: list[Effect], kind: type[M]) -> dict[PeerId, M]:
    return {e.to: e.message for e in effects if isinstance(e, Send) and isinstance(e.message, kind)}


def take(placer: Placer, now: float = 0.0) -> list[Effect]:
    """All members accept what was offered last."""
    placing = placer.placings[MODEL]
    assert placing.placement is not None
    epoch, effects = placing.placement.epoch, []
    for peer in placing.peers:
        effects += placer.reply(peer, PlacementReply(MODEL, epoch, True, ""), now)
    return effects


def become_ready(placer: Placer, now: float = 0.0) -> None:
    placer.need(MODEL, 10, now)
    take(placer, now)
    placing = placer.placings[MODEL]
    assert placing.placement is not None
    for shard in placing.placement.shards:
        placer.shard_ready(shard.peer, ShardReady(MODEL, placing.placement.epoch, shard))
    assert placer.ready(MODEL) == placing.placement


def test_a_need_is_offered_committed_to_all_and_ready_when_all_are(placer: Placer) -> None:
    offers = sent(placer.need(MODEL, 10, 0.0), PlacementOffer)
    assert len(offers) == 2 and placer.placings[MODEL].state is State.OFFERING
    assert set(sent(take(placer), PlacementCommit)) == {ME, A, B}, "others learn what is in use"
    assert placer.ready(MODEL) is None
    become_ready(placer)


def test_an_answer_waits_for_weights_from_the_commit_until_all_are_ready(placer: Placer) -> None:
    seen = [placer.waits_for_weights]
    placer.need(MODEL, 10, 0.0)
    seen.append(placer.waits_for_weights)
    take(placer)
    seen.append(placer.waits_for_weights)
    placer.rest(MODEL)
    seen.append(placer.waits_for_weights)
    become_ready(placer)
    assert [*seen, placer.waits_for_weights] == [False, False, True, False, False]


def test_an_unknown_model_is_looked_up_first(world: FakeWorld) -> None:
    placer = Placer(ME, world, Random(1), first_epoch=1)
    assert placer.need(MODEL, 10, 0.0) == [LookUp(MODEL)]
    assert sent(placer.model_known(MODEL, COST, 1.0), PlacementOffer)


def test_epochs_only_grow(placer: Placer) -> None:
    epochs = []
    for _ in range(3):
        placer.need(MODEL, 10, 0.0)
        placement = placer.placings[MODEL].placement
        assert placement is not None
        epochs.append(placement.epoch)
        placer.renew(MODEL, 0.0)
    assert epochs == sorted(set(epochs))


def test_a_lost_member_is_replaced_at_once(placer: Placer, world: FakeWorld) -> None:
    become_ready(placer)
    lost = placer.placings[MODEL].peers[-1]
    del world.present[lost]
    world.present[C] = device(C)
    offers = sent(placer.peer_lost(lost, 1.0), PlacementOffer)
    assert offers and lost not in offers


def test_a_lost_device_that_is_no_member_changes_nothing(placer: Placer, world: FakeWorld) -> None:
    become_ready(placer)
    (outsider,) = world.present.keys() - set(placer.placings[MODEL].peers)
    assert placer.peer_lost(outsider, 1.0) == [] and placer.ready(MODEL) is not None


def test_what_does_not_fit_waits_for_a_device(placer: Placer, world: FakeWorld) -> None:
    for peer in (A, B):
        del world.present[peer]
    assert not sent(placer.need(MODEL, 10, 0.0), PlacementOffer)
    placing = placer.placings[MODEL]
    assert placing.state is State.UNFIT and placing.no_plan is not None and placing.no_plan.missing_bytes > 0
    world.present[A] = device(A)
    assert sent(placer.devices_changed(1.0), PlacementOffer)


def test_a_refusal_for_memory_is_planned_around(placer: Placer, world: FakeWorld) -> None:
    world.present[C] = device(C)
    offers = sent(placer.need(MODEL, 10, 0.0), PlacementOffer)
    refuser = next(peer for peer in offers if peer != ME)
    epoch = offers[refuser].placement.epoch
    reply = PlacementReply(MODEL, epoch, False, "50 MiB are missing", 50_000_000)
    again = sent(placer.reply(refuser, reply, 0.1), PlacementOffer)
    assert again and refuser not in again


def test_when_all_are_busy_it_waits_and_tries_again(placer: Placer) -> None:
    offers = sent(placer.need(MODEL, 10, 0.0), PlacementOffer)
    for peer, offer in offers.items():
        if peer != ME:
            placer.reply(peer, PlacementReply(MODEL, offer.placement.epoch, False, "busy", 50_000_000), 0.1)
    now = 0.1
    while placer.placings[MODEL].state is not State.BACKOFF:
        placing = placer.placings[MODEL]
        assert placing.placement is not None
        peer = next(p for p in placing.peers if p != ME)
        placer.reply(peer, PlacementReply(MODEL, placing.placement.epoch, False, "busy", 50_000_000), now)
    assert placer.placings[MODEL].trouble.endswith("says that 47.7 MiB of memory are missing there")
    assert sent(placer.tick(now + 2 * limits.REPLAN_MAX_S), PlacementOffer)


def test_an_offer_without_an_answer_is_repeated_and_then_planned_around(placer: Placer, world: FakeWorld) -> None:
    world.present[C] = device(C)
    offers = sent(placer.need(MODEL, 10, 0.0), PlacementOffer)
    silent = next(peer for peer in offers if peer != ME)
    for peer, offer in offers.items():
        if peer != silent:
            placer.reply(peer, PlacementReply(MODEL, offer.placement.epoch, True, ""), 0.1)
    assert set(sent(placer.tick(limits.OFFER_RETRY_S + 0.1), PlacementOffer)) == {silent}
    assert silent not in sent(placer.tick(limits.OFFER_TIMEOUT_S + 0.1), PlacementOffer)


def test_a_member_that_cannot_load_is_planned_around(placer: Placer, world: FakeWorld) -> None:
    world.present[C] = device(C)
    placer.need(MODEL, 10, 0.0)
    take(placer)
    placing = placer.placings[MODEL]
    assert placing.placement is not None
    broken = next(p for p in placing.peers if p != ME)
    again = sent(
        placer.reply(broken, PlacementReply(MODEL, placing.placement.epoch, False, "bad disk"), 1.0), PlacementOffer
    )
    assert again and broken not in again


def test_members_that_lose_sight_of_each_other_break_the_placement(placer: Placer, world: FakeWorld) -> None:
    become_ready(placer)
    world.present[C] = device(C)
    a, b = placer.placings[MODEL].peers[:2]
    world.cut.add(frozenset((a, b)))
    offers = sent(placer.devices_changed(1.0), PlacementOffer)
    assert offers and not {a, b} <= offers.keys()


def test_anothers_layout_is_adopted_when_it_is_nearly_as_fast(placer: Placer) -> None:
    shards = (Shard(B, 0, 5, True, False), Shard(A, 5, 8, False, True))
    placer.commit_seen(PlacementCommit(Placement(MODEL, 9, A, 10, "f16", shards)))
    offers = sent(placer.need(MODEL, 10, 0.0), PlacementOffer)
    assert offers[A].placement.shards == shards and offers[A].placement.author == ME


@pytest.mark.parametrize("cut", [(0, 0, 2**31 - 1, 0, 5), (3, 1)], ids=["nothing", "backwards"])
def test_anothers_layout_with_a_slice_that_is_none_of_the_model_is_not_even_looked_at(
    placer: Placer, world: FakeWorld, cut: tuple[int, ...]
) -> None:
    placer.model_known(MODEL, replace(placer.models[MODEL], cuts=CUTS), 0.0)
    shards = (Shard(B, 0, 8, True, True, slice=Slice(*cut)),)
    placer.commit_seen(PlacementCommit(Placement(MODEL, 9, A, 10, "f16", shards)))
    offers = sent(placer.need(MODEL, 10, 0.0), PlacementOffer)
    assert all(shard.slice.whole for shard in offers[A].placement.shards)


def test_anothers_layout_is_not_adopted_when_it_is_much_slower(placer: Placer, world: FakeWorld) -> None:
    world.present[ME] = device(ME, 10**9, 1e11)
    shards = (Shard(B, 0, 5, True, False), Shard(A, 5, 8, False, True))
    placer.commit_seen(PlacementCommit(Placement(MODEL, 9, A, 10, "f16", shards)))
    assert set(sent(placer.need(MODEL, 10, 0.0), PlacementOffer)) == {ME}


def test_between_answers_a_new_device_is_used_when_it_is_faster(placer: Placer, world: FakeWorld) -> None:
    become_ready(placer)
    assert placer.refresh(MODEL, 1.0) == []
    world.present[C] = device(C, 10**9, 1.02e10)
    before = placer.ready(MODEL)
    world.present[B] = device(B, 60_000_000, 1.01e10)
    world.present[C] = device(C, 10**9, 9e9)
    placer.refresh(MODEL, 2.0)
    assert placer.ready(MODEL) == before, "not for a few percent"
    world.present[C] = device(C, 10**9, 5e10)
    assert set(sent(placer.refresh(MODEL, 3.0), PlacementOffer)) == {C}


def test_a_doubtful_device_is_used_only_where_nothing_fits_without_it(placer: Placer, world: FakeWorld) -> None:
    world.doubtful = {A}
    assert A not in sent(placer.need(MODEL, 10, 0.0), PlacementOffer)
    del world.present[B]
    placer.peer_lost(B, 1.0)
    assert placer.placings[MODEL].state is State.BACKOFF
    assert A in sent(placer.tick(1.0 + 2 * limits.REPLAN_MAX_S), PlacementOffer)


def test_a_larger_context_keeps_the_layout_that_has_room_for_it_and_else_is_planned_anew(placer: Placer) -> None:
    become_ready(placer)
    assert placer.need(MODEL, 4000, 1.0) == [] and placer.ready(MODEL) is not None
    offers = sent(placer.need(MODEL, 5_000_000, 2.0), PlacementOffer)
    assert set(offers) == {ME, A, B} and offers[ME].placement.context == 5_000_000


def test_a_placement_that_nobody_needs_is_not_renewed(placer: Placer, world: FakeWorld) -> None:
    become_ready(placer)
    placer.rest(MODEL)
    lost = next(p for p in placer.placings[MODEL].peers if p != ME)
    del world.present[lost]
    assert placer.peer_lost(lost, 1.0) == [] and placer.placings[MODEL].state is State.IDLE


def test_an_answer_goes_on_without_a_device_that_wants_to_rest(placer: Placer, world: FakeWorld) -> None:
    become_ready(placer)
    hot = placer.placings[MODEL].peers[-1]
    world.resting.add(hot)
    offers = sent(placer.devices_changed(1.0), PlacementOffer)
    assert offers and hot not in offers
    assert not placer.devices_changed(1.1), "once is enough"


def test_a_device_that_rests_is_used_where_nothing_fits_without_it(placer: Placer, world: FakeWorld) -> None:
    become_ready(placer)
    before = placer.placings[MODEL].placement
    world.resting |= set(world.present)
    assert placer.devices_changed(1.0) == [], "there is no other: the answer is not disturbed"
    assert placer.ready(MODEL) == before
    placer.renew(MODEL, 2.0)
    take(placer, 2.0)
    assert placer.placings[MODEL].state is State.LOADING, "at once, without backing off"


def test_a_device_that_has_rested_is_used_again_from_the_next_answer_on(placer: Placer, world: FakeWorld) -> None:
    fast = device(C, 200_000_000, 1e11)
    world.present[C] = fast
    world.resting.add(C)
    become_ready(placer)
    assert C not in placer.placings[MODEL].peers
    world.resting.clear()
    assert not sent(placer.devices_changed(1.0), PlacementOffer), "not in the middle of an answer"
    assert C in sent(placer.refresh(MODEL, 2.0), PlacementOffer)


# --- devices that share layers


CUTS = Cuts((12, 384, 0, 0, 48), (1, 64, 64, 64, 16), 4)
SLICED = replace(COST, layers=(LayerCost(10_000_000, 1, 1, query_bytes=4_000_000, ffn_bytes=6_000_000),) * 8, cuts=CUTS)


@pytest.fixture
def sharing() -> tuple[Placer, FakeWorld]:
    world = FakeWorld({peer: replace(device(peer, speed=1e9), slices=True) for peer in (ME, A, B)})
    placer = Placer(ME, world, Random(1), first_epoch=1)
    placer.model_known(MODEL, SLICED, 0.0)
    return placer, world


def take_slices(placer: Placer) -> list[Effect]:
    placing = placer.placings[MODEL]
    assert placing.placement is not None
    effects = []
    for i, peer in enumerate(placing.peers):
        effects += placer.reply(
            peer, PlacementReply(MODEL, placing.placement.epoch, True, "", slice_port=7000 + i), 0.0
        )
    return effects


@pytest.mark.parametrize("slower", [1.0, 4.5, 6.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_answers_stay_on_the_same_of_equal_devices(seed: int, slower: float) -> None:
    """However much slower all of them are than they say, and no two answers go alike."""
    rng, now = Random(seed), 0.0
    world = FakeWorld({peer: device(peer) for peer in (ME, A, B, C)})
    placer = Placer(ME, world, Random(1), first_epoch=1)
    placer.model_known(MODEL, COST, now)
    layouts: list[Pipeline] = []
    for _ in range(40):
        now += 100.0
        placer.refresh(MODEL, now)
        become_ready(placer, now)
        placing, planned = placer.placings[MODEL], placer.predicted(MODEL)
        layouts.append(placing.pipeline)
        as_they_say = placer._token_s(placer._demand(placing), list(world.present.values()), placing.pipeline)
        assert as_they_say is not None and planned is not None
        day = rng.uniform(0.9, 1.2)
        for _ in range(8):
            pace = rng.uniform(1.0, 1.6) * day * slower * as_they_say / planned.token_s
            placer.conduct.saw_pace(placing.peers, pace, now)
        placer.rest(MODEL)
    n_moves = sum(a != b for a, b in pairwise(layouts))
    assert n_moves <= 6 and len(set(layouts[20:])) == 1, "each is tried once, at most"


def test_a_device_that_gets_slower_is_planned_with_anew(placer: Placer, world: FakeWorld) -> None:
    become_ready(placer)
    slow = next(peer for peer in placer.placings[MODEL].peers if peer != ME)
    (other,) = world.present.keys() - set(placer.placings[MODEL].peers)
    world.present[slow] = device(slow, speed=1e10 / 1.1)
    assert placer.refresh(MODEL, 1.0) == [], "a little, and it stays"
    world.present[slow] = device(slow, speed=1e10 / 1.5)
    assert other in sent(placer.refresh(MODEL, 2.0), PlacementOffer)


def test_members_get_ports_and_a_secret_and_nobody_else_does(sharing: tuple[Placer, FakeWorld]) -> None:
    placer, world = sharing
    world.present[B] = replace(world.present[B], slices=False)
    placer.need(MODEL, 10, 0.0)
    assert placer.placings[MODEL].pipeline.is_cut_well(CUTS) and set(placer.placings[MODEL].peers) == {ME, A}
    told = sent(take_slices(placer), PlacementCommit)
    assert told[ME] == told[A] and told[ME].ports == (7000, 7001) and len(told[ME].secret) == 32
    assert told[B].secret == b"" and told[B].ports == () and told[B].placement == told[A].placement
    (again,) = {m.secret for m in sent(placer.tick(100.0), PlacementCommit).values()} or {told[A].secret}
    assert again == told[A].secret


def test_every_placement_has_a_secret_of_its_own(sharing: tuple[Placer, FakeWorld]) -> None:
    secrets = set()
    for _ in range(3):
        sharing[0].need(MODEL, 10, 0.0)
        secrets.add(sent(take_slices(sharing[0]), PlacementCommit)[A].secret)
        sharing[0].renew(MODEL, 0.0)
    assert len(secrets) == 3


def test_a_layout_with_slices_of_another_author_is_adopted(sharing: tuple[Placer, FakeWorld]) -> None:
    placer, _ = sharing
    placer.need(MODEL, 10, 0.0)
    mine = placer.placings[MODEL].placement
    assert mine is not None
    left, right, *_ = cut(CUTS, [0.55, 0.45])
    shards = tuple(
        Shard(peer, 0, 8, True, True, 50_000_000, Slice(*bounds)) for peer, bounds in ((A, left), (B, right))
    )
    theirs = Placement(MODEL, 5, B, 10, "f16", shards)
    placer.commit_seen(PlacementCommit(theirs))
    placer.renew(MODEL, 0.0)
    placer.placings[MODEL].attempts = 0
    placer.need(MODEL, 11, 0.0)
    adopted = placer.placings[MODEL].placement
    assert adopted is not None and all(
        stage.leader.peer == A for stage in placer.placings[MODEL].pipeline.stages if len(stage.members) > 1
    ), "B follows A already"


@pytest.mark.parametrize("bounds", [(0, 2**60, *(0, 1) * 4), (0, 1, 0, 64, 0, 0, 0, 0, 0, 16)])
def test_a_whole_stage_of_another_author_that_claims_a_slice_is_not_adopted(
    sharing: tuple[Placer, FakeWorld], bounds: tuple[int, ...]
) -> None:
    placer, world = sharing
    world.present[A] = replace(device(A, 60_000_000, 1e12), slices=True)  # by far the fastest, with too little memory
    theirs = Placement(MODEL, 5, B, 10, "f16", (Shard(A, 0, 8, True, True, 50_000_000, Slice(*bounds)),))
    placer.commit_seen(PlacementCommit(theirs))
    offered = sent(placer.need(MODEL, 10, 0.0), PlacementOffer)[ME].placement
    assert Pipeline.of(offered).is_cut_well(CUTS)


def test_who_is_led_by_another_one_is_no_failure_and_the_next_plan_knows(sharing: tuple[Placer, FakeWorld]) -> None:
    placer, _ = sharing
    placer.need(MODEL, 10, 0.0)
    placing = placer.placings[MODEL]
    assert placing.placement is not None and len(placing.peers) == 3
    no = PlacementReply(MODEL, placing.placement.epoch, False, "it follows another one", led_by=PeerId("f" * 32))
    placer.reply(B, no, 0.0)
    assert placing.failures == 0 and B not in placing.peers and set(placing.peers) == {ME, A}


def test_a_pipeline_is_what_is_asked_for_where_the_setting_says_so() -> None:
    world = FakeWorld({peer: replace(device(peer, speed=1e9), slices=True) for peer in (ME, A, B)})
    placer = Placer(ME, world, Random(1), first_epoch=1, layout="pipeline")
    placer.model_known(MODEL, SLICED, 0.0)
    placer.need(MODEL, 10, 0.0)
    assert not any(len(stage.members) > 1 for stage in placer.placings[MODEL].pipeline.stages)


def test_the_block_is_held_where_it_is_wanted_and_there_is_room(world: FakeWorld, placer: Placer) -> None:
    placer.model_known(MODEL, replace(COST, mtp=MtpCost(1_000_000, 1)), 0.0)
    world.present = {ME: device(ME, memory=200_000_000)}
    world.present[ME] = replace(world.present[ME], held=world.present[ME].held | {MTP})
    become_ready(placer)
    first = placer.ready(MODEL)
    assert first is not None and not first.mtp
    placer.rest(MODEL)
    placer.uses_mtp = True
    placer.refresh(MODEL, 0.0)
    become_ready(placer)
    second = placer.ready(MODEL)
    assert second is not None and second.mtp and second.epoch > first.epoch
    assert second.shards[0].memory_bytes == first.shards[0].memory_bytes + 1_000_000 + 10
    placer.rest(MODEL)
    assert placer.refresh(MODEL, 0.0) == [], "nothing has changed"
    world.present[ME] = replace(world.present[ME], memory_bytes=first.shards[0].memory_bytes)
    placer.refresh(MODEL, 0.0)
    placer.need(MODEL, 20, 0.0)
    third = placer.placings[MODEL].placement
    assert third is None or not third.mtp
