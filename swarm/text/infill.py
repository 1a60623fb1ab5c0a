"""Text for a gap between two others, as models for code were trained to write it: marks tell where each part begins.

    <prefix> what comes before <suffix> what comes after <middle> ... and the model goes on with what is between

Other files of the project may stand before all that, each behind a mark of its own, where the vocabulary has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swarm.errors import TextError
from swarm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Infill:
    """What is to be filled in: the text before the gap and after it, and other files as names and texts."""

    prefix: str
    suffix: str
    files: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class _Names:
    """How one family's vocabulary writes the marks; `over` end what is filled in."""

    prefix: str
    suffix: str
    middle: str
    file: str = ""
    over: tuple[str, ...] = ()


# Qwen 2.5 Coder; StarCoder and Granite; CodeLlama; GLM-4 and CodeGeeX; DeepSeek Coder.
_FAMILIES = (
    _Names("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_sep|>", ("<|fim_pad|>", "<|repo_name|>")),
    _Names("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<file_sep>", ("<fim_pad>", "<repo_name>", "<filename>")),
    _Names("▁<PRE>", "▁<SUF>", "▁<MID>", over=("▁<EOT>",)),
    _Names("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>", over=("<|user|>", "<|endoftext|>")),
    _Names("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
)


def can_infill(tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary has such marks."""
    return _names_of(tokenizer) is not None


def infill_ids(name: str, tokenizer: Tokenizer, wanted: Infill) -> tuple[list[int], frozenset[int]]:
    """The prompt's ids, and tokens that end what is filled in beside those that end any answer.

    Raise TextError for a model, called `name`, without marks.
    """
    names = _names_of(tokenizer)
    if names is None:
        raise TextError(
            f"{name} cannot fill in a gap: its vocabulary has no marks for what is before and after it; "
            "leave the suffix out, or take a model that was made for it, such as qwen2.5-coder"
        )
    marks = tokenizer.vocabulary.ids
    ids = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    for file_name, text in wanted.files:
        ids += [marks[names.file]] if names.file in marks else []
        ids += tokenizer.encode(f"{file_name}\n{text}\n")
    if wanted.files and names.file in marks:
        ids += [marks[names.file], *tokenizer.encode("filename\n")]  # of the one that is written; nobody says it
    ids += [marks[names.prefix], *tokenizer.encode(wanted.prefix)]
    ids += [marks[names.suffix], *tokenizer.encode(wanted.suffix), marks[names.middle]]
    return ids, frozenset(marks[mark] for mark in (names.file, *names.over) if mark in marks)


def _names_of(tokenizer: Tokenizer) -> _Names | None:
    marks = tokenizer.vocabulary.ids
    return next((each for each in _FAMILIES if {each.prefix, each.suffix, each.middle} <= marks.keys()), None)
