"""Token ids of an answer become what is read: whole characters, thinking apart, nothing from a stop string on."""

from __future__ import annotations

from swarm.answers import Piece
from swarm.text.stream import StreamDecoder
from swarm.text.thinking import StopStrings, ThinkingSplitter


class AnswerText:
    """Push tokens, get pieces of text. `splitter`: for chats, where blank space before the answer is left out, too."""

    def __init__(self, decoder: StreamDecoder, stops: StopStrings, splitter: ThinkingSplitter | None) -> None:
        self._decoder, self._stops, self._splitter = decoder, stops, splitter
        self._blank_so_far = splitter is not None

    @property
    def stopped(self) -> bool:
        return self._stops.stopped

    def push(self, token: int) -> list[Piece]:
        return self._visible(self._split(self._decoder.push(token)))

    def finish(self) -> list[Piece]:
        """What was held back until more would come."""
        if self.stopped:
            return []
        pieces = self._split(self._decoder.finish())
        pieces += self._splitter.finish() if self._splitter is not None else []
        return self._visible(pieces) + self._visible([Piece(self._stops.finish(), False)], checked=True)

    def _split(self, text: str) -> list[Piece]:
        return self._splitter.push(text) if self._splitter is not None else [Piece(text, False)]

    def _visible(self, pieces: list[Piece], *, checked: bool = False) -> list[Piece]:
        visible = []
        for piece in pieces:
            text = piece.text if piece.thinking or checked else self._stops.push(piece.text)
            if self._blank_so_far and not piece.thinking:
                text = text.lstrip()
                self._blank_so_far = not text
            if text:
                visible.append(Piece(text, piece.thinking))
        return visible
