"""Chunks on disk: where each lies, and what a cut or a deletion leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.store import data_files
from swarm.store.data_files import HEADER, OUTSIDE, DataFiles, flush, group_of
from swarm.store.gguf import open_gguf
from swarm.store.importing import manifest_of
from swarm.store.manifest import Manifest


@pytest.fixture
def manifest(chunked_model: Path) -> Manifest:
    with open_gguf(chunked_model) as file:
        return manifest_of(file)


@pytest.fixture
def files(tmp_path: Path, manifest: Manifest) -> Iterator[DataFiles]:
    opened = DataFiles(tmp_path, manifest)
    yield opened
    opened.close()


def numbered(manifest: Manifest, chunk: int) -> bytes:
    return bytes([chunk % 251]) * int(manifest.chunk_sizes[chunk])


def test_every_chunk_has_a_place_of_its_own(files: DataFiles, manifest: Manifest) -> None:
    for chunk in range(manifest.n_chunks):
        files.write(chunk, numbered(manifest, chunk))
    for chunk in range(manifest.n_chunks):
        assert files.read(chunk, 0, int(manifest.chunk_sizes[chunk])) == numbered(manifest, chunk), chunk
    assert sorted(chunk for chunks in files.chunks.values() for chunk in chunks) == list(range(manifest.n_chunks))


def test_a_tensor_is_one_piece_of_the_file_of_its_layer(files: DataFiles, manifest: Manifest) -> None:
    tensor = manifest.by_name["blk.1.attn_q.weight"]
    for chunk in tensor.chunks:
        files.write(chunk, numbered(manifest, chunk))
    assert files.view(tensor.name).tobytes() == b"".join(numbered(manifest, chunk) for chunk in tensor.chunks)
    assert {path.name for path in files.take_dirty()} == {"layer0001.data", files._directory.name}
    assert files.take_dirty() == []


def test_a_file_that_was_cut_is_not_whole_and_gives_less(files: DataFiles, manifest: Manifest) -> None:
    chunk = manifest.by_name["blk.0.attn_q.weight"].chunks[-1]
    files.write(chunk, numbered(manifest, chunk))
    assert files.is_whole("layer0000") and not files.is_whole("layer0001")
    os.truncate(files.path_of(chunk), 10)
    assert not files.is_whole("layer0000") and files.read(chunk, 0, 100) == b""


def test_letting_go_of_a_layer_deletes_its_file(files: DataFiles, manifest: Manifest) -> None:
    chunk = manifest.by_name["blk.0.attn_q.weight"].chunks[0]
    files.write(chunk, numbered(manifest, chunk))
    path = files.path_of(chunk)
    files.delete("layer0000")
    files.delete("layer0000")
    assert not path.exists() and files.take_dirty() == []
    flush([path])  # deleted since: nothing to wait for


def test_no_more_files_are_open_than_allowed(
    files: DataFiles, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_files, "MAX_OPEN_DATA_FILES", 2)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for chunk in range(manifest.n_chunks):
            files.write(chunk, numbered(manifest, chunk))
    assert len(files.chunks) > 2 and len(os.listdir("/proc/self/fd")) - before == 2


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("blk.0.attn_q.weight", "layer0000"),
        ("blk.46.ffn_up_exps.weight", "layer0046"),
        ("blk.4096.x", OUTSIDE),
        ("blk.99999.x", OUTSIDE),
        ("token_embd.weight", OUTSIDE),
        ("../../etc/passwd", OUTSIDE),
    ],
)
def test_a_tensors_name_never_leads_out_of_the_directory(name: str, group: str) -> None:
    assert group_of(name) == group != HEADER
