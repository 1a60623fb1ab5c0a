"""From a question to an answer: which model is meant, what its tokens are, which conversation it goes on with."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from swarm.answers import EndReason, ExpertUse
from swarm.cluster.core import Core
from swarm.cluster.effects import Embedded, Emit, Ended, Notice, NoticeKind, Unsay
from swarm.cluster.membership import Health
from swarm.cluster.pipeline import Pipeline
from swarm.cluster.placement import State
from swarm.cluster.session import Phase
from swarm.config import Settings
from swarm.errors import ModelNotFound
from swarm.limits import MAX_ACTIVE_SESSIONS, MAX_KEPT_SESSIONS, MAX_TOLD_PER_S, MAX_WAITING_SESSIONS
from swarm.models.sizes import context_of, kv_bytes_per_token
from swarm.node.answer import Answer, Beginning, Port, Question, Reading
from swarm.node.background import Background
from swarm.node.driver import Driver
from swarm.node.embedding import check_embedding, embedding_prompt
from swarm.node.event_log import EventLog
from swarm.node.fetch_progress import Fetching, FetchProgress
from swarm.node.holdings import Holdings
from swarm.node.library import KnownModel
from swarm.node.meters import Totals
from swarm.node.shared_work import SharedWork
from swarm.store.fetching import Download, download_at, fetch
from swarm.store.keeping import file_at, is_path
from swarm.store.naming import meaning_of, slug
from swarm.store.origins import Remote
from swarm.text.model_text import Prompt, check_fits, common_prefix
from swarm.text.sandbox import RENDERER
from swarm.units import size_text
from swarm.wire.ids import ModelId, PeerId, SessionId
from swarm.wire.records import Placement

TELL_S = 1.0  # between two lines on how far the model is fetched
WATCH_S = 0.1  # how late a reader hears what is not news of the core
MAX_CHOSEN = 256  # names of models whose meaning is remembered
MAX_ASKERS = 2 * (MAX_ACTIVE_SESSIONS + MAX_WAITING_SESSIONS + MAX_KEPT_SESSIONS)
EMBED_EVERY_S = 3 / (0.75 * MAX_TOLD_PER_S)  # a text is opened, closed and forgotten
QUESTION_TAIL_TOKENS = 8  # after a person's words: who speaks next, and that it is to think
MIN_REUSE_TOKENS = 16  # that a question must have in common with a conversation to go on with it


class Questions:
    """Owner of the answers that are given here; on the loop."""

    def __init__(
        self,
        driver: Driver,
        background: Background,
        holdings: Holdings,
        *,
        events: EventLog,
        settings: Settings,
        is_settling: Callable[[], bool],
        has_draft: Callable[[KnownModel], bool] = lambda model: False,
        owner_of: Callable[[str], bytes] = lambda asker: b"",
        expert_use: Callable[[], ExpertUse] = ExpertUse,
        chosen: Mapping[str, str] | None = None,
        keep_chosen: Callable[[dict[str, str]], object] = lambda chosen: None,
        names: Callable[[], list[str]] | None = None,
    ) -> None:
        """`is_settling`: the node has just started, and devices that it knows may not be there yet. expert_use: how
        experts that this device has on disk were found so far.

        `has_draft`: whether a small model here guesses for a model.

        `owner_of`: in whose name keys and values of an asker's conversations are kept on disks; empty: they are not.

        `chosen`: what names of models meant before, by id; `keep_chosen` remembers it.

        `names`: of all models that may be asked for; slow.
        """
        self._chosen = dict(chosen or {})
        self._keep_chosen = keep_chosen
        self.answers: dict[SessionId, Answer] = {}
        self.totals = Totals()
        self._driver = driver
        self._background = background
        self._holdings = holdings
        self._events = events
        self._settings = settings
        self._is_settling = is_settling
        self._has_draft = has_draft
        self._owner_of = owner_of
        self._names = names
        self._port = Port(
            ask=lambda ask: driver.act(lambda core, now: core.ask(ask, now)),
            cancel=lambda session: driver.act(lambda core, now: core.cancel(session, now)),
            closed=self._forget,
            is_settling=is_settling,
            expert_use=expert_use,
        )
        self._embed_at = 0.0  # when the next text may be embedded
        self._shared_embedding = False  # the last one took other devices, too
        self._downloads: SharedWork[str, Path] = SharedWork()
        self._placements: dict[SessionId, Placement] = {}  # who worked on each answer at its last word
        self._read: dict[SessionId, int] = {}
        self._told_fetching: dict[SessionId, float] = {}
        self._askers: dict[SessionId, str] = {}  # of answers and of resting conversations; the last used comes last
        driver.carry_out(Emit, self._deliver, on_loop=True)
        driver.carry_out(Unsay, self._deliver, on_loop=True)
        driver.carry_out(Embedded, self._deliver, on_loop=True)
        driver.carry_out(Ended, self._deliver, on_loop=True)
        driver.carry_out(Notice, self._deliver, on_loop=True)

    async def ask(self, question: Question) -> Answer:
        """Begin an answer; raise SwarmError when the model is not to be had or the question cannot be used."""
        model, prompt, context = await self.prompt(question)
        kv_bytes_per_token(model.spec, self._settings.kv.upper())  # says why, when they cannot be kept so
        check_fits(prompt.ids, context)
        if question.embedding is not None:
            check_embedding(question.embedding, model)
            beginning = await self._session_for_embedding()
        else:
            owner = self._owner_of(question.asker) if question.asker else b""
            beginning = replace(self._session_for(model.id, prompt.ids, question.asker), owner=owner)
        guess = question.guess and question.embedding is None and self._settings.guess != "never"
        question = replace(question, guess=guess, draft=guess and self._has_draft(model))
        answer = Answer(self._port, model, question, prompt, beginning=beginning, context=context)
        self.answers[beginning.session] = answer
        self._background.spawn(self._watch(answer))
        return answer

    async def _session_for_embedding(self) -> Beginning:
        """A session of its own, of which nothing is kept.

        Devices take so many openings a second of each other and no more: short texts come no faster than that.
        """
        wait_s, self._embed_at = self._embed_at - self._driver.now, max(self._embed_at, self._driver.now)
        if self._shared_embedding:
            self._embed_at += EMBED_EVERY_S
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        return Beginning(SessionId(secrets.token_hex(SessionId.N_BYTES)))

    async def prompt(self, question: Question) -> tuple[KnownModel, Prompt, int]:
        """The model that is meant, what it would be given, and the context that it has here."""
        model = await self._holdings.know(await self.find(question.model))
        context = context_of(model.spec, self._settings.context)
        return model, await self._background.run_io(prompt_of, model, question, context), context

    async def find(self, text: str) -> ModelId:
        """The model that `text` names ("" is the default one): of the swarm, or a file that this device can get."""
        # Only this device's user may name a path, in the settings: a client of the API must not have files opened.
        path = None if text and not self._is_default_file(text) else file_at(self._settings.model)
        text = text or self._settings.model
        found = path or self._meaning(text)
        while not isinstance(found, str | Path) and self._is_settling():
            await asyncio.sleep(0.1)  # the device that has it may be about to be found
            found = self._meaning(text)
        if isinstance(found, Path):
            found = download_at(found, self._settings.models_path) or found
        if isinstance(found, Download):
            download = found
            found = await self._downloads.get(download.name, lambda: self._download(download))
        if isinstance(found, Path):
            return await self._holdings.add_file(found)
        if isinstance(found, str):
            return found
        # What lies elsewhere is fetched by a command of this device's user, never because a client named it.
        if found is not None:
            raise ModelNotFound(f"no device here has {found}; `swarm pull {text[:80]}` fetches it")
        raise await self._not_found(text)

    def end_all(self) -> None:
        """End what is being answered, and what is still being read: nobody waits for a template that never ends."""
        RENDERER.interrupt()
        for answer in list(self.answers.values()):
            answer.cancel()

    # --- within

    async def _not_found(self, text: str) -> ModelNotFound:
        """Says what can be asked for, in the words of the list of models."""
        names = await self._background.run_io(self._names) if self._names is not None else None
        return self._holdings.library.not_found(text, names)

    def _meaning(self, text: str) -> ModelId | Path | Download | Remote | None:
        """What a name means; what only others have is meant by it from now on, whatever comes with that name."""
        entries = self._holdings.library.entries()
        found = meaning_of(text, self._settings.models_path, entries, self._chosen.get(slug(text), ""))
        entry = next((entry for entry in entries if entry.id == found), None)
        if isinstance(found, str) and entry is not None and not entry.is_ours:
            news = {slug(text): str(found), entry.base_name or entry.name: str(found)}
            if not news.items() <= self._chosen.items():
                self._chosen.update(news)
                self._keep_chosen(dict(list(self._chosen.items())[-MAX_CHOSEN:]))
        return found

    def _is_default_file(self, text: str) -> bool:
        """Whether the name is that of the file that is the default model: it need not lie where others do."""
        default = self._settings.model
        return is_path(default) and text.lower() in (slug(Path(default).stem), Path(default).name.lower())

    async def _download(self, download: Download) -> Path:
        self._events.note("downloading", model=download.name, size=size_text(download.size_bytes))
        return await self._background.run_io(fetch, download, self._settings.models_path)

    async def _watch(self, answer: Answer) -> None:
        """Tell a reader who still waits for the first word how far the model is fetched, and the prompt read."""
        progress = FetchProgress()
        while self.answers.get(answer.session) is answer:
            session = self._driver.read(lambda core: _running(core, answer.session))
            if session is None and not answer.tokens:
                self._tell_fetching(answer, progress)
            elif session is not None:
                self._say_who_is_gone(answer, session)
                self._tell_reading(answer, session)
            await asyncio.sleep(WATCH_S)

    def _deliver(self, effect: Embedded | Emit | Unsay | Ended | Notice) -> None:
        if isinstance(effect, Embedded):
            self._shared_embedding = effect.n_devices > 1
        answer = self.answers.get(effect.session)
        if answer is not None:
            session = self._driver.read(lambda core: _running(core, effect.session))
            if session is not None:
                self._say_who_is_gone(answer, session)
            if not answer.tokens:
                answer.reused(self._driver.read(lambda core: _reused(core, effect.session)))
            answer.deliver(effect)

    def _forget(self, session: SessionId) -> None:
        answer = self.answers.pop(session, None)
        if answer is not None:
            self.totals.add(answer.stats, failed=answer.finish_reason is EndReason.FAILED)
            if answer.question.embedding is not None:
                self._driver.act(lambda core, now: core.forget(session, now))
        self._placements.pop(session, None)
        self._read.pop(session, None)
        self._told_fetching.pop(session, None)

    def _say_who_is_gone(self, answer: Answer, session: _Running) -> None:
        """When an answer goes on with other devices than before, its reader hears why."""
        before, placement = self._placements.get(answer.session), session.placement
        if before is placement or placement is None:
            return
        self._placements[answer.session] = placement
        peers = Pipeline.of(placement).peers
        used = Pipeline.of(before).peers
        names = self._driver.read(
            lambda core: [core.members.name_of(p) for p in used if p not in peers and not _is_well(core, p)]
        )
        if names:
            answer.deliver(Notice(answer.session, going_on(names, len(peers)), NoticeKind.CHANGED))

    def _tell_fetching(self, answer: Answer, progress: FetchProgress) -> None:
        now, share = self._driver.now, self._share_fetched()
        if now < self._told_fetching.get(answer.session, 0.0) + TELL_S:
            return
        line = progress.line(self._driver.read(lambda core: _fetching(core, answer.model.id, share)), now)
        if line:
            self._told_fetching[answer.session] = now
            answer.deliver(Notice(answer.session, line, NoticeKind.LOADING))

    def _share_fetched(self) -> float:
        """Of what this device fetches just now."""
        done, wanted = self._holdings.library.fetcher.progress()
        return done / wanted if wanted else 1.0

    def _tell_reading(self, answer: Answer, session: _Running) -> None:
        if answer.tokens or session.done >= session.goal or self._read.get(answer.session) == session.done:
            return
        self._read[answer.session] = session.done
        answer.deliver(Reading(session.done, session.goal))

    def _session_for(self, model: ModelId, ids: list[int], asker: str) -> Beginning:
        """Where an answer to `ids` begins: with the KV of whichever of the asker's conversations began most alike.

        A question that begins with all that a conversation asked goes on with it, where it rests. What shares only a
        beginning, a system prompt say, is a conversation of its own with a copy of that.
        """
        best, most = None, MIN_REUSE_TOKENS - 1
        theirs = {key for key, who in self._askers.items() if who == asker}
        for other in self._driver.read(lambda core: _conversations(core, model, theirs)):
            common = common_prefix(other.ids, ids)
            if common > most:
                best, most = other, common
        goes_on = best is not None and best.rests and best.session not in self.answers and best.is_asked_by(most)
        new = SessionId(secrets.token_hex(SessionId.N_BYTES))
        key = best.session if best is not None and goes_on else new
        self._askers.pop(key, None)
        self._askers[key] = asker
        while len(self._askers) > MAX_ASKERS:
            del self._askers[next(iter(self._askers))]
        if best is None:
            return Beginning(key)
        return Beginning(key, None if goes_on else best.session, min(most, len(ids) - 1))


@dataclass(frozen=True, slots=True)
class _Conversation:
    """A conversation that there is KV of."""

    session: SessionId
    ids: list[int]
    n_asked: int  # of the ids, before its answer
    rests: bool

    def is_asked_by(self, common: int) -> bool:
        """Whether what begins with so many of its ids asks all that it asked.

        Templates end a question in other words than they use once it was answered.
        """
        return common + QUESTION_TAIL_TOKENS >= self.n_asked


@dataclass(frozen=True, slots=True)
class _Running:
    """How far an answer is, at one moment."""

    placement: Placement | None
    done: int  # positions that have passed the last stage
    goal: int


def _fetching(core: Core, model: ModelId, own_share: float) -> list[Fetching]:
    """The devices that a model is being placed on: what each fetches, and how much of that is there."""
    placing = core.placer.placings.get(model)
    if placing is None or placing.plan is None or placing.state is not State.LOADING:
        return []
    shares = {core.me: own_share} | {peer.id: peer.state.fetching for peer in core.members.living()}
    shards = [shard for stage in placing.plan.stages for shard in stage.members]
    return [Fetching(s.name, shares.get(s.device, 1.0), s.fetch_bytes) for s in shards]


def _running(core: Core, key: SessionId) -> _Running | None:
    session = core.sessions.sessions.get(key)
    if session is None or session.phase is not Phase.RUNNING:
        return None
    return _Running(session.placement, session.passed, session.goal)


def _reused(core: Core, key: SessionId) -> int | None:
    """Positions that were there when the stages began with an answer; None before they did."""
    session = core.sessions.sessions.get(key)
    return session.reused if session is not None and session.begun else None


def _conversations(core: Core, model: ModelId, keys: set[SessionId]) -> list[_Conversation]:
    """Those of these that are answered, or wait for their next turn; those that rest first."""
    sessions = (core.sessions.sessions.get(key) for key in keys)
    conversations = (
        _Conversation(s.id, list(s.ids), s.ask.sampling.answer_at, s.phase is Phase.RESTING)
        for s in sessions
        if s is not None and s.ask.model == model and s.phase in (Phase.RESTING, Phase.RUNNING)
    )
    return sorted(conversations, key=lambda each: (not each.rests, each.session))


def _is_well(core: Core, peer: PeerId) -> bool:
    member = core.members.peers.get(peer)
    return member is None or (member.health is Health.ALIVE and member.link_up)


def prompt_of(model: KnownModel, question: Question, context: int) -> Prompt:
    """What the model is given; slow when a model is new."""
    if question.embedding is not None:
        assert question.prompt is not None
        return embedding_prompt(model, question.prompt, context, cuts=question.embedding.cuts)
    if question.infill is not None:
        return model.text.infill(question.infill, context=context)
    if question.prompt is not None:
        return model.text.continuation(question.prompt, form=question.form, context=context)
    return model.text.chat(
        question.messages,
        tools=question.tools,
        choice=question.tool_choice,
        form=question.form,
        thinking=question.thinking,
        template_values=question.template_values,
        context=context,
    )


def going_on(names: list[str], n_devices: int) -> str:
    """The quiet line after a device was lost."""
    who = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    verb = "are" if len(names) > 1 else "is"
    with_what = "one device" if n_devices == 1 else f"{n_devices} devices"
    return f"{who} {verb} gone; going on with {with_what}"
