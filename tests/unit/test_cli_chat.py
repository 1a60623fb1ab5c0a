"""The chat with a model that says what it is told to: turns, commands, stopping, keys, pipes."""

from __future__ import annotations

import io
import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from swarm.cli import answers, prompt, slash
from swarm.cli.chat import Chat
from swarm.engine.sampling import SamplingParams
from swarm.errors import ConfigError, ContextFull
from tests.helpers.fake_model import FakeModel, Generation, Piece


def new_chat(model: FakeModel | None = None, **values: object) -> Chat:
    defaults: dict[str, object] = {"model_name": "fake", "context": 2048, "params": SamplingParams()}
    return Chat(model or FakeModel(), **{**defaults, **values})  # type: ignore[arg-type]


def reader(*lines: str | BaseException) -> prompt.Reader:
    """Hands out the lines, raises the exceptions, then ends."""
    waiting = list(lines)

    def read() -> str:
        line = waiting.pop(0) if waiting else EOFError()
        if isinstance(line, BaseException):
            raise line
        return line

    return read


def test_each_question_is_asked_with_all_that_was_said_before(capsys: pytest.CaptureFixture[str]) -> None:
    model = FakeModel()
    new_chat(model, system="Be brief.").loop(reader("one", "two"))
    assert [message["content"] for message in model.asked[1]] == ["Be brief.", "one", "echo: one", "two"]
    assert capsys.readouterr().out == "echo: one\necho: two\n"


