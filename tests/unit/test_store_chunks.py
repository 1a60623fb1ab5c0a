"""The chunk store: what is in it is right, survives crashes, fits the quota, and can be loaded from and served."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from swarm import files
from swarm.errors import DiskFull, ModelNotFound, RemoteProtocolError, ResourceError
from swarm.store import chunks as chunks_module
from swarm.store.chunks import ChunkStore
from swarm.store.gguf import open_gguf
from swarm.store.journal import Journal
from swarm.store.manifest import Manifest
from swarm.store.rectangles import Rectangle
from swarm.wire.ids import ChunkId
from tests.helpers.chunked import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.gguf")


@pytest.fixture
def seeder(tmp_path: Path, model: Path) -> Iterator[tuple[ChunkStore, Manifest]]:
    """The store of the device that has the file."""
    store = ChunkStore(tmp_path / "seeder")
    yield store, store.import_gguf(model, threads=2)
    store.close()


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., ChunkStore]]:
    """Opens the store of another device, again and again."""
    opened: list[ChunkStore] = []

    def open_it(quota_bytes: int | None = None) -> ChunkStore:
        while opened:
            opened.pop().close()
        opened.append(ChunkStore(tmp_path / "leecher", quota_bytes))
        return opened[-1]

    yield open_it
    while opened:
        opened.pop().close()


def fetch(store: ChunkStore, seeder: ChunkStore, manifest: Manifest, chunks: list[int] | range | None = None) -> None:
    store.add_manifest(manifest.encoded, manifest.id)
    for chunk in range(manifest.n_chunks) if chunks is None else chunks:
        data = seeder.read(manifest.chunk_id(chunk), 0, int(manifest.chunk_sizes[chunk]))
        assert data is not None and store.put(manifest.id, chunk, data)


def held(store: ChunkStore, manifest: Manifest) -> np.ndarray:
    chunks = store.model(manifest.id)
    assert chunks is not None
    return chunks.held


# ---- fetching and loading


def test_a_fetched_model_reads_like_the_file_it_came_from(seeder, open_store, model: Path) -> None:
    source, manifest = seeder
    store = open_store()
    fetch(store, source, manifest)
    with open_gguf(model) as file:
        for stored in (store.open(manifest.id), source.open(manifest.id)):
            assert dict(stored.metadata).keys() == dict(file.metadata).keys()
            assert stored.metadata["tokenizer.ggml.tokens"] == file.metadata["tokenizer.ggml.tokens"]
            assert list(stored.tensors) == list(file.tensors) and stored.name == "Tiny chunked"
            for name, info in file.tensors.items():
                assert (stored.tensors[name].shape, stored.tensors[name].quant) == (info.shape, info.quant)
                raw = file.raw(name)
                np.testing.assert_array_equal(stored.raw(name), raw)
                slabs = list(stored.slabs(name))
                np.testing.assert_array_equal(np.stack(slabs).reshape(raw.shape), raw)
                stored.drop(name)


def test_a_shard_can_be_loaded_when_only_its_chunks_are_here(seeder, open_store, model: Path) -> None:
    source, manifest = seeder
    store = open_store()
    names = [name for name in manifest.by_name if name.startswith("blk.1.")]
    fetch(store, source, manifest, manifest.chunks_of(map(Rectangle, names)))
    stored = store.open(manifest.id)
    with open_gguf(model) as file:
        for name in names:
            np.testing.assert_array_equal(stored.raw(name), file.raw(name))
    with pytest.raises(ModelNotFound, match=r"chunks of tensor 'blk.0.attn_q.weight' are not on this device yet"):
        stored.raw("blk.0.attn_q.weight")


def test_one_expert_can_be_served_by_a_device_that_holds_no_other(seeder, open_store) -> None:
    source, manifest = seeder
    store = open_store()
    tensor = manifest.by_name["blk.0.ffn_down_exps.weight"]
    expert = list(tensor.chunks_of(range(1, 2)))
    fetch(store, source, manifest, expert)
    for chunk in tensor.chunks:
        data = store.read(manifest.chunk_id(chunk), 0, int(manifest.chunk_sizes[chunk]))
        assert (data is not None) == (chunk in expert)


def test_byte_ranges_are_served_and_nothing_outside(seeder, open_store) -> None:
    source, manifest = seeder
    store = open_store()
    fetch(store, source, manifest)
    chunk = manifest.by_name["blk.0.attn_q.weight"].chunks[1]
    size, chunk_id = int(manifest.chunk_sizes[chunk]), manifest.chunk_id(chunk)
    whole = bytes(source.read(chunk_id, 0, size) or b"")
    for other in (source, store):
        for start, n_bytes in ((0, size), (0, 1), (size - 1, 1), (100, 1000), (size, 0)):
            assert bytes(other.read(chunk_id, start, n_bytes) or b"") == whole[start : start + n_bytes]
        for start, n_bytes in ((0, size + 1), (size, 1), (-1, 5), (size + 1, 0), (5, -1)):
            assert other.read(chunk_id, start, n_bytes) is None
    assert source.read(ChunkId("00" * 32), 0, 1) is None


def test_holdings_and_bits_tell_peers_what_is_here(seeder, open_store) -> None:
    source, manifest = seeder
    store = open_store()
    fetch(store, source, manifest, range(0, manifest.n_chunks, 3))
    (holding,) = store.holdings()
    assert (holding.model, holding.n_chunks) == (manifest.id, manifest.n_chunks)
    assert holding.n_have == len(range(0, manifest.n_chunks, 3)) and holding.total_bytes == manifest.total_bytes
    for start in (0, 5):
        bits = np.unpackbits(np.frombuffer(store.have_bits(manifest.id, start), np.uint8), bitorder="little")
        expected = np.arange(start, manifest.n_chunks) % 3 == 0
        np.testing.assert_array_equal(bits[: len(expected)], expected)


# ---- lies and damage


def test_a_chunk_that_is_not_what_the_manifest_says_is_refused(seeder, open_store) -> None:
    source, manifest = seeder
    store = open_store()
    store.add_manifest(manifest.encoded, manifest.id)
    right = bytes(source.read(manifest.chunk_id(3), 0, int(manifest.chunk_sizes[3])) or b"")
    for wrong in (right[:-1] + bytes([right[-1] ^ 1]), right[:-1], right + b"\0", b""):
        assert not store.put(manifest.id, 3, wrong)
    assert not held(store, manifest).any() and store.stored_bytes == 0
    assert store.put(manifest.id, 3, right)


def test_a_manifest_of_another_model_is_refused(seeder, open_store) -> None:
    _, manifest = seeder
    with pytest.raises(RemoteProtocolError):
        open_store().add_manifest(manifest.encoded[:-1], manifest.id)


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


def test_a_manifest_damaged_on_disk_comes_again_and_the_chunks_are_still_there(seeder, open_store) -> None:
    source, manifest = seeder
    store = open_store()
    fetch(store, source, manifest)
    path = store.model(manifest.id).directory / "manifest"
    path.write_bytes(path.read_bytes()[:-5])
    store = open_store()
    assert store.model(manifest.id) is None and store.holdings() == []
    store.add_manifest(manifest.encoded, manifest.id)
    assert held(store, manifest).all()


# ---- crashes


def test_after_kill_9_no_verified_chunk_is_missing(seeder, tmp_path: Path) -> None:
    source, manifest = seeder
    chunks = list(range(0, manifest.n_chunks, 2))
    data = [bytes(source.read(manifest.chunk_id(c), 0, int(manifest.chunk_sizes[c])) or b"") for c in chunks]
    child = os.fork()
    if child == 0:
        store = ChunkStore(tmp_path / "killed")
        store.add_manifest(manifest.encoded, manifest.id)
        for chunk, content in zip(chunks, data, strict=True):
            store.put(manifest.id, chunk, content)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    store = ChunkStore(tmp_path / "killed")
    try:
        assert list(np.flatnonzero(held(store, manifest))) == chunks
    finally:
        store.close()


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


def test_a_flush_begins_by_itself_and_its_failure_is_told(seeder, open_store, monkeypatch) -> None:
    source, manifest = seeder
    store = open_store()
    monkeypatch.setattr(chunks_module, "SYNC_BYTES", 1)
    flushed = threading.Event()

    def failing(paths: object) -> None:
        flushed.set()
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("swarm.store.model_chunks.flush", failing)
    fetch(store, source, manifest, [0])
    assert flushed.wait(10)
    store._flusher.submit(int).result()  # the flush before is over
    with pytest.raises(ResourceError, match="Input/output error"):
        fetch(store, source, manifest, [1])
    monkeypatch.undo()
    store.sync()  # succeeds, but cannot bring back what the failed one lost
    journal = Journal(store.model(manifest.id).directory / "journal", manifest.n_chunks)
    journal.close()
    assert journal.unsynced == [0, 1]


# ---- the file that serves itself


def test_a_restarted_device_serves_its_file_without_hashing_it_again(
    seeder, tmp_path, model: Path, monkeypatch
) -> None:
    source, manifest = seeder
    source.close()
    monkeypatch.setattr(chunks_module, "manifest_of", lambda *args, **kwargs: pytest.fail("hashed again"))
    again = ChunkStore(tmp_path / "seeder")
    try:
        assert held(again, manifest).all() and again.stored_bytes == 0
        assert again.import_gguf(model).id == manifest.id
    finally:
        again.close()


@pytest.mark.parametrize("change", ["removed", "touched", "other"])
def test_a_file_that_was_changed_serves_no_more(seeder, tmp_path: Path, change: str) -> None:
    source, _ = seeder
    path = write_model(tmp_path / "changing.gguf", seed=3)
    manifest = source.import_gguf(path)
    source.close()
    if change == "removed":
        path.unlink()
    else:
        if change == "other":
            write_model(path, seed=4)
        os.utime(path, ns=(1, 1))
    again = ChunkStore(tmp_path / "seeder")
    try:
        assert not held(again, manifest).any()
        if change != "removed":
            assert (again.import_gguf(path).id == manifest.id) == (change == "touched")
    finally:
        again.close()


def test_a_file_changed_under_a_running_device_is_found_out(seeder, tmp_path: Path) -> None:
    source, _ = seeder
    path = write_model(tmp_path / "changing.gguf", seed=3)
    manifest = source.import_gguf(path)
    chunk = manifest.by_name["blk.0.attn_q.weight"].chunks[0]
    with open_gguf(path) as file, path.open("r+b") as out:
        out.seek(file.tensors["blk.0.attn_q.weight"].offset)
        out.write(b"other")
    assert source.read(manifest.chunk_id(chunk), 0, 10) is None
    assert not held(source, manifest)[chunk]


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


def test_importing_a_missing_or_broken_file_says_so(seeder, tmp_path: Path) -> None:
    source, _ = seeder
    with pytest.raises(ModelNotFound, match="there is no such file"):
        source.import_gguf(tmp_path / "absent.gguf")


def test_import_tells_how_far_it_is(tmp_path: Path, model: Path) -> None:
    told: list[tuple[int, int]] = []
    store = ChunkStore(tmp_path / "s")
    manifest = store.import_gguf(model, progress=lambda done, total: told.append((done, total)))
    store.close()
    assert told[-1] == (manifest.total_bytes, manifest.total_bytes) and len(told) == len(manifest.tensors) + 1


# ---- space


def test_the_quota_is_kept_and_says_what_is_missing(seeder, open_store) -> None:
    source, manifest = seeder
    store = open_store(quota_bytes=1_000_000)
    with pytest.raises(DiskFull, match=r"may take 977 KiB, has 851 KiB and needs .*; remove a model or raise"):
        fetch(store, source, manifest)
    assert 0 < store.stored_bytes <= 1_000_000
    with pytest.raises(DiskFull):
        store.check_room(1_000_000)
    store.check_room(1_000_000 - store.stored_bytes)


def test_a_full_disk_is_told_before_and_while_writing(seeder, open_store, monkeypatch) -> None:
    source, manifest = seeder
    store = open_store()
    fetch(store, source, manifest, [0, 1])

    def no_space(fd: int, data: object, offset: int) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", no_space)
        with pytest.raises(DiskFull, match="is full; free some space"):
            fetch(store, source, manifest, [2])
    with monkeypatch.context() as patch:
        patch.setattr(files, "spare_bytes", lambda directory: 100)
        with pytest.raises(DiskFull, match="has 100 B to spare"):
            fetch(store, source, manifest, [2])
    assert list(np.flatnonzero(held(store, manifest))) == [0, 1]
    fetch(store, source, manifest)
    assert held(store, manifest).all()


def test_room_is_made_by_removing_the_model_unused_for_longest(seeder, open_store, tmp_path: Path) -> None:
    source, _ = seeder
    manifests = [source.import_gguf(write_model(tmp_path / f"{i}.gguf", layers=1, seed=10 + i)) for i in range(3)]
    store = open_store()
    for age, manifest in enumerate(manifests):
        fetch(store, source, manifest)
        path = store.model(manifest.id).directory / "manifest"
        os.utime(path, (1000 + age, 1000 + age))
    store.open(manifests[0].id)  # used just now
    store.quota_bytes = store.stored_bytes
    assert store.make_room(1000, in_use={manifests[2].id}) == [manifests[1].id]
    assert store.make_room(1000, in_use=set()) == []
    with pytest.raises(DiskFull):
        store.make_room(store.quota_bytes, in_use={manifests[2].id})
    assert [holding.model for holding in store.holdings()] == [manifests[2].id]
    assert {path.name for path in (store.root / "models").iterdir()} == {manifests[2].id}


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


def test_removing_an_imported_model_leaves_the_users_file_alone(seeder, model: Path) -> None:
    source, manifest = seeder
    source.remove(manifest.id)
    assert source.holdings() == [] and model.exists()


# ---- several at once


def test_a_store_belongs_to_one_process_at_a_time(seeder, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="another Swarm on this device uses"):
        ChunkStore(tmp_path / "seeder")


def test_a_store_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(ResourceError, match="cannot write into"):
        ChunkStore(tmp_path / "file" / "store")


def test_two_that_import_one_file_at_once_hash_it_once_and_close_nothing(
    open_store, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    both_ask = threading.Barrier(2)
    hashed = []
    manifest_of = chunks_module.manifest_of

    def hash_it(*args: object, **kwargs: object) -> Manifest:
        hashed.append(1)
        return manifest_of(*args, **kwargs)

    def read_it() -> bytes:
        both_ask.wait()
        stored = store.open(store.import_gguf(model).id)
        return stored.raw("blk.0.attn_q.weight").tobytes()

    monkeypatch.setattr(chunks_module, "manifest_of", hash_it)
    with ThreadPoolExecutor(2) as pool:
        first, second = (future.result() for future in [pool.submit(read_it), pool.submit(read_it)])
    assert first == second and hashed == [1]


def test_threads_may_put_and_read_at_the_same_time(seeder, open_store) -> None:
    source, manifest = seeder
    store = open_store()
    store.add_manifest(manifest.encoded, manifest.id)
    failures: list[BaseException] = []

    def work(start: int) -> None:
        try:
            fetch(store, source, manifest, range(start, manifest.n_chunks, 2))
            store.sync()
            for chunk in range(start, manifest.n_chunks, 2):
                size = int(manifest.chunk_sizes[chunk])
                assert store.read(manifest.chunk_id(chunk), 0, size) == source.read(manifest.chunk_id(chunk), 0, size)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and held(store, manifest).all()
