"""Devices that are nothing but link policies, over a simulated wire and under a virtual clock.

The wire does what TCP, kernels and home networks do: connections deliver in order and each at its own pace, stand still
while a path is cut, break, are closed by the kernel of a process that dies, or by nobody when the power fails; a
process may be frozen. Everything comes from one seed. While a story is played each device says numbered messages to all
that are connected; at the end everybody must be connected to everybody, and nothing may be missing that no fault took.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import permutations
from random import Random

from swarm.cluster.membership import Membership
from swarm.errors import PeerBusy, PeerLost
from swarm.net.events import CloneSeen, Garbage, Gone, PeerDown, PeerUp
from swarm.net.link_effects import Admit, Beat, Call, Close, Effect, Flush, Greet, Knock, Report, Say
from swarm.net.link_policy import LinkPolicy
from swarm.net.links import PeerLink
from swarm.wire.connection import Connection, Remote, refusal
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import PROTOCOL, Lane, Message, Refuse
from swarm.wire.records import Address

TICK_S = 0.1
TALK_S = {Lane.FAST: 0.1, Lane.BULK: 0.3}  # between two numbered messages to the same device
RETRY_S = 0.2  # TCP sends again what a cut path held up
HIGH_WATER_MARK = 5  # messages under way on a connection; more wait at the sender


class Violation(AssertionError):
    """An invariant does not hold; the text names the seed and the time."""


@dataclass(eq=False)
class Said:
    """A numbered message: it has to arrive, unless a fault or a PeerDown took it."""

    sender: Run
    receiver: PeerId
    lane: Lane
    number: int
    session: int  # how often the receiver had come up for the sender
    at: float
    wire: Wire | None = None  # while None it waits at the sender
    arrived: bool = False

    def may_be_lost(self, receiver: Run | None) -> bool:
        """True when its connection had a fault, or one of both sides was told of a PeerDown."""
        sender = self.sender
        if not sender.is_alive or receiver is None or (self.wire is not None and self.wire.is_faulty):
            return True
        if sender.n_up[self.receiver] != self.session or self.receiver not in sender.up:
            return True
        down_at = receiver.down_at.get(sender.device.id, -1.0)
        return down_at >= self.at or (self.wire is not None and receiver not in self.wire.flows)

    def __str__(self) -> str:
        return f"{self.lane.value} message {self.number} of {self.sender.device.name}, said at {self.at:.2f} s"


@dataclass(frozen=True)
class Hello:
    """The caller's first message, or with `is_answer` the Welcome: who one is, proven."""

    remote: Remote
    is_answer: bool = False


@dataclass(frozen=True)
class Sign:
    """A heartbeat, garbage, or the end of the connection."""

    kind: str


Item = Hello | Sign | Said | Message


@dataclass
class Path:
    """One direction between two devices."""

    delay_s: float
    jitter_s: float
    cut: bool = False


@dataclass(eq=False)
class Flow:
    """One direction of a connection: in order, and late where the path is."""

    wire: Wire
    source: Run
    sink: Run
    items: deque[tuple[float, Item]] = field(default_factory=deque)
    last_at: float = 0.0
    is_pumping: bool = False
    is_over: bool = False


class Wire:
    """One TCP connection between two runs of devices."""

    def __init__(self, caller: Run, called: Run, link: PeerLink, number: int) -> None:
        self.caller, self.called = caller, called
        self.lane, self.number = link.lane, number
        self.links: dict[Run, PeerLink] = {caller: link}
        self.flows = {caller: Flow(self, caller, called), called: Flow(self, called, caller)}
        self.is_faulty = False  # something outside the policies took what was under way

    @property
    def routing(self) -> bytes:
        return b"%d" % self.number

    @property
    def is_open(self) -> bool:
        return not any(flow.is_over for flow in self.flows.values())

    def __str__(self) -> str:
        return f"{self.lane.value} {self.caller.device.name}->{self.called.device.name} #{self.number}"


class Device:
    """What outlives a restart: an id and addresses."""

    def __init__(self, sim: Sim, index: int) -> None:
        self.sim, self.index = sim, index
        self.id = PeerId(f"{index + 1:032x}")
        self.name = "abc"[index]
        self.addresses = tuple(Address(f"10.0.{net}.{index + 1}", 7417) for net in range(2))
        self.has_power = True
        self.run: Run | None = None


