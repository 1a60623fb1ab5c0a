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

**Patience.** Whatever a reader waits for, there is a moment after which the answer goes on without those that hold
it up, where it can (patience.py), and every way of not doing one's part counts the same (conduct.py).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from swarm import limits
from swarm.answers import PIPELINED_PREFILL_BATCH, EndReason
from swarm.cluster.admission import Admission, has_room, next_of, seconds_text
from swarm.cluster.drafting import Drafting
from swarm.cluster.effects import NEVER, Buffer, Effect, Embedded, Emit, Ended, Log, NoticeKind, Propose, Send, Unsay
from swarm.cluster.patience import broken_between, first_token_s, is_too_slow, next_token_s
from swarm.cluster.placement import Placer, State
from swarm.cluster.session import AnswerRequest, Phase, Session, common_prefix
from swarm.cluster.spot_checks import FALSIFIES, SpotChecks
from swarm.plain import one_line
from swarm.units import size_text
from swarm.wire.ids import PeerId, SessionId
from swarm.wire.messages import (
    Message,
    Prefilled,
    SessionClose,
    SessionError,
    SessionProbe,
    SessionProbed,
    SessionReply,
    Token,
    Tokens,
    Vector,
)
from swarm.wire.records import Placement, TensorInfo

FAR_TOO_SLOW = "is far slower than it says"
EVERYTHING = 1 << 62  # a prefix that covers all ids


