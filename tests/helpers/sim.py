"""A swarm under a virtual clock: real node cores, a toy model, and a network that does everything a network may do.

Everything comes from one seed: devices, chats, loss, delay, repetition, reordering, deaths, restarts, freezes, splits
and one-way links. After every event the invariants of the node that handled it are checked; at the end every chat whose
entry node lived must have got the exact text that one device gives.

    python -m tests.helpers.sim SEED [-v] [--slices] [--keeps]      play one seed again, with -v every event
"""

from __future__ import annotations

import heapq
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from random import Random
from typing import Protocol

from swarm import limits
from swarm.cluster import effects as fx
from swarm.cluster.core import Core, Identity
from swarm.cluster.cost import Exchange, ModelCost, MtpCost
from swarm.cluster.pipeline import Pipeline
from swarm.cluster.planner import Layout
from swarm.cluster.session import AnswerRequest, Phase
from swarm.parts import Part, all_parts
from swarm.wire import codec
from swarm.wire.ids import BootId, ModelId, PeerId, SessionId
from swarm.wire.messages import Goodbye, Heartbeat, Message
from swarm.wire.records import Capabilities, Sampling, TensorInfo
from tests.helpers import toy
from tests.helpers.guesses import Clairvoyant
from tests.helpers.sim_kept import KeptDisk
from tests.helpers.sim_stages import FAILED, Stages

MODEL = ModelId("ab" * 32)
POLL_S = 0.1  # of the transport, and of a node that ticks more often than its core asks for
LATENESS_S = 1e-6  # of a timer: a clock that was read a little early must not make it spin
LATE_S = 2.5
KNOCK_S = 0.012  # after a death: closed connections are seen, and one looks whether anything listens
QUEUE_MESSAGES = 4096  # of a frozen node; more are lost, as a full socket loses them


class Broken(AssertionError):
    """An invariant does not hold; the text names the seed and the time."""


@dataclass
class Wire:
    """One direction between two nodes."""

    delay_s: float = 0.0003
    jitter_s: float = 0.0001
    loss: float = 0.0
    repeat: float = 0.0
    reorder: bool = False
    late: float = 0.0  # share of messages that take up to LATE_S: a stream that stood still and went on
    cut: bool = False
    last_at: float = 0.0


@dataclass
class Engine:
    """What the node would do with effects: memory, KV and computing, in order, checked."""

    memory_bytes: int
    model: ModelCost
    token_s: float
    load_s: float
    parts: set[Part] = field(default_factory=set)
    loading: dict[int, set[Part]] = field(default_factory=dict)  # by ticket
    caches: dict[SessionId, tuple[toy.ToyKv, int]] = field(default_factory=dict)  # with the bytes it takes
    queue: deque[fx.Effect] = field(default_factory=deque)
    busy: bool = False

    @property
    def used_bytes(self) -> int:
        kv = sum(n_bytes for _, n_bytes in self.caches.values())
        return sum(self.model.part_bytes(part) for part in self.parts) + kv


@dataclass
class Chat:
    """One answer that somebody asked for."""

    ask: AnswerRequest
    entry: PeerId
    boot: BootId
    expected: list[int]
    got: list[int] = field(default_factory=list)
    ended: fx.Ended | None = None
    cancelled: bool = False
    emitted_at: list[float] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


class Malice(Protocol):
    """What a bad member makes of what its core would send."""

    def change(
        self, to: PeerId, message: Message, frame: fx.Buffer | None
    ) -> list[tuple[float, Message, fx.Buffer | None]]:
        """What it sends instead, and after how many seconds."""


