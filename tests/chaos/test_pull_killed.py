"""A pull that is killed in the middle goes on where it was, in a process that knows nothing of the first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.limits import PIECE_BYTES
from swarm.store.kept_pieces import part_kept
from tests.helpers.hub import StandInHub
from tests.helpers.nodes import ROOT, wait_for
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A tiny model in a file of 24 MiB."""
    tiny = wide(TINY["llama"])
    path = write_tiny(tmp_path_factory.mktemp("model") / "Big-F32.gguf", tiny, make_weights(tiny), "F32")
    return path.read_bytes()


def test_after_kill_9_only_what_is_missing_is_asked_for(tmp_path: Path, content: bytes) -> None:
    assert len(content) > 3 * PIECE_BYTES, len(content)
    with StandInHub.of({"u/Big-GGUF": {"Big-F32.gguf": content}}, bytes_per_s=2e6) as hub:
        env = {**os.environ, **hub.env(HOME=str(tmp_path), SWARM_MODELS_DIR=str(tmp_path / "models"))}
        command = [sys.executable, "-m", "swarm", "pull", "u/Big-GGUF:F32"]
        target = tmp_path / "models" / "Big-F32.gguf"
        first = subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: (part_kept(target) or (0,))[0] > len(content) // 2, "half of it to come")
        first.kill()
        first.wait()
        wait_for(lambda: hub.n_sending == 0, "the hub to see that nobody listens")
        kept = part_kept(target)
        assert kept is not None and not target.exists()
        hub.faults.bytes_per_s = 0.0
        hub.sent.clear()
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        assert "is here and verified" in done.stdout
        assert target.read_bytes() == content
        assert hub.sent_bytes() <= len(content) - kept[0] + PIECE_BYTES, "not even the header comes again"
        assert hub.sent_twice() == 0, "no byte twice in one run"
