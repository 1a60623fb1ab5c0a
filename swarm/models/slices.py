"""A slice of a model: the share of every layer, and of the LM head, that one of several devices computes.

`narrow` turns a model's spec into that of a slice: fewer query heads, fewer columns of the feed-forward networks, fewer
rows of the vocabulary, and for every tensor the rectangle that holds them. It runs like any other spec. What a half of
a layer adds to the residual stream is then a partial sum, and the sum over the slices is what the whole model adds.

Attention is cut by query heads. Each slice has the key and value heads that its queries read, so a head whose queries
are cut is held twice. The engine wants as many queries for each key head, so a slice that has, say, 16 queries of one
head and 4 of the next holds the first one four times; a table in the engine would spare that.
Of latent attention the matrices of the heads are cut, and what is before them, and the cache, is whole everywhere.
Feed-forward networks are cut by columns, all experts of a layer alike. The LM head is cut by vocabulary rows; its
logits stand side by side. Embedding, norms, router and its correction are whole everywhere: a slice computes with the
whole residual stream.

Biases of rows (query, key, value, an expert's gate and up) are cut as their rows are. One that is added after a product
whose columns are cut (an output's) is whole everywhere: each slice adds it, but to the sum of all slices, so that it
counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from math import gcd, lcm
from typing import NamedTuple

from swarm.models.header import TensorEntry
from swarm.models.spec import HEAD_ROLES, LayerSpec, ModelSpec, MoeSpec, Role, TensorRef
from swarm.parts import queries_per_key, whole_steps

# Columns of a feed-forward network that no cut divides: the groups of the engine's exact sums (csrc/README.md).
FFN_STEP, SANDWICH_FFN_STEP = 64, 256
VOCAB_STEP = 16  # rows of a packed panel
ACT_BLOCK = 32  # columns of an activation that are rounded with one scale


class Axis(StrEnum):
    """What a model is cut along. Each is counted in its own unit, see SliceBounds."""

    HEADS = "query heads"
    FFN = "columns of a dense FFN"
    EXPERT = "columns of an expert"
    SHARED = "columns of the shared expert"
    VOCAB = "vocabulary rows"


class SliceBounds(NamedTuple):
    """What a slice has along each axis, [start, end); 0 and 0 where the model has no such thing."""

    head_start: int
    head_end: int
    ffn_start: int
    ffn_end: int
    expert_start: int
    expert_end: int
    shared_start: int
    shared_end: int
    vocab_start: int
    vocab_end: int

    def along(self, axis: Axis) -> range:
        """The slice's range along one axis."""
        i = 2 * list(Axis).index(axis)
        return range(self[i], self[i + 1])


# Which rows or columns of a matrix are cut, and along which axis; keys and values follow the queries that read them.
ROWS: Mapping[Role, Axis] = {
    Role.LM_HEAD: Axis.VOCAB,
    Role.Q: Axis.HEADS,
    Role.Q_BIAS: Axis.HEADS,
    Role.SINKS: Axis.HEADS,
    Role.GATE: Axis.FFN,
    Role.UP: Axis.FFN,
    Role.EXPERT_GATE: Axis.EXPERT,
    Role.EXPERT_UP: Axis.EXPERT,
    Role.SHARED_GATE: Axis.SHARED,
    Role.SHARED_UP: Axis.SHARED,
}
COLUMNS: Mapping[Role, Axis] = {
    Role.O: Axis.HEADS,
    Role.DOWN: Axis.FFN,
    Role.EXPERT_DOWN: Axis.EXPERT,
    Role.EXPERT_GATE_BIAS: Axis.EXPERT,  # a row for each expert
    Role.EXPERT_UP_BIAS: Axis.EXPERT,
    Role.SHARED_DOWN: Axis.SHARED,
}
KV_ROWS = frozenset({Role.K, Role.V, Role.K_BIAS, Role.V_BIAS})
SLABS = HEAD_ROLES  # a matrix for each query head: those of the slice's heads
WHOLE = frozenset(
    {Role.EMBED, Role.OUTPUT_NORM, Role.ROPE_FREQS, Role.ROUTER, Role.ROUTER_BIAS, Role.ROUTER_LOGIT_BIAS}
    | {Role.ATTN_NORM, Role.Q_NORM, Role.K_NORM, Role.ATTN_POST_NORM, Role.FFN_NORM, Role.FFN_POST_NORM}
    | {Role.O_BIAS, Role.EXPERT_DOWN_BIAS, Role.Q_A, Role.Q_A_NORM, Role.KV_A, Role.KV_A_NORM}
    | {Role.MTP_PROJECTION, Role.MTP_TOKEN_NORM, Role.MTP_STATE_NORM, Role.MTP_NORM}
)


