"""Single rows of a matrix from the files in which a device has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from swarm.errors import BadModelFile
from swarm.store.row_file import RowFile, RowPiece

ROW_BYTES, STEP = 24, 4
ROWS = np.random.default_rng(3).integers(0, 256, (11, ROW_BYTES), dtype=np.uint8)


def row_file(folder: Path) -> RowFile:
    """Pieces of four, four and three rows: the middle one in another file, each behind something else."""
    pieces = []
    for number, start in enumerate(range(0, len(ROWS), STEP)):
        path, data = folder / f"file{number % 2}", ROWS[start : start + STEP].tobytes()
        before = path.read_bytes() if path.exists() else b"before"
        path.write_bytes(before + data)
        pieces.append(RowPiece(path, len(before), len(data) // ROW_BYTES, blake3(data).digest()))
    return RowFile("token_embd.weight", ROW_BYTES, pieces)


def test_every_row_is_read_from_the_file_that_has_it(tmp_path: Path) -> None:
    rows = row_file(tmp_path)
    assert [rows.read(i) for i in range(11)] == [row.tobytes() for row in ROWS]
    np.testing.assert_array_equal(np.concatenate(list(rows.verified())), ROWS)


def test_a_flipped_byte_is_found_and_the_file_named(tmp_path: Path) -> None:
    rows = row_file(tmp_path)
    path = tmp_path / "file1"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadModelFile, match=r"file1: tensor 'token_embd.weight' is not what it was"):
        list(rows.verified())


def test_a_file_that_was_cut_is_an_error_and_no_signal(tmp_path: Path) -> None:
    rows = row_file(tmp_path)
    (tmp_path / "file0").write_bytes(b"before")
    with pytest.raises(BadModelFile, match=r"file0: .* is not what it was"):
        rows.read(0)
    assert rows.read(STEP) == ROWS[STEP].tobytes(), "the other file is as it was"


def test_a_file_that_is_deleted_or_replaced_stays_readable(tmp_path: Path) -> None:
    rows = row_file(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
        path.write_bytes(b"another")
    assert rows.read(10) == ROWS[10].tobytes()


def test_a_file_that_is_not_there_and_a_disk_that_fails_say_so(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match="gone: cannot be opened"):
        RowFile("m", ROW_BYTES, [RowPiece(tmp_path / "gone", 0, 1, b"")])
    rows = RowFile("m", ROW_BYTES, [RowPiece(tmp_path, 0, 1, b"")])  # a directory opens, and cannot be read
    with pytest.raises(BadModelFile, match="tensor 'm' cannot be read from the disk"):
        rows.read(0)
