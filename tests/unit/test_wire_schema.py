"""Fields that may travel, and those that may not."""

from __future__ import annotations

import gc
import sys
from typing import Annotated, Literal

import msgpack
import pytest
from msgspec import Meta

from swarm import limits
from swarm.wire.ids import ModelId, PeerId
from swarm.wire.schema import Machine, Record, Violation, pack, unpack


class Inner(Record):
    number: Annotated[int, Meta(ge=0, le=9)]


class Outer(Record):
    peer: PeerId
    text: Machine
    raw: Annotated[bytes, Meta(min_length=1, max_length=2)]
    real: Annotated[float, Meta(ge=0.0, le=1.0)]
    word: Literal["a", "b"]
    flag: bool
    many: Annotated[tuple[Inner, ...], Meta(max_length=2)]
    maybe: Inner | None
    late: Annotated[int, Meta(ge=0, le=9)] = 7


class Wide(Record):
    number: Annotated[int, Meta(ge=0)]
    maybe: Inner | None = None
    many: Annotated[tuple[Annotated[float, Meta(ge=0.0, le=1.0)], ...], Meta(max_length=2)] = ()


class Signed(Record, tag=3):
    number: Annotated[int, Meta(ge=-5, le=5)]


GOOD = Outer(PeerId("0a" * 16), "äö", b"x", 0.5, "a", True, (Inner(1), Inner(9)), None, 8)
WIRE = [b"\x0a" * 16, "äö", b"x", 0.5, "a", True, [[1], [9]], None, 8]


def test_a_record_becomes_an_array_and_an_array_the_record() -> None:
    assert pack(GOOD) == msgpack.packb(WIRE)
    again = unpack(Outer, msgpack.packb(WIRE))
    assert again == GOOD and pack(again) == msgpack.packb(WIRE)
    assert hash(again) == hash(GOOD)


def test_a_missing_last_field_of_an_older_peer_takes_its_default() -> None:
    assert unpack(Outer, msgpack.packb(WIRE[:-1])).late == 7


def test_extra_fields_of_a_newer_peer_are_skipped() -> None:
    assert unpack(Outer, msgpack.packb([*WIRE, "new", None, {"a": [1]}])) == GOOD
    assert unpack(Outer, msgpack.packb([*WIRE[:6], [[1, "new"], [9, []]], *WIRE[7:]])) == GOOD


@pytest.mark.parametrize(
    ("place", "bad", "rule"),
    [
        (0, b"\x0a" * 15, "peer: expected 16 bytes"),
        (0, "0a" * 16, "peer: expected 16 bytes"),
        (0, None, "peer: expected 16 bytes"),
        (0, [[[]]], "peer: expected 16 bytes"),
        (1, "äöü" * 3, "text: expected text of at most 16 bytes"),
        (1, "\x1b[2J", "text: .* printed"),
        (1, "a\nb", "text: .* printed"),
        (1, "a\u202eb", "text: .* printed"),
        (1, b"ab", "text: expected text"),
        (2, b"", "raw: expected `bytes` of length >= 1"),
        (2, b"xyz", "raw: expected `bytes` of length <= 2"),
        (2, "x", "raw: expected `bytes`, got `str`"),
        (3, 1.5, "real: expected `float` <= 1.0"),
        (3, float("nan"), "real: expected `float` >= 0.0"),
        (3, float("inf"), "real: expected `float` <= 1.0"),
        (3, 2**64 - 1, "real: expected `float` <= 1.0"),
        (3, "1", "real: expected `float`, got `str`"),
        (3, True, "real: expected `float`, got `bool`"),
        (4, "c\x1b[2J", r"word: expected one of a, b$"),
        (4, [], r"word: expected one of a, b$"),
        (5, 1, "flag: expected `bool`, got `int`"),
        (6, [[1], [2], [3]], "many: expected `array` of length <= 2"),
        (6, [[1], [10]], r"^Inner\.number: expected `int` <= 9$"),
        (6, {"a": 1}, "many: expected `array`, got `object`"),
        (6, [[True]], "number: expected `int`, got `bool`"),
        (6, [[]], "many: expected `array` of at least length 1, got 0"),
        (7, 5, r"maybe: expected `array \| null`, got `int`"),
        (7, [-1], r"^Inner\.number: expected `int` >= 0$"),
        (8, 1.0, "late: expected `int`, got `float`"),
        (8, 10, "late: expected `int` <= 9"),
        (8, 2**64 - 1, "late: expected `int` <= 9"),
        (8, -(2**63), "late: expected `int` >= 0"),
        (8, msgpack.Timestamp(1), "late: expected `int`, got `ext`"),
    ],
)
def test_an_illegal_value_is_named_with_its_rule(place: int, bad: object, rule: str) -> None:
    values = list(WIRE)
    values[place] = bad
    with pytest.raises(Violation, match=rule):
        unpack(Outer, msgpack.packb(values))


