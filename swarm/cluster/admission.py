"""Which of the questions that wait is answered next, which may wait at all, and when one that may not comes again.

At most MAX_ACTIVE_SESSIONS answers of an entry node run at once. Places are shared among those who ask, not among
questions: next comes whoever has the fewest answers running, and of those the question that waits longest. So a program
that asks forty things at once takes what is free and holds nobody else up. The queue has a few places beside its limit
for those who have nothing in it.

An answer asks for more memory when what it reserved is full (`AnswerRequest.goes_on`). Its place is held until then,
and it is never refused: its reader has the first half already.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence

from swarm import limits
from swarm.cluster.session import AnswerRequest, Phase, Session


class Admission:
    """Remembers how long answers took; the rest follows from the sessions."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=limits.ANSWERS_TIMED)

    def took(self, seconds: float) -> None:
        """An answer, or one reservation of it, is over; so long it had its place."""
        self._seconds.append(seconds)

    def retry_s(self, sessions: Iterable[Session]) -> float:
        """Seconds after which one of those that wait will have got a place, as answers went lately."""
        if not self._seconds:
            return limits.RETRY_GUESS_S
        n_active = max(sum(session.is_active for session in sessions), 1)
        mean_s = sum(self._seconds) / len(self._seconds)
        return min(max(mean_s / n_active, 1.0), limits.MAX_RETRY_S)


def has_room(ask: AnswerRequest, sessions: Iterable[Session]) -> bool:
    """Whether a question may wait."""
    waiting = Counter(session.ask.asker for session in sessions if session.phase is Phase.QUEUED)
    if ask.goes_on or waiting.total() < limits.MAX_WAITING_SESSIONS:
        return True
    return not waiting[ask.asker] and waiting.total() < limits.MAX_WAITING_SESSIONS + limits.KEPT_WAITING_SESSIONS


def next_of(sessions: Sequence[Session], now: float) -> Session | None:
    """Of those that wait, in the order in which they came, the one that begins now; None: no place is free."""
    waiting = [session for session in sessions if session.phase is Phase.QUEUED]
    if not waiting or sum(session.takes_place(now) for session in sessions) >= limits.MAX_ACTIVE_SESSIONS:
        return None
    n_active = Counter(session.ask.asker for session in sessions if session.is_active)
    return min(waiting, key=lambda session: -1 if session.ask.goes_on else n_active[session.ask.asker])


def seconds_text(seconds: float) -> str:
    """For the sentence that says when to come again."""
    whole = math.ceil(seconds)
    return "a second" if whole <= 1 else f"{whole} seconds"
