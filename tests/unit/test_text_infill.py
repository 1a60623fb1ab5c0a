"""Text for a gap: the marks of each family, on vocabularies of real models."""

from __future__ import annotations

import pytest

from swarm.errors import ContextFull, TextError
from swarm.text.infill import Infill, can_infill, infill_ids
from swarm.text.model_text import ModelText
from swarm.text.tokenizer import Tokenizer
from tests.helpers.tiny_text import VOCAB, text_metadata
from tests.helpers.tokenizer_data import data_dir, metadata_of_gguf, metadata_of_tokenizer_json

GAP = Infill("def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n")


def with_marks(*marks: str) -> Tokenizer:
    """A small vocabulary that has these marks, too."""
    metadata = text_metadata("qwen2")
    tokens = [*VOCAB, *marks]
    types = [*metadata["tokenizer.ggml.token_type"], *([3] * len(marks))]  # type: ignore[misc]
    return Tokenizer.from_metadata({**metadata, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types})


def test_qwen_has_marks_for_the_gap_and_for_other_files() -> None:
    tokenizer = Tokenizer.from_metadata(metadata_of_tokenizer_json(data_dir() / "tokenizers" / "qwen3", "qwen2"))
    ids, ends = infill_ids("qwen", tokenizer, GAP)
    text = tokenizer.decode(ids, special=True)
    assert text == f"<|fim_prefix|>{GAP.prefix}<|fim_suffix|>{GAP.suffix}<|fim_middle|>"
    assert {tokenizer.token_name(end) for end in ends} == {"<|file_sep|>", "<|fim_pad|>", "<|repo_name|>"}
    ids, _ = infill_ids("qwen", tokenizer, Infill("a", "b", [("one.py", "x = 1"), ("two.py", "<|fim_middle|>")]))
    text = tokenizer.decode(ids, special=True)
    assert text == (
        "<|file_sep|>one.py\nx = 1\n<|file_sep|>two.py\n<|fim_middle|>\n<|file_sep|>filename\n"
        "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"
    )
    assert ids.count(tokenizer.vocabulary.ids["<|fim_middle|>"]) == 1, "marks in texts are texts"


def test_starcoder_has_marks() -> None:
    path = data_dir() / "tokenizers" / "ggml-vocab" / "ggml-vocab-starcoder.gguf"
    tokenizer = Tokenizer.from_metadata(metadata_of_gguf(path))
    ids, ends = infill_ids("starcoder", tokenizer, GAP)
    marks = tokenizer.vocabulary.ids
    where = [ids.index(marks[mark]) for mark in ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")]
    assert where == sorted(where) and where[0] == 0 and where[2] == len(ids) - 1
    assert marks["<fim_pad>"] in ends


@pytest.mark.parametrize(
    ("marks", "over"),
    [
        (("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"), {"▁<EOT>"}),
        (("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"), {"<|user|>", "<|endoftext|>"}),
        (("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"), set()),
    ],
)
def test_the_marks_of_other_families(marks: tuple[str, ...], over: set[str]) -> None:
    tokenizer = with_marks(*marks)
    ids, ends = infill_ids("m", tokenizer, GAP)
    assert can_infill(tokenizer) and {tokenizer.token_name(end) for end in ends} == over
    assert [tokenizer.token_name(token) for token in ids if tokenizer.token_name(token) in marks] == list(marks[:3])
    assert "insert" in ModelText("m", tokenizer, None, len(tokenizer)).capabilities


def test_a_model_without_marks_says_so_by_name() -> None:
    tokenizer = with_marks("<|fim_prefix|>", "<|fim_suffix|>")
    text = ModelText("smollm2", tokenizer, None, len(tokenizer))
    assert not can_infill(tokenizer) and "insert" not in text.capabilities
    with pytest.raises(TextError, match="smollm2 cannot fill in a gap"):
        text.infill(GAP, context=100)


def test_what_is_far_too_long_is_refused_at_once() -> None:
    text = ModelText("m", with_marks("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"), None, 1000)
    with pytest.raises(ContextFull):
        text.infill(Infill("a" * 1_000_000, "b"), context=100)
    assert text.infill(GAP, context=1000).ids