def test_the_line_after_an_answer_has_tokens_speed_and_time_to_first_token(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = FakeModel([[Piece("a"), Piece("b"), Piece("c")]])
    new_chat(model).loop(reader("q"))
    out, err = capsys.readouterr()
    assert out == "abc\n"
    assert err == "[3 tokens, 10 tok/s, first after 0.25 s]\n"


def test_thinking_is_neither_kept_in_the_conversation_nor_piped_on(capsys: pytest.CaptureFixture[str]) -> None:
    chat = new_chat(FakeModel([[Piece("hm", thinking=True), Piece("\n\nyes")]]))
    chat.loop(reader("q"))
    assert capsys.readouterr().out == "yes\n"
    assert chat.conversation.turns[0].answer == "\n\nyes"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_thinking_is_dim_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    answers.show_answer(Generation([Piece("hm", thinking=True), Piece("yes")]), out, stoppable=False)
    assert out.getvalue() == "\x1b[2mhm\n\n\x1b[0myes\n"


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    answers.show_answer(Generation([Piece("hm", thinking=True), Piece("yes")]), out, stoppable=False)
    assert out.getvalue() == "hm\n\nyes\n"


def test_a_model_cannot_send_control_characters_to_the_terminal() -> None:
    out = io.StringIO()
    answers.show_answer(Generation([Piece("a\x1b]0;title\x07\x9b2J\r\tb\n")]), out, stoppable=False)
    assert out.getvalue() == "a]0;title2J\tb\n"


def test_ctrl_c_stops_the_answer_and_not_the_chat(capsys: pytest.CaptureFixture[str]) -> None:
    def press_at_the_third(index: int) -> None:
        if index == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    model = FakeModel([[Piece("a"), Piece("b"), Piece("c"), Piece("d")]], before_piece=press_at_the_third)
    chat = new_chat(model, interactive=True)
    chat.loop(reader("one", "two"))
    out, err = capsys.readouterr()
    assert out.startswith("ab\n")
    assert "[stopped; 2 tokens" in err
    assert [turn.answer for turn in chat.conversation.turns] == ["ab", "echo: two"]
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_at_the_prompt_tells_how_to_leave(capsys: pytest.CaptureFixture[str]) -> None:
    new_chat().loop(reader(KeyboardInterrupt()))
    assert "Ctrl-D or /exit leaves" in capsys.readouterr().out


def test_an_error_in_a_turn_is_one_line_and_the_chat_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    model = FakeModel([ContextFull("the conversation does not fit;\n start anew")])
    chat = new_chat(model)
    chat.loop(reader("long", "short"))
    out, err = capsys.readouterr()
    assert "swarm: the conversation does not fit; start anew\n" in err
    assert out == "echo: short\n"
    assert [turn.user for turn in chat.conversation.turns] == ["short"]


def test_blank_lines_are_not_questions() -> None:
    model = FakeModel()
    new_chat(model).loop(reader("", "   ", "\n"))
    assert model.asked == []


def test_two_slashes_say_one_to_the_model() -> None:
    model = FakeModel()
    new_chat(model).loop(reader("//etc is what?"))
    assert model.asked[0][-1]["content"] == "/etc is what?"


# --- commands

NAMES = ["help", "clear", "system", "set", "undo", "regen", "save", "load", "stats", "think", "exit"]


@pytest.fixture
def talk(own_home: Path) -> Iterator[Callable[..., Chat]]:
    """Run lines through a chat; return it."""

    def go(*lines: str, model: FakeModel | None = None) -> Chat:
        chat = new_chat(model)
        chat.loop(reader(*lines))
        return chat

    yield go


def test_help_lists_every_command(talk: Callable[..., Chat], capsys: pytest.CaptureFixture[str]) -> None:
    talk("/help")
    out = capsys.readouterr().out
    assert list(slash.COMMANDS) == NAMES
    for name in NAMES:
        assert f"/{name}" in out


def test_exit_ends_the_chat_before_what_follows(talk: Callable[..., Chat]) -> None:
    model = FakeModel()
    talk("/exit", "one", model=model)
    talk("/quit", "one", model=model)
    assert model.asked == []


def test_clear_forgets_the_turns_and_keeps_the_system_text(talk: Callable[..., Chat]) -> None:
    chat = talk("/system Be kind.", "one", "/clear")
    assert chat.conversation.messages() == [{"role": "system", "content": "Be kind."}]


def test_system_is_shown_set_and_taken_away(talk: Callable[..., Chat], capsys: pytest.CaptureFixture[str]) -> None:
    chat = talk("/system", "/system Be kind.", "/system", "/system off")
    assert capsys.readouterr().out.splitlines() == [
        "no system text; /system TEXT sets one",
        "the system text is set",
        "Be kind.",
        "no system text any more",
    ]
    assert chat.conversation.system == ""


def test_undo_takes_back_the_last_turn(talk: Callable[..., Chat], capsys: pytest.CaptureFixture[str]) -> None:
    chat = talk("one", "two", "/undo")
    assert [turn.user for turn in chat.conversation.turns] == ["one"]
    talk("/undo")
    assert "there is nothing to undo" in capsys.readouterr().err


def test_regen_answers_the_last_question_again(talk: Callable[..., Chat]) -> None:
    model = FakeModel([[Piece("first")], [Piece("second")]])
    chat = talk("why?", "/regen", model=model)
    assert [(turn.user, turn.answer) for turn in chat.conversation.turns] == [("why?", "second")]
    assert model.asked[0] == model.asked[1]


def test_a_regen_that_fails_keeps_the_answer_there_was(talk: Callable[..., Chat]) -> None:
    chat = talk("why?", "/regen", model=FakeModel([[Piece("first")], ContextFull("full")]))
    assert [turn.answer for turn in chat.conversation.turns] == ["first"]


def test_set_changes_how_the_next_answer_is_chosen(talk: Callable[..., Chat]) -> None:
    model = FakeModel()
    talk("/set temp 0.5", "/set top_k=7", "/set seed 3", "/set max_tokens 9", "q", "/set seed off", "q", model=model)
    first, second = model.params
    assert (first.temperature, first.top_k, first.seed, model.max_tokens[0]) == (0.5, 7, 3, 9)
    assert second.seed not in (None, 3), "another one for every answer"


def test_set_alone_shows_every_parameter(talk: Callable[..., Chat], capsys: pytest.CaptureFixture[str]) -> None:
    talk("/set")
    out = capsys.readouterr().out
    for name in (*SamplingParams.__dataclass_fields__, "max_tokens"):
        assert f"  {name} " in out


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/set heat 1", "there is no 'heat' to set; there are temperature, top_k"),
        ("/set temp hot", "/set temperature needs a number, not 'hot'"),
        ("/set top_k 1.5", "/set top_k needs a whole number, not '1.5'"),
        ("/set temp -1", "temperature is -1.0; it must be from 0 to 100"),
        ("/set top_p nan", "top_p is nan; it must be from 0 to 1"),
        ("/hlep", "there is no command /hlep; did you mean /help?"),
        ("/think hard", "/think on, /think off, or /think auto"),
        ("/load none", "none.json cannot be read (No such file or directory)"),
        ("/regen", "there is nothing to answer again"),
        ("/save /proc/no/where.json", "cannot be written"),
    ],
)
def test_a_command_that_makes_no_sense_is_one_line(
    talk: Callable[..., Chat], capsys: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    talk(line)
    out, err = capsys.readouterr()
    assert says in err
    assert err.count("\n") == 1 and out == ""


def test_think_is_passed_to_the_model(talk: Callable[..., Chat]) -> None:
    model = FakeModel()
    talk("a", "/think on", "b", "/think off", "c", "/think auto", "d", model=model)
    assert model.thinking == [None, True, False, None]


def test_a_saved_chat_is_private_and_loads_in_another_chat(talk: Callable[..., Chat], own_home: Path) -> None:
    before = talk("/system Be kind.", "one", "two", "/save mine")
    path = own_home / ".local/share/swarm/chats/mine.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert talk("/load mine").conversation == before.conversation
    assert talk(f"/load {path}").conversation == before.conversation


def test_save_writes_over_a_saved_chat_and_over_nothing_else(
    talk: Callable[..., Chat], own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk("one", "/save mine")
    chat = talk("/load mine", "two", "/save mine")
    assert talk("/load mine").conversation == chat.conversation
    other = own_home / "other.json"
    other.write_text("precious")
    talk(f"/save {other}")
    assert other.read_text() == "precious"
    assert "is not a chat that /save wrote" in capsys.readouterr().err


def test_load_alone_lists_what_was_saved(talk: Callable[..., Chat], capsys: pytest.CaptureFixture[str]) -> None:
    talk("/load", "one", "/save b", "/save a", "/load")
    out = capsys.readouterr().out
    assert "there are no saved chats" in out and "saved chats: a, b" in out


def test_stats_tell_how_full_the_context_is(talk: Callable[..., Chat], capsys: pytest.CaptureFixture[str]) -> None:
    talk("/stats", "one", "/stats")
    out = capsys.readouterr().out
    assert "none yet" in out
    assert "context    8 of 2,048 tokens, 0 of them reused" in out


# --- where questions come from


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
        assert prompt.make_session(InMemoryHistory()).prompt() == text


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


def test_set_refuses_a_number_out_of_range_and_keeps_the_old_one(talk: Callable[..., Chat]) -> None:
    assert talk("/set temp 0.5", "/set temp 1000").params.temperature == 0.5


def test_commands_are_found_by_their_short_names() -> None:
    chat = new_chat()
    for alias, name in slash.ALIASES.items():
        if name != "exit":
            with pytest.raises(ConfigError) if name == "regen" else _nothing():
                slash.perform(chat, f"/{alias}")


class _nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *args: object) -> None:
        pass
