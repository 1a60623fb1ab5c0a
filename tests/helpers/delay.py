"""Delay, jitter and loss for kernels without netem: packets wait in an NFQUEUE of the receiving host.

    delay.py DELAY_MS JITTER_MS LOSS_PERCENT NAMESPACE:QUEUE...

Prints "ready" and runs until it is terminated. One process serves all hosts; raw netlink, no dependency. The layout of
the messages is in linux/netfilter/nfnetlink_queue.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

NETLINK_NETFILTER = 12
QUEUE_SUBSYSTEM = 3 << 8
PACKET, VERDICT, CONFIG, VERDICT_BATCH = (QUEUE_SUBSYSTEM | kind for kind in range(4))
REQUEST, ACK = 1, 4
DROP, ACCEPT = 0, 1
CLONE_NEWNET = 0x40000000
NETLINK_NO_ENOBUFS = 5
SOL_NETLINK = 270
SO_RCVBUFFORCE = 33
PR_SET_TIMERSLACK = 29
FAIL_OPEN_AND_GSO = 1 | 4
HELD_PACKETS = 65536

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Held:
    """A packet that waits."""

    until: float
    number: int
    is_lost: bool


class Queue:
    """The queue of one host."""

    def __init__(self, namespace: str, number: int, delay_s: float, jitter_s: float, loss: float) -> None:
        self.socket = _netlink_socket_in(namespace)
        self._number = number
        self._delay_s, self._jitter_s, self._loss = delay_s, jitter_s, loss
        self._held: deque[Held] = deque()
        self._last = 0.0
        self._configure(_attribute(1, struct.pack(">BBH", 1, 0, 0)))  # bind
        self._configure(_attribute(2, struct.pack(">IB", 0, 1)))  # no payload: only packet numbers
        self._configure(_attribute(3, struct.pack(">I", HELD_PACKETS)))
        flags = struct.pack(">I", FAIL_OPEN_AND_GSO)
        self._configure(_attribute(4, flags) + _attribute(5, flags))
        self.socket.setblocking(False)

    def take(self) -> None:
        """Read the packets that have come and hold them."""
        now = time.monotonic()
        while True:
            try:
                data = self.socket.recv(1 << 16)
            except BlockingIOError:
                return
            for number in _packet_numbers(data):
                jitter_s = random.uniform(-self._jitter_s, self._jitter_s) if self._jitter_s else 0.0
                self._last = max(self._last, now + self._delay_s + jitter_s)  # never reordered
                self._held.append(Held(self._last, number, random.random() < self._loss))

    def release(self, now: float) -> float | None:
        """Let go of what has waited long enough; return when the next one has, None when there is none."""
        accepted: int | None = None
        while self._held and self._held[0].until <= now:
            packet = self._held.popleft()
            if not packet.is_lost:
                accepted = packet.number
                continue
            if accepted is not None:
                self._verdict(VERDICT_BATCH, ACCEPT, accepted)  # a batch is everything up to that number
                accepted = None
            self._verdict(VERDICT, DROP, packet.number)
        if accepted is not None:
            self._verdict(VERDICT_BATCH, ACCEPT, accepted)
        return self._held[0].until if self._held else None

    def _verdict(self, kind: int, verdict: int, number: int) -> None:
        self.socket.send(_message(kind, self._number, _attribute(2, struct.pack(">II", verdict, number))))

    def _configure(self, body: bytes) -> None:
        self.socket.send(_message(CONFIG, self._number, body, REQUEST | ACK))
        (error,) = struct.unpack_from("=i", self.socket.recv(1 << 16), 16)
        if error:
            raise OSError(-error, f"queue {self._number}: {os.strerror(-error)}")


def _netlink_socket_in(namespace: str) -> socket.socket:
    with open("/proc/self/ns/net") as home, open(f"/run/netns/{namespace}") as there:
        _enter(there.fileno())
        try:
            opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        finally:
            _enter(home.fileno())
    opened.bind((0, 0))
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    opened.setsockopt(SOL_NETLINK, NETLINK_NO_ENOBUFS, 1)
    return opened


def _enter(descriptor: int) -> None:
    if libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot enter the network namespace")


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _message(kind: int, queue: int, body: bytes, flags: int = REQUEST) -> bytes:
    return struct.pack("=IHHIIBBH", 20 + len(body), kind, flags, 0, 0, 0, 0, socket.htons(queue)) + body


def _packet_numbers(data: bytes) -> Iterator[int]:
    offset = 0
    while offset + 20 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if kind == PACKET:
            # The first attribute is the packet header; its first field is the number.
            yield struct.unpack_from(">I", data, offset + 24)[0]
        offset += (length + 3) & ~3


def main() -> None:
    """Serve every queue until terminated."""
    delay_s, jitter_s, loss = float(sys.argv[1]) / 1e3, float(sys.argv[2]) / 1e3, float(sys.argv[3]) / 100
    libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with contextlib.suppress(OSError):  # a cable does not wait for its turn on a busy machine
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    queues: dict[int, Queue] = {}
    for argument in sys.argv[4:]:
        namespace, _, number = argument.rpartition(":")
        queue = Queue(namespace, int(number), delay_s, jitter_s, loss)
        queues[queue.socket.fileno()] = queue
    print("ready", flush=True)
    while True:
        times = [time_ for queue in queues.values() if (time_ := queue.release(time.monotonic())) is not None]
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        # select() waits in microseconds; epoll in whole milliseconds.
        for fd in select.select(list(queues), [], [], timeout)[0]:
            queues[fd].take()


if __name__ == "__main__":
    main()
