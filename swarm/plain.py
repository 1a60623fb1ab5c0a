"""Text from outside (a peer, a file, a page, a prompt) as it may be shown: without control characters."""

from __future__ import annotations

import unicodedata

from swarm.limits import MAX_SHOWN_CHARS, MAX_SHOWN_NAME_CHARS

_LEFT_OUT = frozenset(("Cc", "Zl", "Zp"))  # controls; separators of lines and paragraphs
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they show text in another order


def harmless(text: str) -> str:
    """Text without control characters, but for line ends and tabs: it cannot move the cursor or retitle a window."""
    if text.isprintable():
        return text
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc")


def one_line(text: str, most: int = MAX_SHOWN_CHARS) -> str:
    """The same on one line, and no longer than `most` characters: what is said of somebody else's words."""
    text = text[: 4 * most]
    if not text.isprintable():
        kept = (c for c in text if c in "\n\t\r" or (unicodedata.category(c) not in _LEFT_OUT and c not in _TURNS))
        text = " ".join("".join(kept).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def visible(text: str) -> str:
    """The same on one line, with what has no look escaped, whatever a file or a library put into a message."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in " ".join(text.split()))


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


def printable(text: str, most: int = MAX_SHOWN_NAME_CHARS) -> str:
    """What a file holds, or a library says of it: characters without a look are escaped."""
    text = text[: 4 * most]
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= most else f"{text[:most]}..."
