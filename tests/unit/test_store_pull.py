"""Single decisions of the scheduler that fetches chunks."""

from __future__ import annotations

import random

import numpy as np
import pytest

from swarm import limits
from swarm.store.pacing import RateLimit
from swarm.store.pull import AskChunk, AskHave, Ban, Cancel, Pull
from swarm.wire.ids import PeerId

A, B = PeerId("a"), PeerId("b")
MIB = 1 << 20


def bits(*chunks: int, n: int = 8) -> bytes:
    held = np.zeros(n, np.bool_)
    held[list(chunks)] = True
    return np.packbits(held, bitorder="little").tobytes()


def pull_of(n: int = 8, size: int = MIB) -> Pull:
    return Pull(np.full(n, size, np.int64), random.Random(1), "SmolLM2")


def asks(effects: list) -> list[AskChunk]:
    return [effect for effect in effects if isinstance(effect, AskChunk)]


def test_a_new_peer_is_asked_what_it_has_and_then_for_that() -> None:
    pull = pull_of()
    assert pull.want(range(8), 0) == []
    assert pull.add_peer(A, 0) == [AskHave(A)] and pull.add_peer(A, 0) == []
    asked = asks(pull.peer_has(A, bits(2, 5), 0, 0))
    assert {ask.chunk for ask in asked} == {2, 5} and all(ask.n_bytes == MIB for ask in asked)
    assert pull.unavailable() == [0, 1, 3, 4, 6, 7]


def test_only_wanted_chunks_are_asked_and_more_can_be_wanted_later() -> None:
    pull = pull_of()
    pull.add_peer(A, 0)
    pull.peer_has(A, bits(*range(8)), 0, 0)
    assert [ask.chunk for ask in asks(pull.want([3], 0))] == [3]
    assert pull.want([3], 0) == [] and pull.bytes_wanted == MIB
    assert [ask.chunk for ask in asks(pull.want([3, 4], 0))] == [4]


def test_the_rarest_chunks_go_first() -> None:
    pull = pull_of()
    pull.want(range(8), 0)
    for peer in (A, B):
        pull.add_peer(peer, 0)
    pull.set_rate(0, 0)
    pull.peer_has(A, bits(*range(8)), 0, 0)
    pull.peer_has(B, bits(*range(6)), 0, 0)
    first = {ask.chunk for ask in asks(pull.set_rate(None, 0)) if ask.peer == A}
    assert first == {6, 7}


def test_a_window_bounds_what_is_asked_and_grows_with_the_rate() -> None:
    pull = pull_of(n=400)
    pull.want(range(400), 0)
    pull.add_peer(A, 0)
    open_requests = asks(pull.peer_has(A, bits(*range(400), n=400), 0, 0))
    assert len(open_requests) == limits.PULL_WINDOW_MIN_BYTES // MIB
    now = 0.0
    while not pull.done and now < 1.0:
        now += 0.01  # 100 MiB a second
        ask = open_requests.pop(0)
        open_requests += asks(pull.arrived(ask.request, True, now))
        open_requests += asks(pull.verified(ask.request, True, now))
    assert 20 <= len(open_requests) <= 28


def test_small_chunks_are_bounded_by_their_number() -> None:
    pull = pull_of(n=400, size=100)
    pull.want(range(400), 0)
    pull.add_peer(A, 0)
    assert len(asks(pull.peer_has(A, bits(*range(400), n=400), 0, 0))) == limits.MAX_PULL_REQUESTS


def test_what_is_not_verified_yet_counts_against_the_memory_bound() -> None:
    n = 200
    pull = pull_of(n=n)
    pull.want(range(n), 0)
    pull.add_peer(A, 0)
    waiting = asks(pull.peer_has(A, bits(*range(n), n=n), 0, 0))
    arrived = 0
    while waiting:
        arrived += 1
        waiting += asks(pull.arrived(waiting.pop(0).request, True, arrived * 0.001))
    assert arrived == limits.MAX_PULL_BYTES // MIB


def test_a_silent_peer_loses_its_requests_to_another_and_is_tried_again_later() -> None:
    pull = pull_of(n=2)
    pull.want(range(2), 0)
    pull.add_peer(A, 0)
    lost = asks(pull.peer_has(A, bits(0, 1), 0, 0))
    pull.add_peer(B, 0)
    assert asks(pull.peer_has(B, bits(0, 1), 0, 0.1)) == []
    assert asks(pull.tick(limits.PULL_HELP_AFTER_S - 0.01)) == []
    helped = asks(pull.tick(limits.PULL_HELP_AFTER_S))
    assert {ask.chunk for ask in helped} == {0, 1} and {ask.peer for ask in helped} == {B}
    effects = pull.tick(limits.PULL_PATIENCE_S)
    assert [effect for effect in effects if isinstance(effect, Cancel) and effect.peer == A] == [
        Cancel(A, ask.request) for ask in lost
    ]
    assert pull.arrived(lost[0].request, True, 3.1) == [] and not pull.is_wanted(lost[0].request)
    pull.peer_gone(B, 3.2)
    assert asks(pull.tick(limits.PULL_PATIENCE_S + 0.99)) == []
    assert {ask.peer for ask in asks(pull.tick(limits.PULL_PATIENCE_S + 1.01))} == {A}


