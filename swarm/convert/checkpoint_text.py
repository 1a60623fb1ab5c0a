"""From a checkpoint's tokenizer to the tokenizer.* keys of a GGUF file.

Byte-level BPE comes from tokenizer.json; how it cuts text into words is told by its patterns, which must be those of a
pre-tokenizer that Swarm knows, because a guess would garble text. Other vocabularies come from tokenizer.model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from swarm.convert.checkpoint import Checkpoint
from swarm.convert.checkpoint_keys import Keys
from swarm.errors import BadModelFile, UnsupportedModel
from swarm.limits import MAX_VOCABULARY
from swarm.text.pretokenizers import PRETOKENIZERS
from swarm.text.vocab import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED

_LOOKS_SPECIAL = re.compile(r"<\|.*\|>|<｜.*｜>")
_SPECIAL_KEYS = {"unk": "unknown", "pad": "padding", "sep": "seperator"}  # as llama.cpp's keys have it, mistake and all
# Of names with the same patterns, that of the families that use it.
_NAMES_BY_ARCH = {"chatglm": "chatglm-bpe", "glm4": "glm4", "glm4moe": "glm4", "deepseek2": "glm4"}
_DIGITS, _GPT2 = r"\p{N}", PRETOKENIZERS["gpt-2"].patterns[0]


def text_keys(checkpoint: Checkpoint, arch: str, vocab_size: int) -> Keys:
    """The tokenizer's keys, its template among them."""
    if vocab_size > MAX_VOCABULARY:
        raise BadModelFile(f"config.json: vocab_size is {vocab_size}, more than the {MAX_VOCABULARY} of any model")
    tokenizer = checkpoint.json("tokenizer.json")
    model = tokenizer.get("model", {}) if isinstance(tokenizer.get("model", {}), dict) else {}
    if (checkpoint.folder / "tokenizer.model").exists():
        keys = _sentencepiece(checkpoint, vocab_size)
    elif model.get("type") == "BPE" and not model.get("byte_fallback"):
        keys = _byte_level(tokenizer, arch, vocab_size)
    else:
        raise UnsupportedModel(
            f"{checkpoint.folder}: its tokenizer is neither byte-level BPE in tokenizer.json nor tokenizer.model"
        )
    return keys | _special_keys(checkpoint, vocab_size, keys)


def _byte_level(tokenizer: Mapping[str, Any], arch: str, vocab_size: int) -> Keys:
    added = _added_tokens(tokenizer)
    tokens, types = _vocabulary(tokenizer["model"].get("vocab"), added, vocab_size)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pretokenizer_of(tokenizer, arch),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": _merges(tokenizer["model"].get("merges")),
    }


