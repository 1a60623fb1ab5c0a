"""How many messages one device may send: pure. More than any honest one sends, and less than makes this one deaf.

What an answer needs (activations, tokens, chunks) comes fast; what is told or asked now and then has a budget of its
own, because one such message may cost much more than it takes to send.
"""

from __future__ import annotations

from swarm import limits
from swarm.wire import messages as m

OFTEN = frozenset(
    (
        m.Tokens,
        m.Activation,
        m.StageStep,
        m.Token,
        m.Vector,
        m.Prefilled,
        m.ChunkRequest,
        m.ChunkReply,
        m.ChunkCancel,
        m.LinkProbe,
        m.LinkProbed,
    )
)

HANDFUL = 50  # messages of an answer that are taken at once: a count is quicker than a clock, for every token


class Bucket:
    """So many a second, and so many at once."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self._rate, self._burst = per_s, burst
        self._left, self._at = burst, now

    def take(self, now: float) -> bool:
        """Take one; False when none is left."""
        self._left = min(self._left + (now - self._at) * self._rate, self._burst)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class MessageBudget:
    """Of one device, over all its links."""

    __slots__ = ("_in_hand", "_often", "_seldom")

    def __init__(self, now: float) -> None:
        self._often = Bucket(limits.MAX_DATA_PER_S / HANDFUL, limits.MAX_DATA_AT_ONCE / HANDFUL, now)  # in handfuls
        self._in_hand = 0
        self._seldom = Bucket(limits.MAX_TOLD_PER_S, limits.MAX_TOLD_AT_ONCE, now)

    def take(self, kind: type[m.Message] | None, now: float) -> bool:
        """A message of this kind came (None: one that is not known here); False when it is one too many."""
        if kind not in OFTEN:
            return self._seldom.take(now)
        if not self._in_hand:
            if not self._often.take(now):
                return False
            self._in_hand = HANDFUL
        self._in_hand -= 1
        return True
