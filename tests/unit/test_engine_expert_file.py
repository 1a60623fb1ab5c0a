"""Experts of a layer in a file: what is written is what is read, and what is broken is not used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from swarm.engine import expert_file
from swarm.engine.expert_file import PAGE, ExpertFile, ExpertShape, write_experts
from swarm.kernels import _native
from swarm.kernels.quants import quant_by_name

Q4_0 = quant_by_name("Q4_0")
SHAPE = ExpertShape(5, ((Q4_0.id, 96, 64), (Q4_0.id, 96, 64), (Q4_0.id, 64, 96)))


def experts(seed: int = 0) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    shapes = [(rows, Q4_0.row_bytes(cols)) for _, rows, cols in SHAPE.matrices]
    return [[rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes] for _ in range(SHAPE.n_experts)]


def written(tmp_path: Path) -> Path:
    write_experts(tmp_path / "layer", SHAPE, experts(), piece_bytes=PAGE)
    return tmp_path / "layer"


def test_an_expert_comes_back_bit_for_bit(tmp_path: Path) -> None:
    file = ExpertFile.open(written(tmp_path), SHAPE, PAGE)
    assert file is not None
    data = np.fromfile(file.path, np.uint8)
    assert file.first % PAGE == SHAPE.expert_bytes % PAGE == 0
    for number, matrices in enumerate(experts()):
        start = file.first + number * SHAPE.expert_bytes
        aligned = np.empty(SHAPE.expert_bytes + 64, np.uint8)
        aligned = aligned[-aligned.ctypes.data % 64 :][: SHAPE.expert_bytes]
        aligned[:] = data[start : start + SHAPE.expert_bytes]
        for mat, raw in zip(SHAPE.mats(aligned), matrices, strict=True):
            assert np.array_equal(mat.unpack(), raw)
        pieces = [_native.crc32c(aligned[at : at + PAGE]) for at in range(0, len(aligned), PAGE)]
        assert file.sums[number].tolist() == pieces


def test_what_is_not_such_a_file_is_not_opened(tmp_path: Path) -> None:
    path = written(tmp_path)
    other = ExpertShape(5, ((Q4_0.id, 64, 64), (Q4_0.id, 64, 64), (Q4_0.id, 64, 64)))
    assert ExpertFile.open(path, other, PAGE) is None, "another shape"
    assert ExpertFile.open(path, SHAPE, 2 * PAGE) is None, "other pieces"
    assert ExpertFile.open(tmp_path / "none", SHAPE, PAGE) is None
    whole = path.read_bytes()
    for broken in (whole[:-1], whole[:PAGE], b"", b"{}", whole[:PAGE] + b"\1" + whole[PAGE + 1 :], b"[" * PAGE + whole):
        path.write_bytes(broken)
        assert ExpertFile.open(path, SHAPE, PAGE) is None


def test_a_file_that_was_cut_off_has_no_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 experts of 5"):
        write_experts(tmp_path / "layer", SHAPE, experts()[:2], piece_bytes=PAGE)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_is_read_through_the_page_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expert_file, "DIRECT", 0)
    file = ExpertFile.open(written(tmp_path), SHAPE, PAGE)
    assert file is not None and file.through_page_cache


def test_checksums_are_those_of_rfc_3720() -> None:
    texts = {b"\0" * 32: 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E, b"123456789": 0xE3069283}
    for text, expected in texts.items():
        data = np.frombuffer(text, np.uint8)
        assert _native.crc32c(data) == _native.crc32c(data, by_tables=True) == expected
    data = np.random.default_rng(1).integers(0, 256, 10_003, dtype=np.uint8)
    assert all(_native.crc32c(data[:n]) == _native.crc32c(data[:n], by_tables=True) for n in (0, 1, 7, 8, 9, 10_003))
