"""Random stories of swarms: whatever the network and the devices do, every chat gets the text that one device gives.

Play one again with `pytest tests/sim/test_stories.py --sim-seed=N`, or `python -m tests.helpers.sim N -v`.
"""

from __future__ import annotations

import pytest

from swarm import limits
from tests.helpers.sim import play

SEEDS = 240
BLOCK = 20
# Seeds that showed a bug once: a batch computed although the one before it had failed; steps of a placement that had
# ended; two sessions that each held the memory that the other one needed.
FOUND = (2327, 2434, 3251)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seeds" not in metafunc.fixturenames:
        return
    only = metafunc.config.getoption("--sim-seed")
    blocks = [range(only, only + 1)] if only is not None else [range(i, i + BLOCK) for i in range(0, SEEDS, BLOCK)]
    blocks += [range(seed, seed + 1) for seed in FOUND] if only is None else []
    metafunc.parametrize("seeds", blocks, ids=lambda block: f"seeds-{block[0]}-{block[-1]}")


def test_every_chat_gets_its_text_and_no_invariant_breaks(seeds: range, request: pytest.FixtureRequest) -> None:
    verbose = request.config.getoption("--sim-seed") is not None
    for seed in seeds:
        print(f"seed {seed}")
        play(seed, verbose=verbose)


@pytest.mark.parametrize("seed", range(40))
def test_a_core_that_is_ticked_all_the_time_does_nothing_before_its_timers(seed: int) -> None:
    play(seed, polls=True)


@pytest.mark.parametrize("seed", range(8))
def test_larger_swarms_too(seed: int) -> None:
    play(seed, n_devices=9)


@pytest.mark.parametrize("seed", range(12))
def test_in_storms_too(seed: int) -> None:
    play(seed, storm=True)


def test_a_seed_plays_the_same_story_twice(seeds: range) -> None:
    first, second = play(seeds[0]), play(seeds[0])
    assert first.log == second.log
    assert [chat.emitted_at for chat in first.chats] == [chat.emitted_at for chat in second.chats]


@pytest.mark.parametrize("first", range(0, 100, 10))
def test_conversations_that_come_from_disks_have_the_same_text(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEPT_REST_S", 0.3)  # a chat of theirs takes seconds
    stories = [play(seed, keeps=True) for seed in range(first, first + 10)]
    assert sum(story.n_kept + story.n_read for story in stories) > 0
    assert sum(story.n_copied_at_rest for story in stories) > 0
