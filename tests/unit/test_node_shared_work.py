"""Work that several want is done once; nobody's leaving ends it for the others."""

from __future__ import annotations

import asyncio

import pytest

from swarm.errors import ModelNotFound
from swarm.node.shared_work import SharedWork


class Work:
    """Counts its beginnings, and goes on when `go` is set."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = 0
        self.go = asyncio.Event()
        self.error = error

    async def __call__(self) -> int:
        self.begun += 1
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return self.begun


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_all_who_ask_while_it_goes_on_get_the_one_result() -> None:
    async def story() -> None:
        shared: SharedWork[str, int] = SharedWork()
        work, other = Work(), Work()
        waiting = [asyncio.create_task(shared.get("a", work)) for _ in range(8)]
        apart = asyncio.create_task(shared.get("b", other))
        await turns()
        work.go.set()
        other.go.set()
        assert await asyncio.gather(*waiting) == [1] * 8 and await apart == 1 and (work.begun, other.begun) == (1, 1)
        assert await shared.get("a", work) == 2, "what is over is done again"

    asyncio.run(story())


def test_who_leaves_does_not_end_it_for_the_others() -> None:
    async def story() -> None:
        shared: SharedWork[str, int] = SharedWork()
        work = Work()
        first, second = (asyncio.create_task(shared.get("a", work)) for _ in range(2))
        await turns()
        first.cancel()
        await turns()
        work.go.set()
        assert await second == 1 and first.cancelled()

    asyncio.run(story())


def test_an_error_is_everybodys_and_the_next_one_tries_again() -> None:
    async def story() -> None:
        shared: SharedWork[str, int] = SharedWork()
        work = Work(ModelNotFound("none"))
        waiting = [asyncio.create_task(shared.get("a", work)) for _ in range(2)]
        await turns()
        work.go.set()
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(error) for error in errors] == ["none", "none"]
        with pytest.raises(ModelNotFound):
            await shared.get("a", work)
        assert work.begun == 2

    asyncio.run(story())
