"""From a checkpoint's config.json to the keys of a GGUF file, as llama.cpp's converter writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from swarm.convert.checkpoint import Config
from swarm.convert.output import Value
from swarm.errors import BadModelFile, UnsupportedModel

Keys = dict[str, Value]

# What config.json calls a model, and general.architecture does.
ARCHITECTURES: Mapping[str, str] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3moe",
    "SmolLM3ForCausalLM": "smollm3",
    "GraniteForCausalLM": "granite",
    "GraniteMoeForCausalLM": "granitemoe",
    "GraniteMoeSharedForCausalLM": "granitemoe",
    "Ministral3ForCausalLM": "mistral3",
    "Mistral3ForConditionalGeneration": "mistral3",
    "ChatGLMModel": "chatglm",
    "ChatGLMForConditionalGeneration": "chatglm",
    "GlmForCausalLM": "chatglm",
    "Glm4ForCausalLM": "glm4",
    "Glm4MoeForCausalLM": "glm4moe",
    "SolarOpenForCausalLM": "glm4moe",
    "Glm4MoeLiteForCausalLM": "deepseek2",
    "DeepseekV2ForCausalLM": "deepseek2",
    "DeepseekV3ForCausalLM": "deepseek2",
    "GptOssForCausalLM": "gpt-oss",
}
# Other names of the same thing, of the remote code of ChatGLM.
_ALIASES = {
    "num_hidden_layers": ("num_layers",),
    "max_position_embeddings": ("seq_length",),
    "intermediate_size": ("ffn_hidden_size",),
    "num_key_value_heads": ("multi_query_group_num",),
    "head_dim": ("kv_channels",),
    "rms_norm_eps": ("layernorm_epsilon",),
    "vocab_size": ("padded_vocab_size",),
    "num_experts": ("n_routed_experts", "num_local_experts"),
}
SIGMOID = 2  # a value of expert_gating_func


class Fields:
    """config.json, read with a check on every value."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def find(self, name: str) -> Any:
        """The value called so, by any of its names; None when there is none."""
        for alias in (name, *_ALIASES.get(name, ())):
            if self.config.get(alias) is not None:
                return self.config[alias]
        return None

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number from 0."""
        value = self.find(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
            raise BadModelFile(f"config.json: {name} is {str(value)[:40]!r}: must be a whole number")
        return value

    def real(self, name: str, default: float | None = None) -> float:
        """A number."""
        value = self.find(name)
        return _real(f"config.json: {name}", default if value is None else value)

    @property
    def rope(self) -> Mapping[str, Any]:
        """What is said of rotary positions, in the new place or the old."""
        parameters = self.find("rope_parameters") or {}
        old = self.find("rope_scaling") or {}
        if not isinstance(parameters, dict) or not isinstance(old, dict):
            raise BadModelFile("config.json: rope_parameters must be an object")
        found = {**old, **parameters}
        found.setdefault("rope_theta", self.find("rope_theta") or 10000.0 * float(self.find("rope_ratio") or 1))
        found.setdefault("rope_type", found.get("type", "default"))
        partial = self.find("partial_rotary_factor")
        return found if partial is None else {"partial_rotary_factor": partial, **found}

    @property
    def head_dim(self) -> int:
        return self.whole("head_dim", self.whole("hidden_size") // max(1, self.whole("num_attention_heads")))


def architecture_of(config: Config) -> str:
    """general.architecture of a checkpoint; UnsupportedModel for one that Swarm cannot convert."""
    names = config.get("architectures") or []
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise UnsupportedModel(
            f"config.json says architectures {str(name)[:60]!r}; Swarm converts {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]


def keys_of(config: Config) -> Keys:
    """Keys without the architecture's name in front."""
    arch, fields = architecture_of(config), Fields(config)
    keys: Keys = {
        "block_count": fields.whole("num_hidden_layers"),
        "context_length": fields.whole("max_position_embeddings"),
        "embedding_length": fields.whole("hidden_size"),
        "attention.head_count": fields.whole("num_attention_heads"),
        "attention.head_count_kv": fields.whole("num_key_value_heads", fields.whole("num_attention_heads")),
        "attention.layer_norm_rms_epsilon": fields.real("rms_norm_eps", 1e-6),
        "rope.freq_base": _real("config.json: rope_theta", fields.rope["rope_theta"]),
        "vocab_size": fields.whole("vocab_size"),
    }
    if fields.find("intermediate_size") is not None:
        keys["feed_forward_length"] = fields.whole("intermediate_size")
    keys |= _heads(fields) if arch != "deepseek2" else {}
    return keys | _rope_scaling(fields.rope) | _EXTRA.get(arch, _nothing)(fields)


def _heads(fields: Fields) -> Keys:
    rotated = _real("config.json: partial_rotary_factor", fields.rope.get("partial_rotary_factor", 1.0))
    return {
        "attention.key_length": fields.head_dim,
        "attention.value_length": fields.head_dim,
        "rope.dimension_count": int(fields.head_dim * rotated),
    }


def _rope_scaling(rope: Mapping[str, Any]) -> Keys:
    kind = rope.get("rope_type")
    if kind in (None, "default", "llama3"):  # the last is a tensor of its own
        return {}
    if kind not in ("linear", "yarn"):
        raise UnsupportedModel(f"config.json: rope_type is {str(kind)[:40]!r}: Swarm runs linear, yarn, llama3")
    keys: Keys = {"rope.scaling.type": kind, "rope.scaling.factor": _real("rope factor", rope.get("factor"))}
    if kind == "yarn":
        keys["rope.scaling.original_context_length"] = int(_real("rope", rope.get("original_max_position_embeddings")))
        for key, name in (("attn_factor", "attention_factor"), ("beta_fast", "beta_fast"), ("beta_slow", "beta_slow")):
            if rope.get(name) is not None:
                keys[f"rope.scaling.yarn_{key}"] = _real(f"config.json: {name}", rope[name])
    return keys


