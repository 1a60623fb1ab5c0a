"""What happened to this node, for a person who wants to know: the log, `swarm status`, the live view, the doctor."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

from swarm import limits
from swarm.cluster.effects import Log
from swarm.net.budget import Bucket
from swarm.net.events import CloneSeen, NotLetIn
from swarm.plain import one_line

log = logging.getLogger(__name__)
Fields = dict[str, str | int | float]
OTHERWISE_TOLD = ("joined", "suspected", "reachchanged")  # events of the core: the transport says the first better


class EventLog:
    """The last events; any thread may add one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}  # of each kind of event: a peer can cause as many as it likes
        self._n_left_out: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.entries: deque[tuple[float, str, Fields]] = deque(maxlen=limits.MAX_SHOWN_EVENTS)
        self.on_entry: Callable[[], object] = lambda: None  # called after each, on the thread that it is on
        self.troubles: deque[NotLetIn | CloneSeen] = deque(maxlen=limits.MAX_SHOWN_EVENTS)

    def note(self, event: str, **fields: str | int | float) -> None:
        """Something happened that a person may want to know; too much of one kind is only counted."""
        with self._lock:
            now = self._clock()
            bucket = self._buckets.setdefault(event, Bucket(limits.MAX_EVENTS_PER_S, limits.MAX_EVENTS_AT_ONCE, now))
            if not bucket.take(now):
                self._n_left_out[event] += 1
                return
            n_left_out = self._n_left_out.pop(event, 0)
        fields = {name: one_line(value) if isinstance(value, str) else value for name, value in fields.items()}
        if n_left_out:
            fields["not_told_before"] = n_left_out
        self.entries.append((time.time(), event, fields))
        log.info("%s %s", event, fields)
        self.on_entry()

    def bug(self, error: BaseException) -> None:
        """Something of ours failed."""
        log.error("a bug", exc_info=error)
        self.note("bug", why=f"{type(error).__name__}: {error}")

    def core_said(self, effect: Log) -> None:
        """An event of the core."""
        if effect.event not in OTHERWISE_TOLD:
            self.note(effect.event, **dict(effect.fields))
