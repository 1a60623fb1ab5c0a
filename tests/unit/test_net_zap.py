"""Who may finish a handshake."""

from __future__ import annotations

import pytest

from swarm import limits
from swarm.net.zap import DOMAIN, AccessList, zap_reply

KEY, OTHER = b"k" * 32, b"o" * 32


def request(**changes: bytes) -> list[bytes]:
    parts = {"version": b"1.0", "id": b"7", "domain": DOMAIN, "address": b"10.0.0.1", "identity": b""}
    parts |= {"mechanism": b"CURVE", "key": KEY} | changes
    return list(parts.values())


def test_a_device_key_is_let_in_and_becomes_the_user_id() -> None:
    reply = zap_reply(request(), AccessList(), 0.0)
    assert reply[:3] == [b"1.0", b"7", b"200"] and len(reply[4]) == 40 and len(reply) == 6


@pytest.mark.parametrize(
    "change", [{"mechanism": b"NULL"}, {"mechanism": b"PLAIN"}, {"domain": b"x"}, {"version": b"2"}]
)
def test_anything_but_curve_in_our_domain_is_refused(change: dict[str, bytes]) -> None:
    assert zap_reply(request(**change), AccessList(), 0.0)[2] == b"400"
    assert zap_reply(request()[:-1], AccessList(), 0.0)[2] == b"400"


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


def test_a_device_that_was_shut_out_stays_out() -> None:
    access_list = AccessList()
    access_list.shut_out(KEY)
    assert zap_reply(request(), access_list, 1e12)[2] == b"400"


def test_remembered_keys_are_bounded_and_the_oldest_goes_first() -> None:
    access_list = AccessList()
    for i in range(limits.MAX_BLOCKED_KEYS + 1):
        access_list.back_off(i.to_bytes(32, "big"), 0.0)
    assert access_list.may_enter(bytes(32), 1.0)
    assert not access_list.may_enter(limits.MAX_BLOCKED_KEYS.to_bytes(32, "big"), 1.0)
