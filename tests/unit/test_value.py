"""Values compare, hash and stay."""

from __future__ import annotations

import pytest

from swarm.value import Value


class Point(Value):
    x: int
    y: int = 0


def test_values_with_the_same_fields_are_the_same() -> None:
    assert Point(1) == Point(1, 0) and hash(Point(1)) == hash(Point(1, 0)) and Point(1) != Point(2)


def test_a_value_does_not_change() -> None:
    with pytest.raises(AttributeError):
        Point(1).x = 2  # type: ignore[misc]


def test_a_value_can_be_matched() -> None:
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)
