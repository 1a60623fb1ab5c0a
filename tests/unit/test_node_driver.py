"""The one owner of the core: what it decides is carried out in order, where it belongs, and nobody else touches it."""

from __future__ import annotations

import ast
import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

import swarm
from swarm.answers import EndReason
from swarm.cluster import effects as fx
from swarm.cluster.core import Core, Identity
from swarm.cluster.effects import Effect, Log, LookUp
from swarm.node.driver import Driver, is_serving
from swarm.wire.ids import BootId, ModelId, PeerId, SessionId
from swarm.wire.messages import Goodbye
from swarm.wire.records import Capabilities

LOG, LOOK_UP = Log("joined"), LookUp(ModelId("m"))
ENDED = fx.Ended(SessionId("s"), EndReason.STOP)


def a_core() -> Core:
    capabilities = Capabilities("x86_64", "scalar", 1, 1, 1, 1.0, 1.0, 1.0)
    return Core(Identity(PeerId("a" * 32), BootId("b" * 32), "one"), capabilities, Random(1))


@dataclass
class FakeTimer:
    at: float
    function: Callable[[], object]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeCore:
    """A core that wants to be ticked at `due`; what a tick does is said by the test."""

    def __init__(self, due: float) -> None:
        self.due = due
        self.ticks: list[float] = []
        self.on_tick: Callable[[], object] = lambda: None

    def get_timer(self) -> float:
        return self.due

    def tick(self, now: float) -> list[Effect]:
        self.ticks.append(now)
        self.on_tick()
        self.due = now + 10.0
        return []


