"""A control group for one measured process: its memory, page cache included, and what it may read from disk, limited.

Needs root and version 1 of control groups; without them `Group.real` is false and nothing is limited or counted.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

GROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = "memory", "blkio"


class Group:
    """Made on entry, gone on exit. `name`: of one that another process has made."""

    def __init__(self, cap_bytes: int = 0, name: str = "") -> None:
        self.name, self._cap_bytes, self._is_ours = name or f"swarm-bench-{os.getpid()}", cap_bytes, not name
        self._memory, self._disk = (GROUPS / controller / self.name for controller in CONTROLLERS)
        self.real = not os.geteuid() and all((GROUPS / controller).is_dir() for controller in CONTROLLERS)

    def __enter__(self) -> Group:
        if self.real and self._is_ours:
            for folder in (self._memory, self._disk):
                folder.mkdir(exist_ok=True)
            if self._cap_bytes:
                (self._memory / "memory.limit_in_bytes").write_text(str(self._cap_bytes))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self.real or not self._is_ours:
            return
        with suppress(OSError):
            (self._memory / "memory.force_empty").write_text("0")
        for folder in (self._memory, self._disk):
            for _ in range(20):  # a process that has ended is listed for a moment
                with suppress(OSError):
                    folder.rmdir()
                if not folder.exists():
                    break
                time.sleep(0.05)

    def enter(self) -> None:
        """Put this process into it."""
        if self.real:
            for folder in (self._memory, self._disk):
                (folder / "cgroup.procs").write_text(str(os.getpid()))

    def read_at_most(self, bytes_per_s: float, of: Path) -> None:
        """From now on no more a second from the disk on which `of` lies; 0: all it can."""
        if self.real:
            device = of.stat().st_dev
            rule = f"{os.major(device)}:{os.minor(device)} {int(bytes_per_s)}"
            (self._disk / "blkio.throttle.read_bps_device").write_text(rule)

    def used(self) -> tuple[int, int]:
        """Bytes in use now: of processes, and page cache."""
        if not self.real:
            return 0, 0
        lines = (self._memory / "memory.stat").read_text().splitlines()
        found = {name: int(value) for name, value in (line.split() for line in lines)}
        return found["rss"], found["cache"]

    def peak(self) -> dict[str, int]:
        """The most memory that it has had, page cache included, and how often it was at its cap."""
        if not self.real:
            return {}
        return {
            "peak_bytes": int((self._memory / "memory.max_usage_in_bytes").read_text()),
            "at_cap": int((self._memory / "memory.failcnt").read_text()),
        }
