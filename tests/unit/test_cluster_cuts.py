"""Where a model may be cut: shares in whole steps, and slices that make up the model."""

from __future__ import annotations

from random import Random

import pytest

from swarm import limits
from swarm.cluster.cuts import HEADS, Cuts
from swarm.models.slices import Axis, SliceBounds
from tests.helpers.cuts import cut

GLM = Cuts((32, 13696, 0, 0, 151552), (1, 64, 64, 64, 16), 2)  # GLM-4-9B
AIR = Cuts((96, 10944, 1408, 1408, 151552), (1, 64, 64, 64, 16), 8)  # GLM-4.5-Air


def test_slices_are_as_near_to_their_shares_as_steps_allow() -> None:
    assert [bounds[:4] for bounds in cut(GLM, [1, 1])] == [(0, 16, 0, 6848), (16, 32, 6848, 13696)]
    assert [bounds[1] - bounds[0] for bounds in cut(GLM, [3, 2, 1])] == [16, 11, 5]
    assert [bounds[5] - bounds[4] for bounds in cut(AIR, [1] * 3)] == [512, 448, 448]
    assert [bounds[1] - bounds[0] for bounds in cut(GLM, [3, 2, 1], group=4)] == [16, 12, 4]


def test_nobody_is_left_without_a_step() -> None:
    assert [bounds[1] - bounds[0] for bounds in cut(GLM, [100, 1, 1])] == [30, 1, 1]
    assert [end - start for start, end in GLM.ranges(HEADS, [100, 1, 1], 1, [20, 32, 4])] == [20, 8, 4]
    with pytest.raises(ValueError, match="more than all may get"):
        GLM.ranges(HEADS, [1, 1], 1, [20, 11])
    with pytest.raises(ValueError, match="do not make"):
        cut(GLM, [1] * 33)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_shares_slices_make_up_the_model(seed: int) -> None:
    rng = Random(seed)
    cuts = rng.choice([GLM, AIR])
    slices = cut(cuts, [rng.random() + 0.01 for _ in range(rng.randint(2, 16))], rng.choice([1, 2]))
    assert cuts.are_whole(slices)
    rng.shuffle(slices)
    assert cuts.are_whole(slices), "the leader may be any of them"
    assert sum(cuts.share(bounds, HEADS) for bounds in slices) == pytest.approx(1.0)


BAD = {
    "a gap": lambda a, b: (a, (b[0] + 1, *b[1:])),
    "an overlap": lambda a, b: (a, (b[0] - 1, *b[1:])),
    "too much": lambda a, b: (a, (*b[:3], b[3] + 64, *b[4:])),
    "too little": lambda a, b: (a, (*b[:3], b[3] - 64, *b[4:])),
    "within a step": lambda a, b: ((*a[:3], a[3] - 1, *a[4:]), (*b[:2], b[2] - 1, *b[3:])),
    "nothing": lambda a, b: ((*a[:1], 0, *a[2:]), (0, *b[1:])),
    "what is not there": lambda a, b: ((*a[:5], 64, *a[6:]), b),
    "other counts": lambda a, b: (a[:8], b[:8]),
    "one alone": lambda a, b: (a,),
    "the same twice": lambda a, b: (a, a, b),
}


@pytest.mark.parametrize("what", BAD)
def test_slices_that_do_not_make_up_the_model_are_seen(what: str) -> None:
    left, right = cut(GLM, [1, 1])
    assert GLM.are_whole([left, right]) and not GLM.are_whole(BAD[what](left, right))


def test_a_key_head_that_is_cut_is_held_by_each() -> None:
    def share(start: int, end: int) -> float:
        return GLM.key_share((start, end))

    assert share(0, 16) == share(0, 8) == share(20, 24) == 0.5
    assert share(12, 20) == 1.0, "four queries of each"
    assert share(10, 20) == 2.5, "six and four: two queries for each key head"
    assert Cuts((32, 64, 0, 0, 16), (1, 64, 64, 64, 16), 0).key_share((0, 1)) == 1.0


def test_heads_are_kept_together_as_far_as_there_are_enough_of_them() -> None:
    assert (
        GLM.head_groups(2) == [1, 2, 4, 8, 16] and GLM.head_groups(3) == [1, 2, 4, 8] and GLM.head_groups(16) == [1, 2]
    )
    assert AIR.head_groups(2) == [1, 2, 3, 4, 6, 12]


def test_no_more_devices_than_steps_and_than_a_stage_may_have() -> None:
    assert GLM.most_members == limits.MAX_STAGE_MEMBERS
    assert Cuts((4, 128, 0, 0, 32), (1, 64, 64, 64, 16), 2).most_members == 2


def test_a_slice_of_another_model_is_seen() -> None:
    (left, right) = cut(GLM, [1, 1])
    assert GLM.has(left) and GLM.has(right) and not GLM.has(left[:9])
    assert not GLM.has((0, 2**31 - 1, *left[2:])) and not GLM.has((3, 2, *left[2:]))


def test_a_slice_has_the_counts_of_the_models_package_in_their_order() -> None:
    assert [name for name in SliceBounds._fields] == [
        f"{axis}_{edge}" for axis in ("head", "ffn", "expert", "shared", "vocab") for edge in ("start", "end")
    ]
    assert list(Axis)[HEADS] is Axis.HEADS
