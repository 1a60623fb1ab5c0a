"""The same small checkpoints in transformers (float32, eager): what their logits should be."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from tests.helpers.tiny import ORIGINAL_CONTEXT, OUTSIDE, Tiny, TinyMoe, Weights

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def transformers_logits(tiny: Tiny, weights: Weights, ids: list[int]) -> np.ndarray:
    """Logits (tokens, vocab) of every position of one fresh sequence."""
    import torch

    torch.set_num_threads(1)  # small matrices: more threads only wait for each other
    model = build_model(tiny, weights)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def transformers_hidden(tiny: Tiny, weights: Weights, ids: list[int]) -> np.ndarray:
    """`last_hidden_state` (tokens, hidden) of one fresh sequence."""
    import torch

    torch.set_num_threads(1)
    with torch.no_grad():
        return build_model(tiny, weights).base_model(torch.tensor([ids])).last_hidden_state[0].numpy()


def build_model(tiny: Tiny, weights: Weights) -> Any:
    """The transformers model of the family with these weights; every parameter of it must be given."""
    import torch
    import transformers

    config_class, model_class = _CLASSES[_kind(tiny)]
    config = getattr(transformers, config_class)(**config_of(tiny))
    model = getattr(transformers, model_class)._from_config(
        config, attn_implementation="eager", experts_implementation="eager"
    )
    state = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in state_of(tiny, weights).items()}
    model = model.float().eval()
    model.load_state_dict(state, strict=True)
    return model


def _kind(tiny: Tiny) -> str:
    """The families of transformers that are deepseek2 in files are told apart by their gate."""
    return "glm4moelite" if tiny.arch == "deepseek2" and tiny.moe and tiny.moe.bias else tiny.arch


_CLASSES = {
    "deepseek2": ("DeepseekV2Config", "DeepseekV2ForCausalLM"),
    "glm4moelite": ("Glm4MoeLiteConfig", "Glm4MoeLiteForCausalLM"),
    "chatglm": ("GlmConfig", "GlmForCausalLM"),
    "glm4": ("Glm4Config", "Glm4ForCausalLM"),
    "glm4moe": ("Glm4MoeConfig", "Glm4MoeForCausalLM"),
    "gpt-oss": ("GptOssConfig", "GptOssForCausalLM"),
    "granite": ("GraniteConfig", "GraniteForCausalLM"),
    "granitemoe": ("GraniteMoeSharedConfig", "GraniteMoeSharedForCausalLM"),
    "mistral3": ("Ministral3Config", "Ministral3ForCausalLM"),
    "llama": ("LlamaConfig", "LlamaForCausalLM"),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM"),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM"),
    "qwen3moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM"),
    "smollm3": ("SmolLM3Config", "SmolLM3ForCausalLM"),
}


def config_of(tiny: Tiny) -> dict[str, Any]:
    """The config.json of a checkpoint."""
    config: dict[str, Any] = {
        "architectures": [_CLASSES[_kind(tiny)][1]],
        "vocab_size": tiny.vocab,
        "hidden_size": tiny.hidden,
        "num_hidden_layers": tiny.n_layers,
        "num_attention_heads": tiny.n_heads,
        "num_key_value_heads": tiny.n_kv_heads,
        "head_dim": tiny.head_dim,
        "intermediate_size": tiny.ffn,
        "rms_norm_eps": tiny.eps,
        "attention_bias": tiny.bias,
        "max_position_embeddings": tiny.context,
        "tie_word_embeddings": tiny.tied,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "rope_parameters": _rope_parameters(tiny),
    }
    if tiny.arch.startswith("granite"):
        config |= {
            "embedding_multiplier": tiny.embedding_scale,
            "residual_multiplier": tiny.residual_scale,
            "logits_scaling": tiny.logit_scale,
            "attention_multiplier": tiny.attention_scale,
        }
    if tiny.latent:
        config |= {
            "num_key_value_heads": tiny.n_heads,
            "kv_lora_rank": tiny.latent.rank,
            "q_lora_rank": tiny.latent.q_rank or None,
            "qk_nope_head_dim": tiny.latent.nope,
            "qk_rope_head_dim": tiny.rope_dims,
            "v_head_dim": tiny.latent.value,
            "attention_bias": False,
        }
        del config["head_dim"]
    if tiny.moe:
        config |= _moe_config(tiny, tiny.moe)
    return config


def _rope_parameters(tiny: Tiny) -> dict[str, Any]:
    rope: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": tiny.theta,
        "partial_rotary_factor": 1.0 if tiny.latent else tiny.rope_dims / tiny.head_dim,
    }
    if tiny.llama3_factor:
        rope |= {"rope_type": "llama3", "factor": tiny.llama3_factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    if tiny.yarn_factor:
        rope |= {"rope_type": "yarn", "factor": tiny.yarn_factor}
    if tiny.yarn_magnitude:
        rope["attention_factor"] = tiny.yarn_magnitude
    if tiny.latent and tiny.yarn_multiplier:
        rope |= {"mscale": tiny.yarn_multiplier, "mscale_all_dim": tiny.yarn_multiplier}
    if tiny.arch == "gpt-oss":
        rope["truncate"] = False
    if tiny.temper:
        rope |= {"llama_4_scaling_beta": tiny.temper, "mscale": 1.0, "mscale_all_dim": tiny.yarn_multiplier}
    if tiny.linear_factor:
        rope |= {"rope_type": "linear", "factor": tiny.linear_factor}
    if tiny.llama3_factor or tiny.yarn_factor:
        rope["original_max_position_embeddings"] = ORIGINAL_CONTEXT
    return rope


def _moe_config(tiny: Tiny, moe: TinyMoe) -> dict[str, Any]:
    common = {
        "moe_intermediate_size": moe.ffn,
        "num_experts_per_tok": moe.top_k,
        "norm_topk_prob": moe.normalise,
    }
    if tiny.arch == "qwen3moe":
        return {**common, "num_experts": moe.n_experts, "decoder_sparse_step": 1, "mlp_only_layers": []}
    if tiny.arch == "gpt-oss":
        widths = {"intermediate_size": moe.ffn, "sliding_window": tiny.window}
        return {**widths, "num_local_experts": moe.n_experts, "num_experts_per_tok": moe.top_k}
    if tiny.arch == "granitemoe":
        widths = {"intermediate_size": moe.ffn, "shared_intermediate_size": moe.shared * moe.ffn}
        return {**widths, "num_local_experts": moe.n_experts, "num_experts_per_tok": moe.top_k}
    if _kind(tiny) == "glm4moelite":
        common["mlp_layer_types"] = ["sparse" if tiny.is_moe(layer) else "dense" for layer in range(tiny.n_layers)]
    return {
        **common,
        "n_routed_experts": moe.n_experts,
        "n_shared_experts": moe.shared,
        "first_k_dense_replace": moe.dense_layers,
        "n_group": moe.n_group,
        "topk_group": moe.top_group,
        "routed_scaling_factor": moe.scale,
        "use_qk_norm": tiny.qk_norm,
    }


def state_of(tiny: Tiny, weights: Weights) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint, as transformers calls them."""
    state: dict[str, np.ndarray] = {}
    for layer in range(OUTSIDE, tiny.n_layers):
        roles = {role: values for (at, role), values in weights.items() if at == layer}
        prefix = "" if layer == OUTSIDE else f"model.layers.{layer}."
        state |= {prefix + name: values for name, values in _fused(tiny, roles).items()}
    if tiny.tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    return state


