"""The node: where everything meets.

It makes the parts and joins them: events of the transport, ticks, and answers of the compute worker, loader and store
go to the driver, which owns the core (driver.py); what the core decides is carried out by the part that has said so.
All of that happens on one asyncio loop, but for messages and steps of an answer in progress, which are handled on the
threads that bring them (fast_path.py says why). Nothing here computes or waits for a disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import cast

import msgspec

from swarm import config, kernels, limits
from swarm.cluster import effects as fx
from swarm.cluster.core import Core, Identity
from swarm.cluster.cost import ModelCost
from swarm.cluster.planner import Demand, Layout
from swarm.config import HubSettings
from swarm.engine.ways import kept as kept_ways
from swarm.errors import ConfigError
from swarm.net import events as net
from swarm.net.inbox import Inbox
from swarm.net.transport import Transport
from swarm.node import bringing, doctor, measure, plan, removing
from swarm.node.answer import Answer, Question
from swarm.node.answerable import Answerable, AnswerableModels
from swarm.node.background import Background
from swarm.node.bringing import PullStep
from swarm.node.choosing import choose_when_quiet
from swarm.node.compute import ComputeWorker, Done
from swarm.node.constraints import Constraints
from swarm.node.drafts import DraftWorker
from swarm.node.driver import Driver, is_serving, waits_for_weights
from swarm.node.event_log import EventLog
from swarm.node.fast_path import FastPath
from swarm.node.helping import Helping
from swarm.node.holdings import Holdings
from swarm.node.home import Home
from swarm.node.house import House
from swarm.node.kept_kv import KeptFiles
from swarm.node.library import KnownModel
from swarm.node.loads import Loads
from swarm.node.meters import Meters
from swarm.node.offering import Offering
from swarm.node.outbox import Outbox
from swarm.node.pace import Pace
from swarm.node.peers import Peers
from swarm.node.provide import Provider
from swarm.node.questions import Questions
from swarm.node.rehearsals import Rehearsals
from swarm.node.routes import Routes
from swarm.node.spot_checks import Checker
from swarm.node.spreading import Spreading
from swarm.node.stages import Stages, open_stage_listener
from swarm.node.status import StatusReports
from swarm.node.wellbeing import Wellbeing
from swarm.plain import one_line
from swarm.text.model_text import Prompt
from swarm.units import rate_text
from swarm.wire import messages as m
from swarm.wire.ids import ModelId, PeerId, SessionId
from swarm.wire.records import Capabilities, KvFormat

TransportOf = Callable[[Inbox], Transport]
Json = dict[str, object]
BUSY_LOOK_S = 0.1  # while chunks come or go: an answer that begins gets the network within this
RESTART_S = 5.0  # after a bug: should it come again at once, others are not bothered too often
BUSY_SHARE = 0.25  # of the fastest link, for fetching while an answer runs: it adds at most a third to a message's way


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
        self.options = options
        self.settings = options.settings
        self.name = options.name
        self.events = EventLog()
        self.background = Background(self.events.bug)
        self.api_port = 0  # of the local API, once it listens
        self.serve_lan: Callable[[], Awaitable[list[str]]] = _no_lan  # opens it for other devices, where that is wanted
        self._threads = capabilities.threads
        self.store = options.home.open_store(capabilities.disk_bytes)
        fast_path = FastPath(asyncio.get_running_loop(), self._on_event, self._on_fast)
        try:
            self.transport = transport_of(fast_path.inbox())
        except BaseException:
            self.store.close()
            self.background.close()
            raise
        me = self.transport.me
        self.peer = me.peer
        identity = Identity(me.peer, me.boot, options.name, first_epoch=int(time.time()))
        kv, self._layout = cast(KvFormat, self.settings.kv), cast(Layout, self.settings.layout)  # config checked them
        self._stages = Stages(open_stage_listener(me.port), self._place_of)
        core = Core(identity, capabilities, SystemRandom(), kv=kv, layout=self._layout, slice_port=self._stages.port)
        self._driver = driver = Driver(core, self.background)
        self._routes = routes = Routes(driver)
        self._began_at = driver.now
        self._meters = Meters()
        self._pace = Pace(driver.now)
        self._outbox = outbox = Outbox(self.transport, self.events)
        self._kept = KeptFiles(
            options.home.kept_kv,
            config.parse_bytes("kv_disk", self.settings.kv_disk or "0", of=capabilities.disk_bytes),
            spare_bytes=lambda: capabilities.disk_bytes - self.store.stored_bytes,
            written=lambda name: driver.act(lambda core, now: core.kv_kept(name, now)),
            lost=self._on_kv_lost,
        )
        self._worker = ComputeWorker(
            self.background.post,
            self._on_done,
            threads=self._threads,
            isa=kernels.isa(self.settings.cpu),
            constraints=Constraints(lambda model: self.library.known[model].tokenizer),
            stages=self._stages,
            kept=self._kept,
            kv_read=self._on_kv_read,
            ways=kept_ways(options.home.root, kernels.isa(self.settings.cpu), self._threads),
        )
        experts = options.home.experts
        self.holdings = Holdings(
            driver,
            self.background,
            self.store,
            outbox=outbox,
            events=self.events,
            me=me.peer,
            threads=self._threads,
            experts=experts,
        )
        self.library = self.holdings.library
        self._answerable = AnswerableModels(self.library, self.store, self.settings)
        self._provider = Provider(self.store, self.transport.send, self.background.run_io, time.monotonic)
        self._loads = Loads(
            driver,
            self.background,
            self.holdings,
            worker=self._worker,
            events=self.events,
            threads=self._threads,
            experts=experts,
        )
        self._checker = Checker(driver, self.background, self.holdings, worker=self._worker, events=self.events)
        self.house = House(
            driver,
            self.background,
            self.holdings,
            self.store,
            outbox=outbox,
            events=self.events,
            me=me.peer,
            settings=self.settings,
        )
        self._helping = Helping(self.background, self.store, self.holdings, outbox, self.events)
        self.drafts = DraftWorker(driver, self.background, self.events, settings=self.settings, threads=self._threads)
        self.questions = Questions(
            driver,
            self.background,
            self.holdings,
            events=self.events,
            settings=self.settings,
            is_settling=self._is_settling,
            has_draft=self.drafts.serves,
            owner_of=self._kept.owner_of,
            expert_use=self._worker.expert_use,
            chosen=options.home.chosen(),
            keep_chosen=self._keep_chosen,
            names=self._answerable.names,
        )
        self.peers = Peers(
            driver,
            self.background,
            transport=self.transport,
            outbox=outbox,
            events=self.events,
            home=options.home,
            announce_s=self._announce_s,
        )
        self._rehearsals = Rehearsals(driver, self.background, self._stages, outbox=outbox, me=me.peer)
        self.status = StatusReports(
            driver,
            transport=self.transport,
            outbox=outbox,
            holdings=self.holdings,
            worker=self._worker,
            meters=self._meters,
            provider=self._provider,
            peers=self.peers,
            events=self.events,
            beat_s=lambda: self._pace.beat_s(driver.now),
            is_active=self._has_work,
            temperature_c=lambda: self._wellbeing.conditions.temperature_c,
        )
        self._wellbeing = Wellbeing(
            driver,
            self.background,
            self.events,
            settings=self.settings,
            measured=capabilities,
            is_idle=lambda: self._pace.is_idle(driver.now),
        )
        self._carry_out_effects(driver)
        parts = (self.holdings, self._provider, self.peers, self.status, self.house, self._helping, self._rehearsals)
        for part in parts:
            part.take_messages(routes)
        routes.take(m.Heartbeat, self._on_heartbeat)

    def _carry_out_effects(self, driver: Driver) -> None:
        driver.carry_out(fx.Send, self._outbox.carry_out)
        for kind in (fx.Compute, fx.OpenKv, fx.DropKv, fx.KeepKv):
            driver.carry_out(kind, self._worker.put)
        driver.carry_out(fx.ForgetKept, self._kept.forget)
        self._stages.carry_out(driver)
        driver.carry_out(fx.Log, self._on_log)

    @classmethod
    async def start(cls, options: Options, transport_of: TransportOf) -> Node:
        """Measure, listen, look around. Raise SwarmError when something needed is not there."""
        options.home.make()
        loop = asyncio.get_running_loop()
        threads = options.settings.threads or kernels.threads()
        capabilities = await loop.run_in_executor(None, measure.capabilities, options.home, options.settings, threads)
        node = cls(options, transport_of, capabilities)
        node._driver.start()
        await node._find_kept_kv()
        node.background.every(node._look_interval_s, node._look_around)
        node.background.every(lambda: node._pace.catalog_s(node._driver.now), node.holdings.tell_catalog)
        node.background.spawn(node._measure_again())
        node.background.spawn(node._choose_ways())
        node.background.spawn(Offering(node.holdings, node.events, node.settings.models_path).forever())
        node.background.spawn(Spreading(node._driver, node.holdings, node.store, node.events, node.peer).forever())
        node._wellbeing.start()
        await node.drafts.start()
        for holding in node.store.holdings():
            node.holdings.look_up(holding.model)
        await node.peers.start(options.calls, discover=options.discover)
        return node

    async def stop(self) -> None:
        """Say goodbye and end everything."""
        self._driver.act(lambda core, now: core.leave(now))
        self.questions.end_all()
        self._driver.act(lambda core, now: core.keep_all(now))
        await self.peers.stop()
        self._driver.stop()
        self._provider.stop()
        await self.house.stop()
        await self._helping.stop()
        await self.background.end_tasks()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.transport.stop)
        await loop.run_in_executor(None, self._stages.stop)
        await loop.run_in_executor(None, self._checker.stop)
        await loop.run_in_executor(None, self.drafts.stop)
        await loop.run_in_executor(None, self._worker.stop)
        await loop.run_in_executor(None, self._kept.stop)
        await loop.run_in_executor(None, self._loads.loader.stop)
        await loop.run_in_executor(None, self.store.close)
        self.background.close()

    # --- for the API and the command line

    @property
    def stopping(self) -> asyncio.Event:
        """Set by whoever wants the node to end."""
        return self.background.stopping

    @property
    def starts_anew(self) -> str:
        """Why it starts again after it has ended; empty when it does not."""
        return self.background.starts_anew

    @property
    def n_others(self) -> int:
        """Devices that are there beside this one."""
        return self._driver.read(lambda core: len(core.others()))

    async def ask(self, question: Question) -> Answer:
        """Begin an answer; raise SwarmError when the question cannot be answered here."""
        answer = await self.questions.ask(question)
        self._look_around()  # others hear at once that there is something to do
        return answer

    async def prompt(self, question: Question) -> Prompt:
        """What a model would be given; raise SwarmError when the question cannot be asked here."""
        return (await self.questions.prompt(question))[1]

    async def answerable(self) -> list[Answerable]:
        """The models that a question may name."""
        return await self.background.run_io(self._answerable.listed)

    def loaded_models(self) -> set[ModelId]:
        """Models of which weights are in this device's memory."""
        return self._driver.read(lambda core: {model for model, _ in core.ledger.parts})

    @property
    def busy_s(self) -> float:
        """Seconds that this device has computed, since the start."""
        return self._worker.busy_s

    @property
    def positions(self) -> int:
        """Positions that this device has computed, since the start."""
        return self._worker.positions

    async def find(self, model: str) -> KnownModel:
        """The model that somebody means by a name ("" is the default one); it is fetched if need be."""
        return await self.holdings.know(await self.questions.find(model))

    async def draft(self, path: Path, model: str) -> str:
        """Let a small model of a file, or `mtp`, guess in answers asked for here; raise SwarmError where it cannot."""
        await self.drafts.use(path, await self.find(model))
        return path.name

    async def add_file(self, path: Path) -> ModelId:
        """Offer a model file to the swarm."""
        return await self.holdings.add_file(path)

    async def remove(self, text: str, path: str, *, everywhere: bool) -> Json:
        """Delete a model, of which the name or the file here is given, from this device or from all."""
        model = removing.model_to_remove(self.holdings, self.store, text, path)
        return await removing.remove(self._driver, self.holdings, self.store, model, everywhere=everywhere)

    def bring(self, text: str, hub: HubSettings) -> AsyncGenerator[PullStep, None]:
        """Fetch a model, with word of how far it is."""
        memory = self._driver.read(lambda core: core.capabilities.memory_bytes)
        return bringing.bring(
            text,
            hub,
            memory,
            house=self.house,
            holdings=self.holdings,
            background=self.background,
            settings=self.settings,
        )

    async def remove_with_file(self, text: str) -> None:
        """Delete a model from this device, and the file that Swarm has fetched for it."""
        listed = next((model for model in await self.answerable() if text.lower() == model.name), None)
        if listed is not None and not listed.id:  # a file that nobody has asked yet
            await self.background.run_io(removing.take_off_shelf, text, self.settings.models_path)
            return
        name = listed.id if listed is not None else text
        await self.holdings.remove(removing.model_to_remove(self.holdings, self.store, name, ""), with_file=True)

    async def verify(self, model: str) -> Json:
        """Compare the chunks of this device with their hashes: of a model by its id, or all with ""."""
        only = ModelId(model) if model else None
        found = await self.background.run_io(lambda: self.store.verify(only=only))
        return {"models": [{"name": name, "held": held, "wrong": wrong} for name, held, wrong in found]}

    def files(self) -> Json:
        """The files of this device that serve models, and what the swarm calls all models."""
        entries = self.library.entries()
        files = {entry.id: str(path) for entry in entries if (path := self.store.source_of(entry.id)) is not None}
        return {"files": files, "names": {entry.id: entry.name for entry in entries}}

    async def plan(self, model: str, add: Sequence[str], context: int, chats: int) -> Json:
        """Where a model would run, with made-up devices if wanted."""
        known_model = await self.find(model)
        tokens = context or plan.default_plan_context(known_model.spec.context_length, self.settings.context)
        cost = plan.cost_as_kept(self.holdings.cost_of(known_model), known_model.spec, self.settings.kv)
        demand = Demand(cost, tokens, chats, layout=self._layout)
        return await plan.plan_model(self._driver, known_model.id, demand, add, self.background.run_io)

    async def plan_unknown(self, cost: ModelCost, add: Sequence[str], context: int, chats: int) -> Json:
        """Where a model would run that no device has: of it only the header was read."""
        kept = cost.kept_as(self.settings.kv)
        if kept is None:
            raise ConfigError(f"past tokens of this model cannot be kept as {self.settings.kv}; keep them as f16")
        tokens = context or plan.default_plan_context(limits.MAX_POSITION, self.settings.context)
        demand = Demand(kept, tokens, chats, layout=self._layout)
        return await plan.plan_model(self._driver, ModelId("0" * 64), demand, add, self.background.run_io)

    def doctor(self) -> list[Json]:
        """What is wrong between this device and the others."""
        met = self._driver.read(lambda core: {peer.id: peer.name for peer in core.members.peers.values()})
        return doctor.examine(self.transport, self.peers, self.events, met)

    def _place_of(self, peer: PeerId) -> tuple[str, str]:
        """What a device is called, and the host where it was reached last ("" when it is not connected)."""
        infos = [info for info in self.transport.peers() if info.peer == peer]
        return (infos[0].name, infos[0].address.host) if infos else (peer[:8], "")

    def _keep_chosen(self, chosen: dict[str, str]) -> None:
        async def keep() -> None:
            await self.background.run_io(self.options.home.keep_chosen, chosen)

        self.background.spawn(keep())

    # --- events

    def _on_fast(self, event: net.Received) -> bool:
        """A message of an answer, on the transport's thread: take it, unless the core is busy."""
        try:
            if isinstance(event.message, m.Heartbeat):
                return self._on_beat(event.peer, event.message)
            return self._driver.act_if_free(
                lambda core, now: core.received(event.peer, event.message, event.frame, now)
            )
        except Exception as error:  # a bug in one answer must not end the thread that all of them need
            self.events.bug(error)
            return True

    def _on_done(self, done: Done) -> None:
        """A step is done; on the worker's thread."""
        errors = set()
        for output in done.outputs:
            if output.error:
                errors.add(output.error)
        for error in errors:
            self.events.note("step_failed", why=error)
        try:
            self._driver.act_in_parts(lambda core, now: core.computed_in_parts(done.job, done.outputs, now))
        except Exception as error:  # as in _on_fast
            self.events.bug(error)

    def _on_log(self, effect: fx.Log) -> None:
        self.events.core_said(effect)
        if effect.event == "falsified":  # what was kept may rest on it, on honest devices, too
            self._kept.disown()

    async def _find_kept_kv(self) -> None:
        """Conversations that earlier runs have left on the disk can be gone on with."""
        files = await self.background.run_io(self._kept.scan)
        self._driver.act(lambda core, now: core.kept_found(files, self._kept.quota_bytes, now))

    def _on_kv_read(self, session: SessionId, epoch: int, n: int) -> None:
        """A session begins with what was on the disk; on the worker's thread."""
        self.events.note("kv_read", positions=n)
        self._driver.act(lambda core, now: core.kv_read(session, epoch, n, now))

    def _on_kv_lost(self, name: str, why: str) -> None:
        """Keys and values are on no disk; on a thread of theirs."""
        self.events.note("kv_not_kept", why=why)
        self._driver.act(lambda core, now: core.kv_lost(name, now))

    def _on_event(self, event: net.Event) -> None:
        """Something came from the transport; on the loop."""
        match event:
            case net.Received():
                self._routes.deliver(event)
            case net.PeerUp():
                self._on_peer_up(event)
            case net.PeerDown():
                self._on_peer_down(event)
            case net.Gone(gone):
                self._driver.act(lambda core, now: core.peer_down(gone, "nothing listens there", now, certain=True))
            case net.Garbage(peer, text):
                self.events.note("garbage", why=text)
                if peer is not None:
                    self._driver.act(lambda core, now: core.misbehaved(peer, f"sends garbage ({one_line(text)})", now))
            case net.NotLetIn(address, reason, text):
                self.events.troubles.append(event)
                self.events.note("not_let_in", address=str(address), reason=reason, why=text)
            case net.CloneSeen():
                self._on_clone(event)
            case net.Broken(text):
                self.events.note("bug", why=text)
                self.background.start_anew(RESTART_S, f"a bug ended its connections ({text})")

    def _on_peer_up(self, event: net.PeerUp) -> None:
        self.events.note("joined", name=event.name, address=str(event.address))
        self._driver.act(lambda core, now: core.peer_up(event.peer, event.boot, event.name, now))
        self._outbox.send(event.peer, self.holdings.catalog())
        self.peers.peer_up(event.peer, event.address)
        self._rehearsals.peer_up(event.peer)
        self._hurry()

    def _on_peer_down(self, event: net.PeerDown) -> None:
        self.events.note("left", name=event.name, why=event.reason)
        self._driver.act(lambda core, now: core.peer_down(event.peer, event.reason, now, certain=event.certain))
        self.library.fetcher.peer_gone(event.peer)
        self._provider.peer_gone(event.peer)
        self.peers.peer_down(event.peer)
        self._hurry()

    def _on_clone(self, event: net.CloneSeen) -> None:
        self.events.troubles.append(event)
        self.events.note("clone", why=event.text)
        self._driver.act(lambda core, now: core.clone_seen(event.peer, core.members.name_of(event.peer), now))

    def _on_beat(self, peer: PeerId, message: m.Heartbeat) -> bool:
        """A heartbeat, on the transport's thread: take it, unless the core is busy or the loop has to hurry."""
        if message.state.active:
            if self._pace.is_idle(self._driver.now):
                return False
            self._pace.happened(self._driver.now)
        rtt_s = next((info.rtt_s for info in self.transport.peers() if info.peer == peer), None)
        return self._driver.act_if_free(lambda core, now: core.heartbeat(peer, message.state, rtt_s, now))

    def _on_heartbeat(self, peer: PeerId, message: m.Heartbeat) -> None:
        rtt_s = next((info.rtt_s for info in self.transport.peers() if info.peer == peer), None)
        self._driver.act(lambda core, now: core.heartbeat(peer, message.state, rtt_s, now))
        if message.state.active:
            self._hurry()

    # --- time

    def _is_settling(self) -> bool:
        """True for the first seconds, in which devices that take part may not have been found yet."""
        return self._driver.now - self._began_at < limits.SETTLE_S

    def _look_around(self) -> None:
        """What our heartbeats say; and who is to have the network."""
        self._meters.tick(self._worker.busy_s, self._worker.positions, self._driver.now)
        if self._has_work():
            self._pace.happened(self._driver.now)
        self.transport.set_state(self.status.state())
        self._give_way_to_answers()

    def _announce_s(self) -> float:
        """Who is alone looks for others more often."""
        now = self._driver.now
        return self._pace.announce_s(now) if self.n_others else limits.ANNOUNCE_INTERVAL_S

    def _hurry(self) -> None:
        """Something happens: let it show in our heartbeats."""
        was_idle = self._pace.is_idle(self._driver.now)
        self._pace.happened(self._driver.now)
        if was_idle:
            self._look_around()

    def _has_work(self) -> bool:
        """An answer is given or helped with here, or chunks come or go."""
        moves = self.library.fetcher.is_fetching or self._provider.is_giving
        return moves or bool(self.questions.answers) or self._meters.busy > 0 or self._driver.read(is_serving)

    def _look_interval_s(self) -> float:
        moves = self.library.fetcher.is_fetching or self._provider.is_giving
        return BUSY_LOOK_S if moves else self._pace.look_s(self._driver.now)

    def _give_way_to_answers(self) -> None:
        """While an answer passes through here, fetching and giving leave most of the network to it."""
        rate = None
        if self._meters.busy > 0 and self._driver.read(lambda core: is_serving(core) and not waits_for_weights(core)):
            rates = self._driver.read(lambda core: [peer.bytes_per_s for peer in core.members.living()])
            rate = max(BUSY_SHARE * max(rates, default=0.0), limits.BUSY_FETCH_BYTES_PER_S)
        self.library.fetcher.set_rate(rate)
        self._provider.set_rate(rate)

    async def _measure_again(self) -> None:
        """What was measured beside busy programs counts only until there is a quiet moment."""
        home, isa = self.options.home, kernels.isa(self.settings.cpu)
        if not await measure.again_when_quiet(home, isa, self._threads, self._is_idle):
            return
        new = await self.background.run_io(measure.capabilities, home, self.settings, self._threads)
        self.events.note("measured_again", reads=rate_text(new.read_bytes_per_s))
        self._wellbeing.measured(self._driver.read(lambda core: _limits_kept(new, core.measured_here)))

    async def _choose_ways(self) -> None:
        """What is fastest for the models here is found in quiet moments."""
        await choose_when_quiet(
            self.options.home.root,
            kernels.isa(self.settings.cpu),
            self._threads,
            products=lambda: list(self._worker.products),
            is_quiet=measure.is_quiet,
            is_idle=self._is_idle,
            chosen=self._worker.choose,
        )

    def _is_idle(self) -> bool:
        return not self.questions.answers and not self._driver.read(is_serving)


async def _no_lan() -> list[str]:
    """What is served to other devices before there is an API."""
    return []


def _limits_kept(new: Capabilities, old: Capabilities) -> Capabilities:
    """What may be used was decided at the start, before anything was loaded."""
    return msgspec.structs.replace(new, memory_bytes=old.memory_bytes, disk_bytes=old.disk_bytes)
