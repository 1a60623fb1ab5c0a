"""The ZAP check (https://rfc.zeromq.org/spec/27/): who may finish a CURVE handshake with this device.

To get here a caller must have used the swarm's server key, so it knows the swarm key. Here a device is kept out that
was shut out by hand, or that sent garbage a moment ago.
"""

from __future__ import annotations

import zmq
from zmq.utils import z85

from swarm.net.access import AccessList

ZAP_ADDRESS = "inproc://zeromq.zap.01"
DOMAIN = b"swarm"


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
