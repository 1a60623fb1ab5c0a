"""The vocabulary of a GGUF file, checked once; every tokenizer is built from it.

The keys are those of the GGUF specification (tokenizer.ggml.*). Lists come from a file that may be broken or hostile,
so every field is checked here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, cast

import numpy as np

from swarm.errors import BadModelFile, UnsupportedModel
from swarm.kernels import _native
from swarm.limits import MAX_TOKEN_CHARS, MAX_VOCABULARY
from swarm.text.pretokenizers import PreTokenizer, pre_of_tokens, pretokenizer_named

# Values of tokenizer.ggml.token_type.
UNDEFINED, NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(7)

# Tokens that end an answer, known by name because files often list only one of them by id.
END_NAMES = frozenset(
    (
        *("<|endoftext|>", "<|user|>", "<|observation|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"),
        *("<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<|end|>", "<|tool_response>", "<turn|>"),
        *("</s>", "<eos>", "[EOS]", "<EOT>", "_<EOT>", "[EOT]", "<end_of_turn>", "<end_of_utterance>"),
        *("<｜end▁of▁sentence｜>", "[e~["),
    )
)
# Where an answer is several messages, this ends one of them, and the others are for the answer.
_MESSAGE_END, _ANSWER_ENDS = "<|end|>", frozenset(("<|return|>", "<|call|>"))
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")

# Marks that a client must see even where a file calls them control tokens.
PRINTED_NAMES = frozenset(("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"))

T = TypeVar("T", str, bool)


@dataclass(frozen=True)
class Vocabulary:
    """Tokens and their types, with the special ids and flags of the file."""

    model: str  # "gpt2" (byte-level BPE) or "llama" (SentencePiece BPE)
    pre: PreTokenizer
    tokens: Sequence[str]
    types: bytes  # one of NORMAL .. BYTE for each token
    scores: Sequence[float]  # of "llama"
    bos_id: int | None
    eos_id: int | None
    unknown_id: int | None
    add_bos: bool
    add_space_prefix: bool
    end_tokens: frozenset[int]
    add_eos: bool = False  # behind a text of which an embedding is made
    is_cut_by_guess: bool = False  # neither the file nor its tokens say how words are cut

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object]) -> Vocabulary:
        """Read the tokenizer.ggml keys; raise BadModelFile or UnsupportedModel naming the key that is wrong."""
        model = _model(metadata)
        tokens = _tokens(metadata)
        named = _optional(metadata, "pre", str) or pre_of_tokens(tokens)
        pre = pretokenizer_named(named or "default") if model == "gpt2" else PreTokenizer(())
        add_bos = _optional(metadata, "add_bos_token", bool)
        add_space_prefix = _optional(metadata, "add_space_prefix", bool)
        ids = {key: _token_id(metadata, key, len(tokens)) for key in (*_END_KEYS, "bos_token_id", "unknown_token_id")}
        return cls(
            model=model,
            pre=pre,
            tokens=tokens,
            types=_types(metadata, tokens),
            scores=_scores(metadata, len(tokens)) if model == "llama" else (),
            bos_id=ids["bos_token_id"],
            eos_id=ids["eos_token_id"],
            unknown_id=ids["unknown_token_id"],
            add_bos=(model == "llama" or pre.add_bos) if add_bos is None else add_bos,
            add_space_prefix=model == "llama" and add_space_prefix is not False,
            end_tokens=_end_tokens([ids[key] for key in _END_KEYS], tokens),
            add_eos=_optional(metadata, "add_eos_token", bool) is True,
            is_cut_by_guess=model == "gpt2" and not named,
        )

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token to id; where a token occurs twice, the first."""
        n = len(self.tokens)
        return dict(zip(reversed(self.tokens), range(n - 1, -1, -1), strict=True))

    @cached_property
    def control(self) -> dict[str, int]:
        """Tokens that only a template may write, by name."""
        return self._of_type(CONTROL, UNKNOWN)

    @cached_property
    def user_defined(self) -> dict[str, int]:
        """Added tokens that are matched in any text, and printed."""
        return self._of_type(USER_DEFINED)

    def is_hidden(self, token: int) -> bool:
        """Whether the token is no part of the text that a reader sees."""
        return self.types[token] in (CONTROL, UNKNOWN) and self.tokens[token] not in PRINTED_NAMES

    def _of_type(self, *types: int) -> dict[str, int]:
        numbers = np.flatnonzero(np.isin(np.frombuffer(self.types, np.uint8), types)).tolist()
        return {self.tokens[i]: i for i in numbers if self.tokens[i]}


def merges_from_metadata(metadata: Mapping[str, object]) -> list[tuple[str, str]]:
    """The merges of byte-level BPE, best first."""
    merges = _text_list(metadata, "merges", limit=4 * MAX_VOCABULARY)
    pairs = _native.split_at_space(list(merges))
    if None in pairs:
        i = pairs.index(None)
        raise BadModelFile(f"{_key('merges')}[{i}] is {merges[i][:40]!r}: must be two tokens with a space between")
    return cast(list[tuple[str, str]], pairs)


