"""How often this device says that it is there: often while anybody has something to do, else seldom. Pure."""

from __future__ import annotations

from swarm import limits

IDLE_LOOK_S = 5.0  # between two looks at oneself while nothing happens: what is said then changes as seldom


class Pace:
    """Made when the node starts, which counts as something happening."""

    def __init__(self, now: float) -> None:
        self._active_at = now

    def happened(self, now: float) -> None:
        """Somebody has something to do: here, or a device that said so; or one came or went."""
        self._active_at = now

    def is_idle(self, now: float) -> bool:
        """True when nothing has happened for a while."""
        return now - self._active_at >= limits.IDLE_AFTER_S

    def beat_s(self, now: float) -> float:
        """Between two heartbeats."""
        return limits.IDLE_HEARTBEAT_S if self.is_idle(now) else limits.HEARTBEAT_INTERVAL_S

    def look_s(self, now: float) -> float:
        """Between two looks at oneself."""
        return IDLE_LOOK_S if self.is_idle(now) else limits.HEARTBEAT_INTERVAL_S

    def announce_s(self, now: float) -> float:
        """Between two announcements to the network."""
        return limits.IDLE_ANNOUNCE_INTERVAL_S if self.is_idle(now) else limits.ANNOUNCE_INTERVAL_S

    def catalog_s(self, now: float) -> float:
        """Between two tellings of what models are here."""
        return limits.IDLE_CATALOG_INTERVAL_S if self.is_idle(now) else limits.CATALOG_INTERVAL_S
