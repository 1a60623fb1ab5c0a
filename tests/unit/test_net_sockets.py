"""Sockets with the options that Swarm needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from swarm.errors import SwarmNetworkError
from swarm.net.sockets import (
    BULK_WINDOW_BYTES,
    CALL_ENDED,
    FRAME_SLACK_BYTES,
    HIGH_WATER_MARK,
    MAX_FRAME,
    NOT_LET_IN,
    Listener,
    close_call,
    open_call,
    open_listener,
)
from swarm.wire.messages import Lane
from swarm.wire.proof import Credentials
from swarm.wire.records import Address

HOST = "127.0.0.1"
OURS, THEIRS = (Credentials(bytes([i]) * 32, bytes(range(32))) for i in (1, 2))
WAIT_MS = 10_000


@pytest.fixture
def listeners() -> Iterator[dict[Lane, Listener]]:
    with ExitStack() as stack:
        made = {lane: open_listener(lane, OURS, HOST, 0) for lane in Lane}
        for listener in made.values():
            stack.callback(listener.close, 0)
        yield made


@pytest.mark.parametrize("lane", Lane)
def test_a_listener_takes_no_larger_frame_and_no_longer_queue_than_its_lane_allows(
    lane: Lane, listeners: dict[Lane, Listener]
) -> None:
    router = listeners[lane].router
    assert router.maxmsgsize == MAX_FRAME[lane] + FRAME_SLACK_BYTES
    assert router.sndhwm == router.rcvhwm == HIGH_WATER_MARK[lane]
    assert (router.rcvbuf == BULK_WINDOW_BYTES) is (lane is Lane.BULK)


def test_a_port_in_use_is_one_clear_line_and_leaves_nothing_open(listeners: dict[Lane, Listener]) -> None:
    port = listeners[Lane.FAST].port
    with pytest.raises(SwarmNetworkError, match=f"cannot listen on port {port} .* choose another with --port"):
        open_listener(Lane.FAST, OURS, HOST, port)


def test_an_address_that_is_none_is_one_clear_line() -> None:
    with zmq.Context() as context, pytest.raises(SwarmNetworkError, match="cannot be called"):
        open_call(context, Lane.FAST, OURS, Address("no such host", 1))


def ending(credentials: Credentials, address: Address) -> int:
    """How a call ends."""
    with zmq.Context() as context:
        socket, monitor = open_call(context, Lane.FAST, credentials, address)
        try:
            assert monitor.poll(WAIT_MS)
            return int(recv_monitor_message(monitor)["event"])
        finally:
            close_call(socket, monitor, 0)


def test_a_call_to_a_port_where_nobody_listens_ends_and_is_not_made_again() -> None:
    listener = open_listener(Lane.FAST, OURS, HOST, 0)
    listener.close(0)
    event = ending(OURS, Address(HOST, listener.port))
    assert event in CALL_ENDED and event not in NOT_LET_IN


def test_a_call_with_another_swarm_key_ends_with_a_reason(listeners: dict[Lane, Listener]) -> None:
    event = ending(THEIRS, Address(HOST, listeners[Lane.FAST].port))
    assert NOT_LET_IN[event][0] == "key"
