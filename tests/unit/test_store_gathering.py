"""Chunks that are brought before their hashes are known, and what becomes of them."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from swarm.errors import RemoteProtocolError
from swarm.store.chunks import ChunkStore
from swarm.store.gathering import Gathering, UnitPieces, drop_stale
from swarm.store.gguf import open_gguf
from swarm.store.importing import manifest_of
from swarm.store.manifest import Manifest
from tests.helpers.pulls import plan_of
from tests.helpers.tiny import make_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("model") / "air.gguf", "air-wide", "Q8_0")


@pytest.fixture(scope="module")
def manifest(model: Path) -> Manifest:
    with open_gguf(model) as file:
        return manifest_of(file)


def gather(root: Path, model: Path, *units: int) -> Gathering:
    plan, data = plan_of(model), model.read_bytes()
    gathering = Gathering(root, plan)
    for number in units:
        unit = plan.units[number]
        gathering.put_unit(unit, data[unit.start : unit.end])
    return gathering


def test_what_was_brought_is_there_after_the_process_died(tmp_path: Path, model: Path, manifest: Manifest) -> None:
    gather(tmp_path, model, 0, 3)  # never closed, as after kill -9
    gathering = gather(tmp_path, model)
    assert gathering.has(gathering.plan.units[0]) and not gathering.has(gathering.plan.units[1])
    for chunk in np.flatnonzero(gathering.held):
        assert gathering.digest(int(chunk)) == manifest.digest(int(chunk))


def test_what_the_disk_lost_is_forgotten(tmp_path: Path, model: Path) -> None:
    gather(tmp_path, model, 0, 3).close()
    digests = next(tmp_path.glob("gathering/*/digests"))
    digests.write_bytes(bytes(digests.stat().st_size))  # as a power cut may leave it
    assert not gather(tmp_path, model).held.any()
    gather(tmp_path, model, 0).close()
    for file in tmp_path.glob("gathering/*/*.data"):
        file.unlink()
    assert not gather(tmp_path, model).held.any()


def test_once_the_hashes_are_known_it_is_a_model_of_the_store(tmp_path: Path, model: Path, manifest: Manifest) -> None:
    store = ChunkStore(tmp_path)
    gathering = gather(tmp_path, model, *range(len(plan_of(model).units)))
    with open_gguf(model) as file:
        gathering.put_header(bytes(file.header()))
    store.adopt(gathering, manifest)
    chunks = store.model(manifest.id)
    assert chunks is not None and chunks.held.all() and chunks.verify() == []
    origin = store.origin_of(manifest.id)
    assert origin is not None and (origin.place, origin.path) == ("u/Tiny-GGUF", "air.gguf")
    assert not list((tmp_path / "gathering").iterdir())
    store.close()
    store = ChunkStore(tmp_path)
    again = store.model(manifest.id)
    assert again is not None and again.held.all() and store.origin_of(manifest.id) == origin
    store.close()


def test_a_part_is_adopted_in_place_of_a_header_that_was_looked_at(
    tmp_path: Path, model: Path, manifest: Manifest
) -> None:
    store = ChunkStore(tmp_path)
    store.add_manifest(manifest.encoded, manifest.id)
    store.adopt(gather(tmp_path, model, 0, 1), manifest)
    chunks = store.model(manifest.id)
    assert chunks is not None and 0 < chunks.held.sum() < manifest.n_chunks
    store.close()


def test_chunks_with_another_hash_than_the_manifest_has_are_not_adopted(
    tmp_path: Path, model: Path, manifest: Manifest
) -> None:
    gathering = gather(tmp_path, model, 0)
    (first,) = np.flatnonzero(gathering.held)[:1]
    digests = bytearray(manifest.digests)
    digests[first * 32] ^= 1
    gathering.finish(replace(manifest, digests=bytes(digests)))
    assert not gathering.held[first]


def test_another_model_is_refused(tmp_path: Path, model: Path, manifest: Manifest) -> None:
    with pytest.raises(RemoteProtocolError, match="another one than was planned"):
        gather(tmp_path, model).finish(replace(manifest, header_bytes=1))


def test_what_nobody_went_on_with_is_deleted(tmp_path: Path, model: Path) -> None:
    gather(tmp_path, model, 0).close()
    drop_stale(tmp_path)
    assert list(tmp_path.glob("gathering/*"))
    old = time.time() - 30 * 86400
    os.utime(next(tmp_path.glob("gathering/*/journal")), (old, old))
    drop_stale(tmp_path)
    assert not list(tmp_path.glob("gathering/*"))


def test_runs_of_units_end_where_the_file_goes_on_elsewhere(tmp_path: Path) -> None:
    model = make_tiny(tmp_path / "plain.gguf", "llama", "F32")  # no padding between tensors
    gathering = gather(tmp_path, model)
    units = sorted(gathering.plan.units, key=lambda unit: unit.start)
    mine = [*units[0:3], *units[5:8]]
    pieces = UnitPieces(gathering, mine)
    assert pieces.n_bytes == sum(unit.end - unit.start for unit in mine)
    assert list(pieces.runs(10**9)) == [range(0, 3), range(3, 6)]
    assert list(pieces.runs(1)) == [range(i, i + 1) for i in range(6)]
    data = model.read_bytes()
    pieces.put(1, data[mine[1].start : mine[1].end])
    assert list(pieces.runs(10**9)) == [range(0, 1), range(2, 3), range(3, 6)]
    assert pieces.kept_bytes == mine[1].end - mine[1].start
