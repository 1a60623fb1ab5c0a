"""Slots that are released when other programs need memory, and taken back when not; the clock is turned here."""

from __future__ import annotations

import pytest

from swarm.engine.expert_room import CALM_S, ExpertRoom, MemoryLook

GB = 1_000_000_000
SLOT = 10_000_000
PLENTY = MemoryLook(6 * GB, 8 * GB)
LOW = MemoryLook(GB // 3, 8 * GB)
STALLED = MemoryLook(6 * GB, 8 * GB, stall=0.2)


def room(n_slots: int = 400, min_slots: int = 16) -> ExpertRoom:
    return ExpertRoom(n_slots, min_slots, SLOT)


def looks(room: ExpertRoom, begin: int, seconds: int, memory: MemoryLook) -> list[int]:
    """Once a second; the numbers of slots that were different from the one before."""
    seen = [room.n_slots]
    for second in range(begin, begin + seconds):
        if (n_slots := room.look(float(second), memory)) != seen[-1]:
            seen.append(n_slots)
    return seen[1:]


def test_with_memory_to_spare_nothing_changes() -> None:
    assert looks(room(), 0, 3600, PLENTY) == []


def test_an_eighth_goes_each_second_while_memory_is_low_down_to_the_least() -> None:
    assert looks(room(), 0, 60, LOW) == [350, 300, 250, 200, 150, 100, 50, 16]


def test_it_stops_as_soon_as_there_is_enough() -> None:
    one = room()
    assert looks(one, 0, 2, LOW) == [350, 300]
    assert looks(one, 2, int(CALM_S) - 2, PLENTY) == []


def test_an_eighth_comes_back_after_a_minute_of_calm_and_then_one_a_minute() -> None:
    one = room()
    looks(one, 0, 3, LOW)
    assert looks(one, 3, 58, PLENTY) == []
    assert looks(one, 61, 240, PLENTY) == [300, 350, 400]
    assert looks(one, 301, 3600, PLENTY) == []


def test_need_during_the_calm_begins_it_anew() -> None:
    one = room()
    looks(one, 0, 1, LOW)
    looks(one, 1, 50, PLENTY)
    looks(one, 51, 1, STALLED)
    assert looks(one, 52, 59, PLENTY) == []
    assert looks(one, 111, 60, PLENTY) == [350]


def test_what_would_be_taken_back_must_leave_as_much_again() -> None:
    one = room()
    looks(one, 0, 1, LOW)
    enough_for_it_alone = MemoryLook(int(0.05 * 8 * GB) + 50 * SLOT, 8 * GB)
    assert looks(one, 1, 600, enough_for_it_alone) == []
    assert looks(one, 601, 10, MemoryLook(int(0.05 * 8 * GB) + 100 * SLOT, 8 * GB)) == [400]


def test_stalls_release_an_eighth_every_ten_seconds_for_they_are_told_as_a_mean() -> None:
    assert looks(room(), 0, 35, STALLED) == [350, 300, 250, 200]


@pytest.mark.parametrize(("headroom", "changes"), [(40_000_000, []), (20_000_000, [350])])
def test_a_container_may_be_filled_but_for_a_little(headroom: int, changes: list[int]) -> None:
    assert looks(room(), 0, 1, MemoryLook(6 * GB, 8 * GB, headroom)) == changes


def test_a_full_container_takes_nothing_back() -> None:
    one = room()
    looks(one, 0, 1, LOW)
    assert looks(one, 1, 600, MemoryLook(6 * GB, 8 * GB, 60_000_000)) == []


def test_who_has_the_least_keeps_it() -> None:
    assert looks(room(16, 16), 0, 600, LOW) == []
