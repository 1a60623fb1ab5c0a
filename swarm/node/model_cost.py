"""What a model costs, for the planner: from its spec and the types of its tensors, in bytes as they lie in memory."""

from __future__ import annotations

from collections.abc import Mapping

from swarm.cluster.cost import LayerCost, ModelCost, MtpCost
from swarm.cluster.cuts import Cuts
from swarm.engine.row_table import SUM_BYTES
from swarm.engine.weights import MATRICES, packed_bytes
from swarm.models.header import TensorEntry
from swarm.models.sizes import kv_bytes_per_token, kv_kinds
from swarm.models.slices import COLUMNS, KV_ROWS, ROWS, SLABS, Axis, cut_sizes, cut_steps
from swarm.models.spec import EXPERT_ROLES, ModelSpec, MtpSpec, NeededTensor, Role, tensors_needed
from swarm.parts import EMBED, LM_HEAD, Part

F32_BYTES = 4  # vectors (norms, biases) are kept as floats


def model_cost(name: str, spec: ModelSpec, tensors: Mapping[str, TensorEntry], mtp: MtpSpec | None = None) -> ModelCost:
    """The cost of every part of a model; `mtp`: the block of its file that predicts further tokens."""
    kv_bytes = {kind: kv_bytes_per_token(spec, kind.upper(), n_layers=1) for kind in kv_kinds(spec, ("f16", "q8_0"))}
    return ModelCost(
        name=name,
        layers=tuple(_layer(layer, spec, tensors, kv_bytes) for layer in range(spec.n_layers)),
        embed_bytes=spec.vocab * SUM_BYTES,  # a row is read for each token
        embed_stored_bytes=_bytes(tensors_needed(spec, [EMBED]), tensors),
        lm_head_bytes=_bytes(tensors_needed(spec, [LM_HEAD]), tensors),
        hidden=spec.hidden,
        lm_head_macs=spec.hidden * spec.vocab,
        vocabulary=spec.vocab,
        cuts=_cuts(spec, tensors),
        mtp=_mtp(mtp, tensors, kv_bytes) if mtp is not None else None,
    )


def _mtp(mtp: MtpSpec, tensors: Mapping[str, TensorEntry], kv_bytes: Mapping[str, int]) -> MtpCost:
    return MtpCost(_bytes(tensors_needed(mtp.spec, [Part(0)]), tensors), kv_bytes["f16"], kv_bytes.get("q8_0", 0))


def _cuts(spec: ModelSpec, tensors: Mapping[str, TensorEntry]) -> Cuts | None:
    """What the model can be cut along; None when its layers are too different for that."""
    try:
        sizes, steps = cut_sizes(spec), cut_steps(spec, tensors)
    except ValueError:
        return None
    heads, ffn, expert, shared, vocab = Axis
    return Cuts(
        (sizes[heads], sizes[ffn], sizes[expert], sizes[shared], sizes[vocab]),
        (steps[heads], steps[ffn], steps[expert], steps[shared], steps[vocab]),
        0 if spec.latent else spec.n_kv_heads,
    )


def _axis(role: Role) -> Axis | None:
    """What a matrix is cut along, but for keys and values; None when every slice has all of it."""
    return Axis.HEADS if role in SLABS else ROWS.get(role) or COLUMNS.get(role)


def _layer(layer: int, spec: ModelSpec, tensors: Mapping[str, TensorEntry], kv_bytes: Mapping[str, int]) -> LayerCost:
    needed = tensors_needed(spec, [Part(layer)])
    experts = [need for need in needed if need.role in EXPERT_ROLES]
    dense = [need for need in needed if need.role not in EXPERT_ROLES]
    moe = spec.layers[layer].moe
    share = moe.top_k / moe.n_experts if moe is not None else 0.0
    macs = sum(need.n_experts * need.rows * need.cols for need in dense if need.role in MATRICES)
    macs += int(share * sum(need.n_experts * need.rows * need.cols for need in experts))

    def along(axis: Axis) -> int:
        return _bytes([need for need in dense if _axis(need.role) is axis], tensors)

    return LayerCost(
        dense_bytes=_bytes(dense, tensors),
        macs=macs,
        kv_bytes=kv_bytes["f16"],
        expert_bytes=_bytes(experts, tensors),
        expert_share=share,
        context_macs=spec.n_heads * (spec.head_dim + (spec.latent.rank if spec.latent else spec.head_dim)),
        kv_q8_0_bytes=kv_bytes.get("q8_0", 0),
        query_bytes=along(Axis.HEADS),
        key_bytes=_bytes([need for need in dense if need.role in KV_ROWS], tensors),
        ffn_bytes=along(Axis.FFN),
        shared_bytes=along(Axis.SHARED),
        n_used=moe.top_k if moe is not None else 0,
    )


def _bytes(needed: list[NeededTensor], tensors: Mapping[str, TensorEntry]) -> int:
    return sum(
        packed_bytes(need, tensors[need.ref.name].quant) if need.role in MATRICES else F32_BYTES * need.rows * need.cols
        for need in needed
    )
