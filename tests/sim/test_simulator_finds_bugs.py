"""A simulator that finds nothing proves nothing: break one rule at a time, and see that some seed shows it."""

from __future__ import annotations

import inspect
import sys
import textwrap
from dataclasses import dataclass

import pytest

from swarm.cluster.membership import Membership
from swarm.cluster.memory import Ledger
from swarm.cluster.placement import Placer
from swarm.cluster.session import Session, Sessions
from swarm.cluster.shards import Shards
from swarm.cluster.stage import Stage
from tests.helpers.sim import play

SEEDS = range(0, 300)


@dataclass(frozen=True)
class Sabotage:
    """A method whose source says `old`, made to say `new`; `seed` is where it was found last (tried first)."""

    owner: type
    method: str
    old: str
    new: str
    seed: int = 0


NOBODY_COUNTS = Sabotage(Ledger, "running_bytes", "return sum", "return 0 * sum", 6)

SABOTAGE = {
    "a stage takes data of any epoch": Sabotage(Stage, "_current", "if epoch != session.epoch:", "if False:"),
    "a stage takes any position": Sabotage(Stage, "_take", "if step.position != session.expected:", "if False:"),
    "a stage takes what comes after a gap": Sabotage(Stage, "_take", "!= session.expected", "< session.expected"),
    "a stage passes on results of old epochs": Sabotage(
        Stage, "computed", "session.epoch != epoch or key not in self.ledger.kv", "False"
    ),
    "a stage promises KV that is not computed yet": Sabotage(Stage, "_kept", "known.done", "known.expected"),
    "a stage keeps all the KV it has": Sabotage(Stage, "_kept", "min(message.keep, known.done)", "known.done"),
    "a stage opens sessions beyond its memory": Sabotage(Stage, "_reserve", "if missing > 0:", "if False:"),
    "a stage obeys old openings": Sabotage(
        Stage, "open", "message.epoch <= known.epoch", "message.epoch == known.epoch"
    ),
    "a device counts no KV": NOBODY_COUNTS,
    "a device loads beyond its memory": Sabotage(Shards, "_missing_bytes", "return weights", "return -1 + 0 * weights"),
    "an entry node takes tokens after a gap": Sabotage(
        Sessions, "token", "if message.position > len(session.ids):", "if False:"
    ),
    "an entry node takes tokens twice": Sabotage(Sessions, "token", "or message.position < len(session.ids)", ""),
    "an entry node takes tokens of old epochs": Sabotage(Sessions, "_current", "session.epoch != epoch or", ""),
    "an entry node goes on from the most KV": Sabotage(Sessions, "_begin", "min(session.haves", "max(session.haves"),
    "an entry node begins before all stages are open": Sabotage(
        Sessions, "reply", "len(session.haves) == len(session.stages)", "len(session.haves) >= 1"
    ),
    "an entry node opens again with the same epoch": Sabotage(
        Sessions, "_open", "self.placer.next_epoch()", "max(session.epoch, 1)"
    ),
    "an entry node never asks after a lost message": Sabotage(
        Sessions, "_await_progress", "self._conclude(session, now)", "[]"
    ),
    "an entry node never opens again": Sabotage(Sessions, "_await_opening", "self._send_opens(session, now)", "[]"),
    "an entry node keeps a broken placement": Sabotage(
        Placer, "_broke", "State.IDLE, None", "here.state, here.placement"
    ),
    "silence means nothing": Sabotage(Membership, "_check", "silent = now", "return []\n    silent = now"),
    "an undone turn keeps its KV": Sabotage(Session, "next_turn", "min(prefix, same)", "prefix"),
}


@pytest.mark.parametrize("what", SABOTAGE)
def test_some_seed_shows_that(what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sabotage = SABOTAGE[what]
    monkeypatch.setattr(sabotage.owner, sabotage.method, _rewritten(sabotage))
    for seed in [sabotage.seed, *SEEDS]:
        try:
            play(seed)
        except Exception as error:
            with capsys.disabled():
                print(f"\n  {what}: seed {seed}: {type(error).__name__}: {str(error)[:150]}", end="")
            return
    pytest.fail(f"{len(SEEDS)} seeds do not show that {what}")


def _rewritten(sabotage: Sabotage) -> object:
    """The method with one piece of its source replaced."""
    source = textwrap.dedent(inspect.getsource(getattr(sabotage.owner, sabotage.method)))
    assert sabotage.old in source, f"{sabotage.method} does not say {sabotage.old!r} any more"
    namespace = dict(vars(sys.modules[sabotage.owner.__module__]))
    exec(compile(source.replace(sabotage.old, sabotage.new), f"<{sabotage.method}>", "exec"), namespace)
    return namespace[sabotage.method]
