"""Small models beside entry nodes: whatever is lost, late or wrong of what they say, every chat gets its text."""

from __future__ import annotations

import pytest

from swarm.cluster.planner import Layout
from tests.helpers.sim import Sim, play

WITH_DRAFTS = (*range(24, 30), *range(36, 42))  # seeds of stories in which devices have one


@pytest.mark.parametrize("layout", ["pipeline", "slices"])
def test_every_chat_gets_its_text(layout: Layout) -> None:
    stories = [play(seed, layout=layout) for seed in WITH_DRAFTS]
    assert all(story.drafts for story in stories)
    assert sum(story.n_drafted for story in stories) > 300, "they were asked"
    assert sum(story.n_guessed for story in stories) > 150, "and what they said came"


def test_a_small_model_that_never_answers_holds_nobody_up() -> None:
    sim = Sim(0, 4, kv_bytes=4)
    sim.drafts = 1.0
    for _ in range(2):
        sim.add_node(2 * sim.model.weight_bytes, speed=2e6, holds=True)
    for node in sim.nodes:
        node.draft = lambda asked: None  # type: ignore[method-assign]
    sim.run_until(2.0)
    chat = sim.ask(sim.nodes[0], (1, 2, 3), 40)
    assert chat is not None
    sim.run_until(sim.now + 20, done=lambda: chat.ended is not None)
    assert chat.ended is not None and chat.got == chat.expected
    gaps = [b - a for a, b in zip(chat.emitted_at, chat.emitted_at[1:], strict=False)]
    assert max(gaps) < 0.5


def test_a_small_model_that_falls_silent_costs_one_silence() -> None:
    sim = Sim(0, 4, kv_bytes=4)
    sim.drafts = 1.0
    for _ in range(2):
        sim.add_node(2 * sim.model.weight_bytes, speed=2e6, holds=True)
    sim.run_until(2.0)
    chat = sim.ask(sim.nodes[0], (1, 2, 3), 200)
    assert chat is not None
    sim.run_until(sim.now + 20, done=lambda: len(chat.got) > 10)
    sim.nodes[0].draft = lambda asked: None  # type: ignore[method-assign]
    sim.run_until(sim.now + 60, done=lambda: chat.ended is not None)
    assert chat.ended is not None and chat.got == chat.expected
    gaps = sorted(b - a for a, b in zip(chat.emitted_at, chat.emitted_at[1:], strict=False))
    assert gaps[-2] < 0.5 < gaps[-1] < 10.0
