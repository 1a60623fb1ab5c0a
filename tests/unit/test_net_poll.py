"""Waiting for ZeroMQ sockets by their file descriptors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from socket import socket
from typing import cast

import pytest
import zmq

from swarm.net.poll import Poll
from swarm.net.sockets import Socket

LONG_S = 10.0  # nothing here may take so long


@pytest.fixture
def pair() -> Iterator[tuple[Socket, Socket]]:
    with zmq.Context() as context, context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as other:
        one.linger = other.linger = 0
        one.bind("inproc://poll")
        other.connect("inproc://poll")
        yield one, other


@pytest.fixture
def poll() -> Iterator[Poll]:
    made = Poll()
    yield made
    made.close()


def read_all(poll: Poll, until: threading.Event) -> None:
    """Turn like the reactor until something has happened."""
    while not until.is_set():
        poll.wait(0.0 if poll.has_unread() else LONG_S)
        poll.run_handlers()


def test_a_message_ends_a_wait_and_its_handler_is_called(poll: Poll, pair: tuple[Socket, Socket]) -> None:
    one, other = pair
    came = threading.Event()

    def handle() -> bool:
        if one.poll(0):
            assert one.recv() == b"hello"
            came.set()
        return False

    poll.register(one, handle)
    threading.Thread(target=lambda: other.send(b"hello")).start()
    read_all(poll, came)


def test_a_handler_that_has_more_to_read_is_called_again_without_a_wait(
    poll: Poll, pair: tuple[Socket, Socket]
) -> None:
    one, other = pair
    for number in range(3):
        other.send(b"%d" % number)
    got: list[bytes] = []

    def handle() -> bool:
        got.append(one.recv(zmq.NOBLOCK))
        return bool(one.poll(0))

    poll.register(one, handle)
    assert poll.has_unread(), "what had come before is found at once"
    for _ in range(3):
        poll.run_handlers()
    assert got == [b"0", b"1", b"2"] and not poll.has_unread()


def test_news_that_a_send_swallowed_are_found(poll: Poll, pair: tuple[Socket, Socket]) -> None:
    one, other = pair
    poll.register(one, lambda: False)
    poll.run_handlers()
    other.send(b"news")
    one.send(b"as it happens")  # libzmq looks at its commands here, and the file descriptor is silent afterwards
    poll.used(one)
    assert poll.has_unread()


def test_what_handlers_left_unread_is_looked_at_again(poll: Poll, pair: tuple[Socket, Socket]) -> None:
    one, other = pair
    other.send(b"news")
    poll.register(one, lambda: True)
    poll.run_handlers()
    assert poll.has_unread()
    one.recv()
    poll.look_again()
    assert not poll.has_unread()


def test_a_socket_that_was_taken_out_is_not_read(poll: Poll, pair: tuple[Socket, Socket]) -> None:
    one, other = pair
    poll.register(one, lambda: pytest.fail("it was read"))
    poll.unregister(one)
    other.send(b"news")
    poll.used(one)
    poll.look_at_all()
    assert not poll.has_unread()
    poll.run_handlers()


def test_another_thread_ends_a_wait(poll: Poll) -> None:
    threading.Thread(target=poll.wake).start()
    poll.wait(LONG_S)
    assert poll._fresh
    poll.run_handlers()
    poll.wait(0.0)
    assert not poll._fresh, "it was woken once"


def test_waking_works_again_after_a_wake_in_the_middle_of_waking(poll: Poll) -> None:
    class Reader:
        """The socket of the waking bytes; another thread wakes just before it is read."""

        def recv(self, n_bytes: int) -> bytes:
            poll.wake()
            return reader.recv(n_bytes)

        def fileno(self) -> int:
            return reader.fileno()

    reader, poll._reader = poll._reader, cast(socket, Reader())
    poll.wake()
    poll.wait(1.0)
    poll.run_handlers()
    poll._reader = reader
    poll.wait(0.0)
    poll.run_handlers()
    poll.wake()
    poll.wait(0.0)
    assert poll._fresh, "the byte that ends a wait was sent"


def test_waking_after_the_end_does_nothing() -> None:
    poll = Poll()
    poll.close()
    poll.wake()
