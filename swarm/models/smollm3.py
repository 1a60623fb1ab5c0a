"""smollm3: SmolLM 3. As llama, but every fourth layer does not rotate queries and keys, which no key says."""

from __future__ import annotations

from swarm.models import header, naming
from swarm.models.header import Header
from swarm.models.naming import Name
from swarm.models.spec import LayerSpec, ModelSpec, Role, RopeSpec

UNROTATED_STEP = 4


def declare(h: Header) -> ModelSpec:
    """The spec of a smollm3 file."""
    n_layers = header.block_count(h)
    n_heads, n_kv_heads, head_dim = header.heads(h)
    ffn = header.ffn_width(h)
    bias = naming.has_qkv_bias(h)
    spec = ModelSpec(
        family="smollm3",
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
            dims=header.rope_dims(h, head_dim, default=head_dim),
            theta=header.rope_theta(h),
            scaling=header.rope_scaling(h),
        ),
        attention_scale=header.attention_scale(h, head_dim),
        qkv_bias=bias,
        tied_lm_head=naming.is_tied(h),
        layers=tuple(LayerSpec(ffn, rotated=layer % UNROTATED_STEP != 0) for layer in range(1, n_layers + 1)),
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
