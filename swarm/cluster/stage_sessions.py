"""A stage of other nodes' sessions: takes the activations of the current epoch, each position once, and computes.

The rules that keep a session whole, checked for every message of data:

- the session was opened here by its entry node, and the message has the epoch of that opening. An older epoch is stale,
  a newer one early: both are counted and dropped. Epochs of a session only grow.
- it comes from the one that may send it: ids from the entry node (to the first stage), activations from the stage
  before, a sampled token from the last stage.
- its first position is the next one that this stage expects. Earlier ones were here already (a duplicate), later ones
  mean that something was lost: both are dropped; the entry node sees the silence and opens the session again. After a
  step with guesses the next one may begin behind any of them that came, and the first of an epoch at any position up
  to what was kept (another stage may have kept less); what is behind that is forgotten.

So each stage computes each position of an epoch at most once and in order, but for guesses that did not come, whatever
the network repeats, drops or reorders. A stage never waits for anything and never resends: only the entry node
recovers.

One step is out at the compute worker at a time; turns.py says which, and which sessions share it. It begins when all
that an event brings has been taken (`next_step`), so that sessions whose tokens come together stay together.

Of a stage of several devices only the leader takes data and decides; the others are told what to compute with it
(joint_steps.py) and check the same: sessions that are open here at that epoch, each position once. A member that cannot
take part says so, and the step ends for all without having happened. A session that was opened anew here meanwhile, or
closed, is no such reason: what comes of its rows is stale, so they are computed for the sake of the others' rows.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from swarm import limits
from swarm.cluster.effects import AbortStage, Buffer, Compute, Effect, Send, StageId, StepOutput, Together
from swarm.cluster.guesses import StageGuesses, WayTimes
from swarm.cluster.joint_steps import JointStep, JointSteps, has_the_rows, rows_of
from swarm.cluster.kept import KeptIndex
from swarm.cluster.memory import KvEntry, Ledger
from swarm.cluster.shards import Claim, Shards
from swarm.cluster.stage_session import (
    RingPlace,
    RunningRows,
    RunningStep,
    StageSession,
    Step,
    refusal,
    step_rows,
    void_rows,
)
from swarm.cluster.turns import Turns, Waiting
from swarm.units import size_text
from swarm.wire.ids import PeerId, SessionId
from swarm.wire.messages import (
    Activation,
    Message,
    Prefilled,
    SessionClose,
    SessionError,
    SessionOpen,
    SessionProbe,
    SessionProbed,
    StageStep,
    Token,
    Tokens,
    Vector,
)


class StageSessions:
    """All sessions that pass through this device."""

    def __init__(self, me: PeerId, ledger: Ledger, shards: Shards) -> None:
        self.me = me
        self.ledger = ledger
        self.shards = shards
        self.sessions: dict[SessionId, StageSession] = {}
        self.kept = KeptIndex(ledger, self.sessions)
        self.dropped: Counter[str] = Counter()  # messages of data by reason, for the status and the tests
        self.running: RunningStep | None = None
        self.turns = Turns()
        self.joint = JointSteps()
        self.new_guesses = StageGuesses
        self._ways = WayTimes()
        self._queue: deque[SessionId] = deque()  # sessions with steps, the next one first
        self._next_job = 1
        self._places: dict[StageId, RingPlace] = {}  # in stages of several devices
        self._over: dict[SessionId, int] = {}  # epochs of sessions that their entry nodes have closed for good
        self.settled = 0  # the number of changes of placements that the sessions have followed

    # --- opening and closing

    def open(self, sender: PeerId, message: SessionOpen, now: float) -> list[Effect]:
        """The entry node opens a session here, or opens it again at a higher epoch."""
        if sender != message.entry:
            return self._drop("stranger")
        before = self.sessions.get(message.session)
        if before is not None and before.open.entry != sender:
            return self._drop("stranger")
        if before is not None and message.epoch <= before.epoch:
            same = message.epoch == before.epoch and before.answered is not None
            return [Send(sender, before.answered)] if same and before.answered else self._drop("stale")
        claim = self.shards.ready(sender, message.model, message.placement)
        if claim is None:
            return [Send(sender, refusal(message, "that placement is not ready there"))]
        return self._admit(before, claim, message, now)

    def _admit(self, before: StageSession | None, claim: Claim, message: SessionOpen, now: float) -> list[Effect]:
        place = RingPlace.of(claim)
        keeper = self._keeper(before, place, message)
        have = min(message.keep, keeper.done) if keeper is not None else 0
        beginning = self.kept.begin_of(message, place, have)
        have = have if beginning is None else 0
        source = message.source if have else None
        model = self.shards.cost_of(claim)
        session = StageSession(message, place, 0, 0, [], model, beginning=beginning)
        n_bytes = session.kv_bytes
        moves = source is not None and self._takes_over(source, n_bytes, now)
        takes = [message.session, source] if source is not None and moves else [message.session]
        room, missing = self._reserve(claim, takes, n_bytes, now)
        if missing > 0:
            text = f"{size_text(missing)} of memory for the conversation are missing there"
            return [*room, Send(message.entry, refusal(message, text, missing))]
        ids = keeper.ids[:have] if keeper is not None else []
        self.sessions.pop(message.session, None)
        session.guesses = before.guesses if before is not None else None
        self.sessions[message.session] = session
        self._forget_oldest()
        kept, forgotten = self.kept.keep(source) if source is not None and moves else (None, [])
        room += forgotten
        opened = replace(session.open_kv(have), source=source, moves=moves, kept=kept, beginning=beginning)
        if beginning is not None:
            self.kept.begins(session, now)
            return [*room, opened]
        return [*room, opened, Send(message.entry, session.begin(ids))]

    def _keeper(self, before: StageSession | None, place: RingPlace, message: SessionOpen) -> StageSession | None:
        """Whose KV here is true for the new epoch: the session's own, or that of its source."""
        keeper = before if message.source is None else self.sessions.get(message.source)
        if keeper is None or (keeper.place.kv, keeper.open.model) != (place.kv, message.model):
            return None
        if message.source is not None and not keeper.is_source_of(message):
            return None
        entry = self.ledger.kv.get(keeper.open.session)
        return keeper if entry is not None and entry.held == place.held else None

    def _takes_over(self, source: SessionId, n_bytes: int, now: float) -> bool:
        """Whether the memory of a source that rests becomes the new session's, because there is no room for both."""
        entry = self.ledger.kv[source]
        self.ledger.used(source, now)  # what makes room is what was used longest ago
        return not entry.running and self.shards.missing_for_kv(n_bytes + entry.n_bytes) > 0

    def _reserve(
        self, claim: Claim, sessions: Sequence[SessionId], n_bytes: int, now: float
    ) -> tuple[list[Effect], int]:
        """Make room for the KV of the first session, in place of what all of them have.

        Return what that took, and the bytes that are missing.
        """
        held = {key: self.ledger.kv.pop(key) for key in sessions if key in self.ledger.kv}
        way, missing = self.shards.make_way(n_bytes, claim.key, now)
        if missing > 0:
            self.ledger.kv.update(held)
            return way, missing
        room = [*way, *self.shards.make_room(n_bytes)]
        first, end, bounds = claim.held
        self.ledger.kv[sessions[0]] = KvEntry(claim.key, first, end, n_bytes, True, now, bounds)
        return room, 0

    def close(self, sender: PeerId, message: SessionClose, now: float) -> list[Effect]:
        """The answer is over."""
        session = self.sessions.get(message.session)
        if session is None or session.open.entry != sender or message.epoch < session.epoch:
            return self._drop("stale")
        session.steps.clear()
        session.closed = True
        if message.keep:
            self.ledger.rest(message.session, now)
            return []
        dropped = self.ledger.drop_kv(message.session)
        self._forget_for_good(message.session)
        return dropped

    def _forget_for_good(self, key: SessionId) -> None:
        """Its entry node wants it no more; a step that its leader has begun meanwhile goes on without it."""
        session = self.sessions.pop(key)
        self._over[key] = session.epoch
        while len(self._over) > limits.MAX_STAGE_SESSIONS:
            del self._over[next(iter(self._over))]

    def entry_gone(self, peer: PeerId, now: float, *, restarted: bool) -> list[Effect]:
        """Without its entry node a session stands still; it may go on where the node comes back."""
        effects: list[Effect] = []
        for key in [key for key, s in self.sessions.items() if s.open.entry == peer]:
            self.sessions[key].steps.clear()
            self.sessions[key].closed = True
            self.ledger.rest(key, now)
            if restarted:
                effects += self.ledger.drop_kv(key)
                self._forget_for_good(key)
        return effects

    def peer_lost(self, peer: PeerId) -> list[Effect]:
        """Nobody waits for a member of a stage that is gone: the step that is out ends."""
        together = self.running.together if self.running is not None else None
        place = self._place(together.stage) if together is not None else None
        if together is None or place is None or peer not in place.others:
            return []
        return [AbortStage(together.stage, together.sequence, "its connection is gone", peer)]

    def tick(self, now: float) -> list[Effect]:
        """KV of a session that stands still makes way for others, in case its closing was lost."""
        for key in [key for key, until in self._idle() if now >= until]:
            self.ledger.rest(key, now)
        return [*self.kept.tick(now), *self.joint.tick(now)]

    def timer(self) -> float:
        """When `tick` has something to do next."""
        return min([self.joint.timer(), self.kept.timer(), *(until for _, until in self._idle())])

    def _idle(self) -> Iterator[tuple[SessionId, float]]:
        """Open sessions without work, and when each has stood still for too long."""
        for key, entry in self.ledger.kv.items():
            session = self.sessions.get(key)
            if entry.running and session is not None and not session.steps:
                yield key, entry.used_at + limits.IDLE_KV_S

    def settle(self, now: float) -> None:
        """Sessions whose placement is no longer served here stand still until they are opened on another."""
        if self.settled == self.shards.n_changes:
            return
        self.settled = self.shards.n_changes
        self._places.clear()
        self.joint.forget(self.shards.stages())
        for key, session in self.sessions.items():
            if not session.closed and not self.shards.serves(
                session.open.entry, session.open.model, session.open.placement
            ):
                session.steps.clear()
                session.closed = True
                self.ledger.rest(key, now)

    def probe(self, sender: PeerId, message: SessionProbe) -> list[Effect]:
        """The entry node asks whether we are slow or something was lost."""
        session = self.sessions.get(message.session)
        gone = session is None or session.closed or message.session not in self.ledger.kv
        if session is None or gone or session.epoch < message.epoch:
            text = "that session is not open there"
            return [Send(sender, SessionError(message.session, message.epoch, "unknown", text))]
        if session.epoch > message.epoch or session.open.entry != sender:
            return self._drop("stale")
        busy = bool(session.steps) or self._is_running(message.session, message.epoch)
        return [Send(sender, SessionProbed(message.session, message.epoch, session.certain, busy))]

    # --- data

    def tokens(self, sender: PeerId, message: Tokens, ids: tuple[int, ...], now: float) -> list[Effect]:
        """Ids from the entry node: a batch of the prompt, or of what is to be computed again."""
        session = self._current(message.session, message.epoch)
        if session is None:
            return []
        if sender != session.open.entry or not session.place.takes_ids:
            return self._drop("stranger")
        step = Step(message.position, ids, message.sample, None, now, message.n_guesses)
        effects = self._take(session, step, now)
        session.waits = message.waits
        if message.guesses:
            place, opened = session.place, session.open
            way = place.model, opened.placement, opened.entry, place.ring_last
            session.guesses = session.guesses or self.new_guesses()
            session.guesses.read(session.ids, self._ways.of(way))
        else:
            session.guesses = None
        return effects

    def activation(self, sender: PeerId, message: Message, frame: Buffer | None, now: float) -> list[Effect]:
        """The residual stream from the stage before."""
        assert isinstance(message, Activation)
        session = self._current(message.session, message.epoch)
        if session is None:
            return []
        place = session.place
        if sender != place.before or not place.leads or message.layer != place.first:
            return self._drop("stranger")
        if frame is None or not message.ids or message.tensor.shape[:1] != (len(message.ids),):
            return self._drop("malformed")
        if not session.can_use(frame, message.tensor):
            return self._no_result(session)
        step = Step(message.position, message.ids, message.sample, frame, now, message.n_guesses, message.asks)
        return self._take(session, step, now)

    def _no_result(self, session: StageSession) -> list[Effect]:
        """What the stage before sent would make every answer after it nonsense: its entry node decides."""
        session.steps.clear()
        session.closed = True
        text = "the activations that came have values that are no numbers"
        error = SessionError(session.open.session, session.epoch, "failed", text, by_input=True)
        return [*self._drop("no result"), Send(session.open.entry, error)]

    def token(self, sender: PeerId, message: Token, now: float) -> list[Effect]:
        """The last stage sampled: the first stage begins the next step. (The entry node hears it too: session.py.)"""
        opened = self.sessions.get(message.session)
        if opened is None or opened.waits or not opened.place.takes_ids or message.epoch > opened.epoch:
            return []
        session = self._current(message.session, message.epoch)
        if session is None:
            return []
        if sender != session.place.ring_last:
            return self._drop("stranger")
        return self._step_after(session, message, now)

    def _step_after(self, session: StageSession, message: Token, now: float) -> list[Effect]:
        """The step of the last token that came; those before it were guesses, and are computed."""
        if message.position != session.certain:
            return self._drop("duplicate" if message.position < session.certain else "gap")
        *guessed, last = message.token, *message.more
        position = message.position + len(guessed)
        if session.ids[message.position : position] != guessed:
            return self._drop("malformed")
        if last in session.open.end_ids or position + 1 >= session.open.context:
            return []
        guesses, asks = self._guess(session, (*guessed, last), message, now)
        return self._take(session, Step(position, (last, *guesses), True, None, now, len(guesses), asks), now)

    def _guess(
        self, session: StageSession, tokens: tuple[int, ...], message: Token, now: float
    ) -> tuple[tuple[int, ...], bool]:
        """What goes along with the step after these tokens, and whether the model's own block is asked for more."""
        if session.guesses is None:
            return (), False
        most = session.open.context - (session.certain + len(tokens) - 1) - 2
        forced, own = (
            said if max(said, default=0) < session.model.vocabulary else () for said in (message.forced, message.own)
        )
        is_alone = sum(entry.running for entry in self.ledger.kv.values()) == 1
        session.guesses.said(own, message.own_us * 1e-6)
        session.guesses.came(tokens, now, is_alone=is_alone)
        guesses = session.guesses.next(most if is_alone else 0, forced, session.open.end_ids, now)
        return guesses, session.place.asks and session.guesses.asks

    def stage_step(self, sender: PeerId, message: Message, frame: Buffer | None, now: float) -> list[Effect]:
        """The leader of our stage begins a step."""
        assert isinstance(message, StageStep)
        stage = StageId(message.author, message.epoch, message.first)
        place = self._place(stage)
        if place is None or sender != place.leader or place.leads:
            return self._drop("stranger")
        if not self.joint.is_new(message):
            return self._drop("duplicate")
        together = Together(stage, message.sequence)
        hidden = self.shards.models[place.model].hidden
        if not has_the_rows(message, frame, hidden) or len(self.joint.waiting) >= limits.MAX_STAGE_STEPS:
            return [*self._drop("malformed"), AbortStage(stage, message.sequence, "its rows are no step")]
        rows = rows_of(message, frame, hidden, now)
        amiss = next((row for row in rows if not self._may_join(row, stage.author)), None)
        if amiss is not None:
            return self._abstain(together, amiss)
        for row in rows:
            self._join(row, now)
        self.joint.waiting.append(JointStep(together, tuple(rows)))
        return []

    def _may_join(self, row: RunningRows, entry: PeerId) -> bool:
        """Whether we can compute these rows with the others, or know that nobody wants them."""
        session = self.sessions.get(row.session)
        if session is None:
            return self._over.get(row.session, -1) >= row.epoch
        if session.open.entry != entry or session.epoch < row.epoch:
            return False
        if session.epoch > row.epoch:
            return True
        is_next = session.may_follow(row.step.position) and row.step.end <= session.open.context
        return is_next and row.session in self.ledger.kv and max(row.step.ids) < session.model.vocabulary

    def _join(self, row: RunningRows, now: float) -> None:
        session = self.sessions.get(row.session)
        if session is not None and session.epoch == row.epoch:
            self.ledger.wake(row.session, now)
            session.takes(row.step)

    def _abstain(self, together: Together, row: RunningRows) -> list[Effect]:
        """We cannot compute these rows: the step ends for all, and the session's entry node opens it again."""
        text = "that session is not open there"
        unknown = SessionError(row.session, row.epoch, "unknown", text)
        self.dropped["joint"] += 1
        return [Send(together.stage.author, unknown), AbortStage(together.stage, together.sequence, text)]

    def _current(self, key: SessionId, epoch: int) -> StageSession | None:
        session = self.sessions.get(key)
        if session is None or key not in self.ledger.kv:
            self.dropped["unknown"] += 1
            return None
        if epoch != session.open.epoch:
            self.dropped["stale" if epoch < session.epoch else "early"] += 1
            return None
        if session.closed or session.answered is None:
            self.dropped["closed"] += 1
            return None
        return session

    def _take(self, session: StageSession, step: Step, now: float) -> list[Effect]:
        if not session.may_follow(step.position):
            return self._drop("duplicate" if step.position < session.certain else "gap")
        end = step.end
        if not step.ids or end > session.open.context or len(step.ids) > limits.MAX_BATCH_TOKENS:
            return self._drop("malformed")
        if max(step.ids) >= session.model.vocabulary or step.n_guesses not in (0, len(step.ids) - 1):
            return self._drop("malformed")
        n_waiting = end - session.done
        if len(session.steps) >= limits.MAX_SESSION_JOBS or n_waiting > limits.MAX_SESSION_WAITING_TOKENS:
            return self._drop("full")
        self.ledger.wake(session.open.session, now)
        session.takes(step)
        session.decodes = step.is_decode
        session.steps.append(step)
        if session.open.session not in self._queue:
            self._queue.append(session.open.session)
        return []

    # --- computing

    def next_step(self, now: float) -> list[Effect]:
        """Hand the next step to the compute worker, when it is free; first one for which other devices wait."""
        effects: list[Effect] = []
        while self.running is None and self.joint.waiting:
            effects += self._next_joint_step(self.joint.waiting.popleft(), now)
        return effects or self._next_own_step(now)

    def _next_joint_step(self, step: JointStep, now: float) -> list[Effect]:
        """Compute what a leader has told us; what was opened anew or closed since then, for the others only."""
        place = self._place(step.together.stage)
        if place is None:
            return []
        rows = tuple(self._as_it_is_now(row) for row in step.rows)
        gone = next((row for row in rows if not row.is_void and not self._is_ready(row)), None)
        if gone is not None:
            return self._abstain(step.together, gone)
        return self._compute(place, rows, now, step.together)

    def _is_ready(self, row: RunningRows) -> bool:
        """Whether all that comes before these rows is in the KV cache: an earlier step may have failed since."""
        return row.session in self.ledger.kv and self.sessions[row.session].has_before(row.step.position)

    def _as_it_is_now(self, row: RunningRows) -> RunningRows:
        session = self.sessions.get(row.session)
        return replace(row, is_void=session is None or session.epoch != row.epoch)

    def _compute(
        self, place: RingPlace, rows: tuple[RunningRows, ...], now: float, together: Together | None
    ) -> list[Effect]:
        job, self._next_job = self._next_job, self._next_job + 1
        self.running = RunningStep(job, place.layers, rows, now, together)
        is_last = place.after is None
        computing = [void_rows(r, is_last) if r.is_void else step_rows(self.sessions[r.session], r.step) for r in rows]
        return [Compute(job, place.model, place.first, place.end, tuple(computing), place.slice, together)]

    def _next_own_step(self, now: float) -> list[Effect]:
        if self.running is not None or not self._queue:
            return []
        if len(self._queue) > 1 or not self._has_work(self._queue[0]):
            self._queue = deque(key for key in self._queue if self._has_work(key))
            keys = self.turns.next([self._waiting(key) for key in self._queue], now)
        else:
            keys = [self._queue[0]]  # nothing to decide, as for the tokens of a reader alone
        if not keys:
            return []
        chosen = [self.sessions[key] for key in keys]
        rows = tuple([RunningRows(s.open.session, s.open.epoch, self._take_first(s)) for s in chosen])
        place = chosen[0].place
        if place.stage is None:
            return self._compute(place, rows, now, None)
        together, told = self.joint.tell(place.stage, place.others, rows, chosen[0].model.hidden, now)
        return [*told, *self._compute(place, rows, now, together)]

    def _has_work(self, key: SessionId) -> bool:
        return key in self.sessions and bool(self.sessions[key].steps) and key in self.ledger.kv

    def _waiting(self, key: SessionId) -> Waiting:
        session = self.sessions[key]
        step = session.steps[0]
        n_tokens, context = len(step.ids), session.open.context
        return Waiting(key, session.place.layers, n_tokens, step.since, context, step.n_guesses)

    def _take_first(self, session: StageSession) -> Step:
        """Take a session's first step out; one that has more goes to the end of the queue."""
        key, step = session.open.session, session.steps.popleft()
        if len(step.ids) > limits.MIN_PIECE_TOKENS and not step.is_decode and self._others_decode(session):
            most = self.turns.most_tokens(session.place.layers)
            if len(step.ids) > most:
                step, rest = step.cut(most)
                session.steps.appendleft(rest)
        self._queue.remove(key)
        if session.steps:
            self._queue.append(key)
        return step

    def _others_decode(self, session: StageSession) -> bool:
        """Whether readers of other sessions get tokens from this device now, and would wait for a long step."""
        entries = self.ledger.kv
        others = (s for key, s in self.sessions.items() if s.decodes and not s.closed and key in entries)
        return any(other is not session for other in others)

    def computed(self, job: int, outputs: Sequence[StepOutput], now: float) -> list[Effect]:
        """The worker is done with a step: pass on what each of its sessions got."""
        running = self.running
        if running is None or running.job != job:
            return self._drop("job")
        self.running = None
        self.joint.done()
        effects: list[Effect] = []
        is_decode = True
        for rows, output in zip(running.rows, outputs, strict=True):
            is_decode = is_decode and len(rows.step.ids) == 1 and not output.error
            effects += self._computed(rows, output)
        if is_decode:
            self.turns.took(running.layers, len(running.rows), now - running.since)
        elif not any(output.error for output in outputs):
            n_tokens = sum(len(rows.step.ids) for rows in running.rows)
            self.turns.took_batch(running.layers, n_tokens, now - running.since)
        return effects

    def _computed(self, rows: RunningRows, output: StepOutput) -> list[Effect]:
        session = self.sessions.get(rows.session)
        if session is None or session.open.epoch != rows.epoch:
            return self._drop("stale")
        if output.error:  # the entry node decides what happens
            session.failed()
            text = output.error[: limits.MAX_TEXT_BYTES]
            error = SessionError(rows.session, rows.epoch, "failed", text, guilty=output.lost)
            return [Send(session.open.entry, error)]
        if rows.session not in self.ledger.kv:
            return self._drop("stale")
        session.computed(rows.step)
        if session.closed:
            return self._drop("closed")
        if not session.place.leads:
            return []
        return self._pass_on(session, rows.step, output)

    def _pass_on(self, session: StageSession, step: Step, output: StepOutput) -> list[Effect]:
        place, key, epoch = session.place, session.open.session, session.open.epoch
        if place.after is not None:
            assert output.info is not None and output.frame is not None
            onward = Activation(
                session=key,
                epoch=epoch,
                position=step.position,
                layer=place.end,
                tensor=output.info,
                sample=step.sample,
                ids=step.ids,
                n_guesses=step.n_guesses,
                asks=step.asks,
            )
            return [Send(place.after, onward, output.frame)]
        if output.frame is not None and output.info is not None:
            return [Send(session.open.entry, Vector(key, epoch, step.certain_end, output.info), output.frame)]
        if output.token is None:
            return [Send(session.open.entry, Prefilled(key, epoch, step.end))]
        sampled = Token(
            session=key,
            epoch=epoch,
            position=step.certain_end,
            token=output.token,
            told=output.told,
            more=output.more,
            more_told=output.more_told,
            n_guesses=step.n_guesses,
            forced=output.forced,
            own=output.own,
            own_us=round(output.own_s * 1e6),
        )
        return [Send(peer, sampled) for peer in dict.fromkeys((place.ring_first, session.open.entry))]

    # --- within

    def _place(self, stage: StageId) -> RingPlace | None:
        """Our place in a stage of several devices; None when we have none."""
        if stage not in self._places:
            claim = self.shards.staged(stage)
            if claim is None:
                return None
            self._places[stage] = RingPlace.of(claim)
        return self._places[stage]

    def _is_running(self, key: SessionId, epoch: int) -> bool:
        running = self.running
        return running is not None and any(rows.session == key and rows.epoch == epoch for rows in running.rows)

    def _forget_oldest(self) -> None:
        """Sessions without KV are only remembered for their epoch; their number is bounded."""
        surplus = len(self.sessions) - limits.MAX_STAGE_SESSIONS
        for key in [key for key in self.sessions if key not in self.ledger.kv][: max(surplus, 0)]:
            del self.sessions[key]

    def _drop(self, why: str) -> list[Effect]:
        self.dropped[why] += 1
        return []
