"""From a name to a file: what is fetched, verified, kept, and what a failure prints."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import shutil
import socket
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from swarm import config
from swarm.errors import DiskFull, DownloadError, ModelNotFound, ResourceError
from swarm.store import catalog

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


def model_from(*sources: FakeSource) -> catalog.CatalogModel:
    return catalog.CatalogModel("tiny", "a tiny one", "Tiny.gguf", len(CONTENT), SHA256, sources)


def calls(source: FakeSource) -> int:
    return len(source.calls.read_text()) if source.calls.exists() else 0


def test_a_model_is_fetched_once_and_then_found(tmp_path: Path) -> None:
    source = FakeSource(tmp_path / "a")
    for _ in range(2):
        path = catalog.fetch(model_from(source), tmp_path / "models")
        assert path == tmp_path / "models" / "Tiny.gguf"
        assert path.read_bytes() == CONTENT
    assert calls(source) == 1


def test_the_staging_directory_is_gone_afterwards(tmp_path: Path) -> None:
    catalog.fetch(model_from(FakeSource(tmp_path / "a")), tmp_path / "models")
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"Tiny.gguf", ".Tiny.gguf.lock"}


def test_the_next_source_is_asked_when_one_does_not_answer_or_brings_something_else(tmp_path: Path) -> None:
    offline = FakeSource(tmp_path / "offline", error=DownloadError("offline"))
    wrong = FakeSource(tmp_path / "wrong", content=b"GGUF but another")
    good = FakeSource(tmp_path / "good")
    assert catalog.fetch(model_from(offline, wrong, good), tmp_path).read_bytes() == CONTENT
    assert [calls(source) for source in (offline, wrong, good)] == [1, 1, 1]


def test_when_no_source_delivers_one_line_names_each_and_why(tmp_path: Path) -> None:
    offline = FakeSource(tmp_path / "offline", error=DownloadError("it cannot be reached"))
    wrong = FakeSource(tmp_path / "wrong", content=b"other")
    with pytest.raises(DownloadError) as caught:
        catalog.fetch(model_from(offline, wrong), tmp_path / "models")
    text = str(caught.value)
    assert "source offline: it cannot be reached" in text
    assert "source wrong: SHA-256 is d9298a10d1b0..." in text
    assert "\n" not in text
    assert not (tmp_path / "models" / "Tiny.gguf").exists()


def test_a_file_of_another_length_is_not_taken_for_the_model(tmp_path: Path) -> None:
    (tmp_path / "Tiny.gguf").write_bytes(CONTENT[:-1])
    assert catalog.fetch(model_from(FakeSource(tmp_path / "a")), tmp_path).read_bytes() == CONTENT


def test_progress_tells_of_downloading_and_verifying(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    catalog.fetch(model_from(FakeSource(tmp_path / "a")), tmp_path, lambda *what: told.append(what))
    assert told == [("Downloading", len(CONTENT), len(CONTENT)), ("Verifying", len(CONTENT), len(CONTENT))]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_is_said_so(tmp_path: Path, code: int) -> None:
    source = FakeSource(tmp_path / "a", error=OSError(code, os.strerror(code)))
    with pytest.raises(DiskFull, match="is full; free some space, or set models_dir"):
        catalog.fetch(model_from(source), tmp_path)


def test_a_disk_with_too_little_space_is_told_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**6, 10**6))
    source = FakeSource(tmp_path / "a")
    with pytest.raises(DiskFull, match="has 0 B to spare and 25 KiB are needed; free some space, or set models_dir"):
        catalog.fetch(model_from(source), tmp_path)
    assert calls(source) == 0


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="set models_dir to a directory you can write"):
        catalog.fetch(model_from(FakeSource(tmp_path / "a")), tmp_path / "file" / "models")


def _fetch_when_told(folder: Path, source: FakeSource, go: Event) -> None:
    go.wait()
    catalog.fetch(model_from(source), folder)


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


def settings(tmp_path: Path, **values: Any) -> config.Settings:
    return replace(config.defaults(), models_dir=str(tmp_path / "models"), **values)


def test_a_path_is_itself_and_a_kept_file_is_found_by_name(tmp_path: Path) -> None:
    kept = tmp_path / "models" / "My-Model.gguf"
    kept.parent.mkdir()
    kept.write_bytes(CONTENT)
    for name in (str(kept), "My-Model.gguf", "My-Model"):
        assert catalog.resolve(name, settings=settings(tmp_path)) == kept
    assert catalog.resolve(None, settings=settings(tmp_path, model="My-Model")) == kept


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("smolm2-135m", "there is no model 'smolm2-135m' (did you mean smollm2-135m?)"),
        ("zzz", "there is no model 'zzz'; give the path of a GGUF file, or one of: smollm2-135m"),
        ("./none.gguf", "there is no file ./none.gguf"),
        ("..", "is a directory; name one GGUF file"),
        ("", "is a directory"),
        ("../../etc/none.gguf", "there is no file"),
        ("x" * 5000, "is not a path that can be read (File name too long)"),
        ("~nobody-of-that-name/x.gguf", "is not a path that can be read"),
    ],
)
def test_a_name_that_means_nothing_gives_one_line_that_helps(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        catalog.resolve(name, settings=settings(tmp_path))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_with_the_default_model_on_disk_nothing_asks_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the network was asked")

    target = tmp_path / "models" / catalog.SMOLLM2.file_name
    target.parent.mkdir()
    with target.open("wb") as file:
        file.truncate(catalog.SMOLLM2.size_bytes)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("subprocess.Popen.__init__", refuse)
    assert catalog.resolve(None, settings=settings(tmp_path)) == target


def test_the_default_model_has_the_hash_that_the_catalog_says(real_model: Path) -> None:
    assert real_model.stat().st_size == catalog.SMOLLM2.size_bytes
    assert catalog.file_sha256(real_model) == catalog.SMOLLM2.sha256
