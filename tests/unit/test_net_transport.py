"""Two and more transports on real sockets: up, down, lanes, limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from swarm import limits
from swarm.errors import LocalProtocolError, PeerBusy, PeerLost, SwarmNetworkError
from swarm.net import transport as transports
from swarm.net.events import CloneSeen, NotLetIn, PeerDown, PeerUp
from swarm.net.transport import DEFAULT_PORT, resolve
from swarm.wire.ids import PeerId
from swarm.wire.messages import Activation, ChunkReply, Goodbye, Heartbeat, Lane, LinkProbe, LinkProbed, StatusRequest
from swarm.wire.records import Address, NodeState
from tests.helpers.transports import PIECE, Boxes, activation, boxes, reply


@pytest.fixture
def maker() -> Iterator[Boxes]:
    with boxes() as made:
        yield made


def test_members_connect_and_messages_arrive_with_their_frames(maker: Boxes) -> None:
    one, other = maker.pair()
    frame = bytes(range(64))
    one.transport.send(other.peer, activation(5), frame)
    message, came = other.receive(Activation)
    assert message == activation(5)
    assert came is not None and bytes(came) == frame


def test_messages_of_a_lane_arrive_in_order(maker: Boxes) -> None:
    one, other = maker.pair()
    for position in range(200):
        one.transport.send(other.peer, activation(position), bytes(64))
    assert [other.receive(Activation)[0].position for _ in range(200)] == list(range(200))


def test_large_frames_arrive_whole_over_the_bulk_lane(maker: Boxes) -> None:
    one, other = maker.pair()
    frame = bytes(range(256)) * (limits.MAX_BULK_FRAME_BYTES // 256)
    one.transport.send(other.peer, reply(1), frame)
    _, came = other.receive(ChunkReply)
    assert came == frame


def test_a_fast_message_overtakes_a_full_bulk_lane(maker: Boxes) -> None:
    one, other = maker.pair()
    for number in range(limits.BULK_QUEUE_MESSAGES):
        one.transport.send(other.peer, reply(number), PIECE * 4)
    one.transport.send(other.peer, activation(1), bytes(64))
    kinds = []
    while "Activation" not in kinds or kinds.count("ChunkReply") < limits.BULK_QUEUE_MESSAGES:
        event = other.events.get(timeout=15)
        kinds.append(type(getattr(event, "message", None)).__name__)
    assert kinds.index("Activation") < len(kinds) - 1 - kinds[::-1].index("ChunkReply")


def test_a_device_that_is_stopped_says_goodbye(maker: Boxes) -> None:
    one, other = maker.pair()
    other.transport.stop()
    down = one.wait(PeerDown)
    assert (down.peer, down.reason) == (other.peer, "it left")
    with pytest.raises(PeerLost, match="not connected"):
        one.transport.send(other.peer, activation(1), bytes(64))
    other.transport.stop = lambda: None  # type: ignore[method-assign]  # the maker would stop it again


def test_a_device_that_comes_back_is_connected_again(maker: Boxes) -> None:
    one, other = maker.pair()
    port, device = other.transport.me.port, other.credentials.device_secret
    other.transport.stop()
    other.transport.stop = lambda: None  # type: ignore[method-assign]
    one.wait(PeerDown)
    again = maker.make("again", device=device, port=port)
    up = one.wait(PeerUp)
    assert (up.peer, up.name) == (again.peer, "again")


def test_both_calling_each_other_make_one_peer(maker: Boxes) -> None:
    one, other = maker.make("one"), maker.make("other")
    one.transport.call(str(other.address))
    other.transport.call(str(one.address))
    one.wait(PeerUp)
    other.wait(PeerUp)
    for position in range(50):
        one.transport.send(other.peer, activation(position), bytes(64))
        other.transport.send(one.peer, activation(position), bytes(64))
    for box in (one, other):
        assert [box.receive(Activation)[0].position for _ in range(50)] == list(range(50))
        assert len(box.transport.peers()) == 1


def test_gossip_connects_those_who_know_only_one(maker: Boxes) -> None:
    hub, left, right = maker.make("hub"), maker.make("left"), maker.make("right")
    left.transport.call(str(hub.address))
    right.transport.call(str(hub.address))
    assert {left.wait(PeerUp).name, left.wait(PeerUp).name} == {"hub", "right"}
    assert {right.wait(PeerUp).name, right.wait(PeerUp).name} == {"hub", "left"}


def test_heartbeats_carry_the_state_and_measure_the_link(maker: Boxes) -> None:
    one, other = maker.pair()
    one.transport.set_state(NodeState(epoch=7, busy=0.5))
    while other.receive(Heartbeat)[0].state.epoch != 7:
        pass
    for _ in range(3):
        one.receive(Heartbeat)
    (info,) = one.transport.peers()
    assert info.rtt_s is not None and 0 < info.rtt_s < 0.5
    assert info.wall_offset_s is not None and abs(info.wall_offset_s) < 0.5
    assert info.has_bulk


def test_a_probe_is_answered_with_its_size(maker: Boxes) -> None:
    one, other = maker.pair()
    one.transport.send(other.peer, LinkProbe(3), PIECE)
    assert one.receive(LinkProbed)[0] == LinkProbed(3, len(PIECE))


def test_a_call_with_another_swarm_key_is_told_why_and_the_other_side_notices_nothing(maker: Boxes) -> None:
    one = maker.make("one")
    stranger = maker.make("stranger", swarm_key=bytes(32))
    stranger.transport.call(str(one.address))
    told = stranger.wait(NotLetIn)
    assert told.reason == "key" and "another swarm key" in told.text
    assert one.drain() == []


def test_a_second_device_with_our_own_id_is_named(maker: Boxes) -> None:
    one = maker.make("one")
    clone = maker.make("clone", device=one.credentials.device_secret)
    clone.transport.call(str(one.address))
    assert "swarm forget" in one.wait(CloneSeen).text
    assert clone.wait(NotLetIn).reason == "clone"


def test_a_clone_of_a_connected_device_is_refused_and_named_while_the_first_one_lives(maker: Boxes) -> None:
    one, other = maker.pair()
    clone = maker.make("clone", device=other.credentials.device_secret)
    clone.transport.call(str(one.address))
    seen = one.wait(CloneSeen)
    assert seen.peer == other.peer
    one.transport.send(other.peer, activation(1), bytes(64))
    other.receive(Activation)


def test_calling_ourselves_does_no_harm(maker: Boxes) -> None:
    one, other = maker.pair()
    one.transport.call(str(one.address))
    one.transport.send(other.peer, activation(1), bytes(64))
    other.receive(Activation)
    assert [info.peer for info in one.transport.peers()] == [other.peer]


def test_a_peer_that_does_not_take_bulk_makes_the_sender_busy_not_big(maker: Boxes) -> None:
    room = threading.Event()
    one, slow = maker.make("one"), maker.make("slow", has_room=room.is_set)
    room.set()
    one.knows(slow)
    one.wait(PeerUp)
    slow.wait(PeerUp)
    room.clear()
    with pytest.raises(PeerBusy, match="does not take messages"):
        for number in range(10_000):
            one.transport.send(slow.peer, reply(number), PIECE * 4)
    assert one.transport.n_waiting(slow.peer, Lane.BULK) == limits.BULK_QUEUE_MESSAGES
    room.set()
    for wanted in range(number):
        assert slow.receive(ChunkReply)[0].request == wanted


def test_a_bad_message_is_refused_before_it_is_sent(maker: Boxes) -> None:
    one, other = maker.pair()
    with pytest.raises(LocalProtocolError, match="raw frame"):
        one.transport.send(other.peer, activation(1), bytes(63))
    with pytest.raises(PeerLost):
        one.transport.send(PeerId("00" * 16), StatusRequest(1))


def test_a_shut_out_device_stays_out(maker: Boxes) -> None:
    one, other = maker.pair()
    one.transport.shut_out(other.peer)
    assert one.wait(PeerDown).reason == "it was shut out"
    assert "shut this device out" in other.wait(PeerDown).reason
    assert other.wait(NotLetIn).reason == "forgotten"
    again = maker.make("again", device=other.credentials.device_secret)
    again.transport.call(str(one.address))
    assert again.wait(NotLetIn).reason == "forgotten"
    assert one.drain() == []


def test_many_threads_may_send_at_once(maker: Boxes) -> None:
    one, other = maker.pair()

    def send(first: int) -> None:
        for position in range(first, first + 50):
            one.transport.send(other.peer, activation(position), bytes(64))

    threads = [threading.Thread(target=send, args=(1000 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    came = [other.receive(Activation)[0].position for _ in range(200)]
    for thread in threads:
        thread.join()
    assert sorted(came) == sorted(1000 * i + j for i in range(4) for j in range(50))
    assert all([p for p in came if p // 1000 == i] == [1000 * i + j for j in range(50)] for i in range(4))


def test_a_goodbye_sent_by_hand_takes_the_peer_down(maker: Boxes) -> None:
    one, other = maker.pair()
    one.transport.send(other.peer, Goodbye("to bed"))
    assert other.wait(PeerDown).reason == "to bed"


def test_a_port_in_use_is_one_clear_line(maker: Boxes) -> None:
    one = maker.make("one")
    with pytest.raises(SwarmNetworkError, match=f"cannot listen on port {one.address.port}"):
        maker.make("two", port=one.address.port)


def test_stopping_takes_less_than_a_second(maker: Boxes) -> None:
    took_s = stopping_s(maker)
    for _ in range(2):  # beside busy programs anything may take long, once
        took_s = took_s if took_s < 1.0 else stopping_s(maker)
    assert took_s < 1.0


def stopping_s(maker: Boxes) -> float:
    """How long one of two that are connected takes to stop."""
    one, _ = maker.pair()
    start = time.monotonic()
    one.transport.stop()
    took_s = time.monotonic() - start
    one.transport.stop = lambda: None  # type: ignore[method-assign]
    return took_s


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("127.0.0.1", Address("127.0.0.1", DEFAULT_PORT)),
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        ("::1", Address("::1", DEFAULT_PORT)),
        ("[::1]:80", Address("::1", 80)),
    ],
)
def test_addresses_given_by_hand_are_understood(text: str, wanted: Address) -> None:
    assert resolve(text) == (wanted,)
    assert transports.resolve(str(wanted)) == (wanted,)


@pytest.mark.parametrize("text", ["", ":80", "host:", "host:0", "host:65536", "host:x", "[]:80"])
def test_a_bad_address_is_one_clear_line(text: str) -> None:
    with pytest.raises(SwarmNetworkError):
        resolve(text)
