"""mistral3: Ministral 3. As llama, with yarn that leaves cos and sin as they are, and queries that sharpen far on."""

from __future__ import annotations

from swarm.errors import BadModelFile
from swarm.models import header, llama, naming
from swarm.models.header import Header
from swarm.models.spec import ModelSpec, RopeSpec, Temper


def declare(h: Header) -> ModelSpec:
    """The spec of a mistral3 file."""
    h.refuse("expert_count", "Swarm's mistral3 has no experts")
    sizes = header.sizes(h)
    n_layers, head_dim = sizes["n_layers"], sizes["head_dim"]
    bias = naming.has_qkv_bias(h)
    spec = ModelSpec(
        family="mistral3",
        **sizes,
        rope=RopeSpec(
            style="pair",
            dims=header.rope_dims(h, head_dim, default=head_dim),
            theta=header.rope_theta(h),
            scaling=header.rope_scaling(h, (1.0, header.yarn_log_multiplier(h))),
        ),
        qkv_bias=bias,
        tied_lm_head=naming.is_tied(h),
        layers=header.dense_layers(h, n_layers),
        temper=temper(h),
    )
    return naming.bind(h, spec, [llama.names(h, layer, bias) for layer in range(n_layers)])


def temper(h: Header) -> Temper | None:
    """How queries sharpen with each stretch of the context that the model was first trained on."""
    scale = h.real("attention.temperature_scale", 0.0, 1e3, default=0.0)
    if not scale:
        return None
    step = h.whole("rope.scaling.original_context_length", 0, header.MAX_CONTEXT, default=0)
    if not step:
        raise BadModelFile("mistral3.rope.scaling.original_context_length is missing: the temperature needs it")
    return Temper(scale, step)
