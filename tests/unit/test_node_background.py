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


def test_tasks_and_threads_end_with_the_node() -> None:
    async def story() -> list[str]:
        said: list[str] = []
        background = Background(lambda error: said.append(str(error)))

        async def fail() -> None:
            raise RuntimeError("oops")

        async def wait() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                said.append("ended")

        background.spawn(fail())
        background.spawn(wait())
        said.append(await background.run_io(str.upper, "io"))
        await asyncio.sleep(0)
        await background.end_tasks()
        background.close()
        return said

    assert sorted(asyncio.run(story())) == ["IO", "ended", "oops"]


def test_a_function_is_posted_from_any_thread_also_after_the_end() -> None:
    async def story() -> Background:
        background = Background(lambda error: None)
        called = asyncio.Event()
        thread = threading.Thread(target=background.post, args=(called.set,))
        thread.start()
        await asyncio.wait_for(called.wait(), 10)
        thread.join()
        background.close()
        return background

    background = asyncio.run(story())
    background.post(lambda: None)  # the loop is closed: nothing happens


def test_a_node_that_starts_anew_stops_in_a_moment_and_says_why() -> None:
    async def story() -> str:
        background = Background(lambda error: None)
        background.start_anew(0.0, "it has a new key")
        await asyncio.wait_for(background.stopping.wait(), 10)
        background.close()
        return background.starts_anew

    assert asyncio.run(story()) == "it has a new key"
