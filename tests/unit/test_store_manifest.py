"""Manifests: how tensors are cut, and what is known of each chunk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import BadModelFile
from swarm.kernels.quants import QUANTS, quant_by_name
from swarm.limits import CHUNK_BYTES, EXPERT_CHUNK_BYTES, MAX_CHUNK_BYTES
from swarm.store.gguf import open_gguf
from swarm.store.gguf_chunks import chunk_of_gguf
from swarm.store.importing import manifest_of
from swarm.store.manifest import Cut, Manifest, plan_chunks
from swarm.store.rectangles import Rectangle
from tests.helpers.chunked import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.gguf")


@pytest.fixture(scope="module")
def manifest(model: Path) -> Manifest:
    with open_gguf(model) as file:
        return manifest_of(file, threads=2)


# ---- cutting


shapes = st.one_of(
    st.tuples(st.integers(1, 5000)),
    st.tuples(st.integers(1, 3000), st.integers(1, 40)),
    st.tuples(st.integers(1, 9), st.integers(1, 700), st.integers(1, 40)),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(QUANTS)), shapes, st.sampled_from(["blk.0.ffn_down.weight", "blk.0.ffn_up.weight"]))
def test_chunks_cover_every_byte_of_a_tensor_once(type_id: int, shape: tuple[int, ...], name: str) -> None:
    quant = QUANTS[type_id]
    shape = (*shape[:-1], shape[-1] * quant.block_cols)
    tensor = plan_chunks(name, quant, shape, first_chunk=7)
    covered = np.zeros((tensor.n_slabs, tensor.rows, tensor.row_bytes), np.uint8)
    offset = 0
    for chunk in tensor.chunks:
        slab, row0, row1, byte0, byte1 = tensor.place(chunk)
        covered[slab, row0:row1, byte0:byte1] += 1
        assert tensor.offset(chunk) == offset, chunk
        n_bytes = (row1 - row0) * (byte1 - byte0)
        assert 0 < n_bytes <= MAX_CHUNK_BYTES
        offset += n_bytes
    assert offset == tensor.n_bytes and (covered == 1).all()
    assert list(tensor.chunks_of(range(tensor.n_slabs))) == list(tensor.chunks)


def test_real_shapes_are_cut_near_the_size_aimed_at() -> None:
    shapes = {
        ("blk.1.ffn_gate_exps.weight", "Q4_K"): (128, 1408, 4096),
        ("blk.1.ffn_down_exps.weight", "Q5_0"): (128, 4096, 1408),
        ("blk.0.ffn_down.weight", "Q8_0"): (4096, 10944),
        ("blk.0.attn_output.weight", "Q4_K"): (4096, 12288),
        ("blk.0.attn_q.weight", "Q4_K"): (12288, 4096),
        ("token_embd.weight", "Q4_K"): (151552, 4096),
    }
    for (name, quant), shape in shapes.items():
        tensor = plan_chunks(name, quant_by_name(quant), shape, 0)
        aim = EXPERT_CHUNK_BYTES if len(shape) > 2 else CHUNK_BYTES
        _, row0, row1, byte0, byte1 = tensor.place(0)
        assert aim / 2 < (row1 - row0) * (byte1 - byte0) <= aim * 1.2, name
        assert (tensor.cut is Cut.COLUMNS) == ("down" in name or "attn_output" in name), name
        assert tensor.step % 32 == 0, name


def test_one_expert_and_one_slice_are_few_chunks() -> None:
    gate = plan_chunks("blk.1.ffn_gate_exps.weight", quant_by_name("Q4_0"), (128, 1408, 4096), 1000)
    down = plan_chunks("blk.1.ffn_down_exps.weight", quant_by_name("Q4_0"), (128, 4096, 1408), 5000)
    for tensor in (gate, down):
        expert = list(tensor.chunks_of(range(17, 18)))
        assert {tensor.place(chunk).slab for chunk in expert} == {17} and len(expert) == tensor.chunks_per_slab
    eighth = range(176, 352)  # of the FFN's 1408: rows of gate and up, columns of down
    share = list(gate.chunks_of(range(17, 18), rows=[eighth])), list(down.chunks_of(range(17, 18), columns=eighth))
    for tensor, chunks in zip((gate, down), share, strict=True):
        whole = list(tensor.chunks_of(range(17, 18)))
        assert set(chunks) < set(whole) and len(chunks) <= len(whole) / 4 + 1
    starts = [gate.place(chunk).row0 for chunk in share[0]]
    assert starts[0] <= 176 and gate.place(share[0][-1]).row1 >= 352


def test_a_row_too_long_for_a_chunk_is_refused() -> None:
    with pytest.raises(BadModelFile, match="tensor 'x': a row of"):
        plan_chunks("x", quant_by_name("F32"), (2, 2_000_000), 0)


# ---- manifests


def test_every_digest_is_the_hash_of_its_chunk(model: Path, manifest: Manifest) -> None:
    with open_gguf(model) as file:
        total = 0
        for chunk in range(manifest.n_chunks):
            data = bytes(chunk_of_gguf(file, manifest, chunk))
            assert blake3(data).digest() == manifest.digest(chunk)
            assert len(data) == manifest.chunk_sizes[chunk]
            assert chunk in manifest.find(manifest.chunk_id(chunk))
            total += len(data)
        assert total == manifest.total_bytes
        assert manifest.find(blake3(b"absent").hexdigest()) == []


def test_the_chunks_of_a_layer_are_those_of_its_tensors_and_the_header(manifest: Manifest) -> None:
    names = [tensor.name for tensor in manifest.tensors if tensor.name.startswith("blk.1.")]
    chunks = manifest.chunks_of(map(Rectangle, names))
    assert len(chunks) < manifest.n_chunks and chunks[0] == 0
    for chunk in chunks:
        tensor = manifest.tensor_of(chunk)
        assert tensor is None or tensor.name in names
    assert sum(manifest.chunk_sizes[chunks]) == manifest.header_bytes + sum(manifest.by_name[n].n_bytes for n in names)
