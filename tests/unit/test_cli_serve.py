"""`swarm serve`: opens the API to other devices, shows the key once, closes it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.cli.main import main
from swarm.node.home import Home
from swarm.node.lan_access import read_access


def run(home: Path, *arguments: str) -> int:
    return main(["serve", "--home", str(home), *arguments])


def test_the_key_is_shown_once_and_another_one_replaces_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = Home(tmp_path)
    assert run(tmp_path) == 0 and "only programs on this device" in capsys.readouterr().out
    assert run(tmp_path, "--lan", "--origin", "https://chat.example") == 0
    key = capsys.readouterr().out.strip()
    assert read_access(home).opens_with(key) and read_access(home).origins == ("https://chat.example",)
    assert run(tmp_path, "--lan", "--port", "9000") == 0
    told = capsys.readouterr()
    assert told.out == "" and "shown before" in told.err
    assert read_access(home).opens_with(key) and read_access(home).port == 9000
    assert run(tmp_path, "--lan", "--new-key") == 0
    other = capsys.readouterr().out.strip()
    assert read_access(home).opens_with(other) and not read_access(home).opens_with(key)
    assert run(tmp_path, "--off") == 0 and not read_access(home).on
    capsys.readouterr()
    assert run(tmp_path, "--lan") == 0 and capsys.readouterr().out == ""
    assert read_access(home).opens_with(other)


def test_an_origin_may_be_let_in_on_this_device_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--origin", "app://obsidian.md") == 0
    told = capsys.readouterr()
    assert told.out == "" and "app://obsidian.md may use the API" in told.err
    access = read_access(Home(tmp_path))
    assert access.origins == ("app://obsidian.md",) and not access.on and not access.key_digest


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--lan", "--off"], "not both"),
        (["--port", "9000"], "need --lan"),
        (["--lan", "--certificate", "c.pem"], "https needs both"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    assert run(tmp_path, *arguments) == 2
    assert why in capsys.readouterr().err
    assert not read_access(Home(tmp_path)).on
