"""A model file of a person's own: what was noted of it when it was first read, and damage since."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import swarm
from swarm.errors import BadModelFile
from swarm.store.gguf import open_gguf
from swarm.store.tensor_digests import HEADER, CheckedGGUF, forget
from tests.helpers.tiny import make_tiny

Read = Callable[[CheckedGGUF], object]
MIXTURE_TENSOR, MATRIX = "blk.1.ffn_up_exps.weight", "blk.0.attn_q.weight"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny(tmp_path / "x.gguf", "air", "Q8_0")


def rot(path: Path, name: str) -> None:
    """Flip a bit of a tensor (or of the header) as a disk does: size and time stay."""
    with open_gguf(path) as file:
        at = file.tensors[name].offset + 5 if name else file.header_bytes - 3
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def read_all(path: Path, notes: Path) -> None:
    with open_gguf(path) as file:
        source = CheckedGGUF(file, notes)
        for name in source.tensors:
            source.raw(name)
        source.keep()


@pytest.mark.parametrize("by_slabs", [False, True])
@pytest.mark.parametrize("name", [MIXTURE_TENSOR, MATRIX])
def test_damage_of_a_file_that_nobody_wrote_to_is_named(model: Path, tmp_path: Path, name: str, by_slabs: bool) -> None:
    read_all(model, tmp_path / "notes")
    rot(model, name)
    with open_gguf(model) as file:
        source = CheckedGGUF(file, tmp_path / "notes")
        with pytest.raises(BadModelFile, match=f"tensor '{name}' is not what it was .* fetch or copy the file again"):
            list(source.slabs(name)) if by_slabs else source.raw(name)
        others = [other for other in source.tensors if other != name]
        for other in others:
            source.raw(other)


def test_damage_of_the_header_is_named(model: Path, tmp_path: Path) -> None:
    read_all(model, tmp_path / "notes")
    rot(model, HEADER)
    with open_gguf(model) as file, pytest.raises(BadModelFile, match="its header is not what it was"):
        CheckedGGUF(file, tmp_path / "notes")


def test_slabs_are_those_of_the_file_and_have_the_digest_of_the_whole(model: Path, tmp_path: Path) -> None:
    with open_gguf(model) as file:
        source = CheckedGGUF(file, tmp_path / "notes")
        for mine, plain in zip(source.slabs(MIXTURE_TENSOR), file.slabs(MIXTURE_TENSOR), strict=True):
            assert np.array_equal(mine, plain)
        source.keep()
        again = CheckedGGUF(file, tmp_path / "notes")
        again.raw(MIXTURE_TENSOR)
        assert len(list(again.slabs(MIXTURE_TENSOR, None, None, range(1)))) == 1


def test_a_file_that_was_written_to_is_another_one(model: Path, tmp_path: Path) -> None:
    read_all(model, tmp_path / "notes")
    rot(model, MATRIX)
    os.utime(model)
    read_all(model, tmp_path / "notes")
    read_all(model, tmp_path / "notes")


def test_what_was_noted_once_is_kept_beside_what_is_read_now(model: Path, tmp_path: Path) -> None:
    for name in (MATRIX, MIXTURE_TENSOR):
        with open_gguf(model) as file:
            source = CheckedGGUF(file, tmp_path / "notes")
            assert source.is_known is (name == MIXTURE_TENSOR)
            source.raw(name)
            source.keep()
    rot(model, MATRIX)
    with open_gguf(model) as file:
        assert CheckedGGUF(file, tmp_path / "notes").damaged(lambda done, total: None) == [MATRIX]


@pytest.mark.parametrize("junk", [b"", b"\xff" * 100, b"\x92\x01\x02", b"\xc1"])
def test_broken_notes_are_none(model: Path, tmp_path: Path, junk: bytes) -> None:
    read_all(model, tmp_path / "notes")
    (notes,) = (tmp_path / "notes").iterdir()
    notes.write_bytes(junk)
    read_all(model, tmp_path / "notes")
    with open_gguf(model) as file:
        assert CheckedGGUF(file, tmp_path / "notes").is_known
    forget(model, tmp_path / "notes")
    assert not notes.exists()


def test_a_model_is_not_loaded_from_a_file_that_the_disk_has_damaged(model: Path, own_home: Path) -> None:
    ids = list(range(5, 20))
    first = swarm.load(model, threads=1).logits(ids)
    assert np.array_equal(swarm.load(model, threads=1).logits(ids), first)
    rot(model, MIXTURE_TENSOR)
    with pytest.raises(BadModelFile, match="the disk has damaged it"):
        swarm.load(model, threads=1)
