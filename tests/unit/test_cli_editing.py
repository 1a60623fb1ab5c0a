"""Text that goes into a question: from a file, or an editor."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.cli import editing
from swarm.errors import ConfigError
from swarm.limits import MAX_QUESTION_FILE_BYTES


def test_a_text_file_is_read_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a b.txt"
    path.write_bytes("\ufeffone\r\ntwö\n".encode())
    assert editing.read_text(str(path)) == ("a b.txt", "one\ntwö\n")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xff\xfe", "is not a text file"),
        (b"a\0b", "is not a text file"),
        (b"x" * (MAX_QUESTION_FILE_BYTES + 1), "is larger than"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_what_is_no_text_is_refused_in_one_line(tmp_path: Path, data: bytes | None, says: str) -> None:
    path = tmp_path / "file"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=says.replace("(", r"\(").replace(")", r"\)")):
        editing.read_text(str(path))
    with pytest.raises(ConfigError, match="cannot be read"):
        editing.read_text(str(tmp_path))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.delenv("VISUAL", raising=False)
    return monkeypatch


def test_the_editor_of_the_user_changes_the_text(terminal: pytest.MonkeyPatch) -> None:
    terminal.setenv("EDITOR", "sed -i s/one/two/")
    assert editing.edited("one") == "two"


@pytest.mark.parametrize(
    ("editor", "says"),
    [("false", "failed"), ("/no/such/editor", "does not start"), ("'", "there is no editor")],
    ids=str,
)
def test_an_editor_that_fails_is_one_line(terminal: pytest.MonkeyPatch, editor: str, says: str) -> None:
    terminal.setenv("EDITOR", editor)
    terminal.setattr(editing, "EDITORS", ())
    with pytest.raises(ConfigError, match=says):
        editing.edited("one")


def test_an_editor_needs_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(ConfigError, match="terminal"):
        editing.edited("one")
