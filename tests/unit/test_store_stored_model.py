"""A model read from chunks as if it were a GGUF file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from swarm.errors import BadModelFile, ModelNotFound
from swarm.store.gguf import open_gguf
from swarm.store.manifest import Cut, Manifest
from swarm.store.rectangles import Rectangle
from tests.helpers.chunked import GATE, OUT, RECTANGLES, Q, expected, fetch


def test_a_fetched_model_reads_like_the_file_it_came_from(seeder, open_store, chunked_model: Path) -> None:
    source, manifest = seeder
    store = open_store()
    fetch(store, source, manifest)
    with open_gguf(chunked_model) as file:
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


def test_a_shard_can_be_loaded_when_only_its_chunks_are_here(seeder, open_store, chunked_model: Path) -> None:
    source, manifest = seeder
    store = open_store()
    names = [name for name in manifest.by_name if name.startswith("blk.1.")]
    fetch(store, source, manifest, manifest.chunks_of(map(Rectangle, names)))
    stored = store.open(manifest.id)
    with open_gguf(chunked_model) as file:
        for name in names:
            np.testing.assert_array_equal(stored.raw(name), file.raw(name))
    with pytest.raises(ModelNotFound, match=r"chunks of tensor 'blk.0.attn_q.weight' are not on this device yet"):
        stored.raw("blk.0.attn_q.weight")


# ---- rectangles


def touched(manifest: Manifest, rectangle: Rectangle) -> list[int]:
    name, rows, columns, _ = rectangle
    tensor = manifest.by_name[name]
    return list(tensor.chunks_of(range(tensor.n_slabs), rows, columns))


@pytest.mark.parametrize("rectangle", RECTANGLES)
def test_a_device_with_only_the_chunks_of_a_rectangle_reads_it(
    seeder, open_store, chunked_model: Path, rectangle: Rectangle
) -> None:
    source, manifest = seeder
    store = open_store()
    fetch(store, source, manifest, touched(manifest, rectangle))
    with open_gguf(chunked_model) as file:
        want = expected(file, rectangle)
    for stored in (source.open(manifest.id), store.open(manifest.id)):
        got = stored.raw(*rectangle[:3])
        assert got.shape == want.shape and np.array_equal(got, want)
        if want.ndim > 1:
            assert np.array_equal(np.stack(list(stored.slabs(*rectangle))).reshape(want.shape), want)


def test_what_lies_outside_the_chunks_that_are_here_is_not_to_be_read(seeder, open_store) -> None:
    source, manifest = seeder
    store = open_store()
    fetch(store, source, manifest, touched(manifest, Rectangle(Q, [range(0, 20)])))
    stored = store.open(manifest.id)
    assert stored.raw(Q, [range(0, 20)]).shape == (20, 1024)
    with pytest.raises(ModelNotFound, match=r"chunks of tensor 'blk.0.attn_q.weight' are not on this device yet"):
        stored.raw(Q, [range(0, 20), range(1500, 1510)])


def test_a_rectangle_touches_only_the_chunks_that_it_needs(seeder) -> None:
    _, manifest = seeder
    for name, rows, columns, _ in RECTANGLES:
        tensor = manifest.by_name[name]
        chunks = touched(manifest, Rectangle(name, rows, columns))
        assert chunks == sorted(set(chunks))
        for chunk in tensor.chunks if len(tensor.shape) > 1 else ():
            place = tensor.place(chunk)
            if tensor.cut is Cut.ROWS:
                meets = rows is None or any(p.start < place.row1 and place.row0 < p.stop for p in rows)
            else:
                first, end = (tensor.quant.row_bytes(c) for c in (columns.start, columns.stop))
                meets = first < place.byte1 and place.byte0 < end
            assert (chunk in chunks) == meets, (name, place)


def test_nothing_of_a_tensor_touches_nothing(seeder) -> None:
    assert touched(seeder[1], Rectangle(Q, [])) == touched(seeder[1], Rectangle(Q, [range(5, 5)])) == []


def test_some_slabs_of_a_tensor_can_be_here_alone(seeder, open_store, chunked_model: Path) -> None:
    source, manifest = seeder
    store = open_store()
    some = Rectangle(GATE, slabs=range(1, 3))
    chunks = manifest.chunks_of([some])
    fetch(store, source, manifest, chunks)
    with open_gguf(chunked_model) as file:
        want = list(file.slabs(*some))
        assert len(want) == 2 and np.array_equal(np.stack(want), file.raw(GATE)[1:3])
    for stored in (source.open(manifest.id), store.open(manifest.id)):
        assert np.array_equal(np.stack(list(stored.slabs(*some))), np.stack(want))
    with pytest.raises(ModelNotFound, match="are not on this device yet"):
        list(store.open(manifest.id).slabs(GATE))


# ---- single rows


def test_single_rows_are_those_of_the_file_wherever_they_lie(seeder, open_store, chunked_model: Path) -> None:
    source, manifest = seeder
    store = open_store()
    fetch(store, source, manifest, manifest.chunks_of([Rectangle("token_embd.weight")]))
    with open_gguf(chunked_model) as file:
        want = file.raw("token_embd.weight")
    in_file, in_store = (each.open(manifest.id).open_rows("token_embd.weight") for each in (source, store))
    for rows in (in_file, in_store):
        np.testing.assert_array_equal(np.concatenate(list(rows.verified())), want)
        assert all(rows.read(i) == want[i].tobytes() for i in (0, 1, 1500, 2999))


def test_rows_that_are_cut_or_not_here_are_refused(seeder, open_store) -> None:
    source, manifest = seeder
    with pytest.raises(BadModelFile, match="not cut into whole rows"):
        source.open(manifest.id).open_rows(OUT)
    store = open_store()
    fetch(store, source, manifest, list(manifest.header_chunks))
    with pytest.raises(ModelNotFound, match="are not on this device yet"):
        store.open(manifest.id).open_rows("token_embd.weight")
