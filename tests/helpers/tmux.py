"""A real terminal to type into and to look at: tmux on a socket of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import pytest


class Terminal:
    """A program in a terminal of some size; use it as a context manager."""

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        *,
        columns: int = 80,
        rows: int = 24,
        env: dict[str, str] | None = None,
    ) -> None:
        if shutil.which("tmux") is None:
            pytest.skip("tmux is not installed")
        self._socket = folder / "tmux"
        settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in (env or {}).items())
        size = ("-x", str(columns), "-y", str(rows))
        # The shell stays after the program, so that its last words and exit code can be read.
        line = f"env {settings} {shlex.join(command)}; echo exit code $?; exec sleep 600"
        self._tmux("-f", os.devnull, "new-session", "-d", "-s", "t", *size, line)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tmux("kill-server")

    def screen(self, history: bool = False) -> str:
        """What is on the screen, and what has scrolled off it; lines that the terminal wrapped are joined."""
        return self._tmux("capture-pane", "-p", "-J", "-t", "t", *(("-S", "-") if history else ()))

    def type(self, text: str) -> None:
        """Type text as a person does, key by key."""
        self._tmux("send-keys", "-t", "t", "-l", text)

    def press(self, *keys: str) -> None:
        """Press named keys: Enter, C-c, C-d, M-Enter, Up ..."""
        self._tmux("send-keys", "-t", "t", *keys)

    def paste(self, text: str) -> None:
        """Paste as a terminal does, in brackets where the program asked for them."""
        self._tmux("set-buffer", "--", text)
        self._tmux("paste-buffer", "-p", "-t", "t")

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-t", "t", "-x", str(columns), "-y", str(rows))

    def wait_for(self, wanted: str | Callable[[str], bool], seconds: float = 60.0) -> str:
        """Wait until the screen (with what scrolled off) holds `wanted`; return it, or fail showing it."""
        holds = wanted if callable(wanted) else lambda screen: wanted in screen
        deadline = time.monotonic() + seconds
        while not holds(screen := self.screen(history=True)):
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {wanted!r}; the screen is:\n{screen}"
            time.sleep(0.02)
        return screen

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", str(self._socket), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
