"""Stages of several devices: the sockets on which they add up what each has computed of a layer.

    listener = StageListener("*", port)                  # when the node starts; it listens only while a stage is open
    link = StageLink(listener, key, me, [("pi4-attic", "192.168.1.7", 7420), ...])
    link.wait_ready(15.0)                                # every member proved that it knows the stage's key
    decoder.stage = link.native                          # from here on the engine's threads use the sockets themselves
    link.abort("its heartbeats ended", member=2)         # from any thread: who waits inside of a step wakes at once
    link.close()

Member j calls every member i < j. Connecting goes on in the background, until the deadline.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from swarm import limits
from swarm.errors import RemoteProtocolError, StageLost, SwarmNetworkError
from swarm.kernels import _native
from swarm.net import sodium
from swarm.net.stage_proof import MESSAGE_BYTES, READY_BYTES, Introduction, StageProof, tag_of

LOW_DELAY = 0x10


class Member(NamedTuple):
    """A member of a stage: what people call it, and where it listens for its stages."""

    name: str
    host: str
    port: int


class StageListener:
    """The port on which this device is called by other members of its stages; anybody else finds it closed."""

    def __init__(self, host: str, port: int) -> None:
        """`host` "*" is everywhere, IPv4 and IPv6; port 0 is any. Raise SwarmNetworkError when it cannot be had."""
        self._holder = _bound(host, port)  # keeps the port and never listens
        self._host, self.port = host, int(self._holder.getsockname()[1])
        self._lock = threading.Lock()
        self._links: dict[bytes, StageLink] = {}  # by tag
        self._socket: socket.socket | None = None
        self._callers = threading.BoundedSemaphore(limits.MAX_STAGE_CALLERS)

    def close(self) -> None:
        """Close the port; links that are open stay so."""
        with self._lock:
            self._links.clear()
            self._stop()
            self._holder.close()

    def enter(self, link: StageLink) -> None:
        """Let members of this link's stage in."""
        with self._lock:
            self._links[link.proof.tag] = link
            if self._socket is None:
                self._socket = _bound(self._host, self.port)
                self._socket.listen(limits.MAX_STAGE_CALLERS)
                threading.Thread(target=self._accept, args=(self._socket,), name="swarm-stage", daemon=True).start()

    def leave(self, link: StageLink) -> None:
        """The opposite."""
        with self._lock:
            if self._links.get(link.proof.tag) is link:
                del self._links[link.proof.tag]
            if not self._links:
                self._stop()

    def _stop(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept
            self._socket.close()
            self._socket = None

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                if self._socket is not listening:
                    return
                time.sleep(limits.STAGE_REDIAL_S)  # no file descriptors, say
                continue
            if not self._callers.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._answer, args=(connection,), name="swarm-stage-caller", daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            deadline = time.monotonic() + limits.STAGE_PROOF_S
            message = _read(connection, MESSAGE_BYTES, deadline)
            link = self._links.get(tag_of(message))
            if link is None:
                raise RemoteProtocolError("a caller names a stage that is not open here")
            link.answer(connection, message, deadline)
        except (OSError, RemoteProtocolError):  # a stranger, or a member that calls again
            connection.close()
        finally:
            self._callers.release()


class StageLink:
    """This device's connections to all other members of one stage."""

    def __init__(
        self,
        listener: StageListener,
        key: bytes,
        me: int,
        members: Sequence[tuple[str, str, int]],
        *,
        connect_s: float = limits.STAGE_CONNECT_S,
        ceiling_s: float = limits.STAGE_CEILING_S,
        aes: bool = True,
        spin_us: int = 0,
    ) -> None:
        """`key`: stage_proof.stage_key; `me`: this device's place among the members. Without `aes` it does as if its
        CPU had none. Raise NativeError where libsodium is not found.
        """
        addresses, has_aes = sodium.functions()
        self.members = [Member(*member) for member in members]
        self.proof = StageProof(key, me, len(members), has_aes and aes)
        self._event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.native = _native.Stage(
            me,
            len(members),
            addresses,
            self._event_fd,
            ceiling_ms=int(ceiling_s * 1000),
            name=lambda member: self.members[member].name or "this device",
            spin_us=spin_us,
        )
        self.native.reserve(1, limits.MAX_GATHERED_BYTES)
        self._listener, self._me = listener, me
        self._changed = threading.Condition()
        self._met: dict[int, tuple[socket.socket, Introduction]] = {}
        self._is_ready = self._closed = False
        self._failed: StageLost | None = None
        listener.enter(self)
        deadline = time.monotonic() + connect_s
        threading.Thread(target=self._connect, args=(deadline,), name="swarm-stage-link", daemon=True).start()

    def wait_ready(self, timeout_s: float) -> None:
        """Return when all members are connected; raise StageLost when one is not, or the link was closed."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._is_ready or self._failed or self._closed, timeout_s):
                raise self._absent()
            if self._failed:
                raise self._failed
            if self._closed:
                raise StageLost(self._me, "this device", "the stage was closed", stage_over=True)

    def gather(self, data: bytes) -> list[bytes] | None:
        """After a step: the leader gets what every member gave, in their order; the others get None at once.

        Raise StageLost.
        """
        return self.native.gather(data)

    def abort(self, why: str, *, sequence: int | None = None, member: int | None = None) -> None:
        """End step `sequence` for all members, or the stage; `member` is to blame, else this device.

        From any thread; whoever waits inside of a step wakes.
        """
        self.native.refuse(sequence, why, -1 if member is None else member)

    def close(self) -> None:
        """Leave the stage, which is over with that."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._listener.leave(self)
        self.native.close("it left the stage")
        with self._changed:
            for connection, _ in self._met.values():
                connection.close()
            self._met.clear()
        os.close(self._event_fd)

    def answer(self, connection: socket.socket, message: bytes, deadline: float) -> None:
        """A caller has sent a hello: the listener's part of the proof. Raise RemoteProtocolError, OSError."""
        hello = self.proof.check_hello(message)
        welcome = self.proof.introduce(hello.sender)
        connection.sendall(self.proof.welcome(welcome, hello))
        self.proof.check_ready(_read(connection, READY_BYTES, deadline), hello, welcome)
        self._keep(connection, hello)

    def _call(self, member: int) -> None:
        """The caller's part. Raise RemoteProtocolError, OSError."""
        deadline = time.monotonic() + limits.STAGE_DIAL_S + limits.STAGE_PROOF_S
        connection = _dialled(self.members[member])
        try:
            hello = self.proof.introduce(member)
            connection.sendall(self.proof.hello(hello))
            welcome = self.proof.check_welcome(_read(connection, MESSAGE_BYTES, deadline), hello)
            connection.sendall(self.proof.ready(hello, welcome))
        except BaseException:
            connection.close()
            raise
        self._keep(connection, welcome)

    def _keep(self, connection: socket.socket, theirs: Introduction) -> None:
        with self._changed:
            if self._closed or self._is_ready:  # a member that is connected does not call again
                raise RemoteProtocolError(f"{self.members[theirs.sender].name} calls a stage that is complete")
            older = self._met.pop(theirs.sender, None)
            if older is not None:
                older[0].close()
            _tune(connection)
            self._met[theirs.sender] = connection, theirs
            self._changed.notify_all()

    def _connect(self, deadline: float) -> None:
        while not self._done(deadline):
            for member in range(self._me):
                if member not in self._met and not self._closed:
                    with suppress(OSError, RemoteProtocolError):  # it does not listen yet
                        self._call(member)
            with self._changed:
                self._changed.wait_for(self._is_complete, limits.STAGE_REDIAL_S)

    def _is_complete(self) -> bool:
        return self._closed or len(self._met) == len(self.members) - 1

    def _done(self, deadline: float) -> bool:
        with self._changed:
            if self._closed:
                return True
            if self._is_complete():
                self._open()
            elif time.monotonic() > deadline:
                self._failed = self._absent()
            self._changed.notify_all()
            return self._is_ready or self._failed is not None

    def _open(self) -> None:
        mine = self.proof.introduce(self._me)
        everybody = [self._met[j][1] if j != self._me else mine for j in range(len(self.members))]
        keys = [self.proof.sending_key(j, each.salt) for j, each in enumerate(everybody)]
        connections = [self._met[j][0] if j != self._me else None for j in range(len(self.members))]
        self.native.open(connections, keys, all(each.has_aes for each in everybody))
        self._is_ready = True

    def _absent(self) -> StageLost:
        missing = next(j for j in range(len(self.members)) if j != self._me and j not in self._met)
        return StageLost(missing, self.members[missing].name, "it did not connect in time", stage_over=True)


def _bound(host: str, port: int) -> socket.socket:
    """A socket with a port; one that listens and one that does not may have the same."""
    families = [(socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")] if host == "*" else [_family_of(host)]
    error: OSError | None = None
    for family, address in families:
        try:
            bound = socket.socket(family, socket.SOCK_STREAM)
        except OSError as failed:  # a kernel without IPv6
            error = failed
            continue
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _size_buffers(bound)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "*"))
            bound.bind((address, port))
            return bound
        except OSError as failed:
            bound.close()
            error = failed
    raise SwarmNetworkError(f"cannot listen on port {port} ({error}); stop what uses it, or choose another with --port")


def _family_of(host: str) -> tuple[socket.AddressFamily, str]:
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), host


