"""Messages between devices: the public face of the sockets. Any thread may call it.

    inbox = LoopInbox(asyncio.get_running_loop(), handle_event).inbox()
    transport = Transport.start(credentials, name="pi4-attic", inbox=inbox)
    transport.learn(peer, addresses)            # from discovery
    transport.send(peer, message, frame)        # raises PeerLost, PeerBusy, LocalProtocolError
    transport.stop()

Events come to the inbox in order: PeerUp, then Received..., then PeerDown. A raw frame must not change after `send`:
large ones are not copied.
"""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Sequence

from swarm.errors import SwarmNetworkError
from swarm.net.dial import Unreached
from swarm.net.inbox import Inbox
from swarm.net.links import PeerInfo
from swarm.net.reactor import Reactor
from swarm.net.sockets import Listener, open_listener
from swarm.wire.codec import Buffer, encode
from swarm.wire.connection import LocalEnd
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import Lane, Message
from swarm.wire.proof import Credentials
from swarm.wire.records import Address, NodeState

DEFAULT_PORT = 7417  # unassigned; the bulk lane takes the next one, an open invitation the one after
WANTED_FILES = 65536  # a port scan must not use up the file descriptors of a node


class Transport:
    """A running transport; make it with `start`."""

    def __init__(self, me: LocalEnd, reactor: Reactor) -> None:
        self.me = me
        self._reactor = reactor
        self._thread = threading.Thread(target=reactor.run, name="swarm-net", daemon=True)

    @classmethod
    def start(
        cls,
        credentials: Credentials,
        *,
        name: str,
        inbox: Inbox,
        port: int | None = None,
        host: str = "*",
    ) -> Transport:
        """Listen and begin to talk. `port` None: DEFAULT_PORT, or any when another node has it; 0: any.

        Raise SwarmNetworkError when it cannot listen.
        """
        _raise_file_limit()
        listeners: dict[Lane, Listener] = {}
        try:
            listeners[Lane.FAST] = _open_main_listener(credentials, host, port)
            listeners[Lane.BULK] = _open_bulk_listener(credentials, host, listeners[Lane.FAST].port)
        except BaseException:
            for listener in listeners.values():
                listener.close(0)
            raise
        boot = BootId(os.urandom(BootId.N_BYTES).hex())
        me = LocalEnd(credentials, boot, name, listeners[Lane.FAST].port, listeners[Lane.BULK].port)
        transport = cls(me, Reactor(me, listeners, inbox))
        transport._thread.start()
        return transport

    def stop(self) -> None:
        """Say goodbye, close everything and wait for the thread."""
        self._reactor.stop()
        self._thread.join()

    def send(self, peer: PeerId, message: Message, frame: Buffer | None = None) -> None:
        """Queue a message for a connected device.

        Raise PeerLost when it is not connected, PeerBusy when too much waits for it, LocalProtocolError when it
        may not travel.
        """
        self._reactor.send(peer, message.LANE, (encode(message, frame), frame))

    def n_waiting(self, peer: PeerId, lane: Lane) -> int:
        """Return how many messages wait to be sent to a device on a lane."""
        return self._reactor.n_waiting(peer, lane)

    def set_state(self, state: NodeState) -> None:
        """Set what the next heartbeats say."""
        self._reactor.set_state(state)

    def learn(self, peer: PeerId, addresses: Sequence[Address]) -> None:
        """A device may be reached at these addresses, in this order."""
        self._reactor.learn(peer, addresses)

    def call(self, text: str) -> tuple[Address, ...]:
        """Call HOST[:PORT] until it answers; return where that is. Blocks while a name is looked up."""
        addresses = resolve(text)
        for address in addresses:
            self._reactor.learn_by_hand(address)
        return addresses

    def shut_out(self, peer: PeerId) -> None:
        """Drop a connected device and never let it in again while this node runs."""
        self._reactor.shut_out(peer)

    def peers(self) -> tuple[PeerInfo, ...]:
        """Return the connected devices; at most a tenth of a second old."""
        return self._reactor.infos

    def unreached(self) -> tuple[Unreached, ...]:
        """Return the devices that were told of and are not connected."""
        return tuple(self._reactor.unreached())


def resolve(text: str) -> tuple[Address, ...]:
    """Return the addresses of HOST[:PORT], [IPv6]:PORT or a bare IPv6 address; raise SwarmNetworkError."""
    host, port = _split(text)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SwarmNetworkError(f"{text}: no such device ({error}); give its IP address") from error
    return tuple(dict.fromkeys(Address(str(entry[4][0]), port) for entry in found))


def _split(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or (":" in host and not host.endswith("]")):
        host, port = text, str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise SwarmNetworkError(f"{text!r} is not HOST or HOST:PORT")
    return host, int(port)


def _open_main_listener(credentials: Credentials, host: str, port: int | None) -> Listener:
    if port is not None:
        return open_listener(Lane.FAST, credentials, host, port)
    try:
        return open_listener(Lane.FAST, credentials, host, DEFAULT_PORT)
    except SwarmNetworkError:
        return open_listener(Lane.FAST, credentials, host, 0)


def _open_bulk_listener(credentials: Credentials, host: str, main_port: int) -> Listener:
    try:
        return open_listener(Lane.BULK, credentials, host, main_port + 1 if main_port < 65535 else 0)
    except SwarmNetworkError:
        return open_listener(Lane.BULK, credentials, host, 0)


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
