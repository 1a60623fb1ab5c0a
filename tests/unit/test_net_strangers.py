"""What somebody on the same network can do to a swarm whose key he has not, and what a member gone bad can: nothing.

In every test two members go on exchanging activations, as in an answer, and the memory of the process stays flat.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator

import msgpack
import psutil
import pytest
import zmq

from swarm import limits
from swarm.net.events import Garbage, NotLetIn, PeerDown, PeerUp
from swarm.net.sockets import open_call
from swarm.wire.codec import decode
from swarm.wire.connection import LocalEnd, call
from swarm.wire.ids import BootId, SessionId
from swarm.wire.messages import PROTOCOL, Activation, Hello, Lane, Refuse, number_of
from swarm.wire.proof import Credentials
from swarm.wire.records import Address, TensorInfo
from tests.helpers.transports import Box, Boxes, boxes

FLAT_BYTES = 48 * 1024 * 1024  # also what the senders here need: one too large frame, and its encrypted copy
GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
PROBES = (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02", b"SSH-2.0-x\r\n", GREETING)


class Answer:
    """Two members that exchange activations until told to stop; a lost, repeated or late one is a failure."""

    def __init__(self, maker: Boxes) -> None:
        self.one, self.other = maker.pair()
        self.n_tokens = 0
        self.longest_s = 0.0
        self._stop = threading.Event()
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Answer:
        self._thread.start()
        self.wait_for_tokens(20)
        self.rss = psutil.Process().memory_info().rss
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def check(self) -> None:
        """The answer goes on, nobody was lost, and memory is flat."""
        self.wait_for_tokens(20)
        patience = time.monotonic() + 2.0
        while (grown := self._grown()) >= FLAT_BYTES and time.monotonic() < patience:
            self.wait_for_tokens(20)  # libzmq closes sockets on a thread of its own
        print(f"{self.n_tokens} tokens, longest gap {self.longest_s * 1e3:.0f} ms, memory grew {grown >> 10} KiB")
        lost = [event.peer for event in self.one.drain() if isinstance(event, PeerDown)]
        assert self.other.peer not in lost
        assert grown < FLAT_BYTES
        assert self.longest_s < limits.PEER_SILENCE_S

    def _grown(self) -> int:
        trim_heap()
        return int(psutil.Process().memory_info().rss - self.rss)

    def wait_for_tokens(self, n: int) -> None:
        """Return when n more have come."""
        with self._more:
            wanted = self.n_tokens + n
            assert self._more.wait_for(lambda: self.n_tokens >= wanted, timeout=20), "the answer has stopped"

    def _run(self) -> None:
        frame = bytes(8000)
        while not self._stop.is_set():
            start = time.monotonic()
            position = self.n_tokens
            message = Activation(SessionId("ab" * 16), 1, position, 1, TensorInfo("f16", (4000,)), False, ())
            self.one.transport.send(self.other.peer, message, frame)
            if self.other.receive(Activation)[0].position != position:
                return
            self.longest_s = max(self.longest_s, time.monotonic() - start)
            with self._more:
                self.n_tokens += 1
                self._more.notify_all()


@pytest.fixture
def answer() -> Iterator[Answer]:
    with boxes() as maker, Answer(maker) as running:
        yield running


def tcp(box: Box, lane: Lane = Lane.FAST) -> socket.socket:
    """A plain TCP connection to a node's port."""
    port = box.transport.me.port if lane is Lane.FAST else box.transport.me.bulk_port
    return socket.create_connection((box.address.host, port), timeout=5)


def send_and_drop(box: Box, data: bytes, wait_s: float = 0.2) -> bytes:
    """Send bytes as a stranger; return what came back."""
    return exchange(box, data, wait_s)[0]


def exchange(box: Box, data: bytes, wait_s: float) -> tuple[bytes, bool]:
    """Send bytes as a stranger; return what came back, and whether the node hung up."""
    came = b""
    with tcp(box) as connection:
        connection.settimeout(wait_s)
        try:
            connection.sendall(data)
            while more := connection.recv(4096):
                came += more
        except TimeoutError:
            return came, False
        except ConnectionError:
            return came, True
    return came, True


