"""Showing an answer while it comes: streamed text, thinking dimmed, Ctrl-C to stop it, one line of figures after it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Protocol, TextIO

from swarm.answers import ExpertUse, Piece, Stats
from swarm.cli.terminal import DIM, LINE, RESET, columns, harmless, paint, wants_color
from swarm.units import size_text

if TYPE_CHECKING:
    from swarm.engine.sampling import SamplingParams


class AnswerStream(Protocol):
    """An answer in progress: iterate to let it come, `cancel()` to end it early."""

    def __iter__(self) -> Iterator[Piece]: ...
    def cancel(self) -> None: ...
    @property
    def finish_reason(self) -> str | None: ...
    @property
    def stats(self) -> Stats: ...


class ChatModel(Protocol):
    """What the chat needs of a model: on this device, or behind the API of a running node."""

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int | None,
        params: SamplingParams,
        thinking: bool | None,
        progress: Callable[[int, int], None] | None,
    ) -> AnswerStream: ...


@dataclass(frozen=True)
class Answered:
    """A finished or stopped answer; `text` leaves the thinking out."""

    text: str
    finish_reason: str | None
    stats: Stats


def show_answer(stream: AnswerStream, out: TextIO, *, stoppable: bool) -> Answered:
    """Write the pieces to `out` as they come. With `stoppable`, Ctrl-C ends the answer and not the program."""
    parts: list[str] = []
    LINE.begin_text()
    printer = _Printer(out)
    with ExitStack() as stack:
        if stoppable:
            stack.enter_context(_no_echo(sys.stdin))
            stack.enter_context(_interrupt_cancels(stream))
        try:
            for piece in stream:
                printer.write(piece.text, piece.thinking)
                if not piece.thinking:
                    parts.append(piece.text)
        finally:
            printer.end()
    return Answered("".join(parts), stream.finish_reason, stream.stats)


def figures(answer: Answered) -> str:
    """42 tokens, 12 guessed, 31.5 tok/s, first after 0.21 s; 81 % of experts in memory, 0.7 GiB read."""
    stats = answer.stats
    parts = [f"{stats.generated_tokens} token{'s' if stats.generated_tokens != 1 else ''}"]
    if stats.guessed_tokens:
        parts.append(f"{stats.guessed_tokens} guessed")
    if speed := stats.decode_tokens_per_s:
        parts.append(f"{speed:.3g} tok/s")
    if stats.generated_tokens:
        parts.append(f"first after {stats.first_token_s:.2f} s")
    return ", ".join(parts) + _experts(stats.experts)


def _experts(use: ExpertUse) -> str:
    """Said only where experts were read from disk."""
    if not use.misses:
        return ""
    return f"; {100 * use.hit_rate:.0f} % of experts in memory, {size_text(use.read_bytes)} read"


class ReadingNote:
    """While a long prompt is read, a dim line on the terminal says how far that has come; it goes away by itself."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __call__(self, done: int, total: int) -> None:
        text = f"[reading {done} of {total} tokens]" if done < total else ""
        self._out.write(LINE.pass_by(paint(text, DIM, self._out)))
        self._out.flush()


class _Printer:
    """Streams text; thinking is dim on a terminal, and left out of what is piped on."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._color = wants_color(out)
        self._terminal = out.isatty()
        self._thinking = False
        self._started = False
        self._ends_line = True

    def write(self, text: str, thinking: bool) -> None:
        if thinking and not self._terminal:
            return
        text = harmless(text)
        if thinking != self._thinking:
            self._switch(thinking)
        if not self._started:
            text = text.lstrip()
        if text:
            self._started = True
            self._ends_line = text.endswith("\n")
            self._put(text)
            self._out.flush()

    def end(self) -> None:
        """Leave the terminal as it was, at the start of a line."""
        if self._thinking and self._color:
            self._out.write(RESET)
        self._put("" if self._ends_line else "\n")
        self._out.flush()

    def _put(self, text: str) -> None:
        self._out.write(LINE.fit(text, columns(self._out)))

    def _switch(self, thinking: bool) -> None:
        self._thinking = thinking
        if self._started and not thinking:
            self._put("\n" if self._ends_line else "\n\n")
            self._started = False
        if self._color:
            self._out.write(DIM if thinking else RESET)


@contextmanager
def _interrupt_cancels(stream: AnswerStream) -> Iterator[None]:
    """The first Ctrl-C cancels; a second one, should the first not have been heard, leaves the program."""
    pressed = 0

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += 1
        if pressed > 2:
            raise KeyboardInterrupt
        stream.cancel()

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _no_echo(keyboard: TextIO) -> Iterator[None]:
    """Keys pressed meanwhile do not show up in the middle of the answer."""
    if not keyboard.isatty():
        yield
        return
    import termios

    before = termios.tcgetattr(keyboard)
    local_flags = 3  # index of c_lflag in what tcgetattr returns
    quiet = [*before]
    quiet[local_flags] &= ~termios.ECHO
    termios.tcsetattr(keyboard, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def is_interactive() -> bool:
    """True when a person types and reads; otherwise we are part of a pipe or a script."""
    return sys.stdin.isatty() and sys.stdout.isatty()
