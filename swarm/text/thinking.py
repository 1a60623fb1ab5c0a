"""Streams of text, cut: thinking from answer, and at stop strings. Tags may arrive in pieces."""

from __future__ import annotations

from collections.abc import Sequence

from swarm.answers import Channel, Piece

OPEN, CLOSE = "<think>", "</think>"


class ThinkingSplitter:
    """Tells thinking from answer; the tags are in neither. Only an answer that begins with thinking has any."""

    def __init__(self, *, inside: bool) -> None:
        """`inside`: the prompt has opened the thinking already."""
        self._thinking = inside
        self._may_open = not inside
        self._held = ""

    def push(self, text: str) -> list[Piece]:
        """The pieces that are now certain; the beginning of a possible tag is held back."""
        self._held += text
        pieces: list[Piece] = []
        while (piece := self._next()) is not None:
            if piece.text:
                pieces.append(piece)
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back, for no tag will come."""
        held, self._held = self._held, ""
        return [Piece(held, self._channel)] if held else []

    @property
    def _channel(self) -> Channel:
        return Channel.THINKING if self._thinking else Channel.ANSWER

    def _next(self) -> Piece | None:
        if not self._held:
            return None
        if self._thinking:
            return self._until(CLOSE, then_thinking=False)
        if not self._may_open:
            return self._take(len(self._held))
        return self._opening()

    def _opening(self) -> Piece | None:
        """Before the first visible text: spaces, then perhaps the tag."""
        begun = self._held.lstrip()
        if begun.startswith(OPEN):
            self._held, self._thinking, self._may_open = begun[len(OPEN) :], True, False
            return Piece("", Channel.THINKING)
        if OPEN.startswith(begun):
            return None
        self._may_open = False
        return Piece("")

    def _until(self, tag: str, *, then_thinking: bool) -> Piece | None:
        before, found, after = self._held.partition(tag)
        if found:
            piece = Piece(before, self._channel)
            self._held, self._thinking = after, then_thinking
            return piece
        size = len(self._held) - overlap(self._held, tag)
        return self._take(size) if size else None

    def _take(self, size: int) -> Piece:
        piece = Piece(self._held[:size], self._channel)
        self._held = self._held[size:]
        return piece


class StopStrings:
    """Ends a stream before the first of some strings, wherever the pieces are cut."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.found: str | None = None  # the stop string that came

    @property
    def stopped(self) -> bool:
        return self.found is not None

    def push(self, text: str) -> str:
        """The text that is certain to come before any stop string; nothing once `stopped`."""
        if self.stopped:
            return ""
        self._held += text
        found = [(position, stop) for stop in self._stops if (position := self._held.find(stop)) >= 0]
        if found:
            position, self.found = min(found)
            out, self._held = self._held[:position], ""
            return out
        keep = max((overlap(self._held, stop) for stop in self._stops), default=0)
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return out

    def finish(self) -> str:
        """What was held back, for no more will come."""
        out, self._held = self._held, ""
        return out


def overlap(text: str, tag: str) -> int:
    """The length of the longest end of `text` with which `tag` could begin."""
    longest = min(len(text), len(tag) - 1)
    return next((n for n in range(longest, 0, -1) if tag.startswith(text[-n:])), 0)
