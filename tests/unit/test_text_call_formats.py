"""Which way of writing calls a chat template teaches."""

from __future__ import annotations

import pytest

from swarm.text.call_formats import CallFormat, call_format
from swarm.text.template import built_in
from tests.helpers.tokenizer_data import data_dir

EXPECTED = {
    "hf-ollama-utils__glm-4-9b-chat": CallFormat.FIRST_LINE,
    "reconstructed__GLM-4-0414": CallFormat.FIRST_LINE,
    "thirdparty__GLM-Z1-0414": CallFormat.FIRST_LINE,
    "llamacpp__glm_4_5": CallFormat.KEY_TAGS,
    "ik__GLM-4.6": CallFormat.KEY_TAGS,
    "reconstructed__INTELLECT-3": CallFormat.FUNCTION_TAGS,
    "ik__Qwen3-Coder": CallFormat.FUNCTION_TAGS,
    "ik__Qwen-Qwen3-0.6B": CallFormat.HERMES,
    "ik__Qwen-Qwen2.5-7B-Instruct": CallFormat.HERMES,
    "hf-ollama-utils__llama-3.2-3b-instruct": CallFormat.BARE_JSON,
    "ik__meta-llama-Llama-3.1-8B-Instruct": CallFormat.BARE_JSON,
    "hf-ollama-utils__llama-3-8b": None,
    "ik__deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": None,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_templates_of_the_families_are_told_apart(name: str) -> None:
    path = data_dir() / "templates" / f"{name}.jinja"
    assert call_format(path.read_text(encoding="utf-8")) is EXPECTED[name]


def test_our_own_templates_are_told_apart() -> None:
    assert call_format(built_in("glm-4-0414")) is CallFormat.FIRST_LINE
    assert call_format(built_in("glm-4.5")) is CallFormat.KEY_TAGS
    assert call_format(built_in("intellect-3")) is CallFormat.FUNCTION_TAGS
    assert call_format(built_in("chatml")) is call_format(built_in("llama-3")) is None
