"""Which ranges of which files are which chunks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgpack
import pytest
from blake3 import blake3

from swarm.errors import RemoteProtocolError
from swarm.store import pull_plan
from swarm.store.gguf import open_gguf
from swarm.store.importing import manifest_of
from swarm.store.pull_plan import decode_plan
from tests.helpers.pulls import plan_of
from tests.helpers.tiny import make_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With experts, and tensors that are cut by rows and by columns."""
    return make_tiny(tmp_path_factory.mktemp("model") / "air.gguf", "air-wide", "Q4_0")


@pytest.mark.parametrize("unit_bytes", [1, 20_000, 8 * 2**20])
def test_units_cover_every_chunk_once_and_their_bytes_are_those_of_the_manifest(
    model: Path, unit_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_plan, "UNIT_BYTES", unit_bytes)
    plan, data = plan_of(model), model.read_bytes()
    with open_gguf(model) as file:
        manifest = manifest_of(file)
    assert (plan.manifest.tensors, plan.manifest.header_bytes) == (manifest.tensors, manifest.header_bytes)
    seen: list[int] = []
    for unit in plan.units:
        for chunk, part in plan.cut(unit, data[unit.start : unit.end]):
            assert blake3(part).digest() == manifest.digest(chunk), chunk
            seen.append(chunk)
    assert seen == list(range(len(manifest.header_chunks), manifest.n_chunks))
    assert len(plan.units) > (100 if unit_bytes == 1 else 0)


def test_units_of_a_file_do_not_overlap(model: Path) -> None:
    spans = sorted((unit.start, unit.end) for unit in plan_of(model).units)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_a_plan_that_travels_is_the_same(model: Path) -> None:
    plan = plan_of(model)
    assert decode_plan(plan.encoded) == plan and decode_plan(plan.encoded).id == plan.id
    assert plan_of(model, "u/other").id != plan.id


def _changed(data: bytes, index: int, value: object) -> bytes:
    values = msgpack.unpackb(data)
    values[index] = value
    return bytes(msgpack.packb(values))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: _changed(data, 0, 2),
        lambda data: _changed(data, 1, 7),
        lambda data: _changed(data, 1, "../api"),
        lambda data: _changed(data, 1, "u/r/../../x"),
        lambda data: _changed(data, 2, "main"),
        lambda data: _changed(data, 3, []),
        lambda data: _changed(data, 3, [["x", 1, ""]]),
        lambda data: _changed(data, 5, -1),
        lambda data: _changed(data, 7, b"\xff" * 64),
        lambda data: _changed(data, 8, b""),
        lambda data: _changed(data, 8, b"\xff" * len(msgpack.unpackb(data)[8])),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(model: Path, change: object) -> None:
    assert callable(change)
    with pytest.raises(RemoteProtocolError):
        decode_plan(change(plan_of(model).encoded))