def test_without_a_key_nothing_is_learnt(answer: Answer) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    plain = context.socket(zmq.DEALER)
    plain.linger = 0
    plain.connect(f"tcp://{answer.one.address}")
    plain.send(b"hello?")
    assert not plain.poll(500)
    plain.close()
    context.term()
    # The ZMTP greeting is all that a stranger sees: it is the same for every CURVE server.
    told = send_and_drop(answer.one, GREETING)
    assert told.startswith(b"\xff") and b"CURVE" in told
    secrets = (answer.one.peer.encode(), bytes.fromhex(answer.one.peer), b"one", answer.one.credentials.fingerprint)
    assert not any(secret in told for secret in secrets)
    answer.check()


def test_with_a_wrong_key_nothing_is_learnt(answer: Answer) -> None:
    with boxes() as strangers:
        for i in range(20):
            stranger = strangers.make(f"stranger{i}")
            stranger.transport.call(str(answer.one.address))
            assert stranger.wait(NotLetIn).reason == "key"
            assert not stranger.transport.peers()
    answer.check()


def test_replayed_bytes_of_a_member_do_nothing(answer: Answer) -> None:
    with boxes() as maker:
        member = maker.make("member", swarm_key=answer.one.credentials.swarm_key)
        with Recorder(answer.one.address) as recorder:
            member.transport.call(str(recorder.address))
            member.wait(PeerUp)
            recorder.wait_for_bytes(600)
        member.wait(PeerDown)
    while answer.one.wait(PeerUp).peer != member.peer:
        pass
    answer.one.wait(PeerDown)
    for _ in range(5):
        send_and_drop(answer.one, recorder.sent)
    assert not [event for event in answer.one.drain() if isinstance(event, (PeerUp, Garbage))]
    answer.check()


def test_a_port_scan_does_no_harm(answer: Answer) -> None:
    with contextlib.ExitStack() as stack:
        for i in range(500):
            connection = stack.enter_context(tcp(answer.one, Lane.BULK if i % 2 else Lane.FAST))
            with contextlib.suppress(ConnectionError):  # hung up on already
                connection.sendall(PROBES[i % len(PROBES)])
        answer.check()


def test_a_length_of_four_gigabytes_is_refused_before_it_is_allocated(answer: Answer) -> None:
    for length in (2**32, 2**32 - 1, 2**63 - 1, 2**64 - 1, limits.MAX_FAST_FRAME_BYTES * 2):
        for flags in (0x02, 0x06, 0x03):  # a long frame, a long command, a long frame with more
            data = GREETING + bytes([flags]) + struct.pack(">Q", length) + bytes(1000)
            assert exchange(answer.one, data, 2.0)[1], f"the node waits for {length} bytes"
    answer.check()


def test_random_bytes_without_a_key_do_no_harm(answer: Answer) -> None:
    seed = 5
    rng = random.Random(seed)
    print(f"seed {seed}")
    for i in range(200):
        send_and_drop(answer.one, rng.randbytes(2000) if i % 2 else GREETING + rng.randbytes(2000))
    answer.check()


def test_a_member_that_sends_a_hundred_thousand_random_frames_is_cut_off_and_named(answer: Answer) -> None:
    seed = 6
    rng = random.Random(seed)
    with bad_member(answer.one) as (node, bad):
        bad.sndtimeo = 10_000
        for _ in range(100_000):
            bad.send(rng.randbytes(rng.randint(0, 100)))
        garbage = answer.one.wait(Garbage)
        print(f"seed {seed}: {garbage.text}")
        assert garbage.peer == node.peer and "bad" in garbage.text and "broke the protocol" in garbage.text
        answer.one.wait(PeerDown)
        answer.check()
        assert not [event for event in answer.one.drain() if isinstance(event, Garbage)]
    # It is not let in again for a while.
    with boxes() as maker:
        again = maker.make("again", swarm_key=node.credentials.swarm_key, device=node.credentials.device_secret)
        again.transport.call(str(answer.one.address))
        assert again.wait(NotLetIn).reason == "forgotten"


