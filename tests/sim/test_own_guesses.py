"""A model's own block on last stages: whatever is lost, late or wrong of what it says, texts are the same."""

from __future__ import annotations

import pytest

from swarm.cluster.planner import Layout
from swarm.parts import MTP
from tests.helpers.sim import Sim, play


@pytest.mark.parametrize("layout", ["pipeline", "slices"])
def test_every_chat_gets_its_text(layout: Layout) -> None:
    """In stories without other ways of guessing; through faults of all kinds."""
    stories = [play(seed, layout=layout, own=0.8) for seed in (0, 1, 2, 3, 12, 13, 14, 15)]
    assert all(not story.clairvoyance and not story.drafts for story in stories)
    assert sum(story.n_guessed for story in stories) > 0
    if layout == "pipeline":
        assert sum(story.n_own for story in stories) > 100


def test_a_pipeline_guesses_with_it_and_goes_on_when_the_last_stage_dies() -> None:
    sim = Sim(1, 6, kv_bytes=4, own=0.9)
    for _ in range(3):
        sim.add_node(int(sim.model.weight_bytes * 0.6) + 200_000 + sim.model.stage_kv_bytes(0, 6, 2000), holds=True)
    sim.run_until(2.0)
    chat = sim.ask(sim.nodes[0], (7, 8), 200)
    assert chat is not None
    sim.run_until(sim.now + 60, done=lambda: len(chat.got) > 80)
    assert sim.n_own > 10 and sim.n_guessed > 5
    holders = [node for node in sim.nodes if MTP in node.engine.parts]
    assert len(holders) == 1
    (last,) = holders
    assert last is not sim.nodes[0]
    sim.kill(last)
    sim.run_until(sim.now + 120, done=lambda: chat.ended is not None)
    assert chat.ended is not None and chat.got == chat.expected
    assert any(MTP in node.engine.parts for node in sim.nodes if node.alive), "another one holds it now"