def _fused(tiny: Tiny, roles: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    if tiny.arch in {"chatglm", "glm4"}:
        _fuse(found, roles, "mlp.gate_up_proj.weight", ("gate", "up"))
    names = _NAMES
    if tiny.arch == "gpt-oss":
        return _gpt_oss(roles)
    if tiny.latent and "k_b" in roles:
        names = _NAMES | _LATENT_NAMES | ({"q": "self_attn.q_b_proj.weight"} if tiny.latent.q_rank else {})
        up = np.concatenate([roles.pop("k_b").swapaxes(1, 2), roles.pop("v_b")], axis=1)  # of each head
        found["self_attn.kv_b_proj.weight"] = up.reshape(-1, tiny.latent.rank)
    if tiny.arch == "granitemoe":
        names = _NAMES | _GRANITEMOE_NAMES
        _fuse(found, roles, "shared_mlp.input_linear.weight", ("shared_gate", "shared_up"))
        _fuse(found, roles, "block_sparse_moe.experts.gate_up_proj", ("expert_gate", "expert_up"))
    _fuse(found, roles, "mlp.experts.gate_up_proj", ("expert_gate", "expert_up"))
    return found | {names[role]: values for role, values in roles.items()}


def _fuse(found: dict[str, np.ndarray], roles: dict[str, np.ndarray], name: str, parts: tuple[str, str]) -> None:
    if parts[0] in roles:
        found[name] = np.concatenate([roles.pop(part) for part in parts], axis=-2)


_NAMES = {
    "embed": "model.embed_tokens.weight",
    "output_norm": "model.norm.weight",
    "output": "lm_head.weight",
    "attn_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
    "o": "self_attn.o_proj.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "attn_post_norm": "post_self_attn_layernorm.weight",
    "ffn_post_norm": "post_mlp_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
    "router": "mlp.gate.weight",
    "router_bias": "mlp.gate.e_score_correction_bias",
    "expert_down": "mlp.experts.down_proj",
    "shared_gate": "mlp.shared_experts.gate_proj.weight",
    "shared_up": "mlp.shared_experts.up_proj.weight",
    "shared_down": "mlp.shared_experts.down_proj.weight",
}

_GRANITEMOE_NAMES = {
    "router": "block_sparse_moe.router.weight",
    "expert_down": "block_sparse_moe.experts.down_proj",
    "shared_down": "shared_mlp.output_linear.weight",
}


def _gpt_oss(roles: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Matrices of experts are transposed, and gate and up alternate."""
    found = {}
    if "expert_gate" in roles:
        gate, up, down, gate_bias, up_bias, down_bias = (roles.pop(role) for role in _GPT_OSS_EXPERTS)
        gate_up = np.stack([gate, up], axis=2).reshape(len(gate), -1, gate.shape[-1])
        found["mlp.experts.gate_up_proj"] = gate_up.swapaxes(1, 2)
        found["mlp.experts.gate_up_proj_bias"] = np.stack([gate_bias, up_bias], axis=2).reshape(len(gate), -1)
        found["mlp.experts.down_proj"] = down.swapaxes(1, 2)
        found["mlp.experts.down_proj_bias"] = down_bias
    return found | {(_NAMES | _GPT_OSS_NAMES)[role]: values for role, values in roles.items()}


_GPT_OSS_EXPERTS = (
    *("expert_gate", "expert_up", "expert_down"),
    *("expert_gate_bias", "expert_up_bias", "expert_down_bias"),
)
_GPT_OSS_NAMES = {
    "out_bias": "self_attn.o_proj.bias",
    "sinks": "self_attn.sinks",
    "router": "mlp.router.weight",
    "router_logit_bias": "mlp.router.bias",
}
_LATENT_NAMES = {
    "q_a": "self_attn.q_a_proj.weight",
    "q_a_norm": "self_attn.q_a_layernorm.weight",
    "kv_a": "self_attn.kv_a_proj_with_mqa.weight",
    "kv_a_norm": "self_attn.kv_a_layernorm.weight",
}
