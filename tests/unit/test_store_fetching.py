"""Downloads: what is fetched, verified and put in place, and what a failure prints."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from blake3 import blake3

from swarm.errors import DiskFull, DownloadError, ResourceError
from swarm.store.fetching import SMOLLM2, Download, fetch, file_sha256, is_looked_at

CONTENT = b"GGUF" + bytes(range(256)) * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass(frozen=True)
class FakeSource:
    """A source that leaves `content`, or fails with `error`; it counts its calls in the file `calls`."""

    calls: Path
    content: bytes = CONTENT
    error: Exception | None = None
    packed_bytes: int = 0

    def __str__(self) -> str:
        return f"source {self.calls.name}"

    def fetch(self, staging: Path, sha256: str, progress: Callable[[int, int], None]) -> Path:
        with self.calls.open("a") as file:
            file.write("x")
        if self.error:
            raise self.error
        path = staging / "arrived"
        path.write_bytes(self.content)
        progress(len(self.content), len(self.content))
        return path


def model_from(*sources: FakeSource) -> Download:
    return Download("tiny", "Tiny.gguf", len(CONTENT), SHA256, sources)


def calls(source: FakeSource) -> int:
    return len(source.calls.read_text()) if source.calls.exists() else 0


def test_a_model_is_fetched_once_and_then_found(tmp_path: Path) -> None:
    source = FakeSource(tmp_path / "a")
    for _ in range(2):
        path = fetch(model_from(source), tmp_path / "models")
        assert path == tmp_path / "models" / "Tiny.gguf"
        assert path.read_bytes() == CONTENT
    assert calls(source) == 1


def test_a_file_that_the_disk_has_damaged_is_fetched_again(tmp_path: Path) -> None:
    source = FakeSource(tmp_path / "a")
    model = replace(model_from(source), blake3=blake3(CONTENT).hexdigest())
    path = fetch(model, tmp_path / "models")
    damaged = bytearray(CONTENT)
    damaged[5000] ^= 1
    path.write_bytes(damaged)
    said: list[str] = []
    assert fetch(model, tmp_path / "models", lambda what, done, total: said.append(what)).read_bytes() == CONTENT
    assert calls(source) == 2 and "was damaged" in said[0]
    assert fetch(model, tmp_path / "models") == path and calls(source) == 2


def test_a_file_is_known_as_looked_at_until_it_is_written_to(tmp_path: Path) -> None:
    model = replace(model_from(FakeSource(tmp_path / "a")), blake3=blake3(CONTENT).hexdigest())
    path = fetch(model, tmp_path / "models")
    assert not is_looked_at(path), "it was verified while it came, and not since it has its name"
    assert fetch(model, tmp_path / "models") == path and is_looked_at(path)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert not is_looked_at(path)
    unpinned = replace(model, name="other", file_name="Other.gguf", blake3="")
    for _ in range(2):
        assert not is_looked_at(fetch(unpinned, tmp_path / "models"))


def test_the_staging_directory_is_gone_afterwards(tmp_path: Path) -> None:
    fetch(model_from(FakeSource(tmp_path / "a")), tmp_path / "models")
    assert {path.name for path in (tmp_path / "models").iterdir()} == {
        "Tiny.gguf",
        ".Tiny.gguf.lock",
        ".Tiny.gguf.origin",
    }


def test_the_next_source_is_asked_when_one_does_not_answer_or_brings_something_else(tmp_path: Path) -> None:
    offline = FakeSource(tmp_path / "offline", error=DownloadError("offline"))
    wrong = FakeSource(tmp_path / "wrong", content=b"GGUF but another")
    good = FakeSource(tmp_path / "good")
    assert fetch(model_from(offline, wrong, good), tmp_path).read_bytes() == CONTENT
    assert [calls(source) for source in (offline, wrong, good)] == [1, 1, 1]


def test_when_no_source_delivers_one_line_names_each_and_why(tmp_path: Path) -> None:
    offline = FakeSource(tmp_path / "offline", error=DownloadError("it cannot be reached"))
    wrong = FakeSource(tmp_path / "wrong", content=b"other")
    with pytest.raises(DownloadError) as caught:
        fetch(model_from(offline, wrong), tmp_path / "models")
    text = str(caught.value)
    assert "source offline: it cannot be reached" in text
    assert "source wrong: SHA-256 is d9298a10d1b0..." in text
    assert "\n" not in text
    assert not (tmp_path / "models" / "Tiny.gguf").exists()


def test_a_file_of_another_length_is_not_taken_for_the_model(tmp_path: Path) -> None:
    (tmp_path / "Tiny.gguf").write_bytes(CONTENT[:-1])
    assert fetch(model_from(FakeSource(tmp_path / "a")), tmp_path).read_bytes() == CONTENT


def test_progress_tells_of_downloading_and_verifying(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    fetch(model_from(FakeSource(tmp_path / "a")), tmp_path, lambda *what: told.append(what))
    assert told == [("Downloading", len(CONTENT), len(CONTENT)), ("Verifying", len(CONTENT), len(CONTENT))]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_is_said_so(tmp_path: Path, code: int) -> None:
    source = FakeSource(tmp_path / "a", error=OSError(code, os.strerror(code)))
    with pytest.raises(DiskFull, match="is full; free some space, or set models_dir"):
        fetch(model_from(source), tmp_path)


def test_a_disk_with_too_little_space_is_told_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**6, 10**6))
    source = FakeSource(tmp_path / "a")
    with pytest.raises(DiskFull, match="has 0 B to spare and 25 KiB are needed; free some space, or set models_dir"):
        fetch(model_from(source), tmp_path)
    assert calls(source) == 0


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="set models_dir to a directory you can write"):
        fetch(model_from(FakeSource(tmp_path / "a")), tmp_path / "file" / "models")


def _fetch_when_told(folder: Path, source: FakeSource, go: Event) -> None:
    go.wait()
    fetch(model_from(source), folder)


def test_processes_that_start_at_once_download_once(tmp_path: Path) -> None:
    source = FakeSource(tmp_path / "a")
    context = multiprocessing.get_context("spawn")
    go = context.Event()
    workers = [context.Process(target=_fetch_when_told, args=(tmp_path / "m", source, go)) for _ in range(4)]
    for worker in workers:
        worker.start()
    go.set()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert calls(source) == 1


def test_the_default_model_has_the_hash_that_the_catalog_says(real_model: Path) -> None:
    assert real_model.stat().st_size == SMOLLM2.size_bytes
    assert file_sha256(real_model) == SMOLLM2.sha256
