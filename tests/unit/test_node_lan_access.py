"""Whether other devices may ask: kept in the node's home, and nothing is open where that is damaged."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from swarm.node.home import Home
from swarm.node.lan_access import LanAccess, digest, keep_access, new_key, read_access


def test_what_was_decided_is_read_again_and_only_its_user_may(tmp_path: Path) -> None:
    home, access = Home(tmp_path), LanAccess(True, 99, digest("k"), ("attic",), ("*",), "/c", "/k")
    assert read_access(home) == LanAccess() and not LanAccess().on
    keep_access(home, access)
    assert read_access(home) == access
    assert stat.S_IMODE((tmp_path / "lan.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "[]", "{", '{"on": 1}', '{"on": true, "hosts": "x"}', '{"port": "x"}'])
def test_a_damaged_file_opens_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "lan.json").write_text(text)
    assert not read_access(Home(tmp_path)).on


def test_only_the_key_opens_and_the_key_is_not_kept(tmp_path: Path) -> None:
    key = new_key()
    access = LanAccess(True, key_digest=digest(key))
    keep_access(Home(tmp_path), access)
    assert access.opens_with(key) and not access.opens_with(new_key()) and not access.opens_with("")
    assert key not in (tmp_path / "lan.json").read_text() and len(key) > 32
    assert not LanAccess(True).opens_with("")
