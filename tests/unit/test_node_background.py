"""What runs beside the node's events."""

from __future__ import annotations

import asyncio
import threading

import pytest

from swarm.node.background import Background
from swarm.node.compute import ComputeWorker


def test_a_bug_does_not_end_the_ticks_or_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("oops")

    async def no_time(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) > 4:
            raise asyncio.CancelledError

    async def play() -> None:
        background = Background(lambda error: bugs.append(str(error)))
        monkeypatch.setattr(asyncio, "sleep", no_time)
        await background._again_and_again(lambda: 0.3, fail)

    sleeps: list[float] = []
    bugs: list[str] = []
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(play())
    assert bugs == ["oops"] * 3 and sleeps == [1.0, 0.3] * 2 + [1.0]
    worker = ComputeWorker(lambda function, *_: function(), fail, threads=1)
    called = threading.Event()
    worker.call_after(fail)
    worker.call_after(called.set)
    assert called.wait(5)
    worker.stop()