def narrow(spec: ModelSpec, tensors: Mapping[str, TensorEntry], bounds: SliceBounds) -> ModelSpec:
    """The spec of a slice of a whole model, with the rectangle of every tensor that it holds.

    Raise ValueError for bounds outside the model, an empty range, or an edge inside of what no cut divides.
    """
    _check(spec, tensors, bounds)
    heads, (n_kv_heads, kv_rows) = bounds.along(Axis.HEADS), _kv_heads(spec, bounds.along(Axis.HEADS))

    def part(role: Role, ref: TensorRef) -> TensorRef:
        if role in KV_ROWS:
            return replace(ref, rows=tuple(_within(ref.rows[0], piece) for piece in kv_rows))
        if role in SLABS:
            return replace(ref, slabs=heads)
        if role in ROWS:
            return replace(ref, rows=(_within(ref.rows[0], _span(spec, bounds, role, ROWS[role])),))
        if role in COLUMNS:
            return replace(ref, columns=_within(ref.columns, _span(spec, bounds, role, COLUMNS[role])))
        return ref

    def parts(refs: Mapping[Role, TensorRef]) -> dict[Role, TensorRef]:
        return {role: part(role, ref) for role, ref in refs.items()}

    return replace(
        spec,
        n_heads=len(heads),
        n_kv_heads=n_kv_heads,
        vocab=len(bounds.along(Axis.VOCAB)),
        layers=tuple(_narrow_layer(layer, bounds, parts(layer.tensors)) for layer in spec.layers),
        tensors=parts(spec.tensors),
    )


def cut_model(spec: ModelSpec, tensors: Mapping[str, TensorEntry], shares: Sequence[float]) -> list[SliceBounds]:
    """Slices that make up the model, sized as near to these shares of it as the steps allow.

    Raise ValueError when there are not enough steps for all of them.
    """
    steps = cut_steps(spec, tensors)
    edges = {axis: whole_steps(size, steps[axis], shares, axis) for axis, size in cut_sizes(spec).items()}
    return [SliceBounds(*(edge for axis in Axis for edge in edges[axis][i])) for i in range(len(shares))]


def cut_steps(spec: ModelSpec, tensors: Mapping[str, TensorEntry]) -> dict[Axis, int]:
    """What no cut divides, along each axis: edges are multiples of it, or the end.

    A cut through columns must fall between blocks of the matrix and of the activation.
    """
    blocks = {axis: [ACT_BLOCK] for axis in COLUMNS.values()}
    for layer in spec.layers:
        for role, ref in layer.tensors.items():
            if role in COLUMNS:
                blocks[COLUMNS[role]].append(tensors[ref.name].quant.block_cols)
    columns = lcm(*blocks[Axis.HEADS])
    return {
        Axis.HEADS: columns // gcd(columns, _head_columns(spec, Role.O)),
        **{axis: lcm(ffn_step(spec), *blocks[axis]) for axis in (Axis.FFN, Axis.EXPERT, Axis.SHARED)},
        Axis.VOCAB: VOCAB_STEP,
    }


