"""One file by ranges: several streams, cuts, refusals, and what is never asked twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from swarm.errors import DownloadError
from swarm.limits import PIECE_BYTES
from swarm.store import download as module
from swarm.store.download import download
from swarm.store.kept_pieces import KeptPieces
from swarm.store.web_file import Interrupted, Unreachable

CONTENT = np.random.default_rng(3).bytes(40 * PIECE_BYTES + 123)


class FakeSource:
    """Gives the bytes of CONTENT; the first reads fail as `failures` say, after so many bytes."""

    def __init__(self, *failures: tuple[int, Exception], has_ranges: bool = True) -> None:
        self.has_ranges = has_ranges
        self.asked: list[tuple[int, int]] = []
        self._failures = list(failures)
        self._lock = threading.Lock()

    def read(self, start: int, end: int) -> Iterator[bytes]:
        with self._lock:
            self.asked.append((start, end))
            failure = self._failures.pop(0) if self._failures else None
        stop = min(end, start + failure[0]) if failure else end
        for position in range(start, stop, 300_000):
            yield CONTENT[position : min(position + 300_000, stop)]
        if failure:
            raise failure[1]


@pytest.fixture
def pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeptPieces]:
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.0)
    kept = KeptPieces(tmp_path / "x.gguf", len(CONTENT), "a")
    yield kept
    kept.close()


def fetch(source: FakeSource, pieces: KeptPieces, **options: int) -> list[int]:
    told: list[int] = []
    download(source, pieces, lambda done, total: told.append(done), lambda why: None, **options)
    return told


def is_right(pieces: KeptPieces) -> bool:
    return pieces.partial.read_bytes() == CONTENT


@pytest.mark.parametrize("streams", [1, 3, 7])
def test_streams_share_a_file_and_ask_for_no_byte_twice(pieces: KeptPieces, streams: int) -> None:
    source = FakeSource()
    told = fetch(source, pieces, streams=streams)
    assert is_right(pieces)
    assert sum(end - start for start, end in source.asked) == len(CONTENT)
    assert told == sorted(told) and told[-1] == len(CONTENT)


def test_only_what_is_missing_is_asked_for(pieces: KeptPieces) -> None:
    for number in (0, 20):
        place = pieces.piece(number)
        pieces.put(number, CONTENT[place.start : place.stop])
    source = FakeSource()
    fetch(source, pieces)
    assert is_right(pieces)
    assert sum(end - start for start, end in source.asked) == len(CONTENT) - 2 * PIECE_BYTES


def test_a_cut_loses_less_than_a_piece(pieces: KeptPieces) -> None:
    source = FakeSource((5 * PIECE_BYTES + 77, Interrupted("cut")), (0, Interrupted("cut")))
    fetch(source, pieces, streams=1)
    assert is_right(pieces)
    assert [start for start, _ in source.asked[:3]] == [0, 5 * PIECE_BYTES, 5 * PIECE_BYTES]


def test_a_reply_that_ends_early_without_a_word_is_a_cut(pieces: KeptPieces) -> None:
    class Short(FakeSource):
        def read(self, start: int, end: int) -> Iterator[bytes]:
            yield from super().read(start, end if len(self.asked) else start + PIECE_BYTES)

    fetch(Short(), pieces, streams=1)
    assert is_right(pieces)


def test_a_network_that_comes_back_is_waited_for(pieces: KeptPieces) -> None:
    fetch(FakeSource((2 * PIECE_BYTES, Interrupted("cut")), (0, Unreachable("offline?"))), pieces, streams=1)
    assert is_right(pieces)


def test_one_that_was_never_there_is_not(pieces: KeptPieces) -> None:
    source = FakeSource((0, Unreachable("offline?")))
    with pytest.raises(DownloadError, match=r"offline\?"):
        fetch(source, pieces, streams=1)
    assert len(source.asked) == 1


def test_a_refusal_ends_it_and_what_came_is_kept(pieces: KeptPieces) -> None:
    source = FakeSource((3 * PIECE_BYTES, DownloadError("403")))
    with pytest.raises(DownloadError, match="403"):
        fetch(source, pieces, streams=1)
    assert list(np.flatnonzero(pieces.have)) == [0, 1, 2]


def test_patience_ends(pieces: KeptPieces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DOWNLOAD_PATIENCE_S", -1.0)
    with pytest.raises(DownloadError, match="what has come is kept: the same command goes on there"):
        fetch(FakeSource((PIECE_BYTES, Interrupted("the connection was cut"))), pieces, streams=1)


def test_a_server_that_always_begins_at_the_first_byte_is_asked_by_one_stream(pieces: KeptPieces) -> None:
    source = FakeSource(has_ranges=False)
    fetch(source, pieces)
    assert source.asked == [(0, len(CONTENT))] and is_right(pieces)
