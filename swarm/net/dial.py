"""Whom to call next, and where: pure, the transport asks with the time and does the calling."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field

from swarm import limits
from swarm.net.hearsay import Hearsay
from swarm.wire.ids import PeerId
from swarm.wire.records import Address

MAX_TOLD_OF_ONE = 2  # addresses of one device that another may tell at once
MAX_CALLS_AT_ONCE = 3  # addresses of one device tried side by side

Key = PeerId | Address  # a device, or an address given by hand of which the device is not known yet


@dataclass
class Target:
    """A device to be connected to."""

    addresses: list[Address]
    by_hand: bool
    next_at: float
    learnt_at: float
    not_before: float = 0.0
    down_since: float = 0.0
    index: int = 0
    wait_s: float = limits.REDIAL_FIRST_S
    calling: set[Address] = field(default_factory=set)
    is_told: bool = False  # by other devices, while it was not here


@dataclass(frozen=True)
class Unreached:
    """A device that somebody told us of and that does not answer."""

    peer: PeerId | None
    addresses: tuple[Address, ...]
    for_s: float


class Dialer:
    """Addresses of devices and the schedule of calls to them."""

    def __init__(self, me: PeerId, is_near: Callable[[str], bool] = lambda host: True) -> None:
        """`is_near`: an IP address is in one of this device's own networks; only there hearsay is followed."""
        self._me = me
        self._hearsay = Hearsay(is_near)
        self._targets: dict[Key, Target] = {}

    def hear(self, teller: PeerId, peer: PeerId, addresses: Iterable[Address], now: float) -> None:
        """Another device says where one may be reached: tried after what is known better, and not often."""
        target = self._targets.get(peer)
        if peer == self._me:
            return
        known_addresses = target.addresses if target is not None else []
        news = [each for each in dict.fromkeys(addresses) if each not in known_addresses][:MAX_TOLD_OF_ONE]
        news = [each for each in news if self._hearsay.take(teller, (peer, each), now)]
        if target is None and (not news or len(self._targets) >= limits.MAX_PEERS):
            for each in news:
                self._hearsay.forget((peer, each))
            return
        if target is None:
            target = self._targets[peer] = Target([], False, now + self._turn_s(peer), now, down_since=now)
        target.is_told = target.is_told or bool(news)
        if news or (target.is_told and not target.by_hand):
            target.learnt_at = now
        target.addresses = [*target.addresses, *news][: limits.MAX_ADDRESSES]

    def learn(self, peer: PeerId, addresses: Iterable[Address], now: float) -> None:
        """Take note of where a device may be reached; the newest news comes first."""
        if peer == self._me:
            return
        addresses = list(addresses)
        for address in addresses:
            self._hearsay.forget((peer, address))
        target = self._targets.get(peer)
        if target is None:
            if len(self._targets) >= limits.MAX_PEERS:
                return
            target = self._targets[peer] = Target([], False, now + self._turn_s(peer), now, down_since=now)
        target.learnt_at = now
        news = [address for address in dict.fromkeys(addresses) if address not in target.addresses]
        target.addresses = [*news, *target.addresses][: limits.MAX_ADDRESSES]
        if news:
            target.index, target.wait_s = 0, limits.REDIAL_FIRST_S
            target.next_at = min(target.next_at, now + limits.DIAL_TURN_S)

    def learn_by_hand(self, address: Address, now: float) -> None:
        """Call this address until something answers, for ever."""
        self._targets.setdefault(address, Target([address], True, now, now, down_since=now))

    def due(self, now: float, connected: Container[PeerId]) -> list[tuple[Key, Address]]:
        """Return the calls to make now; each must be reported with `ended` or `answered`."""
        calls: list[tuple[Key, Address]] = []
        self._hearsay.prune(now)
        for key, target in list(self._targets.items()):
            if not isinstance(key, Address) and key in connected:
                target.index, target.wait_s = 0, limits.REDIAL_FIRST_S
                target.next_at, target.learnt_at, target.down_since = now + self._turn_s(key), now, now
                if target.is_told:
                    target.is_told = False
                    for address in target.addresses:
                        self._hearsay.came((key, address))
            elif not target.by_hand and now - target.learnt_at > limits.FORGET_ADDRESS_S:
                self._forget(key)
            elif target.addresses and now >= max(target.next_at, target.not_before):
                address = self._next_address(target, now)
                is_free = len(target.calling) < MAX_CALLS_AT_ONCE and address not in target.calling
                if is_free and (isinstance(key, Address) or self._hearsay.may_call((key, address), now)):
                    target.calling.add(address)
                    calls.append((key, address))
        return calls

    def ended(self, key: Key, address: Address, now: float, wait_s: float = 0.0) -> None:
        """The call failed or the link it made is gone; `wait_s` is how long the other end asks to be left alone."""
        target = self._targets.get(key)
        if target is not None:
            target.calling.discard(address)
            target.not_before = max(target.not_before, now + wait_s)
            if not isinstance(key, Address) and self._hearsay.failed((key, address), now):
                self.drop(key, address)

    def answered(self, key: Key, address: Address, peer: PeerId, now: float) -> None:
        """A call reached this device: an address given by hand becomes one of its addresses, the first to try."""
        target = self._targets.get(key)
        self._hearsay.forget((peer, address))
        if target is not None and key == peer:
            target.calling.discard(address)
            target.addresses = [address, *(each for each in target.addresses if each != address)][
                : limits.MAX_ADDRESSES
            ]
        by_hand = self._targets.pop(address, None)  # named and remembered, perhaps: then there is no need to call it
        if by_hand is not None:
            by_hand.calling.discard(address)
            self._adopt(peer, by_hand, now)

    def drop(self, key: Key, address: Address) -> None:
        """That address leads to this very device, or to another one than was thought."""
        target = self._targets.get(key)
        if target is not None:
            target.calling.discard(address)
            target.addresses = [each for each in target.addresses if each != address]
            if not isinstance(key, Address):
                self._hearsay.forget((key, address))
            if not target.addresses:
                self._forget(key)

    def leave_alone(self, peer: PeerId, until: float) -> None:
        """Do not call a device before that time."""
        target = self._targets.get(peer)
        if target is not None:
            target.not_before = until

    def addresses(self, peer: PeerId) -> tuple[Address, ...]:
        """Return what is known of a device."""
        target = self._targets.get(peer)
        return tuple(target.addresses) if target else ()

    def unreached(self, now: float, connected: Container[PeerId]) -> list[Unreached]:
        """Return the devices that were told of and are not connected."""
        return [
            Unreached(None if isinstance(key, Address) else key, tuple(target.addresses), now - target.down_since)
            for key, target in self._targets.items()
            if isinstance(key, Address) or key not in connected
        ]

    def _forget(self, key: Key) -> None:
        for address in self._targets.pop(key).addresses:
            if not isinstance(key, Address):
                self._hearsay.forget((key, address))

    def _adopt(self, peer: PeerId, target: Target, now: float) -> None:
        before = self._targets.get(peer)
        if before is None:
            target.learnt_at = now
            self._targets[peer] = target
            return
        rest = [each for each in before.addresses if each not in target.addresses]
        before.addresses = [*target.addresses, *rest][: limits.MAX_ADDRESSES]
        before.by_hand = True

    def _turn_s(self, peer: PeerId) -> float:
        """Both learn of each other, or lose each other, at the same time: one calls, the other waits a moment."""
        return limits.DIAL_TURN_S if peer < self._me else 0.0

    @staticmethod
    def _next_address(target: Target, now: float) -> Address:
        address = target.addresses[target.index % len(target.addresses)]
        target.index += 1
        if target.index < len(target.addresses):
            target.next_at = now + limits.ADDRESS_STAGGER_S
        else:
            target.index, target.next_at = 0, now + target.wait_s
            target.wait_s = min(2 * target.wait_s, limits.REDIAL_MAX_S)
        return address
