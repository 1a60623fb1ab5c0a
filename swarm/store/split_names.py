"""Names of models that are published in several files: NAME-00001-of-0000N.gguf and so on."""

from __future__ import annotations

import re
from pathlib import Path

from swarm.errors import BadModelFile
from swarm.limits import MAX_SPLIT_FILES

_SPLIT_NAME = re.compile(r"(?P<prefix>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def is_split(path: Path) -> bool:
    """True for a name that only one of several files has."""
    return _SPLIT_NAME.fullmatch(path.name) is not None


def split_paths(path: Path) -> list[Path]:
    """The files of the model to which `path` belongs, in order; they need not exist."""
    match = _SPLIT_NAME.fullmatch(path.name)
    if match is None:
        return [path]
    number, count = int(match["number"]), int(match["count"])
    if not 1 <= number <= count <= MAX_SPLIT_FILES:
        raise BadModelFile(f"{path}: the name says file {number} of {count}; a split model has 1 to {MAX_SPLIT_FILES}")
    return [path.with_name(f"{match['prefix']}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1)]
