"""The directory of models as a shelf: what is whole on it, what is on its way, and how to take something off."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm.errors import BadModelFile, ModelNotFound
from swarm.files import partial_of
from swarm.store import origins
from swarm.store.fetching import file_sha256
from swarm.store.keeping import kept_models
from swarm.store.kept_pieces import journal_of, part_kept
from swarm.store.origins import Origin
from swarm.store.split_names import split_paths
from swarm.store.variants import label_of

_JOURNAL = re.compile(r"\.(.+\.gguf)\.pieces")


@dataclass(frozen=True)
class KeptModel:
    """A model that is whole: its files in order."""

    files: tuple[Path, ...]
    n_bytes: int
    origin: Origin | None  # of the first file

    @property
    def path(self) -> Path:
        return self.files[0]

    @property
    def label(self) -> str:
        """Its quant, as its name tells it."""
        return label_of(self.path.name)

    @property
    def name(self) -> str:
        """What a person may call it: by the table where it came from there, else as its file is called."""
        if self.origin is not None and self.origin.name:
            return f"{self.origin.name}:{self.label}" if self.label else self.origin.name
        return re.sub(r"-00001-of-\d{5}$", "", self.path.stem)


@dataclass(frozen=True)
class ComingModel:
    """A model of which a part has come."""

    files: tuple[Path, ...]
    kept_bytes: int
    n_bytes: int

    @property
    def name(self) -> str:
        return re.sub(r"-00001-of-\d{5}$", "", self.files[0].stem)


def kept(folder: Path) -> list[KeptModel]:
    """The whole models in `folder`, by name; it need not exist. A split one with a file missing is none."""
    found = (kept_at(path) for path in kept_models(folder))
    return [model for model in found if model is not None]


def kept_at(path: Path) -> KeptModel | None:
    """The whole model that a file belongs to, wherever it lies; None where a file of it is missing."""
    files = _files_of(path)
    if not all(file.is_file() for file in files):
        return None
    return KeptModel(files, sum(file.stat().st_size for file in files), origins.origin_of(files[0]))


def coming(folder: Path) -> list[ComingModel]:
    """What pulls that were cut off have left in `folder`."""
    if not folder.is_dir():
        return []
    names = [match[1] for path in sorted(folder.iterdir()) if (match := _JOURNAL.fullmatch(path.name))]
    found: dict[Path, list[Path]] = {}
    for name in names:
        found.setdefault(_files_of(folder / name)[0], []).append(folder / name)
    models = []
    for files in found.values():
        told = [part for path in files if (part := part_kept(path)) is not None]
        models.append(ComingModel(tuple(files), sum(part[0] for part in told), sum(part[1] for part in told)))
    return models


def take_off(files: Sequence[Path]) -> int:
    """Delete the files of a model, and what is noted of them; return the bytes that the disk gained. Raise OSError."""
    n_bytes = 0
    for path in files:
        for file in (path, partial_of(path)):
            if file.exists():
                n_bytes += file.stat().st_blocks * 512
                file.unlink()
        origins.forget(path)
        journal_of(path).unlink(missing_ok=True)
        path.with_name(f".{path.name}.lock").unlink(missing_ok=True)
    return n_bytes


def damaged(model: KeptModel, progress: Callable[[int, int], None]) -> list[Path] | None:
    """The files whose content is not what came; None where nothing is recorded to compare with."""
    wrong, done, compared = [], 0, False
    for path in model.files:
        origin = origins.origin_of(path)
        n_bytes = path.stat().st_size
        if origin is not None and origin.sha256:
            compared = True
            before = done
            if file_sha256(path, lambda n, before=before: progress(before + n, model.n_bytes)) != origin.sha256:  # type: ignore[misc]
                wrong.append(path)
        done += n_bytes
    return wrong if compared else None


def find(text: str, models: Sequence[KeptModel]) -> KeptModel | None:
    """The kept model that is called so, whatever case and punctuation; None when none or several are."""
    wanted = _plain(text)
    for names in (
        lambda model: (model.name, model.path.name, model.path.stem),
        lambda model: (model.name.split(":")[0],),
    ):
        fitting = [model for model in models if wanted in map(_plain, names(model))]
        if len(fitting) == 1:
            return fitting[0]
    return None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _files_of(path: Path) -> tuple[Path, ...]:
    try:
        return tuple(split_paths(path))
    except BadModelFile:
        return (path,)


def not_on_it(text: str, folder: Path) -> ModelNotFound:
    """The error for a model that is not on the shelf."""
    names = [model.name for model in kept(folder)] + [model.name for model in coming(folder)]
    there = f"there is {', '.join(names)}" if names else "there is none"
    return ModelNotFound(f"no model called {text[:80]!r} is in {folder}; {there}")
