"""The ZAP check (https://rfc.zeromq.org/spec/27/): who may finish a CURVE handshake with this device.

To get here a caller must have used the swarm's server key, so it knows the swarm key. Here a device is kept out that
was shut out by hand, or that sent garbage a moment ago.
"""

from __future__ import annotations

from collections import OrderedDict

import zmq
from zmq.utils import z85

from swarm import limits

ZAP_ADDRESS = "inproc://zeromq.zap.01"
DOMAIN = b"swarm"


class AccessList:
    """Device keys that are not let in, and until when. Pure: the time is an argument."""

    def __init__(self) -> None:
        self._until: OrderedDict[bytes, tuple[float, float]] = OrderedDict()  # key -> (end, length of the back-off)
        self._shut_out: set[bytes] = set()

    def may_enter(self, device_key: bytes, now: float) -> bool:
        """True when this device key is welcome."""
        until, _ = self._until.get(device_key, (0.0, 0.0))
        return device_key not in self._shut_out and now >= until

    def back_off(self, device_key: bytes, now: float) -> float:
        """Keep a device out for a while, twice as long each time; return the seconds."""
        _, last_s = self._until.pop(device_key, (0.0, 0.0))
        wait_s = min(max(limits.GARBAGE_BACKOFF_S, 2 * last_s), limits.GARBAGE_BACKOFF_MAX_S)
        self._until[device_key] = (now + wait_s, wait_s)
        if len(self._until) > limits.MAX_BLOCKED_KEYS:
            self._until.popitem(last=False)
        return wait_s

    def shut_out(self, device_key: bytes) -> None:
        """Never let this device in again while this node runs; a rekey makes it last."""
        if len(self._shut_out) < limits.MAX_BLOCKED_KEYS:
            self._shut_out.add(device_key)


def zap_socket(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """Return the socket that libzmq asks; it must exist before anything listens."""
    socket = context.socket(zmq.REP)
    socket.linger = 0
    socket.bind(ZAP_ADDRESS)
    return socket


def answer_zap(socket: zmq.Socket[bytes], access_list: AccessList, now: float) -> None:
    """Answer the request that waits on the socket."""
    request = socket.recv_multipart()
    socket.send_multipart(zap_reply(request, access_list, now))


def zap_reply(request: list[bytes], access_list: AccessList, now: float) -> list[bytes]:
    """Return the reply to one request: 200 and the caller's key as its User-Id, or 400."""
    version, sequence, domain = request[0], request[1], request[2]
    mechanism, credentials = request[5], request[6:]
    good = version == b"1.0" and domain == DOMAIN and mechanism == b"CURVE" and len(credentials) == 1
    if good and access_list.may_enter(credentials[0], now):
        return [b"1.0", sequence, b"200", b"OK", z85.encode(credentials[0]), b""]
    return [b"1.0", sequence, b"400", b"not let in", b"", b""]
