"""The chunks of one model: verified, believed after a crash only when they are there, let go of."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from swarm.errors import ModelNotFound
from swarm.store.chunks import ChunkStore
from swarm.store.gguf import open_gguf
from swarm.store.journal import Journal
from swarm.store.rectangles import Rectangle
from tests.helpers.chunked import fetch, held, write_model


def test_verify_finds_damage_that_came_after_the_first_look(seeder, open_store) -> None:
    source, manifest = seeder
    store = open_store()
    fetch(store, source, manifest)
    chunks = store.model(manifest.id)
    with (chunks.directory / "outside.data").open("r+b") as file:
        file.write(b"\xff\xfe\xfd")
    told: list[tuple[int, int]] = []
    wrong = chunks.verify(lambda done, total: told.append((done, total)))
    assert wrong == [manifest.by_name["token_embd.weight"].chunks[0]]
    assert told[-1] == (manifest.n_chunks, manifest.n_chunks)
    assert chunks.verify() == []


@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_a_data_file_that_is_gone_or_cut_counts_as_not_fetched(seeder, open_store, damage: str) -> None:
    source, manifest = seeder
    store = open_store()
    fetch(store, source, manifest)
    path = store.model(manifest.id).directory / "layer0000.data"
    open_store().close()
    path.unlink() if damage == "deleted" else os.truncate(path, 5000)
    missing = {manifest.tensor_of(int(chunk)).name for chunk in np.flatnonzero(~held(open_store(), manifest))}
    assert missing == {name for name in manifest.by_name if name.startswith("blk.0.")}


def test_after_a_power_cut_only_what_the_disk_really_has_is_believed(seeder, open_store, tmp_path: Path) -> None:
    source, manifest = seeder
    store = open_store()
    n_synced = manifest.n_chunks // 2
    fetch(store, source, manifest, range(n_synced))
    store.sync()
    fetch(store, source, manifest, range(n_synced, manifest.n_chunks))
    # The power goes: the journal reached the disk, the data of every second new chunk did not, and a note was torn.
    directory = tmp_path / "cut" / "models" / manifest.id
    shutil.copytree(store.model(manifest.id).directory, directory)
    lost = range(n_synced, manifest.n_chunks, 2)
    for chunk in lost:
        group, offset = store.model(manifest.id).files.position(chunk)
        with (directory / f"{group}.data").open("r+b") as file:
            file.seek(offset)
            file.write(bytes(int(manifest.chunk_sizes[chunk])))
    with (directory / "journal").open("ab") as file:
        file.write(b"\x01\x00\x07")
    after = ChunkStore(tmp_path / "cut")
    try:
        assert list(np.flatnonzero(~held(after, manifest))) == list(lost)
        assert after.model(manifest.id).verify() == []
    finally:
        after.close()


def test_flushed_chunks_are_not_read_again_at_the_next_start(seeder, open_store, monkeypatch) -> None:
    source, manifest = seeder
    fetch(open_store(), source, manifest)
    open_store().close()
    hashed: list[int] = []
    monkeypatch.setattr(
        "swarm.store.model_chunks.ModelChunks._is_right", lambda self, chunk, data: bool(hashed.append(chunk)) or True
    )
    assert held(open_store(), manifest).all()
    assert hashed == []


def test_a_flush_during_which_chunks_arrive_vouches_only_for_the_earlier_ones(seeder, open_store, monkeypatch) -> None:
    source, manifest = seeder
    store = open_store()
    fetch(store, source, manifest, range(3))
    chunks = store.model(manifest.id)
    monkeypatch.setattr("swarm.store.model_chunks.flush", lambda paths: fetch(store, source, manifest, [3]))
    chunks.sync()
    journal = Journal(chunks.directory / "journal", manifest.n_chunks)
    journal.close()
    assert list(np.flatnonzero(journal.held)) == [0, 1, 2, 3] and journal.unsynced == [3]


def test_trim_lets_go_of_layers_that_are_not_needed(seeder, open_store) -> None:
    source, manifest = seeder
    store = open_store()
    fetch(store, source, manifest)
    chunks = store.model(manifest.id)
    before = store.stored_bytes
    keep = manifest.chunks_of(Rectangle(name) for name in manifest.by_name if name.startswith("blk.0."))
    gained = chunks.trim(keep)
    assert gained == before - store.stored_bytes > 0
    assert sorted(np.flatnonzero(chunks.held)) == keep
    assert not (chunks.directory / "layer0001.data").exists()
    assert sorted(np.flatnonzero(held(open_store(), manifest))) == keep
    fetch(store := open_store(), source, manifest)
    assert held(store, manifest).all()


def test_damage_on_disk_is_found_before_it_is_served(seeder, open_store) -> None:
    source, manifest = seeder
    store = open_store()
    fetch(store, source, manifest)
    chunks = store.model(manifest.id)
    chunk = manifest.by_name["blk.0.attn_q.weight"].chunks[0]
    group, offset = chunks.files.position(chunk)
    path = chunks.directory / f"{group}.data"
    open_store()  # nothing is checked any more
    with path.open("r+b") as file:
        file.seek(offset + 10)
        file.write(b"\xff\xfe\xfd")
    store = open_store()
    assert store.read(manifest.chunk_id(chunk), 0, 100) is None
    assert list(np.flatnonzero(~held(store, manifest))) == [chunk]
    assert not held(open_store(), manifest)[chunk]
    fetch(store := open_store(), source, manifest, [chunk])
    assert held(store, manifest).all()


def test_chunks_of_a_damaged_file_come_from_others_and_make_the_model_whole(seeder, tmp_path: Path) -> None:
    source, _ = seeder
    path = write_model(tmp_path / "damaged.gguf", seed=5)
    intact = write_model(tmp_path / "intact.gguf", seed=5)
    other = ChunkStore(tmp_path / "other")
    manifest = other.import_gguf(intact)
    assert source.import_gguf(path).id == manifest.id
    names = ["blk.0.attn_q.weight", "blk.1.ffn_down_exps.weight"]
    with open_gguf(path) as file, path.open("r+b") as out:
        for name in names:
            out.seek(file.tensors[name].offset + 5)
            out.write(b"other")
    bad = source.model(manifest.id).verify()
    assert {manifest.tensor_of(chunk).name for chunk in bad} == set(names)
    stored = source.open(manifest.id)
    with pytest.raises(ModelNotFound, match=r"1 of 2 chunks of tensor 'blk.0.attn_q.weight' are"):
        stored.raw(names[0])
    fetch(source, other, manifest, bad)
    with open_gguf(intact) as file:
        for name in file.tensors:
            np.testing.assert_array_equal(stored.raw(name), file.raw(name))
            np.testing.assert_array_equal(
                np.stack(list(stored.slabs(name))).reshape(file.raw(name).shape), file.raw(name)
            )
    other.close()
