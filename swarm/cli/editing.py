"""Text that goes into a question from elsewhere: a file, or the user's editor."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from swarm import config
from swarm.errors import ConfigError
from swarm.limits import MAX_QUESTION_FILE_BYTES
from swarm.units import size_text

EDITORS = ("nano", "vim", "vi")  # where none is set, the first that is there


def read_text(name: str) -> tuple[str, str]:
    """The name and the text of a file; ConfigError when it is none, or too large for a question."""
    path = Path(name).expanduser()
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_QUESTION_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{name} cannot be read ({error.strerror})") from error
    if len(raw) > MAX_QUESTION_FILE_BYTES:
        raise ConfigError(f"{name} is larger than {size_text(MAX_QUESTION_FILE_BYTES)}; a question cannot hold it")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ConfigError(f"{name} is not a text file")
    return path.name, text.replace("\r\n", "\n")


def edited(text: str) -> str:
    """What the user makes of `text` in an editor; ConfigError when there is none, or it fails."""
    if not sys.stdin.isatty():
        raise ConfigError("an editor needs a terminal")
    with tempfile.TemporaryDirectory(prefix="swarm-") as folder:  # for its owner only
        path = Path(folder) / "question.md"
        path.write_text(text, encoding="utf-8")
        command = [*_editor(), str(path)]
        try:
            done = subprocess.run(command, check=False)
        except OSError as error:
            raise ConfigError(f"{command[0]} does not start ({error.strerror}); set EDITOR to another") from error
        if done.returncode:
            raise ConfigError(f"{command[0]} failed; the question stays as it is")
        return read_text(str(path))[1].rstrip("\n")


def _editor() -> list[str]:
    try:
        words = shlex.split(config.editor())
    except ValueError:
        words = []
    found = words or [name for name in EDITORS if shutil.which(name)][:1]
    if not found:
        raise ConfigError("there is no editor; set EDITOR to the name of one")
    return found
