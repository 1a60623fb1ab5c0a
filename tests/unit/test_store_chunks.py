"""The chunk store: what is in it is right, survives crashes, fits the quota, and can be served."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from swarm import files
from swarm.errors import DiskFull, RemoteProtocolError, ResourceError
from swarm.store import chunks as chunks_module
from swarm.store.chunks import ChunkStore
from swarm.store.gguf import open_gguf
from swarm.store.journal import Journal
from swarm.store.manifest import Manifest
from swarm.wire.ids import ChunkId
from tests.helpers.chunked import fetch, held, write_model

# ---- serving


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


def flip_a_bit(store: ChunkStore, manifest: Manifest, chunk: int) -> None:
    """In the data file, as a disk does."""
    chunks = store.model(manifest.id)
    assert chunks is not None
    group, offset = chunks.files.position(chunk)
    path = chunks.directory / f"{group}.data"
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    with path.open("r+b") as file:
        file.write(data)


def test_a_flipped_bit_is_found_before_the_chunk_counts_and_the_chunk_can_come_again(seeder, tmp_path: Path) -> None:
    source, manifest = seeder
    store = ChunkStore(tmp_path / "here")
    store.add_manifest(manifest.encoded, manifest.id)
    fetch(store, source, manifest)
    store.close()
    store = ChunkStore(tmp_path / "here")
    damaged = manifest.n_chunks // 2
    flip_a_bit(store, manifest, damaged)
    chunks = store.model(manifest.id)
    assert chunks is not None and chunks.held.all(), "nobody has looked yet"
    assert chunks.check(range(manifest.n_chunks)) == [damaged]
    assert not chunks.held[damaged] and chunks.check(range(manifest.n_chunks)) == [], "the others are hashed once"
    fetch(store, source, manifest)
    assert chunks.held.all()
    store.close()


def test_what_was_let_go_is_not_believed_after_a_power_cut(seeder, tmp_path: Path, monkeypatch) -> None:
    """The unlinked file is gone and a new one is there, but of the journal only what was flushed."""
    source, manifest = seeder
    store = ChunkStore(tmp_path / "here")
    store.add_manifest(manifest.encoded, manifest.id)
    fetch(store, source, manifest)
    store.sync()
    chunks = store.model(manifest.id)
    assert chunks is not None
    journal = chunks.directory / "journal"
    flushed = [journal.stat().st_size]
    fsync = os.fsync

    def seen(fd: int) -> None:
        fsync(fd)
        if os.path.samestat(os.fstat(fd), journal.stat()):
            flushed.append(journal.stat().st_size)

    monkeypatch.setattr(os, "fsync", seen)
    layer = chunks.files.chunks["layer0001"]
    chunks.trim(set(range(manifest.n_chunks)) - set(layer))
    monkeypatch.undo()
    fetch(store, source, manifest, layer[:1])
    store.close()
    os.truncate(journal, flushed[-1])
    store = ChunkStore(tmp_path / "here")
    chunks = store.model(manifest.id)
    assert chunks is not None and not chunks.held[layer[1:]].any(), "zeros are no facts"
    store.close()


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
    seeder, tmp_path, chunked_model: Path, monkeypatch
) -> None:
    source, manifest = seeder
    source.close()
    monkeypatch.setattr(chunks_module, "manifest_of", lambda *args, **kwargs: pytest.fail("hashed again"))
    again = ChunkStore(tmp_path / "seeder")
    try:
        assert held(again, manifest).all() and again.stored_bytes == 0
        assert again.import_gguf(chunked_model).id == manifest.id
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


@pytest.mark.parametrize("harm", ["cut", "replaced"])
def test_a_file_that_is_cut_or_replaced_while_it_is_served_ends_nothing(seeder, tmp_path: Path, harm: str) -> None:
    """Its pages are mapped: to read them from the map would end the process with a signal."""
    path = write_model(tmp_path / "own.gguf", seed=3)
    store = ChunkStore(tmp_path / "here")
    manifest = store.import_gguf(path)
    last = manifest.chunk_id(manifest.n_chunks - 1)
    size = int(manifest.chunk_sizes[-1])
    assert store.read(last, 0, size) is not None
    if harm == "cut":
        os.truncate(path, 4096)
    else:
        path.write_bytes(bytes(path.stat().st_size))
    chunks = store.model(manifest.id)
    assert chunks is not None and store.read(last, 0, size) is None
    chunks.check(range(manifest.n_chunks))
    assert not chunks.held.any(), "it serves no more, and what it had is fetched like anything else"
    store.close()


def test_a_second_file_of_the_same_model_closes_nothing(seeder, tmp_path: Path) -> None:
    """Somebody may be reading from the first one just now."""
    source, _ = seeder
    first, second = (write_model(tmp_path / name, seed=6) for name in ("first.gguf", "second.gguf"))
    manifest = source.import_gguf(first)
    chunks = source.model(manifest.id)
    assert source.import_gguf(second) is manifest and source.model(manifest.id) is chunks
    first.unlink()
    assert source.import_gguf(second).id == manifest.id and source.model(manifest.id) is not chunks


# ---- space


def test_small_models_that_nobody_uses_make_way_and_a_large_or_used_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeder
) -> None:
    source, large = seeder
    monkeypatch.setattr(chunks_module, "MAX_MODELS", 4)
    junk = []
    for seed in range(11, 16):
        other = ChunkStore(tmp_path / f"other{seed}")
        junk.append(other.import_gguf(write_model(tmp_path / f"{seed}.gguf", seed=seed)))
        other.close()
    store = ChunkStore(tmp_path / "here")
    store.add_manifest(large.encoded, large.id)
    fetch(store, source, large, range(3))
    for manifest in junk:
        store.add_manifest(manifest.encoded, manifest.id, {junk[0].id})
    ids = {holding.model for holding in store.holdings()}
    assert len(ids) == 4 and {large.id, junk[0].id, junk[-1].id} <= ids
    store.close()


def test_the_quota_is_kept_and_says_what_is_missing(seeder, open_store) -> None:
    source, manifest = seeder
    store = open_store(quota_bytes=1_000_000)
    with pytest.raises(DiskFull, match=r"may take 977 KiB, has 851 KiB and needs .*; remove a model, free some"):
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


def test_removing_an_imported_model_leaves_the_users_file_alone(seeder, chunked_model: Path) -> None:
    source, manifest = seeder
    source.remove(manifest.id)
    assert source.holdings() == [] and chunked_model.exists()


# ---- several at once


def test_a_store_belongs_to_one_process_at_a_time(seeder, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="another Swarm on this device uses"):
        ChunkStore(tmp_path / "seeder")


def test_a_store_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(ResourceError, match="cannot write into"):
        ChunkStore(tmp_path / "file" / "store")


def test_two_that_import_one_file_at_once_hash_it_once_and_close_nothing(
    open_store, chunked_model: Path, monkeypatch: pytest.MonkeyPatch
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
        stored = store.open(store.import_gguf(chunked_model).id)
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
