"""The sockets of a node: what happens on them goes to the link policy, and what the policy decides is done on them.

One lock guards all of it. A thread of its own reads sockets and keeps the time; whoever sends does so on its own
thread, because a hop to another one would cost more than sending. Events leave through the `Inbox`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import zmq
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from swarm import limits
from swarm.errors import RemoteProtocolError, SwarmNetworkError
from swarm.net.dial import Unreached
from swarm.net.events import Broken, Event, PeerDown, PeerUp, Received
from swarm.net.frames import Arrival, address_of, readable, receive, reply, transmit
from swarm.net.inbox import Inbox
from swarm.net.interfaces import Neighbourhood
from swarm.net.knocks import Knocks
from swarm.net.link_effects import Admit, Beat, Call, Close, Effect, Flush, Greet, Knock, Report, Say
from swarm.net.link_policy import LinkPolicy
from swarm.net.links import Outgoing, PeerInfo, PeerLink
from swarm.net.poll import Poll
from swarm.net.sockets import NOT_LET_IN, Listener, Socket, close_call, open_call
from swarm.net.zap import answer_zap
from swarm.wire import routing
from swarm.wire.codec import Buffer, encode
from swarm.wire.connection import LinkRefused, LocalEnd, answer, answered, call
from swarm.wire.ids import PeerId
from swarm.wire.messages import Lane
from swarm.wire.records import NONCE_BYTES, Address, NodeState

log = logging.getLogger(__name__)
TICK_S = 0.1  # timers are looked at this often; the shortest that matters is 0.25 s
IDLE_TICK_S = 2.5  # while nothing but slow heartbeats is due; whatever comes from outside wakes it
READS_PER_TURN = {Lane.FAST: 64, Lane.BULK: 4}  # of one socket; then the others get a turn
GOODBYE_LINGER_MS = 300
KNOCK_LOOK_S = 0.005  # a kernel in the same home refuses within a millisecond


@dataclass(frozen=True)
class CallSocket:
    """The sockets of a call of ours, and what its answer must prove to have seen."""

    socket: Socket
    monitor: Socket
    nonce: bytes


class Reactor:
    """`run()` serves on the calling thread until `stop()`; the other public methods may be called from any thread."""

    def __init__(self, me: LocalEnd, listeners: dict[Lane, Listener], inbox: Inbox) -> None:
        self.me = me
        self.infos: tuple[PeerInfo, ...] = ()
        self.state = NodeState()
        self._lock = threading.RLock()
        self._listeners = listeners
        self._inbox = inbox
        self._policy = LinkPolicy(me.peer, me.boot, Neighbourhood().is_near)
        self._poll = Poll()
        self._calls: dict[PeerLink, CallSocket] = {}
        self._welcomes: dict[PeerLink, bytes] = {}  # of callers that are being judged
        self._blocked: set[PeerLink] = set()
        self._knocks = Knocks()
        self._next_tick = 0.0
        self._paused = False
        self._stopping = False
        self._events: list[Event] = []
        self._now = time.monotonic()

    # --- for other threads

    def send(self, peer: PeerId, lane: Lane, outgoing: Outgoing) -> None:
        """Send, or queue when libzmq is full; raise PeerLost, or PeerBusy when too much waits already."""
        with self._lock:
            link, queue = self._policy.outlet(peer, lane)
            if link is None or queue or not self._transmit(link, outgoing):
                queue.append(outgoing)
                if link is not None:
                    self._flush(link)
            if self._blocked or self._poll.has_unread():
                self._poll.wake()

    def set_state(self, state: NodeState) -> None:
        """Set what the next heartbeats say, and how far apart they come."""
        with self._lock:
            is_new_beat = (state.beat_s, state.quick) != (self.state.beat_s, self.state.quick)
            self.state = state
            self._policy.set_beat(limits.QUICK_HEARTBEAT_S if state.quick else state.beat_s)
            if is_new_beat:
                self._next_tick = 0.0
        if is_new_beat:
            self._poll.wake()

    def n_waiting(self, peer: PeerId, lane: Lane) -> int:
        """Return how many messages wait here for a device."""
        with self._lock:
            return self._policy.n_waiting(peer, lane)

    def learn(self, peer: PeerId, addresses: Sequence[Address]) -> None:
        """A device may be at these addresses."""
        with self._lock:
            self._policy.learn(peer, addresses, time.monotonic())
            self._next_tick = 0.0
        self._poll.wake()

    def learn_by_hand(self, address: Address) -> None:
        """Somebody is at this address, a person says."""
        with self._lock:
            self._policy.learn_by_hand(address, time.monotonic())
            self._next_tick = 0.0
        self._poll.wake()

    def unreached(self) -> list[Unreached]:
        """Return the devices that were told of and are not connected."""
        with self._lock:
            return self._policy.unreached(time.monotonic())

    def shut_out(self, peer: PeerId) -> None:
        """Drop a device and never let it in again while this node runs."""
        with self._lock:
            self._do(self._policy.shut_out(peer, time.monotonic()))
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
        # Nothing is left to do after events were delivered but to sleep: a thread that they woke waits for the GIL.
        try:
            while not self._stopping:
                self._poll.wait(self._wait_s())
                with self._lock:
                    self._turn()
                    events, self._events = self._events, []
                    if events:
                        self._poll.look_again()
                for event in events:
                    self._inbox.deliver(event)
                if events:
                    self._paused = not self._inbox.has_room()
        except Exception as error:  # a node that neither hears nor is heard must know it
            log.exception("a bug")
            self._inbox.deliver(Broken(f"{type(error).__name__}: {error}"))
        finally:
            with self._lock:
                self._close()

    def _wait_s(self) -> float:
        if self._blocked or self._paused:
            return limits.SEND_RETRY_S
        if self._poll.has_unread():
            return 0.0
        wait_s = max(0.0, self._next_tick - time.monotonic())
        return min(wait_s, KNOCK_LOOK_S) if self._knocks else wait_s

    def _turn(self) -> None:
        self._now = time.monotonic()
        if self._paused:
            self._paused = not self._inbox.has_room()
        self._poll.run_handlers()
        for link in list(self._blocked):
            self._flush(link)
        if self._knocks:
            for peer in self._knocks.look(self._now):
                self._do(self._policy.refused_knock(peer, self._now))
        # After reading: a process that was frozen must hear what waits before it judges who is silent.
        if self._now >= self._next_tick:
            self._next_tick = self._now + (IDLE_TICK_S if self._policy.is_at_rest else TICK_S)
            self._tick()

    def _tick(self) -> None:
        self._do(self._policy.tick(self._now, is_reading=not self._paused))
        self._poll.look_at_all()
        self.infos = self._policy.infos()

    def _close(self) -> None:
        for effect in self._policy.leave():
            with contextlib.suppress(zmq.ZMQError):
                self._do([effect])
        for listener in self._listeners.values():
            listener.close(GOODBYE_LINGER_MS)
        self._knocks.close()
        self._poll.close()
        self.infos = ()

    # --- what happens on the listening sockets

    def _read_zap(self, listener: Listener) -> bool:
        if readable(listener.zap):
            answer_zap(listener.zap, self._policy.access, self._now)
        return readable(listener.zap)

    def _read_listener(self, listener: Listener) -> bool:
        incoming = self._policy.links.incoming[listener.lane]
        for _ in range(READS_PER_TURN[listener.lane]):
            if self._paused or self._events:
                return True  # the node gets a message before the next one is read: its answer must not wait
            arrival = receive(listener.router)
            if arrival is None:
                return False
            routing, frames = bytes(arrival.parts[0]), arrival.parts[1:]
            link = incoming.get(routing)
            if link is not None:
                self._receive(link, frames)
            elif not self._policy.is_muted(listener.lane, routing):
                self._answer(listener.lane, routing, frames, arrival)
        return True

    def _read_listener_monitor(self, listener: Listener) -> bool:
        """A caller's connection closed. The events of a connection come before its first message."""
        while readable(listener.monitor):
            event = recv_monitor_message(listener.monitor)
            if event["event"] == zmq.EVENT_DISCONNECTED:
                self._read_listener(listener)  # what it sent before it hung up still counts
                self._do(self._policy.disconnected(listener.lane, int(event["value"]), self._now))
        return False

    def _answer(self, lane: Lane, routing: bytes, frames: Sequence[Buffer], arrival: Arrival) -> None:
        address, key, nonce = address_of(arrival), z85.decode(arrival.said(b"User-Id")), os.urandom(NONCE_BYTES)
        link = PeerLink(lane, address, self._now, routing=routing, fd=arrival.fd())
        try:
            connection, welcome = answer(self.me, lane, nonce, frames, curve_key=key, where=str(address), now=self._now)
        except LinkRefused as refused:
            self._do(self._policy.call_refused(link, refused.refuse, self._now))
        except RemoteProtocolError as error:
            self._do(self._policy.call_broke_protocol(link, key, str(error), self._now))
        else:
            if connection.remote.port:
                link.address = Address(address.host, connection.remote.port)
            self._welcomes[link] = welcome
            self._do(self._policy.called(link, connection, self._now))
            self._welcomes.clear()

    # --- what happens on our calls

    def _read_call(self, link: PeerLink) -> bool:
        for _ in range(READS_PER_TURN[link.lane]):
            if self._paused or self._events:
                return True
            ends = self._calls.get(link)
            arrival = None if ends is None else receive(ends.socket)
            if arrival is None:
                return False
            if link.connection is None:
                self._welcome(link, arrival.parts)
            else:
                self._receive(link, arrival.parts)
        return True

    def _read_call_monitor(self, link: PeerLink) -> bool:
        while link in self._calls and readable(self._calls[link].monitor):
            event = recv_monitor_message(self._calls[link].monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._do(self._policy.handshake_done(link, self._now))
                continue
            self._read_call(link)
            if link not in self._calls:
                return False
            if link.connection is None and event in NOT_LET_IN:
                self._do(self._policy.not_let_in(link, *NOT_LET_IN[event], self._now))
            else:
                self._do(self._policy.closed(link, self._now))
        return False

    def _welcome(self, link: PeerLink, frames: Sequence[Buffer]) -> None:
        nonce, where = self._calls[link].nonce, str(link.address)
        try:
            connection = answered(self.me, link.lane, nonce, frames, where=where, now=self._now)
        except LinkRefused as refused:
            self._do(self._policy.refused(link, refused.refuse, self._now))
        except RemoteProtocolError as error:
            self._do(self._policy.broke_protocol(link, str(error), self._now))
        else:
            self._do(self._policy.welcomed(link, connection, self._now))

    # --- messages

    def _receive(self, link: PeerLink, frames: Sequence[Buffer]) -> None:
        connection = link.connection
        assert connection is not None
        try:
            result = connection.receive(frames, self._now, time.time())
        except RemoteProtocolError as error:
            self._do(self._policy.broke_protocol(link, str(error), self._now))
        else:
            kind = None if result is None else type(result[0])
            if not self._policy.may_say(link, kind, self._now):
                self._do(self._policy.broke_protocol(link, "it sends more messages than any device needs", self._now))
                return
            if result is None:
                return
            message, frame = result
            if type(message) in routing.TRANSPORT:
                n_bytes = 0 if frame is None else len(frame)
                self._do(self._policy.received(link, message, n_bytes, self._now))
            else:
                whole = None if frame is None else memoryview(frame)
                self._events.append(Received(connection.remote.peer, message, whole))

    # --- effects

    def _do(self, effects: list[Effect]) -> None:
        """Carry out what the policy decided, in order; what comes of it at once goes back to the policy."""
        for effect in effects:
            match effect:
                case Beat(link):
                    self._beat(link)
                case Say(link, message):
                    self._transmit(link, (encode(message), None))
                case Flush(link):
                    self._flush(link)
                case Report(event):
                    self._report(event)
                case Call(link):
                    self._call(link)
                case Greet(link):
                    self._greet(link)
                case Admit(link):
                    self._admit(link)
                case Close(link):
                    self._close_link(link)
                case Knock(peer, address):
                    self._knocks.begin(peer, address, self._now)

    def _call(self, link: PeerLink) -> None:
        context = self._listeners[link.lane].context
        try:
            socket, monitor = open_call(context, link.lane, self.me.credentials, link.address)
        except SwarmNetworkError:
            self._do(self._policy.closed(link, self._now))
            return
        self._calls[link] = CallSocket(socket, monitor, os.urandom(NONCE_BYTES))
        self._poll.register(socket, partial(self._read_call, link))
        self._poll.register(monitor, partial(self._read_call_monitor, link))

    def _greet(self, link: PeerLink) -> None:
        ends = self._calls[link]
        ends.socket.send(call(self.me, link.lane, ends.nonce), zmq.NOBLOCK)
        self._poll.used(ends.socket)

    def _admit(self, link: PeerLink) -> None:
        if reply(self._listeners[link.lane].router, link.routing, self._welcomes[link]):
            self._do(self._policy.up(link, self._now))

    def _beat(self, link: PeerLink) -> None:
        assert link.connection is not None
        self._transmit(link, (link.connection.heartbeat(self._now, time.time(), self.state), None))

    def _close_link(self, link: PeerLink) -> None:
        self._blocked.discard(link)
        ends = self._calls.pop(link, None)
        if ends is not None:
            self._poll.unregister(ends.socket)
            self._poll.unregister(ends.monitor)
            close_call(ends.socket, ends.monitor, GOODBYE_LINGER_MS)

    def _report(self, event: Event) -> None:
        if isinstance(event, (PeerUp, PeerDown)):
            self.infos = self._policy.infos()
        self._events.append(event)

    # --- sending

    def _flush(self, link: PeerLink) -> None:
        while link.queue:
            if not self._transmit(link, link.queue[0]):
                self._blocked.add(link)
                return
            link.queue.popleft()
        self._blocked.discard(link)

    def _transmit(self, link: PeerLink, outgoing: Outgoing) -> bool:
        """Hand one message to libzmq; False when it is full. A link that was closed swallows it."""
        if link.routing:
            socket = self._listeners[link.lane].router
        else:
            ends = self._calls.get(link)
            if ends is None:
                return True
            socket = ends.socket
        went = transmit(socket, link.routing, outgoing)
        self._poll.used(socket)
        return went
