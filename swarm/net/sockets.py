"""ZeroMQ sockets with the options that Swarm needs: encrypted, bounded, and never reconnecting by themselves."""

from __future__ import annotations

from dataclasses import dataclass

import zmq

from swarm import limits
from swarm.errors import SwarmNetworkError
from swarm.net import keys
from swarm.net.zap import DOMAIN, zap_socket
from swarm.wire.messages import Lane
from swarm.wire.proof import Credentials
from swarm.wire.records import Address

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]

# Bytes in flight inside libzmq are these times the largest frame; our own queues hold the rest.
HIGH_WATER_MARK = {Lane.FAST: 64, Lane.BULK: 8}
FRAME_SLACK_BYTES = 256  # what CURVE adds to a frame
MAX_FRAME = {Lane.FAST: limits.MAX_FAST_FRAME_BYTES, Lane.BULK: limits.MAX_BULK_FRAME_BYTES}
TYPE_OF_SERVICE = {Lane.FAST: 0x10, Lane.BULK: 0x08}  # low delay, high throughput: priorities in Linux' default queue
# TCP would fill every queue between the devices, and an activation would wait behind it. What one sender may have under
# way is enough for 2.5 gbit at 0.4 ms or 100 mbit at 10 ms, and delays others by 1 ms on gigabit.
BULK_WINDOW_BYTES = 128 * 1024
CALL_ENDED = {
    zmq.Event.DISCONNECTED,
    zmq.Event.CLOSED,
    zmq.Event.HANDSHAKE_FAILED_AUTH,
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL,
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL,
}
OTHER_KEY = ("key", "it has another swarm key, or is no Swarm device")
# How a call may fail for good: the reason for programs, and half a sentence for people.
NOT_LET_IN: dict[int, tuple[str, str]] = {
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: OTHER_KEY,
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: OTHER_KEY,
    zmq.Event.HANDSHAKE_FAILED_AUTH: ("forgotten", "this device was shut out, or sent garbage a moment ago"),
}


@dataclass
class Listener:
    """A listening socket of one lane, what watches it, and the context (one I/O thread) it lives in."""

    lane: Lane
    context: Context
    zap: Socket
    router: Socket
    monitor: Socket
    port: int

    def close(self, linger_ms: int) -> None:
        """Close everything; what was sent may still leave for `linger_ms`."""
        self.router.disable_monitor()
        self.monitor.close(0)
        self.router.close(linger_ms)
        self.zap.close(0)
        self.context.term()


def open_listener(lane: Lane, credentials: Credentials, host: str, port: int) -> Listener:
    """Listen on `host` ("*" is everywhere, IPv4 and IPv6) and `port` (0: any); raise SwarmNetworkError.

    Each lane has its own context: decrypting a 4 MiB frame takes 10 ms of its I/O thread, and nothing else waits.
    """
    context: Context = zmq.Context()
    zap = zap_socket(context)
    router = context.socket(zmq.ROUTER)
    _set_options(router, lane)
    router.router_mandatory = 1
    router.zap_domain = DOMAIN
    router.curve_server = 1
    router.curve_publickey, router.curve_secretkey = keys.curve_pair(credentials.server_secret)
    monitor = router.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
    try:
        _bind(router, host, port)
    except zmq.ZMQError as error:
        monitor.close(0)
        router.close(0)
        zap.close(0)
        context.term()
        raise SwarmNetworkError(
            f"cannot listen on port {port} ({error.strerror}); stop what uses it, or choose another with --port"
        ) from error
    endpoint = router.get_string(zmq.LAST_ENDPOINT)
    return Listener(lane, context, zap, router, monitor, int(endpoint.rpartition(":")[2]))


def open_call(context: Context, lane: Lane, credentials: Credentials, address: Address) -> tuple[Socket, Socket]:
    """Begin a call; return its socket and its monitor. It ends in a CALL_ENDED event, and never calls again."""
    socket = context.socket(zmq.DEALER)
    _set_options(socket, lane)
    socket.reconnect_ivl = -1
    socket.connect_timeout = int(limits.HANDSHAKE_TIMEOUT_S * 1000)
    socket.ipv6 = 1
    socket.curve_serverkey, _ = keys.curve_pair(credentials.server_secret)
    socket.curve_publickey, socket.curve_secretkey = keys.curve_pair(credentials.device_secret)
    monitor = socket.get_monitor_socket(_mask(CALL_ENDED | {zmq.Event.HANDSHAKE_SUCCEEDED}))
    try:
        socket.connect(f"tcp://{address}")
    except zmq.ZMQError as error:
        close_call(socket, monitor, 0)
        raise SwarmNetworkError(f"{address} cannot be called ({error.strerror})") from error
    return socket, monitor


def close_call(socket: Socket, monitor: Socket, linger_ms: int) -> None:
    """Close both sockets of a call."""
    socket.disable_monitor()
    monitor.close(0)
    socket.close(linger_ms)


def _set_options(socket: Socket, lane: Lane) -> None:
    socket.linger = 0
    socket.maxmsgsize = MAX_FRAME[lane] + FRAME_SLACK_BYTES
    socket.sndhwm = socket.rcvhwm = HIGH_WATER_MARK[lane]
    socket.handshake_ivl = int(limits.HANDSHAKE_TIMEOUT_S * 1000)
    socket.tos = TYPE_OF_SERVICE[lane]
    if lane is Lane.BULK:
        socket.rcvbuf = BULK_WINDOW_BYTES


def _bind(router: Socket, host: str, port: int) -> None:
    if host != "*":
        router.ipv6 = ":" in host
        router.bind(f"tcp://{Address(host, port or 1)}".rpartition(":")[0] + f":{port or '*'}")
        return
    try:
        router.ipv6 = 1
        router.bind(f"tcp://*:{port or '*'}")
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise
        router.ipv6 = 0  # a kernel without IPv6
        router.bind(f"tcp://*:{port or '*'}")


def _mask(events: set[zmq.Event]) -> int:
    mask = 0
    for event in events:
        mask |= event
    return mask
