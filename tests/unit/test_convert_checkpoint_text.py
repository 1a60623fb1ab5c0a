"""Tokenizers of checkpoints: which pre-tokenizer they have, and what becomes of their tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swarm.convert.checkpoint import open_checkpoint
from swarm.convert.checkpoint_text import pretokenizer_of, text_keys
from swarm.convert.convert import convert_checkpoint
from swarm.errors import BadModelFile, ModelError, UnsupportedModel
from swarm.store.gguf import open_gguf
from swarm.text.pretokenizers import PRETOKENIZERS
from swarm.text.tokenizer import Tokenizer
from tests.helpers.checkpoints import write_checkpoint
from tests.helpers.tiny import TINY
from tests.helpers.tokenizer_data import data_dir

LEVEL = {"type": "ByteLevel", "use_regex": False}


def split(*patterns: str, nfc: bool = False, ignore_merges: bool = False) -> dict[str, Any]:
    steps = [{"type": "Split", "pattern": {"Regex": pattern}} for pattern in patterns]
    return {
        "normalizer": {"type": "NFC"} if nfc else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, LEVEL]},
        "model": {"type": "BPE", "ignore_merges": ignore_merges},
    }


@pytest.mark.parametrize("name", PRETOKENIZERS)
def test_patterns_are_known_by_a_name_with_the_same_words(name: str) -> None:
    known = PRETOKENIZERS[name]
    found = pretokenizer_of(split(*known.patterns, nfc=known.compose, ignore_merges=known.ignore_merges), "llama")
    assert PRETOKENIZERS[found].patterns == known.patterns
    assert (PRETOKENIZERS[found].compose, PRETOKENIZERS[found].ignore_merges) == (known.compose, known.ignore_merges)


def test_older_ways_to_say_it_are_known() -> None:
    gpt2 = {"pre_tokenizer": {"type": "ByteLevel", "use_regex": True}, "model": {}}
    assert PRETOKENIZERS[pretokenizer_of(gpt2, "llama")].patterns == PRETOKENIZERS["gpt-2"].patterns
    code = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}]}
    assert PRETOKENIZERS[pretokenizer_of({"pre_tokenizer": code, "model": {}}, "llama")] == PRETOKENIZERS["smollm"]


def test_glm_is_called_glm() -> None:
    tokenizer = split(*PRETOKENIZERS["glm4"].patterns, ignore_merges=True)
    assert [pretokenizer_of(tokenizer, arch) for arch in ("glm4moe", "llama")] == ["glm4", "llama-bpe"]


def test_patterns_that_nobody_knows_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="which Swarm does not know"):
        pretokenizer_of(split(r"\w+"), "llama")


def test_text_becomes_the_ids_that_the_checkpoint_means(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    folder = write_checkpoint(tmp_path / "tiny", TINY["qwen2"])
    convert_checkpoint(open_checkpoint(folder), "F16", tmp_path / "m.gguf")
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    with open_gguf(tmp_path / "m.gguf") as model:
        ours = Tokenizer.from_metadata(model.metadata)
        for text in ("the other station", "Größe 123\n\n x", "<|im_start|>user"):
            assert ours.encode(text, special=True) == theirs.encode(text).ids
        assert ours.eos_id == theirs.token_to_id("<|endoftext|>")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": {"type": "BPE", "vocab": [], "merges": []}}, "model.vocab is no table"),
        ({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}, "model.vocab is no table"),
        ({"model": {"type": "BPE", "vocab": {"a": 1 << 40}, "merges": []}}, "more than any vocabulary has"),
        ({"model": {"type": "BPE", "vocab": {}, "merges": 7}}, "model.merges is no list"),
        ({"model": {"type": "Unigram"}}, "neither byte-level BPE"),
        ({"added_tokens": [{"id": "x"}]}, "added_tokens make no sense"),
    ],
)
def test_broken_tokenizers_give_one_line(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    folder = write_checkpoint(tmp_path / "tiny", TINY["qwen2"])
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, **change}))
    with pytest.raises((BadModelFile, ModelError), match=why):
        text_keys(open_checkpoint(folder), "qwen2", TINY["qwen2"].vocab)


@pytest.mark.parametrize(("folder", "name"), [("llama3", "llama-bpe"), ("qwen3", "qwen2")])
def test_real_tokenizers_are_known(folder: str, name: str) -> None:
    tokenizer = json.loads((data_dir() / "tokenizers" / folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert pretokenizer_of(tokenizer, "llama") == name
