"""Effects are values: what the core returns can be compared, and nobody changes it afterwards."""

from __future__ import annotations

import inspect

import pytest

from swarm.answers import EndReason
from swarm.cluster import effects as fx
from swarm.wire.ids import ModelId, SessionId

ALL = [kind for _, kind in inspect.getmembers(fx, inspect.isclass) if issubclass(kind, fx.Effect)]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_effect_says_what_is_to_be_done(kind: type) -> None:
    assert kind.__doc__


def test_equal_effects_are_equal_and_cannot_be_changed() -> None:
    one, two = (fx.Load(1, ModelId("a" * 64), frozenset()) for _ in range(2))
    assert one == two and hash(one) == hash(two)
    with pytest.raises((AttributeError, TypeError)):
        one.ticket = 2  # type: ignore[misc]


def test_nothing_comes_after_never() -> None:
    assert fx.NEVER > 1e300 and min([5.0, fx.NEVER]) == 5.0


def test_an_end_without_an_error_has_none() -> None:
    assert fx.Ended(SessionId("b" * 32), EndReason.STOP) == fx.Ended(SessionId("b" * 32), EndReason.STOP, "", 0)
