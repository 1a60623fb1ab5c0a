"""Fields that may travel, and those that may not."""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass
from typing import Annotated

import pytest

from swarm.value import value
from swarm.wire.ids import PeerId
from swarm.wire.schema import (
    MAX_EXTRA_FIELDS,
    Int,
    Many,
    OneOf,
    Raw,
    Real,
    Text,
    Violation,
    pack_record,
    unpack_record,
)


@dataclass(frozen=True)
class Inner:
    number: Annotated[int, Int(0, 9)]


@dataclass(frozen=True)
class Outer:
    peer: PeerId
    text: Annotated[str, Text(4)]
    raw: Annotated[bytes, Raw(1, 2)]
    real: Annotated[float, Real(0.0, 1.0)]
    word: Annotated[str, OneOf(("a", "b"))]
    flag: bool
    many: Annotated[tuple[Inner, ...], Many(2)]
    maybe: Inner | None
    late: Annotated[int, Int(0, 9)] = 7


@value
class Slotted:
    number: Annotated[int, Int(0, 2**64 - 1)]
    maybe: Inner | None = None
    many: Annotated[tuple[Annotated[float, Real(0.0, 1.0)], ...], Many(2)] = ()


@value
class Signed:
    number: Annotated[int, Int(-5, 5)]


GOOD = Outer(PeerId("0a" * 16), "äö", b"x", 0.5, "a", True, (Inner(1), Inner(9)), None, 8)
WIRE = [b"\x0a" * 16, "äö", b"x", 0.5, "a", True, [[1], [9]], None, 8]


def test_a_record_becomes_a_list_and_a_list_the_record() -> None:
    assert pack_record(GOOD) == WIRE
    assert unpack_record(Outer, WIRE) == GOOD


def test_a_missing_last_field_of_an_older_peer_takes_its_default() -> None:
    assert unpack_record(Outer, WIRE[:-1]).late == 7


def test_last_fields_with_their_default_values_are_not_sent() -> None:
    usual = Outer(GOOD.peer, "", b"x", 0.0, "a", True, (), None)
    assert len(pack_record(usual)) == len(WIRE) - 1
    assert unpack_record(Outer, pack_record(usual)) == usual


def test_extra_fields_of_a_newer_peer_are_ignored_up_to_a_limit() -> None:
    assert unpack_record(Outer, [*WIRE, "new", None]) == GOOD
    with pytest.raises(Violation, match="fields"):
        unpack_record(Outer, [*WIRE, *range(MAX_EXTRA_FIELDS + 1)])


@pytest.mark.parametrize(
    ("place", "bad", "rule"),
    [
        (0, b"\x0a" * 15, "16 bytes"),
        (0, "0a" * 16, "16 bytes"),
        (0, None, "16 bytes"),
        (1, "äöü", "longer than 4"),
        (1, "\x1b[2J", "printed"),
        (1, "a\nb", "printed"),
        (1, "\ud800", "printed"),
        (1, b"ab", "not text"),
        (2, b"", "from 1 to 2"),
        (2, b"xyz", "from 1 to 2"),
        (2, "x", "not bytes"),
        (3, 1.5, "from 0 to 1"),
        (3, float("nan"), "from 0 to 1"),
        (3, 10**400, "from 0 to 1"),
        (3, "1", "not a number"),
        (3, True, "not a number"),
        (4, "c", "one of a, b"),
        (4, [], "one of a, b"),
        (5, 1, "true or false"),
        (6, [[1], [2], [3]], "at most 2"),
        (6, [[10]], "from 0 to 9"),
        (6, {"a": 1}, "not a list"),
        (6, [[True]], "whole number"),
        (6, [[]], "0 fields"),
        (7, 5, "list of fields"),
        (8, 1.0, "whole number"),
        (8, 10, "from 0 to 9"),
        (8, 10**30, "from 0 to 9"),
        (8, -(10**30), "from 0 to 9"),
    ],
)
def test_an_illegal_value_is_named_with_its_rule(place: int, bad: object, rule: str) -> None:
    values = list(WIRE)
    values[place] = bad
    with pytest.raises(Violation, match=rule):
        unpack_record(Outer, values)


def test_nothing_illegal_is_sent() -> None:
    with pytest.raises(Violation, match=r"Inner\.number"):
        pack_record(Inner(10))
    for no_id in ("0A" * 16, "0g" * 16, "0a" * 15, "ää" * 16, "0\ud800" * 16, "\u3030" * 32, None):
        with pytest.raises(Violation, match="32 hex digits"):
            pack_record(Outer(no_id, "", b"x", 0.0, "a", True, (), None))  # type: ignore[arg-type]


def test_a_class_with_slots_is_made_without_its_init_and_is_the_same() -> None:
    good = Slotted(2**64 - 1, None, (0.5,))
    assert pack_record(good) == [2**64 - 1, None, [0.5]]
    assert unpack_record(Slotted, [2**64 - 1, None, [0.5]]) == good
    assert unpack_record(Slotted, [0]) == Slotted(0) and pack_record(Slotted(0)) == [0]
    assert hash(unpack_record(Slotted, [0, [3]])) == hash(Slotted(0, Inner(3)))
    for number in (2**64, -1, 10**30):
        with pytest.raises(Violation, match=r"Slotted\.number is .* must be from 0 to 18446744073709551615"):
            unpack_record(Slotted, [number])
    with pytest.raises(Violation, match="not set"):
        pack_record(object.__new__(Slotted))


def test_a_number_too_large_for_the_machine_is_not_taken_for_a_small_one() -> None:
    assert unpack_record(Signed, [-5]) == Signed(-5)
    for number in (-6, 6, 2**63, -(2**63) - 1, 10**30):
        with pytest.raises(Violation, match=f"Signed.number is {number}; it must be from -5 to 5"):
            unpack_record(Signed, [number])


def test_what_is_unpacked_is_let_go_of() -> None:
    """The fields are written past Python's own checks: a reference too many would leak, one too few would crash."""
    wire = [10**12, [3], [0.5, 0.25]]  # a number that nobody else holds
    text = unpack_record(Outer, WIRE).text
    counts = sys.getrefcount(wire), sys.getrefcount(wire[0]), sys.getrefcount(text)
    for _ in range(1000):
        assert pack_record(unpack_record(Slotted, wire)) == wire
        assert unpack_record(Outer, WIRE).text is text
    gc.collect()
    assert (sys.getrefcount(wire), sys.getrefcount(wire[0]), sys.getrefcount(text)) == counts
