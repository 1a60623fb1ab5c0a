"""Heat takes a device's share away within a minute, and gives it back when it has cooled."""

from __future__ import annotations

import pytest

from swarm.node.condition import COOL_S, LOOK_S, WELL, Conditions, SensorReading


def after(conditions: Conditions, seconds: float, start: float, **reading: object) -> tuple[float, list[float]]:
    """Give the same reading for so long; when it is over, and when others heard of a change."""
    heard, now = [], start
    while now < start + seconds:
        now += LOOK_S
        if conditions.take(SensorReading(**reading), now):  # type: ignore[arg-type]
            heard.append(now - start)
    return now, heard


def test_a_cool_device_has_nothing_to_tell() -> None:
    conditions = Conditions()
    _, heard = after(conditions, 600, 0.0, temperature_c=60.0, clock_share=1.0)
    assert heard == [] and conditions.now == WELL


def test_a_machine_that_tells_nothing_is_well() -> None:
    conditions = Conditions()
    assert after(conditions, 600, 0.0)[1] == [] and conditions.now == WELL


def test_a_device_that_is_slowed_down_says_by_how_much_within_a_minute() -> None:
    conditions = Conditions()
    now, _ = after(conditions, 60, 0.0, temperature_c=60.0, clock_share=1.0)
    now, heard = after(conditions, 60, now, temperature_c=82.0, clock_share=0.5)
    assert heard and heard[-1] < 60
    assert (conditions.now.share, conditions.now.rests) == (0.5, "")
    assert conditions.now.text == "slowed down by heat to 50% (82 °C)"
    _, heard = after(conditions, 60, now, temperature_c=65.0, clock_share=1.0)
    assert heard and heard[-1] < 60 and conditions.now == WELL


def test_a_device_that_is_held_back_hard_rests_and_comes_back_when_it_is_cool() -> None:
    conditions = Conditions()
    now, heard = after(conditions, 60, 0.0, temperature_c=95.0, clock_share=0.3)
    assert heard[-1] < 60 and conditions.now.rests == "it is too hot (95 °C)"
    now, heard = after(conditions, 120, now, temperature_c=80.0, clock_share=1.0)
    assert conditions.now.rests, "not yet cool: work would heat it up again at once"
    _, heard = after(conditions, 60, now, temperature_c=60.0, clock_share=1.0)
    assert heard and heard[-1] < 60 and conditions.now == WELL


def test_a_device_that_has_just_cooled_rests_a_while_yet() -> None:
    conditions = Conditions()
    now, _ = after(conditions, 60, 0.0, temperature_c=95.0, clock_share=0.3)
    now, _ = after(conditions, 120, now, temperature_c=80.0, clock_share=1.0)
    now, heard = after(conditions, COOL_S - LOOK_S, now, temperature_c=60.0, clock_share=1.0)
    assert heard == [] and conditions.now.rests
    _, heard = after(conditions, 2 * LOOK_S, now, temperature_c=60.0, clock_share=1.0)
    assert heard and conditions.now == WELL


def test_a_moment_of_heat_is_not_told() -> None:
    conditions = Conditions()
    now, heard = after(conditions, 60, 0.0, temperature_c=70.0, clock_share=1.0)
    for _ in range(20):
        now, more = after(conditions, LOOK_S, now, temperature_c=85.0, clock_share=0.5)
        now, other = after(conditions, 4 * LOOK_S, now, temperature_c=70.0, clock_share=1.0)
        heard += more + other
    assert heard == []


def test_a_share_between_two_levels_does_not_make_others_plan_again_and_again() -> None:
    conditions = Conditions()
    now, heard = after(conditions, 60, 0.0, clock_share=0.87)
    for i in range(50):
        now, more = after(conditions, 4 * LOOK_S, now, clock_share=0.86 if i % 2 else 0.89)
        heard += more
    assert len(heard) <= 1


def test_time_that_an_x86_processor_held_itself_back_slows_it() -> None:
    conditions = Conditions()
    for i in range(12):
        conditions.take(SensorReading(throttled_ms=int(i * LOOK_S * 1000)), i * LOOK_S)
    assert conditions.now.share == 0.5


@pytest.mark.parametrize(
    ("reading", "reason"),
    [(SensorReading(on_battery=True), "it runs on battery"), (SensorReading(in_use=True), "its user is at it")],
)
def test_a_laptop_in_use_or_on_battery_rests_at_once(reading: SensorReading, reason: str) -> None:
    conditions = Conditions()
    conditions.take(SensorReading(), 0.0)
    assert conditions.take(reading, LOOK_S) and conditions.now.rests == reason
    assert conditions.take(SensorReading(), 2 * LOOK_S) and conditions.now == WELL


def test_a_temperature_that_changes_is_no_news() -> None:
    conditions = Conditions()
    now, _ = after(conditions, 60, 0.0, temperature_c=95.0, clock_share=0.3)
    _, heard = after(conditions, 20, now, temperature_c=96.0, clock_share=0.3)
    assert heard == [] and conditions.now.text == "it is too hot (96 °C)"
