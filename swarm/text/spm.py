"""SentencePiece BPE ("llama" vocabularies) on the `sentencepiece` package.

A GGUF file holds the pieces, scores and types of the model, not the model itself, so its protocol buffer is written
here anew. Field numbers are those of sentencepiece_model.proto.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from sentencepiece import SentencePieceProcessor

from swarm.errors import BadModelFile
from swarm.plain import printable
from swarm.text.vocab import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Vocabulary

SPACE = "\u2581"
_BYTE_NAME = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_MODEL_TYPE_BPE = 2
_MAX_SCORE = 1e30  # float32 holds it


class PieceEncoder:
    """Text without marks to ids, and ids to bytes."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.max_chars = max(map(len, vocabulary.tokens)) if _has_all_bytes(vocabulary) else 0
        self.dropped = ""
        self._processor = SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(_model_proto(vocabulary))
        except RuntimeError as error:
            raise BadModelFile(f"tokenizer.ggml.tokens makes no SentencePiece model: {printable(str(error))}") from None

    def encode(self, text: str) -> list[int]:
        """The ids of a run of plain text; its first word gets a space before it, as the models expect."""
        if self._vocabulary.add_space_prefix:
            text = " " + text
        ids: list[int] = self._processor.EncodeAsIds(text)
        return ids

    def piece(self, token: int) -> bytes:
        """The bytes of one token."""
        text = self._vocabulary.tokens[token]
        if self._vocabulary.types[token] == BYTE and (name := _BYTE_NAME.fullmatch(text)):
            return bytes([int(name[1], 16)])
        return text.replace(SPACE, " ").encode("utf-8", "replace")


def _model_proto(vocabulary: Vocabulary) -> bytes:
    pieces = b"".join(_field(1, piece) for piece in _pieces(vocabulary))
    return pieces + _field(2, _trainer_spec(vocabulary)) + _field(3, _normalizer_spec())


def _pieces(vocabulary: Vocabulary) -> Iterator[bytes]:
    """SentencePiece: piece = 1, score = 2, type = 3 (its numbers are those of GGUF)."""
    unknown = _unknown_id(vocabulary)
    seen: set[str] = set()
    for i, (token, score) in enumerate(zip(vocabulary.tokens, vocabulary.scores, strict=True)):
        usable = bool(token) and token not in seen
        seen.add(token)
        # The package refuses empty and double pieces; the name that stands in for one is never matched.
        name = token if usable else f"\ufdd0{i}"
        kind = _piece_type(vocabulary, i, is_unknown=i == unknown) if usable else CONTROL
        yield (
            _field(1, name.encode("utf-8", "replace"))
            + _key(2, 5)
            + struct.pack("<f", max(min(score, _MAX_SCORE), -_MAX_SCORE))
            + _number(3, kind)
        )


def _unknown_id(vocabulary: Vocabulary) -> int:
    """The one piece that may be of type unknown; the package demands exactly one."""
    if vocabulary.unknown_id is not None:
        return vocabulary.unknown_id
    listed = vocabulary.types.find(UNKNOWN)
    if listed < 0:
        raise BadModelFile("tokenizer.ggml.unknown_token_id is missing: a llama tokenizer needs it")
    return listed


def _piece_type(vocabulary: Vocabulary, i: int, *, is_unknown: bool) -> int:
    if is_unknown:
        return UNKNOWN
    kind = vocabulary.types[i]
    if kind in (UNKNOWN, USER_DEFINED):
        return CONTROL  # user-defined tokens are matched before the text comes here
    return NORMAL if kind == BYTE and not _BYTE_NAME.fullmatch(vocabulary.tokens[i]) else kind


def _trainer_spec(vocabulary: Vocabulary) -> bytes:
    """TrainerSpec: model_type = 3, vocab_size = 4, byte_fallback = 35, unk_id = 40, bos_id = 41, eos_id = 42."""
    return b"".join(
        (
            _number(3, _MODEL_TYPE_BPE),
            _number(4, len(vocabulary.tokens)),
            _number(35, int(_has_all_bytes(vocabulary))),
            _number(40, _unknown_id(vocabulary)),
            _number(41, -1),
            _number(42, -1),
            _number(43, -1),
        )
    )


def _normalizer_spec() -> bytes:
    """NormalizerSpec: name = 1, add_dummy_prefix = 3, remove_extra_whitespaces = 4, escape_whitespaces = 5."""
    return _field(1, b"identity") + _number(3, 0) + _number(4, 0) + _number(5, 1)


def _has_all_bytes(vocabulary: Vocabulary) -> bool:
    byte_tokens = (t for t, kind in zip(vocabulary.tokens, vocabulary.types, strict=True) if kind == BYTE)
    return {int(m[1], 16) for token in byte_tokens if (m := _BYTE_NAME.fullmatch(token))} == set(range(256))


def _field(number: int, payload: bytes) -> bytes:
    return _key(number, 2) + _varint(len(payload)) + payload


def _number(field: int, value: int) -> bytes:
    return _key(field, 0) + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
