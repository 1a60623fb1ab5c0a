"""How much of itself a device can give just now: slower while heat holds it back, nothing while it rests.

Pure: readings and the time go in. What others hear changes rarely, because every change makes them plan again: a share
moves by a quarter at least, and only after it has been so for STEADY_S; what was lost comes back after COOL_S.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

LOOK_S = 5.0  # between two readings: heat comes in seconds, and a wake-up costs little
STEADY_S = 20.0  # readings of so long count together
COOL_S = 30.0  # free of heat for so long, it may work again: two of the three spells in a minute
HOT_C = 88.0  # x86 and Arm processors of home devices shut down between 95 and 105 degrees
COOL_C = 75.0
SHARES = (1.0, 0.75, 0.5, 0.25)  # of a device's speed that others count with
LEFT_OUT_BELOW = 0.45  # slower than this it holds everybody up
THROTTLED_SHARE = 0.5  # speed while the processor holds itself back


@dataclass(frozen=True, slots=True)
class SensorReading:
    """One look at the sensors; None is what this machine does not tell."""

    temperature_c: float | None = None
    clock_share: float | None = None
    throttled_ms: int | None = None  # a counter
    on_battery: bool = False
    in_use: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """What others hear: the share of its speed that it gives, and why it would rather not take part."""

    share: float = 1.0
    rests: str = ""  # "" when it takes part
    text: str = ""  # for people, "" when all is well


WELL = Condition()


class Conditions:
    """Takes readings, gives the condition."""

    def __init__(self) -> None:
        self.now = WELL
        self.temperature_c: float | None = None
        self._shares: deque[tuple[float, float]] = deque()  # time, share of the speed
        self._throttled: tuple[float, int] | None = None
        self._well_since: float | None = None
        self._is_hot = False

    def take(self, reading: SensorReading, now: float) -> bool:
        """A look at the sensors; True when the condition is another one now."""
        self.temperature_c = reading.temperature_c
        self._shares.append((now, self._share_of(reading, now)))
        while now - self._shares[0][0] > STEADY_S:
            self._shares.popleft()
        before, self.now = self.now, self._condition(reading, now)
        return (before.share, before.rests) != (self.now.share, self.now.rests)

    def _share_of(self, reading: SensorReading, now: float) -> float:
        """The speed at this moment, as a share of what was measured when all was well."""
        share = 1.0 if reading.clock_share is None else reading.clock_share
        before, counter = self._throttled, reading.throttled_ms
        self._throttled = None if counter is None else (now, counter)
        if before is not None and counter is not None and now > before[0]:
            part = min(max((counter - before[1]) / 1000 / (now - before[0]), 0.0), 1.0)
            share = min(share, 1 - part * (1 - THROTTLED_SHARE))
        return share

    def _condition(self, reading: SensorReading, now: float) -> Condition:
        mean = sum(share for _, share in self._shares) / len(self._shares)
        is_steady = now - self._shares[0][0] >= STEADY_S - LOOK_S
        self._watch_heat(mean, is_steady, now)
        share = self._settled(mean) if is_steady else self.now.share
        for is_so, reason in ((reading.on_battery, "it runs on battery"), (reading.in_use, "its user is at it")):
            if is_so:
                return Condition(share, reason, reason)
        if self._is_hot:
            reason = f"it is too hot{self._degrees()}"
            return Condition(share, self.now.rests if self.now.rests.startswith("it is too hot") else reason, reason)
        return Condition(share, "", f"slowed down by heat to {share:.0%}{self._degrees()}" if share < 1 else "")

    def _watch_heat(self, mean: float, is_steady: bool, now: float) -> None:
        degrees = self.temperature_c or 0.0
        is_well = mean > LEFT_OUT_BELOW + 0.1 and degrees < COOL_C
        self._well_since = (self._well_since if self._well_since is not None else now) if is_well else None
        if is_steady and (mean < LEFT_OUT_BELOW or degrees >= HOT_C):
            self._is_hot = True
        elif self._well_since is not None and now - self._well_since >= COOL_S:
            self._is_hot = False

    def _settled(self, mean: float) -> float:
        """The nearest of SHARES, but the one before while that is nearly as near."""
        nearest = min(SHARES, key=lambda share: abs(share - mean))
        return self.now.share if abs(self.now.share - mean) < abs(nearest - mean) + 0.05 else nearest

    def _degrees(self) -> str:
        return f" ({self.temperature_c:.0f} °C)" if self.temperature_c is not None else ""
