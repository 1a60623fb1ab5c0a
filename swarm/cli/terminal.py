"""What we write to a terminal or a pipe: colours only where they are wanted, never a control character of a model."""

from __future__ import annotations

import sys
import unicodedata
from typing import TextIO

from swarm import config

DIM, BOLD, RED, YELLOW, GREEN, RESET = "\x1b[2m", "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"


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


def human_bytes(count: float) -> str:
    """3 significant digits in decimal units, as disks and models are sold: 98.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def human_count(count: int) -> str:
    """135M, 9.4B: as models are named."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def note(text: str) -> None:
    """One dim line on standard error: progress and remarks, kept out of what is piped on."""
    print(paint(text, DIM, sys.stderr), file=sys.stderr, flush=True)
