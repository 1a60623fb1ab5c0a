"""Tokens to text, one at a time: a character is given out when all of its bytes have come."""

from __future__ import annotations

import codecs
from collections.abc import Callable


class StreamDecoder:
    """Made by Tokenizer.stream(); push() each token, then finish()."""

    def __init__(self, visible_bytes: Callable[[int], bytes]) -> None:
        self._visible_bytes = visible_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that this token completes: often a word, sometimes nothing. Invalid bytes become U+FFFD."""
        return self._utf8.decode(self._visible_bytes(token))

    def finish(self) -> str:
        """What is left: U+FFFD when the last character never became whole."""
        return self._utf8.decode(b"", True)
