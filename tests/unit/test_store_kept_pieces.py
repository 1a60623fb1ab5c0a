"""A file that arrives in pieces: what was kept is there for the next process, and nothing is believed that is not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from swarm.limits import PIECE_BYTES
from swarm.store import kept_pieces
from swarm.store.kept_pieces import KeptPieces, journal_of, kept_beginning, part_kept

CONTENT = np.random.default_rng(1).bytes(3 * PIECE_BYTES + 1000)


def opened(tmp_path: Path, origin: str = "a") -> KeptPieces:
    return KeptPieces(tmp_path / "x.gguf", len(CONTENT), origin)


def put(pieces: KeptPieces, *numbers: int) -> None:
    for number in numbers:
        place = pieces.piece(number)
        pieces.put(number, CONTENT[place.start : place.stop])


def test_pieces_in_any_order_become_the_file_under_its_name(tmp_path: Path) -> None:
    pieces = opened(tmp_path)
    put(pieces, 3, 1, 0)
    assert not pieces.path.exists() and pieces.kept_bytes == 2 * PIECE_BYTES + 1000
    put(pieces, 2)
    assert pieces.sha256(lambda done, total: None) == hashlib.sha256(CONTENT).hexdigest()
    pieces.publish()
    assert pieces.path.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["x.gguf"]


def test_another_process_finds_what_was_kept(tmp_path: Path) -> None:
    put(opened(tmp_path), 0, 2)  # never closed, as after kill -9
    pieces = opened(tmp_path)
    assert list(pieces.have) == [True, False, True, False]
    assert part_kept(pieces.path) == (2 * PIECE_BYTES, len(CONTENT), "a")
    put(pieces, 1, 3)
    told: list[int] = []
    assert pieces.sha256(lambda done, total: told.append(done)) == hashlib.sha256(CONTENT).hexdigest()
    pieces.close()


def test_pieces_of_another_file_are_not_kept(tmp_path: Path) -> None:
    put(opened(tmp_path), 0, 1)
    assert not opened(tmp_path, "b").have.any()


def test_a_torn_note_at_the_end_does_not_count(tmp_path: Path) -> None:
    put(opened(tmp_path), 0, 1)
    journal = journal_of(tmp_path / "x.gguf")
    journal.write_bytes(journal.read_bytes()[:-2])
    assert list(opened(tmp_path).have) == [True, False, False, False]


def test_after_a_restart_of_the_machine_only_what_was_flushed_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = opened(tmp_path)
    put(pieces, 0)
    pieces.sync()
    put(pieces, 1)
    boot = tmp_path / "boot"
    boot.write_text("another")
    monkeypatch.setattr(kept_pieces, "_BOOT_ID", boot)
    assert list(opened(tmp_path).have) == [True, False, False, False]


def test_a_file_that_was_cut_meanwhile_is_fetched_anew(tmp_path: Path) -> None:
    pieces = opened(tmp_path)
    put(pieces, 0, 1, 2)
    pieces.partial.write_bytes(b"short")
    assert not opened(tmp_path).have.any()


def test_what_is_missing_is_told_as_runs_of_neighbours(tmp_path: Path) -> None:
    pieces = KeptPieces(tmp_path / "y.gguf", 10 * PIECE_BYTES, "a")
    for number in (0, 4):
        pieces.put(number, bytes(PIECE_BYTES))
    assert list(pieces.runs(3 * PIECE_BYTES)) == [range(1, 4), range(5, 8), range(8, 10)]
    assert list(pieces.runs(10**12)) == [range(1, 4), range(5, 10)]
    pieces.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"{}\n", b"nonsense", b'{"bytes": 5, "piece": 0, "origin": ""}\n', b"[1]\n\0\0"])
def test_a_journal_that_makes_no_sense_is_none(tmp_path: Path, data: bytes) -> None:
    journal_of(tmp_path / "x.gguf").write_bytes(data)
    assert part_kept(tmp_path / "x.gguf") is None
    assert not opened(tmp_path).have.any()


def test_the_beginning_of_what_came_is_read_as_far_as_it_has_no_gap(tmp_path: Path) -> None:
    put(opened(tmp_path), 0, 1, 3)
    path = tmp_path / "x.gguf"
    assert kept_beginning(path, "a", 10**9) == CONTENT[: 2 * PIECE_BYTES]
    assert kept_beginning(path, "a", 1000) == CONTENT[:1000]
    assert kept_beginning(path, "b", 1000) == b"" == kept_beginning(tmp_path / "y.gguf", "a", 1000)
