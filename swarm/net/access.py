"""Device keys that are not let in, and until when. Pure: the time is an argument."""

from __future__ import annotations

from collections import OrderedDict

from swarm import limits


class AccessList:
    """Who was shut out by hand, or sent garbage a moment ago."""

    def __init__(self) -> None:
        self._until: OrderedDict[bytes, tuple[float, float]] = OrderedDict()  # key -> (end, length of the back-off)
        self._shut_out: set[bytes] = set()

    def may_enter(self, device_key: bytes, now: float) -> bool:
        """True when this device key is welcome."""
        until, _ = self._until.get(device_key, (0.0, 0.0))
        return device_key not in self._shut_out and now >= until

    def back_off(self, device_key: bytes, now: float) -> float:
        """Keep a device out for a while, twice as long each time; return the seconds."""
        _, last_s = self._until.pop(device_key, (0.0, 0.0))
        wait_s = min(max(limits.GARBAGE_BACKOFF_S, 2 * last_s), limits.GARBAGE_BACKOFF_MAX_S)
        self._until[device_key] = (now + wait_s, wait_s)
        if len(self._until) > limits.MAX_BLOCKED_KEYS:
            self._until.popitem(last=False)
        return wait_s

    def shut_out(self, device_key: bytes) -> None:
        """Never let this device in again while this node runs; a rekey makes it last."""
        if len(self._shut_out) < limits.MAX_BLOCKED_KEYS:
            self._shut_out.add(device_key)
