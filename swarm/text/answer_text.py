"""Token ids of an answer become what is read: whole characters, thinking and calls apart, nothing past a stop."""

from __future__ import annotations

from typing import Protocol

from swarm.answers import Channel, Piece
from swarm.text.calls import CallReader
from swarm.text.stream import StreamDecoder
from swarm.text.thinking import StopStrings


class Splitter(Protocol):
    """What tells thinking from answer in a stream of text."""

    def push(self, text: str) -> list[Piece]: ...
    def finish(self) -> list[Piece]: ...


class AnswerText:
    """Push tokens, get pieces of text. `splitter`: for chats, where blank space before the answer is left out, too."""

    def __init__(
        self,
        decoder: StreamDecoder,
        stops: StopStrings,
        splitter: Splitter | None,
        calls: CallReader | None = None,
        *,
        one_call: bool = False,
    ) -> None:
        """`calls`: where functions may be called; `one_call`: the answer ends with the first."""
        self._decoder, self._stops, self._splitter, self._calls = decoder, stops, splitter, calls
        self._blank_so_far = splitter is not None
        self._one_call = one_call

    @property
    def stopped(self) -> bool:
        """Nothing more will be read."""
        return self._stops.stopped or (self._one_call and self.n_calls > 0)

    @property
    def stop_string(self) -> str | None:
        """The one that ended the answer."""
        return self._stops.found

    @property
    def n_calls(self) -> int:
        """Calls of functions that are whole by now."""
        return self._calls.n_calls if self._calls is not None else 0

    def push(self, token: int) -> list[Piece]:
        return self._visible(self._without_calls(self._split(self._decoder.push(token))))

    def finish(self) -> list[Piece]:
        """What was held back until more would come; a last character of which bytes are missing is none."""
        if self.stopped:
            return []
        pieces = self._without_calls(self._splitter.finish() if self._splitter is not None else [])
        pieces += self._calls.finish() if self._calls is not None else []
        return self._visible(pieces) + self._visible([Piece(self._stops.finish())], checked=True)

    def _split(self, text: str) -> list[Piece]:
        return self._splitter.push(text) if self._splitter is not None else [Piece(text)]

    def _without_calls(self, pieces: list[Piece]) -> list[Piece]:
        calls = self._calls
        if calls is None:
            return pieces
        apart = [calls.push(piece.text) if piece.channel is Channel.ANSWER else [piece] for piece in pieces]
        return [piece for group in apart for piece in group]

    def _visible(self, pieces: list[Piece], *, checked: bool = False) -> list[Piece]:
        visible = []
        for piece in pieces:
            text = piece.text
            if piece.channel is Channel.ANSWER:
                text = text if checked else self._stops.push(text)
                if self._blank_so_far:
                    text = text.lstrip()
                    self._blank_so_far = not text
            if text or piece.name:
                visible.append(piece._replace(text=text))
        return visible
