"""Links to peers in two lanes: calls, heartbeats, who is up, and every message in and out.

One lock guards all of it. A thread of its own reads sockets and keeps the time; whoever sends does so on its own
thread, because a hop to another one would cost more than sending. Events leave through the `Inbox`.
One link to a peer carries both directions; when both sides called, both links stay, and each side keeps to one of them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from functools import partial

import zmq
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from swarm import limits
from swarm.errors import PeerBusy, PeerLost, RemoteProtocolError, SwarmNetworkError
from swarm.net.dial import Dialer, Key, Unreached
from swarm.net.events import Broken, Event, Garbage, PeerDown, PeerUp, Received
from swarm.net.frames import Arrival, address_of, readable, receive, reply, transmit
from swarm.net.gossip import news_of, tell, to_learn
from swarm.net.inbox import Inbox
from swarm.net.links import Link, Links, Outgoing, PeerInfo
from swarm.net.poll import Poll
from swarm.net.sockets import Listener, Socket, close_call, open_call
from swarm.net.warnings import CLONE_ADVICE, NOT_LET_IN, OWN_SELF, Warnings
from swarm.net.zap import AccessList, answer_zap
from swarm.wire.codec import Buffer, encode
from swarm.wire.connection import Connection, LinkRefused, LocalEnd, answer, answered, call, refusal
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import Goodbye, Gossip, Lane, LinkProbe, LinkProbed, Message
from swarm.wire.proof import NONCE_BYTES
from swarm.wire.records import Address, NodeState

log = logging.getLogger(__name__)
TICK_S = 0.1  # timers are looked at this often; the shortest that matters is 0.25 s
READS_PER_TURN = {Lane.FAST: 64, Lane.BULK: 4}  # of one socket; then the others get a turn
MOST_WAITING = {Lane.FAST: limits.FAST_QUEUE_MESSAGES, Lane.BULK: limits.BULK_QUEUE_MESSAGES}
GOODBYE_LINGER_MS = 300
OWN = frozenset((Gossip, Goodbye, LinkProbe))  # messages that end here


class Reactor:
    """`run()` serves on the calling thread until `stop()`; the other public methods may be called from any thread."""

    def __init__(self, me: LocalEnd, listeners: dict[Lane, Listener], inbox: Inbox) -> None:
        self.me = me
        self.infos: tuple[PeerInfo, ...] = ()
        self.state = NodeState()
        self._lock = threading.RLock()
        self._listeners = listeners
        self._gate = inbox
        self._links = Links()
        self._dialer = Dialer(me.peer)
        self._access_list = AccessList()
        self._poll = Poll()
        self._calls: dict[Socket, Link] = {}
        self._muted: dict[tuple[Lane, bytes], int] = {}  # routing ids that sent garbage, with their fd
        self._second_boots: dict[PeerId, float] = {}  # when a second boot of a living peer was first refused
        self._warnings = Warnings()
        self._blocked: set[Link] = set()
        self._next_tick = self._next_heartbeat = self._next_gossip = 0.0
        self._paused = False
        self._stopping = False
        self._events: list[Event] = []
        self._now = time.monotonic()

    # --- for other threads

    def send(self, peer: PeerId, lane: Lane, outgoing: Outgoing) -> None:
        """Send, or queue when libzmq is full; raise PeerLost, or PeerBusy when too much waits already."""
        with self._lock:
            links = self._links.peers.get(peer)
            if links is None:
                raise PeerLost(f"device {peer[:8]} is not connected")
            link = self._links.best(peer, lane)
            queue = links.pending if link is None else link.queue
            if len(queue) >= MOST_WAITING[lane]:
                raise PeerBusy(f"{links.connection} does not take messages as fast as they come")
            if link is None or queue or not self._transmit(link, outgoing):
                queue.append(outgoing)
                if link is not None:
                    self._flush(link)
            if self._blocked or self._poll.has_unread():
                self._poll.wake()

    def n_waiting(self, peer: PeerId, lane: Lane) -> int:
        """Return how many messages wait here for a device."""
        with self._lock:
            link = self._links.best(peer, lane)
            if link is not None:
                return len(link.queue)
            return len(self._links.peers[peer].pending) if peer in self._links.peers else 0

    def learn(self, peer: PeerId, addresses: Sequence[Address]) -> None:
        """A device may be at these addresses."""
        with self._lock:
            self._dialer.learn(peer, addresses, time.monotonic())
            self._next_tick = 0.0
        self._poll.wake()

    def learn_by_hand(self, address: Address) -> None:
        """Somebody is at this address, a person says."""
        with self._lock:
            self._dialer.learn_by_hand(address, time.monotonic())
            self._next_tick = 0.0
        self._poll.wake()

    def unreached(self) -> list[Unreached]:
        """Return the devices that were told of and are not connected."""
        with self._lock:
            return self._dialer.unreached(time.monotonic(), self._links.peers)

    def shut_out(self, peer: PeerId) -> None:
        """Drop a device and never let it in again while this node runs."""
        with self._lock:
            known = self._links.peers.get(peer)
            if known is not None:
                self._access_list.shut_out(known.connection.device_key)
                self._send(peer, refusal("forgotten", "this swarm has shut this device out", 0))
                self._dialer.leave_alone(peer, float("inf"))
                self._lose(peer, "it was shut out", certain=True)
        self._poll.wake()

    def stop(self) -> None:
        """Make `run` say goodbye and return."""
        self._stopping = True
        self._poll.wake()

    # --- the loop

    def run(self) -> None:
        """Serve until stopped; then say goodbye and close everything."""
        with self._lock:
            for listener in self._listeners.values():
                self._poll.register(listener.zap, partial(self._read_zap, listener))
                self._poll.register(listener.monitor, partial(self._read_listener_monitor, listener))
                self._poll.register(listener.router, partial(self._read_listener, listener))
        try:
            while not self._stopping:
                self._poll.wait(self._wait_s())
                with self._lock:
                    self._turn()
                    events, self._events = self._events, []
                for event in events:
                    self._gate.deliver(event)
                if events:
                    self._after_events()
        except Exception as error:  # a node that neither hears nor is heard must know it
            log.exception("a bug")
            self._gate.deliver(Broken(f"{type(error).__name__}: {error}"))
        finally:
            with self._lock:
                self._close()

    def _wait_s(self) -> float:
        if self._blocked or self._paused:
            return limits.SEND_RETRY_S
        return 0.0 if self._poll.has_unread() else max(0.0, self._next_tick - time.monotonic())

    def _after_events(self) -> None:
        """Sleep at once when nothing more waits: trying to read would keep the GIL from the thread that was woken."""
        self._paused = not self._gate.has_room()
        with self._lock:
            self._poll.look_again()

    def _turn(self) -> None:
        self._now = time.monotonic()
        if self._paused:
            self._paused = not self._gate.has_room()
        self._poll.run_handlers()
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
        self._poll.look_at_all()
        self.infos = self._links.infos()

    # --- reading

    def _read_zap(self, listener: Listener) -> bool:
        if readable(listener.zap):
            answer_zap(listener.zap, self._access_list, self._now)
        return readable(listener.zap)

    def _read_listener(self, listener: Listener) -> bool:
        for _ in range(READS_PER_TURN[listener.lane]):
            if self._paused or self._events:
                return True  # the node gets a message before the next one is read: its answer must not wait
            arrival = receive(listener.router)
            if arrival is None:
                return False
            routing, frames = bytes(arrival.parts[0]), arrival.parts[1:]
            link = self._links.incoming[listener.lane].get(routing)
            if link is not None:
                self._receive(link, frames)
            elif (listener.lane, routing) not in self._muted:
                self._answer(listener, routing, frames, arrival)
        return True

    def _read_call(self, link: Link) -> bool:
        for _ in range(READS_PER_TURN[link.lane]):
            if self._paused or self._events:
                return True
            arrival = None if link.socket.closed else receive(link.socket)
            if arrival is None:
                return False
            if link.connection is None:
                self._welcome(link, arrival.parts)
            else:
                self._receive(link, arrival.parts)
        return True

    def _read_listener_monitor(self, listener: Listener) -> bool:
        """A caller's connection closed: its link is down. The events of a connection come before its first message."""
        while readable(listener.monitor):
            event = recv_monitor_message(listener.monitor)
            if event["event"] != zmq.EVENT_DISCONNECTED:
                continue
            fd = int(event["value"])
            link = self._links.by_fd(listener.lane, fd)
            if link is not None:
                self._read_listener(listener)  # what it sent before it hung up still counts
                self._down(link, "its connection closed")
            for muted in [key for key, muted_fd in self._muted.items() if key[0] is listener.lane and muted_fd == fd]:
                del self._muted[muted]
        return False

    def _read_call_monitor(self, link: Link) -> bool:
        assert link.monitor is not None
        while not link.monitor.closed and readable(link.monitor):
            event = recv_monitor_message(link.monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._greet(link)
                continue
            self._read_call(link)
            if link.socket.closed:
                return False
            if link.connection is None and event in NOT_LET_IN:
                reason, text = NOT_LET_IN[event]
                self._tell(
                    self._warnings.not_let_in(
                        reason, link.address, f"{link.address} does not let this device in: {text}", self._now
                    )
                )
            self._down(link, "its connection closed")
        return False

    def _receive(self, link: Link, frames: Sequence[Buffer]) -> None:
        connection = link.connection
        assert connection is not None
        try:
            result = connection.receive(frames, self._now, time.time())
        except LinkRefused as refused:
            self._down(link, refused.refuse.text, refused.refuse.retry_s)
            self._tell(self._warnings.not_let_in(refused.refuse.reason, link.address, refused.refuse.text, self._now))
        except RemoteProtocolError as error:
            self._cut_off(link, error)
        else:
            if result is not None:
                self._accept(connection, *result)

    def _accept(self, connection: Connection, message: Message, frame: Buffer | None) -> None:
        peer = connection.remote.peer
        if type(message) not in OWN:
            self._events.append(Received(peer, message, None if frame is None else memoryview(frame)))
        elif isinstance(message, Gossip):
            for other, addresses in to_learn(message, self.me.peer):
                self._dialer.learn(other, addresses, self._now)
        elif isinstance(message, Goodbye):
            self._lose(peer, message.text or "it left", certain=True)
        elif isinstance(message, LinkProbe):
            self._send(peer, LinkProbed(message.sequence, 0 if frame is None else len(frame)))

    # --- links come up

    def _answer(self, listener: Listener, routing: bytes, frames: Sequence[Buffer], arrival: Arrival) -> None:
        address = address_of(arrival)
        where = str(address)
        try:
            curve_key = z85.decode(arrival.said(b"User-Id"))
            connection, welcome = answer(
                self.me,
                listener.lane,
                os.urandom(NONCE_BYTES),
                frames,
                curve_key=curve_key,
                where=where,
                now=self._now,
            )
            self._check_newcomer(connection, listener.lane, address)
        except LinkRefused as refused:
            reply(listener.router, routing, encode(refused.refuse))
            if refused.refuse.reason == "version":
                self._tell(self._warnings.not_let_in("version", address, refused.refuse.text, self._now))
            return
        except RemoteProtocolError as error:
            wait_s = self._access_list.back_off(curve_key, self._now)
            self._mute(listener.lane, routing, arrival.fd())
            reply(listener.router, routing, encode(refusal("garbage", "broke the protocol", wait_s)))
            self._events.append(Garbage(None, str(error)))
            return
        remote = connection.remote
        if remote.port:
            address = Address(address.host, remote.port)
        link = Link(listener.lane, listener.router, address, self._now, routing=routing, fd=arrival.fd())
        link.connection = connection
        if reply(listener.router, routing, welcome):
            self._up(link)

    def _welcome(self, link: Link, frames: Sequence[Buffer]) -> None:
        try:
            connection = answered(self.me, link.lane, link.nonce, frames, where=str(link.address), now=self._now)
            self._check_newcomer(connection, link.lane, link.address)
        except LinkRefused as refused:
            if refused.refuse.text == OWN_SELF and link.key is not None:
                self._dialer.drop(link.key, link.address)
            self._down(link, refused.refuse.text, refused.refuse.retry_s)
            if refused.refuse.reason in ("version", "clone", "forgotten") and refused.refuse.text != OWN_SELF:
                self._tell(
                    self._warnings.not_let_in(refused.refuse.reason, link.address, refused.refuse.text, self._now)
                )
            return
        except RemoteProtocolError as error:
            self._down(link, str(error), limits.GARBAGE_BACKOFF_S)
            self._events.append(Garbage(None, str(error)))
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
        """Raise LinkRefused for ourselves, a second device with one id, or a bulk link of a peer that is not up."""
        remote = connection.remote
        if remote.peer == self.me.peer:
            if remote.boot == self.me.boot:
                raise LinkRefused(refusal("clone", OWN_SELF, limits.GARBAGE_BACKOFF_S))
            self._tell(self._warnings.clone(remote.peer, f"this device and the one at {address}", self._now))
            raise LinkRefused(refusal("clone", "this device has your id: " + CLONE_ADVICE, limits.GARBAGE_BACKOFF_S))
        known = self._links.peers.get(remote.peer)
        if lane is Lane.BULK and known is None:
            raise LinkRefused(refusal("hello", "say Hello on the fast lane first", 0))
        if known is not None and known.connection.remote.boot != remote.boot:
            self._refuse_second_boot(remote.peer, known.connection.remote.boot, address)

    def _refuse_second_boot(self, peer: PeerId, boot: BootId, address: Address) -> None:
        """A restarted device is let in as soon as its old links are dead; while they live, it is a clone."""
        first = self._second_boots.setdefault(peer, self._now)
        if self._now - first > limits.PEER_SILENCE_S:
            best = self._links.best(peer, Lane.FAST)
            place = best.address if best is not None else boot
            self._tell(self._warnings.clone(peer, f"the devices at {place} and {address}", self._now))
        raise LinkRefused(refusal("clone", "another device with your id is connected: " + CLONE_ADVICE, 1))

    def _up(self, link: Link) -> None:
        connection = link.connection
        assert connection is not None
        remote = connection.remote
        is_new = remote.peer not in self._links.peers
        surplus = self._links.add(link, self._now)
        if surplus is not None:
            self._down(surplus, "there were too many links")
        if link.lane is Lane.BULK:
            pending = self._links.peers[remote.peer].pending
            link.queue.extend(pending)
            pending.clear()
            self._flush(link)
        elif is_new:
            self._second_boots.pop(remote.peer, None)
            self._end_other_calls(link)
            self.infos = self._links.infos()
            self._events.append(PeerUp(remote.peer, remote.name, remote.boot, remote.version, link.address))
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

    def _lose(self, peer: PeerId, reason: str, *, certain: bool = False) -> None:
        """All links to a peer are closed, and the node is told."""
        lost = self._links.peers.pop(peer, None)
        if lost is None:
            return
        for link in [*lost.lanes[Lane.FAST], *lost.lanes[Lane.BULK]]:
            self._links.remove(link)
            self._blocked.discard(link)
            if link.is_call:
                self._close_call(link)
                if link.key is not None:
                    self._dialer.ended(link.key, link.address, self._now)
        self.infos = self._links.infos()
        self._events.append(PeerDown(peer, lost.connection.remote.name, reason, certain))

    def _cut_off(self, link: Link, error: RemoteProtocolError) -> None:
        """A proven peer sent garbage: it is named, told, and not heard for a while."""
        connection = link.connection
        assert connection is not None
        peer = connection.remote.peer
        wait_s = self._access_list.back_off(connection.device_key, self._now)
        header = encode(refusal("garbage", str(error)[: limits.MAX_TEXT_BYTES // 4], wait_s))
        for each in [link for lane in self._links.peers[peer].lanes.values() for link in lane]:
            self._transmit(each, (header, None))
            if not each.is_call:
                self._mute(each.lane, each.routing, each.fd)
        self._events.append(Garbage(peer, str(error)))
        self._lose(peer, "it broke the protocol")
        self._dialer.leave_alone(peer, self._now + wait_s)

    def _mute(self, lane: Lane, routing: bytes, fd: int) -> None:
        if len(self._muted) >= limits.MAX_BLOCKED_KEYS:
            del self._muted[next(iter(self._muted))]
        self._muted[lane, routing] = fd

    def _drop_silent(self) -> None:
        for link in self._links.all():
            # The bulk lane has no heartbeat of its own: it lives and dies with the fast one.
            if link.lane is Lane.FAST and link.connection is not None and link.connection.is_silent(self._now):
                if not link.is_call:
                    reply(link.socket, link.routing, encode(refusal("hello", "you were silent", 0)))
                self._down(link, f"silent for {limits.PEER_SILENCE_S:g} s")

    # --- calls

    def _call(self, lane: Lane, address: Address, key: Key | None) -> None:
        try:
            socket, monitor = open_call(self._listeners[lane].context, lane, self.me.credentials, address)
        except SwarmNetworkError:
            if key is not None:
                self._dialer.ended(key, address, self._now)
            return
        link = Link(lane, socket, address, self._now, monitor, key, os.urandom(NONCE_BYTES))
        self._calls[socket] = link
        self._poll.register(socket, partial(self._read_call, link))
        self._poll.register(monitor, partial(self._read_call_monitor, link))

    def _greet(self, link: Link) -> None:
        """Say hello; at one address of a device at a time, so that it never has two links of ours.

        It tells us things on the first one, which would be lost if another won. An address may be called twice: because
        a person named it, and because a device was there before.
        """
        calls = [each for each in self._calls.values() if each.lane is link.lane and each.has_greeted]
        rival = next((each for each in calls if each.key == link.key or each.address == link.address), None)
        if link.key is not None and rival is not None:
            if rival.connection is not None:
                self._note_answered(link, rival.connection.remote.peer)
            self._down(link, "another call came first")
            return
        link.has_greeted = True
        link.socket.send(call(self.me, link.lane, link.nonce), zmq.NOBLOCK)
        self._poll.used(link.socket)

    def _call_bulk(self) -> None:
        """Whoever made a fast link makes a bulk link too, also when it sends on the fast link of the other one."""
        for links in self._links.peers.values():
            fast = next((link for link in links.lanes[Lane.FAST] if link.is_call), None)
            if fast is None or links.lanes[Lane.BULK] or self._now < links.call_bulk_at:
                continue
            assert fast.connection is not None
            links.call_bulk_at = self._now + limits.HANDSHAKE_TIMEOUT_S
            if fast.connection.remote.bulk_port:
                self._call(Lane.BULK, Address(fast.address.host, fast.connection.remote.bulk_port), None)

    def _end_slow_calls(self) -> None:
        for link in list(self._calls.values()):
            if link.connection is None and self._now - link.started_at > limits.HANDSHAKE_TIMEOUT_S:
                self._down(link, "no answer")

    def _end_other_calls(self, winner: Link) -> None:
        """One address of a device answered: the calls to its others are not needed.

        One that has said Hello stays: the other side may have spoken on it already.
        """
        for link in list(self._calls.values()):
            if not link.has_greeted and link.lane is Lane.FAST and link.key is not None:
                same_target = winner.connection is not None and link.key in (winner.key, winner.connection.remote.peer)
                if same_target and link is not winner:
                    self._down(link, "another address answered")

    def _close_call(self, link: Link) -> None:
        if link.socket.closed:
            return
        assert link.monitor is not None
        for socket in (link.socket, link.monitor):
            self._poll.unregister(socket)
        self._calls.pop(link.socket, None)
        close_call(link.socket, link.monitor, GOODBYE_LINGER_MS)

    # --- sending

    def _flush(self, link: Link) -> None:
        while link.queue:
            if not self._transmit(link, link.queue[0]):
                self._blocked.add(link)
                return
            link.queue.popleft()
        self._blocked.discard(link)

    def _transmit(self, link: Link, outgoing: Outgoing) -> bool:
        """Hand one message to libzmq; False when it is full."""
        went = transmit(link, outgoing)
        self._poll.used(link.socket)
        return went

    def _send(self, peer: PeerId, message: Message) -> None:
        """Send a small message of the reactor itself, beside the limits of the outbox."""
        link = self._links.best(peer, Lane.FAST)
        if link is not None:
            self._transmit(link, (encode(message), None))

    def _broadcast(self, message: Message, leave_out: PeerId | None = None) -> None:
        for peer in self._links.peers:
            if peer != leave_out:
                self._send(peer, message)

    def _send_heartbeats(self) -> None:
        wall, state = time.time(), self.state
        for link in self._links.all():
            if link.lane is Lane.FAST and link.connection is not None:
                self._transmit(link, (link.connection.heartbeat(self._now, wall, state), None))

    def _tell(self, event: Event | None) -> None:
        if event is not None:
            self._events.append(event)

    # --- the end

    def _close(self) -> None:
        goodbye = encode(Goodbye("it left"))
        for link in self._links.all():
            if link.lane is Lane.FAST:
                with contextlib.suppress(zmq.ZMQError):
                    self._transmit(link, (goodbye, None))
        for link in list(self._calls.values()):
            self._close_call(link)
        for listener in self._listeners.values():
            listener.close(GOODBYE_LINGER_MS)
        self._poll.close()
        self._links, self.infos = Links(), ()
