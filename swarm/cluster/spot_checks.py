"""Spot checks: what other devices computed of an answer is now and then computed again here, and compared.

The bits are the same everywhere, so a token that differs was falsified: by a device that lies, or by one whose memory
or processor is broken. Nothing else shows that, as long as what it sends has the right form.

What a check needs is the model on this device's disk, and memory for one layer at a time: the ids of the answer so far
pass through one layer after the other, all at once, and what was not checked before is sampled anew. So a device that
could never run a model alone can check those that run it. It happens in idle moments, beside the answer.

Checked is whoever has not passed a check yet, in its first answer, and then ever more seldom, down to one look in
CHECK_SHARE. What is seen is that one of those that had a hand in the answer falsifies; where there are several,
conduct.py finds out which.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random

from swarm import limits
from swarm.cluster.cost import FLOAT_BYTES, ModelCost
from swarm.cluster.effects import CheckTokens, Effect, Log, NoticeKind, StopCheck, Unsay
from swarm.cluster.placement import Placer
from swarm.cluster.session import Session, common_prefix
from swarm.cluster.shards import Shards
from swarm.parts import Part
from swarm.value import Value
from swarm.wire.ids import ModelId, PeerId, SessionId

FALSIFIES = "computed something else than the model says"
STREAMS = 3  # float rows of the model's width for each position: before a layer, after it, and put together
STEP_STREAMS = 8  # and for each position of a step
STEP_TOKENS = 512  # of one step, at most


class RunningCheck(Value):
    """The one that is being made."""

    work: CheckTokens
    session: SessionId
    hands: frozenset[PeerId]  # of others


class SpotChecks:
    """Says what is to be checked, and what follows."""

    def __init__(
        self, me: PeerId, placer: Placer, shards: Shards, has_all: Callable[[ModelId], bool], rng: Random
    ) -> None:
        """`has_all`: whether all of a model is on this device's disk."""
        self.running: RunningCheck | None = None
        self.passed: dict[PeerId, int] = {}  # how many each device has passed, who passed last comes last
        self.n_passed = self.n_falsified = 0
        self._me = me
        self._placer = placer
        self._shards = shards
        self._has_all = has_all
        self._rng = rng
        self._ticket = 0
        self._not_before = 0.0

    def look(self, session: Session, now: float) -> list[Effect]:
        """An answer has come so far, or to its end: begin a check of it where one is due and can be made."""
        session.look_at = len(session.ids) + limits.CHECK_EVERY_TOKENS
        first = max(len(session.ask.ids), session.checked_to, len(session.ids) - limits.MOST_CHECKED_TOKENS)
        hands = session.hands - {self._me}
        model = self._placer.models.get(session.ask.model)
        if not hands or first == len(session.ids) or model is None or not self._may_begin(session, now):
            return []
        room = self._room(session.ask.model, model, len(session.ids)) if self._is_due(hands) else None
        if room is None:
            return []
        n_bytes, freed = room
        self._ticket += 1
        work = CheckTokens(
            ticket=self._ticket,
            model=session.ask.model,
            ids=tuple(session.ids),
            first=first,
            sampling=session.ask.sampling,
            kv=self._placer.kv,
            n_bytes=n_bytes,
        )
        self.running = RunningCheck(work, session.id, hands)
        return [*freed, work]

    def give_way(self) -> list[Effect]:
        """Memory was promised to others since it began: a check has only what nobody needs."""
        if self.running is None or self.running.work.n_bytes <= self._shards.ledger.free_bytes:
            return []
        ticket, self.running = self.running.work.ticket, None
        return [StopCheck(ticket)]

    def done(
        self, ticket: int, tokens: Sequence[int], error: str, sessions: Mapping[SessionId, Session], now: float
    ) -> list[Effect]:
        """The tokens of a check as this device computes them, or why it could not."""
        check = self.running
        if check is None or check.work.ticket != ticket:
            return []
        self.running = None
        ids, first = check.work.ids, check.work.first
        if error or len(tokens) != len(ids) - first:
            self._not_before = now + limits.CHECK_RETRY_S
            return [Log("check_failed", (("why", error),))]
        session = sessions.get(check.session)
        position = first + common_prefix(ids[first:], tokens)
        if position < len(ids):
            return self._falsified(check, position, session, now)
        self.n_passed += 1
        for peer in sorted(check.hands):
            self.passed[peer] = self.passed.pop(peer, 0) + 1
        while len(self.passed) > limits.MAX_ACCOUNTS:
            del self.passed[next(iter(self.passed))]
        if session is not None and tuple(session.ids[: len(ids)]) == ids:
            session.checked_to = max(session.checked_to, len(ids))
        return [Log("spot_check_passed", (("name", self._names(check.hands, " and ")), ("tokens", len(tokens))))]

    # --- within

    def _may_begin(self, session: Session, now: float) -> bool:
        fits = len(session.ids) <= limits.MAX_CHECK_TOKENS and not session.ask.sampling.grammar and not session.doubts
        return fits and self.running is None and now >= self._not_before and self._has_all(session.ask.model)

    def _is_due(self, hands: frozenset[PeerId]) -> bool:
        n_passed = min(self.passed.get(peer, 0) for peer in hands)
        return n_passed == 0 or self._rng.random() * min(1 + n_passed, limits.CHECK_SHARE) < 1.0

    def _room(self, key: ModelId, model: ModelCost, n_tokens: int) -> tuple[int, list[Effect]] | None:
        """The memory that it takes, and what that frees; None when it is not there."""
        parts = self._shards.ledger.parts
        there = {part for (of, part), n in parts.items() if of == key and n >= model.part_bytes(part)}
        n_bytes = check_bytes(model, n_tokens, there)
        if n_bytes <= self._shards.ledger.free_bytes:
            return n_bytes, []
        n_bytes = check_bytes(model, n_tokens, there & {part for of, part in self._shards.needed() if of == key})
        freed = self._shards.make_room_beside(n_bytes)
        return (n_bytes, freed) if freed is not None else None

    def _falsified(self, check: RunningCheck, position: int, session: Session | None, now: float) -> list[Effect]:
        """Take back what can be taken back, and leave out who did it."""
        self.n_falsified += 1
        for peer in check.hands:
            self.passed.pop(peer, None)
        names = self._names(check.hands, " or ")
        effects: list[Effect] = [Log("falsified", (("name", names), ("position", str(position))))]
        if session is None or tuple(session.ids[: position + 1]) != check.work.ids[: position + 1]:
            return effects + self._placer.falsified(check.hands, FALSIFIES, now)
        effects += self._take_back(session, position, names, check.hands)
        effects += self._placer.falsified(check.hands, FALSIFIES, now)
        if session.is_active and check.hands.isdisjoint(session.pipeline.peers):
            effects += self._placer.renew(session.ask.model, now)  # KV of those that took over rests on it, too
        return effects

    def _names(self, peers: frozenset[PeerId], between: str) -> str:
        return between.join(sorted(self._placer.world.name_of(peer) for peer in peers))

    @staticmethod
    def _take_back(session: Session, position: int, names: str, hands: frozenset[PeerId]) -> list[Effect]:
        """Of an answer that is being given the false tokens; who asks again after one that is over is told."""
        is_over = position < len(session.ask.ids)
        if session.is_active and not is_over:
            session.distrust(position, hands)
            said = session.say(f"{names} {FALSIFIES}; going on without it", NoticeKind.CHANGED)
            return [Unsay(session.id, position, names), *said]
        session.forget_kv()
        told = f"{names} {FALSIFIES} in an answer of this chat; ask that again"
        if session.is_active:
            return session.say(told, NoticeKind.CHANGED)
        session.falsified = told
        return []


def check_bytes(model: ModelCost, n_tokens: int, in_memory: Collection[Part] = ()) -> int:
    """Memory that a check of so many ids takes: the largest layer that is not there, with what comes before or after
    it, and its KV."""
    layers = [model.parts(i, i + 1) for i in range(model.n_layers)]
    weights = max(sum(model.part_bytes(part) for part in parts if part not in in_memory) for parts in layers)
    kv = max(model.stage_kv_bytes(i, i + 1, n_tokens) for i in range(model.n_layers))
    logits = limits.CHECK_ROWS * model.vocabulary
    rows = STREAMS * n_tokens + STEP_STREAMS * min(n_tokens, STEP_TOKENS)
    return weights + kv + FLOAT_BYTES * (rows * model.hidden + logits)
