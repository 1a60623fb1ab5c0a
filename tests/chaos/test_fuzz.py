"""What comes from outside, damaged at random: a few hundred cases of each kind; `tools/fuzz.py` tries more."""

from __future__ import annotations

import pytest

from tests.helpers.fuzz import FAILED, TARGETS, play

SEEDS = {"gguf": 150, "manifest": 1000, "message": 1500, "body": 500, "text": 60, "template": 150}


@pytest.mark.parametrize("target", TARGETS)
def test_whatever_comes_is_taken_or_refused_with_a_line(target: str) -> None:
    n_taken = sum(play(target, seed) for seed in range(SEEDS[target]))
    assert n_taken, "damage that always shows tests only the outermost check"


@pytest.mark.parametrize(("target", "seed"), FAILED)
def test_what_once_failed_stays_mended(target: str, seed: int) -> None:
    play(target, seed)
