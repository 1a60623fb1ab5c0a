"""Token ids of an answer become what is read: whole characters, thinking apart, nothing from a stop string on."""

from __future__ import annotations

from swarm.text.stream import StreamDecoder
from swarm.text.thinking import Part, StopStrings, ThinkingSplitter


class AnswerText:
    """Push tokens, get parts of text. `splitter`: for chats, where blank space before the answer is left out, too."""

    def __init__(self, decoder: StreamDecoder, stops: StopStrings, splitter: ThinkingSplitter | None) -> None:
        self._decoder, self._stops, self._splitter = decoder, stops, splitter
        self._blank_so_far = splitter is not None

    @property
    def stopped(self) -> bool:
        return self._stops.stopped

    def push(self, token: int) -> list[Part]:
        return self._visible(self._split(self._decoder.push(token)))

    def finish(self) -> list[Part]:
        """What was held back until more would come."""
        if self.stopped:
            return []
        parts = self._split(self._decoder.finish())
        parts += self._splitter.finish() if self._splitter is not None else []
        return self._visible(parts) + self._visible([Part(self._stops.finish(), False)], checked=True)

    def _split(self, text: str) -> list[Part]:
        return self._splitter.push(text) if self._splitter is not None else [Part(text, False)]

    def _visible(self, parts: list[Part], *, checked: bool = False) -> list[Part]:
        visible = []
        for part in parts:
            text = part.text if part.thinking or checked else self._stops.push(part.text)
            if self._blank_so_far and not part.thinking:
                text = text.lstrip()
                self._blank_so_far = not text
            if text:
                visible.append(Part(text, part.thinking))
        return visible
