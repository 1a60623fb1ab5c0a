"""Files of keys and values: found by the next run, within quotas, never in the way of anybody."""

from __future__ import annotations

import json
import os
import threading
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from swarm import files, limits
from swarm.cluster.effects import ForgetKept, KeptBeginning, KeptKv, KeptPlace
from swarm.engine import kv_file
from swarm.engine.decoder import Decoder
from swarm.engine.kv_file import U8, piece_of, put, write_kv
from swarm.kernels import _native
from swarm.node import kept_kv
from swarm.node.kept_kv import DAY_FILE, Give, KeptFiles
from swarm.wire.ids import ModelId, PeerId
from tests.helpers.tiny import TINY
from tests.helpers.tiny_decoder import tiny_decoder

N = 128
IDS = np.random.default_rng(1).integers(4, 256, N).astype(np.int32)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decoder]:
    with tiny_decoder(tmp_path_factory.mktemp("model"), TINY["qwen3"], context=256) as decoder:
        yield decoder


@pytest.fixture
def kv(decoder: Decoder) -> _native.KvCache:
    cache = decoder.new_kv()
    decoder.forward(IDS, cache)
    return cache


@dataclass
class Disk:
    """The files of a node, and what it hears of them."""

    root: Path
    quota_bytes: int = 10**9
    spare_bytes: int = 10**9
    now: float = 1e9
    news: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> list[KeptKv]:
        self.files = KeptFiles(
            self.root,
            self.quota_bytes,
            spare_bytes=lambda: self.spare_bytes,
            written=lambda name: self.news.append((name, "")),
            lost=lambda name, why: self.news.append((name, why)),
            clock=lambda: self.now,
        )
        return self.files.scan()

    def write(self, kept: KeptKv, kv: _native.KvCache | None) -> tuple[str, str]:
        """What is heard of a file that was to be written."""
        heard = len(self.news)
        self.files.write(kept, kv)
        self.files._writer.submit(lambda: None).result()
        (news,) = self.news[heard:]
        return news

    def copy(self, kept: KeptKv, give: Give) -> tuple[str, str]:
        """What is heard of a file of what stays in memory."""
        heard, done = len(self.news), threading.Event()
        self.files.copy(kept, give, done.set)
        assert done.wait(30)
        (news,) = self.news[heard:]
        return news

    def read(self, kept: KeptKv, kv: _native.KvCache, n: int = N) -> int:
        """Fill a cache; positions that came."""
        done = threading.Event()

        def take(first: int, end: int, piece: U8) -> bool:
            put(kv, first, end, piece)
            return True

        self.files.read(KeptBeginning(kept, n, 1), kv, take, done.set)
        assert done.wait(30)
        return kv.length


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "kv")
    yield made
    made.files.stop()


def kept(name: str = "a" * 32, **more: object) -> KeptKv:
    place = KeptPlace(PeerId("e" * 32), b"owner", ModelId("1" * 64), "f16", 0, 2, ())
    at = {field: more.pop(field) for field in KeptPlace.__struct_fields__ if field in more}
    made = KeptKv(name, msgspec.structs.replace(place, **at), array("i", IDS.tolist()).tobytes(), 1000)
    return msgspec.structs.replace(made, **more)