class Hands:
    """Carries out effects, and remembers which and where; a loop that runs what was posted when it is told to."""

    def __init__(self, core: Any = None) -> None:
        self.done: list[tuple[str, Effect, int]] = []
        self.posted: list[Callable[[], object]] = []
        self.timers: list[FakeTimer] = []
        self.bugs: list[BaseException] = []
        self.now = 7.0
        background: Any = SimpleNamespace(post=self.posted.append, call_at=self.call_at, on_bug=self.bugs.append)
        self.driver = Driver(core or a_core(), background, lambda: self.now)
        self.driver.carry_out(Log, lambda effect: self.note("at once", effect))
        self.driver.carry_out(LookUp, lambda effect: self.note("on the loop", effect), on_loop=True)
        self.driver.carry_out(fx.Ended, lambda effect: self.note("on the loop", effect), on_loop=True)

    def note(self, where: str, effect: Effect) -> None:
        self.done.append((where, effect, threading.get_ident()))

    def call_at(self, at: float, function: Callable[[], object]) -> FakeTimer:
        self.timers.append(FakeTimer(at, function))
        return self.timers[-1]

    def ring(self) -> None:
        """The time of the one timer that is set comes."""
        (timer,) = self.set_timers()
        self.timers.clear()
        self.now = timer.at
        timer.function()

    def set_timers(self) -> list[FakeTimer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def run_posted(self) -> None:
        while self.posted:
            self.posted.pop(0)()

    @property
    def order(self) -> list[tuple[str, Effect]]:
        return [(where, effect) for where, effect, _ in self.done]


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()


def test_effects_are_carried_out_in_order_those_of_the_loop_last() -> None:
    hands = Hands()
    hands.driver.act(lambda core, now: [LOOK_UP, LOG, ENDED])
    assert hands.order == [("at once", LOG), ("on the loop", LOOK_UP), ("on the loop", ENDED)]


def test_a_part_is_carried_out_before_the_next_one_is_decided() -> None:
    hands = Hands()

    def decide(core: Core, now: float) -> Iterator[list[Effect]]:
        yield [LOG]
        assert hands.order == [("at once", LOG)]
        yield [ENDED]

    hands.driver.act_in_parts(decide)
    assert hands.order == [("at once", LOG), ("on the loop", ENDED)]


def test_the_core_is_told_the_time() -> None:
    times: list[float] = []
    hands = Hands()
    hands.driver.act(lambda core, now: times.append(now) or [])  # type: ignore[func-returns-value]
    assert times == [7.0] == [hands.driver.now]


def test_what_belongs_on_the_loop_waits_for_it_when_another_thread_acts() -> None:
    hands = Hands()
    in_thread(lambda: hands.driver.act(lambda core, now: [LOOK_UP, LOG]))
    assert hands.order == [("at once", LOG)] and hands.done[0][2] != threading.get_ident()
    in_thread(lambda: hands.driver.act(lambda core, now: [ENDED]))
    hands.run_posted()
    assert hands.order[1:] == [("on the loop", LOOK_UP), ("on the loop", ENDED)]
    assert {ident for where, _, ident in hands.done if where == "on the loop"} == {threading.get_ident()}


def test_an_act_on_the_loop_keeps_the_order_of_what_another_thread_left() -> None:
    hands = Hands()
    in_thread(lambda: hands.driver.act(lambda core, now: [LOOK_UP]))
    hands.driver.act(lambda core, now: [ENDED])
    assert [effect for _, effect in hands.order] == [LOOK_UP, ENDED]


def test_a_busy_core_is_not_waited_for_by_who_must_not_wait() -> None:
    hands = Hands()
    answers: list[bool] = []

    def while_held(core: Core) -> None:
        in_thread(lambda: answers.append(hands.driver.act_if_free(lambda core, now: [LOG])))

    hands.driver.read(while_held)
    assert answers == [False] and not hands.done
    assert hands.driver.act_if_free(lambda core, now: [LOG]) and hands.order == [("at once", LOG)]


def test_a_bug_in_a_decision_lets_go_of_the_core() -> None:
    hands = Hands()

    def fail(core: Core, now: float) -> list[Effect]:
        raise RuntimeError("oops")

    for act in (hands.driver.act, hands.driver.act_if_free):
        with pytest.raises(RuntimeError, match="oops"):
            act(fail)
        in_thread(lambda: hands.driver.act(lambda core, now: [LOG]))
    assert len(hands.done) == 2


def test_who_carries_out_an_effect_may_look_at_the_core_and_act() -> None:
    hands = Hands()
    seen: list[PeerId] = []
    hands.driver.carry_out(Log, lambda effect: seen.append(hands.driver.read(lambda core: core.me)))
    hands.driver.carry_out(LookUp, lambda effect: hands.driver.act(lambda core, now: [ENDED]), on_loop=True)
    hands.driver.act(lambda core, now: [LOG, LOOK_UP])
    assert seen == ["a" * 32] and hands.order == [("on the loop", ENDED)]
    assert not hands.driver.read(is_serving)


def test_an_effect_that_nobody_carries_out_is_a_bug() -> None:
    with pytest.raises(KeyError):
        Hands().driver.act(lambda core, now: [fx.DropKv(SessionId("s"))])


def test_the_core_is_ticked_at_the_start_and_then_when_it_wants_it() -> None:
    core = FakeCore(-1e9)
    hands = Hands(core)
    hands.driver.act(lambda core, now: [])
    assert not hands.timers, "not before the start"
    hands.driver.start()
    assert core.ticks == [7.0]
    hands.ring()
    hands.ring()
    assert core.ticks == [7.0, 17.0, 27.0] and [timer.at for timer in hands.set_timers()] == [37.0]
    hands.driver.stop()
    assert not hands.set_timers()


@pytest.mark.parametrize("effect", [LOG, None])
def test_a_timer_that_comes_nearer_wakes_the_loop_earlier(effect: Effect | None) -> None:
    core = FakeCore(0.0)
    hands = Hands(core)
    hands.driver.start()

    def nearer(_: Core, now: float) -> list[Effect]:
        core.due = 9.0
        return [effect] if effect is not None else []

    if effect is None:
        hands.driver.act(nearer)
    else:
        in_thread(lambda: hands.driver.act(nearer))
        hands.run_posted()
    assert [timer.at for timer in hands.set_timers()] == [9.0]


def test_a_timer_that_was_put_off_rings_once_for_nothing() -> None:
    core = FakeCore(0.0)
    hands = Hands(core)
    hands.driver.start()
    core.due = 20.0
    hands.driver.act(lambda core, now: [])
    assert [timer.at for timer in hands.set_timers()] == [17.0], "nothing is set anew for it"


def test_the_next_step_of_an_answer_does_not_wake_the_loop() -> None:
    core = FakeCore(0.0)
    hands = Hands(core)
    hands.driver.carry_out(fx.Send, lambda effect: None)
    hands.driver.start()
    message = Goodbye("x")
    in_thread(lambda: hands.driver.act_if_free(lambda core, now: [fx.Send(PeerId("b" * 32), message)]))
    assert not hands.posted


def test_a_bug_in_a_tick_does_not_end_the_time() -> None:
    core = FakeCore(0.0)
    hands = Hands(core)

    def fail() -> None:
        raise RuntimeError("oops")

    core.on_tick = fail
    hands.driver.start()
    assert [str(bug) for bug in hands.bugs] == ["oops"]
    hands.ring()
    core.on_tick = lambda: None
    hands.ring()
    assert len(hands.bugs) == 2 and core.ticks == [7.0, 8.0, 9.0]


@pytest.mark.parametrize("package", ["node", "api", "cli"])
def test_nobody_but_the_driver_has_the_core(package: str) -> None:
    """Others see it as the argument of a function that the driver calls, with the lock held."""
    for path in sorted((Path(swarm.__file__).parent / package).glob("*.py")):
        if path.name == "driver.py":
            continue
        nodes = ast.walk(ast.parse(path.read_text()))
        lines = [node.lineno for node in nodes if isinstance(node, ast.Attribute) and node.attr in ("core", "_core")]
        assert not lines, f"{path.name} reaches for the core in lines {lines}"
        assert "_lock" not in path.read_text() or path.name != "node.py"


def test_every_effect_is_carried_out_by_a_running_node(tmp_path: Path) -> None:
    from tests.helpers.one_node import one_node

    async def story() -> set[type[Effect]]:
        async with one_node(tmp_path) as node:
            driver: Any = node._driver
            return {*driver._at_once, *driver._on_loop}

    kinds = {kind for kind in vars(fx).values() if isinstance(kind, type) and issubclass(kind, Effect)} - {Effect}
    assert asyncio.run(story()) == kinds
