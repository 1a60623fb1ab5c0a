"""Fixtures for every test: keep it small."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests.helpers import models

settings.register_profile("untimed", deadline=None)  # a test that fails on a busy machine teaches nothing
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sim-seed", type=int, help="play only this seed of the swarm simulator, and show every event")


@pytest.fixture(scope="session")
def real_model() -> Path:
    """The path of SmolLM2-135M-Instruct Q4_1; skips where it is not at hand."""
    return models.real_model()


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory of the test's own, and no SWARM_* setting from outside: what a newcomer has."""
    import os

    for name in list(os.environ):
        if name.startswith("SWARM_") and not name.startswith("SWARM_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path
