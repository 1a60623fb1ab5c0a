"""What a device takes on, and what it refuses: memory is promised once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec.structs import replace as replace_value

from swarm import limits
from swarm.cluster.cost import LayerCost, ModelCost, MtpCost
from swarm.cluster.cuts import Cuts
from swarm.cluster.effects import CloseStage, DropKv, Effect, Load, LookUp, OpenStage, Send, StageId, Unload
from swarm.cluster.memory import KvEntry, Ledger
from swarm.cluster.shards import Shards
from swarm.parts import EMBED, MTP, Part, parts_of
from swarm.wire.ids import ModelId, PeerId, SessionId
from swarm.wire.messages import PlacementCommit, PlacementOffer, PlacementReply, ShardReady
from swarm.wire.records import KvFormat, Placement, Shard, Slice

ME, LOW, HIGH = (PeerId(c * 32) for c in "5ab")
MODEL, OTHER = ModelId("1" * 64), ModelId("2" * 64)
S1 = SessionId("c" * 32)
COST = ModelCost("m", (LayerCost(100, 1, 1),) * 8, 50, 50, 8, 1)


def shards(memory: int) -> Shards:
    s = Shards(ME, Ledger(memory))
    for model in (MODEL, OTHER):
        s.model_known(model, COST, 0.0)
    return s


def placement(
    epoch: int,
    first: int,
    end: int,
    *,
    author: PeerId = LOW,
    model: ModelId = MODEL,
    context: int = 10,
    kv: KvFormat = "f16",
) -> Placement:
    mine = Shard(ME, first, end, first == 0, end == 8)
    return Placement(model, epoch, author, context, kv, (mine,))


def answer(effects: list[Effect]) -> PlacementReply:
    (reply,) = [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, PlacementReply)]
    return reply


def load(s: Shards, p: Placement, now: float = 0.0) -> list[Effect]:
    """Offer, commit and load a placement."""
    assert answer(s.offer(PlacementOffer(p), now)).accepted
    effects = s.commit(PlacementCommit(p), now)
    for effect in effects:
        if isinstance(effect, Load):
            effects = effects + s.parts_loaded(effect.ticket, now)
    return effects


def test_an_offer_is_answered_and_a_commit_loads_what_is_missing() -> None:
    s = shards(1000)
    p = placement(1, 0, 4)
    assert answer(s.offer(PlacementOffer(p), 0.0)).accepted
    (loading,) = s.commit(PlacementCommit(p), 0.0)
    assert isinstance(loading, Load) and loading.parts == frozenset(parts_of(0, 4, 8))
    (ready,) = s.parts_loaded(loading.ticket, 0.0)
    assert isinstance(ready, Send) and isinstance(ready.message, ShardReady) and ready.to == LOW
    assert s.ready(LOW, MODEL, 1) is not None and s.ledger.used_bytes == 450


def test_weights_of_two_authors_count_once() -> None:
    s = shards(500)
    load(s, placement(1, 0, 4))
    effects = load(s, placement(1, 0, 4, author=HIGH))
    assert not [e for e in effects if isinstance(e, Load)] and s.ledger.used_bytes == 450


def test_too_little_memory_is_refused_with_what_is_missing() -> None:
    s = shards(400)
    reply = answer(s.offer(PlacementOffer(placement(1, 0, 4)), 0.0))
    assert not reply.accepted and reply.missing_bytes == 450 + 4 * 10 - 400


def test_an_offer_reserves_memory_until_it_expires() -> None:
    s = shards(500)
    assert answer(s.offer(PlacementOffer(placement(1, 0, 4)), 0.0)).accepted
    assert not answer(s.offer(PlacementOffer(placement(1, 4, 8, author=HIGH)), 1.0)).accepted
    s.tick(limits.OFFER_HOLD_S)
    assert answer(s.offer(PlacementOffer(placement(2, 4, 8, author=HIGH)), 6.0)).accepted


def test_of_two_that_ask_at_once_the_lower_id_gets_the_memory() -> None:
    s = shards(500)
    high = placement(1, 4, 8, author=HIGH)
    assert answer(s.offer(PlacementOffer(high), 0.0)).accepted
    assert answer(s.offer(PlacementOffer(placement(1, 0, 4)), 0.0)).accepted
    assert not answer(s.commit(PlacementCommit(high), 0.0)).accepted


def test_a_placement_that_serves_nobody_makes_way_after_a_while() -> None:
    s = shards(500)
    load(s, placement(1, 0, 4), now=0.0)
    assert not answer(s.offer(PlacementOffer(placement(1, 0, 4, author=HIGH, model=OTHER)), 1.0)).accepted
    later = 1.0 + limits.CLAIM_GRACE_S
    effects = load(s, placement(2, 0, 4, author=HIGH, model=OTHER), now=later)
    assert any(isinstance(e, Unload) and e.model == MODEL for e in effects)
    assert s.ready(LOW, MODEL, 1) is None and s.ledger.used_bytes <= 500


def test_a_placement_with_an_answer_does_not_make_way() -> None:
    s = shards(500)
    load(s, placement(1, 0, 4))
    s.ledger.kv[S1] = KvEntry((LOW, MODEL), 0, 4, 20, True, 0.0)
    reply = answer(s.offer(PlacementOffer(placement(1, 0, 4, author=HIGH, model=OTHER)), 60.0))
    assert not reply.accepted and s.ready(LOW, MODEL, 1) is not None


def test_an_older_epoch_is_stale() -> None:
    s = shards(1000)
    load(s, placement(5, 0, 4))
    assert s.offer(PlacementOffer(placement(4, 4, 8)), 0.0) == []
    assert s.commit(PlacementCommit(placement(4, 4, 8)), 0.0) == []
    assert s.ready(LOW, MODEL, 5) is not None


def test_a_new_placement_of_the_author_ends_the_old_one_and_the_kv_that_no_longer_fits() -> None:
    s = shards(1000)
    load(s, placement(1, 0, 4))
    s.ledger.kv[S1] = KvEntry((LOW, MODEL), 0, 4, 20, True, 0.0)
    effects = load(s, placement(2, 2, 6))
    assert DropKv(S1) in effects
    (loading,) = [e for e in effects if isinstance(e, Load)]
    assert loading.parts == frozenset({Part(4), Part(5)}), "layers 2 and 3 are here already"


def test_kv_of_the_same_layers_survives_a_new_placement() -> None:
    s = shards(1000)
    load(s, placement(1, 0, 4))
    s.ledger.kv[S1] = KvEntry((LOW, MODEL), 0, 4, 20, True, 0.0)
    load(s, placement(2, 0, 4))
    assert S1 in s.ledger.kv


def test_a_commit_without_us_ends_our_part() -> None:
    s = shards(1000)
    load(s, placement(1, 0, 4))
    elsewhere = Placement(MODEL, 2, LOW, 10, "f16", (Shard(HIGH, 0, 8, True, True),))
    s.commit(PlacementCommit(elsewhere), 0.0)
    assert s.ready(LOW, MODEL, 1) is None and not s.needed()


def test_a_repeated_offer_or_commit_is_answered_again() -> None:
    s = shards(1000)
    p = placement(1, 0, 4)
    assert answer(s.offer(PlacementOffer(p), 0.0)).accepted and answer(s.offer(PlacementOffer(p), 0.1)).accepted
    load(s, p)
    (again,) = s.commit(PlacementCommit(p), 0.0)
    assert isinstance(again, Send) and isinstance(again.message, ShardReady)


def test_an_unknown_model_is_looked_up_and_the_offer_answered_then() -> None:
    s = Shards(ME, Ledger(1000))
    assert s.offer(PlacementOffer(placement(1, 0, 4)), 0.0) == [LookUp(MODEL)]
    assert answer(s.model_known(MODEL, COST, 1.0)).accepted


@pytest.mark.parametrize(("first", "end"), [(3, 3), (5, 3), (0, 9)])
def test_a_shard_that_makes_no_sense_is_refused(first: int, end: int) -> None:
    s = shards(5000)
    assert not answer(s.offer(PlacementOffer(placement(1, first, end)), 0.0)).accepted


def test_a_load_that_fails_tells_the_author_and_frees_the_memory() -> None:
    s = shards(1000)
    p = placement(1, 0, 4)
    s.offer(PlacementOffer(p), 0.0)
    (loading,) = s.commit(PlacementCommit(p), 0.0)
    assert isinstance(loading, Load)
    reply = answer(s.load_failed(loading.ticket, "the disk is full"))
    assert not reply.accepted and reply.text == "the disk is full" and s.ledger.used_bytes == 0


def test_a_late_answer_to_a_load_that_was_given_up_counts_for_nothing() -> None:
    s = shards(500)
    p = placement(1, 0, 4)
    s.offer(PlacementOffer(p), 0.0)
    (loading,) = s.commit(PlacementCommit(p), 0.0)
    assert isinstance(loading, Load)
    s.author_gone(LOW, restarted=False)
    load(s, placement(1, 4, 8, author=HIGH))
    assert s.parts_loaded(loading.ticket, 0.0) == [] and not any(part < Part(4) for _, part in s.loaded)


def test_a_restarted_author_begins_with_new_epochs() -> None:
    s = shards(1000)
    load(s, placement(7, 0, 4))
    s.author_gone(LOW, restarted=True)
    load(s, placement(1, 0, 4))


def test_weights_stay_as_a_cache_until_room_is_needed() -> None:
    s = shards(500)
    load(s, placement(1, 0, 4))
    s.author_gone(LOW, restarted=False)
    assert s.ledger.used_bytes == 450
    effects = load(s, placement(2, 0, 4))
    assert not [e for e in effects if isinstance(e, Load)], "they are still here"


def test_room_is_kept_for_keys_and_values_as_the_offer_wants_them() -> None:
    layers = (LayerCost(100, 1, 32, kv_q8_0_bytes=17),) * 8
    formats: tuple[tuple[KvFormat, int], ...] = (("f16", 32), ("q8_0", 17))
    for kv, n_bytes in formats:
        s = Shards(ME, Ledger(450 + 4 * 10 * n_bytes))
        s.model_known(MODEL, replace(COST, layers=layers), 0.0)
        assert answer(s.offer(PlacementOffer(placement(1, 0, 4, kv=kv)), 0.0)).accepted, kv
        s.ledger.total_bytes -= 1
        assert answer(s.offer(PlacementOffer(placement(2, 0, 4, kv=kv)), 0.0)).missing_bytes == 1, kv


def test_a_device_that_cannot_keep_keys_and_values_so_says_so() -> None:
    refused = answer(shards(1000).offer(PlacementOffer(placement(1, 0, 4, kv="q8_0")), 0.0))
    assert not refused.accepted and refused.text == "keys and values of this model cannot be kept as q8_0"


def test_offers_of_models_that_are_not_known_leave_few_behind_and_commits_nothing() -> None:
    s = shards(1000)
    for i in range(1000):
        strange = placement(i + 1, 0, 8, model=ModelId(f"{i:064x}"))
        effects = s.offer(PlacementOffer(strange), 0.0)
        assert isinstance(effects[0], LookUp) if i < limits.MAX_UNKNOWN_OFFERS else not answer(effects).accepted
        assert s.commit(PlacementCommit(strange), 0.0) == []
    assert len(s._unknown) == limits.MAX_UNKNOWN_OFFERS and not s.newest
    assert isinstance(s.offer(PlacementOffer(placement(1, 0, 8, author=HIGH, model=ModelId("9" * 64))), 0.0)[0], LookUp)


def test_what_others_only_promise_to_use_does_not_stop_an_answer_of_this_device() -> None:
    s = shards(1000)
    assert answer(s.offer(PlacementOffer(placement(1, 0, 8, author=LOW, model=OTHER)), 0.0)).accepted
    assert answer(s.offer(PlacementOffer(placement(1, 0, 8, author=ME)), 0.1)).accepted, "LOW never committed"
    t = shards(1000)
    load(t, placement(1, 0, 8, author=LOW, model=OTHER), 10.0)
    assert answer(t.offer(PlacementOffer(placement(1, 0, 8, author=ME)), 10.1)).accepted, "nothing runs for LOW"


def test_an_answer_of_another_that_stands_still_makes_way_and_one_that_runs_does_not() -> None:
    s = shards(1000)
    load(s, placement(1, 0, 8, author=LOW, model=OTHER))
    s.ledger.kv[S1] = KvEntry((LOW, OTHER), 0, 8, 80, True, 0.0)
    own = PlacementOffer(placement(1, 0, 8, author=ME))
    assert not answer(s.offer(own, limits.CONTENDED_KV_S - 0.1)).accepted
    assert answer(s.offer(own, limits.CONTENDED_KV_S + 0.1)).accepted


# --- slices

CUTS = Cuts((4, 128, 0, 0, 32), (1, 64, 64, 64, 16), 2)
LEFT, RIGHT = Slice(0, 2, 0, 64, vocab_end=16), Slice(2, 4, 64, 128, vocab_start=16, vocab_end=32)
SLICED = replace(COST, layers=(LayerCost(100, 1, 1, query_bytes=40, key_bytes=20, ffn_bytes=40),) * 8, cuts=CUTS)
SECRET = bytes(range(32))


def sliced(memory: int = 1000, port: int = 7000) -> Shards:
    s = Shards(ME, Ledger(memory), port)
    for model in (MODEL, OTHER):
        s.model_known(model, SLICED, 0.0)
    return s


def shared(
    epoch: int = 1,
    *,
    author: PeerId = LOW,
    others: tuple[PeerId, ...] = (HIGH,),
    mine: Slice = LEFT,
    its: Slice = RIGHT,
    model: ModelId = MODEL,
) -> Placement:
    """The whole model on this device and others; the first of these leads."""
    members = [Shard(peer, 0, 8, True, True, slice=its) for peer in others]
    members.insert(1, Shard(ME, 0, 8, True, True, slice=mine))
    return Placement(model, epoch, author, 10, "f16", tuple(members))


def commit(s: Shards, p: Placement, now: float = 0.0) -> list[Effect]:
    assert answer(s.offer(PlacementOffer(p), now)).accepted
    effects = s.commit(PlacementCommit(p, SECRET, (7001, 7000)), now)
    for effect in effects:
        if isinstance(effect, Load):
            effects = effects + s.parts_loaded(effect.ticket, now)
    return effects


def test_a_slice_is_taken_with_its_share_of_every_layer() -> None:
    s = sliced()
    reply = answer(s.offer(PlacementOffer(shared()), 0.0))
    assert reply.accepted and reply.slice_port == 7000
    opened, loading = s.commit(PlacementCommit(shared(), SECRET, (7001, 7000)), 0.0)
    assert opened == OpenStage(StageId(LOW, 1, 0), (HIGH, ME), (7001, 7000), 1, SECRET)
    assert isinstance(loading, Load) and loading.parts == frozenset(parts_of(0, 8, 8, LEFT.bounds))
    assert s.ledger.used_bytes == 8 * 50 + 50 + 25, "the embedding is whole"
    s.parts_loaded(loading.ticket, 0.0)
    claim = s.ready(LOW, MODEL, 1)
    assert claim is not None and s.stages() == {StageId(LOW, 1, 0)} and s.staged(StageId(LOW, 1, 0)) == claim


def test_a_stage_is_closed_when_its_placement_ends_or_is_replaced_and_opened_once() -> None:
    s = sliced()
    commit(s, shared())
    again = s.commit(PlacementCommit(shared(), SECRET, (7001, 7000)), 0.0)
    assert [type(e) for e in again] == [Send], "told twice, opened once"
    effects = commit(s, shared(2))
    assert effects[0] == CloseStage(StageId(LOW, 1, 0)) and isinstance(effects[1], OpenStage)
    assert CloseStage(StageId(LOW, 2, 0)) in s.author_gone(LOW, restarted=False) and not s.stages()


BAD = {
    "a gap": (LEFT, Slice(3, 4, 64, 128, vocab_start=16, vocab_end=32)),
    "an overlap": (LEFT, Slice(1, 4, 64, 128, vocab_start=16, vocab_end=32)),
    "too much": (LEFT, Slice(2, 5, 64, 128, vocab_start=16, vocab_end=32)),
    "very much": (LEFT, Slice(2, 2**31 - 1, 64, 128, vocab_start=16, vocab_end=32)),
    "within a step": (Slice(0, 2, 0, 60, vocab_end=16), Slice(2, 4, 60, 128, vocab_start=16, vocab_end=32)),
    "one of them whole": (LEFT, Slice()),
    "the other whole": (Slice(), RIGHT),
    "the same twice": (LEFT, LEFT),
}


def test_what_the_next_member_holds_is_known_while_the_placement_lives() -> None:
    s = sliced()
    assert s.neighbours_parts(MODEL) == frozenset()
    s.offer(PlacementOffer(shared()), 0.0)
    assert s.neighbours_parts(MODEL) == frozenset(), "nobody has committed it yet"
    s.commit(PlacementCommit(shared(), SECRET, (7001, 7000)), 0.0)
    assert s.neighbours_parts(MODEL) == frozenset(s.models[MODEL].parts(0, 8, RIGHT.bounds)), "the first after the last"
    assert s.neighbours_parts(OTHER) == frozenset()
    s.author_gone(LOW, restarted=False)
    assert s.neighbours_parts(MODEL) == frozenset()


def test_whole_layers_have_no_neighbours() -> None:
    s = shards(1000)
    load(s, placement(1, 0, 4))
    assert s.neighbours_parts(MODEL) == frozenset()


@pytest.mark.parametrize("what", BAD)
def test_slices_that_are_not_the_model_are_refused(what: str) -> None:
    mine, its = BAD[what]
    reply = answer(sliced().offer(PlacementOffer(shared(mine=mine, its=its)), 0.0))
    assert not reply.accepted and "no shard that this device can hold" in reply.text


def test_a_device_twice_or_a_slice_alone_or_of_what_cannot_be_cut_is_refused() -> None:
    twice = replace_placement(
        shared(), (Shard(ME, 0, 8, True, True, slice=LEFT), Shard(ME, 0, 8, True, True, slice=RIGHT))
    )
    alone = replace_placement(shared(), (Shard(ME, 0, 8, True, True, slice=LEFT),))
    for bad in (twice, alone):
        assert not answer(sliced().offer(PlacementOffer(bad), 0.0)).accepted
    assert not answer(shards(1000).offer(PlacementOffer(shared()), 0.0)).accepted
    assert not answer(sliced(port=0).offer(PlacementOffer(shared()), 0.0)).accepted, "nobody listens here"


def replace_placement(p: Placement, held: tuple[Shard, ...]) -> Placement:
    return Placement(p.model, p.epoch, p.author, p.context, p.kv, held)


@pytest.mark.parametrize(
    ("secret", "ports"), [(b"", (7001, 7000)), (SECRET, ()), (SECRET, (7001,)), (b"x", (7001, 7000))]
)
def test_without_ports_and_a_secret_no_stage_is_opened(secret: bytes, ports: tuple[int, ...]) -> None:
    s = sliced()
    s.offer(PlacementOffer(shared()), 0.0)
    assert not answer(s.commit(PlacementCommit(shared(), secret, ports), 0.0)).accepted and not s.stages()


def test_a_device_follows_one_leader_only_and_says_who_that_is() -> None:
    s = sliced(4000)
    commit(s, shared())
    other = shared(author=HIGH, others=(LOW,), model=OTHER)
    reply = answer(s.offer(PlacementOffer(other), 0.0))
    assert not reply.accepted and reply.led_by == HIGH and not reply.missing_bytes
    assert answer(s.offer(PlacementOffer(shared(author=HIGH, model=OTHER)), 0.0)).accepted, "led by the same"


def test_a_stage_that_serves_nobody_makes_way_for_another_leader() -> None:
    s = sliced(4000)
    commit(s, shared())
    later = 1.0 + limits.CLAIM_GRACE_S
    effects = s.offer(PlacementOffer(shared(author=HIGH, others=(LOW,), model=OTHER)), later)
    assert answer(effects).accepted and CloseStage(StageId(LOW, 1, 0)) in effects


def test_a_last_stage_holds_the_block_where_its_author_says_so() -> None:
    s = Shards(ME, Ledger(10**6))
    s.model_known(MODEL, replace(COST, mtp=MtpCost(70, 3)), 0.0)
    for mtp, first, end, more in ((False, 4, 8, set()), (True, 4, 8, {EMBED, MTP}), (True, 2, 6, set())):
        epoch = s.newest.get((LOW, MODEL), 0) + 1
        load(s, replace_value(placement(epoch, first, end), mtp=mtp))
        claim = s.live[LOW, MODEL]
        assert {part for _, part in claim.parts} == {*COST.parts(first, end), *more}
        assert claim.holds_mtp == bool(more)
    assert s.ledger.parts[MODEL, MTP] == 70
    small = Shards(ME, Ledger(4 * 100 + 50 + 50 + 69 + 4 * 10 + 3 * 10))
    small.model_known(MODEL, replace(COST, mtp=MtpCost(70, 3)), 0.0)
    refused = answer(small.offer(PlacementOffer(replace_value(placement(1, 4, 8), mtp=True)), 0.0))
    assert (refused.accepted, refused.missing_bytes) == (False, 1)
