"""`swarm rekey`: every device but the lost one gets a new swarm key. Pure; the node sends and writes.

The device where it is run makes the key and sends it to all others over their proven links; each writes it down, says
RekeyDone, and starts its transport anew with it. When all have, or the time is over, the first one does the same. What
was not connected meanwhile has the old key, which opens nothing any more: it needs an invitation.
"""

from __future__ import annotations

from collections.abc import Iterable

from swarm.errors import SwarmKeyError
from swarm.net.keys import SwarmKey
from swarm.wire.ids import PeerId
from swarm.wire.messages import Rekey, RekeyDone

WAIT_S = 5.0  # a file is written in milliseconds; a device that does not answer is on its own
RESTART_AFTER_S = 0.5  # a receiver's RekeyDone must leave before its transport stops


class Rekeying:
    """The side of the device where it is run."""

    def __init__(self, key: SwarmKey, remaining: Iterable[PeerId], now: float) -> None:
        self.key = key
        self.waiting = set(remaining)
        self.done: set[PeerId] = set()
        self._ends_at = now + WAIT_S

    def message(self) -> Rekey:
        """Return what to send to each of `waiting`, and to nobody else."""
        return Rekey(self.key.generation, self.key.secret)

    def take(self, peer: PeerId, message: RekeyDone) -> None:
        """A device has written the new key down."""
        if peer in self.waiting and message.generation == self.key.generation:
            self.waiting.discard(peer)
            self.done.add(peer)

    def lost(self, peer: PeerId) -> None:
        """A device went down; it may have the key or not."""
        self.waiting.discard(peer)

    def is_over(self, now: float) -> bool:
        """True when this device may change over too; who is still `waiting` is told to the user."""
        return not self.waiting or now >= self._ends_at


def accept(own: SwarmKey, message: Rekey) -> SwarmKey | None:
    """Return the key to write down, None for one that we have already; raise SwarmKeyError for one that is older.

    Generations only grow, so that a rekey that was recorded or delayed cannot bring an old key back.
    """
    new = SwarmKey(message.swarm_key, message.generation)
    if new == own:
        return None
    if new.generation <= own.generation:
        raise SwarmKeyError("another device sent an older swarm key; it was not taken")
    return new
