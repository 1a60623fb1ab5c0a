"""Where the questions come from: an editable prompt on a terminal, or the lines of a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from swarm import config
from swarm.limits import MAX_PIPED_PROMPT_BYTES

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

PROMPT = "> "
CONTINUED = ". "
Reader = Callable[[], str]  # the next question; EOFError at the end


def terminal_reader(commands: Iterable[str]) -> Reader:
    """A prompt with history, pasting of several lines, and completion of /commands."""
    session = make_session(_history(config.user_data_dir() / "history"), commands)
    return session.prompt


def make_session(history: History, commands: Iterable[str] = ()) -> PromptSession[str]:
    """The prompt itself; it takes the terminal's size anew whenever that changes."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.shortcuts import CompleteStyle

    return PromptSession(
        PROMPT,
        multiline=True,
        prompt_continuation=CONTINUED,
        history=history,
        key_bindings=_key_bindings(),
        completer=WordCompleter([f"/{name}" for name in commands], sentence=True),
        complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,
    )


def pipe_reader() -> Reader:
    """One question a line; a backslash at its end joins the next line to it."""

    def read() -> str:
        lines: list[str] = []
        while line := sys.stdin.readline(MAX_PIPED_PROMPT_BYTES):
            text = line.rstrip("\n")
            if not text.endswith("\\"):
                return "\n".join([*lines, text])
            lines.append(text[:-1])
        if lines:
            return "\n".join(lines)
        raise EOFError

    return read


def _key_bindings() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings

    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


def _history(path: Path) -> History:
    """The history file, readable by its owner only; kept in memory where it cannot be written."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.open("ab").close()
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))
