"""What a device takes on, and what it refuses: memory is promised once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarm import limits
from swarm.cluster.cost import LayerCost, ModelCost
from swarm.cluster.effects import DropKv, Effect, Load, LookUp, Send, Unload
from swarm.cluster.memory import KvEntry, Ledger
from swarm.cluster.shards import Shards
from swarm.parts import Part, parts_of
from swarm.wire.ids import ModelId, PeerId, SessionId
from swarm.wire.messages import PlacementCommit, PlacementOffer, PlacementReply, ShardReady
from swarm.wire.records import KvFormat, Placement, Shard

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