class Node:
    """One device: a core, its engine and its transport. It survives its own death (as a disk does)."""

    def __init__(self, sim: Sim, index: int, memory_bytes: int, speed: float, *, holds: bool) -> None:
        self.sim = sim
        self.id = PeerId(f"{index + 1:032x}")
        self.name = f"node{index}"
        self.memory_bytes = memory_bytes
        self.speed = speed
        self.disk: set[Part] = {*all_parts(sim.model.n_layers), *sim.model.mtp_parts()} if holds else set()
        self.offset = sim.rng.uniform(0, 1e5)  # every machine has its own clock
        self.patience_s = limits.PEER_SILENCE_S + sim.rng.uniform(-0.1, 0.3)  # of its transport; the core has its own
        self.sluggish = 1.0  # how many times longer its steps take than they should
        self.load_fails = self.step_fails = 0.0  # beside those of the whole world
        self.lies = False  # says of every step with others that one of them was missing
        self.malice: Malice | None = None
        self.boots = 0
        self.alive = False
        self.frozen = False
        self.kept = KeptDisk(self)
        self.start()

    def start(self) -> None:
        self.boots += 1
        self.boot = BootId(f"{self.boots:08x}{self.id[-8:]}")
        self.alive, self.frozen = True, False
        self.inbox: deque[Callable[[], None]] = deque()
        self.links: dict[PeerId, tuple[BootId, float]] = {}  # peers that we hear: which run, and since when not
        caps = Capabilities("x86_64", "avx2", 4, self.memory_bytes, 2**40, self.speed, self.speed * 4)
        rng = Random(self.sim.rng.random())
        me = Identity(self.id, self.boot, self.name, self.boots * 1_000_000)
        port = 7000 + self.boots if self.sim.layout != "pipeline" else 0
        self.core = Core(me, caps, rng, slice_port=port, layout=self.sim.layout)
        self.core.placer.uses_mtp = self.sim.own > 0
        if self.sim.clairvoyance:
            stages, luck = self.core.stage_sessions, Random(self.sim.seed)
            stages.new_guesses = lambda: Clairvoyant(self.sim.future, self.sim.clairvoyance, luck)
        self.engine = Engine(self.memory_bytes, self.sim.model, 0.0, 0.0)
        self.stopped_checks: set[int] = set()
        self.wakes_at = fx.NEVER
        self.epochs: dict[object, int] = {}
        self.computed: set[tuple[SessionId, int, int]] = set()
        self.do(self.core.model_known(MODEL, self.sim.model, self.now))
        self.tell_holdings(self)
        if self.sim.keeps:
            self.kept.start()
        self.set_alarm()

    @property
    def now(self) -> float:
        return self.sim.now + self.offset

    # --- events

    def run(self, event: Callable[[], None]) -> None:
        """Handle an event now, or when the node thaws."""
        if not self.alive:
            return
        if self.frozen:
            if len(self.inbox) < QUEUE_MESSAGES:
                self.inbox.append(event)
            return
        event()
        self.sim.check(self)
        self.set_alarm()

    def set_alarm(self) -> None:
        """As a shell does: sleep until the core wants to be ticked, or until something happens."""
        due = self.core.get_timer()
        if due < self.wakes_at and not self.sim.polls:
            self.wakes_at, core = due, self.core
            self.sim.at(max(due - self.now, 0.0) + LATENESS_S, lambda: self.alarm() if self.core is core else None)

    def alarm(self) -> None:
        self.wakes_at = fx.NEVER
        if self.alive and not self.frozen and self.now < self.core.get_timer():
            self.set_alarm()  # what was waited for has moved
        elif self.alive and not self.frozen:
            self.run(self.tick)
            self.sim.require(self.core.get_timer() > self.now, f"{self.name} wants to be ticked without end")

    def tick(self) -> None:
        early = self.now < self.core.get_timer()
        effects = self.core.tick(self.now)
        self.sim.require(not early or not effects, f"{self.name} does something before its time")
        self.do(effects)

    def poll(self) -> None:
        """What the transport notices by itself; and where nodes poll, they tick."""
        for peer, (_, heard) in list(self.links.items()):
            if self.now - heard > self.patience_s:
                self.run(lambda p=peer: self.link_down(p, "silent"))
        if self.sim.polls:
            self.run(self.tick)

    @property
    def beat_s(self) -> float:
        """Between two heartbeats: who shares layers beats quickly."""
        return limits.QUICK_HEARTBEAT_S if self.core.shards.stages() else limits.HEARTBEAT_INTERVAL_S

    def beat(self) -> None:
        state = self.core.state(self.now, 0.0, 0.0, 1.0)
        beat = Heartbeat(int(self.now * 1e6), 0, 0, 0, state)
        for node in self.sim.nodes:
            if node is not self:
                self.sim.transmit(self, node, beat, None)

    def receive(self, sender: Node, boot: BootId, message: Message, frame: fx.Buffer | None) -> None:
        known = self.links.get(sender.id)
        if known is None or known[0] != boot:
            if not isinstance(message, Heartbeat) or not self.sim.reach_each_other(self, sender) or not sender.alive:
                return  # no link: a heartbeat stands for the call that makes one
            self.link_up(sender)
            sender.run(lambda: sender.link_up(self))
        self.links[sender.id] = (boot, self.now)
        if isinstance(message, Heartbeat):
            self.do(self.core.heartbeat(sender.id, message.state, 0.0006, self.now))
        elif isinstance(message, Goodbye):
            self.link_down(sender.id, message.text, certain=True)
        else:
            self.do(self.core.received(sender.id, message, frame, self.now))

    def link_up(self, peer: Node) -> None:
        if not peer.alive or self.links.get(peer.id, ("", 0.0))[0] == peer.boot:
            return
        self.links[peer.id] = (peer.boot, self.now)
        self.do(self.core.peer_up(peer.id, peer.boot, peer.name, self.now))
        if self.sim.layout != "pipeline":
            self.do(self.core.rehearsed(peer.id, Exchange(0.0003, 1e8), self.now))
        self.tell_holdings(peer)

    def link_down(self, peer: PeerId, why: str, *, certain: bool = False) -> None:
        if self.links.pop(peer, None) is not None:
            self.do(self.core.peer_down(peer, why, self.now, certain=certain))

    def tell_holdings(self, of: Node) -> None:
        """The store's gossip, without its messages: what `of` has on its disk."""
        self.do(self.core.holdings(of.id, MODEL, frozenset(of.disk), self.now))

    # --- effects

    def do(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            match effect:
                case fx.Send(to, message, frame):
                    if to in self.sim.by_id:  # the transport drops what it has no link for
                        self.send(self.sim.by_id[to], message, frame)
                case fx.Emit() | fx.Unsay() | fx.Ended() | fx.Notice():
                    self.sim.show(self, effect)
                case fx.Log(event, fields):
                    self.sim.note(self, f"{event} {dict(fields)}")
                case fx.LookUp():
                    pass  # a model that nobody has; the toy is known to all
                case fx.OpenStage():
                    self.sim.stages.open(self, effect)
                case fx.CloseStage(stage):
                    self.sim.stages.close(self, stage)
                case fx.AbortStage():
                    self.sim.stages.abort(self, effect)
                case fx.CheckTokens() | fx.StopCheck() | fx.Propose():
                    self.beside(effect)
                case _:
                    self.engine.queue.append(effect)
        self.work()

    def beside(self, effect: fx.CheckTokens | fx.StopCheck | fx.Propose) -> None:
        """What a device computes beside its stages."""
        match effect:
            case fx.CheckTokens():
                self.check_tokens(effect)
            case fx.StopCheck(ticket):
                self.stopped_checks.add(ticket)
            case fx.Propose():
                self.draft(effect)

    def draft(self, asked: fx.Propose) -> None:
        """The small model here says what may come: late at times, and at times nothing."""
        coming = self.sim.future(asked.ids)[: asked.n]
        found = [token if self.sim.rng.random() < self.sim.drafts else token // 2 for token in coming]
        wait_s = self.sim.rng.choice([0.0002, 0.002, 0.002, 0.02, 0.2 if self.sim.rng.random() < 0.05 else 0.002])
        self.sim.n_drafted += len(found)
        self.later(wait_s, lambda: self.do(self.core.drafted(asked, found, self.now)))

    def send(self, to: Node, message: Message, frame: fx.Buffer | None) -> None:
        if self.malice is None:
            self.sim.transmit(self, to, message, frame)
            return
        for wait_s, other, its_frame in self.malice.change(to.id, message, frame):
            self.sim.at(wait_s, lambda m=other, f=its_frame: self.sim.transmit(self, to, m, f) if self.alive else None)

    def work(self) -> None:
        """Carry out what waits for the compute worker, in order."""
        engine = self.engine
        while engine.queue and not engine.busy:
            effect = engine.queue.popleft()
            match effect:
                case fx.Load(ticket, _, parts):
                    engine.parts |= parts
                    engine.loading[ticket] = set(parts)
                    self.later(self.sim.load_s(), lambda t=ticket: self.loaded(t))
                case fx.Unload(_, parts):
                    engine.parts -= parts
                    for loading in engine.loading.values():
                        loading.difference_update(parts)
                case fx.OpenKv():
                    self.open_kv(effect)
                    self.kept.opened(effect)
                case fx.DropKv(session, kept):
                    cache = engine.caches.pop(session, None)
                    if kept is not None and cache is not None:
                        self.kept.write(kept, cache[0])
                case fx.KeepKv():
                    self.kept.copy(effect)
                case fx.ForgetKept():
                    self.kept.forget(effect)
                case fx.Compute():
                    engine.busy = True
                    step_s = self.sim.rows_s(effect) * (effect.end - effect.first) * self.sluggish
                    step_s *= self.sim.rng.uniform(0.5, 1.5) * (0.5 if effect.slice else 1.0)
                    step = self.join if effect.together is not None else self.compute
                    self.later(step_s, lambda e=effect, step=step: step(e))
            self.sim.require(engine.used_bytes <= engine.memory_bytes, f"{self.name} uses more memory than it may")

    def later(self, seconds: float, event: Callable[[], None]) -> None:
        engine = self.engine
        self.sim.at(seconds, lambda: self.run(event) if self.engine is engine else None)

    def loaded(self, ticket: int) -> None:
        parts = self.engine.loading.pop(ticket)
        if self.sim.rng.random() < max(self.sim.load_fails, self.load_fails):
            self.engine.parts -= parts
            self.do(self.core.load_failed(ticket, "the disk made a noise", self.now))
            return
        self.disk |= parts
        self.do(self.core.loaded(ticket, self.now))
        for node in self.sim.nodes:
            if node.alive and not node.frozen:
                node.run(lambda n=node: n.tell_holdings(self))

    def check_tokens(self, work: fx.CheckTokens) -> None:
        """Compute them again beside all else; where the disk is broken, it cannot be done."""
        self.sim.n_checks += 1

        def done() -> None:
            if work.ticket not in self.stopped_checks:
                fails = self.sim.rng.random() < max(self.sim.load_fails, self.load_fails)
                tokens = () if fails else toy.again(self.sim.model.n_layers, work.ids, work.first, work.sampling.seed)
                error = "the disk made a noise" if fails else ""
                self.do(self.core.checked(work.ticket, tokens, self.now, error))

        self.later(self.sim.load_s() + 0.001 * len(work.ids), done)

    def open_kv(self, opening: fx.OpenKv) -> None:
        caches, first, end, keep = self.engine.caches, opening.first, opening.end, opening.keep
        n_bytes = self.sim.model.sliced(opening.slice).stage_kv_bytes(first, end, opening.context)
        kv = caches[opening.session][0] if opening.session in caches else None
        if opening.source is not None:
            kv = deepcopy(caches[opening.source][0])
            if opening.kept is not None:
                self.kept.write(opening.kept, kv)
            if opening.moves:
                del caches[opening.source]
            self.sim.n_copied += keep
        if kv is None or (kv.first, kv.end, kv.slice) != (first, end, opening.slice):
            kv = toy.ToyKv(first, end, opening.slice)
        self.sim.require(kv.length >= keep, f"{self.name} keeps {keep} of {kv.length} positions")
        kv.cut(keep)
        caches[opening.session] = (kv, n_bytes)

    def join(self, job: fx.Compute) -> None:
        """Our part of a step is done but for what the other members of the stage bring."""
        if self.sim.rng.random() < max(self.sim.step_fails, self.step_fails):
            assert job.together is not None
            self.sim.stages.abort(self, fx.AbortStage(*_together(job), FAILED))
        self.check_job(job)
        self.sim.stages.join(self, job)

    def done(self, job: fx.Compute, outputs: list[fx.StepOutput]) -> None:
        """A step is over, for us."""
        self.engine.busy = False
        if self.lies and job.together is not None:
            others = [peer for peer in self.sim.stages.members(job.together.stage) if peer != self.id]
            outputs = [fx.StepOutput(error="it was not there", lost=others[0])] * len(job.rows)
        self.sim.n_shared += len(job.rows) > 1
        self.do(self.core.computed(job.job, outputs, self.now))
        self.work()

    def compute(self, job: fx.Compute) -> None:
        if self.sim.rng.random() < max(self.sim.step_fails, self.step_fails):
            outputs = [fx.StepOutput(error="the step failed")] * len(job.rows)
        else:
            outputs = self.outputs(job)
        self.done(job, outputs)

    def check_job(self, job: fx.Compute) -> dict[SessionId, int]:
        """What the core asks for can be computed; the epochs of its rows."""
        running = self.core.stage_sessions.running
        assert running is not None and running.job == job.job, "the core forgot its step"
        asks = any(rows.asks for rows in job.rows)
        needed = {*self.sim.model.parts(job.first, job.end, job.slice), *(self.sim.model.mtp_parts() if asks else ())}
        self.sim.require(needed <= self.engine.parts, f"{self.name} computes layers that it does not hold")
        epochs = {rows.session: rows.epoch for rows in running.rows}
        self.sim.require(len(epochs) == len(job.rows), f"{self.name} computes two steps of one session at once")
        return epochs

    def outputs(self, job: fx.Compute) -> list[fx.StepOutput]:
        epochs = self.check_job(job)
        return [self.output(job, rows, self.run_layers(job, rows, epochs[rows.session])) for rows in job.rows]

    def run_layers(self, job: fx.Compute, rows: fx.SessionRows, epoch: int) -> list[int]:
        self.count_positions(rows, epoch)
        kv, _ = self.engine.caches[rows.session]
        kv.cut(rows.position)  # guesses that did not come
        values = toy.embed(rows.position, rows.ids) if job.first == 0 else toy.unpack(bytes(rows.frame or b""))
        return kv.run(rows.position, values)

    def output(self, job: fx.Compute, rows: fx.SessionRows, values: list[int]) -> fx.StepOutput:
        if job.end < self.sim.model.n_layers:
            return fx.StepOutput(toy.pack(values), TensorInfo("f32", (len(values), toy.WIDTH)))
        if rows.sample:
            tokens = self.tokens(rows, values)
            own = self.own_guess(rows, len(tokens)) if rows.asks else ()
            return fx.StepOutput(token=tokens[0], more=tuple(tokens[1:]), own=own, own_s=self.sim.layer_s / 8)
        return fx.StepOutput()

    def own_guess(self, rows: fx.SessionRows, n_tokens: int) -> tuple[int, ...]:
        """What the model's own block says of the token after those that this step brings."""
        chat = self.sim.open_chats.get(rows.session)
        position = rows.position + len(rows.ids) - rows.n_guesses + n_tokens
        coming = [*chat.ask.ids, *chat.expected][position : position + 1] if chat is not None else []
        self.sim.n_own += len(coming)
        return tuple(token if self.sim.rng.random() < self.sim.own else token // 2 for token in coming)

    def tokens(self, rows: fx.SessionRows, values: list[int]) -> list[int]:
        """The token after those that are certain, and after each guess that was right."""
        tokens: list[int] = []
        for i in range(len(rows.ids) - 1 - rows.n_guesses, len(rows.ids)):
            if tokens and tokens[-1] != rows.ids[i]:
                break
            tokens.append(toy.sample(values[i], rows.sampling.seed, rows.position + i + 1))
        self.sim.n_guessed += len(tokens) - 1
        return tokens

    def count_positions(self, rows: fx.SessionRows, epoch: int) -> None:
        """A stage computes each position of an epoch once, but for guesses."""
        for position in range(rows.position, rows.position + len(rows.ids) - rows.n_guesses):
            key = (rows.session, epoch, position)
            self.sim.require(key not in self.computed, f"{self.name} computes position {position} twice in one epoch")
            self.computed.add(key)


def _together(job: fx.Compute) -> tuple[fx.StageId, int]:
    assert job.together is not None
    return job.together.stage, job.together.sequence


class Sim:
    """The world. Build one, script it with `at`, then `run_until`. `polls`: cores are ticked all the time instead."""

    def __init__(
        self,
        seed: int,
        n_layers: int = 6,
        *,
        kv_bytes: int = 40,
        polls: bool = False,
        verbose: bool = False,
        layout: Layout = "pipeline",
        keeps: bool = False,
        own: float = 0.0,
    ) -> None:
        """`keeps`: devices have disks on which keys and values that leave memory are kept.

        own: how often a block of the model's own file is right; 0: it has none.
        """
        self.layout = layout
        self.keeps = keeps
        self.n_kept = self.n_read = 0  # conversations that were written, and positions that were read
        self.n_copied_at_rest = 0  # of them those that stayed in memory
        self.stages = Stages(self)
        self.seed = seed
        self.polls = polls
        self.rng = Random(seed)
        self.verbose = verbose
        self.now = 0.0
        self.own, self.n_own = own, 0  # and how many tokens it said
        model = toy.model_cost(n_layers, 100_000, kv_bytes)
        self.model = replace(model, mtp=MtpCost(100_000, kv_bytes)) if own else model
        self.nodes: list[Node] = []
        self.by_id: dict[PeerId, Node] = {}
        self.wires: dict[tuple[PeerId, PeerId], Wire] = {}
        self.chats: list[Chat] = []
        self.open_chats: dict[SessionId, Chat] = {}
        self.layer_s = 0.004
        self.row_cost = (0.5, 0.3, 1.0, 1.3)[seed % 4]  # what n sessions in a step cost: n to this power
        self.n_shared = 0  # steps of several sessions
        self.n_guessed = 0  # tokens that came because a guess was right, anywhere
        self.clairvoyance = 0.0  # how often guesses are right; 0: they are what the texts themselves tell
        self.drafts = 0.0  # how often a small model on each device is right; 0: there is none
        self.n_drafted = 0  # tokens that these said
        self.n_copied = 0  # positions of KV that a session began with
        self.load_fails = 0.0
        self.step_fails = 0.0
        self.n_checks = 0
        self.n_unsaid = 0  # falsifications that were found out
        self.is_spoilt = False  # somebody computes wrong values on purpose: texts may differ
        self.sent: Counter[str] = Counter()
        self.log: list[str] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._n = 0

    # --- building and running

    def add_node(self, memory_bytes: int, *, speed: float = 1e6, holds: bool = False) -> Node:
        node = Node(self, len(self.nodes), memory_bytes, speed, holds=holds)
        self.nodes.append(node)
        self.by_id[node.id] = node
        for other in self.nodes[:-1]:
            self.wires[node.id, other.id] = Wire()
            self.wires[other.id, node.id] = Wire()
        self._every(lambda: POLL_S, node, Node.poll)
        self._every(lambda: node.beat_s, node, Node.beat)
        return node

    def at(self, seconds: float, event: Callable[[], None]) -> None:
        """Call `event` so many seconds from now."""
        self._n += 1
        heapq.heappush(self._events, (self.now + seconds, self._n, event))

    def run_until(self, when: float, done: Callable[[], bool] = lambda: False) -> None:
        while self._events and self._events[0][0] <= when and not done():
            self.now, _, event = heapq.heappop(self._events)
            event()
        if not done():
            self.now = max(self.now, when)

    def rows_s(self, job: fx.Compute) -> float:
        """What a layer takes: batches of prompts, and the decode steps together."""
        sizes = [len(rows.ids) for rows in job.rows]
        return self.layer_s * (sum(n**0.5 for n in sizes if n > 1) + sizes.count(1) ** self.row_cost)

    def _every(self, period: Callable[[], float], node: Node, event: Callable[[Node], None]) -> None:
        def again() -> None:
            if node.alive and not node.frozen:
                event(node)
            self.at(period(), again)

        self.at(self.rng.random() * period(), again)

    # --- the network

    def transmit(self, sender: Node, to: Node, message: Message, frame: fx.Buffer | None) -> None:
        wire = self.wires[sender.id, to.id]
        boot, to_boot = sender.boot, sender.links.get(to.id, (to.boot, 0.0))[0]
        self.sent[type(message).__name__] += 1
        if self._n % 16 == 0:
            codec.decode([codec.encode(message, frame)] + ([frame] if frame is not None else []), sender.name)
        if wire.cut or self.rng.random() < wire.loss:
            return
        event = lambda: to.receive(sender, boot, message, frame)  # noqa: E731
        for _ in range(2 if self.rng.random() < wire.repeat else 1):
            at = self.now + wire.delay_s + self.rng.random() * wire.jitter_s
            at = at if wire.reorder else max(at, wire.last_at)
            wire.last_at = max(at, wire.last_at)
            at += self.rng.random() * LATE_S if self.rng.random() < wire.late else 0.0
            self.at(at - self.now, lambda: self._deliver(sender, to, to_boot, event))

    def _deliver(self, sender: Node, to: Node, to_boot: BootId, event: Callable[[], None]) -> None:
        if to.alive and to.boot == to_boot and not self.wires[sender.id, to.id].cut:
            to.run(event)

    def reach_each_other(self, a: Node, b: Node) -> bool:
        return not self.wires[a.id, b.id].cut and not self.wires[b.id, a.id].cut

    # --- faults

    def kill(self, node: Node) -> None:
        """kill -9: its kernel closes the connections, where the network lets that through."""
        if not node.alive:
            return
        node.kept.end()
        self.note(node, "KILLED")
        node.alive = False
        self.stages.gone(node)
        boot = node.boot
        for other in self.nodes:
            if other is not node and not self.wires[node.id, other.id].cut:
                self.at(0.001, lambda o=other: o.run(lambda: o.link_down(node.id, "connection reset")))
                self.at(KNOCK_S, lambda o=other: self._knock(o, node, boot))

    def _knock(self, node: Node, at: Node, boot: BootId) -> None:
        """Its kernel refuses where no process listens, if it is not cut off and none has been started meanwhile."""
        if not at.alive and at.boot == boot and self.reach_each_other(node, at):
            gone = "nothing listens there"
            node.run(lambda: node.do(node.core.peer_down(at.id, gone, node.now, certain=True)))

    def restart(self, node: Node) -> None:
        if not node.alive:
            node.start()
            self.note(node, "STARTED")

    def freeze(self, node: Node) -> None:
        if node.alive:
            self.note(node, "FROZEN")
            node.frozen = True

    def thaw(self, node: Node) -> None:
        if not node.alive or not node.frozen:
            return
        self.note(node, "THAWED")
        node.frozen = False
        waiting, node.inbox = list(node.inbox), deque()
        for event in waiting:
            node.run(event)
        node.wakes_at = fx.NEVER
        node.set_alarm()

    def split(self, group: list[Node]) -> None:
        """Cut the network between `group` and the rest."""
        self.note(None, f"SPLIT {[n.name for n in group]}")
        for (a, b), wire in self.wires.items():
            wire.cut |= (self.by_id[a] in group) != (self.by_id[b] in group)

    def cut(self, a: Node, b: Node, *, both: bool = True) -> None:
        self.note(None, f"CUT {a.name} {'<->' if both else '->'} {b.name}")
        self.wires[a.id, b.id].cut = True
        self.wires[b.id, a.id].cut |= both

    def heal(self) -> None:
        self.note(None, "HEALED")
        for wire in self.wires.values():
            wire.cut = False

    # --- chats

    def ask(
        self,
        node: Node,
        prompt: tuple[int, ...],
        max_tokens: int,
        *,
        session: SessionId | None = None,
        source: SessionId | None = None,
    ) -> Chat | None:
        if not node.alive or node.frozen:
            return None
        key = session or SessionId(f"{self.rng.getrandbits(128):032x}")
        seed = self.rng.getrandbits(32)
        owner = node.name.encode() if self.keeps else b""
        ask = AnswerRequest(key, MODEL, prompt, max_tokens, Sampling(seed=seed), (toy.END_ID,), source, owner=owner)
        ask = replace(ask, draft=self.drafts > 0)
        expected = toy.answer(self.model.n_layers, prompt, max_tokens, seed)
        chat = Chat(ask, node.id, node.boot, expected)
        self.chats.append(chat)
        self.open_chats[key] = chat
        node.run(lambda: node.do(node.core.ask(ask, node.now)))
        return chat

    def future(self, ids: Sequence[int]) -> list[int]:
        """What comes after these ids in the chat that has them."""
        for chat in self.chats:
            text = [*chat.ask.ids, *chat.expected]
            if len(ids) > len(chat.ask.ids) and text[: len(ids)] == list(ids):
                return text[len(ids) :]
        return []

    def cancel(self, chat: Chat) -> None:
        node = self.by_id[chat.entry]
        if node.alive and node.boot == chat.boot and chat.ended is None and not node.frozen:
            chat.cancelled = True
            node.run(lambda: node.do(node.core.cancel(chat.ask.session, node.now)))

    def show(self, node: Node, effect: fx.Emit | fx.Unsay | fx.Ended | fx.Notice) -> None:
        chat = self.open_chats[effect.session]
        self.require(chat.entry == node.id and chat.boot == node.boot, "somebody else answers this chat")
        self.require(chat.ended is None, "an answer goes on after its end")
        match effect:
            case fx.Emit(_, position, token):
                at = len(chat.got)
                self.require(position == len(chat.ask.ids) + at, f"position {position} emitted, {at} tokens are out")
                right = chat.expected[at] if at < len(chat.expected) else None
                self.require(self.is_spoilt or token == right, f"token {at} is {token}, not {right}")
                chat.got.append(token)
                chat.emitted_at.append(self.now)
            case fx.Unsay(_, position, names):
                at = position - len(chat.ask.ids)
                self.require(self.is_spoilt and 0 <= at < len(chat.got), f"{names} blamed for position {position}")
                del chat.got[at:], chat.emitted_at[at:]
                self.n_unsaid += 1
            case fx.Ended(_, reason, error):
                chat.ended = effect
                self.note(node, f"ENDED {reason} {error}")
                if reason in (fx.EndReason.STOP, fx.EndReason.LENGTH):
                    self.require(self.is_spoilt or chat.got == chat.expected, "an answer ended early")
            case fx.Notice(_, text):
                chat.notices.append(text)
                self.note(node, f"NOTICE {text}")

    def lives(self, chat: Chat) -> bool:
        """True while the chat's entry node is the one that was asked."""
        node = self.by_id[chat.entry]
        return node.alive and node.boot == chat.boot

    # --- invariants

    def check(self, node: Node) -> None:
        if node.malice is not None:
            return
        core = node.core
        self.stages.check(node)
        self.require(core.ledger.used_bytes <= core.ledger.total_bytes, f"{node.name} promised more memory than it has")
        self._grows(node, "placer", core.placer.epoch)
        for key, session in core.sessions.sessions.items():
            self._grows(node, ("owner", key), session.epoch)
            if session.phase is Phase.RUNNING and session.placement is not None:
                self.require(session.pipeline.covers(self.model.n_layers), "stages leave a gap")
                self.require(session.pipeline == Pipeline.of(session.placement), "a session works on other stages")
        for key, staged in core.stage_sessions.sessions.items():
            self._grows(node, ("stage", key), staged.epoch)
            self.require(len(staged.steps) <= limits.MAX_SESSION_JOBS, f"{node.name} queues without a bound")
            self.require(staged.done <= staged.expected == len(staged.ids), f"{node.name} lost count of positions")
        self.require(len(core.stage_sessions.sessions) <= limits.MAX_STAGE_SESSIONS + 1, "sessions without a bound")

    def _grows(self, node: Node, what: object, epoch: int) -> None:
        self.require(epoch >= node.epochs.get(what, 0), f"{node.name}: the epoch of {what} shrank")
        node.epochs[what] = epoch

    def require(self, truth: bool, text: str) -> None:
        if not truth:
            raise Broken(f"seed {self.seed} at {self.now:.4f} s: {text}")

    def note(self, node: Node | None, text: str) -> None:
        line = f"{self.now:9.4f} {node.name if node else '-':6} {text}"
        if self.verbose:
            print(line)
        self.log.append(line)

    def load_s(self) -> float:
        return self.rng.uniform(0.01, 0.5)


# --- scripts


def play(
    seed: int,
    *,
    n_devices: int = 0,
    polls: bool = False,
    storm: bool = False,
    verbose: bool = False,
    layout: Layout = "pipeline",
    keeps: bool = False,
    own: float = 0.0,
) -> Sim:
    """One random story: chats and faults for some seconds, then peace; every chat must end as it should.

    `storm`: every link loses, delays and repeats, and everybody changes their mind: what is old comes late.
    """
    rng = Random(seed)
    sim = Sim(seed, n_layers=rng.randint(3, 8), polls=polls, verbose=verbose, layout=layout, keeps=keeps, own=own)
    sim.clairvoyance = (0.0, 0.5, 0.9)[seed // 4 % 3]
    sim.drafts = (0.0, 0.0, 0.9, 0.6)[seed // 12 % 4]
    n = n_devices or rng.randint(2, 5)
    whole, layer = sim.model.weight_bytes, sim.model.part_bytes(Part(0))
    for i in range(n):
        share = rng.choice([0.3, 0.45, 0.6, 0.8])
        memory = int(max(whole * share, whole / n + layer)) + sim.model.stage_kv_bytes(0, sim.model.n_layers, 900)
        memory += sum(map(sim.model.part_bytes, sim.model.mtp_parts())) + sim.model.mtp_kv_bytes(900)
        sim.add_node(memory, speed=rng.choice([1e6, 2e6, 4e6]), holds=i == 0 or rng.random() < 0.3)
    _weather(sim, rng, storm=storm)
    for _ in range(rng.randint(1, 5)):
        _chat(sim, rng, storm=storm)
    for _ in range(rng.choice([0, 1, 2, 4, 6])):
        _fault(sim, rng)
    for _ in range(4 * keeps):
        _restart(sim, rng)
    sim.at(12.0, lambda: _peace(sim))
    sim.run_until(13.0)
    # Where rows together cost more than one by one, four prompts of 500 tokens on shared devices take two minutes.
    sim.run_until(
        80.0 if sim.row_cost <= 1.0 else 200.0,
        done=lambda: all(c.ended is not None or not sim.lives(c) for c in sim.chats),
    )
    for chat in sim.chats:
        _judge(sim, chat)
    return sim


def _weather(sim: Sim, rng: Random, *, storm: bool) -> None:
    bad = rng.random() * (not storm)
    for wire in sim.wires.values():
        wire.delay_s = rng.choice([0.0002, 0.002, 0.01])
        wire.jitter_s = wire.delay_s * rng.choice([0.1, 1.0])
        if bad < 0.5:
            wire.loss = rng.choice([0.0, 0.002, 0.02])
            wire.repeat = rng.choice([0.0, 0.02])
            wire.reorder = rng.random() < 0.3
            wire.late = rng.choice([0.0, 0.01, 0.05])
        if bad < 0.1:
            wire.loss, wire.late, wire.repeat = 0.05, 0.25, 0.1
    sim.load_fails = rng.choice([0.0, 0.0, 0.1])
    sim.step_fails = rng.choice([0.0, 0.0, 0.0, 0.005])


def _chat(sim: Sim, rng: Random, *, storm: bool) -> None:
    """A person on one node: asks, perhaps cancels, and asks again: more, or something else after an undo."""
    index = rng.randrange(len(sim.nodes))
    fickle = rng.random() < 0.3 or storm

    def some(n: int) -> tuple[int, ...]:
        return tuple(rng.randrange(toy.VOCABULARY) for _ in range(n))

    def ask(
        prompt: tuple[int, ...], turns: int, session: SessionId | None = None, source: SessionId | None = None
    ) -> None:
        chat = sim.ask(sim.nodes[index], prompt, rng.choice([1, 5, 100, 300]), session=session, source=source)
        if chat is None:
            return
        if turns > 1 and rng.random() < 0.3:
            sim.at(rng.uniform(0.05, 2.0), lambda: beside(chat))
        if rng.random() < (0.9 if fickle else 0.2):
            sim.at(rng.uniform(0.0, 0.4 if fickle else 2.0), lambda: sim.cancel(chat))
        if turns > 1:
            sim.at(rng.uniform(0.05, 0.5) if fickle else rng.uniform(0.5, 3.0), lambda: again(chat, turns - 1))

    def beside(chat: Chat) -> None:
        """Another one that begins alike, whether the first is answered still or not."""
        if sim.lives(chat) and sim.now < 11.0:
            known = (*chat.ask.ids, *chat.got)
            ask((*known[: rng.randint(1, len(known))], *some(rng.choice([1, 20]))), 1, source=chat.ask.session)

    def again(chat: Chat, turns: int) -> None:
        if sim.now > 11.0:
            return
        if not sim.lives(chat):
            if sim.keeps:  # what its entry node has answered before it started anew is on some disk
                ask((*chat.ask.ids, *chat.got, *some(20)), turns)
            return
        if chat.ended is None:
            stands_still = not chat.emitted_at or sim.now - chat.emitted_at[-1] > 0.5
            if fickle and stands_still:
                sim.cancel(chat)
            sim.at(0.2, lambda: again(chat, turns))
            return
        history = (*chat.ask.ids, *chat.got)
        kept = rng.choice([len(history), rng.randint(1, len(history)), max(1, len(history) - 1)])
        ask((*history[:kept], *some(rng.choice([1, 20, 150]))), turns, chat.ask.session)

    sizes = [128, 200, 300, 500] if sim.keeps else [1, 5, 60, 128, 129, 500]
    sim.at(rng.uniform(1.5, 9.0), lambda: ask(some(rng.choice(sizes)), 8 if fickle or sim.keeps else 2))


def _restart(sim: Sim, rng: Random) -> None:
    """A device ends, and is back at once."""
    node, start = rng.choice(sim.nodes), rng.uniform(3.0, 10.0)
    sim.at(start, lambda: sim.kill(node))
    sim.at(start + 0.3, lambda: sim.restart(node))


def _fault(sim: Sim, rng: Random) -> None:
    start, lasts = rng.uniform(1.0, 10.0), rng.choice([0.3, 1.5, rng.uniform(1.9, 2.4), 3.0, 6.0])
    node = rng.choice(sim.nodes)
    other = rng.choice([n for n in sim.nodes if n is not node])
    group = rng.sample(sim.nodes, rng.randint(1, len(sim.nodes) - 1))
    kind = rng.choice(["kill", "kill", "freeze", "split", "cut", "one-way"])
    begin, end = {
        "kill": (lambda: sim.kill(node), lambda: sim.restart(node)),
        "freeze": (lambda: sim.freeze(node), lambda: sim.thaw(node)),
        "split": (lambda: sim.split(group), sim.heal),
        "cut": (lambda: sim.cut(node, other), sim.heal),
        "one-way": (lambda: sim.cut(node, other, both=False), sim.heal),
    }[kind]
    sim.at(start, begin)
    sim.at(min(start + lasts, 11.5), end)


def _peace(sim: Sim) -> None:
    sim.heal()
    for wire in sim.wires.values():
        wire.loss, wire.late = min(wire.loss, 0.002), 0.0
    sim.load_fails = sim.step_fails = 0.0
    for node in sim.nodes:
        sim.thaw(node)
        sim.restart(node)


def _judge(sim: Sim, chat: Chat) -> None:
    """A chat whose entry node lives has ended: with its text, or for a reason that is one."""
    if not sim.lives(chat):
        return
    sim.require(
        chat.ended is not None, f"a chat hangs: {len(chat.got)} of {len(chat.expected)} tokens, {chat.notices[-1:]}"
    )
    assert chat.ended is not None
    if chat.ended.reason is fx.EndReason.FAILED:
        known = ("more memory", "on its disk", "answered already", "do not reach", "the step failed")
        sim.require(any(text in chat.ended.error for text in known), f"a chat failed: {chat.ended.error}")
    elif chat.ended.reason is fx.EndReason.CANCELLED:
        sim.require(chat.cancelled, "nobody cancelled this chat")


def main(arguments: list[str]) -> None:
    verbose = "-v" in arguments
    layout: Layout = "slices" if "--slices" in arguments else "pipeline"
    seeds = [int(a) for a in arguments if not a.startswith("-")]
    first, last = (seeds[0], seeds[-1]) if seeds else (0, 199)
    failed = 0
    for seed in range(first, last + 1):
        try:
            play(seed, verbose=verbose, layout=layout, keeps="--keeps" in arguments)
        except Exception as error:
            if first == last:
                raise
            failed += 1
            print(f"{type(error).__name__}: {str(error)[:200]}  (seed {seed})")
    print(f"{last - first + 1 - failed} of {last - first + 1} seeds hold")


if __name__ == "__main__":
    main(sys.argv[1:])
