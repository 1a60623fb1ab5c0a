"""glm4: GLM-4-0414 and GLM-Z1, 9B and 32B; the text of GLM-4.1V and 4.6V-Flash.

As chatglm, and what attention and feed-forward add is normed once more. Files of April 2025 do not give
rope.dimension_count: half of each head is rotated then too. Files of models that see divide the rotated columns into
sections, and hold query and key rows in the order in which halves are turned; in text, all sections turn by one
position.
"""

from __future__ import annotations

from swarm.models import header, naming
from swarm.models.header import Header
from swarm.models.naming import Name
from swarm.models.spec import ModelSpec, Role


def declare(h: Header) -> ModelSpec:
    """The spec of a glm4 file."""
    sizes = header.sizes(h)
    n_layers, head_dim = sizes["n_layers"], sizes["head_dim"]
    bias = naming.has_qkv_bias(h)
    spec = ModelSpec(
        family="glm4",
        **sizes,
        rope=header.rope(h, "half" if h.given("rope.dimension_sections") else "pair", head_dim, dims=head_dim // 2),
        qkv_bias=bias,
        sandwich_norms=True,
        tied_lm_head=naming.is_tied(h),
        layers=header.dense_layers(h, n_layers),
    )
    return naming.bind(h, spec, [names(h, layer, bias) for layer in range(n_layers)])


def names(h: Header, layer: int, bias: bool) -> list[Name]:
    """Tensors of one layer; post_attention_norm follows the attention, ffn_norm comes before the feed-forward."""
    return [
        *naming.layer_names(layer, ("attn_norm", Role.ATTN_NORM)),
        *naming.qkv_names(h, layer, bias),
        *naming.layer_names(
            layer,
            ("attn_output", Role.O),
            ("post_attention_norm", Role.ATTN_POST_NORM),
            ("ffn_norm", Role.FFN_NORM),
        ),
        (f"blk.{layer}.ffn_up.weight", (Role.GATE, Role.UP)),
        *naming.layer_names(layer, ("ffn_down", Role.DOWN), ("post_ffw_norm", Role.FFN_POST_NORM)),
    ]
