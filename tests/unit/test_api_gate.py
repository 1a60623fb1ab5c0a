"""Requests begin one after the other, and the loop does other things between any two."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from swarm.api.gate import Gate


def test_those_who_came_first_begin_first_and_others_get_the_loop_between() -> None:
    async def play() -> list[str]:
        gate, said = Gate(), list[str]()

        async def request(name: str) -> None:
            await gate.turn()
            said.append(name)

        async def other() -> None:
            for _ in range(12):
                said.append("other")
                await asyncio.sleep(0)

        await asyncio.gather(*(request(str(i)) for i in range(5)), other())
        return said

    said = asyncio.run(play())
    assert [name for name in said if name != "other"] == ["0", "1", "2", "3", "4"]
    at = [said.index(str(i)) for i in range(5)]
    assert all("other" in said[first:second] for first, second in pairwise(at)), said


def test_who_goes_away_holds_nobody_up() -> None:
    async def play() -> list[int]:
        gate, said = Gate(), list[int]()

        async def request(number: int) -> None:
            await gate.turn()
            said.append(number)

        tasks = [asyncio.create_task(request(i)) for i in range(4)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await request(9)  # the gate works after a pause, too
        return said

    assert asyncio.run(play()) == [1, 3, 9]
