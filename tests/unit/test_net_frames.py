"""Both ways into libzmq, past pyzmq and through it, do the same."""

from __future__ import annotations

import errno
import gc
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import zmq

from swarm import limits
from swarm.net import _frames, frames
from swarm.net.sockets import Socket
from swarm.wire.records import Address

WAIT_MS = 5000
HERE = Address("127.0.0.1", 1)


@dataclass
class Pair:
    """A router, and a dealer that called it."""

    router: Socket
    dealer: Socket

    def next(self, socket: Socket) -> frames.Arrival:
        assert socket.poll(WAIT_MS), "nothing came"
        arrival = frames.receive(socket)
        assert arrival is not None
        return arrival


@pytest.fixture(params=["direct", "pyzmq"])
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    if request.param == "pyzmq":
        monkeypatch.setattr(frames, "DIRECT", False)
    elif not frames.DIRECT:
        pytest.skip("this pyzmq does not show libzmq's functions")
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as dealer:
        for socket in (router, dealer):
            socket.linger = 0
            socket.sndhwm = socket.rcvhwm = 2
        router.router_mandatory = 1
        port = router.bind_to_random_port("tcp://127.0.0.1")
        dealer.connect(f"tcp://127.0.0.1:{port}")
        yield Pair(router, dealer)


@pytest.mark.parametrize("n_bytes", [0, 1, 2304, frames.COPY_BYTES - 1, 70_000 - 1, frames.COPY_BYTES, 4 << 20])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_message_comes_as_it_was_sent(pair: Pair, n_bytes: int, kind: type) -> None:
    frame = bytes(range(256)) * (n_bytes // 256) + b"x" * (n_bytes % 256)
    assert frames.transmit(pair.dealer, b"", (b"header", kind(frame)))
    routing, header, came = pair.next(pair.router).parts
    assert (bytes(header), bytes(came)) == (b"header", frame)
    assert frames.transmit(pair.router, bytes(routing), (b"back", None))
    assert [bytes(part) for part in pair.next(pair.dealer).parts] == [b"back"]


def test_a_large_frame_outlives_its_message(pair: Pair) -> None:
    frames.transmit(pair.dealer, b"", (b"h", b"a" * frames.COPY_BYTES))
    view = pair.next(pair.router).parts[2]
    frames.transmit(pair.dealer, b"", (b"h", b"b" * frames.COPY_BYTES))
    pair.next(pair.router)
    gc.collect()
    assert bytes(view) == b"a" * frames.COPY_BYTES


def test_nothing_waits_means_none(pair: Pair) -> None:
    assert frames.receive(pair.router) is None
    assert not frames.readable(pair.router)
    frames.transmit(pair.dealer, b"", (b"h", None))
    assert pair.router.poll(WAIT_MS)
    assert frames.readable(pair.router)
    pair.next(pair.router)
    assert not frames.readable(pair.router)


def test_parts_past_the_limit_are_dropped_and_the_next_message_is_whole(pair: Pair) -> None:
    pair.dealer.send_multipart([b"%d" % i for i in range(50)])
    pair.dealer.send_multipart([b"next"])
    assert len(pair.next(pair.router).parts) == frames.MOST_PARTS > 1 + limits.MAX_FRAMES
    assert bytes(pair.next(pair.router).parts[1]) == b"next"


def test_a_full_socket_takes_nothing_and_later_takes_it_whole(pair: Pair) -> None:
    sent = 0
    while frames.transmit(pair.dealer, b"", (b"%d" % sent, b"x" * 60_000)):
        sent += 1
        assert sent < 10_000
    came = [bytes(pair.next(pair.router).parts[1]) for _ in range(sent)]
    assert came == [b"%d" % i for i in range(sent)]
    assert pair.dealer.poll(WAIT_MS, zmq.POLLOUT)
    assert frames.transmit(pair.dealer, b"", (b"last", b"y"))
    assert [bytes(part) for part in pair.next(pair.router).parts[1:]] == [b"last", b"y"]


def test_a_message_to_nobody_is_swallowed(pair: Pair) -> None:
    assert frames.transmit(pair.router, b"nobody", (b"h", b"frame"))
    frames.transmit(pair.dealer, b"", (b"h", None))
    routing = bytes(pair.next(pair.router).parts[0])
    assert frames.transmit(pair.router, routing, (b"heard", None))  # nothing of the lost one is left over
    assert [bytes(part) for part in pair.next(pair.dealer).parts] == [b"heard"]


def test_a_closed_socket_says_so(pair: Pair) -> None:
    pair.dealer.close()
    for use in (
        lambda: frames.receive(pair.dealer),
        lambda: frames.readable(pair.dealer),
        lambda: frames.transmit(pair.dealer, b"", (b"h", None)),
    ):
        with pytest.raises(zmq.ZMQError) as raised:
            use()
        assert raised.value.errno == zmq.ENOTSOCK != errno.EAGAIN


def test_a_message_tells_where_it_came_from(pair: Pair) -> None:
    frames.transmit(pair.dealer, b"", (b"h", b"f"))
    arrival = pair.next(pair.router)
    assert frames.address_of(arrival) == HERE
    assert arrival.fd() > 2


def test_missing_functions_are_noticed_and_change_nothing(pair: Pair) -> None:
    for addresses in ([], [0] * len(_frames.FUNCTIONS), [None] * len(_frames.FUNCTIONS)):
        with pytest.raises(ValueError, match="libzmq"):
            _frames.bind(addresses, 1, 1)  # type: ignore[arg-type]
    frames.transmit(pair.dealer, b"", (b"still", b"there"))
    assert [bytes(part) for part in pair.next(pair.router).parts[1:]] == [b"still", b"there"]
