"""qwen3moe: Qwen 3 as a mixture of experts. Attention as in qwen3; every layer routes by softmax; no shared expert."""

from __future__ import annotations

from swarm.models import header, naming
from swarm.models.header import Header
from swarm.models.naming import Name
from swarm.models.spec import LayerSpec, ModelSpec, MoeSpec, Role


def declare(h: Header) -> ModelSpec:
    """The spec of a qwen3moe file."""
    sizes = header.sizes(h)
    n_layers, head_dim = sizes["n_layers"], sizes["head_dim"]
    spec = ModelSpec(
        family="qwen3moe",
        **sizes,
        rope=header.rope(h, "half", head_dim),
        qk_norm=True,
        tied_lm_head=naming.is_tied(h),
        layers=(LayerSpec(ffn=0, moe=mixture(h)),) * n_layers,
    )
    return naming.bind(h, spec, [names(h, layer) for layer in range(n_layers)])


def mixture(h: Header) -> MoeSpec:
    """The mixture of every layer."""
    n_experts, top_k = header.experts(h)
    h.refuse("expert_shared_count", "Swarm's qwen3moe has no shared experts")
    h.ignore("feed_forward_length")  # of dense layers: there are none
    n_group, top_group = header.expert_groups(h, n_experts, top_k)
    return MoeSpec(
        n_experts=n_experts,
        top_k=top_k,
        expert_ffn=expert_width(h, top_k),
        gating=header.gating(h, default="softmax"),
        normalise=h.flag("expert_weights_norm", default=True),
        scale=header.expert_scale(h),
        n_group=n_group,
        top_group=top_group,
    )


def expert_width(h: Header, top_k: int) -> int:
    """Columns of an expert; early files give only those of all experts of a token together."""
    key = "expert_feed_forward_length"
    if f"{h.arch}.{key}" in h.metadata:
        return h.whole(key, 1, header.MAX_WIDTH)
    return max(1, header.ffn_width(h) // top_k)


def names(h: Header, layer: int) -> list[Name]:
    """Tensors of one layer."""
    return [
        *naming.layer_names(layer, ("attn_norm", Role.ATTN_NORM)),
        *naming.qkv_names(h, layer, bias=False),
        *naming.layer_names(
            layer,
            ("attn_q_norm", Role.Q_NORM),
            ("attn_k_norm", Role.K_NORM),
            ("attn_output", Role.O),
            ("ffn_norm", Role.FFN_NORM),
            ("ffn_gate_inp", Role.ROUTER),
        ),
        *naming.expert_names(h, layer),
    ]
