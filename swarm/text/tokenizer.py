"""Text to token ids and back, for every tokenizer that a GGUF file can carry."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Protocol

from swarm.errors import TextError
from swarm.text.grammar import Grammars
from swarm.text.marks import MarkFinder
from swarm.text.stream import StreamDecoder
from swarm.text.vocab import Vocabulary, merges_from_metadata

log = logging.getLogger(__name__)
CUT_BY_GUESS = "its words are cut as GPT-2 cuts them, which may not be as it was trained; a newer file of it says how"


class Encoder(Protocol):
    """Text without marks to ids, and ids to bytes: byte-level BPE or SentencePiece."""

    max_chars: int  # of text that one token stands for, at most; 0 where nobody knows
    dropped: str  # characters that no token spells

    def encode(self, text: str) -> list[int]: ...
    def piece(self, token: int) -> bytes: ...


class Tokenizer:
    """The tokenizer of one model.

    Control tokens such as `<|user|>` are read as such only where `special` is true; in a user's text they stay text.
    """

    def __init__(self, vocabulary: Vocabulary, encoder: Encoder) -> None:
        self.vocabulary = vocabulary
        self.end_tokens = vocabulary.end_tokens
        self.bos_id = vocabulary.bos_id
        self.eos_id = vocabulary.eos_id
        self.add_bos = vocabulary.add_bos and vocabulary.bos_id is not None
        self._encoder = encoder
        self._in_text = MarkFinder(vocabulary.user_defined)
        self._in_template = MarkFinder(vocabulary.user_defined | vocabulary.control)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object]) -> Tokenizer:
        """Build from the metadata of a GGUF file.

        Raise BadModelFile where a field is missing or broken, UnsupportedModel for an unknown tokenizer.
        """
        vocabulary = Vocabulary.from_metadata(metadata)
        if vocabulary.is_cut_by_guess:
            log.warning("%s has no tokenizer.ggml.pre: %s", metadata.get("general.name", "the file"), CUT_BY_GUESS)
        if vocabulary.model == "llama":
            from swarm.text.spm import PieceEncoder

            return cls(vocabulary, PieceEncoder(vocabulary))
        from swarm.text.bpe import BytePairEncoder

        return cls(vocabulary, BytePairEncoder(vocabulary, merges_from_metadata(metadata)))

    def __len__(self) -> int:
        return len(self.vocabulary.tokens)

    def encode(
        self, text: str, special: bool = False, *, add_bos: bool = False, literal: Sequence[int] = ()
    ) -> list[int]:
        """The ids of `text`.

        special: read control tokens, except where one would cover a position in `literal` (for rendered templates),
            which are in rising order.
        add_bos: put the token of the text's beginning first, when the vocabulary has one.
        """
        text = _valid(text)
        ids = [self.bos_id] if add_bos and self.bos_id is not None else []
        finder = self._in_template if special else self._in_text
        position = 0
        for mark in finder.find(text, literal):
            ids += self._plain(text[position : mark.start])
            ids.append(mark.token)
            position = mark.end
        ids += self._plain(text[position:])
        return ids

    def least_tokens(self, text: str) -> int:
        """No encoding of `text` has fewer tokens than this; known at once, from its length."""
        if not self._encoder.max_chars:
            return 0
        n_chars = len(text) - sum(map(text.count, self._encoder.dropped))
        return -(-n_chars // self._encoder.max_chars)

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """The text of `ids`; control tokens are left out unless `special`, invalid bytes become U+FFFD."""
        show = self._bytes if special else self._visible_bytes
        text = b"".join(map(show, ids)).decode("utf-8", "replace")
        # encode() put a space before the first word.
        return text[1:] if self.vocabulary.add_space_prefix and text.startswith(" ") else text

    def stream(self, shown: Iterable[str] = ()) -> StreamDecoder:
        """A decoder for tokens that come one at a time; `shown` are control tokens that it does not leave out."""
        marks = {i for i in map(self.token_id, shown) if i is not None}
        return StreamDecoder(lambda token: self._bytes(token) if token in marks else self._visible_bytes(token))

    def token_id(self, name: str) -> int | None:
        """The id of the token that is written `name` in the vocabulary, or None."""
        return self.vocabulary.ids.get(name)

    def token_name(self, token: int) -> str:
        """How the vocabulary writes the token; for messages and tools, not for text."""
        return self.vocabulary.tokens[token] if 0 <= token < len(self) else f"<{token}>"

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for; of one that is no text, its name."""
        return self._bytes(token)

    def hidden_tokens(self) -> list[int]:
        """Tokens that are no part of any text that is read."""
        return [token for token in range(len(self)) if self.vocabulary.is_hidden(token)]

    @cached_property
    def grammars(self) -> Grammars:
        """Grammars over this vocabulary."""
        return Grammars(self)

    def _plain(self, text: str) -> list[int]:
        return self._encoder.encode(text) if text else []

    def _bytes(self, token: int) -> bytes:
        if not 0 <= token < len(self):
            return b""  # rows that only fill up the output matrix have no token
        return self._encoder.piece(token)

    def _visible_bytes(self, token: int) -> bytes:
        if not 0 <= token < len(self) or self.vocabulary.is_hidden(token):
            return b""
        return self._encoder.piece(token)


def _valid(text: str) -> str:
    """`text` without lone surrogates, which no vocabulary can spell."""
    if not isinstance(text, str):
        raise TextError(f"expected text, got {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
