"""What `swarm join` says where it runs."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from swarm.cli.live import Live


async def nothing() -> None:
    await asyncio.Event().wait()


def begun(monkeypatch: pytest.MonkeyPatch, *, over_ssh: bool, is_window: bool = True) -> None:
    """A node that begins to be shown, and ends."""
    me = SimpleNamespace(port=7417)
    node: Any = SimpleNamespace(
        name="attic", api_port=8642, transport=SimpleNamespace(me=me), starts_anew="", events=SimpleNamespace()
    )
    live = Live(node)
    monkeypatch.setattr(live, "_show_table", nothing)
    monkeypatch.setattr(live, "_show_lines", nothing)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_window)
    if over_ssh:
        monkeypatch.setenv("SSH_CONNECTION", "192.168.1.2 50000 192.168.1.5 22")
    else:
        monkeypatch.delenv("SSH_CONNECTION", raising=False)

    async def story() -> None:
        async with live:
            pass

    asyncio.run(story())


@pytest.mark.parametrize(("over_ssh", "is_window"), [(True, True), (False, True), (True, False)])
def test_a_window_that_ends_with_its_connection_is_told_how_the_node_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], over_ssh: bool, is_window: bool
) -> None:
    begun(monkeypatch, over_ssh=over_ssh, is_window=is_window)
    said = " ".join(capsys.readouterr().err.split())
    assert "attic takes part on port 7417" in said and "this device has left" in said
    assert ("`swarm join --background` stays" in said) == (over_ssh and is_window)
