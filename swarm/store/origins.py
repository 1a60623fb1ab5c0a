"""Where a model file here came from: a small record beside it, by which it is known again and verified.

NAME.gguf   .NAME.gguf.origin   {"from": "USER/REPO", "commit": ..., "path": ..., "bytes": ..., "sha256": ...}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from swarm.files import replace_file
from swarm.limits import MAX_ORIGIN_BYTES
from swarm.store.hub_names import HubName, WebAddress
from swarm.store.model_table import NamedModel
from swarm.store.variants import label_of


@dataclass(frozen=True)
class Origin:
    """One file: `place` is a repository of the hub, an address of the web, or the path that it was copied from."""

    place: str
    path: str  # in the repository
    n_bytes: int
    sha256: str  # of its content, as it was when the file was put here
    commit: str = ""
    name: str = ""  # by which it was asked for, when that is one of the table

    def __str__(self) -> str:
        at = f" at {self.commit[:12]}" if self.commit else ""
        return f"{self.place}{at}"


Remote = NamedModel | HubName | WebAddress  # where a model may be fetched


def origin_of(path: Path) -> Origin | None:
    """What is recorded of a file; None when nothing is, or of another file than the one that is there now."""
    try:
        with _record_of(path).open("rb") as file:
            told = json.loads(file.read(MAX_ORIGIN_BYTES))
        origin = Origin(**{key: told[key] for key in Origin.__dataclass_fields__})
        same = path.stat().st_size == origin.n_bytes
    except (OSError, ValueError, KeyError, TypeError):
        return None
    texts = (origin.place, origin.path, origin.sha256, origin.commit, origin.name)
    return origin if same and all(isinstance(text, str) and text.isprintable() for text in texts) else None


def record(path: Path, origin: Origin) -> None:
    """Note where a file came from. Raise OSError."""
    replace_file(_record_of(path), json.dumps(asdict(origin)).encode())


def forget(path: Path) -> None:
    """The file is not there any more."""
    with suppress(OSError):
        _record_of(path).unlink(missing_ok=True)


def kept_from(remote: Remote, kept: Sequence[Path]) -> Path | None:
    """A kept file that came from where `remote` says; of several the first, None when none did."""
    for path in kept:
        origin = origin_of(path)
        if origin is not None and is_from(origin, remote):
            return path
    return None


def is_from(origin: Origin, remote: Remote) -> bool:
    """True for what was brought from where `remote` says."""
    if isinstance(remote, WebAddress):
        return origin.place == remote.url
    names = remote.repositories if isinstance(remote, NamedModel) else (remote,)
    in_repository = any(origin.place.lower() == name.repository.lower() for name in names)
    quant = remote.quant
    file = remote.file if isinstance(remote, HubName) else ""
    label = label_of(origin.path).replace("_", "")
    return (
        in_repository
        and (not quant or label == quant.upper().replace("_", ""))
        and (not file or file.lower() in (origin.path.lower(), origin.path.rpartition("/")[2].lower()))
    )


def _record_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.origin")