def test_a_text_that_is_no_utf8_is_refused() -> None:
    data = msgpack.packb(WIRE).replace("äö".encode(), b"\xed\xa0\x80a")  # a lone surrogate
    with pytest.raises(Violation, match=r"(?i)utf-8"):
        unpack(Outer, data)


def test_ids_that_are_no_ids_are_not_sent() -> None:
    for no_id in ("0A" * 16, "0g" * 16, "0a " * 16, "ää" * 16, "0\ud800" * 16, "\u3030" * 32):
        with pytest.raises(Violation, match=r"^Outer(: .*hex| would not be read as it is)"):
            pack(Outer(PeerId(no_id), "", b"x", 0.0, "a", True, (), None))


def test_what_cannot_travel_is_not_sent() -> None:
    with pytest.raises(Violation, match=r"^Outer: .*object"):
        pack(Outer(GOOD.peer, object(), b"x", 0.0, "a", True, (), None))  # type: ignore[arg-type]
    with pytest.raises(Violation, match=r"Wide: .*2\*\*64"):
        pack(Wide(2**64))


def test_the_largest_number_of_the_wire_travels() -> None:
    good = Wide(2**64 - 1, None, (0.5,))
    assert pack(good) == msgpack.packb([2**64 - 1, None, [0.5]])
    assert unpack(Wide, pack(good)) == good
    assert unpack(Wide, msgpack.packb([0])) == Wide(0)


def test_a_number_too_large_for_the_machine_is_not_taken_for_a_small_one() -> None:
    assert unpack(Signed, msgpack.packb([3, -5])) == Signed(-5)
    for number in (-6, 6, 2**63, 2**64 - 1, -(2**63)):
        with pytest.raises(Violation, match=r"^Signed\.number: expected `int` [<>]= -?5$"):
            unpack(Signed, msgpack.packb([3, number]))


def test_depth_and_promised_length_cost_nothing() -> None:
    for tail in (b"\x91" * 60000, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"):
        for head in (b"\x91", b"\x92\x01", b"\x94\x01\xc0\x90"):  # for an id or a number, a record, and what is skipped
            for kind in (Outer, Wide):
                with pytest.raises(Violation):
                    unpack(kind, head + tail)


def test_ids_of_one_class_are_not_those_of_another() -> None:
    assert PeerId("ab") != ModelId("cd") and PeerId("ab") == "ab"
    assert (PeerId.N_BYTES, ModelId.N_BYTES) == (16, 32)


def test_what_is_unpacked_is_let_go_of() -> None:
    data = msgpack.packb([10**12, [3], [0.5, 0.25]])

    def turns(n: int) -> int:
        for _ in range(n):
            assert pack(unpack(Wide, data)) == data
        gc.collect()
        return sys.getallocatedblocks()

    turns(1000)
    before = turns(1000)
    assert turns(5000) - before < 100


def test_limits_of_texts_are_those_of_limits() -> None:
    for limit, kind in ((limits.MAX_MACHINE_BYTES, Outer),):
        good = [WIRE[0], "x" * limit, *WIRE[2:]]
        assert unpack(kind, msgpack.packb(good)).text == "x" * limit
        with pytest.raises(Violation, match=f"at most {limit} bytes"):
            unpack(kind, msgpack.packb([WIRE[0], "x" * (limit + 1), *WIRE[2:]]))
