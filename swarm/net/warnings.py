"""What goes wrong for good is told once, not at every try. Pure."""

from __future__ import annotations

from swarm import limits
from swarm.net.events import CloneSeen, NotLetIn
from swarm.wire.ids import PeerId
from swarm.wire.records import Address

CLONE_ADVICE = (
    "one has a copy of the other's files (a cloned SD card?); run `swarm forget` on one and let it join again"
)


class Warnings:
    """Turns trouble into events, each at most once in WARNING_INTERVAL_S."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], float] = {}

    def not_let_in(self, reason: str, address: Address, text: str, now: float) -> NotLetIn | None:
        """Return the event for a refused call; None for old news, and for what the next call cures."""
        if reason in ("hello", "garbage", "full") or not self._is_news(reason, address.host, now):
            return None
        return NotLetIn(address, reason, text)

    def clone(self, peer: PeerId, who: str, now: float) -> CloneSeen | None:
        """Return the event for two devices with one id."""
        if not self._is_news("clone", peer, now):
            return None
        return CloneSeen(peer, f"{who} have the same id {peer[:8]}: {CLONE_ADVICE}")

    def _is_news(self, what: str, whom: str, now: float) -> bool:
        if now < self._until.get((what, whom), 0.0):
            return False
        if len(self._until) >= limits.MAX_PEERS:
            self._until.clear()
        self._until[what, whom] = now + limits.WARNING_INTERVAL_S
        return True