def test_the_second_copy_is_cancelled_when_the_first_is_verified() -> None:
    pull = pull_of(n=1)
    pull.want([0], 0)
    pull.add_peer(A, 0)
    (first,) = asks(pull.peer_has(A, bits(0), 0, 0))
    pull.add_peer(B, 0)
    pull.peer_has(B, bits(0), 0, 0.1)
    (second,) = asks(pull.tick(1.0))
    assert second.peer == B and asks(pull.tick(1.5)) == []
    pull.arrived(second.request, True, 1.6)
    assert pull.verified(second.request, True, 1.6) == [Cancel(A, first.request)]
    assert pull.done and pull.bytes_done == MIB


def test_wrong_bytes_ban_the_peer_and_the_chunk_comes_from_another() -> None:
    pull = pull_of(n=1)
    pull.want([0], 0)
    pull.add_peer(A, 0)
    (ask,) = asks(pull.peer_has(A, bits(0), 0, 0))
    pull.add_peer(B, 0)
    pull.peer_has(B, bits(0), 0, 0)
    pull.arrived(ask.request, True, 0.1)
    ban, again = pull.verified(ask.request, False, 0.1)
    assert ban == Ban(A, "it sent a wrong chunk 0 of SmolLM2: its hash is not the promised one")
    assert isinstance(again, AskChunk) and again.peer == B
    assert pull.add_peer(A, 0.2) == [] and pull.peer_has(A, bits(0), 0, 0.2) == []


def test_a_chunk_that_is_not_there_any_more_is_no_crime() -> None:
    pull = pull_of(n=1)
    pull.want([0], 0)
    pull.add_peer(A, 0)
    (ask,) = asks(pull.peer_has(A, bits(0), 0, 0))
    assert pull.arrived(ask.request, False, 0.1) == [] and pull.unavailable() == [0]
    assert pull.tick(limits.PULL_HAVE_INTERVAL_S) == [AskHave(A)]
    assert len(asks(pull.peer_has(A, bits(0), 0, 1.1))) == 1


def test_a_chunk_that_could_not_be_stored_is_asked_again() -> None:
    pull = pull_of(n=1)
    pull.want([0], 0)
    pull.add_peer(A, 0)
    (ask,) = asks(pull.peer_has(A, bits(0), 0, 0))
    pull.arrived(ask.request, True, 0.1)
    pull.set_rate(0, 0.1)
    assert pull.not_kept(ask.request, 0.1) == []
    assert [again.chunk for again in asks(pull.set_rate(None, 5))] == [0]


def test_bits_of_any_length_and_start_are_taken() -> None:
    pull = pull_of()
    pull.want(range(8), 0)
    pull.add_peer(A, 0)
    assert {ask.chunk for ask in asks(pull.peer_has(A, b"\xff" * 100, 7, 0))} == {7}
    for start in (-1, 9, 10**9):
        assert pull.peer_has(A, b"\xff", start, 0) == []
    assert pull.peer_has(A, b"", 0, 0) == []


def test_events_that_belong_to_nothing_are_ignored() -> None:
    pull = pull_of()
    assert pull.arrived(99, True, 0) == pull.verified(99, False, 0) == pull.not_kept(99, 0) == []
    assert pull.peer_gone(A, 0) == pull.peer_has(A, b"\xff", 0, 0) == pull.tick(0) == []
    assert pull.done and pull.next_tick(0) is None


def test_who_asks_for_the_next_tick_again_and_again_is_told_when_it_is_due() -> None:
    pull = pull_of()
    pull.want(range(8), 0)
    assert pull.next_tick(5) is None
    pull.add_peer(A, 5)
    assert pull.next_tick(5) <= 5
    pull.tick(5)
    pull.peer_has(A, bits(*range(8)), 0, 5)
    for now in (5.0, 5.1, 5.3):
        assert pull.next_tick(now) == 5 + limits.PULL_TICK_S
    pull.set_rate(20 * MIB, 5)
    pull.arrived(1, True, 5.0)
    assert 5.0 < pull.next_tick(5.0) < 5 + limits.PULL_TICK_S
    pull.set_rate(0, 5)
    assert pull.next_tick(5.0) == 5 + limits.PULL_TICK_S


def test_a_rate_limit_lets_its_rate_through() -> None:
    limit = RateLimit(1000.0)
    sent, now = 0, 0.0
    while now < 10:
        if limit.may_go(now):
            limit.take(50)
            sent += 50
        now += 0.001
    assert sent == pytest.approx(10_000, rel=0.02)
    limit.set_rate(0, now)
    limit.take(1)
    assert not limit.may_go(now + 100) and limit.wait_s(now) is None
    limit.set_rate(None, now)
    assert limit.may_go(now) and limit.wait_s(now) is None
