"""Parts of a model: their order, and which of them a stage holds."""

from __future__ import annotations

from itertools import pairwise
from math import gcd
from random import Random

import pytest

from swarm.parts import EMBED, LM_HEAD, Part, all_parts, layers_of, parts_of, queries_per_key, whole_steps
from swarm.wire.records import Slice

SLICE = (0, 4, 0, 64, 0, 0, 0, 0, 0, 16)


def test_a_stage_holds_its_layers_and_the_ends_that_it_is_next_to() -> None:
    assert parts_of(0, 5, 5) == all_parts(5) == (EMBED, Part(0), Part(1), Part(2), Part(3), Part(4), LM_HEAD)
    assert parts_of(0, 2, 5) == (EMBED, Part(0), Part(1))
    assert parts_of(2, 4, 5) == (Part(2), Part(3))
    assert parts_of(4, 5, 5) == (Part(4), LM_HEAD)


def test_parts_sort_in_the_order_that_a_token_passes_them() -> None:
    shuffled = list(all_parts(40))
    Random(1).shuffle(shuffled)
    assert tuple(sorted(shuffled)) == all_parts(40)


def test_slices_and_experts_of_a_layer_are_parts_of_their_own() -> None:
    several = {Part(3), Part(3, SLICE), Part(3, expert=0), Part(3, expert=7)}
    assert len(several) == 4 and len(sorted(several)) == 4
    assert Slice(*Part(3, SLICE).slice).head_end == 4 and Slice(*Part(3).slice).whole
    assert Slice(*SLICE).bounds == SLICE and Slice().bounds == ()
    assert Part(3, SLICE).whole == Part(3) == Part(3).whole


def test_a_slice_of_a_stage_has_the_whole_embedding_and_a_slice_of_all_else() -> None:
    parts = parts_of(0, 2, 2, SLICE)
    assert parts == (EMBED, Part(0, SLICE), Part(1, SLICE), LM_HEAD._replace(slice=SLICE))
    assert [part.is_layer for part in parts] == [False, True, True, False]
    assert [part.name for part in parts[1:]] == ["a slice of layer 0", "a slice of layer 1", "a slice of the head"]


def test_the_ends_are_no_layers() -> None:
    assert not EMBED.is_layer and not LM_HEAD.is_layer and Part(0).is_layer
    assert layers_of([LM_HEAD, Part(3), EMBED, Part(2)]) == range(2, 4) and layers_of([EMBED]) == range(0)


def test_layers_with_a_gap_are_refused() -> None:
    with pytest.raises(ValueError, match="do not follow"):
        layers_of([Part(1), Part(3)])


def test_a_person_is_told_the_layers_number() -> None:
    assert [part.name for part in all_parts(2)] == ["the embedding", "layer 0", "layer 1", "the head"]


def test_where_the_least_of_one_step_takes_too_much_who_is_most_beyond_its_share_gives() -> None:
    ranges = whole_steps(60, 10, (0.01, 0.01, 0.01, 2.2, 3.7), "rows")
    assert [end - start for start, end in ranges] == [10, 10, 10, 10, 20]


@pytest.mark.parametrize("group", [1, 2, 3, 4, 8])
def test_each_key_head_of_a_slice_serves_as_many_queries(group: int) -> None:
    for start in range(20):
        for end in range(start + 1, 24):
            edges = [start, *(head for head in range(start + 1, end) if head % group == 0), end]
            assert queries_per_key(start, end, group) == gcd(*(b - a for a, b in pairwise(edges)))


def test_a_slice_of_absurd_size_costs_no_time() -> None:
    assert queries_per_key(1, 2**62, 12) == 1