def _real(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadModelFile(f"{name} is {str(value)[:40]!r}: must be a number")
    return float(value)


# ---- what families have besides ----


def _nothing(_: Fields) -> Keys:
    return {}


def _experts(fields: Fields) -> Keys:
    return {
        "expert_count": fields.whole("num_experts"),
        "expert_used_count": fields.whole("num_experts_per_tok"),
        "expert_feed_forward_length": fields.whole("moe_intermediate_size"),
    }


def _glm_heads(fields: Fields) -> Keys:
    """Half of each head is rotated unless the file says otherwise."""
    rotated = _real("config.json: partial_rotary_factor", fields.rope.get("partial_rotary_factor", 0.5))
    return {"rope.dimension_count": int(fields.head_dim * rotated)}


def _grouped(fields: Fields) -> Keys:
    """The mixtures of DeepSeek and GLM-4.5."""
    keys: Keys = {
        **_experts(fields),
        "expert_shared_count": fields.whole("n_shared_experts", 0),
        "leading_dense_block_count": _dense_layers(fields),
        "expert_weights_scale": fields.real("routed_scaling_factor", 1.0),
        "expert_weights_norm": bool(fields.find("norm_topk_prob")),
    }
    if fields.whole("n_group", 1) > 1:
        keys |= {"expert_group_count": fields.whole("n_group"), "expert_group_used_count": fields.whole("topk_group")}
    return keys


def _dense_layers(fields: Fields) -> int:
    kinds = fields.find("mlp_layer_types")
    if isinstance(kinds, list):
        return kinds.index("sparse") if "sparse" in kinds else len(kinds)
    return fields.whole("first_k_dense_replace", 0)


def _glm4moe(fields: Fields) -> Keys:
    n_further = fields.whole("num_nextn_predict_layers", 0)
    keys = {**_glm_heads(fields), **_grouped(fields), "expert_gating_func": SIGMOID}
    keys["block_count"] = fields.whole("num_hidden_layers") + n_further
    return keys | {"nextn_predict_layers": n_further}


def _granite(fields: Fields) -> Keys:
    names = {
        "attention.scale": "attention_multiplier",
        "embedding_scale": "embedding_multiplier",
        "residual_scale": "residual_multiplier",
        "logit_scale": "logits_scaling",
    }
    return {key: fields.real(name, 1.0) for key, name in names.items()}


def _granitemoe(fields: Fields) -> Keys:
    keys = _granite(fields)
    keys |= {"expert_count": fields.whole("num_experts"), "expert_used_count": fields.whole("num_experts_per_tok")}
    return keys | {"expert_shared_feed_forward_length": fields.whole("shared_intermediate_size", 0)}


def _mistral3(fields: Fields) -> Keys:
    rope, keys = fields.rope, dict[str, Value]()
    if rope.get("mscale_all_dim") is not None:
        keys["rope.scaling.yarn_log_multiplier"] = _real("config.json: mscale_all_dim", rope["mscale_all_dim"])
    if rope.get("llama_4_scaling_beta") is not None:
        keys["attention.temperature_scale"] = _real("config.json: llama_4_scaling_beta", rope["llama_4_scaling_beta"])
    return keys


def _gpt_oss(fields: Fields) -> Keys:
    return {
        "attention.sliding_window": fields.whole("sliding_window"),
        "expert_count": fields.whole("num_experts"),
        "expert_used_count": fields.whole("num_experts_per_tok"),
        "expert_feed_forward_length": fields.whole("intermediate_size"),
    }


def _deepseek2(fields: Fields) -> Keys:
    rank, rotated = fields.whole("kv_lora_rank"), fields.whole("qk_rope_head_dim")
    keys: Keys = {
        **_grouped(fields),
        "attention.head_count_kv": 1,
        "attention.key_length": rank + rotated,
        "attention.value_length": rank,
        "attention.key_length_mla": fields.whole("qk_nope_head_dim") + rotated,
        "attention.value_length_mla": fields.whole("v_head_dim"),
        "attention.kv_lora_rank": rank,
        "rope.dimension_count": rotated,
        "expert_gating_func": 1 if fields.config["architectures"][0] == "DeepseekV2ForCausalLM" else SIGMOID,
    }
    if fields.find("q_lora_rank") is not None:
        keys["attention.q_lora_rank"] = fields.whole("q_lora_rank")
    if fields.rope.get("mscale_all_dim") is not None:  # stored times 0.1, for files have always had it so
        multiplier = _real("config.json: mscale_all_dim", fields.rope["mscale_all_dim"])
        keys["rope.scaling.yarn_log_multiplier"] = 0.1 * multiplier
    return keys


def _qwen3moe(fields: Fields) -> Keys:
    return {**_experts(fields), "expert_weights_norm": bool(fields.find("norm_topk_prob"))}


_EXTRA: Mapping[str, Callable[[Fields], Keys]] = {
    "chatglm": _glm_heads,
    "glm4": _glm_heads,
    "glm4moe": _glm4moe,
    "granite": _granite,
    "granitemoe": _granitemoe,
    "mistral3": _mistral3,
    "gpt-oss": _gpt_oss,
    "deepseek2": _deepseek2,
    "qwen3moe": _qwen3moe,
}