def _vocabulary(
    vocab: object, added: Mapping[int, tuple[str, bool]], vocab_size: int
) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Tokens by id, and their types; ids without a token are unused ones."""
    if not isinstance(vocab, dict) or not all(isinstance(i, int) and i >= 0 for i in vocab.values()):
        raise BadModelFile("tokenizer.json: model.vocab is no table of tokens; fetch it again")
    size = max(vocab_size, 1 + max([*vocab.values(), *added], default=0))
    if size > MAX_VOCABULARY:
        raise BadModelFile(f"tokenizer.json: an id of {size - 1} is more than any vocabulary has")
    tokens = [f"[PAD{i}]" for i in range(size)]
    types = np.full(size, UNUSED, np.int32)
    for token, i in vocab.items():
        tokens[i], types[i] = token, NORMAL
    for i, (token, is_special) in added.items():
        is_control = is_special or _LOOKS_SPECIAL.fullmatch(token)
        tokens[i], types[i] = token, CONTROL if is_control else USER_DEFINED
    return tokens, types


def _added_tokens(tokenizer: Mapping[str, Any]) -> dict[int, tuple[str, bool]]:
    try:
        return {int(t["id"]): (str(t["content"]), bool(t["special"])) for t in tokenizer.get("added_tokens", [])}
    except (KeyError, TypeError, ValueError) as error:
        raise BadModelFile("tokenizer.json: added_tokens make no sense; fetch it again") from error


def _merges(merges: object) -> list[str]:
    """Each as two pieces with a space between, which no piece has."""
    if not isinstance(merges, list):
        raise BadModelFile("tokenizer.json: model.merges is no list; fetch it again")
    return [merge if isinstance(merge, str) else " ".join(map(str, merge)) for merge in merges]


def pretokenizer_of(tokenizer: Mapping[str, Any], arch: str) -> str:
    """The name of the pre-tokenizer with these patterns; UnsupportedModel when Swarm knows none."""
    patterns = tuple(_patterns(tokenizer.get("pre_tokenizer") or {}))
    normaliser = tokenizer.get("normalizer") or {}
    compose = "NFC" in (normaliser.get("type"), *(n.get("type") for n in normaliser.get("normalizers", ())))
    keeps_words = bool(tokenizer["model"].get("ignore_merges"))
    names = [name for name, pretokenizer in PRETOKENIZERS.items() if pretokenizer.patterns == patterns]
    if not names:
        raise UnsupportedModel(f"tokenizer.json cuts words by {str(patterns)[:200]}, which Swarm does not know")
    if _NAMES_BY_ARCH.get(arch) in names:
        return _NAMES_BY_ARCH[arch]

    def unlike(name: str) -> tuple[bool, bool]:
        return PRETOKENIZERS[name].compose != compose, PRETOKENIZERS[name].ignore_merges != keeps_words

    return min(names, key=unlike)


def _patterns(step: Mapping[str, Any]) -> list[str]:
    """The patterns that a pre-tokenizer applies, one after the other."""
    kind = step.get("type")
    if kind == "Sequence":
        return [pattern for inner in step.get("pretokenizers", ()) for pattern in _patterns(inner)]
    if kind == "Split":
        pattern = step.get("pattern", {})
        return [str(pattern.get("Regex", re.escape(str(pattern.get("String", "")))))]
    if kind == "Digits" and step.get("individual_digits"):
        return [_DIGITS]
    return [_GPT2] if kind == "ByteLevel" and step.get("use_regex", True) else []


def _sentencepiece(checkpoint: Checkpoint, vocab_size: int) -> Keys:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor()
    try:
        processor.LoadFromFile(str(checkpoint.folder / "tokenizer.model"))
    except (OSError, RuntimeError) as error:
        raise BadModelFile(f"{checkpoint.folder}/tokenizer.model cannot be read; fetch it again") from error
    size = max(vocab_size, processor.vocab_size())
    tokens, types = [f"[PAD{i}]" for i in range(size)], np.full(size, UNUSED, np.int32)
    scores = np.full(size, -10000.0, np.float32)
    for i in range(processor.vocab_size()):
        tokens[i], scores[i], types[i] = processor.IdToPiece(i), processor.GetScore(i), _piece_type(processor, i)
    for i, (token, is_special) in _added_tokens(checkpoint.json("tokenizer.json")).items():
        if i < size:
            tokens[i], types[i] = token, CONTROL if is_special else USER_DEFINED
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
    }


def _piece_type(processor: Any, i: int) -> int:
    if processor.IsUnknown(i):
        return UNKNOWN
    if processor.IsControl(i):
        return CONTROL
    return UNUSED if processor.IsUnused(i) else BYTE if processor.IsByte(i) else NORMAL


def _special_keys(checkpoint: Checkpoint, vocab_size: int, keys: Keys) -> Keys:
    """Ids of special tokens, whether they are put in front, and the template."""
    try:
        special = gguf.SpecialVocab(checkpoint.folder, n_vocab=vocab_size)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise BadModelFile(f"{checkpoint.folder}: its tokenizer_config.json makes no sense; fetch it again") from error
    found: Keys = {
        f"tokenizer.ggml.{_SPECIAL_KEYS.get(kind, kind)}_token_id": i for kind, i in special.special_token_ids.items()
    }
    found |= {f"tokenizer.ggml.add_{kind}_token": bool(add) for kind, add in special.add_special_token.items()}
    for name, kind in (("<|user|>", "eot"), ("<|observation|>", "eom")):
        tokens = keys["tokenizer.ggml.tokens"]
        if isinstance(tokens, list) and name in tokens:
            found.setdefault(f"tokenizer.ggml.{kind}_token_id", tokens.index(name))
    template = special.chat_template
    if isinstance(template, list):
        template = next((t.get("template") for t in template if t.get("name") == "default"), None)
    return found | ({"tokenizer.chat_template": template} if isinstance(template, str) and template else {})
