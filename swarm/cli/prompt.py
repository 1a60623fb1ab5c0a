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
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

PROMPT = "> "
CONTINUED = ". "
QUOTES = '"""'  # around a question of several lines
READ = "/read "
Reader = Callable[[], str]  # the next question; EOFError at the end


def terminal_reader(commands: Iterable[str], remembers: Callable[[], bool] = lambda: True) -> Reader:
    """A prompt with history, pasting of several lines, and completion of /commands; kept while `remembers` says so."""
    session = make_session(_history(config.user_data_dir() / "history", remembers), commands)
    return lambda: unquoted(session.prompt())


def is_open(text: str) -> bool:
    """Whether quotes were begun and not ended yet."""
    stripped = text.strip()
    return stripped.startswith(QUOTES) and not (len(stripped) >= 2 * len(QUOTES) and stripped.endswith(QUOTES))


def unquoted(text: str) -> str:
    """What stands between the quotes, as a question even where it begins with a slash; other text as it is."""
    stripped = text.strip()
    if not stripped.startswith(QUOTES):
        return text
    inner = stripped.removeprefix(QUOTES).removesuffix(QUOTES).strip("\n")
    return f"/{inner}" if inner.startswith("/") else inner


def make_session(history: History, commands: Iterable[str] = ()) -> PromptSession[str]:
    """The prompt itself; it takes the terminal's size anew whenever that changes."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.shortcuts import CompleteStyle

    return PromptSession(
        PROMPT,
        multiline=True,
        prompt_continuation=lambda width, line, wraps: " " * len(CONTINUED) if wraps else CONTINUED,
        history=history,
        key_bindings=_key_bindings(),
        completer=_completer(commands),
        complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,
        enable_suspend=True,
        enable_open_in_editor=True,
        tempfile_suffix=".md",
    )


def pipe_reader() -> Reader:
    """One question a line; a backslash at its end joins the next line to it, and quotes all lines up to the next."""

    def read() -> str:
        lines: list[str] = []
        while line := sys.stdin.readline(MAX_PIPED_PROMPT_BYTES):
            text = line.rstrip("\n")
            whole = "\n".join([*lines, text])
            if is_open(whole):
                lines.append(text)
            elif text.endswith("\\"):
                lines.append(text[:-1])
            else:
                return unquoted(whole)
        if lines:
            return unquoted("\n".join(lines))
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
        elif is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


def _completer(commands: Iterable[str]) -> Completer:
    """Names of commands after a slash, and of files after /read."""
    from prompt_toolkit.completion import Completer, PathCompleter, WordCompleter
    from prompt_toolkit.document import Document

    words, paths = WordCompleter([f"/{name}" for name in commands], sentence=True), PathCompleter(expanduser=True)

    class Completions(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
            text = document.text_before_cursor
            if text.startswith(READ):
                return paths.get_completions(Document(text.removeprefix(READ)), complete_event)
            return words.get_completions(document, complete_event) if text.startswith("/") else ()

    return Completions()


def _history(path: Path, remembers: Callable[[], bool] = lambda: True) -> History:
    """The history file, readable by its owner only; kept in memory where it cannot be written, or is not to be."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class Kept(FileHistory):
        def store_string(self, string: str) -> None:
            if remembers():
                super().store_string(string)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.open("ab").close()
    except OSError:
        return InMemoryHistory()
    return Kept(str(path))
