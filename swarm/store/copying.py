"""Models copied from elsewhere on this device, a stick or another disk, piece by piece: what was cut off goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil

from swarm.errors import DownloadError
from swarm.files import check_space, disk_errors, locked
from swarm.limits import MAX_IMPORT_DEPTH
from swarm.store import origins
from swarm.store.download import download
from swarm.store.fetching import StepProgress
from swarm.store.getting import REMEDY, Judge
from swarm.store.gguf import open_gguf
from swarm.store.keeping import kept_models
from swarm.store.kept_pieces import KeptPieces, part_kept
from swarm.store.origins import Origin
from swarm.store.split_names import split_paths

_PLUGGED = ("/media/", "/run/media/", "/mnt/")
_COPY_BYTES = 1 << 20


class FileSource:
    """A file, read by ranges as if it came from the network."""

    has_ranges = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes [start, end). Raise DownloadError when the file cannot be read or is shorter than it was."""
        try:
            with self._path.open("rb") as file:
                file.seek(start)
                while start < end:
                    data = file.read(min(_COPY_BYTES, end - start))
                    if not data:
                        raise DownloadError(f"{self._path} is shorter than it was")
                    start += len(data)
                    yield data
        except OSError as error:
            raise DownloadError(
                f"{self._path} cannot be read ({error.strerror or error}); is it still plugged in?"
            ) from error


def plugged_in() -> list[Path]:
    """Where sticks and further disks are mounted."""
    mounts = (Path(part.mountpoint) for part in psutil.disk_partitions(all=False))
    return sorted(path for path in mounts if str(path).startswith(_PLUGGED))


def models_in(sources: Iterable[Path], target: Path) -> list[Path]:
    """The models (the first file of each) that files and folders hold; not what lies in `target` already."""
    found: dict[Path, None] = {}
    for source in sources:
        paths = kept_below(source) if source.is_dir() else [files_of(source)[0]]
        found.update(dict.fromkeys(path for path in paths if path.parent.resolve() != target.resolve()))
    return list(found)


def kept_below(folder: Path) -> list[Path]:
    """The models in a folder and those below it, a few levels deep."""
    found: list[Path] = []
    for root, folders, _ in os.walk(folder, followlinks=False):
        depth = len(Path(root).relative_to(folder).parts)
        folders[:] = [] if depth >= MAX_IMPORT_DEPTH else sorted(name for name in folders if not name.startswith("."))
        found += kept_models(Path(root))
    return found


def copy_model(path: Path, folder: Path, judge: Judge, progress: StepProgress) -> Path:
    """Copy a model, all its files, into `folder`; return the first copy. It is looked at first.

    Raise ModelError for what is no model that runs, DiskFull before the first byte, DownloadError.
    """
    with open_gguf(path) as file:
        judge(file.metadata, file.tensors)
        n_bytes = file.size_bytes
    sources = files_of(path)
    with disk_errors(folder, "models_dir"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder / f".{path.name}.lock"
        with locked(lock, waiting=lambda: progress("Waiting for another swarm that is copying", 0, 0)):
            todo = [source for source in sources if not _is_copy(folder / source.name, source)]
            check_space(folder, sum(_missing(folder / source.name, source.stat().st_size) for source in todo), REMEDY)
            done = n_bytes - sum(source.stat().st_size for source in todo)
            for source in reversed(todo):  # the first file last: by it the model is found
                _copy(source, folder / source.name, lambda n, done=done: progress("Copying", done + n, n_bytes))  # type: ignore[misc]
                done += source.stat().st_size
    return folder / path.name


def files_of(path: Path) -> list[Path]:
    """All files of the model that `path` is one of."""
    return split_paths(path)


def _copy(source: Path, target: Path, told: Callable[[int], None]) -> None:
    if target.exists():
        raise DownloadError(f"another model is kept as {target}; give one of them another name")
    n_bytes, carried = source.stat().st_size, origins.origin_of(source)
    pieces = KeptPieces(target, n_bytes, _identity(source))
    try:
        told(pieces.kept_bytes)
        download(FileSource(source), pieces, lambda done, _: told(done), lambda why: None, streams=1)
        sha256 = pieces.sha256(lambda done, total: None)
        if carried is not None and carried.sha256 and carried.sha256 != sha256:
            pieces.discard()
            raise DownloadError(f"{source} is damaged: its SHA-256 is not the one that came with it")
        origins.record(target, carried or Origin(str(source.resolve()), source.name, n_bytes, sha256))
        pieces.publish()
    finally:
        pieces.close()


def _missing(target: Path, n_bytes: int) -> int:
    """Bytes that are still to be written, as far as an earlier run noted."""
    part = part_kept(target)
    return n_bytes - (part[0] if part is not None and part[1] == n_bytes else 0)


def _identity(source: Path) -> str:
    status = source.stat()
    return f"{source.resolve()} {status.st_size} {status.st_mtime_ns}"


def _is_copy(target: Path, source: Path) -> bool:
    """True where this very file was copied before."""
    origin, carried = origins.origin_of(target), origins.origin_of(source)
    if origin is None or origin.n_bytes != source.stat().st_size:
        return False
    return origin.place == str(source.resolve()) or (carried is not None and carried.sha256 == origin.sha256)
