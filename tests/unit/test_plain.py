"""Text from outside, made harmless."""

from __future__ import annotations

from swarm.limits import MAX_SHOWN_NAME_CHARS
from swarm.plain import harmless, one_line, printable, visible


def test_text_keeps_its_lines_and_loses_its_controls() -> None:
    assert harmless("a\x1b]0;PWNED\x07\nb\tc") == "a]0;PWNED\nb\tc"
    assert harmless("grüß漢") == "grüß漢"


def test_a_line_stays_one_line() -> None:
    assert one_line("a\r\nb\u2028c\x1b[31m d\u202ee") == "a bc[31m de"


def test_a_line_has_an_end() -> None:
    assert one_line("x" * 1000, 10) == "xxxxxxx..." and one_line("x" * 10, 10) == "x" * 10
    assert len(one_line("\x00" * 10**6, 10)) == 0


def test_what_a_file_holds_is_shown_escaped() -> None:
    assert printable("a\x1b[31m\u200b") == r"'a\x1b[31m\u200b'"
    assert printable("x" * 500) == "x" * MAX_SHOWN_NAME_CHARS + "..."


def test_a_message_is_one_line_and_shows_what_has_no_look() -> None:
    assert visible("a\x1b]0;PWNED\x07\r\n  b\u202e") == r"a\x1b]0;PWNED\x07 b\u202e"
    assert visible("grüß  漢 \udcff") == r"grüß 漢 \udcff" and visible("as  it is") == "as  it is"
