"""What we write to a terminal or a pipe: colours only where they are wanted, never a control character of a model."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import textwrap
import unicodedata
from typing import TextIO

from swarm import config

DIM, BOLD, RED, YELLOW, GREEN, RESET = "\x1b[2m", "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"
CLEAR = "\r\x1b[K"
FENCE = "```"  # around code in Markdown
TAB = 8
NARROWEST = 20  # a narrower terminal breaks lines itself


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """`text` in a style, or as it is where the stream is no terminal or NO_COLOR is set."""
    return f"{style}{text}{RESET}" if text and wants_color(stream or sys.stdout) else text


def wants_color(stream: TextIO) -> bool:
    """True for a terminal whose user did not ask for plain text."""
    return stream.isatty() and config.color()


def harmless(text: str) -> str:
    """Text of a model without control characters: it must not move the cursor or retitle the window."""
    if text.isprintable():
        return text
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc")


def human_count(count: int) -> str:
    """135M, 9.4B: as models are named."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def note(text: str) -> None:
    """One dim remark on standard error, in lines that fit the terminal: kept out of what is piped on.

    It begins a line of its own, also where standard output goes to the same place and has not ended one.
    """
    end_line()
    print(paint(wrapped(text, columns(sys.stderr)), DIM, sys.stderr), file=sys.stderr, flush=True)
    LINE.begin()


def end_line() -> None:
    """See that what comes next on standard error does not stick to text on standard output."""
    if LINE.is_begun and same_place(sys.stdout, sys.stderr):
        sys.stdout.write(LINE.leave())
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()


def same_place(one: TextIO, other: TextIO) -> bool:
    """True when two streams write to one terminal, pipe or file."""
    try:
        return os.path.sameopenfile(one.fileno(), other.fileno())
    except (OSError, ValueError, AttributeError):  # a stream of a test, or one that was closed
        return False


def wrapped(text: str, width: int) -> str:
    """Text broken between words, so that no line has more than `width` cells; 0: as it is."""
    if not width:
        return text
    lines = [textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) for line in text.split("\n")]
    return "\n".join("\n".join(line) for line in lines)


class WrappedLine:
    """The line of the terminal that is being written: breaks it between words, though they come in pieces.

    What was written of a word that turns out not to fit is erased and begun again on the next line. Code between fences
    is left as it is, to be copied.
    """

    def __init__(self) -> None:
        self._passing = False
        self.begin_text()

    @property
    def is_begun(self) -> bool:
        """Something stands on the line already."""
        return self._column > 0 or self._passing

    def leave(self) -> str:
        """What to write so that the cursor is at the start of a line with nothing on it."""
        text = CLEAR if self._passing else "\n"
        self._passing = False
        self.begin()
        return text

    def begin_text(self) -> None:
        """Nothing that comes belongs to what came."""
        self._code = False
        self.begin()

    def begin(self) -> None:
        """The cursor is at the start of a line."""
        self._column = 0
        self._start = ""  # the first characters of the line, in which a fence shows
        self._word = ""

    def fit(self, text: str, width: int) -> str:
        """What to write for `text`, so that no line has more than `width` cells; 0: a line may have any number."""
        erased, self._passing = CLEAR * self._passing, False
        return erased + "".join(self._next(char, width) for char in text)

    def pass_by(self, text: str) -> str:
        """What to write for a remark that makes way for whatever comes next; it begins the line."""
        self._passing = bool(text)
        return CLEAR + text

    def _next(self, char: str, width: int) -> str:
        if char == "\n":
            self._code ^= self._start == FENCE
            self.begin()
            return char
        self._start = (self._start + char)[: len(FENCE)]
        cells = TAB - self._column % TAB if char == "\t" else _cells(char)
        breaks = ""
        if width and not self._code and self._column + cells > width:
            if char in " \t":
                self.begin()
                return "\n"
            breaks = self._break(width)
        self._column += cells
        self._word = "" if char in " \t" or cells == 2 else self._word + char
        return breaks + char

    def _break(self, width: int) -> str:
        """Go on with the current word on the next line; a word that fills a whole line, or has no letters, is cut."""
        cells = sum(map(_cells, self._word))
        self._column = cells if 0 < cells < width else 0
        self._start = " "  # what follows is not the start of a line of the text
        if not self._column:
            self._word = ""
            return "\n"
        return f"\x1b[{cells}D\x1b[K\n{self._word}"


LINE = WrappedLine()  # of this process' terminal


def columns(stream: TextIO) -> int:
    """Cells of a line to fill on a terminal, all but the last one; 0 where lines are not to be broken."""
    if not stream.isatty() or not config.moves_cursor():
        return 0
    width = shutil.get_terminal_size().columns
    return width - 1 if width >= NARROWEST else 0


def _cells(char: str) -> int:
    """How many cells of a terminal a character takes (Unicode Standard Annex 11).

    Rather one too many: then a line breaks early, while one that is too long breaks in the middle of a word. So vowel
    signs of Indic scripts count, which tmux shows in a cell of their own and the package wcwidth gives none.
    """
    if char.isascii() or char == "\xad":  # a soft hyphen shows
        return 1
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
