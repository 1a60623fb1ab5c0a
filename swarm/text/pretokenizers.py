"""How each named pre-tokenizer of byte-level BPE cuts text into words, before any merge.

A name is the value of tokenizer.ggml.pre. Its patterns are applied one after the other: each cuts what the one before
left, and both the matches and what lies between them are words. The patterns are facts of the models' own
tokenizer.json files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from swarm.errors import UnsupportedModel

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CASED_CONTRACTION = r"'s|'t|'re|'ve|'m|'ll|'d"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_DIGIT = r"\p{N}"
_THREE_DIGITS = r"\p{N}{1,3}"
_CASED_LETTER = r"\p{Lu}\p{Ll}\p{Lt}"
_UPPER_WORD = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
_LOWER_WORD = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"

_GPT2 = _CASED_CONTRACTION + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _modern(numbers: str) -> str:
    """The pattern that Llama 3 made common; families differ in how many digits make a word."""
    return rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_TAIL}"


def _cased(numbers: str, suffix: str) -> str:
    """The pattern of o200k-like vocabularies: a word ends where a capital follows a small letter."""
    return rf"{_UPPER_WORD}{suffix}|{_LOWER_WORD}{suffix}|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"


@dataclass(frozen=True)
class PreTokenizer:
    """Patterns in order, and what else the name implies."""

    patterns: tuple[str, ...]
    ignore_merges: bool = False  # a word that is a token is taken whole, whatever the merges would make of it
    add_bos: bool = False  # where the file does not say
    compose: bool = False  # text is put into Unicode's composed form (NFC) first


_FOR_GPT2 = PreTokenizer((_GPT2,))
_FOR_CODE = PreTokenizer((_DIGIT, _GPT2))
_FOR_LLAMA3 = PreTokenizer((_modern(_THREE_DIGITS),), ignore_merges=True, add_bos=True)
_FOR_GLM4 = PreTokenizer((_modern(_THREE_DIGITS),), ignore_merges=True)
_FOR_THREE_DIGITS = PreTokenizer((_modern(_THREE_DIGITS),))
_FOR_ONE_DIGIT = PreTokenizer((_modern(_DIGIT),))
_FOR_QWEN2 = PreTokenizer((_modern(_DIGIT),), compose=True)

_NO_PUNCTUATION = r" ?[^(\s|.,!?…。，、।۔،)]+"

_DEEPSEEK_V3_WORD = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|""" + _TAIL
)

PRETOKENIZERS: dict[str, PreTokenizer] = {
    "default": _FOR_GPT2,
    **dict.fromkeys(("gpt-2", "mpt", "olmo", "phi-2", "trillion", "granite-docling", "jais"), _FOR_GPT2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), _FOR_CODE),
    **dict.fromkeys(("exaone", "minerva", "minerva-7b"), _FOR_CODE),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "lfm2", "midm-2.0", "pixtral"), _FOR_LLAMA3
    ),
    **dict.fromkeys(("glm4", "chatglm-bpe"), _FOR_GLM4),
    **dict.fromkeys(("dbrx", "smaug-bpe"), _FOR_THREE_DIGITS),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _FOR_QWEN2),
    **dict.fromkeys(("stablelm2", "megrez", "hunyuan", "kormo", "solar-open"), _FOR_ONE_DIGIT),
    "seed-coder": PreTokenizer(
        (rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{_DIGIT}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_TAIL}",)
    ),
    "viking": PreTokenizer((_NO_PUNCTUATION, _DIGIT)),
    **dict.fromkeys(("poro-chat", "bloom", "gpt3-finnish"), PreTokenizer((_NO_PUNCTUATION,))),
    "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")),
    "tekken": PreTokenizer((_cased(_DIGIT, ""),), ignore_merges=True, add_bos=True),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2"), PreTokenizer((_cased(_THREE_DIGITS, _CONTRACTION + "?"),))),
    "deepseek-llm": PreTokenizer(
        (
            r"[\r\n]",
            rf"\s?[{_CASED_LETTER}]+",
            r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
            r"\s+$",
            r"[一-龥ࠀ-一가-퟿]+",
            r"\p{N}+",
        )
    ),
    "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", _DIGIT)),
    "deepseek-v3": PreTokenizer((_THREE_DIGITS, r"[一-龥぀-ゟ゠-ヿ]+", _DEEPSEEK_V3_WORD)),
}


# Tokens that only the vocabularies of some families have, with how those cut words.
_KNOWN_BY_TOKENS = (
    (frozenset(("<|begin_of_text|>", "<|start_header_id|>", "<|eot_id|>")), "llama-bpe"),
    (frozenset(("[gMASK]", "<sop>", "<|assistant|>")), "glm4"),
    (frozenset(("<|im_start|>", "<|fim_prefix|>", "<|repo_name|>")), "qwen2"),
)


def pre_of_tokens(tokens: Iterable[str]) -> str:
    """The name for files of the time before tokenizer.ggml.pre, told by their tokens; "" where these tell nothing."""
    return next((name for marks, name in _KNOWN_BY_TOKENS if marks <= set(tokens)), "")


def pretokenizer_named(name: str) -> PreTokenizer:
    """The pre-tokenizer of that name; UnsupportedModel when Swarm does not know it, for a guess would garble text."""
    if name not in PRETOKENIZERS:
        names = ", ".join(sorted(PRETOKENIZERS))
        raise UnsupportedModel(f"tokenizer.ggml.pre is {name[:80]!r}, which Swarm does not know; supported: {names}")
    return PRETOKENIZERS[name]
