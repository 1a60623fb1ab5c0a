"""A disk whose power is cut: what a program did to its files is recorded, and played again up to any operation.

What a disk has after a cut is modelled as file systems with a journal (ext4, XFS, F2FS) promise it, and no more. Bytes
of a file are sure up to its last fsync, and each later write may be there, be missing or be zeros. Names are sure up to
the last fsync of their directory, and later changes of names may be there up to any one of them, in their order.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

Choice = Callable[[], str]  # one of FATES


@dataclass(frozen=True)
class Operation:
    """One call: `what` with the inode or path that it was for."""

    what: str
    inode: int = -1
    path: str = ""
    to: str = ""
    offset: int = 0
    data: bytes = b""


@dataclass
class Disk:
    """Records what is done below `root`. `promises[i]` is what was promised before operation i; see `promise`."""

    root: Path
    operations: list[Operation] = field(default_factory=list)
    promises: list[Any] = field(default_factory=list)
    promised: Any = None
    _inodes: dict[str, int] = field(default_factory=dict)
    _open: dict[int, int] = field(default_factory=dict)
    _next: int = 0

    def promise(self, what: Any) -> None:
        """From here on a cut must leave this."""
        self.promised = what

    def cuts(self, rng: Random, n_random: int = 2) -> Iterator[tuple[int, Path, Any]]:
        """For every operation what the disk may hold after a cut before it: number, a new root, what was promised."""
        n_operations = len(self.operations)
        for at in range(n_operations + 1):
            promised = self.promises[at] if at < n_operations else self.promised
            choices: list[tuple[float, Choice]] = [
                (n, lambda w=w: w) for n in (0.0, 1.0) for w in ("lost", "kept", "zeros")
            ]  # type: ignore[misc]
            choices += [(rng.random(), lambda: rng.choice(("kept", "lost", "zeros"))) for _ in range(n_random)]
            for names, choice in choices:
                target = self.root.with_name("after")
                shutil.rmtree(target, ignore_errors=True)
                self._play(at, target, names, choice)
                yield at, target, promised

    # ---- playing

    def _play(self, end: int, target: Path, names: float, choice: Choice) -> None:
        done = self.operations[:end]
        sure = {op.inode: i for i, op in enumerate(done) if op.what == "sync"}
        bytes_of: dict[int, bytearray] = {}
        for i, op in enumerate(done):
            if op.what in ("write", "truncate"):
                content = bytes_of.setdefault(op.inode, bytearray())
                _apply(content, op, "kept" if i < sure.get(op.inode, -1) else choice())
        changes = [i for i, op in enumerate(done) if op.what in NAMES]
        synced = {op.path: i for i, op in enumerate(done) if op.what == "sync names"}
        sure_names = [n for n, i in enumerate(changes, 1) if any(i < synced.get(d, -1) for d in _directories(done[i]))]
        n_sure = max(sure_names, default=0)
        applied = changes[: n_sure + round(names * (len(changes) - n_sure))]
        tree: dict[str, int] = {}
        folders = {str(self.root)}
        for i in applied:
            _rename(tree, folders, done[i])
        for folder in sorted(folders):
            (target / os.path.relpath(folder, self.root)).mkdir(parents=True, exist_ok=True, mode=0o700)
        for path, inode in tree.items():
            place = target / os.path.relpath(path, self.root)
            place.write_bytes(bytes_of.get(inode, b""))
            place.chmod(0o600)

    # ---- recording

    def record(self, patch: pytest.MonkeyPatch) -> None:
        """From here on, what is done through `os` is recorded, until the patch is undone."""
        for name, wrapped in (
            ("open", self._on_open),
            ("close", self._on_close),
            ("write", self._on_write),
            ("pwrite", self._on_pwrite),
            ("ftruncate", self._on_truncate),
            ("truncate", self._on_truncate),
            ("fsync", self._on_sync),
            ("fdatasync", self._on_sync),
            ("replace", self._on_replace),
            ("rename", self._on_replace),
            ("link", self._on_link),
            ("unlink", self._on_unlink),
            ("remove", self._on_unlink),
            ("rmdir", self._on_rmdir),
            ("mkdir", self._on_mkdir),
            ("fdopen", self._on_fdopen),
        ):
            patch.setattr(os, name, _with(wrapped, getattr(os, name)))

    def _add(self, operation: Operation) -> None:
        self.operations.append(operation)
        self.promises.append(self.promised)

    def _is_mine(self, path: object) -> bool:
        return isinstance(path, str | Path) and Path(path).is_relative_to(self.root)

    def _on_open(self, real: Any, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        is_new = not os.path.lexists(path)
        fd: int = real(path, flags, mode)
        if self._is_mine(path):
            if is_new:
                self._inodes[str(path)] = self._next = self._next + 1
                self._add(Operation("create", self._next, str(path)))
            self._open[fd] = self._inodes.get(str(path), -1)
            if flags & os.O_TRUNC and not is_new:
                self._add(Operation("truncate", self._open[fd]))
        return fd

    def _on_close(self, real: Any, fd: int) -> None:
        self._open.pop(fd, None)
        real(fd)

    def _on_write(self, real: Any, fd: int, data: Any) -> int:
        if self._open.get(fd, -1) < 0:
            return int(real(fd, data))
        n_written = int(real(fd, data))
        at = os.lseek(fd, 0, os.SEEK_CUR) - n_written
        self._add(Operation("write", self._open[fd], offset=at, data=bytes(data)[:n_written]))
        return n_written

    def _on_pwrite(self, real: Any, fd: int, data: Any, offset: int) -> int:
        n_written = int(real(fd, data, offset))
        if self._open.get(fd, -1) >= 0:
            self._add(Operation("write", self._open[fd], offset=offset, data=bytes(data)[:n_written]))
        return n_written

    def _on_truncate(self, real: Any, file: Any, size: int) -> None:
        real(file, size)
        inode = self._open.get(file, -1) if isinstance(file, int) else self._inodes.get(str(file), -1)
        if inode >= 0:
            self._add(Operation("truncate", inode, offset=size))

    def _on_sync(self, real: Any, fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if self._is_mine(path):
            is_folder = os.path.isdir(path)
            self._add(Operation("sync names", path=path) if is_folder else Operation("sync", self._open.get(fd, -1)))

    def _on_replace(self, real: Any, source: Any, target: Any) -> None:
        real(source, target)
        if self._is_mine(target):
            for path, inode in list(self._inodes.items()):
                if Path(path).is_relative_to(source):
                    del self._inodes[path]
                    self._inodes[str(Path(target) / Path(path).relative_to(source))] = inode
            self._add(Operation("rename", path=str(source), to=str(target)))

    def _on_link(self, real: Any, source: Any, target: Any) -> None:
        real(source, target)
        if self._is_mine(target):
            self._inodes[str(target)] = self._inodes[str(source)]
            self._add(Operation("link", self._inodes[str(source)], str(source), str(target)))

    def _on_unlink(self, real: Any, path: Any, *, dir_fd: int | None = None) -> None:
        full = str(path) if dir_fd is None else os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        real(full)
        if self._is_mine(full):
            self._inodes.pop(full, None)
            self._add(Operation("unlink", path=full))

    def _on_rmdir(self, real: Any, path: Any, *, dir_fd: int | None = None) -> None:
        full = str(path) if dir_fd is None else os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        real(full)
        if self._is_mine(full):
            self._add(Operation("rmdir", path=full))

    def _on_mkdir(self, real: Any, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real(path, mode)
        if self._is_mine(path):
            self._add(Operation("mkdir", path=str(path)))

    def _on_fdopen(self, real: Any, fd: int, mode: str = "r", *rest: Any, **more: Any) -> Any:
        return _Unbuffered(fd) if "w" in mode and self._open.get(fd, -1) >= 0 else real(fd, mode, *rest, **more)


FATES = ("lost", "kept", "zeros")  # of a write that nobody waited for
NAMES = ("create", "rename", "link", "unlink", "rmdir", "mkdir")


class _Unbuffered:
    """A file object whose writes are calls of `os`, to be recorded."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes) -> int:
        return os.write(self._fd, data)

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        return self._fd

    def __enter__(self) -> _Unbuffered:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _with(wrapped: Any, real: Any) -> Any:
    return lambda *args, **named: wrapped(real, *args, **named)


