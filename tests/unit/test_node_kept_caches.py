"""Caches that are filled from files and copied into them: pieces of what is under way only."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest

from swarm.cluster.effects import KeptBeginning, KeptKv, KeptPlace
from swarm.engine.decoder import Decoder
from swarm.engine.kv_file import U8, piece_of
from swarm.node import kept_caches
from swarm.node.kept_caches import KeptCaches
from swarm.node.kept_kv import Give, KeptFiles, Take
from swarm.wire.ids import ModelId, PeerId, SessionId
from tests.helpers.tiny import TINY
from tests.helpers.tiny_decoder import tiny_decoder

N = 128
IDS = np.random.default_rng(1).integers(4, 256, N).astype(np.int32)
ONE, TWO = SessionId("1" * 32), SessionId("2" * 32)
KEPT = KeptKv(
    "a" * 32,
    KeptPlace(PeerId("e" * 32), b"me", ModelId("1" * 64), "f16", 0, 2, ()),
    array("i", IDS.tolist()).tobytes(),
    9,
)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decoder]:
    with tiny_decoder(tmp_path_factory.mktemp("model"), TINY["qwen3"], context=256) as decoder:
        yield decoder


@dataclass
class Files:
    """Stands for the files: what is asked of them waits here."""

    reads: list[tuple[Take, Callable[[], object]]] = field(default_factory=list)
    copies: list[tuple[Give, Callable[[], object]]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def read(self, beginning: KeptBeginning, kv: object, take: Take, done: Callable[[], object]) -> None:
        self.reads.append((take, done))

    def copy(self, kept: KeptKv, give: Give, done: Callable[[], object]) -> None:
        self.copies.append((give, done))

    def write(self, kept: KeptKv, kv: None) -> None:
        self.lost.append(kept.name)


class Worker:
    """Two sessions, and a thread that may be busy."""

    def __init__(self, decoder: Decoder) -> None:
        self.caches = {ONE: decoder.new_kv(), TWO: decoder.new_kv()}
        decoder.forward(IDS, self.caches[ONE])
        self.files, self.is_busy, self.begun = Files(), False, list[tuple[SessionId, int, int]]()
        self.n_calls = 0
        self.kept = KeptCaches(
            cast("KeptFiles", self.files),
            call=self._call,
            cache_of=self.caches.get,
            have_read=lambda *begun: self.begun.append(begun),
        )

    def _call(self, work: Callable[[], None]) -> None:
        self.n_calls += 1
        if not self.is_busy:
            work()

    def piece(self, first: int = 0, end: int = N) -> U8:
        return piece_of(self.caches[ONE], first, end)


@pytest.fixture
def worker(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr(kept_caches, "KEPT_READ_S", 0.01)
    return Worker(decoder)


def test_a_cache_is_filled_until_it_is_opened_anew(worker: Worker) -> None:
    worker.kept.opened(TWO, KeptBeginning(KEPT, N, 5))
    ((take, done),) = worker.files.reads
    assert take(0, 64, worker.piece(0, 64)) and worker.caches[TWO].length == 64
    assert not take(32, 96, worker.piece(32, 96)), "that does not follow"
    worker.kept.opened(TWO, None)
    assert not take(64, N, worker.piece(64, N)) and worker.caches[TWO].length == 64
    done()
    assert worker.begun == []


def test_who_waits_hears_how_much_has_come(worker: Worker) -> None:
    worker.kept.opened(TWO, KeptBeginning(KEPT, N, 5))
    ((take, done),) = worker.files.reads
    assert take(0, N, worker.piece())
    done()
    done()
    assert worker.begun == [(TWO, 5, N)]


def test_a_cache_is_copied_until_it_is_opened_anew(worker: Worker) -> None:
    worker.kept.keep(ONE, KEPT)
    ((give, done),) = worker.files.copies
    piece = give(0, 64)
    assert piece is not None and piece.tobytes() == worker.piece(0, 64).tobytes()
    worker.kept.opened(ONE, None)
    assert give(64, N) is None
    done()
    worker.kept.keep(ONE, KEPT)
    give, done = worker.files.copies[1]
    done()
    assert give(0, 64) is None, "it has ended"


def test_one_that_is_dropped_or_moved_gives_nothing(worker: Worker) -> None:
    worker.kept.keep(ONE, KEPT)
    ((give, _),) = worker.files.copies
    worker.is_busy = True  # its thread may have ended: it is not waited for
    cache = worker.caches.pop(ONE)
    assert give(0, 64) is None and not worker.n_calls
    worker.is_busy, worker.caches[ONE] = False, worker.caches[TWO]
    assert give(0, 64) is None
    worker.caches[ONE] = cache
    del worker.caches[TWO]
    worker.kept.keep(TWO, KEPT)
    assert worker.files.lost == [KEPT.name]
    worker.kept.opened(TWO, KeptBeginning(KEPT, N, 1))
    assert not worker.files.reads


def test_a_long_step_is_not_waited_for(worker: Worker) -> None:
    worker.kept.keep(ONE, KEPT)
    worker.kept.opened(TWO, KeptBeginning(KEPT, N, 5))
    worker.is_busy = True
    assert worker.files.copies[0][0](0, 64) is None
    assert not worker.files.reads[0][0](0, N, worker.piece())


def test_what_cannot_be_copied_is_heard_by_who_asks(worker: Worker) -> None:
    worker.kept.keep(TWO, KEPT)
    with pytest.raises(ValueError, match="were to be kept"):
        worker.files.copies[0][0](0, 64)
