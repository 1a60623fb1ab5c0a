"""Stages of a placement; and that nobody else takes shards for stages."""

from __future__ import annotations

import ast
import builtins
from pathlib import Path

import pytest

from swarm.cluster.pipeline import NOBODY, Pipeline, Stage, hops
from swarm.wire.ids import ModelId, PeerId
from swarm.wire.records import Placement, Shard, Slice

ROOT = Path(__file__).parents[2] / "swarm"
A, B, C, D = (PeerId(c * 32) for c in "abcd")
LEFT, RIGHT = Slice(0, 1, 0, 64), Slice(1, 2, 64, 128)


def pipeline(*shards: Shard) -> Pipeline:
    return Pipeline.of(Placement(ModelId("1" * 64), 1, A, 100, "f16", shards))


ALONE = pipeline(Shard(A, 0, 8, True, True))
THREE = pipeline(Shard(C, 0, 3, True, False), Shard(A, 3, 5, False, False), Shard(B, 5, 8, False, True))
GROUPS = pipeline(
    Shard(A, 0, 4, True, False, slice=LEFT),
    Shard(B, 0, 4, True, False, slice=RIGHT),
    Shard(C, 4, 8, False, True, slice=LEFT),
    Shard(D, 4, 8, False, True, slice=RIGHT),
)


def test_shards_of_different_layers_are_stages_of_one_device_each() -> None:
    assert [(stage.first, stage.end, stage.leader.peer) for stage in THREE.stages] == [(0, 3, C), (3, 5, A), (5, 8, B)]
    assert THREE.peers == (C, A, B) and THREE.first.leader.peer == C and THREE.last.leader.peer == B


def test_shards_of_the_same_layers_are_one_stage_and_the_first_leads() -> None:
    assert [len(stage.members) for stage in GROUPS.stages] == [2, 2]
    assert GROUPS.peers == (A, B, C, D)
    assert GROUPS.first.leader.peer == A and GROUPS.last.leader.peer == C


def test_every_stage_has_one_before_and_one_after_but_for_the_ends() -> None:
    for whole in (ALONE, THREE, GROUPS):
        assert whole.before(whole.first) is None and whole.after(whole.last) is None
        for a, b in zip(whole.stages, whole.stages[1:], strict=False):
            assert whole.after(a) is b and whole.before(b) is a


def test_a_device_is_found_with_its_stage_and_its_shard() -> None:
    assert GROUPS.member_of(D) is GROUPS.last and GROUPS.member_of(B) is GROUPS.first
    shard = GROUPS.shard_of(D)
    assert shard is not None and shard.slice == RIGHT
    assert THREE.member_of(D) is None and THREE.shard_of(D) is None


def test_shards_come_back_in_the_order_of_the_placement() -> None:
    assert pipeline(*GROUPS.shards) == GROUPS and pipeline(*THREE.shards) == THREE != GROUPS


def test_a_token_hops_from_leader_to_leader_and_back_to_the_first() -> None:
    assert hops(ALONE.stages) == []
    assert [(a.peer, b.peer) for a, b in hops(GROUPS.stages)] == [(A, C), (C, A)]
    assert [(a.peer, b.peer) for a, b in hops(THREE.stages)] == [(C, A), (A, B), (B, C)]


def test_members_of_a_stage_reach_each_other_both_ways_and_leaders_the_next() -> None:
    assert list(ALONE.links()) == []
    assert set(GROUPS.links()) == {(A, C), (C, A), (A, B), (B, A), (C, D), (D, C)}


def test_as_many_batches_as_stages_and_one_keep_everybody_at_work() -> None:
    assert (ALONE.n_busy, THREE.n_busy, GROUPS.n_busy) == (2, 4, 3)


@pytest.mark.parametrize(
    ("shards", "covers"),
    [
        (((0, 8),), True),
        (((0, 3), (3, 8)), True),
        (((0, 3), (0, 3), (3, 8)), True),
        ((), False),
        (((0, 7),), False),
        (((1, 8),), False),
        (((0, 3), (4, 8)), False),
        (((0, 4), (3, 8)), False),
        (((3, 8), (0, 3)), False),
    ],
)
def test_stages_cover_a_model_when_there_is_no_gap(shards: tuple[tuple[int, int], ...], covers: bool) -> None:
    made = pipeline(*(Shard(PeerId(f"{i:032x}"), a, b, a == 0, b == 8) for i, (a, b) in enumerate(shards)))
    assert made.covers(8) is covers


def test_no_placement_has_no_stages() -> None:
    assert Pipeline.of(None) == NOBODY and NOBODY.peers == () and NOBODY.shards == ()


def test_members_may_be_anything() -> None:
    devices = Stage(0, 4, ("a", "b")).of(str.upper)
    assert devices == Stage(0, 4, ("A", "B")) and devices.leader == "A" and devices.n_layers == 4


# --- the source itself


def looks_into_shards(tree: ast.AST) -> list[int]:
    """Lines that walk, index or count the shards of a placement, or count with stages, or index them by number."""
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.expr) and _looks(node)] + [
        node.iter.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.For | ast.comprehension) and _shards(node.iter)
    ]


def _looks(node: ast.expr) -> bool:
    match node:
        case ast.Subscript(value=value, slice=index):
            number = isinstance(index, ast.Constant | ast.UnaryOp | ast.Slice | ast.BinOp)
            return _shards(value) or (_stages(value) and number)
        case ast.Call(func=ast.Name(id=name), args=args):
            return hasattr(builtins, name) and any(map(_shards, args))
        case ast.BinOp(left=left, right=right):
            return _counts(left) or _counts(right)
        case ast.Compare(left=left, comparators=others):
            return any(_counts(e) for e in (left, *others))
    return False


def _shards(node: ast.expr) -> bool:
    """`something.shards` of a placement; a core's `Shards` is asked by its methods, never walked."""
    return isinstance(node, ast.Attribute) and node.attr == "shards"


def _stages(node: ast.expr) -> bool:
    return getattr(node, "attr", getattr(node, "id", "")) == "stages"


def _counts(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "len" and any(map(_stages, node.args))


# What a status reply lists are the shards of one device, of any placements.
OF_A_DEVICE = {"node/status.py"}


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "cluster" / "pipeline.py"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_only_the_pipeline_looks_into_the_shards_of_a_placement(path: Path) -> None:
    lines = looks_into_shards(ast.parse(path.read_text(encoding="utf-8")))
    if str(path.relative_to(ROOT)) not in OF_A_DEVICE:
        assert not lines, f"ask cluster/pipeline.py instead: lines {lines}"


@pytest.mark.parametrize(
    "source",
    [
        "peers = [s.peer for s in placement.shards]",
        "first = placement.shards[0]",
        "if sender == session.stages[-1]: pass",
        "for shard in p.shards: pass",
        "n = len(placement.shards)",
        "done = len(haves) == len(session.stages)",
        "window = len(stages) + 1",
        "rest = stages[1:]",
    ],
)
def test_the_checker_sees_that(source: str) -> None:
    assert looks_into_shards(ast.parse(source))


@pytest.mark.parametrize("source", ["core.shards.live", "for stage in plan.stages: pass", "n = len(plan.stages)"])
def test_the_checker_lets_that_be(source: str) -> None:
    assert not looks_into_shards(ast.parse(source))
