"""Stages of several devices in the simulator: their members meet in every step, or none of them gets on.

A step is over when all members have come to it with the same rows, and the links between all of them hold. Each then
adds its own part: where their keys and values, or their inputs, are not the same, what comes out is the answer to
nothing, and the text shows it. So it is with rows that a member computed for the sake of the others only. A member that
closes its stage, dies, or refuses a step ends it for the others; some of these may have had its end already.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from swarm.cluster import effects as fx
from swarm.wire.ids import PeerId

if TYPE_CHECKING:
    from tests.helpers.sim import Node, Sim

CHECK_S = 0.02  # a meeting whose links are cut looks again
CEILING_S = 10.0  # no wait is longer
NOTICED_S = 0.004  # until a closed connection is seen
FAILED = "the step failed"  # what a member says whose own part cannot be computed
SPREAD_S = 0.002  # between the first and the last member that has the last sum


@dataclass
class Meeting:
    """One step of a stage."""

    since: float
    here: dict[PeerId, fx.Compute] = field(default_factory=dict)
    guilty: PeerId | None = None
    why: str = ""  # not empty: it is over without having happened
    met: bool = False


@dataclass
class StageWorld:
    """One stage, as its members have opened it."""

    members: tuple[PeerId, ...]
    opened: dict[PeerId, Node] = field(default_factory=dict)
    secret: bytes = b""
    gone: PeerId | None = None  # the first member that closed it
    meetings: dict[int, Meeting] = field(default_factory=dict)


class Stages:
    """All of them."""

    def __init__(self, sim: Sim) -> None:
        self.sim = sim
        self.stages: dict[fx.StageId, StageWorld] = {}
        self.opened: dict[PeerId, set[fx.StageId]] = {}  # by node
        self.n_steps = 0  # that members met in
        self.n_void = 0  # rows that were computed for others only
        self.n_ended = 0  # steps that did not happen

    # --- effects

    def open(self, node: Node, effect: fx.OpenStage) -> None:
        world = self.stages.setdefault(effect.stage, StageWorld(effect.members, secret=effect.secret))
        self.sim.require(world.members == effect.members, "members do not agree who they are")
        self.sim.require(world.secret == effect.secret and len(effect.secret) == 32, "members have other secrets")
        self.sim.require(effect.members[effect.me] == node.id, "a member takes itself for another")
        self.sim.require(node.id not in world.opened, f"{node.name} opens a stage twice")
        self.sim.require(all(effect.ports), "a member is called where nobody listens")
        world.opened[node.id] = node
        self.opened.setdefault(node.id, set()).add(effect.stage)

    def check(self, node: Node) -> None:
        """What a node has open are the stages that it is a member of."""
        served = node.core.shards.stages()
        open_there = self.opened.get(node.id, set())
        self.sim.require(open_there == served, f"{node.name} has other stages open than it takes part in")

    def close(self, node: Node, stage: fx.StageId) -> None:
        world = self.stages.get(stage)
        self.sim.require(world is not None and node.id in world.opened, f"{node.name} closes what is not open")
        if world is not None:
            self.opened[node.id].discard(stage)
            self._left(world, node)

    def gone(self, node: Node) -> None:
        """A device died: its connections are closed, where that can be seen."""
        self.opened.pop(node.id, None)
        for world in self.stages.values():
            if world.opened.get(node.id) is node:
                self._left(world, node)

    def _left(self, world: StageWorld, node: Node) -> None:
        world.gone = world.gone or node.id
        for meeting in world.meetings.values():
            self._end(world, meeting, node.id, "its connection was closed")

    def abort(self, node: Node, effect: fx.AbortStage) -> None:
        world = self.stages.get(effect.stage)
        if world is None or node.id not in world.opened:
            return
        meeting = world.meetings.setdefault(effect.sequence, Meeting(self.sim.now))
        fails = effect.why == FAILED
        is_late = node.id in meeting.here and effect.lost is None
        self.sim.require(fails or not is_late, f"{node.name} refuses a step that it takes part in")
        self._end(world, meeting, effect.lost or node.id, effect.why)

    def members(self, stage: fx.StageId) -> tuple[PeerId, ...]:
        """Those of a stage, the leader first."""
        return self.stages[stage].members

    # --- steps

    def join(self, node: Node, job: fx.Compute) -> None:
        assert job.together is not None
        world = self.stages.get(job.together.stage)
        if world is None or world.opened.get(node.id) is not node or not node.alive:
            self._finish(node, job, [fx.StepOutput(error="the stage is not open")] * len(job.rows))
            return
        sequence = job.together.sequence
        started = [n for n, meeting in world.meetings.items() if node.id in meeting.here]
        self.sim.require(sequence > max(started, default=0), f"{node.name} goes back in the steps of a stage")
        meeting = world.meetings.setdefault(sequence, Meeting(self.sim.now))
        meeting.here[node.id] = job
        if meeting.why:
            self._fail(world, meeting, node.id)
        elif world.gone is not None:
            self._end(world, meeting, world.gone, "its connection was closed")
        else:
            self._look(world, meeting)

    def _look(self, world: StageWorld, meeting: Meeting) -> None:
        if meeting.why or meeting.met:
            return
        missing = [peer for peer in world.members if peer not in meeting.here]
        frozen = [peer for peer in world.members if self.sim.by_id[peer].frozen]
        if self.sim.now - meeting.since > CEILING_S:
            self._end(world, meeting, (missing or frozen or [world.members[-1]])[0], "nothing came for too long")
        elif missing or frozen or not self._reach_each_other(world):
            self.sim.at(CHECK_S, lambda: self._look(world, meeting))
        else:
            meeting.met = True
            self._meet(world, meeting)

    def _reach_each_other(self, world: StageWorld) -> bool:
        nodes = [self.sim.by_id[peer] for peer in world.members]
        return all(self.sim.reach_each_other(a, b) for a in nodes for b in nodes if a is not b)

    def _meet(self, world: StageWorld, meeting: Meeting) -> None:
        """All are here: what each has computed is the sum of all, or of nothing."""
        self.n_steps += 1
        leader = meeting.here[world.members[0]]
        values: dict[int, list[int]] = {}
        for i, rows in enumerate(leader.rows):
            values[i] = self._row(world, meeting, i, rows)
        for peer in world.members:
            node, job = self.sim.by_id[peer], meeting.here[peer]
            outputs = [fx.StepOutput()] * len(job.rows)
            if job is leader:
                outputs = [node.output(job, rows, values[i]) for i, rows in enumerate(job.rows)]
            wait_s = self.sim.rng.random() * SPREAD_S
            node.later(wait_s, lambda n=node, j=job, o=outputs: self._came_out(world, meeting, n, j, o))

    def _row(self, world: StageWorld, meeting: Meeting, at: int, rows: fx.SessionRows) -> list[int]:
        """The values of one session's rows, and what each member keeps of them."""
        parts = []
        for peer in world.members:
            node, job = self.sim.by_id[peer], meeting.here[peer]
            other = job.rows[at]
            seen = (other.session, other.position, other.ids, other.sample, other.n_guesses)
            same = seen == (rows.session, rows.position, rows.ids, rows.sample, rows.n_guesses)
            self.sim.require(same and len(job.rows) == len(meeting.here[world.members[0]].rows), "members disagree")
            self.n_void += other.is_void
            kv = node.engine.caches[other.session][0] if not other.is_void else None
            self.sim.require(kv is None or kv.length >= other.position, f"{node.name} computes on other positions")
            session = node.core.stage_sessions.sessions.get(other.session)
            if session is not None and session.epoch == node.check_job(job)[other.session] and not other.is_void:
                counts = f"{session.done} positions, and not {other.position}"
                self.sim.require(session.has_before(other.position), f"{node.name} has computed {counts}")
                is_kept = kv is not None and kv.length == session.done + session.n_unsure
                self.sim.require(is_kept, f"{node.name} has kept what it does not count")
            parts.append([-1] if other.is_void else node.run_layers(job, other, node.check_job(job)[other.session]))
        if all(part == parts[0] for part in parts):
            return parts[0]
        for peer in world.members:
            if not meeting.here[peer].rows[at].is_void:
                self.sim.by_id[peer].engine.caches[rows.session][0].spoil(rows.position)
        mixed = hash(tuple(map(tuple, parts)))
        return [mixed & 0x3FFFFFFF] * len(rows.ids)

    def _came_out(
        self, world: StageWorld, meeting: Meeting, node: Node, job: fx.Compute, outputs: list[fx.StepOutput]
    ) -> None:
        if meeting.why and self.sim.rng.random() < 0.5:  # it was ended before this member had the last sum
            for rows in job.rows:
                if not rows.is_void and rows.session in node.engine.caches:
                    node.engine.caches[rows.session][0].cut(rows.position)
            self._fail(world, meeting, node.id)
        else:
            node.done(job, outputs)

    # --- steps that do not happen

    def _end(self, world: StageWorld, meeting: Meeting, guilty: PeerId, why: str) -> None:
        if meeting.why:
            return
        meeting.guilty, meeting.why = guilty, why
        if not meeting.met:
            self.n_ended += bool(meeting.here)
            for peer in list(meeting.here):
                self._fail(world, meeting, peer)

    def _fail(self, world: StageWorld, meeting: Meeting, peer: PeerId) -> None:
        node, job = self.sim.by_id[peer], meeting.here[peer]
        lost = meeting.guilty if meeting.guilty != peer else None
        outputs = [fx.StepOutput(error=meeting.why, lost=lost)] * len(job.rows)
        self._finish(node, job, outputs)

    def _finish(self, node: Node, job: fx.Compute, outputs: list[fx.StepOutput]) -> None:
        node.later(NOTICED_S, lambda: node.done(job, outputs))
