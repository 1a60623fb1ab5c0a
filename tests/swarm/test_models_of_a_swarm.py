"""`swarm list` and `swarm rm` where nodes run: what each device has, and how all are rid of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from swarm.store.fetching import file_sha256
from swarm.store.origins import Origin, record
from tests.helpers.nodes import ROOT, NodeProcess, Swarm, wait_for
from tests.helpers.tiny import make_tiny


def command(node: NodeProcess, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swarm", *words, "--home", str(node.home.root)],
        env={**os.environ, **node.env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_model_is_listed_where_it_lies_and_deleted_everywhere(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()  # not where all nodes of this machine would offer it
    path = make_tiny(tmp_path / "elsewhere" / "Tiny-Q8_0.gguf", "llama", "Q8_0")
    record(path, Origin("u/r", path.name, path.stat().st_size, file_sha256(path), "1" * 40))
    with Swarm(tmp_path, [10**8, 10**8, 10**8], model=path) as swarm:
        _, second, _ = swarm.nodes
        wait_for(lambda: swarm.model in second.get("/swarm/files")["names"], "the model to be known")  # type: ignore[operator]
        listed = command(second, "list").stdout
        assert "tiny-llama" in listed and "whole on 1 device: node0" in listed, listed
        shown = command(second, "show", "tiny-llama")
        assert "in the swarm" in shown.stdout or "the swarm, as model" in shown.stdout, shown.stderr
        second.post("/v1/completions", {"model": swarm.model, "prompt": "a", "max_tokens": 2})
        done = command(second, "rm", "tiny-llama", "--everywhere", "--yes")
        assert done.returncode == 0, done.stderr
        assert "and on node0" in done.stdout
        for node in swarm.nodes:
            wait_for(lambda node=node: not node.get("/swarm/files")["names"], "it to be gone")  # type: ignore[misc]
            assert not list((node.home.store / "models").iterdir())
        assert not path.exists(), "the device that had pulled it deletes its file"
        assert "no device here has a model called" in command(second, "rm", "tiny-llama", "--yes").stderr
