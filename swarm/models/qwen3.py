"""qwen3: Qwen 3, dense. Queries and keys are normed per head before they are rotated; q and hidden widths differ."""

from __future__ import annotations

from swarm.models import header, naming
from swarm.models.header import Header
from swarm.models.naming import Name
from swarm.models.spec import ModelSpec, Role


def declare(h: Header) -> ModelSpec:
    """The spec of a qwen3 file."""
    sizes = header.sizes(h)
    n_layers, head_dim = sizes["n_layers"], sizes["head_dim"]
    spec = ModelSpec(
        family="qwen3",
        **sizes,
        rope=header.rope(h, "half", head_dim),
        qk_norm=True,
        tied_lm_head=naming.is_tied(h),
        layers=header.dense_layers(h, n_layers),
    )
    return naming.bind(h, spec, [names(h, layer) for layer in range(n_layers)])


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
            ("ffn_gate", Role.GATE),
            ("ffn_up", Role.UP),
            ("ffn_down", Role.DOWN),
        ),
    ]
