"""The reactor on real sockets, where a test must reach into it; test_net_transport.py has what is seen from outside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from swarm import limits
from swarm.errors import PeerLost
from swarm.net.events import Broken, Gone, PeerDown, PeerUp
from swarm.net.link_effects import Effect, Say
from swarm.net.links import PeerLink
from swarm.net.reactor import Reactor
from swarm.wire.messages import ChunkReply, Heartbeat, Lane
from swarm.wire.records import Address
from tests.helpers.transports import PIECE, Boxes, activation, boxes, reply


@pytest.fixture
def maker() -> Iterator[Boxes]:
    with boxes() as made:
        yield made


def test_when_both_were_called_before_either_was_answered_both_lanes_come_up(maker: Boxes) -> None:
    """Then both hold to the link that the other one made."""
    pair = maker.make("one"), maker.make("other")

    def hear_answers_after_being_called(reactor: Reactor) -> None:
        read = reactor._read_call
        reactor._read_call = lambda link: not reactor._policy.links.peers or read(link)  # type: ignore[method-assign]

    for box in pair:
        hear_answers_after_being_called(box.transport._reactor)
    for box, other in (pair, pair[::-1]):
        box.transport.call(str(other.address))
    for box in pair:
        box.wait(PeerUp)
    for box, other in (pair, pair[::-1]):
        box.transport.send(other.peer, reply(1), PIECE)  # it waits here until there is a bulk link
    for box in pair:
        assert box.receive(ChunkReply)[1] == PIECE


@pytest.mark.parametrize("who", [0, 1], ids=["who called", "who was called"])
def test_a_process_that_ended_without_a_word_is_known_to_be_gone(
    maker: Boxes, who: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "KNOCK_S", 10.0)  # this machine may be busy
    pair = maker.make("one"), maker.make("other")
    pair[0].transport.call(str(pair[1].address))
    for box in pair:
        box.wait(PeerUp)
    dead, other = pair[who], pair[1 - who]
    policy, leave = dead.transport._reactor._policy, dead.transport._reactor._policy.leave
    policy.leave = lambda: [each for each in leave() if not isinstance(each, Say)]  # type: ignore[method-assign]
    dead.transport.stop()
    assert other.wait(PeerDown).reason == "its connection closed"
    assert other.wait(Gone).peer == dead.peer


def test_an_address_that_is_named_and_remembered_becomes_one_link(maker: Boxes) -> None:
    """With two, each side may choose another one, and what was said on the link that ends is lost."""
    other, one = sorted([maker.make("one"), maker.make("other")], key=lambda box: box.peer)  # it calls at once
    n_links = 0
    up = one.transport._reactor._policy.up

    def count(link: PeerLink, now: float) -> list[Effect]:
        nonlocal n_links
        n_links += link.lane is Lane.FAST
        return up(link, now)

    one.transport._reactor._policy.up = count  # type: ignore[method-assign]
    with other.transport._reactor._lock:
        other.knows(one)
        other.transport.call(str(one.address))
    other.wait(PeerUp)
    for _ in range(3):  # time enough for the other call
        one.receive(Heartbeat)
    assert n_links == 1
    assert other.transport.unreached() == ()


def test_a_bug_ends_the_transport_and_is_told(maker: Boxes) -> None:
    one, other = maker.pair()

    def tick() -> None:
        raise RuntimeError("oops")

    one.transport._reactor._tick = tick  # type: ignore[method-assign]
    assert one.wait(Broken).text == "RuntimeError: oops"
    assert other.wait(PeerDown).peer == one.peer
    one.transport.stop()
    assert one.transport.peers() == ()
    with pytest.raises(PeerLost, match="not connected"):
        one.transport.send(other.peer, activation(1), bytes(64))


def test_nothing_is_left_open_after_the_end(maker: Boxes) -> None:
    one, other = maker.pair()
    reactor = one.transport._reactor
    one.transport.stop()
    assert not reactor._calls and all(listener.router.closed for listener in reactor._listeners.values())
    assert other.wait(PeerDown).reason == "it left"


def test_an_address_that_cannot_be_called_is_tried_again_later(maker: Boxes) -> None:
    """libzmq refuses it before anything is sent."""
    one = maker.make("one")
    one.transport._reactor.learn_by_hand(Address("no such host", 1))
    one.knows(other := maker.make("other"))
    assert one.wait(PeerUp).peer == other.peer
    assert [each.addresses for each in one.transport.unreached()] == [(Address("no such host", 1),)]
