"""Files of ours: replaced whole or not at all, locked, and every failure of the disk as one clear line."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from swarm.errors import DiskFull, ResourceError
from swarm.limits import MIN_FREE_DISK_BYTES
from swarm.units import size_text

PRIVATE = 0o600  # keys, tokens, conversations: for the eyes of their owner only
PRIVATE_DIRECTORY = 0o700
SHARED = 0o644  # model files that were downloaded: other users of the device may read them

# ---- write, then rename


def replace_file(path: Path, data: bytes, *, mode: int = PRIVATE, durable: bool = True) -> None:
    """Give `path` new content: after a crash it has the old or the new one, never a mixture. Raise OSError.

    `durable`: after a power cut too, which an SD card takes up to a second for.
    """
    partial = _write_partial(path, data, mode, durable)
    try:
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def create_file(path: Path, data: bytes, *, mode: int = SHARED) -> bool:
    """The same for a file that must not be there yet; False when it is, also when another process was faster."""
    partial = _write_partial(path, data, mode, durable=True)
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)
    sync(path.parent)
    return True


def publish(partial: Path, path: Path) -> None:
    """Give a finished file its name, once its bytes are on the disk: the name must never outlive them."""
    sync(partial)
    partial.replace(path)
    sync(path.parent)


def partial_of(path: Path) -> Path:
    """Where a large file lies until it is complete; what a run that was cut off left there is found by the next."""
    return path.with_name(f".{path.name}.partial")


def stamps(files: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Path, bytes and time of each file: others once one of them has changed, as far as a glance tells."""
    stats = ((file, file.stat()) for file in files)
    return [(str(file), status.st_size, status.st_mtime_ns) for file, status in stats]


def make_private(folder: Path) -> None:
    """Make a directory, and those above it, for its user's eyes only whatever the umask. Raise OSError."""
    for each in reversed([folder, *folder.parents]):
        if not each.exists():
            with suppress(FileExistsError):
                each.mkdir(mode=PRIVATE_DIRECTORY)
    if os.stat(folder).st_uid == os.getuid() and os.stat(folder).st_mode & 0o777 & ~PRIVATE_DIRECTORY:
        folder.chmod(PRIVATE_DIRECTORY)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_partial(path: Path, data: bytes, mode: int, durable: bool) -> Path:
    """The data in a new file beside `path`; its name is nobody else's."""
    partial = path.with_name(f".{path.name}.{os.urandom(8).hex()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise
    return partial


# ---- locks: the system drops them when the process ends, however it ends


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this descriptor alone until it is closed; False when another has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_locked(path: Path) -> int | None:
    """A descriptor that holds the lock file `path` until it is closed; None when another process does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    if try_lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`; `waiting` is called before a wait for another process."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SHARED)
    try:
        if not try_lock(descriptor):
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


# ---- space, and what goes wrong


def existing(path: Path) -> Path:
    """`path`, or the nearest directory above it that is there already: its disk is the one that `path` would be on."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def spare_bytes(directory: Path) -> int:
    """What may still be written to the disk of `directory`; something is always left for the rest of the system."""
    return max(0, shutil.disk_usage(existing(directory)).free - MIN_FREE_DISK_BYTES)


def taken_bytes(directory: Path) -> int:
    """What all files below `directory` take of its disk; those that vanish meanwhile count or not."""
    n_bytes = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):
                n_bytes += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return n_bytes


def check_space(directory: Path, n_bytes: int, remedy: str) -> None:
    """Raise DiskFull, with `remedy` as advice, when so many bytes more would fill the disk of `directory`."""
    spare = spare_bytes(directory)
    if n_bytes > spare:
        raise DiskFull(
            f"the disk of {directory} has {size_text(spare)} to spare and {size_text(n_bytes)} are needed; {remedy}"
        )


@contextmanager
def disk_errors(directory: Path, setting: str) -> Iterator[None]:
    """Turn a failure to write into DiskFull or ResourceError; `setting` is what chooses another directory."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(directory, setting) from error
        raise ResourceError(
            f"cannot write into {directory} ({error.strerror or error}); set {setting} to a directory you can write"
            + (" (--home DIR)" if setting == "home" else "")
        ) from error


def disk_full(directory: Path, setting: str) -> DiskFull:
    """The error for a disk that ran full while it was written."""
    return DiskFull(f"the disk of {directory} is full; free some space, or set {setting} to another disk")


def is_disk_full(error: BaseException) -> bool:
    """True when the system said that the disk or the quota is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
