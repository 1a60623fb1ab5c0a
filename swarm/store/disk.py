"""Files of the store: replaced whole or not at all, and every failure of the disk as one of Swarm's errors."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swarm.errors import DiskFull, ResourceError
from swarm.limits import MIN_FREE_DISK_BYTES


def replace_file(path: Path, data: bytes) -> None:
    """Give `path` new content: after a crash it has the old or the new one, never a mixture."""
    temporary = path.with_name(f".{path.name}.new")
    with disk_errors(path.parent), temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def free_bytes(directory: Path) -> int:
    """What may still be written to the disk of `directory`; something is always left for the rest of the system."""
    return max(0, shutil.disk_usage(directory).free - MIN_FREE_DISK_BYTES)


@contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """Turn a failure to write into DiskFull or ResourceError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"the disk of {directory} is full; free some space or give the store another disk"
            ) from error
        reason = error.strerror or str(error)
        raise ResourceError(
            f"cannot write into {directory} ({reason}); give the store a directory you can write"
        ) from error
