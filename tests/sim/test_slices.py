"""Devices that compute each layer together: whatever happens to one of them in a step, every chat gets its text.

Many more: `python -m tests.helpers.sim_strikes 0 399`, and `python -m tests.helpers.sim 0 399 --slices`.
"""

from __future__ import annotations

from functools import partial

import pytest

from swarm import limits
from swarm.cluster.joint_steps import JointSteps
from swarm.cluster.pipeline import Pipeline
from swarm.cluster.sessions import Sessions
from swarm.cluster.shards import Shards
from swarm.cluster.stage_session import StageSession
from swarm.cluster.stage_sessions import StageSessions
from tests.helpers.sabotage import Sabotage, shown_by
from tests.helpers.sim import Chat, Node, Sim, play
from tests.helpers.sim_strikes import KINDS, members_of, strike

STORIES = 24
BLOCK = 12
LATENESS_S = 0.1


@pytest.mark.parametrize("first", range(0, STORIES, BLOCK))
def test_every_chat_gets_its_text_from_devices_that_share_layers(first: int) -> None:
    stories = [play(seed, layout="slices") for seed in range(first, first + BLOCK)]
    assert sum(story.stages.n_steps for story in stories) > 100
    assert sum(story.n_guessed for story in stories) > 20


@pytest.mark.parametrize("seed", range(4))
def test_in_storms_too(seed: int) -> None:
    play(seed, layout="slices", storm=True)


@pytest.mark.parametrize("seed", range(6))
def test_a_core_that_is_ticked_all_the_time_does_nothing_before_its_timers(seed: int) -> None:
    play(seed, layout="slices", polls=True)


@pytest.mark.parametrize("seed", range(6))
def test_devices_choose_for_themselves(seed: int) -> None:
    play(seed, layout="auto")


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_in_the_middle_of_a_step_costs_no_token(kind: str) -> None:
    n_steps = n_guessed = 0
    for seed in range(SEEDS):
        one = strike(seed, kind)
        n_steps, n_guessed = n_steps + one.sim.stages.n_steps, n_guessed + one.sim.n_guessed
        if seed >= 4 and n_steps > 100 and n_guessed > 20:  # guesses were under way
            return
    raise AssertionError(f"only {n_steps} steps of several devices, {n_guessed} guesses")


def test_several_readers_share_the_steps_of_several_devices() -> None:
    one = strike(5, "none", n_chats=6)
    assert one.sim.n_shared > 20 and not one.blamed


@pytest.mark.parametrize("seed", range(12))
def test_without_a_fault_nobody_is_blamed(seed: int) -> None:
    assert not strike(seed, "none").blamed


@pytest.mark.parametrize("seed", range(4))
def test_a_frozen_member_is_noticed_sooner_than_anybody_else(seed: int) -> None:
    sim, chat, member = talking(seed)
    at = sim.now
    sim.freeze(member)
    sim.run_until(sim.now + 30, done=lambda: chat.ended is not None)
    assert chat.got == chat.expected
    noticed_at = min(float(line[:9]) for line in sim.log if " lost " in line and float(line[:9]) > at)
    assert noticed_at - at < limits.QUICK_SILENCE_S + LATENESS_S < limits.PEER_SILENCE_S


@pytest.mark.parametrize("seed", range(4))
def test_a_member_that_stands_still_for_moments_is_not_left_out(seed: int) -> None:
    """Longer and longer ones: how long is waited for it follows from how long it has taken."""
    sim, chat, member = talking(seed)
    for pause_s in (0.5, 0.9, 1.3, 1.6, 1.6):
        sim.freeze(member)
        sim.run_until(sim.now + pause_s)
        sim.thaw(member)
        sim.run_until(sim.now + 0.5)
    sim.run_until(sim.now + 60, done=lambda: chat.ended is not None)
    assert chat.got == chat.expected and member in members_of(sim, sim.by_id[chat.entry])
    assert not any(f" {word} " in line for line in sim.log for word in ("lost", "left_out"))


def talking(seed: int) -> tuple[Sim, Chat, Node]:
    """An answer of three devices that share layers, when some of it is there, and one of them that only follows."""
    sim = Sim(seed, 4, kv_bytes=4, layout="slices")
    for _ in range(3):
        sim.add_node(int(0.6 * sim.model.weight_bytes) + sim.model.stage_kv_bytes(0, 4, 900), holds=True)
    sim.run_until(2.0)
    while True:
        chat = sim.ask(sim.nodes[0], (1, 2, 3 + len(sim.chats)), 300)
        assert chat is not None
        if len(chat.expected) > 100:
            break
        sim.run_until(sim.now + 60, done=lambda c=chat: c.ended is not None)
    sim.run_until(sim.now + 10, done=lambda: len(chat.got) > 10)
    sim.run_until(sim.now + 1.0)  # heartbeats have become quick
    assert chat.ended is None
    return sim, chat, next(node for node in members_of(sim, sim.nodes[0])[1:] if node.id != chat.entry)


