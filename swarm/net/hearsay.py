"""Where other devices say that others are: pure. It is tried, a little; a bad peer must not make this device a cannon.

Only addresses in this device's own networks count, few from each teller, at a slow pace for each teller and for all of
them together, and one that does not answer a few times is not called again for a long while, whoever names it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from swarm import limits
from swarm.wire.ids import PeerId
from swarm.wire.records import Address

WINDOW_S = 60.0


class Hearsay:
    """What tellers said, and how often it was acted on."""

    def __init__(self, is_near: Callable[[str], bool]) -> None:
        """`is_near`: an IP address is in one of this device's own networks."""
        self._is_near = is_near
        self._told: dict[Address, PeerId] = {}  # who said so; addresses that are not proven otherwise
        self._failures: dict[Address, int] = {}
        self._barred: dict[Address, float] = {}  # until when
        self._calls: dict[PeerId, deque[float]] = {}  # of the last minute, by teller
        self._all_calls: deque[float] = deque()

    def usable(self, teller: PeerId, addresses: Iterable[Address], room: int, now: float) -> list[Address]:
        """Of these addresses those worth remembering, at most `room` new ones; they are this teller's from now on."""
        found: list[Address] = []
        for address in addresses:
            is_new = address not in self._told
            if is_new and (room <= 0 or now < self._barred.get(address, now) or not self._is_near(address.host)):
                continue
            room -= is_new
            self._told.setdefault(address, teller)
            found.append(address)
        return found

    def n_told(self, teller: PeerId, addresses: Iterable[Address]) -> int:
        """How many of these are only that device's word."""
        return sum(self._told.get(address) == teller for address in addresses)

    def is_told(self, address: Address) -> bool:
        """True when nothing but another device's word speaks for it."""
        return address in self._told

    def may_call(self, address: Address, now: float) -> bool:
        """True when it may be called now, which counts; of what is no hearsay always."""
        teller = self._told.get(address)
        if teller is None:
            return True
        calls = self._calls.setdefault(teller, deque())
        for window in (calls, self._all_calls):
            while window and now - window[0] >= WINDOW_S:
                window.popleft()
        if len(calls) >= limits.MAX_TOLD_CALLS or len(self._all_calls) >= limits.MAX_ALL_TOLD_CALLS:
            return False
        calls.append(now)
        self._all_calls.append(now)
        return True

    def failed(self, address: Address, now: float) -> bool:
        """It did not answer: True when it is not to be called any more."""
        if address not in self._told:
            return False
        self._failures[address] = self._failures.get(address, 0) + 1
        if self._failures[address] < limits.MAX_TOLD_FAILURES:
            return False
        self.forget(address)
        self._barred[address] = now + limits.FORGET_ADDRESS_S
        while len(self._barred) > limits.MAX_BLOCKED_KEYS:
            del self._barred[next(iter(self._barred))]
        return True

    def forget(self, address: Address) -> None:
        """It was proven, or nobody speaks of it any more."""
        teller = self._told.pop(address, None)
        self._failures.pop(address, None)
        if teller is not None and teller not in self._told.values() and not self._calls.get(teller):
            self._calls.pop(teller, None)

    def prune(self, now: float) -> None:
        """Let go of tellers of whom nothing is left."""
        tellers = set(self._told.values())
        for teller, calls in list(self._calls.items()):
            if teller not in tellers and (not calls or now - calls[-1] >= WINDOW_S):
                del self._calls[teller]
