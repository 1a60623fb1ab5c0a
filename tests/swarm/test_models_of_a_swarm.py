"""`swarm list` and `swarm rm` where nodes run: what each device has, and how all are rid of it."""

from __future__ import annotations

import json
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
            kept = node.home.store / "models"
            wait_for(lambda kept=kept: not list(kept.iterdir()), "its files to be gone")  # type: ignore[misc]
        assert not path.exists(), "the device that had pulled it deletes its file"
        assert "no device here has a model called" in command(second, "rm", "tiny-llama", "--yes").stderr


def test_a_model_has_one_name_for_every_command_on_every_device(tmp_path: Path) -> None:
    """The file is called otherwise than the swarm calls the model, and lies on the first device only."""
    (tmp_path / "elsewhere").mkdir()
    path = make_tiny(tmp_path / "elsewhere" / "kitchen.gguf", "llama", "Q8_0")
    size = ("--prompt", "32", "--gen", "4", "--repeat", "1", "--json")
    with Swarm(tmp_path, [10**8, 10**8], model=path) as swarm:
        first, second = swarm.nodes
        wait_for(lambda: swarm.model in second.get("/swarm/files")["names"], "the model to be known")  # type: ignore[operator]
        for name in ("tiny-llama", "kitchen", swarm.model[:8]):
            done = command(second, "bench", name, *size)
            assert done.returncode == 0, done.stderr
            told = json.loads(done.stdout)
            assert told["model"] == "tiny-llama" and told["prompt_tokens"] == 32 and told["decode_tokens_per_s"] > 0
            assert set(told["devices"]) <= {"node0", "node1"} and told["devices"]
        here = command(first, "bench", "tiny-llama", *size)
        assert json.loads(here.stdout)["model"] == "kitchen.gguf", "its file is here: this device alone is measured"
        asked = command(first, "bench", "tiny-llama", "--swarm", *size)
        assert json.loads(asked.stdout)["devices"], asked.stderr
        refused = command(second, "quantize", "kitchen", "Q4_0")
        assert refused.returncode == 1 and refused.stderr.count("\n") == 1
        assert "tiny-llama is in the swarm, but this command needs its file" in refused.stderr
        assert "damaged" not in command(first, "verify", "tiny-llama").stdout
        assert f"({path})" in command(first, "verify", "tiny-llama").stdout
        checked = command(second, "verify", "tiny-llama")
        assert checked.returncode == 0 and "chunks for the swarm are right" in checked.stdout, checked.stderr
        for words in (("bench", "kitchne"), ("quantize", "kitchne", "Q4_0"), ("run", "kitchne", "a")):
            assert "no device here has a model called 'kitchne'" in command(second, *words).stderr
        assert command(first, "rm", "tiny-llama", "--yes").returncode == 0 and path.exists(), "not in its own directory"
