"""How products of the models here are computed fastest is found out in a moment in which nobody wants anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from swarm.engine import ways
from swarm.engine.ways import Choices, Product

FIRST_S, MAX_S = 20.0, 3600.0  # between attempts, doubling while the device is busy


async def choose_when_quiet(
    folder: Path,
    isa: str,
    threads: int,
    *,
    products: Callable[[], Iterable[Product]],
    is_quiet: Callable[[], bool],
    is_idle: Callable[[], bool],
    chosen: Callable[[Choices], None],
) -> None:
    """For as long as the node runs: measure what the models need that are loaded, and tell `chosen`.

    is_quiet: looks at other programs, for a while and on a thread of its own. is_idle: nobody asks anything; called
    from any thread.
    """
    have = ways.kept(folder, isa, threads)
    wait_s = FIRST_S
    while True:
        await asyncio.sleep(wait_s)
        missing = [product for product in products() if product not in have]
        if not missing:
            wait_s = FIRST_S
            continue
        before = len(have)
        if is_idle() and await asyncio.to_thread(is_quiet) and is_idle():
            have = await asyncio.to_thread(ways.renewed, folder, missing, isa, threads, is_idle)
        if len(have) > before:
            chosen(have)
            wait_s = FIRST_S
        else:
            wait_s = min(2 * wait_s, MAX_S)