def _directories(op: Operation) -> set[str]:
    return {os.path.dirname(path) for path in (op.path, op.to) if path}


def _apply(content: bytearray, op: Operation, choice: str) -> None:
    if op.what == "truncate":
        if choice != "lost":
            content[:] = content[: op.offset].ljust(op.offset, b"\0")
        return
    if choice == "lost":
        return
    end = op.offset + len(op.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[op.offset : end] = op.data if choice == "kept" else bytes(len(op.data))


def _rename(tree: dict[str, int], folders: set[str], op: Operation) -> None:
    if op.what == "create":
        tree[op.path] = op.inode
    elif op.what == "link":
        tree[op.to] = op.inode
    elif op.what == "unlink":
        tree.pop(op.path, None)
    elif op.what == "mkdir":
        folders.add(op.path)
    elif op.what == "rmdir":
        folders.discard(op.path)
    elif op.path in tree:
        tree[op.to] = tree.pop(op.path)
    else:
        for path in [path for path in tree if Path(path).is_relative_to(op.path)]:
            tree[str(Path(op.to) / Path(path).relative_to(op.path))] = tree.pop(path)
        for path in [path for path in folders if Path(path).is_relative_to(op.path)]:
            folders.discard(path)
            folders.add(str(Path(op.to) / Path(path).relative_to(op.path)))