class Run:
    """One start of a device: what its reactor would do."""

    def __init__(self, sim: Sim, device: Device) -> None:
        self.sim, self.device = sim, device
        sim.n_boots += 1
        self.boot = BootId(f"{sim.n_boots:016x}")
        self.offset = sim.rng.uniform(0, 1e5)  # every machine has its own clock
        self.policy = LinkPolicy(device.id, self.boot)
        self.members = Membership(device.id, self.boot, device.name)  # as in the core: it judges silence by itself
        self.remote = Remote(device.id, self.boot, device.name, PROTOCOL, 7417, 7418, bytes([device.index]))
        self.wires: dict[PeerLink, Wire] = {}
        self.incoming: dict[bytes, Wire] = {}
        self.blocked: dict[PeerLink, None] = {}
        self.is_frozen = False
        self.up: dict[PeerId, BootId] = {}
        self.n_up: dict[PeerId, int] = {}
        self.down_at: dict[PeerId, float] = {}
        self.said: dict[tuple[PeerId, Lane], list[Said]] = {}
        self.heard: dict[tuple[Run, int, Lane], int] = {}  # the last number
        self.clones: list[str] = []
        sim.after(sim.rng.uniform(0, TICK_S), self.tick)
        sim.after(sim.rng.uniform(0, TICK_S), self.tick_core)
        for lane in Lane:
            sim.after(sim.rng.uniform(0, TALK_S[lane]), lambda lane=lane: self.talk(lane))  # type: ignore[misc]

    @property
    def now(self) -> float:
        return self.sim.now + self.offset

    @property
    def is_alive(self) -> bool:
        return self.device.run is self

    def tick(self) -> None:
        if not self.is_alive:
            return
        if not self.is_frozen:
            self.do(self.policy.tick(self.now))
        self.sim.after(TICK_S, self.tick)

    def tick_core(self) -> None:
        """The node's loop has its own ticks: there silence may be judged a moment before or after."""
        if not self.is_alive:
            return
        if not self.is_frozen:
            self.members.tick(self.now)
        self.sim.after(TICK_S, self.tick_core)

    # --- numbered messages

    def talk(self, lane: Lane) -> None:
        if not self.is_alive:
            return
        if not self.is_frozen and self.sim.is_talking:
            for peer in list(self.up):
                self.say(peer, lane)
        self.sim.after(TALK_S[lane], lambda: self.talk(lane))

    def say(self, peer: PeerId, lane: Lane) -> None:
        try:
            link, queue = self.policy.outlet(peer, lane)
        except PeerBusy:
            return
        except PeerLost:
            self.sim.fail(f"{self.device.name} was told that {peer[-1]} is up, and has no link to it")
        messages = self.said.setdefault((peer, lane), [])
        said = Said(self, peer, lane, len(messages), self.n_up[peer], self.sim.now)
        messages.append(said)
        if link is None or queue or not self.transmit(link, said):
            queue.append((b"", Parcel(said)))
            if link is not None:
                self.flush(link)

    def transmit(self, link: PeerLink, item: Item) -> bool:
        wire = self.wires.get(link)
        if wire is None:
            return True  # swallowed, as libzmq does
        flow = wire.flows[self]
        if isinstance(item, Said):
            if not flow.is_over and sum(isinstance(each, Said) for _, each in flow.items) >= HIGH_WATER_MARK:
                return False
            item.wire = wire
        self.sim.send(flow, item)
        return True

    def flush(self, link: PeerLink) -> None:
        while link.queue:
            parcel = link.queue[0][1]
            assert isinstance(parcel, Parcel)
            if not self.transmit(link, parcel.said):
                self.blocked[link] = None
                return
            link.queue.popleft()
        self.blocked.pop(link, None)

    # --- effects

    def do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            self.sim.log(self, effect)
            match effect:
                case Call(link):
                    self.sim.call(self, link)
                case Greet(link):
                    self.transmit(link, Hello(self.remote))
                case Admit(link):
                    self.transmit(link, Hello(self.remote, is_answer=True))
                    self.do(self.policy.up(link, self.now))
                case Beat(link):
                    self.transmit(link, Sign("beat"))
                case Say(link, message):
                    self.transmit(link, message)
                case Flush(link):
                    self.flush(link)
                case Close(link):
                    self.blocked.pop(link, None)
                    if link.is_call and link in self.wires:
                        self.sim.hang_up(self, self.wires.pop(link))
                case Knock(peer, address):
                    self.sim.knock(self, peer, address)
                case Report(event):
                    self.report(event)

    def report(self, event: object) -> None:
        match event:
            case PeerUp(peer, name, boot):
                if peer in self.up:
                    self.sim.fail(f"{self.device.name} hears twice that {name} is up")
                self.up[peer] = boot
                self.n_up[peer] = self.n_up.get(peer, 0) + 1
                self.members.up(peer, boot, name, self.now)
            case PeerDown(peer, name, reason, certain):
                if self.up.pop(peer, None) is None:
                    self.sim.fail(f"{self.device.name} hears that {name} is down, which was not up")
                self.down_at[peer] = self.sim.now
                self.members.down(peer, reason, self.now, certain=certain)
            case Gone(peer):
                if peer in self.up:
                    self.sim.fail(f"{self.device.name} hears that {peer[-1]} is gone, which is up")
                self.members.down(peer, "nothing listens there", self.now, certain=True)
            case CloneSeen(_, text):
                self.clones.append(text)
            case Garbage():
                if not self.sim.has_garbage:
                    self.sim.fail(f"{self.device.name} hears garbage: {event.text}")

    # --- what comes from the wire

    def arrive(self, wire: Wire, item: Item) -> None:
        self.sim.log(self, item)
        link = self.wires.get(wire.links[self]) and wire.links[self] if wire.caller is self else self.link_of(wire)
        if isinstance(item, Sign) and item.kind == "end":
            self.ended(wire, link)
        elif wire.caller is not self and link is None:
            self.answer(wire, item)
        elif link is not None and link.connection is None:
            self.answered(link, item)
        elif link is not None:
            self.receive(link, item)

    def link_of(self, wire: Wire) -> PeerLink | None:
        return self.policy.links.incoming[wire.lane].get(wire.routing)

    def ended(self, wire: Wire, link: PeerLink | None) -> None:
        if wire.caller is self:
            if link is not None:
                self.do(self.policy.closed(link, self.now))
                self.wires.pop(link, None)
        else:
            self.do(self.policy.disconnected(wire.lane, wire.number, self.now))
            self.incoming.pop(wire.routing, None)

    def answer(self, wire: Wire, item: Item) -> None:
        if self.policy.is_muted(wire.lane, wire.routing):
            return
        link = PeerLink(wire.lane, wire.caller.device.addresses[0], self.now, routing=wire.routing, fd=wire.number)
        self.wires[link] = wire
        wire.links[self] = link
        if isinstance(item, Hello):
            self.do(self.policy.called(link, Connection(item.remote, wire.lane, self.now), self.now))
        elif isinstance(item, Sign) and item.kind == "garbage":
            self.do(self.policy.call_broke_protocol(link, wire.caller.remote.device_key, "garbage", self.now))
        else:
            self.do(self.policy.call_refused(link, refusal("hello", "say Hello first", 0), self.now))

    def answered(self, link: PeerLink, item: Item) -> None:
        if isinstance(item, Refuse):
            self.do(self.policy.refused(link, item, self.now))
        elif isinstance(item, Hello):
            self.do(self.policy.welcomed(link, Connection(item.remote, link.lane, self.now), self.now))
        else:
            self.do(self.policy.broke_protocol(link, "no Welcome came first", self.now))

    def receive(self, link: PeerLink, item: Item) -> None:
        connection = link.connection
        assert connection is not None
        if isinstance(item, Sign) and item.kind == "garbage":
            self.do(self.policy.broke_protocol(link, "garbage", self.now))
            return
        if isinstance(item, Hello):
            self.sim.fail(f"{self.device.name} hears Hello on a link that is up")
        connection.heard_at = self.now
        peer = connection.remote.peer
        self.members.heard(peer, self.now)
        if isinstance(item, Message):
            self.do(self.policy.received(link, item, 0, self.now))
        elif isinstance(item, Said):
            self.take(peer, item)

    def take(self, peer: PeerId, said: Said) -> None:
        if peer not in self.up:
            self.sim.fail(f"{self.device.name} hears {said} before it is up")
        if said.arrived:
            self.sim.fail(f"{said} comes twice")
        said.arrived = True
        key = (said.sender, said.session, said.lane)
        if self.heard.get(key, -1) > said.number and not said.may_be_lost(self):
            self.sim.fail(f"{said} comes after message {self.heard[key]}")
        self.heard[key] = max(said.number, self.heard.get(key, -1))


