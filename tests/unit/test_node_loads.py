"""What the core wants in memory is fetched, loaded, installed, and the core hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swarm.cluster.effects import Effect, Load, Unload
from swarm.errors import ModelNotFound
from swarm.node.event_log import EventLog
from swarm.node.loads import Loads
from swarm.parts import EMBED, Part
from swarm.wire.ids import ModelId

MODEL, OTHER = ModelId("ab" * 32), ModelId("cd" * 32)


class Cost:
    """Two bytes a part, as many as are in memory."""

    def __init__(self, share: float = 1.0) -> None:
        self.with_resident_share = Cost
        self.part_bytes = lambda part: int(2 * share)


class Play:
    """Loads, with everything around it; `said` is what the core and the worker hear, in order."""

    def __init__(self, error: Exception | None = None) -> None:
        self.said: list[object] = []
        self.handlers: dict[type[Effect], Callable[[Any], object]] = {}
        self.spawned: list[Any] = []
        self.events = EventLog()

        async def know(model: ModelId) -> Any:
            return SimpleNamespace(cost=Cost(), chunks_of=list, source="source", spec_for="spec_of")

        async def fetch(model: ModelId, chunks: list[Part]) -> None:
            if error is not None:
                raise error

        core: Any = SimpleNamespace(
            loaded=lambda ticket, now: ("loaded", ticket),
            load_failed=lambda ticket, text, now: ("failed", ticket, text),
        )
        driver: Any = SimpleNamespace(
            carry_out=self.handlers.__setitem__, act=lambda decide: self.said.append(decide(core, 0.0))
        )
        background: Any = SimpleNamespace(post=lambda function: function(), spawn=self.spawned.append)
        holdings: Any = SimpleNamespace(know=know, get_right=fetch)
        worker: Any = SimpleNamespace(
            put=self.said.append,
            install=lambda model, spec, part, weights: self.said.append(("install", part)),
            call_after=lambda function: function(),
        )
        self.loads = Loads(driver, background, holdings, worker=worker, events=self.events, threads=1, experts=Path())
        self.loads.loader.stop()
        self.loads.loader.load = lambda loading, source, spec: self.loading.append(loading)  # type: ignore[method-assign]
        self.loading: list[Any] = []

    def do(self, effect: Effect) -> None:
        self.handlers[type(effect)](effect)

    def run(self) -> None:
        for work in self.spawned:
            asyncio.run(work)
        self.spawned.clear()


def test_a_load_ends_with_the_core_hearing_of_it() -> None:
    play = Play()
    play.do(Load(7, MODEL, frozenset({EMBED, Part(0)})))
    play.run()
    (loading,) = play.loading
    assert loading.weight_bytes == {EMBED: 2, Part(0): 2}
    play.loads._on_installed(loading, EMBED, None, None)  # type: ignore[arg-type]
    play.loads._on_ended(loading)
    play.loads._on_ended(loading)
    assert play.said == [("install", EMBED), ("loaded", 7)], "told once"


def test_what_is_unloaded_while_it_loads_is_not_installed() -> None:
    play = Play()
    play.do(Load(7, MODEL, frozenset({EMBED, Part(0)})))
    unload, other = Unload(MODEL, frozenset({EMBED})), Unload(OTHER, frozenset({Part(0)}))
    play.do(unload)
    play.do(other)
    play.run()
    (loading,) = play.loading
    assert loading.parts == {Part(0)}
    for part in (EMBED, Part(0)):
        play.loads._on_installed(loading, part, None, None)  # type: ignore[arg-type]
    assert play.said == [unload, other, ("install", Part(0))]


@pytest.mark.parametrize("where", ["fetching", "loading"])
def test_a_load_that_fails_takes_back_what_it_had_installed(where: str) -> None:
    play = Play(ModelNotFound("nobody has it") if where == "fetching" else None)
    play.do(Load(7, MODEL, frozenset({EMBED})))
    play.run()
    if where == "loading":
        (loading,) = play.loading
        loading.error = "nobody has it"
        play.loads._on_ended(loading)
    assert play.said == [Unload(MODEL, frozenset({EMBED})), ("failed", 7, "nobody has it")]
    assert [event for _, event, _ in play.events.entries] == ["load_failed"]


def test_experts_that_do_not_fit_stay_on_disk() -> None:
    play = Play()
    loaded: list[Any] = []
    play.loads.loader.load = lambda loading, source, spec: loaded.append(loading)  # type: ignore[method-assign]
    play.handlers[Load](Load(1, MODEL, frozenset({Part(0)}), 0.5))
    asyncio.run(play.spawned.pop())
    (loading,) = loaded
    assert loading.experts is not None and loading.experts.path.name == f"{MODEL}.experts"
    assert (loading.resident_share, loading.weight_bytes) == (0.5, {Part(0): 1})
