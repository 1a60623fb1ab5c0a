"""Who may finish a handshake."""

from __future__ import annotations

import pytest

from swarm.net.access import AccessList
from swarm.net.zap import DOMAIN, zap_reply

KEY = b"k" * 32


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


def test_a_device_that_was_shut_out_stays_out() -> None:
    access_list = AccessList()
    access_list.shut_out(KEY)
    assert zap_reply(request(), access_list, 1e12)[2] == b"400"
