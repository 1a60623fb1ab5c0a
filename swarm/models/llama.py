"""llama: Llama 2 and 3, the R1 distills of Llama, Mistral, SmolLM2.

Rotation is of adjacent pairs, because GGUF files hold query and key rows in that order (the original checkpoints do
not). Llama 3's stretched frequencies come as the tensor rope_freqs.weight; the file has no keys for them.
"""

from __future__ import annotations

from swarm.models import header, naming
from swarm.models.header import Header
from swarm.models.naming import Name
from swarm.models.spec import ModelSpec, Role


def declare(h: Header) -> ModelSpec:
    """The spec of a llama file."""
    h.refuse("expert_count", "Swarm runs mixtures of experts as qwen3moe and glm4moe, not as llama")
    sizes = header.sizes(h)
    n_layers, head_dim = sizes["n_layers"], sizes["head_dim"]
    bias = naming.has_qkv_bias(h)
    spec = ModelSpec(
        family="llama",
        **sizes,
        rope=header.rope(h, "pair", head_dim),
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
        *naming.layer_names(
            layer,
            ("attn_output", Role.O),
            ("ffn_norm", Role.FFN_NORM),
            ("ffn_gate", Role.GATE),
            ("ffn_up", Role.UP),
            ("ffn_down", Role.DOWN),
        ),
    ]