def ffn_step(spec: ModelSpec) -> int:
    """Columns of a feed-forward network that no cut of this model divides, whatever its quants."""
    return SANDWICH_FFN_STEP if spec.sandwich_norms else FFN_STEP


def cut_sizes(spec: ModelSpec) -> dict[Axis, int]:
    """How much there is to cut along each axis; ValueError where layers are of different widths."""
    return {
        Axis.HEADS: spec.n_heads,
        Axis.FFN: _same(layer.ffn for layer in spec.layers),
        Axis.EXPERT: _same(layer.moe.expert_ffn for layer in spec.layers if layer.moe),
        Axis.SHARED: _same(layer.moe.shared_ffn for layer in spec.layers if layer.moe),
        Axis.VOCAB: spec.vocab,
    }


def _same(widths: Iterable[int]) -> int:
    """The width of all layers that have any; 0 when none has."""
    found = set(widths) - {0}
    if len(found) > 1:
        raise ValueError(f"layers of {sorted(found)} columns cannot be cut alike")
    return found.pop() if found else 0


def _check(spec: ModelSpec, tensors: Mapping[str, TensorEntry], bounds: SliceBounds) -> None:
    steps = cut_steps(spec, tensors)
    for axis, size in cut_sizes(spec).items():
        start, end = bounds.along(axis).start, bounds.along(axis).stop
        if not (0 <= start < end <= size or start == end == size == 0):
            raise ValueError(f"a slice has {axis} {start} to {end} of {size}")
        if start % steps[axis] or (end % steps[axis] and end != size):
            raise ValueError(f"{axis} {start} to {end} of {size}: cuts must fall on multiples of {steps[axis]}")


def _kv_heads(spec: ModelSpec, heads: range) -> tuple[int, list[range]]:
    """How many key heads a slice with these query heads holds, and their rows; each serves as many of the queries.

    Latent attention has one for all heads, and every slice keeps it.
    """
    group = spec.n_heads // spec.n_kv_heads
    queries = queries_per_key(heads.start, heads.stop, group)
    held = [h // group for h in range(heads.start, heads.stop, queries)]
    return len(held), _runs(spec.head_dim, held)


def _runs(size: int, numbers: Sequence[int]) -> list[range]:
    """The rows of these heads, `size` each; those of heads that follow one another are one range."""
    runs: list[range] = []
    for number in numbers:
        if runs and runs[-1].stop == number * size:
            runs[-1] = range(runs[-1].start, runs[-1].stop + size)
        else:
            runs.append(range(number * size, (number + 1) * size))
    return runs


def _span(spec: ModelSpec, bounds: SliceBounds, role: Role, axis: Axis) -> range:
    """The rows or columns of a matrix that a slice has along an axis."""
    units = bounds.along(axis)
    size = 1 if axis is not Axis.HEADS or role is Role.SINKS else _head_columns(spec, role)
    return range(units.start * size, units.stop * size)


def _head_columns(spec: ModelSpec, role: Role) -> int:
    """Rows that a query head has of its matrix, or columns of the output's."""
    return (spec.q_width if role in (Role.Q, Role.Q_BIAS) else spec.out_width) // spec.n_heads


def _within(whole: range, piece: range) -> range:
    return range(whole.start + piece.start, whole.start + piece.stop)


def _narrow_layer(layer: LayerSpec, bounds: SliceBounds, tensors: Mapping[Role, TensorRef]) -> LayerSpec:
    ffn = len(bounds.along(Axis.FFN)) if layer.ffn else 0
    return replace(layer, ffn=ffn, moe=layer.moe and _narrow_moe(layer.moe, bounds), tensors=tensors)


def _narrow_moe(moe: MoeSpec, bounds: SliceBounds) -> MoeSpec:
    shared = len(bounds.along(Axis.SHARED)) if moe.shared_ffn else 0
    return replace(moe, expert_ffn=len(bounds.along(Axis.EXPERT)), shared_ffn=shared)
