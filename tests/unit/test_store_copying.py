"""Models copied from a stick or another folder."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from swarm.errors import BadModelFile, DiskFull, DownloadError
from swarm.limits import PIECE_BYTES
from swarm.store import copying
from swarm.store.copying import FileSource, copy_model, kept_below, models_in, plugged_in
from swarm.store.fetching import file_sha256
from swarm.store.kept_pieces import KeptPieces
from swarm.store.origins import Origin, origin_of, record
from tests.helpers.tiny import make_tiny


def fine(metadata: object, tensors: object) -> int:
    return 0


def quiet(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    (folder / "models").mkdir(parents=True)
    make_tiny(folder / "models" / "Tiny-Q8_0.gguf", "llama", "Q8_0")
    return folder


def test_a_model_is_copied_once_and_then_known(stick: Path, tmp_path: Path) -> None:
    source = stick / "models" / "Tiny-Q8_0.gguf"
    told: list[int] = []
    target = copy_model(source, tmp_path / "kept", fine, lambda what, done, total: told.append(done))
    assert target.read_bytes() == source.read_bytes() and told[-1] == source.stat().st_size
    origin = origin_of(target)
    assert origin is not None and (origin.place, origin.sha256) == (str(source), file_sha256(source))
    inode = target.stat().st_ino
    assert copy_model(source, tmp_path / "kept", fine, quiet).stat().st_ino == inode


def test_a_copy_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * 4096 * 5
    source = tmp_path / "x.gguf"
    source.write_bytes(content)
    pieces = KeptPieces(tmp_path / "y.gguf", len(content), copying._identity(source))
    pieces.put(2, content[2 * PIECE_BYTES : 3 * PIECE_BYTES])
    pieces.close()
    read: list[tuple[int, int]] = []

    class Seen(FileSource):
        def read(self, start: int, end: int):  # type: ignore[no-untyped-def]
            read.append((start, end))
            yield from super().read(start, end)

    monkeypatch.setattr(copying, "FileSource", Seen)
    copying._copy(source, tmp_path / "y.gguf", lambda n: None)
    assert (tmp_path / "y.gguf").read_bytes() == content
    assert sum(end - start for start, end in read) == len(content) - PIECE_BYTES


def test_a_record_on_the_stick_is_compared_and_carried_over(stick: Path, tmp_path: Path) -> None:
    source = stick / "models" / "Tiny-Q8_0.gguf"
    mine = Origin("u/r", source.name, source.stat().st_size, file_sha256(source), "1" * 40, "tiny")
    record(source, mine)
    assert origin_of(copy_model(source, tmp_path / "kept", fine, quiet)) == mine
    record(source, Origin("u/r", source.name, source.stat().st_size, "f" * 64, "1" * 40, "tiny"))
    with pytest.raises(DownloadError, match="is damaged: its SHA-256"):
        copy_model(source, tmp_path / "other", fine, quiet)
    assert not list((tmp_path / "other").glob("*.gguf"))


def test_another_file_of_that_name_is_not_overwritten(stick: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "Tiny-Q8_0.gguf").write_bytes(b"GGUF mine")
    with pytest.raises(DownloadError, match="another model is kept as"):
        copy_model(stick / "models" / "Tiny-Q8_0.gguf", tmp_path / "kept", fine, quiet)
    assert (tmp_path / "kept" / "Tiny-Q8_0.gguf").read_bytes() == b"GGUF mine"


def test_what_is_no_model_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"<html>")
    with pytest.raises(BadModelFile, match="a web page"):
        copy_model(tmp_path / "x.gguf", tmp_path / "kept", fine, quiet)
    assert not (tmp_path / "kept").exists()


def test_a_full_disk_is_told_before_the_first_byte(
    stick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 0))
    with pytest.raises(DiskFull):
        copy_model(stick / "models" / "Tiny-Q8_0.gguf", tmp_path / "kept", fine, quiet)


def test_models_of_a_stick_are_found_a_few_folders_deep_and_not_in_hidden_ones(stick: Path, tmp_path: Path) -> None:
    deep = stick / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    (deep / "deep.gguf").write_bytes(b"GGUF")
    (deep / "e").mkdir()
    (deep / "e" / "too-deep.gguf").write_bytes(b"GGUF")
    (stick / ".Trash").mkdir()
    (stick / ".Trash" / "gone.gguf").write_bytes(b"GGUF")
    assert [path.name for path in kept_below(stick)] == ["deep.gguf", "Tiny-Q8_0.gguf"]
    assert models_in([stick / "models"], stick / "models") == []
    assert len(models_in([stick, stick / "models" / "Tiny-Q8_0.gguf"], tmp_path / "kept")) == 2


def test_a_stick_that_is_pulled_out_is_said(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="is it still plugged in"):
        list(FileSource(tmp_path / "gone.gguf").read(0, 10))


def test_sticks_are_looked_for_where_they_are_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    part = namedtuple("part", "mountpoint")
    mounts = ["/", "/boot", "/media/pi/STICK", "/mnt/disk"]
    monkeypatch.setattr("psutil.disk_partitions", lambda all: [part(mount) for mount in mounts])
    assert plugged_in() == [Path("/media/pi/STICK"), Path("/mnt/disk")]