class Sessions:
    """All sessions that this node owns."""

    def __init__(self, me: PeerId, placer: Placer, checks: SpotChecks) -> None:
        self.me = me
        self.placer = placer
        self.checks = checks
        self.sessions: dict[SessionId, Session] = {}
        self.admission = Admission()
        self.drafting = Drafting(me, placer.models)

    # --- the user

    def ask(self, ask: AnswerRequest, now: float) -> list[Effect]:
        """Start an answer, or the next turn of a session that rests. Ends at once with an error where it cannot."""
        before = self.sessions.get(ask.session)
        if before is not None and before.phase is not Phase.RESTING:
            return [Ended(ask.session, EndReason.FAILED, "this conversation is being answered already")]
        if not ask.ids or ask.max_tokens < 1:
            return [Ended(ask.session, EndReason.FAILED, "there is nothing to answer")]
        if not has_room(ask, self.sessions.values()):
            retry_s = self.admission.retry_s(self.sessions.values())
            text = f"{self._count(Phase.QUEUED)} chats are waiting already; try again in {seconds_text(retry_s)}"
            return [Ended(ask.session, EndReason.FAILED, text, retry_s=retry_s)]
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
            session.enter(Phase.PLACING, now)
        if session.phase in (Phase.OPENING, Phase.RUNNING) and session.placement != placing.placement:
            self._leave(session, now)
            session.enter(Phase.PLACING, now)
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
            return session.say(f"waiting for devices{trouble}")
        if placing.trouble and placing.failures:
            return session.say(f"{placing.trouble}; going on without it", NoticeKind.CHANGED)
        if placing.state is State.LOADING:
            return session.say("loading the model", NoticeKind.LOADING)
        return session.say("")

    def _park(self, session: Session, now: float) -> list[Effect]:
        placing = self.placer.placings[session.ask.model]
        no_plan = placing.no_plan
        reason = no_plan.reason if no_plan is not None else "the model fits nowhere"
        missing = no_plan.missing_bytes if no_plan is not None else 0
        if not session.begun:
            return self._fail(session, reason, now, missing)  # nobody has waited for anything yet
        self._leave(session, now)
        if session.phase is not Phase.PARKED:
            session.enter(Phase.PARKED, now)
        return session.say(f"{reason}; the answer goes on when a device comes back")

    def _leave(self, session: Session, now: float) -> None:
        """Its devices do not work on it any more; some of them may be to blame for that."""
        blamed = {peer for peer in session.pipeline.peers if self.placer.conduct.why_left_out(peer, now)}
        session.doubt(frozenset(blamed - {self.me}))
        session.run_on(None)

    # --- opening

    def _open(self, session: Session, placement: Placement, now: float) -> list[Effect]:
        """Open the session on every member of every stage, with a new epoch."""
        session.run_on(placement)
        session.epoch = self.placer.next_epoch()
        session.true_prefix[session.epoch] = EVERYTHING
        session.haves, session.keeps, session.answers, session.quiet = {}, {}, {}, None
        session.takes_guesses, session.takes_steps, session.begins_earlier = session.ask.guess, True, True
        session.heard = dict.fromkeys(session.pipeline.peers, now)
        source = self.sessions.get(session.ask.source) if session.ask.source is not None else None
        source = None if session.doubts else source
        session.loan = source.lend(session) if source is not None else None
        session.hands |= source.hands if source is not None and session.loan is not None else frozenset()
        session.mark()
        session.enter(Phase.OPENING, now)
        return self._send_opens(session, now)

    def _send_opens(self, session: Session, now: float) -> list[Effect]:
        session.opened_at = now
        return [
            Send(peer, session.opening(peer, self.me)) for peer in session.pipeline.peers if peer not in session.haves
        ]

    def reply(self, sender: PeerId, message: SessionReply, now: float) -> list[Effect]:
        """A stage opened the session, or did not."""
        session = self._current(sender, message.session, message.epoch, Phase.OPENING)
        if session is None:
            return []
        session.heard[sender] = now
        if not message.accepted:
            return self._not_opened(session, sender, message, now)
        if message.have > session.keeps[sender]:
            return self.placer.failed({sender}, "claims positions that it cannot have", now)
        session.haves[sender] = message.have
        session.takes_guesses = session.takes_guesses and message.guesses
        session.takes_steps = session.takes_steps and message.waits
        session.begins_earlier = session.begins_earlier and message.begins_earlier
        session.acked[sender] = message.epoch
        return [] if any(peer not in session.haves for peer in session.pipeline.peers) else self._begin(session, now)

    def _not_opened(self, session: Session, sender: PeerId, message: SessionReply, now: float) -> list[Effect]:
        model = session.ask.model
        if message.missing_bytes:
            return self._wait_for_memory(session, sender, message.missing_bytes, now)
        placing = self.placer.placings[model]
        placing.trouble = f"{self._name(sender)} does not take the conversation"
        if sender == self.me or placing.attempts < 2:  # it may have made way for another chat: it is asked once more
            return self.placer.renew(model, now)
        return self.placer.failed({sender}, f"does not take the conversation: {one_line(message.text)}", now)

    def _wait_for_memory(self, session: Session, sender: PeerId, n_bytes: int, now: float) -> list[Effect]:
        claim = f"{size_text(n_bytes)} are in use by other chats"
        if sender != self.me and self.placer.can_do_without(session.ask.model, {sender}, now):
            return self.placer.failed({sender}, f"says that {claim}", now)
        # What other stages promised goes back: of two sessions that hold what the other one needs, one must let go.
        effects = self._close(session, keep=True)
        session.enter(Phase.PLACING, now)
        session.retry_at = now + limits.REPLAN_S * (0.5 + self.placer.rng.random())
        text = claim if sender == self.me else f"{self._name(sender)} says that {claim}"
        return effects + session.say(f"waiting for memory: {text}")

    def _begin(self, session: Session, now: float) -> list[Effect]:
        """All stages are open: go on from the last position that all of them have."""
        start = min(session.haves.values())
        if max(session.haves.values()) > start and not session.begins_earlier:
            for epoch in session.true_prefix:
                session.true_prefix[epoch] = min(session.true_prefix[epoch], start)
            session.agreed = start
            least = {peer for peer, have in session.haves.items() if have == start}
            return self._reopen(session, "stages kept different positions", least, now)
        session.forget_old_epochs()
        session.enter(Phase.RUNNING, now)
        session.reused = session.reused if session.begun else start
        session.begun = True
        session.sent = session.passed = start
        session.goal = min(len(session.ids), session.doubted_from)
        session.moved_at = session.probed_at = now
        session.begin_pace(now)
        session.is_slow = False
        session.hands |= frozenset(session.pipeline.peers)
        session.look_at = max(session.look_at, len(session.ask.ids) + limits.FIRST_CHECK_TOKENS)
        return [*session.say(""), *self.drafting.begin(session), *self._feed(session)]

    # --- running

    def _feed(self, session: Session) -> list[Effect]:
        """Give the first stage batches, so many that every stage has one."""
        window = min(session.pipeline.n_busy, limits.MAX_PREFILL_WINDOW) * PIPELINED_PREFILL_BATCH
        effects: list[Effect] = []
        while session.sent < session.goal and session.sent - session.passed < window:
            batch = session.ids[session.sent : min(session.sent + PIPELINED_PREFILL_BATCH, session.goal)]
            sample = session.sent + len(batch) == session.goal
            info = TensorInfo("i32", (len(batch),))
            waits = session.draft is not None
            guesses = limits.MAX_GUESSES if session.takes_guesses and not waits else 0
            message = Tokens(session.id, session.epoch, session.sent, info, sample, guesses, waits=waits)
            effects.append(Send(session.pipeline.first.leader.peer, message, array("i", batch).tobytes()))
            session.sent += len(batch)
        return effects

    def prefilled(self, sender: PeerId, message: Prefilled, now: float) -> list[Effect]:
        """A batch passed the last stage."""
        session = self._from_last_stage(sender, message.session, message.epoch)
        if session is None or not session.passed < message.position <= session.sent:
            return []
        session.passed = message.position
        session.moved(now)
        return self._feed(session)

    def token(self, sender: PeerId, message: Token, now: float) -> list[Effect]:
        """The next token, if it is the next one, and those that came after it because guesses were right."""
        session = self._from_last_stage(sender, message.session, message.epoch)
        if session is None or message.position < min(len(session.ids), session.doubted_from):
            return []
        if session.ask.sampling.vector:
            return self._fail(session, f"{self._name(sender)} is of a version that makes no embeddings; update it", now)
        if message.position > len(session.ids):
            return self._reopen(session, "a token was lost", {sender}, now)
        tokens = (message.token, *message.more)
        if not all(self._is_token(session, token) for token in tokens):
            return self.placer.failed({sender}, "sent a token that the model does not have", now)
        effects = self._compare(session, message.position, tokens, now) if session.doubts else []
        told = (message.told, *(message.more_told or ((),) * len(message.more)))
        for i, (token, chances) in enumerate(zip(tokens, told, strict=False)):
            if session.phase is not Phase.RUNNING:
                break
            if message.position + i == len(session.ids):
                n_guesses = 0 if i else message.n_guesses
                emit = Emit(session.id, len(session.ids), token, chances, guessed=i > 0, n_guesses=n_guesses)
                effects += self._append(session, emit, now)
        return effects + self.drafting.token(session, message, now, is_alone=not self._beside(session))

    def vector(self, sender: PeerId, message: Message, frame: Buffer | None, now: float) -> list[Effect]:
        """The hidden state after the last id, where that is all that was asked for."""
        assert isinstance(message, Vector)
        session = self._from_last_stage(sender, message.session, message.epoch)
        if session is None or not session.ask.sampling.vector or message.position != len(session.ids):
            return []
        model = self.placer.models.get(session.ask.model)
        shape = message.tensor.shape if model is None else (1, model.hidden)
        if frame is None or message.tensor != TensorInfo("f32", shape) or len(frame) != message.tensor.n_bytes:
            return self.placer.failed({sender}, "sent a vector that the model does not have", now)
        self.placer.progressed(session.ask.model)
        n_devices = len(session.pipeline.peers)
        return [Embedded(session.id, bytes(frame), n_devices), *self._end(session, EndReason.STOP, now)]

    def drafted(self, asked: Propose, found: Sequence[int], now: float) -> list[Effect]:
        """The small model on this device said what may come."""
        return self.drafting.drafted(self.sessions.get(asked.session), asked, found, now)

    def _compare(self, session: Session, first: int, tokens: tuple[int, ...], now: float) -> list[Effect]:
        """Tokens that are there, now from other devices than before: the bits are the same everywhere."""
        session.passed = first
        session.moved(now)
        session.wait_from(now)
        emitted = session.ids[first : first + len(tokens)]
        wrong = common_prefix(emitted, tokens)
        if wrong == len(emitted):
            if first + len(tokens) >= len(session.ids):
                session.believe()
            return []
        names = " and ".join(sorted(self._name(peer) for peer in session.doubts))
        if len(session.doubts) == 1 and set(session.pipeline.peers) == {self.me}:  # it is known which one
            self.placer.conduct.lied(*session.doubts, why=FALSIFIES, now=now)
        session.cut(first + wrong)
        session.believe()
        log = Log("falsified", (("name", names), ("position", str(first + wrong))))
        unsay = Unsay(session.id, first + wrong, names)
        return [log, unsay, *session.say(f"{names} {FALSIFIES}; going on without it", NoticeKind.CHANGED)]

    def _append(self, session: Session, emit: Emit, now: float) -> list[Effect]:
        """A token more: give it to the reader, and see whether it was the last one."""
        session.ids.append(emit.token)
        session.passed = emit.position
        if len(session.ids) == len(session.ask.ids) + 1:
            self.placer.progressed(session.ask.model)
        session.failures = 0
        session.moved(now)
        session.wait_from(now)
        session.n_paced += 1
        if emit.token in session.ask.end_ids:
            return [*self.checks.look(session, now), *self._end(session, EndReason.STOP, now)]
        if len(session.ids) >= session.limit:
            return [emit, *self.checks.look(session, now), *self._end(session, EndReason.LENGTH, now)]
        looked = self.checks.look(session, now) if len(session.ids) >= session.look_at else []
        is_due = session.n_paced >= limits.PACE_TOKENS or now - session.paced_at >= limits.PACE_S
        return [emit, *looked, *(self._take_pace(session, now) if is_due else [])]

    def _take_pace(self, session: Session, now: float) -> list[Effect]:
        """Who takes part is forgiven, or is found to be far slower than it said."""
        model, peers = session.ask.model, session.pipeline.peers
        n_tokens, token_s = session.n_paced, (now - session.paced_at) / session.n_paced
        session.begin_pace(now)
        planned = self.placer.predicted(model)
        self.placer.progressed(model)
        self.placer.conduct.did_well(peers, n_tokens)
        if planned is None or any(len(each.ids) <= each.goal + limits.PACE_TOKENS for each in self._beside(session)):
            return []  # a prompt of ours is read on the same devices, or was until now
        token_s /= 1 + len(self._beside(session))
        self.placer.conduct.saw_pace(peers, token_s / planned.token_s, now)
        others = set(peers) - {self.me}
        session.is_slow = bool(others) and is_too_slow(token_s, planned)
        if not session.is_slow or len(others) > 1:
            return []
        return self._leave_out(session, others, FAR_TOO_SLOW, now)

    def error(self, sender: PeerId, message: SessionError, now: float) -> list[Effect]:
        """A stage lost the session, or could not compute a step."""
        session = self._current(sender, message.session, message.epoch, Phase.RUNNING)
        if session is None:
            return []
        if message.fault == "unknown":
            return self._reopen(session, "a stage forgot the session", {sender}, now)
        text = one_line(message.text)
        if message.guilty is not None and message.guilty in self._beside_in_stage(session, sender):
            suspects = self.placer.conduct.names(sender, message.guilty, now)
            return self.placer.failed(suspects, f"was missing in a step: {text}", now)
        session.failures += 1
        if session.failures > limits.MAX_STEP_FAILURES:
            return self._fail(session, f"{text} (on {self._name(sender)})", now)
        if not message.by_input:
            return self.placer.failed({sender}, f"could not compute its step: {text}", now)
        # One of the two does not tell the truth, and which one cannot be seen from here; this device does.
        stage = session.pipeline.member_of(sender)
        before = session.pipeline.before(stage) if stage is not None else None
        both = {sender, before.leader.peer if before is not None else sender} - {self.me}
        return self.placer.failed(both, f"passed on what is no result: {text}", now)

    def _beside_in_stage(self, session: Session, sender: PeerId) -> set[PeerId]:
        """Who computes each layer together with that device, but this one: it knows that it was not missing."""
        stage = session.pipeline.member_of(sender)
        members = {shard.peer for shard in stage.members} if stage is not None else set[PeerId]()
        return members - {sender, self.me}

    def _reopen(self, session: Session, why: str, suspects: set[PeerId], now: float) -> list[Effect]:
        """The same stages, a new epoch: what was on its way is stale now. Too often, and a suspect is the reason."""
        assert session.placement is not None
        session.reopenings += 1
        if session.reopenings > limits.MAX_REOPENINGS and suspects - {self.me}:
            session.reopenings = 0
            return self.placer.failed(suspects - {self.me}, f"does not keep up the conversation ({why})", now)
        return [Log("session_reopened", (("why", why),)), *self._open(session, session.placement, now)]

    # --- time

    def tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for session in list(self.sessions.values()):
            if now >= session.place_until > -NEVER:  # nobody came for it
                session.place_until = -NEVER
                effects += self._admit(now)
            judged = self._judge(session, now) if session.is_active and now >= session.judge_at else []
            effects += judged
            if judged:
                continue
            if session.phase is Phase.OPENING:
                effects += self._await_opening(session, now)
            elif session.phase is Phase.RUNNING and now >= session.probe_due:
                effects += self._await_progress(session, now)
            elif session.phase is Phase.PLACING and now >= session.retry_at:
                effects += self._follow(session, now)
            elif now >= session.close_again_at:
                session.n_closings = sum(now >= session.since + seconds for seconds in limits.CLOSE_AGAIN_S)
                effects += self._close(session, keep=True)
            elif session.phase is Phase.PARKED and now >= session.since + limits.PARK_S:
                effects += self._fail(session, session.notice, now)
        return effects

    def timer(self) -> float:
        """When `tick` has something to do next."""
        return min((session.due(self.placer.ready) for session in self.sessions.values()), default=NEVER)

    def _await_opening(self, session: Session, now: float) -> list[Effect]:
        missing = [peer for peer in session.pipeline.peers if peer not in session.haves]
        silent = [peer for peer in missing if now >= session.heard[peer] + limits.OPEN_TIMEOUT_S]
        if silent:
            return self.placer.failed({silent[0]}, "does not answer", now)
        return self._send_opens(session, now) if now >= session.opened_at + limits.OPEN_RETRY_S else []

    def _judge(self, session: Session, now: float) -> list[Effect]:
        """Its reader has waited for long: when an answer can begin without those that it waits for, it does."""
        planned, waited_s = self.placer.predicted(session.ask.model), now - session.waits_since
        has_begun = len(session.ids) > len(session.ask.ids)
        patience_s = next_token_s(planned) if has_begun else first_token_s(planned, len(session.ask.ids))
        patience_s += sum(first_token_s(planned, len(each.ids)) for each in self._beside(session))
        if waited_s < patience_s and session.phase is Phase.RUNNING:
            session.judge_at = session.waits_since + patience_s
            return []
        session.judge_at = now + max(limits.JUDGE_EVERY_S, waited_s / 2)
        return self._leave_out(session, self._awaited(session), "holds the answer up", now)

    def _beside(self, session: Session) -> list[Session]:
        """Other answers of ours that run on the same devices."""
        running = (each for each in self.sessions.values() if each.phase is Phase.RUNNING and each is not session)
        return [each for each in running if each.placement is session.placement]

    def _awaited(self, session: Session) -> set[PeerId]:
        """The devices that it waits for, but this one."""
        peers = session.pipeline.peers
        if session.phase is Phase.PLACING:
            return self.placer.awaited(session.ask.model)
        if session.phase is Phase.OPENING:
            return {peer for peer in peers if peer not in session.haves} - {self.me}
        if session.phase is not Phase.RUNNING:
            return set()
        unclear = {p for p in peers if p not in session.answers or session.answers[p].busy}
        if unclear:
            return unclear - {self.me}
        return broken_between(session.pipeline, session.positions, session.sent, self.me)

    def _leave_out(self, session: Session, peers: set[PeerId], why: str, now: float) -> list[Effect]:
        """Go on without these, if that can be."""
        if not peers or not self.placer.can_do_without(session.ask.model, peers, now):
            return []
        session.wait_from(now)
        return self.placer.failed(peers, why, now)

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
            return self.placer.failed({silent[0]}, "does not answer", now)
        if any(peer not in session.answers for peer in session.pipeline.peers):
            return []
        busy = [peer for peer in session.pipeline.peers if session.answers[peer].busy]
        if busy:
            session.quiet = None
            if now - session.moved_at > limits.STUCK_S:
                return self.placer.failed({busy[0]}, "does not get on with a step", now)
            # In a stage of several all wait for the slowest, and who that is cannot be seen from here.
            slow = {busy[0], *(self._beside_in_stage(session, busy[0]) & set(busy))} - {self.me}
            return self._leave_out(session, slow, FAR_TOO_SLOW, now) if session.is_slow else []
        positions = tuple(session.answers[peer].position for peer in session.pipeline.peers)
        if positions == session.quiet:
            suspects = broken_between(session.pipeline, session.positions, session.sent, self.me)
            return self._reopen(session, "a message was lost", suspects, now)
        session.quiet = positions
        return []

    def probed(self, sender: PeerId, message: SessionProbed, now: float) -> list[Effect]:
        session = self._current(sender, message.session, message.epoch, Phase.RUNNING)
        if session is not None:
            session.answers[sender] = message
            session.heard[sender] = now
        return []

    # --- the end

    def _end(self, session: Session, reason: EndReason, now: float, error: str = "", missing: int = 0) -> list[Effect]:
        effects = [*self._close(session, keep=True), Ended(session.id, reason, error, missing)]
        if session.is_active:
            self.admission.took(now - session.placed_at)
        session.run_on(None)
        session.enter(Phase.RESTING, now)
        if reason is EndReason.LENGTH and session.ask.has_more:
            session.place_until = now + limits.PLACE_HELD_S
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
        """Start those that wait, as far as there are places."""
        effects: list[Effect] = []
        while (session := next_of(list(self.sessions.values()), now)) is not None:
            effects += self._start(session, now)
        return effects

    def _start(self, session: Session, now: float) -> list[Effect]:
        model = session.ask.model
        is_only_one = not any(s.is_active and s.ask.model == model for s in self.sessions.values())
        session.enter(Phase.PLACING, now)
        session.placed_at = now
        session.wait_from(now)
        effects = self.placer.refresh(model, now) if is_only_one else []
        effects += session.say(session.falsified, NoticeKind.CHANGED) if session.falsified else []
        session.falsified = ""
        return effects + self.placer.need(model, session.limit, now) + self._follow(session, now)

    def _say_queued(self, session: Session) -> list[Effect]:
        if session.phase is not Phase.QUEUED:
            return []
        ahead = self._count(Phase.QUEUED) - 1
        return session.say(f"waiting for a free place: {ahead + limits.MAX_ACTIVE_SESSIONS} chats are ahead")

    def _count(self, phase: Phase) -> int:
        return sum(session.phase is phase for session in self.sessions.values())

    # --- within

    def _is_token(self, session: Session, token: int) -> bool:
        model = self.placer.models.get(session.ask.model)
        return model is None or token < model.vocabulary

    def _name(self, peer: PeerId) -> str:
        return self.placer.world.name_of(peer)

    def _current(self, sender: PeerId, key: SessionId, epoch: int, phase: Phase) -> Session | None:
        session = self.sessions.get(key)
        if session is None or session.epoch != epoch or session.phase is not phase:
            return None
        return session if sender in session.pipeline.peers else None

    def _from_last_stage(self, sender: PeerId, key: SessionId, epoch: int) -> Session | None:
        session = self._current(sender, key, epoch, Phase.RUNNING)
        return session if session is not None and sender == session.pipeline.last.leader.peer else None