def test_a_later_run_finds_what_an_earlier_one_has_kept(disk: Disk, decoder: Decoder, kv: _native.KvCache) -> None:
    sliced = kept("b" * 32, slice=(0, 1, 0, 32, 0, 0, 0, 0, 0, 256), entry=PeerId("f" * 32))
    assert disk.write(sliced, kv) == (sliced.name, "")
    assert disk.write(kept(), kv) == (kept().name, "")
    os.utime(disk.files._path(sliced.name), ns=(1, 1))
    disk.files.stop()
    sizes = [disk.files._path(each.name).stat().st_size for each in (sliced, kept())]
    expected = [msgspec.structs.replace(each, n_bytes=size) for each, size in zip((sliced, kept()), sizes, strict=True)]
    assert disk.start() == expected, "the one that was used longest ago first"
    again = decoder.new_kv()
    assert disk.read(kept(), again) == N
    rows = [part[:, : N // 16].tobytes() for layer in range(kv.n_layers) for part in kv.rows(layer)]
    assert rows == [part[:, : N // 16].tobytes() for layer in range(kv.n_layers) for part in again.rows(layer)]
    assert disk.read(kept(), decoder.new_kv(), 64) == 64


def test_files_are_for_their_users_eyes_only(disk: Disk, kv: _native.KvCache) -> None:
    disk.write(kept(), kv)
    assert disk.root.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in disk.root.iterdir()} == {0o600}


def test_what_is_of_no_use_is_deleted_at_the_start(
    disk: Disk, kv: _native.KvCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write(kept(), kv)
    monkeypatch.setattr(kept_kv, "build", lambda: "another build")
    disk.write(kept("b" * 32), kv)
    monkeypatch.undo()
    write_kv(disk.root / "c.kv", b"\x93 no header", N, partial(piece_of, kv))
    (disk.root / "d.kv").write_bytes(b"x")
    (disk.root / ".e.kv.partial").write_bytes(b"cut off")
    (disk.root / "deep").mkdir()
    assert [each.name for each in disk.start()] == [kept().name]
    left = {path.name for path in disk.root.iterdir()}
    assert left == {f"{kept().name}.kv", "owner.key", DAY_FILE, "deep"}


def test_damage_is_told_and_the_file_deleted(disk: Disk, decoder: Decoder, kv: _native.KvCache) -> None:
    disk.write(kept(), kv)
    path = disk.files._path(kept().name)
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    assert disk.read(kept(), decoder.new_kv()) == 0
    assert "damaged" in disk.news[-1][1] and not path.exists()
    assert disk.read(kept(), decoder.new_kv()) == 0, "it is gone"
    disk.write(kept(), kv)
    other = kept(ids=array("i", [1] * N).tobytes())
    assert disk.read(other, decoder.new_kv()) == 0 and "another conversation" in disk.news[-1][1]


def test_what_does_not_fit_is_not_written(disk: Disk, kv: _native.KvCache, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.spare_bytes = 500
    assert "part of the disk is full" in disk.write(kept(), kv)[1]
    disk.spare_bytes = 10**9
    monkeypatch.setattr(files, "spare_bytes", lambda folder: 0)
    assert "to spare" in disk.write(kept(), kv)[1]
    monkeypatch.undo()

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_kv, "write_kv", full)
    assert disk.write(kept(), kv)[1] == "the disk is full"
    assert not list(disk.root.glob("*.kv"))


def test_no_more_is_written_in_a_day_than_the_files_may_take(disk: Disk, kv: _native.KvCache) -> None:
    disk.write(kept(), kv)
    size = disk.files._path(kept().name).stat().st_size
    disk.files.quota_bytes = 2 * size + 100
    assert disk.write(kept("b" * 32, n_bytes=size), kv)[1] == ""
    disk.files.forget(ForgetKept((kept().name,)))
    assert "a day" in disk.write(kept("c" * 32, n_bytes=size), kv)[1], "what was deleted was written all the same"
    disk.files.stop()
    disk.quota_bytes = disk.files.quota_bytes
    disk.start()
    disk.now -= 7 * 86400.0
    assert "a day" in disk.write(kept("c" * 32, n_bytes=size), kv)[1], "a clock that goes back makes no new day"
    disk.now += 7 * 86400.0 + 86401.0
    assert disk.write(kept("c" * 32, n_bytes=size), kv)[1] == ""
    (disk.root / DAY_FILE).write_text('{"since": "x"}')
    assert disk.write(kept("d" * 32, n_bytes=size), kv)[1] == "", "a damaged count begins anew"
    assert json.loads((disk.root / DAY_FILE).read_text())["bytes"] == size


def test_what_stays_in_memory_is_written_up_to_a_part_of_the_day(disk: Disk, kv: _native.KvCache) -> None:
    disk.write(kept("f" * 32), kv)
    size = disk.files._path("f" * 32).stat().st_size
    disk.files.quota_bytes = 4 * size + 100
    assert disk.copy(kept(n_bytes=size), partial(piece_of, kv)) == (kept().name, "")
    assert disk.files._path(kept().name).read_bytes()[-1000:] == disk.files._path("f" * 32).read_bytes()[-1000:]
    assert "a day" in disk.copy(kept("b" * 32, n_bytes=size), partial(piece_of, kv))[1]
    assert disk.write(kept("b" * 32, n_bytes=size), kv)[1] == "", "what leaves memory has the rest"


def test_what_is_gone_on_with_while_it_is_written_leaves_no_file(
    disk: Disk, kv: _native.KvCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_file, "PIECE_TOKENS", 64)
    asked: list[int] = []

    def give(first: int, end: int) -> U8 | None:
        asked.append(first)
        return piece_of(kv, first, end) if len(asked) < 2 else None

    assert disk.copy(kept(), give) == (kept().name, "it is gone on with")
    assert asked == [0, 64] and not list(disk.root.glob("*.kv*"))
    assert json.loads((disk.root / DAY_FILE).read_text())["bytes"] == len(piece_of(kv, 0, 64)), "a card wears by it"
    assert "were to be kept" in disk.copy(kept(ids=array("i", [1] * (N + 16)).tobytes()), partial(piece_of, kv))[1]


def test_a_slow_copy_ends_with_the_node(disk: Disk, kv: _native.KvCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_file, "PIECE_TOKENS", 64)
    monkeypatch.setattr(limits, "KEPT_REST_BYTES_PER_S", 1)
    begun, done = threading.Event(), threading.Event()

    def give(first: int, end: int) -> U8 | None:
        begun.set()
        return piece_of(kv, first, end)

    disk.files.copy(kept(), give, done.set)
    assert begun.wait(30)
    disk.files.stop()
    assert done.is_set() and disk.news == [(kept().name, "it is gone on with")]


def test_memory_does_not_fill_with_what_waits_for_the_disk(
    disk: Disk, kv: _native.KvCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_KEPT_WAITING_BYTES", 1500)
    go_on = threading.Event()
    disk.files._writer.submit(go_on.wait)
    disk.files.write(kept(), kv)
    disk.files.write(kept("b" * 32), kv)
    assert disk.news == [("b" * 32, "the disk is too slow for what memory has no room for")]
    go_on.set()
    disk.files.stop()
    assert disk.news[1:] == [(kept().name, "")]


def test_at_the_end_what_waits_is_written_for_a_while(
    disk: Disk, kv: _native.KvCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "KEPT_END_S", 0.0)
    go_on = threading.Event()
    disk.files._writer.submit(go_on.wait)
    disk.files.write(kept(), kv)
    ending = threading.Thread(target=disk.files.stop)
    ending.start()
    disk.files._stopping.wait()
    go_on.set()
    ending.join()
    assert disk.news == [(kept().name, "the node ended before it was written")]
    disk.files.forget(ForgetKept((kept().name,)))  # the core may still say so


def test_a_cache_that_is_gone_or_too_short_is_said(disk: Disk, decoder: Decoder) -> None:
    assert disk.write(kept(), None)[1] != ""
    assert "0 positions" in disk.write(kept(), decoder.new_kv())[1]


def test_an_owner_is_told_by_a_secret_of_the_node(disk: Disk, tmp_path: Path) -> None:
    assert disk.files.owner_of("me") == disk.files.owner_of("me") != disk.files.owner_of("you")
    kept_kv._secret.cache_clear()
    disk.start()
    again = disk.files.owner_of("me")
    kept_kv._secret.cache_clear()
    assert again == disk.files.owner_of("me"), "also after a restart"
    disk.files.disown()
    assert disk.files.owner_of("me") != again, "what was kept before is never found again"
    other = Disk(tmp_path / "other")
    assert other.files.owner_of("me") != again
    other.files.stop()


def test_where_nothing_is_to_be_kept_all_goes(disk: Disk, kv: _native.KvCache) -> None:
    disk.write(kept(), kv)
    disk.files.stop()
    disk.quota_bytes = 0
    assert disk.start() == [] and not list(disk.root.glob("*.kv"))
    assert disk.files.owner_of("me") == b""
