"""Where other devices say that others are: pure. It is tried, a little; a bad peer must not make this device a cannon.

Only addresses in this device's own networks count, few from each teller, at a slow pace for each teller and for all of
them together, and one that does not answer a few times is not called again for a long while, whoever names it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from swarm import limits
from swarm.wire.ids import PeerId
from swarm.wire.records import Address

WINDOW_S = 60.0
Said = tuple[PeerId, Address]  # that this device is there


class Hearsay:
    """What tellers said, and how often it was acted on."""

    def __init__(self, is_near: Callable[[str], bool]) -> None:
        """`is_near`: an IP address is in one of this device's own networks."""
        self._is_near = is_near
        self._told: dict[Said, PeerId] = {}  # who said what, as long as nothing else speaks for it
        self._counted: dict[Said, PeerId] = {}  # those of devices that are not here: they count
        self._n_counted: Counter[PeerId] = Counter()
        self._failures: dict[Address, int] = {}
        self._barred: dict[Address, float] = {}  # until when
        self._calls: dict[PeerId, deque[float]] = {}  # of the last minute, by teller
        self._all_calls: deque[float] = deque()

    def take(self, teller: PeerId, said: Said, now: float) -> bool:
        """Remember what a device says, when that is worth a call and it has not told too much already."""
        address = said[1]
        if self._n_counted[teller] >= limits.MAX_TOLD_ADDRESSES:
            return False
        if now < self._barred.get(address, now) or not self._is_near(address.host):
            return False
        self._told[said] = self._counted[said] = teller
        self._n_counted[teller] += 1
        return True

    def is_told(self, said: Said) -> bool:
        """True when nothing but another device's word speaks for it."""
        return said in self._told

    def may_call(self, said: Said, now: float) -> bool:
        """True when it may be called now, which counts; of what is no hearsay always."""
        teller = self._told.get(said)
        if teller is None:
            return True
        if now < self._barred.get(said[1], now):
            return False
        calls = self._calls.setdefault(teller, deque())
        for window in (calls, self._all_calls):
            while window and now - window[0] >= WINDOW_S:
                window.popleft()
        if len(calls) >= limits.MAX_TOLD_CALLS or len(self._all_calls) >= limits.MAX_ALL_TOLD_CALLS:
            return False
        calls.append(now)
        self._all_calls.append(now)
        return True

    def failed(self, said: Said, now: float) -> bool:
        """It did not answer: True when it is not to be called any more."""
        address = said[1]
        if said not in self._told:
            return False
        self._failures[address] = self._failures.get(address, 0) + 1
        if self._failures[address] < limits.MAX_TOLD_FAILURES:
            return False
        del self._failures[address]
        self._barred[address] = now + limits.FORGET_ADDRESS_S
        while len(self._barred) > limits.MAX_BLOCKED_KEYS:
            del self._barred[next(iter(self._barred))]
        return True

    def came(self, said: Said) -> None:
        """That device is here: whoever told of it may tell of another."""
        teller = self._counted.pop(said, None)
        if teller is not None:
            self._n_counted[teller] -= 1

    def forget(self, said: Said) -> None:
        """It was proven, or nobody speaks of it any more."""
        self.came(said)
        if self._told.pop(said, None) is not None:
            self._failures.pop(said[1], None)

    def prune(self, now: float) -> None:
        """Let go of calls that are long past."""
        for teller, calls in list(self._calls.items()):
            if not calls or now - calls[-1] >= WINDOW_S:
                del self._calls[teller]
