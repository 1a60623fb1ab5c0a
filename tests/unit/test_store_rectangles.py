"""Rectangles of tensors: from the mapped file or from the chunks that they touch, always the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from swarm.errors import ModelNotFound
from swarm.kernels.quants import quant_by_name
from swarm.store.chunks import ChunkStore
from swarm.store.gguf import GGUF, open_gguf
from swarm.store.manifest import Cut, Manifest
from swarm.store.rectangles import Rows, cut, overlaps
from swarm.store.stored_model import StoredModel
from tests.helpers.chunked import write_model

Q = "blk.0.attn_q.weight"  # 1536 x 256 F32, cut by rows
OUT = "blk.0.attn_output.weight"  # 256 x 1536 Q4_K, cut by columns
GATE = "blk.1.ffn_gate_exps.weight"  # 3 x 320 x 256 Q5_0, cut by rows
DOWN = "blk.1.ffn_down_exps.weight"  # 3 x 1024 x 320 F16, cut by columns
NORM = "blk.1.attn_norm.weight"

Rectangle = tuple[str, Rows | None, range | None]

RECTANGLES: list[Rectangle] = [
    (Q, [range(0, 1536)], range(0, 256)),
    (Q, [range(40, 97)], None),
    (Q, [range(1200, 1300), range(3, 17), range(1250, 1536)], None),
    (Q, [range(40, 97)], range(17, 100)),
    (OUT, None, range(256, 1024)),
    (OUT, [range(7, 30)], range(1280, 1536)),
    (GATE, [range(0, 32), range(192, 320)], None),
    (DOWN, None, range(64, 160)),
    (DOWN, [range(5, 10), range(5, 10)], range(300, 320)),
    (NORM, [range(10, 20), range(10, 20), range(200, 256)], range(0, 1)),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.gguf")


@pytest.fixture
def file(path: Path) -> Iterator[GGUF]:
    with open_gguf(path) as model:
        yield model


@pytest.fixture
def seeder(tmp_path: Path, path: Path) -> Iterator[tuple[ChunkStore, Manifest]]:
    store = ChunkStore(tmp_path / "seeder")
    yield store, store.import_gguf(path)
    store.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[ChunkStore]:
    store = ChunkStore(tmp_path / "other")
    yield store
    store.close()


def touched(manifest: Manifest, name: str, rows: Rows | None, columns: range | None) -> list[int]:
    tensor = manifest.by_name[name]
    return list(tensor.chunks_of(range(tensor.n_slabs), rows, columns))


def fetch(store: ChunkStore, seeder: ChunkStore, manifest: Manifest, chunks: list[int]) -> StoredModel:
    store.add_manifest(manifest.encoded, manifest.id)
    for chunk in chunks:
        data = seeder.read(manifest.chunk_id(chunk), 0, int(manifest.chunk_sizes[chunk]))
        assert data is not None and store.put(manifest.id, chunk, data)
    return store.open(manifest.id)


def expected(file: GGUF, name: str, rows: Rows | None, columns: range | None) -> np.ndarray:
    """The rectangle, block by block, from the whole tensor."""
    info = file.tensors[name]
    whole = file.raw(name)
    if whole.ndim == 1:
        values = whole.view(np.float32)
        return np.concatenate([values[piece.start : piece.stop] for piece in rows or []]).view(np.uint8)
    blocks = whole.reshape(*whole.shape[:-1], -1, info.quant.block_bytes)
    first, end = (columns.start, columns.stop) if columns else (0, info.shape[-1])
    blocks = blocks[..., first // info.quant.block_cols : end // info.quant.block_cols, :]
    index = np.concatenate([np.arange(piece.start, piece.stop) for piece in rows or [range(info.shape[-2])]])
    return blocks[..., index, :, :].reshape(*whole.shape[:-2], len(index), -1)


@pytest.mark.parametrize(("name", "rows", "columns"), RECTANGLES)
def test_a_rectangle_of_the_mapped_file_is_what_the_whole_tensor_has_there(
    file: GGUF, name: str, rows: Rows | None, columns: range | None
) -> None:
    want = expected(file, name, rows, columns)
    got = file.raw(name, rows, columns)
    assert got.shape == want.shape and np.array_equal(got, want)
    if want.ndim > 1:
        assert np.array_equal(np.stack(list(file.slabs(name, rows, columns))).reshape(want.shape), want)


def test_one_range_of_rows_is_a_view_of_the_file(file: GGUF) -> None:
    assert np.shares_memory(file.raw(Q, [range(40, 97)], range(16, 64)), file.raw(Q))


@pytest.mark.parametrize("rectangle", RECTANGLES)
def test_a_device_with_only_the_chunks_of_a_rectangle_reads_it(
    seeder: tuple[ChunkStore, Manifest], other: ChunkStore, file: GGUF, rectangle: Rectangle
) -> None:
    source, manifest = seeder
    name, rows, columns = rectangle
    want = expected(file, name, rows, columns)
    for stored in (source.open(manifest.id), fetch(other, source, manifest, touched(manifest, name, rows, columns))):
        got = stored.raw(name, rows, columns)
        assert got.shape == want.shape and np.array_equal(got, want)
        if want.ndim > 1:
            assert np.array_equal(np.stack(list(stored.slabs(name, rows, columns))).reshape(want.shape), want)


def test_what_lies_outside_the_chunks_that_are_here_is_not_to_be_read(
    seeder: tuple[ChunkStore, Manifest], other: ChunkStore
) -> None:
    source, manifest = seeder
    stored = fetch(other, source, manifest, touched(manifest, Q, [range(0, 20)], None))
    assert stored.raw(Q, [range(0, 20)]).shape == (20, 1024)
    with pytest.raises(ModelNotFound, match=r"chunks of tensor 'blk.0.attn_q.weight' are not on this device yet"):
        stored.raw(Q, [range(0, 20), range(1500, 1510)])


def test_a_rectangle_touches_only_the_chunks_that_it_needs(seeder: tuple[ChunkStore, Manifest]) -> None:
    _, manifest = seeder
    for name, rows, columns in RECTANGLES:
        tensor = manifest.by_name[name]
        chunks = touched(manifest, name, rows, columns)
        assert chunks == sorted(set(chunks))
        for chunk in tensor.chunks if len(tensor.shape) > 1 else ():
            place = tensor.place(chunk)
            if tensor.cut is Cut.ROWS:
                meets = rows is None or any(p.start < place.row1 and place.row0 < p.stop for p in rows)
            else:
                first, end = (tensor.quant.row_bytes(c) for c in (columns.start, columns.stop))
                meets = first < place.byte1 and place.byte0 < end
            assert (chunk in chunks) == meets, (name, place)


def test_nothing_of_a_tensor_touches_nothing(seeder: tuple[ChunkStore, Manifest]) -> None:
    assert touched(seeder[1], Q, [], None) == touched(seeder[1], Q, [range(5, 5)], None) == []


def test_columns_must_be_whole_blocks(file: GGUF) -> None:
    with pytest.raises(AssertionError):
        file.raw(OUT, None, range(0, 32))


def test_several_ranges_are_put_one_after_the_other() -> None:
    raw = np.arange(20, dtype=np.uint8).reshape(5, 4)
    got = cut(raw, quant_by_name("F32"), [range(4, 5), range(0, 2), range(0, 1)], None)
    assert np.array_equal(got, raw[[4, 0, 1, 0]])


def test_overlaps_are_counted_from_the_first_row_and_among_the_ranges() -> None:
    found = list(overlaps([range(0, 10), range(30, 40), range(8, 12)], 8, 32))
    assert found == [(slice(0, 2), slice(8, 10)), (slice(22, 24), slice(10, 12)), (slice(0, 4), slice(20, 24))]
