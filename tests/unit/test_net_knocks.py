"""Places on this machine: one at which nobody listens, one that is open, and one that never answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from swarm import limits
from swarm.net.knocks import Knocks
from swarm.wire.ids import PeerId
from swarm.wire.records import Address

PEER = PeerId("ab" * 16)


@pytest.fixture
def knocks() -> Iterator[Knocks]:
    made = Knocks()
    yield made
    made.close()


def port_of(listener: socket.socket) -> int:
    listener.bind(("127.0.0.1", 0))
    return int(listener.getsockname()[1])


def looked(knocks: Knocks) -> list[PeerId]:
    """What is known when all have answered, or time is over."""
    refused, now = knocks.look(0.0), 0.0
    while knocks:
        now += 0.01
        refused += knocks.look(now)
    return refused


def test_a_place_where_nobody_listens_is_refused(knocks: Knocks) -> None:
    with socket.socket() as listener:
        knocks.begin(PEER, Address("127.0.0.1", port_of(listener)), 0.0)
        assert knocks
        assert looked(knocks) == [PEER]


def test_a_place_that_is_open_says_nothing(knocks: Knocks) -> None:
    with socket.socket() as listener:
        port = port_of(listener)
        listener.listen()
        knocks.begin(PEER, Address("127.0.0.1", port), 0.0)
        assert looked(knocks) == [] and not knocks


def test_a_process_that_is_ending_may_listen_for_a_moment_more(knocks: Knocks) -> None:
    with socket.socket() as listener:
        port = port_of(listener)
        listener.listen()
        knocks.begin(PEER, Address("127.0.0.1", port), 0.0)
        assert knocks.look(0.0) == [] and knocks, "it was taken"
    assert looked(knocks) == [PEER]


def test_a_place_that_never_answers_is_left(knocks: Knocks) -> None:
    with socket.socket() as listener:
        port = port_of(listener)
        listener.listen(0)
        callers = [socket.socket() for _ in range(2)]  # the queue is full: the kernel drops what comes after these
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", port))
        knocks.begin(PEER, Address("127.0.0.1", port), 10.0)
        assert knocks.look(10.0 + limits.KNOCK_S / 2) == []
        assert [knocks.look(10.1 + limits.KNOCK_S + i) for i in range(5)] == [[]] * 5 and not knocks
        for caller in callers:
            caller.close()


def test_a_name_is_not_looked_up(knocks: Knocks) -> None:
    knocks.begin(PEER, Address("attic.example", 7417), 0.0)
    assert not knocks


def test_their_number_is_bounded(knocks: Knocks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PEERS", 2)
    with socket.socket() as listener:
        port = port_of(listener)
        for _ in range(4):
            knocks.begin(PEER, Address("127.0.0.1", port), 0.0)
        assert len(looked(knocks)) == 2
