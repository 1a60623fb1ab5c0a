"""How every device does its part: one account of failures for each, whatever the failure was.

Silence, a refusal with a reason, an answer that cannot be true, garbage, slowness: all count the same, because whoever
waits loses the same. A device that failed is left out for EXCLUDE_FIRST_S, then EXCLUDE_GROWTH times as long each time,
up to EXCLUDE_MAX_S; nothing that it says shortens that. Work does: FORGIVE_TOKENS that it took part in, or FORGIVE_S
without a failure, take one failure off. The account belongs to the device, not to a session or a placement.

What a device says of its memory and its speed is believed as far as it was seen: capped by what any home device has,
by the memory that it lacked when it was asked for it, and by the pace of the answers that it took part in.

Of paces the best of the last few counts, for other programs only make them worse, and it counts in steps that are not
left for little: no two answers go alike, and equal devices must not seem to be unequal. Where all answers are slower
than was planned, that says nothing about one device or another: so what was seen of one is not forgotten while it is
still seen of others, or answers would go round and round, each time to the one of which nothing is known.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from swarm import limits
from swarm.cluster.cost import Device
from swarm.wire.ids import PeerId

FASTEST_READ_BYTES_PER_S = 4e12  # four times the fastest unified memory of a desktop
FASTEST_MACS_PER_S = 1e15
MOST_MEMORY_BYTES = 4 * 1024**4
LEAST_LAYER_S = 1e-6  # two native calls
LEAST_STEP_S = 1e-5
PACE_SLACK = 3.0  # predictions are that wrong about honest devices; only what is slower counts
STEPS = tuple(float(one * ten) for ten in (1, 10, 100, 1000, 10_000) for one in (1, 2, 5))  # of slowness
STEP_LEFT = 1.25  # times beyond its end, a step is left


@dataclass(slots=True)
class Account:
    """Of one device."""

    failures: int = 0
    failed_at: float = 0.0
    until: float = 0.0  # left out before this time
    why: str = ""  # a verb and what follows, as in "den-pi does not answer"
    tokens: int = 0  # of answers that it took part in, since the last failure
    memory_bytes: int | None = None  # what it really had when it was asked
    memory_until: float = 0.0
    slowness: float = 1.0  # how much slower its answers were than its figures said: the step of the least of `paces`
    paces: deque[float] = field(default_factory=lambda: deque(maxlen=limits.PACES_KEPT))
    planned_slowness: float = 1.0  # the same when it was last planned with
    slow_at: float = float("-inf")  # when a pace was seen last
    named: PeerId | None = None  # whom it said last to have been missing in a step, and when
    named_at: float = 0.0


class Conduct:
    """The accounts of all devices that one node has to do with."""

    def __init__(self, me: PeerId) -> None:
        self.me = me
        self.accounts: dict[PeerId, Account] = {}
        self.suspicions: list[frozenset[PeerId]] = []  # one of each falsifies

    # --- what happened

    def failed(self, peer: PeerId, why: str, now: float) -> float:
        """It did not do its part: return for how many seconds it is left out; 0 when it is already.

        Our own failures (a step that cannot be computed, a part that cannot be loaded) do not add up: nobody lies.
        """
        account = self._account(peer)
        if now < account.until:
            return 0.0
        self._forgive_by_time(account, now)
        account.failures += 1
        growth = limits.EXCLUDE_GROWTH ** (account.failures - 1) if peer != self.me else 1
        seconds = min(limits.EXCLUDE_FIRST_S * growth, limits.EXCLUDE_MAX_S)
        account.failed_at, account.until, account.why, account.tokens = now, now + seconds, why, 0
        return seconds

    def lied(self, peer: PeerId, *, why: str, now: float) -> None:
        """What it computed was seen to be wrong: that is no accident of a network, and it is left out for long."""
        account = self._account(peer)
        account.failures = max(account.failures, 1)
        account.failed_at, account.until, account.why, account.tokens = now, now + limits.EXCLUDE_MAX_S, why, 0

    def falsified(self, peers: Iterable[PeerId], why: str, now: float) -> dict[PeerId, float]:
        """One of these has falsified tokens, and which one may not be known: for how many seconds each is left out.

        Of several half are left out for long. The others come back soon, and are checked again: so a few answers tell
        who it is, and then those that were left out for its sake come back.
        """
        suspects = sorted(set(peers) - {self.me})
        if len(suspects) == 1:
            self.lied(suspects[0], why=why, now=now)
            self._acquit(suspects[0], now)
            return {suspects[0]: limits.EXCLUDE_MAX_S}
        self.suspicions = [*self.suspicions, frozenset(suspects)][-limits.MAX_SUSPICIONS :]
        half = suspects[: len(suspects) // 2]
        for peer in half:
            self.lied(peer, why=f"or another device {why}", now=now)
        others = {peer: self.failed(peer, f"or another device {why}", now) for peer in suspects if peer not in half}
        return dict.fromkeys(half, limits.EXCLUDE_MAX_S) | others

    def _acquit(self, guilty: PeerId, now: float) -> None:
        """It is known who it was: whoever else was suspected for that may take part again."""
        explained = [suspects for suspects in self.suspicions if guilty in suspects]
        self.suspicions = [suspects for suspects in self.suspicions if guilty not in suspects]
        still = {peer for suspects in self.suspicions for peer in suspects}
        for peer in {peer for suspects in explained for peer in suspects} - still - {guilty}:
            account = self._account(peer)
            account.until, account.failures = now, max(account.failures - 1, 0)

    def lacked(self, peer: PeerId, memory_bytes: int, why: str, now: float) -> float:
        """It had less memory than it said. The first time it is asked for less; then that is a failure like any."""
        account = self._account(peer)
        if account.failures == 0 or peer == self.me:
            account.failures, account.failed_at = 1, now
            account.memory_bytes, account.memory_until = memory_bytes, now + limits.SHORT_MEMORY_S
            return 0.0
        return self.failed(peer, why, now)

    def names(self, accuser: PeerId, guilty: PeerId, now: float) -> set[PeerId]:
        """A member says that another one was missing in a step: who counts for that.

        Nobody else has seen it. Who names one device after the other may itself be the reason, and counts, too.
        """
        account = self._account(accuser)
        before = account.named if now < account.named_at + limits.NAMED_S else None
        account.named, account.named_at = guilty, now
        return {guilty} if before in (None, guilty) or accuser == self.me else {guilty, accuser}

    def did_well(self, peers: Iterable[PeerId], n_tokens: int) -> None:
        """Tokens of an answer came through these devices."""
        for peer in peers:
            account = self.accounts.get(peer)
            if account is not None and account.failures:
                account.tokens += n_tokens
                if account.tokens >= limits.FORGIVE_TOKENS:
                    account.tokens, account.failures = 0, account.failures - 1

    def planned(self, peers: Iterable[PeerId]) -> None:
        """A placement was made with what is believed of these devices now."""
        for peer in peers:
            if peer in self.accounts:
                self.accounts[peer].planned_slowness = self.accounts[peer].slowness

    def saw_pace(self, peers: Iterable[PeerId], ratio: float, now: float) -> None:
        """An answer through these devices takes `ratio` times as long as was planned."""
        for peer in peers:
            if peer != self.me and (ratio > PACE_SLACK or peer in self.accounts):
                account = self._account(peer)
                account.paces.append(min(max(account.planned_slowness * ratio / PACE_SLACK, 1.0), limits.MAX_SLOWNESS))
                account.slowness, account.slow_at = _in_steps(min(account.paces), account.slowness), now

    # --- questions

    def why_left_out(self, peer: PeerId, now: float) -> str:
        """Why nothing is to be placed there that fits elsewhere; empty when there is no reason."""
        account = self.accounts.get(peer)
        return f"it {account.why}" if account is not None and now < account.until else ""

    def memory_bytes(self, device: Device, now: float) -> int:
        """What it is worth asking a device for, where something fits without the rest."""
        account = self.accounts.get(device.id)
        if account is None or account.memory_bytes is None or now >= account.memory_until:
            return device.memory_bytes
        return min(device.memory_bytes, account.memory_bytes)

    def believed(self, device: Device, now: float) -> Device:
        """A device's figures as far as they were seen."""
        slowness = self._slowness(device.id, now)
        return replace(
            device,
            memory_bytes=min(device.memory_bytes, MOST_MEMORY_BYTES),
            read_bytes_per_s=min(device.read_bytes_per_s, FASTEST_READ_BYTES_PER_S) / slowness,
            macs_per_s=min(device.macs_per_s, FASTEST_MACS_PER_S) / slowness,
            layer_s=max(device.layer_s, LEAST_LAYER_S) * slowness,
            step_s=max(device.step_s, LEAST_STEP_S) * slowness,
        )

    # --- within

    def _account(self, peer: PeerId) -> Account:
        account = self.accounts.pop(peer, None) or Account()
        self.accounts[peer] = account  # the one that was used last comes last
        while len(self.accounts) > limits.MAX_ACCOUNTS:
            del self.accounts[min(self.accounts, key=lambda key: (self.accounts[key].until, key))]
        return account

    def _slowness(self, peer: PeerId, now: float) -> float:
        """What was seen lately; later, as much of that as was seen lately of any device."""
        account = self.accounts.get(peer)
        if account is None or account.slowness == 1.0:
            return 1.0
        if now < account.slow_at + limits.FORGIVE_S:
            return account.slowness
        lately = [each.slowness for each in self.accounts.values() if now < each.slow_at + limits.FORGIVE_S]
        return min(account.slowness, *lately) if lately else 1.0

    @staticmethod
    def _forgive_by_time(account: Account, now: float) -> None:
        forgiven = int((now - account.failed_at) / limits.FORGIVE_S)
        account.failures = max(account.failures - forgiven, 0)


def _in_steps(seen: float, before: float) -> float:
    """The step below what was seen, or the one from before where that is not far from it."""
    if before / STEP_LEFT <= seen < STEP_LEFT * STEPS[min(bisect_right(STEPS, before), len(STEPS) - 1)]:
        return before
    return STEPS[bisect_right(STEPS, seen) - 1]
