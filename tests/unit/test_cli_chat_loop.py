"""The chat loop with a model that is not there: what is asked, shown and told."""

from __future__ import annotations

import io
import os
import signal

import pytest

from swarm.answers import Channel, Piece
from swarm.cli import answers
from swarm.errors import ContextFull, SwarmError
from tests.helpers.chats import new_chat, reader
from tests.helpers.fake_model import FakeAnswer, FakeModel


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
    chat = new_chat(FakeModel([[Piece("hm", Channel.THINKING), Piece("\n\nyes")]]))
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
    answers.show_answer(FakeAnswer([Piece("hm", Channel.THINKING), Piece("yes")]), out, stoppable=False)
    assert out.getvalue() == "\x1b[2mhm\n\n\x1b[0myes\n"


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    answers.show_answer(FakeAnswer([Piece("hm", Channel.THINKING), Piece("yes")]), out, stoppable=False)
    assert out.getvalue() == "hm\n\nyes\n"


def test_a_model_cannot_send_control_characters_to_the_terminal() -> None:
    out = io.StringIO()
    answers.show_answer(FakeAnswer([Piece("a\x1b]0;title\x07\x9b2J\r\tb\n")]), out, stoppable=False)
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


def test_without_commands_a_slash_is_a_question() -> None:
    model = FakeModel()
    new_chat(model, perform=None).loop(reader("/help"))
    assert model.asked[0][-1]["content"] == "/help"


def test_a_chat_in_which_a_turn_failed_remembers_it() -> None:
    good, bad = new_chat(), new_chat(FakeModel(answers=[SwarmError("busy")]))
    good.loop(reader("one"))
    bad.loop(reader("one", "two"))
    assert (good.has_failed, bad.has_failed) == (False, True)
