"""The directory of a node."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from swarm.node.home import Home, Running


def test_a_nodes_file_is_its_users_alone_and_goes_with_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.make()
    running = Running(7, "ab", "attic", 7417, 8642, "secret")
    home.say_running(running)
    assert home.running() == running
    assert stat.S_IMODE(home.running_file.stat().st_mode) == 0o600
    home.say_stopped(8)
    assert home.running() == running, "another process's word does not count"
    home.say_stopped(7)
    assert home.running() is None
    for text in ("", "[]", '{"pid": 1}', "{" * 5000):
        home.running_file.write_text(text)
        assert home.running() is None


def test_what_was_kept_of_conversations_goes(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.forget_conversations()
    home.kept_kv.mkdir(parents=True)
    for name in ("a.kv", "owner.key", "written.json"):
        (home.kept_kv / name).write_text("x")
    (home.root / "peers.json").write_text("{}")
    home.forget_conversations()
    assert [path.name for path in home.root.rglob("*") if path.is_file()] == ["peers.json"]


def test_that_a_swarm_began_here_is_its_users_own_business_whatever_the_umask(tmp_path: Path) -> None:
    home = Home(tmp_path)
    before = os.umask(0)
    try:
        home.say_alone()
    finally:
        os.umask(before)
    assert home.alone_file.stat().st_mode & 0o777 == 0o600
