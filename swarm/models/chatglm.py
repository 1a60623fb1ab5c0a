"""chatglm: GLM-4-9B-chat, from either of its two checkpoints (fused or separate query, key and value), and GLM-Edge.

Half of each head is rotated, in adjacent pairs, also where the file does not say so. One tensor, ffn_up, holds the
gate's rows and then those of up. GLM-Edge has no biases.
"""

from __future__ import annotations

from swarm.models import header, naming
from swarm.models.header import Header
from swarm.models.naming import Name
from swarm.models.spec import ModelSpec, Role


def declare(h: Header) -> ModelSpec:
    """The spec of a chatglm file."""
    sizes = header.sizes(h)
    n_layers, head_dim = sizes["n_layers"], sizes["head_dim"]
    bias = naming.has_qkv_bias(h)
    spec = ModelSpec(
        family="chatglm",
        **sizes,
        rope=header.rope(h, "pair", head_dim, dims=head_dim // 2),
        qkv_bias=bias,
        tied_lm_head=naming.is_tied(h),
        layers=header.dense_layers(h, n_layers),
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
