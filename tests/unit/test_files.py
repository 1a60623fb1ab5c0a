"""Files of ours: what a crash, a full disk or another process may do to them."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections import namedtuple
from pathlib import Path

import pytest

from swarm import files
from swarm.errors import DiskFull, ResourceError
from swarm.files import make_private, replace_file
from swarm.limits import MIN_FREE_DISK_BYTES

Usage = namedtuple("Usage", "total used free")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def no_space(*args: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"old", b"new"):
        files.replace_file(path, data)
        assert path.read_bytes() == data
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "file"
    files.replace_file(path, b"old")
    monkeypatch.setattr(call, no_space)
    with pytest.raises(OSError, match="No space left"):
        files.replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_private_file_is_private_from_its_first_byte_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o644)
    modes = []
    rename = Path.replace

    def looked_at(self: Path, target: Path) -> Path:
        modes.append(mode_of(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", looked_at)
    files.replace_file(path, b"secret", mode=files.PRIVATE)
    assert modes == [0o600] and mode_of(path) == 0o600


def test_only_what_must_survive_a_power_cut_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    files.replace_file(tmp_path / "file", b"x", durable=False)
    assert not flushed
    files.replace_file(tmp_path / "file", b"x")
    assert len(flushed) == 2, "the bytes, and then the name"


def test_a_file_is_made_once_by_whoever_is_first(tmp_path: Path) -> None:
    path = tmp_path / "key"
    made = []
    threads = [
        threading.Thread(target=lambda n=n: made.append(files.create_file(path, b"%d" % n, mode=files.PRIVATE)))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]
    assert [p.name for p in tmp_path.iterdir()] == ["key"] and mode_of(path) == 0o600


def test_a_file_gets_its_name_after_its_bytes_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model"
    partial = files.partial_of(path)
    partial.write_bytes(b"weights")
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(path.exists()))
    files.publish(partial, path)
    assert synced == [False, True]
    assert path.read_bytes() == b"weights" and not partial.exists()


def test_a_lock_file_is_held_by_one_until_it_lets_go(tmp_path: Path) -> None:
    first = files.open_locked(tmp_path / "lock")
    assert first is not None and files.open_locked(tmp_path / "lock") is None
    os.close(first)
    second = files.open_locked(tmp_path / "lock")
    assert second is not None
    os.close(second)


def test_who_waits_for_a_lock_is_told_and_then_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = files.open_locked(path)
    assert holder is not None
    told: list[str] = []

    def waiting() -> None:
        told.append("waiting")
        os.close(holder)

    with files.locked(path, waiting):
        assert told == ["waiting"] and files.open_locked(path) is None
    with files.locked(path, waiting):
        assert told == ["waiting"], "free again: nobody waits"


def test_something_is_left_for_the_rest_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, MIN_FREE_DISK_BYTES + 2048))
    assert files.spare_bytes(tmp_path / "not" / "yet") == 2048
    files.check_space(tmp_path, 2048, "free some space")
    with pytest.raises(DiskFull, match="has 2 KiB to spare and 3 KiB are needed; free some space"):
        files.check_space(tmp_path, 3072, "free some space")


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (28, DiskFull, "is full; free some space, or set home to another disk"),
        (122, DiskFull, "is full; free some space, or set home to another disk"),
        (30, ResourceError, r"cannot write into .* \(reason\); set home to a directory you can write"),
        (5, ResourceError, "set home to a directory you can write"),
    ],
)
def test_failures_of_the_disk_become_errors_with_advice(tmp_path: Path, number: int, kind: type, text: str) -> None:
    with pytest.raises(kind, match=text) as caught, files.disk_errors(tmp_path, "home"):
        raise OSError(number, "reason")
    assert type(caught.value) is kind


def test_directories_of_a_node_are_private_whatever_the_umask_and_whoever_made_them(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        there = tmp_path / "there"
        there.mkdir(mode=0o777)
        make_private(there)
        make_private(there / "a" / "b")
        replace_file(there / "file", b"x")
    finally:
        os.umask(before)
    assert [mode_of(path) for path in (there, there / "a", there / "a" / "b")] == [0o700] * 3
    assert mode_of(there / "file") == 0o600


def test_stamps_tell_a_file_that_was_changed_or_is_another(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"1"), second.write_bytes(b"1")
    before = files.stamps([first])
    assert files.stamps([first]) == before and files.stamps([second]) != before
    first.write_bytes(b"12")
    assert files.stamps([first]) != before
    first.write_bytes(b"1")
    os.utime(first, (1, 1))
    assert files.stamps([first]) != before
