"""The power is cut at every operation on a file: what was promised is there, and what is there is right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest

from swarm.net.keys import KeyStore, SwarmKey, new_swarm_key
from swarm.store.chunks import ChunkStore
from swarm.store.gguf import open_gguf
from swarm.store.importing import manifest_of
from swarm.store.journal import Journal
from swarm.store.manifest import Manifest
from tests.helpers.gguf_writer import write_gguf
from tests.helpers.power import Disk


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    (tmp_path / "disk").mkdir()
    return Disk(tmp_path / "disk")


@pytest.fixture
def seeder(tmp_path: Path) -> Iterator[tuple[ChunkStore, Manifest]]:
    """A store with a model of a few small chunks: many cuts are looked at."""
    rng = np.random.default_rng(0)
    tensors = {f"blk.{i}.attn_q.weight": (rng.normal(size=(64, 32)).astype(np.float32), "F32") for i in range(3)}
    model = write_gguf(tmp_path / "m.gguf", {"general.architecture": "llama", "general.name": "m"}, tensors)
    store = ChunkStore(tmp_path / "seeder")
    with open_gguf(model) as file:
        manifest = manifest_of(file)
    store.import_gguf(model)
    yield store, manifest
    store.close()


def put(store: ChunkStore, seeder: ChunkStore, manifest: Manifest, chunk: int) -> None:
    data = seeder.read(manifest.chunk_id(chunk), 0, int(manifest.chunk_sizes[chunk]))
    assert data is not None and store.put(manifest.id, chunk, data)


def test_a_store_keeps_what_it_has_flushed_and_believes_nothing_else(
    disk: Disk, seeder: tuple[ChunkStore, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, manifest = seeder
    layers = [list(tensor.chunks) for tensor in manifest.tensors]
    with monkeypatch.context() as patch:
        disk.record(patch)
        disk.promise((False, set()))
        store = ChunkStore(disk.root / "store")
        store.add_manifest(manifest.encoded, manifest.id)
        disk.promise((True, set()))
        for chunk in [*manifest.header_chunks, *layers[0]]:
            put(store, source, manifest, chunk)
        store.sync()
        disk.promise((True, {*manifest.header_chunks, *layers[0]}))
        for chunk in layers[1]:
            put(store, source, manifest, chunk)
        store.sync()
        disk.promise((True, {*manifest.header_chunks, *layers[1]}))  # the first layer is about to go
        chunks = store.model(manifest.id)
        assert chunks is not None
        chunks.trim([*manifest.header_chunks, *layers[1]])
        for chunk in [*layers[0], *layers[2]]:
            put(store, source, manifest, chunk)
        store.close()
        disk.promise((True, set(range(manifest.n_chunks))))
    assert len(disk.operations) > 30
    for at, root, (is_known, promised) in disk.cuts(Random(1)):
        again = ChunkStore(root / "store")
        model = again.model(manifest.id)
        assert model is not None or not is_known, at
        if model is not None:
            held = {int(chunk) for chunk in np.flatnonzero(model.held)}
            assert promised <= held, (at, disk.operations[at - 1])
            assert model.verify() == [], (at, disk.operations[at - 1])
        again.close()


def test_a_journal_that_is_written_anew_keeps_what_it_said(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    path = disk.root / "journal"
    journal = Journal(path, 5)
    for _ in range(2100):
        journal.note_held(3)
        journal.note_lost([3])
    journal.note_held(4)
    journal.note_synced(journal.n_notes)
    journal.close()
    before = path.read_bytes()
    path.unlink()
    with monkeypatch.context() as patch:
        disk.record(patch)
        _write(path, before)
        disk.promise([4])
        Journal(path, 5).close()
    assert path.stat().st_size < len(before)
    for at, root, promised in disk.cuts(Random(2)):
        if promised:
            again = Journal(root / "journal", 5)
            again.close()
            assert np.flatnonzero(again.held).tolist() == promised, at


def test_a_device_keeps_its_identity_and_the_key_of_its_swarm(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = new_swarm_key(0), new_swarm_key(1)
    with monkeypatch.context() as patch:
        disk.record(patch)
        keys = KeyStore(disk.root / "home" / "keys")
        secret = keys.device_secret()
        disk.promise((secret, {None, first}))
        keys.keep_swarm_key(first)
        disk.promise((secret, {first, second}))
        keys.keep_swarm_key(second)
        disk.promise((secret, {second}))
    for at, root, promised in disk.cuts(Random(3)):
        again = KeyStore(root / "home" / "keys")
        key: SwarmKey | None = again.swarm_key()
        if promised is None:
            assert len(again.device_secret()) == 32, at
        else:
            assert again.device_secret() == promised[0], at
            assert key in promised[1], at


def _write(path: Path, data: bytes) -> None:
    from swarm.files import replace_file

    replace_file(path, data)
