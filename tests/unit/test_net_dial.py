"""Whom to call, where and when, under a turned clock."""

from __future__ import annotations

from itertools import pairwise

from swarm import limits
from swarm.net.dial import MAX_CALLS_AT_ONCE, Dialer
from swarm.wire.ids import PeerId
from swarm.wire.records import Address

LOW, ME, HIGH = PeerId("00" * 16), PeerId("77" * 16), PeerId("ff" * 16)
ONE, TWO, THREE = (Address(f"10.0.0.{i}", 7417) for i in (1, 2, 3))
NOBODY: set[PeerId] = set()


def test_a_larger_id_is_called_at_once_and_a_smaller_one_gets_its_turn_first() -> None:
    dialer = Dialer(ME)
    dialer.learn(HIGH, [ONE], 0.0)
    dialer.learn(LOW, [TWO], 0.0)
    assert dialer.due(0.0, NOBODY) == [(HIGH, ONE)]
    assert dialer.due(limits.DIAL_TURN_S, NOBODY) == [(LOW, TWO)]


def test_addresses_are_tried_in_order_side_by_side() -> None:
    dialer = Dialer(ME)
    dialer.learn(HIGH, [ONE, TWO], 0.0)
    assert dialer.due(0.0, NOBODY) == [(HIGH, ONE)]
    assert dialer.due(limits.ADDRESS_STAGGER_S / 2, NOBODY) == []
    assert dialer.due(limits.ADDRESS_STAGGER_S, NOBODY) == [(HIGH, TWO)]


def test_calls_at_once_are_bounded() -> None:
    dialer = Dialer(ME)
    dialer.learn(HIGH, [Address(f"10.0.1.{i}", 1) for i in range(9)], 0.0)
    calls = [call for step in range(9) for call in dialer.due(step * limits.ADDRESS_STAGGER_S, NOBODY)]
    assert len(calls) == MAX_CALLS_AT_ONCE


def test_a_device_that_does_not_answer_is_called_more_and_more_rarely() -> None:
    dialer = Dialer(ME)
    dialer.learn(HIGH, [ONE], 0.0)
    times, now = [], 0.0
    while len(times) < 12:
        for key, address in dialer.due(now, NOBODY):
            times.append(now)
            dialer.ended(key, address, now)
        now += 0.01
    waits = [late - early for early, late in pairwise(times)]
    assert waits[0] < 2 * limits.REDIAL_FIRST_S
    assert all(wait <= limits.REDIAL_MAX_S + 0.02 for wait in waits)
    assert waits[-1] > limits.REDIAL_MAX_S - 0.02


def test_a_connected_device_is_not_called_and_a_lost_one_at_once() -> None:
    dialer = Dialer(ME)
    dialer.learn(HIGH, [ONE], 0.0)
    assert dialer.due(1.0, {HIGH}) == []
    assert dialer.due(1.0, NOBODY) == [(HIGH, ONE)]


def test_an_address_given_by_hand_becomes_one_of_the_device_that_answers() -> None:
    dialer = Dialer(ME)
    dialer.learn_by_hand(TWO, 0.0)
    dialer.learn(HIGH, [ONE], 0.0)
    assert (TWO, TWO) in dialer.due(0.0, NOBODY)
    dialer.answered(TWO, TWO, HIGH, 0.0)
    assert dialer.addresses(HIGH) == (TWO, ONE)


def test_an_address_given_by_hand_is_not_called_when_a_device_was_reached_there() -> None:
    dialer = Dialer(ME)
    dialer.learn(HIGH, [ONE, TWO], 0.0)
    dialer.learn_by_hand(TWO, 0.0)
    dialer.answered(HIGH, TWO, HIGH, 0.0)
    assert dialer.due(1e9, {HIGH}) == [] and dialer.unreached(1e9, {HIGH}) == []
    later = limits.FORGET_ADDRESS_S + 1e9
    assert (HIGH, TWO) in dialer.due(later, NOBODY), "what a person named is never given up"


def test_the_address_that_answered_is_tried_first_next_time() -> None:
    dialer = Dialer(ME)
    dialer.learn(HIGH, [ONE, TWO], 0.0)
    dialer.due(0.0, NOBODY)
    dialer.answered(HIGH, TWO, HIGH, 0.0)
    assert dialer.addresses(HIGH) == (TWO, ONE)


def test_a_call_by_hand_is_never_given_up_and_others_are() -> None:
    dialer = Dialer(ME)
    dialer.learn_by_hand(TWO, 0.0)
    dialer.learn(HIGH, [ONE], 0.0)
    later = limits.FORGET_ADDRESS_S + 1
    assert [key for key, _ in dialer.due(later, NOBODY)] == [TWO]


def test_news_make_a_call_come_sooner_but_not_before_a_back_off_ends() -> None:
    dialer = Dialer(ME)
    dialer.learn(HIGH, [ONE], 0.0)
    (call,) = dialer.due(0.0, NOBODY)
    dialer.ended(*call, 0.0, wait_s=30.0)
    dialer.learn(HIGH, [TWO], 1.0)
    assert dialer.due(29.0, NOBODY) == []
    assert dialer.due(31.0, NOBODY) == [(HIGH, TWO)]


def test_a_device_left_alone_is_not_called() -> None:
    dialer = Dialer(ME)
    dialer.learn(HIGH, [ONE], 0.0)
    dialer.leave_alone(HIGH, float("inf"))
    dialer.learn(HIGH, [TWO], 1.0)
    assert dialer.due(1e9, NOBODY) == []


def test_our_own_address_is_dropped() -> None:
    dialer = Dialer(ME)
    dialer.learn(ME, [ONE], 0.0)
    dialer.learn_by_hand(TWO, 0.0)
    dialer.drop(TWO, TWO)
    assert dialer.due(10.0, NOBODY) == []


def test_devices_and_addresses_are_bounded() -> None:
    dialer = Dialer(ME)
    for i in range(2 * limits.MAX_PEERS):
        dialer.learn(PeerId(f"{i:032x}"), [ONE], 0.0)
    dialer.learn(PeerId(f"{0:032x}"), [Address(f"10.1.0.{i}", 1) for i in range(99)], 0.0)
    assert len(dialer.due(10.0, NOBODY)) <= limits.MAX_PEERS
    assert len(dialer.addresses(PeerId(f"{0:032x}"))) == limits.MAX_ADDRESSES
