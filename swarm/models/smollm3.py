"""smollm3: SmolLM 3. As llama, but every fourth layer does not rotate queries and keys, which no key says."""

from __future__ import annotations

from dataclasses import replace

from swarm.models import header, naming
from swarm.models.header import Header
from swarm.models.naming import Name
from swarm.models.spec import ModelSpec, Role

UNROTATED_STEP = 4


def declare(h: Header) -> ModelSpec:
    """The spec of a smollm3 file."""
    sizes = header.sizes(h)
    n_layers, head_dim = sizes["n_layers"], sizes["head_dim"]
    bias = naming.has_qkv_bias(h)
    spec = ModelSpec(
        family="smollm3",
        **sizes,
        rope=header.rope(h, "pair", head_dim),
        qkv_bias=bias,
        tied_lm_head=naming.is_tied(h),
        layers=tuple(
            replace(layer, rotated=number % UNROTATED_STEP != 0)
            for number, layer in enumerate(header.dense_layers(h, n_layers), 1)
        ),
    )
    return naming.bind(h, spec, [names(h, layer, bias) for layer in range(n_layers)])


def names(h: Header, layer: int, bias: bool) -> list[Name]:
    """Tensors of one layer."""
    return [
        *naming.layer_names(layer, ("attn_norm", Role.ATTN_NORM)),
        *naming.qkv_names(h, layer, bias),
        *naming.layer_names(
            layer,
            ("attn_output", Role.O),
            ("ffn_norm", Role.FFN_NORM),
            ("ffn_gate", Role.GATE),
            ("ffn_up", Role.UP),
            ("ffn_down", Role.DOWN),
        ),
    ]
