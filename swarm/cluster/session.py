"""The sessions of this entry node: each one its token ids, its sampling parameters and its seed, and who works on it.

**One owner.** A session belongs to the node on which it was started, for its whole life. Only that node appends to its
ids, and only it opens the session on stages. The ids are the recovery log: everything else (KV on the stages, messages
on their way) can be thrown away at any time and made again from them. From this follows, without any agreement:

- *Nothing is lost, repeated or taken back.* A token is appended, and emitted, only when it comes from the last stage of
  the current epoch for exactly the next position. Sampling is a function of (ids, parameters, seed), so whichever
  devices compute a position, and however often, the token is the same.
- *Two halves of a split network never both change a session.* The half without the owner cannot: its stages accept data
  only of an epoch that the owner opened, run at most to the session's context, and stand still once they lose sight of
  the owner. What they computed is never seen; when the split heals, its epoch is stale.
- *The death of an entry node loses its own sessions only*, because no other session depends on it.
- *A stage that was wrongly held to be lost* gets no data of the new epoch; what it still sends is dropped as stale.

**Recovery.** Whenever something is wrong (a lost device, a lost message, a stage that forgot), the owner opens the
session again with a higher epoch, on a new placement if need be. Stages say how much KV they still have that is true,
and the ids from there on are computed again. A message lost on a living pipeline thus costs one round trip, a lost
device a prefill. Slow is told from lost by asking: when no stage has work and nothing moved between two answers, a
message was lost.

    QUEUED -> PLACING -> OPENING -> RUNNING -> RESTING (its KV may serve the next turn)
                 ^          |          |
                 +----------+----------+  a device is lost;     OPENING again: a message was lost
                 |
               PARKED: the devices cannot hold the model until one comes back

NEXT_PHASES is the whole table: an answer may end, and thereby rest, in any phase.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from swarm import limits
from swarm.answers import PIPELINED_PREFILL_BATCH, EndReason
from swarm.cluster.effects import NEVER, Effect, Emit, Ended, Log, Notice, NoticeKind, Send
from swarm.cluster.pipeline import NOBODY, Pipeline
from swarm.cluster.placement import Placer, State
from swarm.units import size_text
from swarm.wire.ids import ModelId, PeerId, SessionId
from swarm.wire.messages import (
    Prefilled,
    SessionClose,
    SessionError,
    SessionOpen,
    SessionProbe,
    SessionProbed,
    SessionReply,
    Token,
    Tokens,
)
from swarm.wire.records import Placement, Sampling, TensorInfo

EVERYTHING = 1 << 62  # a prefix that covers all ids


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """What a user wants: an answer of at most `max_tokens` to the prompt `ids`. `end_ids` end it."""

    session: SessionId
    model: ModelId
    ids: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    end_ids: tuple[int, ...] = ()


class Phase(Enum):
    """Of one session."""

    QUEUED = "queued"
    PLACING = "placing"
    OPENING = "opening"
    RUNNING = "running"
    PARKED = "parked"
    RESTING = "resting"


NEXT_PHASES: Mapping[Phase, frozenset[Phase]] = {
    Phase.QUEUED: frozenset({Phase.PLACING, Phase.RESTING}),
    Phase.PLACING: frozenset({Phase.OPENING, Phase.PARKED, Phase.RESTING}),
    Phase.OPENING: frozenset({Phase.OPENING, Phase.RUNNING, Phase.PLACING, Phase.PARKED, Phase.RESTING}),
    Phase.RUNNING: frozenset({Phase.OPENING, Phase.PLACING, Phase.PARKED, Phase.RESTING}),
    Phase.PARKED: frozenset({Phase.PLACING, Phase.RESTING}),
    Phase.RESTING: frozenset(),  # the next turn is a new value
}


@dataclass(slots=True)
class Session:
    """One generation, as its owner knows it."""

    ask: AnswerRequest
    ids: list[int]
    phase: Phase
    since: float  # in this phase
    epoch: int = 0
    placement: Placement | None = None
    pipeline: Pipeline = NOBODY  # of the placement
    # which stage accepted which epoch last, and how many ids of that epoch are still a prefix of ours
    acked: dict[PeerId, int] = field(default_factory=dict)
    true_prefix: dict[int, int] = field(default_factory=dict)
    haves: dict[PeerId, int] = field(default_factory=dict)  # answers to the current opening
    opened_at: float = 0.0  # when the current opening was last sent
    retry_at: float = 0.0
    sent: int = 0  # positions before this one were given to the first stage
    passed: int = 0  # positions before this one have passed the last stage
    goal: int = 0  # the length of the ids when they were opened: what is to be prefilled
    moved_at: float = 0.0  # the last progress
    probed_at: float = 0.0
    answers: dict[PeerId, SessionProbed] = field(default_factory=dict)
    heard: dict[PeerId, float] = field(default_factory=dict)  # last answer of each stage to an opening or a probe
    quiet: tuple[int, ...] | None = None  # positions of all stages at the last probe without work
    failures: int = 0  # steps that a stage could not do, since the last token
    begun: bool = False  # stages have worked on this answer
    notice: str = ""

    @property
    def id(self) -> SessionId:
        return self.ask.session

    @property
    def limit(self) -> int:
        """No token is sampled for this position or a later one."""
        return len(self.ask.ids) + self.ask.max_tokens

    def run_on(self, placement: Placement | None) -> None:
        """From now on, these devices work on it."""
        self.placement, self.pipeline = placement, Pipeline.of(placement)

    def next_turn(self, ask: AnswerRequest, now: float) -> Session:
        """The same session with other ids: KV of what the two have in common stays true."""
        same = 0
        for old, new in zip(self.ids, ask.ids, strict=False):
            if old != new:
                break
            same += 1
        prefixes = {epoch: min(prefix, same) for epoch, prefix in self.true_prefix.items()}
        return Session(ask, list(ask.ids), Phase.QUEUED, now, self.epoch, acked=self.acked, true_prefix=prefixes)

    @property
    def is_active(self) -> bool:
        return self.phase not in (Phase.QUEUED, Phase.RESTING)


class Sessions:
    """All sessions that this node owns."""

    def __init__(self, me: PeerId, placer: Placer) -> None:
        self.me = me
        self.placer = placer
        self.sessions: dict[SessionId, Session] = {}

    # --- the user

    def ask(self, ask: AnswerRequest, now: float) -> list[Effect]:
        """Start an answer, or the next turn of a session that rests. Ends at once with an error where it cannot."""
        before = self.sessions.get(ask.session)
        if before is not None and before.phase is not Phase.RESTING:
            return [Ended(ask.session, EndReason.FAILED, "this conversation is being answered already")]
        if not ask.ids or ask.max_tokens < 1:
            return [Ended(ask.session, EndReason.FAILED, "there is nothing to answer")]
        if self._count(Phase.QUEUED) >= limits.MAX_WAITING_SESSIONS:
            text = f"{limits.MAX_WAITING_SESSIONS} chats are waiting already; try again later"
            return [Ended(ask.session, EndReason.FAILED, text)]
        session = before.next_turn(ask, now) if before is not None else Session(ask, list(ask.ids), Phase.QUEUED, now)
        self.sessions.pop(ask.session, None)
        self.sessions[ask.session] = session
        return self._admit(now) + self._say_queued(session)

    def cancel(self, key: SessionId, now: float) -> list[Effect]:
        """The user does not want the rest."""
        session = self.sessions.get(key)
        if session is None or session.phase is Phase.RESTING:
            return []
        return self._end(session, EndReason.CANCELLED, now)

    def forget(self, key: SessionId, now: float) -> list[Effect]:
        """The conversation is over: free its KV everywhere."""
        session = self.sessions.get(key)
        if session is None:
            return []
        effects = self.cancel(key, now)
        self.sessions.pop(key, None)
        return [*effects, *self._close(session, keep=False)]

    # --- what the placer found

    def placements_changed(self, now: float) -> list[Effect]:
        """Look at every session again: its placement may be ready, gone, or impossible. The core calls it."""
        effects: list[Effect] = []
        for session in list(self.sessions.values()):
            if session.is_active:
                effects += self._follow(session, now)
        return effects

    def _follow(self, session: Session, now: float) -> list[Effect]:
        placing = self.placer.placings.get(session.ask.model)
        ready = self.placer.ready(session.ask.model)
        if placing is None:
            return []
        if placing.state is State.UNFIT:
            return self._park(session, now)
        if session.phase is Phase.PARKED:
            _enter(session, Phase.PLACING, now)
        if session.phase in (Phase.OPENING, Phase.RUNNING) and session.placement != placing.placement:
            session.run_on(None)
            _enter(session, Phase.PLACING, now)
        if session.phase is not Phase.PLACING:
            return []
        if ready is None:
            return self._say_why(session)
        if now < session.retry_at:
            return []
        return self._open(session, ready, now)

    def _say_why(self, session: Session) -> list[Effect]:
        """Why it has no placement yet."""
        placing = self.placer.placings[session.ask.model]
        if placing.state is State.BACKOFF:
            trouble = f": {placing.trouble}" if placing.trouble else ""
            return self._say(session, f"waiting for devices{trouble}")
        if placing.state is State.LOADING:
            return self._say(session, "loading the model", NoticeKind.LOADING)
        return self._say(session, "")

    def _park(self, session: Session, now: float) -> list[Effect]:
        placing = self.placer.placings[session.ask.model]
        no_plan = placing.no_plan
        reason = no_plan.reason if no_plan is not None else "the model fits nowhere"
        missing = no_plan.missing_bytes if no_plan is not None else 0
        if not session.begun:
            return self._fail(session, reason, now, missing)  # nobody has waited for anything yet
        session.run_on(None)
        if session.phase is not Phase.PARKED:
            _enter(session, Phase.PARKED, now)
        return self._say(session, f"{reason}; the answer goes on when a device comes back")

    # --- opening

    def _open(self, session: Session, placement: Placement, now: float) -> list[Effect]:
        """Open the session on every member of every stage, with a new epoch."""
        session.run_on(placement)
        session.epoch = self.placer.next_epoch()
        session.true_prefix[session.epoch] = EVERYTHING
        session.haves, session.answers, session.quiet = {}, {}, None
        session.heard = dict.fromkeys(session.pipeline.peers, now)
        _enter(session, Phase.OPENING, now)
        return self._send_opens(session, now)

    def _send_opens(self, session: Session, now: float) -> list[Effect]:
        session.opened_at = now
        return [
            Send(peer, self._opening(session, peer)) for peer in session.pipeline.peers if peer not in session.haves
        ]

    def _opening(self, session: Session, peer: PeerId) -> SessionOpen:
        assert session.placement is not None
        since = session.acked.get(peer)
        keep = min(len(session.ids) - 1, session.true_prefix[since]) if since is not None else 0
        return SessionOpen(
            session=session.id,
            model=session.ask.model,
            epoch=session.epoch,
            placement=session.placement.epoch,
            entry=self.me,
            context=session.limit,
            keep=keep,
            sampling=session.ask.sampling,
            end_ids=session.ask.end_ids,
        )

    def reply(self, sender: PeerId, message: SessionReply, now: float) -> list[Effect]:
        """A stage opened the session, or did not."""
        session = self._current(sender, message.session, message.epoch, Phase.OPENING)
        if session is None:
            return []
        session.heard[sender] = now
        if not message.accepted:
            return self._not_opened(session, sender, message, now)
        session.haves[sender] = message.have
        session.acked[sender] = message.epoch
        return [] if any(peer not in session.haves for peer in session.pipeline.peers) else self._begin(session, now)

    def _not_opened(self, session: Session, sender: PeerId, message: SessionReply, now: float) -> list[Effect]:
        if message.missing_bytes:
            # What other stages promised goes back: of two sessions that hold what the other one needs, one must let go.
            effects = self._close(session, keep=True)
            _enter(session, Phase.PLACING, now)
            session.retry_at = now + limits.REPLAN_S * (0.5 + self.placer.rng.random())
            text = f"waiting for memory: {size_text(message.missing_bytes)} are in use by other chats"
            return effects + self._say(session, text)
        return self.placer.renew(session.ask.model, now)

    def _begin(self, session: Session, now: float) -> list[Effect]:
        """All stages are open: go on from the last position that all of them have."""
        start = min(session.haves.values())
        if max(session.haves.values()) > start:
            for epoch in session.true_prefix:
                session.true_prefix[epoch] = min(session.true_prefix[epoch], start)
            assert session.placement is not None
            return self._open(session, session.placement, now)
        _forget_old_epochs(session)
        _enter(session, Phase.RUNNING, now)
        session.begun = True
        session.sent = session.passed = start
        session.goal = len(session.ids)
        session.moved_at = session.probed_at = now
        return [*self._say(session, ""), *self._feed(session)]

    # --- running

    def _feed(self, session: Session) -> list[Effect]:
        """Give the first stage batches, so many that every stage has one."""
        window = min(session.pipeline.n_busy, limits.MAX_PREFILL_WINDOW) * PIPELINED_PREFILL_BATCH
        effects: list[Effect] = []
        while session.sent < session.goal and session.sent - session.passed < window:
            batch = session.ids[session.sent : min(session.sent + PIPELINED_PREFILL_BATCH, session.goal)]
            sample = session.sent + len(batch) == session.goal
            info = TensorInfo("i32", (len(batch),))
            message = Tokens(session.id, session.epoch, session.sent, info, sample)
            effects.append(Send(session.pipeline.first.leader.peer, message, array("i", batch).tobytes()))
            session.sent += len(batch)
        return effects

    def prefilled(self, sender: PeerId, message: Prefilled, now: float) -> list[Effect]:
        """A batch passed the last stage."""
        session = self._from_last_stage(sender, message.session, message.epoch)
        if session is None or not session.passed < message.position <= session.sent:
            return []
        session.passed = message.position
        _moved(session, now)
        return self._feed(session)

    def token(self, sender: PeerId, message: Token, now: float) -> list[Effect]:
        """The next token, if it is the next one."""
        session = self._from_last_stage(sender, message.session, message.epoch)
        if session is None or message.position < len(session.ids):
            return []
        if message.position > len(session.ids):
            return self._reopen(session, "a token was lost", now)
        session.ids.append(message.token)
        session.passed = message.position
        session.failures = 0
        _moved(session, now)
        if message.token in session.ask.end_ids:
            return self._end(session, EndReason.STOP, now)
        emit = Emit(session.id, message.position, message.token, message.told)
        return [emit, *(self._end(session, EndReason.LENGTH, now) if len(session.ids) >= session.limit else [])]

    def error(self, sender: PeerId, message: SessionError, now: float) -> list[Effect]:
        """A stage lost the session, or could not compute a step."""
        session = self._current(sender, message.session, message.epoch, Phase.RUNNING)
        if session is None:
            return []
        if message.fault == "unknown":
            return self._reopen(session, "a stage forgot the session", now)
        session.failures += 1
        if session.failures > limits.MAX_STEP_FAILURES:
            return self._fail(session, f"{message.text} (on {sender[:8]})", now)
        return self.placer.avoid(sender, message.text, now)

    def _reopen(self, session: Session, why: str, now: float) -> list[Effect]:
        """The same stages, a new epoch: what was on its way is stale now."""
        assert session.placement is not None
        return [Log("session_reopened", (("why", why),)), *self._open(session, session.placement, now)]

    # --- time

    def tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for session in list(self.sessions.values()):
            if session.phase is Phase.OPENING:
                effects += self._await_opening(session, now)
            elif session.phase is Phase.RUNNING and now >= _probe_due(session):
                effects += self._await_progress(session, now)
            elif session.phase is Phase.PLACING and now >= session.retry_at:
                effects += self._follow(session, now)
            elif session.phase is Phase.PARKED and now >= session.since + limits.PARK_S:
                effects += self._fail(session, session.notice, now)
        return effects

    def timer(self) -> float:
        """When `tick` has something to do next."""
        return min((self._due(session) for session in self.sessions.values()), default=NEVER)

    def _due(self, session: Session) -> float:
        """When time alone moves a session on."""
        match session.phase:
            case Phase.OPENING:
                silent_at = min(session.heard[peer] for peer in session.pipeline.peers if peer not in session.haves)
                return min(session.opened_at + limits.OPEN_RETRY_S, silent_at + limits.OPEN_TIMEOUT_S)
            case Phase.RUNNING:
                return _probe_due(session)
            case Phase.PLACING:
                return session.retry_at if self.placer.ready(session.ask.model) is not None else NEVER
            case Phase.PARKED:
                return session.since + limits.PARK_S
        return NEVER

    def _await_opening(self, session: Session, now: float) -> list[Effect]:
        missing = [peer for peer in session.pipeline.peers if peer not in session.haves]
        silent = [peer for peer in missing if now >= session.heard[peer] + limits.OPEN_TIMEOUT_S]
        if silent:
            return self._avoid(silent[0], now)
        return self._send_opens(session, now) if now >= session.opened_at + limits.OPEN_RETRY_S else []

    def _await_progress(self, session: Session, now: float) -> list[Effect]:
        """Ask all stages; conclude from two rounds of answers."""
        if session.probed_at <= session.moved_at:  # the first probe since something moved
            session.heard = dict.fromkeys(session.pipeline.peers, now)
        else:
            effects = self._conclude(session, now)
            if effects:
                return effects
        session.probed_at, session.answers = now, {}
        return [Send(peer, SessionProbe(session.id, session.epoch)) for peer in session.pipeline.peers]

    def _conclude(self, session: Session, now: float) -> list[Effect]:
        silent = [peer for peer in session.pipeline.peers if now - session.heard[peer] > limits.OPEN_TIMEOUT_S]
        if silent:
            return self._avoid(silent[0], now)
        if any(peer not in session.answers for peer in session.pipeline.peers):
            return []
        busy = [peer for peer in session.pipeline.peers if session.answers[peer].busy]
        if busy:
            session.quiet = None
            return self._avoid(busy[0], now) if now - session.moved_at > limits.STUCK_S else []
        positions = tuple(session.answers[peer].position for peer in session.pipeline.peers)
        if positions == session.quiet:
            return self._reopen(session, "a message was lost", now)
        session.quiet = positions
        return []

    def probed(self, sender: PeerId, message: SessionProbed, now: float) -> list[Effect]:
        session = self._current(sender, message.session, message.epoch, Phase.RUNNING)
        if session is not None:
            session.answers[sender] = message
            session.heard[sender] = now
        return []

    def _avoid(self, peer: PeerId, now: float) -> list[Effect]:
        return self.placer.avoid(peer, "it does not answer", now)

    # --- the end

    def _end(self, session: Session, reason: EndReason, now: float, error: str = "", missing: int = 0) -> list[Effect]:
        effects = [*self._close(session, keep=True), Ended(session.id, reason, error, missing)]
        session.run_on(None)
        _enter(session, Phase.RESTING, now)
        if not any(s.is_active and s.ask.model == session.ask.model for s in self.sessions.values()):
            self.placer.rest(session.ask.model)
        return effects + self._forget_oldest() + self._admit(now)

    def _fail(self, session: Session, error: str, now: float, missing: int = 0) -> list[Effect]:
        return self._end(session, EndReason.FAILED, now, error, missing)

    def _close(self, session: Session, *, keep: bool) -> list[Effect]:
        peers = dict.fromkeys([*session.pipeline.peers, *session.acked])  # also those of an older placement
        return [Send(peer, SessionClose(session.id, session.epoch, keep)) for peer in peers]

    def _forget_oldest(self) -> list[Effect]:
        resting = [s for s in self.sessions.values() if s.phase is Phase.RESTING]
        effects: list[Effect] = []
        for session in sorted(resting, key=lambda s: s.since)[: -limits.MAX_KEPT_SESSIONS]:
            del self.sessions[session.id]
            effects += self._close(session, keep=False)
        return effects

    # --- the queue

    def _admit(self, now: float) -> list[Effect]:
        """Start those that wait, in the order in which they came."""
        effects: list[Effect] = []
        for session in list(self.sessions.values()):
            if sum(s.is_active for s in self.sessions.values()) >= limits.MAX_ACTIVE_SESSIONS:
                break
            if session.phase is Phase.QUEUED:
                effects += self._start(session, now)
        return effects

    def _start(self, session: Session, now: float) -> list[Effect]:
        model = session.ask.model
        is_only_one = not any(s.is_active and s.ask.model == model for s in self.sessions.values())
        _enter(session, Phase.PLACING, now)
        effects = self.placer.refresh(model, now) if is_only_one else []
        return effects + self.placer.need(model, session.limit, now) + self._follow(session, now)

    def _say_queued(self, session: Session) -> list[Effect]:
        if session.phase is not Phase.QUEUED:
            return []
        ahead = self._count(Phase.QUEUED) - 1
        return self._say(session, f"waiting for a free place: {ahead + limits.MAX_ACTIVE_SESSIONS} chats are ahead")

    def _count(self, phase: Phase) -> int:
        return sum(session.phase is phase for session in self.sessions.values())

    # --- within

    def _say(self, session: Session, text: str, kind: NoticeKind = NoticeKind.WAITS) -> list[Effect]:
        """One quiet line, when it changes."""
        if text == session.notice:
            return []
        session.notice = text
        return [Notice(session.id, text, kind if text else NoticeKind.GOES_ON)]

    def _current(self, sender: PeerId, key: SessionId, epoch: int, phase: Phase) -> Session | None:
        session = self.sessions.get(key)
        if session is None or session.epoch != epoch or session.phase is not phase:
            return None
        return session if sender in session.pipeline.peers else None

    def _from_last_stage(self, sender: PeerId, key: SessionId, epoch: int) -> Session | None:
        session = self._current(sender, key, epoch, Phase.RUNNING)
        return session if session is not None and sender == session.pipeline.last.leader.peer else None


def _forget_old_epochs(session: Session) -> None:
    needed = {session.epoch, *session.acked.values()}
    session.true_prefix = {epoch: n for epoch, n in session.true_prefix.items() if epoch in needed}


def _enter(session: Session, phase: Phase, now: float) -> None:
    assert phase in NEXT_PHASES[session.phase], f"a session that is {session.phase.value} cannot be {phase.value} next"
    session.phase, session.since = phase, now


def _moved(session: Session, now: float) -> None:
    session.moved_at = now
    session.answers, session.quiet = {}, None


def _probe_due(session: Session) -> float:
    """When a session without progress asks its stages (again)."""
    return max(session.moved_at + limits.PROBE_AFTER_S, session.probed_at + limits.PROBE_EVERY_S)
