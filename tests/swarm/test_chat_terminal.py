"""`swarm chat` with the real model in a real terminal, as a person uses it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.store.fetching import SMOLLM2
from tests.helpers.tmux import Terminal

ROOT = Path(__file__).parents[2]


@pytest.fixture
def chat(real_model: Path, tmp_path: Path) -> Iterator[Terminal]:
    (tmp_path / SMOLLM2.file_name).symlink_to(real_model)
    env = {"HOME": str(tmp_path), "SWARM_MODELS_DIR": str(tmp_path), "PYTHONPATH": str(ROOT), "NO_COLOR": ""}
    command = [sys.executable, "-m", "swarm", "chat", "--temp", "0", "--max-tokens", "400"]
    with Terminal(tmp_path, command, env=env) as terminal:
        terminal.wait_for("\n>")
        yield terminal


def ask(chat: Terminal, question: str) -> str:
    """Type a question; return the screen when the answer is there and the next prompt too."""
    before = chat.screen(history=True).count("first after")
    chat.type(question)
    chat.press("Enter")
    return chat.wait_for(lambda screen: screen.count("first after") > before and screen.rstrip().endswith("\n>"))


def test_a_question_is_answered_with_a_line_of_figures(chat: Terminal) -> None:
    screen = ask(chat, "What is 2+2?")
    assert "The answer to this classic math problem is 4." in screen
    assert "[11 tokens, " in screen


def test_ctrl_c_stops_an_answer_while_it_streams_and_ctrl_d_leaves(chat: Terminal) -> None:
    chat.type("Tell me a long story about a robot.")
    chat.press("Enter")
    begun = chat.wait_for("There's a robot")
    assert "first after" not in begun, "the answer came all at once"
    chat.press("C-c")
    screen = chat.wait_for("[stopped; ")
    assert "Traceback" not in screen and "^C" not in screen
    ask(chat, "What is 2+2?")
    chat.press("C-d")
    chat.wait_for("exit code 0")


def test_undo_takes_back_a_turn_and_stats_count_what_is_left(chat: Terminal) -> None:
    ask(chat, "What is 2+2?")
    ask(chat, "Suggest a name for my cat.")
    chat.type("/undo")
    chat.press("Enter")
    chat.wait_for("the last question and answer are gone; 1 turn left")
    chat.type("/stats")
    chat.press("Enter")
    screen = chat.wait_for("in all")
    assert "talk       1 turn" in screen and "of 8,192 tokens" in screen


def test_the_chat_goes_on_after_a_resize(chat: Terminal) -> None:
    chat.type("What is 2+")
    chat.resize(40, 12)
    chat.type("2?")
    chat.press("Enter")
    assert "> What is 2+2?" in chat.wait_for("first after")
    chat.resize(120, 40)
    assert "classic math problem" in ask(chat, "What is 2+2?")


def test_a_pasted_text_of_several_lines_is_one_question(chat: Terminal) -> None:
    chat.paste("Repeat after me:\none\ntwo\n")
    chat.wait_for(". two")
    assert "first after" not in chat.screen()
    chat.press("Enter")
    chat.wait_for("first after")
    chat.type("/stats")
    chat.press("Enter")
    assert "talk       1 turn" in chat.wait_for("in all")


def test_history_comes_back_in_the_next_chat(chat: Terminal, tmp_path: Path) -> None:
    ask(chat, "What is 2+2?")
    assert (tmp_path / ".local/share/swarm/history").read_text().endswith("+What is 2+2?\n")
    chat.press("Up")
    chat.wait_for(lambda screen: screen.count("> What is 2+2?") == 2)


def test_saying_exit_leaves(chat: Terminal) -> None:
    chat.type("/exit")
    chat.press("Enter")
    assert "exit code 0" in chat.wait_for("exit code")
