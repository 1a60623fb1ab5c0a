"""Logs: shown, followed, and kept short."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.cli import logs
from swarm.cli import main as cli
from swarm.node.home import Home


def test_the_last_lines_are_shown(own_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Home(tmp_path).log_file.write_text("one\ntwo\nthr\x1bee\n")
    assert cli.main(["logs", "-n", "2", "--home", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "two\nthree\n"


def test_where_there_is_none_it_is_told_why(own_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["logs", "--home", str(tmp_path)]) == 2
    assert "no node has run here in the background" in capsys.readouterr().err


def test_a_log_is_followed_into_its_successor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "node.log"
    path.write_text("old\n")
    turns = iter((lambda: _add(path, "more\n"), lambda: _begin_anew(path), lambda: _add(path, "end\n")))

    def next_turn(seconds: float) -> None:
        turn = next(turns, None)
        if turn is None:
            raise KeyboardInterrupt
        turn()

    monkeypatch.setattr(logs.time, "sleep", next_turn)
    out = io.StringIO()
    with path.open() as file, pytest.raises(KeyboardInterrupt):
        logs.follow_file(file, path, out)
    assert out.getvalue() == "old\nmore\nnew\nend\n"


def _add(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def _begin_anew(path: Path) -> None:
    logs.set_aside(path)
    path.write_text("new\n")


def test_a_process_whose_log_grew_long_goes_on_in_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    program = (
        "import os, sys; from pathlib import Path; from swarm.cli import logs\n"
        "logs.MAX_LOG_BYTES = 3\n"
        f"path = Path({str(path)!r})\n"
        "os.write(2, b'old\\n'); logs.keep_short(path); os.write(2, b'new\\n'); os.write(1, b'too\\n')\n"
        "logs.MAX_LOG_BYTES = 99; logs.keep_short(path); os.write(2, b'end\\n')\n"
    )
    with path.open("wb") as log:
        subprocess.run([sys.executable, "-c", program], check=True, stdout=log, stderr=log, timeout=60)
    assert path.read_text() == "new\ntoo\nend\n"
    assert path.with_name("node.log.1").read_text() == "old\n"


def test_a_window_is_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    path.write_text("x" * (logs.MAX_LOG_BYTES + 1))
    logs.keep_short(path)
    assert os.listdir(tmp_path) == ["node.log"], "standard error is not this file"
