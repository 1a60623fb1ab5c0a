"""Repositories of models for a stand-in hub: the same tiny model in several quants, whole and split."""

from __future__ import annotations

from pathlib import Path

from swarm.store.gguf import split_paths
from tests.helpers.tiny import make_tiny


def tiny_files(folder: Path, *quants: str, name: str = "Tiny", family: str = "llama") -> dict[str, bytes]:
    """File name -> content of a tiny model in these quants."""
    folder.mkdir(exist_ok=True)
    made = {quant: make_tiny(folder / f"{name}-{quant}.gguf", family, quant) for quant in quants}
    return {path.name: path.read_bytes() for path in made.values()}


def split_files(path: Path) -> dict[str, bytes]:
    """The files of a split model, of which `path` is the first."""
    return {file.name: file.read_bytes() for file in split_paths(path)}
