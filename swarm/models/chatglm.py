"""chatglm: GLM-4-9B-chat, from either of its two checkpoints (fused or separate query, key and value), and GLM-Edge.

Half of each head is rotated, in adjacent pairs, also where the file does not say so. One tensor, ffn_up, holds the
gate's rows and then those of up. GLM-Edge has no biases.
"""

from __future__ import annotations

from swarm.models import header, naming
from swarm.models.header import Header
from swarm.models.naming import Name
from swarm.models.spec import LayerSpec, ModelSpec, Role, RopeSpec


def declare(h: Header) -> ModelSpec:
    """The spec of a chatglm file."""
    n_layers = header.block_count(h)
    n_heads, n_kv_heads, head_dim = header.heads(h)
    bias = naming.has_qkv_bias(h)
    spec = ModelSpec(
        family="chatglm",
        n_layers=n_layers,
        hidden=header.hidden_size(h),
        vocab=header.vocab_size(h),
        context_length=header.context_length(h),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        norm_eps=header.norm_eps(h),
        rope=RopeSpec(
            style="pair",
            dims=header.rope_dims(h, head_dim, default=head_dim // 2),
            theta=header.rope_theta(h),
            scaling=header.rope_scaling(h),
        ),
        attention_scale=header.attention_scale(h, head_dim),
        qkv_bias=bias,
        tied_lm_head=naming.is_tied(h),
        layers=(LayerSpec(ffn=header.ffn_width(h)),) * n_layers,
    )
    return naming.bind(h, spec, [names(h, layer, bias) for layer in range(n_layers)])


def names(h: Header, layer: int, bias: bool) -> list[Name]:
    """Tensors of one layer."""
    return [
        *naming.layer_names(layer, ("attn_norm", Role.ATTN_NORM)),
        *naming.qkv_names(h, layer, bias),
        *naming.layer_names(layer, ("attn_output", Role.O), ("ffn_norm", Role.FFN_NORM)),
        (f"blk.{layer}.ffn_up.weight", (Role.GATE, Role.UP)),
        *naming.layer_names(layer, ("ffn_down", Role.DOWN)),
    ]
