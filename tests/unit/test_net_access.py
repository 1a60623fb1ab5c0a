"""Device keys that are not let in."""

from __future__ import annotations

from swarm import limits
from swarm.net.access import AccessList

KEY, OTHER = b"k" * 32, b"o" * 32


def test_a_back_off_ends_and_doubles_up_to_a_limit() -> None:
    access_list, now = AccessList(), 0.0
    waits = []
    for _ in range(8):
        waits.append(access_list.back_off(KEY, now))
        assert not access_list.may_enter(KEY, now + waits[-1] - 0.1)
        assert access_list.may_enter(OTHER, now)
        now += waits[-1]
        assert access_list.may_enter(KEY, now)
    assert waits[:3] == [30.0, 60.0, 120.0] and waits[-1] == limits.GARBAGE_BACKOFF_MAX_S


def test_a_device_that_was_shut_out_stays_out_and_others_do_not() -> None:
    access_list = AccessList()
    access_list.shut_out(KEY)
    assert not access_list.may_enter(KEY, 1e12) and access_list.may_enter(OTHER, 0.0)


def test_remembered_keys_are_bounded_and_the_oldest_goes_first() -> None:
    access_list = AccessList()
    for i in range(limits.MAX_BLOCKED_KEYS + 1):
        access_list.back_off(i.to_bytes(32, "big"), 0.0)
    assert access_list.may_enter(bytes(32), 1.0)
    assert not access_list.may_enter(limits.MAX_BLOCKED_KEYS.to_bytes(32, "big"), 1.0)
