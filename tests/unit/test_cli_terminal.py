"""Lines of a terminal are broken between words, however the text comes in pieces."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.cli.terminal import WrappedLine

WIDTH = 24
WORDS = st.lists(
    st.sampled_from(["a", "of", "river", "flowing", "über-", "x" * 30, "河", "e\u0301", "🙂"]), max_size=40
)


def shown(output: str) -> list[str]:
    """The lines that a terminal, wide enough never to break one itself, shows."""
    lines, column = [""], 0
    for part in re.findall(r"\x1b\[\d+D|\x1b\[K|.|\n|\r", output):
        if part == "\n":
            lines.append("")
            column = 0
        elif part == "\r":
            column = 0
        elif part == "\x1b[K":
            lines[-1] = lines[-1][:column]
        elif part.startswith("\x1b["):
            column -= int(part[2:-1])  # only narrow characters are ever erased, one cell each
        else:
            lines[-1] = lines[-1][:column] + part
            column += 1
    return lines


def fitted(pieces: list[str], width: int = WIDTH) -> list[str]:
    line = WrappedLine()
    return shown("".join(line.fit(piece, width) for piece in pieces))


@given(WORDS.map(" ".join).filter(lambda text: "e\u0301" not in text), st.integers(1, 7))
def test_no_word_is_cut_and_no_line_too_long(text: str, size: int) -> None:
    lines = fitted([text[at : at + size] for at in range(0, len(text), size)])
    for line in lines:
        assert sum(2 if char in "河🙂" else 1 for char in line) <= WIDTH
    put_together = " ".join(line.strip(" ") for line in lines)
    if "x" * 30 not in text:
        assert put_together.split() == text.split()
    assert put_together.replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_paragraph_is_broken_between_words(size: int) -> None:
    text = "Rivers are a vital component of ecosystems.\nThe end."
    lines = fitted([text[at : at + size] for at in range(0, len(text), size)])
    assert [line.rstrip() for line in lines] == ["Rivers are a vital", "component of ecosystems.", "The end."]


def test_code_is_left_as_it_is() -> None:
    code = "```python\n" + "print(1) " * 9 + "\n```\n"
    assert fitted([code + "one two three four five six"])[1] == "print(1) " * 9
    assert fitted([code + "one two three four five six"])[-2:] == ["one two three four five ", "six"]


def test_without_a_width_nothing_is_changed() -> None:
    text = "word " * 50 + "\n\tend"
    assert WrappedLine().fit(text, 0) == text


def test_an_accent_of_its_own_takes_no_cell() -> None:
    text = "e\u0301" * WIDTH
    assert fitted([text]) == [text]


def test_a_soft_hyphen_and_the_vowel_signs_of_hindi_take_a_cell() -> None:
    assert fitted(["\xad" * (WIDTH + 1)]) == ["\xad" * WIDTH, "\xad"]
    assert fitted(["\u0915\u093e" * (WIDTH // 2) + "\u0915"]) == ["\u0915\u093e" * (WIDTH // 2), "\u0915"]


def test_a_note_in_between_begins_a_line() -> None:
    line = WrappedLine()
    line.fit("half of a wo", WIDTH)
    line.begin()
    assert "\x1b" not in line.fit("rd and more text", WIDTH)


def test_a_remark_in_passing_makes_way() -> None:
    line = WrappedLine()
    assert shown(line.pass_by("[reading]") + line.fit("text", WIDTH) + line.fit(" goes on", WIDTH)) == ["text goes on"]
