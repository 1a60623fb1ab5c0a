"""How a device comes into a swarm, and back into its own."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from swarm.cli import entry
from swarm.errors import ConfigError, SwarmKeyError
from swarm.net.keys import SwarmKey, new_swarm_key, written
from swarm.node.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make()
    return home


@pytest.fixture
def let_in(monkeypatch: pytest.MonkeyPatch) -> SwarmKey:
    """Every code is right, and gives this key."""
    key = new_swarm_key()

    def accept(home: Home, name: str, code: str, peers: list[str]) -> str:
        entry.keep(home, key)
        return "10.0.0.1:7417"

    monkeypatch.setattr(entry, "accept", accept)
    return key


def typed(code: str | None = None, key: str | None = None) -> argparse.Namespace:
    return argparse.Namespace(code=code, invite=None, key=key, peer=[])


def test_without_a_code_a_swarm_begins_and_is_come_back_to(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.get_key(home, "attic", typed()) == []
    key = home.keys.swarm_key()
    assert key is not None and home.is_alone
    assert entry.get_key(home, "attic", typed()) == []
    assert home.keys.swarm_key() == key
    assert capsys.readouterr().err.count("begins a new swarm") == 1


def test_a_swarm_that_nobody_ever_joined_is_left_without_a_word(
    home: Home, let_in: SwarmKey, capsys: pytest.CaptureFixture[str]
) -> None:
    entry.get_key(home, "attic", typed())
    assert entry.get_key(home, "attic", typed(code="7-482-915")) == ["10.0.0.1:7417"]
    assert home.keys.swarm_key() == let_in and not home.is_alone
    assert "forget" not in capsys.readouterr().err


def test_a_wrong_code_leaves_the_swarm_of_one_as_it_was(home: Home) -> None:
    entry.get_key(home, "attic", typed())
    key = home.keys.swarm_key()
    with pytest.raises(SwarmKeyError):
        entry.get_key(home, "attic", typed(code="no code"))
    assert home.keys.swarm_key() == key and home.is_alone


def test_a_code_on_a_device_that_is_in_comes_back_and_is_not_spent(
    home: Home, let_in: SwarmKey, capsys: pytest.CaptureFixture[str]
) -> None:
    entry.get_key(home, "attic", typed())
    home.keep_addresses({"ab": "10.0.0.2:7417"})  # somebody joined
    key = home.keys.swarm_key()
    assert entry.get_key(home, "attic", typed(code="4-208-610")) == []
    assert home.keys.swarm_key() == key
    said = capsys.readouterr().err
    assert "comes back to it; the code is not needed, and still good" in said and "swarm forget" in said


def test_another_swarms_key_is_refused_where_others_are(home: Home) -> None:
    mine = new_swarm_key()
    entry.get_key(home, "attic", typed(key=written(mine)))
    assert entry.get_key(home, "attic", typed(key=written(mine))) == []
    with pytest.raises(ConfigError, match="swarm forget"):
        entry.get_key(home, "attic", typed(key=written(new_swarm_key())))
    assert home.keys.swarm_key() == mine


def test_a_code_and_a_key_are_one_too_many(home: Home) -> None:
    with pytest.raises(ConfigError, match="not both"):
        entry.get_key(home, "attic", typed(code="1-234-567", key="x"))


def test_a_peer_is_called_at_the_usual_port() -> None:
    assert entry.with_port("pi", 7419) == "pi:7419"
    assert entry.with_port("pi:1", 7419) == "pi:1"
    assert entry.with_port("fe80::1", 7419) == "[fe80::1]:7419"
    assert entry.with_port("[fe80::1]:5", 7419) == "[fe80::1]:5"
