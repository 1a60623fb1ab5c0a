"""The thread that owns every socket: links to peers in two lanes, calls, heartbeats, and who is up.

Only this thread touches sockets and links. Others reach it through the `Outbox`, it reaches them through the `Gate`.
One link to a peer carries both directions; when both sides called, both links stay and links.py says which is used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from math import ceil

import zmq
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from swarm import limits
from swarm.errors import RemoteProtocolError, SwarmNetworkError
from swarm.net.dial import Dialer, Key
from swarm.net.events import CloneSeen, Garbage, NotLetIn, PeerDown, PeerUp, Received
from swarm.net.gossip import news_of, tell, to_learn
from swarm.net.links import Link, Links, PeerInfo
from swarm.net.outbox import Gate, LearnAddresses, LearnByHand, Outbox, Send, ShutOut
from swarm.net.sockets import Door, Socket, close_call, open_call
from swarm.net.zap import Doorman, answer_zap
from swarm.wire.codec import Buffer, encode
from swarm.wire.connection import Connection, LocalNode, Refused, answer, answered, call, refusal
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import Goodbye, Gossip, Lane, LinkProbe, LinkProbed, Message
from swarm.wire.proof import NONCE_BYTES
from swarm.wire.records import Address

TICK_S = 0.1  # timers are looked at this often; the shortest that matters is 0.25 s
READS_PER_TURN = {Lane.FAST: 64, Lane.BULK: 4}  # of one socket; then the others get a turn
GOODBYE_LINGER_MS = 300
IPV4_IN_IPV6 = "::ffff:"


class Engine:
    """Runs on its own thread from `run()` until the outbox says stop."""

    def __init__(self, me: LocalNode, doors: dict[Lane, Door], outbox: Outbox, gate: Gate) -> None:
        self.me = me
        self.infos: tuple[PeerInfo, ...] = ()
        self._doors = doors
        self._outbox = outbox
        self._gate = gate
        self._links = Links(me.peer)
        self._dialer = Dialer(me.peer)
        self._doorman = Doorman()
        self._poller = zmq.Poller()
        self._handlers: dict[object, Callable[[], None]] = {}
        self._calls: dict[Socket, Link] = {}
        self._muted: dict[tuple[Lane, bytes], int] = {}  # routing ids that sent garbage, with their fd
        self._second_boots: dict[PeerId, float] = {}  # when a second boot of a living peer was first refused
        self._noticed: dict[tuple[str, str], float] = {}
        self._blocked: set[Link] = set()
        self._next_tick = self._next_heartbeat = self._next_gossip = 0.0
        self._paused = False
        self._now = time.monotonic()

    # --- the loop

    def run(self) -> None:
        """Serve until stopped; then say goodbye and close everything."""
        self._register(self._outbox.reader.fileno(), self._take_commands)
        for door in self._doors.values():
            self._register(door.zap, partial(self._read_zap, door))
            self._register(door.monitor, partial(self._read_door_monitor, door))
            self._register(door.router, partial(self._read_door, door))
        try:
            while not self._outbox.stopping:
                self._turn()
        finally:
            self._close()

    def _turn(self) -> None:
        timeout_s = limits.SEND_RETRY_S if self._blocked or self._paused else max(0.0, self._next_tick - self._now)
        ready = self._poller.poll(ceil(timeout_s * 1000))
        self._now = time.monotonic()
        self._paused = not self._gate.has_room()
        for socket, _ in ready:
            handler = self._handlers.get(socket)
            if handler is not None:
                handler()
        for link in list(self._blocked):
            self._flush(link)
        # After reading: a process that was frozen must hear what waits before it judges who is silent.
        if self._now >= self._next_tick:
            self._next_tick = self._now + TICK_S
            self._tick()

    def _tick(self) -> None:
        if self._now >= self._next_heartbeat:
            self._next_heartbeat = self._now + limits.HEARTBEAT_INTERVAL_S
            self._send_heartbeats()
        if self._now >= self._next_gossip:
            self._next_gossip = self._now + limits.ANNOUNCE_INTERVAL_S
            self._broadcast(tell(self._links.infos(), self._now))
        if not self._paused:
            self._drop_silent()
        self._end_slow_calls()
        for key, address in self._dialer.due(self._now, self._links.peers):
            self._call(Lane.FAST, address, key)
        self._call_bulk()
        self.infos = self._links.infos()

    # --- reading

    def _read_zap(self, door: Door) -> None:
        answer_zap(door.zap, self._doorman, self._now)

    def _read_door(self, door: Door) -> None:
        for _ in range(READS_PER_TURN[door.lane]):
            frames = None if self._paused else _receive(door.router)
            if frames is None:
                return
            routing = frames[0].bytes
            link = self._links.incoming[door.lane].get(routing)
            if link is not None:
                self._receive(link, frames[1:])
            elif (door.lane, routing) not in self._muted:
                self._answer(door, routing, frames[1:])

    def _read_call(self, link: Link) -> None:
        for _ in range(READS_PER_TURN[link.lane]):
            frames = None if self._paused or link.socket.closed else _receive(link.socket)
            if frames is None:
                return
            if link.connection is None:
                self._welcome(link, frames)
            else:
                self._receive(link, frames)

    def _read_door_monitor(self, door: Door) -> None:
        """A caller's connection closed: its link is down. The events of a connection come before its first message."""
        while door.monitor.poll(0):
            event = recv_monitor_message(door.monitor)
            if event["event"] != zmq.EVENT_DISCONNECTED:
                continue
            fd = int(event["value"])
            link = self._links.by_fd(door.lane, fd)
            if link is not None:
                self._read_rest(door)
                self._down(link, "its connection closed")
            for muted in [key for key, muted_fd in self._muted.items() if key[0] is door.lane and muted_fd == fd]:
                del self._muted[muted]

    def _read_rest(self, door: Door) -> None:
        """What a peer sent before it hung up still counts."""
        self._read_door(door)

    def _read_call_monitor(self, link: Link) -> None:
        while link.monitor is not None and not link.monitor.closed and link.monitor.poll(0):
            event = recv_monitor_message(link.monitor)["event"]
            self._read_call(link)
            if link.socket.closed:
                return
            if link.connection is None and event in HANDSHAKE_FAILED:
                text = f"{link.address} does not let this device in: it has another swarm key, or is no Swarm device"
                self._notice("key", link.address, text)
            self._down(link, "its connection closed")

    def _receive(self, link: Link, frames: list[zmq.Frame]) -> None:
        connection = link.connection
        assert connection is not None
        try:
            result = connection.receive(_buffers(frames), self._now, time.time())
        except Refused as refused:
            self._down(link, refused.refuse.text, refused.refuse.retry_s)
            self._notice(refused.refuse.reason, link.address, refused.refuse.text)
        except RemoteProtocolError as error:
            self._cut_off(link, error)
        else:
            if result is not None:
                self._accept(connection, *result)

    def _accept(self, connection: Connection, message: Message, frame: Buffer | None) -> None:
        peer = connection.remote.peer
        if isinstance(message, Gossip):
            for other, addresses in to_learn(message, self.me.peer):
                self._dialer.learn(other, addresses, self._now)
        elif isinstance(message, Goodbye):
            self._lose(peer, message.text or "it left")
        elif isinstance(message, LinkProbe):
            self._send(peer, LinkProbed(message.sequence, 0 if frame is None else len(frame)))
        else:
            self._gate.deliver(Received(peer, message, None if frame is None else memoryview(frame)))

    # --- links come up

    def _answer(self, door: Door, routing: bytes, frames: list[zmq.Frame]) -> None:
        address = _address_of(frames)
        where = str(address)
        try:
            curve_key = z85.decode(str(frames[0].get("User-Id")))
            connection, welcome = answer(
                self.me,
                door.lane,
                os.urandom(NONCE_BYTES),
                _buffers(frames),
                curve_key=curve_key,
                where=where,
                now=self._now,
            )
            self._check_newcomer(connection, door.lane, address)
        except Refused as refused:
            _reply(door.router, routing, encode(refused.refuse))
            if refused.refuse.reason == "version":
                self._notice("version", address, refused.refuse.text)
            return
        except RemoteProtocolError as error:
            wait_s = self._doorman.back_off(curve_key, self._now)
            self._mute(door.lane, routing, frames[0].get(zmq.SRCFD))
            _reply(door.router, routing, encode(refusal("garbage", "broke the protocol", wait_s)))
            self._gate.deliver(Garbage(None, str(error)))
            return
        remote = connection.remote
        if remote.port:
            address = Address(address.host, remote.port)
        link = Link(door.lane, door.router, address, self._now, routing=routing, fd=frames[0].get(zmq.SRCFD))
        link.connection = connection
        if _reply(door.router, routing, welcome):
            self._up(link)

    def _welcome(self, link: Link, frames: list[zmq.Frame]) -> None:
        try:
            connection = answered(
                self.me, link.lane, link.nonce, _buffers(frames), where=str(link.address), now=self._now
            )
            self._check_newcomer(connection, link.lane, link.address)
        except Refused as refused:
            if refused.refuse.text == OWN_SELF and link.key is not None:
                self._dialer.drop(link.key, link.address)
            self._down(link, refused.refuse.text, refused.refuse.retry_s)
            if refused.refuse.reason in ("version", "clone", "forgotten") and refused.refuse.text != OWN_SELF:
                self._notice(refused.refuse.reason, link.address, refused.refuse.text)
            return
        except RemoteProtocolError as error:
            self._down(link, str(error), limits.GARBAGE_BACKOFF_S)
            self._gate.deliver(Garbage(None, str(error)))
            return
        link.connection = connection
        if link.key is not None:
            self._note_answered(link, connection.remote.peer)
        self._up(link)

    def _note_answered(self, link: Link, peer: PeerId) -> None:
        assert link.key is not None
        if isinstance(link.key, Address) or link.key == peer:
            self._dialer.answered(link.key, link.address, peer, self._now)
        else:
            self._dialer.drop(link.key, link.address)  # another device has that address now
            self._dialer.learn(peer, [link.address], self._now)

    def _check_newcomer(self, connection: Connection, lane: Lane, address: Address) -> None:
        """Raise Refused for ourselves, a second device with one id, or a bulk link of a peer that is not up."""
        remote = connection.remote
        if remote.peer == self.me.peer:
            if remote.boot == self.me.boot:
                raise Refused(refusal("clone", OWN_SELF, limits.GARBAGE_BACKOFF_S))
            self._tell_clone(remote.peer, f"this device and the one at {address}")
            raise Refused(refusal("clone", "this device has your id: " + CLONE_ADVICE, limits.GARBAGE_BACKOFF_S))
        known = self._links.peers.get(remote.peer)
        if lane is Lane.BULK and known is None:
            raise Refused(refusal("hello", "say Hello on the fast lane first", 0))
        if known is not None and known.connection.remote.boot != remote.boot:
            self._refuse_second_boot(remote.peer, known.connection.remote.boot, address)

    def _refuse_second_boot(self, peer: PeerId, boot: BootId, address: Address) -> None:
        """A restarted device is let in as soon as its old links are dead; while they live, it is a clone."""
        first = self._second_boots.setdefault(peer, self._now)
        if self._now - first > limits.PEER_SILENCE_S:
            best = self._links.best(peer, Lane.FAST)
            place = best.address if best is not None else boot
            self._tell_clone(peer, f"the devices at {place} and {address}")
        raise Refused(refusal("clone", "another device with your id is connected: " + CLONE_ADVICE, 1))

    def _up(self, link: Link) -> None:
        connection = link.connection
        assert connection is not None
        remote = connection.remote
        is_new = remote.peer not in self._links.peers
        surplus = self._links.add(link)
        if surplus is not None:
            self._down(surplus, "there were too many links")
        if link.lane is Lane.BULK:
            pending = self._links.peers[remote.peer].pending
            link.queue.extend(pending)
            pending.clear()
            self._flush(link)
        elif is_new:
            self._second_boots.pop(remote.peer, None)
            self._outbox.open(remote.peer)
            self._end_other_calls(link)
            self.infos = self._links.infos()
            self._gate.deliver(PeerUp(remote.peer, remote.name, remote.boot, remote.version, link.address))
            self._send(remote.peer, tell(self.infos, self._now, leave_out=remote.peer))
            self._broadcast(news_of(self.infos, remote.peer, self._now), leave_out=remote.peer)

    # --- links go down

    def _down(self, link: Link, reason: str, wait_s: float = 0.0) -> None:
        """Close a link or a call; when it was the last to its peer, the peer is down."""
        was_last = self._links.remove(link)
        self._blocked.discard(link)
        if link.is_call:
            self._close_call(link)
            if link.key is not None:
                self._dialer.ended(link.key, link.address, self._now, wait_s)
        if link.connection is None:
            return
        peer = link.connection.remote.peer
        if was_last:
            self._lose(peer, reason)
        elif peer in self._links.peers:
            self._requeue(peer, link)

    def _requeue(self, peer: PeerId, link: Link) -> None:
        other = self._links.best(peer, link.lane)
        if other is not None:
            other.queue.extend(link.queue)
            self._flush(other)
        elif link.lane is Lane.BULK:
            self._links.peers[peer].pending.extend(link.queue)

    def _lose(self, peer: PeerId, reason: str) -> None:
        """All links to a peer are closed, and the node is told."""
        lost = self._links.peers.pop(peer, None)
        if lost is None:
            return
        self._outbox.close(peer)
        for link in [*lost.lanes[Lane.FAST], *lost.lanes[Lane.BULK]]:
            self._links.remove(link)
            self._blocked.discard(link)
            if link.is_call:
                self._close_call(link)
                if link.key is not None:
                    self._dialer.ended(link.key, link.address, self._now)
        self.infos = self._links.infos()
        self._gate.deliver(PeerDown(peer, lost.connection.remote.name, reason))

    def _cut_off(self, link: Link, error: RemoteProtocolError) -> None:
        """A proven peer sent garbage: it is named, told, and not heard for a while."""
        connection = link.connection
        assert connection is not None
        peer = connection.remote.peer
        wait_s = self._doorman.back_off(connection.device_key, self._now)
        header = encode(refusal("garbage", str(error)[: limits.MAX_TEXT_BYTES // 4], wait_s))
        for each in [link for lane in self._links.peers[peer].lanes.values() for link in lane]:
            self._transmit(each, (header, None))
            if not each.is_call:
                self._mute(each.lane, each.routing, each.fd)
        self._lose(peer, "it broke the protocol")
        self._dialer.leave_alone(peer, self._now + wait_s)
        self._gate.deliver(Garbage(peer, str(error)))

    def _mute(self, lane: Lane, routing: bytes, fd: int) -> None:
        if len(self._muted) >= limits.MAX_BLOCKED_KEYS:
            del self._muted[next(iter(self._muted))]
        self._muted[lane, routing] = fd

    def _drop_silent(self) -> None:
        for link in self._links.all():
            # The bulk lane has no heartbeat of its own: it lives and dies with the fast one.
            if link.lane is Lane.FAST and link.connection is not None and link.connection.is_silent(self._now):
                if not link.is_call:
                    _reply(link.socket, link.routing, encode(refusal("hello", "you were silent", 0)))
                self._down(link, f"silent for {limits.PEER_SILENCE_S:g} s")

    # --- calls

    def _call(self, lane: Lane, address: Address, key: Key | None) -> None:
        try:
            socket, monitor = open_call(self._doors[lane].context, lane, self.me.credentials, address)
        except SwarmNetworkError:
            if key is not None:
                self._dialer.ended(key, address, self._now)
            return
        link = Link(lane, socket, address, self._now, monitor, key, os.urandom(NONCE_BYTES))
        self._calls[socket] = link
        self._register(socket, partial(self._read_call, link))
        self._register(monitor, partial(self._read_call_monitor, link))
        socket.send(call(self.me, lane, link.nonce), zmq.NOBLOCK)

    def _call_bulk(self) -> None:
        """Whoever made the fast link makes the bulk link too."""
        for peer, links in self._links.peers.items():
            best = self._links.best(peer, Lane.FAST)
            if best is None or not best.is_call or links.lanes[Lane.BULK] or self._now < links.call_bulk_at:
                continue
            assert best.connection is not None
            links.call_bulk_at = self._now + limits.HANDSHAKE_TIMEOUT_S
            if best.connection.remote.bulk_port:
                self._call(Lane.BULK, Address(best.address.host, best.connection.remote.bulk_port), None)

    def _end_slow_calls(self) -> None:
        for link in list(self._calls.values()):
            if link.connection is None and self._now - link.started_at > limits.HANDSHAKE_TIMEOUT_S:
                self._down(link, "no answer")

    def _end_other_calls(self, winner: Link) -> None:
        """One address of a device answered: the calls to its others are not needed."""
        for link in list(self._calls.values()):
            if link.connection is None and link.lane is Lane.FAST and link.key is not None:
                same_target = winner.connection is not None and link.key in (winner.key, winner.connection.remote.peer)
                if same_target and link is not winner:
                    self._down(link, "another address answered")

    def _close_call(self, link: Link) -> None:
        if link.socket.closed:
            return
        assert link.monitor is not None
        for socket in (link.socket, link.monitor):
            self._poller.unregister(socket)
            del self._handlers[socket]
        self._calls.pop(link.socket, None)
        close_call(link.socket, link.monitor, GOODBYE_LINGER_MS)

    # --- sending

    def _take_commands(self) -> None:
        for command in self._outbox.take():
            match command:
                case Send(peer, lane, header, frame):
                    self._post(peer, lane, (header, frame))
                case LearnAddresses(peer, addresses):
                    self._dialer.learn(peer, addresses, self._now)
                    self._next_tick = self._now
                case LearnByHand(address):
                    self._dialer.learn_by_hand(address, self._now)
                    self._next_tick = self._now
                case ShutOut(peer):
                    self._shut_out(peer)

    def _shut_out(self, peer: PeerId) -> None:
        known = self._links.peers.get(peer)
        if known is not None:
            self._doorman.shut_out(known.connection.device_key)
            self._send(peer, refusal("forgotten", "this swarm has shut this device out", 0))
            self._lose(peer, "it was shut out")
            self._dialer.leave_alone(peer, float("inf"))

    def _post(self, peer: PeerId, lane: Lane, outgoing: tuple[bytes, Buffer | None]) -> None:
        known = self._links.peers.get(peer)
        if known is None:
            return  # it went down after the sender looked; PeerDown says so
        link = self._links.best(peer, lane)
        if link is None:
            known.pending.append(outgoing)
            return
        link.queue.append(outgoing)
        self._flush(link)

    def _flush(self, link: Link) -> None:
        connection = link.connection
        assert connection is not None
        while link.queue:
            if not self._transmit(link, link.queue[0]):
                self._blocked.add(link)
                return
            link.queue.popleft()
            self._outbox.sent(connection.remote.peer, link.lane)
        self._blocked.discard(link)

    def _transmit(self, link: Link, outgoing: tuple[bytes, Buffer | None]) -> bool:
        """Hand one message to libzmq; False when it is full. A closed link swallows it."""
        header, frame = outgoing
        parts: list[Buffer] = [link.routing, header] if link.routing else [header]
        if frame is not None:
            parts.append(frame)
        try:
            link.socket.send_multipart(parts, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
        return True

    def _send(self, peer: PeerId, message: Message) -> None:
        """Send a small message of the engine itself, beside the limits of the outbox."""
        link = self._links.best(peer, Lane.FAST)
        if link is not None:
            self._transmit(link, (encode(message), None))

    def _broadcast(self, message: Message, leave_out: PeerId | None = None) -> None:
        for peer in self._links.peers:
            if peer != leave_out:
                self._send(peer, message)

    def _send_heartbeats(self) -> None:
        wall, state = time.time(), self._outbox.state
        for link in self._links.all():
            if link.lane is Lane.FAST and link.connection is not None:
                self._transmit(link, (link.connection.heartbeat(self._now, wall, state), None))

    # --- telling

    def _notice(self, reason: str, address: Address, text: str) -> None:
        if reason in ("hello", "garbage") or not self._is_news(reason, address.host):
            return
        self._gate.deliver(NotLetIn(address, reason, text))

    def _tell_clone(self, peer: PeerId, who: str) -> None:
        if self._is_news("clone", peer):
            self._gate.deliver(CloneSeen(peer, f"{who} have the same id {peer[:8]}: {CLONE_ADVICE}"))

    def _is_news(self, what: str, whom: str) -> bool:
        if self._now < self._noticed.get((what, whom), 0.0):
            return False
        if len(self._noticed) >= limits.MAX_PEERS:
            self._noticed.clear()
        self._noticed[what, whom] = self._now + limits.NOTICE_INTERVAL_S
        return True

    # --- sockets

    def _register(self, socket: Socket | int, handler: Callable[[], None]) -> None:
        self._handlers[socket] = handler
        self._poller.register(socket, zmq.POLLIN)

    def _close(self) -> None:
        goodbye = encode(Goodbye("it left"))
        for link in self._links.all():
            if link.lane is Lane.FAST:
                self._transmit(link, (goodbye, None))
        for link in list(self._calls.values()):
            self._close_call(link)
        for door in self._doors.values():
            door.close(GOODBYE_LINGER_MS)
        self._outbox.reader.close()


CLONE_ADVICE = (
    "one has a copy of the other's files (a cloned SD card?); run `swarm forget` on one and let it join again"
)
OWN_SELF = "this is your own address"
HANDSHAKE_FAILED = (
    zmq.Event.HANDSHAKE_FAILED_AUTH,
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL,
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL,
)


def _receive(socket: Socket) -> list[zmq.Frame] | None:
    """Return the frames of the next message without copying them, None when there is none.

    Frames past the limit are read and thrown away, so that the codec refuses the message.
    """
    try:
        frames = [socket.recv(zmq.NOBLOCK, copy=False)]
    except zmq.Again:
        return None
    while frames[-1].more:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
        if len(frames) > limits.MAX_FRAMES + 1:
            frames.pop()
        frames.append(frame)
    return frames


def _buffers(frames: list[zmq.Frame]) -> list[Buffer]:
    return [frame.buffer for frame in frames]


def _reply(router: Socket, routing: bytes, header: bytes) -> bool:
    try:
        router.send_multipart([routing, header], zmq.NOBLOCK)
    except zmq.ZMQError:  # full or gone: whoever called calls again
        return False
    return True


def _address_of(frames: list[zmq.Frame]) -> Address:
    host = str(frames[0].get("Peer-Address")).removeprefix(IPV4_IN_IPV6)
    return Address(host, 1)
