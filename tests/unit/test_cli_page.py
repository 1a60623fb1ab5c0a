"""`swarm page` shows an address that lets one browser in, and opens it where there is a screen."""

from __future__ import annotations

import argparse
import webbrowser
from types import SimpleNamespace

import pytest

from swarm.cli import local, page


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser was given."""
    addresses: list[str] = []
    node = SimpleNamespace(api_port=8642, post=lambda path, body: {"code": "abc", "seconds": 60.0})
    monkeypatch.setattr(local, "need", lambda settings: node)
    monkeypatch.setattr(webbrowser, "open", lambda address: addresses.append(address) or True)
    monkeypatch.setenv("DISPLAY", ":0")
    return addresses


ADDRESS = "http://127.0.0.1:8642/#enter=abc"


def test_the_address_is_shown_and_opened(taken: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert page.run(argparse.Namespace(no_open=False, home=None)) == 0
    assert capsys.readouterr().out == ADDRESS + "\n" and taken == [ADDRESS]


def test_nothing_is_opened_where_nobody_could_see_it(
    taken: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert page.run(argparse.Namespace(no_open=True, home=None)) == 0
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert page.run(argparse.Namespace(no_open=False, home=None)) == 0
    assert taken == [] and capsys.readouterr().out == f"{ADDRESS}\n" * 2


def test_a_browser_that_does_not_open_is_told(
    taken: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    assert page.run(argparse.Namespace(no_open=False, home=None)) == 0
    assert "open the address" in capsys.readouterr().err