@pytest.mark.parametrize("seed", range(6))
def test_a_member_that_names_others_without_a_reason_does_not_stop_those_who_can_do_without_it(seed: int) -> None:
    sim = Sim(seed, 4, kv_bytes=4, layout="slices")
    for _ in range(4):
        sim.add_node(2 * sim.model.weight_bytes, speed=2e6, holds=True)
    sim.run_until(2.0)
    entry, liar = (sim.nodes[2], sim.nodes[seed % 2])
    liar.lies = True
    chat = sim.ask(entry, (1, 2, 3), 40)
    assert chat is not None
    sim.run_until(sim.now + 60, done=lambda: chat.ended is not None)
    assert chat.ended is not None and chat.got == chat.expected
    assert chat.emitted_at[-1] < 15.0


def test_who_dies_is_left_out_and_not_who_waited_for_it() -> None:
    blamed = []
    for seed in range(12):
        one = strike(seed, "kill")
        dead = next((line.split()[1] for line in one.sim.log if "KILLED" in line), "")
        blamed += [dead in line for line in one.blamed]
    assert blamed and all(blamed)


def honest(seed: int, **more: int) -> None:
    """No fault: nobody may be blamed, and no step may end without having happened."""
    one = strike(seed, "none", n_chats=4)
    assert not one.blamed and one.sim.stages.n_ended == 0, f"{one.blamed}, {one.sim.stages.n_ended} steps ended"


def guessing_honest(seed: int) -> None:
    """The same, for a reader alone, whose steps take guesses along."""
    one = strike(3 * seed + 1, "none")
    n_refused = sum(node.core.stage_sessions.dropped["joint"] for node in one.sim.nodes)
    assert not one.blamed and n_refused == 0, f"{one.blamed}, {n_refused} steps refused"


slices = partial(play, layout="slices")
SEEDS = 160  # a broken rule is looked for in so many stories, until one shows it
SABOTAGE = {
    "a member computes rows of an old epoch": (
        Sabotage(
            StageSessions, "_as_it_is_now", "session is None or session.epoch != row.epoch", "session is None", 28
        ),
        slices,
    ),
    "a member forgets that it has computed": (
        Sabotage(StageSessions, "_computed", "session.computed(rows.step)", "pass", 1),
        slices,
    ),
    "a member does not count what it was told": (
        Sabotage(StageSessions, "_join", "session.takes(row.step)", "pass", 0),
        honest,
    ),
    "a member keeps guesses that did not come": (
        Sabotage(StageSession, "takes", "del self.ids[step.position :]", "pass", 3),
        slices,
    ),
    "a member takes what follows a guess for a gap": (
        Sabotage(StageSession, "computed", "step.certain_end, step.n_guesses", "step.certain_end, 0", 1),
        guessing_honest,
    ),
    "a member takes a step as often as it is told": (
        Sabotage(JointSteps, "is_new", "message.sequence <= self._sequences.get(stage, 0)", "False", 0),
        slices,
    ),
    "a leader never tells again": (Sabotage(JointSteps, "tick", "now < telling.again_at", "True", 0), slices),
    "a leader does not count its steps": (
        Sabotage(JointSteps, "tell", "self._sequences.get(stage, 0) + 1", "1", 0),
        slices,
    ),
    "a stage opens with its old members": (
        Sabotage(Shards, "commit", "closed = self._close_stage(live)", "closed = []", 1),
        slices,
    ),
    "an entry node blames who tells it": (
        Sabotage(Sessions, "error", "message.guilty in self._beside_in_stage(session, sender)", "False", 0),
        lambda seed: test_who_dies_is_left_out_and_not_who_waited_for_it(),
    ),
}


@pytest.mark.parametrize("what", SABOTAGE)
def test_some_seed_shows_that(what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sabotage, story = SABOTAGE[what]
    found = shown_by(sabotage, story, range(SEEDS), monkeypatch)
    with capsys.disabled():
        print(f"\n  {what}: {found}", end="")


def test_the_stages_of_a_placement_are_as_they_were_planned() -> None:
    one = strike(0, "none")
    placements = [p.placement for n in one.sim.nodes for p in n.core.placer.placings.values() if p.placement]
    assert placements and all(Pipeline.of(p).is_cut_well(one.sim.model.cuts) for p in placements)
