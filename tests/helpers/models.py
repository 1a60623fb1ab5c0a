"""Files that tests may need and cannot ship: a real model, and the test data. An absent one skips the test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarm import config
from swarm.store.fetching import SMOLLM2


def real_model() -> Path:
    """SmolLM2-135M-Instruct Q4_1: the file of SWARM_TEST_MODEL, or the default model if it was fetched before."""
    named = os.environ.get("SWARM_TEST_MODEL")
    path = Path(named) if named else config.load().models_path / SMOLLM2.file_name
    if not path.is_file():
        pytest.skip(f"no real model at {path}; `swarm show` fetches it, or set SWARM_TEST_MODEL")
    return path


def data_folder(*parts: str) -> Path:
    """A folder or file of the test data, which SWARM_TEST_DATA names."""
    root = os.environ.get("SWARM_TEST_DATA")
    if not root:
        pytest.skip("SWARM_TEST_DATA is not set")
    path = Path(root, *parts)
    if not path.exists():
        pytest.skip(f"SWARM_TEST_DATA has no {'/'.join(parts)}")
    return path
