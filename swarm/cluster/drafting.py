"""Answers for which a small model on this device, their entry node, says what may come next.

It then sends every step itself, with guesses of its own: the first stage waits for them, where it would begin a step by
itself as soon as a token is sampled. That costs one message more where the two are not the same device, and nothing
where they are. The draft reads the prompt while the stages do, and nobody waits for it before it has.

A step lost on its way is one lost message, as any other: the entry node sees the silence (sessions.py).
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

from swarm.cluster.cost import ModelCost
from swarm.cluster.effects import Effect, Propose, Send
from swarm.cluster.guesses import EntryGuesses, WayTimes
from swarm.cluster.session import Phase, Session
from swarm.wire.ids import ModelId, PeerId
from swarm.wire.messages import Token, Tokens
from swarm.wire.records import TensorInfo


class Drafting:
    """Of all sessions of this entry node."""

    def __init__(self, me: PeerId, models: Mapping[ModelId, ModelCost]) -> None:
        self._me = me
        self._models = models
        self._ways = WayTimes()

    def begin(self, session: Session) -> list[Effect]:
        """The stages are open: from now on this node sends every step, where all of them know of that."""
        if not (session.ask.draft and session.takes_guesses and session.takes_steps):
            session.draft = None
            return []
        assert session.placement is not None
        session.draft = session.draft or EntryGuesses()
        way = session.ask.model, session.placement.epoch, self._me, session.pipeline.last.leader.peer
        session.draft.read(session.ids, self._ways.of(way))
        return [self._draft(session, 0)]

    def token(self, session: Session, message: Token, now: float, *, is_alone: bool) -> list[Effect]:
        """The last stage sampled: the step after that, or a word with the draft before it."""
        draft, tokens = session.draft, (message.token, *message.more)
        if draft is None or session.phase is not Phase.RUNNING:
            return []
        end = message.position + len(tokens)
        if end != len(session.ids):  # what is there is compared with what comes now
            return self._step(session, end, (), now) if end < len(session.ids) else []
        draft.came(tokens, now, is_alone=is_alone)
        most = session.limit - len(session.ids) - 1 if is_alone else 0
        if n := draft.n_wanted(most, len(session.ids), now):
            return [self._draft(session, n)]
        return self._step(session, end, draft.own(most), now)

    def drafted(self, session: Session | None, asked: Propose, found: Sequence[int], now: float) -> list[Effect]:
        """The draft answered. It may be late: then the session has gone on without it."""
        if session is None or session.draft is None or session.phase is not Phase.RUNNING:
            return []
        if asked.n == 0:
            session.draft.has_read(len(asked.ids))
            return []
        if session.epoch != asked.epoch or len(session.ids) != len(asked.ids):
            return []
        session.draft.drafted(len(found), len(asked.ids), now)
        return self._step(session, len(session.ids), found[: asked.n], now, of_draft=True)

    def _draft(self, session: Session, n: int) -> Propose:
        return Propose(session.id, session.epoch, tuple(session.ids), n, session.ask.sampling)

    def _step(
        self, session: Session, end: int, guesses: Sequence[int], now: float, *, of_draft: bool = False
    ) -> list[Effect]:
        """The step of the last id before position `end`, with guesses as far as they are tokens that end no answer."""
        assert session.draft is not None
        vocabulary, ends = self._models[session.ask.model].vocabulary, session.ask.end_ids
        n = next((i for i, token in enumerate(guesses) if token in ends or token >= vocabulary), len(guesses))
        ids = [session.ids[end - 1], *guesses[:n]]
        session.sent = max(session.sent, end)
        session.draft.sent(n, now, of_draft=of_draft)
        info = TensorInfo("i32", (len(ids),))
        message = Tokens(session.id, session.epoch, end - 1, info, True, n_guesses=n, waits=True)
        return [Send(session.pipeline.first.leader.peer, message, array("i", ids).tobytes())]
