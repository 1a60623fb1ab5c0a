"""How many slots experts may have while other programs want memory, too: looks and times come in, a number goes out."""

from __future__ import annotations

from dataclasses import dataclass

EIGHTHS = 8  # of the slots at the beginning: what is released or taken back at once
LOW_SHARE = 0.05  # of the machine's memory: with less available other programs are in need
LOW_HEADROOM_BYTES = 32 * 1024 * 1024  # the same in a container, which this process may be meant to fill
MUCH_STALL = 0.05  # of the time that all programs waited for memory
STALL_S = 10.0  # over which the system tells that: earlier it does not show what a release has brought
CALM_S = 60.0  # without need before an eighth is taken back, and from one to the next


@dataclass(frozen=True, slots=True)
class MemoryLook:
    """What the system says of memory at one moment."""

    available_bytes: int  # that the machine can give
    total_bytes: int
    headroom_bytes: int | None = None  # of the container; None: there is none
    stall: float = 0.0  # share of the last seconds in which all programs waited for memory

    @property
    def is_low(self) -> bool:
        """Whether there is less than other programs may need at any moment."""
        is_full = self.headroom_bytes is not None and self.headroom_bytes < LOW_HEADROOM_BYTES
        return self.available_bytes < LOW_SHARE * self.total_bytes or is_full

    def has_room_for(self, n_bytes: int) -> bool:
        """Whether taking these would leave as much again."""
        in_container = self.headroom_bytes is None or self.headroom_bytes >= 2 * n_bytes + LOW_HEADROOM_BYTES
        return self.available_bytes >= 2 * n_bytes + LOW_SHARE * self.total_bytes and in_container


class ExpertRoom:
    """Releases an eighth of the slots when memory is short, and takes one back after a minute of calm."""

    def __init__(self, n_slots: int, min_slots: int, slot_bytes: int) -> None:
        self.n_slots = n_slots  # to go on with
        self._most, self._least, self._slot_bytes = n_slots, min(min_slots, n_slots), slot_bytes
        self._step = -(-n_slots // EIGHTHS)
        self._needed_at = self._changed_at = -CALM_S

    def look(self, now: float, memory: MemoryLook) -> int:
        """The number of slots from now on; `now`: seconds of any steady clock."""
        stalls = memory.stall > MUCH_STALL and now - self._changed_at >= STALL_S
        if memory.is_low or stalls:
            self._needed_at = now
            self._change(now, max(self.n_slots - self._step, self._least))
        elif memory.stall > MUCH_STALL:
            self._needed_at = now
        elif self._may_grow(now, memory):
            self._change(now, min(self.n_slots + self._step, self._most))
        return self.n_slots

    def _may_grow(self, now: float, memory: MemoryLook) -> bool:
        is_calm = now - max(self._needed_at, self._changed_at) >= CALM_S
        return self.n_slots < self._most and is_calm and memory.has_room_for(self._step * self._slot_bytes)

    def _change(self, now: float, n_slots: int) -> None:
        if n_slots != self.n_slots:
            self.n_slots, self._changed_at = n_slots, now