class Parcel(bytes):
    """A numbered message in a queue of links, where bytes are expected."""

    said: Said

    def __new__(cls, said: Said) -> Parcel:
        parcel = super().__new__(cls)
        parcel.said = said
        return parcel


class Sim:
    """The devices, the paths between them, and the time."""

    def __init__(self, seed: int, n_devices: int, *, verbose: bool = False) -> None:
        self.seed, self.verbose = seed, verbose
        self.rng = Random(seed)
        self.now = 0.0
        self.is_talking = True
        self.has_garbage = False
        self.n_boots = self._n_wires = self._n_events = 0
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self.wires: list[Wire] = []
        self.devices = [Device(self, index) for index in range(n_devices)]
        self.runs: list[Run] = []
        self.paths = {
            (a, b): Path(10 ** self.rng.uniform(-4, -1.3), self.rng.choice((0.0001, 0.005, 0.1)))
            for a, b in permutations(self.devices, 2)
        }

    def messages_said(self) -> int:
        return sum(len(messages) for run in self.runs for messages in run.said.values())

    # --- time

    def after(self, delay_s: float, event: Callable[[], object]) -> None:
        self._n_events += 1
        heapq.heappush(self._events, (self.now + delay_s, self._n_events, event))

    def run_for(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = end

    def fail(self, why: str) -> None:
        raise Violation(f"seed {self.seed} at {self.now:.3f} s: {why}")

    def log(self, run: Run, what: object) -> None:
        if self.verbose and not isinstance(what, (Beat, Sign)):
            print(f"{self.now:8.4f} {run.device.name} {what}")

    # --- devices

    def start(self, device: Device) -> Run:
        device.has_power = True
        device.run = Run(self, device)
        self.runs.append(device.run)
        return device.run

    def kill(self, device: Device, *, power: bool) -> None:
        """End a process: its kernel closes its connections; without power nobody does."""
        run, device.run = device.run, None
        device.has_power = not power
        for wire in self.wires_of(run):
            wire.is_faulty = True
            if not power:
                self._end(wire.flows[run])  # type: ignore[index]

    def wires_of(self, run: Run | None) -> list[Wire]:
        return [wire for wire in self.wires if wire.is_open and run in wire.flows]

    def freeze(self, run: Run, seconds: float) -> None:
        """A process stands still; its kernel goes on taking what comes."""
        run.is_frozen = True
        self._spoil(run.device)
        self.after(seconds, lambda: self._thaw(run))

    def _thaw(self, run: Run) -> None:
        self._spoil(run.device)
        run.is_frozen = False
        for wire in self.wires_of(run):
            self._pump(wire.flows[wire.called if wire.caller is run else wire.caller])

    def cut(self, source: Device, sink: Device, seconds: float) -> None:
        """Nothing goes from one to the other for a while."""
        path = self.paths[source, sink]
        path.cut = True
        self._spoil(source, sink)

        def mend() -> None:
            self._spoil(source, sink)
            path.cut = False

        self.after(seconds, mend)

    def break_wire(self, wire: Wire) -> None:
        """A connection breaks, and what was under way on it is lost."""
        wire.is_faulty = True
        for flow in wire.flows.values():
            flow.items.clear()
            self._end(flow)

    def _spoil(self, *devices: Device) -> None:
        for wire in self.wires:
            ends = {wire.caller.device, wire.called.device}
            if wire.is_open and ends >= set(devices):
                wire.is_faulty = True

    # --- connections

    def knock(self, run: Run, peer: PeerId, address: Address) -> None:
        """A kernel refuses where no process listens; one that is cut off, or has no power, says nothing."""
        target = self.at(address)
        if target is None or target.run is not None or not target.has_power:
            return
        there, back = self.paths[run.device, target], self.paths[target, run.device]
        if not there.cut and not back.cut:
            self.after(2 * there.delay_s, lambda: self._refuse(run, peer))

    @staticmethod
    def _refuse(run: Run, peer: PeerId) -> None:
        if run.is_alive and not run.is_frozen:
            run.do(run.policy.refused_knock(peer, run.now))

    def at(self, address: Address) -> Device | None:
        """Whose address that is."""
        return next((each for each in self.devices if address.host in {a.host for a in each.addresses}), None)

    def call(self, run: Run, link: PeerLink) -> None:
        target = self.at(link.address)
        if target is None or target is run.device:
            self.after(0.01, lambda: self._give_up(run, link))
            return
        self._connect(run, link, target)

    def _connect(self, run: Run, link: PeerLink, target: Device) -> None:
        """SYN, and the handshakes of ZMTP and CURVE. A kernel tries a cut path again, until the caller gives up."""
        if not run.is_alive or link not in run.policy._calls:
            return
        there, back = self.paths[run.device, target], self.paths[target, run.device]
        if there.cut or back.cut or not target.has_power or (target.run is not None and target.run.is_frozen):
            self.after(1.0, lambda: self._connect(run, link, target))
        elif target.run is None:
            self.after(2 * there.delay_s, lambda: self._give_up(run, link))
        else:
            self._n_wires += 1
            wire = Wire(run, target.run, link, self._n_wires)
            rounds = 3 * (self._delay(there) + self._delay(back))
            self.after(rounds, lambda: self._connected(wire, link))

    def _connected(self, wire: Wire, link: PeerLink) -> None:
        caller, called = wire.caller, wire.called
        if not caller.is_alive or link not in caller.policy._calls:
            return
        if not called.is_alive:
            self._give_up(caller, link)
        elif not called.policy.access.may_enter(caller.remote.device_key, called.now):
            caller.do(caller.policy.not_let_in(link, "forgotten", "it was shut out", caller.now))
        else:
            self.wires.append(wire)
            caller.wires[link] = wire
            called.incoming[wire.routing] = wire
            caller.do(caller.policy.handshake_done(link, caller.now))

    def _give_up(self, run: Run, link: PeerLink) -> None:
        if run.is_alive and link in run.policy._calls:
            run.do(run.policy.closed(link, run.now))

    def send(self, flow: Flow, item: Item) -> None:
        if flow.is_over:
            return
        at = max(flow.last_at, self.now + self._delay(self.paths[flow.source.device, flow.sink.device]))
        flow.last_at = at
        flow.items.append((at, item))
        if not flow.is_pumping:
            flow.is_pumping = True
            self.after(at - self.now, lambda: self._pump(flow))

    def hang_up(self, run: Run, wire: Wire) -> None:
        """The caller closes: what it said before still leaves; what is under way to it is lost."""
        self._end(wire.flows[run])

    def _end(self, flow: Flow) -> None:
        self.send(flow, Sign("end"))

    def _pump(self, flow: Flow) -> None:
        """Deliver what is due, in order."""
        flow.is_pumping = False
        wire, path = flow.wire, self.paths[flow.source.device, flow.sink.device]
        if flow.items and (path.cut or flow.sink.is_frozen or not flow.sink.device.has_power):
            flow.is_pumping = True
            self.after(RETRY_S, lambda: self._pump(flow))
            return
        while flow.items and flow.items[0][0] <= self.now:
            _, item = flow.items.popleft()
            if not flow.sink.is_alive:  # the kernel there knows no such connection any more
                flow.is_over = wire.is_faulty = True
                flow.items.clear()
                self._end(wire.flows[flow.sink])
                return
            flow.sink.arrive(wire, item)
            if isinstance(item, Sign) and item.kind == "end":
                flow.is_over = True
                flow.items.clear()
                return
        for link in list(flow.source.blocked):
            if flow.source.is_alive and not flow.source.is_frozen:
                flow.source.flush(link)
        if flow.items and not flow.is_pumping:
            flow.is_pumping = True
            self.after(max(0.0, flow.items[0][0] - self.now), lambda: self._pump(flow))

    def _delay(self, path: Path) -> float:
        return path.delay_s + self.rng.uniform(0, path.jitter_s)
