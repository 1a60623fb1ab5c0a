"""A simulator that finds nothing proves nothing: break one rule at a time, and see that some seed shows it."""

from __future__ import annotations

from functools import partial

import pytest

from swarm.cluster.kept import KeptIndex
from swarm.cluster.membership import Membership
from swarm.cluster.memory import Ledger
from swarm.cluster.placement import Placer
from swarm.cluster.session import Session
from swarm.cluster.sessions import Sessions
from swarm.cluster.shards import Shards
from swarm.cluster.stage_session import StageSession
from swarm.cluster.stage_sessions import StageSessions
from tests.helpers.sabotage import Sabotage, shown_by
from tests.helpers.sim import play

SEEDS = range(0, 300)


SABOTAGE = {
    "a stage takes data of any epoch": Sabotage(
        StageSessions, "_current", "if epoch != session.open.epoch:", "if False:", 269
    ),
    "a stage takes any position": Sabotage(
        StageSession, "may_follow", "self.certain - self.n_kept <= position <= self.expected", "True", 3
    ),
    "a stage takes what comes after a gap": Sabotage(
        StageSession, "may_follow", "<= position <= self.expected", "<= position", 12
    ),
    "a stage passes on results of old epochs": Sabotage(
        StageSessions, "_computed", "session is None or session.open.epoch != rows.epoch", "session is None", 12
    ),
    "a stage promises KV that is not computed yet": Sabotage(
        StageSessions, "_admit", "keeper.done", "keeper.expected", 5
    ),
    "a stage keeps all the KV it has": Sabotage(
        StageSessions, "_admit", "min(message.keep, keeper.done)", "keeper.done", 1
    ),
    "a stage opens sessions beyond its memory": Sabotage(StageSessions, "_reserve", "if missing > 0:", "if False:", 10),
    "a stage obeys old openings": Sabotage(
        StageSessions, "open", "message.epoch <= before", "message.epoch == before", 13
    ),
    "a device counts no KV": Sabotage(Ledger, "running_bytes", "return sum", "return 0 * sum", 6),
    "a device promises beyond its memory": Sabotage(Shards, "_missing_bytes", "return weights", "return -(10**9)", 187),
    "an entry node takes tokens wherever they are": Sabotage(
        Sessions, "token", "if message.position + i == len(session.ids):", "if True:", 6
    ),
    "an entry node takes tokens of old epochs": Sabotage(Sessions, "_current", "session.epoch != epoch or", "", 26),
    "an entry node goes on from the most KV": Sabotage(Sessions, "_begin", "min(session.haves", "max(session.haves", 8),
    "an entry node begins before all stages are open": Sabotage(
        Sessions, "reply", "any(peer not in session.haves for peer in session.pipeline.peers)", "False", 3
    ),
    "an entry node opens again with the same epoch": Sabotage(
        Sessions, "_open", "self.placer.next_epoch()", "max(session.epoch, 1)", 1
    ),
    "an entry node never asks after a lost message": Sabotage(
        Sessions, "_await_progress", "self._conclude(session, now)", "[]", 8
    ),
    "an entry node keeps a broken placement": Sabotage(
        Placer, "_broke", "self._enter(placing, State.IDLE)\n    placing.placement = None", "pass", 6
    ),
    "a device that was silent for too long needs a new link": Sabotage(
        Membership, "heard", "and not peer.link_up", "", 335
    ),
    "an undone turn keeps its KV": Sabotage(Session, "next_turn", "min(prefix, same)", "prefix", 8),
}


IN_STORMS = {  # what comes late must also be what an undone turn said
    "a stage takes data of any epoch",
    "an entry node takes tokens of old epochs",
}


@pytest.mark.parametrize("what", SABOTAGE)
def test_some_seed_shows_that(what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    story = partial(play, storm=True) if what in IN_STORMS else play
    found = shown_by(SABOTAGE[what], story, SEEDS, monkeypatch)
    with capsys.disabled():
        print(f"\n  {what}: {found}", end="")


FROM_DISKS = {
    "what is on disk is not compared": Sabotage(
        KeptIndex, "begin_of", "_n_common(self._marks[name], message.marks)", "len(message.marks)", 16
    ),
    "KV of other layers is taken": Sabotage(KeptIndex, "begin_of", "kept.place == wanted", "True", 9),
}


@pytest.mark.parametrize("what", FROM_DISKS)
def test_some_seed_shows_that_of_disks(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = shown_by(FROM_DISKS[what], partial(play, keeps=True), SEEDS, monkeypatch)
    with capsys.disabled():
        print(f"\n  {what}: {found}", end="")
