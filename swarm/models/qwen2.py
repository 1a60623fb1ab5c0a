"""qwen2: Qwen 2, Qwen 2.5 and its Coder, QwQ, the R1 distills of Qwen. Query, key and value have biases."""

from __future__ import annotations

from swarm.models import header, naming
from swarm.models.header import Header
from swarm.models.naming import Name
from swarm.models.spec import ModelSpec, Role


def declare(h: Header) -> ModelSpec:
    """The spec of a qwen2 file."""
    h.ignore("use_parallel_residual")  # converters of 2024 wrote it by default; no such model has any
    sizes = header.sizes(h)
    n_layers, head_dim = sizes["n_layers"], sizes["head_dim"]
    spec = ModelSpec(
        family="qwen2",
        **sizes,
        rope=header.rope(h, "half", head_dim),
        qkv_bias=True,
        tied_lm_head=naming.is_tied(h),
        layers=header.dense_layers(h, n_layers),
    )
    return naming.bind(h, spec, [names(h, layer) for layer in range(n_layers)])


def names(h: Header, layer: int) -> list[Name]:
    """Tensors of one layer."""
    return [
        *naming.layer_names(layer, ("attn_norm", Role.ATTN_NORM)),
        *naming.qkv_names(h, layer, bias=True),
        *naming.layer_names(
            layer,
            ("attn_output", Role.O),
            ("ffn_norm", Role.FFN_NORM),
            ("ffn_gate", Role.GATE),
            ("ffn_up", Role.UP),
            ("ffn_down", Role.DOWN),
        ),
    ]