def _dialled(member: Member) -> socket.socket:
    found = socket.getaddrinfo(member.host, member.port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    connection = socket.socket(family, kind, protocol)
    try:
        _size_buffers(connection)
        connection.settimeout(limits.STAGE_DIAL_S)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def _size_buffers(connection: socket.socket) -> None:
    """Before it is connected, so that TCP agrees on a window as large."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.STAGE_BUFFER_BYTES)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limits.STAGE_BUFFER_BYTES)


def _tune(connection: socket.socket) -> None:
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wishes: list[Callable[[], None]] = [
        # bbr, where it is the default, spreads what is sent at once over time.
        lambda: connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno"),
        lambda: connection.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, LOW_DELAY),
        lambda: connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limits.STAGE_CEILING_S * 1000)),
    ]
    for wish in wishes:
        with suppress(OSError):
            wish()


def _read(connection: socket.socket, n_bytes: int, deadline: float) -> bytes:
    """So many bytes; OSError when they do not come in time. Never one byte more: what follows belongs to the engine."""
    data = b""
    while len(data) < n_bytes:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        more = connection.recv(n_bytes - len(data))
        if not more:
            raise ConnectionResetError("the connection was closed")
        data += more
        if time.monotonic() > deadline:
            raise TimeoutError("too slow")
    return data
