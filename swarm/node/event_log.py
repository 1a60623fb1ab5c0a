"""What happened to this node, for a person who wants to know: the log, `swarm status`, the live view, the doctor."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from swarm import limits
from swarm.cluster.effects import Log
from swarm.net.events import CloneSeen, NotLetIn

log = logging.getLogger(__name__)
Fields = dict[str, str | int | float]
OTHERWISE_TOLD = ("joined", "suspected", "reachchanged")  # events of the core: the transport says the first better


class EventLog:
    """The last events; any thread may add one."""

    def __init__(self) -> None:
        self.entries: deque[tuple[float, str, Fields]] = deque(maxlen=limits.MAX_SHOWN_EVENTS)
        self.on_entry: Callable[[], object] = lambda: None  # called after each, on the thread that it is on
        self.troubles: deque[NotLetIn | CloneSeen] = deque(maxlen=limits.MAX_SHOWN_EVENTS)

    def note(self, event: str, **fields: str | int | float) -> None:
        """Something happened that a person may want to know."""
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
