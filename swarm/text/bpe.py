"""Byte-level BPE ("gpt2" vocabularies) on the `tokenizers` package."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from tokenizers import Regex
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer, Split
from tokenizers.pre_tokenizers import Sequence as InTurn

from swarm.errors import BadModelFile
from swarm.text.vocab import CONTROL, UNKNOWN, USER_DEFINED, Vocabulary


class BytePairEncoder:
    """Text without marks to ids, and ids to bytes."""

    def __init__(self, vocabulary: Vocabulary, merges: list[tuple[str, str]]) -> None:
        self._vocabulary = vocabulary
        self._compose = vocabulary.pre.compose
        self._backend = _backend(vocabulary, merges)

    def encode(self, text: str) -> list[int]:
        """The ids of a run of plain text."""
        if self._compose:
            text = unicodedata.normalize("NFC", text)
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def piece(self, token: int) -> bytes:
        """The bytes of one token."""
        text = self._vocabulary.tokens[token]
        if self._vocabulary.types[token] in (CONTROL, UNKNOWN, USER_DEFINED):
            return text.encode("utf-8", "replace")
        try:
            return text.translate(_BYTE_OF_CHAR).encode("latin-1")
        except UnicodeEncodeError:  # not written in the byte alphabet: an added token that the file calls normal
            return text.encode("utf-8", "replace")


def _backend(vocabulary: Vocabulary, merges: list[tuple[str, str]]) -> Backend:
    # Control tokens stay out: with ignore_merges a word of plain text could otherwise become one.
    words = {token: i for token, i in vocabulary.ids.items() if vocabulary.types[i] not in (CONTROL, UNKNOWN)}
    try:
        model = BPE(vocab=words, merges=merges, ignore_merges=vocabulary.pre.ignore_merges)
    except Exception as error:  # the package raises bare Exception for a merge that makes no known token
        raise BadModelFile(f"tokenizer.ggml.merges does not fit tokenizer.ggml.tokens: {str(error)[:120]}") from None
    backend = Backend(model)
    backend.pre_tokenizer = InTurn(_steps(vocabulary.pre.patterns))
    return backend


def _steps(patterns: Sequence[str]) -> list[PreTokenizer]:
    cuts: list[PreTokenizer] = [Split(Regex(pattern), "isolated") for pattern in patterns]
    return [*cuts, ByteLevel(add_prefix_space=False, use_regex=False)]


def _byte_alphabet() -> dict[int, int]:
    """Character to byte, as GPT-2 defined it: printable Latin-1 stands for itself, the rest follow from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: byte for byte in printable} | {0x100 + i: byte for i, byte in enumerate(others)}


# Characters of Latin-1 that are not in the alphabet are mapped outside of it, so that encoding them fails.
_BYTE_OF_CHAR = {char: 0xFFFF for char in range(256)} | _byte_alphabet()
