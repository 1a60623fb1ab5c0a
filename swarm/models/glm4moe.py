"""glm4moe: GLM-4.5 and later of that shape (Air, 355B, the text of 4.5V and 4.6V), INTELLECT-3.

Traps: rotation is of halves here, of half of each head. The norm before the feed-forward is post_attention_norm.
The first layers are dense. The q width is not the hidden one. block_count counts the blocks that predict further tokens
(MTP), which a file may declare and not hold, as INTELLECT-3's do; they are no part of the model proper.
"""

from __future__ import annotations

from dataclasses import replace

from swarm.errors import BadModelFile, UnsupportedModel
from swarm.models import header, naming
from swarm.models.header import Header
from swarm.models.naming import Name
from swarm.models.spec import LayerSpec, ModelSpec, MoeSpec, MtpSpec, Role


def declare(h: Header) -> ModelSpec:
    """The spec of a glm4moe file."""
    if mtp_blocks(h) and not h.has("blk.0.attn_norm.weight"):
        raise UnsupportedModel("it is the part of a model that predicts further tokens (MTP); give the model itself")
    h.ignore("feed_forward_length")  # where no layer is dense
    h.ignore("rope.dimension_sections")  # of models that see: in text, all parts of a head turn by one position
    n_layers = trunk_layers(h)
    n_dense = h.whole("leading_dense_block_count", 0, header.MAX_LAYERS, default=0)
    sizes = header.sizes(h, n_layers=n_layers)
    head_dim = sizes["head_dim"]
    dense = min(n_dense, n_layers)
    spec = ModelSpec(
        family="glm4moe",
        **sizes,
        rope=header.rope(h, "half", head_dim),
        qkv_bias=naming.has_qkv_bias(h),
        qk_norm=h.has("blk.0.attn_q_norm.weight"),
        tied_lm_head=naming.is_tied(h),
        layers=header.dense_layers(h, dense) + moe_layers(h, dense, n_layers),
    )
    beside = mtp_blocks(h) | {str(block) for block in range(n_layers, header.block_count(h))}
    return naming.bind(h, spec, [names(h, spec, layer) for layer in range(n_layers)], beside)


def declare_mtp(h: Header, spec: ModelSpec) -> MtpSpec | None:
    """The first block of a file that predicts a further token; None where it has none. `spec`: of the model."""
    mtp = mtp_blocks(h)
    block = next((n for n in range(spec.n_layers, header.block_count(h)) if str(n) in mtp), None)
    if block is None or not h.has(f"blk.{block}.nextn.eh_proj.weight"):
        return None
    layer = moe_layers(h, block, block + 1)
    of_block = replace(spec, n_layers=1, layers=layer)
    return naming.bind_mtp(h, of_block, f"blk.{block}.nextn.", [*names(h, of_block, block, layer[0].moe)])


def trunk_layers(h: Header) -> int:
    """Layers of the model proper: all blocks but those that predict further tokens.

    Such a block is told by its nextn tensors, so that a file whose block_count leaves them out loses no layer.
    """
    n_blocks = header.block_count(h)
    n_nextn = h.whole("nextn_predict_layers", 0, header.MAX_LAYERS, default=0)
    if n_nextn >= n_blocks:
        raise BadModelFile(f"{h.arch}.nextn_predict_layers is {n_nextn}: there are only {n_blocks} blocks")
    mtp = mtp_blocks(h)
    n_layers = n_blocks - n_nextn
    while n_layers < n_blocks and h.has(f"blk.{n_layers}.attn_norm.weight") and str(n_layers) not in mtp:
        n_layers += 1
    return n_layers


def mtp_blocks(h: Header) -> set[str]:
    """The numbers of blocks that predict further tokens, as the table has them."""
    return {name.split(".", 2)[1] for name in h.tensors if name.startswith("blk.") and ".nextn." in name}


def moe_layers(h: Header, first: int, end: int) -> tuple[LayerSpec, ...]:
    """Layers [first, end), with experts."""
    return (LayerSpec(ffn=0, moe=mixture(h, first)),) * (end - first) if first < end else ()


def mixture(h: Header, first: int) -> MoeSpec:
    """The mixture of every layer from `first` on."""
    n_experts, top_k = header.experts(h)
    expert_ffn = h.whole("expert_feed_forward_length", 1, header.MAX_WIDTH)
    n_group, top_group = header.expert_groups(h, n_experts, top_k)
    return MoeSpec(
        n_experts=n_experts,
        top_k=top_k,
        expert_ffn=expert_ffn,
        shared_ffn=header.shared_width(h, expert_ffn),
        gating=header.gating(h, default="sigmoid"),
        normalise=h.flag("expert_weights_norm", default=True),
        scale=header.expert_scale(h),
        n_group=n_group,
        top_group=top_group,
        correction_bias=h.has(f"blk.{first}.exp_probs_b.bias"),
    )


def names(h: Header, spec: ModelSpec, layer: int, moe: MoeSpec | None = None) -> list[Name]:
    """Tensors of one layer; `moe` of one that the spec does not have."""
    qk_norm = (("attn_q_norm", Role.Q_NORM), ("attn_k_norm", Role.K_NORM)) if spec.qk_norm else ()
    return [
        *naming.layer_names(layer, ("attn_norm", Role.ATTN_NORM)),
        *naming.qkv_names(h, layer, spec.qkv_bias),
        *naming.layer_names(layer, *qk_norm, ("attn_output", Role.O), ("post_attention_norm", Role.FFN_NORM)),
        *ffn_names(h, layer, moe or spec.layers[layer].moe),
    ]


def ffn_names(h: Header, layer: int, moe: MoeSpec | None) -> list[Name]:
    """Tensors of a layer's feed-forward part."""
    if moe is None:
        return naming.layer_names(layer, ("ffn_gate", Role.GATE), ("ffn_up", Role.UP), ("ffn_down", Role.DOWN))
    names = naming.layer_names(layer, ("ffn_gate_inp", Role.ROUTER))
    if moe.correction_bias:
        names.append((f"blk.{layer}.exp_probs_b.bias", (Role.ROUTER_BIAS,)))
    names += naming.expert_names(h, layer)
    if moe.shared_ffn:
        names += naming.shared_names(layer)
    return names
