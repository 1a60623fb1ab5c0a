"""Flags of a node: typed, kept, and typed again by the service."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from swarm.cli import device_flags
from swarm.cli.device_flags import Start
from swarm.node.home import Home


def typed(*words: str) -> Start:
    parser = argparse.ArgumentParser()
    device_flags.add(parser)
    return device_flags.typed(parser.parse_args(words))


def test_what_is_typed_comes_out_as_words_again() -> None:
    words = ["--name", "attic", "--memory", "6GiB", "--api-port", "9000", "--peer", "pi", "--no-discovery"]
    start = typed(*words)
    assert typed(*start.words) == start
    assert start.words == words
    assert typed().words == []


def test_flags_of_the_first_start_are_remembered(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert device_flags.remembered(home) == Start()
    device_flags.remember(home, typed("--memory", "6GiB", "--home", str(tmp_path), "--peer", "pi"))
    device_flags.remember(home, typed())
    assert device_flags.remembered(home) == Start({"memory": "6GiB"}, ("pi",))
    device_flags.remember(home, typed("--memory", "4GiB", "--threads", "2", "--peer", "nas"))
    assert device_flags.remembered(home) == Start({"memory": "4GiB", "threads": 2}, ("nas",))


def test_nothing_is_written_where_nothing_is_new(tmp_path: Path) -> None:
    home = Home(tmp_path)
    device_flags.remember(home, typed())
    assert not home.flags_file.exists(), "an SD card is not worn for nothing"


def test_a_damaged_file_is_no_flags(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for text in ("", "[]", '{"settings": 3, "peers": {}}', '{"settings": {"memory": [1], "evil": "x"}, "peers": [2]}'):
        home.flags_file.write_text(text)
        assert device_flags.remembered(home) == Start()


def test_the_newer_flag_wins_and_a_home_is_not_shown() -> None:
    both = typed("--memory", "2GiB").over(Start({"memory": "6GiB", "name": "attic room", "home": "/x"}))
    assert str(both) == "--name 'attic room' --memory 2GiB"


def test_a_node_comes_back_with_the_flags_that_it_had(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = Home(tmp_path)
    device_flags.remember(home, typed("--memory", "6GiB", "--name", "attic", "--peer", "pi", "--no-discovery"))
    start = device_flags.with_settings_of_before(typed("--memory", "4GiB"), home)
    assert start == Start({"memory": "4GiB", "name": "attic"})
    assert "as at the last start: --name attic (" in capsys.readouterr().err
    assert device_flags.with_settings_of_before(start, home) == start
    assert capsys.readouterr().err == ""
