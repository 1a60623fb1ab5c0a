"""Byte-level BPE ("gpt2" vocabularies) on the `tokenizers` package."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Regex
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer, Split
from tokenizers.pre_tokenizers import Sequence as InTurn

from swarm.errors import BadModelFile
from swarm.plain import printable
from swarm.text.vocab import CONTROL, UNKNOWN, USER_DEFINED, Vocabulary

_ASCII, _CONTINUATION = frozenset(range(0x80)), frozenset(range(0x80, 0xC0))  # bytes of UTF-8
MAX_UNKNOWN_MERGES = 0.01  # of all: converters left some behind, and they make nothing of any text
MAX_COMPOSED_CHARS = 4  # characters that Unicode's composed form makes one of, at most (UAX #15)


class BytePairEncoder:
    """Text without marks to ids, and ids to bytes."""

    def __init__(self, vocabulary: Vocabulary, merges: list[tuple[str, str]]) -> None:
        self._vocabulary = vocabulary
        self._backend = _backend(vocabulary, merges)
        missing = {byte for char, byte in _byte_alphabet().items() if chr(char) not in vocabulary.ids}
        # Real files lack some control characters; beyond ASCII every character has a continuation byte, which is there.
        self.dropped = "".join(map(chr, sorted(missing & _ASCII)))
        self.max_chars = _max_chars(vocabulary) if not missing & _CONTINUATION else 0

    def encode(self, text: str) -> list[int]:
        """The ids of a run of plain text."""
        # Of the package's calls only those for batches let other threads run; a long word takes seconds.
        ids: list[int] = self._backend.encode_batch_fast([text], add_special_tokens=False)[0].ids
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
    words = dict(vocabulary.ids)
    for token in (*vocabulary.control, ""):
        if token in words and vocabulary.types[words[token]] in (CONTROL, UNKNOWN):  # of two alike the first counts
            del words[token]
    try:
        model = _model(words, merges, vocabulary)
    except Exception as error:  # the package raises bare Exception for a merge that makes no known token
        fitting = [(a, b) for a, b in merges if a in words and b in words and a + b in words]
        if len(merges) - len(fitting) > len(merges) * MAX_UNKNOWN_MERGES:
            reason = printable(str(error))
            raise BadModelFile(f"tokenizer.ggml.merges does not fit tokenizer.ggml.tokens: {reason}") from None
        model = _model(words, fitting, vocabulary)
    backend = Backend(model)
    if vocabulary.pre.compose:
        backend.normalizer = NFC()
    backend.pre_tokenizer = InTurn(_steps(vocabulary.pre.patterns))
    return backend


def _model(words: dict[str, int], merges: list[tuple[str, str]], vocabulary: Vocabulary) -> BPE:
    return BPE(vocab=words, merges=merges, ignore_merges=vocabulary.pre.ignore_merges)


def _max_chars(vocabulary: Vocabulary) -> int:
    return max(map(len, vocabulary.tokens)) * (MAX_COMPOSED_CHARS if vocabulary.pre.compose else 1)


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