def test_a_member_whose_first_frames_are_random_is_cut_off(answer: Answer) -> None:
    rng = random.Random(7)
    with bad_member(answer.one, hello=False) as (_, bad):
        for _ in range(1000):
            with contextlib.suppress(zmq.Again):
                bad.send(b"\xc1" + rng.randbytes(50), zmq.NOBLOCK)
        assert "not msgpack" in answer.one.wait(Garbage).text
        answer.check()


def test_a_member_of_another_version_is_told_and_named(answer: Answer) -> None:
    with bad_member(answer.one, hello=False) as (node, bad):
        hello = msgpack.unpackb(call(node, Lane.FAST, bytes(16)))
        bad.send(msgpack.packb([number_of(Hello), [9, 0], *hello[2:]]))
        assert bad.poll(5000)
        refuse, _ = decode(bad.recv_multipart(), "node")
        assert isinstance(refuse, Refuse) and refuse.reason == "version" and refuse.version == PROTOCOL
        told = answer.one.wait(NotLetIn)
        assert told.reason == "version" and "speaks protocol 9.0" in told.text
        answer.check()


def test_a_member_that_sends_too_large_a_frame_is_hung_up_on(answer: Answer) -> None:
    with bad_member(answer.one) as (node, bad):
        bad.send(bytes(limits.MAX_FAST_FRAME_BYTES + 1024))
        assert answer.one.wait(PeerDown).peer == node.peer
    answer.check()  # without the sender, whose copies of that frame are in this process, too


def test_a_member_that_sends_too_many_frames_in_a_message_is_cut_off(answer: Answer) -> None:
    with bad_member(answer.one) as (node, bad):
        bad.send_multipart([b"x"] * 10_000)
        assert answer.one.wait(Garbage).peer == node.peer
        answer.check()


def trim_heap() -> None:
    """Give back what was freed: glibc keeps it, and the sender of a large frame is in this process, too."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextlib.contextmanager
def bad_member(box: Box, hello: bool = True) -> Iterator[tuple[LocalEnd, zmq.Socket[bytes]]]:
    """A raw socket of a member, past the handshake, that may send anything."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    credentials = Credentials(box.credentials.swarm_key, os.urandom(32))
    node = LocalEnd(credentials, BootId(os.urandom(8).hex()), "bad", 0, 0)
    bad, monitor = open_call(context, Lane.FAST, credentials, box.address)
    try:
        if hello:
            bad.send(call(node, Lane.FAST, os.urandom(16)))
            assert bad.poll(5000)
            box.wait(PeerUp)
        yield node, bad
    finally:
        bad.disable_monitor()
        monitor.close(0)
        bad.close(0)
        context.term()


class Recorder:
    """A proxy in front of a node that keeps what a caller sent."""

    def __init__(self, target: Address) -> None:
        self.sent = b""
        self._target = target
        self._listener = socket.create_server((target.host, 0))
        self.address = Address(target.host, self._listener.getsockname()[1])
        self._connections: list[socket.socket] = []
        self._more = threading.Condition()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Recorder:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for connection in (self._listener, *self._connections):
            connection.close()

    def wait_for_bytes(self, n: int) -> None:
        """Return when so many were recorded."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.sent) >= n, timeout=10)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                called = socket.create_connection((self._target.host, self._target.port))
                self._connections += [caller, called]
                for source, sink, keep in ((caller, called, True), (called, caller, False)):
                    self._threads.append(threading.Thread(target=self._copy, args=(source, sink, keep)))
                    self._threads[-1].start()

    def _copy(self, source: socket.socket, sink: socket.socket, keep: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if keep:
                    with self._more:
                        self.sent += data
                        self._more.notify_all()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)
