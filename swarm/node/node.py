"""The node: where everything meets, and the only owner of cluster state.

Events of the transport, ticks, and answers of the compute worker, loader and store come to the core under one lock; the
effects that it returns are carried out at once, in order. All of that happens on one asyncio loop, but for messages and
steps of an answer in progress, which are handled on the threads that bring them (fast_path.py says why); what belongs
on the loop is left for it. Nothing here computes or waits for a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TypeVar, TypeVarTuple

import numpy as np
import numpy.typing as npt

from swarm import config, kernels, limits
from swarm.cluster import effects as fx
from swarm.cluster.core import Core, Identity
from swarm.engine.weights import Weights
from swarm.errors import LocalProtocolError, ModelNotFound, SwarmError, SwarmNetworkError
from swarm.models.spec import ModelSpec
from swarm.net import events as net
from swarm.net.inbox import Inbox
from swarm.net.transport import Transport
from swarm.node import measure
from swarm.node.answer import Answer, Port, Question
from swarm.node.compute import ComputeWorker, Done
from swarm.node.fast_path import FastPath
from swarm.node.fetch import Around
from swarm.node.home import Home
from swarm.node.library import KnownModel, Library
from swarm.node.loader import Loader, Loading
from swarm.node.meters import Meters
from swarm.node.peers import Peers
from swarm.node.provide import Provider
from swarm.node.questions import Questions
from swarm.node.status import StatusReports
from swarm.parts import Part
from swarm.store.chunks import ChunkStore
from swarm.units import rate_text
from swarm.wire import messages as m
from swarm.wire.ids import ModelId, PeerId, SessionId
from swarm.wire.records import Capabilities

log = logging.getLogger(__name__)
Bits = npt.NDArray[np.bool_]
Result = TypeVar("Result")
Args = TypeVarTuple("Args")
TransportOf = Callable[[Inbox], Transport]
TICK_S = 0.1
RESTART_S = 5.0  # after a bug: should it come again at once, others are not bothered too often
BUSY_SHARE = 0.25  # of the fastest link, for fetching while an answer runs: it adds at most a third to a message's way
IO_THREADS = 3  # hash, write and read chunks; import files; build tokenizers


@dataclass(frozen=True)
class Options:
    """How a node is started."""

    home: Home
    settings: config.Settings
    name: str
    calls: tuple[str, ...] = ()  # HOST[:PORT] to call, where multicast does not reach
    discover: bool = True


class Node:
    """One device of a swarm; made by `start`, ended by `stop`."""

    def __init__(self, options: Options, transport_of: TransportOf, capabilities: Capabilities) -> None:
        loop = asyncio.get_running_loop()
        self.options = options
        self.home = options.home
        self.settings = options.settings
        self.started_at = time.time()
        self.began_at = loop.time()
        self.threads = capabilities.threads
        self._loop = loop
        self._thread = threading.get_ident()
        self.lock = threading.RLock()  # whoever touches the core holds it
        self._for_loop: deque[fx.Effect] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._io = ThreadPoolExecutor(IO_THREADS, "swarm-io")
        self.store = ChunkStore(self.home.store, capabilities.disk_bytes)
        try:
            self.transport = transport_of(FastPath(loop, self._on_event, self._on_fast).inbox())
        except BaseException:
            self.store.close()
            self._io.shutdown()
            raise
        me = self.transport.me
        identity = Identity(me.peer, me.boot, options.name, first_epoch=int(time.time()))
        self.core = Core(identity, capabilities, Random(secrets.randbits(64)))
        self.worker = ComputeWorker(self._post, self._on_done, threads=self.threads, isa=kernels.isa(self.settings.cpu))
        self.loader = Loader(self._post, self._on_installed, self._on_load_ended, threads=self.threads)
        around = Around(
            store=self.store,
            send=self.send,
            run_io=self.run_io,
            has_changed=self._has_changed,
            peer_has=self._peer_has,
            in_use=self._models_in_use,
            banned=self._on_ban,
        )
        self.library = Library(around, Random(secrets.randbits(64)), "f16")
        self.provider = Provider(self.store, self.transport.send, self.run_io, time.monotonic)
        self.answers: dict[SessionId, Answer] = {}
        self.questions = Questions(self)
        self.peers = Peers(self)
        self.status = StatusReports(self)
        self.meters = Meters()
        self.log: deque[tuple[float, str, dict[str, str | int | float]]] = deque(maxlen=limits.MAX_SHOWN_EVENTS)
        self.troubles: deque[net.NotLetIn | net.CloneSeen] = deque(maxlen=limits.MAX_SHOWN_EVENTS)
        self.stopping = asyncio.Event()  # set by whoever wants the node to end
        self.starts_anew = ""  # after it has ended, and why
        self.api_port = 0  # of the local API, once it listens
        self._catalog_told_at = self.now
        self._missed: set[ModelId] = set()  # models that nobody gave when they were asked for: to be asked for again
        self._loading: dict[int, Loading] = {}
        self._handlers = self._table()

    @classmethod
    async def start(cls, options: Options, transport_of: TransportOf) -> Node:
        """Measure, listen, look around. Raise SwarmError when something needed is not there."""
        options.home.make()
        loop = asyncio.get_running_loop()
        threads = options.settings.threads or kernels.threads()
        capabilities = await loop.run_in_executor(None, measure.capabilities, options.home, options.settings, threads)
        node = cls(options, transport_of, capabilities)
        node.spawn(node._tick_for_ever())
        node.spawn(node._measure_again())
        for holding in node.store.holdings():
            node.spawn(node._know_quietly(holding.model))
        await node.peers.start()
        return node

    async def stop(self) -> None:
        """Say goodbye and end everything."""
        self._act(self.core.leave)
        self.end_answers()
        await self.peers.stop()
        self.provider.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._loop.run_in_executor(None, self.transport.stop)
        await self._loop.run_in_executor(None, self.worker.stop)
        await self._loop.run_in_executor(None, self.loader.stop)
        await self._loop.run_in_executor(None, self.store.close)
        self._io.shutdown()

    def end_answers(self) -> None:
        """End what is being answered."""
        for answer in list(self.answers.values()):
            answer.cancel()

    # --- for the API and its helpers

    @property
    def now(self) -> float:
        return time.monotonic()

    @property
    def name(self) -> str:
        return self.options.name

    @property
    def peer(self) -> PeerId:
        return self.core.me

    async def ask(self, question: Question) -> Answer:
        """Begin an answer; raise SwarmError when the question cannot be answered here."""
        return await self.questions.ask(question)

    async def add_file(self, path: Path) -> ModelId:
        """Offer a model file to the swarm."""
        model = await self.library.add_file(path, self.threads)
        await self.know(model)
        self._has_changed(model)
        return model

    async def know(self, model: ModelId) -> KnownModel:
        """Get to know a model, and tell the core."""
        known = await self.library.know(model)
        if model not in self.core.shards.models:
            self._act(self.core.model_known, model, known.cost)
            self._tell_holdings(known)
        return known

    def send(self, peer: PeerId, message: m.Message, frame: fx.Buffer | None = None) -> bool:
        """Send; what cannot be sent is lost, and whoever needs it asks again."""
        try:
            self.transport.send(peer, message, frame)
            return True
        except LocalProtocolError as error:
            self.note("bug", why=str(error))
        except SwarmNetworkError as error:
            log.debug("not sent to %s: %s", peer, error)
        return False

    def open_answer(self, answer: Answer) -> None:
        """From now on the core's words about that session go to this answer."""
        self.answers[answer.session] = answer

    def answer_port(self) -> Port:
        """What an answer may ask of the core."""
        return Port(
            ask=lambda ask: self._act(self.core.ask, ask),
            cancel=lambda session: self._act(self.core.cancel, session),
            closed=self._forget_answer,
            is_settling=self.is_settling,
        )

    def is_settling(self) -> bool:
        """True for the first seconds, in which devices that take part may not have been found yet."""
        return self.now - self.began_at < limits.SETTLE_S

    def run_io(self, function: Callable[[*Args], Result], *args: *Args) -> Awaitable[Result]:
        """Run something slow on one of the store's threads."""
        return self._loop.run_in_executor(self._io, function, *args)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run something on the loop until the node stops."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def start_anew(self, delay_s: float, why: str) -> None:
        """End in a moment, to be started again with what is on the disk by then."""
        self.starts_anew = why
        self._loop.call_later(delay_s, self.stopping.set)

    @property
    def is_serving(self) -> bool:
        """An answer passes through this device."""
        with self.lock:
            return any(entry.running for entry in self.core.ledger.kv.values())

    def note(self, event: str, **fields: str | int | float) -> None:
        """Something happened that a person may want to know."""
        self.log.append((time.time(), event, fields))
        log.info("%s %s", event, fields)

    # --- events

    def _on_fast(self, event: net.Received) -> bool:
        """A message of an answer, on the transport's thread: take it, unless the core is busy."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            self._do(self.core.received(event.peer, event.message, event.frame, self.now))
        except Exception as error:  # a bug in one answer must not end the thread that all of them need
            self._on_bug(error)
        finally:
            self.lock.release()
        return True

    def _on_event(self, event: net.Event) -> None:
        """Something came from the transport; on the loop."""
        match event:
            case net.Received(peer, message, frame):
                handler = self._handlers.get(type(message))
                if handler is not None:
                    handler(peer, message, frame if frame is not None else memoryview(b""))
                else:
                    self._act(self.core.received, peer, message, frame)
            case net.PeerUp(peer, name, boot):
                self.note("joined", name=name, address=str(event.address))
                self._act(self.core.peer_up, peer, boot, name)
                self.send(peer, self._catalog())
                self.peers.peer_up(peer, event.address)
            case net.PeerDown(peer, name, reason, certain):
                self.note("left", name=name, why=reason)
                self._act(self.core.peer_down, peer, reason, certain=certain)
                self.library.fetcher.peer_gone(peer)
                self.provider.peer_gone(peer)
                self.peers.peer_down(peer)
            case net.Garbage(peer, text):
                self.note("garbage", why=text)
            case net.NotLetIn(address, reason, text):
                self.troubles.append(event)
                self.note("not_let_in", address=str(address), reason=reason, why=text)
            case net.CloneSeen(peer, text):
                self.troubles.append(event)
                self.note("clone", why=text)
                self._act(self.core.clone_seen, peer, self.core.members.name_of(peer))
            case net.Broken(text):
                self.note("bug", why=text)
                self.start_anew(RESTART_S, f"a bug ended its connections ({text})")

    def _table(self) -> dict[type[m.Message], Callable[[PeerId, m.Message, memoryview], None]]:
        """Messages that are not the core's alone."""
        fetcher, provider = self.library.fetcher, self.provider
        handlers: dict[type[m.Message], Callable[[PeerId, m.Message, memoryview], None]] = {}

        def on(kind: type[m.Message], handler: Callable[..., None], *, frame: bool = False) -> None:
            handlers[kind] = handler if frame else lambda peer, message, _: handler(peer, message)

        on(m.Heartbeat, self._on_heartbeat)
        on(m.Catalog, self._on_catalog)
        on(m.ManifestRequest, provider.manifest)
        on(m.HaveRequest, provider.have)
        on(m.ChunkRequest, provider.chunk)
        on(m.ChunkCancel, provider.cancel)
        on(m.ManifestReply, fetcher.manifest_piece, frame=True)
        on(m.Have, fetcher.have, frame=True)
        on(m.ChunkReply, fetcher.chunk, frame=True)
        on(m.StatusRequest, self.status.answer_request)
        on(m.StatusReply, self.status.take_reply)
        on(m.LinkProbed, self.peers.link_probed)
        on(m.Rekey, self.peers.rekey)
        on(m.RekeyDone, self.peers.rekey_done)
        return handlers

    def _on_heartbeat(self, peer: PeerId, message: m.Heartbeat) -> None:
        rtt_s = next((info.rtt_s for info in self.transport.peers() if info.peer == peer), None)
        self._act(self.core.heartbeat, peer, message.state, rtt_s)

    def _on_catalog(self, peer: PeerId, message: m.Catalog) -> None:
        before = self.library.fetcher.catalogs.get(peer, {})
        self.library.fetcher.catalog(peer, message.models)
        for holding in message.models:
            known = self.library.known.get(holding.model)
            if known is None:
                if holding != before.get(holding.model) or holding.model in self._missed:
                    self.spawn(self._know_quietly(holding.model))
            elif holding.n_have == holding.n_chunks:
                self._act(self.core.holdings, peer, holding.model, known.all_parts)
            else:
                self.library.fetcher.ask_have(peer, holding.model)

    async def _tick_for_ever(self) -> None:
        while True:
            try:
                self._tick()
            except Exception as error:  # a bug in one thing that is to be done must not end the time for all others
                self._on_bug(error)
                await asyncio.sleep(1.0)
            await asyncio.sleep(TICK_S)

    def _tick(self) -> None:
        self._act(self.core.tick)
        self.meters.tick(self.worker.busy_s, self.worker.positions, self.now)
        self.transport.set_state(self.status.state())
        self._give_way_to_answers()
        if self.now - self._catalog_told_at > limits.CATALOG_INTERVAL_S:
            self._tell_catalog()
        self.library.fetcher.tick()
        self.questions.tick()

    async def _measure_again(self) -> None:
        """What was measured beside busy programs counts only until there is a quiet moment."""
        isa = kernels.isa(self.settings.cpu)
        is_again = await measure.again_when_quiet(
            self.home, isa, self.threads, lambda: not self.answers and not self.is_serving
        )
        if not is_again:
            return
        new = await self.run_io(measure.capabilities, self.home, self.settings, self.threads)
        self.note("measured_again", reads=rate_text(new.read_bytes_per_s))
        # What may be used was decided at the start, before anything was loaded.
        old = self.core.capabilities
        self._act(self.core.measured, replace(new, memory_bytes=old.memory_bytes, disk_bytes=old.disk_bytes))

    def _give_way_to_answers(self) -> None:
        """While an answer passes through here, fetching and giving leave most of the network to it."""
        rate = None
        if self.is_serving and self.meters.busy > 0:
            fastest = max((peer.bytes_per_s for peer in self.core.members.living()), default=0.0)
            rate = max(BUSY_SHARE * fastest, limits.BUSY_FETCH_BYTES_PER_S)
        self.library.fetcher.set_rate(rate)
        self.provider.set_rate(rate)

    # --- effects

    def _act(self, decide: Callable[..., list[fx.Effect]], *arguments: object, **options: object) -> None:
        """Let the core decide, now, and carry out what it decided."""
        with self.lock:
            self._do(decide(*arguments, self.now, **options))

    def _do(self, effects: list[fx.Effect]) -> None:
        """Carry out effects in order; on any thread that holds the lock."""
        for effect in effects:
            match effect:
                case fx.Send():
                    self.send(effect.to, effect.message, effect.frame)
                case fx.Compute() | fx.OpenKv() | fx.DropKv():
                    self.worker.put(effect)
                case fx.Unload(model, parts):
                    self._give_up(model, parts)
                    self.worker.put(effect)
                case fx.Load(ticket, model, parts):
                    self._loading[ticket] = Loading(ticket, model, set(parts))
                    self._for_loop.append(effect)
                case fx.Emit() | fx.Ended() | fx.Notice() | fx.LookUp():
                    self._for_loop.append(effect)
                case fx.Log(event, fields):
                    self._on_log(event, dict(fields))
        if self._for_loop:
            if threading.get_ident() == self._thread:
                self._do_on_loop()
            else:
                self._post(self._do_on_loop)

    def _do_on_loop(self) -> None:
        """Carry out, in order, what was left for the loop."""
        while self._for_loop:
            effect = self._for_loop.popleft()
            match effect:
                case fx.Emit() | fx.Ended() | fx.Notice():
                    answer = self.answers.get(effect.session)
                    if answer is not None:
                        self.questions.say_who_is_gone(answer)
                        answer.deliver(effect)
                case fx.Load(ticket):
                    self.spawn(self._load(self._loading[ticket]))
                case fx.LookUp(model):
                    self.spawn(self._know_quietly(model))

    def _on_log(self, event: str, fields: dict[str, str | int | float]) -> None:
        if event not in ("joined", "suspected", "reachchanged"):
            self.note(event, **fields)

    # --- computing

    def _on_done(self, done: Done) -> None:
        """A step is done; on the worker's thread."""
        if done.error:
            self.note("step_failed", why=done.error)
        try:
            if done.error:
                self._act(self.core.compute_failed, done.job, done.error)
            else:
                self._act(self.core.computed, done.job, frame=done.frame, info=done.info, token=done.token)
        except Exception as error:  # as in _on_fast
            self._on_bug(error)

    # --- loading

    async def _load(self, loading: Loading) -> None:
        """Fetch what the disk lacks, then read it once all earlier work of the worker is done."""
        try:
            known = await self.know(loading.model)
            loading.weight_bytes.update({part: known.cost.part_bytes(part) for part in loading.parts})
            await self.library.fetcher.fetch(loading.model, known.chunks_of(loading.parts))
        except SwarmError as error:
            loading.error = str(error)
            self._on_load_ended(loading)
            return
        self.worker.call_after(lambda: self.loader.load(loading, known.source, known.spec))

    def _on_installed(self, loading: Loading, part: Part, spec: ModelSpec, weights: Weights) -> None:
        if part in loading.parts and loading.ticket in self._loading:
            self.worker.install(loading.model, spec, part, weights)

    def _on_load_ended(self, loading: Loading) -> None:
        if self._loading.pop(loading.ticket, None) is None:
            return
        if loading.error:
            self.note("load_failed", why=loading.error)
            self.worker.put(fx.Unload(loading.model, frozenset(loading.parts)))
            self._act(self.core.load_failed, loading.ticket, loading.error)
        else:
            self._act(self.core.loaded, loading.ticket)

    def _give_up(self, model: ModelId, parts: frozenset[Part]) -> None:
        for loading in list(self._loading.values()):
            if loading.model == model:
                loading.parts -= parts

    # --- models

    async def _know_quietly(self, model: ModelId) -> None:
        try:
            await self.know(model)
            self._missed.discard(model)
        except SwarmError as error:
            if model not in self._missed:
                self.note("model_unknown", model=model[:12], why=str(error))
            if isinstance(error, ModelNotFound):
                self._missed.add(model)

    def _tell_holdings(self, known: KnownModel) -> None:
        """What this device and its peers have of a model that the core has just come to know."""
        self._has_parts(known)
        for peer, catalog in self.library.fetcher.catalogs.items():
            holding = catalog.get(known.id)
            if holding is None or not holding.n_have:
                continue
            if holding.n_have == holding.n_chunks:
                self._act(self.core.holdings, peer, known.id, known.all_parts)
            else:
                self.library.fetcher.ask_have(peer, known.id)

    def _has_parts(self, known: KnownModel) -> None:
        chunks = self.store.model(known.id)
        if chunks is not None:
            self._act(self.core.holdings, self.peer, known.id, known.parts_in(chunks.held))

    def _has_changed(self, model: ModelId) -> None:
        """There is more of a model here than before: tell the core and everybody."""
        known = self.library.known.get(model)
        if known is not None:
            self._has_parts(known)
        self._tell_catalog()

    def _tell_catalog(self) -> None:
        catalog = self._catalog()
        self._catalog_told_at = self.now
        for peer in self.core.others():
            self.send(peer, catalog)

    def _peer_has(self, peer: PeerId, model: ModelId, held: Bits) -> None:
        known = self.library.known.get(model)
        if known is not None and len(held) == known.manifest.n_chunks:
            self._act(self.core.holdings, peer, model, known.parts_in(held))

    def _models_in_use(self) -> set[ModelId]:
        with self.lock:
            return {model for model, _ in self.core.ledger.parts}

    def _catalog(self) -> m.Catalog:
        return m.Catalog(tuple(self.store.holdings())[: limits.MAX_MODELS])

    def _on_ban(self, peer: PeerId, reason: str) -> None:
        self.note("liar", name=self.core.members.name_of(peer), why=reason)

    # --- within

    def _post(self, function: Callable[[*Args], object], *args: *Args) -> None:
        """Call a function on the loop, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the node has ended
            self._loop.call_soon_threadsafe(function, *args)

    def _forget_answer(self, session: SessionId) -> None:
        self.answers.pop(session, None)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._on_bug(error)

    def _on_bug(self, error: BaseException) -> None:
        log.error("a bug", exc_info=error)
        self.note("bug", why=f"{type(error).__name__}: {error}")
