"""Where the questions come from."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from swarm.cli import prompt
from swarm.cli.slash import COMMANDS


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("hello\r", "hello"),
        ("one\\\rtwo\r", "one\ntwo"),
        ("one\x1b\rtwo\r", "one\ntwo"),
        ("\x1b[200~one\ntwo\n\nthree\x1b[201~\r", "one\ntwo\n\nthree"),
        ("a\x7fb\r", "b"),
        ("/sta\t\r", "/stats"),
        ("x\x1b[D\\\rz\r", "\nzx"),
    ],
    ids=["enter", "backslash", "alt-enter", "paste", "backspace", "completion", "backslash before the cursor"],
)
def test_keys_at_the_prompt_become_a_question(keys: str, text: str) -> None:
    with create_pipe_input() as typed, create_app_session(input=typed, output=DummyOutput()):
        typed.send_text(keys)
        assert prompt.make_session(InMemoryHistory(), COMMANDS).prompt() == text


def test_history_brings_back_the_question_before() -> None:
    history = InMemoryHistory()
    with create_pipe_input() as typed, create_app_session(input=typed, output=DummyOutput()):
        session = prompt.make_session(history)
        typed.send_text("first\r")
        assert session.prompt() == "first"
        typed.send_text("\x1b[A\r")
        assert session.prompt() == "first"


@pytest.mark.parametrize(("key", "error"), [("\x03", KeyboardInterrupt), ("\x04", EOFError)])
def test_ctrl_c_and_ctrl_d_at_the_prompt_are_heard(key: str, error: type[BaseException]) -> None:
    with create_pipe_input() as typed, create_app_session(input=typed, output=DummyOutput()):
        typed.send_text(key)
        with pytest.raises(error):
            prompt.make_session(InMemoryHistory()).prompt()


def test_the_history_file_is_for_its_owner_only(own_home: Path) -> None:
    prompt._history(own_home / "deep/history").append_string("secret")
    path = own_home / "deep/history"
    assert "secret" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_home_that_cannot_be_written_still_has_a_prompt(own_home: Path) -> None:
    (own_home / "file").touch()
    assert isinstance(prompt._history(own_home / "file" / "history"), InMemoryHistory)


def test_a_pipe_gives_one_question_a_line_and_a_backslash_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\\\nthree\n\nlast\\"))
    read = prompt.pipe_reader()
    assert [read() for _ in range(4)] == ["one", "two\nthree", "", "last"]
    with pytest.raises(EOFError):
        read()


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ('"""one\ntwo"""', "one\ntwo"),
        ('"""\none\n"""', "one"),
        ('"""one line"""', "one line"),
        ('"""/clear"""', "//clear"),
        ('say """this"""', 'say """this"""'),
        ("plain", "plain"),
        ('"""', ""),
    ],
)
def test_quotes_hold_a_question_of_several_lines(text: str, question: str) -> None:
    assert prompt.unquoted(text) == question


def test_enter_between_quotes_begins_a_new_line() -> None:
    with create_pipe_input() as typed, create_app_session(input=typed, output=DummyOutput()):
        typed.send_text('"""one\rtwo\r"""\r')
        assert prompt.unquoted(prompt.make_session(InMemoryHistory()).prompt()) == "one\ntwo"


def test_quotes_join_the_lines_of_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('"""\none\n/two\n"""\nthree\n"""never ended\n'))
    read = prompt.pipe_reader()
    assert [read() for _ in range(3)] == ["one\n/two", "three", "never ended\n".strip()]


def test_a_tab_alone_types_nothing() -> None:
    with create_pipe_input() as typed, create_app_session(input=typed, output=DummyOutput()):
        typed.send_text("\t/exit\r")
        assert prompt.make_session(InMemoryHistory(), COMMANDS).prompt() == "/exit"


def test_a_file_is_completed_after_read(tmp_path: Path) -> None:
    (tmp_path / "a long name.txt").touch()
    with create_pipe_input() as typed, create_app_session(input=typed, output=DummyOutput()):
        typed.send_text(f"/read {tmp_path}/a l\t\r")
        assert prompt.make_session(InMemoryHistory(), COMMANDS).prompt() == f"/read {tmp_path}/a long name.txt"


def test_history_that_is_off_is_not_written(own_home: Path) -> None:
    history = prompt._history(own_home / "history", lambda: False)
    history.append_string("secret")
    assert "secret" not in (own_home / "history").read_text()
    assert history.get_strings() == ["secret"], "Up brings it back all the same, until the chat ends"
