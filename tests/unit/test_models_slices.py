"""A spec narrowed to a slice: what it holds of every tensor, and which cuts there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

from swarm.models import ModelSpec, kv_bytes_per_token, slices, spec_from_gguf
from swarm.models.header import TensorEntry
from swarm.models.slices import Axis, SliceBounds, cut_model, cut_steps, narrow
from swarm.models.spec import Role, TensorRef, tensors_needed
from swarm.parts import LM_HEAD, Part
from tests.helpers.tiny import TINY, Tiny, gguf_metadata, tensor_table, wide

SHARES = (1.0, 3.0, 2.0)
LARGE = replace(wide(TINY["glm4"], ffn=5632), n_heads=32, n_kv_heads=2)  # 16 queries for each key head


def declared(tiny: Tiny, mix: str = "F32") -> tuple[ModelSpec, dict[str, TensorEntry]]:
    table = tensor_table(tiny, mix)
    return spec_from_gguf(gguf_metadata(tiny), table), dict(table)


def narrowed(tiny: Tiny, shares: tuple[float, ...]) -> tuple[ModelSpec, list[ModelSpec]]:
    spec, tensors = declared(tiny)
    return spec, [narrow(spec, tensors, bounds) for bounds in cut_model(spec, tensors, shares)]


def with_heads(start: int, end: int) -> ModelSpec:
    """The slice of LARGE that has these query heads."""
    spec, tensors = declared(LARGE)
    first, *_ = cut_model(spec, tensors, (1.0, 1.0))
    return narrow(spec, tensors, first._replace(head_start=start, head_end=end))


def rows(ref: TensorRef) -> list[int]:
    return [row for piece in ref.rows for row in piece]


def joined(pieces: Iterable[Iterable[int]]) -> list[int]:
    return list(chain.from_iterable(pieces))


def test_every_role_has_one_rule() -> None:
    rules = [set(slices.ROWS), set(slices.COLUMNS), slices.KV_ROWS, set(slices.SLABS), slices.WHOLE]
    assert sum(map(len, rules)) == len(Role) and set().union(*rules) == set(Role)


@pytest.mark.parametrize("name", TINY)
def test_slices_hold_every_row_and_column_that_is_cut_once(name: str) -> None:
    spec, parts = narrowed(wide(TINY[name], ffn=1280), SHARES)
    for layer, block in enumerate(spec.layers):
        for role, whole in block.tensors.items():
            refs = [part.layers[layer].tensors[role] for part in parts]
            assert all(ref.name == whole.name for ref in refs)
            if role in slices.ROWS:
                assert joined(map(rows, refs)) == rows(whole)
            elif role in slices.COLUMNS:
                assert joined(ref.columns for ref in refs) == list(whole.columns)
            elif role in slices.SLABS:
                assert joined(ref.slabs or () for ref in refs) == list(range(spec.n_heads))
            elif role in slices.KV_ROWS:
                assert set(joined(map(rows, refs))) == set(rows(whole))
            else:
                assert refs == [whole] * len(parts)
    assert joined(rows(part.tensors[Role.LM_HEAD]) for part in parts) == rows(spec.tensors[Role.LM_HEAD])
    assert all(part.tensors[Role.EMBED] == spec.tensors[Role.EMBED] for part in parts), "also of a tied model"


@pytest.mark.parametrize("name", TINY)
def test_widths_are_those_of_the_rectangles(name: str) -> None:
    _, parts = narrowed(wide(TINY[name], ffn=1280), SHARES)
    for part in parts:
        assert part.vocab == part.tensors[Role.LM_HEAD].n_rows
        for block in part.layers:
            held = block.tensors
            assert (held[Role.Q].n_rows, len(held[Role.O].columns)) == (part.q_width, part.out_width)
            if part.latent is None:
                assert part.q_width == part.out_width == part.n_heads * part.head_dim
                assert held[Role.K].n_rows == held[Role.V].n_rows == part.n_kv_heads * part.head_dim
            assert part.n_heads % part.n_kv_heads == 0
            if block.moe is None:
                assert held[Role.GATE].n_rows == held[Role.UP].n_rows == len(held[Role.DOWN].columns) == block.ffn
                continue
            assert held[Role.EXPERT_GATE].n_rows == len(held[Role.EXPERT_DOWN].columns) == block.moe.expert_ffn
            assert block.moe.n_experts == held[Role.ROUTER].n_rows, "every expert, each narrower"
            if block.moe.shared_ffn:
                assert held[Role.SHARED_UP].n_rows == len(held[Role.SHARED_DOWN].columns) == block.moe.shared_ffn


def test_a_slice_of_fused_tensors_has_its_rows_of_each_role() -> None:
    _, (_, middle, _) = narrowed(LARGE, SHARES)
    held = middle.layers[0].tensors
    gate, up = held[Role.GATE], held[Role.UP]
    assert gate.name == up.name == "blk.0.ffn_up.weight"
    assert [row + 5632 for row in rows(gate)] == rows(up)


@pytest.mark.parametrize(
    ("heads", "n_kv_heads", "heads_held"),
    [
        ((0, 32), 2, [range(0, 2)]),  # all of it
        ((0, 16), 1, [range(0, 1)]),
        ((16, 32), 1, [range(1, 2)]),
        ((4, 8), 1, [range(0, 1)]),  # a part of one head's queries
        ((8, 24), 2, [range(0, 2)]),  # half of both
        ((0, 20), 5, [range(0, 1), range(0, 1), range(0, 1), range(0, 2)]),  # 16 and 4: four of each
        ((15, 18), 3, [range(0, 2), range(1, 2)]),
    ],
)
def test_a_slice_holds_the_key_heads_that_its_queries_read(
    heads: tuple[int, int], n_kv_heads: int, heads_held: list[range]
) -> None:
    spec = with_heads(*heads)
    assert (spec.n_heads, spec.n_kv_heads) == (heads[1] - heads[0], n_kv_heads)
    d = spec.head_dim
    for role in slices.KV_ROWS:
        assert spec.layers[0].tensors[role].rows == tuple(range(r.start * d, r.stop * d) for r in heads_held)
    # Query j of the slice reads key head j // (queries of each), which must be the one that it reads in the model.
    each = spec.n_heads // n_kv_heads
    held = np.array(rows(spec.layers[0].tensors[Role.K])[::d]) // d
    assert [held[j // each] for j in range(spec.n_heads)] == [h // 16 for h in range(*heads)]


def test_past_tokens_of_a_slice_take_what_its_key_heads_take() -> None:
    spec, tensors = declared(LARGE)
    parts = [narrow(spec, tensors, bounds) for bounds in cut_model(spec, tensors, (1.0,) * 8)]
    assert [part.n_kv_heads for part in parts] == [1] * 8
    assert kv_bytes_per_token(parts[0]) * 2 == kv_bytes_per_token(spec)


# ---- where cuts may fall ----


def test_cuts_fall_between_blocks_of_weights_and_of_activations() -> None:
    spec, tensors = declared(wide(TINY["air"], ffn=1280), "Q4_K")
    steps = cut_steps(spec, tensors)
    assert steps == {Axis.HEADS: 4, Axis.FFN: 256, Axis.EXPERT: 256, Axis.SHARED: 256, Axis.VOCAB: 16}
    spec, tensors = declared(TINY["llama-tied"])  # heads of 16, activations in blocks of 32
    assert cut_steps(spec, tensors)[Axis.HEADS] == 2 and cut_steps(spec, tensors)[Axis.FFN] == 64


def test_slices_come_as_near_to_their_shares_as_whole_steps_allow() -> None:
    spec, tensors = declared(LARGE)
    for shares in ((1.0, 1.0), (1.0, 3.0, 2.0), (7.0, 1.0, 1.0, 2.0, 2.0), (1.0,) * 8):
        bounds = cut_model(spec, tensors, shares)
        for axis, size, step in ((Axis.HEADS, 32, 1), (Axis.FFN, 5632, 256), (Axis.VOCAB, spec.vocab, 16)):
            got = [len(b.along(axis)) for b in bounds]
            assert sum(got) == size
            for share, n in zip(shares, got, strict=True):
                assert abs(n - share / sum(shares) * size) <= 2 * step, (axis, shares, got)


def test_a_slice_with_a_tiny_share_gets_one_step() -> None:
    spec, tensors = declared(LARGE)
    small, _ = cut_model(spec, tensors, (0.001, 1.0))
    assert (small.along(Axis.HEADS), small.along(Axis.FFN)) == (range(0, 1), range(0, 256))


def test_the_last_step_may_be_shorter() -> None:
    spec, tensors = declared(TINY["llama"])  # 96 columns
    assert [b.along(Axis.FFN) for b in cut_model(spec, tensors, (1.0, 1.0))] == [range(0, 64), range(64, 96)]


def test_a_model_without_experts_has_nothing_to_cut_there() -> None:
    spec, tensors = declared(TINY["llama"])
    assert {b.along(axis) for b in cut_model(spec, tensors, (1.0, 1.0)) for axis in (Axis.EXPERT, Axis.SHARED)} == {
        range(0)
    }


def test_more_slices_than_steps_are_refused() -> None:
    spec, tensors = declared(TINY["llama"])
    with pytest.raises(ValueError, match="4 query heads in steps of 1 do not make 5 slices"):
        cut_model(spec, tensors, (1.0,) * 5)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"head_end": 33}, "a slice has query heads 0 to 33 of 32"),
        ({"head_start": -1}, "a slice has query heads -1"),
        ({"ffn_start": 2816}, "a slice has columns of a dense FFN 2816 to 2816 of 5632"),
        ({"ffn_end": 96}, "columns of a dense FFN 0 to 96 of 5632: cuts must fall on multiples of 256"),
        ({"vocab_start": 8}, "vocabulary rows 8 to .*: cuts must fall on multiples of 16"),
        ({"expert_end": 64}, "a slice has columns of an expert 0 to 64 of 0"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(change: dict[str, int], why: str) -> None:
    spec, tensors = declared(LARGE)
    bounds = cut_model(spec, tensors, (1.0, 1.0))[0]._replace(**change)
    with pytest.raises(ValueError, match=why):
        narrow(spec, tensors, bounds)


def test_biases_of_outputs_are_whole_and_those_of_what_is_cut_are_cut() -> None:
    spec, parts = narrowed(wide(TINY["gpt-oss"]), (1.0, 1.0))
    for layer, part in ((0, parts[0]), (1, parts[1])):
        held, whole = part.layers[layer].tensors, spec.layers[layer].tensors
        assert (held[Role.O_BIAS], held[Role.EXPERT_DOWN_BIAS]) == (whole[Role.O_BIAS], whole[Role.EXPERT_DOWN_BIAS])
        assert held[Role.SINKS].n_rows == part.n_heads
        assert held[Role.EXPERT_UP_BIAS].n_rows == 8, "every expert"
        assert held[Role.EXPERT_UP_BIAS].columns == held[Role.EXPERT_DOWN].columns


def test_parts_of_a_slice_need_the_tensors_of_its_spec() -> None:
    spec, tensors = declared(LARGE)
    bounds = cut_model(spec, tensors, SHARES)[1]
    needs = tensors_needed(narrow(spec, tensors, bounds), [Part(1, bounds), LM_HEAD._replace(slice=bounds)])
    shapes = {need.role: (need.layer, need.rows, need.cols) for need in needs}
    assert shapes[Role.O] == (1, spec.hidden, len(bounds.along(Axis.HEADS)) * spec.head_dim)
    assert shapes[Role.LM_HEAD] == (-1, len(bounds.along(Axis.VOCAB)), spec.hidden)
    assert Role.EMBED not in shapes


def test_bounds_are_a_tuple_that_a_part_can_carry() -> None:
    bounds = SliceBounds(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
    assert [bounds.along(axis) for axis in Axis] == [range(0, 1), range(2, 3), range(4, 5), range(6, 7), range(8, 9)]
    assert SliceBounds(*Part(3, bounds).slice) == bounds
