"""A device that fetched a mixture keeps its experts once: in files of experts, from which chunks are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from swarm.engine.expert_chunks import ExpertChunks
from swarm.engine.expert_file import DAMAGED, PAGE, ExpertFile, ExpertShape, note_of, take_away, write_experts
from swarm.engine.expert_folder import ExpertFolder
from swarm.engine.weights import load_weights
from swarm.errors import ModelNotFound
from swarm.kernels.quants import QUANTS, Quant
from swarm.models.registry import spec_from_gguf
from swarm.models.slices import cut_model, narrow
from swarm.models.spec import ModelSpec, NeededTensor, Role, TensorRef
from swarm.node.loader import leave_to_files
from swarm.parts import parts_of
from swarm.store.chunks import ChunkStore
from swarm.store.data_files import can_punch
from swarm.store.manifest import ChunkedTensor, Cut, Manifest
from swarm.store.model_chunks import ModelChunks
from swarm.store.rectangles import cut
from tests.helpers import mixtures
from tests.helpers.chunked import fetch

CHUNKS_GO = "swarm.store.model_chunks.can_punch"


class Device:
    """One that holds all chunks of a mixture, and loads it with experts on disk."""

    def __init__(self, root: Path, seeder: ChunkStore, manifest: Manifest) -> None:
        self.root, self.seeder, self.manifest = root, seeder, manifest
        self.open()
        fetch(self.store, seeder, manifest)

    def open(self) -> None:
        """As a start of the node does."""
        self.store = ChunkStore(self.root / "store", elsewhere=self._elsewhere)

    def _elsewhere(self, manifest: Manifest) -> ExpertChunks:
        return ExpertChunks(self.folder.path, manifest)

    @property
    def folder(self) -> ExpertFolder:
        return ExpertFolder(self.root / "experts" / "model", piece_bytes=mixtures.PIECE_BYTES)

    @property
    def chunks(self) -> ModelChunks:
        found = self.store.model(self.manifest.id)
        assert found is not None
        return found

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.path.glob("*.experts"))

    def load(self, spec_of: Callable[[ModelSpec], ModelSpec] = lambda spec: spec) -> None:
        source = self.store.open(self.manifest.id)
        spec = spec_of(spec_from_gguf(source.metadata, source.tensors))
        for part in parts_of(0, spec.n_layers, spec.n_layers):
            weights = load_weights(source, spec, [part], experts=self.folder)
            leave_to_files(source, spec, part, weights)

    def data_bytes(self) -> int:
        """What the data files take of the disk."""
        return sum(path.stat().st_blocks * 512 for path in self.chunks.directory.glob("*.data"))

    def is_whole(self) -> bool:
        """Whether every chunk is served with the bytes of the file."""
        return bool(self.chunks.held.all()) and all(
            bytes(self.chunks.read(chunk) or b"") == bytes(self.seeder.model(self.manifest.id).read(chunk) or b"")  # type: ignore[union-attr]
            for chunk in range(self.manifest.n_chunks)
        )


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ChunkStore, Manifest]]:
    """Who has the file."""
    folder = tmp_path_factory.mktemp("seeder")
    seeder = ChunkStore(folder / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("swarm.store.manifest.EXPERT_CHUNK_BYTES", 128 * 272)  # two a matrix, as in a large model
        manifest = seeder.import_gguf(mixtures.write_mixture(folder, mix="Q8_0"), threads=2)
    yield seeder, manifest
    seeder.close()


@pytest.fixture
def device(tmp_path: Path, seeded: tuple[ChunkStore, Manifest], monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setattr(CHUNKS_GO, lambda directory: True)  # also on a disk that makes no holes
    made = Device(tmp_path, *seeded)
    yield made
    made.store.close()


def test_experts_are_kept_once_and_every_chunk_is_still_served(device: Device) -> None:
    device.store.sync()
    before, stored = device.data_bytes(), device.store.stored_bytes
    shows_room = can_punch(device.root) and os.statvfs(device.root).f_bsize <= PAGE
    device.load()
    moved = int(device.manifest.chunk_sizes[device.chunks.in_experts].sum())
    assert moved > 0.5 * stored and not (device.chunks.in_experts & device.chunks.on_disk).any()
    assert not shows_room or before - device.data_bytes() > 0.9 * moved, "the room is the disk's again"
    assert device.store.stored_bytes == stored, "they count as before"
    assert device.is_whole()
    device.store.close()
    device.open()
    assert device.is_whole() and device.store.stored_bytes == stored
    assert not shows_room or device.data_bytes() < before - 0.9 * moved
    assert device.store.verify() == [(device.manifest.name, device.manifest.n_chunks, 0)]


CODED = ("IQ1", "IQ2", "IQ3", "TQ1")  # what they are packed as does not say which of several codes stood in the file
ROWS, COLS, N_EXPERTS = 96, 512, 2


@pytest.mark.parametrize("quant", QUANTS.values(), ids=lambda quant: quant.name)
def test_each_type_gives_its_chunks_back(tmp_path: Path, quant: Quant) -> None:
    """Of slices, too: some rows of gate and up, some columns of down."""
    rng = np.random.default_rng(1)
    names = [f"blk.0.ffn_{name}_exps.weight" for name in ("gate", "up", "down")]
    first, tensors = 0, []
    for name, how, step in zip(names, (Cut.ROWS, Cut.ROWS, Cut.COLUMNS), (32, 32, 256), strict=True):
        tensors.append(ChunkedTensor(name, quant, (N_EXPERTS, ROWS, COLS), how, step, first))
        first = tensors[-1].chunks.stop
    raws = [rng.integers(0, 256, (N_EXPERTS, ROWS, tensor.row_bytes), np.uint8) for tensor in tensors]
    every, columns = (range(ROWS),), range(COLS)
    cuts = [((range(32, 96),), columns), ((range(64, 96), range(32)), columns), (every, range(256, COLS))]
    right: dict[int, bytes] = {}
    for tensor, raw in zip(tensors, raws, strict=True):
        for chunk in tensor.chunks:
            slab, row0, row1, byte0, byte1 = tensor.place(chunk)
            right[chunk] = raw[slab, row0:row1, byte0:byte1].tobytes()
    manifest = Manifest("made", 0, tuple(tensors), b"".join(blake3(right[chunk]).digest() for chunk in range(first)))
    for name, chosen in (("whole", [(every, columns)] * 3), ("slice", cuts)):
        shapes = [(quant.id, sum(map(len, rows)), len(cols)) for rows, cols in chosen]
        shape = ExpertShape(N_EXPERTS, tuple(shapes))  # type: ignore[arg-type]
        path = tmp_path / f"{name}.experts"
        pieces = [
            [cut(raw[expert], quant, rows, cols) for raw, (rows, cols) in zip(raws, chosen, strict=True)]
            for expert in range(N_EXPERTS)
        ]
        write_experts(path, shape, pieces, piece_bytes=PAGE)
        file = ExpertFile.open(path, shape, PAGE)
        assert file is not None
        needed = [
            NeededTensor(Role.EXPERT_GATE, 0, TensorRef(tensor.name, rows, cols), 0, 0, N_EXPERTS)
            for tensor, (rows, cols) in zip(tensors, chosen, strict=True)
        ]
        chunks = ExpertChunks(tmp_path, manifest)
        taken = chunks.take(file, needed, np.ones(first, np.bool_))
        n_expected = 0 if quant.name.startswith(CODED) else first if name == "whole" else N_EXPERTS * (2 + 2 + 1)
        assert len(taken) == n_expected
        assert all(chunks.read(chunk) == right[chunk] for chunk in taken)
        chunks.close()
        again = ExpertChunks(tmp_path, manifest)
        assert all(again.read(chunk) == right[chunk] for chunk in taken) and set(taken) <= set(again.chunks())
        again.close()


def test_files_of_slices_go_when_a_later_one_has_all_of_them(device: Device) -> None:
    def half(spec: ModelSpec) -> ModelSpec:
        tensors = device.manifest.by_name
        return narrow(spec, tensors, cut_model(spec, tensors, (1.0, 1.0))[0])

    device.load(half)
    halves = device.files
    assert device.chunks.in_experts.any() and device.is_whole()
    device.load()
    assert len(device.files) == len(halves) and not set(device.files) & set(halves)
    assert device.is_whole()
    for path in device.files:
        os.utime(path, (1, 1))
    device.load()
    assert {path.stat().st_mtime for path in device.files} == {1.0}, "written once"
    device.load(half)
    assert device.is_whole()


def test_a_flipped_bit_is_found_when_it_is_served_and_mended_by_a_peer(device: Device) -> None:
    device.load()
    path = device.files[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    device.store.close()
    device.open()
    served = [chunk for chunk in range(device.manifest.n_chunks) if device.chunks.read(chunk) is not None]
    lost = sorted(set(range(device.manifest.n_chunks)) - set(served))
    assert len(lost) == 1 and not device.chunks.held[lost[0]]
    take_away(path)  # as who reads experts does
    assert path.with_name(path.name + DAMAGED).exists(), "the others are nowhere else"
    with pytest.raises(ModelNotFound, match="not on this device"):
        device.load()
    fetch(device.store, device.seeder, device.manifest, lost)
    device.store.close()
    device.open()
    device.load()
    assert device.is_whole() and path.exists() and not path.with_name(path.name + DAMAGED).exists()
    assert not device.chunks.on_disk[lost].any()


def test_a_run_that_is_killed_leaves_the_chunk_or_the_file(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each step of giving chunks up: what a new process finds there is all of the model."""
    for step in ("_forget", "_count_elsewhere", "files.free", "_journal.flush"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(*_target(device.chunks, step), _killed)
            device.load()
        again = ModelChunks(device.chunks.directory, device.manifest, None, device._elsewhere(device.manifest))
        assert again.held.all() and not again.check(range(device.manifest.n_chunks)), step
        again.close()
        device.store.close()
        device.open()
    device.load()
    assert device.is_whole()


def test_where_files_have_no_holes_chunks_stay(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CHUNKS_GO, lambda directory: False)
    device.load()
    assert device.chunks.on_disk.all() and not device.chunks.in_experts.any()


def test_removing_a_model_deletes_its_files(device: Device) -> None:
    device.load()
    assert note_of(device.files[0]).exists()
    device.store.remove(device.manifest.id)
    assert not device.files and not list(device.folder.path.glob("*.chunks"))


def test_experts_that_are_chunks_are_not_deleted_to_make_room(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.load()
    monkeypatch.setattr("swarm.engine.expert_folder.spare_bytes", lambda directory: 0)
    monkeypatch.setattr("swarm.engine.expert_folder.check_space", lambda *of: None)
    ExpertFolder(device.root / "experts" / "other").make_room(1 << 40)
    assert device.is_whole()


def test_a_note_that_is_none_is_passed_over(device: Device) -> None:
    device.load()
    for path, data in zip(device.files, (b"", b"\xc1" * 40), strict=False):
        note_of(path).write_bytes(data)
    device.store.close()
    device.open()
    assert not device.chunks.in_experts.any() and not device.chunks.held.all()


def _target(chunks: ModelChunks, name: str) -> tuple[object, str]:
    owner, _, last = name.rpartition(".")
    return (getattr(chunks, owner) if owner else chunks), last


def _killed(*arguments: object) -> None:
    raise KeyboardInterrupt
