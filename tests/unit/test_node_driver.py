"""The one owner of the core: what it decides is carried out in order, where it belongs, and nobody else touches it."""

from __future__ import annotations

import ast
import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

import swarm
from swarm.cluster import effects as fx
from swarm.cluster.core import Core, Identity
from swarm.cluster.effects import Effect, Log, LookUp, Reason
from swarm.node.driver import Driver, is_serving
from swarm.wire.ids import BootId, ModelId, PeerId, SessionId
from swarm.wire.records import Capabilities

LOG, LOOK_UP = Log("joined"), LookUp(ModelId("m"))
ENDED = fx.Ended(SessionId("s"), Reason.STOP)


def a_core() -> Core:
    capabilities = Capabilities("x86_64", "scalar", 1, 1, 1, 1.0, 1.0, 1.0)
    return Core(Identity(PeerId("a" * 32), BootId("b" * 32), "one"), capabilities, Random(1))


class Hands:
    """Carries out effects, and remembers which and where."""

    def __init__(self) -> None:
        self.done: list[tuple[str, Effect, int]] = []
        self.posted: list[Callable[[], object]] = []
        self.driver = Driver(a_core(), lambda function, *_: self.posted.append(function), lambda: 7.0)  # type: ignore[arg-type,misc]
        self.driver.carry_out(Log, lambda effect: self.note("at once", effect))
        self.driver.carry_out(LookUp, lambda effect: self.note("on the loop", effect), on_loop=True)
        self.driver.carry_out(fx.Ended, lambda effect: self.note("on the loop", effect), on_loop=True)

    def note(self, where: str, effect: Effect) -> None:
        self.done.append((where, effect, threading.get_ident()))

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
    for function in hands.posted:
        function()
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
