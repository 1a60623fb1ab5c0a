"""Plans of pulls, made from files on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

from swarm.store.gguf import open_gguf
from swarm.store.importing import model_name
from swarm.store.pull_plan import PullPlan, plan_pull
from swarm.store.variants import RepoFile


def plan_of(path: Path, repository: str = "u/Tiny-GGUF") -> PullPlan:
    """The plan by which devices bring the model of a file together."""
    with open_gguf(path) as file:
        listed = tuple(
            RepoFile(part.name, part.stat().st_size, hashlib.sha256(part.read_bytes()).hexdigest())
            for part in file.split_files
        )
        return plan_pull(
            model_name(file.metadata),
            repository,
            "1" * 40,
            listed,
            header_bytes=file.header_bytes,
            tensors=file.tensors,
        )
