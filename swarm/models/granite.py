"""granite and granitemoe: Granite 3 and the dense ones of Granite 4. As llama, with four scales of its own.

Rotation is of adjacent pairs, as in llama; a file may also say (rope.scaling.finetuned = false) that there is none.
The shared expert of granitemoe is given by its width alone, and it is always one.
"""

from __future__ import annotations

from dataclasses import replace

from swarm.models import header, llama, naming
from swarm.models.header import Header
from swarm.models.naming import Name
from swarm.models.spec import LayerSpec, ModelSpec, MoeSpec, Role, Scales

# Granite 4's dense models are hybrids of which no layer has a state; their files still say how wide one would be.
_UNUSED_STATES = ("ssm.conv_kernel", "ssm.group_count", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank")


def declare(h: Header) -> ModelSpec:
    """The spec of a granite or granitemoe file."""
    h.ignore(*_UNUSED_STATES)
    sizes = header.sizes(h)
    n_layers, head_dim = sizes["n_layers"], sizes["head_dim"]
    bias = naming.has_qkv_bias(h)
    rotated = h.flag("rope.scaling.finetuned", default=True)
    moe = mixture(h) if h.arch == "granitemoe" else None
    layers = (LayerSpec(0, moe),) * n_layers if moe else header.dense_layers(h, n_layers)
    spec = ModelSpec(
        family=h.arch,
        **sizes,
        rope=header.rope(h, "pair", head_dim),
        qkv_bias=bias,
        tied_lm_head=naming.is_tied(h),
        layers=tuple(replace(layer, rotated=rotated) for layer in layers),
        scales=scales(h),
    )
    return naming.bind(h, spec, [names(h, layer, bias, moe) for layer in range(n_layers)])


def scales(h: Header) -> Scales:
    """What the file multiplies; logits are divided by theirs. Zero or absent is one."""
    embedding, residual, logits = (
        h.real(f"{name}_scale", 0.0, 1e6, default=1.0) or 1.0 for name in ("embedding", "residual", "logit")
    )
    return Scales(embedding, residual, 1 / logits)


def mixture(h: Header) -> MoeSpec:
    """The mixture of every layer of granitemoe."""
    n_experts, top_k = header.experts(h)
    h.refuse("expert_shared_count", "Swarm's granitemoe knows shared experts by their width")
    n_group, top_group = header.expert_groups(h, n_experts, top_k)
    return MoeSpec(
        n_experts=n_experts,
        top_k=top_k,
        expert_ffn=header.ffn_width(h),
        shared_ffn=h.whole("expert_shared_feed_forward_length", 0, header.MAX_WIDTH, default=0),
        gating=header.gating(h, default="softmax"),
        normalise=h.flag("expert_weights_norm", default=True),
        scale=header.expert_scale(h),
        n_group=n_group,
        top_group=top_group,
    )


def names(h: Header, layer: int, bias: bool, moe: MoeSpec | None) -> list[Name]:
    """Tensors of one layer."""
    if moe is None:
        return llama.names(h, layer, bias)
    return [
        *naming.layer_names(layer, ("attn_norm", Role.ATTN_NORM)),
        *naming.qkv_names(h, layer, bias),
        *naming.layer_names(layer, ("attn_output", Role.O), ("ffn_norm", Role.FFN_NORM), ("ffn_gate_inp", Role.ROUTER)),
        *naming.expert_names(h, layer),
        *(naming.shared_names(layer) if moe.shared_ffn else ()),
    ]