def _model(metadata: Mapping[str, object]) -> str:
    model = _optional(metadata, "model", str)
    if model is None:
        raise BadModelFile(f"{_key('model')} is missing: the file holds no tokenizer")
    if model not in ("gpt2", "llama"):
        raise UnsupportedModel(f"{_key('model')} is {model[:80]!r}; supported tokenizers: gpt2, llama")
    return model


def _tokens(metadata: Mapping[str, object]) -> Sequence[str]:
    tokens = _text_list(metadata, "tokens", limit=MAX_VOCABULARY)
    if not tokens:
        raise BadModelFile(f"{_key('tokens')} is empty")
    longest = max(map(len, tokens))
    if longest > MAX_TOKEN_CHARS:
        raise BadModelFile(f"{_key('tokens')} has one of {longest} characters; the most is {MAX_TOKEN_CHARS}")
    return tokens


def _types(metadata: Mapping[str, object], tokens: Sequence[str]) -> bytes:
    """One byte per token; tokens that look like marks count as control, whatever an old converter wrote."""
    values = metadata.get(_key("token_type"))
    if values is None:
        types = bytearray([NORMAL]) * len(tokens)
    else:
        numbers = _numbers("token_type", values, len(tokens))
        if not bool(np.all((numbers >= UNDEFINED) & (numbers <= BYTE))):
            raise BadModelFile(f"{_key('token_type')} holds numbers outside {UNDEFINED} to {BYTE}")
        types = bytearray(np.where(numbers == UNDEFINED, NORMAL, numbers).astype(np.uint8).tobytes())
    for i in [i for i, token in enumerate(tokens) if token[:1] == "<"]:
        if types[i] in (NORMAL, USER_DEFINED) and _is_mark(tokens[i]):
            types[i] = CONTROL
    return bytes(types)


def _is_mark(token: str) -> bool:
    return token.startswith(("<|", "<｜")) and token.endswith(("|>", "｜>")) and len(token) > 4


def _scores(metadata: Mapping[str, object], n_tokens: int) -> Sequence[float]:
    values = metadata.get(_key("scores"))
    if values is None:
        raise BadModelFile(f"{_key('scores')} is missing: a llama tokenizer cannot work without it")
    numbers = _numbers("scores", values, n_tokens)
    if not bool(np.all(np.isfinite(numbers))):
        raise BadModelFile(f"{_key('scores')} holds numbers that are not finite")
    scores: list[float] = numbers.tolist()
    return scores


def _end_tokens(listed: Sequence[int | None], tokens: Sequence[str]) -> frozenset[int]:
    named = [i for i, token in enumerate(tokens) if token in END_NAMES]
    if {tokens[i] for i in named} >= _ANSWER_ENDS:
        named = [i for i in named if tokens[i] != _MESSAGE_END]
    return frozenset((*named, *(i for i in listed if i is not None)))


def _token_id(metadata: Mapping[str, object], name: str, n_tokens: int) -> int | None:
    value = metadata.get(_key(name))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadModelFile(f"{_key(name)} is {value!r:.80}: must be a whole number")
    # Some converters write 2^32 - 1 for "none".
    return value if 0 <= value < n_tokens else None


def _optional(metadata: Mapping[str, object], name: str, kind: type[T]) -> T | None:
    value = metadata.get(_key(name))
    if value is None:
        return None
    if not isinstance(value, kind):
        raise BadModelFile(f"{_key(name)} is {value!r:.80}: must be {'text' if kind is str else 'true or false'}")
    return value


def _text_list(metadata: Mapping[str, object], name: str, limit: int) -> Sequence[str]:
    values = metadata.get(_key(name))
    if values is None:
        raise BadModelFile(f"{_key(name)} is missing: the file holds no complete tokenizer")
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise BadModelFile(f"{_key(name)} is {values!r:.80}: must be a list of texts")
    if len(values) > limit:
        raise BadModelFile(f"{_key(name)} has {len(values)} entries; the most is {limit}")
    if set(map(type, values)) - {str}:
        bad = next(i for i, value in enumerate(values) if type(value) is not str)
        raise BadModelFile(f"{_key(name)}[{bad}] is {values[bad]!r:.80}: must be text")
    return values


def _numbers(name: str, values: object, n_tokens: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise BadModelFile(f"{_key(name)} must be a list of numbers") from None
    if numbers.shape != (n_tokens,):
        raise BadModelFile(f"{_key(name)} has {numbers.size} entries, but there are {n_tokens} tokens")
    return numbers.reshape(n_tokens)


def _key(name: str) -> str:
    return f"tokenizer.ggml.{name}"
