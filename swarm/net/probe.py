"""How many bytes a second a link carries: a few frames over the bulk lane, timed by when the peer has them."""

from __future__ import annotations

from dataclasses import dataclass, field

from swarm.net.events import Received
from swarm.wire.ids import PeerId
from swarm.wire.messages import LinkProbe, LinkProbed

FRAME = bytes(1024 * 1024)
N_FRAMES = 6  # 50 ms on gigabit, 5 s on a bad Wi-Fi
GIVE_UP_S = 30.0


@dataclass
class BandwidthProbe:
    """One measurement to one peer: send `frames()` in order, then hand every LinkProbed of that peer to `take`."""

    peer: PeerId
    started_at: float
    first_sequence: int = 0
    _first_at: float = 0.0
    _seen: set[int] = field(default_factory=set)

    def frames(self) -> list[tuple[LinkProbe, bytes]]:
        """Return what to send."""
        return [(LinkProbe(self.first_sequence + i), FRAME) for i in range(N_FRAMES)]

    def take(self, event: Received, now: float) -> float | None:
        """Return bytes per second when the last answer is there.

        Timed from the first answer to the last: what the first frame needed to get under way does not count.
        """
        message = event.message
        if not isinstance(message, LinkProbed) or event.peer != self.peer or message.n_bytes != len(FRAME):
            return None
        if not self.first_sequence <= message.sequence < self.first_sequence + N_FRAMES:
            return None
        if not self._seen:
            self._first_at = now
        self._seen.add(message.sequence)
        if len(self._seen) < N_FRAMES:
            return None
        return (N_FRAMES - 1) * len(FRAME) / max(now - self._first_at, 1e-6)

    def is_over(self, now: float) -> bool:
        """True when no answer will come any more."""
        return now - self.started_at > GIVE_UP_S
