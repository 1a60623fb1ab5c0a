"""The journal: what it says after any end of the process or the power, and that it does not grow for ever."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from swarm.store.journal import Journal

N = 50


def reopened(path: Path) -> tuple[list[int], list[int]]:
    journal = Journal(path, N)
    journal.close()
    return [int(chunk) for chunk in np.flatnonzero(journal.held)], sorted(journal.unsynced)


@pytest.mark.parametrize("seed", range(200))
def test_the_notes_say_what_was_noted_however_the_file_was_cut(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "journal"
    journal = Journal(path, N)
    held: set[int] = set()
    synced: set[int] = set()
    states = [(set(held), set(synced))]
    for _ in range(rng.randint(0, 40)):
        what = rng.randrange(6)
        if what < 4:
            chunk = rng.randrange(N)
            journal.note_held(chunk)
            held.add(chunk)
            synced.discard(chunk)
        elif what == 4 and held:
            chunk = rng.choice(sorted(held))
            journal.note_lost([chunk])
            held.discard(chunk)
            synced.discard(chunk)
        else:
            journal.note_synced(journal.n_notes)
            synced = set(held)
        states.append((set(held), set(synced)))
    journal.close()
    assert reopened(path) == (sorted(held), sorted(held - synced))
    data = path.read_bytes()
    n_bytes = rng.randint(0, len(data))
    path.write_bytes(data[:n_bytes])
    held, synced = states[n_bytes // 8]  # every step above made one note
    assert reopened(path) == (sorted(held), sorted(held - synced))


@pytest.mark.parametrize("tail", [bytes(64), b"\xff" * 64, b"\x01\x00\x00\x00\x07\x00\x00\x00", b"junk"])
def test_what_the_disk_made_up_at_the_end_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, N)
    journal.note_held(3)
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert reopened(path) == ([3], [3])
    assert path.read_bytes() == whole


def test_a_note_about_a_chunk_that_the_model_does_not_have_ends_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, 1000)
    for chunk in (1, 999, 2):
        journal.note_held(chunk)
    journal.close()
    assert reopened(path) == ([1], [1])


def test_a_flush_vouches_only_for_the_notes_before_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, N)
    journal.note_held(1)
    n_notes = journal.n_notes
    journal.note_held(2)
    journal.note_synced(n_notes)
    journal.close()
    assert reopened(path) == ([1, 2], [2])


def test_a_long_journal_is_written_anew_and_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, N)
    for _ in range(3000):
        journal.note_held(7)
        journal.note_lost([7])
    journal.note_held(8)
    journal.note_synced(journal.n_notes)
    journal.note_held(9)
    journal.close()
    n_bytes = path.stat().st_size
    assert reopened(path) == ([8, 9], [9])
    assert path.stat().st_size < n_bytes / 100
    assert reopened(path) == ([8, 9], [9])
