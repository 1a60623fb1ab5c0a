"""Texts with the ids that the original tokenizers give them."""

from __future__ import annotations

from functools import cache

import pytest

from swarm.text.tokenizer import Tokenizer
from tests.helpers.tokenizer_data import data_dir, golden_pairs, metadata_of_gguf, metadata_of_tokenizer_json

FROM_GGUF = ("llama-spm", "gpt-2", "starcoder", "falcon", "deepseek-llm")
FROM_JSON = {"llama-bpe": "llama3", "qwen2": "qwen3", "deepseek-r1-qwen": "qwen3"}


@cache
def tokenizer_of(name: str) -> Tokenizer:
    tokenizers = data_dir() / "tokenizers"
    if name in FROM_JSON:
        return Tokenizer.from_metadata(metadata_of_tokenizer_json(tokenizers / FROM_JSON[name], pre=name))
    return Tokenizer.from_metadata(metadata_of_gguf(tokenizers / "ggml-vocab" / f"ggml-vocab-{name}.gguf"))


@pytest.mark.parametrize("name", [*FROM_JSON, *FROM_GGUF])
def test_every_golden_pair_encodes_to_the_known_ids(name: str) -> None:
    tokenizer, pairs = tokenizer_of(name), golden_pairs(name)
    wrong = {text: (tokenizer.encode(text), ids) for text, ids in pairs if tokenizer.encode(text) != ids}
    assert len(pairs) == 47
    assert not wrong


@pytest.mark.parametrize("name", [*FROM_JSON, *FROM_GGUF])
def test_every_golden_pair_decodes_to_its_text_at_once_and_in_a_stream(name: str) -> None:
    tokenizer = tokenizer_of(name)
    for text, ids in golden_pairs(name):
        stream = tokenizer.stream()
        streamed = "".join(stream.push(i) for i in ids) + stream.finish()
        assert tokenizer.decode(ids) == text
        assert streamed in (text, f" {text}")


@pytest.mark.parametrize("pre", ["glm4", "chatglm-bpe", "llama3", "llama-v3"])
def test_names_with_the_pattern_of_llama_3_cut_text_as_llama_3_does(pre: str) -> None:
    metadata = metadata_of_tokenizer_json(data_dir() / "tokenizers" / "llama3", pre=pre)
    tokenizer = Tokenizer.from_metadata(metadata)
    assert all(tokenizer.encode(text) == ids for text, ids in golden_pairs("llama-bpe"))
