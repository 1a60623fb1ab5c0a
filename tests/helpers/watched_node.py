"""`swarm`, and it notes when it was deaf: `python -m tests.helpers.watched_node join --home HOME ...`.

Two things make a node deaf: work on its loop, between two of whose turns nothing else is done, and a call that keeps
the interpreter, for which every other thread waits. Both are counted in processor time: what else the machine does
meanwhile makes no pause. HOME/pauses has a line for each: when it ended (as `time.monotonic` has it, which all
processes of a machine share), how many seconds it took, and which of the two it was.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

FILE = "pauses"
BEAT_S = 0.002
LEAST_S = 0.02  # shorter ones are not noted


@dataclass(frozen=True)
class Pause:
    """A node was deaf."""

    ended_at: float
    seconds: float
    kind: str  # "loop" or "interpreter"


def pauses_since(home: Path, began_at: float) -> list[Pause]:
    """The pauses of a watched node that ended after a time of `time.monotonic`."""
    lines = (line.split() for line in (home / FILE).read_text().splitlines())
    pauses = [Pause(float(ended_at), float(seconds), kind) for ended_at, seconds, kind in lines]
    return [pause for pause in pauses if pause.ended_at > began_at]


class Notes:
    """Writes pauses down, from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def note(self, seconds: float, kind: str) -> None:
        if seconds > LEAST_S:
            with open(self._path, "a") as file:
                file.write(f"{time.monotonic()} {seconds} {kind}\n")


def watch_the_interpreter(notes: Notes) -> None:
    """A thread that only wakes up: it wakes late when another one keeps the interpreter, and computes meanwhile."""
    last, computed_s = time.monotonic(), time.process_time()
    while True:
        time.sleep(BEAT_S)
        before, computed_before_s = last, computed_s
        last, computed_s = time.monotonic(), time.process_time()
        notes.note(min(last - before - BEAT_S, computed_s - computed_before_s), "interpreter")


def watch_loops(notes: Notes) -> None:
    """Of every event loop: what it computes in one turn."""
    turn = asyncio.BaseEventLoop._run_once  # type: ignore[attr-defined]

    def watched_turn(self: asyncio.BaseEventLoop) -> None:
        before_s = time.thread_time()
        turn(self)
        notes.note(time.thread_time() - before_s, "loop")

    asyncio.BaseEventLoop._run_once = watched_turn  # type: ignore[attr-defined]


if __name__ == "__main__":
    from swarm.cli.main import main

    found = Notes(Path(sys.argv[sys.argv.index("--home") + 1]) / FILE)
    watch_loops(found)
    threading.Thread(target=watch_the_interpreter, args=(found,), daemon=True).start()
    sys.exit(main())
